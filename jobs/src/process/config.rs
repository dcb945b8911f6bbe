//! Configuration from the environment, one struct per concern, read once at boot.
//!
//! A missing or wrong variable is an error of one line that names it and says what it should look like.

use std::fmt::Display;
use std::str::FromStr;

use anyhow::{Context, bail};

use crate::ai::endpoint::Endpoint;
use crate::secret::Secret;
use crate::vault::Vault;

/// Where the variables come from: the environment, or a map in tests.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads the process environment; an empty variable counts as not set.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// Addresses of the two servers that everything hangs on.
#[derive(Debug, Clone)]
pub struct Stores {
    /// `DATABASE_URL`: `postgres://user:password@host:port/database`.
    pub database_url: Secret,
    /// `REDIS_URL`: `redis://host:port`.
    pub redis_url: Secret,
    /// `REDIS_NAMESPACE`: start of every key, so that installs can share a server.
    pub namespace: String,
    /// `DATABASE_POOL_SIZE`: connections per process.
    pub pool_size: usize,
}

impl Stores {
    /// Reads the addresses.
    pub fn load(env: Lookup<'_>) -> anyhow::Result<Stores> {
        let database_url = required(env, "DATABASE_URL", "postgres://user:password@host:5432/entropy")?;
        if !(database_url.starts_with("postgres://") || database_url.starts_with("postgresql://")) {
            bail!("DATABASE_URL must start with postgres://");
        }
        let redis_url = required(env, "REDIS_URL", "redis://host:6379")?;
        if !(redis_url.starts_with("redis://") || redis_url.starts_with("rediss://")) {
            bail!("REDIS_URL must start with redis://");
        }
        let namespace = env("REDIS_NAMESPACE").unwrap_or_else(|| "entropy".into());
        if !namespace.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            bail!("REDIS_NAMESPACE may hold letters, digits, - and _ only");
        }
        let pool_size = parsed(env, "DATABASE_POOL_SIZE", 16, "a number of connections")?;
        if pool_size == 0 {
            bail!("DATABASE_POOL_SIZE must be at least 1");
        }
        Ok(Stores {
            database_url: Secret::new(database_url),
            redis_url: Secret::new(redis_url),
            namespace,
            pool_size,
        })
    }
}

/// Ceilings of this install, which no account's own limits can exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceilings {
    /// `MAX_MESSAGES_PER_MINUTE` of one account.
    pub messages_per_minute: i32,
    /// `MAX_API_CALLS_PER_HOUR` of one GeWe token.
    pub api_calls_per_hour: i32,
}

impl Ceilings {
    /// Reads the ceilings.
    pub fn load(env: Lookup<'_>) -> anyhow::Result<Ceilings> {
        let ceilings = Ceilings {
            messages_per_minute: parsed(env, "MAX_MESSAGES_PER_MINUTE", 40, "a positive number")?,
            api_calls_per_hour: parsed(env, "MAX_API_CALLS_PER_HOUR", 1000, "a positive number")?,
        };
        if ceilings.messages_per_minute < 1 || ceilings.api_calls_per_hour < 1 {
            bail!("MAX_MESSAGES_PER_MINUTE and MAX_API_CALLS_PER_HOUR must be at least 1");
        }
        Ok(ceilings)
    }
}

/// How workers reach GeWe.
#[derive(Debug, Clone)]
pub struct Gewe {
    /// `GEWE_API_ENDPOINT`: the whole prefix, such as `http://host/gewe/v2/api`.
    pub endpoint: String,
    /// `GEWE_TOKEN_ID`: the token of accounts that have none of their own.
    pub token: Option<Secret>,
}

impl Gewe {
    /// Reads the address and the token.
    pub fn load(env: Lookup<'_>) -> anyhow::Result<Gewe> {
        let endpoint = required(env, "GEWE_API_ENDPOINT", "http://host/gewe/v2/api")?;
        if !(endpoint.starts_with("http://") || endpoint.starts_with("https://")) {
            bail!("GEWE_API_ENDPOINT must start with http:// or https://");
        }
        Ok(Gewe { endpoint, token: env("GEWE_TOKEN_ID").map(Secret::new) })
    }
}

/// How workers reach FastGPT.
#[derive(Debug, Clone, Default)]
pub struct Fastgpt {
    /// `FASTGPT_API_ENDPOINT`: such as `https://cloud.fastgpt.cn/api`; none: only workflows with an address of their own
    /// can be asked.
    pub endpoint: Option<String>,
    /// `FASTGPT_API_KEY`: the key of the workflow that `entropy dev` begins with. Every other workflow brings its own.
    pub api_key: Option<Secret>,
}

