//! The platform's own timetable: over the API, and kept by schedulers that are killed all the time.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use entropy_schedules::entries;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Client, Platform, chaos, eventually, secs};

/// How soon every scheduler knows of a change, on a machine that compiles beside it.
const KNOWN: std::time::Duration = secs(20);

/// Returns the lines by name.
async fn lines(client: &Client) -> BTreeMap<String, Value> {
    let page = client.get("/schedules").await.expect(200);
    let lines = page["items"].as_array().expect("items").clone();
    lines.into_iter().map(|line| (line["name"].as_str().expect("a name").to_owned(), line)).collect()
}

/// Waits until a scheduler has brought its lines, and returns them.
async fn brought(client: &Client) -> BTreeMap<String, Value> {
    let names: BTreeSet<String> = entries().iter().map(|entry| entry.name.to_owned()).collect();
    eventually("the timetable is in the record", KNOWN, async || {
        let lines = lines(client).await;
        if lines.keys().cloned().collect::<BTreeSet<_>>() == names {
            Ok(lines)
        } else {
            Err(format!("{:?}", lines.keys()))
        }
    })
    .await
}

fn path(line: &Value) -> String {
    format!("/schedules/{}", line["id"].as_str().expect("an id"))
}

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no time: {value}"))
}

/// Returns the ticks of a line that were recorded, and the jobs that they made.
async fn ticks(platform: &Platform, name: &str) -> Vec<(DateTime<Utc>, String)> {
    use diesel_async::RunQueryDsl;
    #[derive(diesel::QueryableByName)]
    struct Tick {
        #[diesel(sql_type = diesel::sql_types::Text)]
        at: String,
        #[diesel(sql_type = diesel::sql_types::Text)]
        job: String,
    }
    let prefix = format!("schedule:{name}:");
    let found: Vec<Tick> = diesel::sql_query(
        "SELECT substr(key, char_length($1) + 1) AS at, job_id::text AS job FROM idempotency_keys \
         WHERE starts_with(key, $1) ORDER BY key",
    )
    .bind::<diesel::sql_types::Text, _>(prefix)
    .load(&mut *platform.db.conn().await.expect("a connection"))
    .await
    .expect("ticks");
    found.into_iter().map(|tick| (tick.at.parse().expect("a time"), tick.job)).collect()
}

#[tokio::test]
async fn the_timetable_says_what_ran_last_and_what_runs_next() {
    let platform = Platform::with().schedulers(1).start().await;
    let admin = platform.register().await;
    let lines = brought(&admin).await;
    for entry in entries() {
        let line = &lines[entry.name];
        let expected = json!({
            "task": entry.name, "cron": entry.timing.cron(), "timezone": entry.timing.zone().name(),
            "catch_up": entry.catch_up.as_str(), "paused": false, "built_in": true,
        });
        for (field, value) in expected.as_object().expect("fields") {
            assert_eq!(line[field], *value, "{field} of {line:#}");
        }
        let next = time(&line["next_run_at"]);
        assert!(
            entry.next_after(next - TimeDelta::seconds(1)) == Some(next) && next > Utc::now(),
            "{line:#}"
        );
    }
    let media = &lines["prune_media"];
    assert_eq!((&media["last_run_at"], &media["last_job"]), (&Value::Null, &Value::Null));

    let asked = admin.post_once(&format!("{}/run", path(media)), "press-once", json!({})).await;
    let ran = asked.expect(202);
    assert_eq!(ran["created"], true);
    let done = eventually("the run has ended", secs(20), async || {
        let line = admin.get(&path(media)).await.expect(200);
        if line["last_job"]["state"] == "completed" { Ok(line) } else { Err(line.to_string()) }
    })
    .await;
    assert_eq!(done["last_job"]["id"], ran["job_id"]);
    assert!(time(&done["last_run_at"]) > Utc::now() - TimeDelta::minutes(1), "{done:#}");
    assert_eq!(done["next_run_at"], media["next_run_at"], "its times stay as they are");
    // The same request again, and the same key for something else.
    let again = admin.post_once(&format!("{}/run", path(media)), "press-once", json!({})).await.expect(200);
    assert_eq!((&again["created"], &again["job_id"]), (&json!(false), &ran["job_id"]));
    let other =
        admin.post_once(&format!("{}/run", path(&lines["expire_keys"])), "press-once", json!({})).await;
    assert_eq!(other.problem(409), "idempotency_key_reused");
    let jobs = "SELECT count(*) AS n FROM jobs WHERE kind = 'prune_media'";
    assert_eq!(platform.number(jobs).await, 1);
    let log = admin.all("/audit-log").await;
    assert!(log.iter().any(|line| line["action"] == "schedule.run"), "{log:#?}");
    platform.assert_sound().await;
}

