//! Runs: a plan takes in whom it is meant for, all of them, whatever dies meanwhile.
//!
//! Whom it concerns is written down at one moment, and nobody comes in addition after that. Then they are brought in page by
//! page, each in a transaction of its own with what is left, so a run goes on where it stood. Two may carry on the same run: they
//! take turns by its row. A run holds its row, then contacts, then the plan; whoever holds a plan never waits for a run.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_schema::alerts::{self, NewAlert, Severity};
use entropy_schema::campaigns::runs::{self, Run};
use entropy_schema::campaigns::{clock, plans};
use entropy_schema::record::enqueue::{Enqueued, Idempotency, NewJob, enqueue};
use entropy_schema::{Conn, Error, Result};
use serde_json::json;
use uuid::Uuid;

use super::audience::{self, Extent, add_up};
use super::enroll::{Cause, enroll};
use super::life::Status;
use super::plan::Plan;
use crate::class::Class;
use crate::enqueue::{Options, new_job};
use crate::kinds::sop_enroll::SopEnroll;
use crate::process::telemetry::new_trace_id;
use crate::services::Context;
use crate::sop::config::period::Period;
use crate::step;

/// People brought in by one transaction.
const PAGE: i64 = 1000;

/// How long one attempt goes on; the rest is the next one's.
const AT_ONCE: Duration = Duration::from_secs(30);

/// How often in a row a page is asked again that another version came in the way of.
const AGAIN: u32 = 5;

/// What a run is made from.
#[derive(Debug, Clone, Copy)]
pub struct Begins {
    /// The tenant.
    pub organization: Uuid,
    /// The plan.
    pub sop: Uuid,
    /// The version in force.
    pub version: i32,
    /// `manual`, `once` or `cron`.
    pub source: &'static str,
    /// The moment for which it is.
    pub fire_at: DateTime<Utc>,
    /// The person of ours who begins it.
    pub by: Option<Uuid>,
}

impl Begins {
    fn run(self, state: &str, now: DateTime<Utc>) -> Run {
        Run {
            id: Uuid::now_v7(),
            organization_id: self.organization,
            sop_id: self.sop,
            version: self.version,
            source: self.source.to_owned(),
            fire_at: self.fire_at,
            state: state.to_owned(),
            audience: None,
            frozen_at: None,
            enrolled: 0,
            refused: json!({}),
            created_by: self.by,
            created_at: now,
            finished_at: None,
        }
    }
}

/// Begins a run with everybody whom the plan is meant for now, in the caller's transaction, which holds the plan; wake the relay
/// after the commit. If they are too many, or not as many as the caller expected, it rolls back.
pub async fn begin(
    conn: &mut Conn,
    begins: Begins,
    plan: &plans::Plan,
    read: &Plan,
    now: DateTime<Utc>,
) -> Result<Extent> {
    let run = begins.run("waiting", now);
    if !runs::insert(conn, &run).await? {
        // The plan has a run of this very moment.
        return Ok(audience::of(conn, plan, read).await?.into());
    }
    let extent = audience::write_down(conn, plan, read, run.id).await?;
    if let Extent::People(people) = extent {
        let run = frozen(run, people, now);
        runs::save(conn, &run).await?;
        if run.finished_at.is_none() {
            enqueue_run(conn, &run).await?;
        }
    }
    Ok(extent)
}

/// Begins a run whose people are written down by its job, in the caller's transaction, which holds the plan. Returns false if the
/// plan has a run of this moment.
pub async fn begin_later(conn: &mut Conn, begins: Begins, now: DateTime<Utc>) -> Result<bool> {
    let run = begins.run("waiting", now);
    let begun = runs::insert(conn, &run).await?;
    if begun {
        enqueue_run(conn, &run).await?;
    }
    Ok(begun)
}

/// Notes that a time was let go, in the caller's transaction, which holds the plan.
pub async fn let_go(conn: &mut Conn, begins: Begins, now: DateTime<Utc>) -> Result<()> {
    let run = Run { finished_at: Some(now), ..begins.run("missed", now) };
    runs::insert(conn, &run).await?;
    Ok(())
}

