//! Answers at the gate: whatever has happened since they were written counts.

use diesel::sql_query;
use diesel::sql_types::BigInt;
use diesel_async::RunQueryDsl;
use entropy_jobs::conversation::Origin;
use entropy_jobs::incoming::What;
use entropy_schema::turns::Turn;

use super::Scene;
use super::scene::{CUSTOMER, typed};

/// A turn whose answer waits to be sent.
async fn answering(scene: &Scene) -> Turn {
    scene.writes("多少钱？").await;
    let turn = scene.turn().await;
    scene.turn_is(&turn, "open", "replying").await;
    scene.turn_is(&turn, "replying", "answering").await;
    turn
}

#[tokio::test]
async fn an_answer_that_nothing_speaks_against_leaves_and_stands_in_the_conversation() {
    let scene = Scene::set().await;
    let turn = answering(&scene).await;
    let parts = [scene.answer(&turn, "三百元。").await, scene.part(&turn, 1, "包邮。").await];
    assert_eq!(scene.leaves(parts[0]).await, "sent");
    assert_eq!(scene.turns().await, ["answered 1/1"]);
    assert_eq!(scene.leaves(parts[1]).await, "sent");
    assert_eq!(scene.said(), [(CUSTOMER.into(), "三百元。".into()), (CUSTOMER.into(), "包邮。".into())]);
    let shown = format!(
        "SELECT count(*) AS n FROM messages m JOIN sends s ON s.id = m.send_id \
         WHERE m.direction = 'out' AND m.origin = 'ai' AND m.turn_id = '{}' AND s.state = 'sent' AND m.job_id = s.job_id",
        turn.id
    );
    assert_eq!(scene.book.number(&shown).await, 2);
    scene.book.assert_sound().await;
}

#[tokio::test]
async fn the_rest_of_an_answer_is_not_sent_without_its_beginning() {
    let scene = Scene::set().await;
    let turn = answering(&scene).await;
    // The first part died before its gate.
    let rest = scene.part(&turn, 1, "包邮。").await;
    assert_eq!(scene.leaves(rest).await, "answer_cut");
    assert!(scene.said().is_empty());
    assert_eq!(scene.turns().await, ["answering 1/1"], "the sweep gives it to a person");
}

#[tokio::test]
async fn a_takeover_at_any_moment_silences_the_ai() {
    for moment in ["open", "replying", "review", "answering", "answered"] {
        let scene = Scene::set().await;
        scene.writes("多少钱？").await;
        let turn = scene.turn().await;
        if moment != "open" {
            scene.turn_is(&turn, "open", moment).await;
        }
        let part = scene.answer(&turn, "三百元。").await;
        scene.take_over(Some(30)).await;
        assert_eq!(scene.leaves(part).await, "taken_over", "{moment}");
        scene.hand_back().await;
        let late = scene.answer(&turn, "三百元。").await;
        assert_eq!(scene.leaves(late).await, "taken_over", "{moment}: also after it was handed back");
        assert!(scene.said().is_empty(), "{moment}");
    }
}

#[tokio::test]
async fn typing_on_the_phone_silences_the_ai_and_not_people() {
    let scene = Scene::set().await;
    let turn = answering(&scene).await;
    let part = scene.answer(&turn, "三百元。").await;
    scene.happens(What::Message(typed("我来"))).await;
    assert_eq!(scene.leaves(part).await, "taken_over");
    let person = scene.enqueue(scene.message(scene.account, Origin::Person, "您好")).await;
    assert_eq!(scene.leaves(person).await, "sent");
}

#[tokio::test]
async fn an_answer_that_a_newer_message_has_overtaken_does_not_leave() {
    let scene = Scene::set().await;
    let turn = answering(&scene).await;
    let old = scene.answer(&turn, "三百元。").await;
    scene.writes("蓝色的呢？").await;
    assert_eq!(scene.leaves(old).await, "newer_message");
    let again = scene.turn().await;
    assert_eq!((again.id, again.run), (turn.id, 2));
    let too_early = scene.answer(&again, "蓝色四百。").await;
    assert_eq!(scene.leaves(too_early).await, "newer_message", "the turn still collects");
    scene.turn_is(&again, "open", "answering").await;
    let new = scene.answer(&again, "蓝色四百。").await;
    assert_eq!(scene.leaves(new).await, "sent");
}

#[tokio::test]
async fn what_was_switched_off_or_ended_meanwhile_is_seen() {
    let change = |statement: &'static str| async move {
        let scene = Scene::set().await;
        let turn = answering(&scene).await;
        let part = scene.answer(&turn, "三百元。").await;
        scene.book.run(statement).await;
        let ended = scene.leaves(part).await;
        assert!(scene.said().is_empty(), "{statement}");
        ended
    };
    assert_eq!(change("UPDATE account_ai SET enabled = false").await, "ai_disabled");
    assert_eq!(change("UPDATE contacts SET suppressed_at = now()").await, "contact_suppressed");
    assert_eq!(change("UPDATE contacts SET removed_at = now()").await, "contact_removed");
    assert_eq!(change("UPDATE turns SET state = 'dropped'").await, "taken_over");
    assert_eq!(change("UPDATE conversations SET mode = 'paused'").await, "taken_over");
}

/// The epoch is looked at under the lock that a takeover needs: one of the two is first, and both know which.
#[tokio::test]
async fn of_a_takeover_and_a_gate_at_the_same_time_one_comes_first() {
    let scene = Scene::set().await;
    let mut sent = 0;
    for _ in 0..12 {
        let turn = answering(&scene).await;
        let part = scene.answer(&turn, "三百元。").await;
        let before = scene.said().len();
        let (ended, taken) = futures::future::join(scene.leaves(part), scene.take_over(Some(30))).await;
        let said = scene.said().len() - before;
        assert_eq!(said, usize::from(ended == "sent"), "{ended}");
        sent += said;
        #[derive(diesel::QueryableByName)]
        struct Late {
            #[diesel(sql_type = BigInt)]
            n: i64,
        }
        let late: Late = sql_query(format!(
            "SELECT count(*) AS n FROM sends s JOIN mode_changes m ON m.epoch = {} AND s.started_at > m.changed_at \
             WHERE s.job_id = '{part}'",
            taken.epoch
        ))
        .get_result(&mut *scene.book.conn().await)
        .await
        .expect("an answer");
        assert_eq!(late.n, 0, "nothing is begun after the takeover");
        scene.hand_back().await;
    }
    assert!(sent <= 12);
    scene.book.assert_sound().await;
}

#[tokio::test]
async fn a_message_to_somebody_new_opens_the_conversation() {
    let scene = Scene::set().await;
    let first = scene.enqueue(scene.message(scene.account, Origin::Person, "您好，我是小李")).await;
    assert_eq!(scene.leaves(first).await, "sent");
    let chat = scene.chat().await;
    assert_eq!((chat.unread, chat.mode.as_str(), chat.last_message_at.is_some()), (0, "ai", true));
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM lanes WHERE kind = 'conversation'").await, 1);
    scene.writes("你好").await;
    assert_eq!(scene.chat().await.id, chat.id);
    assert_eq!(scene.turns().await, ["open 1/1"]);
}
