//! Creates jobs: one statement for any number of them.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, Binary, Jsonb, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::cached::Cache;
use crate::{Conn, Result};

/// The class of jobs that nobody waits for.
const CAMPAIGN: i16 = 2;

/// A job to be created.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// UUIDv7 made by the caller, so that it grows.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// Name of the job's type.
    pub kind: &'static str,
    /// Queue of the kind.
    pub queue: &'static str,
    /// 0 interactive, 1 reply, 2 campaign.
    pub class: i16,
    /// Lane that runs one job at a time.
    pub lane_id: Option<Uuid>,
    /// Jobs of one lane, class and key keep their order.
    pub order_key: Option<String>,
    /// Account that the job concerns, for lists.
    pub account_id: Option<Uuid>,
    /// Serialised input.
    pub args: Value,
    /// Version of the input's form.
    pub args_version: i16,
    /// Attempts before the job is dead.
    pub max_attempts: i16,
    /// Not before; a time in the past means now.
    pub scheduled_at: Option<DateTime<Utc>>,
    /// Not after.
    pub expires_at: Option<DateTime<Utc>>,
    /// One live job at a time per key.
    pub unique_key: Option<String>,
    /// The caller's token and a hash of what was asked with it.
    pub idempotency: Option<Idempotency>,
    /// Ties the job to the request that made it.
    pub trace_id: String,
    /// The person who asked.
    pub created_by: Option<Uuid>,
}

/// The caller's token: the same key with the same request is the same job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Chosen by the caller, unique in the organisation.
    pub key: String,
    /// Hash over what was asked.
    pub request_hash: Vec<u8>,
}

/// What became of one [`NewJob`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// A new job.
    Created(Uuid),
    /// The job that the same key made before.
    Existing(Uuid),
    /// The idempotency key was used with another request.
    KeyReused,
}

#[derive(QueryableByName)]
struct Created {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

const INSERT: &str = "\
WITH input AS (
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
        WITH ORDINALITY AS t (id, organization_id, kind, queue, class, lane_id, order_key, account_id, args,
            args_version, max_attempts, scheduled_at, expires_at, unique_key, idempotency_key, request_hash, trace_id,
            created_by, ord)
), keyed AS (
    INSERT INTO idempotency_keys (organization_id, key, request_hash, job_id)
    SELECT organization_id, idempotency_key, request_hash, id FROM input WHERE idempotency_key IS NOT NULL
    ORDER BY organization_id, idempotency_key, ord
    ON CONFLICT DO NOTHING RETURNING job_id
), single AS (
    INSERT INTO unique_keys (organization_id, key, job_id)
    SELECT organization_id, unique_key, id FROM input
    WHERE unique_key IS NOT NULL AND (idempotency_key IS NULL OR id IN (SELECT job_id FROM keyed))
    ORDER BY organization_id, unique_key, ord
    ON CONFLICT DO NOTHING RETURNING job_id
), accepted AS (
    SELECT * FROM input
    WHERE (idempotency_key IS NULL OR id IN (SELECT job_id FROM keyed))
      AND (unique_key IS NULL OR id IN (SELECT job_id FROM single))
    ORDER BY ord
), created AS (
    INSERT INTO jobs (id, organization_id, kind, queue, class, lane_id, order_key, account_id, args, args_version,
        max_attempts, scheduled_at, expires_at, unique_key, trace_id, created_by)
    SELECT id, organization_id, kind, queue, class, lane_id, order_key, account_id, args, args_version,
        max_attempts, scheduled_at, expires_at, unique_key, trace_id, created_by
    FROM accepted ORDER BY ord
    RETURNING id
), waiting AS (
    INSERT INTO pending (job_id, organization_id, queue, lane_id, order_key, class, due_at, wait_code, expires_at)
    SELECT id, organization_id, queue, lane_id, order_key, class,
        CASE WHEN scheduled_at > now() THEN scheduled_at END, CASE WHEN scheduled_at > now() THEN 'scheduled' END,
        expires_at
    FROM accepted ORDER BY ord
), locked AS (
    SELECT id, runnable_at, busy_job_id, wait_code FROM lanes WHERE id = ANY($19) ORDER BY id FOR UPDATE
), marked AS (
    UPDATE lanes SET runnable_at = now(), wait_code = NULL, busy_job_id = NULL FROM locked
    WHERE lanes.id = locked.id AND locked.busy_job_id IS NULL
      AND (locked.runnable_at IS NULL OR (locked.wait_code = 'recipients_per_minute' AND locked.id = ANY($20)))
)
SELECT id FROM created";

