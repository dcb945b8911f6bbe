//! AI workflows: the FastGPT apps that write answers, by the name that people use for them.

use std::collections::BTreeMap;

use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_jobs::ai::endpoint::Endpoint;
use entropy_jobs::secret::Secret;
use entropy_schema::Conn;
use entropy_schema::settings::{self, Workflow, key_context};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::MaybeUndefined;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Tag;
use super::audit::Note;
use super::prices::{money, yuan};
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::http::text::Text;
use crate::page::{Ask, Page};
use crate::problem::{ApiError, FieldProblem};

/// A run may take so long at most: the job around it has to end some time, too.
const MAX_TIMEOUT_MS: i32 = 180_000;
const MAX_VARIABLES: usize = 50;
const MAX_VARIABLES_BYTES: usize = 16 << 10;

/// A new workflow.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct CreateWorkflow {
    /// The name that accounts use for it: 1 to 64 characters, unique in the organisation.
    alias: Text,
    /// The app's API key, such as `fastgpt-xxxx`. Kept sealed, never shown again.
    api_key: Text,
    /// Where FastGPT is, such as `https://cloud.fastgpt.cn/api`; without it, the FastGPT of this install.
    endpoint: Option<Text>,
    /// FastGPT's id of the app. Needed with a personal key, and to find out about runs whose answer was lost. A key that
    /// ends in the id has it already.
    app_id: Option<Text>,
    /// Ask for answers as a stream; true if not given.
    stream: Option<bool>,
    /// Runs in any minute, over all workflows with this key: 1 to 6000, 60 if not given.
    requests_per_minute: Option<i32>,
    /// How long a run may take: 1000 to 180,000, 90,000 if not given.
    timeout_ms: Option<i32>,
    /// Reserved in every budget before a run, in yuan: the most that one may cost. `"0.5"` if not given.
    reserve_yuan: Option<Text>,
    /// Passed to FastGPT with every run: up to 50 texts, numbers, booleans or nulls, together up to 16 KiB.
    variables: Option<BTreeMap<String, Value>>,
}

/// What to change; what is left out stays, null clears.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct UpdateWorkflow {
    alias: Option<Text>,
    /// Another key; the old one is forgotten.
    api_key: Option<Text>,
    endpoint: MaybeUndefined<Text>,
    app_id: MaybeUndefined<Text>,
    stream: Option<bool>,
    requests_per_minute: Option<i32>,
    timeout_ms: Option<i32>,
    reserve_yuan: Option<Text>,
    variables: Option<BTreeMap<String, Value>>,
}

/// A workflow. Its key is never shown.
#[derive(Debug, Object)]
struct WorkflowView {
    id: Uuid,
    alias: String,
    /// Null: the FastGPT of this install.
    endpoint: Option<String>,
    app_id: Option<String>,
    stream: bool,
    requests_per_minute: i32,
    timeout_ms: i32,
    /// Yuan.
    reserve_yuan: String,
    /// Passed to FastGPT with every run.
    variables: Value,
    created_by: Option<Uuid>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(ApiResponse)]
enum Created {
    /// Accounts may use it.
    #[oai(status = 201)]
    Created(Json<WorkflowView>),
}

#[derive(ApiResponse)]
enum Deleted {
    /// It is gone, and its key with it.
    #[oai(status = 204)]
    Gone,
}

/// Workflows.
pub(super) struct AiWorkflows;

