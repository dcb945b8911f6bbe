//! Bad input: refused with a stable code and a sentence, and nothing is stored.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{assert_problem, count_jobs};
use crate::harness::Here;
use crate::harness::client::{Account, Client, send};

/// Somebody with an account, and a count of what they have stored.
struct Table {
    here: Here,
    admin: Client,
    account: Account,
}

impl Table {
    async fn open() -> Table {
        let here = Here::open().await;
        let admin = here.register().await;
        let account = admin.account(600, 0).await;
        Table { here, admin, account }
    }

    /// Checks one line of the table.
    #[track_caller]
    fn check(
        &self,
        request: RequestBuilder,
        status: u16,
        code: &str,
        path: &str,
    ) -> impl Future<Output = ()> {
        let (caller, client) = (std::panic::Location::caller(), self.admin.clone());
        let (code, path) = (code.to_owned(), path.to_owned());
        async move {
            let reply = client.send(request).await;
            println!("line {}: {} {}", caller.line(), reply.status, reply.text);
            assert_problem(reply, status, &code, &path);
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.admin.request(method, path)
    }

    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.request(Method::POST, path).json(body)
    }

    /// A good message, changed.
    fn send_with(&self, change: impl FnOnce(&mut Value)) -> RequestBuilder {
        let mut body = send(self.account.id, "wxid_customer", "你好", "interactive");
        change(&mut body);
        self.post("/jobs/send-message", &body)
    }

    /// A good request with another message.
    fn message(&self, message: Value) -> RequestBuilder {
        self.send_with(|body| body["message"] = message)
    }

    fn raw(&self, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.request(Method::POST, "/jobs/send-message").header("content-type", "application/json").body(body)
    }

    async fn assert_nothing_stored(&self) {
        assert_eq!(count_jobs(&self.here, &self.admin).await, 0, "a refused request left a job behind");
        let accounts = self.admin.get("/wechat-accounts").await.expect(200);
        assert_eq!(
            accounts["items"].as_array().map(Vec::len),
            Some(1),
            "a refused request left an account behind"
        );
        for table in ["idempotency_keys", "sends", "model_prices"] {
            let organization = self.admin.organization;
            let rows = format!("SELECT count(*) AS n FROM {table} WHERE organization_id = '{organization}'");
            assert_eq!(self.here.number(&rows).await, 0, "a refused request left something in {table}");
        }
    }
}

