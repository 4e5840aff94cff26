//! `tenure status`: one screen, also where nothing works; the exit code says whether anything does.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Code, Diagnostic, Exit, Format, Frame, Output, Paint};

/// Flags of `status`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Wait until the node is ready (joined, fresh master, quorum), at most --timeout (30 s)
    #[arg(long)]
    exit_when_ready: bool,
}

pub(super) async fn run(args: Args, frame: &Frame) -> Result<Exit, Diagnostic> {
    if args.exit_when_ready {
        wait_until_ready(frame).await?;
    }
    let status = frame.cluster()?.get("/v1/status").await?;
    show(&status, &frame.output);
    if let Some(why) = unled(&status) {
        return Err(why);
    }
    if status["voters"].as_array().is_some_and(|voters| voters.len() == 1) {
        hint_at_growth(&status, frame).await;
    }
    Ok(Exit::OK)
}

/// Why this node could not do anything for anybody now, if so: what it knows is shown all the same.
fn unled(status: &Value) -> Option<Diagnostic> {
    let wait = &status["waits_for"];
    let diagnostic = Diagnostic::new(Code::NoQuorum, wait["why"].as_str()?).hint(wait["hint"].as_str()?);
    let causes = wait["causes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    Some(causes.fold(diagnostic, Diagnostic::cause))
}

/// One voter is a cluster, and one that nothing survives.
async fn hint_at_growth(status: &Value, frame: &Frame) {
    let Ok(members) = frame.cluster().map(|cluster| async move { cluster.get("/v1/members").await }) else { return };
    let Ok(answer) = members.await else { return };
    let others: Vec<&Value> = answer["members"].as_array().into_iter().flatten().collect();
    let voter = others.iter().find(|member| member["node"] == status["voters"][0]);
    let (Some(voter), Format::Table | Format::Wide) = (voter, frame.output.format()) else { return };
    let (cluster, link) = (word(&status["cluster"]), word(&voter["link"]));
    frame.output.note("one voter: what is lost with it is lost for good, and while it is away nothing works. To grow:");
    if others.len() < 3 {
        frame.output.note(format!(
            "  tenure node --cluster {cluster} --data FOLDER --listen HOST:PORT --join {link}     twice"
        ));
    }
    frame.output.note("  tenure node promote NAME     for two members of `tenure members`");
}

async fn wait_until_ready(frame: &Frame) -> Result<(), Diagnostic> {
    let begin = Instant::now();
    let patience = frame.timeout.unwrap_or(Duration::from_secs(30));
    let cluster = frame.cluster()?.timeout(Duration::from_secs(1));
    loop {
        let Err(error) = cluster.send(super::Request::get("/readyz")).await else { return Ok(()) };
        if begin.elapsed() >= patience {
            // What is not ready says so line by line; what was not reached, address by address.
            let lines = error.message.lines().map(|line| line.trim_start_matches("the node answered 503: "));
            let late = Diagnostic::new(Code::Timeout, format!("not ready within {patience:?}"));
            let late = lines.fold(late, Diagnostic::cause);
            return Err(error.causes.iter().fold(late, |late, cause| late.cause(cause)));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn show(status: &Value, output: &Output) {
    let text = |key: &str| word(&status[key]);
    match output.format() {
        Format::Json | Format::Jsonl => output.json(status.clone()),
        Format::Name => output.line(text("master")),
        Format::Table | Format::Wide => {
            let is_fresh = status["master_is_fresh"].as_bool().unwrap_or(false);
            let master = match (status["master"].as_str(), is_fresh) {
                (Some(_), true) => {
                    output.paint(Paint::Good, &format!("{} {}", output.symbol("★"), text("master_label")))
                }
                (Some(_), false) => output.paint(Paint::Odd, &format!("{} (silent)", text("master_label"))),
                (None, _) => output.paint(Paint::Bad, "none"),
            };
            let voters = status["voters"].as_array().map_or(0, Vec::len);
            let heard = status["heard"].as_array().map_or(0, Vec::len);
            let tasks = &status["tasks"];
            let line = |name: &str, value: String| {
                output.line(format!("{} {value}", output.paint(Paint::Dim, &format!("{name:<10}"))))
            };
            line("cluster", format!("{}  {}", text("cluster"), output.paint(Paint::Dim, &text("cluster_id"))));
            // Whoever holds no log has no role in it.
            let role = if status["part"] == "member" { text("part") } else { text("role") };
            line("node", format!("{}  {role}  {}", text("label"), output.paint(Paint::Dim, &text("node"))));
            line("master", format!("{master}  epoch {}", text("epoch")));
            if heard > 0 {
                line("quorum", format!("{heard} of {voters} voters answer  lease {} ms", text("lease_ms")));
            } else {
                line("voters", voters.to_string());
            }
            line(
                "log",
                format!("commit {}  applied {}  revision {}", text("commit"), text("applied"), text("revision")),
            );
            if status["snapshot"] != 0 {
                line("snapshot", format!("at {}  log begins after {}", text("snapshot"), text("log_base")));
            }
            let image = &status["fetching"];
            if image.is_object() {
                let part = |key: &str| word(&image[key]);
                line(
                    "fetches",
                    format!("the state at {}: {} of {} chunks", part("last"), part("staged"), part("count")),
                );
            }
            line("state", text("state_hash"));
            if tasks.is_object() {
                let count = |key: &str| word(&tasks[key]);
                line(
                    "tasks",
                    format!(
                        "{} pending  {} assigned  {} done  {} failed  ({} late results refused)",
                        count("pending"),
                        count("assigned"),
                        count("done"),
                        count("failed"),
                        count("results_refused")
                    ),
                );
            }
        }
    }
}

/// A JSON value without quotes; a dash for nothing.
pub(super) fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
