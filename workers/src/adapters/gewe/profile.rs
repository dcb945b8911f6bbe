//! The two deployments of GeWe and the two facts in which they differ for us.

use anyhow::{Context as _, ensure};
use reqwest::Url;

/// Which GeWe answers at an address.
///
/// | | hosted | self-hosted |
/// |---|---|---|
/// | path of the address | ends in `/gewe/v2/api` | ends in `/v2/api` |
/// | route that sets the callback | `/login/setCallback` | `/tools/setCallback` |
/// | `fileUrl` of a download | absolute and signed | relative to `http://<host>:2532/download/` |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// The vendor's service.
    Hosted,
    /// The free image on a machine of one's own.
    SelfHosted,
}

impl Profile {
    /// Reads the profile from the address of the API.
    pub fn of(base_url: &Url) -> anyhow::Result<Self> {
        let path = base_url.path().trim_end_matches('/');
        ensure!(
            path.ends_with("/v2/api"),
            "the GeWe address must end in /gewe/v2/api (hosted) or /v2/api (self-hosted)"
        );
        Ok(if path.ends_with("/gewe/v2/api") { Self::Hosted } else { Self::SelfHosted })
    }

    /// Returns the route that sets the callback address of a token.
    pub fn set_callback_route(self) -> &'static str {
        match self {
            Self::Hosted => "/login/setCallback",
            Self::SelfHosted => "/tools/setCallback",
        }
    }

    /// Returns where the file is that a download answer names in `fileUrl`.
    ///
    /// An absolute address is taken as it is in both profiles.
    pub fn download_url(self, base_url: &Url, file_url: &str) -> anyhow::Result<Url> {
        match (Url::parse(file_url), self) {
            (Ok(url), _) => {
                ensure!(matches!(url.scheme(), "http" | "https"), "the download address is not http(s)");
                Ok(url)
            }
            (Err(_), Self::Hosted) => anyhow::bail!("the download address is not absolute"),
            (Err(_), Self::SelfHosted) => {
                let mut url = base_url.clone();
                ensure!(
                    url.set_scheme("http").is_ok() && url.set_port(Some(2532)).is_ok(),
                    "the GeWe address has no host for downloads"
                );
                // Set as a path, so that an answer such as `//other-host/` cannot change the host.
                url.set_path(&format!("/download/{}", file_url.trim_start_matches('/')));
                Ok(url)
            }
        }
    }
}

/// Reads the address of the API as the operator wrote it.
pub(super) fn parse_base_url(text: &str) -> anyhow::Result<Url> {
    // The text itself stays out of the error: it may carry a password.
    let url = Url::parse(text.trim()).context("the GeWe address is not a URL")?;
    ensure!(matches!(url.scheme(), "http" | "https"), "the GeWe address must begin with http:// or https://");
    ensure!(
        url.username().is_empty() && url.password().is_none(),
        "the GeWe address must not carry a user name or password"
    );
    ensure!(
        url.query().is_none() && url.fragment().is_none(),
        "the GeWe address must end with its path, without ? or #"
    );
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        parse_base_url(text).unwrap()
    }

    #[test]
    fn the_profile_is_read_from_the_path() {
        let check = |text, expected| assert_eq!(Profile::of(&url(text)).unwrap(), expected, "{text}");
        check("http://api.geweapi.com/gewe/v2/api", Profile::Hosted);
        check("http://api.geweapi.com/gewe/v2/api/", Profile::Hosted);
        check("http://127.0.0.1:2531/v2/api", Profile::SelfHosted);
        check("http://127.0.0.1:2531/behind/proxy/v2/api", Profile::SelfHosted);
        assert!(Profile::of(&url("http://127.0.0.1:2531/")).is_err());
        assert_eq!(Profile::Hosted.set_callback_route(), "/login/setCallback");
        assert_eq!(Profile::SelfHosted.set_callback_route(), "/tools/setCallback");
    }

    #[test]
    fn a_download_address_is_resolved_by_profile() {
        let own = url("http://gewe.example:2531/v2/api");
        let resolve =
            |profile: Profile, file: &str| profile.download_url(&own, file).map(|url| url.to_string()).ok();
        let found = |text: &str| Some(text.to_owned());
        assert_eq!(
            resolve(Profile::SelfHosted, "a/b.jpg"),
            found("http://gewe.example:2532/download/a/b.jpg")
        );
        assert_eq!(
            resolve(Profile::SelfHosted, "//evil.example/b"),
            found("http://gewe.example:2532/download/evil.example/b")
        );
        assert_eq!(resolve(Profile::Hosted, "https://cdn.example/b?s=1"), found("https://cdn.example/b?s=1"));
        assert_eq!(resolve(Profile::Hosted, "a/b.jpg"), None);
        assert_eq!(resolve(Profile::SelfHosted, "file:///etc/passwd"), None);
    }

    #[test]
    fn an_address_that_cannot_work_is_refused_without_being_repeated() {
        for text in [
            "",
            "gewe",
            "ftp://h/v2/api",
            "http://u:hunter2@h/v2/api",
            "http://h/v2/api?a=1",
            "http://h/v2/api#a",
        ] {
            let error = parse_base_url(text).unwrap_err();
            assert!(!format!("{error:#}").contains("hunter2"), "{text}");
        }
    }
}