#[tokio::test]
async fn the_form_of_a_message_is_checked_field_by_field() {
    let table = Table::open().await;
    let bad = "invalid_request";
    // Wrong types.
    table.check(table.send_with(|b| b["account_id"] = json!(7)), 400, bad, "account_id").await;
    table.check(table.send_with(|b| b["account_id"] = json!("7")), 400, bad, "account_id").await;
    table.check(table.send_with(|b| b["account_id"] = Value::Null), 400, bad, "account_id").await;
    table.check(table.send_with(|b| b["to_wxid"] = json!(["a"])), 400, bad, "to_wxid").await;
    table.check(table.send_with(|b| b["to_wxid"] = json!(12345)), 400, bad, "to_wxid").await;
    table.check(table.send_with(|b| b["to_wxid"] = json!(true)), 400, bad, "to_wxid").await;
    table.check(table.send_with(|b| b["to_wxid"] = Value::Null), 400, bad, "to_wxid").await;
    table.check(table.send_with(|b| b["priority"] = json!("urgent")), 400, bad, "priority").await;
    table.check(table.send_with(|b| b["priority"] = json!(1)), 400, bad, "priority").await;
    table.check(table.send_with(|b| b["on_unknown"] = json!("retry")), 400, bad, "on_unknown").await;
    table.check(table.send_with(|b| b["scheduled_at"] = json!("tomorrow")), 400, bad, "scheduled_at").await;
    table
        .check(table.send_with(|b| b["scheduled_at"] = json!(1_790_000_000)), 400, bad, "scheduled_at")
        .await;
    table
        .check(table.send_with(|b| b["expires_at"] = json!("2026-13-01T00:00:00Z")), 400, bad, "expires_at")
        .await;
    table
        .check(table.send_with(|b| b["expires_at"] = json!("2026-12-01T00:00:00")), 400, bad, "expires_at")
        .await;
    table.check(table.message(json!("你好")), 400, bad, "message").await;
    table.check(table.message(Value::Null), 400, bad, "message").await;
    table.check(table.message(json!({"kind": "text", "text": 5})), 400, bad, "message.text").await;
    table
        .check(table.message(json!({"kind": "text", "text": "a", "ats": "wxid_a"})), 400, bad, "message.ats")
        .await;
    table
        .check(table.message(json!({"kind": "text", "text": "a", "ats": [1]})), 400, bad, "message.ats[0]")
        .await;
    // Unknown kinds and fields, at every level.
    table.check(table.message(json!({"kind": "fax", "text": "a"})), 400, bad, "message.kind").await;
    table.check(table.message(json!({"text": "a"})), 400, bad, "message.kind").await;
    table
        .check(table.message(json!({"kind": "text", "text": "a", "bold": true})), 400, bad, "message.bold")
        .await;
    table
        .check(
            table.message(json!({"kind": "image", "url": "https://a.example/a", "text": "a"})),
            400,
            bad,
            "message.text",
        )
        .await;
    table.check(table.send_with(|b| b["delay"] = json!(5)), 400, bad, "delay").await;
    table.check(table.send_with(|b| b["Priority"] = json!("reply")), 400, bad, "Priority").await;
    // Missing fields, all of them at once.
    for path in ["account_id", "to_wxid", "message"] {
        table.check(table.post("/jobs/send-message", &json!({})), 400, bad, path).await;
    }
    table.check(table.message(json!({"kind": "text"})), 400, bad, "message.text").await;
    table
        .check(
            table.message(json!({"kind": "video", "url": "https://a.example/a"})),
            400,
            bad,
            "message.thumb_url",
        )
        .await;
    // Not an object, not JSON, not text.
    table.check(table.raw("[]"), 400, bad, "").await;
    table.check(table.raw("null"), 400, bad, "").await;
    table.check(table.raw(""), 400, bad, "").await;
    table.check(table.raw("{\"account_id\": "), 400, bad, "").await;
    table.check(table.raw("{} {}"), 400, bad, "").await;
    table.check(table.raw(&b"{\"to_wxid\": \"\xff\xfe\"}"[..]), 400, bad, "").await;
    table.check(table.raw("[".repeat(100_000)), 400, bad, "").await;
    table.check(table.send_with(|b| b["message"]["text"] = json!("a\u{0}b")), 400, bad, "message.text").await;
    table.assert_nothing_stored().await;
}

#[tokio::test]
async fn values_that_cannot_be_are_refused_with_what_to_change() {
    let table = Table::open().await;
    let bad = "validation_failed";
    let text = |text: String| json!({"kind": "text", "text": text});
    table.check(table.message(text("好".repeat(2001))), 422, bad, "message.text").await;
    table.check(table.message(text(String::new())), 422, bad, "message.text").await;
    table.check(table.message(text(" \n\t　".into())), 422, bad, "message.text").await;
    table.check(table.message(text("a\u{1b}[31m".into())), 422, bad, "message.text").await;
    let many: Vec<_> = (0..51).map(|n| format!("wxid_{n}")).collect();
    table
        .check(table.message(json!({"kind": "text", "text": "a", "ats": many})), 422, bad, "message.ats")
        .await;
    table
        .check(
            table.message(json!({"kind": "text", "text": "a", "ats": ["a b"]})),
            422,
            bad,
            "message.ats[0]",
        )
        .await;
    table.check(table.send_with(|b| b["to_wxid"] = json!("")), 422, bad, "to_wxid").await;
    table.check(table.send_with(|b| b["to_wxid"] = json!("张三")), 422, bad, "to_wxid").await;
    table.check(table.send_with(|b| b["to_wxid"] = json!("a".repeat(65))), 422, bad, "to_wxid").await;
    let url = "https://cdn.example.com/a";
    table
        .check(
            table.message(json!({"kind": "voice", "url": url, "duration_ms": 0})),
            422,
            bad,
            "message.duration_ms",
        )
        .await;
    table
        .check(
            table.message(json!({"kind": "voice", "url": url, "duration_ms": 60_001})),
            422,
            bad,
            "message.duration_ms",
        )
        .await;
    table
        .check(table.message(json!({"kind": "file", "url": url, "name": "../a"})), 422, bad, "message.name")
        .await;
    table
        .check(table.message(json!({"kind": "emoji", "md5": "xyz", "size": 1})), 422, bad, "message.md5")
        .await;
    table
        .check(table.message(json!({"kind": "app_message", "xml": "<msg/>"})), 422, bad, "message.xml")
        .await;
    let hostile = "<!DOCTYPE a [<!ENTITY b SYSTEM \"file:///etc/passwd\">]><appmsg>&b;</appmsg>";
    table.check(table.message(json!({"kind": "app_message", "xml": hostile})), 422, bad, "message.xml").await;
    // Times.
    let ago = chrono::Utc::now() - chrono::TimeDelta::seconds(1);
    table.check(table.send_with(|b| b["expires_at"] = json!(ago)), 422, bad, "expires_at").await;
    let (sooner, later) = ("2027-01-01T00:00:00Z", "2027-01-02T00:00:00+08:00");
    let early = |b: &mut Value| (b["scheduled_at"], b["expires_at"]) = (json!(later), json!(sooner));
    table.check(table.send_with(early), 422, bad, "expires_at").await;
    table
        .check(
            table.send_with(|b| b["scheduled_at"] = json!("2190-01-01T00:00:00Z")),
            422,
            bad,
            "scheduled_at",
        )
        .await;
    // Keys.
    // A key that is not understood must not be taken for none: the repeated request would be sent twice.
    for key in ["", &"k".repeat(256), "订单-17"] {
        let request = table.send_with(|_| {}).header("Idempotency-Key", key);
        table.check(request, 400, "invalid_request", "Idempotency-Key").await;
    }
    let twice = table.send_with(|_| {}).header("Idempotency-Key", "a").header("Idempotency-Key", "b");
    table.check(twice, 400, "invalid_request", "Idempotency-Key").await;
    table.assert_nothing_stored().await;

    // All reasons are told at once.
    let request = table.send_with(|b| (b["to_wxid"], b["message"]["text"]) = (json!(""), json!("")));
    let reply = table.admin.send(request).await;
    for path in ["to_wxid", "message.text"] {
        assert_problem(reply.clone(), 422, bad, path);
    }
    // And what is just small enough passes.
    table.admin.send(table.message(text("好".repeat(2000)))).await.expect(202);
}

