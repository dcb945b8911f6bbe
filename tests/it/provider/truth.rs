//! What the sandbox knows of each call against what the record says of it. Pure.

use std::collections::BTreeMap;
use std::fmt;

use super::modes::fate;
use super::scene::Policy;

const MINUTE_US: i64 = 60_000_000;

/// A call as the sandbox saw it.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// The failure that it met.
    pub(super) mode: Option<String>,
    /// What became of the message.
    pub(super) outcome: String,
    /// When it came, in microseconds.
    pub(super) at_us: i64,
}

/// A call as it was recorded.
#[derive(Debug, Clone)]
pub(super) struct Send {
    /// `sending`, `sent`, `failed` or `unknown`.
    pub(super) state: String,
    /// The code of its error.
    pub(super) code: Option<String>,
}

/// All there is about one job.
#[derive(Debug, Clone)]
pub(super) struct Told {
    /// Which message, for messages.
    pub(super) name: String,
    /// Kind of the message.
    pub(super) kind: &'static str,
    /// What was to be done when nobody can know.
    pub(super) policy: Policy,
    /// Its account's failures last longer than a call.
    pub(super) slow: bool,
    /// How the job ended.
    pub(super) state: String,
    /// What its result says of the message.
    pub(super) send_status: Option<String>,
    /// The id that its result names.
    pub(super) new_msg_id: Option<String>,
    /// The code of its error.
    pub(super) error: Option<String>,
    /// What was recorded, in order.
    pub(super) sends: Vec<Send>,
    /// What was received, in order.
    pub(super) calls: Vec<Call>,
    /// The ids under which it reached the phone, and when, in microseconds.
    pub(super) delivered: Vec<(String, i64)>,
}

impl Told {
    fn has(&self, state: &str) -> usize {
        self.sends.iter().filter(|send| send.state == state).count()
    }
}

/// Returns what is wrong with one job.
pub(super) fn faults(job: &Told) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |what: String| faults.push(format!("{what}: {job:?}"));
    if job.sends.len() != job.calls.len() {
        fault(format!("{} calls are recorded and {} were made", job.sends.len(), job.calls.len()));
    }
    for (send, call) in job.sends.iter().zip(&job.calls) {
        let fate = fate(call.mode.as_deref(), job.slow);
        if (send.state.as_str(), send.code.as_deref()) != (fate.state, fate.code) {
            fault(format!("{:?} is recorded as {send:?}, not as {fate:?}", call.mode));
        }
        if call.outcome != fate.outcome {
            fault(format!("{:?} came to {}, not to {}", call.mode, call.outcome, fate.outcome));
        }
        // Said again without the table of fates: what is recorded as sent or failed is so.
        let accepted = matches!(call.outcome.as_str(), "delivered" | "dropped");
        if send.state == "sent" && !accepted || send.state == "failed" && accepted {
            fault(format!("a call that came to {} is recorded as {}", call.outcome, send.state));
        }
    }
    let unknown = job.has("unknown");
    let may_repeat = if job.policy == Policy::Resend { unknown } else { 0 };
    if job.delivered.len() > 1 + may_repeat {
        fault(format!("it is on the phone {} times", job.delivered.len()));
    }
    if job.has("sent") > 1 {
        fault("it was sent again after it was recorded as sent".to_owned());
    }
    let ended = (job.state.as_str(), job.send_status.as_deref(), job.error.as_deref());
    let last = job.sends.last().map(|send| send.state.as_str());
    let wanted = match (last, job.policy) {
        (Some("sent"), _) => ("completed", Some("sent"), None),
        (Some("failed"), _) => ("dead", Some("failed"), Some("refused")),
        (Some("unknown"), Policy::Hold) => ("dead", Some("unknown"), Some("outcome_unknown")),
        (Some("unknown"), Policy::Drop) => ("completed", Some("unknown"), None),
        // Its account was removed before its turn came.
        (None, _) if job.state == "cancelled" => ended,
        // The same, between two tries.
        (Some("unknown"), Policy::Resend) if job.state == "cancelled" => ended,
        (other, _) => ("ended", other, Some("?")),
    };
    if ended != wanted {
        fault(format!("it has ended as {ended:?}, not as {wanted:?}"));
    }
    let dropped = job.calls.iter().any(|call| call.outcome == "dropped");
    let named = job.delivered.last().map(|(id, _)| id);
    if job.send_status.as_deref() == Some("sent") && !dropped && job.new_msg_id.as_ref() != named {
        fault("its result does not name the message on the phone".to_owned());
    }
    faults
}

