//! WeChat accounts: who sends, on which device, how fast.

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_schema::accounts::{self, Account, Sent, WithLane};
use entropy_schema::{Conn, lanes, risk};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::MaybeUndefined;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Tag;
use super::account_fields::{Fields, given};
use super::account_health::{House, RiskView, WarmUpView, risk_of};
use super::account_limits::{LimitsRequest, LimitsView};
use super::audit::Note;
use super::bulk::cancel_all_of_account;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::{Body, OptionalBody};
use crate::http::origin::Origin;
use crate::http::text::Text;
use crate::page::{Ask, Page};
use crate::problem::ApiError;

/// A new account.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct CreateAccount {
    /// Its id in WeChat; may be left out until it has logged in.
    wxid: Option<Text>,
    /// Its name, for people; up to 100 characters.
    nickname: Option<Text>,
    /// Address of its picture.
    avatar: Option<Text>,
    /// The GeWe device that it is logged in on. It stays the account's for good.
    gewe_app_id: Option<Text>,
    /// A GeWe token of its own; without one it uses the token of this install. Kept sealed, never shown again.
    gewe_token_id: Option<Text>,
    limits: Option<LimitsRequest>,
    /// Tags of its contacts become labels in WeChat; true if not given.
    label_sync: Option<bool>,
}

/// What to change; what is left out stays, null clears.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct UpdateAccount {
    wxid: MaybeUndefined<Text>,
    nickname: MaybeUndefined<Text>,
    avatar: MaybeUndefined<Text>,
    gewe_app_id: MaybeUndefined<Text>,
    gewe_token_id: MaybeUndefined<Text>,
    limits: Option<LimitsRequest>,
    /// Tags of its contacts become labels in WeChat.
    label_sync: Option<bool>,
    /// `ONLINE`: somebody has looked at the phone. Ends `OFFLINE`, and `RISK_HOLD` if the caller is a manager or admin, as resuming
    /// the account does.
    status: Option<AskedStatus>,
}

/// The state into which people can bring an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
enum AskedStatus {
    /// It is logged in.
    #[oai(rename = "ONLINE")]
    Online,
}

/// Why an account is paused.
#[derive(Default, Object)]
#[oai(deny_unknown_fields)]
pub(super) struct PauseRequest {
    /// For people; up to 200 characters.
    pub(super) reason: Option<Text>,
}

/// How much an account has sent lately, as its limits count it.
#[derive(Debug, Object)]
struct SentView {
    /// Messages in the last 60 seconds.
    last_minute: i64,
    /// Messages in the last 24 hours.
    last_day: i64,
}

