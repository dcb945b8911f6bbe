//! Sensitive words: how texts are compared with them, and what a hit asks for.
//!
//! Width, case, blanks and invisible characters make no difference: `稳 赚`, `稳​赚` with something invisible in it and
//! `Ｎo１` are found as `稳赚` and `no1`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aho_corasick::AhoCorasick;
use entropy_schema::Conn;
use entropy_schema::replies::SensitiveWord;
use unicode_normalization::UnicodeNormalization;
use uuid::Uuid;

/// Words about which the advertising law and its practice are strict: superlatives and promises. An organisation takes
/// them over as `review`.
///
/// Phrases that claim something, not the characters in them: `最` and `第一` by themselves stand in most everyday sentences
/// (`最近`, `最好提前预约`, `第一次`), and each of those would wait for a person.
pub const ADVERTISING_LAW: &[&str] = &[
    "最佳",
    "最优",
    "最强",
    "最好的",
    "质量最好",
    "品质最好",
    "效果最好",
    "服务最好",
    "口碑最好",
    "最高级",
    "最高档",
    "最高端",
    "最奢华",
    "最先进",
    "最权威",
    "最专业",
    "最安全",
    "最有效",
    "最畅销",
    "最受欢迎",
    "最具影响力",
    "最低价",
    "全网最低",
    "史上最低",
    "全国最大",
    "全球最大",
    "行业最大",
    "第一品牌",
    "第一名牌",
    "中国第一",
    "全国第一",
    "全球第一",
    "世界第一",
    "亚洲第一",
    "全网第一",
    "行业第一",
    "业内第一",
    "同行第一",
    "销量第一",
    "排名第一",
    "口碑第一",
    "效果第一",
    "天下第一",
    "NO.1",
    "TOP1",
    "唯一",
    "首个",
    "首选",
    "独家",
    "顶级",
    "极品",
    "极致",
    "国家级",
    "世界级",
    "全国级",
    "王牌",
    "冠军",
    "销量冠军",
    "填补国内空白",
    "绝对",
    "万能",
    "永久",
    "百分之百",
    "100%",
    "保证",
    "保本",
    "稳赚",
    "稳赚不赔",
    "零风险",
    "无风险",
    "包过",
    "包治",
    "根治",
    "治愈率",
    "无效退款",
    "国家领导人",
    "特供",
    "专供",
    "驰名商标",
    "史无前例",
    "前无古人",
];

/// How long a compiled list serves. A changed list is in force as soon.
const FRESH: Duration = Duration::from_secs(5);

/// Lists that are kept at once.
const KEPT: usize = 1000;

/// What a word asks for, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Write stars in its place.
    Mask,
    /// Let a person look first.
    Review,
    /// Do not say it.
    Block,
}

impl Action {
    /// Reads the word that is stored.
    pub fn parse(text: &str) -> Option<Action> {
        match text {
            "mask" => Some(Action::Mask),
            "review" => Some(Action::Review),
            "block" => Some(Action::Block),
            _ => None,
        }
    }
}

/// Returns a text as it is compared: without differences of width and case, blanks and invisible characters.
pub fn normalize(text: &str) -> String {
    text.chars().flat_map(folded).collect()
}

/// Returns what one character is compared as; nothing for what cannot be seen.
fn folded(c: char) -> impl Iterator<Item = char> {
    std::iter::once(c)
        .nfkc()
        .flat_map(char::to_lowercase)
        .filter(|c| !c.is_whitespace() && !c.is_control() && !is_invisible(*c))
}

/// Whether a character is compared as itself, but for its case: nearly all that is written here.
fn is_plain(c: char) -> bool {
    matches!(c, '!'..='~' | '\u{4e00}'..='\u{9fff}')
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{3164}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
}

/// What was found in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The strongest thing that is asked for; none: nothing was found.
    pub action: Option<Action>,
    /// The text, with stars in the place of masked words.
    pub text: String,
    /// The words that were found, each once, in the order of the list.
    pub word_ids: Vec<Uuid>,
}

