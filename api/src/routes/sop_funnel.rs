//! The numbers of a plan: who is in it, what was sent, who answered, and what the others wait for.

use std::collections::BTreeMap;

use entropy_schema::campaigns::facts;
use entropy_schema::campaigns::funnel::{self, By, People, Steps};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Enum, Object, OpenApi};
use uuid::Uuid;

use super::Tag;
use super::sop_tasks::plan_not_found;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::problem::ApiError;

/// By what the numbers are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum FunnelBy {
    /// By step.
    Step,
    /// By the arms of splits.
    Arm,
}

/// How many people came how far.
#[derive(Debug, Clone, Default, Object)]
pub(crate) struct Numbers {
    /// People who were taken in.
    enrolled: i64,
    /// Those to whom something was sent.
    sent: i64,
    /// Those who have answered.
    replied: i64,
    /// Those with whom the plan's goal was reached.
    goal: i64,
    /// Those who wanted no more messages.
    opted_out: i64,
    /// Those whose way ended because something went wrong.
    failed: i64,
    /// Those who are at their end.
    completed: i64,
    /// Those whose way ended before, by reason.
    exited: BTreeMap<String, i64>,
    /// Those who are on their way, by what they wait for.
    waiting: BTreeMap<String, i64>,
    /// Messages that were sent.
    messages: i64,
}

/// The numbers of a step.
#[derive(Debug, Clone, Default, Object)]
pub(crate) struct StepNumbers {
    step_id: String,
    /// People who came here.
    reached: i64,
    /// Messages that were sent here.
    sent: i64,
    /// Messages of which nobody knows whether they arrived.
    unknown: i64,
    /// Messages that could not be sent.
    failed: i64,
    /// Messages that were left out, by reason.
    skipped: BTreeMap<String, i64>,
    /// People whose way ended here with an answer.
    replied: i64,
    /// People whose way ended here with the plan's goal.
    goal: i64,
    /// People whose way ended here because they wanted no more messages.
    opted_out: i64,
    /// People who are here, by what they wait for.
    waiting: BTreeMap<String, i64>,
}

/// The numbers of a plan.
#[derive(Debug, Clone, Default, Object)]
pub(crate) struct Funnel {
    enrolled: i64,
    /// People to whom something was sent.
    sent: i64,
    replied: i64,
    goal: i64,
    opted_out: i64,
    failed: i64,
    completed: i64,
    exited: BTreeMap<String, i64>,
    waiting: BTreeMap<String, i64>,
    messages: i64,
    /// Messages of which nobody knows whether they arrived.
    unknown: i64,
    /// By split and arm, as `step.arm`; with `by=arm`, else empty.
    arms: BTreeMap<String, Numbers>,
    /// By step, in the order of their names; with `by=step`, else empty.
    steps: Vec<StepNumbers>,
}

/// What is counted: organisation, plan, version, by what.
pub(crate) type FunnelKey = (Uuid, Uuid, Option<i32>, By);

/// Numbers of plans.
pub(super) struct SopFunnel;

#[OpenApi(tag = "Tag::Campaigns")]
impl SopFunnel {
    /// Counts the people of a plan
    ///
    /// How many were taken in, written to, answered, reached the goal, want no more, failed, and wait for what. In all versions or
    /// in one; all together, and by step or by arm. May be five seconds old.
    #[oai(path = "/sop-tasks/:id/funnel", method = "get", operation_id = "get_sop_funnel")]
    async fn funnel(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
        /// Only people in this version.
        version: Query<Option<i32>>,
        /// `step` or `arm`.
        by: Query<Option<FunnelBy>>,
    ) -> Result<Json<Funnel>, ApiError> {
        let organization = caller.organization_id;
        let by = match by.0 {
            None => By::All,
            Some(FunnelBy::Step) => By::Step,
            Some(FunnelBy::Arm) => By::Arm,
        };
        let key = (organization, id.0, version.0, by);
        if let Some(known) = state.funnels.get(&key) {
            return Ok(Json(known));
        }
        let mut conn = state.db.conn().await?;
        facts::plan_status(&mut conn, organization, id.0).await?.ok_or_else(plan_not_found)?;
        let people = funnel::people(&mut conn, organization, id.0, version.0, by).await?;
        let steps = match by {
            By::Step => funnel::steps(&mut conn, organization, id.0, version.0).await?,
            By::All | By::Arm => Vec::new(),
        };
        let unknown = match by {
            By::Step => steps.iter().filter(|row| row.state == "unknown").map(|row| row.steps).sum(),
            By::All | By::Arm => funnel::unknown(&mut conn, organization, id.0, version.0).await?,
        };
        let counted = counted(&people, &steps, unknown, by);
        state.funnels.put(key, counted.clone());
        Ok(Json(counted))
    }
}