#[tokio::test]
async fn only_admins_of_the_organisation_that_runs_the_install_change_the_timetable() {
    let platform = Platform::with().workers(0).schedulers(1).start().await;
    let (operator, tenant) = (platform.register().await, platform.register().await);
    let lines = brought(&tenant).await;
    let prune = path(&lines["prune_history"]);
    let new = json!({"name": "夜里同步", "task": "sync_contacts", "cron": "30 4 * * *"});
    let refused = [
        tenant.post("/schedules", new.clone()).await,
        tenant.put(&prune, json!({"paused": true})).await,
        tenant.put("/schedules", json!({"name": "prune_history", "paused": true})).await,
        tenant.post(&format!("{prune}/run"), json!({})).await,
        tenant.delete(&prune).await,
    ];
    for reply in refused {
        assert_eq!(reply.problem(403), "not_the_operator");
    }
    assert_eq!(operator.get(&prune).await.expect(200)["paused"], false);

    let line = operator.post("/schedules", new.clone()).await.expect(201);
    assert_eq!(
        (&line["timezone"], &line["catch_up"], &line["built_in"]),
        (&json!("Asia/Shanghai"), &json!("skip"), &json!(false))
    );
    let taken = [new.clone(), json!({"name": "prune_history", "task": "sync_contacts", "cron": "0 1 * * *"})];
    for new in taken {
        assert_eq!(operator.post("/schedules", new).await.problem(409), "schedule_exists");
    }
    assert_eq!(operator.delete(&prune).await.problem(409), "schedule_built_in");
    for (changes, code) in [
        (json!({"task": "rm -rf"}), "unknown_task"),
        (json!({"task": "index_messages"}), "unknown_task"),
        (json!({"cron": "每天早上"}), "bad_cron"),
        (json!({"cron": "0 0 30 2 *"}), "bad_cron"),
        (json!({"timezone": "Asia/Entenhausen"}), "unknown_timezone"),
        (json!({"name": " "}), "bad_name"),
        (json!({"name": "长".repeat(65)}), "bad_name"),
    ] {
        let mut body = new.clone();
        body["name"] = json!("另一行");
        body.as_object_mut().expect("fields").extend(changes.as_object().expect("fields").clone());
        let reply = operator.post("/schedules", body).await;
        assert_eq!(reply.body["errors"][0]["code"], code, "{}", reply.text);
        assert_eq!(reply.problem(422), "validation_failed");
    }
    let fixed = operator.put(&path(&line), json!({"name": "白天同步"})).await;
    assert_eq!(fixed.body["errors"][0]["code"], "cannot_change", "{}", fixed.text);
    let named = json!({"name": "夜里同步", "cron": "0 5 * * 1-5", "timezone": "UTC", "catch_up": "run_once"});
    let changed = operator.put("/schedules", named).await.expect(200);
    let next = time(&changed["next_run_at"]);
    assert_eq!(next.format("%H:%M").to_string(), "05:00");
    assert!(next < Utc::now() + TimeDelta::days(4), "{changed:#}");
    let gone = operator.request(Method::DELETE, &path(&line));
    assert_eq!(operator.send(gone).await.status, 204);
    assert_eq!(operator.get(&path(&line)).await.problem(404), "schedule_not_found");
    let actions: Vec<Value> =
        operator.all("/audit-log").await.into_iter().map(|line| line["action"].clone()).collect();
    assert!(
        ["schedule.create", "schedule.update", "schedule.delete"]
            .iter()
            .all(|one| actions.contains(&json!(one))),
        "{actions:?}"
    );
}

