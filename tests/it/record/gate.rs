//! The gate's last look: what changes between its locks and its record still counts.

use chrono::{TimeDelta, Utc};
use diesel_async::AsyncConnection;
use entropy_schema::record::claim::Claimed;
use entropy_schema::record::enqueue::NewJob;
use entropy_schema::sends::{self, NewSend};
use entropy_schema::{Conn, queues};
use uuid::Uuid;

use crate::harness::Book;

/// A claimed message of an account, and who claimed it.
async fn claimed(book: &Book, changed: impl FnOnce(NewJob) -> NewJob) -> (Claimed, Uuid) {
    let (lane, worker, user) = (book.lane().await, Uuid::now_v7(), Uuid::now_v7());
    let organization = book.organization;
    book.run(&format!(
        "INSERT INTO users (id, organization_id, username, hashed_password, role)
         VALUES ('{user}', '{organization}', 'u-{user}', '-', 'agent');
         INSERT INTO wechat_accounts (id, organization_id, user_id, messages_per_minute, min_gap_ms, messages_per_day,
             recipients_per_minute, api_calls_per_hour, status)
         VALUES ('{lane}', '{organization}', '{user}', 10, 0, 10, 10, 10, 'ONLINE')"
    ))
    .await;
    let job = book.job_in(lane, "wxid_1", 0);
    book.enqueue(&[changed(NewJob { kind: "send_message", queue: "send", ..job })]).await;
    (book.take(worker).await, worker)
}

async fn begin(conn: &mut Conn, book: &Book, claimed: &Claimed) -> bool {
    let send = NewSend {
        id: Uuid::now_v7(),
        organization_id: book.organization,
        account_id: claimed.lane_id.expect("a lane"),
        token_key: "install",
        job_id: claimed.job_id,
        attempt: claimed.attempt,
        to_wxid: "wxid_1",
        message_kind: "text",
        message: None,
    };
    sends::begin(conn, &send).await.expect("the record answers")
}

/// The pause is answered once it is committed, and holds no lock of the gate: it can come between.
#[tokio::test]
async fn a_queue_that_is_paused_while_the_gate_reads_its_windows_is_paused() {
    let book = Book::open().await;
    let (claimed, worker) = claimed(&book, |job| job).await;
    let mut conn = book.conn().await;
    conn.transaction(async |conn| {
        let facts = sends::lock_gate(conn, claimed.job_id, claimed.attempt, worker).await?;
        assert!(!facts.expect("the lease is ours").queue_paused);
        queues::pause(&mut *book.conn().await, book.organization, "send").await?;
        assert!(!begin(conn, &book, &claimed).await, "the pause was committed before this");
        let facts = sends::lock_gate(conn, claimed.job_id, claimed.attempt, worker).await?;
        assert!(facts.expect("the lease is ours").queue_paused, "a second look tells why");
        Ok::<_, entropy_schema::Error>(())
    })
    .await
    .expect("committed");
    assert_eq!(book.number("SELECT count(*) AS n FROM sends").await, 0, "nothing may leave");

    queues::resume(&mut conn, book.organization, "send").await.expect("resumed");
    assert!(begin(&mut conn, &book, &claimed).await);
    assert_eq!(book.number("SELECT count(*) AS n FROM sends").await, 1);
}

#[tokio::test]
async fn a_deadline_that_passes_while_the_gate_reads_its_windows_has_passed() {
    let book = Book::open().await;
    let soon = Utc::now() + TimeDelta::milliseconds(400);
    let (claimed, worker) = claimed(&book, |job| NewJob { expires_at: Some(soon), ..job }).await;
    let mut conn = book.conn().await;
    conn.transaction(async |conn| {
        let facts = sends::lock_gate(conn, claimed.job_id, claimed.attempt, worker).await?;
        assert!(facts.expect("the lease is ours").expires_at.is_some());
        tokio::time::sleep((soon - Utc::now() + TimeDelta::milliseconds(50)).to_std().unwrap_or_default())
            .await;
        assert!(!begin(conn, &book, &claimed).await);
        Ok::<_, entropy_schema::Error>(())
    })
    .await
    .expect("committed");
    assert_eq!(book.number("SELECT count(*) AS n FROM sends").await, 0, "nothing may leave");
}
