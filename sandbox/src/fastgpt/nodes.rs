//! What the nodes of a workflow report: models, tokens, points.
//!
//! The models have fixed prices in points, so that a test can work out a sum by hand:
//! `sandbox-chat` 0.002 in and 0.006 out, `sandbox-mini` 0.0005 and 0.001, `sandbox-embedding` 0.0001,
//! each per 1,000 tokens.

use serde_json::{Map, Value, json};

use super::Profile;
use super::scripts::Preset;

/// What is known of a run when its nodes report.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) question: &'a str,
    pub(crate) answer: &'a str,
    pub(crate) model: &'a str,
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
    /// What the last node failed with.
    pub(crate) error: Option<&'a str>,
}

/// Makes the report of a run that has no nodes of its own in its script.
pub(crate) fn preset(preset: Preset, facts: Facts<'_>) -> Vec<Value> {
    let mut nodes = vec![json!({
        "id": "n1", "nodeId": "start01", "moduleName": "common:core.module.template.work_start",
        "moduleType": "workflowStart", "runningTime": 0
    })];
    let query = facts.question.chars().count() as u64;
    if preset != Preset::Plain {
        nodes.push(json!({
            "id": "n2", "nodeId": "search01", "moduleName": "知识库搜索", "moduleType": "datasetSearchNode",
            "runningTime": 0.41, "totalPoints": points(&[(query, 0.0001)]),
            "embeddingModel": "sandbox-embedding", "embeddingTokens": query,
            "similarity": 0.4, "limit": 3000, "searchMode": "embedding",
            "query": facts.question, "quoteList": [{ "id": "q1", "q": "营业时间", "a": "每天九点到十八点" }]
        }));
    }
    if preset == Preset::Rich {
        nodes.push(json!({
            "id": "n3", "nodeId": "extension01", "moduleName": "问题优化", "moduleType": "cfr",
            "runningTime": 0.6, "totalPoints": points(&[(120, 0.0005), (30, 0.001)]), "model": "sandbox-mini",
            "inputTokens": 120, "outputTokens": 30, "query": facts.question, "textOutput": "[]"
        }));
        nodes.push(json!({
            "id": "n4", "nodeId": "tools01", "moduleName": "工具调用", "moduleType": "tools",
            "runningTime": 2.2, "model": "sandbox-chat",
            "totalPoints": points(&[(300, 0.002), (40, 0.006), (80, 0.0005), (20, 0.001)]),
            "childTotalPoints": points(&[(80, 0.0005), (20, 0.001)]),
            "toolCallInputTokens": 300, "toolCallOutputTokens": 40,
            "toolDetail": [
                { "id": "n4a", "nodeId": "tool01", "moduleName": "查库存", "moduleType": "tool", "runningTime": 0.1 },
                { "id": "n4b", "nodeId": "tool02", "moduleName": "分类", "moduleType": "classifyQuestion",
                  "runningTime": 0.4, "totalPoints": points(&[(80, 0.0005), (20, 0.001)]),
                  "model": "sandbox-mini", "inputTokens": 80, "outputTokens": 20 }
            ]
        }));
    }
    nodes.push(chat_node(facts));
    nodes
}

fn chat_node(facts: Facts<'_>) -> Value {
    let mut node = json!({
        "id": "n9", "nodeId": "chat01", "moduleName": "AI 对话", "moduleType": "chatNode", "runningTime": 1.9,
        "model": facts.model, "query": facts.question, "maxToken": 2000, "contextTotalLen": 4,
        "historyPreview": [
            { "obj": "Human", "value": facts.question }, { "obj": "AI", "value": facts.answer }
        ]
    });
    match facts.error {
        Some(error) => {
            node["error"] = json!({ "message": error });
            node["totalPoints"] = json!(0);
            node["inputTokens"] = json!(0);
            node["outputTokens"] = json!(0);
            node["finishReason"] = json!("error");
        }
        None => {
            let price = if facts.model == "sandbox-mini" { (0.0005, 0.001) } else { (0.002, 0.006) };
            node["totalPoints"] =
                json!(points(&[(facts.input_tokens, price.0), (facts.output_tokens, price.1)]));
            node["inputTokens"] = json!(facts.input_tokens);
            node["outputTokens"] = json!(facts.output_tokens);
            node["finishReason"] = json!("stop");
        }
    }
    node
}

