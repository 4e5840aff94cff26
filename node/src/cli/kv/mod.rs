//! `tenure kv`: read and write keys.

mod many;

use axum::http::Method;
use serde_json::json;

use super::http::escape;
use super::{Code, Diagnostic, Exit, Format, Frame, Request, submit};

/// The verbs under `kv`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Print a key's value as it is
    Get {
        /// The key
        key: String,
        /// What this node has applied so far, without asking the master
        #[arg(long)]
        stale: bool,
    },
    /// Set a key, and print its revision (a bare number where stdout is no terminal)
    #[command(alias = "set")]
    Put {
        /// The key
        key: String,
        /// The value; `-` for stdin
        value: String,
        /// Only if the key is at this revision
        #[arg(long, value_name = "REVISION", conflicts_with = "if_absent")]
        if_version: Option<u64>,
        /// Only if there is no such key
        #[arg(long)]
        if_absent: bool,
        /// The key goes with this session
        #[arg(long, value_name = "SESSION")]
        session: Option<String>,
        /// The key goes after this long, such as 30s
        #[arg(long, value_name = "SPAN")]
        ttl: Option<String>,
        /// Add the revision to the key, and print the key
        #[arg(long, conflicts_with_all = ["if_version", "if_absent"])]
        seq: bool,
    },
    /// Remove a key
    #[command(visible_alias = "rm", aliases = ["delete", "remove"])]
    Del {
        /// The key
        key: String,
        /// Only if the key is at this revision
        #[arg(long, value_name = "REVISION")]
        if_version: Option<u64>,
    },
    /// Set a key if it is at a revision (0: if there is none), and print the new one
    Cas {
        /// The key
        key: String,
        /// The revision it must be at
        revision: u64,
        /// The value; `-` for stdin
        value: String,
    },
    /// List keys
    #[command(alias = "list")]
    Ls(many::Ls),
    /// Print what happens to keys, as it happens
    Watch(many::Watch),
    /// Read and write several keys in one step; exits with 6 if the conditions did not hold
    Txn {
        /// A file with JSON, `-` for stdin: {"when": [{"key": "a", "revision": 7}], "then": [{"put": "a", "value": "1"}], "or_else": []}
        file: String,
    },
}

pub(super) async fn run(verb: Verb, frame: &Frame) -> Result<Exit, Diagnostic> {
    match verb {
        Verb::Get { key, stale } => get(&key, stale, frame).await,
        Verb::Put { key, value, if_version, if_absent, session, ttl, seq } => {
            let expect = if if_absent { Expect::Revision(0) } else { if_version.map_or(Expect::Any, Expect::Revision) };
            let words =
                [session.map(|it| format!("session={}", escape(&it))), ttl.map(|it| format!("ttl={}", escape(&it)))];
            let words: Vec<String> = words.into_iter().flatten().chain(seq.then(|| "seq".into())).collect();
            let request = Request::new(Method::PUT, format!("{}?{}", path(&key), words.join("&")));
            write(&key, expect, request.bytes(submit::value(&value)?), frame).await
        }
        Verb::Ls(args) => many::list(args, frame).await,
        Verb::Watch(args) => many::watch(args, frame).await,
        Verb::Txn { file } => many::transact(&file, frame).await,
        Verb::Cas { key, revision, value } => {
            let request = Request::new(Method::PUT, path(&key)).bytes(submit::value(&value)?);
            write(&key, Expect::Revision(revision), request, frame).await
        }
        Verb::Del { key, if_version } => {
            let expect = if_version.map_or(Expect::Any, Expect::Revision);
            write(&key, expect, Request::new(Method::DELETE, path(&key)), frame).await
        }
    }
}

#[derive(Clone, Copy)]
enum Expect {
    Any,
    /// Zero: nothing is there.
    Revision(u64),
}

async fn get(key: &str, stale: bool, frame: &Frame) -> Result<Exit, Diagnostic> {
    let query = if stale { "?stale=true" } else { "" };
    let reply = frame.cluster()?.send(Request::get(format!("{}{query}", path(key)))).await?;
    match frame.output.format() {
        Format::Json | Format::Jsonl => {
            let revision: Option<u64> = reply.header("x-revision").and_then(|text| text.parse().ok());
            let mut document = json!({ "key": key, "revision": revision });
            crate::http::encoded(&mut document, "value", &reply.body);
            frame.output.json(document);
        }
        Format::Name => frame.output.line(key),
        Format::Table | Format::Wide => {
            frame.output.bytes(&reply.body);
            // Pipes get the value and nothing else.
            if frame.output.has_terminal() && !reply.body.ends_with(b"\n") {
                frame.output.bytes(b"\n");
            }
        }
    }
    Ok(Exit::OK)
}

async fn write(key: &str, expect: Expect, request: Request, frame: &Frame) -> Result<Exit, Diagnostic> {
    if key.is_empty() {
        return Err(Diagnostic::new(Code::Usage, "a key has at least one character"));
    }
    let request = match expect {
        Expect::Any => request,
        Expect::Revision(0) => request.header("if-none-match", "*"),
        Expect::Revision(revision) => request.header("if-match", &revision.to_string()),
    };
    let answer = frame.cluster()?.send(request).await?.json()?;
    match frame.output.format() {
        Format::Json | Format::Jsonl => frame.output.json(answer),
        Format::Name => frame.output.line(super::status::word(&answer["key"])),
        Format::Table | Format::Wide if answer["key"] != key => frame.output.line(super::status::word(&answer["key"])),
        Format::Table | Format::Wide => frame.output.revision(&answer["revision"]),
    }
    Ok(Exit::OK)
}

fn path(key: &str) -> String {
    format!("/v1/kv/{}", escape(key))
}
