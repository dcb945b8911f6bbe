//! What a plan says to customers: `E06`, `E18`, `W06`.
//!
//! **`E18`.** A plan for friends who must have agreed (`audience.consent.required`) is marketing. The first message that
//! somebody gets from it, on whatever way, says who writes and how to opt out. So it is a text that the team has written,
//! never a material alone or a model's text; it has one of the words with which customers opt out (退订 and those that always
//! count, or the organisation's own), and it names the sender: by a variable whose name or label speaks of an organisation, a
//! brand, a shop or an adviser, or by one of the names that the organisation goes by.

use super::shape::Shape;
use super::{Findings, Surroundings};
use crate::ai::words::{Action, normalize};
use crate::sop::config::WorkflowConfig;
use crate::sop::config::rules::AudienceKind;
use crate::sop::config::step::Step;
use crate::sop::finding::{Code, shown};
use crate::sop::template::Template;

/// Words with which everybody opts out, as a text names them.
const OPT_OUT: &[&str] = &["退订", "取消订阅", "不要再发", "回复td", "回td", "回复t", "unsubscribe"];

/// What speaks of a sender in the name or the label of a variable.
const SENDER: &[&str] = &[
    "机构",
    "公司",
    "品牌",
    "门店",
    "店名",
    "学校",
    "校区",
    "企业",
    "商家",
    "组织",
    "单位",
    "发送",
    "顾问",
    "老师",
    "销售",
    "客户经理",
    "organization",
    "organisation",
    "company",
    "brand",
    "shop",
    "sender",
    "adviser",
    "advisor",
];

/// Says what is wrong.
pub(super) fn check(
    config: &WorkflowConfig,
    shape: &Shape,
    around: &Surroundings<'_>,
    findings: &mut Findings,
) {
    for (at, step) in config.steps.iter().enumerate() {
        for (place, text) in texts(step) {
            let path = format!("/steps/{at}{place}");
            placeholders(config, text, &path, findings);
            sensitive(around, text, &path, findings);
        }
    }
    for (name, variable) in &config.variables {
        if let Some(default) = &variable.default {
            let path = crate::sop::finding::child("/variables", name);
            sensitive(around, default, &format!("{path}/default"), findings);
        }
    }
    if config.audience.kind == AudienceKind::Friend && config.audience.consent.required {
        for at in shape.first_messages(config) {
            introduction(config, at, around, findings);
        }
    }
}

/// Returns the texts of a step that are rendered, with their places.
fn texts(step: &Step) -> Vec<(&'static str, &str)> {
    match step {
        Step::Send(step) => step.message.text().map(|text| ("/message/text", text)).into_iter().collect(),
        Step::AiSend(step) => {
            vec![("/instruction", step.instruction.as_str()), ("/fallback_text", step.fallback_text.as_str())]
        }
        _ => Vec::new(),
    }
}

fn placeholders(config: &WorkflowConfig, text: &str, path: &str, findings: &mut Findings) {
    match Template::parse(text) {
        Err(fault) => findings.say(Code::E06, path, fault.to_string()),
        Ok(template) => {
            let mut told = Vec::new();
            for name in template.names().filter(|name| !config.variables.contains_key(*name)) {
                if !told.contains(&name) {
                    told.push(name);
                    let message = format!(
                        "the variable {} is not declared: add it to variables, or correct it",
                        shown(name)
                    );
                    findings.say(Code::E06, path, message);
                }
            }
        }
    }
}

fn sensitive(around: &Surroundings<'_>, text: &str, path: &str, findings: &mut Findings) {
    let Some(words) = around.words else { return };
    let verdict = words.check(text);
    let Some(action) = verdict.action else { return };
    let (count, becomes) = (
        verdict.word_ids.len().max(1),
        match action {
            Action::Mask => "they will be sent as stars",
            Action::Review => "a person will have to look first",
            Action::Block => "it will not be sent",
        },
    );
    let message = format!("this text has sensitive words ({count}): {becomes}; write it without them");
    findings.say(Code::W06, path, message);
}

fn introduction(config: &WorkflowConfig, at: usize, around: &Surroundings<'_>, findings: &mut Findings) {
    let path = format!("/steps/{at}");
    let text = match &config.steps[at] {
        Step::Send(step) => step.message.text(),
        _ => None,
    };
    let Some(text) = text else {
        let place = if matches!(config.steps[at], Step::Send(_)) { "/message" } else { "" };
        let message = "this can be the first message that somebody gets: send a text before it that says who writes \
                       and how to opt out";
        return findings.say(Code::E18, format!("{path}{place}"), message);
    };
    let path = format!("{path}/message/text");
    let compared = normalize(text);
    let says = |word: &str| {
        let word = normalize(word);
        !word.is_empty() && compared.contains(&word)
    };
    let own = around.opt_out_words.iter().map(String::as_str);
    if !OPT_OUT.iter().copied().chain(own).any(says) {
        let message =
            "this can be the first message that somebody gets: say in it how to opt out, such as 回复“退订”";
        findings.say(Code::E18, path.clone(), message);
    }
    let speaks_of_sender = |name: &str| {
        let label = config.variables.get(name).map(|variable| variable.label.as_str()).unwrap_or_default();
        let (name, label) = (normalize(name), normalize(label));
        SENDER.iter().any(|word| name.contains(word) || label.contains(word))
    };
    let template = Template::parse(text);
    let named = template.is_ok_and(|template| template.names().any(speaks_of_sender))
        || around.sender_names.iter().any(|name| says(name));
    if !named {
        let message =
            "this can be the first message that somebody gets: say in it who writes, such as {{机构名}}";
        findings.say(Code::E18, path, message);
    }
}
