//! Many keys: listed, watched, changed in one step.

use std::time::Duration;

use serde_json::Value;

use super::super::http::escape;
use super::super::status::word;
use super::super::{Cluster, Code, Diagnostic, Exit, Format, Frame, Request, submit};

/// What to list.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Keys that begin with this
    #[arg(default_value = "")]
    prefix: String,
    /// Only those after this one
    #[arg(long, value_name = "KEY", default_value = "")]
    after: String,
    /// At most this many
    #[arg(long, default_value_t = u32::MAX)]
    limit: u32,
    /// What this node has applied so far, without asking the master
    #[arg(long)]
    stale: bool,
}

/// What to watch.
#[derive(Debug, clap::Args)]
pub struct Watch {
    /// Keys that begin with this
    #[arg(default_value = "")]
    prefix: String,
    /// What happened after this revision; else what happens from now on
    #[arg(long, value_name = "REVISION")]
    from: Option<u64>,
    /// End after so many changes
    #[arg(long, value_name = "N")]
    count: Option<usize>,
}

/// The keys, and the revision of the first page of them.
struct Listed {
    keys: Vec<Value>,
    revision: Option<u64>,
}

pub(super) async fn list(args: Ls, frame: &Frame) -> Result<Exit, Diagnostic> {
    let output = &frame.output;
    let has_values = matches!(output.format(), Format::Wide | Format::Json | Format::Jsonl);
    let Listed { keys, .. } = pages(args, has_values, &frame.cluster()?).await?;
    match output.format() {
        Format::Json => output.json(serde_json::json!({ "keys": keys })),
        Format::Jsonl => keys.into_iter().for_each(|key| output.json(key)),
        Format::Table | Format::Name => keys.iter().for_each(|key| output.line(word(&key["key"]))),
        Format::Wide => {
            let rows: Vec<Vec<String>> = keys.iter().map(row).collect();
            output.table(&["KEY", "REVISION", "SESSION", "VALUE"], &rows);
        }
    }
    Ok(Exit::OK)
}

/// Page by page, until the limit or the end.
async fn pages(args: Ls, has_values: bool, cluster: &Cluster) -> Result<Listed, Diagnostic> {
    let (mut after, mut left, mut keys, mut revision) = (args.after, args.limit, Vec::new(), None);
    while left > 0 {
        let mut path = format!("/v1/kv?prefix={}&after={}", escape(&args.prefix), escape(&after));
        path.push_str(&format!("&limit={}", left.min(PAGE)));
        path.push_str(if has_values { "" } else { "&keys_only" });
        path.push_str(if args.stale { "&stale" } else { "" });
        let answer = cluster.get(path).await?;
        revision = revision.or(answer["revision"].as_u64());
        let page = answer["keys"].as_array().cloned().unwrap_or_default();
        left -= u32::try_from(page.len()).unwrap_or(left).min(left);
        let Some(last) = page.last().and_then(|key| key["key"].as_str()) else { break };
        after = last.to_owned();
        keys.extend(page);
        if answer["more"] != true {
            break;
        }
    }
    Ok(Listed { keys, revision })
}

/// Question by question: each begins where the last answer ended, at whatever node answers. Where what happened is forgotten, what is
/// comes instead, and then what happens from there on.
pub(super) async fn watch(args: Watch, frame: &Frame) -> Result<Exit, Diagnostic> {
    let (output, cluster) = (&frame.output, frame.cluster()?);
    let path = format!("/v1/kv?watch&prefix={}", escape(&args.prefix));
    let (mut from, mut left) = (args.from, args.count.unwrap_or(usize::MAX));
    let mut is_said = false;
    while left > 0 {
        let wait = if from.is_none() { Duration::ZERO } else { WAIT };
        let from_here = from.map_or(String::new(), |from| format!("&from={from}"));
        let request = Request::get(format!("{path}&wait={}s{from_here}", wait.as_secs())).waits(wait);
        let answer = match cluster.send(request).await {
            Ok(reply) => reply.json()?,
            // Nothing is missed by asking again: the revision stays. It is said once, however long it takes.
            Err(failure) if failure.code.is_retryable() && from.is_some() => {
                if !std::mem::replace(&mut is_said, true) {
                    output.note(format!("{}: asking again until somebody answers", failure.message));
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(failure) if failure.code == Code::Compacted => {
                output.note(format!("{}: what is there now comes instead", failure.message));
                let all = Ls { prefix: args.prefix.clone(), after: String::new(), limit: u32::MAX, stale: false };
                let Listed { keys, revision } = pages(all, true, &cluster).await?;
                keys.iter().for_each(|key| show(key, frame));
                output.note("and now what happens");
                from = revision;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        is_said = false;
        for change in answer["changes"].as_array().into_iter().flatten().take(left) {
            show(change, frame);
        }
        left = left.saturating_sub(answer["changes"].as_array().map_or(0, Vec::len));
        from = answer["next"].as_u64();
    }
    Ok(Exit::OK)
}

/// Exits with 6 if the conditions did not hold.
pub(super) async fn transact(file: &str, frame: &Frame) -> Result<Exit, Diagnostic> {
    let body = if file == "-" {
        submit::value("-")?
    } else {
        std::fs::read(file).map_err(|error| Diagnostic::new(Code::Usage, format!("cannot read {file}: {error}")))?
    };
    let request = Request::post("/v1/txn").bytes(body).header("content-type", "application/json");
    let answer = frame.cluster()?.send(request).await?.json()?;
    let has_held = answer["held"] == true;
    match frame.output.format() {
        Format::Json | Format::Jsonl => frame.output.json(answer),
        Format::Name => frame.output.line(word(&answer["revision"])),
        Format::Table | Format::Wide => {
            let held = if has_held { "the conditions held" } else { "a condition did not hold" };
            frame.output.line(format!("{held}; revision {}", word(&answer["revision"])));
            for result in answer["results"].as_array().into_iter().flatten() {
                frame.output.line(result.to_string());
            }
        }
    }
    Ok(if has_held { Exit::OK } else { Code::Conflict.into() })
}

fn show(change: &Value, frame: &Frame) {
    match frame.output.format() {
        Format::Json | Format::Jsonl => frame.output.json_line(change.clone()),
        Format::Name => frame.output.line(word(&change["key"])),
        Format::Table | Format::Wide => {
            let what = match change["deleted"].as_str() {
                Some(why) => format!("({why})"),
                None => format!("= {}", word(&change["value"])),
            };
            frame.output.line(format!("{} {} {what}", word(&change["revision"]), word(&change["key"])));
        }
    }
}

fn row(key: &Value) -> Vec<String> {
    ["key", "revision", "session", "value"].map(|name| word(&key[name])).to_vec()
}

/// How many keys one question asks for.
const PAGE: u32 = 1_000;

/// How long one question waits.
const WAIT: Duration = Duration::from_secs(20);

/// Before a question that failed is asked again.
const PAUSE: Duration = Duration::from_millis(200);
