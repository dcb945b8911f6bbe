//! A customer and the model, over the API and the callbacks alone: what a visitor of the sandbox's page would see.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::client::{Account, Client};
use crate::harness::platform::CALLBACK_SECRET;
use crate::harness::{Here, chaos, eventually, secs};

const CUSTOMER: &str = "wxid_li_nushi";

/// An account whose AI answers, and the customer who writes to it.
struct Scene {
    here: Here,
    admin: Client,
    account: Account,
    /// Begins what this scene's customer writes: the sandbox is shared, and scripts are found by their words.
    name: String,
}

impl Scene {
    async fn set(quiet_ms: u64) -> Scene {
        let here = Here::open().await;
        let admin = here.register().await;
        let account = admin.account(600, 0).await;
        let workflow = json!({
            "alias": "客服", "api_key": "fastgpt-scene", "app_id": "appscene", "requests_per_minute": 6000
        });
        admin.post("/ai-workflows", workflow).await.expect(201);
        let debounce = json!({"quiet_ms": quiet_ms, "max_ms": 15_000, "max_messages": 10});
        let ai = json!({"enabled": true, "workflow": "客服", "debounce": debounce, "disclosure": ""});
        admin.put(&format!("/wechat-accounts/{}/ai", account.id), ai).await.expect(200);
        let name = format!("{:08x}", fastrand::u32(..));
        Scene { here, admin, account, name }
    }

    /// The customer writes some messages, one right after the other.
    async fn write(&self, texts: &[&str]) {
        let burst: Vec<String> = texts.iter().map(|text| format!("{} {text}", self.name)).collect();
        let message = json!({
            "app_id": self.account.app_id,
            "wxid": self.account.app_id.replace("wx_", "wxid_"),
            "from": CUSTOMER,
            "nickname": "李女士",
            "burst": burst,
            "url": format!("{}/callbacks/gewe/{CALLBACK_SECRET}", self.here.base(0)),
        });
        self.here.sandbox.customer_writes(&message).await;
    }

    /// Says what the model answers to this scene's customer.
    async fn script(&self, mut script: Value) {
        script["match"] = json!({"substring": self.name});
        self.here.sandbox.tell("/_sandbox/fastgpt/scripts", &script).await;
    }

    /// The runs of the model for this scene's customer.
    async fn runs(&self) -> Vec<Value> {
        let runs = self.here.sandbox.show("/_sandbox/fastgpt/runs?limit=100000").await;
        let ours = |run: &&Value| run["question"].to_string().contains(&self.name);
        runs["items"].as_array().expect("items").iter().filter(ours).cloned().collect()
    }

    /// Waits until the phone has received so many messages, and returns them.
    async fn received(&self, count: usize) -> Vec<Value> {
        eventually("the customer is answered", secs(30), async || {
            self.here.sandbox.entries_of(&self.account.app_id).await.len() >= count
        })
        .await;
        self.here.sandbox.entries_of(&self.account.app_id).await
    }

    async fn conversation(&self) -> Value {
        let list = self.admin.all(&format!("/conversations?account_id={}", self.account.id)).await;
        assert_eq!(list.len(), 1, "{list:?}");
        list[0].clone()
    }

    /// The conversation's latest turn: its state.
    async fn turns(&self, state: &str) -> i64 {
        let organization = self.admin.organization;
        self.here
            .number(&format!(
                "SELECT count(*) AS n FROM turns WHERE organization_id = '{organization}' AND state = '{state}'"
            ))
            .await
    }
}

