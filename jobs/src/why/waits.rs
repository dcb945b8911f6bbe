//! The sentence for each code that a limit, a hold or a snooze leaves behind. Every one of them has one: a test reads the
//! code for those that are written.

/// Codes and their sentences, about the job or its lane.
const SENTENCES: &[(&str, &str)] = &[
    // What the account and its lane wait for.
    ("retry", "The job at the head of the lane waits for its retry."),
    ("min_gap", "The account keeps its minimum gap between two messages."),
    ("messages_per_minute", "The account has used up its messages per minute."),
    ("messages_per_day", "The account has used up its messages per day."),
    ("recipients_per_minute", "The account has written to as many different people as it may in a minute."),
    ("api_calls_per_hour", "The GeWe token has used up its calls per hour."),
    ("account_offline", "The account is offline. Log it in again, or resume it if it is online."),
    ("account_not_ready", "The account cannot send yet: it needs a wxid, a device and the status ONLINE."),
    ("gewe_token_rejected", "GeWe rejected the account's token. Check the token."),
    ("flood_guard", "The worker has made as many calls for the account as it may in a minute."),
    ("provider_unreachable", "GeWe could not be reached."),
    ("background_gap", "Calls for which nobody waits keep a gap between them."),
    ("list_not_ready", "GeWe is still putting the list of contacts together."),
    ("lane_paused", "Its lane was paused."),
    ("queue_paused", "Its queue was paused."),
    // What an answer of the model waits for.
    (
        "ai_breaker_open",
        "The model has failed several times in a row, so it is left alone for a while; if that takes too long for the \
         customer, a person is asked instead.",
    ),
    (
        "ai_rate_limited",
        "The workflow's key has made as many calls of the model as it may for now; if that takes too long for the \
         customer, a person is asked instead.",
    ),
    ("ai_unreachable", "The AI provider could not be reached; if that lasts, a person is asked instead."),
    (
        "ai_answer_lost",
        "The model was asked and its answer was lost; the provider's records are asked for it before the model is asked \
         again.",
    ),
    (
        "ai_media_waiting",
        "A picture or file of the question is still being downloaded; it is waited for a moment.",
    ),
    ("not_ready", "The model was asked several times in one attempt."),
    // What an event of the provider waits for.
    (
        "send_under_way",
        "The same words are being sent from here; whether a person typed these is known once that call has ended.",
    ),
    // What a campaign's job waits for.
    ("enrolling", "It brings people into a campaign page by page, and goes on in a moment."),
    // What any job may wait for.
    ("stopped", "An emergency stop is in force; it is looked at again every ten minutes."),
    ("record_unavailable", "The database could not be reached, and nothing is sent without it."),
    ("kind_unknown", "The worker that took it does not know this kind of job; a newer worker may."),
];

