//! Texts that a model writes, that people look at first, and words that must not be said.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use diesel_async::AsyncConnection;
use entropy_jobs::ai::port::{AiClient, AiError, Answer, App, Ask, ErrorClass, Found, Part};
use entropy_jobs::campaign::overdue;
use entropy_jobs::campaign::review::{self, Decision, Undecided};
use entropy_jobs::secret::Secret;
use entropy_jobs::vault::Vault;
use entropy_schema::settings;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Scene;
use super::scene::{end, send};

/// Opens the workflow's key in these tests.
const VAULT_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// What tells a person that a machine writes.
const DISCLOSURE: &str = "我是 AI 助手。";

/// What a call comes to.
type Outcome = Result<Answer, AiError>;

/// A model that does as it is told; without a word, it greets.
#[derive(Default)]
struct Model {
    scripts: Mutex<VecDeque<(Option<BoxFuture<'static, ()>>, Outcome)>>,
    asked: Mutex<Vec<Ask>>,
    records: Mutex<Option<Answer>>,
}

impl AiClient for Model {
    fn ask<'a>(&'a self, app: &'a App, ask: &'a Ask) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            assert_eq!(app.api_key.expose(), "fastgpt-geheim");
            self.asked.lock().expect("a lock").push(ask.clone());
            let script = self.scripts.lock().expect("a lock").pop_front();
            let (meanwhile, outcome) = script.unwrap_or_else(|| (None, Ok(answer("您好，最近学得怎么样？"))));
            if let Some(meanwhile) = meanwhile {
                meanwhile.await;
            }
            outcome
        })
    }

    fn look_up<'a>(
        &'a self,
        _: &'a App,
        _: &'a str,
        _: Uuid,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Found, AiError>> {
        let found = self.records.lock().expect("a lock").clone();
        Box::pin(async move { Ok(found.map_or(Found::Nothing, Found::Ran)) })
    }
}

impl Model {
    fn next(&self, outcome: Outcome) {
        self.scripts.lock().expect("a lock").push_back((None, outcome));
    }

    fn questions(&self) -> Vec<String> {
        let asked = self.asked.lock().expect("a lock");
        asked
            .iter()
            .map(|ask| match &ask.parts[0] {
                Part::Text(text) => text.clone(),
                _ => String::new(),
            })
            .collect()
    }
}

fn answer(text: &str) -> Answer {
    let node = json!({
        "id": "n1", "nodeId": "ai01", "moduleName": "AI 对话", "moduleType": "chatNode", "model": "demo-model",
        "inputTokens": 800, "outputTokens": 40, "totalPoints": 0.3,
    });
    Answer {
        text: text.to_owned(),
        nodes: vec![node],
        node_error: None,
        interactive: false,
        finished: Instant::now(),
    }
}

fn error(class: ErrorClass) -> AiError {
    AiError { class, code: "told_so", message: "the script says so".to_owned(), retry_after: None }
}

/// A scene with a workflow named 回访 and a model behind it.
async fn set() -> (Scene, Arc<Model>) {
    let model = Arc::new(Model::default());
    let vault = Arc::new(Vault::from_base64_key(VAULT_KEY).expect("a key"));
    let scene = Scene::set_with(|services| {
        services.ai = model.clone();
        services.vault = Some(vault.clone());
    })
    .await;
    let (organization, account, id) = (scene.book.organization, scene.account, Uuid::now_v7());
    let key = vault.seal(&Secret::new("fastgpt-geheim"), &settings::key_context(organization));
    scene
        .book
        .run(&format!(
            "INSERT INTO ai_workflows (id, organization_id, alias, api_key, key_hash, app_id, requests_per_minute, reserve_yuan)
             VALUES ('{id}', '{organization}', '回访', '{key}', 'hash-1', 'app-1', 600, 0.5);
             INSERT INTO account_ai (account_id, organization_id, enabled, disclosure)
             VALUES ('{account}', '{organization}', false, '{DISCLOSURE}');
             INSERT INTO model_prices (id, organization_id, model_name, input_price_per_1k, output_price_per_1k, valid_from)
             VALUES ('{id}', '{organization}', 'demo-model', 0.01, 0.02, '2026-01-01')"
        ))
        .await;
    (scene, model)
}

