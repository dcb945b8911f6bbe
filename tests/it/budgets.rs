//! Budgets: no run is begun without room in every one of them, however many ask at once.

use std::str::FromStr;
use std::time::Duration;

use bigdecimal::{BigDecimal, Zero};
use chrono::{DateTime, TimeDelta, Utc};
use diesel::sql_query;
use diesel::sql_types::Numeric;
use diesel_async::RunQueryDsl;
use entropy_jobs::ai::usage::NodeUsage;
use entropy_jobs::spending::{self, Reserved, Run, Spender};
use entropy_schema::budgets::{self, Budget, Standing};
use entropy_schema::costs::{self, Price};
use entropy_schema::{Db, PooledConn, Profile};
use futures::future::join_all;
use uuid::Uuid;

use crate::harness::{Book, secs};

/// A model that costs one yuan per 1000 tokens of either sort: a token is a thousandth.
pub(crate) const MODEL: &str = "一元模型";

/// Long enough for any test.
const LONG: Duration = secs(600);

/// Returns an amount.
pub(crate) fn yuan(text: &str) -> BigDecimal {
    BigDecimal::from_str(text).expect("an amount")
}

fn thousandths(n: i64) -> BigDecimal {
    BigDecimal::new(n.into(), 3)
}

/// What one node used of the model: so many thousandths of a yuan.
pub(crate) fn node(index: i32, thousandths: i64) -> NodeUsage {
    NodeUsage {
        index,
        name: "AI 对话".into(),
        module_type: "chatNode".into(),
        model: MODEL.into(),
        input_tokens: thousandths,
        output_tokens: 0,
        cached_input_tokens: 0,
        points: Some(yuan("0.31")),
    }
}

/// Gives the model its price.
pub(crate) async fn add_price(book: &Book) {
    let price = Price {
        id: Uuid::now_v7(),
        organization_id: book.organization,
        model_name: MODEL.into(),
        input_price_per_1k: yuan("1"),
        output_price_per_1k: yuan("1"),
        cached_input_price_per_1k: None,
        min_input: 0,
        max_input: None,
        band: String::new(),
        valid_from: DateTime::UNIX_EPOCH,
        valid_to: None,
        created_by: None,
    };
    costs::add_price(&mut *book.conn().await, &price).await.expect("a price");
}

/// Sets a budget and returns how it stands.
pub(crate) async fn set(book: &Book, scope: &str, scope_id: Uuid, period: &str, limit: &str) -> Standing {
    let budget = Budget {
        id: Uuid::now_v7(),
        organization_id: book.organization,
        scope: scope.into(),
        scope_id,
        period: period.into(),
        limit_yuan: yuan(limit),
        updated_by: None,
        updated_at: Utc::now(),
    };
    spending::set_budget(&mut *book.conn().await, &budget).await.expect("a budget").1
}

/// A run of this spender, now.
pub(crate) fn run_of(spender: &Spender, run_id: Uuid, occurred_at: DateTime<Utc>) -> Run {
    Run {
        run_id,
        organization_id: spender.organization_id,
        account_id: spender.account_id,
        user_id: spender.user_id,
        sop_id: spender.sop_id,
        conversation_id: None,
        job_id: Uuid::nil(),
        occurred_at,
    }
}

fn spender(book: &Book) -> Spender {
    Spender { organization_id: book.organization, account_id: Uuid::now_v7(), user_id: None, sop_id: None }
}

/// How a budget stands in the period of a moment.
async fn stands(book: &Book, budget: &Standing, at: DateTime<Utc>) -> (BigDecimal, BigDecimal) {
    let zone = entropy_jobs::calendar::DEFAULT_ZONE;
    let periods = entropy_jobs::calendar::periods(at, zone);
    let mut conn = book.conn().await;
    let found = budgets::standings(&mut conn, book.organization, periods, Some(budget.budget.id))
        .await
        .expect("read");
    (found[0].spent_yuan.clone(), found[0].reserved_yuan.clone())
}

async fn patient_conn(db: &Db) -> PooledConn {
    loop {
        // With so many at once, some wait longer than the pool allows.
        if let Ok(conn) = db.conn().await {
            return conn;
        }
    }
}

async fn alerts(book: &Book, kind: &str) -> i64 {
    book.number(&format!("SELECT count(*) AS n FROM alerts WHERE kind = '{kind}'")).await
}

#[derive(diesel::QueryableByName)]
struct Amount {
    #[diesel(sql_type = Numeric)]
    amount: BigDecimal,
}

async fn amount(book: &Book, statement: &str) -> BigDecimal {
    let found: Amount = sql_query(statement).get_result(&mut *book.conn().await).await.expect("an amount");
    found.amount
}

