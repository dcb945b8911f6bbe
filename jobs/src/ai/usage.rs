//! What a run used: tokens and points, read from the results of FastGPT's nodes.
//!
//! Pure. The call's own `usage` is a constant and is never looked at. Every number comes from outside: what is negative,
//! no number or out of all proportion is bounded here, so that a sum further on can neither wrap nor fail to be stored.

use std::collections::HashSet;
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
    walk.nodes(nodes.iter(), 1);
    walk.lines
}

/// Returns FastGPT's points of a whole run; `None` if no node says any.
///
/// Only the outermost nodes count: their points contain those of the nodes inside them.
pub fn points(nodes: &[Value]) -> Option<BigDecimal> {
    let ids: HashSet<&str> = nodes.iter().filter_map(|node| text(node, "id")).collect();
    let outermost = nodes.iter().filter(|node| {
        // Newer versions may list inner nodes flat, each with the id of the node around it.
        text(node, "parentId").is_none_or(|parent| text(node, "id") == Some(parent) || !ids.contains(parent))
    });
    sum(outermost)
}

/// Returns the results of the nodes inside a node, each once.
pub fn children(node: &Value) -> impl Iterator<Item = &Value> {
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
    found.into_iter()
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
    fn nodes<'a>(&mut self, nodes: impl Iterator<Item = &'a Value>, depth: usize) {
        for node in nodes.filter(|node| node.is_object()) {
            self.node(node, depth);
        }
    }

    fn node(&mut self, node: &Value, depth: usize) {
        let mut points = own_points(node);
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
            self.nodes(children(node), depth + 1);
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

/// Returns the node's points without those of the nodes inside it.
fn own_points(node: &Value) -> Option<BigDecimal> {
    let whole = points_of(node)?;
    let inside = sum(children(node)).unwrap_or_default();
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
