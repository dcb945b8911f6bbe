//! Reads small XML documents of strangers: within a size and a depth, and without any entity but the five of XML itself.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// Larger documents are not read.
pub(super) const MAX_BYTES: usize = 1 << 20;
/// Deeper ones are not read.
pub(super) const MAX_DEPTH: usize = 32;
/// A document of more elements is not read: nothing that WeChat sends comes near.
const MAX_ELEMENTS: usize = 20_000;
/// Further attributes of an element are not read.
const MAX_ATTRIBUTES: usize = 128;

/// An element.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) name: String,
    attributes: Vec<(String, String)>,
    /// Its own text, all pieces in a row.
    text: String,
    children: Vec<Element>,
}

impl Element {
    /// Returns an attribute that is not empty.
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Returns the first child of that name.
    pub(super) fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// Returns this element or the first below it of that name.
    pub(super) fn find(&self, name: &str) -> Option<&Element> {
        if self.name == name {
            return Some(self);
        }
        self.children.iter().find_map(|child| child.find(name))
    }

    /// Returns the trimmed text of this element, unless there is none.
    pub(super) fn text(&self) -> Option<&str> {
        Some(self.text.trim()).filter(|text| !text.is_empty())
    }

    /// Returns the text of the first child of that name.
    pub(super) fn text_of(&self, name: &str) -> Option<&str> {
        self.child(name)?.text()
    }

    /// Returns the text of the first element below of that name.
    pub(super) fn find_text(&self, name: &str) -> Option<&str> {
        self.find(name)?.text()
    }

    /// Calls `visit` with every element of that name below this one, in order.
    pub(super) fn each<'a>(&'a self, name: &str, visit: &mut impl FnMut(&'a Element)) {
        for child in &self.children {
            if child.name == name {
                visit(child);
            }
            child.each(name, visit);
        }
    }

    fn open(start: &BytesStart<'_>) -> Option<Element> {
        let name = String::from_utf8(start.name().as_ref().to_vec()).ok()?;
        let mut attributes = Vec::new();
        // One broken attribute does not make the others unreadable.
        for attribute in start.attributes().with_checks(false).flatten().take(MAX_ATTRIBUTES) {
            let Ok(key) = std::str::from_utf8(attribute.key.as_ref()) else { continue };
            let raw = String::from_utf8_lossy(&attribute.value);
            let value = quick_xml::escape::unescape(&raw).map(|value| value.into_owned());
            attributes.push((key.to_owned(), value.unwrap_or_else(|_| raw.into_owned())));
        }
        Some(Element { name, attributes, ..Element::default() })
    }
}

/// Reads a document. None: it is none, or not one that we read.
pub(super) fn read(text: &str) -> Option<Element> {
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    if text.len() > MAX_BYTES || !text.starts_with('<') {
        return None;
    }
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Element> = Vec::new();
    let mut elements = 0;
    loop {
        let closed = match reader.read_event().ok()? {
            Event::Start(start) => {
                elements += 1;
                if open.len() >= MAX_DEPTH || elements > MAX_ELEMENTS {
                    return None;
                }
                open.push(Element::open(&start)?);
                continue;
            }
            Event::Empty(start) => {
                elements += 1;
                if open.len() >= MAX_DEPTH || elements > MAX_ELEMENTS {
                    return None;
                }
                Element::open(&start)?
            }
            Event::End(_) => open.pop()?,
            Event::Text(piece) => {
                if let Some(element) = open.last_mut() {
                    let raw = String::from_utf8_lossy(&piece);
                    match quick_xml::escape::unescape(&raw) {
                        Ok(text) => element.text.push_str(&text),
                        // An entity that nobody defined stays as it was written.
                        Err(_) => element.text.push_str(&raw),
                    }
                }
                continue;
            }
            Event::CData(piece) => {
                if let Some(element) = open.last_mut() {
                    element.text.push_str(&String::from_utf8_lossy(&piece));
                }
                continue;
            }
            // Whoever declares a type of document has entities in mind. WeChat never does.
            Event::DocType(_) | Event::Eof => return None,
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => continue,
        };
        match open.last_mut() {
            Some(parent) => parent.children.push(closed),
            // The root is closed; what follows it is of no interest.
            None => return Some(closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_attributes_texts_and_cdata_are_read() {
        let root =
            read("<?xml version=\"1.0\"?>\n<msg a='1 &amp; 2'><b>甲<![CDATA[<乙>]]>&#20009;</b><c/></msg>")
                .expect("a document");
        assert_eq!(root.attribute("a"), Some("1 & 2"));
        assert_eq!(root.text_of("b"), Some("甲<乙>丩"));
        assert_eq!(root.find("c").map(|c| c.name.as_str()), Some("c"));
    }

    #[test]
    fn entities_are_not_expanded() {
        let laughs =
            "<!DOCTYPE lolz [<!ENTITY lol \"lol\"><!ENTITY lol2 \"&lol;&lol;\">]><lolz>&lol2;</lolz>";
        assert_eq!(read(laughs), None);
        assert_eq!(read("<a>&lol;</a>").expect("a document").text(), Some("&lol;"));
        assert_eq!(read("<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>"), None);
    }

    #[test]
    fn what_is_too_deep_too_large_or_broken_is_not_read() {
        let nest = |n: usize| format!("{}{}", "<a>".repeat(n), "</a>".repeat(n));
        assert!(read(&nest(MAX_DEPTH)).is_some());
        assert_eq!(read(&nest(MAX_DEPTH + 1)), None);
        assert_eq!(read(&nest(100_000)), None);
        assert_eq!(read(&format!("<a>{}</a>", "x".repeat(MAX_BYTES))), None);
        assert_eq!(read(&format!("<a>{}</a>", "<b/>".repeat(MAX_ELEMENTS + 1))), None);
        for broken in ["", "<", "<a>", "<a></b>", "text", "<a", "</a>", "<a><![CDATA[</a>"] {
            assert_eq!(read(broken), None, "{broken}");
        }
    }
}
