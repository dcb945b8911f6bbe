//! HTTP: the API as somebody who is logged in, and the sandbox's switches.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

use super::history::{Arrival, Message};

fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(30))
        .build()
        .expect("an HTTP client")
}

/// The API, as somebody.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
    /// The organisation of whoever is logged in.
    pub(crate) organization: Uuid,
    /// Who is logged in.
    pub(crate) user: Uuid,
}

/// What the API answered.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// The request, for messages.
    pub(crate) asked: String,
    /// The HTTP status.
    pub(crate) status: u16,
    /// Its headers.
    pub(crate) headers: reqwest::header::HeaderMap,
    /// The body as text.
    pub(crate) text: String,
    /// The body, or null if it is not JSON.
    pub(crate) body: Value,
    /// When the status line came, in microseconds of the clock.
    pub(crate) at_us: i64,
}

impl Reply {
    /// Returns the body if the status is `status`; panics with all there is otherwise.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{} answered {}", self.asked, self.text);
        self.body
    }

    /// Returns the problem's code if the status is `status`; panics with all there is otherwise.
    #[track_caller]
    pub(crate) fn problem(self, status: u16) -> String {
        assert_eq!(self.status, status, "{} answered {}", self.asked, self.text);
        let kind = self.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        assert!(
            kind.starts_with("application/problem+json"),
            "{} answered {kind}: {}",
            self.asked,
            self.text
        );
        self.body["code"]
            .as_str()
            .unwrap_or_else(|| panic!("a problem without a code: {}", self.text))
            .to_owned()
    }

    /// Returns a header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Client {
    /// The API at `base` (`http://host:port`), as nobody.
    pub(crate) fn anonymous(base: &str) -> Client {
        Client {
            http: http(),
            base: base.to_owned(),
            token: None,
            organization: Uuid::nil(),
            user: Uuid::nil(),
        }
    }

    /// The same API with another bearer token.
    pub(crate) fn with_token(&self, token: &str) -> Client {
        Client { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same API as nobody.
    pub(crate) fn anonymous_again(&self) -> Client {
        Client { token: None, ..self.clone() }
    }

    /// The same person at another process of the API.
    pub(crate) fn at(&self, base: &str) -> Client {
        Client { base: base.to_owned(), ..self.clone() }
    }

    /// The same person with no connection of before.
    pub(crate) fn on_a_new_connection(&self) -> Client {
        Client { http: http(), ..self.clone() }
    }

    /// Makes an organisation and returns its first admin, logged in.
    pub(crate) async fn register(&self) -> Client {
        let name = format!("{:012x}", fastrand::u64(..) & 0xffff_ffff_ffff);
        let body = json!({
            "organization": format!("熵变销售 {name}"),
            "username": format!("admin-{name}"),
            "password": format!("correct horse {name}"),
        });
        self.logged_in(&self.post("/auth/register", body).await.expect(201))
    }

    /// Logs in.
    pub(crate) async fn login(&self, username: &str, password: &str) -> Client {
        let body = json!({ "username": username, "password": password });
        self.logged_in(&self.post("/auth/login", body).await.expect(200))
    }

    fn logged_in(&self, answer: &Value) -> Client {
        let id = |value: &Value| value.as_str().and_then(|id| id.parse().ok()).expect("an id");
        Client {
            token: Some(answer["access_token"].as_str().expect("a token").to_owned()),
            organization: id(&answer["user"]["organization_id"]),
            user: id(&answer["user"]["id"]),
            ..self.clone()
        }
    }

    /// Returns the bearer token.
    pub(crate) fn token(&self) -> &str {
        self.token.as_deref().unwrap_or_default()
    }

    /// Begins a request to a path below `/api/v1`; for what the shorter calls cannot say.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, &format!("/api/v1{path}"))
    }

    /// Begins a request to a path from the root, such as `/healthz`.
    pub(crate) fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request. Err: there was no answer.
    pub(crate) async fn try_send(&self, request: RequestBuilder) -> reqwest::Result<Reply> {
        let request = request.build()?;
        let asked = format!("{} {}", request.method(), request.url().path());
        let response = self.http.execute(request).await?;
        let at_us = chrono::Utc::now().timestamp_micros();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or_default();
        Ok(Reply { asked, status, headers, text, body, at_us })
    }

    /// Sends a request that must be answered.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Reply {
        self.try_send(request).await.unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    /// GET.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path)).await
    }

    /// POST.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    /// POST with an `Idempotency-Key`.
    pub(crate) async fn post_once(&self, path: &str, key: &str, body: Value) -> Reply {
        self.send(self.request(Method::POST, path).header("Idempotency-Key", key).json(&body)).await
    }

    /// PATCH.
    pub(crate) async fn patch(&self, path: &str, body: Value) -> Reply {
        self.send(self.request(Method::PATCH, path).json(&body)).await
    }

    /// PUT.
    pub(crate) async fn put(&self, path: &str, body: Value) -> Reply {
        self.send(self.request(Method::PUT, path).json(&body)).await
    }

    /// DELETE.
    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Adds an account that may send `per_minute` with `min_gap_ms` in between, its other limits out of the way.
    pub(crate) async fn account(&self, per_minute: i32, min_gap_ms: i32) -> Account {
        let limits = json!({
            "messages_per_minute": per_minute,
            "min_gap_ms": min_gap_ms,
            "messages_per_day": 100_000,
            "recipients_per_minute": 600,
        });
        self.account_with(json!({ "limits": limits })).await
    }

    /// Adds an account that is online, with these fields.
    pub(crate) async fn account_with(&self, fields: Value) -> Account {
        let name = format!("{:016x}", fastrand::u64(..));
        let app_id = format!("wx_{name}");
        let mut body = json!({ "wxid": format!("wxid_{name}"), "nickname": "小李", "gewe_app_id": app_id });
        for (field, value) in fields.as_object().expect("fields") {
            body[field] = value.clone();
        }
        let answer = self.post("/wechat-accounts", body).await.expect(201);
        Account { id: answer["id"].as_str().and_then(|id| id.parse().ok()).expect("an id"), app_id }
    }

    /// Enqueues a text and returns the job's id.
    pub(crate) async fn text(&self, account: &Account, to_wxid: &str, text: &str, priority: &str) -> Uuid {
        let answer =
            self.post("/jobs/send-message", send(account.id, to_wxid, text, priority)).await.expect(202);
        answer["id"].as_str().and_then(|id| id.parse().ok()).expect("an id")
    }

    /// Returns a job as the API shows it.
    pub(crate) async fn job(&self, id: Uuid) -> Value {
        self.get(&format!("/jobs/{id}")).await.expect(200)
    }

    /// Returns all items of a list.
    pub(crate) async fn all(&self, path: &str) -> Vec<Value> {
        self.all_by(path, 200).await
    }

    /// Returns all items of a list, in pages of so many.
    pub(crate) async fn all_by(&self, path: &str, limit: u8) -> Vec<Value> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let join = if path.contains('?') { '&' } else { '?' };
            let page = match &cursor {
                Some(cursor) => format!("{path}{join}limit={limit}&cursor={cursor}"),
                None => format!("{path}{join}limit={limit}"),
            };
            let page = self.get(&page).await.expect(200);
            items.extend(page["items"].as_array().expect("items").iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => return items,
            }
        }
    }
}

