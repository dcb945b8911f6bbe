//! Cancel, expire, revive, resolve.

use chrono::{TimeDelta, Utc};
use diesel_async::AsyncConnection;
use entropy_schema::record::control::{self, Cancelled};
use entropy_schema::record::enqueue::NewJob;
use entropy_schema::record::finish::{Becomes, Finish};
use entropy_schema::sends::{self, Ended, NewSend, SendEnd};
use serde_json::json;
use uuid::Uuid;

use crate::harness::Book;
use crate::harness::book::{end_of, retry_of};

async fn cancel(book: &Book, job: Uuid) -> Option<Cancelled> {
    let (mut conn, why) = (book.conn().await, json!({ "code": "cancelled" }));
    conn.transaction(async |conn| control::cancel(conn, book.organization, job, &why).await).await.unwrap()
}

fn dead_of(claimed: &entropy_schema::record::claim::Claimed, worker: Uuid) -> Finish {
    Finish {
        outcome: Some("dead"),
        becomes: Becomes::Final("dead"),
        error: Some(json!({ "code": "refused" })),
        ..end_of(claimed, worker)
    }
}

/// Writes the record of a send and ends it as unknown.
async fn unknown_send(book: &Book, job: Uuid, lane: Uuid) -> Uuid {
    let id = Uuid::now_v7();
    let send = NewSend {
        id,
        organization_id: book.organization,
        account_id: lane,
        token_key: "install",
        job_id: job,
        attempt: 1,
        to_wxid: "wxid_1",
        message_kind: "text",
        message: None,
    };
    let mut conn = book.conn().await;
    sends::begin(&mut conn, &send).await.unwrap();
    let end = SendEnd {
        state: "unknown",
        counts: true,
        msg_id: None,
        new_msg_id: None,
        create_time: None,
        error_class: Some("ambiguous"),
        error_code: Some("timeout"),
        error_message: None,
        settled_as: None,
    };
    assert_eq!(sends::end(&mut conn, id, &end).await.unwrap(), Ended::InTime);
    id
}

/// A dead job of a lane whose send has an unknown outcome.
async fn unknown_job(book: &Book) -> (Uuid, Uuid) {
    let (lane, worker) = (book.lane().await, Uuid::now_v7());
    book.enqueue(&[book.job_in(lane, "a", 0)]).await;
    let claimed = book.take(worker).await;
    let send = unknown_send(book, claimed.job_id, lane).await;
    let result = Some(json!({ "send_status": "unknown", "new_msg_id": null }));
    book.finish(Finish { result, ..dead_of(&claimed, worker) }).await;
    (claimed.job_id, send)
}

#[tokio::test]
async fn a_waiting_job_is_cancelled_at_once() {
    let book = Book::open().await;
    let lane = book.lane().await;
    let scheduled = NewJob { scheduled_at: Some(Utc::now() + TimeDelta::hours(1)), ..book.job() };
    let jobs = [book.job_in(lane, "a", 2), book.job_in(lane, "a", 2), scheduled];
    book.enqueue(&jobs).await;
    for job in [&jobs[0], &jobs[2]] {
        assert_eq!(cancel(&book, job.id).await, Some(Cancelled::Now));
        assert_eq!(cancel(&book, job.id).await, Some(Cancelled::Ended));
        assert_eq!(book.state(job.id).await, "cancelled");
    }
    assert_eq!(book.dispatch_one().await.job_id, jobs[1].id);
    assert_eq!(cancel(&book, Uuid::now_v7()).await, None);
    book.assert_sound().await;
}

#[tokio::test]
async fn a_job_on_its_way_to_a_worker_is_cancelled_and_frees_its_lane() {
    let book = Book::open().await;
    let lane = book.lane().await;
    let jobs = [book.job_in(lane, "a", 2), book.job_in(lane, "a", 2)];
    book.enqueue(&jobs).await;
    let delivery = book.dispatch_one().await;
    assert_eq!(cancel(&book, jobs[0].id).await, Some(Cancelled::Now));
    assert_eq!(book.claim(&[delivery], Uuid::now_v7()).await.len(), 0, "its delivery finds no lease");
    assert_eq!(book.dispatch_one().await.job_id, jobs[1].id);
    book.assert_sound().await;
}

