//! Contacts: people and groups as an account knows them, and who wants no messages.

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_jobs::campaign::events::{self as campaigns, Happened};
use entropy_jobs::campaign::plan::Plans;
use entropy_jobs::conversation::opt_out;
use entropy_jobs::kinds::sync_labels;
use entropy_schema::campaigns::consents::{self, Consent};
use entropy_schema::campaigns::enrollments;
use entropy_schema::contacts::{self, Contact};
use entropy_schema::opt_outs::{self, NewOptOut, OptOut};
use entropy_schema::views::conversations::{self as views, ContactFilter};
use entropy_schema::{Conn, conversations};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Enum, Object, OpenApi};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Tag;
use super::audit::Note;
use super::conversations::searched;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::http::text::Text;
use crate::page::{Ask, Page};
use crate::problem::{ApiError, FieldProblem};

const MAX_TAGS: usize = 50;
const MAX_TAG_CHARS: usize = 32;
const MAX_VARIABLES: usize = 50;
const MAX_NAME_CHARS: usize = 64;
const MAX_VALUE_CHARS: usize = 500;
const MAX_CONSENTS: usize = 20;
const MAX_PURPOSE_CHARS: usize = 40;
const MAX_BASIS_CHARS: usize = 500;

/// What a contact is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum ContactKind {
    /// A friend.
    Friend,
    /// A group.
    Group,
    /// Somebody who is no friend.
    Stranger,
    /// A public account, or WeChat itself.
    Official,
}

impl ContactKind {
    fn as_str(self) -> &'static str {
        match self {
            ContactKind::Friend => "friend",
            ContactKind::Group => "group",
            ContactKind::Stranger => "stranger",
            ContactKind::Official => "official",
        }
    }
}

/// A contact.
#[derive(Debug, Object)]
struct ContactView {
    id: Uuid,
    account_id: Uuid,
    wxid: String,
    /// `friend`, `group`, `stranger` or `official`.
    kind: String,
    nickname: String,
    /// What the account's owner calls it.
    remark: String,
    alias: Option<String>,
    avatar: Option<String>,
    /// Ours.
    tags: Vec<String>,
    /// WeChat's.
    labels: Vec<String>,
    /// Values for texts and workflows.
    variables: Value,
    /// Nothing that a machine writes goes to it.
    suppressed: bool,
    suppressed_at: Option<DateTime<Utc>>,
    /// It wants no more messages, from any account of the organisation.
    opted_out: bool,
    opted_out_at: Option<DateTime<Utc>>,
    /// The word that was written, or `person`.
    opted_out_by: Option<String>,
    /// What it has agreed to.
    consents: Vec<ConsentView>,
    added_at: Option<DateTime<Utc>>,
    /// Since when it is no friend any more, or the group was left.
    removed_at: Option<DateTime<Utc>>,
    synced_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// What a contact has agreed to.
#[derive(Debug, Object)]
struct ConsentView {
    /// To what.
    purpose: String,
    /// On what ground we believe it.
    basis: String,
    given_at: DateTime<Utc>,
    /// Since when it does not hold any more.
    withdrawn_at: Option<DateTime<Utc>>,
}

/// A contact's consent.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
pub(super) struct ConsentArg {
    /// To what: 1 to 40 characters, as plans name it.
    purpose: Text,
    /// On what ground we believe it: 1 to 500 characters.
    basis: Text,
    /// When it was given.
    given_at: DateTime<Utc>,
}

/// What to change; what is left out stays.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct UpdateContact {
    /// All of its tags: up to 50 of 1 to 32 characters.
    tags: Option<Vec<Text>>,
    /// All of its values: an object of up to 50 texts, numbers and booleans.
    variables: Option<Value>,
    /// All that it has agreed to, up to 20; what is not among them is withdrawn.
    consents: Option<Vec<ConsentArg>>,
    /// Nothing that a machine writes goes to it.
    suppressed: Option<bool>,
}

/// Contacts.
pub(super) struct Contacts;

