//! Callbacks by the thousand, each once to three times and in any order, while workers and Redis are killed: every message is
//! stored once, every turn is answered once, nobody is answered over a person, and no budget is overrun.

use std::time::Duration;

use diesel::sql_types::{BigInt, Text};
use diesel::{QueryableByName, sql_query};
use diesel_async::RunQueryDsl;
use futures::stream::{self, StreamExt};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::harness::client::{Account, Client};
use crate::harness::platform::CALLBACK_SECRET;
use crate::harness::{Platform, chaos, eventually, secs};

/// How much comes in.
struct Shape {
    accounts: usize,
    contacts: usize,
    messages: usize,
    per_second: u32,
}

const SHORT: Shape = Shape { accounts: 6, contacts: 4, messages: 300, per_second: 60 };
const LONG: Shape = Shape { accounts: 50, contacts: 10, messages: 10_000, per_second: 150 };

/// What a run may cost at most, in yuan. It costs 0.002.
const RESERVE: &str = "0.01";

/// What the first account may spend in a day: a few answers.
const LITTLE: &str = "0.015";

/// Every conversation of this remainder is taken over by a person.
const TAKEN: usize = 5;

#[derive(QueryableByName)]
struct Dropped {
    #[diesel(sql_type = Text)]
    reason: String,
    #[diesel(sql_type = BigInt)]
    turns: i64,
}

struct Scene {
    platform: Platform,
    admin: Client,
    accounts: Vec<Account>,
}

impl Scene {
    async fn set(shape: &Shape) -> Scene {
        let platform = Platform::with().workers(3).own_redis().start().await;
        let admin = platform.register().await;
        let price = json!({
            "model": "sandbox-chat", "effective_from": "2026-01-01T00:00:00Z",
            "input_per_1k": "0.001", "output_per_1k": "0.001"
        });
        admin.post("/model-prices", price).await.expect(201);
        let workflow = json!({
            "alias": "客服", "api_key": "fastgpt-flood", "app_id": "appflood", "reserve_yuan": RESERVE,
            "requests_per_minute": 6000
        });
        admin.post("/ai-workflows", workflow).await.expect(201);
        let script = json!({
            "answer": "好的，马上为您处理。", "model": "sandbox-chat", "input_tokens": 1500, "output_tokens": 500, "times": 0
        });
        platform.sandbox.tell("/_sandbox/fastgpt/scripts", &script).await;
        let accounts = stream::iter(0..shape.accounts)
            .map(async |_| {
                let account = admin.account(600, 0).await;
                let debounce = json!({"quiet_ms": 500, "max_ms": 3000, "max_messages": 10});
                let ai = json!({"enabled": true, "workflow": "客服", "debounce": debounce, "disclosure": ""});
                admin.put(&format!("/wechat-accounts/{}/ai", account.id), ai).await.expect(200);
                account
            })
            .buffered(4)
            .collect::<Vec<_>>()
            .await;
        let little =
            json!({"scope": "account", "scope_id": accounts[0].id, "period": "day", "limit_yuan": LITTLE});
        admin.put("/budgets", little).await.expect(200);
        let ample = json!({"scope": "organization", "period": "month", "limit_yuan": "1000"});
        admin.put("/budgets", ample).await.expect(200);
        Scene { platform, admin, accounts }
    }

    async fn pour(&self, shape: &Shape, seed: u64) {
        let who = |account: &Account| json!({"app_id": account.app_id, "wxid": account.app_id.replace("wx_", "wxid_")});
        let flood = json!({
            "accounts": self.accounts.iter().map(who).collect::<Vec<Value>>(),
            "messages": shape.messages,
            "contacts_per_account": shape.contacts,
            "copies": [1, 3],
            "shuffle": true,
            "rate_per_s": shape.per_second * 2,
            "seed": seed,
            "prefix": "请问",
            "url": format!("{}/callbacks/gewe/{CALLBACK_SECRET}", self.platform.base(0)),
        });
        self.platform.sandbox.tell("/_sandbox/customer/flood", &flood).await;
    }

