//! The person behind a request, and the check that they are still welcome.

use poem::http::header;
use poem::{Request, RequestBody, Result};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use uuid::Uuid;

use super::role::Role;
use super::tokens::unauthenticated;
use crate::AppState;
use crate::problem::ApiError;

const SCHEME: &str = "Bearer";

/// Who calls. Extracting it answers 401 to everybody else.
///
/// Role and standing are those of the database, at most ten seconds old in a process that did not change them itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The person.
    pub id: Uuid,
    /// Their tenant: every query is bound to it.
    pub organization_id: Uuid,
    /// What they may do.
    pub role: Role,
    /// Their name.
    pub username: String,
}

impl Caller {
    /// Lets nobody below `role` pass.
    pub(crate) fn require(&self, role: Role) -> Result<(), ApiError> {
        if self.role >= role {
            return Ok(());
        }
        let detail = format!(
            "This needs the role {}; yours is {}. Ask an admin of your organisation.",
            role.as_str(),
            self.role.as_str()
        );
        Err(ApiError::forbidden("forbidden", detail))
    }
}

impl<'a> ApiExtractor<'a> for Caller {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        registry.create_security_scheme(
            SCHEME,
            MetaSecurityScheme {
                ty: "http",
                description: Some("The access token that logging in or registering returns."),
                name: None,
                key_in: None,
                scheme: Some("bearer"),
                bearer_format: Some("JWT"),
                flows: None,
                openid_connect_url: None,
            },
        );
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![SCHEME]
    }

    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> Result<Self> {
        let state =
            request.data::<AppState>().ok_or_else(|| ApiError::internal("no state in the request"))?;
        let token = request.header(header::AUTHORIZATION).and_then(bearer).ok_or_else(unauthenticated)?;
        Ok(find(state, state.tokens.read(token)?).await?)
    }
}

pub(crate) fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

async fn find(state: &AppState, id: Uuid) -> Result<Caller, ApiError> {
    if let Some(caller) = state.callers.get(&id) {
        return Ok(caller);
    }
    let mut conn = state.db.conn().await?;
    let user = entropy_schema::users::by_id(&mut conn, id).await?;
    let user = user.filter(|user| user.is_active).ok_or_else(unauthenticated)?;
    let caller = Caller {
        id,
        organization_id: user.organization_id,
        role: user.role.parse().map_err(ApiError::internal)?,
        username: user.username,
    };
    state.callers.put(id, caller.clone());
    Ok(caller)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc"), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("abc"), None);
    }
}
