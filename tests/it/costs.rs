//! What runs cost: to the last digit, once, and corrected in the open.

use bigdecimal::BigDecimal;
use chrono::{DateTime, TimeDelta, Utc};
use entropy_jobs::ai::usage;
use entropy_jobs::repricing::{self, Span};
use entropy_jobs::spending::{self, Run, Spender};
use entropy_schema::costs::{self, Entry, Price};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::budgets::{MODEL, add_price, node, run_of, set, yuan};
use crate::harness::Book;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

fn spender(book: &Book) -> Spender {
    Spender { organization_id: book.organization, account_id: Uuid::now_v7(), user_id: None, sop_id: None }
}

async fn lines(book: &Book, run: &Run) -> Vec<Entry> {
    costs::entries_of_run(&mut *book.conn().await, book.organization, run.run_id).await.expect("lines")
}

/// The results of the nodes in the answer that the provider's documentation shows, as they are there.
fn documented() -> Vec<Value> {
    let nodes = json!([
        {"id":"n1","nodeId":"start01","moduleName":"common:core.module.template.work_start","moduleType":"workflowStart","runningTime":0},
        {"id":"n2","nodeId":"ds01","moduleName":"Search","moduleType":"datasetSearchNode","runningTime":0.41,"totalPoints":0.002,"embeddingModel":"emb-demo","embeddingTokens":12,"similarity":0.4,"limit":3000,"searchMode":"embedding","quoteList":[]},
        {"id":"n3","nodeId":"ai01","moduleName":"AI","moduleType":"chatNode","runningTime":1.9,"totalPoints":0.31,"model":"demo-model","inputTokens":812,"outputTokens":46,"query":"When do you open?","maxToken":2000,"historyPreview":[],"contextTotalLen":4,"finishReason":"stop"}
    ]);
    nodes.as_array().expect("a list").clone()
}

/// Worked out by hand. Prices in yuan per 1000 tokens, times in Shanghai:
///
/// | price | input tokens | hours | input | cached | output |
/// |---|---|---|---|---|---|
/// | A | 0 to 999 | all | 0.008 | - | 0.024 |
/// | B | 0 to 999 | 22:00-08:00 | 0.004 | 0.0008 | 0.012 |
/// | C | 1000 on | all | 0.016 | 0.00123456 | 0.0481234567 |
/// | E (emb-demo) | any | all | 0.0005 | - | 0 |
///
/// | run | AI node | embedding | together |
/// |---|---|---|---|
/// | 812 in, 46 out, 12:00: A | 812 x 0.008 + 46 x 0.024 = 6.496 + 1.104 = 7.6 -> 0.0076 | 12 x 0.0005 = 0.006 -> 0.000006 | 0.007606 |
/// | the same, 23:00: B | 812 x 0.004 + 46 x 0.012 = 3.248 + 0.552 = 3.8 -> 0.0038 | 0.000006 | 0.003806 |
/// | the same, 500 cached, 07:59: B | 312 x 0.004 + 500 x 0.0008 + 46 x 0.012 = 1.248 + 0.4 + 0.552 = 2.2 -> 0.0022 | 0.000006 | 0.002206 |
/// | the same, 500 cached, 08:00: A | no cached price: as the first | 0.000006 | 0.007606 |
/// | 1812 in, 777 cached, 46 out, 23:00: C | 1035 x 0.016 + 777 x 0.00123456 + 46 x 0.0481234567 = 16.56 + 0.95925312 + 2.2136790082 = 19.7329321282 -> 0.0197329321282, to ten places 0.0197329321 | 0.000006 | 0.0197389321 |
#[tokio::test]
async fn the_ledger_agrees_with_a_table_worked_out_by_hand() {
    let book = Book::open().await;
    let price = |model: &str,
                 tier: (i64, Option<i64>),
                 band: &str,
                 input: &str,
                 cached: Option<&str>,
                 output: &str| {
        Price {
            id: Uuid::now_v7(),
            organization_id: book.organization,
            model_name: model.into(),
            input_price_per_1k: yuan(input),
            output_price_per_1k: yuan(output),
            cached_input_price_per_1k: cached.map(yuan),
            min_input: tier.0,
            max_input: tier.1,
            band: band.into(),
            valid_from: at("2026-11-01T00:00:00Z"),
            valid_to: None,
            created_by: None,
        }
    };
    let prices = [
        price("demo-model", (0, Some(1000)), "", "0.008", None, "0.024"),
        price("demo-model", (0, Some(1000)), "22:00-08:00", "0.004", Some("0.0008"), "0.012"),
        price("demo-model", (1000, None), "", "0.016", Some("0.00123456"), "0.0481234567"),
        price("emb-demo", (0, None), "", "0.0005", None, "0"),
    ];
    let mut conn = book.conn().await;
    for price in &prices {
        costs::add_price(&mut conn, price).await.expect("a price");
    }
    let budget = set(&book, "organization", book.organization, "month", "1000").await;
    assert_eq!(budget.spent_yuan, yuan("0"));
    let [a, b, c, _] = prices.each_ref().map(|price| price.id);
    let cases = [
        ("2026-11-22T04:00:00Z", 0, 0, a, "0.0076", "0.007606"),
        ("2026-11-22T15:00:00Z", 0, 0, b, "0.0038", "0.003806"),
        ("2026-11-22T23:59:59Z", 0, 500, b, "0.0022", "0.002206"),
        ("2026-11-23T00:00:00Z", 0, 500, a, "0.0076", "0.007606"),
        ("2026-11-22T15:00:00Z", 1000, 777, c, "0.0197329321", "0.0197389321"),
    ];
    for (when, more, cached, price, cost, total) in cases {
        let mut nodes = usage::lines(&documented());
        let ai = nodes.iter_mut().find(|node| node.model == "demo-model").expect("the AI node");
        ai.input_tokens += more;
        ai.cached_input_tokens = cached;
        let run = run_of(&spender(&book), Uuid::now_v7(), at(when));
        let booked = spending::book_run(&mut conn, &run, &nodes).await.expect("booked");
        assert_eq!((booked.total, booked.unpriced), (yuan(total), vec![]), "{when}");
        let lines = lines(&book, &run).await;
        assert_eq!(lines.len(), 2, "one line for each node that used a model: {lines:?}");
        let ai = lines.iter().find(|line| line.model_name == "demo-model").expect("the AI node's line");
        assert_eq!((ai.price_id, &ai.calculated_cost), (Some(price), &Some(yuan(cost))), "{when}");
        assert_eq!((ai.input_tokens, ai.output_tokens), (812 + more, 46));
        let points: BigDecimal = lines.iter().filter_map(|line| line.points.clone()).sum();
        assert_eq!(points, yuan("0.312"));
    }
    let together: BigDecimal =
        ["0.007606", "0.003806", "0.002206", "0.007606", "0.0197389321"].map(yuan).into_iter().sum();
    let (from, to) = (at("2026-11-01T00:00:00Z"), at("2026-12-01T00:00:00Z"));
    let spent = costs::spent(&mut conn, book.organization, None, None, None, from, to).await.expect("a sum");
    assert_eq!(spent, together);
}

