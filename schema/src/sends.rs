//! The send record: one row per call that may have left this machine. It is also the limiter.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{
    Array, BigInt, Bool, Integer, Jsonb, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncConnection, RunQueryDsl};
use uuid::Uuid;

use crate::accounts::{LOGGED_IN, LOGGED_OUT};
use crate::cached::Cache;
use crate::messages::{Outgoing, outgoing};
use crate::{Conn, Result};

/// What the gate must know before a send, read under the locks of the lease and the lane.
#[derive(Debug, Clone, QueryableByName)]
pub struct GateFacts {
    /// The database's time.
    #[diesel(sql_type = Timestamptz)]
    pub now: DateTime<Utc>,
    /// Somebody asked for the job to be cancelled.
    #[diesel(sql_type = Bool)]
    pub cancel_requested: bool,
    /// The job's deadline.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub expires_at: Option<DateTime<Utc>>,
    /// A send of this job is recorded as sent, or as unknown and undecided: it must not be repeated.
    #[diesel(sql_type = Bool)]
    pub already_sent: bool,
    /// A record of this job still stands at `sending`; see [`withdraw`].
    #[diesel(sql_type = Bool)]
    pub left_over: bool,
    /// The lane is paused.
    #[diesel(sql_type = Bool)]
    pub lane_paused: bool,
    /// The organisation has paused the job's queue.
    #[diesel(sql_type = Bool)]
    pub queue_paused: bool,
    /// State of the account.
    #[diesel(sql_type = Text)]
    pub status: String,
    /// The account was removed.
    #[diesel(sql_type = Bool)]
    pub deleted: bool,
    /// The account's own id in WeChat.
    #[diesel(sql_type = Nullable<Text>)]
    pub wxid: Option<String>,
    /// The device.
    #[diesel(sql_type = Nullable<Text>)]
    pub gewe_app_id: Option<String>,
    /// The provider token, sealed; none: the token of this install.
    #[diesel(sql_type = Nullable<Text>)]
    pub gewe_token_id: Option<String>,
    /// Stable key of the account's own token.
    #[diesel(sql_type = Nullable<Text>)]
    pub token_key: Option<String>,
    /// Limit.
    #[diesel(sql_type = Integer)]
    pub messages_per_minute: i32,
    /// Limit, in milliseconds.
    #[diesel(sql_type = Integer)]
    pub min_gap_ms: i32,
    /// Limit.
    #[diesel(sql_type = Integer)]
    pub messages_per_day: i32,
    /// Limit.
    #[diesel(sql_type = Integer)]
    pub recipients_per_minute: i32,
    /// Limit, counted over all accounts of the token.
    #[diesel(sql_type = Integer)]
    pub api_calls_per_hour: i32,
}

const GATE: &str = "\
SELECT clock_timestamp() AS now, l.cancel_requested_at IS NOT NULL AS cancel_requested, l.expires_at,
    EXISTS (SELECT FROM sends s WHERE s.job_id = l.job_id
        AND (s.state = 'sent' OR (s.state = 'unknown' AND s.resolved_at IS NULL))) AS already_sent,
    EXISTS (SELECT FROM sends s WHERE s.job_id = l.job_id AND s.state = 'sending') AS left_over,
    lanes.paused_at IS NOT NULL AS lane_paused,
    EXISTS (SELECT FROM queue_pauses s WHERE s.organization_id = l.organization_id AND s.queue = l.queue) AS queue_paused,
    a.status, a.deleted_at IS NOT NULL AS deleted, a.wxid, a.gewe_app_id, a.gewe_token_id, a.token_key,
    a.messages_per_minute, a.min_gap_ms, a.messages_per_day, a.recipients_per_minute, a.api_calls_per_hour
FROM leases l JOIN lanes ON lanes.id = l.lane_id JOIN wechat_accounts a ON a.id = l.lane_id
WHERE l.job_id = $1 AND l.attempt = $2 AND l.worker_id = $3
FOR UPDATE OF l, lanes FOR SHARE OF a";

/// Locks the attempt's lease, its lane and its account, and reads what the gate must know.
///
/// None: the lease is not ours any more. Call it in a transaction and take the decision inside.
pub async fn lock_gate(conn: &mut Conn, job: Uuid, attempt: i16, worker: Uuid) -> Result<Option<GateFacts>> {
    Ok(sql_query(GATE)
        .bind::<SqlUuid, _>(job)
        .bind::<SmallInt, _>(attempt)
        .bind::<SqlUuid, _>(worker)
        .cached()
        .get_result(conn)
        .await
        .optional()?)
}

