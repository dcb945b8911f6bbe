//! Texts with placeholders: `{{name}}`, and nothing else. No logic, no nesting.
//!
//! A text is read once and its values are put in once: what a value says is never read as a template again. Values come from
//! outside, so control characters, line breaks, braces and what cannot be seen are taken out of them, and they are cut at
//! [`LONGEST_VALUE`] characters. What customers call themselves is looked at besides: a name that is an advertisement, a
//! placeholder or has no letter is nobody's name, and the default stands in its place.

use std::collections::{BTreeMap, HashMap};

use unicode_segmentation::UnicodeSegmentation;

use super::config::rules::Variable;
use crate::ai::words::normalize;

/// How much of a value is shown, in characters.
pub const LONGEST_VALUE: usize = 30;

/// How much of a value is looked at at all, in characters.
const READ_AT_MOST: usize = 500;

/// What is wrong with a text's placeholders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// `{{` without its `}}`.
    #[error("a placeholder is opened with {{{{ and never closed: write }}}} behind its name")]
    Unclosed,
    /// `{{}}`.
    #[error("a placeholder has no name: write the variable's name between {{{{ and }}}}")]
    Nameless,
    /// A brace or a line break in the name.
    #[error("placeholders do not stand in one another: write only a variable's name between {{{{ and }}}}")]
    Nested,
}

/// A text, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template<'a> {
    parts: Vec<Part<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part<'a> {
    Text(&'a str),
    Placeholder(&'a str),
}

impl<'a> Template<'a> {
    /// Takes a text apart. Blanks around a name do not count.
    pub fn parse(text: &'a str) -> Result<Template<'a>, Fault> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some(at) = rest.find("{{") {
            let (before, opened) = rest.split_at(at);
            let opened = &opened[2..];
            let (inside, behind) = opened.split_once("}}").ok_or(Fault::Unclosed)?;
            if inside.contains(['{', '}', '\n', '\r']) || behind.starts_with('}') {
                return Err(Fault::Nested);
            }
            let name = inside.trim();
            if name.is_empty() {
                return Err(Fault::Nameless);
            }
            parts.extend((!before.is_empty()).then_some(Part::Text(before)));
            parts.push(Part::Placeholder(name));
            rest = behind;
        }
        parts.extend((!rest.is_empty()).then_some(Part::Text(rest)));
        Ok(Template { parts })
    }

    /// Returns the names that stand in the text, in order, as often as they stand there.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Placeholder(name) => Some(*name),
            Part::Text(_) => None,
        })
    }

    /// Returns what stands around the placeholders.
    pub fn literals(&self) -> impl Iterator<Item = &'a str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(*text),
            Part::Placeholder(_) => None,
        })
    }
}

/// Who has written a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Author {
    /// The customer: a nickname.
    Customer,
    /// The team: a remark, a field, the name of an account or of the organisation.
    Team,
}

/// A value for a placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// As it is kept, uncleaned.
    pub text: String,
    /// Who has written it.
    pub author: Author,
}

impl Given {
    /// Makes a value that the team has written.
    pub fn team(text: impl Into<String>) -> Given {
        Given { text: text.into(), author: Author::Team }
    }

    /// Makes a value that the customer has written.
    pub fn customer(text: impl Into<String>) -> Given {
        Given { text: text.into(), author: Author::Customer }
    }
}

/// What became of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rendered {
    /// The text as it is sent.
    Text(String),
    /// These have neither a value nor a default, each named once, in the order of the text: nothing may be sent.
    Missing(Vec<String>),
}

