//! Wraps every operation of the OpenAPI service: names its route, refuses unknown parameters and unreadable headers, and documents the
//! problems that it can answer with. One place, so that no operation forgets.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use entropy_jobs::step;
use poem::endpoint::BoxEndpoint;
use poem::http::Method;
use poem::{Endpoint, EndpointExt, Request, Response, Result};
use poem_openapi::OpenApi;
use poem_openapi::payload::Payload;
use poem_openapi::registry::{
    MetaApi, MetaMediaType, MetaOperation, MetaParamIn, MetaResponse, MetaResponses, MetaSchema,
    MetaSchemaRef, Registry,
};
use poem_openapi::types::Type;

use crate::explain::{MAX_PROBLEMS, shown};
use crate::problem::{self, ApiError, FieldProblem, Problem};

/// Filled with the route's pattern once it is known; the layer around all routes reads it for logs and counters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Route(pub Arc<OnceLock<Arc<str>>>);

/// An API whose operations are wrapped.
pub(crate) struct Operations<T>(pub T);

impl<T: OpenApi> OpenApi for Operations<T> {
    fn meta() -> Vec<MetaApi> {
        let mut apis = T::meta();
        for operation in apis.iter_mut().flat_map(|api| &mut api.paths).flat_map(|path| &mut path.operations)
        {
            document_problems(operation);
        }
        apis
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
        Problem::register(registry);
        for schema in registry.schemas.values_mut() {
            document_nulls(schema);
        }
    }

    fn add_routes(self, table: &mut HashMap<String, HashMap<Method, BoxEndpoint<'static>>>) {
        let mut inner = HashMap::new();
        self.0.add_routes(&mut inner);
        let mut known: HashMap<(String, Method), Known> = HashMap::new();
        for path in T::meta().into_iter().flat_map(|api| api.paths) {
            let route: Arc<str> = format!("/api/v1{}", path.path).into();
            for operation in path.operations {
                let names = |of: MetaParamIn| {
                    operation
                        .params
                        .iter()
                        .filter(move |param| param.in_type == of)
                        .map(|param| param.name.clone())
                };
                let (queries, headers) =
                    (names(MetaParamIn::Query).collect(), names(MetaParamIn::Header).collect());
                known.insert(
                    (as_poem_path(&path.path), operation.method),
                    Known { route: route.clone(), queries, headers },
                );
            }
        }
        for (path, methods) in inner {
            for (method, endpoint) in methods {
                let known = known.remove(&(path.clone(), method.clone())).unwrap_or_else(|| Known {
                    route: path.as_str().into(),
                    queries: BTreeSet::new(),
                    headers: Vec::new(),
                });
                let wrapped = Operation { endpoint, known };
                table.entry(path.clone()).or_default().insert(method, wrapped.boxed());
            }
        }
    }
}

/// Turns `/jobs/{id}` into `/jobs/:param0`, as the routing table has it.
fn as_poem_path(path: &str) -> String {
    let mut count = 0;
    path.split('/')
        .map(|part| {
            if part.starts_with('{') {
                count += 1;
                format!(":param{}", count - 1)
            } else {
                part.to_owned()
            }
        })
        .collect::<Vec<_>>()
        .join("/")
}

struct Operation {
    endpoint: BoxEndpoint<'static>,
    known: Known,
}

/// What the document says of an operation.
struct Known {
    route: Arc<str>,
    /// Names of its query parameters.
    queries: BTreeSet<String>,
    /// Names of the headers that it reads.
    headers: Vec<String>,
}

impl Endpoint for Operation {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response> {
        if let Some(Route(cell)) = request.data::<Route>() {
            // The cell belongs to this request and is filled once.
            let _ = cell.set(self.known.route.clone());
        }
        self.check_queries(&request)?;
        self.check_headers(&request)?;
        let answer = self.endpoint.call(request).await;
        step!("api.answering");
        answer
    }
}

impl Operation {
    fn check_queries(&self, request: &Request) -> Result<(), ApiError> {
        let Some(query) = request.uri().query() else { return Ok(()) };
        let mut problems = Vec::new();
        let mut seen = BTreeSet::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if problems.len() == MAX_PROBLEMS {
                break;
            }
            let shown = shown(&name);
            if !self.known.queries.contains(name.as_ref()) {
                let known = self.known.queries.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                let message = if known.is_empty() {
                    "is not a parameter; this operation has none".to_owned()
                } else {
                    format!("is not a parameter of this operation; it has {known}")
                };
                problems.push(FieldProblem::new(shown, "unknown_parameter", message));
            } else if !seen.insert(name.clone()) {
                problems.push(FieldProblem::new(shown, "repeated_parameter", "may stand there only once"));
            } else if value.contains('\0') {
                let message = "must not contain the character U+0000";
                problems.push(FieldProblem::new(shown, "zero_character", message));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(ApiError::malformed(problems)) }
    }
}

