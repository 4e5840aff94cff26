//! `tenure map`: a distributed xargs. One task per input line, outputs in the order of the lines.
//!
//! ```text
//! find /usr/share/doc -type f | tenure map -- sha256sum {} > SUMS
//! ```
//!
//! # Invariants
//!
//! * A line becomes one task, however often its submission had to be repeated: its once key is the run's own number and the
//!   line's.
//! * Outputs are printed whole and in order; what failed is listed on stderr and makes the exit code 1.
//! * At most a window of tasks is under way, and no more results than that wait for their turn: an input without end is
//!   fine.
//! * Ctrl-C, or the end of `--timeout`, cancels what is recorded and has not ended, also what was on its way to be recorded.
//! * A node that dies, also the one that is asked, costs time and nothing else.

mod lines;
mod template;
mod work;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::FusedFuture;
use futures_util::stream::{self, StreamExt as _};
use serde_json::json;
use tokio::sync::mpsc;

use crate::builtin::exec::Report;
use crate::cli::{Code, Diagnostic, Exit, Format, Frame, Output, Paint, Patient, parse};
use crate::processes::interrupted;

use lines::Line;
use template::Template;
use work::{Ended, Open, Submitter, Task, Waiter};

/// Flags of `map`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// At most this many tasks under way [default: 256]
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZeroU32>,
    /// How many failed attempts of a line are followed by another one
    #[arg(long, default_value_t = 2, value_name = "N")]
    retries: u32,
    /// How long one attempt may run
    #[arg(long, value_parser = parse::duration, value_name = "TIME")]
    attempt_timeout: Option<Duration>,
    /// Read lines from this file instead of stdin
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Lines end with NUL, as `find -print0` writes them
    #[arg(short = '0', long)]
    null: bool,
    /// Run the commands in this folder [default: the current one]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// The command; `{}` stands for the line, which goes last if there is none
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Runs the verb.
///
/// # Errors
///
/// If the input cannot be read or the cluster refuses the tasks. Lines that fail are no error, but exit code 1.
pub async fn run(args: Args, frame: &Frame) -> Result<Exit, Diagnostic> {
    let cluster = Patient::new(frame.cluster()?, PATIENCE).noting(frame.output.clone());
    let source = lines::open(args.input.as_deref())?;
    let folder = match &args.folder {
        Some(folder) => folder.clone(),
        None => std::env::current_dir()
            .map_err(|error| Diagnostic::new(Code::Usage, format!("there is no current folder: {error}")))?,
    };
    let window = args.jobs.map_or(WINDOW, |jobs| usize::try_from(jobs.get()).unwrap_or(usize::MAX).min(WINDOW_MAX));
    let submitter = Submitter {
        cluster: cluster.clone(),
        template: Template::new(args.command),
        folder,
        retries: args.retries,
        attempt_timeout: args.attempt_timeout.unwrap_or_default(),
        run: format!("map-{:032x}", rand::random::<u128>()),
        open: Open::default(),
    };
    let (lines, mut read) = mpsc::channel(window.min(LINES_AHEAD));
    let ending = if args.null { b'\0' } else { b'\n' };
    // A thread of its own: reading a terminal or a pipe may block for ever.
    std::thread::spawn(move || lines::read(source, ending, &lines));

    let permits = Arc::new(tokio::sync::Semaphore::new(window));
    let (tasks, mut recorded) = mpsc::channel(window);
    let mut submit = pin!(submitter.submit_all(&mut read, &permits, tasks).fuse());
    let waiter = Waiter { cluster, open: submitter.open.clone() };
    let recorded = stream::poll_fn(move |cx| recorded.poll_recv(cx));
    let mut counts = Counts::default();
    let collect = async {
        let mut ended = recorded.map(|task: Task| waiter.wait(task)).buffered(window);
        while let Some(ended) = ended.next().await {
            counts.show(ended?, &frame.output);
        }
        Ok::<_, Diagnostic>(())
    };
    let both = async { tokio::try_join!(&mut submit, collect).map(drop) };
    // What does not end by itself is dropped when this is over, and with that nobody takes what is recorded.
    let ended = tokio::select! {
        result = both => End::Itself(result),
        exit = interrupted() => End::Interrupted(exit),
        () = expiry(frame.timeout) => End::Expired,
    };
    match ended {
        End::Itself(Ok(())) => Ok(counts.finish(&frame.output)),
        End::Itself(Err(error)) => Err(counts.broken_off(error)),
        End::Interrupted(exit) => {
            stop(submit, &waiter, &frame.output).await;
            Ok(exit)
        }
        End::Expired => {
            stop(submit, &waiter, &frame.output).await;
            Err(Diagnostic::new(Code::Timeout, "the time ran out before all lines were done"))
        }
    }
}