#[tokio::test]
async fn addresses_that_are_not_public_are_refused() {
    let table = Table::open().await;
    let cases = [
        ("file:///etc/passwd", "url_scheme"),
        ("ftp://cdn.example.com/a", "url_scheme"),
        ("gopher://cdn.example.com/a", "url_scheme"),
        ("data:text/plain,a", "url_malformed"),
        ("javascript:alert(1)", "url_malformed"),
        ("cdn.example.com/a", "url_malformed"),
        ("//cdn.example.com/a", "url_malformed"),
        ("https://", "url_malformed"),
        ("https:///etc/passwd", "url_malformed"),
        ("https://cdn.example.com/a b", "url_malformed"),
        ("https://cdn.example.com\\@10.0.0.1/", "url_malformed"),
        ("", "url_malformed"),
        ("https://user:password@cdn.example.com/a", "url_credentials"),
        ("https://user@cdn.example.com/a", "url_credentials"),
        ("http://localhost/a", "url_private_host"),
        ("http://LOCALHOST:8000/a", "url_private_host"),
        ("http://api.localhost/a", "url_private_host"),
        ("http://redis/a", "url_private_host"),
        ("http://db.internal/a", "url_private_host"),
        ("http://printer.local/a", "url_private_host"),
        ("http://127.0.0.1/a", "url_private_host"),
        ("http://127.1/a", "url_private_host"),
        ("http://0.0.0.0/a", "url_private_host"),
        ("http://10.1.2.3/a", "url_private_host"),
        ("http://172.16.0.1/a", "url_private_host"),
        ("http://192.168.1.1/a", "url_private_host"),
        ("http://100.100.100.200/latest/meta-data", "url_private_host"),
        ("http://169.254.169.254/latest/meta-data", "url_private_host"),
        ("http://2130706433/a", "url_private_host"),
        ("http://0x7f000001/a", "url_private_host"),
        ("http://017700000001/a", "url_private_host"),
        ("http://127.0.0.1./a", "url_private_host"),
        ("http://[::1]/a", "url_private_host"),
        ("http://[::]/a", "url_private_host"),
        ("http://[fe80::1]/a", "url_private_host"),
        ("http://[fd00:ec2::254]/a", "url_private_host"),
        ("http://[::ffff:10.0.0.1]/a", "url_private_host"),
        ("http://[64:ff9b::a00:1]/a", "url_private_host"),
        ("http://１２７.０.０.１/a", "url_private_host"),
    ];
    for (url, code) in cases {
        let reply = table.admin.send(table.message(json!({"kind": "image", "url": url}))).await;
        let named = reply.body["errors"][0]["code"].clone();
        assert_problem(reply, 422, "validation_failed", "message.url");
        assert_eq!(named, code, "{url}");
    }
    let good = "https://cdn.example.com/a";
    let others = [
        (
            json!({"kind": "video", "url": good, "thumb_url": "http://10.0.0.1/", "duration_s": 1}),
            "message.thumb_url",
        ),
        (
            json!({"kind": "link", "title": "t", "desc": "d", "url": "http://10.0.0.1/", "thumb_url": good}),
            "message.url",
        ),
        (
            json!({"kind": "link", "title": "t", "desc": "d", "url": good, "thumb_url": "http://10.0.0.1/"}),
            "message.thumb_url",
        ),
        (json!({"kind": "file", "url": "http://10.0.0.1/", "name": "a"}), "message.url"),
        (json!({"kind": "voice", "url": "http://10.0.0.1/", "duration_ms": 1}), "message.url"),
        (
            json!({"kind": "mini_program", "app_id": "wx1", "user_name": "gh_1@app", "title": "t", "display_name": "n",
                   "page_path": "p", "cover_url": "http://10.0.0.1/"}),
            "message.cover_url",
        ),
    ];
    for (message, path) in others {
        table.check(table.message(message), 422, "validation_failed", path).await;
    }
    let avatar =
        table.request(Method::POST, "/wechat-accounts").json(&json!({"avatar": "file:///etc/passwd"}));
    table.check(avatar, 422, "validation_failed", "avatar").await;
    table.assert_nothing_stored().await;
}