#[OpenApi(tag = "Tag::Conversations")]
impl Contacts {
    /// Lists contacts
    ///
    /// Newest first. All filters given must apply.
    #[oai(path = "/contacts", method = "get", operation_id = "list_contacts")]
    #[expect(clippy::too_many_arguments, reason = "one per query parameter")]
    async fn list(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        /// Only of this account.
        account_id: Query<Option<Uuid>>,
        /// Only of this kind.
        kind: Query<Option<ContactKind>>,
        /// Only with this tag; 1 to 32 characters.
        tag: Query<Option<String>>,
        /// Only with this in nickname, remark or wxid; 1 to 100 characters.
        q: Query<Option<String>>,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<ContactView>>, ApiError> {
        let ask = Ask::new(limit.0, cursor.0.as_deref())?;
        let mut tag = tag.0;
        if let Some(tag) = &mut tag {
            let checked = checked_tag("tag", tag);
            *tag = checked.map_err(|problem| ApiError::malformed(vec![problem]))?;
        }
        let filter = ContactFilter {
            account_id: account_id.0,
            kind: kind.0.map(ContactKind::as_str),
            tag,
            name: searched(q.0)?,
        };
        let organization = caller.organization_id;
        let mut conn = state.db.conn().await?;
        let rows = views::contacts(&mut conn, organization, &filter, ask.before, ask.fetch()).await?;
        let wxids: Vec<&str> = rows.iter().map(|row| row.wxid.as_str()).collect();
        let outs = opt_outs::of(&mut conn, organization, &wxids).await?;
        let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
        let consents = consents::of(&mut conn, organization, &ids).await?;
        Ok(Json(ask.page(
            rows,
            |row| row.id,
            |row| {
                let out = outs.iter().find(|out| out.wxid == row.wxid).cloned();
                let given = consents.iter().filter(|one| one.contact_id == row.id).cloned().collect();
                view(row, out, given)
            },
        )))
    }

    /// Shows a contact
    ///
    /// With whether it wants no more messages.
    #[oai(path = "/contacts/:id", method = "get", operation_id = "get_contact")]
    async fn get(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
    ) -> Result<Json<ContactView>, ApiError> {
        read(&mut *state.db.conn().await?, &caller, id.0).await.map(Json)
    }

    /// Changes a contact
    ///
    /// Needs the role agent. What is left out stays; tags and variables are replaced as a whole.
    #[oai(path = "/contacts/:id", method = "put", operation_id = "update_contact")]
    async fn update(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        body: Body<UpdateContact>,
    ) -> Result<Json<ContactView>, ApiError> {
        caller.require(Role::Agent)?;
        let UpdateContact { tags, variables, consents, suppressed } = body.0;
        let now = state.now().await;
        let mut problems = Vec::new();
        let tags = tags.map(|tags| checked_tags(tags, &mut problems));
        let variables = variables.map(|variables| checked_variables(variables, &mut problems));
        let consents = consents.map(|consents| checked_consents(consents, now, &mut problems));
        if !problems.is_empty() {
            return Err(ApiError::unprocessable(problems));
        }
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            let organization = caller.organization_id;
            let labels = match &tags {
                Some(_) => lock_label_lane(conn, organization, id.0).await?,
                None => false,
            };
            let contact = contacts::lock(conn, organization, id.0).await?;
            let mut contact = contact.ok_or_else(contact_not_found)?;
            let before = facts(&contact);
            let (old_tags, was_suppressed) = (contact.tags.clone(), contact.suppressed_at.is_some());
            if let Some(tags) = &tags {
                contact.tags.clone_from(tags);
            }
            if let Some(variables) = &variables {
                contact.variables.clone_from(variables);
            }
            match suppressed {
                Some(true) => contact.suppressed_at = contact.suppressed_at.or(Some(now)),
                Some(false) => contact.suppressed_at = None,
                None => {}
            }
            contacts::update(conn, &contact).await?;
            let mut after = facts(&contact);
            if let Some(consents) = &consents {
                let rows = consent_rows(consents, &contact, Some(caller.id));
                consents::replace(conn, caller.organization_id, contact.id, &rows).await?;
                after["consents"] =
                    json!(consents.iter().map(|one| one.purpose.as_str()).collect::<Vec<_>>());
            }
            Note::new("contact.update", "contact", id.0)
                .before(before)
                .after(after)
                .write(conn, &caller, &origin)
                .await?;
            if !was_suppressed && contact.suppressed_at.is_some() {
                let reason = "contact_suppressed";
                campaigns::leave(conn, contact.organization_id, &[contact.id], reason).await?;
            }
            if labels && contact.tags != old_tags {
                let (account, trace) = (contact.account_id, &origin.trace_id);
                sync_labels::request(conn, organization, account, contact.id, &contact.tags, trace).await?;
            }
            tell_campaigns(conn, &state.plans, &contact, &old_tags).await
        })
        .await?;
        state.waker.wake();
        read(&mut conn, &caller, id.0).await.map(Json)
    }

    /// Notes that a contact wants no more messages
    ///
    /// Needs the role agent. In force for all accounts of the organisation at once; nothing is said to the contact. People
    /// may still write to it.
    #[oai(path = "/contacts/:id/opt-out", method = "post", operation_id = "opt_out_contact")]
    async fn opt_out(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
    ) -> Result<Json<ContactView>, ApiError> {
        caller.require(Role::Agent)?;
        let organization = caller.organization_id;
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            let contact = contacts::get(conn, organization, id.0).await?.ok_or_else(contact_not_found)?;
            let chats = conversations::lock_all_with(conn, organization, &contact.wxid).await?;
            let wish = NewOptOut {
                organization_id: organization,
                wxid: &contact.wxid,
                reason: "person",
                account_id: Some(contact.account_id),
                message_id: None,
                created_by: Some(caller.id),
            };
            if !opt_out::opt_out(conn, &wish, &chats).await? {
                return Ok(());
            }
            Note::new("contact.opt_out", "contact", id.0)
                .after(json!({"wxid": contact.wxid}))
                .write(conn, &caller, &origin)
                .await
        })
        .await?;
        read(&mut conn, &caller, id.0).await.map(Json)
    }

    /// Lifts an opt-out
    ///
    /// Needs the role agent, and the contact's consent. In force for all accounts of the organisation.
    #[oai(path = "/contacts/:id/opt-out", method = "delete", operation_id = "lift_opt_out")]
    async fn lift_opt_out(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
    ) -> Result<Json<ContactView>, ApiError> {
        caller.require(Role::Agent)?;
        let organization = caller.organization_id;
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            let contact = contacts::get(conn, organization, id.0).await?.ok_or_else(contact_not_found)?;
            if !opt_outs::remove(conn, organization, &contact.wxid).await? {
                return Ok(());
            }
            Note::new("contact.lift_opt_out", "contact", id.0)
                .before(json!({"wxid": contact.wxid}))
                .write(conn, &caller, &origin)
                .await
        })
        .await?;
        read(&mut conn, &caller, id.0).await.map(Json)
    }
}