/// A list of words, ready to be looked for all at once.
#[derive(Debug)]
pub struct Words {
    automaton: Option<AhoCorasick>,
    words: Vec<(Uuid, Action)>,
}

impl Words {
    /// Prepares a list. Words that compare as nothing are left out.
    pub fn new(list: &[SensitiveWord]) -> Words {
        let mut patterns = Vec::with_capacity(list.len());
        let mut words = Vec::with_capacity(list.len());
        for word in list {
            if let Some(action) = Action::parse(&word.action)
                && !word.normalized.is_empty()
            {
                patterns.push(word.normalized.as_str());
                words.push((word.id, action));
            }
        }
        if patterns.is_empty() {
            return Words { automaton: None, words };
        }
        match AhoCorasick::new(&patterns) {
            Ok(automaton) => Words { automaton: Some(automaton), words },
            Err(error) => {
                // Bounds of the library, beyond any list that the API takes.
                tracing::error!(%error, "the sensitive words could not be prepared; every answer is reviewed");
                Words { automaton: None, words: vec![(Uuid::nil(), Action::Review)] }
            }
        }
    }

    /// Looks for the words.
    pub fn check(&self, text: &str) -> Verdict {
        let Some(automaton) = &self.automaton else {
            // See `new`: without an automaton a word stands here only to have everything reviewed.
            let action = self.words.first().map(|(_, action)| *action);
            return Verdict { action, text: text.to_owned(), word_ids: Vec::new() };
        };
        let chars: Vec<char> = text.chars().collect();
        let mut compared = String::with_capacity(text.len());
        // For each byte of the compared text, the character that it comes from.
        let mut origin = Vec::with_capacity(text.len());
        for (place, c) in chars.iter().enumerate() {
            match is_plain(*c) {
                true => compared.push(c.to_ascii_lowercase()),
                false => compared.extend(folded(*c)),
            }
            origin.resize(compared.len(), place);
        }
        let mut found = Vec::new();
        let mut masked = vec![false; chars.len()];
        for hit in automaton.find_overlapping_iter(&compared) {
            let word = hit.pattern().as_usize();
            found.push(word);
            if self.words[word].1 == Action::Mask && hit.end() > hit.start() {
                let (first, last) = (origin[hit.start()], origin[hit.end() - 1]);
                masked[first..=last].fill(true);
            }
        }
        found.sort_unstable();
        found.dedup();
        let hits: Vec<(Uuid, Action)> = found.into_iter().map(|word| self.words[word]).collect();
        Verdict {
            action: hits.iter().map(|(_, action)| *action).max(),
            text: chars.iter().zip(masked).map(|(c, masked)| if masked { '＊' } else { *c }).collect(),
            word_ids: hits.into_iter().map(|(id, _)| id).collect(),
        }
    }
}

/// The lists of the organisations, compiled, for a few seconds each.
#[derive(Debug, Default)]
pub struct Cache {
    kept: Mutex<HashMap<Uuid, (Instant, Arc<Words>)>>,
}

