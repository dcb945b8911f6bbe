//! What a run used: tokens and points, read from the results of FastGPT's nodes.
//!
//! Pure. The call's own `usage` is a constant and is never looked at. Every number comes from outside: what is negative,
//! no number or out of all proportion is bounded here, so that a sum further on can neither wrap nor fail to be stored.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;

use bigdecimal::{BigDecimal, RoundingMode, Zero};
use serde_json::Value;

/// How deep nodes may stand in one another; FastGPT itself stops at 20.
pub const MAX_DEPTH: usize = 20;

/// The fields in which a node keeps the results of the nodes inside it. The newest versions write the first alone.
pub const CHILDREN: [&str; 6] =
    ["childrenResponses", "toolDetail", "pluginDetail", "loopDetail", "parallelDetail", "loopRunDetail"];

/// The most lines that one run can have. FastGPT runs at most 500 nodes per call.
const MAX_LINES: usize = 4000;

/// The most tokens that a line can count.
const MAX_TOKENS: i64 = 1_000_000_000;

/// The most points that a node, or a run, can cost. The ledger has ten digits before the point.
const MAX_POINTS: i64 = 9_999_999_999;

/// Digits behind the point that the ledger keeps.
const POINT_SCALE: i64 = 10;

/// The longest name of a model or a node, in characters.
const MAX_NAME_CHARS: usize = 200;

/// What one model did in one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeUsage {
    /// The node's place in a depth-first walk, counted from 0. Where a node used several models, each after the first
    /// takes a place of its own. The same for the same results, and of no other line of the run.
    pub index: i32,
    /// The node's name, as its author wrote it.
    pub name: String,
    /// What the node is: `chatNode`, `datasetSearchNode`, …
    pub module_type: String,
    /// The model that the tokens are priced by; empty: FastGPT named none.
    pub model: String,
    /// Tokens read, those out of a cache included.
    pub input_tokens: i64,
    /// Tokens written.
    pub output_tokens: i64,
    /// Of the tokens read, those out of a cache.
    pub cached_input_tokens: i64,
    /// FastGPT's points for the node without the nodes inside it, at the node's first line. The lines of a run add up to
    /// [`points`], as far as FastGPT shows the nodes.
    pub points: Option<BigDecimal>,
}

/// Returns what each model of a run used, in the order of the nodes.
///
/// A node without tokens has no line, unless points were charged for it: FastGPT hides what happens inside some plugins,
/// and then the points are all that is known.
pub fn lines(nodes: &[Value]) -> Vec<NodeUsage> {
    let mut walk = Walk { lines: Vec::new(), next: 0 };
    walk.nodes(&nodes.iter().collect::<Vec<_>>(), 1);
    walk.lines
}

/// Returns FastGPT's points of a whole run; `None` if no node says any.
///
/// Only the outermost nodes count: their points contain those of the nodes inside them.
pub fn points(nodes: &[Value]) -> Option<BigDecimal> {
    let nodes: Vec<&Value> = nodes.iter().collect();
    let around = around(&nodes);
    sum(nodes.iter().zip(&around).filter(|(_, around)| around.is_none()).map(|(node, _)| *node))
}

/// Returns, for each node of one list, the id of the node in the list that it belongs into. Newer versions may list inner
/// nodes flat, each with the id of the node around it.
fn around<'a>(nodes: &[&'a Value]) -> Vec<Option<&'a str>> {
    let ids: HashSet<&str> = nodes.iter().filter_map(|node| text(node, "id")).collect();
    let around = |node: &&'a Value| {
        text(node, "parentId").filter(|parent| text(node, "id") != Some(parent) && ids.contains(parent))
    };
    nodes.iter().map(around).collect()
}

/// Returns the results of the nodes inside a node, each once.
pub fn children(node: &Value) -> Vec<&Value> {
    let mut seen: HashSet<&str> = HashSet::new();
    let mut found = Vec::new();
    for field in CHILDREN {
        let listed = node.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        // Two fields may tell of the same nodes; within one field, an id that comes twice is a node that ran twice.
        let fresh: Vec<&Value> =
            listed.iter().filter(|child| text(child, "id").is_none_or(|id| !seen.contains(id))).collect();
        seen.extend(fresh.iter().filter_map(|child| text(child, "id")));
        found.extend(fresh);
    }
    found
}

