//! What the models of a campaign cost, as far as that can be known before.
//!
//! A message of a model is taken to cost what a run of its workflow has cost on the average of the last 30 days, and what is
//! reserved for a run where none was. Where a budget has no room for what is reserved, the model is not asked and the
//! fallback text is sent, which costs nothing: so it is counted here.

use std::collections::HashMap;

use bigdecimal::{BigDecimal, Zero};
use chrono::{DateTime, NaiveDate, Utc};
use entropy_schema::budgets::{self, Standing};
use entropy_schema::campaigns::prospects;
use entropy_schema::{Conn, Result};
use uuid::Uuid;

use crate::calendar::{Zone, periods};
use crate::sop::config::WorkflowConfig;
use crate::sop::config::step::Step;

/// What a run of a workflow is taken to cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    /// The name that the plan uses.
    pub workflow: String,
    /// Yuan for one message.
    pub yuan_each: BigDecimal,
    /// The runs of which that is the average; none: it is what is reserved for a run.
    pub runs: i64,
    reserve: BigDecimal,
}

/// What is known of costs before the campaign is played.
#[derive(Debug, Clone, Default)]
pub(super) struct Costs {
    rates: Vec<Rate>,
    budgets: Vec<Standing>,
}

/// What a campaign costs.
#[derive(Debug, Clone, Default)]
pub struct Bill {
    /// Yuan, all together.
    pub yuan: BigDecimal,
    /// What it was made of.
    pub rates: Vec<Rate>,
    /// When a budget is used up first.
    pub budget_ends_at: Option<DateTime<Utc>>,
}

/// A message of a model.
pub(super) struct Written<'a> {
    pub(super) at: DateTime<Utc>,
    pub(super) recipient: usize,
    pub(super) account: Uuid,
    /// The person of ours who is charged for it.
    pub(super) user: Uuid,
    pub(super) workflow: &'a str,
}

