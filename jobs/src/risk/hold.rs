//! What follows from a signal, in one transaction: the hold, the enrollments that wait, the alert, the line in the audit log.
//!
//! It may run twice, and two signals may come at once: who comes second finds the account on hold.

use std::time::Duration;

use diesel_async::AsyncConnection;
use entropy_schema::alerts::{self, NewAlert, Severity};
use entropy_schema::audit::{self, Entry};
use entropy_schema::{Conn, Result, risk};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Seen, Signal, signal};
use crate::services::Context;

/// Tries of writing down a hold while the database is away for a moment.
const TRIES: usize = 10;

/// Time between two of them.
const PAUSE: Duration = Duration::from_millis(500);

/// Puts an account on hold for a signal. Returns false if it was on hold before, or cannot be.
///
/// Opens a transaction, so the caller must hold no lock that comes after an account's lane.
pub async fn hold(
    conn: &mut Conn,
    organization: Uuid,
    account: Uuid,
    signal: Signal,
    details: Value,
    trace_id: &str,
) -> Result<bool> {
    conn.transaction(async |conn| {
        let Some(held) = risk::hold(conn, organization, account, signal.code()).await? else {
            return Ok(false);
        };
        let waiting = risk::put_back_enrollments(conn, account).await?;
        let details = json!({
            "signal": signal.code(), "seen": details, "owner_id": held.user_id, "messages_put_back": waiting,
        });
        audit::write(
            conn,
            &Entry {
                id: Uuid::now_v7(),
                organization_id: organization,
                user_id: None,
                action: "account.risk_hold".to_owned(),
                target_kind: "account".to_owned(),
                target_id: Some(account.to_string()),
                before: Some(json!({ "status": held.before })),
                after: Some(json!({ "status": "RISK_HOLD", "risk_signal": signal.code() })),
                address: None,
                trace_id: trace_id.to_owned(),
            },
        )
        .await?;
        let text = format!(
            "The account is on hold, because {}. Nothing is sent from it and no machine answers for it until a manager has looked \
             at its phone and resumes it.",
            signal.sentence()
        );
        let alert = NewAlert {
            organization_id: organization,
            kind: "account_risk_hold",
            severity: Severity::Critical,
            dedupe_key: &format!("account_risk_hold:{account}:{}", held.held_at.timestamp_micros()),
            text: &text,
            account_id: Some(account),
            conversation_id: None,
            details: Some(details),
        };
        alerts::raise(conn, &alert).await?;
        tracing::error!(account_id = %account, signal = signal.code(), "the account is on hold until a person lifts it");
        Ok(true)
    })
    .await
}

/// Puts an account on hold whatever the database says for a moment: a hold must not be lost.
pub async fn hold_surely(ctx: &Context, account: Uuid, signal: Signal, details: Value) {
    for _ in 0..TRIES {
        let held = async {
            let mut conn = ctx.conn().await?;
            hold(&mut conn, ctx.organization_id, account, signal, details.clone(), &ctx.trace_id).await
        };
        match held.await {
            Ok(_) => return,
            Err(error) => {
                tracing::error!(%error, account_id = %account, signal = signal.code(), "hold not noted yet")
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Looks at the last messages of machines after one was refused.
pub async fn look_at_sends(ctx: &Context, account: Uuid) -> Result<()> {
    let mut conn = ctx.conn().await?;
    let refused = risk::recent(&mut conn, ctx.organization_id, account).await?;
    let Some(signal) = signal(Seen::Sends(&refused)) else { return Ok(()) };
    let count = refused.iter().filter(|refused| **refused).count();
    let details = json!({ "messages": refused.len(), "refused": count });
    hold(&mut conn, ctx.organization_id, account, signal, details, &ctx.trace_id).await?;
    Ok(())
}

/// Looks at a day's recipients after one has gone.
pub async fn look_at_leavers(ctx: &Context, account: Uuid) -> Result<()> {
    let mut conn = ctx.conn().await?;
    let found = risk::leavers(&mut conn, ctx.organization_id, account).await?;
    let seen = Seen::Leavers { recipients: found.recipients, gone: found.gone };
    let Some(signal) = signal(seen) else { return Ok(()) };
    let details = json!({ "recipients": found.recipients, "gone": found.gone });
    hold(&mut conn, ctx.organization_id, account, signal, details, &ctx.trace_id).await?;
    Ok(())
}