impl Fastgpt {
    /// Reads the address and the key.
    pub fn load(env: Lookup<'_>) -> anyhow::Result<Fastgpt> {
        let endpoint = env("FASTGPT_API_ENDPOINT").map(|text| text.trim().to_owned());
        if let Some(endpoint) = &endpoint {
            // The address is not repeated: it may hold a password.
            Endpoint::parse(endpoint)
                .map_err(|problem| anyhow::anyhow!("FASTGPT_API_ENDPOINT: {problem}"))?;
        }
        Ok(Fastgpt { endpoint, api_key: env("FASTGPT_API_KEY").map(Secret::new) })
    }
}

/// How the provider proves itself when it calls us.
#[derive(Debug, Clone)]
pub struct Callbacks {
    /// `GEWE_CALLBACK_SECRET`: the end of the address that it calls. None: nobody may call.
    pub secret: Option<Secret>,
    /// `GEWE_CALLBACK_HEADER_SECRET`: what events carry in `Authorization`. None: they need nothing there.
    pub header_secret: Option<Secret>,
}

impl Callbacks {
    /// Reads the secrets.
    pub fn load(env: Lookup<'_>) -> anyhow::Result<Callbacks> {
        let secret = env("GEWE_CALLBACK_SECRET");
        if let Some(secret) = &secret {
            let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
            if secret.len() < 8 || !secret.bytes().all(fits) {
                bail!(
                    "GEWE_CALLBACK_SECRET must have at least 8 letters, digits, -, _, . or ~: it is part of an address"
                );
            }
        }
        let header_secret = env("GEWE_CALLBACK_HEADER_SECRET");
        if header_secret.is_some() && secret.is_none() {
            bail!("GEWE_CALLBACK_HEADER_SECRET is set, and GEWE_CALLBACK_SECRET is not");
        }
        Ok(Callbacks { secret: secret.map(Secret::new), header_secret: header_secret.map(Secret::new) })
    }
}

/// Where messages are searched.
#[derive(Debug, Clone)]
pub struct Search {
    /// `ELASTICSEARCH_URL`: `http://user:password@host:9200`. None: Postgres searches.
    pub url: Option<Secret>,
    /// The index of this install, named after `REDIS_NAMESPACE`.
    pub index: String,
}

impl Search {
    /// Reads the address.
    pub fn load(env: Lookup<'_>) -> anyhow::Result<Search> {
        let url = env("ELASTICSEARCH_URL");
        if url.as_ref().is_some_and(|url| !(url.starts_with("http://") || url.starts_with("https://"))) {
            bail!("ELASTICSEARCH_URL must start with http:// or https://");
        }
        let namespace = env("REDIS_NAMESPACE").unwrap_or_else(|| "entropy".into());
        // An index begins with neither of these, and knows no capitals.
        let namespace = namespace.to_lowercase().trim_start_matches(['-', '_']).to_owned();
        Ok(Search {
            url: url.map(Secret::new),
            index: format!("{namespace}-messages").trim_start_matches('-').to_owned(),
        })
    }
}

/// Media of messages.
#[derive(Debug, Clone)]
pub struct Media {
    /// `UPLOAD_PATH`: the folder in which they are kept.
    pub upload_path: std::path::PathBuf,
    /// `MAX_FILE_SIZE`: the longest that is kept, in bytes.
    pub max_file_size: u64,
    /// `PUBLIC_URL`: how others reach the API, such as `https://entropy.example.com`. None: only people get links, and no model.
    pub public_url: Option<String>,
    /// `BACKGROUND_GAP_MS`: the gap between calls of an account for which nobody waits.
    pub background_gap: std::time::Duration,
    /// `JWT_SECRET_KEY`, from which the key of links is derived.
    pub link_secret: Option<Secret>,
}

impl Media {
    /// Reads folder and limits.
    pub fn load(env: Lookup<'_>) -> anyhow::Result<Media> {
        let public_url = env("PUBLIC_URL").map(|url| url.trim().to_owned());
        if public_url.as_ref().is_some_and(|url| !(url.starts_with("http://") || url.starts_with("https://")))
        {
            bail!("PUBLIC_URL must start with http:// or https://");
        }
        let max_file_size = parsed(env, "MAX_FILE_SIZE", 20 << 20, "a number of bytes")?;
        if !(1..=1 << 30).contains(&max_file_size) {
            bail!("MAX_FILE_SIZE must lie between 1 and 1073741824");
        }
        let gap = parsed(env, "BACKGROUND_GAP_MS", 3000, "a number of milliseconds")?;
        if gap > 600_000_u64 {
            bail!("BACKGROUND_GAP_MS must be at most 600000");
        }
        Ok(Media {
            upload_path: env("UPLOAD_PATH").unwrap_or_else(|| "./uploads".into()).into(),
            max_file_size,
            public_url,
            background_gap: std::time::Duration::from_millis(gap),
            link_secret: env("JWT_SECRET_KEY").map(Secret::new),
        })
    }

