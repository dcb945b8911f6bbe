//! Tests of the private servers, against real ones.
//!
//! Included by `tests/it`, where the module `servers` is a neighbour.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::servers::{Afterwards, Durability, Home, Options, Postgres, Redis, free_port};

/// Nothing is synced, but the data stays.
const FAST: Options = Options { durability: Durability::TestFast, afterwards: Afterwards::Keep };

/// Set for the process that `servers_end_with_a_killed_parent` starts and kills.
const VICTIM: &str = "ENTROPY_TEST_SERVERS_DIR";

/// A directory that is removed with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let name = format!("entropy-servers-{:016x}", fastrand::u64(..));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Sends inline commands to Redis and returns the last line of the answer.
fn ask(redis: &Redis, command: &str) -> String {
    let url = redis.url();
    let (password, _) = url.strip_prefix("redis://:").unwrap().split_once('@').unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).unwrap();
    write!(stream, "AUTH {password}\r\n{command}\r\nQUIT\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().rev().nth(1).unwrap().to_owned()
}

/// Whether a process exists and is more than an entry that nobody has collected.
fn lives(pid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'),
        Err(_) if Path::new("/proc/self").exists() => false,
        Err(_) => kill(Pid::from_raw(pid.try_into().unwrap()), None).is_ok(),
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn redis_keeps_its_data_over_stop_kill_and_the_next_start() {
    let scratch = Scratch::new();
    let redis = Redis::start(&scratch.join("redis"), FAST).unwrap();
    let url = redis.url();
    ask(&redis, "SET a 1");
    redis.stop().unwrap();
    assert_eq!(redis.pid(), None);
    redis.restart().unwrap();
    ask(&redis, "SET b 2");
    redis.kill().unwrap();
    redis.restart().unwrap();
    assert_eq!(redis.url(), url);
    assert_eq!((ask(&redis, "GET a"), ask(&redis, "GET b")), ("1".into(), "2".into()));
    assert_eq!(ask(&redis, "CONFIG GET maxmemory-policy"), "noeviction");
    drop(redis);

    let redis = Redis::start(&scratch.join("redis"), FAST).unwrap();
    assert_eq!(ask(&redis, "GET b"), "2");
}

#[test]
fn redis_starts_empty_when_its_file_was_lost() {
    let scratch = Scratch::new();
    let redis = Redis::start(&scratch.join("redis"), FAST).unwrap();
    ask(&redis, "SET a 1");
    assert!(redis.forget().is_err(), "it runs");
    redis.kill().unwrap();
    redis.forget().unwrap();
    redis.restart().unwrap();
    assert_eq!(ask(&redis, "EXISTS a"), ":0");
}

#[test]
fn a_killed_postgres_recovers_on_the_same_port() {
    let scratch = Scratch::new();
    let postgres = Postgres::start(&scratch.join("postgres"), FAST).unwrap();
    let (url, pid) = (postgres.url(), postgres.pid().unwrap());
    postgres.kill().unwrap();
    assert!(!lives(pid));
    postgres.restart().unwrap();
    assert_eq!(postgres.url(), url);
    let log = fs::read_to_string(postgres.log()).unwrap();
    assert!(log.contains("database system was not properly shut down"), "{log}");
}

#[test]
fn a_server_that_crashed_by_itself_can_be_restarted() {
    let scratch = Scratch::new();
    let redis = Redis::start(&scratch.join("redis"), FAST).unwrap();
    kill(Pid::from_raw(redis.pid().unwrap().try_into().unwrap()), Signal::SIGKILL).unwrap();
    wait_until("the crash is noticed", || redis.pid().is_none());
    redis.restart().unwrap();
    assert_eq!(ask(&redis, "PING"), "+PONG");
}

#[test]
fn a_suspended_server_can_be_stopped() {
    let scratch = Scratch::new();
    let postgres = Postgres::start(&scratch.join("postgres"), FAST).unwrap();
    let pid = postgres.pid().unwrap();
    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGSTOP).unwrap();
    postgres.stop().unwrap();
    assert!(!lives(pid));
}

