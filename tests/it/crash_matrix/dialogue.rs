//! Customers who write, one after the other, and the model that answers them while a process dies: what each wrote is
//! stored once, each is answered once, and what that cost is booked once.

use std::time::Duration;

use entropy_schema::Db;
use serde_json::json;

use crate::harness::client::{Account, Client};
use crate::harness::platform::CALLBACK_SECRET;
use crate::harness::{Platform, Sandbox, book, eventually, secs};

/// Customers of each case: one before the death, one under it, one after it.
pub(super) const CUSTOMERS: usize = 3;

/// How long one customer may have to wait: for a lease, and for a call whose end is lost and that nobody has on record.
const ANSWERED: Duration = secs(120);

/// What the model says.
pub(super) const ANSWER: &str = "好的，马上为您处理。";

/// What a run costs, and what one is taken to have cost of which nobody knows, in yuan.
const COST: &str = "0.002";
const RESERVE: &str = "0.01";

/// A chat of an account's customers with the model.
pub(super) struct Dialogue {
    client: Client,
    account: Account,
    sandbox: Sandbox,
    db: Db,
    callbacks: String,
    customers: usize,
}

impl Dialogue {
    pub(super) async fn prepare(platform: &Platform, customers: usize) -> Dialogue {
        let client = platform.register().await;
        let account = client.account(600, 0).await;
        prepare_model(platform, &client, &account).await;
        let callbacks = format!("{}/callbacks/gewe/{CALLBACK_SECRET}", platform.base(0));
        let (sandbox, db) = (platform.sandbox.again(), platform.db.clone());
        Dialogue { client, account, sandbox, db, callbacks, customers }
    }

    /// The customers write, each when all that the one before has set off is over. An API that dies may be called again.
    pub(super) async fn enqueue(&self) {
        for customer in 0..self.customers {
            let message = json!({
                "app_id": self.account.app_id, "wxid": self.account.app_id.replace("wx_", "wxid_"),
                "from": format!("wxid_customer_{customer}"), "burst": ["你好，我想问一下价格"], "url": self.callbacks,
                "retries": 100, "retry_ms": 200,
            });
            self.sandbox.customer_writes(&message).await;
            let ended = i64::try_from(customer).expect("a number") + 1;
            eventually("the customer's turn and every job has ended", ANSWERED, async || {
                let ended_turns = self
                    .number("SELECT count(*) AS n FROM turns WHERE state IN ('answered', 'handed_off')")
                    .await;
                let alive = "SELECT (SELECT count(*) FROM pending) + (SELECT count(*) FROM leases) AS n";
                match (ended_turns, self.number(alive).await) {
                    (turns, 0) if turns == ended => Ok(()),
                    (turns, alive) => Err(format!("{turns} turns have ended, {alive} jobs live")),
                }
            })
            .await;
        }
    }

    /// Panics unless each was answered once, or may have been, or is a person's now, with a notice. Returns how many were
    /// not certainly answered.
    pub(super) async fn assert_kept(&self, platform: &Platform) -> usize {
        let customers = i64::try_from(self.customers).expect("a number");
        let once = "SELECT count(DISTINCT (account_id, new_msg_id)) * 1000 + count(*) AS n FROM messages WHERE direction = 'in'";
        assert_eq!(self.number(once).await, customers * 1001, "every message is stored, and once");
        let applied = "SELECT count(*) AS n FROM callback_events WHERE outcome = 'applied'";
        assert_eq!(self.number(applied).await, customers);
        assert_eq!(self.number("SELECT count(*) AS n FROM turns").await, customers, "and is in one turn");

        let received = self.sandbox.entries_of(&self.account.app_id).await;
        let mut phones: Vec<&str> =
            received.iter().map(|entry| entry["body"]["toWxid"].as_str().expect("a wxid")).collect();
        phones.sort_unstable();
        let said = phones.len();
        phones.dedup();
        assert_eq!(phones.len(), said, "nobody is answered twice: {received:?}");

        let unknown = "SELECT count(*) AS n FROM sends WHERE state = 'unknown'";
        let told = "SELECT count(*) AS n FROM alerts WHERE kind = 'answer_not_sent'";
        assert_eq!(
            self.number(told).await,
            self.number(unknown).await,
            "people are told of what may not have arrived"
        );
        let handed_off = "SELECT count(*) AS n FROM turns t WHERE t.state = 'handed_off' AND EXISTS (SELECT FROM alerts a \
            WHERE a.kind = 'handed_off' AND a.conversation_id = t.conversation_id)";
        let (unknown, handed_off) = (self.number(unknown).await, self.number(handed_off).await);
        let answered = self.number("SELECT count(*) AS n FROM sends WHERE state = 'sent'").await;
        assert_eq!(answered + unknown + handed_off, customers, "answered, perhaps answered, or a person's");
        let said = i64::try_from(said).expect("a number");
        assert!(
            (answered..=answered + unknown).contains(&said),
            "{said} were received, {answered} are recorded"
        );

        assert_booked(&self.db).await;
        assert!(
            self.client.all("/jobs?kind=handle_callback").await.iter().all(|job| job["state"] == "completed")
        );
        platform.assert_sound().await;
        usize::try_from(unknown + handed_off).expect("a count")
    }

