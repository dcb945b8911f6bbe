//! What runs of a model cost: reserved in every budget before, entered into the ledger after, and the alerts on the way.
//!
//! Around a run there are two short transactions: [`reserve`] before the call, and after it [`book_run`], [`book_estimate`]
//! (it may have run, and nobody knows what it cost) or [`release`] (it certainly did not run). Each may be repeated. A
//! process that dies in between leaves a reservation, which [`entropy_schema::budgets::expire`] gives back in its time.
//!
//! What a run costs counts into the period in which it was reserved. Without a reservation that is the period of its
//! moment.

use std::collections::BTreeSet;
use std::time::Duration;

use bigdecimal::{BigDecimal, Zero};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use diesel_async::AsyncConnection;
use entropy_schema::alerts::{self, NewAlert, Severity};
use entropy_schema::budgets::{self, Budget, Move, Opened, Periods, Standing, Whose};
use entropy_schema::costs::{self, Entry, Price};
use entropy_schema::{Conn, Error, Result};
use serde_json::json;
use uuid::Uuid;

use crate::ai::usage::NodeUsage;
use crate::calendar;
use crate::pricing::{self, Tokens};

/// Parts of a budget, in per cent, at which an alert is raised: once each in a period.
const THRESHOLDS: [(u32, Severity); 3] =
    [(50, Severity::Info), (80, Severity::Warning), (100, Severity::Critical)];

/// The model of lines for which the provider named none.
const UNKNOWN_MODEL: &str = "unknown";

/// The most tokens that a line may have.
const MAX_TOKENS: i64 = 1_000_000_000_000;

/// Whose budgets a run is paid from.
#[derive(Debug, Clone, Copy)]
pub struct Spender {
    /// The tenant.
    pub organization_id: Uuid,
    /// The account that is answered for.
    pub account_id: Uuid,
    /// The person who asked for it, if one did.
    pub user_id: Option<Uuid>,
    /// The campaign that it is for.
    pub sop_id: Option<Uuid>,
}

/// Whether there was room in the budgets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reserved {
    /// In all of them, and it is taken.
    Yes,
    /// Not in this one, and nothing was taken. Of several, the one that is open again last.
    Exhausted {
        /// `organization`, `user`, `account` or `sop`.
        scope: String,
        /// `day` or `month`.
        period: String,
        /// When its next period begins.
        resets_at: DateTime<Utc>,
    },
}

/// A run whose cost is known, or may be.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// The run.
    pub run_id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// The account that was answered for.
    pub account_id: Uuid,
    /// The person who asked for it, if one did.
    pub user_id: Option<Uuid>,
    /// The conversation, if there is one.
    pub conversation_id: Option<Uuid>,
    /// The campaign that it was for.
    pub sop_id: Option<Uuid>,
    /// The job that writes the lines.
    pub job_id: Uuid,
    /// When it began. The prices of this moment count.
    pub occurred_at: DateTime<Utc>,
}

impl Run {
    fn whose(&self) -> Whose {
        Whose {
            organization_id: self.organization_id,
            account_id: Some(self.account_id),
            user_id: self.user_id,
            sop_id: self.sop_id,
        }
    }
}

/// What was booked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booked {
    /// What the run's lines say together, in yuan. Lines without a price say nothing.
    pub total: BigDecimal,
    /// Models for which no price was valid, each once.
    pub unpriced: Vec<String>,
}

/// Takes room for a run in every budget that concerns it, or in none.
///
/// `amount` is the most that the run may cost. The room is given back by [`book_run`], [`book_estimate`] or [`release`], or
/// when `ttl` has passed. A run that has its reservation keeps that one.
pub async fn reserve(
    conn: &mut Conn,
    spender: &Spender,
    run_id: Uuid,
    amount: &BigDecimal,
    ttl: Duration,
) -> Result<Reserved> {
    reserve_at(conn, spender, run_id, amount, ttl, None).await
}

