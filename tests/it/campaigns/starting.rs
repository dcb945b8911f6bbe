//! How a plan takes people in at once, and what becomes of them when its next version is in force.

use diesel_async::AsyncConnection;
use entropy_jobs::campaign::audience::Extent;
use entropy_jobs::campaign::run::{self, Begins, Went};
use entropy_jobs::campaign::succession::{Done, How, carry_out};
use entropy_schema::campaigns::plans;
use entropy_schema::campaigns::runs::{self, Run};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Scene;
use super::scene::{end, send};

/// Begins a run of a plan, with whom it is meant for now, as starting the plan does.
pub(super) async fn begin(scene: &Scene, plan: Uuid) -> Uuid {
    let organization = scene.book.organization;
    let known = scene.context(Uuid::nil(), 1, Uuid::nil()).services.plans.clone();
    let mut conn = scene.book.conn().await;
    let stored = plans::get(&mut conn, organization, plan).await.expect("read").expect("a plan");
    let read = known.of(&mut conn, plan, 1).await.expect("read").expect("a version");
    let now = entropy_jobs::campaign::clock::now(&mut conn).await.expect("a time");
    let begins =
        Begins { organization, sop: plan, version: 1, source: "manual", fire_at: now, by: Some(plan) };
    let extent = conn
        .transaction(async |conn| run::begin(conn, begins, &stored, &read, now).await)
        .await
        .expect("begun");
    assert!(matches!(extent, Extent::People(_)), "{extent:?}");
    newest(scene, plan).await.id
}

pub(super) async fn newest(scene: &Scene, plan: Uuid) -> Run {
    let mut conn = scene.book.conn().await;
    runs::list(&mut conn, scene.book.organization, plan, None, 1).await.expect("runs").remove(0)
}

pub(super) async fn carry_on(scene: &Scene, run: Uuid) -> Went {
    run::carry_on(&scene.context(Uuid::now_v7(), 1, Uuid::now_v7()), run).await.expect("carried on")
}

/// Says for whom a plan is.
async fn is_for(scene: &Scene, plan: Uuid, tag: &str) {
    let tagged =
        format!("UPDATE sop_tasks SET target_type = 'tag', target_ids = ARRAY['{tag}'] WHERE id = '{plan}'");
    scene.book.run(&tagged).await;
}

async fn give(scene: &Scene, contact: Uuid, tag: &str) {
    scene
        .book
        .run(&format!("UPDATE contacts SET tags = tags || ARRAY['{tag}'] WHERE id = '{contact}'"))
        .await;
}

#[tokio::test]
async fn whom_a_plan_is_for_is_written_down_when_it_starts_and_nobody_comes_in_addition() {
    let scene = Scene::set().await;
    let filter = json!({ "all": [
        { "fact": "contact.var.城市", "op": "eq", "value": "上海" },
        { "not": { "fact": "contact.tags", "op": "contains", "value": "员工" } },
    ] });
    let plan = scene
        .plan_with(json!({
            "audience": { "kind": "friend", "consent": { "required": false }, "filter": filter },
            "steps": [send("first", "您好", json!(null))],
        }))
        .await;
    is_for(&scene, plan, "老客户").await;
    let mut people = Vec::new();
    for wxid in ["wxid_in", "wxid_out", "wxid_staff", "wxid_gone", "wxid_late", "wxid_elsewhere"] {
        people.push(scene.friend(wxid).await);
    }
    scene.book.run("UPDATE contacts SET variables = '{\"城市\": \"上海\"}'").await;
    for who in &people[..4] {
        give(&scene, *who, "老客户").await;
    }
    give(&scene, people[2], "员工").await;
    give(&scene, people[5], "老客户").await;
    scene
        .book
        .run(&format!(
            "UPDATE contacts SET removed_at = now() WHERE id = '{}'; UPDATE contacts SET variables = '{{}}' WHERE id = '{}';
             INSERT INTO opt_outs (organization_id, wxid, reason) VALUES ('{}', 'wxid_out', '退订')",
            people[3], people[5], scene.book.organization
        ))
        .await;
    let run = begin(&scene, plan).await;
    assert_eq!(newest(&scene, plan).await.audience, Some(2));
    // Too late for this run.
    give(&scene, people[4], "老客户").await;
    let (one, other) = futures::join!(carry_on(&scene, run), carry_on(&scene, run));
    assert!(matches!((one, other), (Went::Rests(_), Went::Rests(_))));
    let after = newest(&scene, plan).await;
    assert_eq!((after.state.as_str(), after.enrolled), ("finished", 1));
    assert_eq!(after.refused, json!({ "opted_out": 1 }));
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM sop_run_contacts").await, 0);
    scene.settles().await;
    assert_eq!(scene.said(), [("wxid_in".to_owned(), "您好".to_owned())]);
    // It may run again as often as it likes.
    carry_on(&scene, run).await;
    assert_eq!(newest(&scene, plan).await, after);
    scene.book.assert_sound().await;
}

