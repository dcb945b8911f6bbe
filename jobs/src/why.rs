//! Why a job is not running: a code, a sentence, the next try, and how many jobs go before it. Pure.
//!
//! Everything that can hold a job back is looked at in one order, from what only a person can change to what passes by
//! itself; the first that applies is the answer. A job that has ended waits for nothing and has no `why`; one that runs
//! has the code `running`.

mod waits;

use chrono::{DateTime, SecondsFormat, Utc};
use entropy_schema::views::waiting::Facts;

use crate::job::Job;
use crate::kinds::ai_reply::AiReply;
use waits::sentence;

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// Stable name of the reason.
    pub code: String,
    /// The reason, for people.
    pub message: String,
    /// The earliest moment at which the job can go on. None: only a person can let it go on, or it runs already.
    pub next_try_at: Option<DateTime<Utc>>,
    /// Jobs that go before it in its lane, the one that runs there included; without a lane, in its organisation's
    /// part of the queue. Counted up to 100,000.
    pub jobs_ahead: i64,
}

/// Says why a living job is not running.
pub fn why(facts: &Facts) -> Why {
    let ahead = facts.ahead + i64::from(facts.lane_busy);
    let answer = |code: &str, message: String, next_try_at| Why {
        code: code.to_owned(),
        message,
        next_try_at,
        jobs_ahead: ahead,
    };
    let from_now = |at: Option<DateTime<Utc>>| Some(at.map_or(facts.now, |at| at.max(facts.now)));
    if facts.running {
        return answer("running", "A worker is carrying it out.".into(), None);
    }
    if facts.queue_paused {
        let message = format!("The queue \"{}\" is paused. Resume it to let the job go on.", facts.queue);
        return answer("queue_paused", message, None);
    }
    if facts.lane_paused {
        return answer("lane_paused", paused_sentence(facts.lane_paused_reason.as_deref()), None);
    }
    if let (Some(due_at), Some(code)) = (facts.due_at, facts.wait_code.as_deref()) {
        let message = own_sentence(facts, code, due_at);
        return answer(code, message, from_now(Some(due_at)));
    }
    if facts.handed_out {
        return about_to_start(facts, answer);
    }
    // What the lane waits for matters to everyone in it, but those before this one first.
    let lane_until = facts.lane_runnable_at.filter(|at| *at > facts.now);
    let lane_code = facts.lane_wait_code.as_deref().filter(|_| lane_until.is_some());
    if ahead > 0 {
        let message = ahead_sentence(facts, ahead, lane_until, lane_code);
        let code = if facts.lane_busy && facts.ahead == 0 { "lane_busy" } else { "jobs_ahead" };
        return answer(code, message, from_now(lane_until));
    }
    if let (Some(until), Some(code)) = (lane_until, lane_code) {
        return answer(code, lane_sentence(code, until), Some(until));
    }
    if let Some(until) = facts.blocked_until {
        let message = format!(
            "An earlier message of the same conversation waits for its retry at {}; this one stays behind it.",
            clock(until.max(facts.now))
        );
        return answer("conversation_blocked", message, from_now(Some(until)));
    }
    about_to_start(facts, answer)
}

fn about_to_start(facts: &Facts, answer: impl Fn(&str, String, Option<DateTime<Utc>>) -> Why) -> Why {
    if !facts.worker_alive {
        let message = "No worker is running. Start one with `entropy worker`.";
        return answer("no_worker", message.into(), None);
    }
    if facts.handed_out {
        return answer("handed_out", "It is on its way to a worker.".into(), Some(facts.now));
    }
    answer("about_to_start", "Nothing holds it back; it starts in a moment.".into(), Some(facts.now))
}

fn paused_sentence(reason: Option<&str>) -> String {
    match reason.map(str::trim).filter(|reason| !reason.is_empty()) {
        Some("risk_control") => {
            "WeChat limits the account, so nothing is sent from it. Look at the phone first, then lift the hold by resuming the account.".into()
        }
        Some(reason) => format!("Its lane is paused: {reason}. Resume it to let the job go on."),
        None => "Its lane is paused. Resume it to let the job go on.".into(),
    }
}

/// The sentence for a job that has a due time of its own.
fn own_sentence(facts: &Facts, code: &str, due_at: DateTime<Utc>) -> String {
    let (at, note) = (clock(due_at), facts.wait_note.as_deref());
    match code {
        // Nobody asks for an answer at a time of their own: it is the turn that is not over.
        "scheduled" if facts.queue == AiReply::QUEUE => {
            format!("The customer may still be writing; it is answered at {at} unless more comes before.")
        }
        "scheduled" => format!("It was asked for {at}."),
        "retry" => match note {
            Some(note) => format!("An attempt failed ({note}); the next one is at {at}."),
            None => format!("An attempt failed; the next one is at {at}."),
        },
        code => match (sentence(code), note) {
            (Some(reason), _) => format!("{reason} It is tried again at {at}."),
            (None, Some(note)) => format!("It waits ({note}) and is tried again at {at}."),
            (None, None) => format!("It waits ({code}) and is tried again at {at}."),
        },
    }
}

fn ahead_sentence(
    facts: &Facts,
    ahead: i64,
    lane_until: Option<DateTime<Utc>>,
    lane_code: Option<&str>,
) -> String {
    let place = if facts.has_lane { "lane" } else { "queue" };
    let jobs = if ahead == 1 { "1 job goes".into() } else { format!("{ahead} jobs go") };
    let first = match (facts.lane_busy, facts.ahead) {
        (true, 0) => "Its lane is busy with another job.".to_owned(),
        (true, _) => format!("{jobs} before it in its lane, one of them is running."),
        (false, _) => format!("{jobs} before it in its {place}."),
    };
    match (lane_until, lane_code) {
        (Some(until), Some(code)) => format!("{first} {}", lane_sentence(code, until)),
        _ => first,
    }
}