struct Walk {
    lines: Vec<NodeUsage>,
    next: i32,
}

/// The tokens of one model, before they have a place.
#[derive(Default)]
struct Part {
    model: String,
    input: i64,
    output: i64,
    cached: i64,
}

impl Walk {
    fn nodes(&mut self, nodes: &[&Value], depth: usize) {
        let mut inside: HashMap<&str, BigDecimal> = HashMap::new();
        for (node, around) in nodes.iter().zip(around(nodes)) {
            if let (Some(around), Some(points)) = (around, points_of(node)) {
                *inside.entry(around).or_default() += points;
            }
        }
        for node in nodes.iter().filter(|node| node.is_object()) {
            self.node(node, text(node, "id").and_then(|id| inside.get(id)), depth);
        }
    }

    fn node(&mut self, node: &Value, flat: Option<&BigDecimal>, depth: usize) {
        let mut points = own_points(node, flat);
        let (used, mut unused): (Vec<Part>, Vec<Part>) =
            parts(node).into_iter().partition(|part| !part.is_empty());
        let place = self.next;
        if used.is_empty() && points.as_ref().is_some_and(|points| !points.is_zero()) {
            self.line(node, unused.swap_remove(0), points.take());
        }
        for part in used {
            self.line(node, part, points.take());
        }
        // The first line stands in the node's own place, and a node without lines has one too.
        self.next = self.next.max(place.saturating_add(1));
        if depth < MAX_DEPTH {
            self.nodes(&children(node), depth + 1);
        }
    }

    fn line(&mut self, node: &Value, part: Part, points: Option<BigDecimal>) {
        let index = self.next;
        self.next = self.next.saturating_add(1);
        if self.lines.len() < MAX_LINES {
            self.lines.push(NodeUsage {
                index,
                name: name(node, "moduleName"),
                module_type: name(node, "moduleType"),
                model: part.model,
                input_tokens: part.input,
                output_tokens: part.output,
                cached_input_tokens: part.cached.min(part.input),
                points,
            });
        }
    }
}

impl Part {
    fn is_empty(&self) -> bool {
        self.input == 0 && self.output == 0
    }
}

/// Returns the node's own model first, then each model that it used beside it. Always the same number and order.
fn parts(node: &Value) -> Vec<Part> {
    let model = name(node, "model");
    let or_own = |named: String| if named.is_empty() { model.clone() } else { named };
    let input = bounded(tokens(node, "inputTokens") + tokens(node, "toolCallInputTokens"));
    let output = bounded(tokens(node, "outputTokens") + tokens(node, "toolCallOutputTokens"));
    let own = Part {
        model: model.clone(),
        // Before 4.8.17 one number was all there was.
        input: if input == 0 && output == 0 { tokens(node, "tokens") } else { input },
        output,
        cached: tokens(node, "cachedInputTokens"),
    };
    let mut parts = vec![own];
    for field in ["queryExtensionResult", "deepSearchResult", "compressTextAgent"] {
        let inner = node.get(field).filter(|inner| inner.is_object());
        parts.push(inner.map_or_else(Part::default, |inner| Part {
            model: or_own(name(inner, "model")),
            input: tokens(inner, "inputTokens"),
            output: tokens(inner, "outputTokens"),
            cached: tokens(inner, "cachedInputTokens"),
        }));
    }
    let counted = [
        ("extensionModel", "extensionTokens"),
        ("embeddingModel", "embeddingTokens"),
        ("rerankModel", "reRankInputTokens"),
    ];
    for (named, count) in counted {
        parts.push(Part {
            model: or_own(name(node, named)),
            input: tokens(node, count),
            output: 0,
            cached: 0,
        });
    }
    parts
}

/// Returns the node's points without those of the nodes inside it, some of which may be listed beside it.
fn own_points(node: &Value, flat: Option<&BigDecimal>) -> Option<BigDecimal> {
    let whole = points_of(node)?;
    let nested = sum(children(node).into_iter()).unwrap_or_default();
    let inside = flat.map_or_else(|| nested.clone(), |flat| &nested + flat);
    // Inner points may be more than the whole, if a team pays for some of them elsewhere.
    Some(if inside >= whole { BigDecimal::zero() } else { whole - inside })
}

