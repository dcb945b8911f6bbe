//! A kind that is delivered at most once, which the product has none of, and the worker process that knows it: this
//! test binary, started again.

use std::path::PathBuf;
use std::time::Duration;

use diesel::sql_query;
use diesel::sql_types::Uuid as SqlUuid;
use diesel_async::RunQueryDsl;
use entropy_jobs::job::{Done, Job, JobError};
use entropy_jobs::lifecycle::Delivery;
use entropy_jobs::services::Context;
use entropy_schema::record::finish::LaneWait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::harness::worker;

/// Says to the test below that it is the worker process.
const SWITCH: &str = "ENTROPY_CRASH_MATRIX_WORKER";

/// What a lane waits after each job, so that no other is under way while one comes to its end.
const GAP_MS: i64 = 300;

/// The table of what jobs of the kind have done.
pub(super) const TABLE: &str = "CREATE TABLE effects (seq bigserial PRIMARY KEY, job_id uuid NOT NULL)";

/// A piece of work that leaves one row behind, and would leave a second one if it were done again.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Effect {
    /// The lane.
    pub(super) lane: Uuid,
    /// Effects of one conversation keep their order.
    pub(super) conversation: String,
}

impl Job for Effect {
    const KIND: &'static str = "crash_matrix_effect";
    const QUEUE: &'static str = "crash_matrix";
    const DELIVERY: Delivery = Delivery::AtMostOnce;

    fn lane(&self) -> Option<Uuid> {
        Some(self.lane)
    }

    fn order_key(&self) -> Option<String> {
        Some(self.conversation.clone())
    }

    async fn run(&self, ctx: &Context) -> Result<Done, JobError> {
        let mut conn = ctx.conn().await?;
        sql_query("INSERT INTO effects (job_id) VALUES ($1)")
            .bind::<SqlUuid, _>(ctx.job_id)
            .execute(&mut conn)
            .await?;
        drop(conn);
        // Work that takes its time: so the janitor comes by while there is still some of it.
        tokio::time::sleep(Duration::from_millis(150)).await;
        Ok(Done { result: None, lane_wait: Some(LaneWait { delay_ms: GAP_MS, code: "min_gap" }) })
    }
}

/// Returns the program, the arguments and the variable that start the worker process.
pub(super) fn worker() -> (PathBuf, [&'static str; 4], (&'static str, &'static str)) {
    let program = std::env::current_exe().expect("this test binary");
    let test = "crash_matrix::kind::a_worker_knows_a_kind_that_is_delivered_at_most_once";
    (program, [test, "--exact", "--nocapture", "--test-threads=1"], (SWITCH, "1"))
}

/// In a test run it looks at the kind; started by the matrix, it is a worker until it is killed.
#[test]
fn a_worker_knows_a_kind_that_is_delivered_at_most_once() {
    let registry = entropy_jobs::kinds::registry().register::<Effect>();
    let info = *registry.get(Effect::KIND).expect("it is registered");
    assert_eq!((info.delivery, info.queue), (Delivery::AtMostOnce, Effect::QUEUE));
    if std::env::var_os(SWITCH).is_none() {
        return;
    }
    worker::run(registry);
}
