//! How results look: a table for people, JSON for programs, ids alone for pipes.
//!
//! # Invariants
//!
//! * Data goes to stdout; notes, progress and errors to stderr.
//! * A closed pipe ends the program quietly, as it ends `grep`.
//! * Every JSON document says `"schema": "tenure/v1"`.
//! * Colour is never the only signal, and never reaches a pipe unless it is asked for.

use std::io::{IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use crate::diagnostic::{Diagnostic, Tone};

/// Where and how to print.
#[derive(Clone, Debug)]
pub struct Output {
    format: Format,
    color_out: bool,
    color_err: bool,
    has_terminal: bool,
    ascii: bool,
    quiet: bool,
}

/// The form of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// More columns for people.
    Wide,
    /// One JSON document.
    Json,
    /// One JSON document per line.
    Jsonl,
    /// Ids alone, one per line.
    Name,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What a piece of text stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// All is well.
    Good,
    /// Something is wrong.
    Bad,
    /// Something is unusual.
    Odd,
    /// Less important.
    Dim,
    /// A heading.
    Head,
}

impl Output {
    /// Decides once, from the flags and the environment.
    #[must_use]
    pub fn new(format: Format, color: Color, ascii: bool, quiet: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let decide = |terminal: bool| match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !plain,
        };
        Self {
            format,
            color_out: decide(std::io::stdout().is_terminal()),
            color_err: decide(std::io::stderr().is_terminal()),
            has_terminal: std::io::stdout().is_terminal(),
            ascii,
            quiet,
        }
    }

    /// The form asked for.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether a program reads stdout.
    #[must_use]
    pub fn is_json(&self) -> bool {
        matches!(self.format, Format::Json | Format::Jsonl)
    }

    /// Whether a person reads stdout, as far as can be known.
    #[must_use]
    pub fn has_terminal(&self) -> bool {
        self.has_terminal
    }

    /// Whether notes and progress are unwanted.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether only ASCII may be printed.
    #[must_use]
    pub fn is_ascii(&self) -> bool {
        self.ascii
    }

    /// A symbol, or its ASCII stand-in.
    #[must_use]
    pub fn symbol(&self, symbol: &'static str) -> &'static str {
        if !self.ascii {
            return symbol;
        }
        match symbol {
            "✓" => "ok",
            "✕" => "x",
            "●" => "o",
            "○" => ".",
            "★" => "*",
            "↻" => "~",
            "⊘" => "!",
            "█" => "#",
            "·" => "-",
            "…" => "...",
            other => other,
        }
    }

    /// Text for stdout in the colour of what it stands for.
    #[must_use]
    pub fn paint(&self, paint: Paint, text: &str) -> String {
        painted(self.color_out, paint, text)
    }

    /// Text for stderr in the colour of what it stands for.
    #[must_use]
    pub fn paint_err(&self, paint: Paint, text: &str) -> String {
        painted(self.color_err, paint, text)
    }

    /// One line of data.
    pub fn line(&self, text: impl AsRef<str>) {
        // At once: whoever is interrupted leaves no half of a line.
        self.bytes(format!("{}\n", text.as_ref()).as_bytes());
    }

    /// The revision of what was done: with that word for people, bare for whoever reads a pipe.
    pub fn revision(&self, revision: &Value) {
        self.line(revision_for(revision, self.has_terminal));
    }

    /// Data as it is.
    pub fn bytes(&self, bytes: &[u8]) {
        let mut out = std::io::stdout().lock();
        if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
            // Whoever read this has gone: there is nobody left to tell.
            std::process::exit(PIPE_CLOSED);
        }
    }

    /// One JSON document with the schema in front.
    pub fn json(&self, value: Value) {
        if self.format == Format::Jsonl {
            return self.json_line(value);
        }
        self.line(serde_json::to_string_pretty(&with_schema(value)).expect("a JSON value has a text"));
    }

    /// The same on one line, whatever the form: one of many that follow each other as something happens.
    pub fn json_line(&self, value: Value) {
        self.line(with_schema(value).to_string());
    }

    /// A table with aligned columns. Cells may hold colour: their width counts what is seen.
    pub fn table(&self, head: &[&str], rows: &[Vec<String>]) {
        let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(visible(cell));
            }
        }
        let heads: Vec<String> = head.iter().map(|cell| self.paint(Paint::Dim, cell)).collect();
        self.line(align(&heads, &widths));
        for row in rows {
            self.line(align(row, &widths));
        }
    }

    /// A remark on stderr, unless quiet.
    pub fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            stderr_line(text.as_ref());
        }
    }

    /// An error on stderr: as text, or as a problem document when a program reads.
    pub fn error(&self, diagnostic: &Diagnostic) {
        if self.is_json() {
            stderr_line(&diagnostic.to_problem().to_string());
            return;
        }
        let text = diagnostic.render(|tone, word| match tone {
            Tone::Error => self.paint_err(Paint::Bad, word),
            Tone::Hint => self.paint_err(Paint::Dim, word),
        });
        stderr_line(text.trim_end());
    }
}