/// An account.
#[derive(Debug, Object)]
struct AccountView {
    /// Also the id of its lane.
    id: Uuid,
    wxid: Option<String>,
    nickname: String,
    avatar: Option<String>,
    gewe_app_id: Option<String>,
    /// It has a GeWe token of its own.
    has_own_token: bool,
    /// `NEW`, `QR_PENDING`, `ONLINE`, `OFFLINE`, `EXPECT_RELOGIN`, `RISK_HOLD` or `DISABLED`. Only `ONLINE` sends.
    status: String,
    /// Its jobs wait until it is resumed.
    paused: bool,
    paused_at: Option<DateTime<Utc>>,
    paused_reason: Option<String>,
    limits: LimitsView,
    sent: SentView,
    warm_up: WarmUpView,
    /// Why it is on hold, or was last; null: it never was.
    risk: Option<RiskView>,
    /// Tags of its contacts become labels in WeChat.
    label_sync: bool,
    /// Who added it.
    user_id: Uuid,
    last_seen_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

#[derive(ApiResponse)]
enum Created {
    /// The account may send, if it is `ONLINE`.
    #[oai(status = 201)]
    Created(Json<AccountView>),
}

#[derive(ApiResponse)]
enum Deleted {
    /// The account is gone and its waiting jobs are cancelled.
    #[oai(status = 204)]
    Gone,
}

/// WeChat accounts.
pub(super) struct Accounts;

#[OpenApi(tag = "Tag::Accounts")]
impl Accounts {
    /// Adds an account
    ///
    /// Needs the role agent. It is `ONLINE` at once if both `wxid` and `gewe_app_id` are given. Only an admin may give
    /// limits above the defaults.
    #[oai(path = "/wechat-accounts", method = "post", operation_id = "create_account")]
    async fn create(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        body: Body<CreateAccount>,
    ) -> Result<Created, ApiError> {
        caller.require(Role::Agent)?;
        let asked = body.0;
        let id = Uuid::now_v7();
        let mut account = Account {
            id,
            organization_id: caller.organization_id,
            user_id: caller.id,
            wxid: None,
            nickname: String::new(),
            avatar: None,
            gewe_token_id: None,
            token_key: None,
            gewe_app_id: None,
            status: "NEW".into(),
            messages_per_minute: 0,
            min_gap_ms: 0,
            messages_per_day: 0,
            recipients_per_minute: 0,
            api_calls_per_hour: 0,
            last_seen_at: None,
            deleted_at: None,
            created_at: state.now().await,
        };
        let fields = Fields {
            wxid: given(asked.wxid),
            nickname: given(asked.nickname),
            avatar: given(asked.avatar),
            gewe_app_id: given(asked.gewe_app_id),
            gewe_token_id: given(asked.gewe_token_id),
        };
        fields.put_into(&mut account, &state)?;
        LimitsView::default_for(&state.ceilings)
            .changed(&asked.limits.unwrap_or_default(), caller.role, &state.ceilings)?
            .put_into(&mut account);
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            accounts::insert(conn, &account).await.map_err(taken)?;
            lanes::create(conn, account.id, account.organization_id, "account").await?;
            if account.status == "ONLINE" {
                accounts::note_login(conn, account.organization_id, id, true).await?;
            }
            if let Some(on) = asked.label_sync {
                accounts::choose_label_sync(conn, account.organization_id, id, on).await?;
            }
            Note::new("account.create", "account", id)
                .after(facts(&account))
                .write(conn, &caller, &origin)
                .await
        })
        .await?;
        Ok(Created::Created(Json(read(&mut conn, &caller, id).await?)))
    }

    /// Lists the accounts
    ///
    /// Newest first, with limits, what they have sent lately, and whether they are paused.
    #[oai(path = "/wechat-accounts", method = "get", operation_id = "list_accounts")]
    async fn list(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<AccountView>>, ApiError> {
        let ask = Ask::new(limit.0, cursor.0.as_deref())?;
        let mut conn = state.db.conn().await?;
        let rows = accounts::list(&mut conn, caller.organization_id, ask.before, ask.fetch()).await?;
        let ids: Vec<Uuid> = rows.iter().map(|row| row.account.id).collect();
        let sent = accounts::sent(&mut conn, &ids).await?;
        let house = House::read(&mut conn, caller.organization_id).await?;
        Ok(Json(ask.page(
            rows,
            |row| row.account.id,
            |row| {
                let sent = sent.iter().find(|sent| sent.account_id == row.account.id).copied();
                view(row, sent, &house)
            },
        )))
    }

    /// Shows an account
    ///
    /// With limits, what it has sent lately, and whether it is paused.
    #[oai(path = "/wechat-accounts/:id", method = "get", operation_id = "get_account")]
    async fn get(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
    ) -> Result<Json<AccountView>, ApiError> {
        let mut conn = state.db.conn().await?;
        Ok(Json(read(&mut conn, &caller, id.0).await?))
    }

    /// Changes an account
    ///
    /// Needs the role agent. What is left out stays. Limits hold from the next send on; only an admin may raise them.
    #[oai(path = "/wechat-accounts/:id", method = "patch", operation_id = "update_account")]
    async fn update(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        body: Body<UpdateAccount>,
    ) -> Result<Json<AccountView>, ApiError> {
        change(&state, &caller, &origin, id.0, body.0).await.map(Json)
    }

    /// Changes an account, by PUT
    ///
    /// The same as PATCH: what is left out stays.
    #[oai(path = "/wechat-accounts/:id", method = "put", operation_id = "put_account")]
    async fn put(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        body: Body<UpdateAccount>,
    ) -> Result<Json<AccountView>, ApiError> {
        change(&state, &caller, &origin, id.0, body.0).await.map(Json)
    }

    /// Removes an account
    ///
    /// Needs the role manager. Its waiting jobs are cancelled; a message that is on its way is not called back. Jobs and
    /// sends of the past stay.
    #[oai(path = "/wechat-accounts/:id", method = "delete", operation_id = "delete_account")]
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
            let mut account = lock(conn, &caller, id.0).await?;
            account.deleted_at = Some(now);
            accounts::update(conn, &account).await?;
            Note::new("account.delete", "account", id.0)
                .before(facts(&account))
                .write(conn, &caller, &origin)
                .await
        })
        .await?;
        state.accounts.forget(&(id.0, caller.organization_id));
        // Not under the lane's lock, which would wait for relays that wait for these rows. What is left over if this
        // process dies here, and what other processes let in meanwhile, the gate stops.
        cancel_all_of_account(&state, &mut conn, &caller, &origin, id.0).await?;
        Ok(Deleted::Gone)
    }

    /// Pauses an account
    ///
    /// Needs the role agent. In force for every message whose call has not begun. Jobs are still accepted and wait.
    #[oai(path = "/wechat-accounts/:id/pause", method = "post", operation_id = "pause_account")]
    async fn pause(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        body: OptionalBody<PauseRequest>,
    ) -> Result<Json<AccountView>, ApiError> {
        caller.require(Role::Agent)?;
        let reason = reason(body.0)?;
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            lock(conn, &caller, id.0).await?;
            lanes::pause(conn, caller.organization_id, id.0, &reason).await?;
            Note::new("account.pause", "account", id.0)
                .after(json!({"reason": reason}))
                .write(conn, &caller, &origin)
                .await
        })
        .await?;
        Ok(Json(read(&mut conn, &caller, id.0).await?))
    }

    /// Resumes an account
    ///
    /// Needs the role agent. Also brings an account that is `OFFLINE` back to `ONLINE`, and one on `RISK_HOLD` if the
    /// caller is a manager or admin: somebody has looked at the phone.
    #[oai(path = "/wechat-accounts/:id/resume", method = "post", operation_id = "resume_account")]
    async fn resume(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
    ) -> Result<Json<AccountView>, ApiError> {
        caller.require(Role::Agent)?;
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            let mut account = lock(conn, &caller, id.0).await?;
            let before = json!({"status": account.status});
            bring_back(conn, &caller, &mut account).await?;
            lanes::resume(conn, caller.organization_id, id.0).await?;
            Note::new("account.resume", "account", id.0)
                .before(before)
                .after(json!({"status": account.status}))
                .write(conn, &caller, &origin)
                .await
        })
        .await?;
        state.waker.wake();
        Ok(Json(read(&mut conn, &caller, id.0).await?))
    }
}

