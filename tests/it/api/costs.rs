//! What AI runs cost, to the last decimal place.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{assert_problem, id, ids, items, unique};
use crate::harness::Here;
use crate::harness::client::Client;

fn price(model: &str, input: &str, output: &str, from: &str, to: Option<&str>) -> Value {
    json!({"model": model, "input_price_per_1k": input, "output_price_per_1k": output, "valid_from": from, "valid_to": to})
}

/// Enters a run and returns its result.
async fn tally(
    here: &Here,
    client: &Client,
    account: Uuid,
    request: &str,
    model: &str,
    tokens: (i64, i64),
    at: Option<&str>,
) -> Value {
    let body = json!({"request_id": request, "account_id": account, "model": model, "input_tokens": tokens.0, "output_tokens": tokens.1, "occurred_at": at});
    let job = client.post("/jobs/cost-tally", body).await.expect(202);
    assert_eq!((&job["kind"], &job["lane"]), (&json!("cost_tally"), &Value::Null));
    let job = here.ended(client, id(&job["id"])).await;
    assert_eq!(job["state"], "completed", "{job}");
    job["result"].clone()
}

#[tokio::test]
async fn a_run_is_priced_with_the_price_of_its_time() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await.id;
    let (spring, summer) = ("2026-03-01T00:00:00Z", "2026-06-01T00:00:00Z");
    admin.post("/model-prices", price("qwen-max", "0.0008", "0.002", spring, Some(summer))).await.expect(201);
    let added =
        admin.post("/model-prices", price("qwen-max", "0.02", "0.06", summer, None)).await.expect(201);
    assert_eq!((&added["currency"], &added["input_price_per_1k"]), (&json!("CNY"), &json!("0.02")));
    assert_eq!(admin.get("/model-prices").await.expect(200)["items"].as_array().map(Vec::len), Some(2));

    let cases = [
        ((100, 0), "2026-03-01T00:00:00Z", Some("0.00008")),
        ((1, 0), "2026-05-31T23:59:59Z", Some("0.0000008")),
        ((1500, 500), "2026-04-01T08:00:00+08:00", Some("0.0022")),
        ((1500, 500), "2026-06-01T00:00:00Z", Some("0.06")),
        ((0, 0), "2026-06-02T00:00:00Z", Some("0")),
        ((1_000_000_000_000, 1_000_000_000_000), "2026-06-02T00:00:00Z", Some("80000000")),
        ((100, 100), "2026-02-28T23:59:59Z", None),
    ];
    for (tokens, at, cost) in cases {
        let request = unique("run-");
        let result = tally(&here, &admin, account, &request, "qwen-max", tokens, Some(at)).await;
        let ledger = admin.get("/cost-ledgers?limit=1").await.expect(200);
        let line = &items(&ledger)[0];
        assert_eq!(line["request_id"], json!(request));
        assert_eq!(line["calculated_cost"], json!(cost), "{tokens:?} at {at}");
        assert_eq!((&line["priced"], &result["priced"]), (&json!(cost.is_some()), &json!(cost.is_some())));
        assert_eq!((&line["input_tokens"], &line["output_tokens"]), (&json!(tokens.0), &json!(tokens.1)));
        assert_eq!((&line["wechat_account_id"], &line["user_id"]), (&json!(account), &json!(admin.user)));
        assert_eq!(result["warning"].is_null(), cost.is_some(), "{result}");
    }
    // Without a time it is now, and an unknown model is kept unpriced, with a warning.
    let now = tally(&here, &admin, account, &unique("run-"), "qwen-max", (100, 0), None).await;
    assert_eq!(now["priced"], true);
    let unknown = tally(&here, &admin, account, &unique("run-"), "qwen-mini", (100, 0), None).await;
    assert_eq!((&unknown["priced"], &unknown["calculated_cost"]), (&json!(false), &Value::Null));
    assert!(unknown["warning"].as_str().is_some_and(|text| text.contains("price")), "{unknown}");
    let pages = admin.all("/cost-ledgers").await;
    assert_eq!(pages.len(), cases.len() + 2);
    let by_one = admin.get("/cost-ledgers?limit=1").await.expect(200);
    let next = by_one["next_cursor"].as_str().expect("there is more");
    let next = admin.get(&format!("/cost-ledgers?limit=1&cursor={next}")).await.expect(200);
    assert_eq!(ids(&next), [id(&pages[1]["id"])]);
}