/// Has the runs of a plan carried on that are not over, in the caller's transaction: the plan goes on, or it has ended and they end
/// with it. Wake the relay after the commit.
pub async fn go_on(conn: &mut Conn, organization: Uuid, sop: Uuid, by: Option<Uuid>) -> Result<()> {
    let open = runs::open(conn, organization, sop).await?;
    let jobs: Vec<NewJob> = open.into_iter().map(|run| job(organization, run, by, None)).collect();
    enqueue(conn, &jobs).await?;
    Ok(())
}

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Went {
    /// There is nothing more to do now; how it stands.
    Rests(Option<Box<Run>>),
    /// It goes on with the next attempt.
    Further,
}

/// Carries a run on, as far as one attempt goes.
pub async fn carry_on(ctx: &Context, run: Uuid) -> Result<Went> {
    let (begun, mut again) = (Instant::now(), 0);
    while begun.elapsed() < AT_ONCE && !ctx.stop.is_cancelled() {
        let mut conn = ctx.conn().await?;
        match conn.transaction(async |conn| page(conn, ctx, run).await).await? {
            Page::Next => {
                step!("run.committed");
                again = 0;
            }
            Page::Again if again == AGAIN => {
                return Err(Error::Unavailable("the plan runs and takes nobody in".to_owned()));
            }
            Page::Again => again += 1,
            Page::Rests(run) => {
                step!("run.ended");
                return Ok(Went::Rests(run));
            }
            Page::Stopped => {
                end(&mut conn, ctx.organization_id, run, "stopped").await?;
            }
        }
    }
    Ok(Went::Further)
}

enum Page {
    Next,
    Again,
    Rests(Option<Box<Run>>),
    Stopped,
}

async fn page(conn: &mut Conn, ctx: &Context, id: Uuid) -> Result<Page> {
    let organization = ctx.organization_id;
    let Some(run) = runs::lock(conn, organization, id).await? else { return Ok(Page::Rests(None)) };
    if run.finished_at.is_some() {
        return Ok(Page::Rests(Some(Box::new(run))));
    }
    if run.state == "waiting" {
        return freeze(conn, ctx, run).await;
    }
    let people = runs::take_contacts(conn, id, PAGE).await?;
    if people.is_empty() {
        let finished_at = Some(clock::now(conn).await?);
        let run = Run { state: "finished".to_owned(), finished_at, ..run };
        runs::save(conn, &run).await?;
        return Ok(Page::Rests(Some(Box::new(run))));
    }
    let source = match run.source.as_str() {
        "once" => "once",
        "cron" => "cron",
        _ => "manual",
    };
    let cause = Cause { source, by: run.created_by, delay: Period::default() };
    let plans = &ctx.services.plans;
    let Some(done) = enroll(conn, plans, organization, run.sop_id, &people, cause).await? else {
        // Nobody was brought in, so nobody was taken off the list.
        runs::add_contacts(conn, id, &people).await?;
        return halted(conn, run).await;
    };
    let enrolled = run.enrolled.saturating_add(i32::try_from(done.enrolled.len()).unwrap_or(i32::MAX));
    let refused = add_up(&run.refused, &done.refused);
    runs::save(conn, &Run { enrolled, refused, ..run }).await?;
    step!("run.paged");
    Ok(Page::Next)
}

/// Writes down whom a run concerns.
async fn freeze(conn: &mut Conn, ctx: &Context, run: Run) -> Result<Page> {
    let plan = plans::get(conn, ctx.organization_id, run.sop_id).await?;
    let Some(plan) = plan.filter(|plan| plan.status == Status::Running.as_str()) else {
        return halted(conn, run).await;
    };
    let version = plan.version.unwrap_or(run.version);
    let Some(read) = ctx.services.plans.of(conn, plan.id, version).await? else {
        return halted(conn, run).await;
    };
    let now = clock::now(conn).await?;
    let run = match audience::write_down(conn, &plan, &read, run.id).await? {
        Extent::People(people) => frozen(Run { version, ..run }, people, now),
        Extent::TooMany { count, most } => {
            tell(conn, &run, &plan.name, count, most).await?;
            let count = Some(i32::try_from(count).unwrap_or(i32::MAX));
            let state = "refused".to_owned();
            Run { version, state, audience: count, frozen_at: Some(now), finished_at: Some(now), ..run }
        }
    };
    runs::save(conn, &run).await?;
    step!("run.frozen");
    Ok(if run.finished_at.is_some() { Page::Rests(Some(Box::new(run))) } else { Page::Next })
}

