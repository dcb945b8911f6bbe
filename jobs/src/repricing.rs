//! Prices that come late: what lines of the ledger should have cost, and the lines that say so.
//!
//! A correction is two lines in one transaction: one takes the old line back, one takes its place. The first is named
//! after the line that it takes back, so that a line is taken back once, whoever does it and however often.

use bigdecimal::{BigDecimal, Zero};
use chrono::{DateTime, Utc};
use entropy_schema::budgets::{self, Budget, Opened};
use entropy_schema::costs::{self, Entry};
use entropy_schema::{Conn, Result};
use uuid::Uuid;

use crate::{calendar, spending};

/// The longest name of a line.
const LONGEST_NAME: usize = 255;

/// Which lines are looked at.
#[derive(Debug, Clone)]
pub struct Span<'a> {
    /// The tenant.
    pub organization_id: Uuid,
    /// The model.
    pub model: &'a str,
    /// Run at or after.
    pub from: DateTime<Utc>,
    /// Run before.
    pub to: DateTime<Utc>,
}

/// What came of one part of the lines.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Lines that were looked at.
    pub looked_at: usize,
    /// Lines that another one took the place of.
    pub corrected: usize,
    /// Yuan that this adds to what was spent.
    pub difference: BigDecimal,
    /// The last line; none: there are no more.
    pub last: Option<Uuid>,
}

/// Prices up to `limit` lines after `after` anew and moves the budgets by what changes. Lines for which no price holds stay
/// as they are. Call it in a transaction; it keeps everybody else from booking meanwhile.
pub async fn reprice(conn: &mut Conn, span: &Span<'_>, after: Option<Uuid>, limit: i64) -> Result<Batch> {
    let organization = span.organization_id;
    let opened = budgets::alone(conn, organization).await?;
    let zone = calendar::zone(opened.timezone.as_deref());
    let prices = costs::prices_of(conn, organization, span.model).await?;
    let lines = costs::standing(conn, organization, span.model, span.from, span.to, after, limit).await?;
    let more = i64::try_from(lines.len()).is_ok_and(|found| found == limit);
    let mut batch = Batch {
        looked_at: lines.len(),
        last: lines.last().filter(|_| more).map(|line| line.id),
        ..Batch::default()
    };
    let (mut entries, mut changes) = (Vec::new(), Vec::new());
    for old in lines {
        let new = Entry { id: Uuid::now_v7(), request_id: successor(&old), ..old.clone() };
        let new = spending::priced(new, &prices, zone);
        if new.priced && new.calculated_cost != old.calculated_cost {
            changes.push((old.clone(), new.id, new.amount() - old.amount()));
            entries.push(old.reversal(old.job_id));
            entries.push(new);
        }
    }
    // Of a pair whose name somebody else has taken, neither may be written.
    let mut taken = Vec::new();
    for pair in entries.chunks(2) {
        for entry in pair {
            if costs::entry(conn, organization, &entry.request_id).await?.is_some() {
                taken.extend(pair.iter().map(|entry| entry.id));
            }
        }
    }
    entries.retain(|entry| !taken.contains(&entry.id));
    changes.retain(|(_, new, _)| !taken.contains(new));
    costs::record(conn, &entries).await?;
    batch.corrected = changes.len();
    batch.difference = changes.iter().map(|(.., difference)| difference).sum();
    charge(conn, organization, &opened, &changes).await?;
    Ok(batch)
}

/// Moves the budgets by what lines changed.
async fn charge(
    conn: &mut Conn,
    organization: Uuid,
    opened: &Opened,
    changes: &[(Entry, Uuid, BigDecimal)],
) -> Result<()> {
    let zone = calendar::zone(opened.timezone.as_deref());
    let now = calendar::periods(opened.now, zone);
    let standings = budgets::standings(conn, organization, now, None).await?;
    let mut moves = Vec::new();
    for (line, _, difference) in changes.iter().filter(|(.., difference)| !difference.is_zero()) {
        let then = calendar::periods(line.occurred_at.unwrap_or(opened.now), zone);
        for standing in standings.iter().filter(|standing| concerns(&standing.budget, line)) {
            moves.push(spending::move_of(&standing.budget, difference, then, now));
        }
    }
    spending::settle(conn, &moves).await
}

fn concerns(budget: &Budget, line: &Entry) -> bool {
    match budget.scope.as_str() {
        "organization" => true,
        "account" => line.wechat_account_id == Some(budget.scope_id),
        "user" => line.user_id == Some(budget.scope_id),
        "sop" => line.sop_id == Some(budget.scope_id),
        _ => false,
    }
}

/// Returns the name of the line that takes another one's place: `<old>:r1`, then `<old>:r2`.
fn successor(old: &Entry) -> String {
    let name = &old.request_id;
    let (base, n) = match name.rsplit_once(":r") {
        Some((base, n)) => n.parse::<u32>().map_or((name.as_str(), 0), |n| (base, n)),
        None => (name.as_str(), 0),
    };
    let next = format!("{base}:r{}", n.saturating_add(1));
    if next.chars().count() <= LONGEST_NAME { next } else { format!("{}:r1", old.id) }
}