fn with_schema(mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.entry("schema").or_insert_with(|| Value::from(crate::http::SCHEMA));
    }
    value
}

fn revision_for(revision: &Value, is_person: bool) -> String {
    let word = if is_person { "revision " } else { "" };
    format!("{word}{revision}")
}

fn painted(color: bool, paint: Paint, text: &str) -> String {
    if !color || text.is_empty() {
        return text.to_owned();
    }
    let style = match paint {
        Paint::Good => Style::new().fg_color(Some(AnsiColor::Green.into())),
        Paint::Bad => Style::new().fg_color(Some(AnsiColor::Red.into())).bold(),
        Paint::Odd => Style::new().fg_color(Some(AnsiColor::Yellow.into())),
        Paint::Dim => Style::new().dimmed(),
        Paint::Head => Style::new().bold(),
    };
    format!("{style}{text}{style:#}")
}

fn stderr_line(text: &str) {
    // Nobody can be told that stderr is closed.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn align(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        line.push_str(cell);
        line.extend(std::iter::repeat_n(' ', width.saturating_sub(visible(cell)) + 2));
    }
    line.truncate(line.trim_end().len());
    line
}

/// How many characters of a cell are seen: escape sequences are not.
fn visible(cell: &str) -> usize {
    let mut count = 0;
    let mut chars = cell.chars();
    while let Some(char) = chars.next() {
        if char == '\u{1b}' {
            chars.by_ref().find(|char| *char == 'm');
        } else {
            count += 1;
        }
    }
    count
}

/// What a shell shows for a program that a closed pipe ended.
const PIPE_CLOSED: i32 = 141;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_told_what_the_number_is_and_a_script_has_nothing_to_cut_off() {
        assert_eq!(revision_for(&Value::from(12), true), "revision 12");
        assert_eq!(revision_for(&Value::from(12), false), "12");
    }

    #[test]
    fn colour_does_not_count_in_the_width_of_a_cell() {
        let painted = painted(true, Paint::Bad, "down");
        assert!(painted.len() > 4);
        assert_eq!(visible(&painted), 4);
        assert_eq!(align(&[painted.clone(), "x".into()], &[6, 1]), format!("{painted}    x"));
    }

    #[test]
    fn the_last_column_has_no_trailing_blanks() {
        assert_eq!(align(&["a".into(), "b".into()], &[3, 9]), "a    b");
    }

    #[test]
    fn every_symbol_has_an_ascii_form() {
        let output = Output::new(Format::Table, Color::Never, true, false);
        for symbol in ["✓", "✕", "●", "○", "★", "↻", "⊘", "█", "·", "…"] {
            assert!(output.symbol(symbol).is_ascii(), "{symbol}");
        }
    }
}
