//! Messages and other events that come in.

use chrono::{DateTime, TimeDelta, Utc};
use entropy_jobs::conversation::apply::Applied;
use entropy_jobs::incoming::{AccountEvent, ContactChange, GroupEvent, Message, What};
use entropy_jobs::job::JobError;
use uuid::Uuid;

use super::Scene;
use super::scene::{CUSTOMER, from, in_group};

/// When the job of the turn comes due, and how many such jobs wait.
async fn due(scene: &Scene) -> (f64, i64) {
    let millis = scene
        .book
        .number(
            "SELECT COALESCE((EXTRACT(EPOCH FROM p.due_at - t.opened_at) * 1000)::bigint, -1) AS n
             FROM turns t JOIN pending p ON p.job_id = t.job_id",
        )
        .await;
    let waiting = scene.book.number("SELECT count(*) AS n FROM pending").await;
    (millis as f64 / 1000.0, waiting)
}

#[tokio::test]
async fn messages_in_a_row_are_one_turn_that_is_answered_when_it_is_quiet() {
    let scene = Scene::set().await;
    scene.choose("quiet_ms = 4000, max_ms = 15000").await;
    scene.writes("你好").await;
    let first = scene.turn().await;
    assert_eq!((first.state.as_str(), first.run, first.messages), ("open", 1, 1));
    assert!((due(&scene).await.0 - 4.0).abs() < 0.01);
    scene.book.run("UPDATE turns SET opened_at = opened_at - interval '5 s'").await;
    scene.writes("在吗").await;
    let (after, waiting) = due(&scene).await;
    assert!((9.0..9.9).contains(&after), "four seconds after the second: {after}");
    assert_eq!(waiting, 1, "one job answers both");
    scene.book.run("UPDATE turns SET opened_at = opened_at - interval '8 s'").await;
    scene.writes("想问价格").await;
    assert!((due(&scene).await.0 - 15.0).abs() < 0.01, "no later than fifteen seconds after the first");
    assert_eq!(scene.turns().await, ["open 1/3"]);
    let of_turn = "SELECT count(*) AS n FROM messages m JOIN turns t ON t.id = m.turn_id";
    assert_eq!(scene.book.number(of_turn).await, 3);
    assert_eq!(scene.chat().await.unread, 3);
    scene.book.assert_sound().await;
}

#[tokio::test]
async fn the_last_message_that_a_turn_takes_ends_it_at_once() {
    let scene = Scene::set().await;
    scene.choose("max_messages = 3").await;
    for text in ["一", "二", "三"] {
        scene.writes(text).await;
    }
    let due_now = "SELECT count(*) AS n FROM pending WHERE due_at <= clock_timestamp()";
    assert_eq!(scene.book.number(due_now).await, 1);
    assert_eq!(scene.turns().await, ["open 1/3"]);
}

#[tokio::test]
async fn a_message_that_is_delivered_again_and_again_is_one_message() {
    let scene = Scene::set().await;
    let messages: Vec<Message> = (0..8).map(|n| from(CUSTOMER, &format!("第{n}条"))).collect();
    let deliveries = messages.iter().flat_map(|message| std::iter::repeat_n(message, 3));
    let mut deliveries: Vec<&Message> = deliveries.collect();
    fastrand::shuffle(&mut deliveries);
    let applied = deliveries.into_iter().map(|message| scene.happens(What::Message(message.clone())));
    futures::future::join_all(applied).await;
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM messages").await, 8);
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM conversations").await, 1);
    assert_eq!(scene.chat().await.unread, 8);
    assert_eq!(scene.turns().await, ["open 1/8"]);
    scene.book.assert_sound().await;
}

#[tokio::test]
async fn a_message_while_the_model_writes_is_answered_together_with_the_others_once() {
    let scene = Scene::set().await;
    scene.writes("你好").await;
    let first = scene.turn().await;
    for state in ["replying", "answering"] {
        scene
            .book
            .run(&format!(
                "UPDATE turns SET state = '{state}', run = 1, messages = 1, job_id = '{}'",
                first.job_id
            ))
            .await;
        scene.writes("等等").await;
        let again = scene.turn().await;
        assert_eq!((again.id, again.state.as_str(), again.run, again.messages), (first.id, "open", 2, 2));
        assert_ne!(again.job_id, first.job_id, "another job for another run");
    }
    let second = scene.turn().await;
    scene.turn_is(&second, "open", "replying").await;
    scene.writes("还有").await;
    assert_eq!(
        scene.turns().await,
        ["replying 2/2", "open 1/1"],
        "after the second run it is a turn of its own"
    );
}

