//! Creating jobs, and what keys mean.

use chrono::{TimeDelta, Utc};
use entropy_schema::record::enqueue::{Enqueued, Idempotency, NewJob};
use uuid::Uuid;

use crate::harness::Book;
use crate::harness::book::end_of;

fn keyed(job: NewJob, key: &str, request: &[u8]) -> NewJob {
    NewJob { idempotency: Some(Idempotency { key: key.into(), request_hash: request.into() }), ..job }
}

fn unique(job: NewJob, key: &str) -> NewJob {
    NewJob { unique_key: Some(key.into()), ..job }
}

#[tokio::test]
async fn the_same_key_and_request_is_the_same_job() {
    let book = Book::open().await;
    let first = keyed(book.job(), "k", b"a");
    let second = keyed(book.job(), "k", b"a");
    assert_eq!(book.enqueue(std::slice::from_ref(&first)).await, [Enqueued::Created(first.id)]);
    assert_eq!(book.enqueue(&[second]).await, [Enqueued::Existing(first.id)]);
    assert_eq!(book.number("SELECT count(*) AS n FROM jobs").await, 1);
    book.assert_sound().await;
}

#[tokio::test]
async fn the_same_key_with_another_request_is_refused() {
    let book = Book::open().await;
    let first = keyed(book.job(), "k", b"a");
    book.enqueue(&[first]).await;
    assert_eq!(book.enqueue(&[keyed(book.job(), "k", b"b")]).await, [Enqueued::KeyReused]);
    assert_eq!(book.number("SELECT count(*) AS n FROM jobs").await, 1);
}

#[tokio::test]
async fn a_key_twice_in_one_statement_is_one_job() {
    let book = Book::open().await;
    let jobs = [keyed(book.job(), "k", b"a"), keyed(book.job(), "k", b"a"), keyed(book.job(), "k", b"b")];
    let answers = book.enqueue(&jobs).await;
    assert_eq!(answers, [Enqueued::Created(jobs[0].id), Enqueued::Existing(jobs[0].id), Enqueued::KeyReused]);
}

#[tokio::test]
async fn keys_of_two_organisations_do_not_meet() {
    let book = Book::open().await;
    let ours = keyed(book.job(), "k", b"a");
    let theirs = NewJob { organization_id: Uuid::now_v7(), ..keyed(book.job(), "k", b"b") };
    let answers = book.enqueue(&[ours.clone(), theirs.clone()]).await;
    assert_eq!(answers, [Enqueued::Created(ours.id), Enqueued::Created(theirs.id)]);
}

#[tokio::test]
async fn a_unique_key_allows_one_live_job_at_a_time() {
    let book = Book::open().await;
    let (worker, first) = (Uuid::now_v7(), unique(book.job(), "u"));
    book.enqueue(std::slice::from_ref(&first)).await;
    assert_eq!(book.enqueue(&[unique(book.job(), "u")]).await, [Enqueued::Existing(first.id)]);
    let claimed = book.take(worker).await;
    assert_eq!(book.enqueue(&[unique(book.job(), "u")]).await, [Enqueued::Existing(first.id)]);
    assert!(book.finish(end_of(&claimed, worker)).await);
    let next = unique(book.job(), "u");
    assert_eq!(book.enqueue(std::slice::from_ref(&next)).await, [Enqueued::Created(next.id)]);
    book.assert_sound().await;
}

#[tokio::test]
async fn an_idempotency_key_remembers_the_job_that_held_the_unique_key() {
    let book = Book::open().await;
    let holder = unique(book.job(), "u");
    book.enqueue(std::slice::from_ref(&holder)).await;
    let both = || keyed(unique(book.job(), "u"), "k", b"a");
    assert_eq!(book.enqueue(&[both()]).await, [Enqueued::Existing(holder.id)]);
    book.run("DELETE FROM unique_keys").await;
    assert_eq!(book.enqueue(&[both()]).await, [Enqueued::Existing(holder.id)]);
}

#[tokio::test]
async fn concurrent_enqueues_with_one_key_make_one_job() {
    let book = Book::open().await;
    let tries = (0..24).map(|_| {
        let job = [keyed(unique(book.job(), "u"), "k", b"a")];
        let book = &book;
        async move { book.enqueue(&job).await[0] }
    });
    let answers = futures::future::join_all(tries).await;
    let created = answers.iter().filter(|answer| matches!(answer, Enqueued::Created(_))).count();
    assert_eq!(created, 1, "{answers:?}");
    let id = |answer: &Enqueued| match answer {
        Enqueued::Created(id) | Enqueued::Existing(id) => *id,
        Enqueued::KeyReused => panic!("the request is the same"),
    };
    assert!(answers.iter().all(|answer| id(answer) == id(&answers[0])), "{answers:?}");
    book.assert_sound().await;
}

#[tokio::test]
async fn a_job_of_the_past_is_available_and_one_of_the_future_is_scheduled() {
    let book = Book::open().await;
    let at = |seconds| Some(Utc::now() + TimeDelta::seconds(seconds));
    let past = NewJob { scheduled_at: at(-60), ..book.job() };
    let future = NewJob { scheduled_at: at(60), ..book.job() };
    book.enqueue(&[past.clone(), future.clone()]).await;
    assert_eq!(
        (book.state(past.id).await, book.state(future.id).await),
        ("available".into(), "scheduled".into())
    );
    assert_eq!(book.dispatch_one().await.job_id, past.id);
}

#[tokio::test]
async fn a_failed_cause_leaves_no_job() {
    use diesel_async::AsyncConnection;
    let book = Book::open().await;
    let (lane, jobs) = (book.lane().await, [keyed(unique(book.job(), "u"), "k", b"a")]);
    let jobs = [NewJob { lane_id: Some(lane), ..jobs[0].clone() }];
    let mut conn = book.conn().await;
    let outcome: Result<(), entropy_schema::Error> = conn
        .transaction(async |conn| {
            entropy_schema::record::enqueue::enqueue(conn, &jobs).await?;
            Err(diesel::result::Error::RollbackTransaction.into())
        })
        .await;
    assert!(outcome.is_err());
    drop(conn);
    assert_eq!(book.enqueue(&jobs).await, [Enqueued::Created(jobs[0].id)]);
}
