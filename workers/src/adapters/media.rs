//! Fetches media over HTTP from where the provider says they are.
//!
//! The address was written by somebody else, and this process stands in our network: it goes to public addresses only,
//! whatever a name resolves to, follows nothing but where it looks only whether a link answers, each step asked anew whether we
//! go there, and takes no more than it was told to. The one private host that is
//! trusted is GeWe's own, which the operator has named.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use entropy_jobs::media::{FetchError, MediaSource, Wanted};
use entropy_jobs::outbound_url::{self, UrlPolicy};
use entropy_jobs::provider::{Device, SendError};
use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{StatusCode, Url, header, redirect, retry};
use tokio::io::AsyncWriteExt;

use super::gewe::{GeweClient, Profile};

/// The longest a whole download may take.
const WHOLE: Duration = Duration::from_secs(240);

/// The longest that nothing may come.
const SILENT: Duration = Duration::from_secs(30);

/// How long a link may take that is only looked at.
const LOOK: Duration = Duration::from_secs(10);

/// How often a link may lead on.
const REDIRECTS: usize = 5;

/// Where media come from: GeWe names them, and they are fetched from there.
#[derive(Debug, Clone)]
pub struct GeweMedia {
    gewe: GeweClient,
    public: reqwest::Client,
    trusted: reqwest::Client,
}

impl GeweMedia {
    /// Fetches what `gewe` names.
    pub fn new(gewe: GeweClient) -> anyhow::Result<GeweMedia> {
        let builder = || {
            let builder = reqwest::Client::builder()
                .no_proxy()
                .redirect(redirect::Policy::none())
                .retry(retry::never())
                .http1_only()
                // Nothing is decoded: a few kilobytes of an answer could become gigabytes on the disk.
                .no_gzip()
                .no_brotli()
                .no_zstd()
                .no_deflate()
                .connect_timeout(Duration::from_secs(10))
                .read_timeout(SILENT)
                .timeout(WHOLE)
                .pool_max_idle_per_host(2)
                .referer(false);
            // A bare machine may have no certificates, and building fails where none are found.
            if gewe.base_url().scheme() == "http" { builder.tls_certs_only([]) } else { builder }
        };
        let public = builder().dns_resolver(Arc::new(PublicOnly)).build();
        Ok(GeweMedia {
            public: public.context("cannot build the HTTP client for media")?,
            trusted: builder().build().context("cannot build the HTTP client for media")?,
            gewe,
        })
    }

    /// Picks the client that may go to `url`.
    fn client(&self, url: &str) -> Result<(&reqwest::Client, Url), FetchError> {
        // A signed address may be longer than what a caller may send.
        if let Ok(url) = Url::parse(url)
            && self.is_gewes_own(&url)
        {
            return Ok((&self.trusted, url));
        }
        let url = outbound_url::check(url, &UrlPolicy::default())
            .map_err(|problem| FetchError::Refused(problem.code()))?;
        Ok((&self.public, url))
    }

    /// The host that the operator has named, and there only the API's port and that of a self-hosted install's files.
    fn is_gewes_own(&self, url: &Url) -> bool {
        let base = self.gewe.base_url();
        let files = self.gewe.profile() == Profile::SelfHosted && url.port() == Some(2532);
        matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.password().is_none()
            && url.host() == base.host()
            && (url.port_or_known_default() == base.port_or_known_default() || files)
    }
}

impl MediaSource for GeweMedia {
    fn locate<'a>(
        &'a self,
        device: &'a Device,
        wanted: Wanted<'a>,
        trace_id: &'a str,
    ) -> BoxFuture<'a, Result<String, SendError>> {
        Box::pin(self.gewe.locate(device, wanted, trace_id))
    }

    fn fetch<'a>(
        &'a self,
        url: &'a str,
        into: &'a Path,
        most: u64,
    ) -> BoxFuture<'a, Result<u64, FetchError>> {
        Box::pin(async move {
            let (client, url) = self.client(url)?;
            // The error may name the address, which is a secret of its own: it opens the file.
            let response = client.get(url).send().await.map_err(|error| no_answer(&error))?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::FORBIDDEN => {
                    return Err(FetchError::Gone);
                }
                status if status.is_redirection() => return Err(FetchError::Refused("redirect")),
                status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                    return Err(FetchError::Failed("the server is in trouble"));
                }
                _ => return Err(FetchError::Refused("unexpected_status")),
            }
            if response.content_length().is_some_and(|bytes| bytes > most) {
                return Err(FetchError::TooLong);
            }
            write(response, into, most).await
        })
    }

    fn probe<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<(), FetchError>> {
        Box::pin(async move {
            let looked = tokio::time::timeout(LOOK, self.look(url)).await;
            looked.unwrap_or(Err(FetchError::Failed("no answer in time")))
        })
    }
}

impl GeweMedia {
    async fn look(&self, url: &str) -> Result<(), FetchError> {
        let mut url = url.to_owned();
        let within = Url::parse(&url).is_ok_and(|url| self.is_gewes_own(&url));
        for _ in 0..=REDIRECTS {
            let (client, at) = self.client(&url)?;
            if self.is_gewes_own(&at) && !within {
                // A stranger's page leads nobody to the one private host that is trusted.
                return Err(FetchError::Refused("url_private_host"));
            }
            let head = client.head(at.clone()).send().await.map_err(|error| no_answer(&error))?;
            let answer = match head.status() {
                status if status.is_success() || status.is_redirection() => head,
                // Many servers answer only who wants the thing itself.
                _ => client.get(at.clone()).send().await.map_err(|error| no_answer(&error))?,
            };
            match answer.status() {
                status if status.is_success() => return Ok(()),
                status if status.is_redirection() => {
                    let place = answer.headers().get(header::LOCATION).and_then(|place| place.to_str().ok());
                    let next = place.and_then(|place| at.join(place).ok());
                    url = next.ok_or(FetchError::Refused("redirect"))?.into();
                }
                StatusCode::NOT_FOUND | StatusCode::GONE => return Err(FetchError::Gone),
                status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                    return Err(FetchError::Failed("the server is in trouble"));
                }
                _ => return Err(FetchError::Refused("unexpected_status")),
            }
        }
        Err(FetchError::Refused("too_many_redirects"))
    }
}

