//! Claims, and the ends of attempts.

use entropy_schema::lanes;
use entropy_schema::record::claim;
use entropy_schema::record::finish::{self, Becomes, Finish, LaneWait};
use serde_json::json;
use uuid::Uuid;

use crate::harness::Book;
use crate::harness::book::{end_of, retry_of};

#[tokio::test]
async fn a_second_delivery_of_an_attempt_is_refused() {
    let book = Book::open().await;
    let (one, two) = (Uuid::now_v7(), Uuid::now_v7());
    book.enqueue(&[book.job()]).await;
    let delivery = book.dispatch_one().await;
    let twice = [delivery.clone(), delivery.clone()];
    assert_eq!(book.claim(&twice, one).await.len(), 1, "twice in one statement");
    assert_eq!(book.claim(std::slice::from_ref(&delivery), two).await.len(), 0);
    assert_eq!(book.claim(std::slice::from_ref(&delivery), one).await.len(), 0, "even by the same worker");
}

#[tokio::test]
async fn a_late_delivery_of_an_earlier_attempt_is_refused() {
    let book = Book::open().await;
    let worker = Uuid::now_v7();
    book.enqueue(&[book.job()]).await;
    let first = book.dispatch_one().await;
    let claimed = book.claim(std::slice::from_ref(&first), worker).await;
    book.finish(retry_of(&claimed[0], worker, 0)).await;
    let second = book.dispatch_one().await;
    assert_eq!((first.attempt, second.attempt), (1, 2));
    assert_eq!(book.claim(&[first], worker).await.len(), 0);
    assert_eq!(book.claim(&[second], worker).await.len(), 1);
}

#[tokio::test]
async fn many_workers_with_one_delivery_claim_it_once() {
    let book = Book::open().await;
    book.enqueue(&[book.job()]).await;
    let delivery = [book.dispatch_one().await];
    let claims = (0..12).map(|_| book.claim(&delivery, Uuid::now_v7()));
    let claimed: usize = futures::future::join_all(claims).await.iter().map(Vec::len).sum();
    assert_eq!(claimed, 1);
}

#[tokio::test]
async fn only_the_attempt_that_holds_the_lease_can_end_it() {
    let book = Book::open().await;
    let worker = Uuid::now_v7();
    book.enqueue(&[book.job()]).await;
    let claimed = book.take(worker).await;
    assert!(!book.finish(end_of(&claimed, Uuid::now_v7())).await, "another worker");
    assert!(!book.finish(Finish { attempt: 2, ..end_of(&claimed, worker) }).await, "another attempt");
    assert_eq!(book.state(claimed.job_id).await, "running");
    assert!(book.finish(end_of(&claimed, worker)).await);
    let late = Finish { becomes: Becomes::Final("dead"), outcome: Some("dead"), ..end_of(&claimed, worker) };
    assert!(!book.finish(late).await, "a late finisher changes nothing");
    assert_eq!(book.state(claimed.job_id).await, "completed");
    book.assert_sound().await;
}

#[tokio::test]
async fn many_ends_share_a_statement_and_each_is_told_apart() {
    let book = Book::open().await;
    let worker = Uuid::now_v7();
    book.enqueue(&(0..4).map(|_| book.job()).collect::<Vec<_>>()).await;
    let claimed = book.claim(&book.dispatch().await, worker).await;
    let mut ends: Vec<Finish> = claimed.iter().map(|one| end_of(one, worker)).collect();
    ends[0].result = Some(json!({ "n": 1 }));
    ends[1] = retry_of(&claimed[1], worker, 5000);
    ends[2].becomes = Becomes::Final("dead");
    ends[2].outcome = Some("dead");
    ends[3].worker_id = Uuid::now_v7();
    let ours = finish::finish(&mut *book.conn().await, &ends).await.unwrap();
    assert_eq!(ours.len(), 3);
    let mut states = Vec::new();
    for one in &claimed {
        states.push(book.state(one.job_id).await);
    }
    assert_eq!(states, ["completed", "retryable", "dead", "running"]);
    assert_eq!(book.number("SELECT count(*) AS n FROM attempts").await, 3);
    book.assert_sound().await;
}

#[tokio::test]
async fn an_attempt_that_was_not_spent_is_not_counted() {
    let book = Book::open().await;
    let worker = Uuid::now_v7();
    book.enqueue(&[book.job()]).await;
    for _ in 0..3 {
        let claimed = book.take(worker).await;
        assert_eq!(claimed.attempt, 1);
        let drained = Finish { outcome: None, becomes: Becomes::Available, ..end_of(&claimed, worker) };
        assert!(book.finish(drained).await);
    }
    assert_eq!(book.number("SELECT count(*) AS n FROM attempts").await, 0);
    book.assert_sound().await;
}

#[tokio::test]
async fn the_end_of_an_attempt_may_make_its_lane_wait() {
    let book = Book::open().await;
    let (lane, worker) = (book.lane().await, Uuid::now_v7());
    book.enqueue(&[book.job_in(lane, "a", 2), book.job_in(lane, "b", 2)]).await;
    let claimed = book.take(worker).await;
    let wait = LaneWait { delay_ms: 60_000, code: "messages_per_minute" };
    book.finish(Finish { lane_wait: Some(wait), ..end_of(&claimed, worker) }).await;
    assert_eq!(book.dispatch().await, []);
    book.assert_sound().await;
    lanes::reconsider(&mut *book.conn().await, lane).await.unwrap();
    assert_eq!(book.dispatch().await.len(), 1, "a changed limit is looked at again at once");
}

#[tokio::test]
async fn a_heartbeat_keeps_its_own_leases_and_learns_of_the_lost_and_the_cancelled() {
    let book = Book::open().await;
    let worker = Uuid::now_v7();
    book.enqueue(&(0..3).map(|_| book.job()).collect::<Vec<_>>()).await;
    let claimed = book.claim(&book.dispatch().await, worker).await;
    let ids: Vec<Uuid> = claimed.iter().map(|one| one.job_id).collect();
    book.run(&format!("UPDATE leases SET worker_id = gen_random_uuid() WHERE job_id = '{}'", ids[0])).await;
    book.run(&format!("UPDATE leases SET cancel_requested_at = now() WHERE job_id = '{}'", ids[1])).await;
    book.run("UPDATE leases SET lease_until = now() - interval '1 second'").await;
    let mut kept = claim::keep(&mut *book.conn().await, &ids, worker, 60_000).await.unwrap();
    kept.sort_by_key(|kept| kept.job_id);
    let kept: Vec<_> = kept.iter().map(|kept| (kept.job_id, kept.cancel_requested)).collect();
    assert_eq!(kept, [(ids[1], true), (ids[2], false)]);
    assert_eq!(book.number("SELECT count(*) AS n FROM leases WHERE lease_until > now()").await, 2);
}
