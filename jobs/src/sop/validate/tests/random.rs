//! What must hold of any JSON.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::sop::config::WorkflowConfig;

/// Any JSON, of the words that a plan has and of others.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        prop::sample::select(vec![
            "id",
            "type",
            "next",
            "send",
            "wait",
            "branch",
            "split",
            "all",
            "any",
            "not",
            "fact",
            "op",
            "value",
            "kind",
            "text",
            "message",
            "cases",
            "when",
            "else",
            "arms",
            "for",
            "until",
            "P1D",
            "09:30",
            "eq",
            "contact.tags",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,6}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(word.clone(), inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Every place in a value.
fn places(value: &Value, path: String, all: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields
                .iter()
                .for_each(|(name, field)| places(field, crate::sop::finding::child(&path, name), all));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| places(item, format!("{path}/{at}"), all));
        }
        _ => {}
    }
    all.push(path);
}

/// The example with a few places changed: taken from elsewhere in it, anything, or gone.
fn changed_example() -> impl Strategy<Value = Value> {
    let change = (
        any::<prop::sample::Index>(),
        prop_oneof![
            3 => any::<prop::sample::Index>().prop_map(Ok),
            2 => any_json().prop_map(Err),
        ],
    );
    prop::collection::vec(change, 1..4).prop_map(|changes| {
        let mut config = example();
        for (at, with) in changes {
            let mut all = Vec::new();
            places(&config, String::new(), &mut all);
            let value = match with {
                Ok(from) => config.pointer(from.get::<String>(&all)).cloned().unwrap_or_default(),
                Err(value) => value,
            };
            if let Some(place) = config.pointer_mut(at.get::<String>(&all)) {
                *place = value;
            }
        }
        config
    })
}

fn holds(config: &Value) {
    let report = Organization::default().look(config);
    for finding in report.errors.iter().chain(&report.warnings) {
        let chars = finding.message.chars().count();
        assert!((10..400).contains(&chars) && !finding.message.chars().any(char::is_control), "{finding:?}");
        assert!(finding.path.is_empty() || finding.path.starts_with('/'), "{finding:?}");
    }
    let Ok(read) = WorkflowConfig::parse(config) else {
        assert!(!report.errors.is_empty());
        return;
    };
    let written = serde_json::to_value(&read).expect("JSON");
    assert_eq!(WorkflowConfig::parse(&written), Ok(read), "{written}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_json_is_answered(config in any_json()) {
        holds(&config);
    }

    #[test]
    fn what_is_almost_a_plan_is_answered_and_read_back_equal(config in changed_example()) {
        // What the types refuse, the schema has refused: the sentence that the types say is never heard.
        if let Err(findings) = WorkflowConfig::parse(&config) {
            let by_types = findings.iter().any(|finding| finding.message.starts_with("the plan cannot be read"));
            prop_assert!(!by_types, "{:?}", findings);
        }
        holds(&config);
    }

    #[test]
    fn any_steps_are_a_graph(ways in prop::collection::vec((0..12_usize, 0..12_usize, any::<bool>()), 1..12)) {
        let name = |at: usize| format!("s{at}");
        let steps: Vec<Value> = ways
            .iter()
            .enumerate()
            .map(|(at, (one, other, sends))| {
                if *sends {
                    json!({"id": name(at), "type": "send", "message": {"kind": "text", "text": "好"}, "next": name(*one)})
                } else {
                    let case = json!({"when": {"fact": "time.hour", "op": "exists"}, "next": name(*one)});
                    json!({"id": name(at), "type": "branch", "cases": [case], "else": name(*other)})
                }
            })
            .collect();
        let known = ways.len();
        // A circle is there if what is taken away while it leads nowhere else leaves something.
        let mut left: Vec<(usize, Vec<usize>)> = ways
            .iter()
            .enumerate()
            .map(|(at, (one, other, sends))| {
                let to = if *sends { vec![*one] } else { vec![*one, *other] };
                (at, to.into_iter().filter(|to| *to < known).collect())
            })
            .collect();
        loop {
            let before = left.len();
            let there: Vec<usize> = left.iter().map(|(at, _)| *at).collect();
            left.retain(|(_, to)| to.iter().any(|to| there.contains(to)));
            if left.len() == before {
                break;
            }
        }
        let found = told(&plan(json!(steps)));
        prop_assert_eq!(found.iter().any(|(code, _)| code == "E04"), !left.is_empty(), "{:?}", found);
        let dangling = ways.iter().any(|(one, other, sends)| *one >= known || (!sends && *other >= known));
        prop_assert_eq!(found.iter().any(|(code, _)| code == "E03"), dangling);
    }
}
