//! A plan that takes in by itself whom it is meant for while a process dies: its time fires once, everybody is looked at once, and
//! whoever fits is in the plan once and hears its message once.
//!
//! It is meant for more people than one page has, of whom all but a few want nothing of machines.

use serde_json::json;

use super::plan::{PEOPLE, Plan, TAG, send};
use crate::harness::Platform;

const FIRST: &str = "本周六有活动，欢迎参加。";

/// Its time.
const AT: &str = "2026-12-01T10:05:00+08:00";

/// Those who are not taken in. Their ids come last, so the first page has both.
const OTHERS: usize = 1000;

/// A plan whose time is to come.
pub(super) struct Audience {
    plan: Plan,
}

impl Audience {
    pub(super) async fn prepare(platform: &Platform) -> Audience {
        let plan = Plan::prepare(platform).await;
        let steps =
            json!([send("first", FIRST, "over"), { "id": "over", "type": "end", "outcome": "已完成" }]);
        plan.start(steps, json!({ "trigger": { "type": "once", "at": AT } })).await;
        let (id, organization, account) = (plan.id, plan.client.organization, plan.account.id);
        plan.run(&format!(
            "UPDATE sop_tasks SET target_type = 'tag', target_ids = ARRAY['{TAG}'], next_trigger_at = '{AT}' WHERE id = '{id}';
             INSERT INTO contacts (id, organization_id, account_id, wxid, kind, nickname, tags, suppressed_at)
             SELECT ('ffffffff-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, '{organization}', '{account}',
                 'wxid_other_' || n, 'friend', '客户' || n, ARRAY['{TAG}'], now()
             FROM generate_series(1, {OTHERS}) n"
        ))
        .await;
        Audience { plan }
    }

    /// Its time comes.
    pub(super) async fn enqueue(&self) {
        self.plan.clock("2026-12-01T10:05:10+08:00").await;
        self.plan.reach("state = 'completed' AND outcome = '已完成'", PEOPLE).await;
    }

    /// Panics unless there was one run of it, with one job, that looked at everybody once.
    pub(super) async fn assert_kept(&self, platform: &Platform) {
        let plan = &self.plan;
        let all = PEOPLE + OTHERS;
        let as_it_should = format!(
            "state = 'finished' AND audience = {all} AND enrolled = {PEOPLE} \
             AND refused = '{{\"contact_suppressed\": {OTHERS}}}'"
        );
        let runs =
            format!("SELECT count(*) * 10 + count(*) FILTER (WHERE {as_it_should}) AS n FROM sop_runs");
        assert_eq!(plan.number(&runs).await, 11, "it took place once, and everybody was looked at once");
        let jobs = "SELECT count(*) * 10 + count(*) FILTER (WHERE final_state = 'completed') AS n FROM jobs \
            WHERE kind = 'sop_enroll'";
        assert_eq!(plan.number(jobs).await, 11, "by one job");
        assert_eq!(plan.number("SELECT count(*) AS n FROM sop_run_contacts").await, 0, "nobody is left");
        assert_eq!(plan.heard().await, vec![vec![FIRST]; PEOPLE]);
        plan.assert_sound(platform).await;
    }
}
