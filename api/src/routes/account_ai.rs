//! Who answers for an account: which workflow, for whom, when, and what is said first.

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_jobs::message::validate_wxid;
use entropy_schema::settings::{self, AccountAi};
use entropy_schema::{Conn, accounts};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{Enum, Object, OpenApi};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Tag;
use super::accounts::account_not_found;
use super::audit::Note;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::http::text::Text;
use crate::problem::{ApiError, FieldProblem};

/// The most entries of a list.
const MAX_LISTED: usize = 500;
const MAX_DISCLOSURE: usize = 500;

/// When the AI answers in groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum Groups {
    /// Never.
    Off,
    /// To who mentions the account by name.
    AtOnly,
}

/// Whether a person looks at answers before they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum Review {
    /// Only at those with words that ask for it.
    None,
    /// At every one.
    Human,
}

/// When what a customer writes in a row is complete.
#[derive(Debug, Default, Clone, Object)]
#[oai(deny_unknown_fields)]
struct Debounce {
    /// When nothing came for so long: 0 to 60,000, 4000 if not given.
    quiet_ms: Option<i32>,
    /// So long after the first message at the latest: 0 to 300,000, 15,000 if not given.
    max_ms: Option<i32>,
    /// With so many messages: 1 to 100, 10 if not given.
    max_messages: Option<i32>,
}

/// People, groups and tags.
#[derive(Debug, Default, Object)]
#[oai(deny_unknown_fields)]
struct Listed {
    /// Ids of people and groups in WeChat; up to 500.
    wxids: Option<Vec<Text>>,
    /// Tags of contacts, up to 32 characters each; up to 500.
    tags: Option<Vec<Text>>,
}

/// Who answers for an account. What is left out takes its default.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct PutAccountAi {
    /// False: nobody answers by machine, from the next send on.
    enabled: bool,
    /// Alias of the workflow that writes the answers; needed if `enabled`.
    workflow: Option<Text>,
    debounce: Option<Debounce>,
    /// `off` if not given.
    groups: Option<Groups>,
    /// How long a person who types on the phone keeps the chat, and how long a handoff lasts: 1 to 10,080, 30 if not
    /// given.
    takeover_minutes: Option<i32>,
    /// A message that is older when it comes in is not answered but shown to people: 10 to 86,400, 600 if not given.
    max_age_seconds: Option<i32>,
    /// `none` if not given.
    review: Option<Review>,
    /// How long an answer waits for its review: 1 to 1440, 60 if not given.
    draft_minutes: Option<i32>,
    /// Said once per conversation, before the first answer, up to 500 characters; empty: nothing. If not given, a sentence
    /// that says that an AI answers and how to get a person.
    disclosure: Option<Text>,
    /// Only these are answered; empty: everybody.
    allow: Option<Listed>,
    /// These are never answered. Blocking wins over allowing.
    block: Option<Listed>,
    /// An account that is online and from which nothing came for so long raises an alert: up to 10,080; 0, the default:
    /// never.
    silence_minutes: Option<i32>,
}

/// When what a customer writes in a row is complete.
#[derive(Debug, Object)]
struct DebounceView {
    quiet_ms: i32,
    max_ms: i32,
    max_messages: i32,
}

/// People, groups and tags.
#[derive(Debug, Object)]
struct ListedView {
    wxids: Vec<String>,
    tags: Vec<String>,
}

/// Who answers for an account.
#[derive(Debug, Object)]
struct AccountAiView {
    account_id: Uuid,
    enabled: bool,
    /// Alias of the workflow.
    workflow: Option<String>,
    workflow_id: Option<Uuid>,
    debounce: DebounceView,
    groups: Groups,
    takeover_minutes: i32,
    max_age_seconds: i32,
    review: Review,
    draft_minutes: i32,
    disclosure: String,
    allow: ListedView,
    block: ListedView,
    silence_minutes: i32,
    updated_by: Option<Uuid>,
    /// Null: it was never chosen, these are the defaults.
    updated_at: Option<DateTime<Utc>>,
}

/// Who answers for an account.
pub(super) struct AccountAnswers;

