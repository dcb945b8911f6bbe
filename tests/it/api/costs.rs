//! What AI runs cost, to the last decimal place.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{assert_problem, id, ids, items, unique};
use crate::harness::Here;
use crate::harness::client::Client;

fn price(model: &str, input: &str, output: &str, from: &str, to: Option<&str>) -> Value {
    json!({"model": model, "input_per_1k": input, "output_per_1k": output, "effective_from": from, "effective_to": to})
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
    assert_eq!((&added["currency"], &added["input_per_1k"]), (&json!("CNY"), &json!("0.02")));
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
        (price("m", "-1", "1", c, None), "input_per_1k"),
        (price("m", "1", "1e3", c, None), "output_per_1k"),
        (price("m", "0.00000000001", "1", c, None), "input_per_1k"),
        (price("m", "1", "1", c, Some(c)), "effective_to"),
    ] {
        assert_problem(admin.post("/model-prices", body).await, 422, "validation_failed", path);
    }
    let mut number = price("m", "1", "1", c, None);
    number["input_per_1k"] = json!(0.1);
    assert_problem(admin.post("/model-prices", number).await, 400, "invalid_request", "input_per_1k");
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
    assert_problem(stranger.post(&end, json!({ "effective_to": b })).await, 404, "price_not_found", "");
    let too_early = json!({ "effective_to": "2025-01-01T00:00:00Z" });
    assert_problem(admin.post(&end, too_early).await, 404, "price_not_found", "");
    let ended = admin.post(&end, json!({ "effective_to": b })).await.expect(200);
    assert_eq!(ended["effective_to"], json!("2026-02-01T00:00:00+00:00"));
    admin.post("/model-prices", next).await.expect(201);
}

#[tokio::test]
async fn tiers_and_bands_of_a_model_never_overlap() {
    let here = Here::open().await;
    let admin = here.register().await;
    let from = "2026-01-01T00:00:00Z";
    let with = |fields: Value| {
        let mut body = price("m", "1", "1", from, None);
        for (field, value) in fields.as_object().expect("fields") {
            body[field] = value.clone();
        }
        body
    };
    let low = with(json!({"max_input": 32_000, "cached_input_per_1k": "0.1"}));
    let added = admin.post("/model-prices", low).await.expect(201);
    assert_eq!((&added["min_input"], &added["max_input"]), (&json!(0), &json!(32_000)));
    assert_eq!((&added["cached_input_per_1k"], &added["band"]), (&json!("0.1"), &Value::Null));
    for fields in [
        json!({"min_input": 32_000}),
        json!({"band": "22:00-08:00"}),
        json!({"band": "12:00-14:00", "max_input": 100}),
        json!({"band": "12:00-14:00", "min_input": 100}),
    ] {
        admin.post("/model-prices", with(fields)).await.expect(201);
    }
    for fields in [
        json!({}),
        json!({"min_input": 31_999, "max_input": 32_000}),
        json!({"band": "07:59-08:30"}),
        json!({"band": "08:00-22:01"}),
        json!({"band": "13:00-13:01", "min_input": 99, "max_input": 100}),
        json!({"band": "22:00-08:00"}),
    ] {
        assert_problem(admin.post("/model-prices", with(fields)).await, 409, "price_overlaps", "");
    }
    for (fields, path) in [
        (json!({"band": "8-9"}), "band"),
        (json!({"band": "08:00-08:00"}), "band"),
        (json!({"min_input": -1}), "min_input"),
        (json!({"min_input": 5, "max_input": 5}), "max_input"),
        (json!({"cached_input_per_1k": "-1"}), "cached_input_per_1k"),
    ] {
        assert_problem(admin.post("/model-prices", with(fields)).await, 422, "validation_failed", path);
    }
    assert_eq!(items(&admin.get("/model-prices").await.expect(200)).len(), 5);
}

