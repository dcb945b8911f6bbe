//! An account's limits: defaults, ceilings, and who may change them. Pure.

use entropy_jobs::process::config::Ceilings;
use entropy_schema::accounts::Account;
use poem_openapi::Object;
use serde::Serialize;

use crate::auth::role::Role;
use crate::problem::{ApiError, FieldProblem};

/// Limits of an account. All hold in every rolling window, over all processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Object, Serialize)]
pub(super) struct LimitsView {
    /// Messages in any minute.
    pub(super) messages_per_minute: i32,
    /// Least time between two messages, in milliseconds.
    pub(super) min_gap_ms: i32,
    /// Messages in any 24 hours.
    pub(super) messages_per_day: i32,
    /// Different people in any minute.
    pub(super) recipients_per_minute: i32,
    /// Calls in any hour, counted over all accounts of the same GeWe token.
    pub(super) api_calls_per_hour: i32,
}

/// Limits to set; what is left out keeps its value, or its default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Object)]
#[oai(deny_unknown_fields)]
pub(super) struct LimitsRequest {
    /// Messages in any minute. Raising it also raises the limits that would make it pointless, unless they are given.
    pub(super) messages_per_minute: Option<i32>,
    /// Least time between two messages, in milliseconds.
    pub(super) min_gap_ms: Option<i32>,
    /// Messages in any 24 hours.
    pub(super) messages_per_day: Option<i32>,
    /// Different people in any minute.
    pub(super) recipients_per_minute: Option<i32>,
    /// Calls in any hour of the account's GeWe token.
    pub(super) api_calls_per_hour: Option<i32>,
}

const MESSAGES_PER_MINUTE: i32 = 10;
const MESSAGES_PER_DAY: i32 = 500;
const MAX_MESSAGES_PER_DAY: i32 = 100_000;
const RECIPIENTS_PER_MINUTE: i32 = 15;
const MAX_RECIPIENTS_PER_MINUTE: i32 = 100_000;
const MAX_GAP_MS: i32 = 3_600_000;

/// The gap that spreads half of a minute's messages over the minute, but never more than a second.
fn gap_for(messages_per_minute: i32) -> i32 {
    (30_000 / messages_per_minute.max(1)).min(1000)
}

impl LimitsView {
    /// What a new account gets.
    pub(super) fn default_for(ceilings: &Ceilings) -> Self {
        let messages_per_minute = MESSAGES_PER_MINUTE.min(ceilings.messages_per_minute);
        LimitsView {
            messages_per_minute,
            min_gap_ms: gap_for(messages_per_minute),
            messages_per_day: MESSAGES_PER_DAY,
            recipients_per_minute: RECIPIENTS_PER_MINUTE,
            api_calls_per_hour: ceilings.api_calls_per_hour,
        }
    }

    /// Reads an account's limits.
    pub(super) fn of(account: &Account) -> Self {
        LimitsView {
            messages_per_minute: account.messages_per_minute,
            min_gap_ms: account.min_gap_ms,
            messages_per_day: account.messages_per_day,
            recipients_per_minute: account.recipients_per_minute,
            api_calls_per_hour: account.api_calls_per_hour,
        }
    }

    /// Writes them into an account.
    pub(super) fn put_into(self, account: &mut Account) {
        account.messages_per_minute = self.messages_per_minute;
        account.min_gap_ms = self.min_gap_ms;
        account.messages_per_day = self.messages_per_day;
        account.recipients_per_minute = self.recipients_per_minute;
        account.api_calls_per_hour = self.api_calls_per_hour;
    }

    /// Returns the limits after a change.
    pub(super) fn changed(
        self,
        asked: &LimitsRequest,
        role: Role,
        ceilings: &Ceilings,
    ) -> Result<LimitsView, ApiError> {
        let problems = out_of_range(asked, ceilings);
        if !problems.is_empty() {
            return Err(ApiError::unprocessable(problems));
        }
        let mut next = self;
        if let Some(per_minute) = asked.messages_per_minute {
            next.messages_per_minute = per_minute;
            if per_minute > self.messages_per_minute {
                next.min_gap_ms = self.min_gap_ms.min(gap_for(per_minute));
                next.recipients_per_minute = self.recipients_per_minute.max(per_minute);
            }
        }
        next.min_gap_ms = asked.min_gap_ms.unwrap_or(next.min_gap_ms);
        next.messages_per_day = asked.messages_per_day.unwrap_or(next.messages_per_day);
        next.recipients_per_minute = asked.recipients_per_minute.unwrap_or(next.recipients_per_minute);
        next.api_calls_per_hour = asked.api_calls_per_hour.unwrap_or(next.api_calls_per_hour);
        if role < Role::Admin && next.is_looser_than(self) {
            let detail = "Only an admin may raise an account's limits. Others may lower them.";
            return Err(ApiError::forbidden("limits_need_admin", detail));
        }
        Ok(next)
    }

