//! Jobs as lists and details show them.
//!
//! A live job's state is told by the narrow table that holds it, so a list by state walks that table and not the
//! (far larger) table of jobs.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Bool, Jsonb, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use super::{Statement, lower_bound, upper_bound};
use crate::{Conn, Result};

/// The states that a list can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Waits for the time it was asked for.
    Scheduled,
    /// May run: waits for its turn, or was handed out and not yet claimed.
    Available,
    /// A worker has it.
    Running,
    /// Waits for a retry, or after a snooze.
    Retryable,
    /// Ended well.
    Completed,
    /// Was called off, or ran out of time.
    Cancelled,
    /// Cannot go on by itself.
    Dead,
}

/// Which jobs of an organisation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// In this state.
    pub state: Option<State>,
    /// Of this kind.
    pub kind: Option<String>,
    /// In this lane.
    pub lane_id: Option<Uuid>,
    /// Of this account.
    pub account_id: Option<Uuid>,
    /// Created at this time or later.
    pub created_from: Option<DateTime<Utc>>,
    /// Created before this time.
    pub created_to: Option<DateTime<Utc>>,
}

/// A job with the narrow row that tells where it stands.
#[derive(Debug, Clone, QueryableByName)]
pub struct Job {
    /// UUIDv7.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// Name of the job's type.
    #[diesel(sql_type = Text)]
    pub kind: String,
    /// Queue of the kind.
    #[diesel(sql_type = Text)]
    pub queue: String,
    /// 0 interactive, 1 reply, 2 campaign.
    #[diesel(sql_type = SmallInt)]
    pub class: i16,
    /// Lane that runs one job at a time.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub lane_id: Option<Uuid>,
    /// What the lane stands for.
    #[diesel(sql_type = Nullable<Text>)]
    pub lane_kind: Option<String>,
    /// Account that the job concerns.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub account_id: Option<Uuid>,
    /// Serialised input.
    #[diesel(sql_type = Jsonb)]
    pub args: Value,
    /// Attempts before the job is dead.
    #[diesel(sql_type = SmallInt)]
    pub max_attempts: i16,
    /// Not before.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub scheduled_at: Option<DateTime<Utc>>,
    /// Not after.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub expires_at: Option<DateTime<Utc>>,
    /// Ties the job to the request that made it.
    #[diesel(sql_type = Text)]
    pub trace_id: String,
    /// The person who asked.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub created_by: Option<Uuid>,
    /// When it was enqueued.
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
    /// One of [`State`]'s names.
    #[diesel(sql_type = Text)]
    pub state: String,
    /// Attempts spent, or the one under way.
    #[diesel(sql_type = SmallInt)]
    pub attempt: i16,
    /// What came of it.
    #[diesel(sql_type = Nullable<Jsonb>)]
    pub result: Option<Value>,
    /// What went wrong.
    #[diesel(sql_type = Nullable<Jsonb>)]
    pub error: Option<Value>,
    /// When the attempt that runs, or the one that ended it, was claimed.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub finalized_at: Option<DateTime<Utc>>,
    /// Somebody asked for the running job to be cancelled.
    #[diesel(sql_type = Bool)]
    pub cancel_requested: bool,
}

/// A job that is in none of the narrow tables and has not ended is on its way from one to the other in a transaction
/// that this statement does not see yet; it cannot happen within one snapshot, and would show as available.
const COLUMNS: &str = "\
SELECT j.id, j.kind, j.queue, j.class, j.lane_id, n.kind AS lane_kind, j.account_id, j.args, j.max_attempts,
    j.scheduled_at, j.expires_at, j.trace_id, j.created_by, j.created_at,
    CASE WHEN j.final_state IS NOT NULL THEN j.final_state
        WHEN l.worker_id IS NOT NULL THEN 'running'
        WHEN p.wait_code = 'scheduled' THEN 'scheduled'
        WHEN p.due_at IS NOT NULL THEN 'retryable'
        ELSE 'available' END AS state,
    CASE WHEN j.final_state IS NOT NULL THEN j.attempt
        WHEN l.worker_id IS NOT NULL THEN l.attempt
        WHEN l.job_id IS NOT NULL THEN (l.attempt - 1)::smallint
        ELSE COALESCE(p.attempt, j.attempt) END AS attempt,
    j.result, j.error,
    CASE WHEN l.worker_id IS NOT NULL THEN l.claimed_at ELSE j.started_at END AS started_at, j.finalized_at,
    l.cancel_requested_at IS NOT NULL AS cancel_requested";

