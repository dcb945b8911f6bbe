//! The environment.

use std::collections::HashMap;

use entropy_jobs::process::config::{self, Ceilings, Fastgpt, Gewe, Http, LogFormat, Lookup, Stores};

use super::assert_is_a_short_line;

/// What must never be repeated, in a log least of all.
const SECRETS: [&str; 7] = [
    "DATABASE_URL",
    "REDIS_URL",
    "JWT_SECRET_KEY",
    "ENCRYPTION_KEY",
    "GEWE_TOKEN_ID",
    "FASTGPT_API_ENDPOINT",
    "FASTGPT_API_KEY",
];

/// Stands in no sentence of ours.
const MARK: &str = "密码熵变";

/// Lines of `NAME=value`.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let variables: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let given = |name: &str| variables.get(name).copied().filter(|value| !value.trim().is_empty());
    read(&|name| given(name).map(str::to_owned));
    // Once more, with secrets that are known again when they are repeated.
    read(&|name| {
        given(name)
            .map(|value| if SECRETS.contains(&name) { format!("{value}{MARK}") } else { value.to_owned() })
    });
}

fn read(env: Lookup<'_>) {
    let refused = |error: Option<String>| {
        let Some(said) = error else { return };
        assert_is_a_short_line(&said, 300);
        assert!(!said.contains(MARK), "a secret is repeated: {said}");
    };
    let stores = Stores::load(env);
    if let Ok(stores) = &stores {
        assert!(stores.pool_size > 0, "a pool without connections serves nobody");
        assert!(stores.namespace.is_ascii() && !stores.namespace.is_empty());
        let printed = format!("{stores:?}");
        assert!(!printed.contains(stores.database_url.expose()), "{printed}");
    }
    refused(stores.err().map(printed));
    let http = Http::load(env);
    if let Ok(http) = &http {
        assert!((1..=8760).contains(&http.jwt_hours) && http.jwt_secret.expose().chars().count() >= 8);
    }
    refused(http.err().map(printed));
    let ceilings = Ceilings::load(env);
    if let Ok(ceilings) = &ceilings {
        assert!(ceilings.messages_per_minute > 0 && ceilings.api_calls_per_hour > 0);
    }
    refused(ceilings.err().map(printed));
    refused(Fastgpt::load(env).err().map(printed));
    refused(Gewe::load(env).err().map(printed));
    refused(LogFormat::load(env).err().map(printed));
    if let Ok(Some(vault)) = config::vault(env) {
        let token = entropy_jobs::secret::Secret::new("令牌");
        let sealed = vault.seal(&token, "org:1");
        assert_eq!(vault.open(&sealed, "org:1").expect("opened").expose(), "令牌");
        assert!(vault.open(&sealed, "org:2").is_err());
    }
    refused(config::vault(env).err().map(printed));
}

/// An error with its causes, as the program prints it at its end.
fn printed(error: impl std::fmt::Display) -> String {
    format!("{error:#}")
}