/// Lets the database itself refuse what may never be, at the moment at which it would be.
async fn watch_for_overruns(book: &Book) {
    book.run(
        "CREATE FUNCTION no_overrun() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.spent_yuan + NEW.reserved_yuan > (SELECT limit_yuan FROM budgets WHERE id = NEW.budget_id) THEN
                RAISE EXCEPTION 'overrun of %', NEW.budget_id;
            END IF; RETURN NEW; END $$;
         CREATE TRIGGER no_overrun AFTER INSERT OR UPDATE ON budget_periods FOR EACH ROW EXECUTE FUNCTION no_overrun()",
    )
    .await;
}

/// What a worker does with its reservation.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Settles(i64),
    Releases,
    Dies,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_at_once_never_overrun_any_budget() {
    let book = Book::open().await;
    add_price(&book).await;
    watch_for_overruns(&book).await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let accounts = [Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7()];
    let users = [Uuid::now_v7(), Uuid::now_v7()];
    let mut set_budgets = Vec::new();
    for period in ["day", "month"] {
        let limit = random.i64(5_000..40_000);
        set_budgets.push(
            set(&book, "organization", book.organization, period, &thousandths(limit).to_string()).await,
        );
        for account in &accounts[..2] {
            let limit = random.i64(1_000..15_000);
            set_budgets.push(set(&book, "account", *account, period, &thousandths(limit).to_string()).await);
        }
        let limit = random.i64(1_000..15_000);
        set_budgets.push(set(&book, "user", users[0], period, &thousandths(limit).to_string()).await);
    }
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let spender = Spender {
                organization_id: book.organization,
                account_id: accounts[random.usize(..3)],
                user_id: [None, Some(users[0]), Some(users[1])][random.usize(..3)],
                sop_id: None,
            };
            let reserved = random.i64(1..1_500);
            let fate = match random.u8(..4) {
                0 | 1 => Fate::Settles(random.i64(0..=reserved)),
                2 => Fate::Releases,
                _ => Fate::Dies,
            };
            let db = book.db.clone();
            tokio::spawn(async move {
                let mut conn = patient_conn(&db).await;
                let run_id = Uuid::now_v7();
                let ttl = if matches!(fate, Fate::Dies) { Duration::ZERO } else { LONG };
                let amount = thousandths(reserved);
                let answer =
                    spending::reserve(&mut conn, &spender, run_id, &amount, ttl).await.expect("asked");
                if answer != Reserved::Yes {
                    return false;
                }
                match fate {
                    Fate::Settles(cost) => {
                        let run = run_of(&spender, run_id, Utc::now());
                        let booked =
                            spending::book_run(&mut conn, &run, &[node(0, cost)]).await.expect("booked");
                        assert_eq!(booked.total, thousandths(cost));
                    }
                    Fate::Releases => {
                        spending::release(&mut conn, spender.organization_id, run_id)
                            .await
                            .expect("released");
                    }
                    Fate::Dies => {
                        budgets::expire(&mut conn, 500).await.expect("expired");
                    }
                }
                true
            })
        })
        .collect();
    let admitted = join_all(tasks).await.into_iter().filter(|one| *one.as_ref().expect("no panic")).count();
    println!("{admitted} of 200 were admitted");
    assert!(admitted > 0);
    let mut conn = book.conn().await;
    while budgets::expire(&mut conn, 500).await.expect("expired") > 0 {}
    assert_eq!(book.number("SELECT count(*) AS n FROM budget_reservations").await, 0);
    for budget in &set_budgets {
        let (spent, reserved) = stands(&book, budget, Utc::now()).await;
        assert!(reserved.is_zero(), "{budget:?} has {reserved} reserved by nobody");
        let of = match budget.budget.scope.as_str() {
            "account" => format!("wechat_account_id = '{}'", budget.budget.scope_id),
            "user" => format!("user_id = '{}'", budget.budget.scope_id),
            _ => "true".into(),
        };
        let ledger =
            format!("SELECT coalesce(sum(calculated_cost), 0) AS amount FROM cost_ledgers WHERE {of}");
        assert_eq!(spent, amount(&book, &ledger).await, "{budget:?}");
        assert!(spent <= budget.budget.limit_yuan);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_first_runs_of_a_period_race_for_the_same_room() {
    let book = Book::open().await;
    let budget = set(&book, "organization", book.organization, "day", "10").await;
    book.run("DELETE FROM budget_periods").await;
    let spender = spender(&book);
    let tasks = (0..50).map(|_| {
        let db = book.db.clone();
        tokio::spawn(async move {
            let mut conn = patient_conn(&db).await;
            spending::reserve(&mut conn, &spender, Uuid::now_v7(), &yuan("1"), LONG).await.expect("asked")
        })
    });
    let answers = join_all(tasks).await;
    let admitted = answers.iter().filter(|one| *one.as_ref().expect("no panic") == Reserved::Yes).count();
    assert_eq!(admitted, 10);
    assert_eq!(stands(&book, &budget, Utc::now()).await, (yuan("0"), yuan("10")));
    assert_eq!(alerts(&book, "budget_reached").await, 1, "forty were refused, and one alert says so");
}

#[tokio::test]
async fn all_budgets_give_room_or_none_does() {
    let book = Book::open().await;
    let (spender, mut conn) = (spender(&book), book.conn().await);
    let day = set(&book, "organization", book.organization, "day", "100").await;
    let month = set(&book, "account", spender.account_id, "month", "1").await;
    let run = Uuid::now_v7();
    let answer = spending::reserve(&mut conn, &spender, run, &yuan("2"), LONG).await.expect("asked");
    let Reserved::Exhausted { scope, period, resets_at } = answer else { panic!("there was no room") };
    assert_eq!((scope.as_str(), period.as_str()), ("account", "month"));
    assert!(resets_at > Utc::now() && resets_at < Utc::now() + TimeDelta::days(32));
    assert_eq!(stands(&book, &day, Utc::now()).await, (yuan("0"), yuan("0")), "nothing was taken");
    // The same run may ask again, and keeps what it has.
    for _ in 0..2 {
        let answer = spending::reserve(&mut conn, &spender, run, &yuan("1"), LONG).await.expect("asked");
        assert_eq!(answer, Reserved::Yes);
    }
    assert_eq!(stands(&book, &month, Utc::now()).await, (yuan("0"), yuan("1")));
    // Another account's runs concern the organisation's budget alone, another organisation's none.
    let other = Spender { account_id: Uuid::now_v7(), ..spender };
    let answer =
        spending::reserve(&mut conn, &other, Uuid::now_v7(), &yuan("99"), LONG).await.expect("asked");
    assert_eq!(answer, Reserved::Yes);
    spending::release(&mut conn, Uuid::now_v7(), run).await.expect("nothing to release");
    assert_eq!(stands(&book, &day, Utc::now()).await, (yuan("0"), yuan("100")));
    spending::release(&mut conn, book.organization, run).await.expect("released");
    spending::release(&mut conn, book.organization, run).await.expect("and once more");
    assert_eq!(stands(&book, &day, Utc::now()).await, (yuan("0"), yuan("99")));
}

#[tokio::test]
async fn a_run_is_settled_in_the_period_in_which_it_was_reserved() {
    let book = Book::open().await;
    add_price(&book).await;
    let (spender, mut conn) = (spender(&book), book.conn().await);
    let budget = set(&book, "organization", book.organization, "day", "1").await;
    let (now, yesterday) = (Utc::now(), Utc::now() - TimeDelta::days(1));
    let run = Uuid::now_v7();
    let reserve = async |conn: &mut PooledConn, run, at| {
        spending::reserve_at(conn, &spender, run, &yuan("1"), LONG, Some(at)).await.expect("asked")
    };
    assert_eq!(reserve(&mut conn, run, yesterday).await, Reserved::Yes);
    assert!(matches!(reserve(&mut conn, Uuid::now_v7(), yesterday).await, Reserved::Exhausted { .. }));
    let today = Uuid::now_v7();
    assert_eq!(reserve(&mut conn, today, now).await, Reserved::Yes, "a new day has room of its own");
    spending::book_run(&mut conn, &run_of(&spender, run, yesterday), &[node(0, 400)]).await.expect("booked");
    assert_eq!(stands(&book, &budget, yesterday).await, (yuan("0.4"), yuan("0")));
    assert_eq!(stands(&book, &budget, now).await, (yuan("0"), yuan("1")));
    spending::book_run(&mut conn, &run_of(&spender, today, now), &[node(0, 300)]).await.expect("booked");
    assert_eq!(stands(&book, &budget, now).await, (yuan("0.3"), yuan("0")));
}

#[tokio::test]
async fn what_a_dead_process_had_reserved_comes_back_and_its_cost_still_counts() {
    let book = Book::open().await;
    add_price(&book).await;
    let (spender, mut conn) = (spender(&book), book.conn().await);
    let budget = set(&book, "account", spender.account_id, "day", "1").await;
    let run = Uuid::now_v7();
    let taken = spending::reserve(&mut conn, &spender, run, &yuan("1"), Duration::ZERO).await.expect("asked");
    assert_eq!(taken, Reserved::Yes);
    assert_eq!(budgets::expire(&mut conn, 500).await.expect("expired"), 1);
    assert_eq!(budgets::expire(&mut conn, 500).await.expect("nothing left"), 0);
    assert_eq!(stands(&book, &budget, Utc::now()).await, (yuan("0"), yuan("0")));
    let booked = spending::book_run(&mut conn, &run_of(&spender, run, Utc::now()), &[node(0, 250)]).await;
    assert_eq!(booked.expect("booked").total, yuan("0.25"));
    assert_eq!(stands(&book, &budget, Utc::now()).await, (yuan("0.25"), yuan("0")));
}

#[tokio::test]
async fn a_limit_below_what_was_spent_holds_at_once() {
    let book = Book::open().await;
    add_price(&book).await;
    let (spender, mut conn) = (spender(&book), book.conn().await);
    let run = run_of(&spender, Uuid::now_v7(), Utc::now());
    spending::book_run(&mut conn, &run, &[node(0, 5_000)]).await.expect("booked");
    // A budget that is made later knows what was spent before.
    let budget = set(&book, "account", spender.account_id, "month", "100").await;
    assert_eq!((&budget.spent_yuan, alerts(&book, "budget_reached").await), (&yuan("5"), 0));
    let lower = set(&book, "account", spender.account_id, "month", "3").await;
    assert_eq!((lower.budget.id, &lower.spent_yuan), (budget.budget.id, &yuan("5")));
    assert_eq!(alerts(&book, "budget_reached").await, 3);
    for nothing in ["0", "0.0000000001"] {
        let answer = spending::reserve(&mut conn, &spender, Uuid::now_v7(), &yuan(nothing), LONG).await;
        assert!(matches!(answer.expect("asked"), Reserved::Exhausted { .. }), "{nothing}");
    }
    set(&book, "account", spender.account_id, "month", "5.01").await;
    let answer = spending::reserve(&mut conn, &spender, Uuid::now_v7(), &yuan("0.01"), LONG).await;
    assert_eq!(answer.expect("asked"), Reserved::Yes);
    set(&book, "account", spender.account_id, "month", "0").await;
    let answer = spending::reserve(&mut conn, &spender, Uuid::now_v7(), &yuan("0"), LONG).await;
    assert!(matches!(answer.expect("asked"), Reserved::Exhausted { .. }), "nothing may be spent");
}

#[tokio::test]
async fn each_threshold_is_said_once_in_a_period() {
    let book = Book::open().await;
    add_price(&book).await;
    let (spender, mut conn) = (spender(&book), book.conn().await);
    set(&book, "account", spender.account_id, "day", "1").await;
    let now = Utc::now();
    for (cost, alerts_by_then) in [(499, 0), (1, 1), (299, 1), (200, 2), (1, 3), (700, 3)] {
        let run = run_of(&spender, Uuid::now_v7(), now);
        spending::book_run(&mut conn, &run, &[node(0, cost)]).await.expect("booked");
        assert_eq!(alerts(&book, "budget_reached").await, alerts_by_then, "after {cost}");
    }
    let answer = spending::reserve(&mut conn, &spender, Uuid::now_v7(), &yuan("0.1"), LONG).await;
    assert!(matches!(answer.expect("asked"), Reserved::Exhausted { .. }));
    assert_eq!(alerts(&book, "budget_reached").await, 3);
    // The next day one run crosses all three.
    let tomorrow = now + TimeDelta::days(1);
    let run = run_of(&spender, Uuid::now_v7(), tomorrow);
    spending::book_run(&mut conn, &run, &[node(0, 2_000)]).await.expect("booked");
    assert_eq!(alerts(&book, "budget_reached").await, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_budget_made_while_others_book_counts_each_run_once() {
    let book = Book::open().await;
    add_price(&book).await;
    let spender = spender(&book);
    // Of another pool: with one, forty could each hold one connection and wait for a second.
    let others = Db::new(book.database.url(), 8, Profile::Worker).expect("a pool");
    let mut tasks: Vec<_> = (0..40)
        .map(|_| {
            let (db, others) = (book.db.clone(), others.clone());
            tokio::spawn(async move {
                let mut conn = patient_conn(&db).await;
                let run = run_of(&spender, Uuid::now_v7(), Utc::now());
                // Each is booked by two at once.
                let mut other = patient_conn(&others).await;
                let nodes = [node(0, 10), node(1, 7)];
                let (one, two) = futures::join!(
                    spending::book_run(&mut conn, &run, &nodes),
                    spending::book_run(&mut other, &run, &nodes)
                );
                assert_eq!(one.expect("booked"), two.expect("booked"));
            })
        })
        .collect();
    let making = tasks.split_off(20);
    join_all(tasks).await.into_iter().for_each(|one| one.expect("no panic"));
    let budget = set(&book, "organization", book.organization, "month", "1000").await;
    join_all(making).await.into_iter().for_each(|one| one.expect("no panic"));
    assert_eq!(stands(&book, &budget, Utc::now()).await, (yuan("0.68"), yuan("0")));
    assert_eq!(book.number("SELECT count(*) AS n FROM cost_ledgers").await, 80);
}
