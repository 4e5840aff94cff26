//! The part of an address after the question mark.

use std::time::Duration;

use protocol::TaskId;

use crate::diagnostic::{Code, Diagnostic};
use crate::parse;

/// The words after the question mark.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Splits them; a name that no route part understands is refused, as it is most likely misspelt.
    pub(super) fn parse(text: Option<&str>, known: &[&str]) -> Result<Self, Diagnostic> {
        let pairs: Vec<(String, String)> =
            text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).map(pair).collect();
        match pairs.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, _)) => {
                Err(Diagnostic::new(Code::Usage, format!("no parameter `{}` here", name.escape_debug()))
                    .hint(format!("there are: {}", known.join(", "))))
            }
            None => Ok(Self(pairs)),
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Named without a value, or with `true` or `1`.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| ["", "true", "1"].contains(&value))
    }

    pub(super) fn task(&self, name: &str) -> Result<Option<TaskId>, Diagnostic> {
        // The cursor of a first page may be left empty or written t0.
        self.text(name).filter(|text| !text.is_empty()).map(parse_task).transpose()
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u32>, Diagnostic> {
        let wrong = |text: &str| Diagnostic::new(Code::Usage, format!("`{}` is no number", text.escape_debug()));
        self.text(name).map(|text| text.parse().map_err(|_| wrong(text))).transpose()
    }

    pub(super) fn duration(&self, name: &str) -> Result<Option<Duration>, Diagnostic> {
        self.text(name).map(|text| parse::duration(text).map_err(|why| Diagnostic::new(Code::Usage, why))).transpose()
    }
}

fn parse_task(text: &str) -> Result<TaskId, Diagnostic> {
    parse::task(text).map_err(|why| Diagnostic::new(Code::Usage, why))
}

fn pair(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (unescape(name), unescape(value))
}

/// Undoes percent signs and pluses; what is no text afterwards becomes replacement characters, which no route knows.
fn unescape(text: &str) -> String {
    String::from_utf8_lossy(&unescaped(text)).into_owned()
}

/// Whether a path is text when its percent signs are undone.
pub(super) fn is_text(path: &str) -> bool {
    std::str::from_utf8(&unescaped(path)).is_ok()
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let coded = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| first == b'%');
        bytes.push(coded.unwrap_or(if first == b'+' { b' ' } else { first }));
        rest = if coded.is_some() { &after[2..] } else { after };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape("a%2Fb+c%20d"), "a/b c d");
        assert_eq!(unescape("100%"), "100%");
        assert_eq!(unescape("%zz%4"), "%zz%4");
    }

    #[test]
    fn a_misspelt_parameter_is_refused_with_the_known_ones() {
        let Err(error) = Query::parse(Some("limt=3"), &["after", "limit"]) else { panic!("accepted") };
        assert_eq!(error.hint.as_deref(), Some("there are: after, limit"));
    }

    #[test]
    fn a_flag_may_stand_alone() {
        let query = Query::parse(Some("stale"), &["stale"]).unwrap();
        assert!(query.flag("stale") && !query.flag("verbose"));
    }
}