    async fn progress(&self) -> Value {
        self.platform.sandbox.show("/_sandbox/customer/flood").await
    }

    async fn number(&self, statement: &str) -> i64 {
        self.platform.number(statement).await
    }

    /// Why turns were dropped, and how many for each reason.
    async fn drop_reasons(&self) -> Vec<(String, i64)> {
        let mut conn = self.platform.db.conn().await.expect("a connection");
        let rows: Vec<Dropped> = sql_query(
            "SELECT COALESCE(reason, '') AS reason, count(*) AS turns FROM turns WHERE state = 'dropped' GROUP BY 1",
        )
        .load(&mut conn)
        .await
        .expect("the reasons");
        rows.into_iter().map(|row| (row.reason, row.turns)).collect()
    }
}

/// Kills a worker every two seconds, and Redis every ten, until told to stop. Returns how often.
async fn strike(platform: &mut Platform, stop: &CancellationToken) -> (usize, usize) {
    let (mut workers, mut redis) = (0, 0);
    loop {
        tokio::select! {
            () = tokio::time::sleep(secs(2)) => {}
            () = stop.cancelled() => return (workers, redis),
        }
        let victim = workers % platform.workers.len();
        platform.replace_worker(victim);
        workers += 1;
        if workers % 5 == 2 {
            let server = platform.redis.server();
            let struck = tokio::task::spawn_blocking(move || server.kill().and_then(|()| server.restart()));
            struck.await.expect("no panic").expect("Redis is back");
            redis += 1;
        }
    }
}