/// Serialises the gates of all accounts that share a token, until the caller's transaction ends.
pub async fn lock_token(conn: &mut Conn, token_key: &str) -> Result<()> {
    sql_query("SELECT pg_advisory_xact_lock(hashtextextended('token:' || $1, 0))")
        .bind::<Text, _>(token_key)
        .cached()
        .execute(conn)
        .await?;
    Ok(())
}

/// The limits whose windows are read; see [`Windows`].
#[derive(Debug, Clone)]
pub struct Limits {
    /// Messages in any rolling minute.
    pub per_minute: i32,
    /// Messages in any rolling day.
    pub per_day: i32,
    /// Distinct recipients in any rolling minute.
    pub recipients_per_minute: i32,
    /// Calls of the token in any rolling hour.
    pub token_per_hour: i32,
}

/// The send records that decide: for each limit of n, the n-th latest record (`None`: fewer than n).
///
/// All times are upper bounds of when the provider received the call.
#[derive(Debug, Clone, QueryableByName)]
pub struct Windows {
    /// The database's time.
    #[diesel(sql_type = Timestamptz)]
    pub now: DateTime<Utc>,
    /// The latest send of the account.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub last: Option<DateTime<Utc>>,
    /// The send that fills the minute.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub fills_minute: Option<DateTime<Utc>>,
    /// The send that fills the day.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub fills_day: Option<DateTime<Utc>>,
    /// The call that fills the token's hour.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub fills_token_hour: Option<DateTime<Utc>>,
    /// Among the *other* recipients of the last minute, the one that fills the limit.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub fills_recipients: Option<DateTime<Utc>>,
}

const WINDOWS: &str = "\
SELECT clock_timestamp() AS now,
    (SELECT window_at FROM sends WHERE account_id = $1 AND counts ORDER BY window_at DESC LIMIT 1) AS last,
    (SELECT window_at FROM sends WHERE account_id = $1 AND counts ORDER BY window_at DESC OFFSET $4 - 1 LIMIT 1)
        AS fills_minute,
    (SELECT window_at FROM sends WHERE account_id = $1 AND counts ORDER BY window_at DESC OFFSET $5 - 1 LIMIT 1)
        AS fills_day,
    (SELECT window_at FROM sends WHERE token_key = $2 AND counts ORDER BY window_at DESC OFFSET $7 - 1 LIMIT 1)
        AS fills_token_hour,
    (SELECT latest FROM (
        SELECT max(window_at) AS latest FROM sends
        WHERE account_id = $1 AND counts AND window_at > (SELECT clock_timestamp()) - interval '60 seconds'
          AND to_wxid <> $3
        GROUP BY to_wxid) r ORDER BY latest DESC OFFSET $6 - 1 LIMIT 1) AS fills_recipients";

/// Reads the windows of an account and of its token. `to_wxid` is the recipient of the next send.
///
/// Under the locks of the gate nobody else adds to them.
pub async fn windows(
    conn: &mut Conn,
    account: Uuid,
    token_key: &str,
    to_wxid: &str,
    limits: &Limits,
) -> Result<Windows> {
    Ok(sql_query(WINDOWS)
        .bind::<SqlUuid, _>(account)
        .bind::<Text, _>(token_key)
        .bind::<Text, _>(to_wxid)
        .bind::<Integer, _>(limits.per_minute)
        .bind::<Integer, _>(limits.per_day)
        .bind::<Integer, _>(limits.recipients_per_minute)
        .bind::<Integer, _>(limits.token_per_hour)
        .cached()
        .get_result(conn)
        .await?)
}

/// A send that is about to be made.
#[derive(Debug, Clone)]
pub struct NewSend<'a> {
    /// UUIDv7.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// The account that sends.
    pub account_id: Uuid,
    /// Key of the token's window.
    pub token_key: &'a str,
    /// The job.
    pub job_id: Uuid,
    /// Its attempt.
    pub attempt: i16,
    /// The recipient.
    pub to_wxid: &'a str,
    /// Kind of the message.
    pub message_kind: &'a str,
    /// What the conversation shows of it; none: the send is part of no conversation.
    pub message: Option<Outgoing<'a>>,
}

