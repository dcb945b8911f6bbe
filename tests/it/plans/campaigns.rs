//! The plans of what campaigns run all the time, over 300,000 people: 200,000 on their way, 100,000 at an end before that.

mod lists;

use chrono::{TimeDelta, Utc};
use diesel_async::AsyncConnection;
use entropy_schema::campaigns::audience::{self, By, Wanted};
use entropy_schema::campaigns::enrollments::{self, Whose};
use entropy_schema::campaigns::facts::{self, Since};
use entropy_schema::campaigns::{candidates, plans, runs, steps};
use entropy_schema::{Profile, replies, risk};
use uuid::Uuid;

use super::{ORGANIZATION, Observer, SLOWEST, id, observe};
use crate::harness::Book;

/// Tables that nothing may read from end to end.
static LARGE: [&str; 7] =
    ["sop_enrollments", "sop_steps", "sop_run_contacts", "contacts", "conversations", "pending", "leases"];

/// People who are on their way.
const LIVING: i64 = 200_000;

/// Enrollments that had ended before.
const ENDED: i64 = 100_000;

/// Entries of an index that a statement reads which is about a few people.
const FEW: f64 = 100.0;

/// The plan in which all of them are, its version in force, and a run of it that is under way.
const PLAN: Uuid = Uuid::from_u128(0x0191_0000_0000_7000_8000_0000_0000_0001);
const RUN: Uuid = Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_0001);
const VERSION: i32 = 2;

/// The account, contact and enrollment of somebody who is due.
const ACCOUNT: Uuid = Uuid::from_u128(0x0181_0000_0000_7000_8000_0000_0000_0007);
const CONTACT: Uuid = Uuid::from_u128(0x0182_0000_0000_7000_8000_0000_0000_0007);
const ENROLLMENT: Uuid = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0007);

/// Returns the ids of the first `count` contacts.
fn contacts(count: u128) -> Vec<Uuid> {
    (1..=count).map(|n| Uuid::from_u128((CONTACT.as_u128() >> 48 << 48) + n)).collect()
}

