//! The FastGPT client against the sandbox, which was written from the same documents by other hands.

use std::time::Duration;

use entropy_jobs::ai::port::{AiClient as _, AiError, Answer, App, Ask, ErrorClass, Found, Part};
use entropy_jobs::ai::usage;
use entropy_jobs::secret::Secret;
use entropy_workers::adapters::fastgpt::{FastGptClient, Patience};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// A sandbox with a client of it. Ends with the value.
struct Scene {
    base: String,
    client: FastGptClient,
    http: reqwest::Client,
    _end: DropGuard,
}

impl Scene {
    async fn set() -> Scene {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            let config = entropy_sandbox::Config::default();
            entropy_sandbox::serve(listener, config, async move { stopped.cancelled().await }).await
        });
        let patience = Patience { bill: Duration::from_millis(300), ..Patience::default() };
        let client = FastGptClient::new(Some(&format!("{base}/fastgpt/api")), patience).expect("a client");
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Scene { base, client, http, _end: stop.drop_guard() }
    }

    async fn script(&self, script: Value) {
        let url = format!("{}/_sandbox/fastgpt/scripts", self.base);
        let added = self.http.post(url).json(&script).send().await.expect("an answer");
        assert_eq!(added.status(), 201, "{script}");
    }

    /// Asks once; the run's name is returned with what came of it.
    async fn ask(&self, stream: bool) -> (Uuid, Result<Answer, AiError>) {
        self.ask_as("fastgpt-sandbox1", stream).await
    }

    async fn ask_as(&self, key: &str, stream: bool) -> (Uuid, Result<Answer, AiError>) {
        let run_id = Uuid::now_v7();
        let ask = Ask {
            run_id,
            chat_id: "c1".into(),
            customer: "friend".into(),
            parts: vec![Part::Text("几点开门".into())],
            variables: json!({}),
            stream,
            timeout: Duration::from_secs(3),
            trace_id: "0123456789abcdef0123456789abcdef".into(),
        };
        (run_id, self.client.ask(&app(key), &ask).await)
    }

    async fn found(&self, run_id: Uuid) -> Found {
        let looked = self.client.look_up(&app("fastgpt-sandbox1"), "c1", run_id, "trace").await;
        looked.expect("the records can be read")
    }
}

fn app(key: &str) -> App {
    App { endpoint: None, api_key: Secret::new(key), app_id: Some("app_sandbox1".into()) }
}

#[tokio::test]
async fn an_answer_and_its_bill_are_the_same_in_every_version_and_form() {
    let scene = Scene::set().await;
    for profile in ["v4.8", "v4.12", "main"] {
        for stream in [false, true] {
            let script = json!({"answer": "我们九点开门，欢迎光临😀", "chunk_chars": 2, "preset": "rich", "profile": profile});
            scene.script(script).await;
            let (run_id, answer) = scene.ask(stream).await;
            let answer = answer.expect(profile);
            assert_eq!(answer.text, "我们九点开门，欢迎光临😀", "{profile} {stream}");
            let lines = usage::lines(&answer.nodes);
            let models: Vec<&str> = lines.iter().map(|line| line.model.as_str()).collect();
            let expected =
                ["sandbox-embedding", "sandbox-mini", "sandbox-chat", "sandbox-mini", "sandbox-chat"];
            assert_eq!(models, expected, "{profile} {stream}");
            let points = usage::points(&answer.nodes).expect("points");
            assert_eq!(
                lines.iter().filter_map(|line| line.points.clone()).reduce(|sum, next| sum + next),
                Some(points)
            );

            let Found::Ran(found) = scene.found(run_id).await else {
                panic!("{profile}: it is in the records")
            };
            assert_eq!(found.text, answer.text);
            assert_eq!(usage::lines(&found.nodes), lines, "{profile}: the records have the same bill");
        }
    }
}