#[OpenApi(tag = "Tag::Answers")]
impl AccountAnswers {
    /// Chooses who answers for an account
    ///
    /// Needs the role manager. Replaces everything: what is left out takes its default. Switching off holds from the next
    /// send on, also for answers that are written already.
    #[oai(path = "/wechat-accounts/:id/ai", method = "put", operation_id = "put_account_ai")]
    async fn put(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        body: Body<PutAccountAi>,
    ) -> Result<Json<AccountAiView>, ApiError> {
        caller.require(Role::Manager)?;
        let mut chosen = read(&caller, id.0, &body.0)?;
        (chosen.updated_by, chosen.updated_at) = (Some(caller.id), state.now().await);
        let alias = body.0.workflow.as_ref().map(|alias| alias.trim());
        let mut conn = state.db.conn().await?;
        let view = conn
            .transaction(async |conn| {
                if !accounts::exists(conn, caller.organization_id, id.0).await? {
                    return Err(account_not_found());
                }
                if let Some(alias) = alias {
                    let workflow = settings::hold_workflow(conn, caller.organization_id, alias).await?;
                    chosen.workflow_id = Some(workflow.ok_or_else(|| {
                        let message = "is not the alias of a workflow; GET /ai-workflows lists them";
                        ApiError::field("workflow", "unknown_workflow", message)
                    })?);
                }
                let before = settings::account_ai(conn, caller.organization_id, id.0).await?;
                settings::put_account_ai(conn, &chosen).await?;
                let mut note = Note::new("account_ai.update", "account", id.0).after(facts(&chosen));
                if let Some(before) = &before {
                    note = note.before(facts(before));
                }
                note.write(conn, &caller, &origin).await?;
                view(conn, chosen.clone()).await
            })
            .await?;
        Ok(Json(view))
    }

    /// Shows who answers for an account
    ///
    /// The defaults, switched off, if nothing was chosen yet.
    #[oai(path = "/wechat-accounts/:id/ai", method = "get", operation_id = "get_account_ai")]
    async fn get(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
    ) -> Result<Json<AccountAiView>, ApiError> {
        let mut conn = state.db.conn().await?;
        if !accounts::exists(&mut conn, caller.organization_id, id.0).await? {
            return Err(account_not_found());
        }
        let chosen = settings::account_ai(&mut conn, caller.organization_id, id.0).await?;
        let chosen = chosen.unwrap_or_else(|| AccountAi::default_of(caller.organization_id, id.0));
        Ok(Json(view(&mut conn, chosen).await?))
    }
}

fn read(caller: &Caller, account: Uuid, asked: &PutAccountAi) -> Result<AccountAi, ApiError> {
    let mut chosen = AccountAi::default_of(caller.organization_id, account);
    let mut problems = Vec::new();
    let mut number = |field: &mut i32, path: &str, asked: Option<i32>, least: i32, most: i32| match asked {
        None => {}
        Some(asked) if (least..=most).contains(&asked) => *field = asked,
        Some(_) => {
            let message = format!("must lie between {least} and {most}");
            problems.push(FieldProblem::new(path, "out_of_range", message));
        }
    };
    let debounce = asked.debounce.clone().unwrap_or_default();
    number(&mut chosen.quiet_ms, "debounce.quiet_ms", debounce.quiet_ms, 0, 60_000);
    number(&mut chosen.max_ms, "debounce.max_ms", debounce.max_ms, 0, 300_000);
    number(&mut chosen.max_messages, "debounce.max_messages", debounce.max_messages, 1, 100);
    number(&mut chosen.takeover_minutes, "takeover_minutes", asked.takeover_minutes, 1, 10_080);
    number(&mut chosen.max_age_seconds, "max_age_seconds", asked.max_age_seconds, 10, 86_400);
    number(&mut chosen.draft_minutes, "draft_minutes", asked.draft_minutes, 1, 1440);
    number(&mut chosen.silence_minutes, "silence_minutes", asked.silence_minutes, 0, 10_080);
    chosen.enabled = asked.enabled;
    if asked.enabled && asked.workflow.as_ref().is_none_or(|alias| alias.trim().is_empty()) {
        let message = "is needed: say with its alias which workflow writes the answers";
        problems.push(FieldProblem::new("workflow", "missing", message));
    }
    if asked.groups == Some(Groups::AtOnly) {
        chosen.groups = "at_only".to_owned();
    }
    if asked.review == Some(Review::Human) {
        chosen.review = "human".to_owned();
    }
    if let Some(disclosure) = &asked.disclosure {
        if disclosure.chars().count() > MAX_DISCLOSURE || has_controls(disclosure) {
            let message = "must have at most 500 characters, and no control characters but line breaks";
            problems.push(FieldProblem::new("disclosure", "too_long", message));
        }
        chosen.disclosure = disclosure.trim().to_owned();
    }
    let lists = [
        ("allow", &asked.allow, &mut chosen.allow_wxids, &mut chosen.allow_tags),
        ("block", &asked.block, &mut chosen.block_wxids, &mut chosen.block_tags),
    ];
    for (path, listed, wxids, tags) in lists {
        let Some(listed) = listed else { continue };
        *wxids = list(&mut problems, &format!("{path}.wxids"), &listed.wxids, |wxid| {
            validate_wxid(wxid).map_err(|message| ("bad_wxid", message))
        });
        *tags = list(&mut problems, &format!("{path}.tags"), &listed.tags, |tag| {
            if (1..=32).contains(&tag.chars().count()) && !tag.chars().any(char::is_control) {
                return Ok(());
            }
            Err(("bad_text", "must have 1 to 32 characters and no control characters".to_owned()))
        });
    }
    if problems.is_empty() { Ok(chosen) } else { Err(ApiError::unprocessable(problems)) }
}

