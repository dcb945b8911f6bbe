//! The plans of what campaigns run all the time, over a million people on their way.

use chrono::{TimeDelta, Utc};
use diesel_async::AsyncConnection;
use entropy_schema::Profile;
use entropy_schema::campaigns::enrollments::{self, Whose};
use entropy_schema::campaigns::facts::{self, Since};
use entropy_schema::campaigns::steps;
use uuid::Uuid;

use super::{ORGANIZATION, Observer, id, observe};
use crate::harness::Book;

/// Tables that nothing may read from end to end.
static LARGE: [&str; 5] = ["sop_enrollments", "sop_steps", "contacts", "pending", "leases"];

/// The plan in which all of them are.
const PLAN: Uuid = Uuid::from_u128(0x0191_0000_0000_7000_8000_0000_0000_0001);

/// The account, contact and enrollment of somebody who is due.
const ACCOUNT: Uuid = Uuid::from_u128(0x0181_0000_0000_7000_8000_0000_0000_0007);
const CONTACT: Uuid = Uuid::from_u128(0x0182_0000_0000_7000_8000_0000_0000_0007);
const ENROLLMENT: Uuid = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0007);

/// A million enrollments in fifty accounts, of which nobody has been analysed: a thousand are due, the others sleep. 50,000 have
/// had their first message.
fn history() -> String {
    let o = ORGANIZATION;
    let (account, contact, enrollment) = (
        id("01810000-0000-7000-8000", "n % 50"),
        id("01820000-0000-7000-8000", "n"),
        id("01920000-0000-7000-8000", "n"),
    );
    let one_account = id("01810000-0000-7000-8000", "n");
    let user = Uuid::from_u128(1);
    format!(
        "ALTER TABLE sop_enrollments SET (autovacuum_enabled = off); ALTER TABLE sop_steps SET (autovacuum_enabled = off);
         INSERT INTO organizations (id, name) VALUES ('{o}', '大客户');
         INSERT INTO users (id, organization_id, username, hashed_password, role)
         VALUES ('{user}', '{o}', 'plans', 'x', 'admin');
         INSERT INTO wechat_accounts (id, organization_id, user_id, wxid, gewe_app_id, status, messages_per_minute, min_gap_ms,
            messages_per_day, recipients_per_minute, api_calls_per_hour)
         SELECT {one_account}, '{o}', '{user}', 'wxid_own_' || n, 'wx_own_' || n, 'ONLINE', 10, 1000, 500, 15, 1000
         FROM generate_series(0, 49) n;
         INSERT INTO sop_tasks (id, organization_id, user_id, name, target_type, workflow_config, status, version)
         VALUES ('{PLAN}', '{o}', '{user}', '公开课', 'friend', '{{}}', 'RUNNING', 1);
         INSERT INTO contacts (id, organization_id, account_id, wxid, kind, nickname)
         SELECT {contact}, '{o}', {account}, 'wxid_' || n, 'friend', '客户' || n FROM generate_series(1, 10000) n;
         INSERT INTO sop_enrollments (id, organization_id, sop_id, version, account_id, contact_id, state, step_id, reached_at,
            due_at, planned_at, wait_code, source)
         SELECT {enrollment}, '{o}', '{PLAN}', 1, {account}, {contact}, 'waiting', 'rest', now(), at, at, 'wait', 'manual'
         FROM (SELECT n, now() + CASE WHEN n <= 1000 THEN - interval '1 minute' ELSE interval '1 day' + n * interval '1 second' END
            AS at FROM generate_series(1, 1000000) n) s;
         INSERT INTO sop_steps (enrollment_id, step_id, organization_id, sop_id, version, account_id, contact_id, kind, state,
            planned_at, sent_at, finished_at)
         SELECT {enrollment}, 'first', '{o}', '{PLAN}', 1, {account}, {contact}, 'send', 'sent', at, at, at
         FROM (SELECT n, now() - n * interval '1 minute' AS at FROM generate_series(1, 50000) n) s;"
    )
}

#[tokio::test]
async fn statements_of_campaigns_walk_their_indexes_over_a_million_people() {
    let book = Book::open_alone().await;
    let began = std::time::Instant::now();
    book.run(&format!("SET statement_timeout = 0; {} SET statement_timeout = '10s'", history())).await;
    println!("filled in {:?}", began.elapsed());
    observe(&book).await;
    let mut seen = Observer::over(&LARGE, &book, Profile::Worker);

    // What a dispatcher asks twice a second: one entry of an index is read, and nothing thrown away.
    seen.most_thrown_away = 0.0;
    assert!(seen.watch("any due", async |conn| enrollments::any_due(conn).await).await);
    seen.most_thrown_away = super::MOST_THROWN_AWAY;
    seen.watch("jobs under way", async |conn| enrollments::jobs_under_way(conn, "sop", 1000).await).await;
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
    let enrollment = seen.watch("lock", async |conn| enrollments::lock(conn, ENROLLMENT).await).await;
    let enrollment = enrollment.expect("an enrollment");
    assert!(seen.watch("facts", async |conn| facts::of(conn, ENROLLMENT).await).await.is_some());
    let (day, week) = (Utc::now() - TimeDelta::days(1), Utc::now() - TimeDelta::days(7));
    let since =
        Since { enrollment: ENROLLMENT, contact: CONTACT, account: ACCOUNT, day, week, answered: None };
    seen.watch("counts", async |conn| facts::counts(conn, &since).await).await;
    seen.watch("a step", async |conn| steps::get(conn, ENROLLMENT, "first").await).await;
    seen.watch("save", async |conn| enrollments::save(conn, &enrollment).await).await;
    seen.watch("an answer", async |conn| {
        enrollments::wake_peer(conn, ORGANIZATION, ACCOUNT, "wxid_7", true).await
    })
    .await;
    seen.watch("a change", async |conn| enrollments::wake(conn, &[CONTACT], false).await).await;
    seen.watch("an opt-out", async |conn| {
        let whose = Whose::Contacts(&[CONTACT]);
        enrollments::end(conn, ORGANIZATION, whose, "opted_out").await
    })
    .await;
    let sleeping = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_4e20);
    seen.watch("taken out", async |conn| {
        enrollments::end(conn, ORGANIZATION, Whose::Enrollment(sleeping), "canceled").await
    })
    .await;
    let page = seen
        .watch("a page", async |conn| enrollments::list(conn, ORGANIZATION, PLAN, None, None, None, 51).await)
        .await;
    assert_eq!(page.len(), 51);
    seen.assert_good();
}
