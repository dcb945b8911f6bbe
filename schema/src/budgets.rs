//! Budgets: what may be spent, what was, and what runs under way may still cost.
//!
//! A budget has a row per period with two sums. `spent_yuan` is what the ledger says of the period's runs, `reserved_yuan`
//! the sum of the reservations that stand in `budget_reservations`. Both move in the transaction of what they count.
//!
//! Whoever spends holds the organisation's lock shared ([`share`]); whoever changes budgets or the ledger's past holds it
//! alone ([`alone`]), and sees neither half of a booking. Rows of periods are always locked in the order of their budgets.

use std::time::Duration;

use bigdecimal::BigDecimal;
use chrono::{DateTime, NaiveDate, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Date, Nullable, Numeric, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::cached::Cache;
use crate::tables::budgets;
use crate::{Conn, Result};

/// What may be spent in every period.
#[derive(Debug, Clone, Queryable, Selectable, Insertable, QueryableByName)]
#[diesel(table_name = budgets, check_for_backend(diesel::pg::Pg))]
pub struct Budget {
    /// UUIDv7.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// `organization`, `user`, `account` or `sop`.
    pub scope: String,
    /// Whose; the organisation's own id for `organization`.
    pub scope_id: Uuid,
    /// `day` or `month`.
    pub period: String,
    /// Yuan.
    pub limit_yuan: BigDecimal,
    /// Who changed it last.
    pub updated_by: Option<Uuid>,
    /// When.
    pub updated_at: DateTime<Utc>,
}

/// The first days of the periods that a moment lies in, in the organisation's calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Periods {
    /// The day itself.
    pub day: NaiveDate,
    /// The first of its month.
    pub month: NaiveDate,
}

impl Periods {
    /// Returns the first day of the period of this name.
    pub fn of(&self, period: &str) -> NaiveDate {
        if period == "month" { self.month } else { self.day }
    }
}

/// What a change of spending begins with.
#[derive(Debug, Clone, QueryableByName)]
pub struct Opened {
    /// The database's time.
    #[diesel(sql_type = Timestamptz)]
    pub now: DateTime<Utc>,
    /// The organisation's zone; none: it has chosen none.
    #[diesel(sql_type = Nullable<Text>)]
    pub timezone: Option<String>,
}

/// Takes the organisation's lock for somebody who spends: beside others who spend.
pub async fn share(conn: &mut Conn, organization: Uuid) -> Result<Opened> {
    Ok(sql_query(
        "WITH locked AS MATERIALIZED (
            SELECT pg_advisory_xact_lock_shared(hashtextextended('spending:' || $1::text, 0)))
         SELECT clock_timestamp() AS now,
            (SELECT timezone FROM organization_settings WHERE organization_id = $1) AS timezone FROM locked",
    )
    .bind::<SqlUuid, _>(organization)
    .cached()
    .get_result(conn)
    .await?)
}

/// Takes the organisation's lock for somebody who changes budgets or the ledger's past: beside nobody.
pub async fn alone(conn: &mut Conn, organization: Uuid) -> Result<Opened> {
    Ok(sql_query(
        "WITH locked AS MATERIALIZED (
            SELECT pg_advisory_xact_lock(hashtextextended('spending:' || $1::text, 0)))
         SELECT clock_timestamp() AS now,
            (SELECT timezone FROM organization_settings WHERE organization_id = $1) AS timezone FROM locked",
    )
    .bind::<SqlUuid, _>(organization)
    .get_result(conn)
    .await?)
}

/// Serialises those who book the same run, until the caller's transaction ends.
pub async fn lock_run(conn: &mut Conn, run: Uuid) -> Result<()> {
    sql_query("SELECT pg_advisory_xact_lock(hashtextextended('run:' || $1::text, 0))")
        .bind::<SqlUuid, _>(run)
        .cached()
        .execute(conn)
        .await?;
    Ok(())
}

/// A budget that concerns a reservation, and whether there was room in it.
#[derive(Debug, Clone, QueryableByName)]
pub struct Asked {
    /// The budget.
    #[diesel(sql_type = SqlUuid)]
    pub budget_id: Uuid,
    /// Its scope.
    #[diesel(sql_type = Text)]
    pub scope: String,
    /// Its period.
    #[diesel(sql_type = Text)]
    pub period: String,
    /// The period's first day.
    #[diesel(sql_type = Date)]
    pub starts_on: NaiveDate,
    /// There was room, and it is taken.
    #[diesel(sql_type = Bool)]
    pub taken: bool,
}