impl Cache {
    /// Returns an organisation's list; reads it if it was not read lately.
    pub async fn of(&self, conn: &mut Conn, organization: Uuid) -> entropy_schema::Result<Arc<Words>> {
        if let Some((read, words)) = self.lock().get(&organization)
            && read.elapsed() < FRESH
        {
            return Ok(words.clone());
        }
        let list = entropy_schema::replies::sensitive_words(conn, organization).await?;
        let words = Arc::new(Words::new(&list));
        let mut kept = self.lock();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(organization, (Instant::now(), words.clone()));
        Ok(words)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, (Instant, Arc<Words>)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(list: &[(&str, &str)]) -> Words {
        let list: Vec<SensitiveWord> = (0..)
            .zip(list)
            .map(|(id, (word, action))| SensitiveWord {
                id: Uuid::from_u128(id),
                normalized: normalize(word),
                action: (*action).to_owned(),
            })
            .collect();
        Words::new(&list)
    }

    #[test]
    fn width_case_blanks_and_the_invisible_make_no_difference() {
        for (text, compared) in [
            ("稳 赚", "稳赚"),
            ("稳\u{200b}赚\u{feff}", "稳赚"),
            ("ＮＯ．１", "no.1"),
            ("No 1", "no1"),
            ("①", "1"),
            ("稳\n\t赚\u{3000}", "稳赚"),
            ("ﬁne", "fine"),
            ("  \u{200d}", ""),
        ] {
            assert_eq!(normalize(text), compared, "{text:?}");
        }
    }

    #[test]
    fn what_is_compared_as_itself_has_no_other_form() {
        for c in ('\0'..='\u{ffff}').filter(|c| is_plain(*c)) {
            assert_eq!(normalize(&c.to_string()), c.to_ascii_lowercase().to_string(), "{c:?}");
        }
    }

    #[test]
    fn the_strongest_word_decides_and_all_are_named() {
        let words = words(&[("第一", "review"), ("稳赚", "block"), ("微信", "mask")]);
        assert_eq!(words.check("您好").action, None);
        assert_eq!(words.check("我们是第 一 名").action, Some(Action::Review));
        let verdict = words.check("加 Ｖ 微\u{200B}信，第一稳赚");
        assert_eq!(verdict.action, Some(Action::Block));
        assert_eq!(verdict.word_ids, [0, 1, 2].map(Uuid::from_u128));
    }

    #[test]
    fn a_masked_word_is_starred_where_it_stands_with_what_was_put_into_it() {
        let words = words(&[("微信号", "mask"), ("qq", "mask")]);
        assert_eq!(words.check("我的微 信 号是 ＱQ123").text, "我的＊＊＊＊＊是 ＊＊123");
        assert_eq!(words.check("没有").text, "没有");
    }

    #[test]
    fn words_within_words_are_all_found() {
        let words = words(&[("稳赚", "review"), ("稳赚不赔", "mask"), ("赚不", "block")]);
        assert_eq!(words.check("稳赚不赔").word_ids.len(), 3);
    }

    #[test]
    fn the_shipped_list_has_no_word_twice() {
        let mut seen: Vec<String> = ADVERTISING_LAW.iter().map(|word| normalize(word)).collect();
        let all = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), all);
        assert!(seen.iter().all(|word| !word.is_empty()));
    }

    #[test]
    fn the_shipped_list_finds_claims_and_lets_everyday_sentences_pass() {
        let list: Vec<(&str, &str)> = ADVERTISING_LAW.iter().map(|word| (*word, "review")).collect();
        let words = words(&list);
        for everyday in [
            "最近有活动吗？这款最近卖得不错。",
            "您最好提前一天预约，最晚今晚八点前告诉我们。",
            "第一次购买可以用新人券，第一步先点右上角。",
            "我们会在第一时间回复您，最多等两个工作日。",
            "最后一件了，最小码是 S，最大码是 3XL。",
            "最新的价格表发您了，最便宜的一款 39 元。",
            "第一个订单和第一百个订单是同一天下的。",
            "首先感谢您的信任，其次请把订单号发我。",
        ] {
            assert_eq!(words.check(everyday).action, None, "{everyday}");
        }
        for claim in [
            "我们是全国第一品牌",
            "这是最 好 的产品",
            "效果最好，销量第一",
            "最高级的面料，最佳的选择",
            "国家级品质",
            "行业Ｎｏ．１",
            "全网最低价，稳赚不赔",
        ] {
            assert_eq!(words.check(claim).action, Some(Action::Review), "{claim}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_masking_keeps_its_length(text in "\\PC{0,300}", word in "\\PC{1,8}") {
            let verdict = words(&[(&word, "mask")]).check(&text);
            prop_assert_eq!(verdict.text.chars().count(), text.chars().count());
        }

        #[test]
        fn a_word_is_found_wherever_it_stands(before in "\\PC{0,40}", after in "\\PC{0,40}") {
            let text = format!("{before}稳\u{200b} 赚{after}");
            prop_assert_eq!(words(&[("稳赚", "block")]).check(&text).action, Some(Action::Block));
        }
    }
}
