//! Access tokens: JWTs that say who somebody is. What they may do is read from the database at each request.

use anyhow::{Context, bail};
use chrono::Utc;
use entropy_jobs::process::config::Http;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::role::Role;
use crate::problem::ApiError;

/// What a token says.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: Uuid,
    org: Uuid,
    role: String,
    iat: i64,
    exp: i64,
}

/// Issues and reads tokens.
pub(crate) struct Tokens {
    header: Header,
    validation: Validation,
    encoding: EncodingKey,
    decoding: DecodingKey,
    lifetime_s: i64,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("algorithm", &self.header.alg).finish_non_exhaustive()
    }
}

impl Tokens {
    /// Takes key, algorithm and lifetime from the configuration.
    pub(crate) fn new(http: &Http) -> anyhow::Result<Tokens> {
        let algorithm: Algorithm = http.jwt_algorithm.parse().context("JWT_ALGORITHM is not known")?;
        if !matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) {
            bail!("JWT_ALGORITHM must be HS256, HS384 or HS512");
        }
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp", "sub"]);
        validation.leeway = 0;
        let key = http.jwt_secret.expose().as_bytes();
        Ok(Tokens {
            header: Header::new(algorithm),
            validation,
            encoding: EncodingKey::from_secret(key),
            decoding: DecodingKey::from_secret(key),
            lifetime_s: http.jwt_hours * 3600,
        })
    }

    /// Seconds for which a token is good.
    pub(crate) fn lifetime_s(&self) -> i64 {
        self.lifetime_s
    }

    /// Issues a token.
    pub(crate) fn issue(&self, user: Uuid, organization: Uuid, role: Role) -> Result<String, ApiError> {
        let iat = Utc::now().timestamp();
        let claims = Claims {
            sub: user,
            org: organization,
            role: role.as_str().into(),
            iat,
            exp: iat + self.lifetime_s,
        };
        jsonwebtoken::encode(&self.header, &claims, &self.encoding).map_err(ApiError::internal)
    }

    /// Returns whose token it is. An expired one has its own code, since it only takes a new login.
    pub(crate) fn read(&self, token: &str) -> Result<Uuid, ApiError> {
        match jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation) {
            Ok(data) => Ok(data.claims.sub),
            Err(error) if *error.kind() == ErrorKind::ExpiredSignature => {
                Err(ApiError::unauthenticated("token_expired", "The access token has expired. Log in again."))
            }
            Err(_) => Err(unauthenticated()),
        }
    }
}

/// The answer to a request without a good token.
pub(crate) fn unauthenticated() -> ApiError {
    ApiError::unauthenticated(
        "unauthenticated",
        "Log in with POST /api/v1/auth/login and send the token as `Authorization: Bearer <token>`.",
    )
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use entropy_jobs::process::config::Registration;
    use entropy_jobs::secret::Secret;

    use super::*;

    fn tokens(secret: &str, hours: i64) -> Tokens {
        Tokens::new(&Http {
            bind: ([127, 0, 0, 1], 0).into(),
            jwt_secret: Secret::new(secret),
            jwt_algorithm: "HS256".into(),
            jwt_hours: hours,
            registration: Registration::Open,
            platform_organization: None,
        })
        .expect("a configuration")
    }

    fn code(result: Result<Uuid, ApiError>) -> &'static str {
        result.map_or_else(|error| error.code(), |_| "accepted")
    }

    #[test]
    fn a_token_is_good_until_it_expires() {
        let user = Uuid::now_v7();
        let good = tokens("secret-secret", 1);
        let token = good.issue(user, Uuid::nil(), Role::Agent).expect("a token");
        assert_eq!(good.read(&token).ok(), Some(user));
        let old = tokens("secret-secret", -1).issue(user, Uuid::nil(), Role::Agent).expect("a token");
        assert_eq!(code(good.read(&old)), "token_expired");
    }

    #[test]
    fn forged_tokens_are_refused() {
        let good = tokens("secret-secret", 1);
        let other =
            tokens("other-secret", 1).issue(Uuid::now_v7(), Uuid::nil(), Role::Admin).expect("a token");
        assert_eq!(code(good.read(&other)), "unauthenticated");
        assert_eq!(code(good.read("")), "unauthenticated");
        let claims = other.split('.').nth(1).expect("claims");
        let unsigned = format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"none"}"#));
        assert_eq!(code(good.read(&unsigned)), "unauthenticated");
        let head = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"HS512"}"#);
        let signature = other.split('.').nth(2).expect("a signature");
        assert_eq!(code(good.read(&format!("{head}.{claims}.{signature}"))), "unauthenticated");
    }
}
