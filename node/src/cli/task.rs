//! `tenure task`: look at tasks, wait for them, cancel them.

use std::time::{Duration, Instant};

use protocol::TaskId;
use serde_json::{Value, json};

use super::http::escape;
use super::status::word;
use super::{Code, Diagnostic, Exit, Format, Frame, Output, Paint, Request, parse};
use crate::builtin::exec;

/// The verbs under `task`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// One task, with what happened to it
    #[command(alias = "show")]
    Get {
        /// The task
        #[arg(value_parser = parse::task)]
        task: TaskId,
    },
    /// Tasks, newest first
    #[command(alias = "list")]
    Ls {
        /// Only those in this state
        #[arg(long)]
        state: Option<String>,
        /// Only those before this one
        #[arg(long, value_parser = parse::task, value_name = "TASK")]
        before: Option<TaskId>,
        /// Only those after this one, oldest first; t0 for all
        #[arg(long, value_parser = parse::task, value_name = "TASK", conflicts_with = "before")]
        after: Option<TaskId>,
        /// At most this many
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Wait until tasks have ended, and print their output
    Wait {
        /// The tasks
        #[arg(value_parser = parse::task, required = true)]
        tasks: Vec<TaskId>,
    },
    /// End a task that has not ended
    Cancel {
        /// The task
        #[arg(value_parser = parse::task)]
        task: TaskId,
        /// Shown to whoever looks
        #[arg(long, default_value = "cancelled by an operator")]
        reason: String,
    },
}

pub(super) async fn run(verb: Verb, frame: &Frame) -> Result<Exit, Diagnostic> {
    let output = &frame.output;
    match verb {
        Verb::Get { task } => show(&frame.cluster()?.get(format!("/v1/tasks/{task}")).await?, output),
        Verb::Ls { state, before, after, limit } => list(state, (before, after), limit, frame).await?,
        Verb::Wait { tasks } => return wait(&tasks, frame).await,
        Verb::Cancel { task, reason } => {
            // Cancelling twice ends the task once: safe to repeat.
            let request =
                Request::post(format!("/v1/tasks/{task}/cancel")).json(&json!({ "reason": reason })).repeatable();
            show(&frame.cluster()?.send(request).await?.json()?, output);
        }
    }
    Ok(Exit::OK)
}

/// Waits for all, in order, printing each output as soon as it and all before it are there.
pub(super) async fn wait(tasks: &[TaskId], frame: &Frame) -> Result<Exit, Diagnostic> {
    let begin = Instant::now();
    let slice = Duration::from_secs(20);
    let cluster = frame.cluster()?;
    let mut exit = Exit::OK;
    let mut has_answered = false;
    for id in tasks {
        let task = loop {
            let left = frame.timeout.map_or(slice, |timeout| timeout.saturating_sub(begin.elapsed()).min(slice));
            let cluster = cluster.clone().timeout(left + Duration::from_secs(10));
            // A cluster that answered once is worth waiting for; one that never did is not there.
            let cluster = if has_answered { cluster.patient() } else { cluster };
            let request = Request::get(format!("/v1/tasks/{id}?wait={}ms", left.as_millis())).waits(left);
            let task = cluster.send(request).await?.json()?;
            has_answered = true;
            if task["is_final"] == true {
                break task;
            }
            if frame.timeout.is_some_and(|timeout| begin.elapsed() >= timeout) {
                return Err(Diagnostic::new(Code::Timeout, format!("{id} is still {}", word(&task["state"])))
                    .hint(format!("the task goes on; look again with `tenure task get {id}`")));
            }
        };
        match frame.output.format() {
            Format::Json | Format::Jsonl => frame.output.json(task.clone()),
            Format::Name => frame.output.line(id.to_string()),
            Format::Table | Format::Wide => print_output(&task, &frame.output),
        }
        if task["state"] != "done" {
            let diagnostic =
                Diagnostic::new(Code::TaskFailed, format!("{id} {}: {}", word(&task["state"]), word(&task["message"])))
                    .hint(format!("what happened to it: `tenure task get {id}`"));
            frame.output.error(&diagnostic);
            exit = Exit::FAILED;
        }
    }
    Ok(exit)
}

