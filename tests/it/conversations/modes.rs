//! Who answers: people who take over, on the phone or over the API, and hand back.

use chrono::{TimeDelta, Utc};
use entropy_jobs::conversation::Origin;
use entropy_jobs::conversation::apply::Applied;
use entropy_jobs::conversation::mode::Mode;
use entropy_jobs::incoming::{Message, What};
use entropy_jobs::job::JobError;

use super::Scene;
use super::scene::{from, typed};

#[tokio::test]
async fn while_a_person_has_it_nothing_is_answered_and_afterwards_the_next_message_is() {
    let scene = Scene::set().await;
    scene.writes("你好").await;
    let taken = scene.take_over(Some(30)).await;
    assert_eq!(scene.turns().await, ["dropped 1/1 taken_over"]);
    scene.writes("在吗").await;
    assert_eq!(scene.turns().await.len(), 1);
    let back = scene.hand_back().await;
    assert_eq!((back.mode, back.epoch), (Mode::Ai, taken.epoch + 1));
    assert_eq!(scene.hand_back().await, back, "once more changes nothing");
    scene.writes("还在吗").await;
    assert_eq!(scene.turns().await, ["dropped 1/1 taken_over", "open 1/1"]);
    assert_eq!(scene.turn().await.epoch, back.epoch);
    let edges = "SELECT count(*) AS n FROM mode_changes WHERE reason IN ('takeover', 'hand_back')";
    assert_eq!(scene.book.number(edges).await, 2, "both edges are written down");
}

#[tokio::test]
async fn a_takeover_with_an_end_ends_by_itself_and_handing_back_then_disturbs_no_turn() {
    let scene = Scene::set().await;
    scene.writes("你好").await;
    let taken = scene.take_over(Some(1)).await;
    scene.book.run("UPDATE conversations SET mode_until = now() - interval '1 second'").await;
    scene.writes("有人吗").await;
    assert_eq!(scene.turns().await, ["dropped 1/1 taken_over", "open 1/1"]);
    assert_eq!(scene.hand_back().await.epoch, taken.epoch);
    assert_eq!(scene.turns().await, ["dropped 1/1 taken_over", "open 1/1"]);
}

#[tokio::test]
async fn who_types_on_the_phone_has_the_conversation_for_a_while_and_longer_while_they_type() {
    let scene = Scene::set().await;
    scene.writes("你好").await;
    scene.happens(What::Message(typed("您好，我是小李"))).await;
    let (mode, until) = scene.standing().await;
    assert_eq!(mode, Mode::Human);
    let until = until.expect("an end that people can see");
    assert!((until - Utc::now() - TimeDelta::minutes(30)).num_seconds().abs() < 5, "{until}");
    assert_eq!(scene.turns().await, ["dropped 1/1 taken_over"]);
    assert_eq!(scene.chat().await.unread, 0, "who answers has read");
    let epoch = scene.chat().await.mode_epoch;

    scene.book.run("UPDATE conversations SET mode_until = now() + interval '1 minute'").await;
    scene.happens(What::Message(typed("有什么可以帮您"))).await;
    assert!(scene.standing().await.1.expect("an end") > Utc::now() + TimeDelta::minutes(29));
    assert_eq!(scene.chat().await.mode_epoch, epoch, "the same stretch");

    scene.hand_back().await;
    let late = Message { sent_at: Utc::now() - TimeDelta::minutes(5), ..typed("迟到的") };
    scene.happens(What::Message(late)).await;
    assert_eq!(scene.standing().await.0, Mode::Ai, "it was typed before the handing back");
    let ancient = Message { sent_at: Utc::now() - TimeDelta::minutes(40), ..typed("更早的") };
    scene.happens(What::Message(ancient)).await;
    assert_eq!(scene.standing().await.0, Mode::Ai);
    let phone = "SELECT count(*) AS n FROM messages WHERE origin = 'phone' AND direction = 'out'";
    assert_eq!(scene.book.number(phone).await, 4, "all of it is shown");

    let helper = Message { peer_wxid: "filehelper".into(), ..typed("备忘") };
    assert_eq!(scene.happens(What::Message(helper)).await, Applied::Ignored);
}

#[tokio::test]
async fn our_own_messages_are_never_taken_for_somebodys_typing() {
    let scene = Scene::set().await;
    scene.writes("你好").await;
    let send = scene.message(scene.account, Origin::Person, "您好");
    let job = scene.enqueue(send.clone()).await;
    assert_eq!(scene.leaves(job).await, "sent");
    let echo = Message { new_msg_id: "900719925474090001".into(), ..typed("您好") };
    assert_eq!(scene.happens(What::Message(echo)).await, Applied::Ignored, "it carries our own id");

    scene.book.run("UPDATE sends SET state = 'sending', new_msg_id = NULL").await;
    let waits = scene.try_apply(scene.account, What::Message(typed("您好")), 1).await;
    assert!(matches!(waits, Err(JobError::Snooze(_))), "its id is not known yet: {waits:?}");
    scene.book.run("UPDATE sends SET state = 'unknown'").await;
    assert_eq!(scene.happens(What::Message(typed("您好"))).await, Applied::Ignored);
    assert_eq!(scene.standing().await.0, Mode::Ai);
    assert_eq!(scene.happens(What::Message(typed("别的话"))).await, Applied::Applied);
    assert_eq!(scene.standing().await.0, Mode::Human, "other words were typed");
}

#[tokio::test]
async fn what_a_person_hears_from_a_stranger_is_a_chat_of_its_own() {
    let scene = Scene::set().await;
    scene.writes("你好").await;
    scene.take_over(None).await;
    scene.happens(What::Message(from("wxid_other", "你好"))).await;
    assert_eq!(scene.turns().await, ["dropped 1/1 taken_over", "open 1/1"]);
    assert!(scene.standing().await.1.is_none(), "until somebody hands back");
}