#[OpenApi(tag = "Tag::Answers")]
impl AiWorkflows {
    /// Adds a workflow
    ///
    /// Needs the role manager. The key is sealed and never shown again.
    #[oai(path = "/ai-workflows", method = "post", operation_id = "create_ai_workflow")]
    async fn create(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        body: Body<CreateWorkflow>,
    ) -> Result<Created, ApiError> {
        caller.require(Role::Manager)?;
        let asked = body.0;
        let now = state.now().await;
        let mut workflow = Workflow {
            id: Uuid::now_v7(),
            organization_id: caller.organization_id,
            alias: String::new(),
            api_key: String::new(),
            key_hash: String::new(),
            endpoint: None,
            app_id: None,
            stream: true,
            requests_per_minute: 60,
            timeout_ms: 90_000,
            reserve_yuan: BigDecimal::new(5.into(), 1),
            variables: json!({}),
            created_by: Some(caller.id),
            created_at: now,
            updated_at: now,
            deleted_at: None,
        };
        let given = |field: Option<Text>| field.map_or(MaybeUndefined::Undefined, MaybeUndefined::Value);
        let fields = UpdateWorkflow {
            alias: Some(asked.alias),
            api_key: Some(asked.api_key),
            endpoint: given(asked.endpoint),
            app_id: given(asked.app_id),
            stream: asked.stream,
            requests_per_minute: asked.requests_per_minute,
            timeout_ms: asked.timeout_ms,
            reserve_yuan: asked.reserve_yuan,
            variables: asked.variables,
        };
        put_into(&mut workflow, &fields, &state)?;
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            settings::insert_workflow(conn, &workflow).await.map_err(taken)?;
            Note::new("ai_workflow.create", "ai_workflow", workflow.id)
                .after(facts(&workflow, false))
                .write(conn, &caller, &origin)
                .await
        })
        .await?;
        Ok(Created::Created(Json(view(workflow))))
    }

    /// Lists the workflows
    ///
    /// Newest first. Keys are not shown.
    #[oai(path = "/ai-workflows", method = "get", operation_id = "list_ai_workflows")]
    async fn list(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<WorkflowView>>, ApiError> {
        let ask = Ask::new(limit.0, cursor.0.as_deref())?;
        let mut conn = state.db.conn().await?;
        let rows = settings::workflows(&mut conn, caller.organization_id, ask.before, ask.fetch()).await?;
        Ok(Json(ask.page(rows, |row| row.id, view)))
    }

    /// Shows a workflow
    ///
    /// Its key is not shown.
    #[oai(path = "/ai-workflows/:id", method = "get", operation_id = "get_ai_workflow")]
    async fn get(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
    ) -> Result<Json<WorkflowView>, ApiError> {
        let mut conn = state.db.conn().await?;
        let workflow = settings::workflow(&mut conn, caller.organization_id, id.0).await?;
        Ok(Json(view(workflow.ok_or_else(workflow_not_found)?)))
    }

    /// Changes a workflow
    ///
    /// Needs the role manager. What is left out stays, the key too. In force for the next run.
    #[oai(path = "/ai-workflows/:id", method = "put", operation_id = "put_ai_workflow")]
    async fn put(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        body: Body<UpdateWorkflow>,
    ) -> Result<Json<WorkflowView>, ApiError> {
        caller.require(Role::Manager)?;
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        let workflow = conn
            .transaction(async |conn| {
                let mut workflow = lock(conn, &caller, id.0).await?;
                let before = facts(&workflow, false);
                let old_key = workflow.key_hash.clone();
                put_into(&mut workflow, &body.0, &state)?;
                workflow.updated_at = now;
                settings::update_workflow(conn, &workflow).await.map_err(taken)?;
                Note::new("ai_workflow.update", "ai_workflow", workflow.id)
                    .before(before)
                    .after(facts(&workflow, workflow.key_hash != old_key))
                    .write(conn, &caller, &origin)
                    .await?;
                Ok::<_, ApiError>(workflow)
            })
            .await?;
        Ok(Json(view(workflow)))
    }

    /// Removes a workflow
    ///
    /// Needs the role manager. 409 while an account uses it. Its key is destroyed; its runs and what they cost stay.
    #[oai(path = "/ai-workflows/:id", method = "delete", operation_id = "delete_ai_workflow")]
    async fn delete(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
    ) -> Result<Deleted, ApiError> {
        caller.require(Role::Manager)?;
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            // Whoever gives the workflow to an account holds it meanwhile, so nobody can between the count and the end.
            let mut workflow = lock(conn, &caller, id.0).await?;
            let accounts = settings::accounts_of_workflow(conn, caller.organization_id, id.0).await?;
            if accounts > 0 {
                let detail = format!(
                    "{accounts} of your accounts use this workflow. Give them another one, or none, and then remove it."
                );
                return Err(ApiError::conflict("workflow_in_use", detail));
            }
            let before = facts(&workflow, false);
            workflow.deleted_at = Some(now);
            workflow.api_key.clear();
            settings::update_workflow(conn, &workflow).await?;
            Note::new("ai_workflow.delete", "ai_workflow", id.0)
                .before(before)
                .write(conn, &caller, &origin)
                .await
        })
        .await?;
        Ok(Deleted::Gone)
    }
}

