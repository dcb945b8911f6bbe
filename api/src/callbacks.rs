//! What the provider tells us: `POST /callbacks/gewe/{secret}`, outside `/api/v1`, answered in milliseconds.
//!
//! An event is stored, and its job with it; everything else is that job's. The secret in the address is what proves who
//! calls; where a header secret is set too, events need it in `Authorization`, and the provider's probes do not.

use entropy_jobs::incoming::What;
use entropy_jobs::incoming::decode::{self, Arrival, Incoming};
use entropy_jobs::incoming::intake::Taken;
use entropy_jobs::process::config::Callbacks;
use entropy_jobs::secret::Secret;
use entropy_schema::callbacks::NewEvent;
use poem::http::{StatusCode, header};
use poem::web::Path;
use poem::{Body, Request, Response, handler};
use ring::digest::{SHA256, digest};
use uuid::Uuid;

use crate::AppState;
use crate::http::body;
use crate::http::origin::TraceId;
use crate::problem::ApiError;

/// Where callbacks arrive, as logs and counters name it: the secret is in neither.
pub(crate) const ROUTE: &str = "/callbacks/gewe/{secret}";
/// How every address of callbacks begins.
pub(crate) const PREFIX: &str = "/callbacks/gewe/";

/// The largest body: a voice or a picture may be in it.
const MAX_BYTES: usize = 2 << 20;

/// Takes one callback in.
#[handler]
pub(crate) async fn gewe(request: &Request, secret: Path<String>, body: Body) -> poem::Result<Response> {
    let state = request.data::<AppState>().ok_or_else(|| ApiError::internal("no state in the request"))?;
    let answer = take(state, request, &secret.0, body).await;
    let outcome = match &answer {
        Ok(outcome) => outcome.as_str(),
        Err(error) => refusal(error),
    };
    state.metrics.called_back(outcome);
    answer?;
    Ok(StatusCode::OK.into())
}

/// What became of a callback that was accepted, as the counter names it.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    Probe,
    Stored,
    /// Stored, and nobody knows what it means.
    StoredUnknown,
    Duplicate,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Outcome::Probe => "probe",
            Outcome::Stored => "stored",
            Outcome::StoredUnknown => "stored_unknown",
            Outcome::Duplicate => "duplicate",
        }
    }
}

fn refusal(error: &ApiError) -> &'static str {
    match error.status_code() {
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        StatusCode::PAYLOAD_TOO_LARGE => "too_large",
        StatusCode::UNAUTHORIZED => "wrong_header",
        status if status.is_server_error() => "failed",
        _ => match error.code() {
            "unknown_account" => "unknown_account",
            "route_not_found" => "wrong_secret",
            _ => "unreadable",
        },
    }
}

async fn take(state: &AppState, request: &Request, secret: &str, body: Body) -> Result<Outcome, ApiError> {
    let Callbacks { secret: ours, header_secret } = &state.callbacks;
    if !ours.as_ref().is_some_and(|ours| same(ours, secret.as_bytes())) {
        // As every other address that there is not.
        return Err(ApiError::not_found("route_not_found", "There is no such address. See /docs."));
    }
    let bytes = body::read_in_time(body, MAX_BYTES).await?;
    let arrival = match decode::read(&bytes) {
        Ok(Incoming::Probe) => return Ok(Outcome::Probe),
        Ok(Incoming::Event(arrival)) => *arrival,
        Err(error) => {
            return Err(ApiError::invalid(format!("Not a callback: {error}.")));
        }
    };
    if let Some(header_secret) = header_secret {
        let given = request.headers().get(header::AUTHORIZATION);
        if !given.is_some_and(|given| same(header_secret, given.as_bytes())) {
            let detail = "This install asks for its header secret in `Authorization`. Set it in the provider's console.";
            return Err(ApiError::unauthenticated("wrong_header_secret", detail));
        }
    }
    store(state, request, arrival).await
}

async fn store(state: &AppState, request: &Request, arrival: Arrival) -> Result<Outcome, ApiError> {
    let key = match arrival.repeats_after_s {
        Some(_) => arrival.key(state.now().await),
        None => arrival.event.key.clone(),
    };
    let Arrival { event, body, .. } = arrival;
    let Some(account) = state.addressees.find((event.app_id, event.wxid)).await? else {
        let detail =
            "No account has this device or this wxid. Add the account first, or correct its gewe_app_id.";
        return Err(ApiError::not_found("unknown_account", detail));
    };
    let unknown = event.what == What::Unknown;
    let event = NewEvent {
        id: Uuid::now_v7(),
        organization_id: account.organization_id,
        account_id: account.id,
        key,
        event_type: event.type_name,
        body,
    };
    let trace_id = request.data::<TraceId>().map(|TraceId(id)| id.clone()).unwrap_or_default();
    match state.intake.take(event, trace_id).await {
        Ok(Taken::Stored) if unknown => Ok(Outcome::StoredUnknown),
        Ok(Taken::Stored) => Ok(Outcome::Stored),
        Ok(Taken::Known) => Ok(Outcome::Duplicate),
        Err(error) if error.is_unavailable() => Err(ApiError::unavailable(error)),
        Err(error) => Err(ApiError::internal(error)),
    }
}

/// Compares hashes, so that the time it takes tells nothing of the secret.
fn same(ours: &Secret, given: &[u8]) -> bool {
    let hash = |bytes: &[u8]| digest(&SHA256, bytes);
    hash(ours.expose().as_bytes()).as_ref() == hash(given).as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_compared_whole() {
        let ours = Secret::new("geheim-1");
        assert!(same(&ours, b"geheim-1"));
        for other in ["", "geheim-", "geheim-12", "Geheim-1"] {
            assert!(!same(&ours, other.as_bytes()), "{other}");
        }
    }
}
