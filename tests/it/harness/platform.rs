//! The whole platform as processes: a sandbox, and as many APIs, workers and schedulers as a test asks for.

use std::path::PathBuf;
use std::time::Duration;

use entropy_schema::{Db, Profile};
use reqwest::Method;
use uuid::Uuid;

use super::process::Process;
use super::servers::{Database, RedisServer};
use super::turn::{self, Turn};
use super::{Client, Sandbox, book, eventually, invariants, secs};
use crate::servers::free_port;

/// How long a process may take until it is ready, on a machine that compiles beside it.
const PATIENCE: Duration = secs(30);

/// The install's GeWe token in tests.
pub(crate) const GEWE_TOKEN: &str = "gewe-token-of-the-tests";

/// The end of the address of callbacks in tests.
pub(crate) const CALLBACK_SECRET: &str = "callback-secret-of-the-tests";

/// The key that signs logins in tests.
pub(crate) const JWT_SECRET: &str = "a-jwt-secret-for-tests-of-40-characters!";

/// What to start.
#[derive(Debug)]
pub(crate) struct Builder {
    apis: usize,
    workers: usize,
    schedulers: usize,
    alone: bool,
    turn: Option<Turn>,
    own_redis: bool,
    own_postgres: bool,
    database: Option<Database>,
    env: Vec<(String, String)>,
}

impl Builder {
    /// So many processes of the API; 1 by default.
    pub(crate) fn api(mut self, n: usize) -> Builder {
        self.apis = n;
        self
    }

    /// So many workers; 1 by default.
    pub(crate) fn workers(mut self, n: usize) -> Builder {
        self.workers = n;
        self
    }

    /// So many schedulers; none by default.
    pub(crate) fn schedulers(mut self, n: usize) -> Builder {
        self.schedulers = n;
        self
    }

    /// Keeps other tests away while this one runs: for tests that measure or load the machine.
    pub(crate) fn alone(mut self) -> Builder {
        self.alone = true;
        self
    }

    /// Takes over the place of another platform of the same test, instead of one of its own.
    pub(crate) fn in_the_place_of(mut self, other: &mut Platform) -> Builder {
        self.turn = other.turn.take();
        self
    }

    /// A Redis for this test alone, which it may kill, freeze and flush.
    pub(crate) fn own_redis(mut self) -> Builder {
        self.own_redis = true;
        self
    }

    /// A Postgres for this test alone, which it may kill.
    pub(crate) fn own_postgres(mut self) -> Builder {
        self.own_postgres = true;
        self
    }

    /// A database that the test has made, instead of one that is up to date.
    pub(crate) fn on(mut self, database: Database) -> Builder {
        self.database = Some(database);
        self
    }

