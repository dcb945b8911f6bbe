//! What becomes of people on an older version of a plan, when a newer one is in force.
//!
//! Left alone, they finish the version that they began. They may also be stopped, or go on in the newer version, if that has their
//! step: the same id, and the same type. Nobody is moved of whom a message is under way. What was reckoned when the step was
//! reached stays: a wait that has begun ends when it would have ended.

use diesel_async::AsyncConnection;
use entropy_schema::campaigns::enrollments::{self, Whose};
use entropy_schema::campaigns::plans;
use entropy_schema::campaigns::succession::{self, Moved};
use entropy_schema::{Conn, Result};
use uuid::Uuid;

use super::plan::Plans;
use crate::sop::config::WorkflowConfig;

/// People of one transaction.
const PAGE: i64 = 1000;

/// Transactions of one call.
const PAGES: usize = 20;

/// Why somebody left an older version.
pub const SUPERSEDED: &str = "superseded";

/// What becomes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// They finish what they began.
    Finish,
    /// They are out of the plan.
    Stop,
    /// They go on in the newer version, where it has their step.
    Move,
}

/// What became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// They go on in the newer version.
    pub moved: i64,
    /// They are out of the plan.
    pub stopped: i64,
    /// They finish the older version.
    pub finishing: i64,
    /// A message of theirs is under way: ask again when it has left.
    pub under_way: i64,
    /// There are more: ask again.
    pub more: bool,
}

/// Carries out what was chosen for everybody on an older version, or on one of them. Not in a transaction: each page commits.
pub async fn carry_out(
    conn: &mut Conn,
    known: &Plans,
    (organization, sop): (Uuid, Uuid),
    (from, to): (Option<i32>, i32),
    how: How,
) -> Result<Done> {
    let mut done = Done::default();
    let mut pages = PAGES;
    let live = plans::live_by_version(conn, organization, sop).await?;
    let older =
        live.into_iter().filter(|(version, _)| *version != to && from.is_none_or(|from| from == *version));
    for (version, people) in older {
        match how {
            How::Finish => done.finishing += people,
            How::Stop => loop {
                if pages == 0 {
                    done.more = true;
                    return Ok(done);
                }
                pages -= 1;
                let whose = Whose::Version(sop, version, PAGE);
                let page = enrollments::end(conn, organization, whose, SUPERSEDED).await?;
                done.stopped += page.ended;
                if page.seen < PAGE {
                    break;
                }
            },
            How::Move => {
                let steps = match (known.of(conn, sop, version).await?, known.of(conn, sop, to).await?) {
                    (Some(old), Some(new)) => common_steps(&old.config, &new.config),
                    _ => Vec::new(),
                };
                let mut after = Uuid::nil();
                loop {
                    if pages == 0 {
                        done.more = true;
                        return Ok(done);
                    }
                    pages -= 1;
                    let page = conn
                        .transaction(async |conn| {
                            let way = (version, to);
                            succession::move_on(conn, organization, sop, way, &steps, after, PAGE).await
                        })
                        .await;
                    let Moved { moved, under_way, staying, last } = page?;
                    done.moved += moved;
                    done.under_way += under_way;
                    done.finishing += staying;
                    match last {
                        Some(last) if moved + under_way + staying == PAGE => after = last,
                        _ => break,
                    }
                }
            }
        }
    }
    Ok(done)
}

/// Returns the steps that two versions have in common: the same id, and the same type.
fn common_steps(old: &WorkflowConfig, new: &WorkflowConfig) -> Vec<String> {
    let same = |id: &str, kind: &str| {
        new.steps.iter().any(|step| step.id().as_str() == id && step.type_name() == kind)
    };
    let steps = old.steps.iter().filter(|step| same(step.id().as_str(), step.type_name()));
    steps.map(|step| step.id().as_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_step_is_the_same_by_its_id_and_its_type() {
        let parse = |config: &Value| WorkflowConfig::parse(config).expect("a plan");
        let old: Value =
            serde_json::from_str(include_str!("../sop/examples/new_lead_3_days.json")).expect("JSON");
        let mut new = old.clone();
        let steps = new["steps"].as_array_mut().expect("steps");
        let id = |step: &Value| step["id"].as_str().expect("an id").to_owned();
        let (first, end) = (id(&steps[0]), steps.len() - 1);
        assert_eq!(steps[0]["type"], "send");
        steps[0]["message"] = json!({ "kind": "text", "text": "您好" });
        let was_end = id(&steps[end]);
        steps[end] =
            json!({ "id": was_end, "type": "handoff", "to": "owner", "note": "请接手", "next": null });
        let common = common_steps(&parse(&old), &parse(&new));
        assert!(common.contains(&first) && !common.contains(&was_end));
        assert_eq!(common.len(), end);
    }
}
