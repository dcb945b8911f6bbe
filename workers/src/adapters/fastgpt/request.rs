//! How a question looks on the wire.

use entropy_jobs::ai::port::{AiError, App, Ask, Part};
use serde_json::{Value, json};
use uuid::Uuid;

use super::errors;

/// The largest body that FastGPT takes.
const MAX_BODY_BYTES: usize = 20 * 1024 * 1024;

/// Writes the body of a call.
pub(super) fn body(app: &App, ask: &Ask) -> Result<Vec<u8>, AiError> {
    let content = content(&ask.parts).ok_or_else(errors::empty_question)?;
    let mut body = json!({
        "chatId": ask.chat_id,
        "stream": ask.stream,
        // Without it neither the nodes' results nor a question back to the customer would come.
        "detail": true,
        "responseChatItemId": item_id(ask.run_id),
        "customUid": ask.customer,
        // The chat's earlier messages are FastGPT's to remember; sent again, they would be appended.
        "messages": [{ "role": "user", "content": content }],
    });
    if ask.variables.is_object() {
        body["variables"] = ask.variables.clone();
    }
    if let Some(app_id) = app_to_name(app) {
        body["appId"] = app_id.into();
    }
    let bytes = body.to_string().into_bytes();
    if bytes.len() > MAX_BODY_BYTES { Err(errors::question_too_large()) } else { Ok(bytes) }
}

/// Returns the name of a run's answer in the chat's records.
pub(super) fn item_id(run_id: Uuid) -> String {
    run_id.simple().to_string()
}

/// The app's id, which a personal key needs and an app's key ignores. A key may carry it behind a second dash.
fn app_to_name(app: &App) -> Option<&str> {
    let carried = app.api_key.expose().split('-').count() > 2;
    app.app_id.as_deref().filter(|id| !id.is_empty() && !carried)
}

fn content(parts: &[Part]) -> Option<Value> {
    let texts: Option<Vec<&str>> = parts
        .iter()
        .map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Image { .. } | Part::File { .. } => None,
        })
        .collect();
    if let Some(texts) = texts {
        let text = texts.join("\n");
        return Some(Value::from(text))
            .filter(|text| text.as_str().is_some_and(|text| !text.trim().is_empty()));
    }
    let part = |part: &Part| match part {
        Part::Text(text) => json!({ "type": "text", "text": text }),
        Part::Image { url } => json!({ "type": "image_url", "image_url": { "url": url } }),
        Part::File { name, url } => json!({ "type": "file_url", "name": name, "url": url }),
    };
    Some(parts.iter().map(part).collect())
}
