//! The command, with `{}` for the line.

/// A command that waits for a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    words: Vec<String>,
}

impl Template {
    /// The words of the command. If none of them holds `{}`, the line goes last.
    pub(super) fn new(mut words: Vec<String>) -> Self {
        if !words.iter().any(|word| word.contains(PLACE)) {
            words.push(PLACE.into());
        }
        Self { words }
    }

    /// The command for this line. The line stays one word, whatever it holds: no shell takes it apart.
    pub(super) fn fill(&self, line: &str) -> Vec<String> {
        self.words.iter().map(|word| word.replace(PLACE, line)).collect()
    }
}

const PLACE: &str = "{}";

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(words: &[&str], line: &str) -> Vec<String> {
        Template::new(words.iter().map(|word| (*word).to_owned()).collect()).fill(line)
    }

    #[test]
    fn the_line_stands_where_the_braces_stood() {
        assert_eq!(fill(&["cp", "{}", "{}.bak"], "a b"), ["cp", "a b", "a b.bak"]);
    }

    #[test]
    fn without_braces_the_line_goes_last() {
        assert_eq!(fill(&["echo", "-n"], "$(rm)"), ["echo", "-n", "$(rm)"]);
    }

    #[test]
    fn braces_in_a_line_are_left_alone() {
        assert_eq!(fill(&["echo", "{}", "x"], "{}"), ["echo", "{}", "x"]);
    }
}
