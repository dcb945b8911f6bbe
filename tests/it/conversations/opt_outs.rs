//! Wanting no more messages.

use entropy_jobs::conversation::Origin;
use entropy_jobs::conversation::apply::Applied;
use entropy_jobs::incoming::{Message, What};
use entropy_schema::opt_outs;

use super::Scene;
use super::scene::{CUSTOMER, from, in_group};

#[tokio::test]
async fn a_word_at_one_account_silences_every_machine_at_all_of_them() {
    let scene = Scene::set().await;
    let other = scene.another_account().await;
    scene.writes("你好").await;
    let elsewhere = What::Message(from(CUSTOMER, "你好"));
    assert_eq!(scene.try_apply(other, elsewhere, 1).await.expect("applied"), Applied::Applied);
    let turn = scene.turn().await;
    assert_eq!(turn.account_id, other);
    scene.turn_is(&turn, "open", "answering").await;
    let answer = scene.answer(&turn, "三百元。").await;
    let campaign = scene.enqueue(scene.message(other, Origin::Sop, "双十一大促")).await;

    let word = from(CUSTOMER, "退订。");
    for _ in 0..2 {
        scene.happens(What::Message(word.clone())).await;
    }
    scene.writes("TD").await;
    assert_eq!(scene.turns().await, ["dropped 1/1 opted_out", "dropped 1/1 opted_out"]);
    assert_eq!(scene.alerts("opted_out").await, 1);
    let confirmations = "SELECT count(*) AS n FROM jobs WHERE args ->> 'confirms_opt_out' = 'true'";
    assert_eq!(scene.book.number(confirmations).await, 1, "one polite line, once");

    // Each lane has one at its head; whichever is handed out first.
    let mut ended = Vec::new();
    for job in scene.book.dispatch().await {
        ended.push(scene.finish(job).await);
    }
    for job in scene.book.dispatch().await {
        ended.push(scene.finish(job).await);
    }
    ended.sort();
    assert_eq!(ended, ["opted_out", "opted_out", "sent"], "{answer} {campaign}");
    assert_eq!(scene.said().len(), 1);
    assert!(scene.said()[0].1.contains("不再给您发送"), "{:?}", scene.said());

    scene.writes("还有货吗？").await;
    assert_eq!(scene.turns().await.len(), 2, "who has opted out is not answered by a machine");
    let person = scene.enqueue(scene.message(scene.account, Origin::Person, "有的")).await;
    assert_eq!(scene.leaves(person).await, "sent", "people may");
    assert!(
        opt_outs::remove(&mut *scene.book.conn().await, scene.book.organization, CUSTOMER)
            .await
            .expect("lifted")
    );
    scene.writes("我想再了解").await;
    assert_eq!(scene.turns().await.len(), 3);
    scene.book.assert_sound().await;
}

#[tokio::test]
async fn two_accounts_that_hear_it_at_the_same_time_confirm_it_once() {
    let scene = Scene::set().await;
    let other = scene.another_account().await;
    for account in [scene.account, other] {
        scene.try_apply(account, What::Message(from(CUSTOMER, "你好")), 1).await.expect("applied");
    }
    let says = |account| scene.try_apply(account, What::Message(from(CUSTOMER, "TD")), 1);
    let (here, there) = futures::future::join(says(scene.account), says(other)).await;
    assert!(here.is_ok() && there.is_ok(), "{here:?} {there:?}");
    let confirmations = "SELECT count(*) AS n FROM jobs WHERE args ->> 'confirms_opt_out' = 'true'";
    assert_eq!(scene.book.number(confirmations).await, 1);
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM opt_outs").await, 1);
}

#[tokio::test]
async fn in_a_group_a_word_is_one_members_own_and_only_if_the_account_was_meant() {
    let scene = Scene::set().await;
    scene.choose("groups = 'at_only'").await;
    scene.happens(What::Message(in_group("T", false))).await;
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM opt_outs").await, 0, "small talk");
    let other = Message { sender_wxid: "wxid_other".into(), ..in_group("@小李\u{2005}地址？", true) };
    scene.happens(What::Message(other)).await;
    scene.happens(What::Message(in_group("@小李\u{2005}价格？", true))).await;
    scene.happens(What::Message(in_group("@小李\u{2005}退订", true))).await;
    assert_eq!(scene.turns().await, ["open 1/1", "dropped 1/1 opted_out"], "the other member is answered");
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM jobs WHERE kind = 'send_message'").await, 0);
}
