//! From what a model wrote to what a customer reads: plain text in at most three messages. Pure.
//!
//! [`plain`] takes out thinking and Markdown, which WeChat would show as it stands; [`split`] cuts what is left at the
//! ends of paragraphs and sentences. Both read any text in time that grows with its length only.

use unicode_segmentation::UnicodeSegmentation;

/// Characters of one message.
pub const PART_CHARS: usize = 500;

/// Messages of one answer.
pub const MAX_PARTS: usize = 3;

/// What is read of an answer. No model that is asked for a chat message writes so much.
const READ_CHARS: usize = 20_000;

/// How far the end of a link is looked for.
const LINK_TEXT_CHARS: usize = 300;
const LINK_URL_CHARS: usize = 2_000;

/// Elements in which models think aloud.
const THINKING: &[&str] = &["think", "thinking", "thought", "reasoning", "reflection", "scratchpad"];

/// An answer as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// In order; none is empty. None at all: there was nothing to say.
    pub parts: Vec<String>,
    /// The answer was longer; its end is not said.
    pub cut: bool,
}

/// Returns the text without thinking, Markdown, control characters and superfluous blank lines.
pub fn plain(answer: &str) -> String {
    let answer: String = answer.chars().take(READ_CHARS).collect();
    let answer = answer.replace("\r\n", "\n").replace('\r', "\n");
    tidy(&without_markdown(&without_thinking(&answer)))
}

/// Tells whether a text is a fault of the workflow and not an answer: such words never reach a customer.
pub fn is_fault(text: &str) -> bool {
    let text = text.trim();
    let lower: String = text.chars().take(200).collect::<String>().to_lowercase();
    lower.contains("code_error.")
        || lower.starts_with("common:")
        || lower.starts_with("error:")
        || lower.starts_with("{\"error\"")
        || lower.starts_with("{\"code\"")
        || lower.starts_with("axioserror")
        || lower.starts_with("<!doctype")
        || lower.starts_with("<html")
}

fn without_thinking(text: &str) -> String {
    let mut text = text.to_owned();
    for name in THINKING {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        // ASCII only, so that places in the lowered text are places in the text.
        let lower = text.to_ascii_lowercase();
        if !lower.contains(&open) && !lower.contains(&close) {
            continue;
        }
        let mut kept = String::with_capacity(text.len());
        let mut at = 0;
        // Some templates put the opening before the answer begins: then all up to the end of the thought is thought.
        if let Some(end) = lower.find(&close)
            && lower.find(&open).is_none_or(|begin| begin > end)
        {
            at = end + close.len();
        }
        loop {
            let Some(begin) = lower[at..].find(&open).map(|begin| at + begin) else {
                kept.push_str(&text[at..]);
                break;
            };
            kept.push_str(&text[at..begin]);
            match lower[begin..].find(&close) {
                Some(end) => at = begin + end + close.len(),
                // Cut off in the middle of a thought: nothing was said after it.
                None => break,
            }
        }
        // What closes nothing.
        text = replace_ascii(&kept, &close);
    }
    text
}

/// Removes every `needle`, whatever its case.
fn replace_ascii(text: &str, needle: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut kept = String::with_capacity(text.len());
    let mut at = 0;
    for (begin, _) in lower.match_indices(needle) {
        kept.push_str(&text[at..begin]);
        at = begin + needle.len();
    }
    kept.push_str(&text[at..]);
    kept
}

fn without_markdown(text: &str) -> String {
    let mut lines = Vec::new();
    let mut fence: Option<&str> = None;
    for line in text.lines() {
        let trimmed = line.trim_start();
        if let Some(mark) = fence {
            if trimmed.starts_with(mark) {
                fence = None;
            } else {
                lines.push(line.to_owned());
            }
            continue;
        }
        if let Some(mark) = ["```", "~~~"].into_iter().find(|mark| trimmed.starts_with(mark)) {
            // A fence that opens and closes in one line is no block.
            match trimmed[3..].strip_suffix(mark) {
                Some(inside) if !inside.is_empty() => lines.push(inside.to_owned()),
                _ => fence = Some(mark),
            }
            continue;
        }
        if is_rule(trimmed) {
            lines.push(String::new());
            continue;
        }
        lines.push(inline(&block(line)));
    }
    lines.join("\n")
}

