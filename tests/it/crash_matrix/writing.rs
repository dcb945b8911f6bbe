//! Texts of a plan that a model writes while a process dies: each is paid for once, and said once, or the plan's own text is.

use serde_json::json;

use super::dialogue::{self, ANSWER};
use super::plan::{PEOPLE, Plan};
use crate::harness::Platform;

const FALLBACK: &str = "您好，有问题随时找我。";

/// A plan whose texts a model writes.
pub(super) struct Writing {
    plan: Plan,
}

impl Writing {
    pub(super) async fn prepare(platform: &Platform) -> Writing {
        let plan = Plan::prepare(platform).await;
        dialogue::prepare_model(platform, &plan.client, &plan.account).await;
        let steps = json!([
            { "id": "first", "type": "ai_send", "workflow": "客服", "instruction": "问候客户，了解学习进度",
              "fallback_text": FALLBACK, "next": "over" },
            { "id": "over", "type": "end", "outcome": "已完成" },
        ]);
        plan.start(steps, json!({})).await;
        Writing { plan }
    }

    /// Brings them in, each when the one before has heard its text.
    pub(super) async fn enqueue(&self) {
        self.plan.bring_in("state = 'completed' AND outcome = '已完成'").await;
    }

    /// Panics unless each heard one text, and each call of the model is in the ledger once. Returns how many jobs are dead.
    pub(super) async fn assert_kept(&self, platform: &Platform) -> usize {
        let plan = &self.plan;
        let runs = "SELECT count(*) AS n FROM ai_runs";
        assert_eq!(
            plan.number(runs).await,
            PEOPLE as i64,
            "the model is asked once for each, and never again"
        );
        let lost = plan.number("SELECT count(*) AS n FROM ai_runs WHERE state = 'unknown'").await;
        let heard = plan.heard().await;
        assert!(heard.iter().all(|heard| heard == &[ANSWER] || heard == &[FALLBACK]), "{heard:?}");
        let own = heard.iter().filter(|heard| heard == &&[FALLBACK]).count();
        assert_eq!(i64::try_from(own).expect("a count"), lost, "where nothing is known of the model's text");
        dialogue::assert_booked(&platform.db).await;
        plan.assert_sound(platform).await;
        let dead = "SELECT count(*) AS n FROM jobs WHERE kind = 'sop_write' AND final_state = 'dead'";
        usize::try_from(plan.number(dead).await).expect("a count")
    }
}