impl Costs {
    /// Reads what the plan's workflows have cost, and how the budgets stand.
    pub(super) async fn read(
        conn: &mut Conn,
        organization: Uuid,
        config: &WorkflowConfig,
        true_now: DateTime<Utc>,
        zone: Zone,
    ) -> Result<Costs> {
        let mut aliases: Vec<String> = config
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::AiSend(step) => Some(step.workflow.clone()),
                _ => None,
            })
            .collect();
        aliases.sort_unstable();
        aliases.dedup();
        if aliases.is_empty() {
            return Ok(Costs::default());
        }
        let rates = prospects::costs(conn, organization, &aliases).await?.into_iter().map(|cost| Rate {
            workflow: cost.alias,
            yuan_each: cost.mean_yuan.unwrap_or_else(|| cost.reserve_yuan.clone()),
            runs: cost.runs,
            reserve: cost.reserve_yuan,
        });
        let rates = rates.collect();
        let budgets = budgets::standings(conn, organization, periods(true_now, zone), None).await?;
        Ok(Costs { rates, budgets })
    }

    /// Tells whether the organisation has a workflow of this name.
    pub(super) fn know(&self, workflow: &str) -> bool {
        self.rates.iter().any(|rate| rate.workflow == workflow)
    }

    /// Adds up what messages cost, given in the order of time. Returns those for which no budget has room, too.
    pub(super) fn bill<'a>(
        &self,
        plan: Uuid,
        config: &WorkflowConfig,
        zone: Zone,
        written: impl Iterator<Item = Written<'a>>,
    ) -> (Bill, Vec<usize>) {
        let mut bill = Bill { rates: self.rates.clone(), ..Bill::default() };
        let each = config.caps.ai_budget_yuan_per_enrollment.as_ref().map(|yuan| yuan.amount().clone());
        let (mut people, mut refused) = (HashMap::<usize, BigDecimal>::new(), Vec::new());
        let mut spent: HashMap<(Uuid, NaiveDate), BigDecimal> = HashMap::new();
        let mut concerned_by: HashMap<(Uuid, Uuid), Vec<&Standing>> = HashMap::new();
        for (number, message) in written.enumerate() {
            let Some(rate) = self.rates.iter().find(|rate| rate.workflow == message.workflow) else {
                continue;
            };
            let own = people.entry(message.recipient).or_default();
            if each.as_ref().is_some_and(|most| &*own + &rate.reserve > *most) {
                refused.push(number);
                continue;
            }
            let whose = (message.account, message.user);
            let concerned = concerned_by.entry(whose).or_insert_with(|| self.concerning(plan, whose));
            let moment = periods(message.at, zone);
            let concerned: Vec<(&Standing, NaiveDate)> =
                concerned.iter().map(|one| (*one, moment.of(&one.budget.period))).collect();
            let has_room = |(one, starts_on): &(&Standing, NaiveDate)| {
                let before = match *starts_on == one.starts_on {
                    true => &one.spent_yuan + &one.reserved_yuan,
                    false => BigDecimal::zero(),
                };
                let so_far = spent.get(&(one.budget.id, *starts_on)).cloned().unwrap_or_default();
                let used = before + so_far;
                // One that is used up has no room for a run that reserves nothing, either.
                used < one.budget.limit_yuan && used + &rate.reserve <= one.budget.limit_yuan
            };
            if !concerned.iter().all(has_room) {
                bill.budget_ends_at = bill.budget_ends_at.or(Some(message.at));
                refused.push(number);
                continue;
            }
            for (one, starts_on) in concerned {
                *spent.entry((one.budget.id, starts_on)).or_default() += &rate.yuan_each;
            }
            *own += &rate.yuan_each;
            bill.yuan += &rate.yuan_each;
        }
        (bill, refused)
    }

    /// Returns the budgets from which a message is paid of this account, for which this person of ours is charged.
    fn concerning(&self, plan: Uuid, (account, user): (Uuid, Uuid)) -> Vec<&Standing> {
        let concerns = |one: &&Standing| match one.budget.scope.as_str() {
            "organization" => true,
            "account" => one.budget.scope_id == account,
            "user" => one.budget.scope_id == user,
            "sop" => one.budget.scope_id == plan,
            _ => false,
        };
        self.budgets.iter().filter(concerns).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn yuan(text: &str) -> BigDecimal {
        text.parse().expect("an amount")
    }

    fn at(text: &str) -> DateTime<Utc> {
        format!("{text}:00+08:00").parse().expect("a time")
    }

    /// A budget of a day, on the day on which these tests begin.
    fn standing(id: u128, scope: &str, whose: u128, limit: &str, spent: &str, reserved: &str) -> Standing {
        let budget = budgets::Budget {
            id: Uuid::from_u128(id),
            organization_id: Uuid::nil(),
            scope: scope.to_owned(),
            scope_id: Uuid::from_u128(whose),
            period: "day".to_owned(),
            limit_yuan: yuan(limit),
            updated_by: None,
            updated_at: at("2026-11-23T00:00"),
        };
        Standing {
            budget,
            starts_on: "2026-11-23".parse().expect("a day"),
            spent_yuan: yuan(spent),
            reserved_yuan: yuan(reserved),
        }
    }

    /// What a run of the writer has cost, with what is reserved for one.
    fn rate(each: &str, reserve: &str) -> Rate {
        Rate { workflow: "writer".into(), yuan_each: yuan(each), runs: 3, reserve: yuan(reserve) }
    }

    fn plan(most_each: &str) -> WorkflowConfig {
        let mut config: serde_json::Value =
            serde_json::from_str(include_str!("../../sop/examples/new_lead_3_days.json")).expect("JSON");
        config["caps"]["ai_budget_yuan_per_enrollment"] = json!(most_each);
        WorkflowConfig::parse(&config).expect("a plan")
    }

    fn written(recipient: usize, user: u128, time: &str) -> Written<'static> {
        let (account, user) = (Uuid::nil(), Uuid::from_u128(user));
        Written { at: at(time), recipient, account, user, workflow: "writer" }
    }

    #[test]
    fn a_budget_that_is_used_up_makes_room_again_in_its_next_period() {
        let zone = crate::calendar::zone(None);
        let budget = standing(1, "organization", 0, "1.00", "0.40", "0.10");
        let costs = Costs { rates: vec![rate("0.2", "0.3")], budgets: vec![budget] };
        let messages = [
            written(0, 0, "2026-11-23T10:00"),
            written(1, 0, "2026-11-23T11:00"), // 0.70 spent or reserved: 0.3 more fit.
            written(2, 0, "2026-11-23T12:00"),
            written(0, 0, "2026-11-24T10:00"),
            written(0, 0, "2026-11-24T11:00"), // Of its own 0.50, 0.40 is spent.
        ];
        let (bill, refused) = costs.bill(Uuid::nil(), &plan("0.50"), zone, messages.into_iter());
        assert_eq!((bill.yuan, refused), (yuan("0.6"), vec![2, 4]));
        assert_eq!(bill.budget_ends_at, Some(at("2026-11-23T12:00")));
    }

    #[test]
    fn a_persons_budget_holds_for_what_that_person_is_charged_for() {
        let zone = crate::calendar::zone(None);
        let budgets = vec![
            standing(1, "user", 7, "0.50", "0", "0"),
            standing(2, "user", 8, "0.20", "0.20", "0"),
            standing(3, "account", 9, "0", "0", "0"),
        ];
        let bill = |reserve: &str| {
            let costs = Costs { rates: vec![rate("0.2", reserve)], budgets: budgets.clone() };
            let messages = [
                written(0, 7, "2026-11-23T10:00"),
                written(1, 8, "2026-11-23T10:01"),
                written(2, 7, "2026-11-23T10:02"),
                written(3, 7, "2026-11-23T10:03"),
                written(4, 6, "2026-11-23T10:04"),
            ];
            costs.bill(Uuid::nil(), &plan("5.00"), zone, messages.into_iter())
        };
        let (counted, refused) = bill("0.3");
        assert_eq!((counted.yuan, refused), (yuan("0.6"), vec![1, 3]));
        // What reserves nothing finds room as long as anything is left.
        let (counted, refused) = bill("0");
        assert_eq!((counted.yuan, refused), (yuan("0.8"), vec![1]));
    }
}
