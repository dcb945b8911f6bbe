//! The HTTP API as a front-end developer uses it: real processes, nothing but requests and answers.
//!
//! All tests share one platform unless they break something ([`Here`]); each makes an organisation of its own.

mod accounts;
mod alerts;
mod answers;
mod auth;
mod bad_input;
mod batch;
mod bulk;
mod conversations;
mod costs;
mod drafts;
mod lists;
mod materials;
mod operations;
mod outages;
mod outcomes;
mod plans;
mod reviews;
mod roles;
mod runs;
mod sending;
mod stops;
mod tenants;
mod words;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::Here;
use crate::harness::client::{Account, Client, Reply};

/// Reads an id.
#[track_caller]
fn id(value: &Value) -> Uuid {
    value.as_str().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("not an id: {value}"))
}

/// Returns the items of a list.
#[track_caller]
fn items(page: &Value) -> &[Value] {
    page["items"].as_array().unwrap_or_else(|| panic!("not a list: {page}"))
}

/// Returns the ids of the items of a list.
fn ids(page: &Value) -> Vec<Uuid> {
    items(page).iter().map(|item| id(&item["id"])).collect()
}

/// A name that nobody else has.
fn unique(prefix: &str) -> String {
    format!("{prefix}{:012x}", fastrand::u64(..) & 0xffff_ffff_ffff)
}

/// Adds a person to the organisation of `admin` and logs them in.
async fn person(admin: &Client, role: &str) -> Client {
    let (username, password) = (unique(role), unique("a pass phrase "));
    let body = json!({"username": username, "password": password, "role": role});
    admin.post("/users", body).await.expect(201);
    admin.login(&username, &password).await
}

/// Counts all jobs of an organisation.
async fn count_jobs(here: &Here, client: &Client) -> i64 {
    let organization = client.organization;
    here.number(&format!("SELECT count(*) AS n FROM jobs WHERE organization_id = '{organization}'")).await
}

/// Pauses an account, so that its jobs wait.
async fn pause(client: &Client, account: &Account) {
    client.post(&format!("/wechat-accounts/{}/pause", account.id), json!({})).await.expect(200);
}

/// Resumes an account.
async fn resume(client: &Client, account: &Account) {
    client.post(&format!("/wechat-accounts/{}/resume", account.id), Value::Null).await.expect(200);
}

/// Panics unless a reply is a problem that a program and a person can read.
#[track_caller]
fn assert_problem(reply: Reply, status: u16, code: &str, path: &str) {
    let Reply { asked, text, body, .. } = &reply;
    assert_eq!(reply.header("x-trace-id"), body["trace_id"].as_str(), "{asked}: {text}");
    assert_eq!(body["trace_id"].as_str().map(str::len), Some(32), "{asked}: {text}");
    assert_eq!(body["status"], status, "{asked}: {text}");
    assert!(body["title"].as_str().is_some_and(|title| !title.is_empty()), "{asked}: {text}");
    let detail = body["detail"].as_str().unwrap_or_default();
    assert!(detail.ends_with('.') && detail.contains(' '), "{asked} answers no sentence: {text}");
    if !path.is_empty() {
        let errors = body["errors"].as_array().unwrap_or_else(|| panic!("{asked} names no field: {text}"));
        let named = errors.iter().find(|error| error["path"] == path);
        let named = named.unwrap_or_else(|| panic!("{asked} does not name {path}: {text}"));
        assert!(named["code"].is_string() && named["message"].is_string(), "{asked}: {text}");
    }
    assert_eq!(reply.problem(status), code);
}
