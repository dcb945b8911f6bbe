//! What a dry run says is what happens: the same people, texts, days and reasons, and the same end. And it says it soon.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use chrono::{DateTime, FixedOffset, NaiveDate, TimeDelta, Utc};
use diesel::sql_query;
use diesel::sql_types::{Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use entropy_jobs::campaign::dry_run::{self, Played, Question};
use entropy_jobs::campaign::plan::Plans;
use entropy_jobs::process::config::Ceilings;
use entropy_schema::campaigns::plans;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Scene;
use super::scene::{end, send};

/// Plays a plan in version 1, for these contacts or for those whom it is meant for.
async fn played(scene: &Scene, plan: Uuid, contacts: Option<&[Uuid]>) -> Played {
    let mut conn = scene.book.conn().await;
    let row = plans::get(&mut conn, scene.book.organization, plan).await.expect("an answer").expect("a plan");
    let text = Plans::default().of(&mut conn, plan, 1).await.expect("an answer").expect("a version");
    let question = Question {
        contacts: contacts.map(<[Uuid]>::to_vec),
        starts_at: None,
        answering: 0,
        ceilings: Ceilings { messages_per_minute: 600, api_calls_per_hour: 100_000 },
        links: None,
    };
    let begun = Instant::now();
    let gathered = dry_run::gather(&mut conn, &row, text, question).await.expect("an answer");
    let read = begun.elapsed();
    let played = gathered.expect("not too many").play();
    println!("read in {read:?}, played in {:?}", begun.elapsed() - read);
    played
}

#[derive(Debug, diesel::QueryableByName)]
struct Sent {
    #[diesel(sql_type = SqlUuid)]
    account_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    contact_id: Uuid,
    #[diesel(sql_type = Text)]
    text: String,
    #[diesel(sql_type = Timestamptz)]
    sent_at: DateTime<Utc>,
}

fn day(at: DateTime<Utc>) -> NaiveDate {
    at.with_timezone(&FixedOffset::east_opt(8 * 3600).expect("an offset")).date_naive()
}

/// Lets the clock go from one due moment to the next until everybody is at an end; returns why messages were put off meanwhile.
async fn runs(scene: &Scene) -> BTreeSet<String> {
    let mut put_off = BTreeSet::new();
    for _ in 0..400 {
        scene.settles().await;
        put_off.extend(
            scene.lines("SELECT DISTINCT reason AS word FROM sop_steps WHERE state = 'deferred'").await,
        );
        let next =
            "SELECT to_char(min(due_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS word
             FROM sop_enrollments WHERE finished_at IS NULL HAVING min(due_at) IS NOT NULL";
        match scene.lines(next).await.into_iter().next() {
            Some(at) => scene.clock(&at).await,
            None => return put_off,
        }
    }
    panic!("it never ends: {:?}", scene.standing().await);
}

#[tokio::test]
async fn a_campaign_goes_as_it_was_rehearsed() {
    let scene = Scene::set().await;
    let accounts = [scene.account, scene.another_account().await, scene.another_account().await];
    let gold = json!({ "fact": "contact.tags", "op": "contains", "value": "金卡" });
    let plan = scene
        .plan_with(json!({
            "send_window": { "days": "workday", "ranges": [{ "from": "10:00", "to": "12:00" }] },
            "caps": { "per_contact_per_day": 2, "per_contact_per_week": 5, "per_account_per_day": 5,
                "max_unanswered": 5 },
            "audience": { "kind": "friend", "consent": { "required": false },
                "filter": { "not": { "fact": "contact.tags", "op": "contains", "value": "员工" } } },
            "variables": { "称呼": { "label": "称呼", "default": "您" }, "课程": { "label": "课程" } },
            "steps": [
                send("first", "{{称呼}}好，两周后有一节公开课。", json!("rest")),
                { "id": "rest", "type": "wait", "for": "P14D", "next": "which" },
                { "id": "which", "type": "branch", "cases": [{ "when": gold, "next": "course" }], "else": "second" },
                send("course", "为您留了{{课程}}的座位。", json!("over")),
                send("second", "公开课今天开始。", json!("over")),
                end("over", "已完成"),
            ],
        }))
        .await;
    // One account has more to do than the others together. A third of all have written before.
    let mut everybody = Vec::new();
    for number in 0..30 {
        let account = if number < 18 { accounts[0] } else { accounts[1 + number % 2] };
        everybody.push(scene.friend_of(account, &format!("wxid_{number}")).await);
    }
    let organization = scene.book.organization;
    scene
        .book
        .run(&format!(
            "INSERT INTO opt_outs (organization_id, wxid, reason) VALUES ('{organization}', 'wxid_3', 'manual');
             UPDATE contacts SET suppressed_at = now() WHERE wxid = 'wxid_19';
             UPDATE contacts SET tags = '{{员工}}' WHERE wxid = 'wxid_20';
             UPDATE contacts SET remark = '', nickname = '小赵' WHERE wxid = 'wxid_5';
             UPDATE contacts SET tags = '{{金卡}}' WHERE wxid IN ('wxid_6', 'wxid_21');
             UPDATE contacts SET variables = '{{\"课程\": \"插花\"}}' WHERE wxid = 'wxid_6';
             UPDATE organization_settings SET new_contacts_per_day = 3;
             INSERT INTO conversations (id, organization_id, account_id, contact_id, peer_wxid, kind, last_inbound_at)
             SELECT gen_random_uuid(), organization_id, account_id, id, wxid, 'friend', '2026-11-01' FROM contacts
             WHERE substr(wxid, 6)::int % 3 = 1"
        ))
        .await;

    let foreseen = played(&scene, plan, Some(&everybody)).await;
    let (items, _) = foreseen.page(0, usize::MAX >> 1);
    let mut texts: BTreeMap<Uuid, Vec<String>> = BTreeMap::new();
    let mut days: BTreeMap<(Uuid, NaiveDate), usize> = BTreeMap::new();
    let mut reasons: BTreeSet<String> = BTreeSet::new();
    let mut refused: BTreeMap<Uuid, &str> = BTreeMap::new();
    let account_of = |contact: Uuid| {
        let number = everybody.iter().position(|other| *other == contact).expect("one of them");
        if number < 18 { accounts[0] } else { accounts[1 + number % 2] }
    };
    for item in items {
        match item.outcome {
            "sent" => {
                let text = foreseen.text(item).expect("a text");
                texts.entry(item.contact_id).or_default().push(text);
                let on = day(item.at.expect("a time"));
                *days.entry((account_of(item.contact_id), on)).or_default() += 1;
                reasons.extend(item.reasons.iter().map(|code| (*code).to_owned()));
            }
            "blocked" => {
                refused.insert(item.contact_id, item.reasons[0]);
            }
            _ => {}
        }
    }
    assert_eq!((foreseen.targets, foreseen.recipients, foreseen.bottleneck), (30, 27, Some(accounts[0])));
    let blocked: Vec<(&str, usize)> = foreseen.blocked.iter().map(|(code, count)| (*code, *count)).collect();
    assert_eq!(blocked, [("contact_suppressed", 1), ("filtered", 1), ("opted_out", 1)]);
    let skipped: Vec<(Uuid, &str)> = items
        .iter()
        .filter(|item| item.outcome == "skipped")
        .map(|item| (item.contact_id, item.reasons[0]))
        .collect();
    assert_eq!(skipped, [(everybody[21], "missing_variable")]);
    let begun = scene.now().await;

    let enrolled = scene.enroll(plan, &everybody).await;
    let really: BTreeMap<Uuid, &str> = enrolled.refused.into_iter().collect();
    assert_eq!(really, refused);
    let mut put_off = runs(&scene).await;
    let sent: Vec<Sent> = sql_query(
        "SELECT account_id, contact_id, text, sent_at FROM sop_steps WHERE state = 'sent' ORDER BY sent_at, step_id",
    )
    .load(&mut *scene.book.conn().await)
    .await
    .expect("what was sent");
    let mut really_said: BTreeMap<Uuid, Vec<String>> = BTreeMap::new();
    let mut really_on: BTreeMap<(Uuid, NaiveDate), usize> = BTreeMap::new();
    for one in &sent {
        really_said.entry(one.contact_id).or_default().push(one.text.clone());
        *really_on.entry((one.account_id, day(one.sent_at))).or_default() += 1;
    }
    assert_eq!(really_said, texts);
    assert_eq!(really_on, days, "as many messages of each account on each day");
    reasons.remove("spread");
    put_off.remove("spread");
    assert_eq!(put_off, reasons);
    let (ends, ended) = (foreseen.ends_at.expect("an end"), sent.last().expect("a message").sent_at);
    let share = (ended - ends).num_milliseconds().abs() * 100 / (ends - begun).num_milliseconds();
    assert!(share <= 2, "rehearsed {ends}, ended {ended}");
    let wrong = scene.lines("SELECT DISTINCT reason AS word FROM sop_steps WHERE state = 'skipped'").await;
    assert_eq!(wrong, ["missing_variable"]);
}

#[tokio::test]
async fn ten_thousand_people_over_twenty_accounts_are_rehearsed_in_seconds() {
    let scene = Scene::set().await;
    let mut accounts = vec![scene.account];
    for _ in 1..20 {
        accounts.push(scene.another_account().await);
    }
    let plan = scene
        .plan_with(json!({
            "send_window": { "days": "workday", "ranges": [{ "from": "09:30", "to": "12:00" }, { "from": "14:00", "to": "20:30" }] },
            "caps": { "per_contact_per_day": 2, "per_contact_per_week": 5, "per_account_per_day": 150,
                "max_unanswered": 5 },
            "variables": { "称呼": { "label": "称呼", "default": "您" } },
            "steps": [
                send("first", "{{称呼}}好", json!("rest")),
                { "id": "rest", "type": "wait", "for": "PT2H", "next": "second" },
                send("second", "{{称呼}}，大纲发您了", json!("days")),
                { "id": "days", "type": "wait",
                    "until": { "from": "start", "day_offset": 2, "at": "15:00", "count": "workday" }, "next": "third" },
                send("third", "周六有空吗", Value::Null),
            ],
        }))
        .await;
    let ids: Vec<String> = accounts.iter().map(Uuid::to_string).collect();
    let organization = scene.book.organization;
    scene
        .book
        .run(&format!(
            "INSERT INTO contacts (id, organization_id, account_id, wxid, kind, nickname, remark, added_at, tags)
             SELECT gen_random_uuid(), '{organization}', ('{{{}}}'::uuid[])[1 + n % 20], 'wxid_' || n, 'friend', '小王',
                 '王女士' || n, now(), '{{新线索}}' FROM generate_series(1, 10000) n;
             UPDATE sop_tasks SET target_type = 'tag', target_ids = '{{新线索}}';
             UPDATE wechat_accounts SET messages_per_minute = 10, min_gap_ms = 5000, warm_since = now() - interval '1 day'
             WHERE id = '{}';
             ANALYZE contacts",
            ids.join(","),
            accounts[7],
        ))
        .await;
    let begun = Instant::now();
    let foreseen = played(&scene, plan, None).await;
    let (items, all) = foreseen.page(200, 200);
    let texts = items.iter().filter_map(|item| foreseen.text(item)).count();
    let took = begun.elapsed();
    println!("10,000 people over 20 accounts, {} messages: rehearsed in {took:?}", foreseen.messages);
    assert_eq!((foreseen.targets, foreseen.recipients, foreseen.messages), (10_000, 10_000, 30_000));
    assert_eq!((texts, all), (200, 30_000));
    // New here, it writes to no more than 20 people a day at first.
    assert_eq!(foreseen.bottleneck, Some(accounts[7]));
    let length = foreseen.ends_at.expect("an end") - scene.now().await;
    assert!(length > TimeDelta::days(10), "{length}");
    // Ten seconds as it is built for use; unoptimised and beside other work it may take longer.
    let most = if cfg!(debug_assertions) { 40 } else { 10 };
    assert!(took < Duration::from_secs(most), "{took:?}");
}
