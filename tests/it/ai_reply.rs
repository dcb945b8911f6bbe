//! From a turn that is due to the messages that answer it: `ai_reply` against a real record and a model that is told what
//! to do.

mod asking;
mod endings;
mod late;
mod pictures;
mod scene;

use std::time::Duration;

use diesel_async::AsyncConnection;
use entropy_jobs::ai::deliver::{Delivery, deliver};
use entropy_jobs::ai::overdue;
use entropy_jobs::ai::port::{Answer, ErrorClass};
use entropy_schema::{drafts, replies};
use uuid::Uuid;

use scene::{CUSTOMER, Scene, Script, answer, code, error, outcome, waits};

#[tokio::test]
async fn three_messages_in_a_row_get_one_answer_and_cost_one_line_per_node() {
    let scene = Scene::open().await;
    let turn = scene.write("在吗").await;
    assert_eq!(scene.write("你们几点开门").await, turn);
    assert_eq!(scene.write("周日也开吗").await, turn);
    scene.next(Ok(answer("**九点**开门，周日也开。")));
    let end = scene.attempt(turn).await;
    assert_eq!(outcome(&end), "sent", "{end:?}");
    assert_eq!(scene.questions(), ["在吗\n你们几点开门\n周日也开吗"]);
    assert_eq!(scene.sends().await, ["我是 AI 助手。\n九点开门，周日也开。"]);
    assert_eq!(scene.state(turn).await, "answering");
    let lines = scene
        .json(
            "SELECT jsonb_agg(jsonb_build_array(model_name, input_tokens, output_tokens, estimated)) AS value \
             FROM cost_ledgers",
        )
        .await;
    assert_eq!(lines, serde_json::json!([["demo-model", 812, 46, false]]));
    // The process died after its second commit: the job is given out again.
    let again = scene.attempt(turn).await;
    assert_eq!(outcome(&again), "sent");
    assert_eq!(
        (scene.questions().len(), scene.sends().await.len()),
        (1, 1),
        "nothing is asked or said twice"
    );
}

#[tokio::test]
async fn the_disclosure_is_said_until_it_was_sent_and_then_no_more() {
    let scene = Scene::open().await;
    for (text, disclosed, sent) in [("一", true, false), ("二", true, true), ("三", false, true)] {
        let turn = scene.write(text).await;
        scene.next(Ok(answer("好的")));
        assert_eq!(outcome(&scene.attempt(turn).await), "sent");
        let said = scene.sends().await.pop().expect("a message");
        assert_eq!(said.starts_with("我是 AI 助手。\n"), disclosed, "{text}: {said}");
        // What the gate does when it lets the first message through, or when something newer comes first.
        let becomes = if sent { "'answered', answered_at = clock_timestamp()" } else { "'dropped'" };
        scene.book.run(&format!("UPDATE turns SET state = {becomes} WHERE id = '{turn}'")).await;
    }
}

#[tokio::test]
async fn after_a_takeover_nothing_is_asked_and_nothing_is_said() {
    let scene = Scene::open().await;
    let turn = scene.write("在吗").await;
    scene.take_over().await;
    let end = scene.attempt(turn).await;
    assert!(["taken_over", "turn_closed"].contains(&code(&end)), "{end:?}");
    assert!(scene.questions().is_empty() && scene.sends().await.is_empty());
}

#[tokio::test]
async fn a_takeover_while_the_model_writes_discards_the_answer_and_books_its_cost() {
    let scene = Scene::open().await;
    let turn = scene.write("在吗").await;
    scene.script(Script { meanwhile: Some(scene.taking_over()), outcome: Ok(answer("在的")) });
    assert_eq!(code(&scene.attempt(turn).await), "taken_over");
    assert!(scene.sends().await.is_empty());
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM cost_ledgers").await, 1);
    assert_eq!(scene.word("SELECT outcome AS word FROM ai_runs").await, "dropped");
}