impl Operation {
    /// A header that the reader skips because it is not plain text must not count as one that was not sent: with its
    /// idempotency key ignored, a request that is repeated would be carried out twice.
    fn check_headers(&self, request: &Request) -> Result<(), ApiError> {
        let mut problems = Vec::new();
        for name in &self.known.headers {
            let values: Vec<_> = request.headers().get_all(name.as_str()).iter().collect();
            if values.len() > 1 {
                problems.push(FieldProblem::new(name, "repeated_parameter", "may stand there only once"));
            } else if values.iter().any(|value| value.to_str().is_err()) {
                let message = "must consist of letters, digits and signs of ASCII";
                problems.push(FieldProblem::new(name, "bad_key", message));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(ApiError::malformed(problems)) }
    }
}

/// Says of each field that need not be there that it may be null as well. The library leaves that out, although it writes a
/// value that is none as null, and reads null as none.
fn document_nulls(schema: &mut MetaSchema) {
    for (name, property) in &mut schema.properties {
        if schema.required.contains(name) {
            continue;
        }
        match property {
            MetaSchemaRef::Inline(inline) => inline.nullable = true,
            MetaSchemaRef::Reference(_) => {
                let all_of = vec![property.clone()];
                *property =
                    MetaSchemaRef::Inline(Box::new(MetaSchema { nullable: true, all_of, ..MetaSchema::ANY }));
            }
        }
    }
    for part in schema.all_of.iter_mut().chain(&mut schema.one_of).chain(&mut schema.any_of) {
        if let MetaSchemaRef::Inline(part) = part {
            document_nulls(part);
        }
    }
}

/// Operations whose body names a thing of the organisation.
const NAME_A_THING: [&str; 4] = ["import_contacts", "update_schedule_by_name", "create_stop", "lift_stop"];

/// Operations without a body that read a plan's draft, which may have errors.
const READ_A_DRAFT: [&str; 3] = ["submit_sop_task", "preview_sop_audience", "get_sop_contact_why"];

/// Adds the problems that follow from what an operation is: logged in or not, with a body, about one thing.
fn document_problems(operation: &mut MetaOperation) {
    let secured = !operation.security.is_empty();
    let one_thing = operation.params.iter().any(|param| param.in_type == MetaParamIn::Path);
    let body = operation.request.is_some();
    let parameters = !operation.params.is_empty();
    let changes = operation.method != Method::GET;
    let enqueues = operation.operation_id.is_some_and(|id| id.starts_with("enqueue_"));
    let logs_in = operation.operation_id.is_some_and(|id| matches!(id, "login" | "register"));
    let has_medium = operation.operation_id == Some("get_message_media");
    let login = operation.operation_id == Some("login");
    let uploads = operation.operation_id == Some("upload_material");
    let names_a_thing = operation.operation_id.is_some_and(|id| NAME_A_THING.contains(&id));
    let reads_a_draft = operation.operation_id.is_some_and(|id| READ_A_DRAFT.contains(&id));
    let plays = operation.operation_id == Some("dry_run_sop_task");
    let problems: [(bool, u16, &'static str); 13] = [
        (body || parameters, 400, "The request cannot be read, or has a field that does not exist."),
        (
            secured || login,
            401,
            "Nobody is logged in: no token, an expired or a forged one, or wrong credentials.",
        ),
        (secured || logs_in, 403, "The caller's role does not allow this, or registration is closed."),
        (one_thing || enqueues || names_a_thing, 404, "The organisation has no such thing."),
        (
            changes && secured || logs_in || has_medium,
            409,
            "It cannot be done as things stand, or the name is taken.",
        ),
        (has_medium, 410, "It was refused, or it is gone."),
        (uploads, 413, "The file is larger than `MAX_FILE_SIZE`."),
        (body, 413, "The body is larger than 1 MiB."),
        (body && !uploads, 415, "The body is not `application/json`."),
        (
            body || reads_a_draft,
            422,
            "A field has a value that cannot be; `errors` says which and what to change.",
        ),
        (enqueues || logs_in || plays, 429, "Too much for now; see `Retry-After`."),
        (true, 500, "Our fault; the trace id finds it in our logs."),
        (
            true,
            503,
            "The database cannot be reached, or not in time: see `Retry-After`. Repeat the request with the same `Idempotency-Key`; it may have been carried out.",
        ),
    ];
    let MetaResponses { responses } = &mut operation.responses;
    for (applies, status, description) in problems {
        if applies && !responses.iter().any(|response| response.status == Some(status)) {
            responses.push(MetaResponse {
                description,
                status: Some(status),
                status_range: None,
                content: vec![MetaMediaType {
                    content_type: problem::CONTENT_TYPE,
                    schema: <poem_openapi::payload::Json<Problem> as Payload>::schema_ref(),
                }],
                headers: Vec::new(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_documented_path_finds_its_place_in_the_routing_table() {
        assert_eq!(as_poem_path("/jobs"), "/jobs");
        assert_eq!(as_poem_path("/jobs/{id}/cancel"), "/jobs/:param0/cancel");
        assert_eq!(as_poem_path("/a/{b}/{c}"), "/a/:param0/:param1");
    }
}