/// The same at another time than now, for tests.
pub async fn reserve_at(
    conn: &mut Conn,
    spender: &Spender,
    run_id: Uuid,
    amount: &BigDecimal,
    ttl: Duration,
    at: Option<DateTime<Utc>>,
) -> Result<Reserved> {
    let organization = spender.organization_id;
    let whose = Whose {
        organization_id: organization,
        account_id: Some(spender.account_id),
        user_id: spender.user_id,
        sop_id: spender.sop_id,
    };
    conn.transaction(async |conn| {
        let opened = budgets::share(conn, organization).await?;
        budgets::lock_run(conn, run_id).await?;
        if budgets::is_reserved(conn, organization, run_id).await? {
            return Ok(Reserved::Yes);
        }
        let zone = calendar::zone(opened.timezone.as_deref());
        let periods = calendar::periods(at.unwrap_or(opened.now), zone);
        let mut asked = Vec::new();
        let taken = conn
            .transaction(async |conn| {
                asked = budgets::reserve(conn, &whose, run_id, periods, amount, ttl).await?;
                if asked.iter().all(|one| one.taken) {
                    Ok(())
                } else {
                    // Takes back what other budgets gave.
                    Err(Error::Query(diesel::result::Error::RollbackTransaction))
                }
            })
            .await;
        match taken {
            Ok(()) => return Ok(Reserved::Yes),
            Err(Error::Query(diesel::result::Error::RollbackTransaction)) => {}
            Err(error) => return Err(error),
        }
        asked.retain(|one| !one.taken);
        for one in &asked {
            let standing = budgets::standings(conn, organization, periods, Some(one.budget_id)).await?;
            for standing in &standing {
                alert(conn, standing, 100, Severity::Critical).await?;
            }
        }
        let last = asked
            .into_iter()
            .map(|one| (calendar::ends(&one.period, one.starts_on, zone), one))
            .max_by_key(|(resets_at, _)| *resets_at);
        let (resets_at, one) = last.ok_or(Error::Query(diesel::result::Error::NotFound))?;
        Ok(Reserved::Exhausted { scope: one.scope, period: one.period, resets_at })
    })
    .await
}

/// Gives back the room of a run that certainly did not run.
pub async fn release(conn: &mut Conn, organization: Uuid, run_id: Uuid) -> Result<()> {
    conn.transaction(async |conn| {
        let taken = budgets::take(conn, organization, run_id).await?;
        budgets::apply(conn, &budgets::given_back(&taken)).await?;
        Ok(())
    })
    .await
}

/// Enters what a run used: one line per node and model, at the prices of its moment. Settles the run's reservation in the
/// same transaction, and takes back what an estimate said before.
pub async fn book_run(conn: &mut Conn, run: &Run, nodes: &[NodeUsage]) -> Result<Booked> {
    conn.transaction(async |conn| {
        let opened = budgets::share(conn, run.organization_id).await?;
        budgets::lock_run(conn, run.run_id).await?;
        let zone = calendar::zone(opened.timezone.as_deref());
        let models: BTreeSet<&str> = nodes.iter().map(|node| model_of(&node.model)).collect();
        let models: Vec<&str> = models.into_iter().collect();
        let prices = costs::prices_at(conn, run.organization_id, &models, run.occurred_at).await?;
        let mut entries: Vec<Entry> = nodes.iter().map(|node| line(run, node, &prices, zone)).collect();
        let unpriced: BTreeSet<String> =
            entries.iter().filter(|entry| lacks_price(entry)).map(|entry| entry.model_name.clone()).collect();
        if let Some(estimate) = costs::entry(conn, run.organization_id, &estimate_of(run.run_id)).await? {
            entries.push(estimate.reversal(run.job_id));
        }
        enter(conn, &opened, zone, &run.whose(), Some(run.run_id), run.occurred_at, &entries).await?;
        missing_prices(conn, run.organization_id, run.occurred_at, zone, &unpriced).await?;
        let lines = costs::entries_of_run(conn, run.organization_id, run.run_id).await?;
        let total = lines.iter().map(Entry::amount).sum();
        Ok(Booked { total, unpriced: unpriced.into_iter().collect() })
    })
    .await
}

/// Enters that a run may have cost `amount`: it may have been charged, and the provider does not say. Settles the run's
/// reservation. What becomes known later takes the estimate's place; what is known already stays.
pub async fn book_estimate(conn: &mut Conn, run: &Run, amount: &BigDecimal) -> Result<()> {
    conn.transaction(async |conn| {
        let opened = budgets::share(conn, run.organization_id).await?;
        budgets::lock_run(conn, run.run_id).await?;
        let zone = calendar::zone(opened.timezone.as_deref());
        let known = costs::entries_of_run(conn, run.organization_id, run.run_id).await?;
        let entries = if known.is_empty() {
            vec![Entry {
                request_id: estimate_of(run.run_id),
                model_name: UNKNOWN_MODEL.to_owned(),
                priced: true,
                calculated_cost: Some(amount.clone()),
                estimated: true,
                ..blank(run)
            }]
        } else {
            Vec::new()
        };
        enter(conn, &opened, zone, &run.whose(), Some(run.run_id), run.occurred_at, &entries).await?;
        Ok(())
    })
    .await
}