/// Tells whether a line is only there to be drawn: a rule, or the line below a table's head.
fn is_rule(line: &str) -> bool {
    let line = line.trim_end();
    let only = |allowed: &str| line.chars().all(|c| allowed.contains(c) || c == ' ');
    let marks = |mark: char| line.chars().filter(|c| *c == mark).count();
    let rule = ['-', '*', '_', '='].into_iter().any(|mark| marks(mark) >= 3 && only(&mark.to_string()));
    let table = marks('|') >= 1 && marks('-') >= 2 && only("|-:");
    rule || table
}

/// Takes what stands at the beginning of a line: headings, quotes, list marks, the bars of a table.
fn block(line: &str) -> String {
    let indent: String = line.chars().take_while(|c| *c == ' ' || *c == '\t').take(8).collect();
    let mut rest = line.trim_start();
    while let Some(quoted) = rest.strip_prefix("> ").or_else(|| (rest == ">").then_some("")) {
        rest = quoted.trim_start();
    }
    let hashes = rest.chars().take_while(|c| *c == '#').count();
    if (1..=6).contains(&hashes) && rest[hashes..].starts_with([' ', '\t']) {
        return rest[hashes..].trim().trim_end_matches('#').trim_end().to_owned();
    }
    if let Some(item) = ["- ", "* ", "+ "].iter().find_map(|mark| rest.strip_prefix(mark)) {
        let item = item.trim_start();
        let item = ["[ ] ", "[x] ", "[X] "].iter().find_map(|mark| item.strip_prefix(mark)).unwrap_or(item);
        return format!("{indent}• {item}");
    }
    if rest.len() > 2 && rest.starts_with('|') && rest.trim_end().ends_with('|') {
        let cells = rest.trim().trim_matches('|').split('|').map(str::trim);
        return cells.filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join("  ");
    }
    format!("{indent}{rest}")
}

/// Takes what stands within a line: emphasis, code, links, pictures, escapes.
fn inline(line: &str) -> String {
    let line = line.replace("<br>", "\n").replace("<br/>", "\n").replace("<br />", "\n");
    emphasis(&links(&line))
}

fn links(line: &str) -> String {
    if !line.contains('[') && !line.contains('<') {
        return line.to_owned();
    }
    let chars: Vec<char> = line.chars().collect();
    let mut out = String::with_capacity(line.len());
    let mut at = 0;
    while at < chars.len() {
        let picture = chars[at] == '!' && chars.get(at + 1) == Some(&'[');
        let open = at + usize::from(picture);
        if chars[open] == '['
            && let Some((text, url, end)) = link(&chars, open)
        {
            let (text, url) = (text.trim(), url.trim());
            // A mark of FastGPT that says where a sentence comes from.
            let citation = url == "CITE" || url == "QUOTE" || text == "CITE" || text == "QUOTE";
            let address =
                ["http://", "https://", "mailto:", "tel:"].iter().any(|scheme| url.starts_with(scheme));
            if !citation {
                out.push_str(text);
                if address && text != url {
                    if !text.is_empty() {
                        out.push(' ');
                    }
                    out.push_str(url);
                    if chars.get(end).is_some_and(|next| !next.is_whitespace()) {
                        out.push(' ');
                    }
                }
            }
            at = end;
            continue;
        }
        if chars[at] == '<'
            && let Some(length) = chars[at..].iter().take(LINK_URL_CHARS).position(|c| *c == '>')
        {
            let inside: String = chars[at + 1..at + length].iter().collect();
            if inside.starts_with("http://") || inside.starts_with("https://") {
                out.push_str(&inside);
                at += length + 1;
                continue;
            }
        }
        out.push(chars[at]);
        at += 1;
    }
    out
}