#[tokio::test]
async fn a_late_price_is_previewed_then_entered_and_the_report_agrees() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await.id;
    let now = chrono::Utc::now();
    let ago = |hours: i64| (now - chrono::TimeDelta::hours(hours)).to_rfc3339();
    for (n, hours) in [(0, 1), (1, 1), (2, 30)] {
        let request = unique(&format!("run-{n}-"));
        tally(&here, &admin, account, &request, "豆包", (1000, 500), Some(&ago(hours))).await;
    }
    tally(&here, &admin, account, &unique("run-"), "另一个", (10, 5), Some(&ago(1))).await;
    let late = price("豆包", "0.8", "2", "2026-01-01T00:00:00Z", None);
    let preview = admin.post("/model-prices/preview", late.clone()).await.expect(200);
    assert_eq!(preview["complete"], true);
    assert_eq!(
        preview["total"],
        json!({"day": null, "lines": 3, "covered": 3, "cost": "0", "cost_with_price": "5.4"})
    );
    assert_eq!(items(&admin.get("/model-prices").await.expect(200)).len(), 0, "nothing was saved");

    admin
        .put("/budgets", json!({"scope": "organization", "period": "month", "limit_yuan": "100"}))
        .await
        .expect(200);
    admin.post("/model-prices", late).await.expect(201);
    let asked = json!({"model": "豆包", "from": ago(48), "to": ago(-1)});
    let done = admin.post("/cost-ledgers/reprice", asked.clone()).await.expect(200);
    assert_eq!(done, json!({"looked_at": 3, "corrected": 3, "difference": "5.4", "next_cursor": null}));
    let again = admin.post("/cost-ledgers/reprice", asked).await.expect(200);
    assert_eq!((&again["corrected"], &again["difference"]), (&json!(0), &json!("0")));

    let lines = admin.all(&format!("/cost-ledgers?account_id={account}&model=豆包")).await;
    assert_eq!(lines.len(), 9, "each line, what takes it back, and what takes its place");
    let tokens: i64 = lines.iter().filter_map(|line| line["input_tokens"].as_i64()).sum();
    assert_eq!(tokens, 3000, "the sum over all lines is right");
    let taken_back: Vec<_> = lines.iter().filter(|line| !line["corrects"].is_null()).collect();
    assert_eq!((taken_back.len(), &taken_back[0]["output_tokens"]), (3, &json!(-500)));
    let by = async |query: &str| admin.get(&format!("/costs?{query}")).await.expect(200);
    let models = by("group_by=model").await;
    assert_eq!(models["total"], "5.4");
    assert_eq!(
        items(&models),
        [
            json!({"key": "豆包", "cost": "5.4", "input_tokens": 3000, "output_tokens": 1500, "requests": 3, "unpriced": 0}),
            json!({"key": "另一个", "cost": "0", "input_tokens": 10, "output_tokens": 5, "requests": 1, "unpriced": 1}),
        ]
    );
    let days = by("").await;
    let costs: Vec<_> = items(&days).iter().map(|day| day["cost"].as_str().unwrap_or_default()).collect();
    assert!(matches!(costs[..], [first, .., last] if first != "0" && last != "0"), "{days}");
    for (query, key) in [
        ("group_by=account", json!(account)),
        ("group_by=user", json!(admin.user)),
        ("group_by=conversation", Value::Null),
    ] {
        let groups = by(query).await;
        assert_eq!((items(&groups).len(), &items(&groups)[0]["key"]), (1, &key), "{groups}");
        assert_eq!(items(&groups)[0]["requests"], 4);
    }
    assert_eq!(by("from=2026-01-01&to=2026-01-02").await["items"], json!([]));
    for bad in ["from=2026-02-01&to=2026-01-01", "from=1&to=2", "from=2020-01-01", "to=%00"] {
        let reply = admin.get(&format!("/costs?{bad}")).await;
        assert_eq!(reply.problem(400), "invalid_request", "{bad}");
    }
    assert_eq!(here.register().await.get("/costs").await.expect(200)["items"], json!([]));
}