fn no_answer(error: &reqwest::Error) -> FetchError {
    if error.is_timeout() {
        FetchError::Failed("no answer in time")
    } else {
        FetchError::Failed("no connection")
    }
}

async fn write(mut response: reqwest::Response, into: &Path, most: u64) -> Result<u64, FetchError> {
    let disk = |error: std::io::Error| {
        tracing::error!(%error, "the folder of uploads cannot be written");
        FetchError::Failed("the folder of uploads cannot be written")
    };
    let expected = response.content_length();
    let mut file = tokio::fs::File::create_new(into).await.map_err(disk)?;
    let mut bytes = 0_u64;
    loop {
        let chunk = response.chunk().await.map_err(|_| FetchError::Failed("the connection broke"))?;
        let Some(chunk) = chunk else { break };
        bytes += chunk.len() as u64;
        if bytes > most {
            return Err(FetchError::TooLong);
        }
        file.write_all(&chunk).await.map_err(disk)?;
    }
    if expected.is_some_and(|expected| expected != bytes) {
        return Err(FetchError::Failed("the connection broke"));
    }
    file.flush().await.map_err(disk)?;
    file.sync_all().await.map_err(disk)?;
    Ok(bytes)
}

/// Resolves names to public addresses only: a name that anybody can register may point into our network.
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err("the name leads to no public address".into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

fn is_public(ip: IpAddr) -> bool {
    let url = match ip {
        IpAddr::V4(ip) => format!("http://{ip}/"),
        IpAddr::V6(ip) => format!("http://[{ip}]/"),
    };
    outbound_url::check(&url, &UrlPolicy::default()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::gewe::Timeouts;
    use super::*;

    fn media(base: &str) -> GeweMedia {
        let _ = rustls::crypto::ring::default_provider().install_default();
        GeweMedia::new(GeweClient::new(base, Timeouts::default()).expect("a client")).expect("a source")
    }

    fn refusal(media: &GeweMedia, url: &str) -> Option<FetchError> {
        media.client(url).err()
    }

    #[test]
    fn it_goes_to_public_hosts_and_to_gewes_own_and_nowhere_else() {
        let own = media("http://10.0.0.5:2531/v2/api");
        for url in [
            "http://10.0.0.5:2531/a.png",
            "http://10.0.0.5:2532/download/a.png",
            "https://cdn.example.com/a.png?sign=b",
        ] {
            assert_eq!(refusal(&own, url), None, "{url}");
        }
        for url in [
            "http://10.0.0.5:6379/a",
            "http://10.0.0.6:2531/a",
            "http://169.254.169.254/latest/meta-data",
            "http://localhost/a",
            "file:///etc/passwd",
            "http://user:password@10.0.0.5:2531/a",
            "not an address",
        ] {
            assert!(matches!(refusal(&own, url), Some(FetchError::Refused(_))), "{url}");
        }
        let hosted = media("http://api.example.com/gewe/v2/api");
        assert!(refusal(&hosted, "http://api.example.com:2532/a").is_none(), "a public host like any other");
        assert!(refusal(&hosted, "http://127.0.0.1/a").is_some());
    }

    /// A server that answers each path in its own way, and anything else but `GET` with 405 where the path says so.
    async fn server() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut bytes = [0; 4096];
                    let read = tokio::io::AsyncReadExt::read(&mut stream, &mut bytes).await.unwrap_or(0);
                    let request = String::from_utf8_lossy(&bytes[..read]).into_owned();
                    let mut words = request.split(' ');
                    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
                    let status = match (method, path) {
                        (_, "/there") | ("GET", "/no_head") => "200 OK",
                        ("HEAD", "/no_head") => "405 Method Not Allowed",
                        (_, "/leads_on") => "302 Found\r\nLocation: /there",
                        (_, "/round") => "302 Found\r\nLocation: /round",
                        (_, "/inside") => "301 Moved\r\nLocation: http://169.254.169.254/latest",
                        (_, "/in_trouble") => "503 Service Unavailable",
                        _ => "404 Not Found",
                    };
                    let answer =
                        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        base
    }

    #[tokio::test]
    async fn a_link_is_looked_at_wherever_it_leads_but_not_inside() {
        let base = server().await;
        let media = media(&format!("{base}/gewe/v2/api"));
        for (path, found) in [
            ("/there", Ok(())),
            ("/no_head", Ok(())),
            ("/leads_on", Ok(())),
            ("/nothing", Err(FetchError::Gone)),
            ("/round", Err(FetchError::Refused("too_many_redirects"))),
            ("/inside", Err(FetchError::Refused("url_private_host"))),
            ("/in_trouble", Err(FetchError::Failed("the server is in trouble"))),
        ] {
            assert_eq!(media.probe(&format!("{base}{path}")).await, found, "{path}");
        }
    }

    #[test]
    fn a_name_that_leads_into_our_network_leads_nowhere() {
        for private in ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fd00::1", "::ffff:127.0.0.1"] {
            assert!(!is_public(private.parse().expect("an address")), "{private}");
        }
        assert!(is_public("93.184.215.14".parse().expect("an address")));
    }
}
