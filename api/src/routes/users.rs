//! The people of an organisation.

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_jobs::secret::Secret;
use entropy_schema::users::{self, User};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde_json::json;
use uuid::Uuid;

use super::Tag;
use super::audit::Note;
use super::auth::{check_new, taken};
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::passwords;
use crate::auth::role::Role;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::http::text::Text;
use crate::page::{Ask, Page};
use crate::problem::ApiError;

/// A person of the organisation.
#[derive(Debug, Object)]
struct UserView {
    id: Uuid,
    username: String,
    role: Role,
    /// False: may not log in.
    is_active: bool,
    created_at: DateTime<Utc>,
}

/// A new person.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct CreateUser {
    /// 3 to 64 characters without spaces; unique in this install, whatever its case.
    username: Text,
    /// 8 to 200 characters.
    password: Text,
    role: Role,
}

/// What to change; what is left out stays.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct UpdateUser {
    role: Option<Role>,
    /// False: may not log in, and tokens issued before count no more.
    is_active: Option<bool>,
    /// 8 to 200 characters.
    password: Option<Text>,
}

#[derive(ApiResponse)]
enum Created {
    /// The person may log in.
    #[oai(status = 201)]
    Created(Json<UserView>),
}

/// People.
pub(super) struct Users;

#[OpenApi(tag = "Tag::Auth")]
impl Users {
    /// Lists the organisation's people
    ///
    /// Newest first. Needs the role admin.
    #[oai(path = "/users", method = "get", operation_id = "list_users")]
    async fn list(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<UserView>>, ApiError> {
        caller.require(Role::Admin)?;
        let ask = Ask::new(limit.0, cursor.0.as_deref())?;
        let mut conn = state.db.conn().await?;
        let people = users::list(&mut conn, caller.organization_id, ask.before, ask.fetch()).await?;
        Ok(Json(ask.page(people, |user| user.id, view)))
    }

    /// Adds a person
    ///
    /// Needs the role admin. Answers 409 if the username is taken.
    #[oai(path = "/users", method = "post", operation_id = "create_user")]
    async fn create(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        body: Body<CreateUser>,
    ) -> Result<Created, ApiError> {
        caller.require(Role::Admin)?;
        let CreateUser { username: Text(username), password: Text(password), role } = body.0;
        check_new(None, &username, &password)?;
        let user = User {
            id: Uuid::now_v7(),
            organization_id: caller.organization_id,
            username,
            hashed_password: state.passwords.turn().await?.hash(Secret::new(password)).await?,
            role: role.as_str().to_owned(),
            is_active: true,
            created_at: state.now().await,
        };
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            users::insert(conn, &user).await.map_err(taken)?;
            Note::new("user.create", "user", user.id)
                .after(json!({"username": user.username, "role": user.role}))
                .write(conn, &caller, &origin)
                .await
        })
        .await?;
        Ok(Created::Created(Json(view(user))))
    }

    /// Changes a person's role, standing or password
    ///
    /// Needs the role admin. In force at once in the process that was asked, within ten seconds in others. Answers 409
    /// with the code `last_admin` to what would leave the organisation without an active admin.
    #[oai(path = "/users/:id", method = "put", operation_id = "update_user")]
    async fn update(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        body: Body<UpdateUser>,
    ) -> Result<Json<UserView>, ApiError> {
        caller.require(Role::Admin)?;
        let UpdateUser { role, is_active, password } = body.0;
        let password = password.map(|Text(password)| password);
        if let Some(problem) = password.as_deref().and_then(passwords::problem) {
            return Err(ApiError::field("password", "bad_password", problem));
        }
        let hashed = match password {
            Some(password) => Some(state.passwords.turn().await?.hash(Secret::new(password)).await?),
            None => None,
        };
        let mut conn = state.db.conn().await?;
        let user = conn
            .transaction(async |conn| {
                let people = users::lock_all(conn, caller.organization_id).await?;
                let admin = |user: &User| user.is_active && user.role == Role::Admin.as_str();
                let admin_left = people.iter().any(|user| user.id != id.0 && admin(user));
                let Some(mut user) = people.into_iter().find(|user| user.id == id.0) else {
                    return Err(ApiError::not_found("user_not_found", "Your organisation has no such person."));
                };
                let before = json!({"role": user.role, "is_active": user.is_active});
                user.role = role.map_or(user.role, |role| role.as_str().to_owned());
                user.is_active = is_active.unwrap_or(user.is_active);
                if !admin_left && !admin(&user) {
                    let detail = "This would leave the organisation without an active admin. Name another one first.";
                    return Err(ApiError::conflict("last_admin", detail));
                }
                users::set_standing(conn, user.id, &user.role, user.is_active).await?;
                if let Some(hashed) = &hashed {
                    users::set_password(conn, user.id, hashed).await?;
                }
                let after =
                    json!({"role": user.role, "is_active": user.is_active, "password_changed": hashed.is_some()});
                Note::new("user.update", "user", user.id)
                    .before(before)
                    .after(after)
                    .write(conn, &caller, &origin)
                    .await?;
                Ok(user)
            })
            .await?;
        state.callers.forget(&user.id);
        Ok(Json(view(user)))
    }
}

fn view(user: User) -> UserView {
    UserView {
        id: user.id,
        // A role that this build does not know may do nothing but read.
        role: user.role.parse().unwrap_or(Role::Viewer),
        username: user.username,
        is_active: user.is_active,
        created_at: user.created_at,
    }
}
