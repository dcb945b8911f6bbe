//! Sensitive words: each once, however it is written.

use serde_json::{Value, json};

use super::{assert_problem, id, items};
use crate::harness::Here;

#[tokio::test]
async fn a_word_is_there_once_however_it_is_written() {
    let here = Here::open().await;
    let admin = here.register().await;
    let path = "/sensitive-words";
    let word = |word: &str, action: &str| json!({"word": word, "action": action});
    let made = admin.post(path, word(" 稳赚 ", "block")).await.expect(201);
    assert_eq!((&made["word"], &made["action"]), (&json!("稳赚"), &json!("block")));
    for same in ["稳赚", "稳 赚", "稳\u{200b}赚"] {
        assert_problem(admin.post(path, word(same, "mask")).await, 409, "word_exists", "");
    }
    admin.post(path, word("Ｖ信", "mask")).await.expect(201);
    assert_problem(admin.post(path, word("v信", "mask")).await, 409, "word_exists", "");
    for bad in ["", "  ", "\u{200b}", "a\nb"] {
        assert_problem(admin.post(path, word(bad, "mask")).await, 422, "validation_failed", "word");
    }
    assert_problem(admin.post(path, word(&"字".repeat(65), "mask")).await, 422, "validation_failed", "word");
    // One character that is compared as eighteen.
    assert_problem(admin.post(path, word(&"ﷺ".repeat(10), "mask")).await, 422, "validation_failed", "word");
    assert_problem(admin.post(path, word("a", "shout")).await, 400, "invalid_request", "action");
    let masked = admin.get("/sensitive-words?action=mask").await.expect(200);
    assert_eq!(items(&masked).iter().map(|item| &item["word"]).collect::<Vec<_>>(), [&json!("Ｖ信")]);

    let stranger = here.register().await;
    stranger.post(path, word("稳赚", "review")).await.expect(201);
    let one = format!("{path}/{}", id(&made["id"]));
    assert_problem(stranger.delete(&one).await, 404, "word_not_found", "");
    assert_eq!(admin.delete(&one).await.status, 204);
    assert_problem(admin.delete(&one).await, 404, "word_not_found", "");
    assert_eq!(admin.all_by(path, 1).await.len(), 1);
}

#[tokio::test]
async fn many_words_are_answered_one_by_one() {
    let here = Here::open().await;
    let admin = here.register().await;
    let path = "/sensitive-words/import";
    let there = admin.post("/sensitive-words", json!({"word": "包过", "action": "block"})).await.expect(201);
    let words = json!([
        {"word": "保本", "action": "review"},
        {"word": "包 过", "action": "mask"},
        {"word": " ", "action": "mask"},
        {"word": "保　本", "action": "block"},
        {"word": "零风险", "action": "mask"},
    ]);
    let answer = admin.post(path, json!({"words": words})).await.expect(200);
    assert_eq!(answer["created"], 2);
    let items = items(&answer).to_vec();
    let of = |index: usize| (&items[index]["created"], &items[index]["action"]);
    assert_eq!(of(0), (&json!(true), &json!("review")));
    assert_eq!(of(1), (&json!(false), &json!("block")));
    assert_eq!(items[1]["id"], there["id"]);
    assert_eq!((&items[2]["error"]["code"], &items[2]["id"]), (&json!("bad_text"), &Value::Null));
    assert_eq!((&items[3]["id"], &items[3]["action"]), (&items[0]["id"], &json!("review")));
    assert_eq!(of(4), (&json!(true), &json!("mask")));
    let again = admin.post(path, json!({"words": words})).await.expect(200);
    assert_eq!(again["created"], 0);
    assert_problem(admin.post(path, json!({"words": []})).await, 422, "validation_failed", "words");
    let many = |count: usize| -> Value {
        let words: Vec<_> = (0..count).map(|n| json!({"word": format!("词{n}"), "action": "mask"})).collect();
        json!({ "words": words })
    };
    assert_problem(admin.post(path, many(2001)).await, 422, "validation_failed", "words");
    // Two imports at once: every word is there once, and both are told so.
    let (one, other) = tokio::join!(admin.post(path, many(2000)), admin.post(path, many(2000)));
    let created = |answer: &Value| answer["created"].as_u64().expect("a number");
    let (one, other) = (one.expect(200), other.expect(200));
    assert_eq!(created(&one) + created(&other), 2000);
    assert!(super::items(&one).iter().chain(super::items(&other)).all(|item| item["id"].is_string()));
    assert_eq!(admin.all("/sensitive-words").await.len(), 2003);
}

#[tokio::test]
async fn the_shipped_list_is_added_once() {
    let here = Here::open().await;
    let admin = here.register().await;
    admin.post("/sensitive-words", json!({"word": "国 家 级", "action": "block"})).await.expect(201);
    let first = admin.post("/sensitive-words/defaults", Value::Null).await.expect(200);
    assert!(first["created"].as_u64().is_some_and(|created| created > 20), "{first}");
    assert_eq!(first["present"], 1);
    let again = admin.post("/sensitive-words/defaults", Value::Null).await.expect(200);
    assert_eq!(again["created"], 0);
    let blocked = admin.get("/sensitive-words?action=block").await.expect(200);
    assert_eq!(items(&blocked).len(), 1, "what was there stays as it is");
    assert!(admin.all("/sensitive-words?action=review").await.iter().any(|item| item["word"] == "保证"));
}
