//! Whether a plan can be carried out on the days that it has: `W04`, `W05`.

use chrono::{DateTime, Days, NaiveDate, NaiveTime};

use super::shape::Shape;
use super::{Findings, Surroundings};
use crate::sop::config::WorkflowConfig;
use crate::sop::config::cron_expression;
use crate::sop::config::trigger::Trigger;
use crate::sop::config::window::{self, HolidayCalendar};
use crate::sop::finding::{Code, shown};

/// How many times of a trigger are looked at.
const TIMES: usize = 12;

/// Says what may be wrong.
pub(super) fn check(
    config: &WorkflowConfig,
    shape: &Shape,
    around: &Surroundings<'_>,
    findings: &mut Findings,
) {
    let Some(days) = shape.days(config) else { return };
    volume(config, shape, &days, around, findings);
    holidays(config, &days, around, findings);
}

/// `W04`: everybody goes the way with the most messages, and each account sends as many on a day as it may. The plan has as many
/// days as lie between its first message and its last, both counted.
fn volume(
    config: &WorkflowConfig,
    shape: &Shape,
    days: &[u64],
    around: &Surroundings<'_>,
    findings: &mut Findings,
) {
    let messages = shape.most_messages(config).unwrap_or_default();
    let planned = days.last().zip(days.first()).map_or(1, |(last, first)| last - first + 1);
    let needed = |account: &super::AccountLoad| {
        let per_day = u64::from(account.per_day.min(config.caps.per_account_per_day)).max(1);
        account.recipients.saturating_mul(messages).div_ceil(per_day)
    };
    let Some(slowest) = around.accounts.iter().max_by_key(|account| needed(account)) else { return };
    let needed = needed(slowest);
    if needed > planned {
        let message = format!(
            "about {} messages of the account {} take {needed} days at {} a day, and the plan has {planned}: choose \
             fewer people, more accounts or fewer messages, or accept that they wait",
            slowest.recipients.saturating_mul(messages),
            shown(&slowest.name),
            slowest.per_day.min(config.caps.per_account_per_day),
        );
        findings.say(Code::W04, "/caps/per_account_per_day", message);
    }
}

/// `W05`: for a moment, the days of all messages by the plan; for times that repeat, the next twelve.
fn holidays(config: &WorkflowConfig, days: &[u64], around: &Surroundings<'_>, findings: &mut Findings) {
    if config.send_window.holiday_calendar == HolidayCalendar::None {
        return;
    }
    let (path, dates): (_, Vec<NaiveDate>) = match &config.trigger {
        Trigger::Once { at } => {
            let first = at.with_timezone(&config.timezone).date_naive();
            ("/trigger/at", days.iter().filter_map(|day| first.checked_add_days(Days::new(*day))).collect())
        }
        Trigger::Cron { cron, .. } => ("/trigger/cron", times(config, cron, around.today)),
        Trigger::Manual {} | Trigger::Event { .. } => return,
    };
    if dates.is_empty() || !dates.iter().all(|date| (around.is_holiday)(*date)) {
        return;
    }
    let becomes = match config.send_window.days {
        window::Days::Workday => "its messages will wait for the next working day",
        window::Days::Any | window::Days::Custom => "its messages will be sent on holidays",
    };
    let message =
        format!("every date of the plan is a holiday: {becomes}; choose another date, or accept it");
    findings.say(Code::W05, path, message);
}

fn times(config: &WorkflowConfig, cron: &str, today: NaiveDate) -> Vec<NaiveDate> {
    // One that cannot be read is told by `E13`.
    let Ok(schedule) = cron_expression::schedule(cron) else { return Vec::new() };
    let mut at = DateTime::from_naive_utc_and_offset(today.and_time(NaiveTime::MIN), chrono::Utc);
    let mut dates = Vec::new();
    while let Some(next) =
        cron_expression::next(&schedule, config.timezone, at).filter(|_| dates.len() < TIMES)
    {
        dates.push(next.with_timezone(&config.timezone).date_naive());
        at = next;
    }
    dates
}
