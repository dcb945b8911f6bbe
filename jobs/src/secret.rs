//! A string that does not want to be seen.
//!
//! Everything that must never reach a log, an event or an error row travels as a [`Secret`].
//! The type cannot be serialised and prints `***`, so a forgotten field in a `Debug` line leaks nothing.

use std::fmt;

/// A provider token, a password or a key.
///
/// The one way to the text is [`Secret::expose`], which makes every use easy to find and to review.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text itself; for the wire and for sealing, never for a message.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_stars_and_nothing_of_its_text_or_length() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?} {secret:>10} {:?}", Some(&secret)), "*** *** *** Some(***)");
        assert_eq!(secret.expose(), "hunter2");
    }
}
