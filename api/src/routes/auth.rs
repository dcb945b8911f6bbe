//! Register, log in, and who am I.

use diesel_async::AsyncConnection;
use entropy_jobs::process::config::Registration;
use entropy_jobs::secret::Secret;
use entropy_schema::users::{self, User};
use poem::web::Data;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde_json::json;
use uuid::Uuid;

use super::Tag;
use super::audit::Note;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::passwords;
use crate::auth::role::Role;
use crate::auth::throttle::Subjects;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::http::text::Text;
use crate::problem::{ApiError, FieldProblem};

/// A new organisation and its first person.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct RegisterRequest {
    /// Name of the organisation, up to 100 characters.
    organization: Text,
    /// 3 to 64 characters without spaces; unique in this install, whatever its case.
    username: Text,
    /// 8 to 200 characters.
    password: Text,
}

/// Somebody who wants in.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct LoginRequest {
    username: Text,
    password: Text,
}

/// A person.
#[derive(Debug, Object)]
struct MeView {
    id: Uuid,
    username: String,
    role: Role,
    organization_id: Uuid,
}

/// An access token and whose it is.
#[derive(Debug, Object)]
struct TokenView {
    /// Send it as `Authorization: Bearer <access_token>`.
    access_token: String,
    /// Always `bearer`.
    token_type: String,
    /// Seconds until it expires.
    expires_in: i64,
    user: MeView,
}

#[derive(ApiResponse)]
enum Registered {
    /// The organisation exists and its first person, an admin, is logged in.
    #[oai(status = 201)]
    Created(Json<TokenView>),
}

/// Organisations and logging in.
pub(super) struct Auth;

#[OpenApi(tag = "Tag::Auth")]
impl Auth {
    /// Registers an organisation
    ///
    /// Makes a new organisation whose first person is its admin, and logs that person in. Answers 403 with the code
    /// `registration_closed` on an install that keeps to itself, and 409 if the username is taken.
    #[oai(path = "/auth/register", method = "post", operation_id = "register")]
    async fn register(
        &self,
        state: Data<&AppState>,
        origin: Origin,
        body: Body<RegisterRequest>,
    ) -> Result<Registered, ApiError> {
        if state.http.registration == Registration::Closed {
            let detail = "This install does not take new organisations. Ask its operator for a login.";
            return Err(ApiError::forbidden("registration_closed", detail));
        }
        let RegisterRequest { organization, username: Text(username), password: Text(password) } = body.0;
        let organization = organization.trim().to_owned();
        check_new(Some(&organization), &username, &password)?;
        let hashed_password = state.passwords.turn().await?.hash(Secret::new(password)).await?;
        let user = User {
            id: Uuid::now_v7(),
            organization_id: Uuid::now_v7(),
            username,
            hashed_password,
            role: Role::Admin.as_str().to_owned(),
            is_active: true,
            created_at: state.now().await,
        };
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            users::create_organization(conn, user.organization_id, &organization).await?;
            users::insert(conn, &user).await.map_err(taken)?;
            Note::new("organization.register", "organization", user.organization_id)
                .after(json!({"name": organization, "username": user.username}))
                .write_as(conn, user.organization_id, Some(user.id), &origin)
                .await
        })
        .await?;
        Ok(Registered::Created(Json(token(&state, user)?)))
    }

    /// Logs in
    ///
    /// Answers 401 for an unknown name and a wrong password alike. After five failures of one name in five minutes (or
    /// thirty from one address) it answers 429 with `Retry-After`.
    #[oai(path = "/auth/login", method = "post", operation_id = "login")]
    async fn login(
        &self,
        state: Data<&AppState>,
        origin: Origin,
        body: Body<LoginRequest>,
    ) -> Result<Json<TokenView>, ApiError> {
        let LoginRequest { username: Text(username), password: Text(password) } = body.0;
        // What cannot be anybody's is not worth a hash, and must not become a row.
        if passwords::username_problem(&username).is_some() || password.chars().count() > 200 {
            return Err(wrong_credentials());
        }
        let subjects = Subjects::new(&username, origin.address.as_deref());
        let turn = state.passwords.turn().await?;
        let user = {
            let mut conn = state.db.conn().await?;
            subjects.check(&mut conn).await?;
            users::by_username(&mut conn, &username).await?
        };
        let hashed = user.as_ref().map(|user| user.hashed_password.clone());
        let right = turn.verify(Secret::new(password), hashed).await?;
        let mut conn = state.db.conn().await?;
        match user {
            Some(user) if right && user.is_active => {
                conn.transaction(async |conn| {
                    subjects.succeeded(conn).await?;
                    Note::new("user.login", "user", user.id)
                        .write_as(conn, user.organization_id, Some(user.id), &origin)
                        .await
                })
                .await?;
                Ok(Json(token(&state, user)?))
            }
            user => {
                conn.transaction(async |conn| {
                    subjects.failed(conn).await?;
                    if let Some(user) = &user {
                        Note::new("user.login_failed", "user", user.id)
                            .write_as(conn, user.organization_id, None, &origin)
                            .await?;
                    }
                    Ok::<_, ApiError>(())
                })
                .await?;
                Err(wrong_credentials())
            }
        }
    }

    /// Says who is logged in
    ///
    /// Role and organisation as they are now, not as they were when the token was issued.
    #[oai(path = "/auth/me", method = "get", operation_id = "me")]
    async fn me(&self, caller: Caller) -> Json<MeView> {
        Json(MeView {
            id: caller.id,
            username: caller.username,
            role: caller.role,
            organization_id: caller.organization_id,
        })
    }
}

fn token(state: &AppState, user: User) -> Result<TokenView, ApiError> {
    let role: Role = user.role.parse().map_err(ApiError::internal)?;
    Ok(TokenView {
        access_token: state.tokens.issue(user.id, user.organization_id, role)?,
        token_type: "bearer".to_owned(),
        expires_in: state.tokens.lifetime_s(),
        user: MeView { id: user.id, username: user.username, role, organization_id: user.organization_id },
    })
}

fn wrong_credentials() -> ApiError {
    ApiError::unauthenticated("invalid_credentials", "The username or the password is wrong.")
}

/// Checks the names and the password of somebody new.
pub(super) fn check_new(organization: Option<&str>, username: &str, password: &str) -> Result<(), ApiError> {
    let mut problems = Vec::new();
    let bad = |name: &str| !(1..=100).contains(&name.chars().count()) || name.chars().any(char::is_control);
    if organization.is_some_and(bad) {
        let message = "must have 1 to 100 characters and no control characters";
        problems.push(FieldProblem::new("organization", "bad_name", message));
    }
    if let Some(problem) = passwords::username_problem(username) {
        problems.push(FieldProblem::new("username", "bad_username", problem));
    }
    if let Some(problem) = passwords::problem(password) {
        problems.push(FieldProblem::new("password", "bad_password", problem));
    }
    if problems.is_empty() { Ok(()) } else { Err(ApiError::unprocessable(problems)) }
}

/// Turns the violated constraint of a taken username into an answer.
pub(super) fn taken(error: entropy_schema::Error) -> ApiError {
    if error.violated_constraint() == Some(users::USERNAME_KEY) {
        return ApiError::conflict("username_taken", "That username is taken. Choose another one.");
    }
    error.into()
}