/// Brings an account back that is logged out or on hold. For seven days after a hold its caps are halved.
async fn bring_back(conn: &mut Conn, caller: &Caller, account: &mut Account) -> Result<(), ApiError> {
    let held = account.status == "RISK_HOLD";
    if held && caller.role < Role::Manager {
        let detail =
            "WeChat has limited this account, or is about to. A manager has to look at it and resume it.";
        return Err(ApiError::forbidden("risk_hold_needs_manager", detail));
    }
    if !held && account.status != "OFFLINE" {
        return Ok(());
    }
    account.status = "ONLINE".into();
    accounts::update(conn, account).await?;
    accounts::note_login(conn, account.organization_id, account.id, true).await?;
    if held {
        risk::lift(conn, account.organization_id, account.id).await?;
    }
    Ok(())
}

async fn change(
    state: &AppState,
    caller: &Caller,
    origin: &Origin,
    id: Uuid,
    asked: UpdateAccount,
) -> Result<AccountView, ApiError> {
    caller.require(Role::Agent)?;
    let mut conn = state.db.conn().await?;
    conn.transaction(async |conn| {
        let mut account = lock(conn, caller, id).await?;
        let before = facts(&account);
        let fields = Fields {
            wxid: asked.wxid.clone(),
            nickname: asked.nickname.clone(),
            avatar: asked.avatar.clone(),
            gewe_app_id: asked.gewe_app_id.clone(),
            gewe_token_id: asked.gewe_token_id.clone(),
        };
        fields.put_into(&mut account, state)?;
        if let Some(limits) = &asked.limits {
            LimitsView::of(&account).changed(limits, caller.role, &state.ceilings)?.put_into(&mut account);
        }
        accounts::update(conn, &account).await.map_err(taken)?;
        let was = before["status"].as_str().unwrap_or_default();
        if was != account.status {
            let logged_in = account.status == "ONLINE";
            accounts::note_login(conn, account.organization_id, id, logged_in).await?;
        }
        if let Some(on) = asked.label_sync {
            accounts::choose_label_sync(conn, account.organization_id, id, on).await?;
        }
        if asked.status == Some(AskedStatus::Online) {
            let was_held = account.status == "RISK_HOLD";
            bring_back(conn, caller, &mut account).await?;
            if was_held {
                lanes::resume(conn, account.organization_id, id).await?;
            }
        }
        lanes::reconsider(conn, id).await?;
        Note::new("account.update", "account", id)
            .before(before)
            .after(facts(&account))
            .write(conn, caller, origin)
            .await
    })
    .await?;
    state.waker.wake();
    read(&mut conn, caller, id).await
}