#[tokio::test]
async fn what_becomes_known_takes_the_place_of_an_estimate() {
    let book = Book::open().await;
    add_price(&book).await;
    let (spender, mut conn) = (spender(&book), book.conn().await);
    set(&book, "account", spender.account_id, "day", "10").await;
    let run = run_of(&spender, Uuid::now_v7(), Utc::now());
    let spent = async || {
        book.number("SELECT (spent_yuan * 1000)::bigint AS n FROM budget_periods WHERE reserved_yuan = 0")
            .await
    };
    for _ in 0..2 {
        spending::book_estimate(&mut conn, &run, &yuan("0.5")).await.expect("estimated");
    }
    assert_eq!((lines(&book, &run).await.len(), spent().await), (1, 500));
    for _ in 0..2 {
        let booked = spending::book_run(&mut conn, &run, &[node(0, 120)]).await.expect("booked");
        assert_eq!(booked.total, yuan("0.12"));
    }
    spending::book_estimate(&mut conn, &run, &yuan("0.5")).await.expect("nothing to estimate any more");
    let all = lines(&book, &run).await;
    assert_eq!((all.len(), spent().await), (3, 120));
    let estimate = all.iter().find(|line| line.estimated && line.corrects.is_none()).expect("the estimate");
    let reversal = all.iter().find(|line| line.corrects == Some(estimate.id)).expect("its reversal");
    assert_eq!(reversal.calculated_cost, Some(yuan("-0.5")));
}

#[tokio::test]
async fn an_unknown_model_is_kept_without_a_price_and_said_once_a_day() {
    let book = Book::open().await;
    let (spender, mut conn) = (spender(&book), book.conn().await);
    let now = at("2026-11-22T04:00:00Z");
    for when in [now, now, now + TimeDelta::days(1)] {
        let run = run_of(&spender, Uuid::now_v7(), when);
        let mut nodes = vec![node(0, 1000), node(1, 0)];
        nodes[1].model = String::new();
        let booked = spending::book_run(&mut conn, &run, &nodes).await.expect("booked");
        assert_eq!((booked.total, booked.unpriced), (yuan("0"), vec![MODEL.to_owned()]));
    }
    assert_eq!(book.number("SELECT count(*) AS n FROM alerts WHERE kind = 'model_without_price'").await, 2);
    assert_eq!(book.number("SELECT count(*) AS n FROM cost_ledgers WHERE NOT priced").await, 6);
}

