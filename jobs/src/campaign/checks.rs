//! Whether a campaign may say something to somebody now: one function, in one order, for whoever asks.
//!
//! It is asked when a step is due, and again at the gate, under its locks, with what is known then.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::situation::Situation;
use crate::conversation::mode::Mode;
use crate::sop::caps;
use crate::sop::config::rules::OnExpired;
use crate::sop::late;
use crate::sop::spread::order;

/// How long something waits that a person must put right: about this long, not all at once.
const LOOK_AGAIN: TimeDelta = TimeDelta::minutes(10);

/// How long a paused plan is left alone, should nobody wake its people when it goes on.
const PAUSED: TimeDelta = TimeDelta::hours(1);

/// How long a held account is left alone: whoever lifts the hold wakes its people.
const HELD: TimeDelta = TimeDelta::hours(1);

/// How long a conversation is left to a person who has taken it for good.
const TAKEN_OVER: TimeDelta = TimeDelta::minutes(30);

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

/// Tells whether the message of a step may be sent that was due at `planned_at`.
///
/// The order is that of the reasons' weight, and the first "no" counts: the plan, emergency stops, the account, the person, the
/// conversation, lateness, window, caps. Rendering and the account's rate come after it.
pub fn may_send(
    situation: &Situation<'_>,
    asker: Asker,
    by_model: bool,
    planned_at: DateTime<Utc>,
) -> Verdict {
    let (now, facts) = (situation.now, situation.facts);
    let later = |code| Verdict::NotYet {
        until: now + LOOK_AGAIN + apart(situation.enrollment.id),
        code,
        moves: false,
    };
    match facts.plan_status.as_str() {
        "RUNNING" => {}
        "PAUSED" => return Verdict::NotYet { until: now + PAUSED, code: "sop_paused", moves: false },
        _ => return Verdict::Exit { code: "canceled" },
    }
    let stopped = |scope: &str| facts.stops.iter().any(|stop| stop == scope);
    if stopped("organization") || stopped("account") || stopped("sop") || (by_model && stopped("ai")) {
        return later("stopped");
    }
    if facts.account_gone {
        return Verdict::Exit { code: "account_removed" };
    }
    match (facts.account_status.as_str(), asker) {
        ("ONLINE", _) | ("OFFLINE", Asker::Gate) => {}
        ("RISK_HOLD", _) => {
            let until = now + HELD + apart(situation.enrollment.id);
            return Verdict::NotYet { until, code: "account_risk", moves: false };
        }
        ("OFFLINE", Asker::Step) => return later("account_offline"),
        _ => return later("account_not_ready"),
    }
    if let Some(code) = refuses(situation) {
        return Verdict::Exit { code };
    }
    if situation.mode() != Mode::Ai {
        let left = facts.mode_until.map_or(TAKEN_OVER, |until| until - facts.true_now);
        return Verdict::NotYet {
            until: now + left.max(TimeDelta::seconds(1)),
            code: "taken_over",
            moves: false,
        };
    }
    let config = &situation.plan.config;
    match late::expired(planned_at, now, config.late.as_ref(), situation.zone()) {
        Some(OnExpired::Skip) => return Verdict::Skip { code: "late" },
        Some(OnExpired::Exit) => return Verdict::Exit { code: "late" },
        None => {}
    }
    match situation.opening().next_allowed(now) {
        None => return Verdict::Exit { code: "window_never_opens" },
        Some(until) if until > now => return Verdict::NotYet { until, code: "window", moves: true },
        Some(_) => {}
    }
    let Some(counts) = &situation.counts else {
        // Nobody sends without having counted.
        return later("not_counted");
    };
    let (zone, standing) = (situation.house_zone(), situation.standing());
    match caps::decide(now, zone, &situation.caps(), config.caps.on_cap, standing, counts) {
        caps::Verdict::Allowed => Verdict::Send,
        caps::Verdict::Deferred { until, reason } => {
            // Caps open at midnight, when nobody may be written to.
            let until = situation.opening().next_allowed(until).unwrap_or(until);
            Verdict::NotYet { until, code: reason.code(), moves: true }
        }
        caps::Verdict::Skip { reason } => Verdict::Skip { code: reason.code() },
        caps::Verdict::Exit { reason } => Verdict::Exit { code: reason.code() },
    }
}

/// Says why nobody writes to this person any more, whatever the plan says.
pub fn refuses(situation: &Situation<'_>) -> Option<&'static str> {
    let (facts, consent) = (situation.facts, &situation.plan.config.audience.consent);
    if facts.opted_out {
        return Some("opted_out");
    }
    if facts.removed {
        return Some("contact_removed");
    }
    if facts.suppressed {
        return Some("contact_suppressed");
    }
    let purpose = consent.purpose.as_deref().unwrap_or_default();
    let agreed = !consent.required || facts.purposes.iter().any(|agreed| agreed == purpose);
    (!agreed).then_some("consent_missing")
}

/// What an enrollment waits longer than others, so that not all come at once when a stop is lifted: up to five minutes, always the
/// same.
fn apart(enrollment: Uuid) -> TimeDelta {
    TimeDelta::milliseconds(i64::try_from(order(enrollment) % 300_000).unwrap_or_default())
}
