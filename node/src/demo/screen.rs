//! What the demo shows while it runs.
//!
//! # Invariants
//!
//! * Events go to stdout, one line each, in order; the bar goes to stderr and only to a terminal.
//! * With `-o json` nothing is shown before the end.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::render::FRAMES;
use crate::cli::{Output, Paint};

/// The running demo on the terminal.
#[derive(Debug)]
pub(super) struct Screen<'a> {
    output: &'a Output,
    is_shown: bool,
    begin: Instant,
    bar: ProgressBar,
    /// The last tenth that was told, where there is no terminal for a bar.
    tenth: AtomicU32,
}

impl<'a> Screen<'a> {
    /// Begins to show; times count from here.
    pub(super) fn new(output: &'a Output, is_shown: bool) -> Self {
        let bar = if is_shown && !output.is_quiet() { ProgressBar::new(FRAMES.into()) } else { ProgressBar::hidden() };
        let (template, filled) =
            (format!("  {{bar:28}}  {{pos}}/{FRAMES}   {{elapsed}}"), if output.is_ascii() { "#." } else { "█░" });
        let style =
            ProgressStyle::with_template(&template).expect("the template is well-formed").progress_chars(filled);
        bar.set_style(style);
        Self { output, is_shown, begin: Instant::now(), bar, tenth: AtomicU32::new(0) }
    }

    /// Only lines.
    pub(super) fn without_bar(self) -> Self {
        Self { bar: ProgressBar::hidden(), ..self }
    }

    /// How long the job runs.
    pub(super) fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Something happened.
    pub(super) fn event(&self, paint: Paint, symbol: &'static str, text: &str) {
        if !self.is_shown {
            return;
        }
        let seconds = format!("+{:.1} s", self.begin.elapsed().as_secs_f64());
        let line = format!("  {seconds:<8} {} {text}", self.output.paint(paint, self.output.symbol(symbol)));
        self.bar.suspend(|| self.output.line(line));
    }

    /// A line without a time.
    pub(super) fn line(&self, text: &str) {
        if self.is_shown {
            self.bar.suspend(|| self.output.line(text));
        }
    }

    /// So many frames are done.
    pub(super) fn progress(&self, done: u32) {
        self.bar.set_position(done.into());
        let tenth = done * 10 / FRAMES;
        if self.is_shown && self.bar.is_hidden() && self.tenth.fetch_max(tenth, Ordering::Relaxed) < tenth {
            self.output.note(format!("  {done}/{FRAMES} frames after {:.1} s", self.begin.elapsed().as_secs_f64()));
        }
    }

    /// The job is over: the last line of the bar stays.
    pub(super) fn finish(&self, done: u32) {
        self.bar.finish_and_clear();
        if self.is_shown {
            let filled = (done * 28 / FRAMES) as usize;
            let bar = self.output.symbol("█").repeat(filled) + &" ".repeat(28 - filled);
            self.output.line(format!("  {bar}  {done}/{FRAMES}   {:.1} s", self.begin.elapsed().as_secs_f64()));
        }
    }
}
