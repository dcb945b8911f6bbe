//! The send record as people read it: what they must decide first, then what left lately.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{Statement, lower_bound, upper_bound};
use crate::tables::sends;
use crate::{Conn, Result};

/// One call that may have left the machine.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, QueryableByName)]
#[diesel(table_name = sends)]
pub struct Send {
    /// UUIDv7.
    pub id: Uuid,
    /// The account that sent.
    pub account_id: Uuid,
    /// The job.
    pub job_id: Uuid,
    /// Its attempt.
    pub attempt: i16,
    /// The recipient.
    pub to_wxid: String,
    /// Kind of the message.
    pub message_kind: String,
    /// `sending`, `sent`, `failed` or `unknown`.
    pub state: String,
    /// When the call began.
    pub started_at: DateTime<Utc>,
    /// When its outcome was recorded.
    pub finished_at: Option<DateTime<Utc>>,
    /// The provider's local id.
    pub msg_id: Option<String>,
    /// The provider's global id.
    pub new_msg_id: Option<String>,
    /// The provider's time, in its own seconds.
    pub create_time: Option<i64>,
    /// Class of the error.
    pub error_class: Option<String>,
    /// Stable code of the error.
    pub error_code: Option<String>,
    /// Sentence for people.
    pub error_message: Option<String>,
    /// How a person, or the caller's policy, decided an unknown outcome.
    pub resolved_as: Option<String>,
    /// Who decided.
    pub resolved_by: Option<Uuid>,
    /// When.
    pub resolved_at: Option<DateTime<Utc>>,
}

const COLUMNS: &str = "id, account_id, job_id, attempt, to_wxid, message_kind, state, started_at, finished_at, \
    msg_id, new_msg_id, create_time, error_class, error_code, error_message, resolved_as, resolved_by, resolved_at";

/// The two parts of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Outcomes that wait for a person's word.
    Open,
    /// All others.
    Rest,
}

/// Which sends of an organisation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// In this state.
    pub state: Option<String>,
    /// From this account.
    pub account_id: Option<Uuid>,
    /// Of this job.
    pub job_id: Option<Uuid>,
    /// To this recipient.
    pub to_wxid: Option<String>,
    /// Begun at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Begun before this time.
    pub to: Option<DateTime<Utc>>,
}

/// Returns one part of the organisation's sends, newest first, older than `before`.
pub async fn list(
    conn: &mut Conn,
    organization: Uuid,
    part: Part,
    filter: &Filter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Send>> {
    Ok(statement(organization, part, filter, before, limit).load(conn).await?)
}

fn statement(organization: Uuid, part: Part, filter: &Filter, before: Option<Uuid>, limit: i64) -> Statement {
    let mut binds = 0;
    let mut next = || {
        binds += 1;
        binds
    };
    let part = match part {
        Part::Open => "state = 'unknown' AND resolved_at IS NULL",
        Part::Rest => "(state <> 'unknown' OR resolved_at IS NOT NULL)",
    };
    let mut statement: Statement =
        sql_query(format!("SELECT {COLUMNS} FROM sends WHERE organization_id = ${} AND {part}", next()))
            .into_boxed()
            .bind::<SqlUuid, _>(organization);
    if let Some(state) = &filter.state {
        statement = statement.sql(format!(" AND state = ${}", next())).bind::<Text, _>(state.clone());
    }
    if let Some(account) = filter.account_id {
        statement = statement.sql(format!(" AND account_id = ${}", next())).bind::<SqlUuid, _>(account);
    }
    if let Some(job) = filter.job_id {
        statement = statement.sql(format!(" AND job_id = ${}", next())).bind::<SqlUuid, _>(job);
    }
    if let Some(to_wxid) = &filter.to_wxid {
        statement = statement.sql(format!(" AND to_wxid = ${}", next())).bind::<Text, _>(to_wxid.clone());
    }
    if let Some(from) = filter.from {
        statement = statement
            .sql(format!(" AND started_at >= ${}", next()))
            .bind::<Timestamptz, _>(from)
            .sql(format!(" AND id >= ${}", next()))
            .bind::<SqlUuid, _>(lower_bound(from));
    }
    if let Some(to) = filter.to {
        statement = statement
            .sql(format!(" AND started_at < ${}", next()))
            .bind::<Timestamptz, _>(to)
            .sql(format!(" AND id < ${}", next()))
            .bind::<SqlUuid, _>(upper_bound(to));
    }
    if let Some(before) = before {
        statement = statement.sql(format!(" AND id < ${}", next())).bind::<SqlUuid, _>(before);
    }
    statement.sql(format!(" ORDER BY id DESC LIMIT ${}", next())).bind::<BigInt, _>(limit)
}

/// Returns the latest send of each of `jobs`.
pub async fn latest_of(conn: &mut Conn, organization: Uuid, jobs: &[Uuid]) -> Result<Vec<Send>> {
    Ok(sends::table
        .distinct_on(sends::job_id)
        .filter(sends::job_id.eq_any(jobs).and(sends::organization_id.eq(organization)))
        .order((sends::job_id, sends::id.desc()))
        .select(Send::as_select())
        .load(conn)
        .await?)
}
