//! Sensitive words: how texts are compared with them.

use unicode_normalization::UnicodeNormalization;

/// Words about which the advertising law and its practice are strict: superlatives and promises. An organisation takes
/// them over as `review`.
pub const ADVERTISING_LAW: &[&str] = &[
    "最",
    "第一",
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

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{3164}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
}
