//! Contacts that the team brings along: their tags, fields and consents.

use diesel_async::AsyncConnection;
use entropy_schema::campaigns::consents;
use entropy_schema::contacts::{self, Told};
use entropy_schema::{Conn, accounts, campaigns::enrollments};
use poem::web::Data;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Tag;
use super::accounts::account_not_found;
use super::audit::Note;
use super::contacts::{
    CheckedConsent, ConsentArg, checked_consents, checked_tags, checked_variables, consent_rows,
    tell_campaigns,
};
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::http::text::Text;
use crate::problem::{ApiError, FieldProblem};

/// Contacts of one request.
const MAX_ITEMS: usize = 1000;
const MAX_NAME_CHARS: usize = 200;
const MAX_WXID_CHARS: usize = 64;

/// A contact.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
struct ImportItem {
    /// Its id in WeChat.
    wxid: Text,
    /// The name that it has given itself; up to 200 characters.
    nickname: Option<Text>,
    /// What the account's owner calls it; up to 200 characters.
    remark: Option<Text>,
    /// All of its tags.
    tags: Option<Vec<Text>>,
    /// All of its values.
    variables: Option<Value>,
    /// What it has agreed to, besides what is known.
    consents: Option<Vec<ConsentArg>>,
}

/// Contacts of an account.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
struct Import {
    /// The account that knows them.
    account_id: Uuid,
    /// 1 to 1000 contacts.
    items: Vec<ImportItem>,
}

/// What became of them.
#[derive(Debug, Object)]
struct Imported {
    /// Those that were not known.
    created: i64,
    /// Those that were.
    updated: i64,
    /// Those that were left out, field by field; `path` begins with the place in the list.
    errors: Vec<FieldProblem>,
}

/// Bringing contacts along.
pub(super) struct ContactImport;

#[OpenApi(tag = "Tag::Conversations")]
impl ContactImport {
    /// Imports contacts
    ///
    /// Needs the role agent. Contacts that are known are updated: what is left out stays. A contact with a mistake is left out and named;
    /// the others are imported.
    #[oai(path = "/contacts/import", method = "post", operation_id = "import_contacts")]
    async fn import(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        body: Body<Import>,
    ) -> Result<Json<Imported>, ApiError> {
        caller.require(Role::Agent)?;
        let Import { account_id, items } = body.0;
        if !(1..=MAX_ITEMS).contains(&items.len()) {
            let message = format!("must have 1 to {MAX_ITEMS} contacts");
            return Err(ApiError::unprocessable(vec![FieldProblem::new("items", "out_of_range", message)]));
        }
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        if !accounts::exists(&mut conn, caller.organization_id, account_id).await? {
            return Err(account_not_found());
        }
        let (mut created, mut updated, mut errors) = (0, 0, Vec::new());
        for (n, item) in items.into_iter().enumerate() {
            let mut problems = Vec::new();
            let item = checked(item, now, &mut problems);
            if !problems.is_empty() {
                errors.extend(
                    problems.into_iter().map(|problem| FieldProblem {
                        path: format!("items[{n}].{}", problem.path),
                        ..problem
                    }),
                );
                continue;
            }
            let new =
                conn.transaction(async |conn| put(conn, &state, &caller, account_id, &item).await).await?;
            if new { created += 1 } else { updated += 1 }
        }
        Note::new("contact.import", "wechat_account", account_id)
            .after(json!({"created": created, "updated": updated, "errors": errors.len()}))
            .write(&mut conn, &caller, &origin)
            .await?;
        Ok(Json(Imported { created, updated, errors }))
    }
}

struct Checked {
    wxid: String,
    nickname: Option<String>,
    remark: Option<String>,
    tags: Option<Vec<String>>,
    variables: Option<Value>,
    consents: Option<Vec<CheckedConsent>>,
}

fn checked(
    item: ImportItem,
    now: chrono::DateTime<chrono::Utc>,
    problems: &mut Vec<FieldProblem>,
) -> Checked {
    let wxid = item.wxid.0.trim().to_owned();
    let fits = |c: char| !c.is_control() && !c.is_whitespace();
    if !(1..=MAX_WXID_CHARS).contains(&wxid.chars().count()) || !wxid.chars().all(fits) {
        let message = format!("must have 1 to {MAX_WXID_CHARS} characters and no blanks");
        problems.push(FieldProblem::new("wxid", "bad_wxid", message));
    }
    let mut name = |field: &str, name: Option<Text>| {
        let name = name.map(|name| name.0.trim().to_owned());
        let fits =
            |name: &String| name.chars().count() <= MAX_NAME_CHARS && !name.chars().any(char::is_control);
        if name.as_ref().is_some_and(|name| !fits(name)) {
            let message =
                format!("must have at most {MAX_NAME_CHARS} characters, none of them a control character");
            problems.push(FieldProblem::new(field, "bad_text", message));
        }
        name
    };
    let (nickname, remark) = (name("nickname", item.nickname), name("remark", item.remark));
    Checked {
        wxid,
        nickname,
        remark,
        tags: item.tags.map(|tags| checked_tags(tags, problems)),
        variables: item.variables.map(|variables| checked_variables(variables, problems)),
        consents: item.consents.map(|consents| checked_consents(consents, now, problems)),
    }
}

/// Writes one contact, and tells campaigns of its new tags. Returns whether it was not known.
async fn put(
    conn: &mut Conn,
    state: &AppState,
    caller: &Caller,
    account: Uuid,
    item: &Checked,
) -> Result<bool, ApiError> {
    let organization = caller.organization_id;
    let known = enrollments::contact_of(conn, organization, account, &item.wxid).await?;
    let told = Told { nickname: item.nickname.as_deref(), remark: item.remark.as_deref(), ..Told::default() };
    let kind = if item.wxid.ends_with("@chatroom") { "group" } else { "friend" };
    contacts::tell(conn, organization, account, &item.wxid, kind, told).await?;
    let id = enrollments::contact_of(conn, organization, account, &item.wxid).await?;
    let contact = match id {
        Some(id) => contacts::lock(conn, organization, id).await?,
        None => None,
    };
    let Some(mut contact) = contact else { return Err(ApiError::internal("an imported contact is gone")) };
    let old_tags = contact.tags.clone();
    if let Some(tags) = &item.tags {
        contact.tags.clone_from(tags);
    }
    if let Some(variables) = &item.variables {
        contact.variables.clone_from(variables);
    }
    contacts::update(conn, &contact).await?;
    if let Some(given) = &item.consents {
        consents::give(conn, &consent_rows(given, &contact, Some(caller.id))).await?;
    }
    tell_campaigns(conn, &state.plans, &contact, &old_tags).await?;
    Ok(known.is_none())
}
