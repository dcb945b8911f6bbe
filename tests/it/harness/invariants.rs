//! What must hold in the record at any moment, whatever was killed.

use diesel::sql_query;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl;
use entropy_schema::Db;

/// What holds of jobs, lanes and sends. One statement, so that all of it sees one moment.
const JOBS: &str = "\
SELECT 'live job ' || j.id || ' is in ' || n.places || ' of pending and leases' AS what
FROM jobs j CROSS JOIN LATERAL (SELECT (SELECT count(*) FROM pending p WHERE p.job_id = j.id)
    + (SELECT count(*) FROM leases l WHERE l.job_id = j.id) AS places) n
WHERE j.final_state IS NULL AND n.places <> 1
UNION ALL
SELECT 'ended job ' || j.id || ' is still in pending or leases' FROM jobs j
WHERE j.final_state IS NOT NULL AND (EXISTS (SELECT FROM pending p WHERE p.job_id = j.id)
    OR EXISTS (SELECT FROM leases l WHERE l.job_id = j.id))
UNION ALL
SELECT 'pending row of no job: ' || p.job_id FROM pending p WHERE NOT EXISTS (SELECT FROM jobs j WHERE j.id = p.job_id)
UNION ALL
SELECT 'lease of no job: ' || l.job_id FROM leases l WHERE NOT EXISTS (SELECT FROM jobs j WHERE j.id = l.job_id)
UNION ALL
SELECT 'lane ' || n.id || ' is busy with a job that has no lease: ' || n.busy_job_id FROM lanes n
WHERE n.busy_job_id IS NOT NULL AND NOT EXISTS (SELECT FROM leases l WHERE l.job_id = n.busy_job_id)
UNION ALL
SELECT 'lease ' || l.job_id || ' does not hold its lane ' || l.lane_id FROM leases l JOIN lanes n ON n.id = l.lane_id
WHERE n.busy_job_id IS DISTINCT FROM l.job_id
UNION ALL
SELECT 'lane ' || n.id || ' has work and is not marked' FROM lanes n
WHERE n.busy_job_id IS NULL AND n.runnable_at IS NULL AND EXISTS (
    SELECT FROM pending p WHERE p.lane_id = n.id AND p.due_at IS NULL
      AND NOT EXISTS (SELECT FROM queue_pauses s WHERE s.organization_id = p.organization_id AND s.queue = p.queue)
      AND NOT EXISTS (SELECT FROM pending b WHERE b.lane_id = p.lane_id AND b.order_key = p.order_key
          AND b.class = p.class AND b.seq < p.seq AND b.due_at IS NOT NULL AND b.wait_code <> 'scheduled'))
UNION ALL
SELECT 'ending of ' || j.id || ' is missing or wrong' FROM jobs j LEFT JOIN job_endings e ON e.job_id = j.id
WHERE CASE WHEN j.final_state IN ('cancelled', 'dead') THEN e.state IS DISTINCT FROM j.final_state
    ELSE e.job_id IS NOT NULL END
UNION ALL
SELECT 'unique key ' || u.key || ' is held by a job that does not live' FROM unique_keys u
WHERE NOT EXISTS (SELECT FROM jobs j WHERE j.id = u.job_id AND j.final_state IS NULL AND j.unique_key = u.key)
UNION ALL
SELECT 'send ' || s.id || ' is under way without a claimed lease' FROM sends s
WHERE s.state = 'sending' AND NOT EXISTS (
    SELECT FROM leases l WHERE l.job_id = s.job_id AND l.worker_id IS NOT NULL)
UNION ALL
SELECT 'job ' || s.job_id || ' was sent ' || count(*) || ' times' FROM sends s
WHERE s.state = 'sent' GROUP BY s.job_id HAVING count(*) > 1
UNION ALL
SELECT 'completed send ' || j.id || ' has no proof' FROM jobs j
WHERE j.kind = 'send_message' AND j.final_state = 'completed' AND j.result ->> 'send_status' = 'sent'
  AND NOT EXISTS (SELECT FROM sends s WHERE s.job_id = j.id AND s.state = 'sent')";

/// What holds of conversations. A turn, or a run, whose job is dead or was called off is left to the workers' sweep, and so
/// is an answer whose messages are; one whose job says that it is done must be done.
const CONVERSATIONS: &str = "\
SELECT 'turn ' || t.id || ' is ' || t.state || ' although its job is completed' AS what
FROM turns t JOIN jobs j ON j.id = t.job_id
WHERE t.state IN ('open', 'replying') AND j.final_state = 'completed'
UNION ALL
SELECT 'turn ' || t.id || ' is open although its run has been called' FROM turns t
WHERE t.state = 'open' AND EXISTS (SELECT FROM ai_runs r WHERE r.turn_id = t.id AND r.run = t.run
    AND r.job_id = t.job_id)