/// Returns what came out of order in one conversation. `jobs` is in the order in which they were asked for.
///
/// One whose outcome was unknown for a while holds nothing back, and may come late.
pub(super) fn out_of_order(jobs: &[&Told]) -> Vec<String> {
    let arrived: Vec<(&str, i64)> = jobs
        .iter()
        .filter(|job| job.has("unknown") == 0)
        .filter_map(|job| Some((job.name.as_str(), job.delivered.first()?.1)))
        .collect();
    let overtaken = arrived.windows(2).filter(|pair| pair[1].1 < pair[0].1);
    overtaken.map(|pair| format!("{} has overtaken {}", pair[1].0, pair[0].0)).collect()
}

/// Returns where an account was above its limits, all its calls counted, in whatever way they ended.
pub(super) fn over_limit(account: &str, calls: &[&Call], per_minute: usize, min_gap_ms: i64) -> Vec<String> {
    let mut times: Vec<i64> = calls.iter().map(|call| call.at_us).collect();
    times.sort_unstable();
    let mut faults = Vec::new();
    for (n, from) in times.iter().enumerate() {
        let count = times[n..].iter().take_while(|at| **at < from + MINUTE_US).count();
        if count > per_minute {
            faults.push(format!("{account} made {count} calls in the minute from {from}"));
        }
    }
    for pair in times.windows(2) {
        if pair[1] - pair[0] < min_gap_ms * 1000 {
            faults.push(format!("{account} made two calls within {} us", pair[1] - pair[0]));
        }
    }
    faults
}

/// What became of the calls that met each failure.
#[derive(Debug, Default)]
pub(super) struct Tally(BTreeMap<String, Row>);

#[derive(Debug, Default)]
struct Row {
    calls: usize,
    on_phone: usize,
    dropped: usize,
    sent: usize,
    failed: usize,
    unknown: usize,
}