    /// Returns where media are kept.
    pub fn store(&self) -> crate::media::Store {
        crate::media::Store::new(&self.upload_path, self.max_file_size)
    }

    /// Returns what makes links to them.
    pub fn links(&self) -> Option<crate::media::Links> {
        let secret = self.link_secret.as_ref()?;
        Some(crate::media::Links::new(secret, self.public_url.clone()))
    }
}

/// Who may register a new organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Anybody.
    Open,
    /// Nobody; `entropy admin create-user` still can.
    Closed,
}

/// The HTTP side.
#[derive(Debug, Clone)]
pub struct Http {
    /// `BIND`: address and port.
    pub bind: std::net::SocketAddr,
    /// `JWT_SECRET_KEY`: signs the tokens of people who logged in.
    pub jwt_secret: Secret,
    /// `JWT_ALGORITHM`: HS256, HS384 or HS512.
    pub jwt_algorithm: String,
    /// `JWT_EXPIRE_HOURS`: how long a login lasts.
    pub jwt_hours: i64,
    /// `REGISTRATION`: open or closed.
    pub registration: Registration,
    /// `PLATFORM_ORGANIZATION`: the organisation whose admins may change what belongs to the whole install. None: the first one.
    pub platform_organization: Option<uuid::Uuid>,
}

impl Http {
    /// Reads the HTTP side's variables.
    pub fn load(env: Lookup<'_>) -> anyhow::Result<Http> {
        let jwt_secret = required(env, "JWT_SECRET_KEY", "at least 8 characters, better 32 random ones")?;
        if jwt_secret.chars().count() < 8 {
            bail!("JWT_SECRET_KEY is too short: at least 8 characters, better 32 random ones");
        }
        let jwt_algorithm = env("JWT_ALGORITHM").unwrap_or_else(|| "HS256".into());
        if !["HS256", "HS384", "HS512"].contains(&jwt_algorithm.as_str()) {
            bail!("JWT_ALGORITHM must be HS256, HS384 or HS512");
        }
        let jwt_hours = parsed(env, "JWT_EXPIRE_HOURS", 24, "a number of hours")?;
        if !(1..=24 * 365).contains(&jwt_hours) {
            bail!("JWT_EXPIRE_HOURS must lie between 1 and 8760");
        }
        let registration = match env("REGISTRATION").as_deref() {
            None | Some("open") => Registration::Open,
            Some("closed") => Registration::Closed,
            Some(_) => bail!("REGISTRATION must be open or closed"),
        };
        let platform_organization = match env("PLATFORM_ORGANIZATION") {
            None => None,
            // Its id: a name may be taken by somebody else.
            Some(id) => {
                Some(id.trim().parse().context("PLATFORM_ORGANIZATION must be the id of an organisation")?)
            }
        };
        Ok(Http {
            bind: parsed(env, "BIND", ([127, 0, 0, 1], 8000).into(), "an address such as 127.0.0.1:8000")?,
            jwt_secret: Secret::new(jwt_secret),
            jwt_algorithm,
            jwt_hours,
            registration,
            platform_organization,
        })
    }
}

