//! The layer around all routes: a trace id in, a trace id out, every error in one shape, every request counted.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use entropy_jobs::process::telemetry::{new_trace_id, trace_id_of};
use futures::FutureExt;
use poem::error::{MethodNotAllowedError, NotFoundError, ParsePathError as RoutePathError};
use poem::http::{HeaderName, HeaderValue, StatusCode, header};
use poem::{Endpoint, Error, IntoResponse, Request, Response, Result};
use poem_openapi::error::{ContentTypeError, ParseParamError, ParsePathError, ParseRequestPayloadError};
use tracing::{Instrument, field};

use super::operation::Route;
use super::origin::TraceId;
use crate::AppState;
use crate::problem::{ApiError, FieldProblem};
use crate::{callbacks, media};

const TRACE_HEADER: HeaderName = HeaderName::from_static("x-trace-id");

/// Wraps `inner`, the routes.
pub(crate) struct Layer<E> {
    /// The routes.
    pub inner: E,
    /// What every handler may use.
    pub state: AppState,
}

impl<E: Endpoint> Endpoint for Layer<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> Result<Response> {
        let begun = Instant::now();
        let trace_id = request.header("traceparent").and_then(trace_id_of).unwrap_or_else(new_trace_id);
        let route = Route::default();
        request.set_data(TraceId(trace_id.clone()));
        request.set_data(route.clone());
        request.set_data(self.state.clone());
        let span = tracing::info_span!(
            "request",
            trace_id,
            method = %request.method(),
            route = field::Empty,
            status = field::Empty,
            elapsed_ms = field::Empty,
        );
        let method = request.method().clone();
        let path = own_path(request.uri().path());
        let answered =
            AssertUnwindSafe(self.inner.call(request)).catch_unwind().instrument(span.clone()).await;
        let mut response = span.in_scope(|| match answered {
            Ok(Ok(response)) => response.into_response(),
            Ok(Err(error)) => refuse(error, &trace_id),
            Err(_) => report(ApiError::internal("a handler panicked"), &trace_id),
        });
        add_headers(&mut response, &trace_id);
        let route = route.0.get().cloned().unwrap_or_else(|| path.unwrap_or("unmatched").into());
        let status = response.status();
        let elapsed = begun.elapsed();
        span.record("route", &*route);
        span.record("status", status.as_u16());
        span.record("elapsed_ms", elapsed.as_millis() as u64);
        if path.is_some() {
            tracing::debug!(parent: &span, "answered");
        } else {
            tracing::info!(parent: &span, "answered");
        }
        self.state.metrics.answered(method.as_str(), &route, status.as_u16(), elapsed);
        Ok(response)
    }
}

/// Routes beside the operations, by name. Machines ask them every few seconds; they are not worth a line each.
fn own_path(path: &str) -> Option<&'static str> {
    // The rest of the address is a secret.
    if path.starts_with(callbacks::PREFIX) {
        return Some(callbacks::ROUTE);
    }
    if path.starts_with(media::PREFIX) {
        return Some(media::ROUTE);
    }
    ["/healthz", "/readyz", "/metrics", "/", "/docs", "/api/v1/openapi.json"]
        .into_iter()
        .find(|own| *own == path)
}

/// Puts an error into our shape.
fn refuse(error: Error, trace_id: &str) -> Response {
    let error = match error.downcast::<ApiError>() {
        Ok(error) => return report(error, trace_id),
        Err(error) => error,
    };
    if error.is::<NotFoundError>() || error.is::<RoutePathError>() {
        return report(
            ApiError::not_found("route_not_found", "There is no such address. See /docs."),
            trace_id,
        );
    }
    if error.is::<MethodNotAllowedError>() {
        let detail = "This address does not know that method. See /docs.";
        return report(
            ApiError::unfit(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail),
            trace_id,
        );
    }
    if error.is::<ContentTypeError>() {
        let detail = "Send the body as JSON, with the header `Content-Type: application/json`.";
        let error = ApiError::unfit(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail);
        return report(error, trace_id);
    }
    if let Some(param) = error.downcast_ref::<ParseParamError>() {
        return report(wrong_parameter(param.name), trace_id);
    }
    if let Some(path) = error.downcast_ref::<ParsePathError>() {
        let name = if path.name.starts_with("param") { "id" } else { path.name };
        return report(wrong_parameter(name), trace_id);
    }
    if error.is::<ParseRequestPayloadError>() {
        return report(ApiError::invalid("The body does not have the documented form. See /docs."), trace_id);
    }
    let status = error.status();
    if status.is_client_error() {
        return report(
            ApiError::unfit(status, "invalid_request", "The request cannot be read. See /docs."),
            trace_id,
        );
    }
    report(ApiError::internal(error), trace_id)
}

fn wrong_parameter(name: &str) -> ApiError {
    let message = match name {
        "id" => "must be an id such as 01890a5d-ac96-774b-bcce-b302099a8057",
        "created_from" | "created_to" | "from" | "to" => "must be a time such as 2026-11-22T09:30:00Z",
        "limit" => "must be a whole number",
        _ => "does not have the documented form; see /docs",
    };
    ApiError::malformed(vec![FieldProblem::new(name, "wrong_form", message)])
}

fn report(error: ApiError, trace_id: &str) -> Response {
    if error.status_code().is_server_error() {
        tracing::error!(code = error.code(), cause = error.cause().unwrap_or_default(), "request failed");
    } else {
        tracing::debug!(code = error.code(), "request refused");
    }
    error.response(trace_id)
}

fn add_headers(response: &mut Response, trace_id: &str) {
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(trace_id) {
        headers.insert(TRACE_HEADER, value);
    }
    let fixed = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let defaults = [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    for (name, value) in defaults {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}