async fn lock(conn: &mut Conn, caller: &Caller, id: Uuid) -> Result<Workflow, ApiError> {
    settings::lock_workflow(conn, caller.organization_id, id).await?.ok_or_else(workflow_not_found)
}

fn workflow_not_found() -> ApiError {
    ApiError::not_found("workflow_not_found", "Your organisation has no such workflow.")
}

fn taken(error: entropy_schema::Error) -> ApiError {
    match error.violated_constraint() {
        Some(settings::ALIAS_KEY) => ApiError::conflict(
            "alias_in_use",
            "Another workflow of your organisation has this alias. Choose another one, or change that workflow.",
        ),
        _ => error.into(),
    }
}

fn put_into(workflow: &mut Workflow, fields: &UpdateWorkflow, state: &AppState) -> Result<(), ApiError> {
    let problems = problems(fields);
    if !problems.is_empty() {
        return Err(ApiError::unprocessable(problems));
    }
    if let Some(Text(key)) = &fields.api_key {
        let Some(vault) = &state.vault else {
            let message = "cannot be kept: this install has no ENCRYPTION_KEY";
            return Err(ApiError::field("api_key", "no_vault", message));
        };
        let secret = Secret::new(key.clone());
        workflow.api_key = vault.seal(&secret, &key_context(workflow.organization_id));
        workflow.key_hash = vault.fingerprint(&secret);
        // FastGPT reads the third part of a key as the app's id.
        if let Some(app_id) = key.split('-').nth(2)
            && workflow.app_id.is_none()
        {
            workflow.app_id = Some(app_id.to_owned());
        }
    }
    if let Some(Text(alias)) = &fields.alias {
        workflow.alias = alias.trim().to_owned();
    }
    put(&mut workflow.endpoint, &fields.endpoint);
    put(&mut workflow.app_id, &fields.app_id);
    workflow.stream = fields.stream.unwrap_or(workflow.stream);
    workflow.requests_per_minute = fields.requests_per_minute.unwrap_or(workflow.requests_per_minute);
    workflow.timeout_ms = fields.timeout_ms.unwrap_or(workflow.timeout_ms);
    if let Some(amount) = fields.reserve_yuan.as_deref().and_then(yuan) {
        workflow.reserve_yuan = amount;
    }
    if let Some(variables) = &fields.variables {
        workflow.variables = json!(variables);
    }
    Ok(())
}

fn put(field: &mut Option<String>, value: &MaybeUndefined<Text>) {
    match value {
        MaybeUndefined::Undefined => {}
        MaybeUndefined::Null => *field = None,
        // Paths are put behind it.
        MaybeUndefined::Value(Text(value)) => *field = Some(value.trim_end_matches('/').to_owned()),
    }
}

fn problems(fields: &UpdateWorkflow) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    let mut add = |path: &str, code: &str, message: &str| {
        problems.push(FieldProblem::new(path, code, message));
    };
    if let Some(alias) = &fields.alias
        && (!(1..=64).contains(&alias.trim().chars().count()) || alias.chars().any(char::is_control))
    {
        add("alias", "bad_name", "must have 1 to 64 characters and no control characters");
    }
    if let Some(key) = &fields.api_key
        && !is_key(key)
    {
        let message = "must be a FastGPT key: a prefix and a random part with one dash in between, such as \
            fastgpt-xxxxxxxx, perhaps followed by a dash and the app's id; up to 256 letters, digits and signs";
        add("api_key", "bad_key", message);
    }
    if let MaybeUndefined::Value(endpoint) = &fields.endpoint
        && let Err((code, message)) = check_endpoint(endpoint)
    {
        add("endpoint", code, &message);
    }
    if let MaybeUndefined::Value(app_id) = &fields.app_id
        && !((1..=128).contains(&app_id.len()) && app_id.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    {
        add("app_id", "bad_id", "must be 1 to 128 letters and digits");
    }
    if fields.requests_per_minute.is_some_and(|number| !(1..=6000).contains(&number)) {
        add("requests_per_minute", "out_of_range", "must lie between 1 and 6000");
    }
    if fields.timeout_ms.is_some_and(|number| !(1000..=MAX_TIMEOUT_MS).contains(&number)) {
        add("timeout_ms", "out_of_range", "must lie between 1000 and 180000");
    }
    if fields.reserve_yuan.as_deref().is_some_and(|text| yuan(text).is_none()) {
        let message = "must be a decimal number such as \"0.5\", not negative, below a million, with at most ten \
            decimal places";
        add("reserve_yuan", "bad_amount", message);
    }
    if let Some(variables) = &fields.variables {
        if variables.len() > MAX_VARIABLES {
            add("variables", "too_many", "must have at most 50 entries");
        } else if json!(variables).to_string().len() > MAX_VARIABLES_BYTES {
            add("variables", "too_long", "must have at most 16 KiB together");
        }
        for (name, value) in variables.iter().take(MAX_VARIABLES) {
            if !(1..=64).contains(&name.chars().count()) || name.chars().any(char::is_control) {
                let message = "must have names of 1 to 64 characters without control characters";
                add("variables", "bad_name", message);
            } else if value.is_array() || value.is_object() {
                let path = format!("variables.{name}");
                add(&path, "wrong_type", "must be a text, a number, true, false or null");
            }
        }
    }
    problems
}