#[tokio::test]
async fn requests_that_no_operation_takes_are_problems_too() {
    let table = Table::open().await;
    let get = |path: &str| table.request(Method::GET, path);
    let bad = "invalid_request";
    // Accounts that are not there.
    let stranger = uuid::Uuid::now_v7();
    table.check(table.send_with(|b| b["account_id"] = json!(stranger)), 404, "account_not_found", "").await;
    // Addresses and methods.
    table.check(get("/nothing"), 404, "route_not_found", "").await;
    table.check(get(""), 404, "route_not_found", "").await;
    table.check(table.admin.bare(Method::GET, "/nothing"), 404, "route_not_found", "").await;
    table.check(table.admin.bare(Method::GET, "/api/v2/jobs"), 404, "route_not_found", "").await;
    table.check(table.request(Method::DELETE, "/jobs"), 405, "method_not_allowed", "").await;
    table.check(table.request(Method::PUT, "/auth/login"), 405, "method_not_allowed", "").await;
    table.check(get("/jobs/send-message"), 405, "method_not_allowed", "").await;
    table.check(table.admin.bare(Method::POST, "/healthz"), 405, "method_not_allowed", "").await;
    // Ids, cursors, parameters.
    table.check(get("/jobs/not-an-id"), 400, bad, "id").await;
    table.check(get("/wechat-accounts/17"), 400, bad, "id").await;
    table.check(table.request(Method::POST, "/jobs/x/cancel"), 400, bad, "id").await;
    for list in ["/jobs", "/sends", "/lanes", "/wechat-accounts", "/users", "/audit-log", "/cost-ledgers"] {
        table.check(get(&format!("{list}?cursor=nonsense")), 400, bad, "cursor").await;
        table.check(get(&format!("{list}?cursor=")), 400, bad, "cursor").await;
        table.check(get(&format!("{list}?limit=201")), 400, bad, "limit").await;
        table.check(get(&format!("{list}?limit=0")), 400, bad, "limit").await;
        table.check(get(&format!("{list}?limit=-1")), 400, bad, "limit").await;
        table.check(get(&format!("{list}?limit=many")), 400, bad, "limit").await;
        table.check(get(&format!("{list}?colour=red")), 400, bad, "colour").await;
    }
    table.check(get("/jobs?state=sleeping"), 400, bad, "state").await;
    table.check(get("/jobs?state=dead&state=dead"), 400, bad, "state").await;
    table.check(get("/jobs?lane=account:x"), 400, bad, "lane").await;
    table.check(get("/jobs?account_id=x"), 400, bad, "account_id").await;
    table.check(get("/jobs?created_from=yesterday"), 400, bad, "created_from").await;
    table.check(get("/sends?state=lost"), 400, bad, "state").await;
    table.check(get("/jobs?kind=%00"), 400, bad, "kind").await;
    // Bodies of the wrong type.
    let body = send(table.account.id, "wxid_customer", "你好", "interactive").to_string();
    for content_type in ["text/plain", "application/xml", "application/x-www-form-urlencoded"] {
        let request = table.request(Method::POST, "/jobs/send-message").header("content-type", content_type);
        table.check(request.body(body.clone()), 415, "unsupported_media_type", "").await;
    }
    table
        .check(
            table.request(Method::POST, "/jobs/send-message").body(body),
            415,
            "unsupported_media_type",
            "",
        )
        .await;
    // Other operations.
    let path = format!("/jobs/{stranger}/resolve");
    table.check(table.post(&path, &json!({"as": "maybe"})), 400, bad, "as").await;
    table.check(table.post(&path, &json!({"as": "sent"})), 404, "job_not_found", "").await;
    table.check(table.post("/jobs/bulk/cancel", &json!({})), 400, bad, "filter").await;
    let done = json!({"filter": {"state": "completed"}});
    table.check(table.post("/jobs/bulk/cancel", &done), 422, "validation_failed", "filter.state").await;
    table.check(table.post("/jobs/bulk/revive", &done), 422, "validation_failed", "filter.state").await;
    let tally = |tokens: Value| json!({"request_id": "r", "account_id": table.account.id, "model": "m", "input_tokens": tokens, "output_tokens": 1});
    table
        .check(table.post("/jobs/cost-tally", &tally(json!(-1))), 422, "validation_failed", "input_tokens")
        .await;
    table.check(table.post("/jobs/cost-tally", &tally(json!(1.5))), 400, bad, "input_tokens").await;
    table.check(table.post("/jobs/cost-tally", &tally(json!("1"))), 400, bad, "input_tokens").await;
    let pause = format!("/wechat-accounts/{}/pause", table.account.id);
    table.check(table.post(&pause, &json!({"reason": 5})), 400, bad, "reason").await;
    for field in ["wxid", "nickname", "avatar", "gewe_app_id", "gewe_token_id"] {
        table.check(table.post("/wechat-accounts", &json!({field: 5})), 400, bad, field).await;
    }
    table
        .check(
            table.post("/wechat-accounts", &json!({"limits": {"messages_per_minute": "5"}})),
            400,
            bad,
            "limits.messages_per_minute",
        )
        .await;
    table
        .check(table.post("/jobs/bulk/cancel", &json!({"filter": {"kind": 5}})), 400, bad, "filter.kind")
        .await;
    table
        .check(table.post("/jobs/bulk/cancel", &json!({"filter": {}, "preview": "yes"})), 400, bad, "preview")
        .await;
    table
        .check(table.post(&pause, &json!({"reason": "a".repeat(201)})), 422, "validation_failed", "reason")
        .await;
    table.assert_nothing_stored().await;
}