/// Puts values into a text. Only declared variables are known; of several values none is put in twice.
///
/// A text that cannot be taken apart, which validation refuses, is missing what it says.
pub fn render(text: &str, declared: &BTreeMap<String, Variable>, given: &HashMap<String, Given>) -> Rendered {
    let Ok(template) = Template::parse(text) else { return Rendered::Missing(vec!["{{".to_owned()]) };
    let (mut rendered, mut missing) = (String::with_capacity(text.len()), Vec::new());
    for part in &template.parts {
        match part {
            Part::Text(text) => rendered.push_str(text),
            Part::Placeholder(name) => match value(name, declared, given) {
                Some(value) => rendered.push_str(&value),
                None if missing.iter().any(|other| other == name) => {}
                None => missing.push((*name).to_owned()),
            },
        }
    }
    if missing.is_empty() { Rendered::Text(rendered) } else { Rendered::Missing(missing) }
}

/// Returns the value of a declared variable, or its default, as it is put into texts.
pub fn value(
    name: &str,
    declared: &BTreeMap<String, Variable>,
    given: &HashMap<String, Given>,
) -> Option<String> {
    let variable = declared.get(name)?;
    let value = given.get(name).and_then(|given| match given.author {
        Author::Customer if !is_a_name(&given.text) => None,
        _ => Some(clean(&given.text)),
    });
    // A joiner alone shows nothing.
    value.filter(|value| !normalize(value).is_empty()).or_else(|| {
        // The team has approved it, so it is not cut; what cannot be seen has no place in it either.
        variable.default.as_deref().map(|default| default.chars().filter(|c| is_visible(*c)).collect())
    })
}

/// Returns a value as it is shown: on one line, without braces and what cannot be seen, and not too long.
pub fn clean(text: &str) -> String {
    let seen: String =
        text.chars().take(READ_AT_MOST).filter(|c| is_visible(*c) && !matches!(c, '{' | '}')).collect();
    let seen = seen.trim();
    let mut cut = String::new();
    let mut chars = 0;
    for piece in seen.graphemes(true) {
        chars += piece.chars().count();
        if chars > LONGEST_VALUE {
            // Something that was stacked up out of marks is cut inside.
            if cut.is_empty() {
                cut.extend(piece.chars().take(LONGEST_VALUE));
            }
            break;
        }
        cut.push_str(piece);
    }
    cut.trim_end().to_owned()
}

/// Tells whether a character may be shown. Line breaks are not: a value is part of a line.
fn is_visible(c: char) -> bool {
    // Joiners and variation selectors stay where they make one picture of several characters.
    !c.is_control()
        && !matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}' | '\u{200c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffd}' | '\u{e0000}'..='\u{e0fff}')
}

/// Words that stand in advertisements and in nobody's name.
const ADVERTISING: &[&str] = &[
    "加微",
    "加v",
    "微信",
    "vx",
    "wx号",
    "wechat",
    "qq",
    "扫码",
    "进群",
    "加群",
    "代理",
    "招商",
    "加盟",
    "兼职",
    "招聘",
    "优惠",
    "特价",
    "批发",
    "代购",
    "折扣",
    "返利",
    "广告",
    "推广",
    "引流",
    "贷款",
    "信用卡",
    "刷单",
    "接单",
    "免费",
    "领取",
    "福利",
    "赚钱",
    "客服",
    "官方",
    "热线",
    "电话",
    "咨询",
    "厂家",
    "直销",
    "网址",
    "http",
    "www",
    ".com",
    ".cn",
    ".net",
    ".top",
    ".xyz",
];