/// Price times tokens by 1,000, as FastGPT reckons, without the noise of binary fractions.
fn points(parts: &[(u64, f64)]) -> f64 {
    let sum: f64 = parts.iter().map(|(tokens, price)| *tokens as f64 * price / 1000.0).sum();
    (sum * 1e10).round() / 1e10
}

/// Fills in what every node has, so that a script need name only what matters.
pub(crate) fn complete(nodes: &[Value]) -> Vec<Value> {
    let complete_one = |(index, node): (usize, &Value)| {
        let mut whole = Map::new();
        whole.insert("id".into(), json!(format!("s{index}")));
        whole.insert("nodeId".into(), json!(format!("scripted{index:02}")));
        whole.insert("moduleName".into(), json!("AI 对话"));
        whole.insert("moduleType".into(), json!("chatNode"));
        whole.insert("runningTime".into(), json!(0.5));
        if let Value::Object(given) = node {
            whole.extend(given.clone());
        }
        Value::Object(whole)
    };
    nodes.iter().enumerate().map(complete_one).collect()
}

/// Says the same in the words of a version.
pub(crate) fn in_words_of(profile: Profile, nodes: Vec<Value>) -> Vec<Value> {
    nodes.into_iter().map(|node| translate(profile, node)).collect()
}

fn translate(profile: Profile, node: Value) -> Value {
    let Value::Object(mut node) = node else { return node };
    for nested in ["toolDetail", "pluginDetail", "loopDetail", "childrenResponses"] {
        if let Some(Value::Array(children)) = node.remove(nested) {
            node.insert(nested.to_owned(), Value::Array(in_words_of(profile, children)));
        }
    }
    match profile {
        Profile::V4_8 => {
            let total = |node: &mut Map<String, Value>, fields: [&str; 2]| -> Option<u64> {
                let counts: Vec<_> =
                    fields.iter().filter_map(|field| node.remove(*field)?.as_u64()).collect();
                (!counts.is_empty()).then(|| counts.iter().sum())
            };
            if let Some(tokens) = total(&mut node, ["inputTokens", "outputTokens"]) {
                node.insert("tokens".into(), json!(tokens));
            }
        }
        Profile::V4_12 => {
            if let Some(error) = node.remove("error") {
                let text = error.get("message").and_then(Value::as_str).map(str::to_owned);
                node.insert("errorText".into(), json!(text.unwrap_or_else(|| error.to_string())));
            }
        }
        Profile::Main => {
            if let Some(text) = node.get("error").and_then(|error| error.get("message")).cloned() {
                node.insert("errorText".into(), text);
            }
        }
    }
    Value::Object(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts<'_> = Facts {
        question: "几点开门",
        answer: "九点",
        model: "sandbox-chat",
        input_tokens: 812,
        output_tokens: 46,
        error: None,
    };

    #[test]
    fn points_are_price_times_tokens() {
        let nodes = preset(Preset::Search, FACTS);
        assert_eq!(nodes[1]["totalPoints"], json!(0.000_000_4));
        assert_eq!(nodes[2]["totalPoints"], json!(0.0019));
    }

    #[test]
    fn an_old_version_knows_only_a_total() {
        let nodes = in_words_of(Profile::V4_8, preset(Preset::Rich, FACTS));
        let chat = nodes.last().unwrap();
        assert_eq!(chat["tokens"], 858);
        assert!(chat.get("inputTokens").is_none());
        assert_eq!(nodes[3]["toolDetail"][1]["tokens"], 100);
    }

    #[test]
    fn an_error_has_another_place_in_each_version() {
        let failed = Facts { error: Some("Connection error."), ..FACTS };
        let last = |profile| in_words_of(profile, preset(Preset::Plain, failed)).pop().unwrap();
        assert_eq!(last(Profile::V4_12)["errorText"], "Connection error.");
        assert!(last(Profile::V4_12).get("error").is_none());
        assert_eq!(last(Profile::Main)["error"]["message"], "Connection error.");
        assert_eq!(last(Profile::V4_8)["error"]["message"], "Connection error.");
    }
}