#[tokio::test]
async fn a_newer_message_while_the_model_writes_gets_everything_answered_once() {
    let scene = Scene::open().await;
    let turn = scene.write("在吗").await;
    let first = scene.id(&format!("SELECT job_id AS id FROM turns WHERE id = '{turn}'")).await;
    scene.script(Script { meanwhile: Some(scene.writing("我想退货")), outcome: Ok(answer("在的")) });
    assert_eq!(code(&scene.attempt(turn).await), "newer_message");
    assert!(scene.sends().await.is_empty());
    scene.next(Ok(answer("请问订单号是多少？")));
    assert_eq!(outcome(&scene.attempt(turn).await), "sent");
    assert_eq!(scene.questions()[1], "在吗\n我想退货");
    assert_eq!(scene.sends().await, ["我是 AI 助手。\n请问订单号是多少？"]);
    assert_eq!(
        scene.book.number("SELECT count(DISTINCT run_id) AS n FROM cost_ledgers").await,
        2,
        "both are paid"
    );
    assert_eq!(
        outcome(&scene.attempt_of(first).await),
        "newer_message",
        "the first job stays without effect"
    );
    assert_eq!(scene.sends().await.len(), 1);
}

#[tokio::test]
async fn an_answer_that_was_lost_is_looked_up_and_not_asked_for_again() {
    let scene = Scene::open().await;
    let turn = scene.write("在吗").await;
    scene.next(Err(error(ErrorClass::Ambiguous)));
    let end = scene.attempt(turn).await;
    assert_eq!(code(&end), "ai_answer_lost");
    assert_eq!(waits(&end), Duration::from_secs(2));
    assert_eq!(scene.word("SELECT state AS word FROM ai_runs").await, "calling");
    scene.records(Some(answer("在的")));
    assert_eq!(outcome(&scene.attempt(turn).await), "sent");
    assert_eq!((scene.questions().len(), scene.sends().await.len()), (1, 1));
}

#[tokio::test]
async fn an_answer_that_nobody_knows_of_is_paid_for_once_more_and_then_a_person_is_asked() {
    let scene = Scene::open().await;
    let turn = scene.write("在吗").await;
    // As long ago as it takes until no provider can still be writing.
    let later = "UPDATE ai_runs SET started_at = started_at - interval '3 minutes'";
    scene.next(Err(error(ErrorClass::Ambiguous)));
    assert_eq!(code(&scene.attempt(turn).await), "ai_answer_lost");
    scene.book.run(later).await;
    // The first run is given up, and the model asked once more.
    scene.next(Err(error(ErrorClass::Ambiguous)));
    assert_eq!(code(&scene.attempt(turn).await), "ai_answer_lost");
    scene.book.run(later).await;
    assert_eq!(outcome(&scene.attempt(turn).await), "handed_off");
    assert_eq!(scene.questions().len(), 2);
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM ai_runs WHERE state = 'unknown'").await, 2);
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM cost_ledgers WHERE estimated").await, 2);
    assert_eq!(scene.state(turn).await, "handed_off");
    assert!(scene.sends().await.is_empty());
}

#[tokio::test]
async fn no_fault_of_the_workflow_reaches_the_customer() {
    for (texts, reason) in [
        (vec![Ok("")], "empty_answer"),
        (vec![Ok("<think>客户在问价格</think>")], "empty_answer"),
        (vec![Ok("common:code_error.error_message.514")], "answer_failed"),
        (vec![Err("模型超时"), Err("模型超时")], "answer_failed"),
    ] {
        let scene = Scene::open().await;
        let turn = scene.write("在吗").await;
        for text in texts {
            scene.next(Ok(match text {
                Ok(text) => answer(text),
                Err(fault) => Answer { node_error: Some(fault.to_owned()), ..answer("半句话") },
            }));
        }
        assert_eq!(outcome(&scene.attempt(turn).await), "handed_off", "{reason}");
        assert!(scene.sends().await.is_empty());
        assert_eq!(scene.alerts().await, [format!("handed_off:{reason}")]);
        assert_eq!(scene.state(turn).await, "handed_off");
    }
}

#[tokio::test]
async fn a_budget_that_is_used_up_asks_nobody_but_a_person() {
    let scene = Scene::open().await;
    let organization = scene.book.organization;
    scene
        .book
        .run(&format!(
            "INSERT INTO budgets (id, organization_id, scope, scope_id, period, limit_yuan)
             VALUES ('{}', '{organization}', 'organization', '{organization}', 'day', 0.1)",
            Uuid::now_v7()
        ))
        .await;
    let turn = scene.write("在吗").await;
    assert_eq!(outcome(&scene.attempt(turn).await), "handed_off");
    assert!(scene.questions().is_empty() && scene.sends().await.is_empty());
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM ai_runs").await, 0);
    assert!(scene.alerts().await.contains(&"handed_off:budget_exhausted".to_owned()));
}