/// Tells whether a run has reservations.
pub async fn is_reserved(conn: &mut Conn, organization: Uuid, run: Uuid) -> Result<bool> {
    use crate::tables::budget_reservations as reservations;
    let mine = reservations::table
        .filter(reservations::id.eq(run).and(reservations::organization_id.eq(organization)));
    Ok(diesel::select(diesel::dsl::exists(mine)).get_result(conn).await?)
}

// The condition stands in the statement that takes the room, so it is looked at with the row locked, whatever others did
// since the snapshot. A budget that is used up has no room for a run that reserves nothing, either.
const RESERVE: &str = "\
WITH applicable AS (
    SELECT b.id, b.scope, b.period, b.limit_yuan, CASE b.period WHEN 'day' THEN $5 ELSE $6 END AS starts_on
    FROM budgets b WHERE b.organization_id = $1 AND ((b.scope = 'organization' AND b.scope_id = $1)
        OR (b.scope = 'account' AND b.scope_id = $2) OR (b.scope = 'user' AND b.scope_id = $3)
        OR (b.scope = 'sop' AND b.scope_id = $9))
), taken AS (
    INSERT INTO budget_periods AS p (budget_id, starts_on, reserved_yuan)
    SELECT id, starts_on, $7 FROM applicable WHERE limit_yuan > 0 AND $7 <= limit_yuan ORDER BY id
    ON CONFLICT (budget_id, starts_on) DO UPDATE SET reserved_yuan = p.reserved_yuan + excluded.reserved_yuan
        WHERE p.spent_yuan + p.reserved_yuan < (SELECT limit_yuan FROM budgets b WHERE b.id = p.budget_id)
            AND p.spent_yuan + p.reserved_yuan + excluded.reserved_yuan
                <= (SELECT limit_yuan FROM budgets b WHERE b.id = p.budget_id)
    RETURNING budget_id, starts_on
), noted AS (
    INSERT INTO budget_reservations (id, budget_id, starts_on, organization_id, amount_yuan, expires_at)
    SELECT $4, budget_id, starts_on, $1, $7, clock_timestamp() + $8 * interval '1 millisecond' FROM taken
)
SELECT a.id AS budget_id, a.scope, a.period, a.starts_on, t.budget_id IS NOT NULL AS taken
FROM applicable a LEFT JOIN taken t ON t.budget_id = a.id ORDER BY a.id";

/// Whose budgets a run concerns.
#[derive(Debug, Clone, Copy)]
pub struct Whose {
    /// The tenant.
    pub organization_id: Uuid,
    /// The account.
    pub account_id: Option<Uuid>,
    /// The user.
    pub user_id: Option<Uuid>,
    /// The campaign.
    pub sop_id: Option<Uuid>,
}

/// Takes room for a run in every budget that concerns it. Unless all of the budgets that come back had room, the caller
/// takes the whole back, with a savepoint.
pub async fn reserve(
    conn: &mut Conn,
    whose: &Whose,
    run: Uuid,
    periods: Periods,
    amount: &BigDecimal,
    ttl: Duration,
) -> Result<Vec<Asked>> {
    Ok(sql_query(RESERVE)
        .bind::<SqlUuid, _>(whose.organization_id)
        .bind::<Nullable<SqlUuid>, _>(whose.account_id)
        .bind::<Nullable<SqlUuid>, _>(whose.user_id)
        .bind::<SqlUuid, _>(run)
        .bind::<Date, _>(periods.day)
        .bind::<Date, _>(periods.month)
        .bind::<Numeric, _>(amount)
        .bind::<BigInt, _>(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX).min(MAX_TTL_MS))
        .bind::<Nullable<SqlUuid>, _>(whose.sop_id)
        .cached()
        .load(conn)
        .await?)
}

/// A year, in milliseconds.
const MAX_TTL_MS: i64 = 365 * 86_400_000;

/// A reservation that was taken out.
#[derive(Debug, Clone, QueryableByName)]
pub struct Taken {
    /// The budget.
    #[diesel(sql_type = SqlUuid)]
    pub budget_id: Uuid,
    /// The period's first day.
    #[diesel(sql_type = Date)]
    pub starts_on: NaiveDate,
    /// Yuan.
    #[diesel(sql_type = Numeric)]
    pub amount_yuan: BigDecimal,
}

/// Takes out the reservations of a run. Their room is still counted as reserved: say so to [`apply`].
pub async fn take(conn: &mut Conn, organization: Uuid, run: Uuid) -> Result<Vec<Taken>> {
    Ok(sql_query(
        "DELETE FROM budget_reservations WHERE id = $1 AND organization_id = $2
         RETURNING budget_id, starts_on, amount_yuan",
    )
    .bind::<SqlUuid, _>(run)
    .bind::<SqlUuid, _>(organization)
    .cached()
    .load(conn)
    .await?)
}