    async fn number(&self, statement: &str) -> i64 {
        book::number(&self.db, statement).await
    }
}

/// Sets a model up that answers for an account, and may be asked by its campaigns.
pub(super) async fn prepare_model(platform: &Platform, client: &Client, account: &Account) {
    let price = json!({
        "model": "sandbox-chat", "effective_from": "2026-01-01T00:00:00Z",
        "input_per_1k": "0.001", "output_per_1k": "0.001"
    });
    client.post("/model-prices", price).await.expect(201);
    let workflow = json!({
        "alias": "客服", "api_key": "fastgpt-matrix", "app_id": "appmatrix", "reserve_yuan": RESERVE,
        "requests_per_minute": 6000, "timeout_ms": 2000
    });
    client.post("/ai-workflows", workflow).await.expect(201);
    let debounce = json!({"quiet_ms": 100, "max_ms": 1000, "max_messages": 10});
    let ai = json!({"enabled": true, "workflow": "客服", "debounce": debounce, "disclosure": ""});
    client.put(&format!("/wechat-accounts/{}/ai", account.id), ai).await.expect(200);
    let budget = json!({"scope": "organization", "period": "month", "limit_yuan": "1000"});
    client.put("/budgets", budget).await.expect(200);
    let script = json!({
        "answer": ANSWER, "preset": "plain", "model": "sandbox-chat", "input_tokens": 1500,
        "output_tokens": 500, "times": 0
    });
    platform.sandbox.tell("/_sandbox/fastgpt/scripts", &script).await;
}

/// Every call of the model is in the ledger once, as what it cost or as an estimate, and the budget agrees with it.
pub(super) async fn assert_booked(db: &Db) {
    let amiss = format!(
        "SELECT count(*) AS n FROM ai_runs r CROSS JOIN LATERAL (SELECT sum(l.calculated_cost) AS cost, \
             bool_or(l.estimated) AS estimated FROM cost_ledgers l WHERE l.run_id = r.id) l \
         WHERE CASE r.state WHEN 'answered' THEN l.cost IS DISTINCT FROM {COST} OR l.estimated \
             WHEN 'unknown' THEN l.cost IS DISTINCT FROM {RESERVE} OR NOT l.estimated ELSE true END"
    );
    assert_eq!(book::number(db, &amiss).await, 0, "every run is booked, and once");
    assert_eq!(
        book::number(db, "SELECT count(*) AS n FROM budget_reservations").await,
        0,
        "nothing stays reserved"
    );
    let agrees = "SELECT count(*) AS n FROM (SELECT coalesce(sum(spent_yuan), 0) AS spent, \
             coalesce(sum(reserved_yuan), 0) AS reserved FROM budget_periods) p \
        WHERE p.reserved = 0 AND p.spent = (SELECT coalesce(sum(calculated_cost), 0) FROM cost_ledgers)";
    assert_eq!(book::number(db, agrees).await, 1, "the budget says what the ledger says");
}