/// What of the gate's reasons can change although the gate holds its locks, looked at once more. A condition may be added.
///
/// Its time is that of the statement's arrival, which is before what the statement sees: a pause that was committed before
/// `started_at` is seen.
pub(crate) const BEGIN: &str = "\
INSERT INTO sends (id, organization_id, account_id, token_key, job_id, attempt, to_wxid, message_kind, state, started_at,
    window_at)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, 'sending', statement_timestamp(), clock_timestamp() + interval '1 hour'
FROM leases l
WHERE l.job_id = $5 AND l.attempt = $6 AND (l.expires_at IS NULL OR l.expires_at > statement_timestamp())
  AND NOT EXISTS (SELECT FROM queue_pauses s WHERE s.organization_id = l.organization_id AND s.queue = l.queue)";

/// Writes `sending`. Until the outcome is recorded the send counts against every window.
///
/// Returns false, and writes nothing, if the queue was paused, the deadline passed, or somebody opted out whom a machine was
/// going to write to, since [`lock_gate`].
pub async fn begin(conn: &mut Conn, send: &NewSend<'_>) -> Result<bool> {
    if let Some(message) = &send.message {
        return outgoing::begin(conn, send, message).await;
    }
    let written = sql_query(BEGIN)
        .bind::<SqlUuid, _>(send.id)
        .bind::<SqlUuid, _>(send.organization_id)
        .bind::<SqlUuid, _>(send.account_id)
        .bind::<Text, _>(send.token_key)
        .bind::<SqlUuid, _>(send.job_id)
        .bind::<SmallInt, _>(send.attempt)
        .bind::<Text, _>(send.to_wxid)
        .bind::<Text, _>(send.message_kind)
        .cached()
        .execute(conn)
        .await?;
    Ok(written == 1)
}

/// Withdraws a record that stands at `sending` although its call was never made.
///
/// It stems from a gate whose commit succeeded while its answer was lost, so that the attempt went no further. Only
/// the holder of the lease may say so: an attempt that made its call has recorded its end, or lost its lease to the
/// rescuer, who has called the send unknown.
pub async fn withdraw(conn: &mut Conn, job: Uuid) -> Result<()> {
    sql_query(
        "UPDATE sends SET state = 'failed', counts = false, finished_at = clock_timestamp(), \
         window_at = clock_timestamp(), error_class = 'not_sent', error_code = 'gate_interrupted', \
         error_message = 'the database connection was lost before the call' WHERE job_id = $1 AND state = 'sending'",
    )
    .bind::<SqlUuid, _>(job)
    .execute(conn)
    .await?;
    Ok(())
}

/// How a send ended.
#[derive(Debug, Clone)]
pub struct SendEnd {
    /// `sent`, `failed` or `unknown`.
    pub state: &'static str,
    /// False when it is certain that nothing left this machine.
    pub counts: bool,
    /// The provider's ids.
    pub msg_id: Option<String>,
    /// The provider's global id.
    pub new_msg_id: Option<String>,
    /// The provider's time, in its own seconds.
    pub create_time: Option<i64>,
    /// Class of the error.
    pub error_class: Option<&'static str>,
    /// Stable code of the error.
    pub error_code: Option<&'static str>,
    /// Sentence for people.
    pub error_message: Option<String>,
    /// How the caller wanted an unknown outcome to be settled (`drop`, `resend`); none: a person decides.
    pub settled_as: Option<&'static str>,
}

/// What [`end`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The send was under way, and its end is recorded.
    InTime,
    /// The rescuer had called it unknown; its end is recorded all the same. See [`settle`].
    Late,
    /// It had been settled otherwise, by a person or by an earlier call. Nothing was changed.
    Settled,
}

#[derive(QueryableByName)]
struct Before {
    #[diesel(sql_type = Text)]
    before: String,
}

/// What becomes of the job when proof of its send comes late.
#[derive(Debug, Clone, Copy)]
pub struct LateJob<'a> {
    /// The job.
    pub id: Uuid,
    /// Its final state.
    pub state: &'a str,
    /// Its result.
    pub result: &'a serde_json::Value,
}