/// Reads `[text](url)` at `open`; returns both and the place behind it.
fn link(chars: &[char], open: usize) -> Option<(String, String, usize)> {
    let close = chars[open..].iter().take(LINK_TEXT_CHARS).position(|c| *c == ']')? + open;
    if chars.get(close + 1) != Some(&'(') {
        return None;
    }
    let end = chars[close + 1..].iter().take(LINK_URL_CHARS).position(|c| *c == ')')? + close + 1;
    let url: String = chars[close + 2..end].iter().collect();
    // A title may follow the address.
    let url = url.split_whitespace().next().unwrap_or_default().to_owned();
    Some((chars[open + 1..close].iter().collect(), url, end + 1))
}

/// Removes the pairs of `**`, `__`, `~~`, `*`, `_` and `` ` ``. What has no partner is text.
fn emphasis(line: &str) -> String {
    let chars: Vec<char> = line.chars().collect();
    let mut drop = vec![false; chars.len()];
    // The place and width of the mark that waits for its partner, by kind.
    let mut waiting: [Option<usize>; 6] = [None; 6];
    let mut code: Option<usize> = None;
    let word = |at: usize| chars.get(at).is_some_and(|c| c.is_ascii_alphanumeric());
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        if c == '`' {
            if let Some(open) = code.take() {
                (drop[open], drop[at]) = (true, true);
            } else if chars[at + 1..].contains(&'`') {
                code = Some(at);
            }
            at += 1;
            continue;
        }
        if code.is_some() {
            at += 1;
            continue;
        }
        if c == '\\' && chars.get(at + 1).is_some_and(|next| "*_`#[]()~>|-+.!\\".contains(*next)) {
            drop[at] = true;
            at += 2;
            continue;
        }
        let double = chars.get(at + 1) == Some(&c);
        let (kind, width) = match (c, double) {
            ('*', true) => (0, 2),
            ('_', true) => (1, 2),
            ('~', true) => (2, 2),
            ('*', false) => (3, 1),
            ('_', false) => (4, 1),
            _ => {
                at += 1;
                continue;
            }
        };
        let before = at.checked_sub(1).map(|before| chars[before]);
        let after = chars.get(at + width).copied();
        let closes = before.is_some_and(|c| !c.is_whitespace()) && (width == 2 || !word(at + 1));
        let opens = after.is_some_and(|c| !c.is_whitespace())
            && (width == 2 || before.is_none_or(|c| !c.is_ascii_alphanumeric()));
        match waiting[kind] {
            Some(open) if closes => {
                for place in 0..width {
                    drop[open + place] = true;
                    drop[at + place] = true;
                }
                waiting[kind] = None;
            }
            _ if opens => waiting[kind] = Some(at),
            _ => {}
        }
        at += width;
    }
    chars.iter().zip(drop).filter(|(_, drop)| !drop).map(|(c, _)| *c).collect()
}

/// Removes control characters, blanks at the ends of lines and more than one blank line in a row.
fn tidy(text: &str) -> String {
    let text: String = text
        .chars()
        .map(|c| if c == '\t' { ' ' } else { c })
        .filter(|c| *c == '\n' || !c.is_control())
        .collect();
    let mut out = String::with_capacity(text.len());
    let mut blank = 0;
    for line in text.lines().map(str::trim_end) {
        if line.trim().is_empty() {
            blank += 1;
            continue;
        }
        if !out.is_empty() {
            out.push('\n');
            if blank > 0 {
                out.push('\n');
            }
        }
        blank = 0;
        out.push_str(line);
    }
    out.trim().to_owned()
}

/// Cuts a text into the messages that are sent.
///
/// A message ends where a paragraph ends, else a sentence, else a phrase, and inside a word only if there is nothing
/// else. What would be a fourth message is not said: the third then ends with its last whole sentence.
pub fn split(text: &str) -> Parts {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let last = parts.len() + 1 == MAX_PARTS;
        if rest.chars().count() <= PART_CHARS {
            parts.push(rest.to_owned());
            return Parts { parts, cut: false };
        }
        let end = end_of_part(rest, PART_CHARS);
        parts.push(rest[..end].trim_end().to_owned());
        rest = rest[end..].trim_start();
        if last {
            return Parts { parts, cut: !rest.is_empty() };
        }
    }
    Parts { parts, cut: false }
}