/// An account that can send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// Its id, also that of its lane.
    pub(crate) id: Uuid,
    /// Its device.
    pub(crate) app_id: String,
}

/// The body of `POST /jobs/send-message` for a text.
pub(crate) fn send(account: Uuid, to_wxid: &str, text: &str, priority: &str) -> Value {
    json!({
        "account_id": account,
        "to_wxid": to_wxid,
        "message": { "kind": "text", "text": text },
        "priority": priority,
    })
}

/// The sandbox's switches and its ledger.
#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    http: reqwest::Client,
    base: String,
}

impl Sandbox {
    /// The sandbox at `base` (`http://host:port`).
    pub(crate) fn new(base: &str) -> Sandbox {
        Sandbox { http: http(), base: base.to_owned() }
    }

    /// Its address, `http://host:port`.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The same sandbox for another runtime, which cannot use this one's connections.
    pub(crate) fn again(&self) -> Sandbox {
        Sandbox::new(&self.base)
    }

    async fn get(&self, path: &str) -> Value {
        let response =
            self.http.get(format!("{}{path}", self.base)).send().await.expect("the sandbox answers");
        response.json().await.expect("JSON")
    }

    /// Returns what the phone received, in the order of arrival.
    pub(crate) async fn ledger(&self) -> Vec<Arrival> {
        self.entries().await.iter().map(arrival).collect()
    }

    /// Returns what GeWe said yes to, in the order of arrival, and how much of it was dropped in silence.
    pub(crate) async fn accepted(&self) -> (Vec<Arrival>, usize) {
        let entries = self.pages("ledger", "&delivered=all").await;
        let dropped = entries.iter().filter(|entry| entry["delivered"] == false).count();
        (entries.iter().map(arrival).collect(), dropped)
    }

    /// Returns the ledger as the sandbox shows it.
    pub(crate) async fn entries(&self) -> Vec<Value> {
        self.pages("ledger", "").await
    }

    /// Reads a list page by page: a long run fills more than one answer may hold.
    async fn pages(&self, list: &str, filter: &str) -> Vec<Value> {
        let mut entries: Vec<Value> = Vec::new();
        loop {
            let since = entries.last().map_or(0, |last| last["seq"].as_u64().expect("a number"));
            let mut page = self.get(&format!("/_sandbox/{list}?limit=10000&since={since}{filter}")).await;
            match page["items"].as_array_mut() {
                Some(items) if items.is_empty() => return entries,
                Some(items) => entries.append(items),
                None => panic!("not a page of the {list}: {page}"),
            }
        }
    }

    /// Returns how many messages the phone has received.
    pub(crate) async fn received(&self) -> u64 {
        self.get("/_sandbox/ledger?limit=0").await["total"].as_u64().expect("a total")
    }

