//! The typed client: one HTTP call per method, never repeated, always bounded.

use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use entropy_jobs::message::Message;
use entropy_jobs::provider::{Device, MessageSender, SendError, Sent};
use entropy_jobs::secret::Secret;
use entropy_jobs::step;
use futures::future::BoxFuture;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{Url, redirect, retry};
use serde_json::{Value, json};

use super::errors;
use super::profile::{Profile, parse_base_url};
use super::wire::{self, Envelope};
use crate::adapters::outgoing::outgoing;

/// The longest answer that is read. The longest real one, a list of contacts, is far below.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// How long an idle connection is kept for the next call.
///
/// Below the shortest common idle limit of servers (5 s): a request written to a connection that the server is
/// closing ends as an unknown send, which costs a person's attention; a new connection costs a round trip.
const IDLE_CONNECTION: Duration = Duration::from_secs(4);

/// What is added to a timeout for reading what has come already: a process that was frozen for longer finds its timer
/// and the answer at the same moment, and the answer is the truth.
const LAST_LOOK: Duration = Duration::from_millis(100);

/// How long the parts of a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the connection stands.
    pub connect: Duration,
    /// A whole call without media.
    pub text: Duration,
    /// A whole call in which GeWe first fetches from the message's URLs.
    pub media: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            text: Duration::from_secs(20),
            media: Duration::from_secs(60),
        }
    }
}

/// A client of one GeWe address, for all tokens and devices behind it. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct GeweClient {
    http: reqwest::Client,
    base_url: Url,
    profile: Profile,
    timeouts: Timeouts,
}

/// What bounds one call.
pub(super) struct Bounds<'a> {
    timeout: Duration,
    deadline: Instant,
    trace_id: &'a str,
}

/// A whole answer that says success.
pub(super) struct Answer {
    envelope: Envelope,
    /// The whole answer.
    pub(super) raw: Vec<u8>,
}

