//! What must hold in the record at any moment, whatever was killed.

use diesel::sql_query;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl;
use entropy_schema::Db;

/// One statement, so that all of it sees one moment.
const BROKEN: &str = "\
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

#[derive(diesel::QueryableByName)]
struct Broken {
    #[diesel(sql_type = Text)]
    what: String,
}

/// Panics with what does not hold.
pub(crate) async fn assert_hold(db: &Db) {
    let mut conn = db.conn().await.expect("a connection");
    let broken: Vec<Broken> = sql_query(BROKEN).load(&mut conn).await.expect("the invariants can be read");
    let broken: Vec<String> = broken.into_iter().map(|row| row.what).collect();
    assert!(
        broken.is_empty(),
        "{} invariants are broken: {:#?}",
        broken.len(),
        &broken[..broken.len().min(20)]
    );
}