#[tokio::test]
async fn a_filter_asks_what_somebody_has_written_and_when() {
    let scene = Scene::set().await;
    let asleep = json!({ "fact": "last_reply.age_hours", "op": "gte", "value": 2160 });
    let asked = json!({ "fact": "last_reply.text", "op": "contains", "value": "课程" });
    let plan = scene
        .plan_with(json!({
            "audience": { "kind": "friend", "consent": { "required": false }, "filter": { "any": [asleep, asked] } },
            "steps": [send("first", "好久不见", json!(null))],
        }))
        .await;
    for (wxid, words) in [("wxid_asleep", "好的"), ("wxid_asks", "课程多少钱"), ("wxid_other", "好的")]
    {
        scene.friend(wxid).await;
        scene.writes(wxid, words).await;
    }
    scene.friend("wxid_never_wrote").await;
    scene
        .book
        .run("UPDATE conversations SET last_inbound_at = '2026-01-01' WHERE peer_wxid = 'wxid_asleep'")
        .await;
    scene.clock("2026-11-23T10:00:00+08:00").await;
    let run = begin(&scene, plan).await;
    carry_on(&scene, run).await;
    let who =
        "SELECT k.wxid AS word FROM sop_enrollments e JOIN contacts k ON k.id = e.contact_id ORDER BY 1";
    assert_eq!(scene.lines(who).await, ["wxid_asks", "wxid_asleep"]);
}

#[tokio::test]
async fn a_paused_plan_takes_nobody_in_and_a_resumed_one_everybody_who_is_left() {
    let scene = Scene::set().await;
    let plan = scene.plan(json!([send("first", "您好", json!(null))])).await;
    is_for(&scene, plan, "老客户").await;
    // More than one page.
    scene
        .book
        .run(&format!(
            "INSERT INTO contacts (id, organization_id, account_id, wxid, kind, tags)
             SELECT gen_random_uuid(), '{}', '{}', 'wxid_' || n, 'friend', ARRAY['老客户'] FROM generate_series(1, 1100) n",
            scene.book.organization, scene.account
        ))
        .await;
    let run = begin(&scene, plan).await;
    scene.book.run("UPDATE sop_tasks SET status = 'PAUSED'").await;
    assert!(matches!(carry_on(&scene, run).await, Went::Rests(Some(_))));
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM sop_enrollments").await, 0);
    assert_eq!(newest(&scene, plan).await.state, "enrolling");
    scene.book.run("UPDATE sop_tasks SET status = 'RUNNING'").await;
    let both = futures::join!(carry_on(&scene, run), carry_on(&scene, run));
    assert!(matches!(both, (Went::Rests(_), Went::Rests(_))), "{both:?}");
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM sop_enrollments").await, 1100);
    let done = newest(&scene, plan).await;
    assert_eq!((done.state.as_str(), done.enrolled, done.refused), ("finished", 1100, json!({})));

    let other = scene.plan(json!([send("first", "您好", json!(null))])).await;
    is_for(&scene, other, "老客户").await;
    let run = begin(&scene, other).await;
    scene.book.run("UPDATE sop_tasks SET status = 'STOPPED'").await;
    assert!(matches!(carry_on(&scene, run).await, Went::Rests(Some(_))));
    assert_eq!(newest(&scene, other).await.state, "stopped");
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM sop_run_contacts").await, 0);
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM sop_enrollments").await, 1100);
}

