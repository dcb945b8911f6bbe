//! Runs that were given up, and what the provider's records, here the sandbox's, know of them later.

use std::sync::Arc;

use chrono::Timelike as _;
use entropy_jobs::job::Job as _;
use entropy_jobs::kinds::settle_runs::SettleRuns;
use entropy_workers::adapters::fastgpt::{FastGptClient, Patience};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::scene::{Scene, code, outcome};
use crate::harness::client::Sandbox;
use crate::harness::{eventually, secs};

/// Runs one pass, and returns how many runs it looked for and settled.
async fn pass(scene: &Scene) -> (i64, i64) {
    let done = SettleRuns {}.run(&scene.context(Uuid::now_v7())).await.expect("a pass");
    let result = done.result.expect("a result");
    (result["looked_for"].as_i64().expect("a number"), result["settled"].as_i64().expect("a number"))
}

/// The lines of the ledger: what they cost, whether they are an estimate, and whether they take one back.
async fn lines(scene: &Scene) -> Value {
    let lines = "SELECT jsonb_agg(jsonb_build_array(trim_scale(calculated_cost), estimated, corrects IS NOT NULL) \
        ORDER BY estimated DESC, corrects IS NOT NULL, id) AS value \
        FROM cost_ledgers WHERE run_id = (SELECT id FROM ai_runs ORDER BY id LIMIT 1)";
    scene.json(lines).await
}

/// A zone in which the day neither begins nor ends while a test makes runs older.
fn where_it_is_noon() -> String {
    match i64::from(chrono::Utc::now().hour()) - 12 {
        0 => "UTC".to_owned(),
        // In these names the sign is turned over.
        ahead => format!("Etc/GMT{ahead:+}"),
    }
}

#[tokio::test]
async fn the_records_of_the_provider_correct_an_estimate_once_when_they_know_the_run() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let stop = CancellationToken::new();
    let _end = stop.clone().drop_guard();
    tokio::spawn(async move {
        let config = entropy_sandbox::Config::default();
        entropy_sandbox::serve(listener, config, async move { stop.cancelled().await }).await
    });
    let sandbox = Sandbox::new(&base);
    let client = FastGptClient::new(Some(&format!("{base}/fastgpt/api")), Patience::default());
    let client = Arc::new(client.expect("a client"));
    let scene = Scene::open_with(|services| services.ai = client).await;
    let organization = scene.book.organization;
    scene
        .book
        .run(&format!(
            "UPDATE ai_workflows SET app_id = 'app_geheim', reserve_yuan = 0.5;
             INSERT INTO organization_settings (organization_id, timezone) VALUES ('{organization}', '{}');
             INSERT INTO budgets (id, organization_id, scope, scope_id, period, limit_yuan)
             VALUES ('{}', '{organization}', 'organization', '{organization}', 'day', 10);
             INSERT INTO model_prices (id, organization_id, model_name, input_price_per_1k, output_price_per_1k, valid_from)
             VALUES ('{}', '{organization}', 'sandbox-chat', 0.002, 0.006, '2026-01-01')",
            where_it_is_noon(),
            Uuid::now_v7(),
            Uuid::now_v7(),
        ))
        .await;
    // It runs, its answer is lost, and the records know it only after it was given up.
    let lost = json!({
        "fail": "reset_after_run", "answer": "在的", "preset": "plain", "input_tokens": 812, "output_tokens": 46, "save_after_ms": 2500
    });
    sandbox.tell("/_sandbox/fastgpt/scripts", &lost).await;
    sandbox.tell("/_sandbox/fastgpt/scripts", &json!({"fail": "reset"})).await;
    let older =
        |minutes: u32| format!("UPDATE ai_runs SET started_at = started_at - interval '{minutes} minutes'");
    let turn = scene.write("在吗").await;
    assert_eq!(code(&scene.attempt(turn).await), "ai_answer_lost");
    scene.book.run(&older(3)).await;
    assert_eq!(
        code(&scene.attempt(turn).await),
        "ai_answer_lost",
        "the second call was lost too, and never ran"
    );
    scene.book.run(&older(3)).await;
    assert_eq!(outcome(&scene.attempt(turn).await), "handed_off");
    assert_eq!(lines(&scene).await, json!([[0.5, true, false]]));

    assert_eq!(pass(&scene).await, (0, 0), "they are too young");
    eventually("the records know the first run", secs(20), async || {
        let runs = sandbox.show("/_sandbox/fastgpt/runs").await;
        runs["items"][0]["saved"] == true
    })
    .await;
    scene.book.run(&older(10)).await;
    assert_eq!(pass(&scene).await, (2, 1));
    // 812 × 0.002 / 1000 + 46 × 0.006 / 1000
    assert_eq!(lines(&scene).await, json!([[0.5, true, false], [-0.5, true, true], [0.0019, false, false]]));
    let first = "SELECT jsonb_build_array(state, outcome, answer, points > 0) AS value FROM ai_runs ORDER BY id LIMIT 1";
    assert_eq!(scene.json(first).await, json!(["answered", "late", "在的", true]));
    let spent = "SELECT to_jsonb(trim_scale(spent_yuan)) AS value FROM budget_periods";
    assert_eq!(scene.json(spent).await, json!(0.5019), "the other run is still an estimate");
    assert_eq!(scene.sends().await, [""; 0], "the customer was handed to a person long ago");

    assert_eq!(pass(&scene).await, (0, 0), "its age has not doubled since");
    let doubled = "UPDATE ai_runs SET started_at = clock_timestamp() - interval '60 minutes', \
        looked_up_at = clock_timestamp() - interval '40 minutes'";
    scene.book.run(doubled).await;
    assert_eq!(pass(&scene).await, (1, 0), "only what is still unknown");
    scene.book.run(doubled).await;
    scene.book.run(&older(60 * 24 * 2)).await;
    assert_eq!(pass(&scene).await, (0, 0), "nobody will ever know");
    assert_eq!(scene.json(spent).await, json!(0.5019));
    // The job that gave the run up may still be given out again: it asks nobody a third time.
    assert!(scene.attempt(turn).await.is_err());
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM ai_runs").await, 2);
}
