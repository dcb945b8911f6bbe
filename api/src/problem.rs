//! Errors as callers see them: `application/problem+json` with a stable code.
//!
//! A 4xx says what to change and never repeats a secret. A 5xx says nothing of the inside; its cause goes to the log,
//! once, together with the trace id that the caller gets.

use std::fmt;

use entropy_jobs::message::FieldError;
use poem::error::ResponseError;
use poem::http::{StatusCode, header};
use poem_openapi::payload::Json;
use poem_openapi::registry::{MetaResponses, Registry};
use poem_openapi::types::ToJSON;
use poem_openapi::{ApiResponse, Object};

/// The media type of every error.
pub(crate) const CONTENT_TYPE: &str = "application/problem+json";

/// What went wrong with a request (RFC 9457).
#[derive(Debug, Clone, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct Problem {
    /// Stable name of the problem, for programs.
    pub code: String,
    /// What sort of problem it is, in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened and what to do about it, for people.
    pub detail: String,
    /// The fields to change, if it is about fields.
    #[oai(default, skip_serializing_if_is_empty)]
    pub errors: Vec<FieldProblem>,
    /// Ties the answer to our logs.
    pub trace_id: String,
}

/// One thing to change in the request.
#[derive(Debug, Clone, PartialEq, Eq, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct FieldProblem {
    /// The field, from the body's top on: `message.text`, `jobs[3].args`.
    pub path: String,
    /// What to change.
    pub message: String,
    /// Stable name of the problem.
    pub code: Option<String>,
}

impl FieldProblem {
    /// Names a field and what to change there.
    pub(crate) fn new(path: impl Into<String>, code: &str, message: impl Into<String>) -> Self {
        FieldProblem { path: path.into(), message: message.into(), code: Some(code.to_owned()) }
    }

    /// Takes over a problem that was found below `prefix`.
    pub(crate) fn below(prefix: &str, error: FieldError) -> Self {
        FieldProblem::new(format!("{prefix}.{}", error.path), error.code, error.message)
    }
}

/// A request that was not carried out.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    detail: String,
    errors: Vec<FieldProblem>,
    retry_after_s: Option<u64>,
    cause: Option<String>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        ApiError { status, code, detail: detail.into(), errors: Vec::new(), retry_after_s: None, cause: None }
    }

    /// 400: the request cannot be read.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    }

    /// 400: fields have the wrong form.
    pub(crate) fn malformed(errors: Vec<FieldProblem>) -> Self {
        Self::invalid(sentence(&errors)).with_errors(errors)
    }

    /// 422: fields have values that cannot be.
    pub(crate) fn unprocessable(errors: Vec<FieldProblem>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed", sentence(&errors))
            .with_errors(errors)
    }

    /// 422 about one field.
    pub(crate) fn field(path: &str, code: &str, message: impl Into<String>) -> Self {
        Self::unprocessable(vec![FieldProblem::new(path, code, message)])
    }

    /// 401: nobody is logged in. `code` tells a token that ran out from one that never was.
    pub(crate) fn unauthenticated(code: &'static str, detail: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, detail)
    }

    /// 403: the caller may not do this.
    pub(crate) fn forbidden(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, detail)
    }

    /// 404: the organisation has no such thing.
    pub(crate) fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// 410: it was there, and will not be again.
    pub(crate) fn gone(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, code, detail)
    }

    /// 405, 413, 415: the request does not fit the operation.
    pub(crate) fn unfit(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(status, code, detail)
    }

    /// 409: it cannot be done as things stand.
    pub(crate) fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 429: too much, for now.
    pub(crate) fn too_many(code: &'static str, detail: impl Into<String>, retry_after_s: u64) -> Self {
        Self {
            retry_after_s: Some(retry_after_s.max(1)),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail)
        }
    }

    /// 503: the search engine does not answer.
    pub(crate) fn search_unavailable(cause: impl fmt::Display) -> Self {
        Self {
            retry_after_s: Some(5),
            cause: Some(cause.to_string()),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "search_unavailable",
                "The search engine does not answer. Try again in a few seconds.",
            )
        }
    }

    /// 503: the database cannot be reached, or did not get round to it in time. Whether it was done may be open: an answer
    /// to a commit can be lost.
    pub(crate) fn unavailable(cause: impl fmt::Display) -> Self {
        Self {
            retry_after_s: Some(2),
            cause: Some(cause.to_string()),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "database_unavailable",
                "The service cannot reach its database, or not in time. Send the request again in a moment, with the same \
                 Idempotency-Key if it has one: then it is carried out once.",
            )
        }
    }

    /// 500: our fault.
    pub(crate) fn internal(cause: impl fmt::Display) -> Self {
        Self {
            cause: Some(cause.to_string()),
            ..Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "Something went wrong on our side. Report the trace_id if it happens again.",
            )
        }
    }

    /// Adds the fields to change.
    #[must_use]
    pub(crate) fn with_errors(mut self, errors: Vec<FieldProblem>) -> Self {
        self.errors = errors;
        self
    }

    /// The same, for fields that stand below `path` in the request.
    #[must_use]
    pub(crate) fn below(mut self, path: &str) -> Self {
        for error in &mut self.errors {
            error.path = format!("{path}.{}", error.path);
        }
        if !self.errors.is_empty() {
            self.detail = sentence(&self.errors);
        }
        self
    }

    /// The HTTP status.
    pub(crate) fn status_code(&self) -> StatusCode {
        self.status
    }

    /// The stable code.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// What happened and what to do.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// The fields to change.
    pub(crate) fn into_errors(self) -> Vec<FieldProblem> {
        self.errors
    }

    /// What the log should know and the caller should not.
    pub(crate) fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// The answer.
    pub(crate) fn response(&self, trace_id: &str) -> poem::Response {
        let problem = Problem {
            code: self.code.to_owned(),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            errors: self.errors.clone(),
            trace_id: trace_id.to_owned(),
        };
        let body = problem.to_json().unwrap_or_default().to_string();
        let mut response =
            poem::Response::builder().status(self.status).header(header::CONTENT_TYPE, CONTENT_TYPE);
        if let Some(seconds) = self.retry_after_s {
            response = response.header(header::RETRY_AFTER, seconds.to_string());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response = response.header(header::WWW_AUTHENTICATE, "Bearer");
        }
        response.body(body)
    }
}