impl GeweClient {
    /// Builds a client for an address with its whole prefix, such as `http://host/gewe/v2/api`.
    ///
    /// The process must have installed its TLS provider before. Proxies of the environment are not used.
    pub fn new(base_url: &str, timeouts: Timeouts) -> anyhow::Result<Self> {
        let base_url = parse_base_url(base_url)?;
        let profile = Profile::of(&base_url)?;
        // reqwest would panic.
        ensure!(
            rustls::crypto::CryptoProvider::get_default().is_some(),
            "no TLS provider is installed in this process"
        );
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            // What remains below is hyper's own second try of a request that it had not begun to write, on a
            // connection that turned out closed. It asks for the same body, and only once.
            .retry(retry::never())
            .http1_only()
            // Nothing is decoded, whatever features another crate of this build has switched on: a few kilobytes
            // of an answer could become gigabytes before the limit is reached.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .connect_timeout(timeouts.connect)
            .pool_idle_timeout(IDLE_CONNECTION)
            .pool_max_idle_per_host(16)
            .referer(false);
        if base_url.scheme() == "http" {
            // A bare machine may have no certificates, and building fails where none are found.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build().context("cannot build the HTTP client for GeWe")?;
        Ok(Self { http, base_url, profile, timeouts })
    }

    /// Returns which GeWe this is.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Returns the address it was built with.
    pub fn base_url(&self) -> &Url {
        &self.base_url
    }

    /// Sets where GeWe sends the callbacks of all devices of the token. Safe to repeat.
    pub async fn set_callback(
        &self,
        token: &Secret,
        callback_url: &str,
        trace_id: &str,
    ) -> Result<(), SendError> {
        let body = json!({ "token": token.expose(), "callbackUrl": callback_url });
        self.call(self.profile.set_callback_route(), &body, token, self.prompt(trace_id)).await?;
        Ok(())
    }

    /// Asks whether the device is logged in. Safe to repeat; a `true` has been seen to be wrong.
    pub async fn check_online(&self, device: &Device, trace_id: &str) -> Result<bool, SendError> {
        let body = json!({ "appId": device.app_id });
        let answer = self.call("/login/checkOnline", &body, &device.token, self.prompt(trace_id)).await?;
        answer.envelope.data.as_bool().ok_or_else(|| errors::no_truth(&answer.raw, &device.token))
    }

    /// The bounds of a call that may be made at any time.
    pub(super) fn prompt<'a>(&self, trace_id: &'a str) -> Bounds<'a> {
        let timeout = self.timeouts.text;
        Bounds { timeout, deadline: Instant::now() + timeout, trace_id }
    }

    /// The bounds of a call that may be made at any time and takes long.
    pub(super) fn patient<'a>(&self, trace_id: &'a str) -> Bounds<'a> {
        let timeout = self.timeouts.media;
        Bounds { timeout, deadline: Instant::now() + timeout, trace_id }
    }

    /// Makes one call: one request at most, within the bounds, and every failure classed.
    pub(super) async fn call(
        &self,
        route: &str,
        body: &Value,
        token: &Secret,
        bounds: Bounds<'_>,
    ) -> Result<Answer, SendError> {
        if Instant::now() >= bounds.deadline {
            // Looked at again below. Here it only saves the connection.
            return Err(errors::late());
        }
        let mut token_header =
            HeaderValue::from_str(token.expose()).map_err(|_| errors::malformed_token())?;
        token_header.set_sensitive(true);
        let bytes = body.to_string().into_bytes();
        let mut request = self
            .http
            .post(format!("{}{route}", self.base_url.as_str().trim_end_matches('/')))
            .header("X-GEWE-TOKEN", token_header)
            .header(CONTENT_TYPE, "application/json")
            // The body is a stream of one piece; without its length it would go out in chunks.
            .header(CONTENT_LENGTH, bytes.len());
        if let Ok(trace_id) = HeaderValue::from_str(bounds.trace_id) {
            request = request.header("X-Trace-Id", trace_id);
        }
        let (ticket, body) = outgoing(bytes, bounds.deadline, || step!("send.handed_over"));
        let exchange = async {
            let sent = request.body(body).send().await;
            let response = sent.map_err(|error| errors::no_answer(ticket.settle(), error, token))?;
            step!("send.answered");
            let status = response.status();
            let raw = read_answer(response, token).await?;
            let envelope = errors::read_answer(status, &raw, token)?;
            Ok(Answer { envelope, raw })
        };
        let mut exchange = pin!(exchange);
        if let Ok(ended) = tokio::time::timeout(bounds.timeout, &mut exchange).await {
            return ended;
        }
        tokio::time::timeout(LAST_LOOK, exchange)
            .await
            .unwrap_or_else(|_| Err(errors::timed_out(ticket.settle())))
    }
}

impl MessageSender for GeweClient {
    fn send<'a>(
        &'a self,
        device: &'a Device,
        to_wxid: &'a str,
        message: &'a Message,
        deadline: Instant,
        trace_id: &'a str,
    ) -> BoxFuture<'a, Result<Sent, SendError>> {
        Box::pin(async move {
            let timeout = if wire::fetches_media(message) { self.timeouts.media } else { self.timeouts.text };
            let (route, body) = wire::send_request(&device.app_id, to_wxid, message);
            let bounds = Bounds { timeout, deadline, trace_id };
            let answer = self.call(route, &body, &device.token, bounds).await?;
            answer.envelope.sent().ok_or_else(|| errors::no_proof(&answer.raw, &device.token))
        })
    }

    fn check_online<'a>(
        &'a self,
        device: &'a Device,
        trace_id: &'a str,
    ) -> BoxFuture<'a, Result<bool, SendError>> {
        Box::pin(GeweClient::check_online(self, device, trace_id))
    }
}

/// Reads the answer to its end, or to the limit if it has none.
async fn read_answer(mut response: reqwest::Response, token: &Secret) -> Result<Vec<u8>, SendError> {
    let mut raw = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| errors::half_an_answer(error, token))? {
        if raw.len() + chunk.len() > MAX_ANSWER_BYTES {
            // Dropping the response closes the connection, so the rest is never taken in.
            return Err(errors::too_long(&raw, token));
        }
        raw.extend_from_slice(&chunk);
    }
    Ok(raw)
}