UNION ALL
SELECT 'turn ' || t.id || ' is ' || t.state || ' without a run' FROM turns t
WHERE t.state IN ('replying', 'answering', 'review')
  AND NOT EXISTS (SELECT FROM ai_runs r WHERE r.turn_id = t.id AND r.run = t.run)
UNION ALL
SELECT 'turn ' || t.id || ' is ' || t.state || ' and its end says otherwise' FROM turns t
WHERE (t.closed_at IS NOT NULL) <> (t.state IN ('answered', 'dropped', 'handed_off'))
   OR (t.answered_at IS NOT NULL) <> (t.state = 'answered')
UNION ALL
SELECT 'turn ' || t.id || ' waits under an older epoch' FROM turns t JOIN conversations c ON c.id = t.conversation_id
WHERE t.state IN ('open', 'replying', 'review', 'answering') AND t.epoch <> c.mode_epoch
UNION ALL
SELECT 'draft ' || d.id || ' waits and its turn does not' FROM drafts d
WHERE d.state = 'waiting' AND NOT EXISTS (SELECT FROM turns t WHERE t.id = d.turn_id AND t.run = d.run
    AND t.state = 'review')
UNION ALL
SELECT 'turn ' || t.id || ' waits for a draft that nobody can decide' FROM turns t
WHERE t.state = 'review' AND NOT EXISTS (SELECT FROM drafts d WHERE d.turn_id = t.id AND d.run = t.run
    AND d.state = 'waiting')
UNION ALL
SELECT 'run ' || r.id || ' is called although its job is completed' FROM ai_runs r JOIN jobs j ON j.id = r.job_id
WHERE r.state = 'calling' AND j.final_state = 'completed'
UNION ALL
SELECT 'turn ' || t.id || ' is ' || t.state || ' although its answer was begun' FROM turns t
WHERE t.state <> 'answered' AND EXISTS (SELECT FROM messages m WHERE m.turn_id = t.id AND m.origin = 'ai')
UNION ALL
SELECT 'turn ' || s.turn || ' was answered by ' || count(DISTINCT s.run) || ' runs' FROM (
    SELECT j.args #>> '{reply,turn_id}' AS turn, j.args #>> '{reply,run}' AS run FROM sends s
        JOIN jobs j ON j.id = s.job_id WHERE j.args ? 'reply') s
WHERE s.turn IS NOT NULL GROUP BY s.turn HAVING count(DISTINCT s.run) > 1
UNION ALL
SELECT 'send ' || s.id || ' was begun after its conversation had changed hands' FROM sends s
    JOIN jobs j ON j.id = s.job_id
    JOIN mode_changes c ON c.conversation_id = (j.args #>> '{reply,conversation_id}')::uuid
WHERE c.epoch > (j.args #>> '{reply,epoch}')::bigint AND s.started_at > c.changed_at
UNION ALL
SELECT 'message ' || m.id || ' is in no conversation, or in a turn of another one' FROM messages m
WHERE NOT EXISTS (SELECT FROM conversations c WHERE c.id = m.conversation_id AND c.account_id = m.account_id)
   OR (m.turn_id IS NOT NULL AND NOT EXISTS (SELECT FROM turns t WHERE t.id = m.turn_id
        AND t.conversation_id = m.conversation_id))
UNION ALL
SELECT 'run ' || r.id || ' is of no turn' FROM ai_runs r
WHERE r.sop_id IS NULL AND NOT EXISTS (SELECT FROM turns t WHERE t.id = r.turn_id AND t.conversation_id = r.conversation_id)
UNION ALL
SELECT 'budget ' || p.budget_id || ' says that ' || p.reserved_yuan || ' are reserved' FROM budget_periods p
WHERE p.reserved_yuan <> (SELECT coalesce(sum(r.amount_yuan), 0) FROM budget_reservations r
    WHERE r.budget_id = p.budget_id AND r.starts_on = p.starts_on)";

#[derive(diesel::QueryableByName)]
struct Broken {
    #[diesel(sql_type = Text)]
    what: String,
}

/// Panics with what does not hold.
pub(crate) async fn assert_hold(db: &Db) {
    let mut conn = db.conn().await.expect("a connection");
    let mut broken: Vec<String> = Vec::new();
    for of in [JOBS, CONVERSATIONS] {
        let found: Vec<Broken> = sql_query(of).load(&mut conn).await.expect("the invariants can be read");
        broken.extend(found.into_iter().map(|row| row.what));
    }
    assert!(
        broken.is_empty(),
        "{} invariants are broken: {:#?}",
        broken.len(),
        &broken[..broken.len().min(20)]
    );
}
