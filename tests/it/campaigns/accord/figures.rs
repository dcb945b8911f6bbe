//! What was foreseen and what has become of it, by account and day.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, NaiveTime, Utc, Weekday};
use diesel::sql_types::{Nullable, Text, Timestamptz, Uuid as SqlUuid};
use entropy_jobs::campaign::dry_run::Played;
use uuid::Uuid;

use super::stage::Stage;

/// A message of the campaign.
#[derive(Debug, diesel::QueryableByName)]
pub(super) struct Step {
    #[diesel(sql_type = SqlUuid)]
    pub(super) account_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    pub(super) contact_id: Uuid,
    #[diesel(sql_type = Text)]
    pub(super) wxid: String,
    #[diesel(sql_type = Text)]
    pub(super) state: String,
    #[diesel(sql_type = Nullable<Text>)]
    pub(super) text: Option<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub(super) sent_at: Option<DateTime<Utc>>,
}

impl Step {
    /// Whether it has left, as far as anybody knows.
    pub(super) fn left(&self) -> bool {
        matches!(self.state.as_str(), "sent" | "unknown")
    }
}

/// Somebody's way.
#[derive(Debug, diesel::QueryableByName)]
pub(super) struct Way {
    #[diesel(sql_type = SqlUuid)]
    pub(super) contact_id: Uuid,
    #[diesel(sql_type = Nullable<Text>)]
    pub(super) reason: Option<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub(super) replied_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub(super) finished_at: Option<DateTime<Utc>>,
}

/// What has become of everybody.
pub(super) struct Course {
    pub(super) steps: Vec<Step>,
    pub(super) ways: Vec<Way>,
}

/// What was foreseen.
pub(super) struct Foreseen {
    by_day: BTreeMap<(Uuid, NaiveDate), u32>,
    by_contact: BTreeMap<Uuid, u32>,
}

/// How far both are the same.
#[derive(Debug, Default)]
pub(super) struct Same {
    /// Days of accounts with as many messages, and all.
    pub(super) days: usize,
    pub(super) of: usize,
    /// Messages of theirs that left on another day, and the most of an account and day.
    pub(super) moved: u32,
    pub(super) most: u32,
    /// All that were foreseen.
    pub(super) messages: u32,
    /// Of one account, day by day.
    pub(super) of_new: String,
}

impl Course {
    pub(super) fn foreseen(stage: &Stage, played: &Played) -> Foreseen {
        let mut foreseen = Foreseen { by_day: BTreeMap::new(), by_contact: BTreeMap::new() };
        for item in played.page(0, usize::MAX >> 1).0 {
            assert_eq!(item.outcome, "sent", "{item:?}");
            let account = stage.accounts[stage.people[&item.contact_id].account].id;
            let at = item.at.expect("a time");
            assert!(is_open(at), "{item:?}");
            *foreseen.by_day.entry((account, day(at))).or_default() += 1;
            *foreseen.by_contact.entry(item.contact_id).or_default() += 1;
        }
        foreseen
    }

    pub(super) fn by_day(&self) -> BTreeMap<(Uuid, NaiveDate), u32> {
        let mut by_day = BTreeMap::new();
        for step in self.steps.iter().filter(|step| step.left()) {
            *by_day.entry((step.account_id, day(step.sent_at.expect("a time")))).or_default() += 1;
        }
        by_day
    }

    /// When the last message left.
    pub(super) fn ends_at(&self) -> DateTime<Utc> {
        self.last().sent_at.expect("a time")
    }

    /// The account that sent it.
    pub(super) fn last_account(&self) -> Uuid {
        self.last().account_id
    }

    fn last(&self) -> &Step {
        let left = self.steps.iter().filter(|step| step.left());
        left.max_by_key(|step| step.sent_at).expect("a message")
    }

    /// Compares the accounts whose people do as was foreseen, and tells of one of them day by day. Everybody gets all of it;
    /// `went_wrong`: but these.
    pub(super) fn compare(
        &self,
        foreseen: &Foreseen,
        stage: &Stage,
        one: Uuid,
        went_wrong: &BTreeSet<Uuid>,
    ) -> Same {
        let mut by_contact: BTreeMap<Uuid, u32> = BTreeMap::new();
        for step in self.steps.iter().filter(|step| step.left()) {
            *by_contact.entry(step.contact_id).or_default() += 1;
        }
        for (contact, messages) in &foreseen.by_contact {
            let is_ruly = stage.is_ruly(stage.accounts[stage.people[contact].account].id);
            if is_ruly && !went_wrong.contains(contact) {
                assert_eq!(by_contact.get(contact), Some(messages), "{contact}");
            }
        }
        let by_day = self.by_day();
        let days: BTreeSet<&(Uuid, NaiveDate)> = by_day
            .keys()
            .chain(foreseen.by_day.keys())
            .filter(|(account, _)| stage.is_ruly(*account))
            .collect();
        let mut same = Same::default();
        for on in days {
            let foreseen = foreseen.by_day.get(on).copied().unwrap_or_default();
            let sent = by_day.get(on).copied().unwrap_or_default();
            let off = foreseen.abs_diff(sent);
            if on.0 == one {
                same.of_new += &format!(" {sent}/{foreseen}");
            }
            same.of += 1;
            same.days += usize::from(off == 0);
            same.moved += off;
            same.most = same.most.max(off);
            same.messages += foreseen;
        }
        same
    }
}

/// The day in Shanghai.
pub(super) fn day(at: DateTime<Utc>) -> NaiveDate {
    local(at).0
}

/// Whether it is ten to twelve or two to six on a workday of that autumn.
pub(super) fn is_open(at: DateTime<Utc>) -> bool {
    let (on, time) = local(at);
    let hour = |hour| NaiveTime::from_hms_opt(hour, 0, 0).expect("a time");
    let in_hours = (hour(10)..hour(12)).contains(&time) || (hour(14)..hour(18)).contains(&time);
    let october = |day| NaiveDate::from_ymd_opt(2026, 10, day).expect("a day");
    let is_weekend = matches!(on.weekday(), Weekday::Sat | Weekday::Sun);
    // The Saturday behind the National Day is worked.
    let is_workday = !(october(1)..=october(7)).contains(&on) && (!is_weekend || on == october(10));
    in_hours && is_workday
}

fn local(at: DateTime<Utc>) -> (NaiveDate, NaiveTime) {
    let local = at.with_timezone(&FixedOffset::east_opt(8 * 3600).expect("an offset"));
    (local.date_naive(), local.time())
}
