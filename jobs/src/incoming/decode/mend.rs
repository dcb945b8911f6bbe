//! Makes JSON of what is almost JSON: half characters, raw control characters and bytes that are no UTF-8 come with what
//! customers and phones write, and a message must not be lost for one of them.

/// Returns the text with everything replaced that keeps a reader of JSON from reading its strings.
pub(super) fn mend(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let mut mended = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    let mut in_string = false;
    while let Some(c) = rest.chars().next() {
        let (piece, length) = match c {
            '"' => {
                in_string = !in_string;
                ("\"", 1)
            }
            '\\' if in_string => escape(rest),
            '\n' if in_string => ("\\n", 1),
            '\t' if in_string => ("\\t", 1),
            '\0'..='\u{1f}' if in_string => (" ", 1),
            _ => (&rest[..c.len_utf8()], c.len_utf8()),
        };
        mended.push_str(piece);
        rest = &rest[length..];
    }
    mended
}

/// Returns what an escape at the beginning of `rest` becomes, and how long it is.
fn escape(rest: &str) -> (&str, usize) {
    match unit(rest) {
        Some(0xd800..=0xdbff) => match unit(&rest[6..]) {
            Some(0xdc00..=0xdfff) => (&rest[..12], 12),
            _ => ("\\ufffd", 6),
        },
        Some(0xdc00..=0xdfff) => ("\\ufffd", 6),
        Some(_) => (&rest[..6], 6),
        None => {
            let length = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
            (&rest[..length], length)
        }
    }
}

/// Reads `\uXXXX`.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(())?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn half_characters_and_raw_control_characters_become_readable() {
        let read = |body: &[u8]| serde_json::from_str::<Value>(&mend(body)).expect("JSON");
        assert_eq!(read(br#"{"a":"x\ud83dy"}"#)["a"], "x\u{fffd}y");
        assert_eq!(read(br#"{"a":"\ude00\ud83d"}"#)["a"], "\u{fffd}\u{fffd}");
        assert_eq!(read(br#"{"a":"\ud83d\ude00 \\ud83d"}"#)["a"], "😀 \\ud83d");
        assert_eq!(read(b"{\"a\":\"\x01\n\xff\"}\n")["a"], " \n\u{fffd}");
    }

    #[test]
    fn what_is_json_stays_as_it_is() {
        let good = "{\n\t\"a\\\"\": [\"\\u4f60\", 1.5e3, null, \"\\ud83d\\ude00\"]}";
        assert_eq!(mend(good.as_bytes()), good);
        for broken in ["\"\\", "\"\\u", "\"\\u12", "\\", "\"\\ud83d", "\"\\ud83d\\u"] {
            mend(broken.as_bytes());
        }
    }
}