impl Tally {
    /// Counts the calls of these jobs.
    pub(super) fn add(&mut self, jobs: &[Told]) {
        for job in jobs {
            for (send, call) in job.sends.iter().zip(&job.calls) {
                let late = if job.slow && call.mode.is_some() { " (beyond the timeout)" } else { "" };
                let mode = format!("{}{late}", call.mode.as_deref().unwrap_or("none"));
                let row = self.0.entry(mode).or_default();
                row.calls += 1;
                row.on_phone += usize::from(call.outcome == "delivered");
                row.dropped += usize::from(call.outcome == "dropped");
                row.sent += usize::from(send.state == "sent");
                row.failed += usize::from(send.state == "failed");
                row.unknown += usize::from(send.state == "unknown");
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<42} {:>7} {:>8} {:>7} {:>7} {:>7} {:>7}",
            "failure", "calls", "on phone", "dropped", "sent", "failed", "unknown"
        )?;
        for (mode, row) in &self.0 {
            let Row { calls, on_phone, dropped, sent, failed, unknown } = row;
            writeln!(
                f,
                "{mode:<42} {calls:>7} {on_phone:>8} {dropped:>7} {sent:>7} {failed:>7} {unknown:>7}"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(mode: Option<&str>, outcome: &str) -> Call {
        Call { mode: mode.map(str::to_owned), outcome: outcome.to_owned(), at_us: 0 }
    }

    fn send(state: &str, code: Option<&str>) -> Send {
        Send { state: state.to_owned(), code: code.map(str::to_owned) }
    }

    fn told(name: &str, at_us: i64) -> Told {
        Told {
            name: name.to_owned(),
            kind: "text",
            policy: Policy::Hold,
            slow: false,
            state: "completed".to_owned(),
            send_status: Some("sent".to_owned()),
            new_msg_id: Some("7".to_owned()),
            error: None,
            sends: vec![send("sent", None)],
            calls: vec![call(None, "delivered")],
            delivered: vec![("7".to_owned(), at_us)],
        }
    }

    fn held() -> Told {
        Told {
            state: "dead".to_owned(),
            send_status: Some("unknown".to_owned()),
            new_msg_id: None,
            error: Some("outcome_unknown".to_owned()),
            sends: vec![send("unknown", Some("connection_lost"))],
            calls: vec![call(Some("reset_after_accept"), "delivered")],
            ..told("held", 0)
        }
    }

    #[test]
    fn what_is_recorded_as_it_was_has_no_fault() {
        assert_eq!(faults(&told("a", 0)), [""; 0]);
        assert_eq!(faults(&held()), [""; 0]);
        let dropped =
            Told { calls: vec![call(Some("silent_drop"), "dropped")], delivered: Vec::new(), ..told("a", 0) };
        assert_eq!(faults(&dropped), [""; 0], "nobody can know");
        let resent = Told {
            policy: Policy::Resend,
            sends: vec![send("unknown", Some("connection_lost")), send("sent", None)],
            calls: vec![call(Some("reset_after_accept"), "delivered"), call(None, "delivered")],
            delivered: vec![("6".to_owned(), 0), ("7".to_owned(), 1)],
            ..told("a", 0)
        };
        assert_eq!(faults(&resent), [""; 0]);
    }

    #[test]
    fn every_false_record_is_a_fault() {
        let broken = [
            ("a call that is not recorded", Told { calls: vec![call(None, "delivered"); 2], ..told("a", 0) }),
            ("a record without a call", Told { calls: Vec::new(), ..told("a", 0) }),
            (
                "failed, and on the phone",
                Told {
                    state: "dead".to_owned(),
                    send_status: Some("failed".to_owned()),
                    error: Some("refused".to_owned()),
                    sends: vec![send("failed", Some("refused"))],
                    calls: vec![call(Some("upstream_lost"), "delivered")],
                    ..told("a", 0)
                },
            ),
            (
                "sent, and nowhere",
                Told {
                    calls: vec![call(Some("reset_before_accept"), "not_accepted")],
                    delivered: Vec::new(),
                    ..told("a", 0)
                },
            ),
            ("twice on the phone", Told { delivered: vec![("7".to_owned(), 0); 2], ..told("a", 0) }),
            (
                "held, and resent",
                Told {
                    sends: vec![send("unknown", Some("connection_lost")); 2],
                    calls: vec![call(Some("reset_after_accept"), "delivered"); 2],
                    delivered: vec![("6".to_owned(), 0), ("7".to_owned(), 1)],
                    ..held()
                },
            ),
            ("unknown, and called completed", Told { state: "completed".to_owned(), ..held() }),
            ("the code of another failure", Told { sends: vec![send("unknown", Some("timeout"))], ..held() }),
            ("another message's id", Told { new_msg_id: Some("8".to_owned()), ..told("a", 0) }),
            ("still under way", Told { sends: vec![send("sending", None)], ..told("a", 0) }),
            ("cancelled after it was sent", Told { state: "cancelled".to_owned(), ..told("a", 0) }),
        ];
        for (what, job) in broken {
            assert_ne!(faults(&job), [""; 0], "{what}");
        }
    }

    #[test]
    fn a_message_behind_a_later_one_is_out_of_order_unless_it_was_unknown() {
        let (first, second) = (told("first", 20), told("second", 10));
        assert_eq!(out_of_order(&[&first, &second]), ["second has overtaken first"]);
        assert_eq!(out_of_order(&[&second, &first]), [""; 0]);
        assert_eq!(
            out_of_order(&[&Told { delivered: vec![("6".to_owned(), 90)], ..held() }, &second]),
            [""; 0]
        );
    }

    #[test]
    fn failing_calls_count_against_the_limits() {
        let at = |at_us| Call { at_us, ..call(Some("not_json"), "delivered") };
        let calls = [at(0), at(30_000_000), at(59_999_999)];
        let calls: Vec<&Call> = calls.iter().collect();
        assert_eq!(over_limit("a", &calls, 2, 10).len(), 1);
        assert_eq!(over_limit("a", &calls, 3, 10), [""; 0]);
        assert_eq!(over_limit("a", &[&at(0), &at(9_999)], 3, 10).len(), 1);
    }
}
