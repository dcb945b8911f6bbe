//! Words that do something: who writes one, and nothing else, is not answered by a model.

/// What a word does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// No more messages; the word as it was compared.
    OptOut(String),
    /// A person should answer.
    HandOff,
}

const OPT_OUT: &[&str] = &["退订", "取消订阅", "不要再发", "td", "t", "unsubscribe"];
const HAND_OFF: &[&str] = &["转人工", "人工", "人工客服"];

/// The longest text that can be a word, in characters; longer ones are not looked at.
const LONGEST: usize = 64;

/// Tells whether the whole text is a word that does something.
///
/// Opting out comes first: a word that somebody has put into both lists does what cannot be undone by a machine.
pub fn of(text: &str, opt_out_words: &[String], handoff_words: &[String]) -> Option<Control> {
    let said = normalized(text);
    if said.is_empty() {
        return None;
    }
    let own = |words: &[String]| words.iter().any(|word| normalized(word) == said);
    if OPT_OUT.contains(&said.as_str()) || own(opt_out_words) {
        return Some(Control::OptOut(said));
    }
    (HAND_OFF.contains(&said.as_str()) || own(handoff_words)).then_some(Control::HandOff)
}

/// Removes the mention with which a message in a group begins or ends: `@小李 退订`.
pub fn without_mention(text: &str) -> &str {
    let text = text.trim();
    // WeChat ends a mention with a space of its own.
    let end = |rest: &str| rest.find(['\u{2005}', ' ']);
    if let Some(rest) = text.strip_prefix('@') {
        return end(rest).map_or("", |at| rest[at..].trim());
    }
    match text.rfind('@') {
        Some(at) if end(text[at..].trim_end()).is_none() => text[..at].trim(),
        _ => text,
    }
}

/// Takes out what does not change a word: width, case, spaces, invisible characters, punctuation around it.
fn normalized(text: &str) -> String {
    if text.chars().nth(LONGEST).is_some() {
        return String::new();
    }
    let folded: String = text
        .chars()
        .map(|c| match c {
            '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
            c => c,
        })
        .filter(|c| {
            !c.is_whitespace()
                && !c.is_control()
                && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{feff}' | '\u{2060}')
        })
        .flat_map(char::to_lowercase)
        .collect();
    folded
        .trim_matches(|c: char| c.is_ascii_punctuation() || matches!(c, '。' | '、' | '…' | '“' | '”'))
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_text_must_be_the_word_whatever_its_width_case_and_spaces() {
        let out = |text: &str| matches!(of(text, &[], &[]), Some(Control::OptOut(_)));
        for text in [
            "退订",
            " 退订。",
            "TD",
            "ｔｄ",
            "t",
            "退 订！",
            "Unsubscribe",
            "【退订】".trim_matches(['【', '】']),
        ] {
            assert!(out(text), "{text}");
        }
        for text in ["怎么退订", "退订了吗", "", "  ", "TDK", "。", &"退订".repeat(100)] {
            assert!(!out(text), "{text}");
        }
        assert_eq!(of("转人工", &[], &[]), Some(Control::HandOff));
        assert_eq!(of("人工!", &[], &[]), Some(Control::HandOff));
        assert_eq!(of("人工智能", &[], &[]), None);
    }

    #[test]
    fn an_organisation_has_words_of_its_own() {
        let words = |word: &str| vec![word.to_owned()];
        assert_eq!(of("别烦我", &words("别烦我"), &[]), Some(Control::OptOut("别烦我".into())));
        assert_eq!(of("找店长", &[], &words("找 店长")), Some(Control::HandOff));
        assert_eq!(of("人工", &words("人工"), &[]), Some(Control::OptOut("人工".into())));
    }

    #[test]
    fn a_mention_is_no_part_of_the_word() {
        assert_eq!(without_mention("@小李\u{2005}退订"), "退订");
        assert_eq!(without_mention("@小李 转人工"), "转人工");
        assert_eq!(without_mention("退订 @小李\u{2005}"), "退订");
        assert_eq!(without_mention("@小李"), "");
        assert_eq!(without_mention("退订"), "退订");
        assert_eq!(without_mention("a@b 退订"), "a@b 退订");
    }
}
