//! Why a campaign does not write to somebody: a code and a sentence for everything that can hold a message back, leave it out or
//! end a way.

use entropy_schema::campaigns::enrollments::Enrollment;
use entropy_schema::campaigns::facts;
use entropy_schema::{Conn, Result};

use super::checks::{self, Asker};
use super::plan::Plans;
use super::situation::Situation;
use crate::sop::config::step::Step;

/// Codes and their sentences.
const SENTENCES: &[(&str, &str)] = &[
    // The plan and what was stopped.
    ("sop_paused", "The plan is paused. Resume it to let its people go on."),
    ("canceled", "The plan was stopped, or somebody took the person out of it."),
    ("superseded", "Another version or another message has taken its place."),
    ("stopped", "An emergency stop is in force; it is looked at again every ten minutes."),
    ("plan_not_running", "The plan does not run: nobody is taken in, and nothing is sent."),
    ("plan_unreadable", "This version of the plan cannot be read by the program that runs."),
    ("paused", "A rule of the plan, or a person, has paused this person's way."),
    // The account.
    ("account_removed", "The account was removed."),
    ("account_deleted", "The account was removed."),
    ("account_risk", "The account is held after a sign of risk, until a manager lifts the hold."),
    ("account_offline", "The account is offline. Log it in again."),
    ("account_not_ready", "The account cannot send yet: it needs a wxid, a device and the status ONLINE."),
    // The person.
    ("opted_out", "The person wants no more messages."),
    ("contact_removed", "The person is no friend any more, or the group was left."),
    ("contact_suppressed", "The contact is on the suppression list."),
    ("consent_missing", "There is no consent on record for what the plan is for."),
    ("contact_not_found", "There is no such contact."),
    // The conversation.
    ("taken_over", "A person has the conversation; campaigns are silent in it."),
    ("newer_message", "The person has written since the message was made; it is made anew."),
    // Time, and what the plan and the organisation allow.
    ("begins", "Its first step is not due yet."),
    ("late", "The message was later than the plan allows."),
    ("window", "Campaign messages are not sent at this time."),
    ("window_never_opens", "The plan's window and the organisation's hours have no time in common."),
    ("spread", "Many messages of the account are due at once; they follow each other at its pace."),
    ("per_contact_per_day", "The contact has had as many campaign messages today as allowed."),
    ("per_contact_per_week", "The contact has had as many campaign messages in seven days as allowed."),
    ("per_account_per_day", "The account has sent as many campaign messages today as allowed."),
    (
        "new_contacts_per_account_per_day",
        "The account has written to as many people who never answered today as allowed.",
    ),
    ("per_organization_per_day", "The organisation has sent as many campaign messages today as allowed."),
    ("min_gap", "The contact had a campaign message just before."),
    ("max_unanswered", "The contact has left as many messages unanswered as allowed."),
    ("messages_per_day", "The account has used up its messages per day."),
    ("api_calls_per_hour", "The GeWe token has used up its calls per hour."),
    ("not_counted", "What was sent before could not be counted; it is looked at again."),
    // The message.
    ("budget", "The budget has no room for the model: the fallback text is sent."),
    ("workflow_missing", "There is no workflow of this name: the fallback text is sent."),
    ("writing", "A model is asked for the text."),
    ("sensitive_words", "The text has words that the organisation minds."),
    ("held_for_review", "The text waits for a person to look at it."),
    ("rejected", "A person has looked at the text and rejected it."),
    ("review_expired", "Nobody looked at the text in time."),
    ("missing_variable", "A value is missing that the text needs, and it has no default."),
    ("material_missing", "The material that the step sends is missing."),
    (
        "no_public_url",
        "The material is an uploaded file, and this install has no PUBLIC_URL under which it could be fetched.",
    ),
    ("text_length", "The text is empty or too long once its values are in it."),
    ("sending", "The message is on its way: it waits in its account's lane, or is being sent."),
    ("no_message", "The person's way through the plan leads past every message."),
    // Steps.
    ("wait", "The plan waits here."),
    ("wait_reply", "The plan waits here for an answer."),
    ("no_conversation", "There is no conversation yet that could be handed over."),
    ("step_missing", "The plan has no such step."),
    ("too_many_steps", "The plan leads in circles."),
    ("no_arm", "The split has no arm that weighs anything."),
    // Ends.
    ("replied", "The person has answered."),
    ("goal", "The plan's goal is reached."),
    ("deadline", "The plan's time for this person is over."),
    ("tag_rule", "The contact was given a tag that stops the plan."),
    ("send_failures", "As many messages in a row could not be sent as the plan allows."),
    // Why somebody is not taken in.
    ("not_targeted", "The plan is not meant for this contact: it is not among its targets."),
    ("not_brought_in", "Nothing speaks against it, but nothing has brought the person in yet."),
    ("other_kind", "The plan is for contacts of another kind."),
    ("other_account", "The plan does not write from this contact's account."),
    ("in_plan", "The person is in the plan already, maybe under another account."),
    ("other_sop", "The person is in another plan, and this one leaves such people out."),
    ("filtered", "The person does not meet the plan's filter."),
    ("entered_before", "The person has been through the plan as often as it allows."),
    ("cooldown", "The person has been through the plan, and may enter it again later."),
];