/// Creates `jobs` in the caller's transaction, in their order, and answers for each in that order.
///
/// Wake the relay after the commit; until then nobody sees the jobs. Jobs that become available at once mark their
/// lane. The lanes' rows stay locked until the caller commits: keep the transaction short.
pub async fn enqueue(conn: &mut Conn, jobs: &[NewJob]) -> Result<Vec<Enqueued>> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let created = insert(conn, jobs).await?;
    let mut answers = Vec::with_capacity(jobs.len());
    let missing: Vec<&NewJob> = jobs.iter().filter(|job| !created.contains(&job.id)).collect();
    let (mut by_key, by_unique) =
        if missing.is_empty() { Default::default() } else { existing(conn, &missing).await? };
    for job in jobs {
        if created.contains(&job.id) {
            answers.push(Enqueued::Created(job.id));
            continue;
        }
        let keyed = job.idempotency.as_ref().and_then(|idempotency| {
            by_key.get(&(job.organization_id, idempotency.key.clone())).map(|found| (idempotency, found))
        });
        let answer = match keyed {
            Some((idempotency, (_, hash))) if *hash != idempotency.request_hash => Enqueued::KeyReused,
            Some((_, (id, _))) if *id != job.id => Enqueued::Existing(*id),
            _ => {
                let unique = job.unique_key.clone().unwrap_or_default();
                match by_unique.get(&(job.organization_id, unique)) {
                    Some(id) => {
                        if let Some(Idempotency { key, request_hash }) = job.idempotency.clone() {
                            repoint(conn, job, *id).await?;
                            // Another of these jobs may have the same key.
                            by_key.insert((job.organization_id, key), (*id, request_hash));
                        }
                        Enqueued::Existing(*id)
                    }
                    // The holder of the key ended between the two statements: the caller's transaction starts over.
                    None => return Err(diesel::result::Error::RollbackTransaction.into()),
                }
            }
        };
        answers.push(answer);
    }
    Ok(answers)
}