/// People in fifty accounts, nobody analysed: a thousand are due, the others sleep or are at an end. Half have had their first
/// message. Nobody is looked for by name, so that index would only take its time.
fn history() -> String {
    let o = ORGANIZATION;
    let (account, contact, enrollment) = (
        id("01810000-0000-7000-8000", "n % 50"),
        id("01820000-0000-7000-8000", "n"),
        id("01920000-0000-7000-8000", "n"),
    );
    let (one_account, ended) = (id("01810000-0000-7000-8000", "n"), id("01915000-0000-7000-8000", "n"));
    let (run, plan, chat) = (
        id("01930000-0000-7000-8000", "n"),
        id("01910000-0000-7000-8000", "n"),
        id("01830000-0000-7000-8000", "n"),
    );
    let user = Uuid::from_u128(1);
    let quiet = ["sop_enrollments", "sop_steps", "sop_run_contacts", "contacts", "conversations"]
        .map(|table| format!("ALTER TABLE {table} SET (autovacuum_enabled = off);"))
        .concat();
    let step = "enrollment_id, step_id, organization_id, sop_id, version, account_id, contact_id, kind, state, reason,
        planned_at, next_try_at, job_id, sent_at, finished_at";
    format!(
        "{quiet} DROP INDEX contacts_name_idx;
         INSERT INTO organizations (id, name) VALUES ('{o}', '大客户');
         INSERT INTO users (id, organization_id, username, hashed_password, role)
         VALUES ('{user}', '{o}', 'plans', 'x', 'admin');
         INSERT INTO wechat_accounts (id, organization_id, user_id, wxid, gewe_app_id, status, messages_per_minute, min_gap_ms,
            messages_per_day, recipients_per_minute, api_calls_per_hour)
         SELECT {one_account}, '{o}', '{user}', 'wxid_own_' || n, 'wx_own_' || n, 'ONLINE', 10, 1000, 500, 15, 1000
         FROM generate_series(0, 49) n;
         INSERT INTO sop_tasks (id, organization_id, user_id, name, target_type, workflow_config, status, version,
            next_trigger_at)
         SELECT {plan}, '{o}', '{user}', '公开课', 'friend', '{{}}', CASE WHEN n < 50 THEN 'RUNNING' ELSE 'ARCHIVED' END,
            {VERSION}, CASE WHEN n < 40 THEN now() + n * interval '1 hour' END
         FROM generate_series(1, 500) n;
         INSERT INTO contacts (id, organization_id, account_id, wxid, kind, nickname, tags)
         SELECT {contact}, '{o}', {account}, 'wxid_' || n, 'friend', '小雨',
            CASE WHEN n % 1000 = 0 THEN '{{\"重点\"}}' ELSE '{{}}' END::text[]
         FROM generate_series(1, {LIVING}) n;
         INSERT INTO conversations (id, organization_id, account_id, contact_id, peer_wxid, kind, last_message_at,
            last_inbound_at)
         SELECT {chat}, '{o}', {account}, {contact}, 'wxid_' || n, 'friend', at, CASE WHEN n % 10 = 0 THEN at END
         FROM (SELECT n, now() - n * interval '1 minute' AS at FROM generate_series(1, 20000) n) s;
         INSERT INTO sop_enrollments (id, organization_id, sop_id, version, account_id, contact_id, state, reason, step_id,
            reached_at, due_at, planned_at, wait_code, sent, arms, source)
         SELECT {enrollment}, '{o}', '{PLAN}', CASE WHEN n % 100 = 2 THEN 1 ELSE {VERSION} END, {account}, {contact},
            CASE WHEN n > 190000 THEN 'pending' WHEN n % 100 = 3 THEN 'paused' ELSE 'waiting' END,
            CASE WHEN n % 100 = 3 AND n <= 190000 THEN 'replied' END, CASE WHEN n > 190000 THEN 'first' ELSE 'rest' END,
            now(), at, at,
            CASE WHEN n > 190000 THEN 'begins' WHEN n % 100 = 3 THEN 'paused' WHEN n % 1000 = 4 THEN 'sop_paused' ELSE 'wait' END,
            CASE WHEN n > 100000 THEN 0 ELSE 1 END, CASE WHEN n % 2 = 0 THEN '{{\"arm\": \"a\"}}' ELSE '{{\"arm\": \"b\"}}' END::jsonb,
            'manual'
         FROM (SELECT n, now() + CASE WHEN n <= 1000 THEN - interval '1 minute' ELSE interval '1 day' + n * interval '1 second' END
            AS at FROM generate_series(1, {LIVING}) n) s;
         INSERT INTO sop_enrollments (id, organization_id, sop_id, version, account_id, contact_id, state, reason, step_id,
            reached_at, sent, replied_at, source, finished_at)
         SELECT {ended}, '{o}', '{PLAN}', 1, {account}, {contact},
            CASE WHEN n % 1000 = 5 THEN 'failed' WHEN n % 3 = 0 THEN 'exited' ELSE 'completed' END,
            CASE WHEN n % 1000 = 5 THEN 'plan_unreadable' WHEN n % 3 = 0 THEN 'replied' END, 'rest', at, 1,
            CASE WHEN n % 3 = 0 THEN at END, 'manual', at
         FROM (SELECT n, now() - interval '30 days' - n * interval '1 second' AS at FROM generate_series(1, {ENDED}) n) s;
         INSERT INTO sop_steps ({step})
         SELECT {enrollment}, 'first', '{o}', '{PLAN}', {VERSION}, {account}, {contact}, 'send', 'sent', NULL, at, NULL, NULL,
            at, at
         FROM (SELECT n, now() - n * interval '1 minute' AS at FROM generate_series(1, 100000) n) s;
         INSERT INTO sop_steps ({step})
         SELECT {ended}, 'first', '{o}', '{PLAN}', 1, {account}, {contact}, 'send',
            CASE WHEN n % 5000 = 0 THEN 'unknown' ELSE 'sent' END, NULL, at, NULL, NULL, at, at
         FROM (SELECT n, now() - interval '31 days' - n * interval '1 second' AS at FROM generate_series(1, {ENDED}) n) s;
         INSERT INTO sop_steps ({step})
         SELECT {enrollment}, 'second', '{o}', '{PLAN}', {VERSION}, {account}, {contact}, 'send',
            CASE WHEN n < 2100 THEN 'held_for_review' WHEN n < 3000 THEN 'due' ELSE 'deferred' END,
            CASE WHEN n >= 3000 THEN 'window' END, now(), now() + interval '1 hour',
            CASE WHEN n >= 2100 AND n < 2500 THEN gen_random_uuid() END, NULL, NULL
         FROM generate_series(2000, 4000) n;
         INSERT INTO sop_runs (id, organization_id, sop_id, version, source, fire_at, state, audience, frozen_at, finished_at)
         SELECT {run}, '{o}', '{PLAN}', {VERSION}, 'cron', now() - n * interval '1 hour',
            CASE WHEN n <= 3 THEN 'enrolling' ELSE 'finished' END, 100, now(), CASE WHEN n > 3 THEN now() END
         FROM generate_series(1, 3000) n;
         INSERT INTO sop_run_contacts (run_id, contact_id) SELECT '{RUN}', {contact} FROM generate_series(1, 100000) n;"
    )
}

