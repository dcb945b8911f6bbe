//! Keys: what they look like, what each may do, and how a refused one is told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Bound to one app; an app id that is sent with it is ignored.
    App,
    /// A member's; it may chat only with an app id beside it.
    Personal,
}

/// A key that was set through the control API.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    pub(crate) key: String,
    #[serde(default = "app_kind")]
    pub(crate) kind: Kind,
    #[serde(default)]
    pub(crate) app_id: Option<String>,
    /// The team has no points left.
    #[serde(default)]
    pub(crate) exhausted: bool,
}

fn app_kind() -> Kind {
    Kind::App
}

/// The keys that exist.
///
/// While none is set, every well-formed key is one, but `fastgpt-bad…` is unknown, `fastgpt-exhausted…`
/// has no points, and `fastgpt-personal…` is a personal one.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    known: BTreeMap<String, Key>,
}

/// Whom a call is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) key: String,
    pub(crate) kind: Kind,
    pub(crate) app_id: Option<String>,
    pub(crate) exhausted: bool,
}

/// Why FastGPT says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: u32,
    /// Empty for an error that has no name.
    pub(crate) status_text: String,
    pub(crate) message: String,
}

impl Refused {
    /// One of the errors that have a name.
    pub(crate) fn known(code: u32, status_text: &str) -> Self {
        let message = format!("common:code_error.error_message.{code}");
        Self { code, status_text: status_text.to_owned(), message }
    }

    /// An error that is only a text.
    pub(crate) fn text(message: &str) -> Self {
        Self { code: 500, status_text: String::new(), message: message.to_owned() }
    }

    pub(crate) fn points() -> Self {
        Self::known(500_004, "aiPointsNotEnough")
    }
}

impl Keys {
    pub(crate) fn set(&mut self, keys: Vec<Key>) {
        self.known = keys.into_iter().map(|key| (key.key.clone(), key)).collect();
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// Reads an `Authorization` header and says whose call it is.
    pub(crate) fn check(&self, authorization: Option<&str>) -> Result<Caller, Refused> {
        let malformed = || Refused::known(403, "unAuthorization");
        let text = authorization.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
        let text = text.filter(|text| !text.is_empty()).ok_or_else(malformed)?;
        let parts: Vec<_> = text.split('-').collect();
        let (key, suffix) = match parts.as_slice() {
            [prefix, random] if !prefix.is_empty() && !random.is_empty() => (text.to_owned(), None),
            [prefix, random, app] if !prefix.is_empty() && !random.is_empty() && !app.is_empty() => {
                (format!("{prefix}-{random}"), Some((*app).to_owned()))
            }
            _ => return Err(malformed()),
        };
        let random = parts.get(1).copied().unwrap_or_default();
        let (kind, own_app, exhausted) = match self.known.get(&key) {
            Some(known) => (known.kind, known.app_id.clone(), known.exhausted),
            None if !self.known.is_empty() || random.starts_with("bad") => {
                return Err(Refused::known(514, "unAuthApiKey"));
            }
            None if random.starts_with("personal") => (Kind::Personal, None, false),
            None => (Kind::App, None, random.starts_with("exhausted")),
        };
        let app_id = match kind {
            Kind::App => Some(own_app.unwrap_or_else(|| format!("app_{random}"))),
            Kind::Personal => suffix.or(own_app),
        };
        Ok(Caller { key, kind, app_id, exhausted })
    }
}

impl Caller {
    /// The app that a chat is with, given the `appId` of the body.
    pub(crate) fn app(&self, sent: Option<&str>) -> Result<String, Refused> {
        let sent = sent.filter(|sent| !sent.is_empty() && self.kind == Kind::Personal).map(str::to_owned);
        sent.or_else(|| self.app_id.clone()).ok_or_else(|| {
            Refused::text("Key is error. You need to use the app key rather than the account key.")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str) -> Result<Caller, u32> {
        Keys::default().check(Some(header)).map_err(|refused| refused.code)
    }

    #[test]
    fn a_key_has_two_parts_or_three() {
        assert_eq!(check("Bearer fastgpt-abc").unwrap().app_id.as_deref(), Some("app_abc"));
        assert_eq!(check("Bearer fastgpt-abc-other").unwrap().app_id.as_deref(), Some("app_abc"));
        for malformed in
            ["fastgpt-abc", "Bearer ", "Bearer fastgpt", "Bearer a-b-c-d", "Bearer -b", "Basic x"]
        {
            assert_eq!(check(malformed), Err(403), "{malformed}");
        }
        assert_eq!(check("Bearer fastgpt-bad1"), Err(514));
        assert!(check("Bearer fastgpt-exhausted").unwrap().exhausted);
    }

    #[test]
    fn a_personal_key_needs_an_app() {
        let personal = check("Bearer fastgpt-personal1").unwrap();
        assert!(personal.app(None).unwrap_err().message.contains("app key"));
        assert_eq!(personal.app(Some("a1")).as_deref(), Ok("a1"));
        assert_eq!(check("Bearer fastgpt-personal1-a2").unwrap().app(None).as_deref(), Ok("a2"));
    }

    #[test]
    fn keys_that_were_set_are_the_only_ones() {
        let mut keys = Keys::default();
        let key = Key { key: "fastgpt-bad".into(), kind: Kind::App, app_id: None, exhausted: false };
        keys.set(vec![key]);
        assert!(keys.check(Some("Bearer fastgpt-bad")).is_ok());
        assert_eq!(keys.check(Some("Bearer fastgpt-abc")).unwrap_err().status_text, "unAuthApiKey");
    }
}
