//! `tenure members`: who is here.

mod watch;

use serde_json::Value;

use super::status::word;
use super::{Diagnostic, Exit, Format, Frame, Output, Paint};

/// Flags of `members`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Then print who comes, is suspected, does not answer, leaves, and is master, as it happens; with `-o json` one object per line
    #[arg(long)]
    watch: bool,
}

pub(super) async fn run(args: Args, frame: &Frame) -> Result<Exit, Diagnostic> {
    if args.watch {
        return watch::run(frame).await;
    }
    let answer = frame.cluster()?.get("/v1/members").await?;
    match frame.output.format() {
        Format::Json => frame.output.json(answer),
        _ => show(&listed(&answer), &frame.output),
    }
    Ok(Exit::OK)
}

/// The members that an answer lists.
fn listed(answer: &Value) -> Vec<Value> {
    answer["members"].as_array().cloned().unwrap_or_default()
}

fn show(members: &[Value], output: &Output) {
    match output.format() {
        Format::Json | Format::Jsonl => members.iter().for_each(|member| output.json(member.clone())),
        Format::Name => members.iter().for_each(|member| output.line(word(&member["node"]))),
        Format::Table | Format::Wide => {
            let is_wide = output.format() == Format::Wide;
            let mut head = vec!["NAME", "NODE", "CLUSTER", "HTTP", "ROLE", "STATE", "TASKS"];
            if is_wide {
                head.extend(["RTT", "INCARNATION", "SESSION", "KINDS"]);
            }
            let rows: Vec<Vec<String>> = members
                .iter()
                .map(|member| {
                    let role = word(&member["role"]);
                    let role = if role == "master" {
                        output.paint(Paint::Good, &format!("{} master", output.symbol("★")))
                    } else {
                        role
                    };
                    let state = word(&member["state"]);
                    let (paint, symbol) = match state.as_str() {
                        "alive" => (Paint::Good, "●"),
                        "suspect" => (Paint::Odd, "○"),
                        _ => (Paint::Bad, "✕"),
                    };
                    let mut row = vec![
                        word(&member["label"]),
                        word(&member["node"]),
                        word(&member["link"]),
                        word(&member["http"]),
                        role,
                        output.paint(paint, &format!("{} {state}", output.symbol(symbol))),
                        format!("{}/{}", word(&member["assigned"]), word(&member["slots"])),
                    ];
                    if is_wide {
                        let rtt = member["rtt_ms"].as_f64().map_or("-".to_owned(), |rtt| format!("{rtt:.2} ms"));
                        let kinds = member["kinds"]
                            .as_array()
                            .map(|kinds| kinds.iter().map(word).collect::<Vec<_>>().join(","));
                        row.extend([
                            rtt,
                            word(&member["incarnation"]),
                            word(&member["session"]),
                            kinds.unwrap_or_default(),
                        ]);
                    }
                    row
                })
                .collect();
            output.table(&head, &rows);
        }
    }
}