/// Cuts a text to at most so many characters, at the end of a sentence if there is one. What is behind is not said.
pub fn shorten(text: &str, chars: usize) -> &str {
    let text = text.trim();
    match text.chars().nth(chars) {
        None => text,
        Some(_) => text[..end_of_part(text, chars.max(1))].trim_end(),
    }
}

/// Returns where the first message of a text ends that is longer than so many characters, in bytes. Never 0.
fn end_of_part(text: &str, chars: usize) -> usize {
    let fits = text.char_indices().nth(chars).map_or(text.len(), |(at, _)| at);
    let head = &text[..fits];
    // A message of a few words before a long one reads badly.
    let least = text.char_indices().nth(chars / 4).map_or(0, |(at, _)| at);
    let after = |at: usize| at + head[at..].chars().next().map_or(0, char::len_utf8);
    let behind = |ends: &[char]| head.rfind(ends).map(after).filter(|end| *end >= least);
    head.rfind("\n\n")
        .filter(|end| *end >= least)
        .or_else(|| behind(&['。', '！', '？', '；', '!', '?', ';', '…', '\n']))
        .or_else(|| head.rfind(". ").map(|at| at + 1).filter(|end| *end >= least))
        .or_else(|| behind(&['，', '、', ',', '：', ' ']))
        .unwrap_or_else(|| whole_clusters(text, fits))
}

