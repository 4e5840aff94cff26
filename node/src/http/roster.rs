//! `/v1/roster`, the verbs on nodes, and the hand-over of mastership.
//!
//! A verb on a node records a wish and answers at once; `GET /v1/roster` shows how far it is. What can be seen to be a
//! mistake is refused before it is recorded: an unknown node, the only voter, a cluster that would have no majority.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use protocol::NodeId;
use protocol::founding::Wait;
use protocol::state::{Answer as StateAnswer, MAX_VOTERS, NodeView, Operation, Query, RosterChange, RosterView};
use serde::Deserialize;
use serde_json::{Value, json};

use super::cluster::not_running;
use super::json::SCHEMA;
use super::problem::Answer;
use super::{Door, tasks};
use crate::client::unexpected;
use crate::diagnostic::{Code, Diagnostic};
use crate::site::{Identity, Member};
use crate::waiting;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Heir {
    /// A node's name or number; the best heir if nobody is named.
    #[serde(default)]
    to: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Without {
    /// Addresses of the join list.
    without: Vec<String>,
}

pub(super) async fn show(State(door): State<Door>, headers: HeaderMap) -> Answer {
    let view = door.roster(&headers).await?;
    Ok(Json(document(&view, &door.site.members())).into_response())
}

pub(super) async fn change(
    State(door): State<Door>,
    Path((node, verb)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let node = door.find(&node, &headers).await?;
    let change = match verb.as_str() {
        "promote" => RosterChange::Promote(node),
        "demote" => RosterChange::Demote(node),
        "remove" => RosterChange::Remove(node),
        other => return Err(Diagnostic::new(Code::NotFound, format!("no verb `{}`", other.escape_debug()))),
    };
    check(&door.roster(&headers).await?, change, &door.site.members())?;
    match door.answer(door.client(&headers).write(Operation::Roster(change))).await? {
        StateAnswer::Ok => {}
        other => return Err(unexpected(&other).into()),
    }
    let view = door.roster(&headers).await?;
    let mut document = document(&view, &door.site.members());
    document["node"] = node.to_string().into();
    Ok(Json(document).into_response())
}

pub(super) async fn transfer(
    State(door): State<Door>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let heir = match body {
        Ok(body) if body.is_empty() => Heir::default(),
        body => tasks::parsed(body)?,
    };
    let to = match &heir.to {
        Some(name) => Some(door.find(name, &headers).await?),
        None => None,
    };
    let begin = Instant::now();
    let before = door.site.status().await.ok_or_else(not_running)?;
    let client = door.client(&headers);
    match door.answer(client.hand_over(to, before.epoch)).await? {
        StateAnswer::Ok => {}
        other => return Err(unexpected(&other).into()),
    }
    while begin.elapsed() < TRANSFER_MAX {
        let now = door.site.status().await.ok_or_else(not_running)?;
        let is_done = now.leader.is_some() && now.master_fresh && (now.epoch > before.epoch || now.leader == to);
        if is_done {
            let name = now.leader.map(|node| Identity::name_of(&door.site.members(), node));
            return Ok(Json(json!({
                "schema": SCHEMA,
                "master": now.leader.map(|node| node.to_string()),
                "master_label": name,
                "epoch": now.epoch.0,
                "from": before.leader.map(|node| node.to_string()),
            }))
            .into_response());
        }
        tokio::time::sleep(POLL).await;
    }
    Err(Diagnostic::new(Code::Deadline, "mastership was not handed over: the heir did not catch up or did not answer")
        .hint("name another node, or try again"))
}

/// An operator founds without addresses that cannot answer; only the node that waits to found heeds it.
pub(super) async fn found(State(door): State<Door>, body: Result<Bytes, BytesRejection>) -> Answer {
    let Without { without } = tasks::parsed(body)?;
    let status = door.site.status().await.ok_or_else(not_running)?;
    if let Some(wait @ (Wait::Master | Wait::Majority { .. })) = &status.waits_for {
        let why = waiting::in_words(wait);
        let message = format!("nothing can be founded here: {}", why.message);
        return Err(Diagnostic { code: Code::Conflict, message, ..why });
    }
    door.site.found_without(&without)?;
    Ok(Json(json!({ "schema": SCHEMA, "without": without })).into_response())
}

impl Door {
    async fn roster(&self, headers: &HeaderMap) -> Result<RosterView, Diagnostic> {
        match self.answer(self.client(headers).read(Query::Roster)).await? {
            StateAnswer::Roster(view) => Ok(*view),
            other => Err(unexpected(&other).into()),
        }
    }

    /// The node of this name or number. Gossip, sessions and the roster are asked: a dead node has a name too.
    async fn find(&self, text: &str, headers: &HeaderMap) -> Result<NodeId, Diagnostic> {
        let mut known: Vec<(NodeId, String)> =
            self.site.members().into_iter().map(|member| (member.node, member.name)).collect();
        if let StateAnswer::Nodes(sessions) = self.answer(self.client(headers).read(Query::Nodes)).await? {
            known.extend(sessions.into_iter().map(|NodeView { node, offer, .. }| (node, offer.label)));
        }
        let roster = self.roster(headers).await?.roster;
        known.extend(roster.voters.iter().chain(&roster.learners).map(|&node| (node, String::new())));
        let is_meant = |(node, name): &&(NodeId, String)| {
            let number = node.to_string();
            name == text || number == text || (text.len() >= PREFIX_MIN && number.starts_with(text))
        };
        let found: BTreeSet<NodeId> = known.iter().filter(is_meant).map(|(node, _)| *node).collect();
        let list = |nodes: &mut dyn Iterator<Item = String>| nodes.collect::<Vec<_>>().join(", ");
        match found.len() {
            1 => Ok(*found.first().expect("there is one")),
            0 => {
                let names: BTreeSet<String> =
                    known.into_iter().map(|(_, name)| name).filter(|name| !name.is_empty()).collect();
                Err(Diagnostic::new(Code::NotFound, format!("no node `{}`", text.escape_debug()))
                    .hint(format!("there are: {}", list(&mut names.into_iter()))))
            }
            _ => Err(Diagnostic::new(
                Code::Usage,
                format!("`{}` may be {}", text.escape_debug(), list(&mut found.iter().map(ToString::to_string))),
            )
            .hint("write more of its number")),
        }
    }
}

/// Refuses what can be seen to be a mistake.
fn check(view: &RosterView, change: RosterChange, members: &[Member]) -> Result<(), Diagnostic> {
    let roster = &view.roster;
    let name = |node: NodeId| Identity::name_of(members, node);
    match change {
        RosterChange::Promote(node) => {
            let mut wished = roster.wished();
            wished.insert(node);
            if wished.len() > MAX_VOTERS {
                return Err(Diagnostic::new(
                    Code::Conflict,
                    format!("there are {MAX_VOTERS} voters, and no more are allowed"),
                )
                .hint("demote another node first"));
            }
            Ok(())
        }
        RosterChange::Demote(node) | RosterChange::Remove(node) => {
            if !roster.voters.contains(&node) {
                return Ok(());
            }
            let staying: BTreeSet<NodeId> =
                roster.voters.difference(&roster.excluded).filter(|other| **other != node).copied().collect();
            if staying.is_empty() {
                return Err(Diagnostic::new(Code::Conflict, format!("{} is the only voter", name(node)))
                    .hint("promote another node first"));
            }
            let here: BTreeSet<NodeId> = view.seats.iter().filter(|seat| seat.is_here).map(|seat| seat.node).collect();
            let alive = staying.intersection(&here).count();
            if alive > staying.len() / 2 {
                return Ok(());
            }
            let gone =
                staying.difference(&here).map(|&node| format!("{}  does not answer, or its disk does not", name(node)));
            let diagnostic = Diagnostic::new(
                Code::Conflict,
                format!(
                    "without {} the cluster would lose the quorum: {alive} of {} other voters answer",
                    name(node),
                    staying.len()
                ),
            )
            .hint("bring the others back first, or promote another node");
            Err(gone.fold(diagnostic, Diagnostic::cause))
        }
    }
}

fn document(view: &RosterView, members: &[Member]) -> Value {
    let roster = &view.roster;
    let nodes = |nodes: &BTreeSet<NodeId>| -> Vec<Value> {
        let row = |&node: &NodeId| {
            let seat = view.seats.iter().find(|seat| seat.node == node);
            json!({
                "node": node.to_string(),
                "label": Identity::name_of(members, node),
                "is_here": seat.map(|seat| seat.is_here),
                "is_caught_up": seat.map(|seat| seat.is_caught_up),
            })
        };
        nodes.iter().map(row).collect()
    };
    // People know nodes by their names.
    let named = |text: &String| {
        members.iter().fold(text.clone(), |text, member| text.replace(&member.node.to_string(), &member.name))
    };
    json!({
        "schema": SCHEMA,
        "target": roster.target,
        "voters": nodes(&roster.voters),
        "learners": nodes(&roster.learners),
        "excluded": nodes(&roster.excluded),
        "preferred": nodes(&roster.preferred),
        "waits_for": view.waits_for.as_ref().map(named),
    })
}

/// A hand-over takes an election timeout at most, or it is given up.
const TRANSFER_MAX: Duration = Duration::from_secs(5);

const POLL: Duration = Duration::from_millis(5);

/// Fewer digits of a number than these name nobody.
const PREFIX_MIN: usize = 4;