/// Tells whether what somebody calls themselves can stand in a salutation.
pub fn is_a_name(nickname: &str) -> bool {
    if nickname.contains("{{") || nickname.contains("}}") {
        return false;
    }
    let read: String = nickname.chars().take(READ_AT_MOST).collect();
    let compared = normalize(&read);
    // Emoji, signs and digits are no name.
    if !compared.chars().any(char::is_alphabetic) {
        return false;
    }
    // `AAA建材王姐` wants to stand first in address books.
    let rest = compared.trim_start_matches(['a', '0']);
    let put_first = compared.len() - rest.len() > 1 && compared.starts_with('a');
    if put_first && !rest.starts_with(|c: char| c.is_ascii_lowercase()) {
        return false;
    }
    // A number to call or to add.
    let mut digits = 0;
    for c in compared.chars() {
        digits = if c.is_numeric() {
            digits + 1
        } else if matches!(c, '-' | '.') {
            digits
        } else {
            0
        };
        if digits >= 5 {
            return false;
        }
    }
    !ADVERTISING.iter().any(|word| compared.contains(word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn declared() -> BTreeMap<String, Variable> {
        let variable = |default: Option<&str>| Variable {
            label: "说明".to_owned(),
            default: default.map(str::to_owned),
        };
        BTreeMap::from([
            ("称呼".to_owned(), variable(Some("您"))),
            ("机构名".to_owned(), variable(None)),
            ("后缀".to_owned(), variable(Some(""))),
        ])
    }

    fn rendered(text: &str, given: &[(&str, Given)]) -> Rendered {
        let given = given.iter().map(|(name, given)| ((*name).to_owned(), given.clone())).collect();
        render(text, &declared(), &given)
    }

    fn text(text: &str) -> Rendered {
        Rendered::Text(text.to_owned())
    }

    #[test]
    fn values_defaults_and_what_is_missing() {
        let school = ("机构名", Given::team("熵变学堂"));
        let greeting = "{{称呼}}好，我是{{ 机构名 }}的顾问{{后缀}}。";
        assert_eq!(
            rendered(greeting, &[school.clone(), ("称呼", Given::team("李女士"))]),
            text("李女士好，我是熵变学堂的顾问。")
        );
        assert_eq!(rendered(greeting, &[school]), text("您好，我是熵变学堂的顾问。"));
        assert_eq!(rendered(greeting, &[]), Rendered::Missing(vec!["机构名".to_owned()]));
        // A value of which nothing is left is none.
        for nothing in ["", "  ", "\u{200b}\n", "{}", "\u{200d}"] {
            assert_eq!(
                rendered("{{机构名}}{{机构名}}", &[("机构名", Given::team(nothing))]),
                Rendered::Missing(vec!["机构名".to_owned()])
            );
        }
        // Who is not declared is not known, whatever was given.
        assert_eq!(
            rendered("{{密码}}", &[("密码", Given::team("1"))]),
            Rendered::Missing(vec!["密码".to_owned()])
        );
        assert_eq!(rendered("没有占位符 } { }}", &[]), text("没有占位符 } { }}"));
    }

    #[test]
    fn a_value_is_never_read_as_a_template() {
        for hostile in ["{{机构名}}", "{{", "}}", "小{{称呼}}李"] {
            assert_eq!(
                rendered("{{称呼}}好", &[("称呼", Given::customer(hostile))]),
                text("您好"),
                "{hostile}"
            );
        }
        // From the team it is a slip: the braces go, the rest is text.
        let given = [("称呼", Given::team("{{机构名}}")), ("机构名", Given::team("熵变"))];
        assert_eq!(rendered("{{称呼}}好，{{机构名}}", &given), text("机构名好，熵变"));
        // Nor do two values make a placeholder together.
        let given = [("称呼", Given::team("{")), ("机构名", Given::team("{机构名}}"))];
        assert_eq!(rendered("{{称呼}}{{机构名}}", &given), text("您机构名"));
    }

    #[test]
    fn a_value_is_one_short_line() {
        for (given, shown) in [
            ("李\n女\r\n士\t", "李女士"),
            ("  李 女士  ", "李 女士"),
            ("\u{202e}李\u{200b}女士\u{2066}\u{0}", "李女士"),
            ("李\u{2028}女士", "李女士"),
            ("👨\u{200d}👩\u{200d}👧家", "👨\u{200d}👩\u{200d}👧家"),
        ] {
            assert_eq!(clean(given), shown, "{given:?}");
        }
        assert_eq!(clean(&"长".repeat(31)), "长".repeat(30));
        assert_eq!(clean(&"长".repeat(30)), "长".repeat(30));
        // A picture of five characters that would be cut in two is left out.
        assert_eq!(clean(&format!("{}👨\u{200d}👩\u{200d}👧", "长".repeat(28))), "长".repeat(28));
        let stacked = format!("e{}", "\u{301}".repeat(100));
        assert_eq!(clean(&stacked).chars().count(), 30);
    }

    #[test]
    fn an_advertisement_is_nobodys_name() {
        for name in [
            "李女士",
            "小李🌸",
            "Anna",
            "A君",
            "王 小 明",
            "李1988",
            "阿Q",
            "Aaron",
            "00后小李",
            "Vivian🌈",
            "محمد",
            "老王2号",
        ] {
            assert!(is_a_name(name), "{name}");
        }
        for advert in [
            "🌸🌸",
            "😀",
            "",
            "  ",
            "...",
            "123",
            "AAA建材批发王姐",
            "A0装修",
            "ＡＡ二手车",
            "加 微 信 abc",
            "低价代理招商",
            "13800138000",
            "小李138 0013 8000",
            "看我www.x.com",
            "ｗｗｗ.例子",
            "兼\u{200b}职日结",
            "{{称呼}}",
            "官方客服",
            "扫码领福利",
            "一三八②③④⑤⑥⑦",
        ] {
            assert!(!is_a_name(advert), "{advert}");
            assert_eq!(
                rendered("{{称呼}}好", &[("称呼", Given::customer(advert))]),
                text("您好"),
                "{advert}"
            );
        }
        // A remark of the team is taken as it is.
        assert_eq!(rendered("{{称呼}}好", &[("称呼", Given::team("王姐（批发）"))]), text("王姐（批发）好"));
    }

    #[test]
    fn a_text_that_cannot_be_taken_apart_is_told_why() {
        for (text, fault) in [
            ("{{称呼", Fault::Unclosed),
            ("{{", Fault::Unclosed),
            ("{{}}", Fault::Nameless),
            ("{{  }}", Fault::Nameless),
            ("{{a{{b}}}}", Fault::Nested),
            ("{{{a}}}", Fault::Nested),
            ("{{a}b}}", Fault::Nested),
            ("{{a}}}", Fault::Nested),
            ("{{a\nb}}", Fault::Nested),
        ] {
            assert_eq!(Template::parse(text), Err(fault), "{text}");
            assert!(matches!(rendered(text, &[]), Rendered::Missing(_)));
        }
        let template = Template::parse("a{{x}}b{{ y }}{{x}}").expect("a template");
        assert_eq!(template.names().collect::<Vec<_>>(), ["x", "y", "x"]);
        assert_eq!(template.literals().collect::<String>(), "ab");
    }

    proptest! {
        #[test]
        fn whatever_is_given_nothing_but_the_plans_own_text_spans_lines(
            value in "\\PC{0,60}|(?s:.{0,60})",
            customer in any::<bool>(),
        ) {
            let given = if customer { Given::customer(value) } else { Given::team(value) };
            if let Rendered::Text(text) = rendered("<{{称呼}}>", &[("称呼", given)]) {
                let shown = text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).expect("the plan's text");
                prop_assert!(!shown.is_empty() && shown.chars().count() <= LONGEST_VALUE);
                let broken = shown.chars().any(|c| c.is_control() || matches!(c, '{' | '}'));
                prop_assert!(!broken);
                prop_assert_eq!(clean(shown), shown);
            } else {
                prop_assert!(false, "there is a default");
            }
        }

        #[test]
        fn any_text_is_taken_apart_or_refused(text in "([{}]|\\PC){0,40}") {
            if let Ok(template) = Template::parse(&text) {
                let sound = template.names().all(|name| !name.is_empty() && !name.contains(['{', '}']));
                prop_assert!(sound);
            }
        }
    }
}
