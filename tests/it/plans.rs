//! The plans of the hot statements over a long history and a large backlog that nobody has analysed.
//!
//! The statements are private, so the functions are called and Postgres itself writes down the plan that it used:
//! `auto_explain`, switched on for this test's database, puts every executed plan with its row counts into the server's
//! log. A statement fails the test if it reads one of the large tables from end to end, by a sequential scan or by an
//! index whose rows it throws away, or if it takes long.

mod campaigns;
mod conversations;

use std::time::{Duration, Instant};

use chrono::Utc;
use diesel_async::AsyncConnection;
use entropy_schema::record::{claim, control, dispatch, enqueue, finish, rescue, statistics};
use entropy_schema::views::{self, jobs::State};
use entropy_schema::{Conn, Db, Profile, lanes, retention, sends};
use serde_json::json;
use uuid::Uuid;

use crate::harness::Book;
use crate::harness::book::end_of;

/// Tables that no hot statement may read from end to end.
static LARGE: [&str; 6] = ["jobs", "pending", "leases", "lanes", "sends", "attempts"];

/// Rows that a statement may read and throw away. It may skip some locked or paused ones, not a backlog.
const MOST_THROWN_AWAY: f64 = 3000.0;

/// Jobs that wait or were handed out.
const BACKLOG: f64 = 202_000.0;

/// Far above what these take on an idle machine, far below what reading a table takes.
const SLOWEST: Duration = Duration::from_millis(500);

/// Until what nobody claims is looked at again: longer than the test takes.
const HOUR_MS: i64 = 3_600_000;

/// The first organisation: all of the history and most of the backlog are its own.
const ORGANIZATION: Uuid = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);

/// Ids that grow as UUIDv7 do: `$prefix` sorts the groups, `n` the rows.
fn id(prefix: &str, n: &str) -> String {
    format!("('{prefix}-' || lpad(to_hex({n}), 12, '0'))::uuid")
}

/// A million finished jobs and what they left behind; analysed. Then 200,000 that wait, 2000 that were handed out, and
/// 10,000 lanes, most of which wait for a limit; never analysed.
fn history() -> [String; 3] {
    let (done, lane) = (id("01900000-0000-7000-8000", "n"), id("01800000-0000-7000-8000", "n % 10000"));
    let (waiting, plain) = (id("01950000-0000-7000-8000", "n"), id("01960000-0000-7000-8000", "n"));
    let (leased, send) = (id("01970000-0000-7000-8000", "n"), id("01a00000-0000-7000-8000", "n"));
    let lane_n = id("01800000-0000-7000-8000", "n");
    let o = ORGANIZATION;
    let old = format!(
        "INSERT INTO organizations (id, name) VALUES ('{o}', 'large');
         INSERT INTO jobs (id, organization_id, kind, queue, class, lane_id, order_key, account_id, args, args_version,
            max_attempts, trace_id, created_at, final_state, attempt, finalized_at)
         SELECT {done}, '{o}', 'send_message', 'send', 2, {lane}, 'wxid_' || n % 50, {lane}, '{{}}', 1, 12, 't',
            now() - (1000000 - n) * interval '1 second', CASE WHEN n % 100 = 0 THEN 'dead' ELSE 'completed' END, 1, now()
         FROM generate_series(1, 1000000) n;
         INSERT INTO job_endings SELECT {done}, '{o}', 'dead' FROM generate_series(100, 1000000, 100) n;
         INSERT INTO sends (id, organization_id, account_id, token_key, job_id, attempt, to_wxid, message_kind, state,
            started_at, window_at, finished_at)
         SELECT {send}, '{o}', CASE WHEN n % 2 = 0 THEN {} ELSE {lane} END, 'install', {done}, 1,
            'wxid_' || n % 5000, 'text', CASE WHEN n % 10000 = 0 THEN 'unknown' ELSE 'sent' END, at, at, at
         FROM (SELECT n, now() - (200000 - n) * interval '1 second' AS at FROM generate_series(1, 200000) n) s;
         ANALYZE;",
        id("01800000-0000-7000-8000", "7"),
    );
    // What changes a table has its plans made anew, so this stands apart.
    let unattended = "ALTER TABLE pending SET (autovacuum_enabled = off);
         ALTER TABLE leases SET (autovacuum_enabled = off); ALTER TABLE lanes SET (autovacuum_enabled = off);
         ALTER TABLE jobs SET (autovacuum_enabled = off)";
    let new = format!(
        "INSERT INTO lanes (id, organization_id, kind, runnable_at, wait_code)
         SELECT {lane_n}, '{o}', 'account',
            CASE WHEN n % 10 = 0 THEN now() - interval '1 minute' ELSE now() + interval '1 hour' END,
            CASE WHEN n % 10 <> 0 THEN 'messages_per_day' END
         FROM generate_series(0, 9999) n;
         INSERT INTO jobs (id, organization_id, kind, queue, class, lane_id, order_key, account_id, args, args_version,
            max_attempts, trace_id)
         SELECT {waiting}, '{o}', 'send_message', 'send', 2, {lane}, 'wxid_' || n % 50, {lane}, '{{}}', 1, 12, 't'
         FROM generate_series(1, 150000) n;
         INSERT INTO pending (job_id, organization_id, queue, lane_id, order_key, class, due_at, wait_code, expires_at)
         SELECT {waiting}, '{o}', 'send', {lane}, 'wxid_' || n % 50, 2,
            CASE WHEN n % 3 = 0 THEN now() + interval '1 day' END, CASE WHEN n % 3 = 0 THEN 'scheduled' END,
            CASE WHEN n % 4 = 0 THEN now() + interval '2 days' END
         FROM generate_series(1, 150000) n;
         INSERT INTO jobs (id, organization_id, kind, queue, class, args, args_version, max_attempts, trace_id)
         SELECT {plain}, '{o}', 'cost_tally', 'cost', 2, '{{}}', 1, 12, 't' FROM generate_series(1, 50000) n;
         INSERT INTO pending (job_id, organization_id, queue, class)
         SELECT {plain}, '{o}', 'cost', 2 FROM generate_series(1, 50000) n;
         INSERT INTO jobs (id, organization_id, kind, queue, class, args, args_version, max_attempts, trace_id)
         SELECT {leased}, '{o}', 'cost_tally', 'cost', 2, '{{}}', 1, 12, 't' FROM generate_series(1, 2000) n;
         INSERT INTO leases (job_id, organization_id, queue, class, seq, attempt, crashes, dispatched_at, worker_id,
            claimed_at, lease_until)
         SELECT {leased}, '{o}', 'cost', 2, n, 1, 0, now(), CASE WHEN n % 2 = 0 THEN gen_random_uuid() END,
            CASE WHEN n % 2 = 0 THEN now() END, now() + interval '1 hour'
         FROM generate_series(1, 2000) n;"
    );
    [old, unattended.to_owned(), new]
}