#[tokio::test]
async fn one_person_under_two_accounts_is_brought_in_once_whoever_comes_first() {
    let scene = Scene::set().await;
    let plan = scene.plan(json!([send("first", "您好", json!(null))])).await;
    let other = scene.another_account().await;
    let mut contacts = Vec::new();
    for n in 0..20 {
        contacts.push([
            scene.friend(&format!("wxid_{n}")).await,
            scene.friend_of(other, &format!("wxid_{n}")).await,
        ]);
    }
    let mine: Vec<Uuid> = contacts.iter().map(|pair| pair[0]).collect();
    let theirs: Vec<Uuid> = contacts.iter().map(|pair| pair[1]).collect();
    let (one, two) = futures::join!(scene.enroll(plan, &mine), scene.enroll(plan, &theirs));
    assert_eq!(one.enrolled.len() + two.enrolled.len(), 20);
    let people =
        "SELECT count(DISTINCT k.wxid) AS n FROM sop_enrollments e JOIN contacts k ON k.id = e.contact_id";
    assert_eq!(scene.book.number(people).await, 20);
    // Whom the plan does not take under one account, it may take under the other.
    let next = scene
        .plan_with(json!({
            "audience": { "kind": "friend", "consent": { "required": true, "purpose": "活动" },
                "exclude_other_active_sop": false },
            "steps": [send("first", "您好", json!(null))],
        }))
        .await;
    scene
        .book
        .run(&format!(
            "INSERT INTO consents (contact_id, purpose, organization_id, basis, given_at)
             VALUES ('{}', '活动', '{}', '登记表', now())",
            theirs[0], scene.book.organization
        ))
        .await;
    let done = scene.enroll(next, &[mine[0], theirs[0]]).await;
    assert_eq!(done.refused, [(mine[0], "consent_missing")]);
    assert_eq!(done.enrolled.len(), 1);
}

/// A newer version of a plan, in force.
async fn second_version(scene: &Scene, plan: Uuid, steps: Value) {
    let organization = scene.book.organization;
    scene
        .book
        .run(&format!(
            "INSERT INTO sop_versions (sop_id, version, organization_id, config, sha256, state, created_by)
             SELECT sop_id, 2, organization_id, jsonb_set(config, '{{steps}}', '{}'), sha256('y'), 'approved', created_by
             FROM sop_versions WHERE sop_id = '{plan}' AND organization_id = '{organization}';
             UPDATE sop_versions SET state = 'retired' WHERE sop_id = '{plan}' AND version = 1;
             UPDATE sop_tasks SET version = 2 WHERE id = '{plan}'",
            steps.to_string().replace('\'', "''")
        ))
        .await;
}