/// Tells whether a text that is sent as it stands has characters that no message has.
pub(super) fn has_controls(text: &str) -> bool {
    text.chars().any(|c| c.is_control() && c != '\n')
}

/// Checks a list and returns it without blanks around its entries, each once, in their order.
fn list(
    problems: &mut Vec<FieldProblem>,
    path: &str,
    asked: &Option<Vec<Text>>,
    check: impl Fn(&str) -> Result<(), (&'static str, String)>,
) -> Vec<String> {
    let asked = asked.as_deref().unwrap_or_default();
    if asked.len() > MAX_LISTED {
        problems.push(FieldProblem::new(path, "too_many", "must have at most 500 entries"));
        return Vec::new();
    }
    let mut seen = std::collections::HashSet::new();
    let mut entries = Vec::new();
    for (index, entry) in asked.iter().enumerate() {
        let entry = entry.trim();
        if let Err((code, message)) = check(entry) {
            problems.push(FieldProblem::new(format!("{path}[{index}]"), code, message));
        } else if seen.insert(entry) {
            entries.push(entry.to_owned());
        }
    }
    entries
}

/// What the audit log keeps.
fn facts(chosen: &AccountAi) -> Value {
    json!({
        "enabled": chosen.enabled,
        "workflow_id": chosen.workflow_id,
        "debounce": {
            "quiet_ms": chosen.quiet_ms,
            "max_ms": chosen.max_ms,
            "max_messages": chosen.max_messages,
        },
        "groups": chosen.groups,
        "takeover_minutes": chosen.takeover_minutes,
        "max_age_seconds": chosen.max_age_seconds,
        "review": chosen.review,
        "draft_minutes": chosen.draft_minutes,
        "disclosure": chosen.disclosure,
        "allow": {"wxids": chosen.allow_wxids, "tags": chosen.allow_tags},
        "block": {"wxids": chosen.block_wxids, "tags": chosen.block_tags},
        "silence_minutes": chosen.silence_minutes,
    })
}

async fn view(conn: &mut Conn, chosen: AccountAi) -> Result<AccountAiView, ApiError> {
    let workflow = match chosen.workflow_id {
        Some(id) => settings::workflow(conn, chosen.organization_id, id).await?,
        None => None,
    };
    Ok(AccountAiView {
        account_id: chosen.account_id,
        enabled: chosen.enabled,
        workflow: workflow.map(|workflow| workflow.alias),
        workflow_id: chosen.workflow_id,
        debounce: DebounceView {
            quiet_ms: chosen.quiet_ms,
            max_ms: chosen.max_ms,
            max_messages: chosen.max_messages,
        },
        groups: if chosen.groups == "at_only" { Groups::AtOnly } else { Groups::Off },
        takeover_minutes: chosen.takeover_minutes,
        max_age_seconds: chosen.max_age_seconds,
        review: if chosen.review == "human" { Review::Human } else { Review::None },
        draft_minutes: chosen.draft_minutes,
        disclosure: chosen.disclosure,
        allow: ListedView { wxids: chosen.allow_wxids, tags: chosen.allow_tags },
        block: ListedView { wxids: chosen.block_wxids, tags: chosen.block_tags },
        silence_minutes: chosen.silence_minutes,
        updated_by: chosen.updated_by,
        updated_at: (chosen.updated_at > DateTime::UNIX_EPOCH).then_some(chosen.updated_at),
    })
}
