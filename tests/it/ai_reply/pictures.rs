//! Pictures and files of customers: handed over as links, waited for, and never a reason not to answer.

use entropy_jobs::ai::port::Part;
use entropy_jobs::media::Links;
use entropy_jobs::secret::Secret;
use uuid::Uuid;

use super::scene::{Scene, answer, code, outcome};

async fn scene() -> Scene {
    Scene::open_with(|services| {
        let secret = Secret::new("a-secret-of-the-tests");
        services.links = Some(Links::new(&secret, Some("https://media.example".to_owned())));
    })
    .await
}

/// Makes the turn's message a picture that is being downloaded.
async fn becomes_a_picture(scene: &Scene, turn: Uuid) {
    let picture = format!(
        "UPDATE messages SET kind = 'image', text = '', media_state = 'waiting' WHERE turn_id = '{turn}'"
    );
    scene.book.run(&picture).await;
}

#[tokio::test]
async fn a_picture_is_waited_for_and_then_handed_over_as_a_link() {
    let scene = scene().await;
    let turn = scene.write("").await;
    becomes_a_picture(&scene, turn).await;
    assert_eq!(code(&scene.attempt(turn).await), "ai_media_waiting");
    assert_eq!(scene.state(turn).await, "open");
    assert_eq!(
        scene.book.number("SELECT count(*) AS n FROM ai_runs").await,
        0,
        "nothing is reserved meanwhile"
    );
    scene
        .book
        .run(
            "UPDATE messages SET media_state = 'stored', media_path = 'a/b.png', media_type = 'image/png', \
              media_bytes = 70",
        )
        .await;
    scene.next(Ok(answer("这是红色 L 码。")));
    assert_eq!(outcome(&scene.attempt(turn).await), "sent");
    let parts = scene.parts();
    let [Part::Text(text), Part::Image { url }] = &parts[..] else { panic!("{parts:?}") };
    assert_eq!(text, "[图片]");
    let message = scene.id("SELECT id FROM messages").await;
    assert!(url.starts_with(&format!("https://media.example/media/{message}?expires=")), "{url}");
}

#[tokio::test]
async fn a_picture_that_does_not_come_is_a_word_when_the_customer_has_waited_long_enough() {
    let scene = scene().await;
    let turn = scene.write("").await;
    becomes_a_picture(&scene, turn).await;
    assert_eq!(code(&scene.attempt(turn).await), "ai_media_waiting");
    scene.book.run("UPDATE turns SET last_message_at = last_message_at - interval '21 seconds'").await;
    scene.next(Ok(answer("请问您想了解什么？")));
    assert_eq!(outcome(&scene.attempt(turn).await), "sent");
    assert_eq!(scene.parts(), [Part::Text("[图片]".to_owned())]);
}

#[tokio::test]
async fn an_install_that_nobody_can_reach_waits_for_no_picture() {
    let scene = Scene::open().await;
    let turn = scene.write("").await;
    becomes_a_picture(&scene, turn).await;
    scene.next(Ok(answer("请问您想了解什么？")));
    assert_eq!(outcome(&scene.attempt(turn).await), "sent");
    assert_eq!(scene.parts(), [Part::Text("[图片]".to_owned())]);
}