#[tokio::test]
async fn people_on_an_older_version_finish_it_or_are_stopped_or_go_on_in_the_newer_one() {
    let scene = Scene::set().await;
    let steps = |second: &str| {
        json!([
            send("first", "第一条", json!("rest")),
            { "id": "rest", "type": "wait", "for": "PT1H", "next": "second" },
            send("second", second, json!("over")),
            end("over", "已完成"),
        ])
    };
    let plan = scene.plan(steps("旧的第二条")).await;
    let rests = scene.friend("wxid_rests").await;
    scene.enroll(plan, &[rests]).await;
    scene.settles().await;
    // Another one's message waits in the lane at this moment, and a third has not begun.
    let waits = scene.friend("wxid_waits").await;
    scene.enroll(plan, &[waits]).await;
    let mut jobs = scene.hand_out().await;
    assert_eq!(jobs.len(), 1);
    scene.run(jobs.remove(0)).await;
    let begins = scene.friend("wxid_begins").await;
    scene.enroll(plan, &[begins]).await;
    second_version(&scene, plan, steps("新的第二条")).await;

    let whose = (scene.book.organization, plan);
    let known = scene.context(Uuid::nil(), 1, Uuid::nil()).services.plans.clone();
    let choose = async |from, how| {
        let mut conn = scene.book.conn().await;
        carry_out(&mut conn, &known, whose, (from, 2), how).await.expect("carried out")
    };
    assert_eq!(choose(None, How::Finish).await, Done { finishing: 3, ..Done::default() });
    assert_eq!(choose(Some(7), How::Move).await, Done::default());
    assert_eq!(choose(None, How::Move).await, Done { moved: 2, under_way: 1, ..Done::default() });
    let versions = "SELECT version::text AS word FROM sop_enrollments ORDER BY id";
    assert_eq!(scene.lines(versions).await, ["2", "1", "2"]);
    scene.settles().await;
    scene.clock("2026-11-23T11:00:00+08:00").await;
    scene.settles().await;
    let mut said = scene.said();
    said.sort();
    let expected = [("begins", "新"), ("rests", "新"), ("waits", "旧")].map(|(who, which)| {
        let first = (format!("wxid_{who}"), "第一条".to_owned());
        [first, (format!("wxid_{who}"), format!("{which}的第二条"))]
    });
    let mut expected = expected.concat();
    expected.sort();
    assert_eq!(said, expected);

    // A step that is another one by its type, or that is gone, is finished in the old version; stopping ends it.
    let other = scene.plan(steps("旧的第二条")).await;
    let contact = scene.friend("wxid_left").await;
    scene.enroll(other, &[contact]).await;
    scene.settles().await;
    let branch = json!([
        { "id": "first", "type": "branch", "cases": [
            { "when": { "fact": "enrollment.replied", "op": "eq", "value": true }, "next": "over" } ], "else": "over" },
        end("over", "已完成"),
    ]);
    second_version(&scene, other, branch).await;
    let mut conn = scene.book.conn().await;
    let whose = (scene.book.organization, other);
    let moved = carry_out(&mut conn, &known, whose, (None, 2), How::Move).await.expect("carried out");
    assert_eq!(moved, Done { finishing: 1, ..Done::default() });
    let stopped = carry_out(&mut conn, &known, whose, (Some(1), 2), How::Stop).await.expect("carried out");
    assert_eq!(stopped, Done { stopped: 1, ..Done::default() });
    assert_eq!(scene.standing().await[3], "exited rest superseded");
    assert_eq!(scene.steps().await.last().map(String::as_str), Some("rest canceled superseded"));
    scene.book.assert_sound().await;
}

#[tokio::test]
async fn a_tag_that_a_plan_gives_begins_other_plans_and_never_itself() {
    let scene = Scene::set().await;
    let by_tag = json!({ "type": "event", "event": "tag_added", "tags": ["高意向"] });
    let often = json!({ "kind": "friend", "consent": { "required": false }, "re_entry": { "max_times": 9 } });
    let gives = scene
        .plan_with(json!({
            "trigger": by_tag, "audience": often, "stop": [],
            "steps": [{ "id": "first", "type": "tag", "add": ["高意向"], "next": null }],
        }))
        .await;
    scene
        .plan_with(json!({ "trigger": by_tag, "audience": often, "stop": [], "steps": [send("first", "已为您预留", json!(null))] }))
        .await;
    let listens = scene
        .plan_with(json!({
            "audience": { "kind": "friend", "consent": { "required": false }, "exclude_other_active_sop": false },
            "stop": [{ "on": "reply", "do": "exit" }, { "on": "tag_added", "do": "exit", "tags": ["高意向"] }],
            "steps": [{ "id": "first", "type": "wait", "for": "P9D", "next": null }],
        }))
        .await;
    let contact = scene.friend("wxid_a").await;
    let excluded = scene.friend("wxid_b").await;
    scene.enroll(gives, &[contact, excluded]).await;
    scene.enroll(listens, &[excluded]).await;
    scene.settles().await;
    assert_eq!(scene.words(), ["已为您预留"]);
    let plans =
        "SELECT count(*) || ' ' || string_agg(source, ' ' ORDER BY source) AS word FROM sop_enrollments
        GROUP BY contact_id ORDER BY 1";
    // The second is in a plan that goes on while the tag is given, and the one that begins takes nobody out of another.
    assert_eq!(scene.lines(plans).await, ["2 manual manual", "2 manual tag_added"]);
    let other = scene
        .lines("SELECT state || ' ' || COALESCE(reason, '-') AS word FROM sop_enrollments ORDER BY id")
        .await;
    assert!(other.contains(&"exited tag_rule".to_owned()), "the other plan is told at once: {other:?}");
    scene.book.assert_sound().await;
}