#[test]
fn a_test_server_leaves_nothing_behind() {
    let scratch = Scratch::new();
    let postgres = Postgres::start(&scratch.join("postgres"), Options::test()).unwrap();
    let redis = Redis::start(&scratch.join("redis"), Options::test()).unwrap();
    let pids = [postgres.pid().unwrap(), redis.pid().unwrap()];
    drop((postgres, redis));
    assert_eq!(pids.map(lives), [false, false]);
    assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 0);
}

#[test]
fn a_directory_with_something_in_it_is_never_removed() {
    let scratch = Scratch::new();
    fs::write(scratch.join("precious"), "").unwrap();
    let error = Redis::start(&scratch.0, Options::test()).unwrap_err();
    assert!(format!("{error:#}").contains("is not empty"), "{error:#}");
    assert!(scratch.join("precious").exists());
}

#[test]
fn servers_end_with_a_killed_parent() {
    if let Ok(dir) = std::env::var(VICTIM) {
        let dir = Path::new(&dir);
        let postgres = Postgres::start(&dir.join("postgres"), Options::test()).unwrap();
        let redis = Redis::start(&dir.join("redis"), Options::test()).unwrap();
        println!("\npids {} {}", postgres.pid().unwrap(), redis.pid().unwrap());
        loop {
            thread::park();
        }
    }
    let scratch = Scratch::new();
    let (_, module) = module_path!().split_once("::").unwrap();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::servers_end_with_a_killed_parent"), "--nocapture"])
        .env(VICTIM, &scratch.0)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.starts_with("pids ")).unwrap();
    let pids: Vec<u32> = line.split(' ').skip(1).map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.iter().all(|&pid| lives(pid)));

    parent.kill().unwrap();
    parent.wait().unwrap();
    wait_until("both servers have ended", || !pids.iter().any(|&pid| lives(pid)));
    wait_until("their directories are gone", || fs::read_dir(&scratch.0).unwrap().count() == 0);
}

#[test]
fn the_next_server_waits_until_the_last_has_left_the_directory() {
    let scratch = Scratch::new();
    let dir = scratch.join("redis");
    let first = Redis::start(&dir, FAST).unwrap();
    let second = thread::spawn(move || Redis::start(&dir, FAST).unwrap());
    thread::sleep(Duration::from_millis(300));
    assert!(!second.is_finished());
    ask(&first, "SET late 1");
    drop(first);
    assert_eq!(ask(&second.join().unwrap(), "GET late"), "1");
}

#[test]
fn a_pid_file_left_over_from_before_a_reboot_is_no_obstacle() {
    let scratch = Scratch::new();
    let dir = scratch.join("postgres");
    drop(Postgres::start(&dir, FAST).unwrap());
    // As if our own number had been that of a Postgres in an earlier life of the machine.
    fs::write(dir.join("data/postmaster.pid"), format!("{}\n", std::process::id())).unwrap();
    Postgres::start(&dir, FAST).unwrap();
}

#[test]
fn a_failed_start_shows_the_end_of_the_log() {
    let scratch = Scratch::new();
    let dir = scratch.join("postgres");
    drop(Postgres::start(&dir, FAST).unwrap());
    fs::write(dir.join("data/PG_VERSION"), "7\n").unwrap();
    let error = format!("{:#}", Postgres::start(&dir, FAST).unwrap_err());
    assert!(error.contains("postgres.log"), "{error}");
    assert!(error.contains("database files are incompatible with server"), "{error}");
}

#[test]
fn two_of_us_in_one_folder_get_a_home_each() {
    let scratch = Scratch::new();
    let first = Home::claim(&scratch.0).unwrap();
    let second = Home::claim(&scratch.0).unwrap();
    assert_eq!(first.dir(), scratch.join(".entropy"));
    assert_eq!(second.dir(), scratch.join(".entropy/2"));
    drop(first);
    assert_eq!(Home::claim(&scratch.0).unwrap().dir(), scratch.join(".entropy"));
}

#[test]
fn a_free_port_can_be_listened_on() {
    TcpListener::bind(("127.0.0.1", free_port())).unwrap();
}
