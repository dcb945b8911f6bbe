//! When the trigger of a plan fires, if it is one of time. Pure; [`super::ticks`] carries it out.

use std::iter::successors;

use chrono::{DateTime, TimeDelta, Utc};

use crate::sop::config::WorkflowConfig;
use crate::sop::config::cron_expression;
use crate::sop::config::trigger::{CatchUp, Trigger};

/// A time that is no later than this was not missed: somebody was busy.
const ON_TIME: TimeDelta = TimeDelta::minutes(1);

/// Times further back than this are not walked one by one.
const RECENT: TimeDelta = TimeDelta::days(32);

/// Returns the first time after a moment at which a plan's trigger fires. None: it waits for a person or an event, or its
/// time has passed.
pub fn next_at(config: &WorkflowConfig, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
    match &config.trigger {
        Trigger::Manual {} | Trigger::Event { .. } => None,
        Trigger::Once { at } => (*at > after).then_some(*at),
        Trigger::Cron { cron, .. } => {
            let schedule = cron_expression::schedule(cron).ok()?;
            cron_expression::next(&schedule, config.timezone, after)
        }
    }
}

/// Returns when a plan's trigger fires that goes on after it was halted.
///
/// A moment that came meanwhile is made good, if it has not fired: whoever goes on wants the plan to begin. Times that repeat are
/// let go, whatever the plan says of downtime: a person has halted it.
pub fn resumed(
    config: &WorkflowConfig,
    fired: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    match &config.trigger {
        Trigger::Once { at } => (*at > now || fired.is_none()).then_some(*at),
        _ => next_at(config, now),
    }
}

/// What a trigger whose time has come leads to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Due {
    /// It fires for this time.
    pub fires: Option<DateTime<Utc>>,
    /// It lets this time go, which nobody was there for.
    pub missed: Option<DateTime<Utc>>,
    /// The next time.
    pub next: Option<DateTime<Utc>>,
}

/// Decides about a trigger that was set to a time which has come.
///
/// Of several times that nobody was there for, the latest stands for all: it fires, or it is let go, as the plan says. A plan's
/// only moment always fires.
pub fn due(config: &WorkflowConfig, set: DateTime<Utc>, now: DateTime<Utc>) -> Due {
    match &config.trigger {
        Trigger::Manual {} | Trigger::Event { .. } => Due::default(),
        Trigger::Once { at } => Due { fires: Some(*at), missed: None, next: None },
        Trigger::Cron { cron, catch_up } => {
            let Ok(schedule) = cron_expression::schedule(cron) else { return Due::default() };
            let after = |at: &DateTime<Utc>| cron_expression::next(&schedule, config.timezone, *at);
            let latest_from =
                |first: Option<DateTime<Utc>>| successors(first, after).take_while(|at| *at <= now).last();
            let recent = (now - set > RECENT).then(|| latest_from(after(&(now - RECENT)))).flatten();
            let latest = recent.or_else(|| latest_from(Some(set))).unwrap_or(set);
            let next = after(&now);
            match catch_up {
                CatchUp::Skip if now - latest > ON_TIME => Due { fires: None, missed: Some(latest), next },
                _ => Due { fires: Some(latest), missed: None, next },
            }
        }
    }
}

/// Tells whether a plan's only moment has passed: started now, it would never begin.
pub fn has_passed(config: &WorkflowConfig, now: DateTime<Utc>) -> bool {
    matches!(&config.trigger, Trigger::Once { at } if *at <= now)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn plan(trigger: Value) -> WorkflowConfig {
        let mut config: Value =
            serde_json::from_str(include_str!("../sop/examples/new_lead_3_days.json")).expect("JSON");
        config["trigger"] = trigger;
        WorkflowConfig::parse(&config).expect("a plan")
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    #[test]
    fn a_moment_fires_once_and_a_time_of_day_every_day() {
        let now = at("2026-11-23T01:00:00Z");
        let once = plan(json!({"type": "once", "at": "2026-11-23T10:00:00+08:00"}));
        assert_eq!(next_at(&once, now), Some(at("2026-11-23T02:00:00Z")));
        assert!(!has_passed(&once, now));
        let later = at("2026-11-23T02:00:00Z");
        assert_eq!(next_at(&once, later), None);
        assert!(has_passed(&once, later));
        // Half past nine in Shanghai.
        let daily = plan(json!({"type": "cron", "cron": "30 9 * * *"}));
        assert_eq!(next_at(&daily, now), Some(at("2026-11-23T01:30:00Z")));
        assert_eq!(next_at(&daily, at("2026-11-23T01:30:00Z")), Some(at("2026-11-24T01:30:00Z")));
        for trigger in [json!({"type": "manual"}), json!({"type": "event", "event": "friend_added"})] {
            assert_eq!(next_at(&plan(trigger), now), None);
        }
    }

    #[test]
    fn times_that_nobody_was_there_for_fire_once_or_are_let_go() {
        let daily =
            |catch_up: &str| plan(json!({"type": "cron", "cron": "30 9 * * *", "catch_up": catch_up}));
        let set = at("2026-11-23T01:30:00Z");
        let decided = |catch_up: &str, now: &str| due(&daily(catch_up), set, at(now));
        let next = Some(at("2026-11-24T01:30:00Z"));
        let fires = Due { fires: Some(set), missed: None, next };
        for on_time in ["2026-11-23T01:30:00Z", "2026-11-23T01:31:00Z"] {
            assert_eq!(decided("skip", on_time), fires);
        }
        assert_eq!(decided("run_once", "2026-11-23T12:00:00Z"), fires);
        assert_eq!(decided("skip", "2026-11-23T12:00:00Z"), Due { fires: None, missed: Some(set), next });
        // Four times were missed, then a month and a half.
        for (now, latest, next) in [
            ("2026-11-26T12:00:00Z", "2026-11-26T01:30:00Z", "2026-11-27T01:30:00Z"),
            ("2027-01-10T12:00:00Z", "2027-01-10T01:30:00Z", "2027-01-11T01:30:00Z"),
        ] {
            let expected = Due { fires: Some(at(latest)), missed: None, next: Some(at(next)) };
            assert_eq!(decided("run_once", now), expected);
        }
        let yearly = plan(json!({"type": "cron", "cron": "0 9 29 2 *", "catch_up": "run_once"}));
        let leap = at("2024-02-29T01:00:00Z");
        assert_eq!(due(&yearly, leap, at("2026-11-23T00:00:00Z")).fires, Some(leap));
        let once = plan(json!({"type": "once", "at": "2026-11-23T10:00:00+08:00"}));
        let late = due(&once, at("2026-11-23T02:00:00Z"), at("2026-12-01T00:00:00Z"));
        assert_eq!(late, Due { fires: Some(at("2026-11-23T02:00:00Z")), missed: None, next: None });
        assert_eq!(due(&plan(json!({"type": "manual"})), set, set), Due::default());
    }

    #[test]
    fn a_halted_plan_goes_on_with_its_next_time_and_makes_its_only_moment_good() {
        let now = at("2026-11-25T12:00:00Z");
        let daily = plan(json!({"type": "cron", "cron": "30 9 * * *", "catch_up": "run_once"}));
        assert_eq!(resumed(&daily, None, now), Some(at("2026-11-26T01:30:00Z")));
        let once = plan(json!({"type": "once", "at": "2026-11-23T10:00:00+08:00"}));
        let moment = at("2026-11-23T02:00:00Z");
        assert_eq!(resumed(&once, None, now), Some(moment));
        assert_eq!(resumed(&once, Some(moment), now), None);
    }
}