#[tokio::test]
async fn what_people_change_is_in_force_in_seconds_and_outlives_schedulers() {
    let mut platform = Platform::with().schedulers(1).start().await;
    let admin = platform.register().await;
    let lines = brought(&admin).await;
    let new = json!({"name": "每秒清理", "task": "expire_keys", "cron": "* * * * * *"});
    let line = admin.post("/schedules", new).await.expect(201);
    let created = time(&line["created_at"]);
    let first =
        eventually("it ticks", KNOWN, async || ticks(&platform, "每秒清理").await.first().cloned()).await;
    // Those before the scheduler knew of it, too: they are less than a minute old.
    assert!(
        first.0 > created && first.0 <= created + TimeDelta::seconds(1),
        "{first:?}, created at {created}"
    );

    admin.put(&path(&line), json!({"paused": true})).await.expect(200);
    let paused = ticks(&platform, "每秒清理").await;
    admin.put(&path(&lines["prune_history"]), json!({"paused": true})).await.expect(200);
    eventually("the scheduler has stopped it", KNOWN, async || {
        let log = platform.schedulers[0].log();
        log.lines().any(|line| line.contains("schedule stopped") && line.contains("每秒清理"))
    })
    .await;
    assert_eq!(ticks(&platform, "每秒清理").await, paused, "no tick after the answer");

    // A scheduler that starts brings its lines, and leaves this one as it is.
    platform.replace_scheduler(0);
    eventually("the other scheduler has started", KNOWN, async || {
        platform.schedulers[0].log().contains("schedule started")
    })
    .await;
    assert_eq!(admin.get(&path(&lines["prune_history"])).await.expect(200)["paused"], true);
    // Nothing is made good for a pause, although every tick of it is less than a minute old.
    let catching_up = json!({"paused": false, "catch_up": "run_once"});
    let resumed = time(&admin.put(&path(&line), catching_up).await.expect(200)["updated_at"]);
    let next = eventually("it ticks again", KNOWN, async || {
        ticks(&platform, "每秒清理").await.get(paused.len()).cloned()
    })
    .await;
    assert!(next.0 > resumed, "{next:?}, resumed at {resumed}");
    admin.put(&path(&line), json!({"cron": "0 0 1 1 *"})).await.expect(200);
    let rest = ticks(&platform, "每秒清理").await.len();
    platform.idle(secs(20)).await;
    assert_eq!(ticks(&platform, "每秒清理").await.len(), rest, "other times");
    platform.assert_sound().await;
}

#[tokio::test]
async fn every_tick_happens_once_with_three_schedulers_of_which_one_is_killed_every_second() {
    const NAME: &str = "每秒一次";
    let seconds = chaos::seconds(10);
    let mut platform = Platform::with().schedulers(3).start().await;
    let admin = platform.register().await;
    brought(&admin).await;
    // So that every job of the kind is one of the line.
    admin.put("/schedules", json!({"name": "reap_workers", "paused": true})).await.expect(200);
    let line = admin
        .post("/schedules", json!({"name": NAME, "task": "reap_workers", "cron": "* * * * * *"}))
        .await
        .expect(201);
    let (first, _) =
        eventually("it ticks", KNOWN, async || ticks(&platform, NAME).await.first().cloned()).await;

    let mut every_second = tokio::time::interval(secs(1));
    for n in 0..usize::try_from(seconds).expect("a number") {
        every_second.tick().await;
        platform.replace_scheduler(n % 3);
    }
    let until = Utc::now();
    eventually("all of them are settled", KNOWN, async || {
        let last = ticks(&platform, NAME).await.last().map(|(at, _)| *at);
        if last >= Some(until) { Ok(()) } else { Err(format!("{last:?}, not yet {until}")) }
    })
    .await;
    admin.put(&path(&line), json!({"paused": true})).await.expect(200);
    platform.idle(secs(20)).await;

    let seen = ticks(&platform, NAME).await;
    let times: Vec<DateTime<Utc>> = seen.iter().map(|(at, _)| *at).collect();
    let (last, count) = (times[times.len() - 1], i64::try_from(times.len()).expect("a number"));
    let expected: Vec<DateTime<Utc>> =
        (0..=(last - first).num_seconds()).map(|second| first + TimeDelta::seconds(second)).collect();
    assert_eq!(times, expected, "each second once");
    // A tick has one job; one that came while the job of the one before had not ended is done by that.
    let jobs: BTreeSet<&str> = seen.iter().map(|(_, job)| job.as_str()).collect();
    let made = "SELECT count(*) AS n FROM jobs WHERE kind = 'reap_workers'";
    let completed = format!("{made} AND final_state = 'completed' AND attempt = 1");
    let jobs = i64::try_from(jobs.len()).expect("a number");
    assert_eq!((platform.number(made).await, platform.number(&completed).await), (jobs, jobs));
    platform.assert_sound().await;
    chaos::report(&format!(
        "three schedulers, {seconds} killed in {seconds} s: {count} ticks, each once, by {jobs} jobs"
    ));
}