    /// Returns what came after the first `seq` messages.
    pub(crate) async fn after(&self, seq: u64) -> Vec<Arrival> {
        let page = self.get(&format!("/_sandbox/ledger?limit=100000&since={seq}")).await;
        page["items"].as_array().expect("items").iter().map(arrival).collect()
    }

    /// Returns every call that was made, also those that failed.
    pub(crate) async fn calls(&self) -> Vec<Value> {
        self.pages("calls", "").await
    }

    /// Returns every call that was to send something, whatever came of it. The calls do not say what.
    pub(crate) async fn sending_calls(&self) -> Vec<Arrival> {
        let calls = self.calls().await;
        let sends = |call: &&Value| call["path"].as_str().is_some_and(|path| path.contains("/message/post"));
        calls.iter().filter(sends).map(arrival).collect()
    }

    /// Plans a failure, such as `{"mode": "delay_before_accept", "delay_ms": 2000, "times": 1}`.
    pub(crate) async fn fail(&self, plan: Value) {
        let request = self.http.post(format!("{}/_sandbox/failures", self.base)).json(&plan);
        let response = request.send().await.expect("the sandbox answers");
        assert_eq!(response.status().as_u16(), 201, "{plan}: {}", response.text().await.unwrap_or_default());
    }

    /// Mixes failures in exact shares, such as `{"of": 10, "modes": [{"mode": "risk"}]}`.
    pub(crate) async fn mix(&self, mix: Value) {
        let request = self.http.post(format!("{}/_sandbox/failures/mix", self.base)).json(&mix);
        let response = request.send().await.expect("the sandbox answers");
        assert_eq!(response.status().as_u16(), 201, "{mix}: {}", response.text().await.unwrap_or_default());
    }

    /// Forgets everything: what was received, the failures, and the states of accounts.
    pub(crate) async fn reset(&self) {
        let request = self.http.post(format!("{}/_sandbox/reset", self.base));
        assert_eq!(request.send().await.expect("the sandbox answers").status().as_u16(), 200);
    }

    /// Returns every call of one account.
    pub(crate) async fn calls_of(&self, app_id: &str) -> Vec<Value> {
        let path = format!("/_sandbox/calls?limit=100000&app_id={app_id}");
        self.get(&path).await["items"].as_array().expect("items").clone()
    }

    /// Returns what the phone received from one account.
    pub(crate) async fn entries_of(&self, app_id: &str) -> Vec<Value> {
        let path = format!("/_sandbox/ledger?limit=100000&app_id={app_id}");
        self.get(&path).await["items"].as_array().expect("items").clone()
    }

    /// Forgets the planned failures.
    pub(crate) async fn succeed(&self) {
        let request = self.http.delete(format!("{}/_sandbox/failures", self.base));
        assert_eq!(request.send().await.expect("the sandbox answers").status().as_u16(), 204);
    }

    /// Replaces the address book of an account.
    pub(crate) async fn set_book(&self, app_id: &str, book: &Value) {
        let request = self.http.put(format!("{}/_sandbox/books/{app_id}", self.base)).json(book);
        let response = request.send().await.expect("the sandbox answers");
        assert!(response.status().is_success(), "{}", response.text().await.unwrap_or_default());
    }

    /// Lets a customer write, as `/_sandbox/customer/messages` takes it, and returns the answer.
    pub(crate) async fn customer_writes(&self, message: &Value) -> Value {
        let request = self.http.post(format!("{}/_sandbox/customer/messages", self.base)).json(message);
        let response = request.send().await.expect("the sandbox answers");
        assert!(response.status().is_success(), "{message}: {}", response.text().await.unwrap_or_default());
        response.json().await.expect("JSON")
    }

    /// Shows what the sandbox says at a path.
    pub(crate) async fn show(&self, path: &str) -> Value {
        self.get(path).await
    }

    /// Tells the sandbox something, and returns its answer.
    pub(crate) async fn tell(&self, path: &str, body: &Value) -> Value {
        let request = self.http.post(format!("{}{path}", self.base)).json(body);
        let response = request.send().await.expect("the sandbox answers");
        assert!(response.status().is_success(), "{body}: {}", response.text().await.unwrap_or_default());
        response.json().await.expect("JSON")
    }

    /// Puts an account into a state, such as `offline`.
    pub(crate) async fn set_state(&self, app_id: &str, state: &str) {
        let request = self
            .http
            .put(format!("{}/_sandbox/accounts/{app_id}", self.base))
            .json(&json!({ "state": state }));
        let response = request.send().await.expect("the sandbox answers");
        assert_eq!(response.status().as_u16(), 200, "{}", response.text().await.unwrap_or_default());
    }
}

fn arrival(entry: &Value) -> Arrival {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Arrival {
        message: Message {
            app_id: text(&entry["app_id"]),
            to_wxid: text(&entry["to_wxid"]),
            text: text(&entry["body"]["content"]),
        },
        at_us: entry["received_at_us"].as_i64().expect("a time"),
        trace_id: entry["trace_id"].as_str().map(str::to_owned),
    }
}