    fn is_looser_than(self, other: LimitsView) -> bool {
        self.messages_per_minute > other.messages_per_minute
            || self.min_gap_ms < other.min_gap_ms
            || self.messages_per_day > other.messages_per_day
            || self.recipients_per_minute > other.recipients_per_minute
            || self.api_calls_per_hour > other.api_calls_per_hour
    }
}

fn out_of_range(asked: &LimitsRequest, ceilings: &Ceilings) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    let mut check = |field: &str, value: Option<i32>, least: i32, most: i32, whose: &str| {
        if value.is_some_and(|value| !(least..=most).contains(&value)) {
            let message = format!("must lie between {least} and {most}{whose}");
            problems.push(FieldProblem::new(format!("limits.{field}"), "out_of_range", message));
        }
    };
    let of_install = |name: &str| format!(", the ceiling of this install ({name})");
    check(
        "messages_per_minute",
        asked.messages_per_minute,
        1,
        ceilings.messages_per_minute,
        &of_install("MAX_MESSAGES_PER_MINUTE"),
    );
    check("min_gap_ms", asked.min_gap_ms, 0, MAX_GAP_MS, "");
    check("messages_per_day", asked.messages_per_day, 1, MAX_MESSAGES_PER_DAY, "");
    check("recipients_per_minute", asked.recipients_per_minute, 1, MAX_RECIPIENTS_PER_MINUTE, "");
    check(
        "api_calls_per_hour",
        asked.api_calls_per_hour,
        1,
        ceilings.api_calls_per_hour,
        &of_install("MAX_API_CALLS_PER_HOUR"),
    );
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const CEILINGS: Ceilings = Ceilings { messages_per_minute: 600, api_calls_per_hour: 1000 };

    fn default() -> LimitsView {
        LimitsView::default_for(&CEILINGS)
    }

    fn per_minute(messages_per_minute: i32) -> LimitsRequest {
        LimitsRequest { messages_per_minute: Some(messages_per_minute), ..LimitsRequest::default() }
    }

    #[test]
    fn defaults_are_careful_and_stay_below_the_ceilings() {
        let limits = default();
        assert_eq!((limits.messages_per_minute, limits.min_gap_ms), (10, 1000));
        assert_eq!((limits.messages_per_day, limits.recipients_per_minute), (500, 15));
        let low = LimitsView::default_for(&Ceilings { messages_per_minute: 4, api_calls_per_hour: 50 });
        assert_eq!((low.messages_per_minute, low.api_calls_per_hour), (4, 50));
    }

    #[test]
    fn raising_the_rate_alone_makes_room_for_it() {
        let raised = default().changed(&per_minute(600), Role::Admin, &CEILINGS).expect("allowed");
        assert_eq!((raised.min_gap_ms, raised.recipients_per_minute), (50, 600));
        assert_eq!(raised.messages_per_day, 500);
        let kept = LimitsRequest { min_gap_ms: Some(700), recipients_per_minute: Some(3), ..per_minute(600) };
        let kept = default().changed(&kept, Role::Admin, &CEILINGS).expect("allowed");
        assert_eq!((kept.min_gap_ms, kept.recipients_per_minute), (700, 3));
    }

    #[test]
    fn lowering_the_rate_leaves_the_rest_alone() {
        let lowered = default().changed(&per_minute(2), Role::Agent, &CEILINGS).expect("allowed");
        assert_eq!(lowered, LimitsView { messages_per_minute: 2, ..default() });
    }

    #[test]
    fn only_an_admin_loosens_a_limit() {
        for asked in [
            per_minute(11),
            LimitsRequest { min_gap_ms: Some(999), ..LimitsRequest::default() },
            LimitsRequest { messages_per_day: Some(501), ..LimitsRequest::default() },
        ] {
            let error = default().changed(&asked, Role::Manager, &CEILINGS).expect_err("refused");
            assert_eq!(error.code(), "limits_need_admin");
            assert!(default().changed(&asked, Role::Admin, &CEILINGS).is_ok());
        }
    }

    #[test]
    fn nobody_exceeds_a_ceiling_and_the_answer_names_it() {
        let error = default().changed(&per_minute(601), Role::Admin, &CEILINGS).expect_err("refused");
        assert!(error.detail().contains("600") && error.detail().contains("MAX_MESSAGES_PER_MINUTE"));
        assert!(default().changed(&per_minute(0), Role::Admin, &CEILINGS).is_err());
    }
}
