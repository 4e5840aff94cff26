//! `tenure session`: who owns things in the cluster.

use axum::http::Method;
use serde_json::{Value, json};

use super::http::escape;
use super::rights::Under;
use super::status::word;
use super::under::supervise;
use super::{Diagnostic, Exit, Format, Frame, Request, pages};
use crate::http::SCHEMA;

/// The verbs under `session`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// The sessions of clients, oldest first: those of kind `requests` number what a node or a program asks for, so that it is done once;
    /// keys and rights belong to those of kind `owner`
    #[command(alias = "list")]
    Ls {
        /// Only those after this one
        #[arg(long, value_name = "SESSION")]
        after: Option<String>,
        /// At most this many
        #[arg(long, default_value_t = u32::MAX)]
        limit: u32,
    },
    /// Run a command with a session of its own, which it reads from TENURE_SESSION and which ends with it
    Open {
        /// What is shown of it
        #[arg(long, default_value = "session open")]
        label: String,
        #[command(flatten)]
        under: Under,
    },
    /// End a session, and with it everything that it owns
    #[command(aliases = ["end", "rm"])]
    Kill {
        /// The session, such as s42
        session: String,
    },
}

pub(super) async fn run(verb: Verb, frame: &Frame) -> Result<Exit, Diagnostic> {
    match verb {
        Verb::Ls { after, limit } => list(after, limit, frame).await,
        Verb::Open { label, under } => open(&label, &under, frame).await,
        Verb::Kill { session } => {
            let request = Request::new(Method::DELETE, format!("/v1/sessions/{}", escape(&session)));
            let answer = frame.cluster()?.send(request).await?.json()?;
            match frame.output.format() {
                Format::Json | Format::Jsonl => frame.output.json(answer),
                Format::Name => frame.output.line(session),
                Format::Table | Format::Wide => frame.output.line(format!("{session} has ended")),
            }
            Ok(Exit::OK)
        }
    }
}

async fn open(label: &str, under: &Under, frame: &Frame) -> Result<Exit, Diagnostic> {
    let (mut keeper, grace) = under.open(&frame.cluster()?, label).await?;
    let environment = [("TENURE_SESSION", Some(keeper.session().into()))];
    let result = supervise(&mut keeper, None, &under.command, &environment, grace).await;
    keeper.close().await;
    result
}

async fn list(after: Option<String>, limit: u32, frame: &Frame) -> Result<Exit, Diagnostic> {
    let list = pages::List { path: "/v1/sessions?", rows: "sessions", name: "session" };
    let sessions = pages::rows(&frame.cluster()?, list, after, limit).await?;
    let output = &frame.output;
    match output.format() {
        Format::Json => output.json(json!({ "schema": SCHEMA, "sessions": sessions })),
        Format::Jsonl => sessions.into_iter().for_each(|session| output.json(session)),
        Format::Name => sessions.iter().for_each(|session| output.line(word(&session["session"]))),
        Format::Table | Format::Wide => {
            let rows: Vec<Vec<String>> = sessions.iter().map(row).collect();
            output.table(&["SESSION", "KIND", "LABEL", "TTL", "LEFT", "KEYS", "CLAIMS", "HOST"], &rows);
        }
    }
    Ok(Exit::OK)
}

fn row(session: &Value) -> Vec<String> {
    let seconds = |name: &str| format!("{:.1} s", session[name].as_f64().unwrap_or_default() / 1000.0);
    vec![
        word(&session["session"]),
        word(&session["kind"]),
        word(&session["label"]),
        seconds("ttl_ms"),
        seconds("left_ms"),
        word(&session["keys"]),
        word(&session["claims"]),
        word(&session["host_label"]),
    ]
}