/// Gives back the room of up to `limit` reservations whose time has passed, and returns how many there were. Safe to run
/// anywhere at any time.
pub async fn expire(conn: &mut Conn, limit: i64) -> Result<usize> {
    use diesel_async::AsyncConnection;
    conn.transaction(async |conn| {
        let taken: Vec<Taken> = sql_query(
            "WITH old AS MATERIALIZED (
                SELECT id, budget_id FROM budget_reservations WHERE expires_at < (SELECT clock_timestamp())
                ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)
             DELETE FROM budget_reservations r USING old WHERE r.id = old.id AND r.budget_id = old.budget_id
             RETURNING r.budget_id, r.starts_on, r.amount_yuan",
        )
        .bind::<BigInt, _>(limit)
        .cached()
        .load(conn)
        .await?;
        apply(conn, &given_back(&taken)).await?;
        Ok(taken.len())
    })
    .await
}

/// Returns the moves that give back the room of reservations that were taken out.
pub fn given_back(taken: &[Taken]) -> Vec<Move> {
    taken
        .iter()
        .map(|one| Move {
            budget_id: one.budget_id,
            starts_on: one.starts_on,
            spent: BigDecimal::default(),
            reserved: -&one.amount_yuan,
            creates: false,
        })
        .collect()
}

/// A change of a period's two sums.
#[derive(Debug, Clone)]
pub struct Move {
    /// The budget.
    pub budget_id: Uuid,
    /// The period's first day.
    pub starts_on: NaiveDate,
    /// Added to what was spent.
    pub spent: BigDecimal,
    /// Added to what is reserved.
    pub reserved: BigDecimal,
    /// Whether a period without a row gets one. Of those that are over without one, nothing is known.
    pub creates: bool,
}

/// How a budget stands.
#[derive(Debug, Clone, QueryableByName)]
pub struct Standing {
    /// What may be spent.
    #[diesel(embed)]
    pub budget: Budget,
    /// The period's first day.
    #[diesel(sql_type = Date)]
    pub starts_on: NaiveDate,
    /// What was spent in it.
    #[diesel(sql_type = Numeric)]
    pub spent_yuan: BigDecimal,
    /// What is reserved in it.
    #[diesel(sql_type = Numeric)]
    pub reserved_yuan: BigDecimal,
}

// A sum that would not fit its column stays at the most that fits: a budget that is that far over is over.
const APPLY: &str = "\
WITH moves AS (
    SELECT budget_id, starts_on, sum(spent) AS spent, sum(reserved) AS reserved, bool_or(creates) AS creates
    FROM unnest($1, $2, $3, $4, $5) AS m (budget_id, starts_on, spent, reserved, creates) GROUP BY 1, 2
), moved AS (
    INSERT INTO budget_periods AS p (budget_id, starts_on, spent_yuan)
    SELECT m.budget_id, m.starts_on, least(m.spent, 9999999999) FROM moves m JOIN budgets b ON b.id = m.budget_id
    WHERE m.creates OR EXISTS (SELECT FROM budget_periods old
        WHERE old.budget_id = m.budget_id AND old.starts_on = m.starts_on)
    ORDER BY m.budget_id, m.starts_on
    ON CONFLICT (budget_id, starts_on) DO UPDATE SET
        spent_yuan = least(p.spent_yuan + excluded.spent_yuan, 9999999999),
        reserved_yuan = p.reserved_yuan + (SELECT m.reserved FROM moves m
            WHERE m.budget_id = p.budget_id AND m.starts_on = p.starts_on)
    RETURNING budget_id, starts_on, spent_yuan, reserved_yuan
)
SELECT b.id, b.organization_id, b.scope, b.scope_id, b.period, b.limit_yuan, b.updated_by, b.updated_at,
    m.starts_on, m.spent_yuan, m.reserved_yuan
FROM moved m JOIN budgets b ON b.id = m.budget_id ORDER BY b.id";

/// Moves the sums of periods and returns how the budgets stand after that, in the order of their ids.
pub async fn apply(conn: &mut Conn, moves: &[Move]) -> Result<Vec<Standing>> {
    if moves.is_empty() {
        return Ok(Vec::new());
    }
    let (mut budgets, mut starts, mut spent, mut reserved, mut creates) =
        (vec![], vec![], vec![], vec![], vec![]);
    for one in moves {
        budgets.push(one.budget_id);
        starts.push(one.starts_on);
        spent.push(&one.spent);
        reserved.push(&one.reserved);
        creates.push(one.creates);
    }
    Ok(sql_query(APPLY)
        .bind::<Array<SqlUuid>, _>(budgets)
        .bind::<Array<Date>, _>(starts)
        .bind::<Array<Numeric>, _>(spent)
        .bind::<Array<Numeric>, _>(reserved)
        .bind::<Array<Bool>, _>(creates)
        .cached()
        .load(conn)
        .await?)
}

