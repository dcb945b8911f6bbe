-- `GET /jobs?state=available` beside a large backlog that is scheduled. Each waiting job is in one of the three indexes
-- of this kind, one per state; together they can replace pending_organization_idx in a later release.
CREATE INDEX CONCURRENTLY IF NOT EXISTS pending_available_idx ON pending (organization_id, job_id) WHERE due_at IS NULL;