fn lane_sentence(code: &str, until: DateTime<Utc>) -> String {
    let at = clock(until);
    match sentence(code) {
        Some(reason) => format!("{reason} The next try is at {at}."),
        None => format!("Its lane waits ({code}); the next try is at {at}."),
    }
}

fn clock(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000, 0).expect("a time")
    }

    /// A job at the head of an idle lane while a worker lives.
    fn head() -> Facts {
        Facts {
            now: now(),
            queue: "send".into(),
            running: false,
            handed_out: false,
            due_at: None,
            wait_code: None,
            wait_note: None,
            queue_paused: false,
            has_lane: true,
            lane_paused: false,
            lane_paused_reason: None,
            lane_busy: false,
            lane_runnable_at: Some(now()),
            lane_wait_code: None,
            ahead: 0,
            blocked_until: None,
            worker_alive: true,
        }
    }

    fn in_s(seconds: i64) -> Option<DateTime<Utc>> {
        Some(now() + TimeDelta::seconds(seconds))
    }

    fn check(facts: Facts, code: &str, next_try_at: Option<DateTime<Utc>>, ahead: i64) {
        let why = why(&facts);
        assert_eq!(
            (why.code.as_str(), why.next_try_at, why.jobs_ahead),
            (code, next_try_at, ahead),
            "{why:?}"
        );
        assert!(why.message.ends_with('.'), "{}", why.message);
    }

    #[test]
    fn what_only_a_person_can_change_comes_first_and_has_no_next_try() {
        let waits = Facts { due_at: in_s(60), wait_code: Some("retry".into()), ..head() };
        check(Facts { queue_paused: true, lane_paused: true, ..waits.clone() }, "queue_paused", None, 0);
        check(Facts { lane_paused: true, ..waits.clone() }, "lane_paused", None, 0);
        check(waits, "retry", in_s(60), 0);
        check(Facts { worker_alive: false, ..head() }, "no_worker", None, 0);
        check(Facts { worker_alive: false, handed_out: true, ..head() }, "no_worker", None, 0);
    }

    #[test]
    fn a_scheduled_job_names_its_time_whatever_else_goes_on_in_its_lane() {
        let facts =
            Facts { due_at: in_s(3600), wait_code: Some("scheduled".into()), lane_busy: true, ..head() };
        check(facts, "scheduled", in_s(3600), 1);
    }

    #[test]
    fn an_answer_waits_for_the_end_of_the_turn_and_for_the_model_in_words_of_its_own() {
        let answer = Facts { queue: "ai".into(), ..head() };
        let waits = |code: &str| Facts { due_at: in_s(4), wait_code: Some(code.into()), ..answer.clone() };
        check(waits("scheduled"), "scheduled", in_s(4), 0);
        assert!(why(&waits("scheduled")).message.contains("may still be writing"));
        for code in ["ai_breaker_open", "ai_rate_limited", "ai_unreachable", "ai_answer_lost", "not_ready"] {
            check(waits(code), code, in_s(4), 0);
            let message = why(&waits(code)).message;
            assert!(!message.contains(code), "a sentence, not the code: {message}");
        }
    }

    #[test]
    fn jobs_ahead_count_the_one_that_runs() {
        check(Facts { lane_busy: true, lane_runnable_at: None, ..head() }, "lane_busy", in_s(0), 1);
        check(
            Facts { lane_busy: true, ahead: 4, lane_runnable_at: None, ..head() },
            "jobs_ahead",
            in_s(0),
            5,
        );
        let limited = Facts {
            ahead: 4,
            lane_runnable_at: in_s(7),
            lane_wait_code: Some("messages_per_minute".into()),
            ..head()
        };
        assert!(why(&limited).message.contains("messages per minute"));
        check(limited, "jobs_ahead", in_s(7), 4);
        check(
            Facts { has_lane: false, lane_runnable_at: None, ahead: 2, ..head() },
            "jobs_ahead",
            in_s(0),
            2,
        );
    }

    #[test]
    fn the_head_of_a_lane_names_the_limit_that_holds_it() {
        for code in [
            "min_gap",
            "messages_per_minute",
            "messages_per_day",
            "recipients_per_minute",
            "api_calls_per_hour",
            "account_offline",
            "gewe_token_rejected",
            "flood_guard",
            "account_not_ready",
            "something_new",
        ] {
            let facts = Facts { lane_runnable_at: in_s(9), lane_wait_code: Some(code.into()), ..head() };
            check(facts, code, in_s(9), 0);
        }
    }

    #[test]
    fn a_limit_that_has_passed_is_not_named() {
        let facts = Facts { lane_runnable_at: in_s(-1), lane_wait_code: Some("min_gap".into()), ..head() };
        check(facts, "about_to_start", in_s(0), 0);
    }

    #[test]
    fn a_message_stays_behind_the_retry_of_an_earlier_one() {
        check(Facts { blocked_until: in_s(30), ..head() }, "conversation_blocked", in_s(30), 0);
        check(Facts { blocked_until: in_s(-30), ..head() }, "conversation_blocked", in_s(0), 0);
    }

    #[test]
    fn a_job_that_nothing_holds_back_starts_now() {
        check(head(), "about_to_start", in_s(0), 0);
        check(Facts { handed_out: true, ..head() }, "handed_out", in_s(0), 0);
        check(Facts { running: true, ..head() }, "running", None, 0);
    }

    #[test]
    fn a_pause_repeats_its_reason() {
        let paused = Facts { lane_paused: true, lane_paused_reason: Some("holidays".into()), ..head() };
        assert!(why(&paused).message.contains("holidays"));
    }
}