/// One request to enter by itself.
#[derive(Debug, Clone)]
pub struct Tally<'a> {
    /// The tenant.
    pub organization_id: Uuid,
    /// Names the request; the same name is the same line.
    pub request_id: &'a str,
    /// The account it was run for.
    pub account_id: Option<Uuid>,
    /// Who caused it.
    pub user_id: Option<Uuid>,
    /// The job that writes the line.
    pub job_id: Uuid,
    /// The model's name as the provider reports it.
    pub model: &'a str,
    /// What it read and wrote.
    pub tokens: Tokens,
    /// When it was run; none: now.
    pub occurred_at: Option<DateTime<Utc>>,
}

/// Enters one request, and returns its line and whether it is new. The line that stands is the truth, also when another
/// job wrote it. Call it in a transaction.
pub async fn book_tally(conn: &mut Conn, tally: &Tally<'_>) -> Result<(Entry, bool)> {
    let organization_id = tally.organization_id;
    let opened = budgets::share(conn, organization_id).await?;
    let zone = calendar::zone(opened.timezone.as_deref());
    let at = tally.occurred_at.unwrap_or(opened.now);
    let prices = costs::prices_at(conn, organization_id, &[tally.model], at).await?;
    let entry = priced(
        Entry {
            id: Uuid::now_v7(),
            organization_id,
            request_id: tally.request_id.to_owned(),
            user_id: tally.user_id,
            wechat_account_id: tally.account_id,
            job_id: tally.job_id,
            model_name: tally.model.to_owned(),
            input_tokens: tally.tokens.input,
            output_tokens: tally.tokens.output,
            cached_input_tokens: tally.tokens.cached,
            occurred_at: Some(at),
            ..empty()
        },
        &prices,
        zone,
    );
    let whose = Whose { organization_id, account_id: tally.account_id, user_id: tally.user_id, sop_id: None };
    let written = enter(conn, &opened, zone, &whose, None, at, std::slice::from_ref(&entry)).await?;
    if written == 0 {
        let standing = costs::entry(conn, organization_id, tally.request_id).await?;
        return Ok((standing.unwrap_or(entry), false));
    }
    if lacks_price(&entry) {
        missing_prices(conn, organization_id, at, zone, &BTreeSet::from([entry.model_name.clone()])).await?;
    }
    Ok((entry, true))
}

/// Writes lines, moves the budgets by what is new in them, and returns how many lines are new.
async fn enter(
    conn: &mut Conn,
    opened: &Opened,
    zone: Tz,
    whose: &Whose,
    run: Option<Uuid>,
    at: DateTime<Utc>,
    entries: &[Entry],
) -> Result<usize> {
    let written = costs::record(conn, entries).await?;
    let new = entries.iter().filter(|entry| written.contains(&entry.id));
    let spent: BigDecimal = new.map(Entry::amount).sum();
    let taken = match run {
        Some(run) => budgets::take(conn, whose.organization_id, run).await?,
        None => Vec::new(),
    };
    let mut moves = budgets::given_back(&taken);
    if !spent.is_zero() {
        let (then, now) = (calendar::periods(at, zone), calendar::periods(opened.now, zone));
        for budget in budgets::concerning(conn, whose).await? {
            match moves.iter_mut().find(|one| one.budget_id == budget.id) {
                Some(reserved) => reserved.spent = spent.clone(),
                None => moves.push(move_of(&budget, &spent, then, now)),
            }
        }
    }
    settle(conn, &moves).await?;
    Ok(written.len())
}

/// Returns what a cost of a moment moves in a budget.
pub fn move_of(budget: &Budget, spent: &BigDecimal, then: Periods, now: Periods) -> Move {
    let starts_on = then.of(&budget.period);
    Move {
        budget_id: budget.id,
        starts_on,
        spent: spent.clone(),
        reserved: BigDecimal::zero(),
        // The period in which the budget was made has its row with what was spent before; others begin at nothing.
        creates: starts_on >= now.of(&budget.period),
    }
}