#[tokio::test]
async fn a_call_that_did_not_get_through_is_made_again_until_the_customer_has_waited_long_enough() {
    let scene = Scene::open().await;
    let turn = scene.write("在吗").await;
    scene.next(Err(error(ErrorClass::NotRun)));
    let end = scene.attempt(turn).await;
    assert_eq!((code(&end), waits(&end)), ("ai_unreachable", Duration::from_secs(1)));
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM budget_reservations").await, 0);
    scene.book.run("UPDATE turns SET last_message_at = last_message_at - interval '3 minutes'").await;
    scene.next(Err(error(ErrorClass::NotRun)));
    assert_eq!(outcome(&scene.attempt(turn).await), "handed_off");
    assert_eq!(scene.alerts().await, ["handed_off:ai_unreachable"]);
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM cost_ledgers").await, 0, "nothing ran");
}

#[tokio::test]
async fn a_refused_key_is_left_alone_and_people_are_told() {
    let scene = Scene::open().await;
    let turn = scene.write("在吗").await;
    scene.next(Err(error(ErrorClass::Refused)));
    assert_eq!(outcome(&scene.attempt(turn).await), "handed_off");
    assert_eq!(scene.alerts().await, ["handed_off:ai_refused", "ai_key_refused"]);
    scene.book.run("UPDATE conversations SET mode = 'ai', mode_until = NULL").await;
    let turn = scene.write("还在吗").await;
    assert_eq!(
        outcome(&scene.attempt(turn).await),
        "handed_off",
        "five minutes are longer than a customer waits"
    );
    assert_eq!(scene.questions().len(), 1, "the key is not tried again");
}

#[tokio::test]
async fn a_key_makes_as_many_calls_a_minute_as_its_workflow_says() {
    let scene = Scene::open().await;
    scene.book.run("UPDATE ai_workflows SET requests_per_minute = 1").await;
    let turn = scene.write("一").await;
    scene.next(Ok(answer("好的")));
    assert_eq!(outcome(&scene.attempt(turn).await), "sent");
    scene.book.run("UPDATE turns SET state = 'answered', answered_at = clock_timestamp()").await;
    let turn = scene.write("二").await;
    let end = scene.attempt(turn).await;
    assert_eq!(code(&end), "ai_rate_limited");
    assert!(waits(&end) > Duration::from_secs(50) && waits(&end) <= Duration::from_secs(61));
    assert_eq!(scene.questions().len(), 1);
}

#[tokio::test]
async fn words_are_masked_reviewed_or_blocked() {
    let scene = Scene::open().await;
    let organization = scene.book.organization;
    for (word, action) in [("微信号", "mask"), ("第一", "review"), ("稳赚", "block")] {
        scene
            .book
            .run(&format!(
                "INSERT INTO sensitive_words (id, organization_id, word, normalized, action)
                 VALUES ('{}', '{organization}', '{word}', '{word}', '{action}')",
                Uuid::now_v7()
            ))
            .await;
    }
    for (text, becomes) in
        [("我的微 信 号是", "sent"), ("行业第 一", "drafted"), ("稳\u{200b}赚不赔", "handed_off")]
    {
        let turn = scene.write("在吗").await;
        scene.next(Ok(answer(text)));
        assert_eq!(outcome(&scene.attempt(turn).await), becomes, "{text}");
        scene.book.run(&format!("UPDATE turns SET state = 'answered' WHERE id = '{turn}'")).await;
    }
    assert_eq!(scene.sends().await, ["我是 AI 助手。\n我的＊＊＊＊＊是"]);
    assert_eq!(scene.book.number("SELECT cardinality(word_ids)::bigint AS n FROM drafts").await, 1);
    assert!(scene.alerts().await.contains(&"handed_off:sensitive_words".to_owned()));
}