#[tokio::test]
async fn a_running_job_is_asked_to_stop_and_does_not_go_round_again() {
    let book = Book::open().await;
    let worker = Uuid::now_v7();
    book.enqueue(&[book.job()]).await;
    let claimed = book.take(worker).await;
    assert_eq!(cancel(&book, claimed.job_id).await, Some(Cancelled::Requested));
    assert_eq!(book.state(claimed.job_id).await, "running");
    assert!(book.finish(retry_of(&claimed, worker, 1000)).await);
    assert_eq!(book.state(claimed.job_id).await, "cancelled");
    book.assert_sound().await;
}

#[tokio::test]
async fn a_message_that_is_under_way_cannot_be_called_back() {
    let book = Book::open().await;
    let (lane, worker) = (book.lane().await, Uuid::now_v7());
    book.enqueue(&[book.job_in(lane, "a", 0)]).await;
    let claimed = book.take(worker).await;
    unknown_send(&book, claimed.job_id, lane).await;
    assert_eq!(cancel(&book, claimed.job_id).await, Some(Cancelled::TooLate));
    assert_eq!(book.state(claimed.job_id).await, "running");
}

#[tokio::test]
async fn nobody_cancels_or_revives_a_job_of_another_organisation() {
    let book = Book::open().await;
    let theirs = NewJob { organization_id: Uuid::now_v7(), ..book.job() };
    book.enqueue(std::slice::from_ref(&theirs)).await;
    assert_eq!(cancel(&book, theirs.id).await, None);
    let mut conn = book.conn().await;
    let why = json!({});
    let cancelled = control::cancel_waiting(&mut conn, book.organization, &[theirs.id], &why).await.unwrap();
    assert_eq!(cancelled, Vec::<Uuid>::new());
    assert_eq!(
        control::revive(&mut conn, book.organization, &[theirs.id]).await.unwrap(),
        Vec::<Uuid>::new()
    );
}

#[tokio::test]
async fn waiting_jobs_expire_and_others_do_not() {
    let book = Book::open().await;
    let until = |seconds| Some(Utc::now() + TimeDelta::seconds(seconds));
    let jobs = [
        NewJob { expires_at: until(-1), ..book.job() },
        NewJob { expires_at: until(3600), ..book.job() },
        book.job(),
    ];
    book.enqueue(&jobs).await;
    let expired = control::expire(&mut *book.conn().await, 100, &json!({ "code": "expired" })).await.unwrap();
    assert_eq!(expired, 1);
    assert_eq!(book.state(jobs[0].id).await, "cancelled");
    assert_eq!(book.error_code(jobs[0].id).await.as_deref(), Some("expired"));
    assert_eq!(book.dispatch().await.len(), 2);
    book.assert_sound().await;
}

#[tokio::test]
async fn what_stood_behind_a_retry_goes_on_when_the_retry_is_cancelled_or_expires() {
    for expires in [false, true] {
        let book = Book::open().await;
        let (lane, worker) = (book.lane().await, Uuid::now_v7());
        let jobs = [book.job_in(lane, "a", 2), book.job_in(lane, "a", 2)];
        book.enqueue(&jobs).await;
        let claimed = book.take(worker).await;
        book.finish(retry_of(&claimed, worker, 60_000)).await;
        assert_eq!(
            book.dispatch().await,
            [],
            "the retry holds back its conversation, and the lane is settled"
        );
        if expires {
            book.run("UPDATE pending SET expires_at = now() WHERE due_at IS NOT NULL").await;
            assert_eq!(control::expire(&mut *book.conn().await, 100, &json!({})).await.unwrap(), 1);
        } else {
            assert_eq!(cancel(&book, jobs[0].id).await, Some(Cancelled::Now));
        }
        book.assert_sound().await;
        assert_eq!(book.dispatch_one().await.job_id, jobs[1].id);
    }
}

