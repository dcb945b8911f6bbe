//! Large audiences: written down by one statement, brought in a thousand at a time.

use std::time::{Duration, Instant};

use entropy_jobs::campaign::audience::{self, Audience, Extent};
use entropy_jobs::campaign::run::Went;
use entropy_schema::campaigns::plans;
use serde_json::json;
use uuid::Uuid;

use super::Scene;
use super::scene::send;
use super::starting::{begin, carry_on, newest};
use crate::harness::{chaos, secs};

/// How many are meant, and how long that may take.
struct Size {
    people: usize,
    accounts: usize,
    /// To write down whom the plan is meant for.
    freeze: Duration,
    /// To bring in a thousand of them.
    page: Duration,
}

/// On a machine that builds and tests, in a debug build.
const SHORT: Size = Size { people: 3000, accounts: 3, freeze: secs(2), page: secs(5) };

/// The largest audience that was promised, and more.
const LONG: Size = Size { people: 100_000, accounts: 20, freeze: secs(2), page: secs(1) };

/// Friends of accounts of their own, without a conversation.
async fn friends(scene: &Scene, size: &Size) {
    for account in 0..size.accounts {
        let (id, organization) = (scene.another_account().await, scene.book.organization);
        let friends = format!(
            "INSERT INTO contacts (id, organization_id, account_id, wxid, kind, nickname, added_at)
             SELECT gen_random_uuid(), '{organization}', '{id}', 'wxid_' || n, 'friend', '小雨', now()
             FROM generate_series(1, {}) n WHERE n % {} = {account}",
            size.people, size.accounts
        );
        scene.book.run(&friends).await;
    }
}

#[tokio::test]
async fn a_large_audience_is_written_down_at_once_and_brought_in_page_by_page() {
    let size = if chaos::long() { &LONG } else { &SHORT };
    let scene = Scene::set().await;
    friends(&scene, size).await;
    let plan = scene.plan(json!([send("first", "公开课还有名额。", json!(null))])).await;
    scene.book.run("UPDATE sop_tasks SET everyone = true").await;

    let began = Instant::now();
    let run = begin(&scene, plan).await;
    let freeze = began.elapsed();
    assert_eq!(newest(&scene, plan).await.audience, i32::try_from(size.people).ok());
    let began = Instant::now();
    while carry_on(&scene, run).await == Went::Further {}
    let pages = began.elapsed();
    let page = pages / u32::try_from(size.people.div_ceil(1000)).expect("a number");
    chaos::report(&format!(
        "campaigns: an audience of {} is written down in {:.0} ms; each thousand of them is brought in within {:.0} ms, all within {:.1} s",
        size.people,
        freeze.as_secs_f64() * 1000.0,
        page.as_secs_f64() * 1000.0,
        pages.as_secs_f64(),
    ));
    let run = newest(&scene, plan).await;
    assert_eq!((run.state.as_str(), run.enrolled), ("finished", i32::try_from(size.people).expect("few")));
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM sop_run_contacts").await, 0);
    assert!(freeze < size.freeze, "it was written down in {freeze:?}");
    assert!(page < size.page, "a thousand took {page:?}");
}

/// Whom a plan is meant for, as it is written down for a run; none: they are too many.
async fn written(scene: &Scene, plan: Uuid) -> Option<Vec<String>> {
    let known = scene.context(Uuid::nil(), 1, Uuid::nil()).services.plans.clone();
    let mut conn = scene.book.conn().await;
    let stored = plans::get(&mut conn, scene.book.organization, plan).await.expect("read").expect("a plan");
    let read = known.of(&mut conn, plan, 1).await.expect("read").expect("a version");
    let run = Uuid::now_v7();
    let extent = audience::write_down(&mut conn, &stored, &read, run).await.expect("written");
    let lines =
        format!("SELECT contact_id::text AS word FROM sop_run_contacts WHERE run_id = '{run}' ORDER BY 1");
    let written = scene.lines(&lines).await;
    match (extent, audience::of(&mut conn, &stored, &read).await.expect("read")) {
        (Extent::People(count), Audience::People(people)) => {
            assert_eq!((count, people.len()), (written.len(), written.len()));
            assert_eq!(people.iter().map(Uuid::to_string).collect::<Vec<_>>(), written);
            Some(written)
        }
        (Extent::TooMany { count, most }, other) => {
            assert_eq!(other, Audience::TooMany { count, most });
            assert!(written.is_empty(), "too many are written down by nobody");
            None
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn who_is_written_down_is_who_is_meant_however_they_are_named() {
    let scene = Scene::set().await;
    let elsewhere = scene.another_account().await;
    let gone = scene.another_account().await;
    let audience = |given: serde_json::Value| {
        let mut audience = json!({ "kind": "friend", "consent": { "required": false } });
        audience.as_object_mut().expect("an object").extend(given.as_object().expect("fields").clone());
        json!({ "audience": audience, "steps": [send("first", "您好", json!(null))] })
    };
    let plan = scene.plan_with(audience(json!({}))).await;
    let mut people = Vec::new();
    for wxid in ["wxid_1", "wxid_2", "wxid_3", "wxid_removed", "wxid_group"] {
        people.push(scene.friend(wxid).await);
    }
    people.push(scene.friend_of(elsewhere, "wxid_4").await);
    people.push(scene.friend_of(gone, "wxid_5").await);
    scene
        .book
        .run(&format!(
            "UPDATE contacts SET removed_at = now() WHERE wxid = 'wxid_removed';
             UPDATE contacts SET kind = 'group' WHERE wxid = 'wxid_group';
             UPDATE contacts SET tags = ARRAY['老客户'] WHERE wxid <> 'wxid_3';
             UPDATE wechat_accounts SET deleted_at = now() WHERE id = '{gone}'"
        ))
        .await;
    let named = |indexes: &[usize]| {
        let mut named: Vec<String> = indexes.iter().map(|index| people[*index].to_string()).collect();
        named.sort_unstable();
        Some(named)
    };
    // A plan that names nobody is meant for nobody.
    assert_eq!(written(&scene, plan).await, Some(vec![]));
    scene.book.run("UPDATE sop_tasks SET everyone = true").await;
    assert_eq!(written(&scene, plan).await, named(&[0, 1, 2, 5]));
    scene.book.run(&format!("UPDATE sop_tasks SET account_ids = ARRAY['{}'::uuid]", scene.account)).await;
    assert_eq!(written(&scene, plan).await, named(&[0, 1, 2]));
    scene.book.run("UPDATE sop_tasks SET target_type = 'tag', target_ids = ARRAY['老客户', '其他']").await;
    assert_eq!(written(&scene, plan).await, named(&[0, 1]));
    let ids = people.iter().skip(1).map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ");
    scene
        .book
        .run(&format!(
            "UPDATE sop_tasks SET target_type = 'friend', account_ids = '{{}}', target_ids = ARRAY[{ids}]"
        ))
        .await;
    assert_eq!(written(&scene, plan).await, named(&[1, 2, 5]));

    let filter = json!({ "fact": "contact.tags", "op": "contains", "value": "老客户" });
    let filtered = scene.plan_with(audience(json!({ "filter": filter }))).await;
    assert_eq!(written(&scene, filtered).await, named(&[0, 1, 5]));
    for most in [3, 4] {
        let bounded = scene.plan_with(audience(json!({ "max_size": most }))).await;
        scene.book.run(&format!("UPDATE sop_tasks SET everyone = true WHERE id = '{bounded}'")).await;
        assert_eq!(written(&scene, bounded).await.is_some(), most == 4, "{most}");
    }
}