/// A step that a model writes, and then the end.
fn written(more: Value) -> Value {
    let mut step = json!({
        "id": "first", "type": "ai_send", "workflow": "回访", "instruction": "问候客户，了解学习进度",
        "fallback_text": "您好，有问题随时找我。", "next": "over",
    });
    step.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    json!([step, end("over", "已完成")])
}

async fn decide(scene: &Scene, contact: Uuid, decision: Decision<'_>) -> Result<(), Undecided> {
    let enrollment = scene
        .lines(&format!("SELECT id::text AS word FROM sop_enrollments WHERE contact_id = '{contact}'"))
        .await;
    let (organization, enrollment) = (scene.book.organization, enrollment[0].parse().expect("an id"));
    let mut conn = scene.book.conn().await;
    let decided = conn
        .transaction(async |conn| {
            review::decide(conn, organization, enrollment, "first", Uuid::nil(), decision).await
        })
        .await;
    decided.expect("an answer").map(|_| ())
}

#[tokio::test]
async fn a_model_writes_it_and_is_paid_and_it_is_said_once() {
    let (scene, model) = set().await;
    let plan = scene.plan(written(json!({ "max_chars": 20 }))).await;
    let contact = scene.friend("wxid_a").await;
    scene.writes("wxid_a", "想了解下课程").await;
    scene.clock("2026-11-23T10:05:00+08:00").await;
    scene.enroll(plan, &[contact]).await;
    model.next(Ok(answer("<think>问候</think>**王女士**您好，课程学得怎么样？这后面的话太长了，说不下。")));
    scene.settles().await;
    assert_eq!(scene.words(), [format!("{DISCLOSURE}\n王女士您好，课程学得怎么样？")]);
    assert_eq!(scene.steps().await, ["first sent", "over done"]);
    let questions = model.questions();
    assert!(questions.len() == 1 && questions[0].ends_with("客户：想了解下课程"), "{questions:?}");
    assert!(
        questions[0].contains("问候客户，了解学习进度") && questions[0].contains("20 个字"),
        "{questions:?}"
    );
    let booked = scene
        .lines(
            "SELECT concat_ws(' ', r.outcome, round(l.calculated_cost, 4), l.sop_id = r.sop_id, s.run_id = r.id) AS word
             FROM ai_runs r JOIN cost_ledgers l ON l.run_id = r.id JOIN sop_steps s ON s.enrollment_id = r.turn_id
                 AND s.step_id = r.step_id",
        )
        .await;
    assert_eq!(booked, ["written 0.0088 t t"]);
    scene.book.assert_sound().await;
}

#[tokio::test]
async fn the_plans_own_text_takes_the_place_of_what_the_model_cannot_say() {
    let (scene, model) = set().await;
    let (organization, id) = (scene.book.organization, Uuid::now_v7());
    scene
        .book
        .run(&format!(
            "INSERT INTO sensitive_words (id, organization_id, word, normalized, action)
             VALUES ('{id}', '{organization}', '稳赚', '稳赚', 'block')"
        ))
        .await;
    let plan = scene.plan(written(json!({}))).await;
    let node_error = Answer { node_error: Some("429".to_owned()), ..answer("半句") };
    let outcomes: [(&str, Outcome); 6] = [
        ("told_so", Err(error(ErrorClass::Failed))),
        ("told_so", Err(error(ErrorClass::Refused))),
        ("answer_failed", Ok(node_error)),
        ("empty_answer", Ok(answer("<think>想</think>"))),
        ("answer_failed", Ok(answer("code_error.x"))),
        ("sensitive_words", Ok(answer("跟着我们稳 赚"))),
    ];
    for (n, (code, outcome)) in outcomes.into_iter().enumerate() {
        // A refused key leaves its breaker open.
        scene.book.run("DELETE FROM breakers").await;
        let contact = scene.friend(&format!("wxid_{n}")).await;
        model.next(outcome);
        scene.enroll(plan, &[contact]).await;
        scene.settles().await;
        let fallback = format!(
            "SELECT fallback_code AS word FROM sop_steps WHERE contact_id = '{contact}' AND kind = 'ai_send'"
        );
        assert_eq!(scene.lines(&fallback).await, [code], "{n}");
    }
    let refused = scene.friend("wxid_open_breaker").await;
    scene
        .book
        .run(&format!(
            "INSERT INTO breakers (subject, organization_id, failures, open_until)
             VALUES ('key:hash-1', '{organization}', 9, clock_timestamp() + interval '1 hour')"
        ))
        .await;
    scene.enroll(plan, &[refused]).await;
    scene.settles().await;
    assert_eq!(scene.words(), vec!["您好，有问题随时找我。"; 7]);
    assert_eq!(model.questions().len(), 6, "an open breaker asks nobody");
    let reserved = "SELECT count(*) AS n FROM budget_reservations";
    assert_eq!(scene.book.number(reserved).await, 0);
    scene.book.assert_sound().await;
}

