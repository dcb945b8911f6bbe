//! A rolling upgrade: the schema is migrated under load, while processes of the old version and of the new one work side
//! by side, and nobody who sends messages notices.
//!
//! `./dev test` has no old binary. There the old processes are of this build too, on the schema as it was first
//! released, and they are told that nothing is missing. `./dev chaos upgrade --from REF` builds an old one and names it in
//! `ENTROPY_OLD_BINARY`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use diesel_migrations::FileBasedMigrations;
use entropy_schema::migrations;
use nix::sys::signal::Signal;
use reqwest::Method;

use crate::harness::load::{self, Load, Shape};
use crate::harness::process::{ENTROPY, Process};
use crate::harness::servers::Database;
use crate::harness::{Client, Platform, book, chaos, eventually, secs, turn};
use crate::migrations::refused;

/// The newest migration of the schema that the old processes know.
const OLD: &str = "2026-11-22-000001";

/// The newest migration that this very build cannot do without, where it stands in for the old one.
const NEEDED: &str = "2026-11-23-000025";

/// What a later release may do to tables in use, each as a migration of its own: its name, its SQL, and whether it runs
/// in a transaction. The linter of `migrations.rs` lets all of it pass.
///
/// New columns are named as badly as can be: like something that the hot statements handle beside the table.
const EXPANSIONS: [(&str, &str, bool); 17] = [
    (
        "jobs_column",
        "ALTER TABLE jobs ADD COLUMN outcome text; ALTER TABLE jobs ADD COLUMN source text NOT NULL DEFAULT 'api'",
        true,
    ),
    (
        "pending_column",
        "ALTER TABLE pending ADD COLUMN final_state text; ALTER TABLE pending ADD COLUMN weight smallint DEFAULT 0",
        true,
    ),
    (
        "leases_column",
        "ALTER TABLE leases ADD COLUMN outcome text, ADD COLUMN result jsonb, ADD COLUMN wait_code text; \
         ALTER TABLE leases ADD COLUMN final_state text DEFAULT 'no'",
        true,
    ),
    ("lanes_column", "ALTER TABLE lanes ADD COLUMN weight smallint NOT NULL DEFAULT 1", true),
    ("attempts_column", "ALTER TABLE attempts ADD COLUMN host text", true),
    ("sends_column", "ALTER TABLE sends ADD COLUMN channel text NOT NULL DEFAULT 'gewe'", true),
    ("idempotency_keys_column", "ALTER TABLE idempotency_keys ADD COLUMN last_used_at timestamptz", true),
    ("unique_keys_column", "ALTER TABLE unique_keys ADD COLUMN created_at timestamptz DEFAULT now()", true),
    ("job_endings_column", "ALTER TABLE job_endings ADD COLUMN reason text", true),
    ("workers_column", "ALTER TABLE workers ADD COLUMN zone text", true),
    ("accounts_column", "ALTER TABLE wechat_accounts ADD COLUMN remark text NOT NULL DEFAULT ''", true),
    ("users_column", "ALTER TABLE users ADD COLUMN language text NOT NULL DEFAULT 'zh'", true),
    (
        "new_table",
        "CREATE TABLE labels (id uuid PRIMARY KEY, job_id uuid NOT NULL, name text NOT NULL)",
        true,
    ),
    ("jobs_index", "CREATE INDEX CONCURRENTLY IF NOT EXISTS jobs_trace_idx ON jobs (trace_id)", false),
    (
        "sends_index",
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS sends_to_idx ON sends (organization_id, to_wxid, id)",
        false,
    ),
    ("check", "ALTER TABLE jobs ADD CONSTRAINT jobs_source_check CHECK (source <> '') NOT VALID", true),
    ("check_valid", "ALTER TABLE jobs VALIDATE CONSTRAINT jobs_source_check", true),
];