/// Returns the sentence for a code. None: another part of the program, or a newer version, has written it.
pub fn sentence(code: &str) -> Option<&'static str> {
    SENTENCES.iter().find(|(known, _)| *known == code).map(|(_, sentence)| *sentence)
}

/// Returns a sentence for a code, whatever it is.
pub fn told(code: &str) -> String {
    sentence(code).map_or_else(|| format!("The reason on record is {code}."), str::to_owned)
}

/// Returns everything that speaks at this moment against the message at which an enrollment stands, or comes to next: what the gate
/// would say now. Nothing, once it is over.
pub async fn now(conn: &mut Conn, plans: &Plans, enrollment: &Enrollment) -> Result<Vec<&'static str>> {
    if enrollment.finished_at.is_some() {
        return Ok(Vec::new());
    }
    let Some(facts) = facts::of(conn, enrollment.id).await? else { return Ok(Vec::new()) };
    let Some(plan) = plans.of(conn, enrollment.sop_id, enrollment.version).await? else {
        return Ok(vec!["plan_unreadable"]);
    };
    let mut situation = Situation::new(enrollment.clone(), &facts, &plan);
    situation.count(conn, false).await?;
    let at = enrollment.step_id.as_deref().and_then(|id| plan.config.step(id));
    let by_model = matches!(at, Some(Step::AiSend(_)));
    let planned_at = enrollment.planned_at.filter(|_| at.is_some_and(Step::sends)).unwrap_or(situation.now);
    let mut verdicts = checks::objections(&situation, Asker::Step, by_model);
    verdicts.push(checks::in_time(&situation, planned_at));
    Ok(verdicts.into_iter().filter_map(checks::Verdict::code).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sop::caps::Cap;

    /// What stands before a code in the sources.
    const MARKS: [&str; 6] = ["code: \"", "later(\"", ".exit(\"", ".fail(\"", ".push(\"", ", \""];

    #[test]
    fn everything_that_holds_a_message_back_or_ends_a_way_has_a_sentence() {
        let sources = [
            include_str!("checks.rs"),
            include_str!("rules.rs"),
            include_str!("send.rs"),
            include_str!("../sop/slot.rs"),
        ];
        let mut codes = BTreeSet::new();
        for source in sources {
            let source = source.split("#[cfg(test)]").next().unwrap_or_default();
            for mark in MARKS {
                for behind in source.split(mark).skip(1) {
                    let code = behind.split('"').next().unwrap_or_default();
                    let is_code = |c: char| c.is_ascii_lowercase() || c == '_';
                    if !code.is_empty() && code.chars().all(is_code) {
                        codes.insert(code);
                    }
                }
            }
        }
        for expected in ["opted_out", "account_risk", "missing_variable", "deadline", "sop_paused"] {
            assert!(codes.contains(expected), "the test does not find {expected} any more: {codes:?}");
        }
        let mute: Vec<_> = codes.iter().filter(|code| sentence(code).is_none()).collect();
        assert!(mute.is_empty(), "without a sentence: {mute:?}");
    }

    #[test]
    fn every_cap_has_a_sentence_and_every_sentence_ends() {
        for cap in [
            Cap::PerContactPerDay,
            Cap::PerContactPerWeek,
            Cap::PerAccountPerDay,
            Cap::NewContactsPerAccountPerDay,
            Cap::PerOrganizationPerDay,
            Cap::MinGap,
            Cap::MaxUnanswered,
        ] {
            assert!(sentence(cap.code()).is_some(), "{cap:?}");
        }
        let codes: BTreeSet<_> = SENTENCES.iter().map(|(code, _)| code).collect();
        assert_eq!(codes.len(), SENTENCES.len());
        assert!(SENTENCES.iter().all(|(_, sentence)| sentence.ends_with('.')));
        assert_eq!(told("gewe_refused"), "The reason on record is gewe_refused.");
    }
}