#[tokio::test]
async fn a_body_over_a_mebibyte_is_refused_however_it_is_sent() {
    let table = Table::open().await;
    let body = send(table.account.id, "wxid_customer", &"a".repeat(1 << 20), "interactive").to_string();
    table.check(table.raw(body.clone()), 413, "body_too_large", "").await;
    // In pieces, without saying how long it is.
    let mut stream =
        TcpStream::connect(table.here.base(0).trim_start_matches("http://")).await.expect("a connection");
    let head = format!(
        "POST /api/v1/jobs/send-message HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        table.admin.token()
    );
    stream.write_all(head.as_bytes()).await.expect("written");
    for piece in body.as_bytes().chunks(50_000) {
        stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.expect("written");
        stream.write_all(piece).await.expect("written");
        stream.write_all(b"\r\n").await.expect("written");
    }
    stream.write_all(b"0\r\n\r\n").await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("application/problem+json") && answer.contains("body_too_large"), "{answer}");
    table.assert_nothing_stored().await;
    // Blanks count, and just below the limit is fine.
    let good = send(table.account.id, "wxid_customer", "你好", "interactive").to_string();
    let padded = format!("{}{good}", " ".repeat((1 << 20) - good.len()));
    table.admin.send(table.raw(padded.clone())).await.expect(202);
    table.check(table.raw(format!(" {padded}")), 413, "body_too_large", "").await;
}