/// Moves the budgets and raises the alerts of thresholds that this crosses.
pub async fn settle(conn: &mut Conn, moves: &[Move]) -> Result<()> {
    for standing in budgets::apply(conn, moves).await? {
        let spent: BigDecimal = moves
            .iter()
            .filter(|one| one.budget_id == standing.budget.id && one.starts_on == standing.starts_on)
            .map(|one| &one.spent)
            .sum();
        let before = &standing.spent_yuan - spent;
        for (threshold, severity) in THRESHOLDS {
            if reached(&standing, &standing.spent_yuan, threshold) && !reached(&standing, &before, threshold)
            {
                alert(conn, &standing, threshold, severity).await?;
            }
        }
    }
    Ok(())
}

/// Sets a budget, and returns what was there before and how it stands now.
///
/// A new one begins its present period with what the ledger says was spent in it: nobody books meanwhile. A limit that lies
/// below what was spent is in force at once.
pub async fn set_budget(conn: &mut Conn, budget: &Budget) -> Result<(Option<Budget>, Standing)> {
    conn.transaction(async |conn| {
        let organization = budget.organization_id;
        let opened = budgets::alone(conn, organization).await?;
        let zone = calendar::zone(opened.timezone.as_deref());
        let periods = calendar::periods(opened.now, zone);
        let before =
            budgets::find(conn, organization, &budget.scope, budget.scope_id, &budget.period).await?;
        let (kept, new) = budgets::put(conn, budget).await?;
        if new {
            let starts_on = periods.of(&kept.period);
            let (from, to) =
                (calendar::begins(starts_on, zone), calendar::ends(&kept.period, starts_on, zone));
            let only = |scope: &str| (kept.scope == scope).then_some(kept.scope_id);
            let spent =
                costs::spent(conn, organization, only("account"), only("user"), only("sop"), from, to)
                    .await?;
            let first =
                Move { budget_id: kept.id, starts_on, spent, reserved: BigDecimal::zero(), creates: true };
            budgets::apply(conn, &[first]).await?;
        }
        let standing =
            budgets::standings(conn, organization, periods, Some(kept.id)).await?.into_iter().next();
        let standing = standing.ok_or(Error::Query(diesel::result::Error::NotFound))?;
        alert_reached(conn, &standing).await?;
        Ok((before, standing))
    })
    .await
}

/// Raises the alerts of all thresholds that a budget has reached, for a budget that was changed.
async fn alert_reached(conn: &mut Conn, standing: &Standing) -> Result<()> {
    for (threshold, severity) in THRESHOLDS {
        if reached(standing, &standing.spent_yuan, threshold) {
            alert(conn, standing, threshold, severity).await?;
        }
    }
    Ok(())
}

fn reached(standing: &Standing, spent: &BigDecimal, threshold: u32) -> bool {
    let limit = &standing.budget.limit_yuan;
    !limit.is_zero() && spent * BigDecimal::from(100) >= limit * BigDecimal::from(threshold)
}

async fn alert(conn: &mut Conn, standing: &Standing, threshold: u32, severity: Severity) -> Result<()> {
    let Standing { budget, starts_on, spent_yuan, reserved_yuan } = standing;
    let money = |amount: &BigDecimal| amount.normalized().to_plain_string();
    let whose = match budget.scope.as_str() {
        "organization" => "the organisation".to_owned(),
        "sop" => format!("the campaign {}", budget.scope_id),
        scope => format!("the {scope} {}", budget.scope_id),
    };
    let period = if budget.period == "month" { "monthly" } else { "daily" };
    let (limit, spent, reserved) = (money(&budget.limit_yuan), money(spent_yuan), money(reserved_yuan));
    let said = if threshold == 100 && budget.scope == "sop" {
        "is used up, so its own texts are sent until it begins anew or is raised".to_owned()
    } else if threshold == 100 {
        "is used up, so people answer until it begins anew or is raised".to_owned()
    } else {
        format!("is used to {threshold} %")
    };
    let text = format!(
        "The {period} budget of {whose} {said}: {spent} of {limit} yuan are spent, {reserved} are reserved for runs under way."
    );
    let key = format!("budget:{}:{starts_on}:{threshold}", budget.id);
    let alert = NewAlert {
        organization_id: budget.organization_id,
        kind: "budget_reached",
        severity,
        dedupe_key: &key,
        text: &text,
        account_id: (budget.scope == "account").then_some(budget.scope_id),
        conversation_id: None,
        details: Some(json!({
            "budget_id": budget.id, "scope": budget.scope, "scope_id": budget.scope_id, "period": budget.period,
            "starts_on": starts_on, "threshold": threshold, "limit_yuan": limit, "spent_yuan": spent,
            "reserved_yuan": reserved,
        })),
    };
    alerts::raise(conn, &alert).await?;
    Ok(())
}

