//! Turns whose job, or whose answer's messages, have ended without saying anything: none waits for ever, and what a lost
//! call may have cost is booked.

use entropy_jobs::ai::overdue;

use super::scene::{CUSTOMER, Scene, Script, answer, code, outcome};

/// A job ends as the record would write it.
async fn end_jobs(scene: &Scene, which: &str, state: &str, error: &str) {
    scene
        .book
        .run(&format!(
            "WITH ended AS (UPDATE jobs SET final_state = '{state}', finalized_at = clock_timestamp(), \
                 error = '{{\"code\": \"{error}\", \"message\": \"x\"}}' WHERE {which} RETURNING id, organization_id), \
                 waits AS (DELETE FROM pending p USING ended WHERE p.job_id = ended.id) \
             INSERT INTO job_endings (job_id, organization_id, state) \
             SELECT id, organization_id, '{state}' FROM ended WHERE '{state}' <> 'completed'"
        ))
        .await;
}

async fn sweep(scene: &Scene) {
    overdue::pass(&scene.book.db).await.expect("a pass");
    overdue::pass(&scene.book.db).await.expect("another one finds nothing");
}

async fn reason(scene: &Scene) -> String {
    scene.word("SELECT reason AS word FROM turns").await
}

#[tokio::test]
async fn an_answer_whose_messages_all_died_or_came_too_late_goes_to_a_person() {
    for (state, error) in [("dead", "quarantined"), ("cancelled", "expired")] {
        let scene = Scene::open().await;
        let turn = scene.write("在吗").await;
        scene.next(Ok(answer("在的")));
        assert_eq!(outcome(&scene.attempt(turn).await), "sent");
        end_jobs(&scene, "kind = 'ai_reply'", "completed", "none").await;
        sweep(&scene).await;
        assert_eq!(scene.state(turn).await, "answering", "its message still waits");
        end_jobs(&scene, "kind = 'send_message'", state, error).await;
        sweep(&scene).await;
        assert_eq!(
            (scene.state(turn).await, reason(&scene).await),
            ("handed_off".into(), "answer_failed".into())
        );
        assert_eq!(scene.alerts().await, ["handed_off:answer_failed"], "{error}");
    }
}

#[tokio::test]
async fn an_answer_that_was_called_off_is_dropped_and_nobody_is_disturbed() {
    let scene = Scene::open().await;
    let turn = scene.write("在吗").await;
    scene.next(Ok(answer("在的")));
    let end = scene.attempt(turn).await;
    let result = end.as_ref().ok().and_then(|done| done.result.clone()).expect("a result");
    scene.book.run(&format!("UPDATE jobs SET result = '{result}' WHERE kind = 'ai_reply'")).await;
    end_jobs(&scene, "kind = 'send_message'", "cancelled", "ai_disabled").await;
    sweep(&scene).await;
    assert_eq!((scene.state(turn).await, reason(&scene).await), ("dropped".into(), "ai_disabled".into()));
    assert!(scene.alerts().await.is_empty());
}

#[tokio::test]
async fn a_turn_whose_job_a_person_called_off_is_dropped() {
    let scene = Scene::open().await;
    let turn = scene.write("在吗").await;
    end_jobs(&scene, "kind = 'ai_reply'", "cancelled", "cancelled").await;
    sweep(&scene).await;
    assert_eq!((scene.state(turn).await, reason(&scene).await), ("dropped".into(), "cancelled".into()));
}

#[tokio::test]
async fn a_call_whose_job_died_is_booked_as_an_estimate_and_its_reservation_given_back() {
    let scene = Scene::open().await;
    let organization = scene.book.organization;
    scene
        .book
        .run(&format!(
            "INSERT INTO budgets (id, organization_id, scope, scope_id, period, limit_yuan, updated_at) \
             VALUES (gen_random_uuid(), '{organization}', 'organization', '{organization}', 'month', 10, now())"
        ))
        .await;
    let turn = scene.write("在吗").await;
    // The call is made, and then the process is gone: nothing of it is written.
    scene.script(Script { meanwhile: Some(Box::pin(std::future::pending())), outcome: Ok(answer("在的")) });
    let asked = async {
        while scene.questions().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = scene.attempt(turn) => panic!("it does not end"),
        () = asked => {}
    }
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM budget_reservations").await, 1);
    sweep(&scene).await;
    assert_eq!(scene.word("SELECT state AS word FROM ai_runs").await, "calling", "its job lives");
    end_jobs(&scene, "kind = 'ai_reply'", "dead", "quarantined").await;
    sweep(&scene).await;
    assert_eq!(scene.word("SELECT state AS word FROM ai_runs").await, "unknown");
    assert_eq!(scene.state(turn).await, "handed_off");
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM budget_reservations").await, 0);
    let booked = "SELECT count(*) AS n FROM cost_ledgers l, budget_periods p WHERE l.estimated \
        AND l.calculated_cost = p.spent_yuan AND p.reserved_yuan = 0 AND p.spent_yuan > 0";
    assert_eq!(scene.book.number(booked).await, 1, "once, and in the budget");
}

#[tokio::test]
async fn a_turn_for_which_the_ai_is_switched_off_while_it_writes_is_closed() {
    for (change, reason_given) in [
        ("UPDATE account_ai SET enabled = false", "ai_disabled"),
        ("UPDATE contacts SET suppressed_at = now()", "suppressed"),
    ] {
        let scene = Scene::open().await;
        let turn = scene.write("在吗").await;
        let db = scene.book.db.clone();
        let meanwhile = Box::pin(async move {
            let mut conn = db.conn().await.expect("a connection");
            diesel_async::SimpleAsyncConnection::batch_execute(&mut conn, change).await.expect("changed");
        });
        scene.script(Script { meanwhile: Some(meanwhile), outcome: Ok(answer("在的")) });
        assert_eq!(code(&scene.attempt(turn).await), reason_given);
        assert_eq!((scene.state(turn).await, reason(&scene).await), ("dropped".into(), reason_given.into()));
        assert!(scene.sends().await.is_empty(), "{CUSTOMER} is left alone");
    }
}
