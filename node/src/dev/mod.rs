//! `tenure dev`: a cluster on this machine that stays until Ctrl-C.
//!
//! It is there to be played with: nodes may be killed from another terminal, and come back by themselves a moment later.
//!
//! # Invariants
//!
//! * A context file names this cluster for as long as it runs, so that a second terminal needs no flags.
//! * Nothing is left behind: no process, and no folder unless `--data` names one.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli::context::Context;
use crate::cli::{Code, Diagnostic, Exit, Format, Frame, Output, Paint};
use crate::processes::{Processes, Settings, interrupted, table};

/// Flags of `dev`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many nodes; an odd number of them, up to seven, vote, and the others are plain members
    #[arg(short, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=15))]
    n: u8,
    /// Tasks that one node runs at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    slots: u32,
    /// Timers: dev, lan or wan
    #[arg(long, default_value = "lan")]
    profile: String,
    /// Keep the nodes' data in this folder [default: a temporary one, removed in the end]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Name of the cluster
    #[arg(long, default_value = "dev")]
    cluster: String,
    /// Leave a node that ended alone, instead of starting it again
    #[arg(long)]
    no_restart: bool,
}

/// Runs the verb.
///
/// # Errors
///
/// If the cluster does not start.
pub async fn run(args: Args, frame: &Frame) -> Result<Exit, Diagnostic> {
    let output = &frame.output;
    let mut settings = Settings::new(&args.cluster, args.n.into())?;
    settings.slots = args.slots;
    settings.profile.clone_from(&args.profile);
    settings.folder.clone_from(&args.data);
    settings.allow_exec = true;
    let begin = Instant::now();
    let started = tokio::select! {
        started = Processes::start(settings, frame.timeout.unwrap_or(START_PATIENCE)) => started,
        exit = interrupted() => return Ok(exit),
    };
    let mut processes = started?;
    let context = Context::new(&args.cluster, processes.https());
    context.save()?;
    introduce(&mut processes, begin.elapsed(), output).await;
    let result = tokio::select! {
        result = watch(&mut processes, args.no_restart, output) => result,
        exit = interrupted() => Ok(exit),
    };
    Context::remove_own();
    output.note("stopping; Ctrl-C again to stop at once");
    tokio::select! {
        _ = processes.terminate(STOP_PATIENCE) => {}
        _ = interrupted() => {}
    }
    match result {
        // Being interrupted is how this verb is meant to end.
        Ok(Exit::INTERRUPTED) => Ok(Exit::OK),
        result => result,
    }
}

async fn introduce(processes: &mut Processes, took: Duration, output: &Output) {
    let status = led(processes).await;
    if output.is_json() {
        let nodes: Vec<_> = (0..processes.len())
            .map(|place| {
                json!({
                    "label": processes.label(place),
                    "pid": processes.pid(place),
                    "link": processes.link(place).to_string(),
                    "http": processes.http(place).to_string(),
                    "log": processes.log(place).display().to_string(),
                })
            })
            .collect();
        output.json(json!({
            "nodes": nodes,
            "master": status["master"],
            "master_label": status["master_label"],
            "epoch": status["epoch"],
            "ready_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        }));
        return;
    }
    if output.format() == Format::Name {
        processes.https().iter().for_each(|http| output.line(http));
        return;
    }
    let (head, rows) = table(processes, output).await;
    output.table(&head, &rows);
    if let Some(master) = status["master_label"].as_str() {
        output.note(format!("{} {master} is master, epoch {}", output.symbol("★"), status["epoch"]));
    }
    output.note(format!("ready in {:.1} s; logs and data in {}", took.as_secs_f64(), processes.folder().display()));
    output.note("another terminal: tenure status | tenure map -- echo {} | kill -9 one of the nodes; Ctrl-C ends it");
}

/// The status of a node that knows a master at work; nothing if none does at this moment.
async fn led(processes: &Processes) -> Value {
    for _ in 0..LOOKS {
        for place in 0..processes.len() {
            let status = processes.get(place, "/v1/status").await;
            if let Some(status) = status.filter(|status| status["master_is_fresh"] == true) {
                return status;
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Value::Null
}

/// Starts what ended again. Comes back only if that fails.
async fn watch(processes: &mut Processes, no_restart: bool, output: &Output) -> Result<Exit, Diagnostic> {
    let mut restarts: Vec<Vec<Instant>> = vec![Vec::new(); processes.len()];
    let mut reported = vec![false; processes.len()];
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        for place in 0..processes.len() {
            let Some((status, log)) = processes.ended(place) else { continue };
            if !reported[place] {
                reported[place] = true;
                let what = format!("{} ended ({status})", processes.label(place));
                output.note(format!("{} {what}", output.paint_err(Paint::Bad, output.symbol("✕"))));
            }
            if no_restart {
                continue;
            }
            let recent = &mut restarts[place];
            recent.retain(|at| at.elapsed() < RESTART_WINDOW);
            if recent.len() >= RESTARTS_MAX {
                let diagnostic =
                    Diagnostic::new(Code::Fatal, format!("{} ends again and again", processes.label(place)));
                return Err(log.into_iter().fold(diagnostic, Diagnostic::cause));
            }
            recent.push(Instant::now());
            tokio::time::sleep(RESTART_AFTER).await;
            processes.restart(place)?;
            reported[place] = false;
            let text = format!("{} started again, pid {}", processes.label(place), processes.pid(place).unwrap_or(0));
            output.note(format!("{} {text}", output.paint_err(Paint::Odd, output.symbol("↻"))));
        }
    }
}

/// How long a cluster may take to become ready on a busy machine.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// How long the nodes may take to end well.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How often to look for a master, if it has stepped down a moment after the cluster was ready.
const LOOKS: usize = 20;

/// Long enough to see in another terminal that the cluster does without it.
const RESTART_AFTER: Duration = Duration::from_secs(2);

const RESTART_WINDOW: Duration = Duration::from_secs(60);

const RESTARTS_MAX: usize = 10;