/// An old program, if there is one.
fn old_binary() -> Option<PathBuf> {
    std::env::var_os("ENTROPY_OLD_BINARY").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// A directory of migrations that ends with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let path = std::env::temp_dir().join(format!("entropy-it-migrations-{:016x}", fastrand::u64(..)));
        std::fs::create_dir(&path).expect("a directory");
        Folder(path)
    }

    /// The repository's migrations up to `version`.
    fn released(version: &str) -> Folder {
        let folder = Folder::new();
        for entry in std::fs::read_dir(repository().join("migrations")).expect("the migrations").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let known = name.get(..version.len()).is_some_and(|prefix| prefix <= version);
            if entry.path().is_dir() && known {
                folder.write(&name, |file| std::fs::read_to_string(entry.path().join(file)).ok());
            }
        }
        folder
    }

    fn write(&self, name: &str, content: impl Fn(&str) -> Option<String>) {
        let path = self.0.join(name);
        std::fs::create_dir(&path).expect("a directory");
        for file in ["up.sql", "down.sql", "metadata.toml"] {
            if let Some(text) = content(file) {
                std::fs::write(path.join(file), text).expect("a file");
            }
        }
    }

    /// Adds a migration as it would be written for a release.
    fn add(&self, number: usize, name: &str, sql: &str, in_transaction: bool) {
        let locks = sql.contains("ALTER TABLE");
        let up = if locks { format!("SET LOCAL lock_timeout = '3s';\n{sql};") } else { format!("{sql};") };
        assert_eq!(refused(&up, in_transaction), [""; 0], "{up}");
        self.write(&format!("2099-01-01-{number:06}_{name}"), |file| match file {
            "up.sql" => Some(up.clone()),
            "down.sql" => Some("SELECT 1;".into()),
            _ => (!in_transaction).then(|| "run_in_transaction = false\n".into()),
        });
    }

    async fn run(&self, url: &str) -> anyhow::Result<Vec<String>> {
        migrations::run(url, || FileBasedMigrations::from_path(&self.0).expect("migrations")).await
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A database as an old version left it.
async fn old_database(version: &str) -> Database {
    let database = Database::empty().await;
    let applied = Folder::released(version).run(database.url()).await.expect("the old schema");
    assert!(!applied.is_empty(), "no migration up to {version}");
    database
}

/// Runs `entropy migrate` and returns what it says.
async fn migrate(url: &str) -> (bool, String) {
    let url = url.to_owned();
    let run = move || {
        std::process::Command::new(ENTROPY).arg("migrate").env_clear().env("DATABASE_URL", url).output()
    };
    let output = tokio::task::spawn_blocking(run).await.expect("no panic").expect("migrate runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Lets processes of this build believe that the database has all migrations, or not.
async fn pretend(platform: &Platform, known: &str, on: bool) {
    let mut conn = platform.db.conn().await.expect("a connection");
    let missing = migrations::missing(&mut conn).await.expect("an answer");
    let statement = if on {
        let version =
            |name: &String| format!("('{}')", name.split_once('_').expect("a name").0.replace('-', ""));
        let versions: Vec<String> = missing.iter().map(version).collect();
        assert!(!versions.is_empty(), "this version has migrations that the old one has not");
        format!("INSERT INTO __diesel_schema_migrations (version) VALUES {}", versions.join(", "))
    } else {
        format!("DELETE FROM __diesel_schema_migrations WHERE version > '{}'", known.replace('-', ""))
    };
    conn.batch_execute(&statement).await.expect("pretended");
}

/// Reads everything that a person may look at, until the flag is set; every page must be there.
async fn look_around(client: &Client, bases: &[String], over: &std::sync::atomic::AtomicBool) -> usize {
    let pages = [
        "/jobs",
        "/jobs?state=available",
        "/jobs?state=scheduled",
        "/jobs?state=retryable",
        "/jobs?state=completed",
        "/sends",
        "/queues",
        "/lanes",
        "/wechat-accounts",
        "/users",
        "/workers",
    ];
    let mut seen = 0;
    while !over.load(std::sync::atomic::Ordering::Relaxed) {
        for base in bases {
            let client = client.at(base);
            for page in pages {
                // An API that is being replaced does not answer; one that answers must be right.
                let Ok(reply) = client.try_send(client.request(Method::GET, page)).await else { continue };
                if reply.status != 404 {
                    assert_eq!(reply.status, 200, "{page}: {}", reply.text);
                    seen += 1;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    seen
}

/// Stops a process as an operator does.
async fn stop(mut process: Process) {
    process.signal(Signal::SIGTERM);
    let status = process.ended(secs(40)).await;
    assert!(status.success(), "{} ended with {status}:\n{}", process.name(), process.tail(20));
}

/// Lines of the logs that tell of a fault.
fn faults(platform: &Platform) -> Vec<String> {
    let words = ["\"level\":\"ERROR\"", "cached plan", "is ambiguous", "does not exist", "panicked"];
    let bad = |line: &&str| words.iter().any(|word| line.contains(word));
    let logs = platform.logs();
    logs.iter()
        .flat_map(|(name, log)| log.lines().filter(bad).map(move |line| format!("{name}: {line}")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_migrated_under_load_while_old_and_new_processes_work_side_by_side() {
    let seconds = chaos::seconds(20);
    let old = old_binary();
    let program = old.clone().unwrap_or_else(|| ENTROPY.into());
    let known = if old.is_some() { OLD } else { NEEDED };
    let shape = Shape {
        accounts: 4,
        conversations: 5,
        messages: usize::try_from(seconds * 4).expect("a number"),
        per_minute: 600,
        min_gap_ms: 40,
        pause: Duration::from_millis(350),
    };
    let mut platform = Platform::with().api(0).workers(0).on(old_database(known).await).start().await;
    pretend(&platform, known, true).await;
    for _ in 0..2 {
        platform.start_other_api(&program, &[]);
        let worker = platform.other_process("old-worker", &program, &["worker"], &[]);
        platform.workers.push(worker);
    }
    let scheduler = platform.other_process("old-scheduler", &program, &["scheduler"], &[]);
    platform.schedulers.push(scheduler);
    platform.ready().await;

    let mut load = Load::prepare(&platform, shape).await;
    let onlooker = load.client().clone();
    let bases = [platform.base(0).to_owned(), platform.base(1).to_owned()];
    let over = std::sync::atomic::AtomicBool::new(false);
    let total = load.total();
    let mut figures = String::new();
    let upgrading = async {
        load::received(&platform, total / 8, secs(90 + seconds)).await;
        pretend(&platform, known, false).await;
        let began = Instant::now();
        let (good, said) = migrate(platform.database.url()).await;
        assert!(good && said.contains("applied"), "{said}");
        let migrated = began.elapsed();
        let began = Instant::now();
        let expansions = Folder::new();
        for (number, (name, sql, in_transaction)) in EXPANSIONS.iter().enumerate() {
            expansions.add(number, name, sql, *in_transaction);
        }
        // A real old binary has not seen the statements that bad names would confuse; it gets what a release brings.
        if old.is_none() {
            let applied = expansions.run(platform.database.url()).await.expect("expanded");
            assert_eq!(applied.len(), EXPANSIONS.len());
        }
        let expanded = began.elapsed();

        // Old and new, side by side, and an old one that was started after the migration.
        for _ in 0..2 {
            platform.start_worker();
        }
        let again = platform.other_process("old-worker-again", &program, &["worker"], &[]);
        stop(std::mem::replace(&mut platform.workers[0], again)).await;
        platform.start_scheduler();
        platform.ready().await;
        load::received(&platform, total / 2, secs(90 + seconds)).await;

        for _ in 0..2 {
            stop(platform.workers.remove(0)).await;
        }
        stop(platform.schedulers.remove(0)).await;
        for n in 0..2 {
            platform.apis[n].signal(Signal::SIGTERM);
            platform.apis[n].ended(secs(20)).await;
            platform.restart_api(n);
            platform.ready().await;
        }
        figures = format!(
            "{total} messages; migrate {migrated:.2?}, {} expansions {expanded:.2?}",
            EXPANSIONS.len()
        );
    };
    let looking = look_around(&onlooker, &bases, &over);
    let working = async {
        futures::join!(load.enqueue(), upgrading);
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (seen, ()) = futures::join!(looking, working);
    platform.idle(secs(60)).await;

    assert_eq!(load.assert_kept(&platform).await, 0, "unknown outcomes");
    assert_eq!(
        platform.number("SELECT count(*) AS n FROM attempts WHERE outcome = 'lost'").await,
        0,
        "lost leases"
    );
    assert_eq!(faults(&platform), [""; 0]);
    assert!(seen > 50, "{seen} pages were read");
    chaos::report(&format!("rolling upgrade: {figures}; {seen} pages read; 0 lost, 0 repeated, 0 unknown"));
}

/// What the program says and does before its migrations are there.
#[tokio::test(flavor = "multi_thread")]
async fn new_processes_wait_for_their_migrations_and_say_so() {
    let mut platform = Platform::with().api(0).workers(0).on(old_database(OLD).await).start().await;
    platform.start_api();
    platform.start_worker();
    platform.start_scheduler();
    let client = platform.anonymous();
    let ready = eventually("the API says what is missing", secs(30), async || {
        platform.apis[0].assert_lives();
        let reply = client.try_send(client.bare(Method::GET, "/readyz")).await;
        reply.ok().filter(|reply| reply.status == 503)
    })
    .await;
    assert_eq!(ready.body["status"], "behind");
    assert_eq!(ready.body["postgres"], "ok");
    assert!(
        ready.body["missing_migrations"][0]
            .as_str()
            .is_some_and(|name| name.starts_with("2026-11-22-000002"))
    );
    for process in [&mut platform.workers[0], &mut platform.schedulers[0]] {
        eventually("it says that it waits", secs(30), async || {
            process.assert_lives();
            process.log().contains("run `entropy migrate` of the same version")
        })
        .await;
    }
    assert_eq!(platform.number("SELECT count(*) AS n FROM workers").await, 0, "the worker takes nothing yet");
    // Told to stop while it waits, it stops at once.
    let waiting = platform.other_process("impatient", Path::new(ENTROPY), &["worker"], &[]);
    eventually("it waits", secs(30), async || waiting.log().contains("entropy migrate")).await;
    let began = Instant::now();
    stop(waiting).await;
    assert!(began.elapsed() < secs(5), "{:?}", began.elapsed());

    let (good, said) = migrate(platform.database.url()).await;
    assert!(good, "{said}");
    platform.ready().await;
    eventually("the scheduler has started", secs(30), async || {
        platform.schedulers[0].log().contains("schedule started")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_finds_its_table_in_use_gives_way_and_tries_again() {
    let _turn = turn::shared().await;
    let database = old_database(OLD).await;
    let folder = Folder::new();
    folder.write("2099-01-01-000001_column", |file| match file {
        "up.sql" => Some("SET LOCAL lock_timeout = '300ms'; ALTER TABLE jobs ADD COLUMN a int;".into()),
        "down.sql" => Some("SELECT 1;".into()),
        _ => None,
    });
    let mut reader = AsyncPgConnection::establish(database.url()).await.expect("a connection");
    reader.batch_execute("BEGIN; SELECT FROM jobs LIMIT 1").await.expect("a transaction that stays open");
    let url = database.url().to_owned();
    let run = tokio::spawn(async move { folder.run(&url).await });

    // Writers that come behind the migration wait no longer than it does.
    let mut writer = AsyncPgConnection::establish(database.url()).await.expect("a connection");
    let mut longest = Duration::ZERO;
    let began = Instant::now();
    while began.elapsed() < secs(2) {
        let asked = Instant::now();
        writer.batch_execute("DELETE FROM jobs WHERE false").await.expect("written");
        longest = longest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!run.is_finished(), "the reader is still there");
    assert!(longest > Duration::from_millis(50), "the migration never waited: {longest:?}");
    assert!(longest < secs(2), "a writer waited {longest:?}");
    reader.batch_execute("COMMIT").await.expect("committed");
    let applied = run.await.expect("no panic").expect("migrated in the end");
    assert_eq!(applied.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_killed_while_it_built_an_index_is_simply_run_again() {
    let _turn = turn::shared().await;
    let database = old_database(OLD).await;
    let db = entropy_schema::Db::new(database.url(), 2, entropy_schema::Profile::Api).expect("a pool");
    let invalid = "SELECT count(*) AS n FROM pg_index WHERE NOT indisvalid";
    // An index is valid once nobody is left who may have missed it: one such transaction stays open.
    let mut reader = AsyncPgConnection::establish(database.url()).await.expect("a connection");
    reader
        .batch_execute(
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM pending LIMIT 1; DELETE FROM pending",
        )
        .await
        .expect("a transaction that stays open");
    let dir = Folder::new();
    let env = [("DATABASE_URL".to_owned(), database.url().to_owned())];
    let mut run = Process::start("migrate", &["migrate"], &env, &dir.0);
    eventually("an index is half built", secs(30), async || {
        run.assert_lives();
        book::number(&db, invalid).await == 1
    })
    .await;
    run.kill();
    let end = "SELECT count(pg_terminate_backend(pid)) AS n FROM pg_stat_activity \
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%CREATE INDEX CONCURRENTLY%'";
    book::number(&db, end).await;
    reader.batch_execute("ROLLBACK").await.expect("rolled back");
    assert_eq!(book::number(&db, invalid).await, 1, "what was left behind");

    let (good, said) = migrate(database.url()).await;
    assert!(good, "{said}");
    assert_eq!(book::number(&db, invalid).await, 0);
    let made = "SELECT count(*) AS n FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
        WHERE c.relname IN ('pending_available_idx', 'pending_scheduled_idx', 'pending_retryable_idx') AND i.indisvalid";
    assert_eq!(book::number(&db, made).await, 3);
}

#[test]
fn no_statement_reads_columns_that_it_does_not_name() {
    let mut files = vec![repository().join("schema/src")];
    let mut read = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).expect("a directory").flatten().map(|entry| entry.path()));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let source = std::fs::read_to_string(&path).expect("a source file");
            for (n, line) in source.lines().enumerate() {
                assert!(!takes_all_columns(line), "{}:{}: {line}", path.display(), n + 1);
            }
            read += 1;
        }
    }
    assert!(read > 20, "{read} files");
    for bad in ["RETURNING leases.*, x", "SELECT * FROM jobs", "(SELECT j.* FROM jobs j)", "RETURNING *"] {
        assert!(takes_all_columns(bad), "{bad}");
    }
}

/// `unnest` and the parts of a statement are ours: their columns are those that the statement gave them.
fn takes_all_columns(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let words: Vec<&str> = code.split_whitespace().collect();
    let all = |word: &str| {
        word.trim_end_matches(',').strip_suffix(".*").is_some_and(|table| {
            table.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !table.is_empty()
        })
    };
    let ours = ["unnest(", "input", "accepted", "gone"];
    let star = words.windows(2).enumerate().any(|(n, pair)| {
        pair == ["SELECT", "*"]
            && words.get(n + 3).is_none_or(|from| ours.iter().all(|own| !from.starts_with(own)))
            || pair == ["RETURNING", "*"]
    });
    star || words.iter().any(|word| all(word.trim_start_matches('(')))
}