#[tokio::test]
async fn statements_of_campaigns_walk_their_indexes_over_three_hundred_thousand_people() {
    let book = Book::open_alone().await;
    let began = std::time::Instant::now();
    book.run(&format!("SET statement_timeout = 0; {} SET statement_timeout = '10s'", history())).await;
    println!("filled in {:?}", began.elapsed());
    observe(&book).await;
    let workers = are_carried_on(&book).await;
    let runs = are_brought_in(&book).await;
    for table in ["sop_enrollments", "sop_steps", "sop_runs", "contacts", "conversations"] {
        book.run(&format!("VACUUM (ANALYZE) {table}")).await;
    }
    workers.with(runs).with(lists::are_read(&book).await).with(lists::are_changed(&book).await).assert_good();
}

/// What workers run all the time. Nothing was ever analysed.
async fn are_carried_on(book: &Book) -> Observer<'_> {
    let mut seen = Observer::over(&LARGE, book, Profile::Worker);

    // What a dispatcher asks twice a second: one entry of an index is read, and nothing thrown away.
    (seen.most_thrown_away, seen.most_read) = (0.0, 1.0);
    assert!(seen.watch("any due", async |conn| enrollments::any_due(conn).await).await);
    seen.most_thrown_away = super::MOST_THROWN_AWAY;
    seen.most_read = 11_000.0;
    seen.watch("jobs under way", async |conn| enrollments::jobs_under_way(conn, "sop", 1000).await).await;
    // Of those who are due it reads as many as it takes, whatever their order.
    seen.most_read = 500.0;
    let taken = seen
        .watch("hand out", async |conn| {
            conn.transaction(async |conn| {
                let due = enrollments::take_due(conn, 500).await?;
                let ids: Vec<Uuid> = due.iter().map(|due| due.id).collect();
                enrollments::handed_out(conn, &ids).await?;
                enrollments::put_off(conn, &ids[..10], 500).await?;
                Ok::<_, entropy_schema::Error>(due)
            })
            .await
        })
        .await;
    assert_eq!(taken.len(), 500);

    // Carrying somebody on, and what happens to them meanwhile.
    seen.watch("jobs that ended without a word", async |conn| steps::wake_abandoned(conn, 500).await).await;
    seen.most_read = FEW;
    let enrollment = seen.watch("lock", async |conn| enrollments::lock(conn, ENROLLMENT).await).await;
    let enrollment = enrollment.expect("an enrollment");
    assert!(seen.watch("facts", async |conn| facts::of(conn, ENROLLMENT).await).await.is_some());
    let (day, week) = (Utc::now() - TimeDelta::days(1), Utc::now() - TimeDelta::days(7));
    let since =
        Since { enrollment: ENROLLMENT, contact: CONTACT, account: ACCOUNT, day, week, answered: None };
    seen.watch("counts", async |conn| facts::counts(conn, &since).await).await;
    seen.watch("a step", async |conn| steps::get(conn, ENROLLMENT, "first").await).await;
    let told = seen.watch("what it was told", async |conn| {
        steps::disclosed(conn, ORGANIZATION, CONTACT, Some(Uuid::nil())).await
    });
    assert!(!told.await);
    let job = Uuid::now_v7();
    let step = steps::Step { state: "due".into(), job_id: Some(job), ..step() };
    seen.watch("write a step", async |conn| steps::put(conn, std::slice::from_ref(&step)).await).await;
    let begun = seen.watch("begin", async |conn| steps::begin(conn, ENROLLMENT, "third", job).await).await;
    assert!(begun);
    seen.watch("settle", async |conn| {
        steps::settle(conn, ENROLLMENT, "third", job, "sent", None, true).await
    })
    .await;
    let lost = [job, Uuid::now_v7()];
    seen.watch("lost with their worker", async |conn| steps::settle_lost(conn, &lost).await).await;
    seen.watch("save", async |conn| enrollments::save(conn, &enrollment).await).await;
    seen.watch("lock all of a person", async |conn| enrollments::lock_of_contact(conn, CONTACT).await).await;
    seen.watch("an answer", async |conn| {
        enrollments::wake_peer(conn, ORGANIZATION, ACCOUNT, "wxid_7", true).await
    })
    .await;
    seen.watch("a change", async |conn| enrollments::wake(conn, &[CONTACT], false).await).await;
    let tags = ["重点".to_owned()];
    seen.watch("a tag", async |conn| enrollments::forget_tags(conn, CONTACT, &tags).await).await;
    let known = seen.watch("contacts of a person", async |conn| {
        enrollments::contacts_of(conn, ORGANIZATION, "wxid_7").await
    });
    assert_eq!(known.await, [CONTACT]);
    let chat = Uuid::from_u128(0x0183_0000_0000_7000_8000_0000_0000_0007);
    let answer = seen
        .watch("facts of an answer", async |conn| replies::facts(conn, ORGANIZATION, chat, "wxid_7").await);
    assert!(answer.await.is_some_and(|facts| !facts.disclosed));
    seen.most_read = 1000.0;
    seen.watch("a hold", async |conn| risk::put_back_enrollments(conn, ACCOUNT).await).await;
    seen.watch("a hold is lifted", async |conn| risk::lift(conn, ORGANIZATION, ACCOUNT).await).await;
    seen.most_read = FEW;
    let ended = seen
        .watch("an opt-out", async |conn| {
            enrollments::end(conn, ORGANIZATION, Whose::Contacts(&[CONTACT]), "opted_out").await
        })
        .await;
    assert_eq!(ended.ended, 1);
    let sleeping = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_4e20);
    seen.watch("taken out", async |conn| {
        enrollments::end(conn, ORGANIZATION, Whose::Enrollment(sleeping), "canceled").await
    })
    .await;
    seen
}