fn sum<'a>(nodes: impl Iterator<Item = &'a Value>) -> Option<BigDecimal> {
    let total = nodes.filter_map(points_of).reduce(|total, next| total + next)?;
    Some(total.min(BigDecimal::from(MAX_POINTS)))
}

fn points_of(node: &Value) -> Option<BigDecimal> {
    let written = match node.get("totalPoints")? {
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.len() <= 64 => text.trim().to_owned(),
        _ => return None,
    };
    // As a float first: an exponent of nine digits is a short text and a number that fills the memory.
    let size: f64 = written.parse().ok()?;
    if size.is_nan() {
        return None;
    }
    if size <= 0.0 {
        return Some(BigDecimal::zero());
    }
    if size >= MAX_POINTS as f64 {
        return Some(BigDecimal::from(MAX_POINTS));
    }
    if size < 1e-12 {
        return Some(BigDecimal::zero());
    }
    let exact = BigDecimal::from_str(&written).ok()?;
    Some(exact.with_scale_round(POINT_SCALE, RoundingMode::HalfUp).normalized())
}

fn tokens(node: &Value, field: &str) -> i64 {
    let size = match node.get(field) {
        Some(Value::Number(number)) => match number.as_i64() {
            Some(whole) => return bounded(whole),
            None => number.as_f64(),
        },
        Some(Value::String(text)) if text.len() <= 64 => text.trim().parse().ok(),
        _ => None,
    };
    // A part of a token is a token. The cast stops at the ends of its range, and no number becomes 0.
    bounded(size.unwrap_or(0.0).ceil() as i64)
}

fn bounded(tokens: i64) -> i64 {
    tokens.clamp(0, MAX_TOKENS)
}

