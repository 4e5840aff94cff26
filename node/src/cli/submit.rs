//! `tenure submit`: record a task, and wait for it if asked.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Code, Diagnostic, Exit, Format, Frame, Request, parse, task};

/// Flags of `submit`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which handler runs it
    kind: String,
    /// Its input: JSON, any other text, `-` for stdin, `@FILE` for a file
    payload: Option<String>,
    /// A second submission with the same key returns the first one's task
    #[arg(long)]
    key: Option<String>,
    /// How many failed attempts are followed by another one [default: 3, or 0 with --at-most-once]
    #[arg(long)]
    retries: Option<u32>,
    /// The wait before the first retry; it doubles with every further one
    #[arg(long, value_parser = parse::duration, value_name = "TIME")]
    backoff: Option<Duration>,
    /// How long one attempt may run
    #[arg(long, value_parser = parse::duration, value_name = "TIME")]
    attempt_timeout: Option<Duration>,
    /// Higher goes first
    #[arg(long, allow_negative_numbers = true)]
    priority: Option<i32>,
    /// Run it once at most: it ends `lost` if its worker vanishes
    #[arg(long)]
    at_most_once: bool,
    /// Only on nodes with this label
    #[arg(long, value_parser = parse::label, value_name = "KEY=VALUE")]
    needs: Vec<(String, String)>,
    /// How long the record is kept after the task ended
    #[arg(long, value_parser = parse::duration, value_name = "TIME")]
    keep: Option<Duration>,
    /// Accept a kind that no live node has a handler for: the task waits for one
    #[arg(long)]
    queue: bool,
    /// Wait until it has ended, and print its output
    #[arg(long)]
    wait: bool,
}

pub(super) async fn run(args: Args, frame: &Frame) -> Result<Exit, Diagnostic> {
    let cluster = frame.cluster()?;
    // With a once key of our own, a repeated request cannot become two tasks.
    let key = args.key.clone().unwrap_or_else(|| format!("cli-{:032x}", rand::random::<u128>()));
    let request = Request::post("/v1/tasks").json(&body(&args)?).header("idempotency-key", &key).repeatable();
    let mut answer = cluster.send(request).await?.json()?;
    let id = answer["id"].as_str().unwrap_or_default().to_owned();
    if args.wait {
        return task::wait(&[parse::task(&id).map_err(|why| Diagnostic::new(Code::Internal, why))?], frame).await;
    }
    match frame.output.format() {
        Format::Json | Format::Jsonl => {
            if args.key.is_none() {
                answer.as_object_mut().and_then(|object| object.remove("once_key"));
            }
            frame.output.json(answer);
        }
        _ => frame.output.line(&id),
    }
    Ok(Exit::OK)
}

fn body(args: &Args) -> Result<Value, Diagnostic> {
    let mut body = Map::new();
    body.insert("kind".into(), json!(args.kind));
    for (name, value) in payload(args.payload.as_deref())? {
        body.insert(name.into(), value);
    }
    let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.into(), value);
        }
    };
    set("retries", args.retries.map(Value::from));
    set("backoff_ms", args.backoff.map(|span| ms(span).into()));
    set("timeout_ms", args.attempt_timeout.map(|span| ms(span).into()));
    set("keep_ms", args.keep.map(|span| ms(span).into()));
    set("priority", args.priority.map(Value::from));
    set("delivery", args.at_most_once.then(|| "at-most-once".into()));
    set("queue", args.queue.then(|| true.into()));
    if !args.needs.is_empty() {
        let needs: Map<String, Value> = args.needs.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        body.insert("needs".into(), needs.into());
    }
    Ok(body.into())
}

/// JSON goes as JSON, other text as text, bytes as base64: the handler sees exactly what was given.
fn payload(given: Option<&str>) -> Result<Vec<(&'static str, Value)>, Diagnostic> {
    let bytes = match given {
        None => return Ok(Vec::new()),
        Some("-") => read(&mut std::io::stdin().lock(), "stdin")?,
        Some(text) => match text.strip_prefix('@') {
            Some(path) => {
                let path = PathBuf::from(path);
                let name = path.display().to_string();
                let mut file = std::fs::File::open(&path)
                    .map_err(|error| Diagnostic::new(Code::Usage, format!("cannot read {name}: {error}")))?;
                read(&mut file, &name)?
            }
            None => text.as_bytes().to_vec(),
        },
    };
    Ok(match String::from_utf8(bytes) {
        Ok(text) => vec![("payload_text", json!(text))],
        Err(error) => vec![("payload_base64", json!(crate::http::base64(error.as_bytes())))],
    })
}

/// Reads all, but no more than a payload may have and one byte, so that the node can say what is wrong.
fn read(source: &mut dyn std::io::Read, name: &str) -> Result<Vec<u8>, Diagnostic> {
    let mut bytes = Vec::new();
    source
        .take(protocol::wire::MAX_VALUE as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Diagnostic::new(Code::Usage, format!("cannot read {name}: {error}")))?;
    if bytes.len() > protocol::wire::MAX_VALUE {
        return Err(Diagnostic::new(
            Code::TooLarge,
            format!("{name} is larger than {} bytes, the most a value or payload may have", protocol::wire::MAX_VALUE),
        )
        .hint("store it elsewhere and pass a reference"));
    }
    Ok(bytes)
}

/// Reads stdin or takes the word itself: what `kv put` shares with `submit`.
pub(super) fn value(given: &str) -> Result<Vec<u8>, Diagnostic> {
    if given == "-" { read(&mut std::io::stdin().lock(), "stdin") } else { Ok(given.as_bytes().to_vec()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_larger_than_allowed_is_refused_before_it_is_sent() {
        let error = read(&mut std::io::repeat(b'x'), "stdin").unwrap_err();
        assert_eq!((error.code, error.code.exit()), (Code::TooLarge, 2));
    }
}
