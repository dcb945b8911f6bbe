//! What the ledger adds up to: by the hour, kept by a job, so that a report over a million lines reads some thousand sums.
//!
//! `cost_rollup_progress` says up to which moment an organisation's lines are in its sums, by the time at which they were
//! written. A line may be about any hour: corrections come late. So a report takes the sums, and to them the lines that
//! were written since; it is exact at any moment, also before the first pass.

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Nullable, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, RunQueryDsl};
use uuid::Uuid;

use crate::costs::{self, Group, GroupBy, first_written};
use crate::tables::{cost_rollup_progress, organizations};
use crate::views::upper_bound;
use crate::{Conn, Result};

/// How much of what was written is added at once: what a statement has time for.
const STRIDE: TimeDelta = TimeDelta::days(1);

/// What one line adds to the sums. Of two lines that cancel each other, neither is a request; a line that took the place of
/// another is one.
const ADDS: &str = "\
    coalesce(sum(l.calculated_cost), 0) AS cost,
    coalesce(sum(CASE WHEN l.corrects IS NULL THEN l.input_tokens ELSE -l.input_tokens END), 0) AS input_tokens,
    coalesce(sum(CASE WHEN l.corrects IS NULL THEN l.output_tokens ELSE -l.output_tokens END), 0) AS output_tokens,
    count(*) FILTER (WHERE l.corrects IS NULL) - count(*) FILTER (WHERE l.corrects IS NOT NULL) AS requests,
    count(*) FILTER (WHERE NOT l.priced)
        - count(*) FILTER (WHERE l.corrects IS NOT NULL AND l.price_id IS NULL AND NOT l.estimated) AS unpriced";

/// When what a line is about was run.
const RUN_AT: &str = "coalesce(l.occurred_at, l.created_at)";

/// Returns organisations, in the order of their ids, after `after`.
pub async fn organizations_after(conn: &mut Conn, after: Uuid, limit: i64) -> Result<Vec<Uuid>> {
    Ok(organizations::table
        .filter(organizations::id.gt(after))
        .order(organizations::id)
        .select(organizations::id)
        .limit(limit)
        .load(conn)
        .await?)
}

#[derive(QueryableByName)]
struct Moment {
    #[diesel(sql_type = Nullable<Timestamptz>)]
    at: Option<DateTime<Utc>>,
}

/// Adds what was written since the last time to an organisation's sums, up to a day of it. Tells whether there is more.
///
/// Safe to repeat, and to run twice at once: the progress moves with the sums, under its row's lock.
pub async fn advance(conn: &mut Conn, organization: Uuid) -> Result<bool> {
    conn.transaction(async |conn| {
        // An organisation begins with its first line. Ids may be wrong by as much as the clocks of their makers.
        sql_query(
            "INSERT INTO cost_rollup_progress (organization_id, rolled_up_to)
             SELECT organization_id, created_at - interval '2 days' FROM cost_ledgers WHERE organization_id = $1
             ORDER BY id LIMIT 1 ON CONFLICT DO NOTHING",
        )
        .bind::<SqlUuid, _>(organization)
        .execute(conn)
        .await?;
        let progress = cost_rollup_progress::table
            .find(organization)
            .for_update()
            .select(cost_rollup_progress::rolled_up_to)
            .first::<DateTime<Utc>>(conn)
            .await
            .optional()?;
        let Some(from) = progress else { return Ok(false) };
        // A line has the time at which its transaction began. Those that are still open may write lines of then.
        let settled: Moment = sql_query(
            "SELECT least(clock_timestamp() - interval '1 minute', (SELECT min(xact_start) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid())) AS at",
        )
        .get_result(conn)
        .await?;
        let settled = settled.at.unwrap_or(from);
        let to = settled.min(from + STRIDE);
        if to <= from {
            return Ok(false);
        }
        sql_query(format!(
            "INSERT INTO cost_rollups AS r (organization_id, hour, model_name, wechat_account_id, user_id, cost,
                input_tokens, output_tokens, requests, unpriced)
             SELECT $1, date_trunc('hour', {RUN_AT}, 'UTC'), l.model_name, coalesce(l.wechat_account_id, $6),
                coalesce(l.user_id, $6), {ADDS}
             FROM cost_ledgers l
             WHERE l.organization_id = $1 AND l.id >= $2 AND l.id < $3 AND l.created_at >= $4 AND l.created_at < $5
             GROUP BY 2, 3, 4, 5
             ON CONFLICT (organization_id, hour, model_name, wechat_account_id, user_id) DO UPDATE
                SET cost = r.cost + excluded.cost, input_tokens = r.input_tokens + excluded.input_tokens,
                    output_tokens = r.output_tokens + excluded.output_tokens,
                    requests = r.requests + excluded.requests, unpriced = r.unpriced + excluded.unpriced"
        ))
        .bind::<SqlUuid, _>(organization)
        .bind::<SqlUuid, _>(first_written(from))
        .bind::<SqlUuid, _>(upper_bound(to + TimeDelta::days(1)))
        .bind::<Timestamptz, _>(from)
        .bind::<Timestamptz, _>(to)
        .bind::<SqlUuid, _>(Uuid::nil())
        .execute(conn)
        .await?;
        diesel::update(cost_rollup_progress::table.find(organization))
            .set(cost_rollup_progress::rolled_up_to.eq(to))
            .execute(conn)
            .await?;
        Ok(to < settled)
    })
    .await
}

