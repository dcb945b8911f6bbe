//! Enrollments: one person or group on its way through one version of a plan.
//!
//! `due_at` is the only clock of an enrollment: while it lies ahead, nothing of it is anywhere but this row.

use std::sync::LazyLock;

use chrono::{DateTime, NaiveDate, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::cached::Cache;
use crate::tables::sop_enrollments;
use crate::{Conn, Result};

/// An enrollment.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable, AsChangeset, QueryableByName)]
#[diesel(table_name = sop_enrollments, treat_none_as_null = true)]
pub struct Enrollment {
    /// UUIDv7.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// The plan.
    pub sop_id: Uuid,
    /// Its version, for good.
    pub version: i32,
    /// The account that writes.
    pub account_id: Uuid,
    /// The person or group.
    pub contact_id: Uuid,
    /// `pending`, `active`, `waiting`, `paused`, `completed`, `exited` or `failed`.
    pub state: String,
    /// Why.
    pub reason: Option<String>,
    /// In the words of the step or the rule that ended it.
    pub outcome: Option<String>,
    /// The step at which it stands.
    pub step_id: Option<String>,
    /// When it came there.
    pub reached_at: DateTime<Utc>,
    /// When somebody must look at it.
    pub due_at: Option<DateTime<Utc>>,
    /// When the step is due by the plan.
    pub planned_at: Option<DateTime<Utc>>,
    /// Why `due_at` lies ahead.
    pub wait_code: Option<String>,
    /// The day on which the first step was due, where the person is.
    pub start_day: Option<NaiveDate>,
    /// When it ends whatever happens.
    pub deadline_at: Option<DateTime<Utc>>,
    /// Messages sent.
    pub sent: i32,
    /// Messages in a row that could not be sent.
    pub failures: i32,
    /// When the other side answered last.
    pub replied_at: Option<DateTime<Utc>>,
    /// When the goal was reached.
    pub goal_at: Option<DateTime<Utc>>,
    /// The arm of each split.
    pub arms: Value,
    /// Tags that it has set itself, or that were there before it began: they stop nothing.
    pub own_tags: Vec<String>,
    /// What brought the person in.
    pub source: String,
    /// The state to come back to from `paused`.
    pub paused_from: Option<String>,
    /// The person of ours who brought them in.
    pub created_by: Option<Uuid>,
    /// When.
    pub created_at: DateTime<Utc>,
    /// When it was over.
    pub finished_at: Option<DateTime<Utc>>,
}

/// An enrollment that somebody must look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct Due {
    /// The enrollment.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// The tenant.
    #[diesel(sql_type = SqlUuid)]
    pub organization_id: Uuid,
    /// The account that writes.
    #[diesel(sql_type = SqlUuid)]
    pub account_id: Uuid,
}

#[derive(QueryableByName)]
struct Flag {
    #[diesel(sql_type = Bool)]
    found: bool,
}

/// Tells whether anything is due: one index probe.
pub async fn any_due(conn: &mut Conn) -> Result<bool> {
    let row = sql_query(
        "SELECT COALESCE((SELECT due_at FROM sop_enrollments WHERE due_at IS NOT NULL ORDER BY due_at LIMIT 1) \
             <= campaign_now(), false) AS found",
    )
    .cached()
    .get_result::<Flag>(conn)
    .await?;
    Ok(row.found)
}

/// Locks enrollments that are due, the oldest first; those that somebody else is busy with are skipped.
///
/// Of those who are due at one moment, because a window opens or a cap of the day is new, whoever came to the step first goes
/// first: they have waited longest, and a rehearsal says so.
pub async fn take_due(conn: &mut Conn, limit: i64) -> Result<Vec<Due>> {
    Ok(sql_query(
        "SELECT id, organization_id, account_id FROM sop_enrollments \
         WHERE due_at <= (SELECT campaign_now()) ORDER BY due_at, reached_at, id LIMIT $1 FOR UPDATE SKIP LOCKED",
    )
    .bind::<BigInt, _>(limit)
    .cached()
    .load(conn)
    .await?)
}

/// Notes that jobs carry these on. They come due again when the jobs should long be over, should those be lost.
///
/// A pause that has ended is over with that; what brought it about is not held against the enrollment again.
pub async fn handed_out(conn: &mut Conn, ids: &[Uuid]) -> Result<()> {
    sql_query(
        "UPDATE sop_enrollments SET due_at = campaign_now() + interval '5 minutes', \
             failures = CASE WHEN state = 'paused' THEN 0 ELSE failures END, \
             reason = NULL, paused_from = NULL, state = 'active' WHERE id = ANY($1)",
    )
    .bind::<Array<SqlUuid>, _>(ids)
    .cached()
    .execute(conn)
    .await?;
    Ok(())
}