#[tokio::test]
async fn three_messages_in_a_row_get_one_answer_whose_cost_stands_in_the_ledger_per_node() {
    let scene = Scene::set(400).await;
    for (model, input, output) in [("sandbox-chat", "0.002", "0.006"), ("sandbox-embedding", "0.0001", "0")] {
        let price = json!({
            "model": model, "effective_from": "2026-01-01T00:00:00Z", "input_per_1k": input, "output_per_1k": output
        });
        scene.admin.post("/model-prices", price).await.expect(201);
    }
    scene
        .admin
        .put("/budgets", json!({"scope": "organization", "period": "day", "limit_yuan": "10"}))
        .await
        .expect(200);
    scene.script(json!({"answer": "**一百元**一件，三件包邮。", "preset": "search", "input_tokens": 812, "output_tokens": 46})).await;
    scene.write(&["你好", "在吗", "多少钱？"]).await;

    let received = scene.received(1).await;
    assert_eq!(received[0]["body"]["content"], "一百元一件，三件包邮。");
    let runs = scene.runs().await;
    assert_eq!(runs.len(), 1, "one turn, one run: {runs:?}");
    for word in ["你好", "在吗", "多少钱？"] {
        assert!(runs[0]["question"].to_string().contains(word), "{word} in {}", runs[0]["question"]);
    }

    let conversation = scene.conversation().await;
    assert_eq!((&conversation["mode"], &conversation["kind"]), (&json!("ai"), &json!("friend")));
    assert_eq!(conversation["contact"]["nickname"], "李女士");
    let path = format!("/conversations/{}/messages", conversation["id"].as_str().expect("an id"));
    eventually("the answer stands as sent", secs(20), async || {
        scene.admin.get(&path).await.expect(200)["items"][0]["status"] == "sent"
    })
    .await;
    let messages = scene.admin.all(&path).await;
    let said: Vec<(&str, &str)> = messages
        .iter()
        .map(|message| {
            (message["origin"].as_str().expect("an origin"), message["direction"].as_str().expect("a way"))
        })
        .collect();
    assert_eq!(said, [("ai", "out"), ("customer", "in"), ("customer", "in"), ("customer", "in")]);

    let ledger = scene.admin.all(&format!("/cost-ledgers?account_id={}", scene.account.id)).await;
    let line = |model: &str| {
        let of = |line: &&Value| line["model_name"] == model;
        ledger.iter().find(of).unwrap_or_else(|| panic!("{model} in {ledger:?}"))
    };
    let chat = line("sandbox-chat");
    // 812 × 0.002 / 1000 + 46 × 0.006 / 1000
    assert_eq!(
        (&chat["calculated_cost"], &chat["priced"], &chat["estimated"]),
        (&json!("0.0019"), &json!(true), &json!(false))
    );
    assert!(line("sandbox-embedding")["input_tokens"].as_i64().expect("tokens") > 0);
    let budget = &scene.admin.get("/budgets").await.expect(200)["items"][0];
    assert_eq!(budget["reserved_yuan"], "0", "settled: {budget}");
    assert!(budget["spent_yuan"].as_str().expect("yuan") >= "0.0019", "{budget}");
}

#[tokio::test]
async fn a_takeover_while_the_model_writes_means_that_the_model_says_nothing_more() {
    let scene = Scene::set(100).await;
    scene.script(json!({"answer": "这句话不该发出去", "delay_ms": 1500})).await;
    scene.write(&["帮我看看订单"]).await;
    eventually("the model writes", secs(20), async || scene.turns("replying").await == 1).await;
    let conversation = scene.conversation().await;
    let path = format!("/conversations/{}", conversation["id"].as_str().expect("an id"));
    let taken = scene.admin.post(&format!("{path}/takeover"), json!({"minutes": 30})).await.expect(200);
    assert_eq!(taken["mode"], "human");
    assert!(taken["mode_until"].is_string(), "{taken}");
    eventually("the run has ended", secs(20), async || {
        let ended = format!(
            "SELECT count(*) AS n FROM ai_runs WHERE organization_id = '{}' AND finished_at IS NOT NULL",
            scene.admin.organization
        );
        scene.here.number(&ended).await == 1
    })
    .await;
    scene.write(&["还在吗"]).await;
    let person = scene.admin.text(&scene.account, CUSTOMER, "您好，我是人工客服小王", "interactive").await;
    scene.here.ended(&scene.admin, person).await;
    let received = scene.received(1).await;
    assert_eq!(received.len(), 1, "{received:?}");
    assert_eq!(received[0]["body"]["content"], "您好，我是人工客服小王");

    let back = scene.admin.post(&format!("{path}/hand-back"), json!({})).await.expect(200);
    assert_eq!(back["mode"], "ai");
    scene.script(json!({"answer": "我在，请讲。"})).await;
    scene.write(&["那退货呢？"]).await;
    let received = scene.received(2).await;
    assert_eq!(received[1]["body"]["content"], "我在，请讲。");
    let asked = scene.runs().await.last().expect("a run")["question"].to_string();
    assert!(asked.contains("小王"), "the model learns what the person said: {asked}");
}

/// How long it may take from the model's last byte to the call of GeWe, at p99, on an idle machine.
const PROMPT: Duration = Duration::from_millis(60);

