//! Doors for `tests/fuzz`: readers of outside bytes that are nobody else's business. Not part of the crate's promise.

use entropy_jobs::enqueue::Enqueuer;
use entropy_jobs::outbound_url::UrlPolicy;
use entropy_jobs::process::config::{Callbacks, Ceilings, Http, Media, Registration, Search, Stores};
use entropy_jobs::secret::Secret;
use entropy_jobs::wake::Waker;
use entropy_schema::{Db, Profile};
use poem::endpoint::BoxEndpoint;
use poem::http::{HeaderName, HeaderValue, Method, Uri};
use poem::{Endpoint, EndpointExt, Request, Response};
use uuid::Uuid;

use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::auth::tokens::Tokens;
use crate::{AppConfig, AppState, page, routes};

/// Signs the tokens that [`Tokens`] here takes.
pub const JWT_SECRET: &str = "熵变-fuzz-secret";
/// Stands in the address of callbacks.
pub const CALLBACK_SECRET: &str = "callback-secret";
/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:9";

fn http() -> Http {
    Http {
        bind: ([127, 0, 0, 1], 0).into(),
        jwt_secret: Secret::new(JWT_SECRET),
        jwt_algorithm: "HS256".into(),
        jwt_hours: 24,
        registration: Registration::Closed,
        platform_organization: None,
    }
}

/// The whole API in this process, without its stores: whatever passes every check is answered with 503.
pub struct Api {
    app: BoxEndpoint<'static, Response>,
    state: AppState,
    caller: Caller,
    token: String,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Api")
    }
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: String,
    /// `X-Trace-Id`.
    pub trace_id: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Api {
    /// Puts the API together. Needs a runtime around it.
    pub fn new() -> anyhow::Result<Api> {
        let stores = Stores {
            database_url: Secret::new(format!("postgres://nobody@{NOWHERE}/nothing")),
            redis_url: Secret::new(format!("redis://{NOWHERE}")),
            namespace: "fuzz".into(),
            pool_size: 1,
        };
        let db = Db::new(stores.database_url.expose(), stores.pool_size, Profile::Api)?;
        let waker = Waker::new(&stores.redis_url, &stores.namespace)?;
        let state = AppState::new(AppConfig {
            enqueuer: Enqueuer::new(db.clone(), waker.clone()),
            db,
            stores,
            http: http(),
            callbacks: Callbacks { secret: Some(Secret::new(CALLBACK_SECRET)), header_secret: None },
            search: Search { url: None, index: "fuzz-messages".into() },
            ceilings: Ceilings { messages_per_minute: 40, api_calls_per_hour: 1000 },
            vault: None,
            waker,
            registry: entropy_jobs::kinds::registry(),
            url_policy: UrlPolicy { allow_private: false },
            media: Media::load(&|_| None)?,
            has_default_token: false,
        })?;
        let caller = Caller {
            id: Uuid::from_u128(1),
            organization_id: Uuid::from_u128(2),
            role: Role::Admin,
            username: "熵".into(),
        };
        let token = state
            .tokens
            .issue(caller.id, caller.organization_id, caller.role)
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(Api { app: crate::app(state.clone()).boxed(), state, caller, token })
    }

    /// Sends one request as an admin, unless `headers` say who it is. None: it is not even HTTP.
    pub async fn call(
        &self,
        method: &str,
        uri: &str,
        headers: &[(&[u8], &[u8])],
        body: &[u8],
    ) -> Option<Answer> {
        self.state.callers.put(self.caller.id, self.caller.clone());
        let method: Method = method.parse().ok()?;
        let uri: Uri = uri.parse().ok()?;
        let mut request = Request::builder().method(method).uri(uri).body(body.to_vec());
        let own = [
            ("content-type", HeaderValue::from_static("application/json")),
            ("authorization", HeaderValue::from_str(&format!("Bearer {}", self.token)).ok()?),
        ];
        for (name, value) in own {
            request.headers_mut().insert(name, value);
        }
        for (name, value) in headers {
            let (name, value) = (HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
            request.headers_mut().insert(name, value);
        }
        let response = self.app.call(request).await.ok()?;
        let header = |name| response.header(name).unwrap_or_default().to_owned();
        Some(Answer {
            status: response.status().as_u16(),
            content_type: header("content-type"),
            trace_id: header("x-trace-id"),
            body: response.into_body().into_vec().await.ok()?,
        })
    }
}

/// Issues an access token, signed with [`JWT_SECRET`].
pub fn token_of(user: Uuid) -> Option<String> {
    Tokens::new(&http()).ok()?.issue(user, Uuid::nil(), Role::Agent).ok()
}

/// Reads an `Authorization` header. The error is its code.
pub fn authorize(header: &str) -> Result<Uuid, &'static str> {
    let tokens = Tokens::new(&http()).map_err(|_| "misconfigured")?;
    let token = crate::auth::caller::bearer(header).ok_or("no_token")?;
    tokens.read(token).map_err(|error| error.code())
}

/// Makes a cursor.
pub fn encode_cursor(text: &str) -> String {
    page::encode(text)
}

/// Reads a cursor. The error is what the caller is told.
pub fn decode_cursor(cursor: &str) -> Result<String, String> {
    page::decode(cursor).map_err(|error| error.detail().to_owned())
}

/// Reads the cursor of a list by id. The error is what the caller is told.
pub fn page_before(cursor: &str) -> Result<Option<Uuid>, String> {
    page::Ask::new(None, Some(cursor)).map(|ask| ask.before).map_err(|error| error.detail().to_owned())
}

/// Checks an idempotency key. The error is what the caller is told.
pub fn idempotency_key(key: &str) -> Result<Option<String>, String> {
    routes::checked_key(Some(key)).map_err(|error| error.detail().to_owned())
}