fn frozen(run: Run, people: usize, now: DateTime<Utc>) -> Run {
    Run {
        state: if people == 0 { "finished" } else { "enrolling" }.to_owned(),
        audience: Some(i32::try_from(people).unwrap_or(i32::MAX)),
        frozen_at: Some(now),
        finished_at: (people == 0).then_some(now),
        ..run
    }
}

/// The plan takes nobody in: because it is paused, and then somebody resumes it; because it has ended; or because another version
/// was approved at this moment, and then it is simply asked again.
async fn halted(conn: &mut Conn, run: Run) -> Result<Page> {
    let plan = plans::get(conn, run.organization_id, run.sop_id).await?;
    Ok(match plan.and_then(|plan| plan.status.parse().ok()) {
        Some(Status::Running) => Page::Again,
        Some(Status::Paused) => Page::Rests(Some(Box::new(run))),
        _ => Page::Stopped,
    })
}

/// Ends a run; who has not been looked at is forgotten.
async fn end(conn: &mut Conn, organization: Uuid, id: Uuid, state: &str) -> Result<()> {
    let over = conn
        .transaction(async |conn| {
            let Some(run) = runs::lock(conn, organization, id).await? else { return Ok(()) };
            if run.finished_at.is_none() {
                let finished_at = Some(clock::now(conn).await?);
                runs::save(conn, &Run { state: state.to_owned(), finished_at, ..run }).await?;
            }
            Ok::<_, Error>(())
        })
        .await;
    over?;
    while !runs::take_contacts(conn, id, 10 * PAGE).await?.is_empty() {}
    Ok(())
}

async fn tell(conn: &mut Conn, run: &Run, name: &str, count: usize, most: u32) -> Result<()> {
    let text = format!(
        "The time of the plan \u{201c}{name}\u{201d} has come, and it is meant for {count} people now; it may take in {most}, so it \
         took in nobody. Narrow its audience, or have a higher max_size approved."
    );
    let alert = NewAlert {
        organization_id: run.organization_id,
        kind: "audience_too_large",
        severity: Severity::Warning,
        dedupe_key: &format!("audience_too_large:{}", run.id),
        text: &text,
        account_id: None,
        conversation_id: None,
        details: Some(json!({ "sop_id": run.sop_id, "run_id": run.id, "count": count, "most": most })),
    };
    alerts::raise(conn, &alert).await?;
    Ok(())
}

/// Makes the job of a run. Its key names the tick; where somebody else has used that key, the run itself keeps the tick single.
async fn enqueue_run(conn: &mut Conn, run: &Run) -> Result<()> {
    let fire_at = run.fire_at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true);
    let key = format!("sop:{}:{fire_at}", run.sop_id);
    let idempotency = Idempotency { request_hash: key.clone().into_bytes(), key };
    let named = job(run.organization_id, run.id, run.created_by, Some(idempotency));
    if let Some(Enqueued::Created(_)) = enqueue(conn, &[named]).await?.first() {
        return Ok(());
    }
    enqueue(conn, &[job(run.organization_id, run.id, run.created_by, None)]).await?;
    Ok(())
}

fn job(organization: Uuid, run: Uuid, by: Option<Uuid>, idempotency: Option<Idempotency>) -> NewJob {
    let options = Options {
        organization_id: organization,
        class: Class::Campaign,
        scheduled_at: None,
        expires_at: None,
        idempotency,
        trace_id: new_trace_id(),
        created_by: by,
    };
    new_job(&SopEnroll { run_id: run }, options)
}