/// How long after the end of the quiet a turn may begin, at p99, on an idle machine.
const LATE: Duration = Duration::from_millis(250);

/// Half and nearly all of what a statement selects as `took`, an interval.
async fn spread(scene: &Scene, from: &str) -> (Duration, Duration) {
    let at = async |share: &str| {
        let statement = format!(
            "SELECT (extract(epoch FROM percentile_disc({share}) WITHIN GROUP (ORDER BY took)) * 1000000)::bigint AS n \
             FROM (SELECT {from}) AS each"
        );
        Duration::from_micros(scene.here.number(&statement).await.unsigned_abs())
    };
    (at("0.5").await, at("0.99").await)
}

/// From the claim of a send to the statement that lets it begin: the gate, for one origin of messages.
async fn gate(scene: &Scene, origin: &str) -> (Duration, Duration) {
    let organization = scene.admin.organization;
    spread(
        scene,
        &format!(
            "s.started_at - a.started_at AS took FROM messages m JOIN sends s ON s.id = m.send_id \
             JOIN attempts a ON a.job_id = s.job_id AND a.attempt = s.attempt \
             WHERE m.organization_id = '{organization}' AND m.origin = '{origin}'"
        ),
    )
    .await
}

#[tokio::test]
async fn an_answer_reaches_the_phone_right_after_the_models_last_byte() {
    let scene = Scene::set(50).await;
    // The first ones find cold caches, and a disk that is still busy with making the database.
    let (warm, turns) = if chaos::long() { (30, 300) } else { (0, 15) };
    scene.script(json!({"answer": "好的。", "times": 0})).await;
    let mut took: Vec<i64> = Vec::new();
    for turn in 0..warm + turns {
        scene.write(&[&format!("第{turn}个问题")]).await;
        let received = scene.received(turn + 1).await;
        let arrived = received[turn]["received_at_us"].as_i64().expect("a time");
        let finished = eventually("the run is over", secs(20), async || {
            let runs = scene.runs().await;
            runs.get(turn).and_then(|run| run["finished_at_us"].as_i64()).ok_or("not yet".to_owned())
        })
        .await;
        took.push(arrived - finished);
    }
    took.drain(..warm);
    took.sort_unstable();
    let at =
        |share: f64| Duration::from_micros(took[((took.len() - 1) as f64 * share) as usize].unsigned_abs());
    let (p50, p99) = (at(0.5), at(0.99));
    chaos::report(&format!(
        "answers: {turns} turns, from the model's last byte to GeWe p50 {p50:.1?}, p99 {p99:.1?}\n"
    ));
    // Other tests run beside the short form.
    let bound = if chaos::long() { PROMPT } else { secs(5) };
    assert!(p99 <= bound, "p99 {p99:?}");

    let begun = format!(
        "r.started_at - t.flush_at AS took FROM turns t JOIN ai_runs r ON r.turn_id = t.id AND r.run = t.run \
         WHERE t.organization_id = '{}'",
        scene.admin.organization
    );
    let early = format!("SELECT count(*) AS n FROM (SELECT {begun}) AS each WHERE took < interval '0'");
    assert_eq!(scene.here.number(&early).await, 0, "no turn begins before its quiet has passed");
    let (p50, late) = spread(&scene, &begun).await;
    chaos::report(&format!(
        "answers: {turns} turns, from the end of the quiet to the call of the model p50 {p50:.1?}, p99 {late:.1?}\n"
    ));

    // What the gate asks for the words of a machine beside what it asks for those of a person: of another account, so
    // that the limits of the first hold nobody up.
    let person = scene.admin.account(600, 0).await;
    for text in 0..turns {
        let job = scene.admin.text(&person, CUSTOMER, &format!("第{text}句"), "interactive").await;
        scene.here.ended(&scene.admin, job).await;
    }
    let ((ai, ai_p99), (person, person_p99)) = (gate(&scene, "ai").await, gate(&scene, "person").await);
    chaos::report(&format!(
        "answers: from the claim through the gate, {turns} of a model p50 {ai:.1?}, p99 {ai_p99:.1?}; \
         {turns} of a person p50 {person:.1?}, p99 {person_p99:.1?}; the model's cost {:.1?} more\n",
        ai.saturating_sub(person)
    ));
    let bound = if chaos::long() { LATE } else { secs(5) };
    assert!(late <= bound, "p99 {late:?}");
}