/// Returns the sentence for a code. None: a newer version has written it.
pub(super) fn sentence(code: &str) -> Option<&'static str> {
    SENTENCES.iter().find(|(known, _)| *known == code).map(|(_, sentence)| *sentence)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    use super::*;
    use crate::limits::Limit;

    /// Where a job or a lane is put back, in the code: what follows names the code of the wait.
    const PUT_BACK: [&str; 5] = ["snooze(", "snooze_lane(", "Snooze {", "LaneWait {", "Becomes::Waiting {"];

    fn is_word(c: char) -> bool {
        c.is_ascii_alphanumeric() || c == '_'
    }

    fn is_code(literal: &str) -> bool {
        !literal.is_empty()
            && literal.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    }

    /// What stands between the bracket that ends `before` and the one that closes it.
    fn inside(after: &str) -> &str {
        let mut depth = 1;
        let end = after.char_indices().find(|(_, c)| {
            match c {
                '(' | '{' => depth += 1,
                ')' | '}' => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        &after[..end.map_or(after.len(), |(at, _)| at)]
    }

    /// The literals of a piece of code, each with what stands before and after it.
    fn literals(code: &str) -> Vec<(&str, &str, &str)> {
        let quotes: Vec<usize> = code.match_indices('"').map(|(at, _)| at).collect();
        quotes
            .chunks_exact(2)
            .map(|two| (&code[..two[0]], &code[two[0] + 1..two[1]], &code[two[1] + 1..]))
            .collect()
    }

    /// The codes of tuples of a code and a sentence: what a variable `code` may stand for.
    fn told_with_a_sentence(code: &str) -> Vec<&str> {
        let found = literals(code).into_iter().filter(|(before, literal, after)| {
            let before = before.trim_end();
            let called = before.strip_suffix('(').is_some_and(|callee| callee.ends_with(is_word));
            let followed = after.trim_start().strip_prefix(',').map(str::trim_start);
            let sentence = followed.and_then(|rest| rest.strip_prefix('"')?.split('"').next());
            is_code(literal) && !called && sentence.is_some_and(|sentence| sentence.contains(' '))
        });
        found.map(|(_, literal, _)| literal).collect()
    }

    /// The codes of the waits that a file writes. Err: a place of which that cannot be told.
    fn written(source: &str) -> Result<BTreeSet<&str>, String> {
        let source = source.split("#[cfg(test)]").next().unwrap_or_default();
        let mut codes = BTreeSet::new();
        for marker in PUT_BACK {
            for (at, _) in source.match_indices(marker) {
                let before = &source[..at];
                let line = before.rsplit('\n').next().unwrap_or_default();
                let defines = ["fn ", "struct ", "->", "//"].iter().any(|word| line.contains(word));
                if defines || before.ends_with(is_word) {
                    continue;
                }
                let args = inside(&source[at + marker.len()..]);
                if args.trim() == ".." {
                    continue;
                }
                let named: Vec<&str> = literals(args)
                    .into_iter()
                    .map(|(_, literal, _)| literal)
                    .filter(|one| is_code(one))
                    .collect();
                let function = &before[before.rfind("fn ").unwrap_or(0)..];
                let passes_on = args.contains("snooze.code") || function.contains("code: &'static str");
                let limit = args.contains("limit.code()") || function.contains("limit.code()");
                if !named.is_empty() {
                    codes.extend(named);
                } else if !passes_on && !limit {
                    let told = told_with_a_sentence(function);
                    if told.is_empty() {
                        return Err(format!("{marker}{args}"));
                    }
                    codes.extend(told);
                }
            }
        }
        Ok(codes)
    }

    fn sources(folder: &Path, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.insert(path.display().to_string(), std::fs::read_to_string(&path).expect("a source"));
            }
        }
    }

    #[test]
    fn every_code_that_a_job_is_put_back_with_has_a_sentence() {
        let mut files = BTreeMap::new();
        let jobs = Path::new(env!("CARGO_MANIFEST_DIR"));
        sources(&jobs.join("src"), &mut files);
        sources(&jobs.join("../workers/src"), &mut files);
        let mut codes: BTreeSet<&str> = BTreeSet::new();
        for (file, source) in &files {
            codes.extend(
                written(source).unwrap_or_else(|place| panic!("{file}: which code is this? {place}")),
            );
        }
        for expected in
            ["ai_breaker_open", "ai_unreachable", "ai_answer_lost", "send_under_way", "background_gap"]
        {
            assert!(codes.contains(expected), "the test does not find {expected} any more: {codes:?}");
        }
        // The sentence of a job that was asked for a time names the time.
        let mute: Vec<_> =
            codes.iter().filter(|code| **code != "scheduled" && sentence(code).is_none()).collect();
        assert!(mute.is_empty(), "without a sentence: {mute:?}");
    }

    #[test]
    fn every_code_that_has_a_sentence_is_in_the_documentation() {
        let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/API.md"));
        let page = page.expect("the page");
        let (_, table) = page.split_once("| `why.code` | |").expect("the table of codes");
        let table = table.split("\n\n").next().unwrap_or_default();
        let missing: Vec<_> = SENTENCES
            .iter()
            .map(|(code, _)| code)
            .filter(|code| !table.contains(&format!("`{code}`")))
            .collect();
        assert!(missing.is_empty(), "not in docs/API.md: {missing:?}");
    }

    #[test]
    fn every_limit_has_a_sentence() {
        for limit in [
            Limit::MinGap,
            Limit::MessagesPerMinute,
            Limit::MessagesPerDay,
            Limit::RecipientsPerMinute,
            Limit::ApiCallsPerHour,
        ] {
            assert!(sentence(limit.code()).is_some(), "{limit:?}");
        }
    }

    #[test]
    fn a_code_that_nobody_has_described_is_found() {
        let direct = r#"fn a() {
            snooze(wait, "moon_is_full", "the moon is full"); }"#;
        assert_eq!(written(direct), Ok(BTreeSet::from(["moon_is_full"])));
        let chosen = r#"fn a() {
            let (code, note) = match x { 1 => ("too_hot", "it is hot"), _ => ("too_cold", "it is cold") };
            stop(cancel("gone", "it is gone")); Err(snooze(wait, code, note)) }"#;
        assert_eq!(written(chosen), Ok(BTreeSet::from(["too_hot", "too_cold"])));
        assert!(written("fn a() {\n snooze_lane(wait, somewhere_else(), note) }").is_err());
        assert!(sentence("moon_is_full").is_none());
    }
}