#[tokio::test]
async fn a_run_is_entered_once_and_the_first_entry_stands() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await.id;
    admin.post("/model-prices", price("m", "1", "1", "2026-01-01T00:00:00Z", None)).await.expect(201);
    let request = unique("run-");
    let first = tally(&here, &admin, account, &request, "m", (1000, 0), None).await;
    let second = tally(&here, &admin, account, &request, "m", (9000, 0), None).await;
    assert_eq!((&first["written"], &second["written"]), (&json!(true), &json!(false)));
    assert_eq!(
        (&second["ledger_id"], &second["calculated_cost"]),
        (&first["ledger_id"], &first["calculated_cost"])
    );
    let lines = admin.all("/cost-ledgers").await;
    assert_eq!((lines.len(), &lines[0]["calculated_cost"]), (1, &json!("1")));
    // Another organisation's runs may have the same name.
    let stranger = here.register().await;
    let theirs = stranger.account(600, 0).await.id;
    let theirs = tally(&here, &stranger, theirs, &request, "m", (1000, 0), None).await;
    assert_eq!((&theirs["written"], &theirs["priced"]), (&json!(true), &json!(false)), "and other prices");
}

#[tokio::test]
async fn a_model_has_one_price_at_a_time() {
    let here = Here::open().await;
    let admin = here.register().await;
    let (a, b, c) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z");
    admin.post("/model-prices", price("m", "1", "1", a, Some(b))).await.expect(201);
    for (from, to) in
        [(a, Some(b)), (a, None), ("2026-01-31T23:59:59Z", Some(c)), ("2025-01-01T00:00:00Z", Some(c))]
    {
        assert_problem(
            admin.post("/model-prices", price("m", "1", "1", from, to)).await,
            409,
            "price_overlaps",
            "",
        );
    }
    admin.post("/model-prices", price("m", "2", "2", b, Some(c))).await.expect(201);
    admin.post("/model-prices", price("other", "1", "1", a, None)).await.expect(201);
    here.register().await.post("/model-prices", price("m", "1", "1", a, None)).await.expect(201);
    for (body, path) in [
        (price("", "1", "1", c, None), "model"),
        (price("m", "-1", "1", c, None), "input_price_per_1k"),
        (price("m", "1", "1e3", c, None), "output_price_per_1k"),
        (price("m", "0.00000000001", "1", c, None), "input_price_per_1k"),
        (price("m", "1", "1", c, Some(c)), "valid_to"),
    ] {
        assert_problem(admin.post("/model-prices", body).await, 422, "validation_failed", path);
    }
    let mut number = price("m", "1", "1", c, None);
    number["input_price_per_1k"] = json!(0.1);
    assert_problem(admin.post("/model-prices", number).await, 400, "invalid_request", "input_price_per_1k");
    assert_eq!(items(&admin.get("/model-prices").await.expect(200)).len(), 3);
}

#[tokio::test]
async fn an_open_price_is_ended_where_the_next_begins() {
    let here = Here::open().await;
    let admin = here.register().await;
    let (a, b) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
    let open = admin.post("/model-prices", price("m", "1", "1", a, None)).await.expect(201);
    let next = price("m", "2", "2", b, None);
    assert_problem(admin.post("/model-prices", next.clone()).await, 409, "price_overlaps", "");
    let end = format!("/model-prices/{}/end", open["id"].as_str().expect("an id"));
    let stranger = here.register().await;
    assert_problem(stranger.post(&end, json!({ "valid_to": b })).await, 404, "price_not_found", "");
    let too_early = json!({ "valid_to": "2025-01-01T00:00:00Z" });
    assert_problem(admin.post(&end, too_early).await, 404, "price_not_found", "");
    let ended = admin.post(&end, json!({ "valid_to": b })).await.expect(200);
    assert_eq!(ended["valid_to"], json!("2026-02-01T00:00:00+00:00"));
    admin.post("/model-prices", next).await.expect(201);
}
