//! What a plan asks of its organisation: `E08` to `E11`.

use super::{Findings, Surroundings};
use crate::sop::config::WorkflowConfig;
use crate::sop::config::step::Step;
use crate::sop::config::window::Days;
use crate::sop::finding::{Code, shown};

/// Says what is wrong.
pub(super) fn check(config: &WorkflowConfig, around: &Surroundings<'_>, findings: &mut Findings) {
    for (at, step) in config.steps.iter().enumerate() {
        match step {
            Step::Send(step) => {
                if let Some((kind, id)) = step.message.material()
                    && let Some(message) = material(around, kind, id)
                {
                    findings.say(Code::E08, format!("/steps/{at}/message/material_id"), message);
                }
            }
            Step::AiSend(step) if !around.workflows.contains(&step.workflow) => {
                let message =
                    format!("there is no workflow {}: choose one, or add it first", shown(&step.workflow));
                findings.say(Code::E09, format!("/steps/{at}/workflow"), message);
            }
            _ => {}
        }
    }
    window(config, around, findings);
    caps(config, around, findings);
}

fn material(
    around: &Surroundings<'_>,
    wanted: crate::sop::config::step::MaterialKind,
    id: &str,
) -> Option<String> {
    let Some(material) = around.materials.get(id) else {
        return Some(format!("there is no material {}: choose one, or add it first", shown(id)));
    };
    if material.kind != wanted {
        let (is, wanted) = (material.kind.name(), wanted.name());
        return Some(format!("the material {} is of kind {is} and not {wanted}: choose another", shown(id)));
    }
    (!material.approved)
        .then(|| format!("the material {} is not approved: have it approved first", shown(id)))
}

/// `E10`. Clock times are compared as they stand, whatever the zones: both are what the contact's clock shows. Ranges that are
/// no ranges are told by `E16`.
fn window(config: &WorkflowConfig, around: &Surroundings<'_>, findings: &mut Findings) {
    let window = &config.send_window;
    let weekdays = window.weekdays.as_deref().unwrap_or_default();
    if window.days == Days::Custom && weekdays.is_empty() {
        let message = "the window is never open: say on which days of the week it is, 1 is Monday";
        findings.say(Code::E10, "/send_window/weekdays", message);
    }
    if window.days != Days::Custom && window.weekdays.is_some() {
        let message = "days of the week count only where days is custom: set it, or remove them";
        findings.say(Code::E10, "/send_window/weekdays", message);
    }
    let Some(allowed) = around.window else { return };
    for (at, range) in window.ranges.iter().enumerate().filter(|(_, range)| range.from < range.to) {
        if range.from < allowed.from || range.to > allowed.to {
            let message = format!(
                "{}–{} reaches beyond the hours of the organisation, {}–{}: stay within them",
                range.from, range.to, allowed.from, allowed.to
            );
            findings.say(Code::E10, format!("/send_window/ranges/{at}"), message);
        }
    }
}

fn caps(config: &WorkflowConfig, around: &Surroundings<'_>, findings: &mut Findings) {
    let (caps, most) = (&config.caps, &around.caps);
    for (name, wanted, most) in [
        ("per_contact_per_day", Some(caps.per_contact_per_day), most.per_contact_per_day),
        ("per_contact_per_week", caps.per_contact_per_week, most.per_contact_per_week),
        ("per_account_per_day", Some(caps.per_account_per_day), most.per_account_per_day),
        ("max_unanswered", Some(caps.max_unanswered), most.max_unanswered),
    ] {
        if let (Some(wanted), Some(most)) = (wanted, most)
            && wanted > most
        {
            let message = format!("this is {wanted}, and the organisation allows {most}: lower it");
            findings.say(Code::E11, format!("/caps/{name}"), message);
        }
    }
}
