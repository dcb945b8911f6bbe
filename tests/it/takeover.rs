//! A person takes a conversation over at every step of an answer by the AI, and from then on the AI says nothing more.
//!
//! The worker of these tests stops where it is told ([`hold`]). What its gate had let pass before the takeover was answered,
//! one message at most, may still arrive: GeWe can call nothing back. The messages after it do not.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use diesel_async::SimpleAsyncConnection;
use serde_json::{Value, json};

use crate::harness::client::{Account, Client};
use crate::harness::platform::CALLBACK_SECRET;
use crate::harness::{Platform, eventually, secs, worker};

/// Names the directory of the holds to the worker process.
const HOLDS: &str = "ENTROPY_TAKEOVER_HOLDS";

/// How long anything may take that has nothing to wait for.
const SOON: Duration = secs(30);

/// A moment at which a person takes over.
struct Moment {
    /// The step at which the worker stands.
    step: &'static str,
    /// At which time of coming by, from 1.
    pass: u8,
    /// The worker's transaction holds the conversation, so that the takeover waits for it and comes second.
    locked: bool,
    /// How many of the answer's two messages had passed the gate by then, or pass it before the takeover can be answered.
    said: usize,
}

const fn at(step: &'static str, pass: u8, locked: bool, said: usize) -> Moment {
    Moment { step, pass, locked, said }
}

/// Every step between what the customer wrote and the end of the answer, in their order.
const MOMENTS: &[Moment] = &[
    // The message is stored and its turn collects more.
    at("event.written", 1, true, 0),
    // The turn is looked at, and the run written down.
    at("reply.locked", 1, true, 0),
    at("reply.reserved", 1, true, 0),
    at("reply.committed", 1, false, 0),
    // The model writes.
    at("ask.handed_over", 1, false, 0),
    at("ask.answered", 1, false, 0),
    at("ask.read", 1, false, 0),
    at("ask.looked_up", 1, false, 0),
    // Its answer is taken in.
    at("reply.booked", 1, true, 0),
    at("reply.enqueued", 1, true, 0),
    at("reply.concluded", 1, false, 0),
    // The first message is at its gate, and behind it.
    at("gate.locked", 1, false, 0),
    at("gate.written", 1, true, 1),
    at("gate.committed", 1, false, 1),
    at("send.handed_over", 1, false, 1),
    at("send.answered", 1, false, 1),
    at("send.read", 1, false, 1),
    at("send.recorded", 1, false, 1),
    // The second one is.
    at("gate.locked", 2, false, 1),
    at("gate.written", 2, true, 2),
];

/// The test binary as a worker that stops where it is told.
#[test]
fn a_worker_stops_where_it_is_told() {
    let Some(dir) = std::env::var_os(HOLDS).map(PathBuf::from) else {
        assert!(fail::has_failpoints(), "the steps are there");
        return;
    };
    for moment in MOMENTS {
        let dir = dir.clone();
        fail::cfg_callback(moment.step, move || hold(&dir, moment.step)).expect("a step");
    }
    worker::run(entropy_jobs::kinds::registry());
}

/// Stands still while there is a file `STEP.held`, if the file `STEP` counts down to this time of coming by.
fn hold(dir: &Path, step: &str) {
    let (asked, held) = (dir.join(step), dir.join(format!("{step}.held")));
    let Some(pass) = fs::read_to_string(&asked).ok().and_then(|text| text.parse::<u8>().ok()) else { return };
    if pass > 1 {
        fs::write(&asked, (pass - 1).to_string()).expect("counted");
        return;
    }
    fs::rename(&asked, &held).expect("held");
    // Everything else of the process goes on.
    tokio::task::block_in_place(|| {
        while held.exists() {
            std::thread::sleep(Duration::from_millis(2));
        }
    });
}

/// An account whose AI answers in two messages.
struct Scene {
    platform: Platform,
    admin: Client,
    account: Account,
    holds: PathBuf,
}