fn counted(people: &[People], steps: &[Steps], unknown: i64, by: By) -> Funnel {
    let (mut all, mut arms) = (Numbers::default(), BTreeMap::<String, Numbers>::new());
    let mut by_step = BTreeMap::<String, StepNumbers>::new();
    for row in people {
        all.add(row);
        let chosen = row.arms.iter().filter_map(|arms| arms.as_object()).flatten();
        for (step, arm) in chosen {
            let name = format!("{step}.{}", arm.as_str().unwrap_or_default());
            arms.entry(name).or_default().add(row);
        }
        if let (By::Step, Some(step)) = (by, &row.step_id) {
            by_step.entry(step.clone()).or_default().stands(row);
        }
    }
    for row in steps {
        by_step.entry(row.step_id.clone()).or_default().add(row);
    }
    let steps = by_step.into_iter().map(|(step_id, numbers)| StepNumbers { step_id, ..numbers }).collect();
    let Numbers { enrolled, sent, replied, goal, opted_out, failed, completed, exited, waiting, messages } =
        all;
    Funnel {
        enrolled,
        sent,
        replied,
        goal,
        opted_out,
        failed,
        completed,
        exited,
        waiting,
        messages,
        unknown,
        arms,
        steps,
    }
}

/// Returns what people wait for who are on their way, in the word that the list of enrollments has for it.
fn waits(row: &People) -> Option<String> {
    let over = matches!(row.state.as_str(), "completed" | "exited" | "failed");
    let code = row.reason.as_ref().or(row.wait_code.as_ref()).unwrap_or(&row.state);
    (!over).then(|| code.clone())
}

impl Numbers {
    fn add(&mut self, row: &People) {
        let people = row.people;
        let of = |met: bool| if met { people } else { 0 };
        let reason = row.reason.as_deref();
        self.enrolled += people;
        self.messages += row.messages;
        self.sent += row.sent;
        self.replied += row.replied;
        self.goal += row.goal;
        self.opted_out += of(reason == Some("opted_out"));
        self.failed += of(row.state == "failed" || reason == Some("send_failures"));
        self.completed += of(row.state == "completed");
        if let Some(code) = waits(row) {
            *self.waiting.entry(code).or_default() += people;
        } else if let (Some(reason), "exited") = (reason, row.state.as_str()) {
            *self.exited.entry(reason.to_owned()).or_default() += people;
        }
    }
}

impl StepNumbers {
    /// People who stand at the step, or ended there.
    fn stands(&mut self, row: &People) {
        let people = row.people;
        let over = row.state == "exited";
        let ended = |reason: &str| if over && row.reason.as_deref() == Some(reason) { people } else { 0 };
        self.replied += ended("replied");
        self.goal += ended("goal");
        self.opted_out += ended("opted_out");
        if let Some(code) = waits(row) {
            *self.waiting.entry(code).or_default() += people;
        }
    }

    /// What became of the step.
    fn add(&mut self, row: &Steps) {
        self.reached += row.steps;
        match row.state.as_str() {
            "sent" => self.sent += row.steps,
            "unknown" => self.unknown += row.steps,
            "failed" => self.failed += row.steps,
            "skipped" => {
                let reason = row.reason.clone().unwrap_or_else(|| "skipped".to_owned());
                *self.skipped.entry(reason).or_default() += row.steps;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn people(state: &str, reason: Option<&str>, wait_code: Option<&str>, people: i64) -> People {
        People {
            step_id: Some("hello".to_owned()),
            arms: Some(json!({ "ab": "a" })),
            state: state.to_owned(),
            reason: reason.map(str::to_owned),
            wait_code: wait_code.map(str::to_owned),
            people,
            sent: if state == "pending" { 0 } else { people },
            replied: if reason == Some("replied") { people } else { 0 },
            goal: 0,
            messages: people * 2,
        }
    }

    #[test]
    fn everybody_is_counted_once_in_each_column() {
        let rows = [
            people("pending", None, Some("begins"), 5),
            people("waiting", None, Some("window"), 4),
            people("paused", Some("replied"), Some("paused"), 1),
            people("completed", None, None, 7),
            people("exited", Some("replied"), None, 3),
            people("exited", Some("opted_out"), None, 2),
            people("exited", Some("send_failures"), None, 1),
            people("failed", Some("plan_unreadable"), None, 1),
        ];
        let steps = [
            ("sent", None, 9),
            ("unknown", None, 1),
            ("skipped", Some("late"), 2),
            ("deferred", Some("window"), 4),
        ]
        .map(|(state, reason, steps)| Steps {
            step_id: "hello".to_owned(),
            state: state.to_owned(),
            reason: reason.map(str::to_owned),
            steps,
        });
        let funnel = counted(&rows, &steps, 1, By::Step);
        assert_eq!((funnel.enrolled, funnel.sent, funnel.replied), (24, 19, 4));
        assert_eq!((funnel.opted_out, funnel.failed, funnel.completed, funnel.unknown), (2, 2, 7, 1));
        let waiting: Vec<(&str, i64)> = funnel.waiting.iter().map(|(code, n)| (code.as_str(), *n)).collect();
        assert_eq!(waiting, [("begins", 5), ("replied", 1), ("window", 4)]);
        assert_eq!(funnel.exited.values().sum::<i64>(), 6);
        let of = |counts: &BTreeMap<String, i64>| counts.values().sum::<i64>();
        let parts = funnel.completed + of(&funnel.exited) + of(&funnel.waiting) + funnel.failed;
        assert_eq!(parts - funnel.exited["send_failures"], funnel.enrolled);
        assert_eq!(funnel.arms["ab.a"].enrolled, 24);
        let step = &funnel.steps[0];
        assert_eq!((step.reached, step.sent, step.unknown, step.skipped["late"]), (16, 9, 1, 2));
        assert_eq!((step.replied, step.opted_out, step.waiting["window"]), (3, 2, 4));
    }
}