#[tokio::test]
async fn a_dead_job_is_revived_with_its_history_and_one_more_attempt() {
    let book = Book::open().await;
    let (lane, worker) = (book.lane().await, Uuid::now_v7());
    let job = NewJob { max_attempts: 1, unique_key: Some("u".into()), ..book.job_in(lane, "a", 2) };
    book.enqueue(std::slice::from_ref(&job)).await;
    let claimed = book.take(worker).await;
    book.finish(dead_of(&claimed, worker)).await;
    let mut conn = book.conn().await;
    assert_eq!(control::revive(&mut conn, book.organization, &[job.id]).await.unwrap(), [job.id]);
    assert_eq!(control::revive(&mut conn, book.organization, &[job.id]).await.unwrap(), Vec::<Uuid>::new());
    book.assert_sound().await;
    let claimed = book.take(worker).await;
    assert_eq!((claimed.attempt, claimed.max_attempts), (2, 2));
    book.finish(end_of(&claimed, worker)).await;
    assert_eq!(book.number("SELECT count(*) AS n FROM attempts").await, 2);
    book.assert_sound().await;
}

#[tokio::test]
async fn a_dead_job_whose_unique_key_is_taken_or_whose_time_is_over_stays_dead() {
    let book = Book::open().await;
    let worker = Uuid::now_v7();
    let keyed = NewJob { unique_key: Some("u".into()), ..book.job() };
    let late = NewJob { expires_at: Some(Utc::now() + TimeDelta::hours(1)), ..book.job() };
    book.enqueue(&[keyed.clone(), late.clone()]).await;
    for claimed in book.claim(&book.dispatch().await, worker).await {
        book.finish(dead_of(&claimed, worker)).await;
    }
    book.enqueue(&[NewJob { unique_key: Some("u".into()), ..book.job() }]).await;
    book.run("UPDATE jobs SET expires_at = now() WHERE expires_at IS NOT NULL").await;
    let both = [keyed.id, late.id];
    let revived = control::revive(&mut *book.conn().await, book.organization, &both).await.unwrap();
    assert_eq!(revived, Vec::<Uuid>::new());
    book.assert_sound().await;
}

#[tokio::test]
async fn two_dead_jobs_of_one_unique_key_are_not_both_revived() {
    let book = Book::open().await;
    let worker = Uuid::now_v7();
    let mut dead = Vec::new();
    for _ in 0..2 {
        book.enqueue(&[NewJob { unique_key: Some("u".into()), ..book.job() }]).await;
        let claimed = book.take(worker).await;
        book.finish(dead_of(&claimed, worker)).await;
        dead.push(claimed.job_id);
    }
    let revived = control::revive(&mut *book.conn().await, book.organization, &dead).await.unwrap();
    assert_eq!(revived.len(), 1, "{revived:?}");
    book.assert_sound().await;
}

#[tokio::test]
async fn an_unknown_send_is_not_revived_by_accident() {
    let book = Book::open().await;
    let (job, _) = unknown_job(&book).await;
    let revived = control::revive(&mut *book.conn().await, book.organization, &[job]).await.unwrap();
    assert_eq!(revived, Vec::<Uuid>::new());
}

#[tokio::test]
async fn an_unknown_send_is_resolved_once_as_sent_or_as_failed() {
    let book = Book::open().await;
    for (verdict, state) in [("sent", "completed"), ("failed", "dead")] {
        let (job, send) = unknown_job(&book).await;
        let mut conn = book.conn().await;
        let stranger = Uuid::now_v7();
        assert!(!control::resolve_as(&mut conn, stranger, job, verdict, None).await.unwrap());
        assert!(control::resolve_as(&mut conn, book.organization, job, verdict, None).await.unwrap());
        assert!(!control::resolve_as(&mut conn, book.organization, job, "failed", None).await.unwrap());
        assert_eq!(book.state(job).await, state);
        assert_eq!(sends::recorded(&mut conn, send).await.unwrap().unwrap().state, verdict);
        book.assert_sound().await;
    }
}

#[tokio::test]
async fn an_unknown_send_is_resent_when_a_person_says_so() {
    let book = Book::open().await;
    let (job, send) = unknown_job(&book).await;
    let mut conn = book.conn().await;
    assert!(control::resolve_resend(&mut conn, book.organization, job, None).await.unwrap());
    assert!(!control::resolve_resend(&mut conn, book.organization, job, None).await.unwrap());
    assert_eq!(book.take(Uuid::now_v7()).await.attempt, 2);
    assert_eq!(
        sends::recorded(&mut conn, send).await.unwrap().unwrap().state,
        "unknown",
        "it keeps its record"
    );
    book.assert_sound().await;
}