impl Scene {
    async fn set() -> Scene {
        let mut platform = Platform::with().workers(0).start().await;
        let holds = platform.dir().join("holds");
        fs::create_dir(&holds).expect("a directory");
        let program = std::env::current_exe().expect("this test binary");
        let test = "takeover::a_worker_stops_where_it_is_told";
        let args = [test, "--exact", "--nocapture", "--test-threads=1"];
        let env = [(HOLDS, holds.to_str().expect("a path"))];
        platform.workers = vec![platform.other_process("worker-that-stops", &program, &args, &env)];
        platform.ready().await;
        let admin = platform.register().await;
        let account = admin.account(600, 0).await;
        let workflow = json!({
            "alias": "客服", "api_key": "fastgpt-takeover", "app_id": "apptakeover", "requests_per_minute": 6000
        });
        admin.post("/ai-workflows", workflow).await.expect(201);
        let debounce = json!({"quiet_ms": 300, "max_ms": 3000, "max_messages": 10});
        let ai = json!({"enabled": true, "workflow": "客服", "debounce": debounce, "disclosure": ""});
        admin.put(&format!("/wechat-accounts/{}/ai", account.id), ai).await.expect(200);
        let answer = format!("{}。{}。", "您好".repeat(200), "请稍等".repeat(100));
        let scene = Scene { platform, admin, account, holds };
        scene.script(json!({"answer": answer, "times": 0})).await;
        // Its end is lost; the provider's records have it.
        scene.script(json!({"answer": answer, "match": "丢失", "fail": "reset_after_run", "times": 0})).await;
        scene
    }

    async fn script(&self, script: Value) {
        self.platform.sandbox.tell("/_sandbox/fastgpt/scripts", &script).await;
    }

    async fn write(&self, customer: &str, text: &str) {
        let message = json!({
            "app_id": self.account.app_id,
            "wxid": self.account.app_id.replace("wx_", "wxid_"),
            "from": customer,
            "burst": [text],
            "url": format!("{}/callbacks/gewe/{CALLBACK_SECRET}", self.platform.base(0)),
        });
        self.platform.sandbox.customer_writes(&message).await;
    }

    /// How many messages the customer's phone has received.
    async fn received(&self, customer: &str) -> usize {
        let entries = self.platform.sandbox.entries_of(&self.account.app_id).await;
        entries.iter().filter(|entry| entry["body"]["toWxid"] == customer).count()
    }

    /// The customer writes and has both messages.
    async fn answered(&self, customer: &str) {
        self.write(customer, "在吗").await;
        eventually("both messages arrive if nobody takes over", SOON, async || {
            self.received(customer).await == 2
        })
        .await;
        self.platform.idle(SOON).await;
    }

    async fn conversation(&self, customer: &str) -> Value {
        let list = self.admin.all(&format!("/conversations?account_id={}", self.account.id)).await;
        let found = list.into_iter().find(|chat| chat["contact"]["wxid"] == customer);
        found.unwrap_or_else(|| panic!("{customer} has a conversation"))
    }

