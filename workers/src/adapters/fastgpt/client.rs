//! The typed client: one HTTP call per question, never repeated, always bounded.

use std::ops::Deref;
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};
use entropy_jobs::ai::endpoint::Endpoint;
use entropy_jobs::ai::port::{AiClient, AiError, Answer, App, Ask, Found};
use entropy_jobs::step;
use futures::future::BoxFuture;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{redirect, retry};
use uuid::Uuid;

use super::reading::{End, Outstanding, Reading};
use super::{errors, records, request};
use crate::adapters::outgoing::outgoing;

/// How long an idle connection is kept for the next call.
///
/// Below the shortest common idle limit of servers (5 s): a request written to a connection that the server is closing
/// ends as a run of unknown outcome.
const IDLE_CONNECTION: Duration = Duration::from_secs(4);

/// What is added to a timeout for reading what has come already: a process that was frozen for longer finds its timer
/// and the answer at the same moment, and the answer is the truth.
const LAST_LOOK: Duration = Duration::from_millis(100);

/// How long the parts of a call may take. The whole call has the time that its [`Ask`] gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Until the connection stands.
    pub connect: Duration,
    /// Between two pieces of an answer. FastGPT sends a heartbeat every 10 s.
    pub silence: Duration,
    /// For the nodes' results, once the text is whole: servers up to 4.12 send them behind `[DONE]`.
    pub bill: Duration,
    /// For the end of the connection, once everything has come.
    pub close: Duration,
    /// A look into the records.
    pub look_up: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            silence: Duration::from_secs(45),
            bill: Duration::from_secs(5),
            close: Duration::from_millis(250),
            look_up: Duration::from_secs(20),
        }
    }
}

/// A client of every FastGPT that the workflows name. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct FastGptClient {
    endpoint: Option<Endpoint>,
    plain: reqwest::Client,
    /// None: the machine has no certificates.
    tls: Option<reqwest::Client>,
    patience: Patience,
}

impl FastGptClient {
    /// Builds a client. `endpoint` is the address of workflows that have none of their own; without it those are refused.
    ///
    /// The process must have installed its TLS provider before. Proxies of the environment are not used.
    pub fn new(endpoint: Option<&str>, patience: Patience) -> anyhow::Result<Self> {
        // reqwest would panic.
        ensure!(
            rustls::crypto::CryptoProvider::get_default().is_some(),
            "no TLS provider is installed in this process"
        );
        let endpoint = endpoint.map(Endpoint::parse).transpose().context("the FastGPT address")?;
        let plain = builder(patience)
            .tls_certs_only([])
            .build()
            .context("cannot build the HTTP client for FastGPT")?;
        let tls = builder(patience).build();
        if endpoint.as_ref().is_some_and(Endpoint::is_tls) {
            let tls = tls.context("cannot build the HTTPS client for FastGPT")?;
            return Ok(Self { endpoint, plain, tls: Some(tls), patience });
        }
        Ok(Self { endpoint, plain, tls: tls.ok(), patience })
    }

    /// Returns where an app is asked, and by which of the two clients.
    pub(super) fn target(&self, app: &App) -> Result<(Endpoint, &reqwest::Client), AiError> {
        let endpoint = match app.endpoint.as_deref().filter(|own| !own.trim().is_empty()) {
            Some(own) => Endpoint::parse(own).map_err(|_| errors::bad_endpoint())?,
            None => self.endpoint.clone().ok_or_else(errors::no_endpoint)?,
        };
        let client = if endpoint.is_tls() { self.tls.as_ref() } else { Some(&self.plain) };
        Ok((endpoint, client.ok_or_else(errors::no_certificates)?))
    }

    /// How long a look into the records may take.
    pub(super) fn look_up_time(&self) -> Duration {
        self.patience.look_up
    }

