//! Whether a campaign may say something to somebody now: one function, in one order, for whoever asks.
//!
//! It is asked when a step is due, and again at the gate, under its locks, with what is known then.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::situation::Situation;
use crate::conversation::mode::Mode;
use crate::sop::slot::{self, Slot};
use crate::sop::spread::order;

/// How long something waits that a person must put right: about this long, not all at once.
const LOOK_AGAIN: TimeDelta = TimeDelta::minutes(10);

/// How long a paused plan is left alone, should nobody wake its people when it goes on.
const PAUSED: TimeDelta = TimeDelta::hours(1);

/// How long a held account is left alone: whoever lifts the hold wakes its people.
const HELD: TimeDelta = TimeDelta::hours(1);

/// How long a conversation is left to a person who has taken it for good.
const TAKEN_OVER: TimeDelta = TimeDelta::minutes(30);

/// A person has the conversation.
pub(super) const TAKEN_OVER_CODE: &str = "taken_over";

/// What is said to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may be sent.
    Send,
    /// It waits.
    NotYet {
        /// Until then, when everything is asked again.
        until: DateTime<Utc>,
        /// Why.
        code: &'static str,
        /// The plan itself wants it so: it is due then, and not late.
        moves: bool,
    },
    /// It is left out, and the enrollment goes on.
    Skip {
        /// Why.
        code: &'static str,
    },
    /// The enrollment ends.
    Exit {
        /// Why.
        code: &'static str,
    },
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// The step is due, and its message would be enqueued.
    Step,
    /// The message is about to leave. Whether the account is online is asked by the gate itself.
    Gate,
}

impl Verdict {
    /// Returns why the message is not sent now; nothing, if it is.
    pub fn code(self) -> Option<&'static str> {
        match self {
            Verdict::Send => None,
            Verdict::NotYet { code, .. } | Verdict::Skip { code } | Verdict::Exit { code } => Some(code),
        }
    }
}

/// Tells whether the message of a step may be sent that was due at `planned_at`.
///
/// The order is that of the reasons' weight, and the first "no" counts: the plan, emergency stops, the account, the person, the
/// conversation ([`objections`]), then lateness, window, caps ([`in_time`]). Rendering and the account's rate come after it.
pub fn may_send(
    situation: &Situation<'_>,
    asker: Asker,
    by_model: bool,
    planned_at: DateTime<Utc>,
) -> Verdict {
    let first = objections(situation, asker, by_model).into_iter().next();
    first.unwrap_or_else(|| in_time(situation, planned_at))
}

/// Returns everything that speaks against a message whatever the time is, the weightiest first.
pub fn objections(situation: &Situation<'_>, asker: Asker, by_model: bool) -> Vec<Verdict> {
    let (now, facts) = (situation.now, situation.facts);
    let mut found = Vec::new();
    let later = |code| Verdict::NotYet {
        until: now + LOOK_AGAIN + apart(situation.enrollment.id),
        code,
        moves: false,
    };
    match facts.plan_status.as_str() {
        "RUNNING" => {}
        "PAUSED" => found.push(Verdict::NotYet { until: now + PAUSED, code: "sop_paused", moves: false }),
        _ => found.push(Verdict::Exit { code: "canceled" }),
    }
    let stopped = |scope: &str| facts.stops.iter().any(|stop| stop == scope);
    if stopped("organization") || stopped("account") || stopped("sop") || (by_model && stopped("ai")) {
        found.push(later("stopped"));
    }
    if facts.account_gone {
        found.push(Verdict::Exit { code: "account_removed" });
    }
    match (facts.account_status.as_str(), asker) {
        ("ONLINE", _) | ("OFFLINE", Asker::Gate) => {}
        ("RISK_HOLD", _) => {
            let until = now + HELD + apart(situation.enrollment.id);
            found.push(Verdict::NotYet { until, code: "account_risk", moves: false });
        }
        ("OFFLINE", Asker::Step) => found.push(later("account_offline")),
        _ => found.push(later("account_not_ready")),
    }
    found.extend(refusals(situation).into_iter().map(|code| Verdict::Exit { code }));
    if situation.mode() != Mode::Ai {
        let left = facts.mode_until.map_or(TAKEN_OVER, |until| until - facts.true_now);
        found.push(Verdict::NotYet {
            until: now + left.max(TimeDelta::seconds(1)),
            code: TAKEN_OVER_CODE,
            moves: false,
        });
    }
    found
}

/// Tells whether it is the time for a message that was due at `planned_at`: not too late for it, inside the window, below the caps.
pub fn in_time(situation: &Situation<'_>, planned_at: DateTime<Utc>) -> Verdict {
    let Some(counts) = &situation.counts else {
        // Nobody sends without having counted.
        let until = situation.now + LOOK_AGAIN + apart(situation.enrollment.id);
        return Verdict::NotYet { until, code: "not_counted", moves: false };
    };
    let config = &situation.plan.config;
    let caps = situation.caps();
    let rules = slot::Rules {
        house: situation.house_zone(),
        person: situation.zone(),
        caps: &caps,
        on_cap: config.caps.on_cap,
        late: config.late.as_ref(),
        standing: situation.standing(),
    };
    let opening = situation.opening();
    match slot::ask(situation.now, planned_at, |at| opening.next_allowed(at), &rules, counts) {
        Slot::Now => Verdict::Send,
        Slot::Due { at, code } => Verdict::NotYet { until: at, code, moves: true },
        Slot::Skip { code } => Verdict::Skip { code },
        Slot::Exit { code } => Verdict::Exit { code },
    }
}

/// Says why nobody writes to this person any more, whatever the plan says.
pub fn refusals(situation: &Situation<'_>) -> Vec<&'static str> {
    let (facts, consent) = (situation.facts, &situation.plan.config.audience.consent);
    let purpose = consent.purpose.as_deref().unwrap_or_default();
    let agreed = !consent.required || facts.purposes.iter().any(|agreed| agreed == purpose);
    let reasons = [
        (facts.opted_out, "opted_out"),
        (facts.removed, "contact_removed"),
        (facts.suppressed, "contact_suppressed"),
        (!agreed, "consent_missing"),
    ];
    reasons.into_iter().filter(|(met, _)| *met).map(|(_, code)| code).collect()
}

/// What an enrollment waits longer than others, so that not all come at once when a stop is lifted: up to five minutes, always the
/// same.
fn apart(enrollment: Uuid) -> TimeDelta {
    TimeDelta::milliseconds(i64::try_from(order(enrollment) % 300_000).unwrap_or_default())
}