#[tokio::test]
async fn a_turn_whose_job_has_died_gets_another() {
    let scene = Scene::set().await;
    scene.writes("你好").await;
    let first = scene.turn().await;
    let dies = async |job: Uuid| {
        let dead = format!(
            "DELETE FROM pending; UPDATE jobs SET final_state = 'dead', finalized_at = now() WHERE id = '{job}';
             INSERT INTO job_endings (job_id, organization_id, state) SELECT id, organization_id, 'dead' FROM jobs WHERE id = '{job}'"
        );
        scene.book.run(&dead).await;
    };
    dies(first.job_id).await;
    scene.writes("在吗").await;
    let again = scene.turn().await;
    assert_eq!((again.id, again.run, again.messages), (first.id, 2, 2));
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM pending").await, 1);

    dies(again.job_id).await;
    scene.writes("还在等").await;
    assert_eq!(scene.turns().await, ["dropped 2/0 job_ended", "open 1/3"], "nothing is left unasked");
    let asked = scene.turn().await;
    let of_it = format!("SELECT count(*) AS n FROM messages WHERE turn_id = '{}'", asked.id);
    assert_eq!(scene.book.number(&of_it).await, 3);
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM pending").await, 1);
    scene.book.assert_sound().await;
}

#[tokio::test]
async fn a_message_that_was_taken_back_leaves_its_turn() {
    let scene = Scene::set().await;
    let kept = scene.writes("你好").await;
    let first = scene.writes("打错了").await;
    let recall = |message: &Message| What::Recalled {
        peer_wxid: message.peer_wxid.clone(),
        new_msg_id: message.new_msg_id.clone(),
    };
    for _ in 0..2 {
        assert_eq!(scene.happens(recall(&first)).await, Applied::Applied);
        assert_eq!(scene.turns().await, ["open 1/1"]);
    }
    scene.happens(recall(&kept)).await;
    assert_eq!(scene.turns().await, ["dropped 1/0 recalled"]);
    assert_eq!(
        scene.book.number("SELECT count(*) AS n FROM messages WHERE recalled_at IS NOT NULL").await,
        2
    );

    let early = from(CUSTOMER, "还没到");
    let waits = scene.try_apply(scene.account, recall(&early), 1).await;
    assert!(matches!(waits, Err(JobError::Retry(_))), "the message may come yet: {waits:?}");
    let gives_up = scene.try_apply(scene.account, recall(&early), 9).await;
    assert!(matches!(gives_up, Ok(Applied::Ignored)), "{gives_up:?}");
}

#[tokio::test]
async fn in_groups_the_ai_answers_who_asks_it_and_each_for_themselves() {
    let scene = Scene::set().await;
    scene.happens(What::Message(in_group("@小李 价格？", true))).await;
    assert!(scene.turns().await.is_empty(), "off by default");
    scene.choose("groups = 'at_only'").await;
    scene.happens(What::Message(in_group("大家好", false))).await;
    assert!(scene.turns().await.is_empty(), "not asked");
    scene.happens(What::Message(in_group("@小李 价格？", true))).await;
    let other = Message { sender_wxid: "wxid_other".into(), ..in_group("@小李 地址？", true) };
    scene.happens(What::Message(other)).await;
    assert_eq!(scene.turns().await, ["open 1/1", "open 1/1"], "two people are never merged");
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM group_members").await, 2);
    assert_eq!(scene.chat_of(scene.account, "100@chatroom").await.kind, "group");
    scene
        .happens(What::Group {
            group_wxid: "100@chatroom".into(),
            what: GroupEvent::Left,
            text: String::new(),
        })
        .await;
    assert_eq!(scene.turns().await, ["dropped 1/1 contact_removed", "dropped 1/1 contact_removed"]);
}