/// Checks the reason for a pause.
pub(super) fn reason(request: PauseRequest) -> Result<String, ApiError> {
    let reason = request.reason.map_or_else(|| "paused by a person".into(), |Text(reason)| reason);
    if reason.chars().count() > 200 || reason.chars().any(char::is_control) {
        let message = "must have at most 200 characters and no control characters";
        return Err(ApiError::field("reason", "too_long", message));
    }
    Ok(reason)
}

async fn lock(conn: &mut Conn, caller: &Caller, id: Uuid) -> Result<Account, ApiError> {
    accounts::lock(conn, caller.organization_id, id).await?.ok_or_else(account_not_found)
}

async fn read(conn: &mut Conn, caller: &Caller, id: Uuid) -> Result<AccountView, ApiError> {
    let row = accounts::get(conn, caller.organization_id, id).await?.ok_or_else(account_not_found)?;
    let sent = accounts::sent(conn, &[id]).await?.pop();
    let house = House::read(conn, caller.organization_id).await?;
    Ok(view(row, sent, &house))
}

/// The answer for an account that is not there, or not ours.
pub(super) fn account_not_found() -> ApiError {
    ApiError::not_found("account_not_found", "Your organisation has no such account.")
}

fn taken(error: entropy_schema::Error) -> ApiError {
    match error.violated_constraint() {
        Some(accounts::WXID_KEY) => {
            ApiError::conflict("wxid_taken", "An account with this wxid exists already. Use that one.")
        }
        Some(accounts::APP_KEY) => ApiError::conflict(
            "app_id_taken",
            "Another account of yours uses this gewe_app_id. A device is one account's.",
        ),
        _ => error.into(),
    }
}

/// What the audit log keeps of an account.
fn facts(account: &Account) -> Value {
    json!({
        "wxid": account.wxid,
        "nickname": account.nickname,
        "gewe_app_id": account.gewe_app_id,
        "has_own_token": account.gewe_token_id.is_some(),
        "status": account.status,
        "limits": LimitsView::of(account),
    })
}

fn view(row: WithLane, sent: Option<Sent>, house: &House) -> AccountView {
    let WithLane { account, health, paused_at, paused_reason } = row;
    AccountView {
        warm_up: house.warm_up(&health),
        label_sync: health.label_sync,
        risk: risk_of(health),
        id: account.id,
        limits: LimitsView::of(&account),
        wxid: account.wxid,
        nickname: account.nickname,
        avatar: account.avatar,
        gewe_app_id: account.gewe_app_id,
        has_own_token: account.gewe_token_id.is_some(),
        status: account.status,
        paused: paused_at.is_some(),
        paused_at,
        paused_reason,
        sent: SentView {
            last_minute: sent.map_or(0, |sent| sent.last_minute),
            last_day: sent.map_or(0, |sent| sent.last_day),
        },
        user_id: account.user_id,
        last_seen_at: account.last_seen_at,
        created_at: account.created_at,
    }
}