const JOINS: &str = "\
    LEFT JOIN pending p ON p.job_id = j.id
    LEFT JOIN leases l ON l.job_id = j.id
    LEFT JOIN lanes n ON n.id = j.lane_id";

/// Returns one job of the organisation.
pub async fn get(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<Job>> {
    Ok(sql_query(format!("{COLUMNS} FROM jobs j {JOINS} WHERE j.id = $1 AND j.organization_id = $2"))
        .bind::<SqlUuid, _>(id)
        .bind::<SqlUuid, _>(organization)
        .get_result(conn)
        .await
        .optional()?)
}

/// Returns the organisation's jobs that pass `filter`, newest first, older than `before`.
pub async fn list(
    conn: &mut Conn,
    organization: Uuid,
    filter: &Filter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Job>> {
    let page = Page::new(organization, filter, before, limit).statement("WITH page AS (");
    let rows = page
        .sql(format!(") {COLUMNS} FROM page JOIN jobs j ON j.id = page.id {JOINS} ORDER BY page.id DESC"));
    Ok(rows.load(conn).await?)
}

#[derive(QueryableByName)]
struct Id {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

/// Returns the ids that [`list`] would show: the next slice of a bulk change.
///
/// With `waiting_only`, jobs that were handed out are left out: they cannot be changed by the thousand.
pub async fn ids(
    conn: &mut Conn,
    organization: Uuid,
    filter: &Filter,
    waiting_only: bool,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Uuid>> {
    let mut page = Page::new(organization, filter, before, limit);
    page.waiting_only = waiting_only;
    let rows: Vec<Id> = page.statement("").load(conn).await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// Counts what [`ids`] would return, up to `limit`.
pub async fn count(
    conn: &mut Conn,
    organization: Uuid,
    filter: &Filter,
    waiting_only: bool,
    before: Option<Uuid>,
    limit: i64,
) -> Result<i64> {
    let mut page = Page::new(organization, filter, before, limit);
    page.waiting_only = waiting_only;
    let counted = page.statement("SELECT count(*) AS n FROM (").sql(") AS matched");
    Ok(counted.get_result::<Count>(conn).await?.n)
}

/// Where the ids of a page come from: the table to walk, its column with the job's id, and its own condition.
struct Source {
    from: &'static str,
    id: &'static str,
    organization: &'static str,
    condition: &'static str,
}

const JOBS: Source = Source { from: "jobs j", id: "j.id", organization: "j.organization_id", condition: "" };

const fn pending(condition: &'static str) -> Source {
    Source {
        from: "pending w JOIN jobs j ON j.id = w.job_id",
        id: "w.job_id",
        organization: "w.organization_id",
        condition,
    }
}

const fn leases(condition: &'static str) -> Source {
    Source {
        from: "leases w JOIN jobs j ON j.id = w.job_id",
        id: "w.job_id",
        organization: "w.organization_id",
        condition,
    }
}

const fn endings(condition: &'static str) -> Source {
    Source {
        from: "job_endings w JOIN jobs j ON j.id = w.job_id",
        id: "w.job_id",
        organization: "w.organization_id",
        condition,
    }
}

struct Page<'a> {
    organization: Uuid,
    filter: &'a Filter,
    before: Option<Uuid>,
    limit: i64,
    waiting_only: bool,
}

impl<'a> Page<'a> {
    fn new(organization: Uuid, filter: &'a Filter, before: Option<Uuid>, limit: i64) -> Self {
        Page { organization, filter, before, limit, waiting_only: false }
    }

    fn sources(&self) -> Vec<Source> {
        match self.filter.state {
            None if self.waiting_only => vec![pending("")],
            None => vec![JOBS],
            Some(State::Scheduled) => vec![pending(" AND w.wait_code = 'scheduled'")],
            Some(State::Retryable) => {
                vec![pending(" AND w.due_at IS NOT NULL AND w.wait_code <> 'scheduled'")]
            }
            Some(State::Available) if self.waiting_only => vec![pending(" AND w.due_at IS NULL")],
            Some(State::Available) => {
                vec![pending(" AND w.due_at IS NULL"), leases(" AND w.worker_id IS NULL")]
            }
            Some(State::Running) => vec![leases(" AND w.worker_id IS NOT NULL")],
            Some(State::Completed) => {
                vec![Source { condition: " AND j.final_state = 'completed'", ..JOBS }]
            }
            Some(State::Cancelled) => vec![endings(" AND w.state = 'cancelled'")],
            Some(State::Dead) => vec![endings(" AND w.state = 'dead'")],
        }
    }

    /// Appends a query for the page's ids to `text`.
    fn statement(&self, text: &str) -> Statement {
        let mut statement: Statement = sql_query(text.to_owned()).into_boxed();
        let sources = self.sources();
        let several = sources.len() > 1;
        let mut binds = 0;
        if several {
            statement = statement.sql("SELECT id FROM (");
        }
        for (index, source) in sources.iter().enumerate() {
            if index > 0 {
                statement = statement.sql(" UNION ALL ");
            }
            statement = self.select(statement.sql("("), source, &mut binds).sql(")");
        }
        if several {
            binds += 1;
            statement = statement
                .sql(format!(") AS either ORDER BY id DESC LIMIT ${binds}"))
                .bind::<BigInt, _>(self.limit);
        }
        statement
    }

    fn select(&self, statement: Statement, source: &Source, binds: &mut usize) -> Statement {
        let mut next = || {
            *binds += 1;
            *binds
        };
        let Source { from, id, organization, condition } = source;
        let mut statement = statement
            .sql(format!("SELECT {id} AS id FROM {from} WHERE {organization} = ${}{condition}", next()))
            .bind::<SqlUuid, _>(self.organization);
        let filter = self.filter;
        if let Some(kind) = &filter.kind {
            statement = statement.sql(format!(" AND j.kind = ${}", next())).bind::<Text, _>(kind.clone());
        }
        if let Some(lane) = filter.lane_id {
            statement = statement.sql(format!(" AND j.lane_id = ${}", next())).bind::<SqlUuid, _>(lane);
        }
        if let Some(account) = filter.account_id {
            statement = statement.sql(format!(" AND j.account_id = ${}", next())).bind::<SqlUuid, _>(account);
        }
        if let Some(from) = filter.created_from {
            statement = statement
                .sql(format!(" AND j.created_at >= ${}", next()))
                .bind::<Timestamptz, _>(from)
                .sql(format!(" AND {id} >= ${}", next()))
                .bind::<SqlUuid, _>(lower_bound(from));
        }
        if let Some(to) = filter.created_to {
            statement = statement
                .sql(format!(" AND j.created_at < ${}", next()))
                .bind::<Timestamptz, _>(to)
                .sql(format!(" AND {id} < ${}", next()))
                .bind::<SqlUuid, _>(upper_bound(to));
        }
        if let Some(before) = self.before {
            statement = statement.sql(format!(" AND {id} < ${}", next())).bind::<SqlUuid, _>(before);
        }
        statement.sql(format!(" ORDER BY {id} DESC LIMIT ${}", next())).bind::<BigInt, _>(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(filter: &Filter, before: Option<Uuid>) -> String {
        let statement = Page::new(Uuid::nil(), filter, before, 50).statement("");
        diesel::debug_query::<diesel::pg::Pg, _>(&statement).to_string()
    }

    #[test]
    fn a_list_names_only_the_conditions_it_was_asked_for() {
        let all = text(&Filter::default(), None);
        assert!(
            all.starts_with(
                "(SELECT j.id AS id FROM jobs j WHERE j.organization_id = $1 ORDER BY j.id DESC LIMIT $2)"
            ),
            "{all}"
        );
        let some = Filter { kind: Some("send_message".into()), ..Filter::default() };
        let some = text(&some, Some(Uuid::nil()));
        assert!(some.contains("AND j.kind = $2 AND j.id < $3 ORDER BY j.id DESC LIMIT $4"), "{some}");
    }

    #[test]
    fn a_list_by_state_walks_the_narrow_table_of_that_state() {
        let by = |state| text(&Filter { state: Some(state), ..Filter::default() }, None);
        assert!(by(State::Dead).contains("FROM job_endings w"));
        assert!(by(State::Running).contains("FROM leases w"));
        assert!(by(State::Scheduled).contains("FROM pending w"));
        let available = by(State::Available);
        assert!(available.contains("FROM pending w") && available.contains("FROM leases w"), "{available}");
        assert!(available.contains("ORDER BY id DESC LIMIT $5"), "{available}");
    }
}