/// Raises an alert for models without a price: once per model and day.
async fn missing_prices(
    conn: &mut Conn,
    organization: Uuid,
    at: DateTime<Utc>,
    zone: Tz,
    models: &BTreeSet<String>,
) -> Result<()> {
    for model in models {
        let text = format!(
            "The model {model} has no price, so its cost is not counted, in no budget either. Add a price, then enter the \
             cost with POST /cost-ledgers/reprice."
        );
        let key = format!("model_without_price:{model}:{}", calendar::day_of(at, zone));
        let alert = NewAlert {
            organization_id: organization,
            kind: "model_without_price",
            severity: Severity::Warning,
            dedupe_key: &key,
            text: &text,
            account_id: None,
            conversation_id: None,
            details: Some(json!({ "model": model })),
        };
        alerts::raise(conn, &alert).await?;
    }
    Ok(())
}

/// A line without a price that had something to be priced.
fn lacks_price(entry: &Entry) -> bool {
    !entry.priced && (entry.input_tokens > 0 || entry.output_tokens > 0)
}

fn estimate_of(run: Uuid) -> String {
    format!("{run}:estimate")
}

fn model_of(model: &str) -> &str {
    if model.is_empty() { UNKNOWN_MODEL } else { model }
}

fn line(run: &Run, node: &NodeUsage, prices: &[Price], zone: Tz) -> Entry {
    let input = node.input_tokens.clamp(0, MAX_TOKENS);
    let entry = Entry {
        request_id: format!("{}:{}", run.run_id, node.index),
        model_name: model_of(&node.model).to_owned(),
        input_tokens: input,
        output_tokens: node.output_tokens.clamp(0, MAX_TOKENS),
        cached_input_tokens: node.cached_input_tokens.clamp(0, input),
        node_index: Some(node.index),
        node_name: Some(node.name.clone()),
        points: node.points.clone(),
        ..blank(run)
    };
    priced(entry, prices, zone)
}

/// Writes the price that holds, and the cost at it, into a line.
pub fn priced(entry: Entry, prices: &[Price], zone: Tz) -> Entry {
    let at = entry.occurred_at.unwrap_or_default();
    let tokens =
        Tokens { input: entry.input_tokens, cached: entry.cached_input_tokens, output: entry.output_tokens };
    let found = pricing::choose(prices, &entry.model_name, tokens.input, at, zone)
        .and_then(|price| Some((price, pricing::cost(tokens, price)?)));
    match found {
        Some((price, cost)) => Entry {
            priced: true,
            price_id: Some(price.id),
            input_price_per_1k: Some(price.input_price_per_1k.clone()),
            output_price_per_1k: Some(price.output_price_per_1k.clone()),
            cached_input_price_per_1k: price.cached_input_price_per_1k.clone(),
            calculated_cost: Some(cost),
            ..entry
        },
        None => Entry {
            priced: false,
            price_id: None,
            input_price_per_1k: None,
            output_price_per_1k: None,
            cached_input_price_per_1k: None,
            calculated_cost: None,
            ..entry
        },
    }
}

fn blank(run: &Run) -> Entry {
    Entry {
        id: Uuid::now_v7(),
        organization_id: run.organization_id,
        user_id: run.user_id,
        wechat_account_id: Some(run.account_id),
        job_id: run.job_id,
        run_id: Some(run.run_id),
        conversation_id: run.conversation_id,
        sop_id: run.sop_id,
        occurred_at: Some(run.occurred_at),
        ..empty()
    }
}

fn empty() -> Entry {
    Entry {
        id: Uuid::nil(),
        organization_id: Uuid::nil(),
        request_id: String::new(),
        user_id: None,
        wechat_account_id: None,
        job_id: Uuid::nil(),
        model_name: String::new(),
        input_tokens: 0,
        output_tokens: 0,
        cached_input_tokens: 0,
        priced: false,
        price_id: None,
        input_price_per_1k: None,
        output_price_per_1k: None,
        cached_input_price_per_1k: None,
        calculated_cost: None,
        run_id: None,
        node_index: None,
        node_name: None,
        conversation_id: None,
        points: None,
        estimated: false,
        corrects: None,
        occurred_at: None,
        sop_id: None,
    }
}
