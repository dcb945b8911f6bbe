//! What a flow editor sends.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::NaiveDate;
use entropy_jobs::sop::condition::Facts;
use entropy_jobs::sop::config::step::{MaterialKind, Step};
use entropy_jobs::sop::config::{WorkflowConfig, reading, sha256};
use entropy_jobs::sop::finding::{Finding, MOST_FINDINGS};
use entropy_jobs::sop::split;
use entropy_jobs::sop::template::{self, Given, Rendered};
use entropy_jobs::sop::validate::{AccountLoad, Material, OrganizationCaps, Report, Surroundings, check};
use serde_json::Value;
use uuid::Uuid;

use super::assert_is_a_short_line;

/// The text of a plan.
pub fn workflow_config(bytes: &[u8]) {
    let value = match reading::read(bytes) {
        Ok(value) => value,
        Err(findings) => return look_at(&findings, true),
    };
    let (report, config) = looked_at(&value);
    look_at(&report.errors, true);
    look_at(&report.warnings, false);
    assert_eq!(report, looked_at(&value).0, "the same plan is answered the same");
    let Some(config) = config else {
        assert!(!report.errors.is_empty(), "a plan without a form, and nothing is said");
        return;
    };
    let written = serde_json::to_value(&config).expect("a plan is plain data");
    assert_eq!(WorkflowConfig::parse(&written).as_ref(), Ok(&config), "what was written is read");
    assert_eq!(sha256(&value), sha256(&value));
    if report.errors.is_empty() {
        runs(&config);
    }
}

fn looked_at(value: &Value) -> (Report, Option<WorkflowConfig>) {
    let material = |id: &str, kind| (id.to_owned(), Material { kind, approved: true });
    let around = Surroundings {
        materials: &BTreeMap::from([
            material("mat_outline", MaterialKind::File),
            material("mat_case_article", MaterialKind::Link),
            material("mat_trial_booking", MaterialKind::MiniProgram),
        ]),
        workflows: &BTreeSet::from(["sales_assistant".to_owned()]),
        window: None,
        caps: OrganizationCaps { per_account_per_day: Some(150), ..OrganizationCaps::default() },
        words: None,
        opt_out_words: &[],
        sender_names: &["熵变".to_owned()],
        accounts: &[AccountLoad { name: "小李".to_owned(), recipients: u64::MAX, per_day: 1 }],
        today: NaiveDate::from_ymd_opt(2026, 11, 23).expect("a day"),
        is_holiday: &|_| true,
    };
    check(value, &around)
}

fn look_at(findings: &[Finding], errors: bool) {
    assert!(findings.len() <= MOST_FINDINGS);
    for finding in findings {
        assert_eq!(finding.code.is_error(), errors, "{finding:?}");
        assert_is_a_short_line(&finding.message, 400);
        assert!(finding.path.is_empty() || finding.path.starts_with('/'), "{finding:?}");
    }
}

/// A sound plan ends on every way, and nothing in it is out of reach of what carries it out.
fn runs(config: &WorkflowConfig) {
    let given = HashMap::from([("称呼".to_owned(), Given::customer("{{机构名}}\n"))]);
    for step in &config.steps {
        match step {
            Step::Send(step) => {
                let text = step.message.text().unwrap_or_default();
                match template::render(text, &config.variables, &given) {
                    Rendered::Text(_) => {}
                    Rendered::Missing(names) => {
                        assert!(names.iter().all(|name| config.variables.contains_key(name)), "{names:?}");
                    }
                }
            }
            Step::Branch(step) => {
                for case in &step.cases {
                    let meets = || Facts::default().meet(&case.when);
                    assert_eq!(meets(), meets(), "the same facts are answered the same");
                }
            }
            Step::Split(step) => assert!(split::arm(step, Uuid::nil()).is_some(), "nowhere to go"),
            _ => {}
        }
    }
    // Always the last way out: a plan without a circle is left after as many steps as it has.
    let mut at = config.step(config.entry.as_str());
    for _ in 0..config.steps.len() {
        let ways = at.map(Step::ways).unwrap_or_default();
        at = ways.last().and_then(|way| way.next.step()).map(|id| config.step(id.as_str()).expect("a step"));
    }
    assert!(at.is_none(), "a sound plan leads round in a circle");
}
