//! What a dry run says is what happens: the same people, texts, days and reasons, and the same end. And it says it soon.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use chrono::{DateTime, FixedOffset, NaiveDate, TimeDelta, Utc};
use diesel::sql_query;
use diesel::sql_types::{Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, RunQueryDsl};
use entropy_jobs::campaign::dry_run::{self, Played, Question};
use entropy_jobs::campaign::plan::Plans;
use entropy_jobs::campaign::review::{self, Decision};
use entropy_jobs::process::config::Ceilings;
use entropy_schema::campaigns::{candidates, plans, prospects};
use entropy_schema::{Db, Profile};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Scene;
use super::scene::{end, send};

/// Plays a plan in version 1, for these contacts or for those whom it is meant for.
async fn played(scene: &Scene, plan: Uuid, contacts: Option<&[Uuid]>) -> Played {
    // With the settings under which people are answered.
    let db = Db::new(scene.book.database.url(), 1, Profile::Api).expect("a pool");
    let mut conn = db.conn().await.expect("a connection");
    let row = plans::get(&mut conn, scene.book.organization, plan).await.expect("an answer").expect("a plan");
    let text = Plans::default().of(&mut conn, plan, 1).await.expect("an answer").expect("a version");
    let question = Question {
        contacts: contacts.map(<[Uuid]>::to_vec),
        starts_at: None,
        by: None,
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

#[derive(Debug, diesel::QueryableByName)]
struct Held {
    #[diesel(sql_type = SqlUuid)]
    enrollment_id: Uuid,
    #[diesel(sql_type = Text)]
    step_id: String,
    #[diesel(sql_type = Text)]
    named: String,
}

fn day(at: DateTime<Utc>) -> NaiveDate {
    at.with_timezone(&FixedOffset::east_opt(8 * 3600).expect("an offset")).date_naive()
}

/// Lets the clock go from one due moment to the next until everybody is at an end; returns why messages were put off meanwhile. What
/// a person must look at is approved at once; `held` is told of it.
async fn runs(scene: &Scene, held: &mut BTreeSet<String>) -> BTreeSet<String> {
    let mut put_off = BTreeSet::new();
    for _ in 0..400 {
        scene.settles().await;
        if approves(scene, held).await {
            continue;
        }
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

/// Approves every text that waits for a person, and notes them as `contact step reason`. False: none does.
async fn approves(scene: &Scene, held: &mut BTreeSet<String>) -> bool {
    let waiting: Vec<Held> = sql_query(
        "SELECT enrollment_id, step_id, concat_ws(' ', contact_id, step_id, reason) AS named FROM sop_steps
         WHERE state = 'held_for_review'",
    )
    .load(&mut *scene.book.conn().await)
    .await
    .expect("what waits");
    let (organization, mut conn) = (scene.book.organization, scene.book.conn().await);
    for Held { enrollment_id, step_id, .. } in &waiting {
        let approve = Decision::Approve(None);
        let decided = conn
            .transaction(async |conn| {
                review::decide(conn, organization, *enrollment_id, step_id, Uuid::nil(), approve).await
            })
            .await;
        decided.expect("an answer").expect("it is decided");
    }
    let some = !waiting.is_empty();
    held.extend(waiting.into_iter().map(|held| held.named));
    some
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
    let mut put_off = runs(&scene, &mut BTreeSet::new()).await;
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

/// Has the organisation mind a word.
async fn minds(scene: &Scene, word: &str, action: &str) {
    let organization = scene.book.organization;
    scene
        .book
        .run(&format!(
            "INSERT INTO sensitive_words (id, organization_id, word, normalized, action)
             VALUES (gen_random_uuid(), '{organization}', '{word}', '{word}', '{action}')"
        ))
        .await;
}

/// A step of a model.
fn model(id: &str, workflow: &str, fallback: &str, next: Value) -> Value {
    json!({ "id": id, "type": "ai_send", "workflow": workflow, "instruction": "问候一下", "review": "human",
        "fallback_text": fallback, "next": next })
}

#[tokio::test]
async fn words_that_are_minded_do_in_a_dry_run_what_they_do_in_truth() {
    let scene = Scene::set().await;
    minds(&scene, "微信", "mask").await;
    minds(&scene, "稳赚", "block").await;
    minds(&scene, "第一品牌", "review").await;
    let plan = scene
        .plan_with(json!({
            "variables": { "称呼": { "label": "称呼", "default": "您" }, "课程": { "label": "课程" } },
            "steps": [
                send("first", "{{称呼}}好，加微 信聊。", json!("sure")),
                send("sure", "本课程稳赚。", json!("course")),
                send("course", "{{课程}}只剩几席。", json!("brand")),
                send("brand", "我们是第一品牌。", json!("writer")),
                // Of what the plan says in a model's place nobody has asked that a person looks at it.
                model("writer", "没有这个", "微信上见。", Value::Null),
            ],
        }))
        .await;
    let (flowers, gold, brand) =
        (scene.friend("wxid_a").await, scene.friend("wxid_b").await, scene.friend("wxid_c").await);
    let everybody = [flowers, gold, brand];
    scene
        .book
        .run(&format!(
            "UPDATE contacts SET variables = jsonb_build_object('课程', CASE id WHEN '{flowers}' THEN '插花' \
                 WHEN '{gold}' THEN '稳 赚' ELSE '第一品牌课' END)"
        ))
        .await;

    let foreseen = played(&scene, plan, Some(&everybody)).await;
    let (items, _) = foreseen.page(0, usize::MAX >> 1);
    let (mut said, mut left_out, mut looked_at) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for item in items {
        let step = format!("{} {}", item.contact_id, foreseen.step_id(item));
        match (item.outcome, item.reasons.as_slice()) {
            ("sent", reasons) => {
                if let Some(at) = reasons.iter().position(|reason| *reason == "held_for_review") {
                    looked_at.insert(format!("{step} {}", reasons[at + 1]));
                }
                let falls_back = reasons.contains(&"workflow_missing");
                assert_eq!(falls_back, foreseen.step_id(item) == "writer", "{reasons:?}");
                said.insert(format!("{step} {}", foreseen.text(item).expect("a text")));
            }
            (outcome, reasons) => {
                assert_eq!((outcome, reasons[0], item.at), ("skipped", "sensitive_words", None));
                left_out.insert(step);
            }
        }
    }
    assert_eq!((foreseen.messages, foreseen.to_review, foreseen.recipients), (11, 4, 3));
    assert_eq!((left_out.len(), looked_at.len(), said.len()), (4, 4, 11));
    assert!(said.contains(&format!("{gold} first 王女士好，加＊＊＊聊。")), "{said:?}");

    assert_eq!(scene.enroll(plan, &everybody).await.enrolled.len(), 3);
    let mut held = BTreeSet::new();
    runs(&scene, &mut held).await;
    assert_eq!(held, looked_at);
    let lines =
        |what: &str| format!("SELECT concat_ws(' ', contact_id, step_id, {what}) AS word FROM sop_steps");
    let sent = scene.lines(&format!("{} WHERE state = 'sent'", lines("text"))).await;
    assert_eq!(BTreeSet::from_iter(sent), said);
    let skipped = scene
        .lines(&format!("{} WHERE state = 'skipped' AND reason = 'sensitive_words'", lines("NULL")))
        .await;
    assert_eq!(BTreeSet::from_iter(skipped), left_out);
}

#[tokio::test]
async fn what_a_model_writes_waits_for_a_person_and_where_nobody_pays_for_it_the_fallback_text_is_looked_at()
{
    let scene = Scene::set().await;
    minds(&scene, "稳赚", "block").await;
    minds(&scene, "第一品牌", "review").await;
    let plan = scene
        .plan_with(json!({
            "variables": { "课程": { "label": "课程" } },
            "steps": [model("first", "回访", "{{课程}}欢迎您。", Value::Null)],
        }))
        .await;
    let (plain, blocked, reviewed) =
        (scene.friend("wxid_a").await, scene.friend("wxid_b").await, scene.friend("wxid_c").await);
    let (organization, id) = (scene.book.organization, Uuid::now_v7());
    scene
        .book
        .run(&format!(
            "UPDATE contacts SET variables = jsonb_build_object('课程', CASE id WHEN '{plain}' THEN '插花' \
                 WHEN '{blocked}' THEN '稳赚' ELSE '第一品牌' END);
             INSERT INTO ai_workflows (id, organization_id, alias, api_key, key_hash, app_id, requests_per_minute, reserve_yuan)
             VALUES ('{id}', '{organization}', '回访', '-', 'hash-1', 'app-1', 600, 0.5)"
        ))
        .await;
    let everybody = [plain, blocked, reviewed];
    let foreseen = async || {
        let played = played(&scene, plan, Some(&everybody)).await;
        let (items, _) = played.page(0, 10);
        let of = |contact: Uuid| {
            let item = items.iter().find(|item| item.contact_id == contact).expect("an item");
            let reasons: Vec<_> = item.reasons.iter().copied().filter(|code| *code != "spread").collect();
            (item.outcome, reasons)
        };
        (everybody.map(of), played.bill.yuan.normalized().to_plain_string(), played.to_review)
    };
    let written = ("sent", vec!["held_for_review"]);
    assert_eq!(foreseen().await, ([written.clone(), written.clone(), written], "1.5".to_owned(), 3));

    // Whoever has the account is charged for what begins by itself, and has no more than that.
    scene
        .book
        .run(&format!(
            "INSERT INTO budgets (id, organization_id, scope, scope_id, period, limit_yuan)
             SELECT '{id}', '{organization}', 'user', user_id, 'day', 0.4 FROM wechat_accounts"
        ))
        .await;
    let fallen_back = [
        ("sent", vec!["budget"]),
        ("skipped", vec!["sensitive_words", "budget"]),
        ("sent", vec!["budget", "held_for_review", "sensitive_words"]),
    ];
    assert_eq!(foreseen().await, (fallen_back, "0".to_owned(), 1));
}

#[tokio::test]
async fn of_many_at_once_the_same_is_read_as_of_those_who_are_enrolled() {
    let scene = Scene::set().await;
    let other = scene.another_account().await;
    let (plan, another) = (
        scene.plan(json!([send("first", "您好", Value::Null)])).await,
        scene.plan(json!([{ "id": "first", "type": "wait", "for": "P1D", "next": null }])).await,
    );
    // Each of three people is known to two accounts: one is in another plan, one was in this one, of one nothing is known.
    let mut everybody = Vec::new();
    for number in 0..3 {
        for account in [scene.account, other] {
            everybody.push(scene.friend_of(account, &format!("wxid_{number}")).await);
        }
    }
    assert_eq!(scene.enroll(another, &everybody[1..2]).await.enrolled.len(), 1);
    assert_eq!(scene.enroll(plan, &everybody[2..3]).await.enrolled.len(), 1);
    scene.settles().await;
    let mut conn = scene.book.conn().await;
    let organization = scene.book.organization;
    let page = candidates::look_at(&mut conn, organization, &everybody, plan, None).await.expect("a page");
    let all = prospects::candidates(&mut conn, organization, &everybody, plan, None).await.expect("all");
    assert_eq!(format!("{all:?}"), format!("{page:?}"));
    let stands = |who: &candidates::Candidate| (who.in_plan, who.in_other_plan, who.times);
    let expected = [(false, true, 0), (false, false, 1), (false, false, 0)];
    assert_eq!(all.iter().map(stands).collect::<Vec<_>>(), expected.map(|one| [one; 2]).concat());
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
    // Not in there, but looked for in every text that is another one for each.
    minds(&scene, "稳赚", "block").await;
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