#[tokio::test]
async fn tokens_out_of_all_proportion_are_kept_and_cannot_be_priced() {
    let book = Book::open().await;
    add_price(&book).await;
    let mut conn = book.conn().await;
    book.run("UPDATE model_prices SET input_price_per_1k = 999999").await;
    set(&book, "organization", book.organization, "day", "10").await;
    let run = run_of(&spender(&book), Uuid::now_v7(), Utc::now());
    let nodes = [node(0, i64::MAX), node(1, -5), node(2, 9_000_000), node(3, 9_000_000)];
    let booked = spending::book_run(&mut conn, &run, &nodes).await.expect("booked");
    assert_eq!((booked.unpriced, booked.total), (vec![MODEL.to_owned()], yuan("17999982000")));
    assert_eq!(lines(&book, &run).await[0].input_tokens, 1_000_000_000_000);
}

#[tokio::test]
async fn a_price_that_comes_late_corrects_the_ledger_and_the_budget_once() {
    let book = Book::open().await;
    let (spender, mut conn) = (spender(&book), book.conn().await);
    set(&book, "account", spender.account_id, "month", "100").await;
    let now = Utc::now();
    for n in 0..5 {
        let run = run_of(&spender, Uuid::now_v7(), now);
        spending::book_run(&mut conn, &run, &[node(0, 1000 + n)]).await.expect("booked");
    }
    add_price(&book).await;
    let span = Span {
        organization_id: book.organization,
        model: MODEL,
        from: now - TimeDelta::hours(1),
        to: now + TimeDelta::hours(1),
    };
    let facts = async || {
        let spent = "SELECT (spent_yuan * 1000)::bigint AS n FROM budget_periods";
        let tokens =
            "SELECT sum(CASE WHEN corrects IS NULL THEN input_tokens ELSE -input_tokens END)::bigint AS n
            FROM cost_ledgers";
        let cost = "SELECT (sum(calculated_cost) * 1000)::bigint AS n FROM cost_ledgers";
        (book.number(spent).await, book.number(tokens).await, book.number(cost).await)
    };
    let mut after = None;
    let (mut corrected, mut rounds) = (0, 0);
    loop {
        let batch = repricing::reprice(&mut conn, &span, after, 2).await.expect("priced anew");
        corrected += batch.corrected;
        rounds += 1;
        after = batch.last;
        if after.is_none() {
            break;
        }
    }
    // Five lines and the five that took their places, two at a time.
    assert_eq!(corrected, 5, "in {rounds} rounds");
    assert_eq!(facts().await, (5010, 5010, 5010));
    for _ in 0..2 {
        let again = repricing::reprice(&mut conn, &span, None, 100).await.expect("priced anew");
        assert_eq!((again.looked_at, again.corrected), (5, 0));
    }
    // A price that was wrong is ended, and another one holds for the same time.
    book.run("UPDATE model_prices SET input_price_per_1k = 2").await;
    let again = repricing::reprice(&mut conn, &span, None, 100).await.expect("priced anew");
    assert_eq!((again.corrected, again.difference), (5, yuan("5.01")));
    assert_eq!(facts().await, (10020, 5010, 10020));
    let names = book.number("SELECT count(*) AS n FROM cost_ledgers WHERE request_id LIKE '%:0:r2'").await;
    assert_eq!(names, 5);
    let nobody = Span { organization_id: Uuid::now_v7(), ..span };
    let none = repricing::reprice(&mut conn, &nobody, None, 100).await.expect("nothing");
    assert_eq!(none.looked_at, 0);
}

#[tokio::test]
async fn reconciling_finds_the_runs_whose_points_are_not_in_the_ledger() {
    let book = Book::open().await;
    add_price(&book).await;
    let (spender, mut conn) = (spender(&book), book.conn().await);
    let began = Utc::now() - TimeDelta::hours(1);
    let mut runs = Vec::new();
    for points in ["0.31", "0.31", "0.99"] {
        let run = run_of(&spender, Uuid::now_v7(), began);
        let (id, org) = (run.run_id, book.organization);
        book.run(&format!(
            "INSERT INTO ai_runs (id, organization_id, account_id, conversation_id, turn_id, run, workflow_id, key_hash,
                job_id, chat_id, state, started_at, points)
             VALUES ('{id}', '{org}', '{id}', '{id}', '{id}', 1, '{id}', 'k', '{id}', 'c', 'answered',
                clock_timestamp() - interval '1 hour', {points})"
        ))
        .await;
        spending::book_run(&mut conn, &run, &[node(0, 100)]).await.expect("booked");
        runs.push(run);
    }
    let reconcile = async || {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_entropy"))
            .args(["costs", "reconcile", "--organization", "熵变测试"])
            .env("DATABASE_URL", book.database.url())
            .output()
            .await
            .expect("it runs");
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        (output.status.code(), said.concat())
    };
    let (code, said) = reconcile().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(&runs[2].run_id.to_string()) && said.contains("0.99 points, in the ledger 0.31"),
        "{said}"
    );
    assert!(!said.contains(&runs[0].run_id.to_string()) && said.contains("1 of 3 runs"), "{said}");
    book.run("UPDATE ai_runs SET points = 0.31").await;
    let (code, said) = reconcile().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("3 runs"), "{said}");
}
