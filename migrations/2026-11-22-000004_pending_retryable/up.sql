-- `GET /jobs?state=retryable` beside a large backlog of any other kind.
CREATE INDEX CONCURRENTLY IF NOT EXISTS pending_retryable_idx ON pending (organization_id, job_id)
    WHERE due_at IS NOT NULL AND wait_code <> 'scheduled';
