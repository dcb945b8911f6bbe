//! When the trigger of a plan fires next, if it is one of time. Pure.

use chrono::{DateTime, Utc};

use crate::sop::config::WorkflowConfig;
use crate::sop::config::cron_expression;
use crate::sop::config::trigger::Trigger;

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
}
