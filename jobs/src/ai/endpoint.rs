//! Which addresses of a FastGPT are understood.
//!
//! Pure. The same rules hold for the address of the install and for that of one workflow.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use crate::outbound_url::{self, UrlPolicy};

/// Names of the services at which clouds keep a machine's credentials.
const METADATA: [&str; 3] = ["metadata", "metadata.google.internal", "metadata.tencentyun.com"];

/// The address of a FastGPT.
///
/// Understood are `http://host`, `http://host/api`, `http://host/api/v1` and `http://host/api/v2`, with whatever path a
/// gateway puts before them. Private hosts are allowed, because most people run FastGPT in their own network; the
/// addresses at which clouds keep a machine's credentials are not. Names are not resolved here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Up to and with `/api`.
    api: String,
    version: &'static str,
}

/// Why an address was refused. The text tells its reader what to change.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// No address at all.
    #[error(transparent)]
    Url(#[from] outbound_url::Problem),
    /// Something behind the path.
    #[error("must end with its path, such as https://host/api, without ? and #")]
    Query,
    /// Another path.
    #[error("must end in /api, /api/v1 or /api/v2, such as https://cloud.fastgpt.cn/api")]
    Path,
    /// Where a cloud keeps the credentials of a machine, or nobody is.
    #[error("must be the address of a FastGPT; this one belongs to the network itself")]
    Nobodys,
}

impl Problem {
    /// Returns the stable code for API answers.
    pub fn code(self) -> &'static str {
        match self {
            Self::Url(problem) => problem.code(),
            Self::Query => "url_malformed",
            Self::Path => "endpoint_path",
            Self::Nobodys => "url_private_host",
        }
    }
}

impl Endpoint {
    /// Reads an address.
    pub fn parse(text: &str) -> Result<Endpoint, Problem> {
        let url = outbound_url::check(text.trim(), &UrlPolicy { allow_private: true })?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Problem::Query);
        }
        if is_nobodys(&url) {
            return Err(Problem::Nobodys);
        }
        let path = url.path().trim_end_matches('/');
        let path = path.strip_suffix("/chat/completions").unwrap_or(path);
        let (path, version) = match path.rsplit_once('/') {
            Some((before, "v1")) => (before, "v1"),
            Some((before, "v2")) => (before, "v2"),
            _ => (path, "v1"),
        };
        let path = if path.is_empty() { "/api" } else { path };
        if !path.ends_with("/api") {
            return Err(Problem::Path);
        }
        let path = path.to_owned();
        let mut api = url;
        api.set_path(&path);
        Ok(Endpoint { api: api.into(), version })
    }

    /// Returns the address of the call that runs an app.
    pub fn completions(&self) -> String {
        format!("{}/{}/chat/completions", self.api, self.version)
    }

    /// Returns the address of another route, whose path begins with `/core/`.
    pub fn route(&self, path: &str) -> String {
        format!("{}{path}", self.api)
    }

    /// Tells whether connections are encrypted.
    pub fn is_tls(&self) -> bool {
        self.api.starts_with("https:")
    }
}

fn is_nobodys(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => is_nobodys_v4(ip),
        Some(Host::Ipv6(ip)) => is_nobodys_v6(ip),
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            // The URL parser reads an address only without the dot at its end.
            match name.parse() {
                Ok(IpAddr::V4(ip)) => is_nobodys_v4(ip),
                Ok(IpAddr::V6(ip)) => is_nobodys_v6(ip),
                Err(_) => METADATA.contains(&name),
            }
        }
        None => false,
    }
}

fn is_nobodys_v4(ip: Ipv4Addr) -> bool {
    // Alibaba Cloud and Oracle keep theirs outside the range that is meant for it.
    ip.is_link_local()
        || ip.is_unspecified()
        || ip.is_multicast()
        || ip.is_broadcast()
        || ip == Ipv4Addr::new(100, 100, 100, 200)
        || ip == Ipv4Addr::new(192, 0, 0, 192)
}

fn is_nobodys_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    let low = Ipv4Addr::from((u32::from(s[6]) << 16) | u32::from(s[7]));
    ip.is_unicast_link_local()
        || ip.is_unspecified()
        || ip.is_multicast()
        || s == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
        // IPv4 in its compatible, mapped and translated forms.
        || (matches!(s, [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..])
            && is_nobodys_v4(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_forms_lead_to_the_same_call() {
        let check = |text: &str, expected: &str| {
            assert_eq!(Endpoint::parse(text).expect(text).completions(), expected, "{text}");
        };
        for text in
            ["http://host:3000", "http://host:3000/", "http://host:3000/api", "http://host:3000/api/v1/"]
        {
            check(text, "http://host:3000/api/v1/chat/completions");
        }
        check("http://host/api/v1/chat/completions", "http://host/api/v1/chat/completions");
        check("https://cloud.fastgpt.cn/api/v2", "https://cloud.fastgpt.cn/api/v2/chat/completions");
        check("http://10.0.0.5/fastgpt/api", "http://10.0.0.5/fastgpt/api/v1/chat/completions");
        check("http://[::1]:3000/api", "http://[::1]:3000/api/v1/chat/completions");
        let endpoint = Endpoint::parse("http://127.0.0.1/api/v1").expect("an address");
        assert_eq!(endpoint.route("/core/chat/getResData"), "http://127.0.0.1/api/core/chat/getResData");
    }

    #[test]
    fn what_is_no_fastgpt_is_refused() {
        let check = |text: &str, expected| assert_eq!(Endpoint::parse(text), Err(expected), "{text}");
        check("http://host/other", Problem::Path);
        check("http://host/api?x=1", Problem::Query);
        check("http://host/api#x", Problem::Query);
        check("http://169.254.169.254/api", Problem::Nobodys);
        check("http://169.254.169.254./api", Problem::Nobodys);
        check("http://[::ffff:169.254.169.254]/api", Problem::Nobodys);
        check("http://100.100.100.200/api", Problem::Nobodys);
        check("http://[fe80::1]/api", Problem::Nobodys);
        check("http://[fd00:ec2::254]/api", Problem::Nobodys);
        check("http://metadata.google.internal/api", Problem::Nobodys);
        check("ftp://host/api", Problem::Url(outbound_url::Problem::Scheme));
        check("http://user:hunter2@host/api", Problem::Url(outbound_url::Problem::Credentials));
        check("", Problem::Url(outbound_url::Problem::Malformed));
    }
}