/// How a run ended.
enum End {
    Itself(Result<(), Diagnostic>),
    Interrupted(Exit),
    Expired,
}

/// Nobody wants the results any more. A second signal ends the program at once.
async fn stop(submit: impl FusedFuture, waiter: &Waiter, output: &Output) {
    let cancel = async {
        let is_known = submit.is_terminated() || tokio::time::timeout(RECORD_PATIENCE, submit).await.is_ok();
        let (ended, left) = waiter.cancel_all().await;
        (ended, left, is_known)
    };
    let (ended, left, is_known) = tokio::select! {
        counts = cancel => counts,
        _ = interrupted() => return,
    };
    output.note(format!("stopped: {ended} tasks under way were cancelled"));
    if left > 0 {
        output.note(format!("{left} may still run: `tenure task ls` shows them"));
    }
    if !is_known {
        output.note("nobody answered the last submission: `tenure task ls` shows whether it was recorded");
    }
}

async fn expiry(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

/// How the lines ended, and which failed first.
#[derive(Debug, Default)]
struct Counts {
    lines: u64,
    failed: u64,
}

impl Counts {
    fn show(&mut self, ended: Ended, output: &Output) {
        self.lines += 1;
        let report = ended.output.as_deref().and_then(Report::parse).unwrap_or_default();
        match output.format() {
            Format::Json | Format::Jsonl => output.json(document(&ended, &report)),
            Format::Name => output.line(ended.task.id.as_str()),
            Format::Table | Format::Wide => output.bytes(&report.stdout),
        }
        if let Some(why) = &ended.failure {
            self.failed += 1;
            let Task { line, id, .. } = &ended.task;
            let line = format!("line {} `{}`: {id} {why}", line.number, shortened(&line.text));
            output.note(format!("{} {line}", output.paint_err(Paint::Bad, output.symbol("✕"))));
        } else if !output.is_json() && !report.stderr.is_empty() {
            output.note(String::from_utf8_lossy(&report.stderr).trim_end());
        }
    }

    /// Says of an error how far the run had come.
    fn broken_off(self, error: Diagnostic) -> Diagnostic {
        let far = format!("{} lines were done, and their outputs printed", self.lines);
        if error.code.is_retryable() {
            let what = "the cluster was gone for longer than this run waits; what it had recorded of the rest goes on if it comes back";
            return error.cause(far).hint(what);
        }
        error.cause(far)
    }

    fn finish(self, output: &Output) -> Exit {
        if self.failed == 0 {
            return Exit::OK;
        }
        output.note(format!("{} of {} lines failed", self.failed, self.lines));
        Exit::FAILED
    }
}

fn document(ended: &Ended, report: &Report) -> serde_json::Value {
    let Task { line, id, .. } = &ended.task;
    let mut document = json!({
        "line": line.number,
        "input": line.text,
        "task": id,
        "ok": ended.failure.is_none(),
        "attempts": ended.attempts,
        "exit_code": report.exit_code,
        "signal": report.signal,
        "error": ended.failure,
    });
    crate::http::encoded(&mut document, "stdout", &report.stdout);
    crate::http::encoded(&mut document, "stderr", &report.stderr);
    document
}

fn shortened(text: &str) -> String {
    let short: String = text.chars().take(60).map(|char| if char.is_control() { '?' } else { char }).collect();
    if short.len() < text.len() { short + "…" } else { short }
}

/// Without a quorum for longer than this, a run gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the answer to the last submission is waited for by whoever interrupts.
const RECORD_PATIENCE: Duration = Duration::from_secs(5);

/// Tasks under way unless told otherwise: plenty for any number of slots, and cheap to wait for.
const WINDOW: usize = 256;

/// More make nothing faster.
const WINDOW_MAX: usize = 4096;

/// Lines read before they are wanted.
const LINES_AHEAD: usize = 1024;
