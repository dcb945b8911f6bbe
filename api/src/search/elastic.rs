//! Asks Elasticsearch. The worker keeps its index (`workers/src/adapters/elastic.rs`).

use std::time::Duration;

use anyhow::Context;
use entropy_jobs::secret::Secret;
use entropy_schema::search::Filter;
use futures::future::BoxFuture;
use reqwest::Url;
use serde_json::{Value, json};
use uuid::Uuid;

use super::MessageSearch;
use crate::problem::ApiError;

/// How long a search may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer that is read; the longest real one has 201 ids.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// An index of Elasticsearch.
pub(super) struct Elastic {
    http: reqwest::Client,
    search: Url,
}

impl Elastic {
    pub(super) fn new(url: &Secret, index: &str) -> anyhow::Result<Elastic> {
        let address = format!("{}/{index}/_search", url.expose().trim_end_matches('/'));
        // The address may hold a password, so the error does not repeat it.
        let search = Url::parse(&address).ok().context("ELASTICSEARCH_URL is not an address")?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("preparing the client of Elasticsearch")?;
        Ok(Elastic { http, search })
    }

    async fn ask(&self, filter: &Filter) -> anyhow::Result<Vec<Uuid>> {
        let mut response = self
            .http
            .post(self.search.clone())
            .json(&query(filter))
            .send()
            .await
            .map_err(reqwest::Error::without_url)?;
        let status = response.status();
        anyhow::ensure!(status.is_success(), "Elasticsearch answered {status}");
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
            bytes.extend_from_slice(&chunk);
            anyhow::ensure!(bytes.len() <= MAX_ANSWER_BYTES, "Elasticsearch's answer is too long");
        }
        let answer: Value = serde_json::from_slice(&bytes).context("Elasticsearch's answer is not JSON")?;
        let hits = answer["hits"]["hits"].as_array().context("Elasticsearch's answer has no hits")?;
        Ok(hits.iter().filter_map(|hit| hit["_id"].as_str()?.parse().ok()).collect())
    }
}

impl MessageSearch for Elastic {
    fn find<'a>(&'a self, filter: &'a Filter) -> BoxFuture<'a, Result<Vec<Uuid>, ApiError>> {
        Box::pin(async move {
            self.ask(filter).await.map_err(|error| ApiError::search_unavailable(format!("{error:#}")))
        })
    }
}

/// The text is cut into pieces of one and two characters, in the index and here; a phrase of them is the text itself.
fn query(filter: &Filter) -> Value {
    let mut filters = vec![json!({"term": {"organization_id": filter.organization_id}})];
    let terms = [
        ("account_id", filter.account_id),
        ("contact_id", filter.contact_id),
        ("conversation_id", filter.conversation_id),
    ];
    for (name, id) in terms {
        if let Some(id) = id {
            filters.push(json!({"term": {name: id}}));
        }
    }
    if let Some(from) = filter.from {
        filters.push(json!({"range": {"created_at": {"gte": from}}}));
    }
    if let Some(to) = filter.to {
        filters.push(json!({"range": {"created_at": {"lt": to}}}));
    }
    if let Some(before) = filter.before {
        filters.push(json!({"range": {"id": {"lt": before}}}));
    }
    json!({
        "size": filter.limit,
        "_source": false,
        "track_total_hits": false,
        "query": {"bool": {"must": [{"match_phrase": {"text": filter.text}}], "filter": filters}},
        "sort": [{"id": "desc"}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_names_the_organisation() {
        let filter = Filter {
            organization_id: Uuid::from_u128(7),
            text: "价格".into(),
            account_id: None,
            contact_id: None,
            conversation_id: None,
            from: None,
            to: None,
            before: Some(Uuid::from_u128(9)),
            limit: 3,
        };
        let query = query(&filter);
        assert_eq!(
            query["query"]["bool"]["filter"][0],
            json!({"term": {"organization_id": Uuid::from_u128(7)}})
        );
        assert_eq!(query["query"]["bool"]["filter"][1], json!({"range": {"id": {"lt": Uuid::from_u128(9)}}}));
        assert_eq!(query["size"], 3);
    }

    #[test]
    fn a_wrong_address_is_not_repeated() {
        let error = Elastic::new(&Secret::new("http://elastic:geheim@[oops"), "entropy-messages").err();
        assert!(!format!("{error:?}").contains("geheim"));
    }
}
