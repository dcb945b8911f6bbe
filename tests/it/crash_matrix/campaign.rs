//! People on their way through a small plan while a process dies: each hears each message once and in order, and comes to its end.
//!
//! Two messages with an hour between them. One of the people answers the first, and must not hear the second.

use serde_json::json;

use super::plan::{PEOPLE, Plan, send, wxid};
use crate::harness::Platform;
use crate::harness::platform::CALLBACK_SECRET;

const FIRST: &str = "您好，周六有一堂公开课。";
const SECOND: &str = "公开课还有两个名额。";

/// A plan, and the people who are brought into it. The last one answers.
pub(super) struct Campaign {
    plan: Plan,
    callbacks: String,
}

impl Campaign {
    pub(super) async fn prepare(platform: &Platform) -> Campaign {
        let plan = Plan::prepare(platform).await;
        let steps = json!([
            send("first", FIRST, "rest"),
            { "id": "rest", "type": "wait", "for": "PT1H", "next": "second" },
            send("second", SECOND, "over"),
            { "id": "over", "type": "end", "outcome": "已完成" },
        ]);
        plan.start(steps, json!({})).await;
        let callbacks = format!("{}/callbacks/gewe/{CALLBACK_SECRET}", platform.base(0));
        Campaign { plan, callbacks }
    }

    /// Brings them in; lets one answer; lets the hour pass.
    pub(super) async fn enqueue(&self) {
        let Campaign { plan, callbacks } = self;
        plan.bring_in("state = 'waiting' AND step_id = 'rest'").await;
        let app = &plan.account.app_id;
        let answer = json!({
            "app_id": app, "wxid": app.replace("wx_", "wxid_"), "from": wxid(PEOPLE - 1),
            "burst": ["好的，谢谢"], "url": callbacks, "retries": 100, "retry_ms": 200,
        });
        plan.sandbox.customer_writes(&answer).await;
        plan.reach("state = 'exited' AND reason = 'replied'", 1).await;
        plan.clock("2026-12-01T11:30:00+08:00").await;
        plan.reach("state = 'completed' AND outcome = '已完成'", PEOPLE - 1).await;
    }

    /// Panics unless everybody heard what they should, once and in order, but for what nobody can know. Returns how many sends
    /// that are.
    pub(super) async fn assert_kept(&self, platform: &Platform) -> usize {
        let plan = &self.plan;
        let unknown = plan.number("SELECT count(*) AS n FROM sends WHERE state = 'unknown'").await;
        let noted = plan.number("SELECT count(*) AS n FROM sop_steps WHERE state = 'unknown'").await;
        assert_eq!(noted, unknown, "a step says what its send says");
        let mut missing = 0;
        for (n, heard) in plan.heard().await.iter().enumerate() {
            let asked: &[&str] = if n + 1 == PEOPLE { &[FIRST] } else { &[FIRST, SECOND] };
            // What was heard is what was asked for, in its order, with nothing twice and perhaps something left out.
            let mut rest = asked.iter();
            assert!(heard.iter().all(|text| rest.any(|asked| asked == text)), "{n} heard {heard:?}");
            missing += asked.len() - heard.len();
        }
        let unknown = usize::try_from(unknown).expect("a count");
        assert!(missing <= unknown, "{missing} messages are missing, {unknown} are unknown");
        plan.assert_sound(platform).await;
        unknown
    }
}