/// Returns the last place up to `fits` at which no character is torn from what belongs to it.
fn whole_clusters(text: &str, fits: usize) -> usize {
    let ends = text.grapheme_indices(true).map(|(at, cluster)| at + cluster.len());
    let end = ends.take_while(|end| *end <= fits).last();
    // One cluster may be longer than a message; then it is torn.
    end.unwrap_or(fits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn markdown_becomes_plain_text() {
        for (written, read) in [
            ("  您好！\n", "您好！"),
            ("## 价格说明 ##\n我们有**三种**套餐", "价格说明\n我们有三种套餐"),
            ("- 基础版\n* 专业版\n  + 年付", "• 基础版\n• 专业版\n  • 年付"),
            ("- [x] 已开通", "• 已开通"),
            ("1. 打开小程序\n2. 点“我的”", "1. 打开小程序\n2. 点“我的”"),
            ("请看[官网](https://example.com/a?b=1 \"标题\")。", "请看官网 https://example.com/a?b=1 。"),
            ("<https://example.com>", "https://example.com"),
            ("[https://a.cn](https://a.cn)", "https://a.cn"),
            ("![图](https://a.cn/x.png)", "图 https://a.cn/x.png"),
            ("支持退款[67a1b2c3d4e5f60718293a4b](CITE)。", "支持退款。"),
            ("点[这里](javascript:alert(1)", "点这里"),
            ("```bash\npip install x_y_z\n```", "pip install x_y_z"),
            ("用 `a*b*c` 即可", "用 a*b*c 即可"),
            ("|套餐|价格|\n|---|:--:|\n|基础|**99**元|", "套餐  价格\n\n基础  99元"),
            ("> 引用的话", "引用的话"),
            ("上\n\n---\n\n下", "上\n\n下"),
            ("*斜体* 与 _斜体_ 与 ~~删除~~", "斜体 与 斜体 与 删除"),
            ("2*3*4=24，3 * 4，snake_case_name", "2*3*4=24，3 * 4，snake_case_name"),
            ("**没有结尾", "**没有结尾"),
            ("\\*不是强调\\*", "*不是强调*"),
            ("一\n\n\n\n二\u{0}\u{7}", "一\n\n二"),
            ("a<br>b", "a\nb"),
            ("👨‍👩‍👧 全家福", "👨‍👩‍👧 全家福"),
        ] {
            assert_eq!(plain(written), read, "{written:?}");
        }
    }

    #[test]
    fn a_text_is_shortened_at_the_end_of_a_sentence() {
        for (written, chars, read) in [
            ("您好！", 10, "您好！"),
            ("您好！明天上午九点上课，请准时参加。记得带书。", 20, "您好！明天上午九点上课，请准时参加。"),
            ("一二三四五六七八", 5, "一二三四五"),
            ("  好的  ", 2, "好的"),
            ("好", 0, "好"),
        ] {
            assert_eq!(shorten(written, chars), read, "{written:?}");
        }
    }

    #[test]
    fn thinking_is_not_said() {
        for (written, read) in [
            ("<think>客户想砍价</think>您好", "您好"),
            ("<THINK>a</THINK>好<thinking>b</thinking>的", "好的"),
            ("先想想……</think>\n九点开门", "九点开门"),
            ("好的<think>还没想完", "好的"),
            ("<think>只有想法</think>", ""),
            ("<think>a</think></think>好", "好"),
            ("<thing>不是想法</thing>", "<thing>不是想法</thing>"),
        ] {
            assert_eq!(plain(written), read, "{written:?}");
        }
    }

    #[test]
    fn faults_are_told_from_answers() {
        for fault in [
            "common:code_error.error_message.514",
            "Error: connect ECONNREFUSED",
            "{\"code\":500,\"message\":\"x\"}",
            "<html><body>504</body></html>",
        ] {
            assert!(is_fault(fault), "{fault}");
        }
        for answer in ["您好，我们九点开门。", "错误码 500 表示服务器内部错误", "{您的姓名}您好"]
        {
            assert!(!is_fault(answer), "{answer}");
        }
    }

    #[test]
    fn a_short_answer_is_one_message_and_nothing_is_none() {
        assert_eq!(split("您好").parts, ["您好"]);
        assert_eq!(split(&"字".repeat(500)).parts.len(), 1);
        assert_eq!(split(" \n "), Parts { parts: vec![], cut: false });
    }

    #[test]
    fn a_long_answer_ends_its_messages_with_sentences() {
        let sentence = format!("{}。", "字".repeat(99));
        let parts = split(&sentence.repeat(9));
        assert_eq!(parts.parts.iter().map(|part| part.chars().count()).collect::<Vec<_>>(), [500, 400]);
        assert!(!parts.cut && parts.parts.iter().all(|part| part.ends_with('。')));
    }

    #[test]
    fn what_does_not_fit_three_messages_ends_with_a_whole_sentence() {
        let sentence = format!("{}！", "字".repeat(119));
        let parts = split(&sentence.repeat(20));
        assert_eq!(parts.parts.len(), 3);
        assert!(
            parts.cut && parts.parts.iter().all(|part| part.chars().count() == 480 && part.ends_with('！'))
        );
    }

    #[test]
    fn a_paragraph_is_a_better_end_than_a_sentence() {
        let text = format!("{}\n\n{}", "甲。".repeat(150), "乙。".repeat(150));
        assert_eq!(split(&text).parts[0], "甲。".repeat(150));
    }

    #[test]
    fn an_emoji_is_not_torn() {
        let family = "👨‍👩‍👧‍👦";
        let parts = split(&family.repeat(100));
        for part in &parts.parts[..2] {
            assert_eq!(part.replace(family, ""), "", "{part}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_more_or_longer_messages(text in "(\\PC|[。！？；\n *_`#>|\\[\\]()<-]){0,2500}") {
            let text = plain(&text);
            let Parts { parts, cut } = split(&text);
            prop_assert!(parts.len() <= MAX_PARTS);
            for part in &parts {
                prop_assert!(!part.trim().is_empty() && part.chars().count() <= PART_CHARS);
            }
            let bare = |text: &str| text.split_whitespace().collect::<String>();
            let (said, all) = (bare(&parts.concat()), bare(&text));
            prop_assert!(all.starts_with(&said));
            prop_assert_eq!(cut, said != all);
        }

        #[test]
        fn hostile_markdown_is_read_in_no_time(mark in "[*_~`\\[<>|#-]{1,3}", times in 1usize..8000) {
            let began = std::time::Instant::now();
            plain(&mark.repeat(times));
            prop_assert!(began.elapsed() < std::time::Duration::from_secs(2));
        }
    }
}