#[tokio::test]
async fn a_used_up_budget_costs_nothing_more() {
    let (scene, model) = set().await;
    let caps = json!({ "per_contact_per_day": 5, "per_account_per_day": 500, "max_unanswered": 5,
        "ai_budget_yuan_per_enrollment": "0.50" });
    let mut steps = written(json!({ "next": "second" }));
    let mut second = steps[0].clone();
    (second["id"], second["next"]) = (json!("second"), json!("over"));
    steps.as_array_mut().expect("steps").insert(1, second);
    let plan = scene.plan_with(json!({ "caps": caps, "steps": steps })).await;
    let contact = scene.friend("wxid_a").await;
    scene.enroll(plan, &[contact]).await;
    scene.settles().await;
    let codes = "SELECT step_id || ' ' || coalesce(fallback_code, '-') AS word FROM sop_steps WHERE kind = 'ai_send' ORDER BY 1";
    assert_eq!(
        scene.lines(codes).await,
        ["first -", "second budget_exhausted"],
        "the first has cost something"
    );
    let (organization, id) = (scene.book.organization, Uuid::now_v7());
    scene
        .book
        .run(&format!(
            "INSERT INTO budgets (id, organization_id, scope, scope_id, period, limit_yuan)
             VALUES ('{id}', '{organization}', 'sop', '{plan}', 'day', 0.4)"
        ))
        .await;
    let other = scene.friend("wxid_b").await;
    scene.enroll(plan, &[other]).await;
    scene.settles().await;
    assert_eq!(model.questions().len(), 1);
    assert_eq!(scene.words()[2..], ["您好，有问题随时找我。", "您好，有问题随时找我。"]);
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM budget_reservations").await, 0);
}

#[tokio::test]
async fn a_lost_answer_is_looked_up_and_the_model_is_not_asked_twice() {
    let (scene, model) = set().await;
    let plan = scene.plan(written(json!({}))).await;
    let contact = scene.friend("wxid_a").await;
    scene.enroll(plan, &[contact]).await;
    model.next(Err(error(ErrorClass::Ambiguous)));
    *model.records.lock().expect("a lock") = Some(answer("找到了的回答"));
    scene.settles().await;
    assert_eq!(scene.words(), [format!("{DISCLOSURE}\n找到了的回答")]);
    assert_eq!(model.questions().len(), 1);
    scene.book.assert_sound().await;
}