#[tokio::test]
async fn an_answer_that_is_to_be_reviewed_waits_for_a_person_and_then_goes_out_or_not() {
    let scene = Scene::open().await;
    scene.book.run("UPDATE account_ai SET review = 'human'").await;
    let turn = scene.write("在吗").await;
    scene.next(Ok(answer("在的")));
    assert_eq!(outcome(&scene.attempt(turn).await), "drafted");
    assert!(scene.sends().await.is_empty());
    assert_eq!(scene.state(turn).await, "review");
    let organization = scene.book.organization;
    let mut conn = scene.book.conn().await;
    let draft = drafts::list(&mut conn, organization, &drafts::Filter::default(), 10)
        .await
        .expect("drafts")
        .remove(0);
    assert_eq!(draft.texts(), ["在的"]);
    conn.transaction(async |conn| {
        replies::lock_lane(conn, scene.account).await?;
        let chat = replies::lock_chat(conn, organization, scene.chat).await?.expect("a chat");
        assert!(drafts::decide(conn, organization, draft.id, "approved", None, None).await?);
        assert!(!drafts::decide(conn, organization, draft.id, "rejected", None, None).await?, "once only");
        let delivery = Delivery {
            organization_id: organization,
            account_id: scene.account,
            conversation_id: scene.chat,
            peer_wxid: CUSTOMER,
            mention: None,
            turn_id: turn,
            run: draft.run,
            epoch: draft.epoch,
            text: &draft.texts().join("\n"),
            disclosed: false,
            now: chat.now,
            trace_id: "0af7651916cd43dd8448eb211c80319c",
            created_by: None,
        };
        deliver(conn, &delivery).await
    })
    .await
    .expect("delivered");
    assert_eq!(scene.sends().await, ["我是 AI 助手。\n在的"]);
    assert_eq!(scene.state(turn).await, "answering");
}

#[tokio::test]
async fn a_draft_about_which_nobody_decides_goes_to_a_person() {
    let scene = Scene::open().await;
    scene.book.run("UPDATE account_ai SET review = 'human'").await;
    let turn = scene.write("在吗").await;
    scene.next(Ok(answer("在的")));
    assert_eq!(outcome(&scene.attempt(turn).await), "drafted");
    overdue::pass(&scene.book.db).await.expect("a pass");
    assert_eq!(scene.state(turn).await, "review", "it still has time");
    scene.book.run("UPDATE drafts SET expires_at = clock_timestamp() - interval '1 second'").await;
    overdue::pass(&scene.book.db).await.expect("a pass");
    overdue::pass(&scene.book.db).await.expect("another one finds nothing");
    assert_eq!(scene.state(turn).await, "handed_off");
    assert_eq!(scene.alerts().await, ["draft_waiting", "handed_off:draft_expired"]);
}

#[tokio::test]
async fn a_turn_whose_job_died_goes_to_a_person() {
    let scene = Scene::open().await;
    let turn = scene.write("在吗").await;
    let organization = scene.book.organization;
    let job = scene.id(&format!("SELECT job_id AS id FROM turns WHERE id = '{turn}'")).await;
    scene
        .book
        .run(&format!(
            "UPDATE jobs SET final_state = 'dead', finalized_at = now() WHERE id = '{job}';
             INSERT INTO job_endings (job_id, organization_id, state) VALUES ('{job}', '{organization}', 'dead')"
        ))
        .await;
    overdue::pass(&scene.book.db).await.expect("a pass");
    assert_eq!(scene.state(turn).await, "handed_off");
}

#[tokio::test]
async fn nobody_is_answered_who_does_not_want_it_or_for_whom_it_is_switched_off() {
    let scene = Scene::open().await;
    let organization = scene.book.organization;
    for (change, undo, reason) in [
        (
            format!(
                "INSERT INTO opt_outs (organization_id, wxid, reason) VALUES ('{organization}', '{CUSTOMER}', 'x')"
            ),
            "DELETE FROM opt_outs",
            "opted_out",
        ),
        (
            "UPDATE contacts SET suppressed_at = now()".to_owned(),
            "UPDATE contacts SET suppressed_at = NULL",
            "suppressed",
        ),
        (
            "UPDATE account_ai SET enabled = false".to_owned(),
            "UPDATE account_ai SET enabled = true",
            "ai_disabled",
        ),
    ] {
        let turn = scene.write("在吗").await;
        scene.book.run(&change).await;
        assert_eq!(code(&scene.attempt(turn).await), reason);
        assert_eq!(scene.state(turn).await, "dropped");
        scene.book.run(undo).await;
    }
    assert!(scene.questions().is_empty());
}