    /// A variable for all processes, instead of the default.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Builder {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Starts it and returns when everything is ready.
    pub(crate) async fn start(self) -> Platform {
        let turn = match self.turn {
            Some(turn) => turn,
            None if self.alone => turn::alone().await,
            None => turn::shared().await,
        };
        let redis = if self.own_redis { RedisServer::own().await } else { RedisServer::shared().await };
        let database = match self.database {
            Some(database) => database,
            None if self.own_postgres => Database::on_own_server().await,
            None => Database::create().await,
        };
        let db = Db::new(database.url(), 4, Profile::Api).expect("a pool");
        let dir = std::env::temp_dir().join(format!("entropy-it-logs-{:016x}", fastrand::u64(..)));
        std::fs::create_dir(&dir).expect("a directory for logs");
        let namespace = format!("it{:016x}", fastrand::u64(..));
        let mut env: Vec<(String, String)> = [
            ("DATABASE_URL", database.url()),
            ("DATABASE_POOL_SIZE", "8"),
            ("REDIS_URL", &redis.url()),
            ("REDIS_NAMESPACE", &namespace),
            ("JWT_SECRET_KEY", JWT_SECRET),
            ("GEWE_TOKEN_ID", GEWE_TOKEN),
            ("GEWE_CALLBACK_SECRET", CALLBACK_SECRET),
            ("MAX_MESSAGES_PER_MINUTE", "600"),
            ("MAX_API_CALLS_PER_HOUR", "100000"),
            ("BACKGROUND_GAP_MS", "20"),
            ("UPLOAD_PATH", &dir.join("uploads").to_string_lossy()),
            ("RUST_LOG", "info"),
            ("LOG_FORMAT", "json"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        env.retain(|(name, _)| self.env.iter().all(|(own, _)| own != name));
        env.extend(self.env);
        let (sandbox, sandbox_base) = start_sandbox(&env, &dir).await;
        if env.iter().all(|(name, _)| name != "FASTGPT_API_ENDPOINT") {
            env.push(("FASTGPT_API_ENDPOINT".into(), format!("{sandbox_base}/fastgpt/api")));
        }
        if env.iter().all(|(name, _)| name != "GEWE_API_ENDPOINT") {
            env.push(("GEWE_API_ENDPOINT".into(), format!("{sandbox_base}/gewe/v2/api")));
        }
        let mut platform = Platform {
            apis: Vec::new(),
            workers: Vec::new(),
            schedulers: Vec::new(),
            sandbox_process: sandbox,
            sandbox: Sandbox::new(&sandbox_base),
            bases: Vec::new(),
            redis,
            db,
            database,
            namespace,
            env,
            dir,
            started: 0,
            turn: Some(turn),
        };
        for _ in 0..self.apis {
            platform.start_api();
        }
        for _ in 0..self.workers {
            platform.start_worker();
        }
        for _ in 0..self.schedulers {
            platform.start_scheduler();
        }
        platform.ready().await;
        platform
    }
}

/// A running platform with a database and a Redis namespace of its own. Everything ends with the value.
#[derive(Debug)]
pub(crate) struct Platform {
    // In the order in which they are dropped: processes first, the database last.
    /// The processes of the API.
    pub(crate) apis: Vec<Process>,
    /// The workers.
    pub(crate) workers: Vec<Process>,
    /// The schedulers.
    pub(crate) schedulers: Vec<Process>,
    sandbox_process: Process,
    /// The sandbox's switches and its ledger.
    pub(crate) sandbox: Sandbox,
    bases: Vec<String>,
    /// The Redis that carries the deliveries.
    pub(crate) redis: RedisServer,
    /// The record, for looking into it.
    pub(crate) db: Db,
    /// The database behind it.
    pub(crate) database: Database,
    namespace: String,
    env: Vec<(String, String)>,
    dir: PathBuf,
    started: usize,
    turn: Option<Turn>,
}

impl Platform {
    /// Says what to start; by default one API and one worker.
    pub(crate) fn with() -> Builder {
        Builder {
            apis: 1,
            workers: 1,
            schedulers: 0,
            alone: false,
            turn: None,
            own_redis: false,
            own_postgres: false,
            database: None,
            env: Vec::new(),
        }
    }

    /// Starts one API and one worker.
    pub(crate) async fn start() -> Platform {
        Self::with().start().await
    }

    /// Returns the API as nobody.
    pub(crate) fn anonymous(&self) -> Client {
        Client::anonymous(&self.bases[0])
    }

    /// Makes an organisation and returns its first admin, logged in.
    pub(crate) async fn register(&self) -> Client {
        self.anonymous().register().await
    }

    /// Returns the address of the n-th process of the API.
    pub(crate) fn base(&self, n: usize) -> &str {
        &self.bases[n]
    }

    /// Returns what the phone received, in the order of arrival.
    pub(crate) async fn ledger(&self) -> Vec<super::history::Arrival> {
        self.sandbox.ledger().await
    }

    /// Starts one more process of the API. See [`Platform::ready`].
    pub(crate) fn start_api(&mut self) {
        let address = format!("127.0.0.1:{}", free_port());
        self.bases.push(format!("http://{address}"));
        let process = self.process("api", &["api"], &address);
        self.apis.push(process);
    }

    /// Starts one more process of the API, of any program and with more variables than the others have. See
    /// [`Platform::ready`].
    pub(crate) fn start_other_api(&mut self, program: &std::path::Path, env: &[(&str, &str)]) {
        let address = format!("127.0.0.1:{}", free_port());
        self.bases.push(format!("http://{address}"));
        let mut all = vec![("BIND", address.as_str())];
        all.extend(env);
        let process = self.other_process("api", program, &["api"], &all);
        self.apis.push(process);
    }

    /// Starts one more worker. See [`Platform::ready`].
    pub(crate) fn start_worker(&mut self) {
        let process = self.process("worker", &["worker"], "");
        self.workers.push(process);
    }

    /// Starts one more scheduler.
    pub(crate) fn start_scheduler(&mut self) {
        let process = self.process("scheduler", &["scheduler"], "");
        self.schedulers.push(process);
    }

    /// Kills the n-th process of the API as `kill -9` does.
    pub(crate) fn kill_api(&mut self, n: usize) {
        self.apis[n].kill();
    }

    /// Starts the n-th process of the API again, at the same address. See [`Platform::ready`].
    pub(crate) fn restart_api(&mut self, n: usize) {
        self.apis[n].kill();
        let address = self.bases[n].trim_start_matches("http://").to_owned();
        self.apis[n] = self.process("api", &["api"], &address);
    }

    /// Kills the n-th worker as `kill -9` does, and starts another in its place. See [`Platform::ready`].
    pub(crate) fn replace_worker(&mut self, n: usize) {
        self.workers[n].kill();
        self.workers[n] = self.process("worker", &["worker"], "");
    }

    /// Kills the n-th scheduler as `kill -9` does, and starts another in its place.
    pub(crate) fn replace_scheduler(&mut self, n: usize) {
        self.schedulers[n].kill();
        self.schedulers[n] = self.process("scheduler", &["scheduler"], "");
    }

    /// Starts a process in a test's own way: any program, with more variables than the others have.
    ///
    /// Put it among [`Platform::workers`], [`Platform::apis`] or [`Platform::schedulers`], to which it belongs.
    pub(crate) fn other_process(
        &mut self,
        name: &str,
        program: &std::path::Path,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Process {
        self.started += 1;
        let mut all = self.env.clone();
        all.extend(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Process::start_program(program, &format!("{:02}-{name}", self.started), args, &all, &self.dir)
    }

    fn process(&mut self, name: &str, args: &[&str], bind: &str) -> Process {
        self.started += 1;
        let mut env = self.env.clone();
        if !bind.is_empty() {
            env.push(("BIND".into(), bind.into()));
        }
        Process::start(&format!("{:02}-{name}", self.started), args, &env, &self.dir)
    }

    /// Waits until every API answers and every worker has announced itself and listens.
    pub(crate) async fn ready(&mut self) {
        for n in 0..self.apis.len() {
            let client = Client::anonymous(&self.bases[n]);
            eventually("the API is ready", PATIENCE, async || {
                self.apis[n].assert_lives();
                let reply = client.try_send(client.bare(Method::GET, "/readyz")).await;
                reply.map_err(|error| error.to_string()).and_then(|reply| match reply.status {
                    200 => Ok(()),
                    status => Err(format!("{status} {}", reply.text)),
                })
            })
            .await;
        }
        for worker in &mut self.workers {
            let announced = format!(
                "SELECT count(*) AS n FROM workers WHERE pid = {} AND state = 'running'",
                worker.pid()
            );
            eventually("the worker has announced itself", PATIENCE, async || {
                worker.assert_lives();
                book::number(&self.db, &announced).await == 1
            })
            .await;
        }
        let channel = format!("{}:wake", self.namespace);
        let workers = self.workers.len();
        eventually("every worker listens for wake-ups", PATIENCE, async || {
            let (_, listening): (String, usize) = self.redis.command(&["PUBSUB", "NUMSUB", &channel]).await;
            if listening >= workers { Ok(()) } else { Err(format!("{listening} of {workers} listen")) }
        })
        .await;
    }

    /// Returns the number `n` that a statement selects.
    pub(crate) async fn number(&self, statement: &str) -> i64 {
        book::number(&self.db, statement).await
    }

    /// Lets tests that want to be alone go on: from here this one only waits for time to pass.
    pub(crate) fn rest(&mut self) {
        self.turn = None;
    }

    /// Waits until no job waits or runs.
    pub(crate) async fn idle(&self, timeout: Duration) {
        eventually("every job has ended", timeout, async || {
            // One look at both: a job that is taken back between two looks would be in neither. The timetable spreads
            // its questions to accounts over minutes; nobody waits for those.
            let alive = "SELECT (SELECT count(*) FROM leases) + (SELECT count(*) FROM pending p \
                WHERE COALESCE(p.wait_code, '') <> 'scheduled' \
                OR NOT EXISTS (SELECT FROM jobs j WHERE j.id = p.job_id AND j.kind = 'check_online')) AS n";
            match self.number(alive).await {
                0 => Ok(()),
                alive => Err(format!("{alive} wait or are handed out")),
            }
        })
        .await;
    }

    /// Waits until a job has ended and returns it.
    pub(crate) async fn ended(&self, client: &Client, job: Uuid, timeout: Duration) -> serde_json::Value {
        eventually("the job has ended", timeout, async || {
            let job = client.job(job).await;
            match job["state"].as_str() {
                Some("completed" | "cancelled" | "dead") => Ok(job),
                _ => Err(job.to_string()),
            }
        })
        .await
    }

    /// Panics if the record contradicts itself.
    pub(crate) async fn assert_sound(&self) {
        invariants::assert_hold(&self.db).await;
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        self.apis.iter().chain(&self.workers).chain(&self.schedulers).chain([&self.sandbox_process])
    }

    /// Returns the directory of the logs.
    pub(crate) fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// Returns the logs of all processes, also of those that have ended, by name.
    pub(crate) fn logs(&self) -> Vec<(String, String)> {
        let mut logs = Vec::new();
        for entry in std::fs::read_dir(&self.dir).expect("the logs").flatten() {
            let text = String::from_utf8_lossy(&std::fs::read(entry.path()).expect("a log")).into_owned();
            logs.push((entry.file_name().to_string_lossy().into_owned(), text));
        }
        logs.sort();
        logs
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for process in self.processes() {
                eprintln!("--- the end of {}:\n{}\n", process.name(), process.tail(15));
            }
            eprintln!("--- whole logs: {}", self.dir.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

async fn start_sandbox(env: &[(String, String)], dir: &std::path::Path) -> (Process, String) {
    let base = format!("127.0.0.1:{}", free_port());
    let mut env = env.to_vec();
    env.push(("BIND".into(), base.clone()));
    let mut process = Process::start("00-sandbox", &["sandbox"], &env, dir);
    let base = format!("http://{base}");
    let client = Client::anonymous(&base);
    eventually("the sandbox is ready", PATIENCE, async || {
        process.assert_lives();
        client.try_send(client.bare(Method::GET, "/healthz")).await.is_ok_and(|reply| reply.status == 200)
    })
    .await;
    (process, base)
}