#[tokio::test]
async fn people_whose_job_died_are_looked_at_by_the_next_sweep() {
    let (scene, model) = set().await;
    let plans = [
        scene.plan(written(json!({}))).await,
        scene.plan(json!([send("first", "周六有课", json!("over")), end("over", "已完成")])).await,
    ];
    let mut lost = Vec::new();
    for (n, plan) in plans.into_iter().enumerate() {
        let contact = scene.friend(&format!("wxid_{n}")).await;
        scene.enroll(plan, &[contact]).await;
        // Its step makes the job that dies.
        for job in scene.hand_out().await {
            scene.run(job).await;
        }
        lost.extend(scene.hand_out().await);
    }
    overdue::pass(&scene.book.db).await.expect("a pass");
    let waiting = scene.standing().await;
    assert_eq!(
        waiting,
        ["waiting first 11-23 10:10 writing", "waiting first 11-23 10:10 sending"],
        "they wait for jobs that live"
    );
    assert_eq!(lost.len(), 2);
    for job in lost {
        scene.dies(job).await;
    }
    scene.settles().await;
    assert_eq!(scene.standing().await, waiting, "nobody has told them");
    let paused = "UPDATE sop_enrollments SET state = 'paused' WHERE contact_id = (SELECT id FROM contacts WHERE wxid = 'wxid_1')";
    scene.book.run(paused).await;
    for _ in 0..2 {
        overdue::pass(&scene.book.db).await.expect("a pass");
    }
    scene.settles().await;
    let standing = scene.standing().await;
    assert_eq!(
        standing,
        ["completed over 已完成", "paused first 11-23 10:10 sending"],
        "who is paused rests"
    );
    scene.book.run("UPDATE sop_enrollments SET state = 'waiting' WHERE state = 'paused'").await;
    overdue::pass(&scene.book.db).await.expect("a pass");
    scene.settles().await;
    assert_eq!(scene.standing().await, ["completed over 已完成", "completed over 已完成"]);
    assert_eq!(scene.words(), ["您好，有问题随时找我。"]);
    assert_eq!(scene.steps().await, ["first sent", "over done", "first failed quarantined", "over done"]);
    assert_eq!(model.questions().len(), 0);
    scene.book.assert_sound().await;
}

#[tokio::test]
async fn what_was_written_before_the_customer_wrote_is_not_said() {
    let (scene, model) = set().await;
    let scene = Arc::new(scene);
    let stops = scene.plan(written(json!({}))).await;
    let goes_on = scene.plan_with(json!({ "stop": [], "steps": written(json!({})) })).await;
    for (plan, wxid) in [(stops, "wxid_stops"), (goes_on, "wxid_goes_on")] {
        let contact = scene.friend(wxid).await;
        scene.enroll(plan, &[contact]).await;
        let writing = {
            let scene = scene.clone();
            Box::pin(async move {
                scene.clock("2026-11-23T10:00:10+08:00").await;
                scene.writes(wxid, "我已经报名了").await;
                scene.clock("2026-11-23T10:00:20+08:00").await;
            })
        };
        model.scripts.lock().expect("a lock").push_back((Some(writing), Ok(answer("快来报名吧"))));
        scene.settles().await;
        scene.clock("2026-11-23T10:00:00+08:00").await;
    }
    scene.clock("2026-11-23T10:00:30+08:00").await;
    scene.settles().await;
    let words = scene.words();
    assert_eq!(
        words,
        [format!("{DISCLOSURE}\n您好，最近学得怎么样？")],
        "asked again, and with what was written"
    );
    assert!(model.questions()[2].ends_with("客户：我已经报名了"), "{:?}", model.questions());
    assert_eq!(scene.standing().await[0], "exited first replied 客户已回复");
    let outcomes = "SELECT outcome AS word FROM ai_runs ORDER BY id";
    assert_eq!(scene.lines(outcomes).await, ["superseded", "superseded", "written"]);
}

