//! A running sandbox and the few calls that the tests make of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use entropy_sandbox::{Config, Sandbox};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long any wait may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) const APP: &str = "wx_SandboxDevice00000001";
pub(crate) const FRIEND: &str = "wxid_demo0000000009";

/// A sandbox that serves on a free port until it is dropped or stopped.
pub(crate) struct TestSandbox {
    pub(crate) base: String,
    pub(crate) client: Client,
    stop: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<anyhow::Result<()>>>,
}

impl TestSandbox {
    pub(crate) async fn start() -> Self {
        Self::with_tokens(&[]).await
    }

    pub(crate) async fn with_tokens(tokens: &[&str]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let config = Config { tokens: tokens.iter().map(|token| token.to_string()).collect() };
        let server = tokio::spawn(Sandbox::new(config).serve(listener, async move {
            let _ = stopped.await;
        }));
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .build()
            .unwrap();
        Self { base, client, stop: Some(stop), server: Some(server) }
    }

    /// Stops the server and waits for its end.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.take().unwrap().send(()).unwrap();
        let server = self.server.take().unwrap();
        tokio::time::timeout(PATIENCE, server).await.expect("waited for the server to stop").unwrap()
    }

    /// A POST under the hosted prefix with a good token.
    pub(crate) fn gewe(&self, route: &str, body: &Value) -> RequestBuilder {
        self.client
            .post(format!("{}/gewe/v2/api{route}", self.base))
            .header("X-GEWE-TOKEN", "token-1")
            .json(body)
    }

    pub(crate) fn text(&self, content: &str) -> RequestBuilder {
        self.gewe("/message/postText", &json!({"appId": APP, "toWxid": FRIEND, "content": content}))
    }

    pub(crate) fn text_failing(&self, content: &str, failure: &str) -> RequestBuilder {
        self.text(content).header("X-Sandbox-Failure", failure)
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.client.get(format!("{}{path}", self.base)).send().await.unwrap().json().await.unwrap()
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Response {
        self.client.put(format!("{}{path}", self.base)).json(&body).send().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Response {
        self.client.post(format!("{}{path}", self.base)).json(&body).send().await.unwrap()
    }

    /// The contents of all texts on the phone, in order.
    pub(crate) async fn received(&self) -> Vec<String> {
        let ledger = self.get("/_sandbox/ledger").await;
        let items = ledger["items"].as_array().unwrap();
        items.iter().map(|item| item["body"]["content"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until the phone has received just these texts.
    pub(crate) async fn wait_for(&self, contents: &[&str]) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let received = self.received().await;
            if received == contents {
                return;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "waited for {contents:?} on the phone, which has {received:?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The last call that was made.
    pub(crate) async fn last_call(&self) -> Value {
        self.get("/_sandbox/calls").await["items"].as_array().unwrap().last().unwrap().clone()
    }
}

/// Sends and reads the envelope.
pub(crate) async fn envelope(request: RequestBuilder) -> Value {
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

/// An address that takes callbacks and keeps them.
pub(crate) struct Inbox {
    pub(crate) url: String,
    received: Arc<Mutex<Vec<Received>>>,
    server: JoinHandle<()>,
}

/// One callback as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) body: String,
    pub(crate) authorization: Option<String>,
}

impl Received {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Inbox {
    /// Listens on a free port and answers every request with `status`.
    pub(crate) async fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/callbacks/gewe/secret", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let store = received.clone();
        let app = poem::endpoint::make(move |mut request: poem::Request| {
            let store = store.clone();
            async move {
                let header = request.headers().get("authorization");
                let authorization = header.map(|value| value.to_str().unwrap().to_owned());
                let body = request.take_body().into_string().await.unwrap();
                store.lock().unwrap().push(Received { body, authorization });
                poem::Response::builder().status(poem::http::StatusCode::from_u16(status).unwrap()).finish()
            }
        });
        let acceptor = poem::listener::TcpAcceptor::from_tokio(listener).unwrap();
        let server = tokio::spawn(async move {
            poem::Server::new_with_acceptor(acceptor).run(app).await.unwrap();
        });
        Self { url, received, server }
    }

    /// Waits for so many callbacks and returns them in the order of their arrival.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Received> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let received = self.received.lock().unwrap().clone();
            if received.len() >= count {
                return received;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "waited for {count} callbacks, {} came",
                received.len()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.server.abort();
    }
}