#[tokio::test]
async fn a_budget_is_set_shown_changed_and_deleted() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await.id;
    admin.post("/model-prices", price("m", "1", "1", "2026-01-01T00:00:00Z", None)).await.expect(201);
    tally(&here, &admin, account, &unique("run-"), "m", (4000, 0), None).await;
    let of_account =
        |limit: &str| json!({"scope": "account", "scope_id": account, "period": "day", "limit_yuan": limit});
    let set = admin.put("/budgets", of_account("12.50")).await.expect(200);
    assert_eq!((&set["limit_yuan"], &set["spent_yuan"]), (&json!("12.5"), &json!("4")), "{set}");
    tally(&here, &admin, account, &unique("run-"), "m", (2500, 0), None).await;
    let changed = admin.put("/budgets", of_account("20")).await.expect(200);
    assert_eq!((&changed["id"], &changed["spent_yuan"]), (&set["id"], &json!("6.5")));
    let own = json!({"scope": "organization", "period": "month", "limit_yuan": "0"});
    admin.put("/budgets", own).await.expect(200);
    let user = json!({"scope": "user", "scope_id": admin.user, "period": "month", "limit_yuan": "1"});
    assert_eq!(admin.put("/budgets", user).await.expect(200)["spent_yuan"], "6.5");
    let listed = admin.get("/budgets").await.expect(200);
    assert_eq!(items(&listed).len(), 3);
    let resets_at: chrono::DateTime<chrono::Utc> =
        items(&listed)[0]["resets_at"].as_str().and_then(|at| at.parse().ok()).expect("a time");
    assert!(resets_at > chrono::Utc::now());

    let stranger = here.register().await;
    assert_problem(stranger.put("/budgets", of_account("1")).await, 404, "account_not_found", "");
    let theirs = json!({"scope": "user", "scope_id": admin.user, "period": "day", "limit_yuan": "1"});
    assert_problem(stranger.put("/budgets", theirs).await, 404, "user_not_found", "");
    let path = format!("/budgets/{}", set["id"].as_str().expect("an id"));
    assert_problem(stranger.delete(&path).await, 404, "budget_not_found", "");
    for (body, field) in [
        (json!({"scope": "account", "period": "day", "limit_yuan": "1"}), "scope_id"),
        (
            json!({"scope": "organization", "scope_id": account, "period": "day", "limit_yuan": "1"}),
            "scope_id",
        ),
        (of_account("-1"), "limit_yuan"),
        (of_account("1e3"), "limit_yuan"),
    ] {
        assert_problem(admin.put("/budgets", body).await, 422, "validation_failed", field);
    }
    assert_eq!(admin.delete(&path).await.status, 204);
    assert_problem(admin.delete(&path).await, 404, "budget_not_found", "");
    assert_eq!(items(&admin.get("/budgets").await.expect(200)).len(), 2);
}