/// Runs statements and reads which plans they had.
struct Observer<'a> {
    book: &'a Book,
    db: Db,
    large: &'static [&'static str],
    most_thrown_away: f64,
    /// Rows of a large table that a statement may read.
    most_read: f64,
    slowest: Duration,
    faults: Vec<String>,
    seen: usize,
}

impl<'a> Observer<'a> {
    fn new(book: &'a Book, profile: Profile) -> Observer<'a> {
        Observer::over(&LARGE, book, profile)
    }

    /// Watches which of the tables in `large` are read from end to end.
    fn over(large: &'static [&'static str], book: &'a Book, profile: Profile) -> Observer<'a> {
        let db = Db::new(book.database.url(), 2, profile).expect("a pool");
        Observer {
            book,
            db,
            large,
            most_thrown_away: MOST_THROWN_AWAY,
            most_read: f64::INFINITY,
            slowest: SLOWEST,
            faults: Vec::new(),
            seen: 0,
        }
    }

    /// Runs `call` and notes what is wrong with its plans.
    async fn watch<T>(
        &mut self,
        what: &str,
        call: impl AsyncFnOnce(&mut Conn) -> entropy_schema::Result<T>,
    ) -> T {
        let mut conn = self.db.conn().await.expect("a connection");
        let before = self.book.database.server_log().await.len();
        let began = Instant::now();
        let value = call(&mut conn).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        let took = began.elapsed();
        let log = self.book.database.server_log().await;
        // A plan's lines are indented; the line before says how long it took.
        let plans: Vec<&str> = log[before..].split("LOG:  duration: ").skip(1).collect();
        assert!(!plans.is_empty(), "{what}: Postgres wrote down no plan:\n{}", &log[before..]);
        self.seen += plans.len();
        for plan in plans {
            let lines = plan.lines().skip(1).take_while(|line| line.starts_with('\t'));
            let wrong = |line: &&str| {
                is_wrong(line, self.large, self.most_thrown_away)
                    || rows_read(line, self.large) > self.most_read
            };
            for wrong in lines.filter(wrong) {
                self.faults.push(format!("{what}: {}\n{plan}", wrong.trim()));
            }
        }
        if took > self.slowest {
            self.faults.push(format!("{what} took {took:?}"));
        }
        value
    }

    /// Goes on with what `next` finds wrong.
    fn with(mut self, next: Observer<'a>) -> Observer<'a> {
        self.faults.extend(next.faults);
        self.seen += next.seen;
        self
    }

    fn assert_good(self) {
        assert!(self.faults.is_empty(), "{} bad plans:\n{}", self.faults.len(), self.faults.join("\n\n"));
        println!("{} plans were good", self.seen);
    }
}

/// Tells whether a line of a plan reads a large table from end to end.
fn is_wrong(line: &str, large: &[&str], most_thrown_away: f64) -> bool {
    if let Some((_, table)) = line.split_once("Seq Scan on ") {
        return large.contains(&table.split(' ').next().unwrap_or_default());
    }
    let thrown = line.split_once("Rows Removed by ").and_then(|(_, rest)| rest.split_once(": "));
    thrown.and_then(|(_, rows)| rows.trim().parse::<f64>().ok()).is_some_and(|rows| rows > most_thrown_away)
}

/// Returns how many rows of a large table a line of a plan reads, those that it throws away left out.
fn rows_read(line: &str, large: &[&str]) -> f64 {
    let of_large = line
        .split_once("Scan ")
        .and_then(|(_, rest)| rest.split_once("on "))
        .is_some_and(|(_, table)| large.contains(&table.split(' ').next().unwrap_or_default()));
    let number = |name: &str| {
        let (_, rest) = line.split_once("(actual ")?.1.split_once(name)?;
        rest.split([' ', ')']).next()?.parse::<f64>().ok()
    };
    number("rows=").zip(number("loops=")).filter(|_| of_large).map_or(0.0, |(rows, loops)| rows * loops)
}

#[test]
fn a_line_of_a_plan_says_how_much_it_reads() {
    let line = "\t->  Index Scan using jobs_pkey on jobs j  (cost=0.42..8.44 rows=1 width=6) (actual rows=3 loops=50)";
    assert!((rows_read(line, &["jobs"]) - 150.0).abs() < 0.1);
    assert!(rows_read(line, &["pending"]) < 0.1);
    assert!(rows_read("\t->  Sort  (cost=1..2 rows=9 width=6) (actual rows=3 loops=50)", &["jobs"]) < 0.1);
}

#[tokio::test]
async fn hot_statements_walk_their_indexes_over_a_long_history_and_a_large_backlog() {
    let book = Book::open_alone().await;
    let began = Instant::now();
    // The pool's connections give up after ten seconds; filling takes longer.
    let fill = async |statements: &str| {
        book.run(&format!("SET statement_timeout = 0; {statements}; SET statement_timeout = '10s'")).await;
    };
    let [old, unattended, new] = history();
    fill(&old).await;
    fill(&unattended).await;
    observe(&book).await;
    // A worker plans its statements once, mostly while nothing waits.
    let early = Observer::new(&book, Profile::Worker);
    plan_while_nothing_waits(&early).await;
    fill(&new).await;
    println!("filled in {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(120), "filling took {:?}", began.elapsed());
    workers(&book, Observer::new(&book, Profile::Worker)).await;
    lists(&book).await;
    let grown = statistics::refresh(&mut *book.conn().await).await.expect("an answer");
    assert!(
        ["pending", "leases", "lanes"].iter().all(|table| grown.iter().any(|name| name == table)),
        "{grown:?}"
    );
    let again = statistics::refresh(&mut *book.conn().await).await.expect("an answer");
    assert_eq!(again, [""; 0], "once for each doubling");
    workers(&book, early).await;
}

/// Has the plans of all sessions that begin from now on written down.
async fn observe(book: &Book) {
    for setting in [
        "session_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_analyze = on",
        "auto_explain.log_timing = off",
    ] {
        book.run(&format!("ALTER DATABASE {} SET {setting}", book.database.name())).await;
    }
}

/// Runs what a relay and a rescuer run over tables that are empty, on the connection that is then watched.
async fn plan_while_nothing_waits(seen: &Observer<'_>) {
    let mut conn = seen.db.conn().await.expect("a connection");
    let nobody = [Uuid::now_v7()];
    dispatch::outlook(&mut conn, &["cost", "send"]).await.expect("an outlook");
    dispatch::promote(&mut conn, 500).await.expect("promoted");
    control::expire(&mut conn, 500, &json!({})).await.expect("expired");
    dispatch::pick_lanes(&mut conn, 200, 3000).await.expect("picked");
    dispatch::settle_idle_lanes(&mut conn, &nobody).await.expect("settled");
    dispatch::pick_plain(&mut conn, "cost", 500, 3000).await.expect("picked");
    claim::claim(&mut conn, &[(nobody[0], 1)], nobody[0], 15_000).await.expect("claimed");
    claim::keep(&mut conn, &nobody, nobody[0], 15_000).await.expect("kept");
    rescue::held(&mut conn, nobody[0], nobody[0]).await.expect("looked");
    rescue::signs(&mut conn, 2500).await.expect("looked");
    rescue::undelivered(&mut conn, 500, &["cost"], 3000).await.expect("looked");
    rescue::expired(&mut conn, 500).await.expect("looked");
    lanes::sweep(&mut conn).await.expect("swept");
}

/// What relays, workers and rescuers run all the time.
async fn workers(book: &Book, mut seen: Observer<'_>) {
    let worker = Uuid::now_v7();
    let lane = Uuid::from_u128(0x0180_0000_0000_7000_8000_0000_0000_0007);
    let mine = |n: usize| (0..n).map(|_| enqueue::NewJob { organization_id: ORGANIZATION, ..book.job() });

    let outlook = seen.watch("outlook", async |conn| dispatch::outlook(conn, &["cost", "send"]).await).await;
    assert!(outlook.lanes && outlook.plain && !outlook.due, "{outlook:?}");
    seen.watch("promote", async |conn| dispatch::promote(conn, 500).await).await;
    seen.watch("expire", async |conn| control::expire(conn, 500, &json!({})).await).await;
    let picks = seen.watch("pick_lanes", async |conn| dispatch::pick_lanes(conn, 200, HOUR_MS).await).await;
    assert_eq!(picks.dispatched.len(), 200);
    seen.watch("settle_idle_lanes", async |conn| dispatch::settle_idle_lanes(conn, &[lane]).await).await;
    let plain =
        seen.watch("pick_plain", async |conn| dispatch::pick_plain(conn, "cost", 500, HOUR_MS).await).await;
    assert_eq!(plain.len(), 500);

    let deliveries: Vec<_> = plain.iter().map(|one| (one.job_id, one.attempt)).collect();
    let claimed =
        seen.watch("claim", async |conn| claim::claim(conn, &deliveries, worker, 15_000).await).await;
    assert_eq!(claimed.len(), 500);
    let jobs: Vec<Uuid> = claimed.iter().map(|one| one.job_id).collect();
    seen.watch("keep", async |conn| claim::keep(conn, &jobs, worker, 15_000).await).await;
    seen.watch("held", async |conn| rescue::held(conn, jobs[0], worker).await).await;
    let ends: Vec<_> = claimed.iter().map(|one| end_of(one, worker)).collect();
    let ended = seen.watch("finish", async |conn| finish::finish(conn, &ends).await).await;
    assert_eq!(ended.len(), 500);

    let mut new: Vec<_> = mine(50).collect();
    for (n, job) in new.iter_mut().enumerate() {
        job.lane_id = (n % 2 == 0).then_some(lane);
        job.unique_key = Some(format!("u{}", job.id));
    }
    seen.watch("enqueue", async |conn| enqueue::enqueue(conn, &new).await).await;

    let signs = seen.watch("rescue: signs", async |conn| rescue::signs(conn, 2500).await).await;
    assert!(!signs.expired && !signs.silent, "{signs:?}");
    seen.watch("rescue: undelivered", async |conn| rescue::undelivered(conn, 500, &["cost"], 3000).await)
        .await;
    seen.watch("rescue: expired", async |conn| rescue::expired(conn, 500).await).await;
    let limits =
        sends::Limits { per_minute: 10, per_day: 500, recipients_per_minute: 15, token_per_hour: 1000 };
    seen.watch("windows", async |conn| sends::windows(conn, lane, "install", "wxid_1", &limits).await).await;
    let send = sends::NewSend {
        id: Uuid::now_v7(),
        organization_id: ORGANIZATION,
        account_id: lane,
        token_key: "install",
        job_id: jobs[0],
        attempt: 1,
        to_wxid: "wxid_1",
        message_kind: "text",
        message: None,
    };
    seen.watch("send: begin", async |conn| sends::begin(conn, &send).await).await;
    seen.watch("send: gate", async |conn| sends::lock_gate(conn, jobs[0], 1, worker).await).await;
    seen.watch("pause a lane", async |conn| lanes::pause(conn, ORGANIZATION, lane, "test").await).await;
    seen.watch("resume a lane", async |conn| lanes::resume(conn, ORGANIZATION, lane).await).await;
    let cancelled = seen
        .watch("cancel", async |conn| {
            conn.transaction(async |conn| control::cancel(conn, ORGANIZATION, new[1].id, &json!({})).await)
                .await
        })
        .await;
    assert_eq!(cancelled, Some(control::Cancelled::Now));
    // A night in which nothing is old enough to be pruned.
    let pruned = seen
        .watch("prune jobs", async |conn| retention::prune_jobs(conn, Uuid::nil(), 3650, 3650, 500).await)
        .await;
    assert_eq!(pruned.removed, 0);
    let removed = seen.watch("prune sends", async |conn| retention::prune_sends(conn, 3650, 500).await).await;
    assert_eq!(removed, 0);
    // The net under lost marks, over ten thousand lanes in which something waits.
    assert_eq!(seen.watch("sweep", async |conn| lanes::sweep(conn).await).await, 0);
    seen.assert_good();
}

/// What people look at. Here the planner chooses, with statistics that know nothing of the backlog.
async fn lists(book: &Book) {
    let mut seen = Observer::new(book, Profile::Api);
    let lane = Uuid::from_u128(0x0180_0000_0000_7000_8000_0000_0000_0007);
    let by_state = [
        State::Scheduled,
        State::Available,
        State::Running,
        State::Retryable,
        State::Completed,
        State::Cancelled,
        State::Dead,
    ];
    let all = views::jobs::Filter::default;
    let mut filters = vec![
        ("all jobs", all()),
        ("jobs by kind", views::jobs::Filter { kind: Some("cost_tally".into()), ..all() }),
        ("jobs by lane", views::jobs::Filter { lane_id: Some(lane), ..all() }),
        ("jobs by account", views::jobs::Filter { account_id: Some(lane), ..all() }),
        ("jobs of an hour", views::jobs::Filter { created_to: Some(Utc::now()), ..all() }),
    ];
    filters
        .extend(by_state.map(|state| ("jobs by state", views::jobs::Filter { state: Some(state), ..all() })));
    for (what, filter) in &filters {
        // Completed jobs are the mass and have no index of their own: a list of them skips the live ones, which are
        // newer. What that costs is bounded by the backlog, never by the history.
        let completed = filter.state == Some(State::Completed);
        seen.most_thrown_away = if completed { BACKLOG } else { MOST_THROWN_AWAY };
        let what = format!("{what} ({:?})", filter.state);
        let page = seen
            .watch(&what, async |conn| views::jobs::list(conn, ORGANIZATION, filter, None, 51).await)
            .await;
        let before = page.last().map(|job| job.id);
        let next = format!("{what}, next page");
        seen.watch(&next, async |conn| views::jobs::list(conn, ORGANIZATION, filter, before, 51).await).await;
    }
    seen.most_thrown_away = MOST_THROWN_AWAY;
    let dead = views::jobs::Filter { state: Some(State::Dead), ..all() };
    seen.watch("count of the dead", async |conn| {
        views::jobs::count(conn, ORGANIZATION, &dead, false, None, 1000).await
    })
    .await;
    let waiting = Uuid::from_u128(0x0195_0000_0000_7000_8000_0000_0000_0011);
    seen.watch("why", async |conn| views::waiting::facts(conn, ORGANIZATION, waiting).await).await;
    for part in [views::sends::Part::Open, views::sends::Part::Rest] {
        let filter = views::sends::Filter::default();
        let what = format!("sends {part:?}");
        seen.watch(&what, async |conn| views::sends::list(conn, ORGANIZATION, part, &filter, None, 51).await)
            .await;
        let filter = views::sends::Filter { account_id: Some(lane), ..filter };
        let what = format!("sends {part:?} of an account");
        seen.watch(&what, async |conn| views::sends::list(conn, ORGANIZATION, part, &filter, None, 51).await)
            .await;
    }
    seen.watch("lanes", async |conn| views::lanes::list(conn, ORGANIZATION, None, None, 51).await).await;
    seen.watch("attempts of a job", async |conn| entropy_schema::jobs::attempts(conn, waiting).await).await;
    seen.assert_good();
}