/// Records how a send ended, and if that comes late, with it what becomes of the job.
///
/// In time, which is nearly always, it is one statement. Late, the two belong together: a process that died between them
/// would leave a job that says "unknown" beside a send that says "sent", and a person would send it again.
pub async fn settle(conn: &mut Conn, id: Uuid, outcome: &SendEnd, late: LateJob<'_>) -> Result<Ended> {
    if update_end(conn, id, outcome, &["sending"]).await? == Ended::InTime {
        return Ok(Ended::InTime);
    }
    conn.transaction(async |conn| {
        let ended = end(conn, id, outcome).await?;
        if ended == Ended::Late && outcome.state != "unknown" {
            settle_late(conn, late.id, late.state, late.result).await?;
        }
        Ok(ended)
    })
    .await
}

/// Records how a send ended.
///
/// The rescuer may have called it unknown while its process was frozen: proof that comes late is still proof.
pub async fn end(conn: &mut Conn, id: Uuid, end: &SendEnd) -> Result<Ended> {
    update_end(conn, id, end, &["sending", "unknown"]).await
}

async fn update_end(conn: &mut Conn, id: Uuid, end: &SendEnd, from: &[&str]) -> Result<Ended> {
    let changed = sql_query(
        "UPDATE sends SET state = $2, counts = $3, msg_id = $4, new_msg_id = $5, create_time = $6, error_class = $7, \
         error_code = $8, error_message = $9, finished_at = clock_timestamp(), window_at = clock_timestamp(), \
         resolved_as = $10, resolved_at = CASE WHEN $10 IS NOT NULL THEN clock_timestamp() END \
         FROM (SELECT id, state AS before FROM sends WHERE id = $1 FOR UPDATE) AS was \
         WHERE sends.id = was.id AND sends.state = ANY($11) AND sends.resolved_at IS NULL \
         RETURNING was.before",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<Text, _>(end.state)
    .bind::<Bool, _>(end.counts)
    .bind::<Nullable<Text>, _>(end.msg_id.as_deref())
    .bind::<Nullable<Text>, _>(end.new_msg_id.as_deref())
    .bind::<Nullable<BigInt>, _>(end.create_time)
    .bind::<Nullable<Text>, _>(end.error_class)
    .bind::<Nullable<Text>, _>(end.error_code)
    .bind::<Nullable<Text>, _>(end.error_message.as_deref())
    .bind::<Nullable<Text>, _>(end.settled_as)
    .bind::<Array<Text>, _>(from)
    .cached()
        .get_result::<Before>(conn)
    .await
    .optional()?;
    Ok(match changed {
        Some(was) if was.before == "sending" => Ended::InTime,
        Some(_) => Ended::Late,
        None => Ended::Settled,
    })
}

/// Gives jobs their result when proof came after the rescuer had ended them as unknown.
///
/// Changes a job only while it stands where the rescuer put it.
async fn settle_late(conn: &mut Conn, job: Uuid, state: &str, result: &serde_json::Value) -> Result<()> {
    sql_query(
        "WITH ended AS ( \
             UPDATE jobs SET final_state = $2, result = $3, error = CASE WHEN $2 = 'completed' THEN NULL ELSE error END \
             WHERE id = $1 AND final_state = 'dead' AND result ->> 'send_status' = 'unknown' RETURNING id \
         ), closed AS ( \
             DELETE FROM job_endings USING ended WHERE job_endings.job_id = ended.id AND $2 = 'completed' \
         ) SELECT id FROM ended",
    )
    .bind::<SqlUuid, _>(job)
    .bind::<Text, _>(state)
    .bind::<Jsonb, _>(result)
    .execute(conn)
    .await?;
    Ok(())
}

/// Calls a send unknown whose process died under it. Returns false if its outcome is known after all.
///
/// `settled_as` is how the caller wanted that to be settled; none: a person decides.
///
/// A process that only seems dead may still write the request within five seconds of its gate. So the call counts from no
/// earlier moment, and the limits hold even then.
pub async fn lose(conn: &mut Conn, id: Uuid, settled_as: Option<&str>) -> Result<bool> {
    let changed = sql_query(
        "UPDATE sends SET state = 'unknown', finished_at = clock_timestamp(), \
         window_at = GREATEST(clock_timestamp(), started_at + interval '6 seconds'), \
         error_class = 'ambiguous', error_code = 'process_lost', \
         error_message = 'the process died while the message was on its way', \
         resolved_as = $2, resolved_at = CASE WHEN $2 IS NOT NULL THEN clock_timestamp() END \
         WHERE id = $1 AND state = 'sending'",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<Nullable<Text>, _>(settled_as)
    .execute(conn)
    .await?;
    Ok(changed == 1)
}

/// The outcome of one attempt's send, as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = crate::tables::sends)]
pub struct Recorded {
    /// `sending`, `sent`, `failed` or `unknown`.
    pub state: String,
    /// The provider's global id.
    pub new_msg_id: Option<String>,
    /// Class of the error.
    pub error_class: Option<String>,
    /// Stable code of the error.
    pub error_code: Option<String>,
    /// Sentence for people.
    pub error_message: Option<String>,
}

/// Returns what is recorded of one send.
pub async fn recorded(conn: &mut Conn, id: Uuid) -> Result<Option<Recorded>> {
    use crate::tables::sends;
    Ok(sends::table.find(id).select(Recorded::as_select()).first(conn).await.optional()?)
}

/// What a report of an account's login does to its row; by whether it is logged in.
static REPORT: LazyLock<[String; 2]> = LazyLock::new(|| {
    [(LOGGED_OUT, "a.offline_since IS NULL"), (LOGGED_IN, "a.offline_since IS NOT NULL OR a.warm_since IS NULL")].map(
        |(login, news)| {
            format!(
                "WITH lane AS ( \
                     SELECT id FROM lanes WHERE id = $1 AND organization_id = $2 FOR UPDATE \
                 ), stood AS ( \
                     SELECT a.id, a.status = ANY($4) AS moves FROM wechat_accounts a JOIN lane ON lane.id = a.id \
                     WHERE a.deleted_at IS NULL AND (a.status = ANY($4) OR (a.status <> 'NEW' AND ({news}))) \
                     FOR UPDATE OF a \
                 ), changed AS ( \
                     UPDATE wechat_accounts SET status = CASE WHEN stood.moves THEN $3 ELSE status END, \
                         last_seen_at = CASE WHEN stood.moves THEN clock_timestamp() ELSE last_seen_at END, {login} \
                     FROM stood WHERE wechat_accounts.id = stood.id RETURNING wechat_accounts.id, stood.moves \
                 ), woken AS ( \
                     UPDATE lanes SET runnable_at = clock_timestamp(), wait_code = NULL FROM changed \
                     WHERE lanes.id = changed.id AND changed.moves AND $3 = 'ONLINE' AND lanes.runnable_at IS NOT NULL \
                       AND lanes.wait_code = ANY(ARRAY['account_offline', 'account_not_ready']) \
                 ) \
                 SELECT moves FROM changed"
            )
        },
    )
});

#[derive(QueryableByName)]
struct Moved {
    #[diesel(sql_type = Bool)]
    moves: bool,
}

/// Notes that the provider says the account is logged out (`OFFLINE`) or logged in (`ONLINE`). Returns whether its status was
/// another one.
///
/// Only from a state in which that can be: a hold that a person must lift stays, though it is noted for how long the account was
/// logged out. An account that is back has its lane look again at once. Locks the lane before the account, as the gate does.
pub async fn report_account(
    conn: &mut Conn,
    organization: Uuid,
    account: Uuid,
    status: &str,
) -> Result<bool> {
    let (statement, from): (_, &[&str]) = match status {
        "ONLINE" => (&REPORT[1], &["OFFLINE", "EXPECT_RELOGIN", "QR_PENDING"]),
        _ => (&REPORT[0], &["ONLINE", "EXPECT_RELOGIN"]),
    };
    let moved = sql_query(statement.as_str())
        .bind::<SqlUuid, _>(account)
        .bind::<SqlUuid, _>(organization)
        .bind::<Text, _>(status)
        .bind::<Array<Text>, _>(from)
        .get_result::<Moved>(conn)
        .await
        .optional()?;
    Ok(moved.is_some_and(|moved| moved.moves))
}

/// Notes that the provider spoke of the account, at most once a minute.
pub async fn account_seen(conn: &mut Conn, organization: Uuid, account: Uuid) -> Result<()> {
    sql_query(
        "UPDATE wechat_accounts SET last_seen_at = clock_timestamp() WHERE id = $1 AND organization_id = $2 \
         AND (last_seen_at IS NULL OR last_seen_at < clock_timestamp() - interval '1 minute')",
    )
    .bind::<SqlUuid, _>(account)
    .bind::<SqlUuid, _>(organization)
    .cached()
    .execute(conn)
    .await?;
    Ok(())
}
