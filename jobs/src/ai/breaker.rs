//! When a key or an account is left alone: which failures count, and for how long.

use std::time::Duration;

use entropy_schema::Conn;
use entropy_schema::alerts::{self, NewAlert, Severity};
use entropy_schema::breakers::{self, Policy};
use uuid::Uuid;

use super::port::{AiError, ErrorClass};

/// Five failures in a row, then half a minute, then twice as long with each further failure.
const POLICY: Policy = Policy { threshold: 5, open_ms: 30_000, most_ms: 600_000 };

/// How long a key is left alone that the provider refuses: until somebody has looked, more or less.
const REFUSED_MS: i64 = 300_000;

/// How long others wait for what becomes of the first call after an open breaker.
const PROBE: Duration = Duration::from_secs(15);

/// Returns the name of a key's breaker.
pub fn of_key(key_hash: &str) -> String {
    format!("key:{key_hash}")
}

/// Returns the name of an account's breaker.
pub fn of_account(account: Uuid) -> String {
    format!("account:{account}")
}

/// Asks for one call. Some: how long to wait.
pub async fn admit(
    conn: &mut Conn,
    account: Uuid,
    key_hash: &str,
) -> entropy_schema::Result<Option<Duration>> {
    let (account, key) = (of_account(account), of_key(key_hash));
    let probe_ms = i64::try_from(PROBE.as_millis()).unwrap_or(i64::MAX);
    let wait = breakers::admit(conn, &[&account, &key], probe_ms).await?;
    Ok(wait.map(|wait| wait.to_std().unwrap_or_default()))
}

/// Notes that a call brought an answer.
pub async fn succeeded(conn: &mut Conn, account: Uuid, key_hash: &str) -> entropy_schema::Result<()> {
    let (account, key) = (of_account(account), of_key(key_hash));
    breakers::succeeded(conn, &[&account, &key]).await
}

/// Notes that a call failed, and raises an alert when that opens a breaker.
///
/// What the host or the key is to blame for counts against the key, what the workflow did against the account.
pub async fn failed(
    conn: &mut Conn,
    organization: Uuid,
    account: Uuid,
    key_hash: &str,
    error: &AiError,
) -> entropy_schema::Result<()> {
    let (key, own) = (of_key(key_hash), of_account(account));
    let (subject, opened) = match error.class {
        ErrorClass::Throttled => return Ok(()),
        ErrorClass::Refused | ErrorClass::Quota => {
            breakers::open(conn, organization, &key, error.code, REFUSED_MS).await?;
            (&key, true)
        }
        ErrorClass::NotRun | ErrorClass::Ambiguous => {
            (&key, breakers::failed(conn, organization, &key, error.code, POLICY).await?)
        }
        ErrorClass::Failed => (&own, breakers::failed(conn, organization, &own, error.code, POLICY).await?),
    };
    if !opened {
        return Ok(());
    }
    let (kind, severity, text) = match error.class {
        ErrorClass::Refused => (
            "ai_key_refused",
            Severity::Critical,
            "FastGPT refuses the key or the app of a workflow; its conversations go to people until that is mended",
        ),
        ErrorClass::Quota => (
            "ai_quota_used_up",
            Severity::Critical,
            "the FastGPT team has no points left; conversations go to people until there are some",
        ),
        _ => (
            "ai_breaker_open",
            Severity::Warning,
            "runs of the model failed several times in a row; it is left alone for a while",
        ),
    };
    // One alert an hour and matter: a key that stays refused says so again.
    let hour = entropy_schema::clock::now(conn).await?.format("%Y-%m-%dT%H");
    let dedupe_key = format!("{kind}:{subject}:{hour}");
    alerts::raise(
        conn,
        &NewAlert {
            organization_id: organization,
            kind,
            severity,
            dedupe_key: &dedupe_key,
            text,
            account_id: Some(account),
            conversation_id: None,
            details: Some(serde_json::json!({"code": error.code, "message": error.message})),
        },
    )
    .await?;
    Ok(())
}