#[tokio::test]
async fn every_failure_of_the_sandbox_is_classed_as_what_it_is() {
    let scene = Scene::set().await;
    let cases: [(Value, ErrorClass, &str); 11] = [
        (json!({"fail": "error", "code": 500, "message": "模型坏了"}), ErrorClass::Failed, "run_failed"),
        (
            json!({"fail": "error", "code": 502_000, "status_text": "appUnExist"}),
            ErrorClass::Refused,
            "app_refused",
        ),
        (
            json!({"fail": "error_as_ok", "code": 514, "status_text": "unAuthApiKey"}),
            ErrorClass::Refused,
            "key_refused",
        ),
        (json!({"fail": "points_exhausted"}), ErrorClass::Quota, "points_used_up"),
        (json!({"fail": "rate_limit", "profile": "main"}), ErrorClass::Throttled, "throttled"),
        (json!({"fail": "rate_limit", "profile": "v4.12"}), ErrorClass::Throttled, "throttled"),
        (json!({"fail": "bad_gateway"}), ErrorClass::Ambiguous, "gateway_lost"),
        (json!({"fail": "gateway_timeout"}), ErrorClass::Ambiguous, "gateway_lost"),
        (json!({"fail": "reset"}), ErrorClass::Ambiguous, "connection_lost"),
        (json!({"fail": "reset_after_run"}), ErrorClass::Ambiguous, "connection_lost"),
        (json!({"fail": "not_json"}), ErrorClass::Ambiguous, "answer_unreadable"),
    ];
    for (script, class, code) in cases {
        for stream in [false, true] {
            scene.script(script.clone()).await;
            let error = scene.ask(stream).await.1.expect_err(code);
            assert_eq!((error.class, error.code), (class, code), "{script} {stream}");
            assert_eq!(error.retry_after.is_some(), class == ErrorClass::Throttled, "{script}");
        }
    }
    for (fail, code) in
        [("cut", "answer_incomplete"), ("ends_early", "answer_incomplete"), ("hang", "timeout")]
    {
        scene.script(json!({"fail": fail})).await;
        let error = scene.ask(true).await.1.expect_err(fail);
        assert_eq!((error.class, error.code), (ErrorClass::Ambiguous, code), "{fail}");
    }
    let bad = scene.ask_as("fastgpt-bad1", true).await.1.expect_err("no key");
    assert_eq!((bad.class, bad.code), (ErrorClass::Refused, "key_refused"));
}

#[tokio::test]
async fn what_was_lost_on_the_way_is_found_in_the_records() {
    let scene = Scene::set().await;
    for fail in ["reset_after_run", "cut", "not_json"] {
        scene.script(json!({"fail": fail, "answer": "九点开门"})).await;
        let (run_id, answer) = scene.ask(true).await;
        assert_eq!(answer.expect_err(fail).class, ErrorClass::Ambiguous);
        let Found::Ran(found) = scene.found(run_id).await else { panic!("{fail}: it ran") };
        assert_eq!((found.text.as_str(), usage::lines(&found.nodes).len()), ("九点开门", 2), "{fail}");
    }
    scene.script(json!({"fail": "reset"})).await;
    let (run_id, _) = scene.ask(true).await;
    assert!(matches!(scene.found(run_id).await, Found::Nothing));

    // The text is whole, and only its bill is missing.
    scene.script(json!({"fail": "cut_before_nodes", "answer": "九点开门", "profile": "v4.12"})).await;
    let (run_id, answer) = scene.ask(true).await;
    let answer = answer.expect("the text is whole");
    assert_eq!((answer.text.as_str(), answer.nodes.len()), ("九点开门", 0));
    assert!(matches!(scene.found(run_id).await, Found::Ran(found) if !found.nodes.is_empty()));
}

#[tokio::test]
async fn a_run_that_came_to_nothing_says_why_and_one_that_asks_back_says_so() {
    let scene = Scene::set().await;
    let select = json!({"type": "userSelect", "params": {"description": "要哪一种？",
        "userSelectOptions": [{"key": "a", "value": "标准版"}, {"key": "b", "value": "专业版"}]}});
    for profile in ["v4.12", "main"] {
        for stream in [false, true] {
            scene.script(json!({"fail": "node_error", "message": "429 busy", "profile": profile})).await;
            let failed = scene.ask(stream).await.1.expect("the call succeeds");
            assert_eq!(
                (failed.text.as_str(), failed.node_error.as_deref()),
                ("", Some("429 busy")),
                "{profile}"
            );
            scene.script(json!({"fail": "empty", "profile": profile})).await;
            let empty = scene.ask(stream).await.1.expect("the call succeeds");
            assert_eq!((empty.text.as_str(), empty.node_error), ("", None));
            scene.script(json!({"interactive": select, "answer": "您好", "profile": profile})).await;
            let asks = scene.ask(stream).await.1.expect("the call succeeds");
            assert_eq!(
                (asks.text.as_str(), asks.interactive),
                ("您好\n要哪一种？\n1. 标准版\n2. 专业版", true)
            );
        }
    }
}