/// Looks at the budgets again and again. Returns how often it looked.
async fn watch(url: &str, stop: &CancellationToken) -> usize {
    let db = entropy_schema::Db::new(url, 1, entropy_schema::Profile::Api).expect("a pool");
    let over = "SELECT count(*) AS n FROM budget_periods p JOIN budgets b ON b.id = p.budget_id \
        WHERE p.spent_yuan + p.reserved_yuan > b.limit_yuan";
    let mut looks = 0;
    while !stop.is_cancelled() {
        assert_eq!(crate::harness::book::number(&db, over).await, 0, "a budget is overrun");
        looks += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    looks
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_callbacks_is_stored_once_and_answered_once_while_everything_dies() {
    let shape = if chaos::long() { LONG } else { SHORT };
    let seed = chaos::seed();
    println!("flood: ENTROPY_CHAOS_SEED={seed}");
    let mut scene = Scene::set(&shape).await;
    scene.pour(&shape, seed).await;
    let (stop, rest) = (CancellationToken::new(), CancellationToken::new());
    let url = scene.platform.database.url().to_owned();
    let watching = tokio::spawn({
        let rest = rest.clone();
        async move { watch(&url, &rest).await }
    });
    let half = i64::try_from(shape.messages / 2).expect("a number");
    let (admin, sandbox) = (scene.admin.clone(), scene.platform.sandbox.again());
    let db = scene.platform.db.clone();
    let stopping = stop.clone();
    let people = async {
        let stored = "SELECT count(*) AS n FROM messages WHERE direction = 'in'";
        eventually("half of the messages are stored", secs(300), async || {
            crate::harness::book::number(&db, stored).await >= half
        })
        .await;
        let taken = take_over(&admin).await;
        eventually("every event was delivered", secs(600), async || {
            sandbox.show("/_sandbox/customer/flood").await["state"] == "finished"
        })
        .await;
        stopping.cancel();
        taken
    };
    let (taken, (workers, redis)) = futures::join!(people, strike(&mut scene.platform, &stop));
    scene.platform.ready().await;
    scene.platform.idle(secs(240)).await;
    rest.cancel();
    let looks = watching.await.expect("no budget was overrun");

    let progress = scene.progress().await;
    assert_eq!(progress["failed"], 0, "{progress}");
    let messages = i64::try_from(shape.messages).expect("a number");
    let stored = "SELECT count(*) AS n FROM messages WHERE direction = 'in'";
    assert_eq!(scene.number(stored).await, messages, "every message is stored");
    let once = "SELECT count(DISTINCT (account_id, new_msg_id)) AS n FROM messages WHERE direction = 'in'";
    assert_eq!(scene.number(once).await, messages, "and once");
    let unapplied = "SELECT count(*) AS n FROM callback_events WHERE outcome IS DISTINCT FROM 'applied'";
    assert_eq!(scene.number(unapplied).await, 0, "every event is applied");

    let turns = async |states: &str| {
        scene.number(&format!("SELECT count(*) AS n FROM turns WHERE state IN ({states})")).await
    };
    // A turn whose job died is found by the workers' sweep, twice a minute, and handed to a person.
    eventually("every turn has ended", secs(90), async || {
        turns("'open', 'replying', 'answering', 'review'").await == 0
    })
    .await;
    let (answered, handed_off, dropped) =
        (turns("'answered'").await, turns("'handed_off'").await, turns("'dropped'").await);
    let twice = "SELECT count(*) AS n FROM (SELECT turn_id FROM messages m JOIN sends s ON s.id = m.send_id \
        WHERE m.origin = 'ai' AND s.state <> 'failed' GROUP BY turn_id HAVING count(*) > 1) t";
    assert_eq!(scene.number(twice).await, 0, "no turn is answered twice");
    let over_a_person = "SELECT count(*) AS n FROM messages m JOIN sends s ON s.id = m.send_id \
        JOIN mode_changes c ON c.conversation_id = m.conversation_id AND c.mode = 'human' \
        WHERE m.origin = 'ai' AND s.started_at > c.changed_at";
    assert_eq!(scene.number(over_a_person).await, 0, "nobody is answered after a takeover");
    // Whoever takes over drops what waits. `job_ended`: its jobs died, and its messages were asked in the sender's next turn.
    let reasons = scene.drop_reasons().await;
    for (reason, turns) in &reasons {
        let most = match reason.as_str() {
            "taken_over" => dropped,
            "job_ended" => given_up_at_most(workers),
            _ => 0,
        };
        assert!(*turns <= most, "{turns} turns were dropped as {reason}: {reasons:?}");
    }
    let exhausted =
        "SELECT count(*) AS n FROM turns WHERE state = 'handed_off' AND reason = 'budget_exhausted'";
    let exhausted = scene.number(exhausted).await;
    assert!(exhausted > 0, "the small budget is used up");
    let given_up = handed_off - exhausted;
    let most = given_up_at_most(workers);
    assert!(given_up <= most, "{given_up} turns were given up under {workers} deaths");
    assert!(answered > 0 && (dropped > 0 || taken == 0), "{answered} answered, {dropped} dropped");
    assert_eq!(scene.number("SELECT count(*) AS n FROM budget_reservations").await, 0, "all is settled");
    let called = "SELECT count(*) AS n FROM ai_runs WHERE state = 'calling'";
    assert_eq!(scene.number(called).await, 0, "and every call of the model has an end");
    scene.platform.assert_sound().await;
    chaos::report(&format!(
        "flood: {messages} messages to {} accounts in {} deliveries, p50 {} ms, p99 {} ms; {workers} workers and {redis} \
         Redis killed; {answered} turns answered, {dropped} dropped after {taken} takeovers, {exhausted} handed off for a \
         used-up budget, {given_up} for other reasons; {looks} looks at \
         the budgets\n",
        shape.accounts, progress["deliveries"], progress["ms"]["p50"], progress["ms"]["p99"],
    ));
}

/// Turns whose jobs may have died too often, under so many deaths of workers.
fn given_up_at_most(workers: usize) -> i64 {
    i64::try_from(workers).expect("a number")
}

/// A person takes over every so many conversations, whatever is going on in them. Returns how many.
async fn take_over(admin: &Client) -> usize {
    let conversations = admin.all("/conversations").await;
    let mut taken = 0;
    for conversation in conversations.iter().step_by(TAKEN) {
        let path = format!("/conversations/{}/takeover", conversation["id"].as_str().expect("an id"));
        admin.post(&path, json!({})).await.expect(200);
        taken += 1;
    }
    taken
}