async fn list(
    state: Option<String>,
    (before, after): (Option<TaskId>, Option<TaskId>),
    limit: u32,
    frame: &Frame,
) -> Result<(), Diagnostic> {
    let mut path = match (before, after) {
        (Some(before), _) => format!("/v1/tasks?limit={limit}&before={before}"),
        (None, Some(after)) => format!("/v1/tasks?limit={limit}&after={after}"),
        (None, None) => format!("/v1/tasks?limit={limit}&newest"),
    };
    if let Some(state) = &state {
        path.push_str(&format!("&state={}", escape(state)));
    }
    let answer = frame.cluster()?.get(path).await?;
    let tasks = answer["tasks"].as_array().cloned().unwrap_or_default();
    let output = &frame.output;
    match output.format() {
        Format::Json => output.json(answer),
        Format::Jsonl => tasks.into_iter().for_each(|task| output.json(task)),
        Format::Name => tasks.iter().for_each(|task| output.line(word(&task["id"]))),
        Format::Table | Format::Wide => {
            let rows: Vec<Vec<String>> = tasks
                .iter()
                .map(|task| {
                    let detail = if task["message"].is_string() { &task["message"] } else { &task["label"] };
                    vec![
                        word(&task["id"]),
                        word(&task["kind"]),
                        painted_state(task, output),
                        word(&task["attempts"]),
                        word(detail).lines().next().unwrap_or_default().chars().take(60).collect(),
                    ]
                })
                .collect();
            output.table(&["TASK", "KIND", "STATE", "ATTEMPTS", "DETAIL"], &rows);
            if let Some(next) = answer["next"].as_str() {
                let cursor = if after.is_some() { "after" } else { "before" };
                output.note(format!("more: tenure task ls --{cursor} {next}"));
            }
        }
    }
    Ok(())
}

fn show(task: &Value, output: &Output) {
    match output.format() {
        Format::Json | Format::Jsonl => output.json(task.clone()),
        Format::Name => output.line(word(&task["id"])),
        Format::Table | Format::Wide => {
            output.line(format!("{}  {}  {}", word(&task["id"]), word(&task["kind"]), painted_state(task, output)));
            for line in task["history"].as_array().into_iter().flatten() {
                output.line(format!("  {:>8} ms  {}", word(&line["at_ms"]), word(&line["text"])));
            }
            if task["message"].is_string() {
                output.line(format!("  {}", word(&task["message"])));
            }
            if task["output"].as_str().is_some_and(|text| !text.is_empty()) {
                output.line(output.paint(Paint::Dim, "output"));
                print_output(task, output);
            }
        }
    }
}

/// The bytes that the task produced, as they are; what a command printed, where it printed it.
fn print_output(task: &Value, output: &Output) {
    let Some(bytes) = crate::http::decoded(task, "output") else { return };
    let report = (task["kind"] == exec::KIND).then(|| exec::Report::parse(&bytes)).flatten();
    let stdout = report.as_ref().map_or(&bytes, |report| &report.stdout);
    output.bytes(stdout);
    if !stdout.is_empty() && !stdout.ends_with(b"\n") {
        output.bytes(b"\n");
    }
    if let Some(stderr) = report.map(|report| report.stderr).filter(|stderr| !stderr.is_empty()) {
        output.note(String::from_utf8_lossy(&stderr).trim_end());
    }
}

fn painted_state(task: &Value, output: &Output) -> String {
    let state = word(&task["state"]);
    let paint = match state.as_str() {
        "done" => Paint::Good,
        "failed" | "lost" => Paint::Bad,
        "cancelled" => Paint::Odd,
        _ => Paint::Head,
    };
    output.paint(paint, &state)
}
