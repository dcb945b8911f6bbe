//! Postgres is killed, loses its connections, is locked by others, full, slow, or serves readers only.
//!
//! What the product's sessions are told to put up with is in `schema/src/pool.rs`; which errors pass by themselves is in
//! `schema/src/error.rs`.

use std::time::{Duration, Instant};

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use entropy_schema::{Db, Profile};
use serde_json::json;

use super::{asked, assert_retriable, disturbed, held, readiness, statuses};
use crate::harness::client::Account;
use crate::harness::process::Frozen;
use crate::harness::servers::Database;
use crate::harness::{Client, Platform, chaos, eventually, secs};

/// Somebody else who is at the same database.
struct Foreigner(AsyncPgConnection);

impl Foreigner {
    async fn at(platform: &Platform) -> Foreigner {
        Foreigner(AsyncPgConnection::establish(platform.database.url()).await.expect("Postgres answers"))
    }

    async fn says(&mut self, statement: &str) {
        self.0.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    /// Takes a lock by `statement`, holds it, and lets go.
    async fn holds(&mut self, statement: &str, time: Duration) {
        self.says("BEGIN").await;
        self.says(statement).await;
        tokio::time::sleep(time).await;
        self.says("ROLLBACK").await;
    }
}

/// Ends all connections to the database but one's own.
const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
    WHERE datname = current_database() AND pid <> pg_backend_pid()";

async fn platform() -> Platform {
    Platform::with().workers(2).start().await
}

/// Waits until a request that writes is refused, and panics if it is refused in the wrong way.
async fn refused(caller: &Client) {
    eventually("a caller is told to come again", secs(30), async || {
        let name = format!("{:016x}", fastrand::u64(..));
        let body =
            json!({ "wxid": format!("wxid_{name}"), "nickname": "小王", "gewe_app_id": format!("wx_{name}") });
        let reply = caller.post("/wechat-accounts", body).await;
        if reply.status != 201 {
            assert_retriable(&reply);
        }
        reply.status == 503
    })
    .await;
}

/// Panics unless callers have felt the fault, who then came again.
async fn assert_felt(platform: &Platform) {
    let statuses = statuses(platform).await;
    assert!(statuses.contains_key("503"), "the fault was not felt: {statuses:?}");
}

#[tokio::test]
async fn a_postgres_that_is_shut_down_at_once_costs_seconds_and_nothing_else() {
    let platform = Platform::with().workers(2).own_postgres().start().await;
    let platform = disturbed(platform, async |platform| {
        let postgres = platform.database.server();
        tokio::task::spawn_blocking(move || {
            // As `pg_ctl stop -m immediate`: no checkpoint, no goodbye.
            postgres.kill().expect("Postgres is killed");
            postgres.restart().expect("Postgres starts again");
        })
        .await
        .expect("Postgres is back");
    })
    .await;
    let lost = platform.number("SELECT count(*) AS n FROM attempts WHERE outcome = 'lost'").await;
    assert_eq!(lost, 0, "nobody died");
}

#[tokio::test]
async fn connections_may_be_terminated_again_and_again() {
    disturbed(platform().await, async |platform| {
        let mut foreigner = Foreigner::at(platform).await;
        let until = Instant::now() + held(4);
        while Instant::now() < until {
            foreigner.says(TERMINATE).await;
            tokio::time::sleep(Duration::from_millis(fastrand::u64(20..400))).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_locked_table_is_waited_for_and_callers_are_told_to_come_again() {
    disturbed(platform().await, async |platform| {
        let caller = platform.register().await;
        let mut foreigner = Foreigner::at(platform).await;
        let lock = foreigner.holds("LOCK TABLE lanes IN EXCLUSIVE MODE", held(7));
        futures::join!(lock, refused(&caller));
    })
    .await;
}

/// Longer than a lease: nobody can keep one, and nobody may take that for a death.
#[tokio::test]
async fn leases_that_cannot_be_kept_for_a_lock_are_not_taken_away() {
    let platform = disturbed(platform().await, async |platform| {
        let mut foreigner = Foreigner::at(platform).await;
        foreigner.holds("LOCK TABLE leases IN EXCLUSIVE MODE", held(16)).await;
    })
    .await;
    let lost = platform.number("SELECT count(*) AS n FROM attempts WHERE outcome = 'lost'").await;
    assert_eq!(lost, 0, "nobody died");
}

/// A disk that stalls, a machine that is moved: no statement fails, and none is answered.
#[tokio::test]
async fn a_postgres_that_stands_still_for_longer_than_a_lease_costs_no_living_worker_its_jobs() {
    let platform = Platform::with().workers(2).own_postgres().start().await;
    let platform = disturbed(platform, async |platform| {
        let pid = platform.database.server().pid().expect("Postgres runs");
        let frozen = Frozen::with_children(pid);
        tokio::time::sleep(held(18)).await;
        drop(frozen);
    })
    .await;
    let lost = platform.number("SELECT count(*) AS n FROM attempts WHERE outcome = 'lost'").await;
    assert_eq!(lost, 0, "nobody died");
}

/// A person at a console, or a process that was frozen inside its gate.
#[tokio::test]
async fn locked_rows_of_one_account_hold_up_no_other() {
    let platform = Platform::with().workers(1).start().await;
    let client = platform.register().await;
    let mut accounts = Vec::new();
    for _ in 0..4 {
        accounts.push(client.account(600, 0).await);
    }
    let (locked, free) = accounts.split_first().expect("accounts");
    let count = async |account: &Account| {
        let ledger = platform.ledger().await;
        ledger.iter().filter(|arrival| arrival.message.app_id == account.app_id).count()
    };
    // Its first message is on its way when the lock comes: its end cannot be recorded.
    let slow = json!({"mode": "delay_before_accept", "delay_ms": 1500, "times": 1, "app_id": locked.app_id});
    platform.sandbox.fail(slow).await;
    let first = asked(&client, locked, "第一条").await.expect(202);
    let under_way = "SELECT count(*) AS n FROM sends WHERE state = 'sending'";
    eventually("it is under way", secs(20), async || platform.number(under_way).await == 1).await;

    let mut foreigner = Foreigner::at(&platform).await;
    foreigner.says("BEGIN").await;
    let id = locked.id;
    foreigner.says(&format!("SELECT FROM leases WHERE lane_id = '{id}' FOR UPDATE")).await;
    foreigner.says(&format!("SELECT FROM lanes WHERE id = '{id}' FOR UPDATE")).await;
    foreigner.says(&format!("SELECT FROM wechat_accounts WHERE id = '{id}' FOR UPDATE")).await;
    let until = Instant::now() + held(8);
    let (mut accepted, mut refused, mut others) = (1, 0, 0);
    let mut slowest = Duration::ZERO;
    while Instant::now() < until {
        let began = Instant::now();
        // The first waits alone; those who ask meanwhile share a statement, with one among them that cannot go on.
        let meanwhile = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            futures::join!(
                asked(&client, locked, "被锁住了"),
                futures::future::join_all(free.iter().map(|account| asked(&client, account, "不受影响"))),
            )
        };
        let (first, (second, replies)) = futures::join!(asked(&client, locked, "也被锁住了"), meanwhile);
        for stuck in [first, second] {
            if stuck.status == 202 {
                accepted += 1;
            } else {
                refused += 1;
            }
        }
        for reply in replies {
            assert_eq!(reply.status, 202, "another account's lock is no reason: {}", reply.text);
        }
        others += 1;
        slowest = slowest.max(began.elapsed());
        for account in free {
            eventually("the others' messages are sent meanwhile", secs(10), async || {
                let sent = count(account).await;
                if sent >= others { Ok(()) } else { Err(format!("{sent} of {others}")) }
            })
            .await;
        }
    }
    assert!(refused > 0, "the lock was not felt");
    foreigner.says("ROLLBACK").await;
    chaos::report(&format!(
        "{others} rounds for the others, the slowest {slowest:.1?}; {refused} refusals for the locked one"
    ));
    platform.idle(secs(60)).await;
    let id = first["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
    assert_eq!(client.job(id).await["state"], "completed");
    for account in free {
        assert_eq!(count(account).await, others);
    }
    // What was refused was not stored: nobody asked for it again.
    assert_eq!(count(locked).await, accepted);
    platform.assert_sound().await;
}

#[tokio::test]
async fn one_connection_per_process_is_enough_and_a_full_pool_asks_to_come_again() {
    let platform = Platform::with().workers(2).env("DATABASE_POOL_SIZE", "1").start().await;
    let platform = disturbed(platform, async |platform| {
        let client = platform.register().await;
        let mut foreigner = Foreigner::at(platform).await;
        let burst = async {
            // Long enough for the lock to be in force.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let began = Instant::now();
            let reads = (0..60).map(|_| client.get("/sends?state=unknown"));
            let replies = futures::future::join_all(reads).await;
            for reply in replies.iter().filter(|reply| reply.status != 200) {
                assert_retriable(reply);
            }
            (began.elapsed(), replies.iter().filter(|reply| reply.status == 503).count())
        };
        let lock = "LOCK TABLE lanes, sends IN ACCESS EXCLUSIVE MODE";
        let (took, refused) = futures::join!(burst, foreigner.holds(lock, held(6))).0;
        chaos::report(&format!(
            "60 reads at one connection: {refused} told to come again, all within {took:.1?}"
        ));
        assert!(took < super::BOUND, "answers after {took:?}");
    })
    .await;
    assert_felt(&platform).await;
}

#[tokio::test]
async fn a_server_without_a_free_connection_is_waited_for() {
    let platform = Platform::with().workers(2).own_postgres().start().await;
    disturbed(platform, async |platform| {
        let mut crowd = vec![Foreigner::at(platform).await];
        let fill = async |crowd: &mut Vec<Foreigner>| {
            loop {
                let attempts = (0..25).map(|_| AsyncPgConnection::establish(platform.database.url()));
                let more = futures::future::join_all(attempts).await.into_iter().flatten().map(Foreigner);
                let before = crowd.len();
                crowd.extend(more);
                if crowd.len() == before {
                    break;
                }
            }
        };
        fill(&mut crowd).await;
        // Now the product's go, which alone have asked for anything; the crowd takes their places.
        let ours = crowd.len();
        eventually("the product has no connection", secs(20), async || {
            crowd[0]
                .says(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                     WHERE datname = current_database() AND query <> '' AND pid <> pg_backend_pid()",
                )
                .await;
            fill(&mut crowd).await;
            let ready = readiness(platform).await;
            if ready.status == 503 { Ok(()) } else { Err(format!("{} after {ours}", crowd.len())) }
        })
        .await;
        let client = platform.anonymous();
        let until = Instant::now() + held(5);
        let mut refused = 0;
        while Instant::now() < until {
            let began = Instant::now();
            let body = json!({ "username": "nobody", "password": "nothing at all" });
            let reply = client.post("/auth/login", body).await;
            assert!(began.elapsed() < super::BOUND, "an answer after {:?}", began.elapsed());
            if reply.status == 503 {
                assert_retriable(&reply);
                refused += 1;
            }
        }
        assert!(refused > 0, "the crowd was not felt");
    })
    .await;
}

/// The statements of the product run into their own timeout where the outcome of a send is to be recorded.
#[tokio::test]
async fn an_outcome_that_is_not_recorded_in_time_is_offered_again() {
    let platform = disturbed(platform().await, async |platform| {
        let mut foreigner = Foreigner::at(platform).await;
        foreigner
            .says(
                "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$; \
                 CREATE TRIGGER slow BEFORE UPDATE ON sends FOR EACH STATEMENT EXECUTE FUNCTION slow()",
            )
            .await;
        eventually("an outcome was not recorded in time", secs(30), async || {
            platform.logs().iter().any(|(_, log)| {
                log.lines().any(|line| {
                    line.contains("outcome not recorded yet") && line.contains("statement timeout")
                })
            })
        })
        .await;
        // This waits for those who are inside, until their time is over.
        foreigner.says("DROP TRIGGER slow ON sends").await;
    })
    .await;
    let open = platform.number("SELECT count(*) AS n FROM sends WHERE state <> 'sent'").await;
    assert_eq!(open, 0, "each was recorded in the end, and none was taken back");
}

/// Statements of every sort are cancelled at random: at the enqueueing, the claim, the gate, the outcome, the end.
#[tokio::test]
async fn cancelled_statements_are_tried_again_wherever_they_are() {
    const TABLES: [&str; 7] = ["jobs", "pending", "leases", "lanes", "sends", "attempts", "idempotency_keys"];
    let platform = disturbed(platform().await, async |platform| {
        let mut foreigner = Foreigner::at(platform).await;
        foreigner
            .says(
                "CREATE FUNCTION cancelled() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 IF random() < 0.15 THEN PERFORM pg_cancel_backend(pg_backend_pid()), pg_sleep(5); END IF; \
                 RETURN NULL; END $$",
            )
            .await;
        for table in TABLES {
            foreigner
                .says(&format!(
                    "CREATE TRIGGER cancelled BEFORE INSERT OR UPDATE OR DELETE ON {table} \
                     FOR EACH STATEMENT EXECUTE FUNCTION cancelled()"
                ))
                .await;
        }
        tokio::time::sleep(held(6)).await;
        for table in TABLES {
            foreigner.says(&format!("DROP TRIGGER cancelled ON {table}")).await;
        }
    })
    .await;
    assert_felt(&platform).await;
}

/// As after a failover, on the server that is no longer the first.
#[tokio::test]
async fn a_postgres_that_serves_readers_only_is_waited_for() {
    let platform = Platform::with().workers(2).own_postgres().start().await;
    disturbed(platform, async |platform| {
        let mut foreigner = Foreigner::at(platform).await;
        let mut set = async |value: &str| {
            foreigner.says(&format!("ALTER SYSTEM SET default_transaction_read_only = {value}")).await;
            foreigner.says("SELECT pg_reload_conf()").await;
        };
        let caller = platform.register().await;
        set("on").await;
        let time = tokio::time::sleep(held(5));
        futures::join!(time, refused(&caller));
        set("off").await;
    })
    .await;
}

/// The errors of a real server, by which the product tells what passes from what does not.
#[tokio::test]
async fn the_words_of_a_server_are_understood() {
    async fn error_of(db: &Db, statement: &str) -> entropy_schema::Error {
        let mut conn = db.conn().await.expect("a connection");
        conn.batch_execute(statement).await.expect_err(statement).into()
    }
    let database = Database::create().await;
    let (db, other) = (one_connection(database.url()), one_connection(database.url()));
    let check = async |statement: &str, contended: bool| {
        let error = error_of(&db, statement).await;
        assert!(error.is_unavailable(), "{statement}: {error}");
        assert_eq!(error.is_contended(), contended, "{statement}: {error}");
        // Whatever it was, soon there is a connection again that works. The first may be the one that was ended.
        eventually("the database is at hand", secs(5), async || {
            let mut conn = db.conn().await.map_err(|error| error.to_string())?;
            conn.batch_execute("ROLLBACK").await.map_err(|error| error.to_string())
        })
        .await;
    };
    check("BEGIN; SET LOCAL statement_timeout = 20; SELECT pg_sleep(10)", false).await;
    check("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(10)", false).await;
    check("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(10)", false).await;
    check("BEGIN READ ONLY; DELETE FROM lanes", false).await;
    let mut holder = other.conn().await.expect("a connection");
    holder.batch_execute("BEGIN; LOCK TABLE lanes").await.expect("a lock");
    check("BEGIN; LOCK TABLE lanes NOWAIT", true).await;
    check("BEGIN; SET LOCAL lock_timeout = 20; LOCK TABLE lanes", true).await;
    // Two that wait for each other: one is told, the other goes on.
    let (one, two) = futures::join!(
        async {
            let mut conn = db.conn().await.expect("a connection");
            let outcome = conn.batch_execute("BEGIN; LOCK TABLE jobs; LOCK TABLE lanes").await;
            conn.batch_execute("ROLLBACK").await.expect("it works");
            outcome
        },
        async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let outcome = holder.batch_execute("LOCK TABLE jobs").await;
            holder.batch_execute("ROLLBACK").await.expect("it works");
            outcome
        }
    );
    let error = entropy_schema::Error::from(one.and(two).expect_err("a deadlock"));
    assert!(error.is_unavailable(), "{error}");
    drop(holder);
    for statement in ["SELECT * FROM nothing", "SELECT 1 / 0", "INSERT INTO jobs DEFAULT VALUES"] {
        let error = error_of(&db, statement).await;
        assert!(!error.is_unavailable(), "{statement}: {error}");
    }

    // A user without rights, and with room for one connection.
    let role = format!("role_{:016x}", fastrand::u64(..));
    let make = format!("CREATE ROLE {role} LOGIN PASSWORD 'a-password-of-the-tests' CONNECTION LIMIT 1");
    db.conn().await.expect("a connection").batch_execute(&make).await.expect("a role");
    let (_, address) = database.url().split_once('@').expect("an address");
    let url = format!("postgres://{role}:a-password-of-the-tests@{address}");
    let (plain, crowded) = (one_connection(&url), one_connection(&url));
    let mut conn = plain.conn().await.expect("the session's settings need no rights");
    let Err(error) = crowded.conn().await else { panic!("a second connection") };
    assert!(error.is_unavailable(), "{error}");
    assert!(!error.to_string().contains("a-password-of-the-tests"), "{error}");
    let denied =
        entropy_schema::Error::from(conn.batch_execute("DELETE FROM jobs").await.expect_err("no right"));
    assert!(!denied.is_unavailable(), "{denied}");
    drop((conn, plain));
    let drop_role = format!("DROP ROLE {role}");
    db.conn().await.expect("a connection").batch_execute(&drop_role).await.expect("the role goes");
}

fn one_connection(url: &str) -> Db {
    Db::new(url, 1, Profile::Worker).expect("a pool")
}