fn text<'a>(node: &'a Value, field: &str) -> Option<&'a str> {
    node.get(field).and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn name(node: &Value, field: &str) -> String {
    let named = text(node, field).unwrap_or_default();
    // Postgres takes no NUL, and a name is one line.
    named.chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(nodes: Value) -> Vec<Value> {
        nodes.as_array().expect("a list").clone()
    }

    type Line<Text> = (i32, Text, Text, i64, i64, i64, Option<Text>);

    /// Each line as place, name, model, tokens in, out and cached, and points.
    fn read(nodes: Value) -> Vec<Line<String>> {
        lines(&list(nodes))
            .into_iter()
            .map(|line| {
                let points = line.points.map(|points| points.to_plain_string());
                (
                    line.index,
                    line.name,
                    line.model,
                    line.input_tokens,
                    line.output_tokens,
                    line.cached_input_tokens,
                    points,
                )
            })
            .collect()
    }

    fn check(nodes: Value, expected: &[Line<&str>], total: Option<&str>) {
        let read = read(nodes.clone());
        let read: Vec<_> = read
            .iter()
            .map(|(index, name, model, input, output, cached, points)| {
                (*index, name.as_str(), model.as_str(), *input, *output, *cached, points.as_deref())
            })
            .collect();
        assert_eq!(read, expected, "{nodes}");
        let points = points(&list(nodes.clone())).map(|points| points.to_plain_string());
        assert_eq!(points.as_deref(), total, "{nodes}");
    }

    #[test]
    fn the_documented_answer_in_one_piece_has_two_lines() {
        check(
            json!([
                {"id":"n1","nodeId":"start01","moduleName":"common:core.module.template.work_start",
                 "moduleType":"workflowStart","runningTime":0},
                {"id":"n2","nodeId":"ds01","moduleName":"Search","moduleType":"datasetSearchNode","runningTime":0.41,
                 "totalPoints":0.002,"embeddingModel":"emb-demo","embeddingTokens":12,"similarity":0.4,"limit":3000,
                 "searchMode":"embedding","quoteList":[]},
                {"id":"n3","nodeId":"ai01","moduleName":"AI","moduleType":"chatNode","runningTime":1.9,
                 "totalPoints":0.31,"model":"demo-model","inputTokens":812,"outputTokens":46,
                 "query":"When do you open?","maxToken":2000,"historyPreview":[],"contextTotalLen":4,
                 "finishReason":"stop"}
            ]),
            &[
                (1, "Search", "emb-demo", 12, 0, 0, Some("0.002")),
                (2, "AI", "demo-model", 812, 46, 0, Some("0.31")),
            ],
            Some("0.312"),
        );
    }

    #[test]
    fn the_documented_stream_has_one_line() {
        check(
            json!([{"id":"n3","nodeId":"ai01","moduleName":"AI","moduleType":"chatNode","inputTokens":812,
                    "outputTokens":46,"totalPoints":0.31,"model":"demo-model","runningTime":1.9}]),
            &[(0, "AI", "demo-model", 812, 46, 0, Some("0.31"))],
            Some("0.31"),
        );
    }

    #[test]
    fn a_search_counts_each_of_its_models() {
        check(
            json!([{"moduleName":"查资料","moduleType":"datasetSearchNode","totalPoints":0.5,
                    "embeddingModel":"emb","embeddingTokens":20,"rerankModel":"rank","reRankInputTokens":900,
                    "queryExtensionResult":{"model":"small","inputTokens":300,"outputTokens":40,"query":"…"},
                    "deepSearchResult":{"model":"deep","inputTokens":700,"outputTokens":70}},
                   {"moduleName":"AI","model":"m","inputTokens":5,"outputTokens":1,
                    "compressTextAgent":{"inputTokens":9,"outputTokens":3,"totalPoints":0.1}}]),
            &[
                (0, "查资料", "small", 300, 40, 0, Some("0.5")),
                (1, "查资料", "deep", 700, 70, 0, None),
                (2, "查资料", "emb", 20, 0, 0, None),
                (3, "查资料", "rank", 900, 0, 0, None),
                (4, "AI", "m", 5, 1, 0, None),
                (5, "AI", "m", 9, 3, 0, None),
            ],
            Some("0.5"),
        );
    }

    #[test]
    fn what_stands_inside_is_counted_once_and_points_only_outside() {
        check(
            json!([{"id":"a","moduleName":"Agent","moduleType":"tools","model":"big","toolCallInputTokens":1000,
                    "toolCallOutputTokens":100,"totalPoints":1.5,"childTotalPoints":0.6,
                    "childrenResponses":[{"id":"t","moduleName":"Tool","model":"x","inputTokens":1,"totalPoints":0.6}],
                    "toolDetail":[{"id":"t","moduleName":"The same","model":"x","inputTokens":1,"totalPoints":0.6}]},
                   {"moduleName":"Loop","moduleType":"loop","totalPoints":0.2,"loopDetail":[
                        {"id":"same","moduleName":"Round","model":"small","inputTokens":3,"totalPoints":0.1},
                        {"id":"same","moduleName":"Round","model":"small","inputTokens":4,"totalPoints":0.1}]}]),
            &[
                (0, "Agent", "big", 1000, 100, 0, Some("0.9")),
                (1, "Tool", "x", 1, 0, 0, Some("0.6")),
                (3, "Round", "small", 3, 0, 0, Some("0.1")),
                (4, "Round", "small", 4, 0, 0, Some("0.1")),
            ],
            Some("1.7"),
        );
    }

    #[test]
    fn nodes_stand_in_one_another_in_every_form() {
        check(
            json!([{"moduleName":"App","moduleType":"appModule","totalPoints":1,
                    "pluginDetail":[
                        {"id":"in","moduleName":"In","moduleType":"pluginInput"},
                        {"id":"p","moduleName":"Inner","model":"small","inputTokens":10,"totalPoints":0.4,
                         "parallelDetail":[{"moduleName":"Deep","model":"s","outputTokens":2,"totalPoints":0.3}]}],
                    "loopRunDetail":[{"moduleName":"Late","model":"l","inputTokens":1,"totalPoints":0.6}]}]),
            &[
                (2, "Inner", "small", 10, 0, 0, Some("0.1")),
                (3, "Deep", "s", 0, 2, 0, Some("0.3")),
                (4, "Late", "l", 1, 0, 0, Some("0.6")),
            ],
            Some("1"),
        );
    }

    #[test]
    fn inner_nodes_that_are_listed_flat_are_not_charged_twice() {
        check(
            json!([{"id":"a","moduleName":"Agent","model":"big","inputTokens":7,"totalPoints":1},
                   {"id":"b","parentId":"a","moduleName":"Inner","model":"small","inputTokens":2,"totalPoints":0.25}]),
            &[(0, "Agent", "big", 7, 0, 0, Some("0.75")), (1, "Inner", "small", 2, 0, 0, Some("0.25"))],
            Some("1"),
        );
    }

    #[test]
    fn points_without_tokens_are_a_line_and_nothing_at_all_is_none() {
        check(
            json!([{"moduleName":"系统插件","moduleType":"pluginModule","totalPoints":3},
                   {"moduleName":"HTTP","moduleType":"httpRequest468","totalPoints":0}]),
            &[(0, "系统插件", "", 0, 0, 0, Some("3"))],
            Some("3"),
        );
        check(json!([{"moduleName":"x"}, 7, null, "text", []]), &[], None);
        check(json!([]), &[], None);
    }

    #[test]
    fn old_versions_have_one_number_for_both() {
        check(
            json!([{"moduleName":"AI","model":"m","tokens":858,"totalPoints":"0.31"},
                   {"moduleName":"New","model":"m","tokens":858,"inputTokens":812,"outputTokens":46},
                   {"moduleName":"Search","extensionModel":"e","extensionTokens":30,"model":"emb"}]),
            &[
                (0, "AI", "m", 858, 0, 0, Some("0.31")),
                (1, "New", "m", 812, 46, 0, None),
                (2, "Search", "e", 30, 0, 0, None),
            ],
            Some("0.31"),
        );
    }

    #[test]
    fn absurd_numbers_are_bounded() {
        let line = |fields: Value| read(json!([fields])).pop().map(|line| (line.3, line.4, line.5, line.6));
        let tokens = |input: Value| line(json!({"model": "m", "inputTokens": input, "outputTokens": 1}));
        assert_eq!(tokens(json!(-5)), Some((0, 1, 0, None)));
        assert_eq!(tokens(json!(1.2)), Some((2, 1, 0, None)));
        assert_eq!(tokens(json!("812")), Some((812, 1, 0, None)));
        assert_eq!(tokens(json!("many")), Some((0, 1, 0, None)));
        assert_eq!(tokens(json!("nan")), Some((0, 1, 0, None)));
        assert_eq!(tokens(json!(1e300)), Some((MAX_TOKENS, 1, 0, None)));
        assert_eq!(tokens(json!(u64::MAX)), Some((MAX_TOKENS, 1, 0, None)));
        assert_eq!(tokens(json!({"a": 1})), Some((0, 1, 0, None)));
        assert_eq!(line(json!({"inputTokens": 5, "cachedInputTokens": 9})), Some((5, 0, 5, None)));
        let twice = json!({"inputTokens": MAX_TOKENS, "toolCallInputTokens": MAX_TOKENS});
        assert_eq!(line(twice), Some((MAX_TOKENS, 0, 0, None)));

        let points =
            |points: Value| points_of(&json!({"totalPoints": points})).map(|points| points.to_plain_string());
        assert_eq!(points(json!(-1)).as_deref(), Some("0"));
        assert_eq!(points(json!(1e300)).as_deref(), Some("9999999999"));
        assert_eq!(points(json!("1e999999999")).as_deref(), Some("9999999999"));
        assert_eq!(points(json!("1e-999999999")).as_deref(), Some("0"));
        assert_eq!(points(json!(0.000_000_000_05)).as_deref(), Some("0.0000000001"));
        assert_eq!(points(json!(0.1 + 0.2)).as_deref(), Some("0.3"));
        assert_eq!(points(json!("free")), None);
        assert_eq!(points(json!(null)), None);
    }

    #[test]
    fn names_are_one_line_that_a_database_takes() {
        let name = format!("a\0b\n{}", "长".repeat(300));
        let line = lines(&[json!({"moduleName": name, "model": name, "inputTokens": 1})]).remove(0);
        assert_eq!(line.name.chars().count(), 200);
        assert!(line.model.starts_with("ab长"), "{}", line.model);
    }

    #[test]
    fn a_bottomless_answer_ends() {
        let mut node = json!({"moduleName": "x", "inputTokens": 1});
        for _ in 0..100 {
            node = json!({"moduleName": "x", "inputTokens": 1, "loopDetail": [node]});
        }
        assert_eq!(lines(&[node]).len(), MAX_DEPTH);
        let many = vec![json!({"inputTokens": 1}); MAX_LINES + 1];
        assert_eq!(lines(&many).len(), MAX_LINES);
    }
}
