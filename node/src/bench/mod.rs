//! `tenure bench`: figures, each with its target.
//!
//! It starts a cluster of three child processes of its own, unless `--node` names one, and is a client like any other: an
//! outside process on the links that the library offers.
//!
//! # Invariants
//!
//! * A figure is what was measured, also when it is bad; only the verdict compares it with the target.
//! * Nothing is measured that a client cannot see: a failover is over when a write is acknowledged or a task runs, not when
//!   some node says so.

mod failover;
mod figure;
mod kv;
mod rig;
mod tasks;

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
    /// All of them
    All,
}

/// Runs the verb.
///
/// # Errors
///
/// If the cluster does not start or is not reached. A target that is missed is no error, but exit code 1.
pub async fn run(args: Args, frame: &Frame) -> Result<Exit, Diagnostic> {
    tokio::select! {
        result = bench(&args, frame) => result,
        exit = interrupted() => Ok(exit),
    }
}

async fn bench(args: &Args, frame: &Frame) -> Result<Exit, Diagnostic> {
    let wants = |name: Name| args.name == name || args.name == Name::All;
    let mut figures = Vec::new();
    if wants(Name::Failover) {
        if frame.names_nodes() {
            return Err(Diagnostic::new(
                Code::Usage,
                "failovers are only measured on a cluster of the benchmark's own",
            )
            .hint("leave out --node, or measure `kv` or `tasks`"));
        }
        let mut rig = Rig::start().await?;
        figures.extend(failover::measure(&mut rig, args.rounds, &frame.output).await?);
    }
    if wants(Name::Kv) || wants(Name::Tasks) {
        let rig = if frame.names_nodes() { Rig::find(&frame.cluster()?).await? } else { Rig::start().await? };
        if wants(Name::Kv) {
            figures.extend(kv::measure(&rig.client, args.length).await?);
        }
        if wants(Name::Tasks) {
            figures.extend(tasks::measure(&rig.client, args.length).await?);
        }
    }
    show(&figures, &frame.output);
    Ok(if figures.iter().any(|figure| figure.pass() == Some(false)) { Exit::FAILED } else { Exit::OK })
}

fn show(figures: &[Figure], output: &Output) {
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