async fn read(conn: &mut Conn, caller: &Caller, id: Uuid) -> Result<ContactView, ApiError> {
    let contact = contacts::get(conn, caller.organization_id, id).await?.ok_or_else(contact_not_found)?;
    let out = opt_outs::of(conn, caller.organization_id, &[contact.wxid.as_str()]).await?.pop();
    let given = consents::of(conn, caller.organization_id, &[id]).await?;
    Ok(view(contact, out, given))
}

/// Locks the lane in which tags are written into WeChat, before the contact is locked. False: its account's tags stay here.
async fn lock_label_lane(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<bool, ApiError> {
    let contact = contacts::get(conn, organization, id).await?.ok_or_else(contact_not_found)?;
    let lane = sync_labels::lane(conn, organization, contact.account_id).await?;
    conversations::lock_lanes(conn, organization, lane.as_slice()).await?;
    Ok(lane.is_some())
}

/// Tells campaigns what has become of a contact's tags. The caller has locked it.
pub(super) async fn tell_campaigns(
    conn: &mut Conn,
    plans: &Plans,
    contact: &Contact,
    old_tags: &[String],
) -> Result<(), ApiError> {
    let added: Vec<String> = contact.tags.iter().filter(|tag| !old_tags.contains(tag)).cloned().collect();
    let removed: Vec<String> = old_tags.iter().filter(|tag| !contact.tags.contains(tag)).cloned().collect();
    if !removed.is_empty() {
        enrollments::forget_tags(conn, contact.id, &removed).await?;
    }
    campaigns::changed(conn, contact.id).await?;
    if !added.is_empty() {
        let what = Happened::TagsAdded(&added);
        campaigns::happened(conn, plans, contact.organization_id, contact.id, what).await?;
    }
    Ok(())
}

/// A consent that was checked.
pub(super) struct CheckedConsent {
    purpose: String,
    basis: String,
    given_at: DateTime<Utc>,
}

/// Makes rows of consents.
pub(super) fn consent_rows(consents: &[CheckedConsent], contact: &Contact, by: Option<Uuid>) -> Vec<Consent> {
    let row = |consent: &CheckedConsent| Consent {
        contact_id: contact.id,
        purpose: consent.purpose.clone(),
        organization_id: contact.organization_id,
        basis: consent.basis.clone(),
        given_at: consent.given_at,
        withdrawn_at: None,
        recorded_by: by,
    };
    consents.iter().map(row).collect()
}

/// Consents, each purpose once.
pub(super) fn checked_consents(
    consents: Vec<ConsentArg>,
    now: DateTime<Utc>,
    problems: &mut Vec<FieldProblem>,
) -> Vec<CheckedConsent> {
    if consents.len() > MAX_CONSENTS {
        let message = format!("has {} consents; {MAX_CONSENTS} are possible", consents.len());
        problems.push(FieldProblem::new("consents", "too_many", message));
        return Vec::new();
    }
    let mut checked: Vec<CheckedConsent> = Vec::new();
    for (n, consent) in consents.into_iter().enumerate() {
        let mut text = |field: &str, text: &str, most: usize| {
            let text = text.trim();
            if !(1..=most).contains(&text.chars().count()) || text.chars().any(char::is_control) {
                let message = format!("must have 1 to {most} characters, none of them a control character");
                problems.push(FieldProblem::new(format!("consents[{n}].{field}"), "bad_text", message));
            }
            text.to_owned()
        };
        let purpose = text("purpose", &consent.purpose, MAX_PURPOSE_CHARS);
        let basis = text("basis", &consent.basis, MAX_BASIS_CHARS);
        if consent.given_at > now + chrono::TimeDelta::minutes(5) {
            let message = "lies in the future; say when it was given";
            problems.push(FieldProblem::new(format!("consents[{n}].given_at"), "in_the_future", message));
        }
        if checked.iter().any(|other| other.purpose == purpose) {
            let message = "is named twice; keep one of them";
            problems.push(FieldProblem::new(format!("consents[{n}].purpose"), "twice", message));
        }
        checked.push(CheckedConsent { purpose, basis, given_at: consent.given_at });
    }
    checked
}

fn contact_not_found() -> ApiError {
    ApiError::not_found("contact_not_found", "Your organisation has no such contact.")
}

/// What the audit log says of a contact.
fn facts(contact: &Contact) -> Value {
    json!({"tags": contact.tags, "variables": contact.variables, "suppressed": contact.suppressed_at.is_some()})
}

fn checked_tag(path: &str, tag: &str) -> Result<String, FieldProblem> {
    let tag = tag.trim();
    let length = tag.chars().count();
    if !(1..=MAX_TAG_CHARS).contains(&length) || tag.chars().any(char::is_control) {
        let message = format!("must have 1 to {MAX_TAG_CHARS} characters, none of them a control character");
        return Err(FieldProblem::new(path, "bad_text", message));
    }
    Ok(tag.to_owned())
}

/// The tags in their order, each once.
pub(super) fn checked_tags(tags: Vec<Text>, problems: &mut Vec<FieldProblem>) -> Vec<String> {
    if tags.len() > MAX_TAGS {
        let message = format!("has {} tags; {MAX_TAGS} are possible", tags.len());
        problems.push(FieldProblem::new("tags", "too_many", message));
        return Vec::new();
    }
    let mut checked: Vec<String> = Vec::new();
    for (n, tag) in tags.iter().enumerate() {
        match checked_tag(&format!("tags[{n}]"), tag) {
            Ok(tag) if checked.contains(&tag) => {}
            Ok(tag) => checked.push(tag),
            Err(problem) => problems.push(problem),
        }
    }
    checked
}

pub(super) fn checked_variables(variables: Value, problems: &mut Vec<FieldProblem>) -> Value {
    let mut problem = |code: &str, message: String| {
        problems.push(FieldProblem::new("variables", code, message));
        Value::Object(Map::new())
    };
    let Value::Object(fields) = &variables else {
        return problem("wrong_form", "must be an object".into());
    };
    if fields.len() > MAX_VARIABLES {
        return problem("too_many", format!("has {} values; {MAX_VARIABLES} are possible", fields.len()));
    }
    let fits = |name: &String, value: &Value| {
        let named = (1..=MAX_NAME_CHARS).contains(&name.chars().count());
        named
            && match value {
                Value::String(text) => text.chars().count() <= MAX_VALUE_CHARS,
                Value::Number(_) | Value::Bool(_) => true,
                Value::Null | Value::Array(_) | Value::Object(_) => false,
            }
    };
    if !fields.iter().all(|(name, value)| fits(name, value)) {
        let message = format!(
            "must have names of 1 to {MAX_NAME_CHARS} characters, and as values texts of up to {MAX_VALUE_CHARS} \
             characters, numbers or booleans"
        );
        return problem("wrong_form", message);
    }
    variables
}

fn view(contact: Contact, out: Option<OptOut>, consents: Vec<Consent>) -> ContactView {
    ContactView {
        id: contact.id,
        account_id: contact.account_id,
        wxid: contact.wxid,
        kind: contact.kind,
        nickname: contact.nickname,
        remark: contact.remark,
        alias: contact.alias,
        avatar: contact.avatar,
        tags: contact.tags,
        labels: contact.labels,
        variables: contact.variables,
        suppressed: contact.suppressed_at.is_some(),
        suppressed_at: contact.suppressed_at,
        opted_out: out.is_some(),
        opted_out_at: out.as_ref().map(|out| out.created_at),
        opted_out_by: out.map(|out| out.reason),
        consents: consents
            .into_iter()
            .map(|consent| ConsentView {
                purpose: consent.purpose,
                basis: consent.basis,
                given_at: consent.given_at,
                withdrawn_at: consent.withdrawn_at,
            })
            .collect(),
        added_at: contact.added_at,
        removed_at: contact.removed_at,
        synced_at: contact.synced_at,
        created_at: contact.created_at,
        updated_at: contact.updated_at,
    }
}