/// Returns the budgets that concern a run.
pub async fn concerning(conn: &mut Conn, whose: &Whose) -> Result<Vec<Budget>> {
    Ok(sql_query(
        "SELECT b.id, b.organization_id, b.scope, b.scope_id, b.period, b.limit_yuan, b.updated_by, b.updated_at \
         FROM budgets b WHERE b.organization_id = $1 AND ((b.scope = 'organization' AND b.scope_id = $1)
            OR (b.scope = 'account' AND b.scope_id = $2) OR (b.scope = 'user' AND b.scope_id = $3) \
            OR (b.scope = 'sop' AND b.scope_id = $4)) ORDER BY b.id",
    )
    .bind::<SqlUuid, _>(whose.organization_id)
    .bind::<Nullable<SqlUuid>, _>(whose.account_id)
    .bind::<Nullable<SqlUuid>, _>(whose.user_id)
    .bind::<Nullable<SqlUuid>, _>(whose.sop_id)
    .cached()
    .load(conn)
    .await?)
}

/// Returns the organisation's budgets with how they stand in the present periods, at most 1000.
pub async fn standings(
    conn: &mut Conn,
    organization: Uuid,
    periods: Periods,
    only: Option<Uuid>,
) -> Result<Vec<Standing>> {
    Ok(sql_query(
        "SELECT b.id, b.organization_id, b.scope, b.scope_id, b.period, b.limit_yuan, b.updated_by, b.updated_at, \
         s.starts_on, coalesce(p.spent_yuan, 0) AS spent_yuan, coalesce(p.reserved_yuan, 0) AS reserved_yuan
         FROM budgets b CROSS JOIN LATERAL (SELECT CASE b.period WHEN 'day' THEN $2 ELSE $3 END AS starts_on) s
         LEFT JOIN budget_periods p ON p.budget_id = b.id AND p.starts_on = s.starts_on
         WHERE b.organization_id = $1 AND ($4 IS NULL OR b.id = $4) ORDER BY b.id LIMIT 1000",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<Date, _>(periods.day)
    .bind::<Date, _>(periods.month)
    .bind::<Nullable<SqlUuid>, _>(only)
    .load(conn)
    .await?)
}

/// Adds a budget, or gives the one of this scope and period another limit. Returns it as it stands, and whether it is new.
pub async fn put(conn: &mut Conn, budget: &Budget) -> Result<(Budget, bool)> {
    let kept: Budget = diesel::insert_into(budgets::table)
        .values(budget)
        .on_conflict((budgets::organization_id, budgets::scope, budgets::scope_id, budgets::period))
        .do_update()
        .set((
            budgets::limit_yuan.eq(&budget.limit_yuan),
            budgets::updated_by.eq(budget.updated_by),
            budgets::updated_at.eq(budget.updated_at),
        ))
        .returning(Budget::as_returning())
        .get_result(conn)
        .await?;
    let new = kept.id == budget.id;
    Ok((kept, new))
}

/// Returns the number of the organisation's budgets.
pub async fn count(conn: &mut Conn, organization: Uuid) -> Result<i64> {
    Ok(budgets::table.filter(budgets::organization_id.eq(organization)).count().get_result(conn).await?)
}

/// Returns the budget of a scope and period.
pub async fn find(
    conn: &mut Conn,
    organization: Uuid,
    scope: &str,
    scope_id: Uuid,
    period: &str,
) -> Result<Option<Budget>> {
    Ok(budgets::table
        .filter(budgets::organization_id.eq(organization).and(budgets::scope.eq(scope)))
        .filter(budgets::scope_id.eq(scope_id).and(budgets::period.eq(period)))
        .select(Budget::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Removes a budget with its periods and reservations. None: the organisation has no such budget.
pub async fn remove(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<Budget>> {
    use crate::tables::budget_reservations as reservations;
    let removed: Option<Budget> =
        diesel::delete(budgets::table.find(id).filter(budgets::organization_id.eq(organization)))
            .returning(Budget::as_returning())
            .get_result(conn)
            .await
            .optional()?;
    if removed.is_some() {
        diesel::delete(reservations::table.filter(reservations::budget_id.eq(id))).execute(conn).await?;
    }
    Ok(removed)
}
