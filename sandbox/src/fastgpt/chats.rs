//! The records of the chats, which outlive the calls.
//!
//! A chat is known by its app and its id. The question and the answer of a round are inserted
//! together after the run; the same `dataId` may be there twice. An answer that ended at a node which
//! asks the customer takes the next round into itself.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use poem::http::header;
use poem::web::{Data, Query};
use poem::{Body, Request, Response, handler};
use serde::Deserialize;
use serde_json::{Value, json};

use super::keys::{Caller, Refused};
use super::runs::shown;
use super::wire;
use crate::Sandbox;

/// How many records a chat keeps.
const KEPT: usize = 1_000;

const BODY_LIMIT: usize = 256 * 1024;

/// One side of a round.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) data_id: String,
    pub(crate) is_answer: bool,
    pub(crate) value: Vec<Value>,
    pub(crate) nodes: Vec<Value>,
    pub(crate) seconds: f64,
    pub(crate) time: DateTime<Utc>,
    /// It ended at a node that asks the customer, who has not answered yet.
    pub(crate) is_waiting: bool,
}

/// All chats, by app and id.
#[derive(Debug, Default)]
pub(crate) struct Chats {
    chats: BTreeMap<(String, String), Vec<Record>>,
}

impl Chats {
    fn records(&self, app_id: &str, chat_id: &str) -> &[Record] {
        self.chats.get(&(app_id.to_owned(), chat_id.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// Returns how many characters of history a run would be given.
    pub(crate) fn history(&self, app_id: &str, chat_id: &str) -> usize {
        // Six rounds are what an app is given by default.
        let texts = self.records(app_id, chat_id).iter().rev().take(12).map(|record| {
            let text =
                |value: &Value| value["text"]["content"].as_str().map_or(0, |text| text.chars().count());
            record.value.iter().map(text).sum::<usize>()
        });
        texts.sum()
    }

    /// Writes a round down.
    pub(crate) fn save(&mut self, app_id: &str, chat_id: &str, question: Record, answer: Record) {
        let records = self.chats.entry((app_id.to_owned(), chat_id.to_owned())).or_default();
        match records.last_mut() {
            // The choice and what followed it become part of the answer that asked.
            Some(last) if last.is_waiting => {
                last.is_waiting = answer.is_waiting;
                last.value.extend(answer.value);
                last.nodes.extend(answer.nodes);
            }
            _ => {
                if records.len() >= KEPT {
                    records.drain(..2);
                }
                records.extend([question, answer]);
            }
        }
    }
}

/// Says whose records a call may read. A key of an app reads those of that app, whatever it asks for.
fn reader(sandbox: &Sandbox, request: &Request) -> Result<Caller, Refused> {
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    sandbox.state().fastgpt.keys.check(header)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResDataQuery {
    #[serde(default)]
    app_id: Option<String>,
    #[serde(default)]
    chat_id: Option<String>,
    #[serde(default)]
    data_id: Option<String>,
}

/// Answers with the node results of one answer, or with an empty list.
#[handler]
pub(crate) fn res_data(
    request: &Request,
    Data(sandbox): Data<&Sandbox>,
    Query(query): Query<ResDataQuery>,
) -> Response {
    let app = match reader(sandbox, request).and_then(|caller| caller.app(query.app_id.as_deref())) {
        Ok(app) => app,
        Err(refused) => return wire::refuse(&refused, false),
    };
    let state = sandbox.state();
    let (chat_id, data_id) = (query.chat_id.unwrap_or_default(), query.data_id.unwrap_or_default());
    let records = state.fastgpt.chats.records(&app, &chat_id).iter();
    let found = records.rev().find(|record| record.is_answer && record.data_id == data_id);
    wire::envelope(json!(found.map_or(&[][..], |record| record.nodes.as_slice())))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    #[serde(default)]
    app_id: Option<String>,
    #[serde(default)]
    chat_id: Option<String>,
    #[serde(default)]
    offset: Option<usize>,
    #[serde(default)]
    page_num: Option<usize>,
    #[serde(default)]
    page_size: Option<usize>,
}

impl Page {
    fn cut<T>(&self, items: Vec<T>) -> Vec<T> {
        let size = self.page_size.unwrap_or(10).clamp(1, 100);
        let offset = self.offset.or(self.page_num.map(|page| page.saturating_sub(1) * size)).unwrap_or(0);
        items.into_iter().skip(offset).take(size).collect()
    }
}

async fn read_page(body: Body) -> Page {
    let bytes = body.into_bytes_limit(BODY_LIMIT).await.unwrap_or_default();
    let empty = Page { app_id: None, chat_id: None, offset: None, page_num: None, page_size: None };
    serde_json::from_slice(&bytes).unwrap_or(empty)
}

/// Lists the records of a chat, newest last; the page is counted from the newest.
#[handler]
pub(crate) async fn pagination_records(
    request: &Request,
    Data(sandbox): Data<&Sandbox>,
    body: Body,
) -> Response {
    let page = read_page(body).await;
    let caller = match reader(sandbox, request) {
        Ok(caller) => caller,
        Err(refused) => return wire::refuse(&refused, false),
    };
    let Ok(app) = caller.app(page.app_id.as_deref()) else {
        return wire::envelope(json!({ "list": [], "total": 0 }));
    };
    let state = sandbox.state();
    let records = state.fastgpt.chats.records(&app, page.chat_id.as_deref().unwrap_or_default());
    let newest_first: Vec<_> = records.iter().enumerate().rev().collect();
    let mut list: Vec<_> =
        page.cut(newest_first).into_iter().map(|(index, record)| shown_record(index, record)).collect();
    list.reverse();
    wire::envelope(json!({ "list": list, "total": records.len() }))
}

fn shown_record(index: usize, record: &Record) -> Value {
    json!({
        "_id": format!("{index:024x}"),
        "dataId": record.data_id,
        "obj": if record.is_answer { "AI" } else { "Human" },
        "value": record.value,
        "time": shown(record.time),
        "durationSeconds": record.seconds,
        "hideInUI": false,
        "llmModuleAccount": 1,
        "historyPreviewLength": record.nodes.len()
    })
}

/// Lists the chats of an app.
#[handler]
pub(crate) async fn histories(request: &Request, Data(sandbox): Data<&Sandbox>, body: Body) -> Response {
    let page = read_page(body).await;
    let app = match reader(sandbox, request).and_then(|caller| caller.app(page.app_id.as_deref())) {
        Ok(app) => app,
        Err(refused) => return wire::refuse(&refused, false),
    };
    let state = sandbox.state();
    let of_app = state.fastgpt.chats.chats.iter().filter(|((of, _), _)| *of == app);
    let list: Vec<_> = of_app
        .map(|((_, chat_id), records)| {
            json!({
                "chatId": chat_id, "appId": app, "customTitle": "", "title": "新对话", "top": false,
                "updateTime": records.last().map(|record| shown(record.time))
            })
        })
        .collect();
    let total = list.len();
    wire::envelope(json!({ "list": page.cut(list), "total": total }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(data_id: &str, is_answer: bool, is_waiting: bool) -> Record {
        let value = vec![json!({"type": "text", "text": {"content": data_id}})];
        let nodes = vec![json!({"id": data_id})];
        Record {
            data_id: data_id.into(),
            is_answer,
            value,
            nodes,
            seconds: 0.1,
            time: Utc::now(),
            is_waiting,
        }
    }

    #[test]
    fn a_round_after_a_question_to_the_customer_is_part_of_the_answer_that_asked() {
        let mut chats = Chats::default();
        chats.save("a", "c", record("q1", false, false), record("r1", true, true));
        assert!(chats.records("a", "c")[1].is_waiting && chats.records("b", "c").is_empty());
        chats.save("a", "c", record("q2", false, false), record("r2", true, false));
        assert!(!chats.records("a", "c")[1].is_waiting);
        assert_eq!(chats.records("a", "c").len(), 2);
        assert_eq!(chats.records("a", "c")[1].nodes.len(), 2);
        chats.save("a", "c", record("q3", false, false), record("r1", true, false));
        assert_eq!(chats.records("a", "c").len(), 4, "the same dataId may be there twice");
    }
}