/// Repeats a single field's message in the detail, so that a person who reads only that knows what to do.
fn sentence(errors: &[FieldProblem]) -> String {
    match errors {
        [one] if one.path.is_empty() => format!("The request {}.", one.message),
        [one] => format!("{}: {}.", one.path, one.message),
        several => format!("{} fields are wrong; `errors` says which and what to change.", several.len()),
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status.as_u16(), self.code)
    }
}

impl std::error::Error for ApiError {}

impl ResponseError for ApiError {
    fn status(&self) -> StatusCode {
        self.status
    }

    fn as_response(&self) -> poem::Response {
        self.response("")
    }
}

/// Which operation answers with which problems is decided in one place, `http::operation`.
impl ApiResponse for ApiError {
    fn meta() -> MetaResponses {
        MetaResponses { responses: Vec::new() }
    }

    fn register(registry: &mut Registry) {
        <Json<Problem> as ApiResponse>::register(registry);
    }
}

impl From<entropy_schema::Error> for ApiError {
    fn from(error: entropy_schema::Error) -> Self {
        if error.is_unavailable() { Self::unavailable(error) } else { Self::internal(error) }
    }
}

impl From<diesel::result::Error> for ApiError {
    fn from(error: diesel::result::Error) -> Self {
        entropy_schema::Error::from(error).into()
    }
}

impl From<entropy_jobs::enqueue::Error> for ApiError {
    fn from(error: entropy_jobs::enqueue::Error) -> Self {
        if error.is_unavailable() { Self::unavailable(error) } else { Self::internal(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn json(error: ApiError) -> serde_json::Value {
        let body = error.response("t1").into_body().into_string().await.expect("a body");
        serde_json::from_str(&body).expect("JSON")
    }

    #[tokio::test]
    async fn a_problem_of_one_field_says_it_in_the_detail_too() {
        let json = json(ApiError::field("message.text", "blank", "must not be empty or blank")).await;
        assert_eq!(
            json,
            serde_json::json!({
                "code": "validation_failed", "title": "Unprocessable Entity", "status": 422, "trace_id": "t1",
                "detail": "message.text: must not be empty or blank.",
                "errors": [{"path": "message.text", "message": "must not be empty or blank", "code": "blank"}],
            })
        );
    }

    #[tokio::test]
    async fn a_fault_of_ours_keeps_its_cause_to_itself() {
        let json = json(ApiError::internal("relation \"jobs\" does not exist")).await;
        assert!(!json.to_string().contains("relation"), "{json}");
        assert_eq!(json["trace_id"], "t1");
    }

    #[test]
    fn a_missing_database_asks_to_come_back() {
        let error = ApiError::from(entropy_schema::Error::Unavailable("refused".into()));
        let response = error.response("t1");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.header("retry-after"), Some("2"));
    }
}