#[tokio::test]
async fn the_report_counts_what_became_of_conversations() {
    let here = Here::open().await;
    let admin = here.register().await;
    let (org, one, two) = (admin.organization, Uuid::now_v7(), Uuid::now_v7());
    let (mut statements, mut turns) = (Vec::new(), Vec::new());
    for (account, direction, origin, n) in [
        (one, "in", "customer", 7),
        (one, "out", "ai", 3),
        (one, "out", "phone", 2),
        (two, "in", "customer", 1),
    ] {
        for _ in 0..n {
            statements.push(format!(
                "('{}', '{org}', '{account}', '{account}', '{direction}', '{origin}', 'text', '你好', 'wxid_a')",
                Uuid::now_v7()
            ));
        }
    }
    for (state, took_s) in
        [("answered", Some(10)), ("answered", Some(20)), ("answered", Some(60)), ("handed_off", None)]
    {
        let answered = took_s
            .map_or("NULL".into(), |s| format!("now() - interval '1 minute' + {s} * interval '1 second'"));
        turns.push(format!(
            "('{}', '{org}', '{one}', '{one}', 'wxid_a', '{state}', 0, '{one}', now() - interval '1 minute', now(), now(), {answered})",
            Uuid::now_v7()
        ));
    }
    here.run(&format!(
        "INSERT INTO messages (id, organization_id, account_id, conversation_id, direction, origin, kind, text, sender_wxid)
         VALUES {};
         INSERT INTO turns (id, organization_id, account_id, conversation_id, sender_wxid, state, epoch, job_id, opened_at,
            last_message_at, flush_at, answered_at) VALUES {};
         INSERT INTO opt_outs (organization_id, wxid, reason, account_id) VALUES ('{org}', 'wxid_b', '退订', '{one}'),
            ('{org}', 'wxid_c', 'person', NULL)",
        statements.join(", "),
        turns.join(", ")
    ))
    .await;
    let report = admin.get("/reports/conversations").await.expect(200);
    let first = items(&report).iter().find(|item| item["account_id"] == json!(one)).expect("the account");
    assert_eq!(
        first,
        &json!({
            "account_id": one, "received": 7, "sent": {"phone": 2, "person": 0, "ai": 3, "sop": 0}, "turns": 4,
            "answered_by_ai": 3, "ai_share": 0.75, "first_answer_median_s": 20.0, "first_answer_p90_s": 52.0,
            "handoffs": 1, "opt_outs": 1,
        })
    );
    assert_eq!((items(&report).len(), &report["total"]["received"]), (2, &json!(8)));
    assert_eq!((&report["total"]["opt_outs"], &report["total"]["account_id"]), (&json!(2), &Value::Null));
    let before = admin.get("/reports/conversations?from=2026-01-01&to=2026-01-31").await.expect(200);
    assert_eq!((&before["items"], &before["total"]["turns"]), (&json!([]), &json!(0)));
    let nobody = here.register().await.get("/reports/conversations").await.expect(200);
    assert_eq!((&nobody["items"], &nobody["total"]["received"]), (&json!([]), &json!(0)));
}

#[tokio::test]
async fn tokens_out_of_a_cache_are_priced_as_such_and_are_part_of_the_request() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await.id;
    let price = json!({
        "model": "qwen-max", "effective_from": "2026-03-01T00:00:00Z", "input_per_1k": "0.004",
        "cached_input_per_1k": "0.0008", "output_per_1k": "0.012",
    });
    admin.post("/model-prices", price).await.expect(201);
    let request = unique("run-");
    let body = |cached: Value| {
        let mut body = json!({
            "request_id": request, "account_id": account, "model": "qwen-max", "input_tokens": 812,
            "output_tokens": 46, "occurred_at": "2026-04-01T00:00:00Z",
        });
        if !cached.is_null() {
            body["cached_input_tokens"] = cached;
        }
        body
    };
    let key = unique("key-");
    let job = admin.post_once("/jobs/cost-tally", &key, body(json!(500))).await.expect(202);
    assert_eq!(here.ended(&admin, id(&job["id"])).await["state"], "completed");
    let line = &admin.all("/cost-ledgers").await[0];
    // 312 × 0.004 / 1000 + 500 × 0.0008 / 1000 + 46 × 0.012 / 1000
    assert_eq!(line["calculated_cost"], "0.0022", "{line}");
    assert_eq!(line["cached_input_tokens"], 500);
    for other in [Value::Null, json!(499)] {
        let refused = admin.post_once("/jobs/cost-tally", &key, body(other)).await;
        assert_eq!(refused.problem(409), "idempotency_key_reused");
    }
    // None of them is what it says without the field.
    let key = unique("key-");
    let without = admin.post_once("/jobs/cost-tally", &key, body(Value::Null)).await.expect(202);
    let same = admin.post_once("/jobs/cost-tally", &key, body(json!(0))).await.expect(200);
    assert_eq!(without["id"], same["id"]);
    for wrong in [-1, 813] {
        let refused = admin.post("/jobs/cost-tally", body(json!(wrong))).await;
        assert_problem(refused, 422, "validation_failed", "cached_input_tokens");
    }
}
