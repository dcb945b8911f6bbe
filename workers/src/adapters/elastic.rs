//! Keeps the index of messages in Elasticsearch: one index per install, the bulk API, one document per message.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use entropy_jobs::process::config::Search;
use entropy_jobs::search::MessageIndex;
use entropy_schema::search::Document;
use futures::future::BoxFuture;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde_json::{Value, json};
use uuid::Uuid;

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer that is read.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// An index of Elasticsearch.
#[derive(Clone)]
pub struct Elastic {
    http: reqwest::Client,
    /// The index, with a slash at its end.
    base: Url,
}

impl std::fmt::Debug for Elastic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Elastic")
    }
}

impl Elastic {
    /// Prepares the index that the configuration names; none: there is no search engine. Connects to nothing yet.
    pub fn new(config: &Search) -> anyhow::Result<Option<Elastic>> {
        let Some(url) = &config.url else { return Ok(None) };
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("preparing the client of Elasticsearch")?;
        let address = format!("{}/{}/", url.expose().trim_end_matches('/'), config.index);
        // The address may hold a password, so the error does not repeat it.
        let base = Url::parse(&address).ok().context("ELASTICSEARCH_URL is not an address")?;
        Ok(Some(Elastic { http, base }))
    }

    fn request(&self, method: Method, path: &str) -> anyhow::Result<RequestBuilder> {
        let mut url = self.base.join(path).context("an address below the index")?;
        if path.is_empty() {
            let whole = url.path().trim_end_matches('/').to_owned();
            url.set_path(&whole);
        }
        Ok(self.http.request(method, url))
    }

    async fn send(request: RequestBuilder) -> anyhow::Result<(StatusCode, Value)> {
        let mut response = request.send().await.map_err(reqwest::Error::without_url)?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
            bytes.extend_from_slice(&chunk);
            ensure!(bytes.len() <= MAX_ANSWER_BYTES, "Elasticsearch's answer is too long");
        }
        Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    async fn create(&self) -> anyhow::Result<()> {
        let (status, answer) = Self::send(self.request(Method::PUT, "")?.json(&index())).await?;
        let kind = answer["error"]["type"].as_str().unwrap_or_default();
        ensure!(
            status.is_success() || kind == "resource_already_exists_exception",
            "Elasticsearch answered {status} to the making of the index"
        );
        Ok(())
    }

    async fn last(&self) -> anyhow::Result<Option<Uuid>> {
        let asked =
            json!({"size": 1, "_source": false, "sort": [{"id": "desc"}], "query": {"match_all": {}}});
        let (status, answer) = Self::send(self.request(Method::POST, "_search")?.json(&asked)).await?;
        ensure!(
            status.is_success(),
            "Elasticsearch answered {status} to the question for the newest message"
        );
        let hits = answer["hits"]["hits"].as_array().context("Elasticsearch's answer has no hits")?;
        Ok(hits.first().and_then(|hit| hit["_id"].as_str()?.parse().ok()))
    }

    async fn bulk(&self, documents: &[Document]) -> anyhow::Result<()> {
        let mut lines = String::new();
        for document in documents {
            lines.push_str(&json!({"index": {"_id": document.id}}).to_string());
            lines.push('\n');
            lines.push_str(&serde_json::to_string(document).context("a document is plain data")?);
            lines.push('\n');
        }
        let request = self.request(Method::POST, "_bulk")?.header(CONTENT_TYPE, "application/x-ndjson");
        let (status, answer) = Self::send(request.body(lines)).await?;
        ensure!(status.is_success(), "Elasticsearch answered {status} to new messages");
        if answer["errors"] != false {
            // Its own words may repeat a message.
            let kinds = answer["items"].as_array().into_iter().flatten();
            let kind =
                kinds.filter_map(|item| item["index"]["error"]["type"].as_str()).next().unwrap_or("unknown");
            bail!("Elasticsearch did not take every message: {}", kind.chars().take(80).collect::<String>());
        }
        Ok(())
    }
}

impl MessageIndex for Elastic {
    fn prepare(&self) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(self.create())
    }

    fn newest(&self) -> BoxFuture<'_, anyhow::Result<Option<Uuid>>> {
        Box::pin(self.last())
    }

    fn put<'a>(&'a self, documents: &'a [Document]) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(self.bulk(documents))
    }
}

/// Texts are cut into pieces of one and two characters: a phrase of the pieces is the text itself, in any language.
fn index() -> Value {
    let id = || json!({"type": "keyword"});
    json!({
        "settings": {
            "max_ngram_diff": 1,
            "analysis": {
                "tokenizer": {"pieces": {"type": "ngram", "min_gram": 1, "max_gram": 2}},
                "analyzer": {"pieces": {"type": "custom", "tokenizer": "pieces", "filter": ["lowercase"]}},
            },
        },
        "mappings": {"dynamic": false, "properties": {
            "id": id(),
            "organization_id": id(),
            "account_id": id(),
            "conversation_id": id(),
            "contact_id": id(),
            "text": {"type": "text", "analyzer": "pieces"},
            "created_at": {"type": "date"},
        }},
    })
}