/// FastGPT splits a key at its dashes and takes two or three parts; the third is the app's id.
fn is_key(key: &str) -> bool {
    let parts = key.split('-').count();
    key.len() <= 256
        && (2..=3).contains(&parts)
        && key.split('-').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic()))
}

/// What the client that asks it will understand, and nothing else.
fn check_endpoint(endpoint: &str) -> Result<(), (&'static str, String)> {
    Endpoint::parse(endpoint).map(drop).map_err(|problem| (problem.code(), problem.to_string()))
}

/// What the audit log keeps of a workflow: nothing of its key, nor of the values of its variables, which may be secrets.
fn facts(workflow: &Workflow, key_changed: bool) -> Value {
    let names: Vec<&String> = workflow.variables.as_object().into_iter().flat_map(|map| map.keys()).collect();
    json!({
        "alias": workflow.alias,
        "endpoint": workflow.endpoint,
        "app_id": workflow.app_id,
        "stream": workflow.stream,
        "requests_per_minute": workflow.requests_per_minute,
        "timeout_ms": workflow.timeout_ms,
        "reserve_yuan": money(&workflow.reserve_yuan),
        "variables": names,
        "key_changed": key_changed,
    })
}

fn view(workflow: Workflow) -> WorkflowView {
    WorkflowView {
        id: workflow.id,
        alias: workflow.alias,
        endpoint: workflow.endpoint,
        app_id: workflow.app_id,
        stream: workflow.stream,
        requests_per_minute: workflow.requests_per_minute,
        timeout_ms: workflow.timeout_ms,
        reserve_yuan: money(&workflow.reserve_yuan),
        variables: workflow.variables,
        created_by: workflow.created_by,
        created_at: workflow.created_at,
        updated_at: workflow.updated_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_two_parts_or_three() {
        for good in ["fastgpt-abc123", "fastgpt-abc-65f0c0ffee", "sk-x", "a-b"] {
            assert!(is_key(good), "{good}");
        }
        let long = format!("fastgpt-{}", "x".repeat(256));
        for bad in
            ["", "fastgpt", "fastgpt-", "-abc", "a-b-c-d", "fastgpt-a b", "fastgpt-密钥", "a--b", &long]
        {
            assert!(!is_key(bad), "{bad}");
        }
    }

    #[test]
    fn an_endpoint_may_be_private_but_no_metadata_service() {
        for good in [
            "https://cloud.fastgpt.cn/api",
            "http://fastgpt:3000/api",
            "http://10.0.0.7:3000/api",
            "http://127.0.0.1:1/api",
        ] {
            assert!(check_endpoint(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "fastgpt",
            "ftp://a.example",
            "http://user:pass@a.example/api",
            "http://a.example/api?x=1",
            "http://a.example/api#x",
            "http://169.254.169.254/latest",
            "http://2852039166/",
            "http://[::ffff:169.254.169.254]/",
            "http://[fe80::1]/",
            "http://[fd00:ec2::254]/",
            "http://100.100.100.200/",
            "http://metadata.google.internal./",
            "http://0.0.0.0/",
        ] {
            assert!(check_endpoint(bad).is_err(), "{bad}");
        }
    }
}