async fn insert(conn: &mut Conn, jobs: &[NewJob]) -> Result<HashSet<Uuid>> {
    let column = |pick: fn(&NewJob) -> Uuid| jobs.iter().map(pick).collect::<Vec<_>>();
    let lanes = lanes_of(jobs.iter());
    // A lane that waits for room among its recipients may have room for these; a person should not wait behind the
    // campaign that used it up.
    let urgent_lanes = lanes_of(jobs.iter().filter(|job| job.class < CAMPAIGN));
    let rows = sql_query(INSERT)
        .bind::<Array<SqlUuid>, _>(column(|job| job.id))
        .bind::<Array<SqlUuid>, _>(column(|job| job.organization_id))
        .bind::<Array<Text>, _>(jobs.iter().map(|job| job.kind).collect::<Vec<_>>())
        .bind::<Array<Text>, _>(jobs.iter().map(|job| job.queue).collect::<Vec<_>>())
        .bind::<Array<SmallInt>, _>(jobs.iter().map(|job| job.class).collect::<Vec<_>>())
        .bind::<Array<Nullable<SqlUuid>>, _>(jobs.iter().map(|job| job.lane_id).collect::<Vec<_>>())
        .bind::<Array<Nullable<Text>>, _>(jobs.iter().map(|job| job.order_key.as_deref()).collect::<Vec<_>>())
        .bind::<Array<Nullable<SqlUuid>>, _>(jobs.iter().map(|job| job.account_id).collect::<Vec<_>>())
        .bind::<Array<Jsonb>, _>(jobs.iter().map(|job| &job.args).collect::<Vec<_>>())
        .bind::<Array<SmallInt>, _>(jobs.iter().map(|job| job.args_version).collect::<Vec<_>>())
        .bind::<Array<SmallInt>, _>(jobs.iter().map(|job| job.max_attempts).collect::<Vec<_>>())
        .bind::<Array<Nullable<Timestamptz>>, _>(jobs.iter().map(|job| job.scheduled_at).collect::<Vec<_>>())
        .bind::<Array<Nullable<Timestamptz>>, _>(jobs.iter().map(|job| job.expires_at).collect::<Vec<_>>())
        .bind::<Array<Nullable<Text>>, _>(
            jobs.iter().map(|job| job.unique_key.as_deref()).collect::<Vec<_>>(),
        )
        .bind::<Array<Nullable<Text>>, _>(
            jobs.iter().map(|job| job.idempotency.as_ref().map(|i| i.key.as_str())).collect::<Vec<_>>(),
        )
        .bind::<Array<Nullable<Binary>>, _>(
            jobs.iter()
                .map(|job| job.idempotency.as_ref().map(|i| i.request_hash.as_slice()))
                .collect::<Vec<_>>(),
        )
        .bind::<Array<Text>, _>(jobs.iter().map(|job| job.trace_id.as_str()).collect::<Vec<_>>())
        .bind::<Array<Nullable<SqlUuid>>, _>(jobs.iter().map(|job| job.created_by).collect::<Vec<_>>())
        .bind::<Array<SqlUuid>, _>(lanes)
        .bind::<Array<SqlUuid>, _>(urgent_lanes)
        .cached()
        .load::<Created>(conn)
        .await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

fn lanes_of<'a>(jobs: impl Iterator<Item = &'a NewJob>) -> Vec<Uuid> {
    let mut lanes: Vec<Uuid> = jobs.filter_map(|job| job.lane_id).collect();
    lanes.sort_unstable();
    lanes.dedup();
    lanes
}

type ByKey = HashMap<(Uuid, String), (Uuid, Vec<u8>)>;
type ByUnique = HashMap<(Uuid, String), Uuid>;

async fn existing(conn: &mut Conn, jobs: &[&NewJob]) -> Result<(ByKey, ByUnique)> {
    use crate::tables::{idempotency_keys, unique_keys};
    let organizations: Vec<Uuid> = jobs.iter().map(|job| job.organization_id).collect();
    let keys: Vec<&str> =
        jobs.iter().filter_map(|job| job.idempotency.as_ref().map(|i| i.key.as_str())).collect();
    let uniques: Vec<&str> = jobs.iter().filter_map(|job| job.unique_key.as_deref()).collect();
    let by_key = idempotency_keys::table
        .filter(idempotency_keys::organization_id.eq_any(&organizations))
        .filter(idempotency_keys::key.eq_any(&keys))
        .select((
            idempotency_keys::organization_id,
            idempotency_keys::key,
            idempotency_keys::job_id,
            idempotency_keys::request_hash,
        ))
        .load::<(Uuid, String, Uuid, Vec<u8>)>(conn)
        .await?;
    let by_unique = unique_keys::table
        .filter(unique_keys::organization_id.eq_any(&organizations))
        .filter(unique_keys::key.eq_any(&uniques))
        .select((unique_keys::organization_id, unique_keys::key, unique_keys::job_id))
        .load::<(Uuid, String, Uuid)>(conn)
        .await?;
    Ok((
        by_key.into_iter().map(|(org, key, job, hash)| ((org, key), (job, hash))).collect(),
        by_unique.into_iter().map(|(org, key, job)| ((org, key), job)).collect(),
    ))
}

/// Lets an idempotency key that this transaction has just claimed answer with the job that holds the unique key.
async fn repoint(conn: &mut Conn, job: &NewJob, holder: Uuid) -> Result<()> {
    use crate::tables::idempotency_keys;
    diesel::update(idempotency_keys::table)
        .filter(idempotency_keys::organization_id.eq(job.organization_id))
        .filter(idempotency_keys::job_id.eq(job.id))
        .set(idempotency_keys::job_id.eq(holder))
        .execute(conn)
        .await?;
    Ok(())
}