    /// The customer writes, a person takes over when the worker stands at the step, and all goes on to its end.
    async fn take_over(&self, customer: &str, moment: &Moment) {
        let Moment { step, pass, locked, said } = *moment;
        let held = self.holds.join(format!("{step}.held"));
        if step == "event.written" {
            // The first message of all opens the conversation, and nobody can take over what is not there.
            self.answered(customer).await;
        }
        let before = self.received(customer).await;
        fs::write(self.holds.join(step), pass.to_string()).expect("asked for");
        let text = if step == "ask.looked_up" { "丢失的回答" } else { "在吗" };
        self.write(customer, text).await;
        eventually(&format!("the worker stands at {step}"), SOON, async || held.exists()).await;
        let conversation = self.conversation(customer).await["id"].as_str().expect("an id").to_owned();
        let take = {
            let (admin, path) = (self.admin.clone(), format!("/conversations/{conversation}/takeover"));
            tokio::spawn(async move {
                loop {
                    let reply = admin.post(&path, json!({"minutes": 30})).await;
                    // On a slow machine it may wait for the worker's lock for longer than the API does.
                    if reply.status != 503 {
                        return reply;
                    }
                }
            })
        };
        if locked {
            let waiting = "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() \
                AND wait_event_type = 'Lock'";
            eventually("the takeover waits for the worker", SOON, async || {
                self.platform.number(waiting).await > 0
            })
            .await;
            assert!(!take.is_finished(), "{step} x{pass}: it comes second");
            fs::remove_file(&held).expect("goes on");
            take.await.expect("no panic").expect(200);
        } else {
            take.await.expect("no panic").expect(200);
            fs::remove_file(&held).expect("goes on");
        }
        self.platform.idle(SOON).await;

        // A call that was held up for more than five seconds is not made any more.
        let heard = self.received(customer).await - before;
        assert!(heard <= said && heard + 1 >= said, "{step} x{pass}: the AI said {heard} of {said}");
        let late = format!(
            "SELECT count(*) AS n FROM messages m JOIN sends s ON s.id = m.send_id \
                 JOIN mode_changes c ON c.conversation_id = m.conversation_id \
             WHERE m.conversation_id = '{conversation}' AND m.origin = 'ai' AND s.started_at > c.changed_at"
        );
        assert_eq!(self.platform.number(&late).await, 0, "{step} x{pass}: nothing was begun after it");
        let state = if said == 0 { "dropped" } else { "answered" };
        let ended = format!(
            "SELECT count(*) AS n FROM (SELECT state FROM turns WHERE conversation_id = '{conversation}' \
                 ORDER BY id DESC LIMIT 1) t WHERE state = '{state}'"
        );
        assert_eq!(self.platform.number(&ended).await, 1, "{step} x{pass}: its turn is {state}");
        self.platform.assert_sound().await;
    }
}

#[tokio::test]
async fn whoever_takes_over_at_any_moment_of_an_answer_has_the_conversation_for_themselves() {
    let scene = Scene::set().await;
    scene.answered("wxid_nobody_takes_over").await;
    for (number, moment) in MOMENTS.iter().enumerate() {
        scene.take_over(&format!("wxid_customer_{number}"), moment).await;
    }
    let answered = "SELECT count(*) AS n FROM ai_runs WHERE state <> 'answered'";
    assert_eq!(scene.platform.number(answered).await, 0, "every run came to its end and was booked");
    let unsettled = "SELECT count(*) AS n FROM budget_reservations";
    assert_eq!(scene.platform.number(unsettled).await, 0);
}

/// At these moments the AI is stopped: how many of the answer's two messages may still arrive.
const STOPS: &[(&str, usize)] = &[
    ("reply.locked", 0),
    ("reply.committed", 0),
    ("reply.concluded", 0),
    ("gate.locked", 0),
    ("gate.committed", 1),
];

#[tokio::test]
async fn whoever_stops_the_ai_at_any_moment_of_an_answer_hears_no_more_of_it() {
    let scene = Scene::set().await;
    for (number, (step, said)) in STOPS.iter().enumerate() {
        let customer = format!("wxid_stop_{number}");
        let held = scene.holds.join(format!("{step}.held"));
        fs::write(scene.holds.join(step), "1").expect("asked for");
        scene.write(&customer, "在吗").await;
        eventually(&format!("the worker stands at {step}"), SOON, async || held.exists()).await;
        let stop = {
            let admin = scene.admin.clone();
            tokio::spawn(async move {
                admin.post("/stop", json!({"scope": "ai", "reason": "说错话了"})).await
            })
        };
        // Its answer waits for a gate that is open just now; the stop itself is in force before that.
        let stands = "SELECT count(*) AS n FROM stops";
        eventually("the stop stands", SOON, async || scene.platform.number(stands).await == 1).await;
        fs::remove_file(&held).expect("goes on");
        stop.await.expect("no panic").expect(200);
        scene.platform.idle(SOON).await;
        let heard = scene.received(&customer).await;
        assert!(heard <= *said, "{step}: the AI said {heard}, and may have said {said}");
        let late = "SELECT count(*) AS n FROM jobs WHERE kind = 'ai_reply' AND final_state IS NULL";
        assert_eq!(scene.platform.number(late).await, 0, "{step}: nobody goes on asking");
        let conn = &mut scene.platform.db.conn().await.expect("a connection");
        SimpleAsyncConnection::batch_execute(conn, "DELETE FROM stops").await.expect("lifted");
    }
    scene.answered("wxid_after_the_stops").await;
}