    async fn call(&self, app: &App, ask: &Ask) -> Result<Answer, AiError> {
        let (endpoint, client) = self.target(app)?;
        let bytes = request::body(app, ask)?;
        let deadline = Instant::now() + ask.timeout;
        let accept = if ask.stream { "text/event-stream" } else { "application/json" };
        let request = client
            .post(endpoint.completions())
            .headers(headers(app, &ask.trace_id, ask.run_id)?)
            .header(ACCEPT, accept)
            .header(CONTENT_TYPE, "application/json")
            // The body is a stream of one piece; without its length it would go out in chunks.
            .header(CONTENT_LENGTH, bytes.len());
        let (ticket, body) = outgoing(bytes, deadline, || step!("ask.handed_over"));
        let mut sending = pin!(request.body(body).send());
        let sent = match tokio::time::timeout(ask.timeout, &mut sending).await {
            Ok(sent) => Ok(sent),
            Err(_) => tokio::time::timeout(LAST_LOOK, sending).await,
        };
        let response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(errors::no_answer(ticket.settle(), error.is_timeout())),
            Err(_) => return Err(errors::no_answer(ticket.settle(), true)),
        };
        step!("ask.answered");
        self.read(response, deadline).await
    }

    /// Reads an answer to its end: `[DONE]` is none, for the nodes' results may come behind it.
    async fn read(&self, mut response: reqwest::Response, deadline: Instant) -> Result<Answer, AiError> {
        let head = response.headers();
        let kind = head.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let stream = kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut reading = Reading::new(response.status(), stream, errors::retry_after(head, now));
        let mut finished = Instant::now();
        let end = loop {
            let patience = match reading.outstanding() {
                Outstanding::Answer => self.patience.silence,
                Outstanding::Bill => self.patience.bill,
                Outstanding::Nothing => self.patience.close,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            match next(&mut response, patience.min(left)).await {
                Some(Ok(Some(chunk))) => {
                    finished = Instant::now();
                    if !reading.feed(&chunk) {
                        // Dropping the response closes the connection, so the rest is never taken in.
                        if reading.outstanding() == Outstanding::Answer {
                            return Err(errors::too_long());
                        }
                        break End::Cut;
                    }
                }
                Some(Ok(None)) => break End::Closed,
                Some(Err(_)) => break End::Cut,
                None if left <= patience => break End::TimedOut,
                None => break End::Silent,
            }
            if Instant::now() > deadline + LAST_LOOK {
                break End::TimedOut;
            }
        };
        reading.end(end, finished)
    }
}

/// Waits for the next piece. None: it did not come in time.
async fn next(
    response: &mut reqwest::Response,
    patience: Duration,
) -> Option<reqwest::Result<Option<impl Deref<Target = [u8]> + use<>>>> {
    let until = Instant::now() + patience;
    match tokio::time::timeout(patience, response.chunk()).await {
        Ok(next) => Some(next),
        Err(_) if Instant::now() > until + Duration::from_secs(1) => {
            // We were frozen, and what came meanwhile has not been looked at.
            tokio::time::timeout(LAST_LOOK, response.chunk()).await.ok()
        }
        Err(_) => None,
    }
}

fn builder(patience: Patience) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        // What remains below is hyper's own second try of a request that it had not begun to write, on a connection
        // that turned out closed. It asks for the same body, and only once.
        .retry(retry::never())
        .http1_only()
        // Nothing is decoded: a few kilobytes of an answer could become gigabytes before the limit is reached.
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .connect_timeout(patience.connect)
        .pool_idle_timeout(IDLE_CONNECTION)
        .pool_max_idle_per_host(16)
        .referer(false)
}

/// The headers of every call.
pub(super) fn headers(app: &App, trace_id: &str, run_id: Uuid) -> Result<HeaderMap, AiError> {
    let key = app.api_key.expose().trim();
    if key.is_empty() {
        return Err(errors::malformed_key());
    }
    let mut bearer = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| errors::malformed_key())?;
    bearer.set_sensitive(true);
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, bearer);
    if let Ok(trace_id) = HeaderValue::from_str(trace_id) {
        headers.insert("x-trace-id", trace_id);
    }
    if trace_id.len() == 32
        && let Ok(parent) =
            HeaderValue::from_str(&format!("00-{trace_id}-{}-01", &run_id.simple().to_string()[16..]))
    {
        headers.insert("traceparent", parent);
    }
    Ok(headers)
}

impl AiClient for FastGptClient {
    fn ask<'a>(&'a self, app: &'a App, ask: &'a Ask) -> BoxFuture<'a, Result<Answer, AiError>> {
        Box::pin(self.call(app, ask))
    }

    fn look_up<'a>(
        &'a self,
        app: &'a App,
        chat_id: &'a str,
        run_id: Uuid,
        trace_id: &'a str,
    ) -> BoxFuture<'a, Result<Found, AiError>> {
        Box::pin(records::look_up(self, app, chat_id, run_id, trace_id))
    }
}