#[tokio::test]
async fn a_text_waits_for_a_person_until_it_is_late() {
    let (scene, _) = set().await;
    let late = json!({ "max_delay": "PT2H", "on_expired": "skip" });
    let plan = scene.plan_with(json!({ "late": late, "steps": written(json!({ "review": "human" })) })).await;
    let mut contacts = Vec::new();
    for name in ["approved", "edited", "rejected", "expired"] {
        contacts.push(scene.friend(&format!("wxid_{name}")).await);
    }
    scene.enroll(plan, &contacts).await;
    scene.settles().await;
    assert_eq!(scene.words().len(), 0);
    assert_eq!(scene.standing().await, vec!["waiting first 11-23 12:00 held_for_review"; 4]);
    let alerts = "SELECT kind AS word FROM alerts WHERE kind = 'sop_review_waiting'";
    assert_eq!(scene.lines(alerts).await.len(), 1, "one for all of a plan");
    let (organization, id) = (scene.book.organization, Uuid::now_v7());
    scene
        .book
        .run(&format!(
            "INSERT INTO sensitive_words (id, organization_id, word, normalized, action)
             VALUES ('{id}', '{organization}', '保本', '保本', 'block')"
        ))
        .await;
    let blocked = decide(&scene, contacts[1], Decision::Approve(Some("保本保息"))).await;
    assert_eq!(blocked, Err(Undecided::BlockedWord));
    assert_eq!(decide(&scene, contacts[0], Decision::Approve(None)).await, Ok(()));
    assert_eq!(decide(&scene, contacts[0], Decision::Reject).await, Err(Undecided::MovedOn));
    assert_eq!(decide(&scene, contacts[1], Decision::Approve(Some("王姐，周六来试听吗？"))).await, Ok(()));
    assert_eq!(decide(&scene, contacts[2], Decision::Reject).await, Ok(()));
    scene.settles().await;
    let words: Vec<(String, String)> = scene.said();
    assert_eq!(words.len(), 2, "{words:?}");
    assert!(words.contains(&("wxid_edited".to_owned(), "王姐，周六来试听吗？".to_owned())), "{words:?}");
    scene.clock("2026-11-23T12:00:00+08:00").await;
    assert_eq!(decide(&scene, contacts[3], Decision::Approve(None)).await, Err(Undecided::Expired));
    scene.settles().await;
    let steps: Vec<String> =
        scene.steps().await.into_iter().filter(|line| line.starts_with("first")).collect();
    assert_eq!(steps, ["first sent", "first sent", "first skipped rejected", "first skipped review_expired"]);
}

#[tokio::test]
async fn words_that_the_organisation_minds_are_masked_reviewed_or_left_out() {
    let (scene, _) = set().await;
    let organization = scene.book.organization;
    for (word, action) in [("最低价", "mask"), ("独家", "review"), ("稳赚", "block")] {
        let id = Uuid::now_v7();
        scene
            .book
            .run(&format!(
                "INSERT INTO sensitive_words (id, organization_id, word, normalized, action)
                 VALUES ('{id}', '{organization}', '{word}', '{word}', '{action}')"
            ))
            .await;
    }
    let mut contacts = Vec::new();
    for (n, text) in ["全网最低价", "独家课程", "稳赚不赔"].into_iter().enumerate() {
        let plan = scene.plan(json!([send("first", text, json!("over")), end("over", "已完成")])).await;
        contacts.push(scene.friend(&format!("wxid_{n}")).await);
        scene.enroll(plan, &contacts[n..]).await;
    }
    scene.settles().await;
    assert_eq!(scene.words(), ["全网＊＊＊"]);
    assert_eq!(
        scene.steps().await,
        [
            "first sent",
            "over done",
            "first held_for_review sensitive_words",
            "first skipped sensitive_words",
            "over done"
        ]
    );
    assert_eq!(decide(&scene, contacts[1], Decision::Approve(None)).await, Ok(()));
    scene.settles().await;
    assert_eq!(scene.words(), ["全网＊＊＊", "独家课程"]);
}

#[tokio::test]
async fn a_stop_of_the_ai_asks_no_model_and_sends_nothing_that_one_wrote() {
    let (scene, model) = set().await;
    let plan = scene.plan(written(json!({}))).await;
    let (before, waiting) = (scene.friend("wxid_before").await, scene.friend("wxid_waiting").await);
    // The text of one is written and waits in the lane.
    scene.enroll(plan, &[waiting]).await;
    for _ in 0..3 {
        for job in scene.hand_out().await {
            if model.questions().is_empty() || scene.steps().await != ["first due"] {
                scene.run(job).await;
            }
        }
    }
    let organization = scene.book.organization;
    scene
        .book
        .run(&format!(
            "INSERT INTO stops (organization_id, scope, scope_id, reason)
             VALUES ('{organization}', 'ai', '{organization}', '说错话了')"
        ))
        .await;
    let asked = model.questions().len();
    scene.enroll(plan, &[before]).await;
    scene.settles().await;
    assert_eq!((scene.words().len(), model.questions().len()), (0, asked));
    scene.book.run("DELETE FROM stops").await;
    scene.clock("2026-11-23T10:20:00+08:00").await;
    scene.settles().await;
    assert_eq!(scene.words().len(), 2);
    assert_eq!(model.questions().len(), 2, "what was written is not paid for again");
}