/// Returns the vault that seals provider tokens: `ENCRYPTION_KEY`, or a key derived from `JWT_SECRET_KEY`.
///
/// None: neither is set, and only the token of the install can be used.
pub fn vault(env: Lookup<'_>) -> anyhow::Result<Option<Vault>> {
    use base64::Engine;
    if let Some(key) = env("ENCRYPTION_KEY") {
        let vault = Vault::from_base64_key(&key).context("ENCRYPTION_KEY must be 32 bytes in base64")?;
        return Ok(Some(vault));
    }
    let Some(secret) = env("JWT_SECRET_KEY") else { return Ok(None) };
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    let derived = ring::hmac::sign(&key, b"entropy: key of the vault");
    let vault = Vault::from_base64_key(&base64::engine::general_purpose::STANDARD.encode(derived.as_ref()))?;
    Ok(Some(vault))
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

impl LogFormat {
    /// Reads `LOG_FORMAT`.
    pub fn load(env: Lookup<'_>) -> anyhow::Result<LogFormat> {
        match env("LOG_FORMAT").as_deref() {
            None | Some("text") => Ok(LogFormat::Text),
            Some("json") => Ok(LogFormat::Json),
            Some(_) => bail!("LOG_FORMAT must be json or text"),
        }
    }
}

fn required(env: Lookup<'_>, name: &str, example: &str) -> anyhow::Result<String> {
    env(name).with_context(|| format!("{name} is not set (example: {example})"))
}

fn parsed<T: FromStr>(env: Lookup<'_>, name: &str, default: T, what: &str) -> anyhow::Result<T>
where
    T::Err: Display,
{
    match env(name) {
        None => Ok(default),
        Some(text) => {
            text.trim().parse().map_err(|error: T::Err| anyhow::anyhow!("{name} must be {what}: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(result: anyhow::Result<impl std::fmt::Debug>) -> String {
        format!("{:#}", result.expect_err("the configuration is wrong"))
    }

    #[test]
    fn a_missing_or_wrong_variable_is_named_in_one_line() {
        let nothing = |_: &str| None;
        assert!(message(Stores::load(&nothing)).contains("DATABASE_URL"));
        assert!(message(Http::load(&nothing)).contains("JWT_SECRET_KEY"));
        assert!(message(Gewe::load(&nothing)).contains("GEWE_API_ENDPOINT"));
        let wrong = |name: &str| (name == "MAX_MESSAGES_PER_MINUTE").then(|| "viele".to_owned());
        let text = message(Ceilings::load(&wrong));
        assert!(text.contains("MAX_MESSAGES_PER_MINUTE") && !text.contains('\n'), "{text}");
    }

    #[test]
    fn a_pool_without_connections_is_refused() {
        let with = |size: &'static str| {
            move |name: &str| match name {
                "DATABASE_URL" => Some("postgres://db/entropy".to_owned()),
                "REDIS_URL" => Some("redis://redis".to_owned()),
                "DATABASE_POOL_SIZE" => Some(size.to_owned()),
                _ => None,
            }
        };
        assert!(message(Stores::load(&with("0"))).contains("DATABASE_POOL_SIZE"));
        assert_eq!(Stores::load(&with("1")).expect("one connection").pool_size, 1);
    }

    #[test]
    fn the_organisation_that_runs_the_install_is_named_by_its_id() {
        let with = |id: &'static str| {
            move |name: &str| match name {
                "JWT_SECRET_KEY" => Some("a secret of some length".to_owned()),
                "PLATFORM_ORGANIZATION" => Some(id.to_owned()),
                _ => None,
            }
        };
        assert!(message(Http::load(&with("熵变销售"))).contains("PLATFORM_ORGANIZATION"));
        let id = "0190aaaa-0000-7000-8000-000000000001";
        let named = Http::load(&with(id)).expect("an id").platform_organization;
        assert_eq!(named, Some(id.parse().expect("an id")));
    }

    #[test]
    fn an_install_without_fastgpt_is_whole_and_a_wrong_address_is_named() {
        assert!(Fastgpt::load(&|_| None).expect("nothing is needed").endpoint.is_none());
        let wrong =
            |name: &str| (name == "FASTGPT_API_ENDPOINT").then(|| "http://me:hunter2@host/api".to_owned());
        let text = message(Fastgpt::load(&wrong));
        assert!(text.contains("FASTGPT_API_ENDPOINT") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn a_callback_secret_is_long_enough_and_fits_into_an_address() {
        let with = |secret: &'static str| {
            move |name: &str| (name == "GEWE_CALLBACK_SECRET").then(|| secret.to_owned())
        };
        for bad in ["short", "with/slash-in-it", "mit leerzeichen", "秘密秘密秘密秘密"] {
            let text = message(Callbacks::load(&with(bad)));
            assert!(text.contains("GEWE_CALLBACK_SECRET") && !text.contains(bad), "{text}");
        }
        assert!(Callbacks::load(&with("geheim-1234")).expect("fits").secret.is_some());
        assert!(Callbacks::load(&|_| None).expect("none").secret.is_none());
        let header = |name: &str| (name == "GEWE_CALLBACK_HEADER_SECRET").then(|| "geheim".to_owned());
        assert!(message(Callbacks::load(&header)).contains("GEWE_CALLBACK_SECRET"));
    }

    #[test]
    fn an_error_does_not_repeat_a_secret() {
        let wrong = |name: &str| (name == "DATABASE_URL").then(|| "mysql://root:hunter2@db".to_owned());
        assert!(!message(Stores::load(&wrong)).contains("hunter2"));
    }

    #[test]
    fn defaults_are_those_of_the_manual() {
        let nothing = |_: &str| None;
        let ceilings = Ceilings::load(&nothing).expect("defaults");
        assert_eq!(ceilings, Ceilings { messages_per_minute: 40, api_calls_per_hour: 1000 });
    }
}