#[tokio::test]
async fn an_old_message_is_shown_to_people_and_not_answered() {
    let scene = Scene::set().await;
    let old = |text: &str| Message { sent_at: Utc::now() - TimeDelta::minutes(11), ..from(CUSTOMER, text) };
    for text in ["昨天的消息", "又一条"] {
        scene.happens(What::Message(old(text))).await;
    }
    assert!(scene.turns().await.is_empty());
    assert_eq!(scene.alerts("missed_message").await, 1, "once per conversation and hour");
    assert_eq!(scene.chat().await.unread, 2);
}

#[tokio::test]
async fn who_asks_for_a_person_gets_one_at_once() {
    let scene = Scene::set().await;
    scene.writes("你好").await;
    scene.writes("转人工").await;
    assert_eq!(scene.turns().await, ["handed_off 1/1 customer_asked"]);
    assert_eq!(scene.alerts("handed_off").await, 1);
    let chat = scene.chat().await;
    assert_eq!((chat.mode.as_str(), chat.mode_reason.as_deref()), ("human", Some("handoff")));
    scene.writes("人工").await;
    assert_eq!(scene.alerts("handed_off").await, 1, "a person has it already");
    assert_eq!(scene.chat().await.mode_epoch, chat.mode_epoch);
}

#[tokio::test]
async fn contacts_come_change_and_go() {
    let scene = Scene::set().await;
    let change = ContactChange {
        wxid: CUSTOMER.into(),
        nickname: Some("王小明".into()),
        became_friend: true,
        ..ContactChange::default()
    };
    scene.happens(What::ContactChanged(change)).await;
    scene.writes("你好").await;
    let removed = What::ContactRemoved { wxid: CUSTOMER.into() };
    assert_eq!(scene.happens(removed.clone()).await, Applied::Applied);
    assert_eq!(scene.happens(removed).await, Applied::Ignored);
    assert_eq!(scene.turns().await, ["dropped 1/1 contact_removed"]);
    assert_eq!(scene.alerts("contact_removed").await, 1);
    let gone = "SELECT count(*) AS n FROM contacts WHERE removed_at IS NOT NULL AND nickname = '王小明'";
    assert_eq!(scene.book.number(gone).await, 1);
    let later =
        Message { sent_at: Utc::now() + TimeDelta::seconds(1), ..from(CUSTOMER, "我又加回来了") };
    scene.happens(What::Message(later)).await;
    assert_eq!(scene.book.number(gone).await, 0, "who writes can be written to");
    let request = |wxid: &str| What::FriendRequest {
        wxid: wxid.into(),
        nickname: "小张".into(),
        greeting: "我是小张".into(),
    };
    scene.happens(request("wxid_new")).await;
    assert_eq!(scene.alerts("friend_request").await, 1);
}

#[tokio::test]
async fn an_outage_of_the_account_raises_one_alert_and_a_hold_of_a_person_stays() {
    let scene = Scene::set().await;
    let status =
        |status: &'static str| format!("SELECT count(*) AS n FROM wechat_accounts WHERE status = '{status}'");
    for _ in 0..3 {
        scene.happens(What::Account(AccountEvent::Offline)).await;
    }
    assert_eq!(scene.book.number(&status("OFFLINE")).await, 1);
    assert_eq!(scene.alerts("account_offline").await, 1);
    scene.happens(What::Account(AccountEvent::Online)).await;
    assert_eq!(scene.book.number(&status("ONLINE")).await, 1);
    scene.happens(What::Account(AccountEvent::Offline)).await;
    assert_eq!(scene.alerts("account_offline").await, 2, "another outage");
    scene.book.run("UPDATE wechat_accounts SET status = 'RISK_HOLD'").await;
    for what in [AccountEvent::Online, AccountEvent::Offline] {
        scene.happens(What::Account(what)).await;
        assert_eq!(scene.book.number(&status("RISK_HOLD")).await, 1);
    }
    let seen: DateTime<Utc> = DateTime::UNIX_EPOCH;
    scene.book.run(&format!("UPDATE wechat_accounts SET last_seen_at = '{seen}'")).await;
    scene.writes("你好").await;
    let lately = "SELECT count(*) AS n FROM wechat_accounts WHERE last_seen_at > now() - interval '1 minute'";
    assert_eq!(scene.book.number(lately).await, 1);
}
