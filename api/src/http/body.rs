//! Reads JSON bodies: within a size, within a time, and with an explanation when they do not fit.

use std::time::Duration;

use entropy_jobs::sop::config::reading;
use entropy_jobs::sop::finding::Finding;
use entropy_jobs::step;
use futures::StreamExt;
use poem::http::StatusCode;
use poem::{Request, RequestBody, Result};
use poem_openapi::error::ContentTypeError;
use poem_openapi::payload::{Json, ParsePayload, Payload};
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaSchemaRef, Registry};
use poem_openapi::types::ParseFromJSON;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions, impl_apirequest_for_payload};
use serde_json::Value;

use crate::explain::explain;
use crate::problem::{ApiError, FieldProblem};

/// The largest body.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// How much of a body that is too large is read and thrown away, so that its sender gets to read our answer.
const MAX_DRAINED_BYTES: usize = 16 << 20;
/// How long a body may take to arrive.
const MAX_TIME: Duration = Duration::from_secs(30);

/// A JSON body that has the form of `T`, and no field more, nor one twice: readers differ in which of the two they take, so
/// what a person has looked at might not be what is carried out.
#[derive(Debug)]
pub(crate) struct Body<T>(pub T);

impl<T: ParseFromJSON> Payload for Body<T> {
    const CONTENT_TYPE: &'static str = "application/json";

    fn check_content_type(content_type: &str) -> bool {
        <Json<T> as Payload>::check_content_type(content_type)
    }

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<T: ParseFromJSON> ParsePayload for Body<T> {
    const IS_REQUIRED: bool = true;

    async fn from_request(_: &Request, body: &mut RequestBody) -> Result<Self> {
        let bytes = read_in_time(body.take().map_err(ApiError::internal)?, MAX_BYTES).await?;
        Ok(Body(parse(&bytes)?))
    }
}

impl_apirequest_for_payload!(Body<T>, T: ParseFromJSON);

/// A JSON body that may also be left out.
#[derive(Debug)]
pub(crate) struct OptionalBody<T>(pub(crate) T);

impl<'a, T: ParseFromJSON + Default> ApiExtractor<'a> for OptionalBody<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        let content =
            vec![MetaMediaType { content_type: <Body<T> as Payload>::CONTENT_TYPE, schema: T::schema_ref() }];
        Some(MetaRequest { description: None, content, required: false })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> Result<Self> {
        let bytes = read_in_time(body.take().map_err(ApiError::internal)?, MAX_BYTES).await?;
        // Clients write `null` where there is nothing to say.
        if matches!(bytes.trim_ascii(), b"" | b"null") {
            return Ok(OptionalBody(T::default()));
        }
        match request.content_type() {
            Some(content_type) if Body::<T>::check_content_type(content_type) => {
                Ok(OptionalBody(parse(&bytes)?))
            }
            _ => Err(ContentTypeError::ExpectContentType.into()),
        }
    }
}

/// Reads a body of at most `most` bytes, a whole number of MiB.
pub(crate) async fn read_in_time(body: poem::Body, most: usize) -> Result<Vec<u8>, ApiError> {
    tokio::time::timeout(MAX_TIME, read(body, most)).await.unwrap_or_else(|_| {
        let detail = "The body did not arrive within 30 s. Send it again.";
        Err(ApiError::unfit(StatusCode::REQUEST_TIMEOUT, "body_too_slow", detail))
    })
}

async fn read(body: poem::Body, most: usize) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    let mut seen = 0;
    let mut chunks = std::pin::pin!(body.into_bytes_stream());
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| ApiError::invalid("The body ended too early. Send it again."))?;
        seen += chunk.len();
        if seen <= most {
            bytes.extend_from_slice(&chunk);
        } else {
            bytes = Vec::new();
            if seen > MAX_DRAINED_BYTES {
                break;
            }
        }
    }
    if seen > most {
        let detail = format!("The body is larger than {} MiB. Split it into several requests.", most >> 20);
        return Err(ApiError::unfit(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail));
    }
    step!("api.read");
    Ok(bytes)
}

