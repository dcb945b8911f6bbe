//! What a job left behind that ended without doing what it was made for: turns that wait for an answer which nobody will
//! send, and calls of the model whose end nobody will write down.

use std::sync::LazyLock;

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Nullable, SmallInt, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::ai_runs::Run;
use crate::tables::{ai_runs, jobs};
use crate::{Conn, Result};

/// A turn that waits in vain.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Turn {
    /// The turn.
    #[diesel(sql_type = SqlUuid)]
    pub turn_id: Uuid,
    /// The run.
    #[diesel(sql_type = SmallInt)]
    pub run: i16,
    /// `open`, `replying` or `answering`.
    #[diesel(sql_type = Text)]
    pub state: String,
    /// The job of the run.
    #[diesel(sql_type = SqlUuid)]
    pub job_id: Uuid,
    /// The chat.
    #[diesel(sql_type = SqlUuid)]
    pub conversation_id: Uuid,
    /// The tenant.
    #[diesel(sql_type = SqlUuid)]
    pub organization_id: Uuid,
    /// Why its job, or the send of its answer, was called off. None: it was not, it died.
    #[diesel(sql_type = Nullable<Text>)]
    pub called_off: Option<String>,
}

/// The messages of an answer are looked for among the waiting jobs of class `reply`, and in the job that runs in the lane:
/// one snapshot, so that one which is being handed out is seen in either.
///
/// Ids are times: of the turns that are not answered, which have an index of their own, those of a day.
static TURNS: LazyLock<String> = LazyLock::new(|| {
    let waits = |which: &str| {
        format!(
            "EXISTS (SELECT FROM pending p JOIN jobs s ON s.id = p.job_id WHERE p.lane_id = t.account_id \
                 AND p.order_key = c.peer_wxid AND p.class = 1 AND {which} \
                 AND s.args #>> '{{reply,turn_id}}' = t.id::text)"
        )
    };
    format!(
        "WITH t AS MATERIALIZED (SELECT t.id, t.run, t.state, t.job_id, t.account_id, t.conversation_id, \
                 t.organization_id FROM turns t \
             WHERE t.id > (SELECT (lpad(to_hex((extract(epoch FROM clock_timestamp() - interval '1 day') * 1000)::bigint), \
                     12, '0') || repeat('0', 20))::uuid) AND t.state IN ('open', 'replying', 'answering')) \
         SELECT t.id AS turn_id, t.run, t.state, t.job_id, t.conversation_id, t.organization_id, \
             CASE WHEN e.final_state = 'cancelled' THEN e.error ->> 'code' END AS called_off \
         FROM t JOIN conversations c ON c.id = t.conversation_id LEFT JOIN jobs j ON j.id = t.job_id \
             LEFT JOIN ai_runs r ON r.turn_id = t.id AND r.run = t.run AND r.outcome = 'sent' \
             LEFT JOIN jobs a ON a.id = r.job_id \
             LEFT JOIN jobs e ON e.id = CASE t.state WHEN 'answering' \
                 THEN (a.result #>> '{{details,job_ids,0}}')::uuid ELSE t.job_id END \
         WHERE CASE t.state WHEN 'answering' THEN NOT ({} OR {} \
             OR EXISTS (SELECT FROM lanes n JOIN jobs s ON s.id = n.busy_job_id WHERE n.id = t.account_id \
                 AND s.args #>> '{{reply,turn_id}}' = t.id::text)) \
             ELSE j.final_state IS NOT NULL END \
         ORDER BY t.id LIMIT $1",
        waits("p.due_at IS NULL"),
        waits("p.due_at IS NOT NULL AND p.wait_code <> 'scheduled'"),
    )
});

/// Returns turns of the last day that wait for an answer although the job that was to ask for it has ended, or all the
/// messages that were to say it.
pub async fn turns(conn: &mut Conn, limit: i64) -> Result<Vec<Turn>> {
    Ok(sql_query(&*TURNS).bind::<BigInt, _>(limit).load(conn).await?)
}

/// Returns calls of the last day that stand at `calling` although the job that made them has ended.
pub async fn runs(conn: &mut Conn, limit: i64) -> Result<Vec<Run>> {
    use diesel::dsl::{exists, not, sql};
    use diesel::sql_types::{Bool, Timestamptz};
    let lives = jobs::table.filter(jobs::id.eq(ai_runs::job_id).and(jobs::final_state.is_null()));
    Ok(ai_runs::table
        // In words: that is the condition of the index, which the planner compares as it is written.
        .filter(sql::<Bool>("ai_runs.state IN ('calling', 'unknown')").and(ai_runs::state.eq("calling")))
        .filter(ai_runs::started_at.gt(sql::<Timestamptz>("(SELECT clock_timestamp() - interval '1 day')")))
        .filter(not(exists(lives)))
        .order(ai_runs::started_at)
        .limit(limit)
        .select(Run::as_select())
        .load(conn)
        .await?)
}