/// A step of [`ENROLLMENT`] that nobody has come to.
fn step() -> steps::Step {
    steps::Step {
        enrollment_id: ENROLLMENT,
        step_id: "third".into(),
        organization_id: ORGANIZATION,
        sop_id: PLAN,
        version: VERSION,
        account_id: ACCOUNT,
        contact_id: CONTACT,
        kind: "send".into(),
        state: "planned".into(),
        reason: None,
        planned_at: Utc::now(),
        next_try_at: None,
        job_id: None,
        text: None,
        run_id: None,
        review_until: None,
        decided_by: None,
        sent_at: None,
        finished_at: None,
        written_at: None,
        fallback_code: None,
    }
}

/// What schedulers and runs do.
async fn are_brought_in(book: &Book) -> Observer<'_> {
    let mut seen = Observer::over(&LARGE, book, Profile::Worker);
    seen.most_read = FEW;
    assert!(!seen.watch("any tick", async |conn| plans::any_due(conn).await).await);
    let ticks = seen
        .watch("ticks", async |conn| conn.transaction(async |conn| plans::take_due(conn, 100).await).await);
    assert!(ticks.await.is_empty());
    let run = seen.watch("a run", async |conn| {
        conn.transaction(async |conn| runs::lock(conn, ORGANIZATION, RUN).await).await
    });
    assert!(run.await.is_some());
    seen.watch("running plans", async |conn| facts::running(conn, ORGANIZATION).await).await;

    // A page of a thousand: so much of it is read, of nothing else more.
    (seen.most_read, seen.slowest) = (51_000.0, SLOWEST * 2);
    let page = seen.watch("a page", async |conn| runs::take_contacts(conn, RUN, 1000).await).await;
    assert_eq!(page.len(), 1000);
    let candidates = seen.watch("candidates", async |conn| {
        conn.transaction(async |conn| {
            candidates::lock(conn, ORGANIZATION, &page, PLAN, Some("活动通知")).await
        })
        .await
    });
    let candidates = candidates.await;
    assert_eq!(candidates.len(), 1000);
    let people: Vec<&str> = candidates.iter().map(|who| who.wxid.as_str()).collect();
    let inside = seen
        .watch("who is in it", async |conn| candidates::people_in(conn, ORGANIZATION, PLAN, &people).await);
    assert!(inside.await.len() > 990);

    // A whole audience is read once, and written down where it is. Of tags, a worker reads everybody: see the pool's settings.
    (seen.most_read, seen.slowest) = (LIVING as f64, SLOWEST * 8);
    let run = Uuid::now_v7();
    let written = seen.watch("an audience", async |conn| {
        audience::write_down(conn, &wanted(By::All), run, LIVING, LIVING).await
    });
    assert_eq!(written.await, LIVING);
    let too_many = seen.watch("a large audience", async |conn| {
        audience::write_down(conn, &wanted(By::All), Uuid::now_v7(), 1000, 100_000).await
    });
    assert_eq!(too_many.await, 100_001);
    assert_eq!(book.number("SELECT count(DISTINCT run_id) AS n FROM sop_run_contacts").await, 2);
    let tags = ["重点".to_owned()];
    seen.most_thrown_away = LIVING as f64;
    let tagged = seen.watch("an audience by tag", async |conn| {
        audience::write_down(conn, &wanted(By::Tags(&tags)), Uuid::now_v7(), LIVING, LIVING).await
    });
    assert_eq!(tagged.await, 200);
    seen.most_thrown_away = super::MOST_THROWN_AWAY;
    seen.most_read = 1000.0;
    let named = contacts(1000);
    let named = seen.watch("an audience by names", async |conn| {
        audience::write_down(conn, &wanted(By::Ids(&named)), Uuid::now_v7(), LIVING, LIVING).await
    });
    assert_eq!(named.await, 1000);
    seen
}

/// Friends who are named so.
fn wanted(by: By<'_>) -> Wanted<'_> {
    Wanted {
        organization: ORGANIZATION,
        kind: "friend",
        by,
        accounts: &[],
        for_filter: false,
        for_text: false,
    }
}
