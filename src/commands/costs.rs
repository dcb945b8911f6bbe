//! `entropy costs`: compares what was booked with what the provider says.

use anyhow::{Context, bail};
use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use entropy_jobs::process::config::environment;
use entropy_schema::{Conn, Db, Profile, clock, costs, users};
use uuid::Uuid;

/// What `entropy costs` can do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Compare the points of every run with those of its lines in the ledger. Prints what differs, and ends with code 1 then.
    Reconcile(Reconcile),
}

/// What `entropy costs reconcile` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Reconcile {
    /// The organisation's id or name.
    #[arg(long)]
    organization: String,
    /// Runs begun at or after this time (RFC 3339); without it, in the last 30 days.
    #[arg(long)]
    from: Option<DateTime<Utc>>,
    /// Runs begun before this time; without it, until five minutes ago, so that those under way are left alone.
    #[arg(long)]
    to: Option<DateTime<Utc>>,
}

pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    let Command::Reconcile(args) = command;
    let url = environment("DATABASE_URL").context("DATABASE_URL is not set")?;
    let db = Db::new(&url, 1, Profile::Api)?;
    let mut conn = db.conn().await?;
    let organization = organization(&mut conn, &args.organization).await?;
    let now = clock::now(&mut conn).await?;
    let to = args.to.unwrap_or(now - chrono::TimeDelta::minutes(5));
    let from = args.from.unwrap_or(now - chrono::TimeDelta::days(30));
    if to <= from {
        bail!("--to must lie after --from");
    }
    let found = costs::compare(&mut conn, organization, from, to).await?;
    let points = |points: &Option<BigDecimal>| {
        points.as_ref().map_or("none".to_owned(), |points| points.normalized().to_plain_string())
    };
    for one in &found.differences {
        println!(
            "run {} of {} ({}): {} points, in the ledger {}",
            one.run_id,
            one.started_at.format("%Y-%m-%d %H:%M:%S UTC"),
            one.state,
            points(&one.run_points),
            points(&one.ledger_points),
        );
    }
    if !found.differences.is_empty() {
        bail!("{} of {} runs differ from the ledger", found.differences.len(), found.runs);
    }
    println!("{} runs, and the ledger says the same of each", found.runs);
    Ok(())
}

async fn organization(conn: &mut Conn, named: &str) -> anyhow::Result<Uuid> {
    let found = users::organizations_named(conn, named, named.parse().ok()).await?;
    match found[..] {
        [one] => Ok(one),
        [] => bail!("--organization: there is no organisation {named}"),
        _ => bail!("--organization: {} organisations are named {named}; pass the id", found.len()),
    }
}
