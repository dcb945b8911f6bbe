-- `GET /jobs?state=scheduled` beside a large backlog that may run.
CREATE INDEX CONCURRENTLY IF NOT EXISTS pending_scheduled_idx ON pending (organization_id, job_id) WHERE wait_code = 'scheduled';
