//! `tenure node promote|demote|remove|found` and `tenure master`: who votes, and who leads.
//!
//! A verb waits until its wish is fulfilled, and says what it waits for. When its time runs out the wish stays: the cluster
//! goes on with it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::http::escape;
use super::status::word;
use super::{Code, Diagnostic, Exit, Format, Frame, Request};

/// The verbs under `master`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum MasterVerb {
    /// Print who is master
    Show,
    /// Hand mastership to another voter, and wait until it is master
    Transfer {
        /// The heir's name or number; the best one if nobody is named
        #[arg(id = "heir", value_name = "NODE")]
        to: Option<String>,
    },
}

/// The verbs under `node` that change the cluster.
#[derive(Debug, clap::Subcommand)]
pub(super) enum NodeVerb {
    /// Give a member a vote, in addition to those who have one
    Promote(Whom),
    /// Take a node's vote, and give it to nobody
    Demote(Whom),
    /// Take a node's vote, and give it to another member if there is one
    Remove(Whom),
    /// Found the cluster although some addresses of the join list will not answer
    Found {
        /// These addresses, as they stand in the join list. What they may have promised or accepted is your risk
        #[arg(long, value_delimiter = ',', required = true, value_name = "ADDR,ADDR,…")]
        without: Vec<String>,
    },
}

/// The node that a verb is about.
#[derive(Debug, clap::Args)]
pub(super) struct Whom {
    /// Its name or number
    #[arg(id = "whom", value_name = "NODE")]
    node: String,
}

pub(super) async fn master(verb: MasterVerb, frame: &Frame) -> Result<Exit, Diagnostic> {
    match verb {
        MasterVerb::Show => {
            let status = frame.cluster()?.get("/v1/status").await?;
            if status["master"].is_null() {
                return Err(Diagnostic::new(Code::NoQuorum, "no master is known"));
            }
            print_master(&status, frame);
        }
        MasterVerb::Transfer { to } => {
            let request = Request::post("/v1/master/transfer").json(&json!({ "to": to })).waits(WAIT);
            print_master(&frame.cluster()?.send(request).await?.json()?, frame);
        }
    }
    Ok(Exit::OK)
}

fn print_master(document: &Value, frame: &Frame) {
    let output = &frame.output;
    match output.format() {
        Format::Json | Format::Jsonl => output.json(document.clone()),
        Format::Name => output.line(word(&document["master"])),
        Format::Table | Format::Wide => {
            output.line(format!("{}  epoch {}", word(&document["master_label"]), word(&document["epoch"])));
        }
    }
}

pub(super) async fn node(verb: NodeVerb, frame: &Frame) -> Result<Exit, Diagnostic> {
    match verb {
        NodeVerb::Promote(Whom { node }) => change("promote", &node, frame).await,
        NodeVerb::Demote(Whom { node }) => change("demote", &node, frame).await,
        NodeVerb::Remove(Whom { node }) => change("remove", &node, frame).await,
        NodeVerb::Found { without } => found(&without, frame).await,
    }
}

async fn change(verb: &str, node: &str, frame: &Frame) -> Result<Exit, Diagnostic> {
    let cluster = frame.cluster()?;
    // A wish that is repeated is the same wish.
    let request = Request::post(format!("/v1/nodes/{}/{verb}", escape(node))).repeatable();
    let mut roster = cluster.send(request).await?.json()?;
    let number = word(&roster["node"]);
    let wants_vote = verb == "promote";
    let begin = Instant::now();
    let patience = frame.timeout.unwrap_or(PATIENCE);
    let mut told = String::new();
    loop {
        let has = |list: &str| {
            roster[list].as_array().is_some_and(|nodes| nodes.iter().any(|row| row["node"] == number.as_str()))
        };
        if if wants_vote { has("voters") } else { !has("voters") && !has("learners") } {
            break;
        }
        let waits = roster["waits_for"].as_str().map_or("the next step".to_owned(), str::to_owned);
        if begin.elapsed() >= patience {
            return Err(Diagnostic::new(Code::Timeout, format!("not done within {patience:?}: it waits for {waits}"))
                .hint("the wish stays and the cluster goes on with it; the opposite verb takes it back"));
        }
        if told != waits {
            frame.output.note(format!("waits for {waits}"));
            told = waits;
        }
        tokio::time::sleep(POLL).await;
        // While mastership moves, nobody answers for a moment.
        match cluster.get("/v1/roster").await {
            Ok(document) => roster = document,
            Err(error) if error.is_retryable() => {}
            Err(error) => return Err(error),
        }
    }
    let output = &frame.output;
    match output.format() {
        Format::Json | Format::Jsonl => output.json(roster),
        Format::Name => output.line(&number),
        Format::Table | Format::Wide => {
            let names = |list: &str| -> String {
                let rows = roster[list].as_array().map(Vec::as_slice).unwrap_or_default();
                rows.iter().map(|row| word(&row["label"])).collect::<Vec<_>>().join(", ")
            };
            output.line(format!("voters: {}", names("voters")));
        }
    }
    Ok(Exit::OK)
}

async fn found(without: &[String], frame: &Frame) -> Result<Exit, Diagnostic> {
    let cluster = frame.cluster()?;
    cluster.send(Request::post("/v1/found").json(&json!({ "without": without })).repeatable()).await?;
    let begin = Instant::now();
    let patience = frame.timeout.unwrap_or(PATIENCE);
    loop {
        let status = cluster.get("/v1/status").await?;
        if status["cluster_id"].as_str().is_some_and(|id| id.bytes().any(|digit| digit != b'0')) {
            frame.output.line(word(&status["cluster_id"]));
            return Ok(Exit::OK);
        }
        if begin.elapsed() >= patience {
            let late = Diagnostic::new(Code::Timeout, format!("not founded within {patience:?}"));
            let waits = &status["waits_for"];
            return Err(match (waits["why"].as_str(), waits["hint"].as_str()) {
                (Some(why), Some(hint)) => late.cause(why).hint(hint),
                _ => late.hint("the first address that is left founds: ask that node, and look into its log"),
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// How long a verb waits for its wish unless `--timeout` says otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the answer to a hand-over may take by its nature.
const WAIT: Duration = Duration::from_secs(5);

const POLL: Duration = Duration::from_millis(100);