/// Has these looked at again in so many milliseconds.
pub async fn put_off(conn: &mut Conn, ids: &[Uuid], delay_ms: i64) -> Result<()> {
    sql_query(
        "UPDATE sop_enrollments SET due_at = campaign_now() + $2 * interval '1 millisecond' \
         WHERE id = ANY($1) AND due_at IS NOT NULL",
    )
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<BigInt, _>(delay_ms)
    .cached()
    .execute(conn)
    .await?;
    Ok(())
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// Returns how many jobs of a queue may run or do; of more than `limit`, that it is more. Those that wait for their retry are few,
/// and left out.
///
/// It reads no more of a backlog than it counts, and as many leases as there are, up to ten times as many.
pub async fn jobs_under_way(conn: &mut Conn, queue: &str, limit: i64) -> Result<i64> {
    let row = sql_query(
        "SELECT (SELECT count(*) FROM (SELECT FROM pending p \
                 WHERE p.queue = $1 AND p.lane_id IS NULL AND p.due_at IS NULL LIMIT $2 + 1) w) \
             + (SELECT count(*) FROM (SELECT l.queue FROM leases l ORDER BY l.lease_until LIMIT $2 * 10) r \
                 WHERE r.queue = $1) AS n",
    )
    .bind::<Text, _>(queue)
    .bind::<BigInt, _>(limit)
    .cached()
    .get_result::<Count>(conn)
    .await?;
    Ok(row.n)
}

/// Locks an enrollment.
///
/// What else is to be known of it is read by the next statement, which sees everything that was committed while this one
/// waited.
pub async fn lock(conn: &mut Conn, id: Uuid) -> Result<Option<Enrollment>> {
    Ok(sop_enrollments::table
        .find(id)
        .for_update()
        .select(Enrollment::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Returns an enrollment of the organisation.
pub async fn get(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<Enrollment>> {
    Ok(sop_enrollments::table
        .find(id)
        .filter(sop_enrollments::organization_id.eq(organization))
        .select(Enrollment::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Writes an enrollment that the caller has locked.
pub async fn save(conn: &mut Conn, enrollment: &Enrollment) -> Result<()> {
    diesel::update(sop_enrollments::table.find(enrollment.id)).set(enrollment).execute(conn).await?;
    Ok(())
}

/// Enrolls people. Returns those who were not in the plan at that moment.
pub async fn insert(conn: &mut Conn, enrollments: &[Enrollment]) -> Result<Vec<Uuid>> {
    Ok(diesel::insert_into(sop_enrollments::table)
        .values(enrollments)
        .on_conflict_do_nothing()
        .returning(sop_enrollments::contact_id)
        .get_results(conn)
        .await?)
}

/// Lists a plan's enrollments, newest first.
pub async fn list(
    conn: &mut Conn,
    organization: Uuid,
    sop: Uuid,
    state: Option<&str>,
    contact: Option<Uuid>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Enrollment>> {
    let mut query = sop_enrollments::table
        .filter(sop_enrollments::organization_id.eq(organization).and(sop_enrollments::sop_id.eq(sop)))
        .order(sop_enrollments::id.desc())
        .limit(limit)
        .select(Enrollment::as_select())
        .into_boxed();
    if let Some(state) = state {
        query = query.filter(sop_enrollments::state.eq(state.to_owned()));
        if matches!(state, "completed" | "exited" | "failed") {
            // In words: that is the condition of the index in which they stand by themselves.
            query = query.filter(sop_enrollments::finished_at.is_not_null());
        }
    }
    if let Some(contact) = contact {
        query = query.filter(sop_enrollments::contact_id.eq(contact));
    }
    if let Some(before) = before {
        query = query.filter(sop_enrollments::id.lt(before));
    }
    Ok(query.load(conn).await?)
}

/// Has the living enrollments of contacts looked at now. `replied`: the other side has answered.
///
/// Paused ones are left to rest, though they learn of the answer.
pub async fn wake(conn: &mut Conn, contacts: &[Uuid], replied: bool) -> Result<()> {
    sql_query(
        "WITH whose AS MATERIALIZED ( \
             SELECT e.id FROM sop_enrollments e WHERE e.contact_id = ANY($1) AND e.finished_at IS NULL \
             ORDER BY e.id FOR UPDATE \
         ) \
         UPDATE sop_enrollments SET due_at = CASE WHEN state = 'paused' THEN due_at ELSE campaign_now() END, \
             replied_at = CASE WHEN $2 THEN campaign_now() ELSE replied_at END \
         FROM whose WHERE sop_enrollments.id = whose.id",
    )
    .bind::<Array<SqlUuid>, _>(contacts)
    .bind::<Bool, _>(replied)
    .cached()
    .execute(conn)
    .await?;
    Ok(())
}

/// Has the enrollments of a plan looked at now that wait for this reason: what they waited for is over.
pub async fn wake_waiting(conn: &mut Conn, organization: Uuid, sop: Uuid, code: &str) -> Result<()> {
    sql_query(
        "WITH whose AS MATERIALIZED ( \
             SELECT e.id FROM sop_enrollments e WHERE e.organization_id = $1 AND e.sop_id = $2 \
               AND e.state IN ('pending', 'active', 'waiting', 'paused') AND e.wait_code = $3 \
               AND e.finished_at IS NULL ORDER BY e.id FOR UPDATE \
         ) \
         UPDATE sop_enrollments SET due_at = campaign_now() FROM whose WHERE sop_enrollments.id = whose.id",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(sop)
    .bind::<Text, _>(code)
    .execute(conn)
    .await?;
    Ok(())
}

/// What of enrollments is ended; see [`end`].
#[derive(Debug, Clone, Copy)]
pub enum Whose<'a> {
    /// Those of these contacts.
    Contacts(&'a [Uuid]),
    /// Of a plan, some of them, up to so many.
    Plan(Uuid, i64),
    /// Of one version of a plan, some of them, up to so many.
    Version(Uuid, i32, i64),
    /// One.
    Enrollment(Uuid),
}

/// What [`end`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct Ended {
    /// How many it has ended.
    #[diesel(sql_type = BigInt)]
    pub ended: i64,
    /// How many it has looked at. Where that is fewer than it was allowed, there are no more.
    #[diesel(sql_type = BigInt)]
    pub seen: i64,
}

static END: LazyLock<[String; 4]> = LazyLock::new(|| {
    let them = |whose: &str| {
        format!(
            "SELECT e.id FROM sop_enrollments e WHERE {whose} AND e.organization_id = $1 AND e.finished_at IS NULL LIMIT $4"
        )
    };
    // Of a plan they are looked for state by state, so that nobody who is at an end is walked past.
    let of_plan = |version: &str| {
        format!(
            "SELECT e.id FROM unnest(ARRAY['pending', 'active', 'waiting', 'paused']) AS living (state) CROSS JOIN LATERAL ( \
                 SELECT x.id FROM sop_enrollments x WHERE x.sop_id = ($2)[1] AND x.state = living.state \
                   AND x.organization_id = $1 {version} ORDER BY x.wait_code LIMIT $4 \
             ) e LIMIT $4"
        )
    };
    let by =
        [them("e.contact_id = ANY($2)"), of_plan(""), of_plan("AND x.version = $5"), them("e.id = ANY($2)")];
    by.map(|seen| {
        format!(
            "WITH seen AS MATERIALIZED ( \
                 {seen} \
             ), whose AS MATERIALIZED ( \
                 SELECT e.id FROM sop_enrollments e WHERE e.id = ANY(ARRAY(SELECT seen.id FROM seen)) \
                   AND e.finished_at IS NULL ORDER BY e.id FOR UPDATE \
             ), ended AS ( \
                 UPDATE sop_enrollments SET state = 'exited', reason = $3, finished_at = campaign_now(), due_at = NULL, \
                     wait_code = NULL, paused_from = NULL \
                 FROM whose WHERE sop_enrollments.id = whose.id RETURNING sop_enrollments.id \
             ), closed AS ( \
                 UPDATE sop_steps SET state = 'canceled', reason = $3, finished_at = campaign_now() FROM ended \
                 WHERE sop_steps.enrollment_id = ended.id \
                   AND sop_steps.state IN ('planned', 'due', 'deferred', 'held_for_review') \
             ) \
             SELECT (SELECT count(*) FROM ended) AS ended, (SELECT count(*) FROM seen) AS seen"
        )
    })
});

/// Ends enrollments where they stand, and returns how many. What waits to be sent for them ends at its gate.
///
/// Whoever ends many goes on until fewer were seen than may be: those whom somebody else has just ended are seen, and not ended
/// again.
pub async fn end(conn: &mut Conn, organization: Uuid, whose: Whose<'_>, reason: &str) -> Result<Ended> {
    let (text, ids, version, most) = match whose {
        Whose::Contacts(ids) => (&END[0], ids.to_vec(), 0, None),
        Whose::Plan(id, most) => (&END[1], vec![id], 0, Some(most)),
        Whose::Version(id, version, most) => (&END[2], vec![id], version, Some(most)),
        Whose::Enrollment(id) => (&END[3], vec![id], 0, None),
    };
    Ok(sql_query(text.as_str())
        .bind::<SqlUuid, _>(organization)
        .bind::<Array<SqlUuid>, _>(ids)
        .bind::<Text, _>(reason)
        .bind::<Nullable<BigInt>, _>(most)
        .bind::<Integer, _>(version)
        .cached()
        .get_result(conn)
        .await?)
}

/// Locks all living enrollments of a contact.
///
/// Whoever holds one of them and is about to have the others looked at takes all of them first, in the order of their ids, as
/// [`wake`] does.
pub async fn lock_of_contact(conn: &mut Conn, contact: Uuid) -> Result<()> {
    sql_query("SELECT e.id FROM sop_enrollments e WHERE e.contact_id = $1 AND e.finished_at IS NULL ORDER BY e.id FOR UPDATE")
        .bind::<SqlUuid, _>(contact)
        .cached()
        .execute(conn)
        .await?;
    Ok(())
}

/// Notes tags that people of ours took from a contact: given again, they are news.
pub async fn forget_tags(conn: &mut Conn, contact: Uuid, tags: &[String]) -> Result<()> {
    sql_query(
        "UPDATE sop_enrollments SET own_tags = ARRAY(SELECT t FROM unnest(own_tags) AS t WHERE t <> ALL($2)) \
         WHERE contact_id = $1 AND finished_at IS NULL AND own_tags && $2",
    )
    .bind::<SqlUuid, _>(contact)
    .bind::<Array<Text>, _>(tags)
    .execute(conn)
    .await?;
    Ok(())
}

/// Returns the ids of contacts of the organisation with this id in WeChat, under any account.
pub async fn contacts_of(conn: &mut Conn, organization: Uuid, wxid: &str) -> Result<Vec<Uuid>> {
    #[derive(QueryableByName)]
    struct Id {
        #[diesel(sql_type = SqlUuid)]
        id: Uuid,
    }
    let rows: Vec<Id> = sql_query(
        "SELECT k.id FROM contacts k \
         WHERE k.account_id = ANY(ARRAY(SELECT a.id FROM wechat_accounts a WHERE a.organization_id = $1)) AND k.wxid = $2",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<Text, _>(wxid)
    .cached()
    .load(conn)
    .await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// Returns the contact of an account with this id in WeChat.
pub async fn contact_of(
    conn: &mut Conn,
    organization: Uuid,
    account: Uuid,
    wxid: &str,
) -> Result<Option<Uuid>> {
    use crate::tables::contacts;
    Ok(contacts::table
        .filter(contacts::account_id.eq(account).and(contacts::wxid.eq(wxid)))
        .filter(contacts::organization_id.eq(organization))
        .select(contacts::id)
        .first(conn)
        .await
        .optional()?)
}

/// Returns how many living enrollments a plan has.
pub async fn living(conn: &mut Conn, organization: Uuid, sop: Uuid) -> Result<i64> {
    Ok(sop_enrollments::table
        .filter(sop_enrollments::organization_id.eq(organization).and(sop_enrollments::sop_id.eq(sop)))
        .filter(sop_enrollments::finished_at.is_null())
        .count()
        .get_result(conn)
        .await?)
}

/// The same for the contact of an account with this id in WeChat.
pub async fn wake_peer(
    conn: &mut Conn,
    organization: Uuid,
    account: Uuid,
    peer: &str,
    replied: bool,
) -> Result<()> {
    sql_query(
        "WITH whose AS MATERIALIZED ( \
             SELECT e.id FROM contacts k JOIN sop_enrollments e ON e.contact_id = k.id AND e.finished_at IS NULL \
             WHERE k.account_id = $2 AND k.wxid = $3 AND k.organization_id = $1 ORDER BY e.id FOR UPDATE OF e \
         ) \
         UPDATE sop_enrollments SET due_at = CASE WHEN state = 'paused' THEN due_at ELSE campaign_now() END, \
             replied_at = CASE WHEN $4 THEN campaign_now() ELSE replied_at END \
         FROM whose WHERE sop_enrollments.id = whose.id",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(account)
    .bind::<Text, _>(peer)
    .bind::<Bool, _>(replied)
    .cached()
    .execute(conn)
    .await?;
    Ok(())
}
