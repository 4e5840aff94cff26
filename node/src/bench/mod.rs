//! `tenure bench`: figures, each with its target.
//!
//! It starts clusters of three child processes of its own, unless `--node` names one, and is a client like any other: an
//! outside process on the links that the library offers.
//!
//! A load has five figures: `.per_s`, `.p50` and `.p99`, and what one operation costs all nodes together, `.cpu` in
//! microseconds of processor time and `.disk` in bytes that were sent to the disk.
//!
//! # Invariants
//!
//! * A figure is what was measured, also when it is bad; only the verdict compares it with the target.
//! * Nothing is measured that a client cannot see: a failover is over when a write is acknowledged or a task runs, not when
//!   some node says so.

mod failover;
mod figure;
mod idle;
mod kv;
mod load;
mod netns;
pub mod primitives;
mod rig;
mod target;
mod tasks;
mod usage;

use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::{Code, Diagnostic, Exit, Format, Frame, Output, Paint, parse};
use crate::processes::interrupted;

use figure::Figure;
use rig::Rig;

/// Flags of `bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to measure
    #[arg(value_enum, default_value = "all")]
    name: Name,
    /// How often every failover is repeated
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How long every rate is measured
    #[arg(long, default_value = "3s", value_parser = parse::duration, value_name = "TIME")]
    length: Duration,
    /// With `failover`: every node in a network namespace of its own, and the network is what fails; needs root
    #[arg(long)]
    netns: bool,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Name {
    /// From the death of a master or worker to the next write or the next run
    Failover,
    /// Reads and writes of keys
    Kv,
    /// From submission to result
    Tasks,
    /// What a node costs at rest, and how soon a fresh cluster works
    Node,
    /// Transactions, watches, locks and sessions, and how soon a killed process loses what it held
    Primitives,
    /// All of them
    All,
}

/// Runs the verb.
///
/// # Errors
///
/// If the cluster does not start or is not reached. A target that is missed is no error, but exit code 1.
pub async fn run(args: Args, frame: &Frame) -> Result<Exit, Diagnostic> {
    if args.netns {
        return on_networks(args, frame).await;
    }
    tokio::select! {
        result = bench(&args, frame) => result,
        exit = interrupted() => Ok(exit),
    }
}

/// Works on threads of its own, which hear of Ctrl-C themselves: they have networks to remove.
async fn on_networks(args: Args, frame: &Frame) -> Result<Exit, Diagnostic> {
    if args.name != Name::Failover || frame.names_nodes() {
        return Err(Diagnostic::new(
            Code::Usage,
            "a network is only cut for failovers of the benchmark's own clusters",
        )
        .hint("tenure bench failover --netns"));
    }
    let output = frame.output.clone();
    let measured = tokio::task::spawn_blocking(move || netns::measure(args.rounds, &output)).await;
    match measured.map_err(|error| Diagnostic::new(Code::Internal, error.to_string()))?? {
        Ok(figures) => Ok(show(&figures, &frame.output)),
        Err(exit) => Ok(exit),
    }
}

async fn bench(args: &Args, frame: &Frame) -> Result<Exit, Diagnostic> {
    let wants = |name: Name| args.name == name || args.name == Name::All;
    let mut figures = Vec::new();
    if (wants(Name::Failover) || wants(Name::Node) || wants(Name::Primitives)) && frame.names_nodes() {
        return Err(Diagnostic::new(
            Code::Usage,
            "failovers, primitives and nodes at rest are only measured on a cluster of the benchmark's own",
        )
        .hint("leave out --node, or measure `kv` or `tasks`"));
    }
    if wants(Name::Kv) || wants(Name::Tasks) {
        let rig =
            if frame.names_nodes() { Rig::find(&frame.cluster()?).await? } else { Rig::start(SLOTS_MANY).await? };
        if wants(Name::Kv) {
            figures.extend(kv::measure(&rig, args.length).await?);
        }
        if wants(Name::Tasks) {
            figures.extend(tasks::measure(&rig, args.length).await?);
        }
    }
    if wants(Name::Failover) {
        let mut rig = Rig::start(SLOTS_FEW).await?;
        figures.extend(failover::measure(&mut rig, args.rounds, &frame.output).await?);
    }
    if wants(Name::Node) {
        figures.extend(idle::measure(args.rounds, args.length, &frame.output).await?);
    }
    if wants(Name::Primitives) {
        figures.extend(primitives::measure(args.rounds, args.length, &frame.output).await?);
    }
    Ok(show(&figures, &frame.output))
}

/// Prints the figures; the exit code says whether all of them are as they should be.
fn show(figures: &[Figure], output: &Output) -> Exit {
    print(figures, output);
    if figures.iter().any(|figure| figure.pass() == Some(false)) { Exit::FAILED } else { Exit::OK }
}

fn print(figures: &[Figure], output: &Output) {
    if output.is_json() {
        let figures: Vec<Value> = figures.iter().map(Figure::to_json).collect();
        output.json(json!({ "figures": figures }));
        return;
    }
    if output.format() == Format::Name {
        figures.iter().for_each(|figure| output.line(&figure.name));
        return;
    }
    let rows: Vec<Vec<String>> = figures
        .iter()
        .map(|figure| {
            let verdict = match figure.pass() {
                Some(true) => output.paint(Paint::Good, &format!("{} pass", output.symbol("✓"))),
                Some(false) => output.paint(Paint::Bad, &format!("{} miss", output.symbol("✕"))),
                None => "-".to_owned(),
            };
            vec![figure.name.clone(), figure.shown(), figure.unit.to_owned(), figure.shown_target(), verdict]
        })
        .collect();
    output.table(&["NAME", "VALUE", "UNIT", "TARGET", "VERDICT"], &rows);
}

/// Enough for all tasks that are under way at once: what is measured is the cluster, not its slots.
const SLOTS_MANY: u32 = 128;

/// More than the processors of a small machine: the tasks of a failover wait or do nothing.
const SLOTS_FEW: u32 = 8;