fn parse<T: ParseFromJSON>(bytes: &[u8]) -> Result<T, ApiError> {
    let value = json(bytes)?;
    T::parse_from_json(Some(value)).or_else(|_| Err(explain::<T>(&json(bytes)?, "")))
}

fn json(bytes: &[u8]) -> Result<Value, ApiError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| ApiError::invalid("The body is not UTF-8. Send JSON encoded as UTF-8."))?;
    let value = reading::read(bytes).map_err(|findings| {
        let Err(error) = serde_json::from_str::<Value>(text) else { return repeated(findings) };
        let (line, column) = (error.line(), error.column());
        ApiError::invalid(format!("The body is not JSON: look at line {line}, column {column}."))
    })?;
    // Postgres stores no text with it, and it is never meant.
    if text.contains("\\u0000")
        && let Some(path) = zero_character(&value, String::new())
    {
        let problem = FieldProblem::new(path, "zero_character", "must not contain the character U+0000");
        return Err(ApiError::malformed(vec![problem]));
    }
    Ok(value)
}

/// Says which fields stand twice.
fn repeated(findings: Vec<Finding>) -> ApiError {
    let problem =
        |finding: Finding| FieldProblem::new(dotted(&finding.path), "repeated_field", finding.message);
    ApiError::malformed(findings.into_iter().map(problem).collect())
}

/// Writes a JSON pointer as our paths are written: `/steps/3/next` is `steps[3].next`.
fn dotted(pointer: &str) -> String {
    pointer.split('/').skip(1).fold(String::new(), |path, part| {
        let part = part.replace("~1", "/").replace("~0", "~");
        match part.parse::<usize>() {
            Ok(index) => format!("{path}[{index}]"),
            Err(_) if path.is_empty() => part,
            Err(_) => format!("{path}.{part}"),
        }
    })
}

/// Returns the path of the first text with the character U+0000 in it.
fn zero_character(value: &Value, path: String) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then_some(path),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| zero_character(item, format!("{path}[{index}]"))),
        Value::Object(fields) => fields.iter().find_map(|(name, field)| {
            if name.contains('\0') {
                return Some(path.clone());
            }
            let dot = if path.is_empty() { "" } else { "." };
            zero_character(field, format!("{path}{dot}{name}"))
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit_and_no_further() {
        assert_eq!(
            read(poem::Body::from_vec(vec![b' '; MAX_BYTES]), MAX_BYTES).await.map(|b| b.len()).ok(),
            Some(MAX_BYTES)
        );
        let error =
            read(poem::Body::from_vec(vec![b' '; MAX_BYTES + 1]), MAX_BYTES).await.expect_err("too large");
        assert_eq!(error.status_code(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[test]
    fn broken_json_and_hidden_zeros_are_named_by_their_place() {
        let detail = json(b"{\n  \"a\": }").expect_err("broken").detail().to_owned();
        assert!(detail.contains("line 2"), "{detail}");
        let error = json(br#"{"a": {"b": ["x", "y\u0000"]}}"#).expect_err("zero");
        assert_eq!(error.detail(), "a.b[1]: must not contain the character U+0000.");
        assert!(json(br#"{"a": "\\u0000"}"#).is_ok());
        assert!(json(b"\xff").is_err());
    }

    #[test]
    fn a_field_that_stands_twice_is_named_by_its_place() {
        assert!(json(br#"{"a": [{"b": 1}, {"b": 2}]}"#).is_ok());
        let error = json(br#"{"a": [{"b": 1}, {"b": 2, "c": 0, "b": 3}]}"#).expect_err("twice");
        assert_eq!((error.status_code(), error.code()), (StatusCode::BAD_REQUEST, "invalid_request"));
        let problems = error.into_errors();
        assert_eq!(
            (problems[0].path.as_str(), problems[0].code.as_deref()),
            ("a[1].b", Some("repeated_field"))
        );
        assert_eq!(dotted("/x~1y/z~0"), "x/y.z~");
    }
}