/// Returns what [`costs::grouped`] returns, from the sums as far as these go.
pub async fn grouped(
    conn: &mut Conn,
    organization: Uuid,
    bounds: &[DateTime<Utc>],
    group_by: GroupBy,
    limit: i64,
) -> Result<Vec<Group>> {
    let [from, .., to] = bounds else { return Ok(Vec::new()) };
    // Where it stands now: lines after that are read one by one. The statement looks itself, and can only find it further on.
    let progress = cost_rollup_progress::table
        .find(organization)
        .select(cost_rollup_progress::rolled_up_to)
        .first::<DateTime<Utc>>(conn)
        .await
        .optional()?;
    let since = progress.map_or(first_written(*from), |at| first_written(at).max(first_written(*from)));
    let (line_key, sum_key) = match group_by {
        GroupBy::Day => (
            "width_bucket(coalesce(l.occurred_at, l.created_at), $4)::text",
            "width_bucket(r.hour, $4)::text",
        ),
        GroupBy::Model => ("l.model_name", "r.model_name"),
        GroupBy::User => ("l.user_id::text", "nullif(r.user_id, $8)::text"),
        GroupBy::Account => ("l.wechat_account_id::text", "nullif(r.wechat_account_id, $8)::text"),
        // The sums do not tell them apart.
        _ => return costs::grouped(conn, organization, bounds, group_by, limit).await,
    };
    Ok(sql_query(grouping(line_key, sum_key))
        .bind::<SqlUuid, _>(organization)
        .bind::<SqlUuid, _>(since)
        .bind::<Timestamptz, _>(*from)
        .bind::<Array<Timestamptz>, _>(bounds)
        .bind::<Timestamptz, _>(*to)
        .bind::<BigInt, _>(limit)
        .bind::<Array<Timestamptz>, _>(cut(bounds))
        .bind::<SqlUuid, _>(Uuid::nil())
        .load(conn)
        .await?)
}

/// Returns the hours within which a bound lies: their lines are on both sides of it.
fn cut(bounds: &[DateTime<Utc>]) -> Vec<DateTime<Utc>> {
    let hours = bounds.iter().filter_map(|at| {
        let hour = at.duration_trunc(TimeDelta::hours(1)).ok()?;
        (hour != *at).then_some(hour)
    });
    let mut hours: Vec<_> = hours.collect();
    hours.dedup();
    hours
}

/// The sums of whole hours, the lines of hours that are cut, and the lines that are in no sum yet.
fn grouping(line_key: &str, sum_key: &str) -> String {
    format!(
        "WITH progress AS MATERIALIZED (
            SELECT coalesce((SELECT rolled_up_to FROM cost_rollup_progress WHERE organization_id = $1),
                '-infinity'::timestamptz) AS until
         ), parts AS (
            SELECT {sum_key} AS key, sum(r.cost) AS cost, sum(r.input_tokens) AS input_tokens,
                sum(r.output_tokens) AS output_tokens, sum(r.requests)::bigint AS requests,
                sum(r.unpriced)::bigint AS unpriced
            FROM cost_rollups r
            WHERE r.organization_id = $1 AND r.hour >= $3 AND r.hour < $5 AND r.hour <> ALL ($7) AND $4 IS NOT NULL
                AND $8 IS NOT NULL
            GROUP BY 1
            UNION ALL
            SELECT {line_key}, {ADDS} FROM unnest($7) AS c (hour) CROSS JOIN LATERAL (
                SELECT l.model_name, l.wechat_account_id, l.user_id, l.calculated_cost, l.input_tokens, l.output_tokens,
                    l.corrects, l.priced, l.price_id, l.estimated, l.occurred_at, l.created_at
                FROM cost_ledgers l
                WHERE l.organization_id = $1 AND {RUN_AT} >= greatest(c.hour, $3)
                    AND {RUN_AT} < least(c.hour + interval '1 hour', $5) AND l.created_at < (SELECT until FROM progress)
                -- Hour by hour, through the index.
                OFFSET 0) l
            GROUP BY 1
            UNION ALL
            SELECT {line_key}, {ADDS} FROM cost_ledgers l
            WHERE l.organization_id = $1 AND l.id >= $2 AND {RUN_AT} >= $3 AND {RUN_AT} < $5
                AND l.created_at >= (SELECT until FROM progress)
            GROUP BY 1
         )
         SELECT key, sum(cost) AS cost, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
            sum(requests)::bigint AS requests, sum(unpriced)::bigint AS unpriced
         FROM parts GROUP BY key ORDER BY cost DESC, key LIMIT $6"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_cut_by_bounds_within_them() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().expect("a time");
        let bounds =
            ["2026-11-22T18:30:00Z", "2026-11-22T18:45:00Z", "2026-11-23T18:00:00Z", "2026-11-24T18:00:01Z"];
        let bounds: Vec<_> = bounds.into_iter().map(at).collect();
        assert_eq!(cut(&bounds), [at("2026-11-22T18:00:00Z"), at("2026-11-24T18:00:00Z")]);
    }
}
