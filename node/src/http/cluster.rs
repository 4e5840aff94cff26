//! `/v1/status` and `/v1/members`.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse as _;
use futures_util::StreamExt as _;
use protocol::effects::Part;
use protocol::state::{Answer as StateAnswer, NodeView, Query, Summary};
use protocol::{ClusterId, NodeId, replica};
use serde_json::{Value, json};

use super::Door;
use super::json::SCHEMA;
use super::problem::Answer;
use super::query;
use super::streams::named;
use crate::client::Client;
use crate::diagnostic::{Code, Diagnostic};
use crate::nodes::NodeEvent;
use crate::site::{Identity, Member};

pub(super) async fn status(State(door): State<Door>) -> Answer {
    let identity = door.site.identity();
    let status = door.site.status().await.ok_or_else(not_running)?;
    let members = door.site.members();
    let master = status.leader.map(|node| Identity::name_of(&members, node));
    let nodes = |list: &[NodeId]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (voters, learners) = conf(&door, &status).await;
    let is_led = status.leader.is_some() && status.master_fresh && status.waits_for.is_none();
    let mut document = json!({
        "schema": SCHEMA,
        "cluster": identity.cluster,
        "cluster_id": status.cluster.to_string(),
        "node": identity.node.to_string(),
        "label": identity.name,
        "incarnation": identity.incarnation.0,
        "role": role(status.role),
        "epoch": status.epoch.0,
        "master": status.leader.map(|node| node.to_string()),
        "master_label": master,
        "master_is_fresh": status.master_fresh,
        "lease_ms": status.lease_ms,
        "commit": status.commit,
        "applied": status.applied,
        "revision": status.revision,
        "state_hash": format!("{:016x}", status.state_hash),
        "part": part_word(status.part),
        "voters": nodes(&voters),
        "learners": nodes(&learners),
        "heard": nodes(&status.heard),
        "log_base": status.log_base,
        "snapshot": status.snapshot,
        "fetching": status.fetching.map(fetching),
        "waits_for": (!is_led).then(|| waits_for(&door.unled(&status, "no master is heard at this moment"))),
    });
    document["tasks"] = summary(&door).await.map_or(Value::Null, |summary| counts(&summary));
    Ok(Json(document).into_response())
}

/// Who is master, as this node knows it: an answer of one moment, and no question to anybody.
pub(super) async fn master(State(door): State<Door>) -> Answer {
    let status = door.site.status().await.ok_or_else(not_running)?;
    let members = door.site.members();
    let Some(master) = status.leader else {
        return Err(Diagnostic::new(Code::NoQuorum, "no master is known").hint("an election takes a moment; try again"));
    };
    let member = members.iter().find(|member| member.node == master);
    let document = json!({
        "schema": SCHEMA,
        "master": master.to_string(),
        "master_label": Identity::name_of(&members, master),
        "master_is_fresh": status.master_fresh,
        "epoch": status.epoch.0,
        "http": member.and_then(|member| member.http.clone()),
    });
    Ok(Json(document).into_response())
}

/// Who votes and who listens; a node that holds no log asks the master.
async fn conf(door: &Door, status: &replica::Status) -> (Vec<NodeId>, Vec<NodeId>) {
    if status.part != Part::Outside || status.cluster == ClusterId::NONE {
        return (status.voters.clone(), status.learners.clone());
    }
    match door.site.client().timeout(PATIENCE).read(Query::Roster).await {
        Ok(StateAnswer::Roster(view)) => {
            (view.roster.voters.into_iter().collect(), view.roster.learners.into_iter().collect())
        }
        _ => (Vec::new(), Vec::new()),
    }
}

/// How far the image is that a node fetches.
fn fetching(image: replica::Fetching) -> Value {
    json!({ "from": image.from.to_string(), "last": image.last, "staged": image.staged, "count": image.count })
}

/// What a node waits for that knows no master at work.
fn waits_for(wait: &Diagnostic) -> Value {
    json!({ "why": wait.message, "causes": wait.causes, "hint": wait.hint })
}

/// What a node is to the log, in a word.
fn part_word(part: Part) -> &'static str {
    match part {
        Part::Voter => "voter",
        Part::Learner => "learner",
        Part::Outside => "member",
    }
}

/// Counts as this node has applied them: no question to the master, so that status answers without a quorum too.
async fn summary(door: &Door) -> Option<Summary> {
    let client = door.site.client().timeout(PATIENCE);
    match client.read_stale(Query::Summary).await {
        Ok(StateAnswer::Summary(summary)) => Some(summary),
        _ => None,
    }
}

fn counts(summary: &Summary) -> Value {
    json!({
        "pending": summary.pending,
        "assigned": summary.assigned,
        "done": summary.done,
        "failed": summary.failed,
        "results_recorded": summary.results_recorded,
        "results_refused": summary.results_refused,
        "attempts": summary.attempts,
        "keys": summary.keys,
        "rights": summary.rights,
        "sessions": summary.sessions,
        "revision": summary.revision.0,
        "state_hash": format!("{:016x}", summary.hash),
        "time_ms": summary.time.0,
    })
}

pub(super) async fn members(State(door): State<Door>, RawQuery(asked): RawQuery, headers: HeaderMap) -> Answer {
    if query::Query::parse(asked.as_deref(), &["watch"])?.flag("watch") {
        return watch_members(&door, door.client(&headers));
    }
    let status = door.site.status().await.ok_or_else(not_running)?;
    // The sessions are a detail here: without a quorum they are left out and gossip's view still answers.
    let client = door.site.client().timeout(PATIENCE);
    let sessions = match client.read_stale(Query::Nodes).await {
        Ok(StateAnswer::Nodes(nodes)) => nodes,
        _ => Vec::new(),
    };
    let mut sessions: BTreeMap<NodeId, NodeView> = sessions.into_iter().map(|view| (view.node, view)).collect();
    let mut list: Vec<Value> = Vec::new();
    for member in door.site.members() {
        let session = sessions.remove(&member.node);
        list.push(document(&member, session.as_ref(), &status));
    }
    // Nodes that gossip does not see, but whose session still lives.
    for (node, view) in sessions {
        list.push(unseen(node, &view, &status));
    }
    list.sort_by_key(|member| {
        (member["label"].as_str().map(str::to_owned), member["node"].as_str().map(str::to_owned))
    });
    Ok(Json(json!({ "schema": SCHEMA, "epoch": status.epoch.0, "members": list })).into_response())
}

/// Which nodes take part, by the log, as events.
fn watch_members(door: &Door, client: Client) -> Answer {
    let place = door.streams.take()?;
    Ok(place.respond(client.members().map(|event| match event {
        Ok(NodeEvent::Snapshot(all)) => {
            let members: Vec<Value> = all.iter().map(of_session).collect();
            named("snapshot", &json!({ "schema": SCHEMA, "members": members }))
        }
        Ok(NodeEvent::Up(view)) => named("up", &of_session(&view)),
        Ok(NodeEvent::Changed(view)) => named("changed", &of_session(&view)),
        Ok(NodeEvent::Down(view)) => named("down", &of_session(&view)),
        Err(error) => named("problem", &Diagnostic::from(error).to_problem()),
    })))
}

fn document(member: &Member, session: Option<&NodeView>, status: &replica::Status) -> Value {
    let mut document = session.map_or_else(|| json!({ "session": null, "kinds": [] }), of_session);
    document["node"] = member.node.to_string().into();
    document["label"] = member.name.clone().into();
    document["incarnation"] = member.incarnation.0.into();
    document["role"] = part(member.node, Some(member.part), status).into();
    document["state"] = member.presence.as_str().into();
    document["link"] = member.link.to_string().into();
    document["http"] = member.http.clone().into();
    document["rtt_ms"] = member.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0).into();
    document
}

fn unseen(node: NodeId, view: &NodeView, status: &replica::Status) -> Value {
    let mut document = of_session(view);
    document["role"] = part(node, None, status).into();
    document["state"] = "unreachable".into();
    document
}

fn of_session(view: &NodeView) -> Value {
    json!({
        "node": view.node.to_string(),
        "label": view.offer.label,
        "incarnation": view.incarnation.0,
        "session": view.session.to_string(),
        "slots": view.offer.slots,
        "assigned": view.assigned,
        "kinds": view.offer.kinds,
        "labels": view.offer.labels,
    })
}

/// What a node is in the cluster.
fn part(node: NodeId, said: Option<Part>, status: &replica::Status) -> &'static str {
    if status.leader == Some(node) && status.master_fresh {
        "master"
    } else if status.voters.contains(&node) {
        "voter"
    } else if status.learners.contains(&node) {
        "learner"
    } else {
        // Whoever holds no log knows of the voters only what they say of themselves.
        match said.filter(|_| status.part == Part::Outside) {
            Some(Part::Voter) => "voter",
            Some(Part::Learner) => "learner",
            _ => "member",
        }
    }
}

fn role(role: protocol::effects::Role) -> &'static str {
    match role {
        protocol::effects::Role::Follower => "follower",
        protocol::effects::Role::PreCandidate => "pre-candidate",
        protocol::effects::Role::Candidate => "candidate",
        protocol::effects::Role::Leader => "leader",
        protocol::effects::Role::Halted => "halted",
    }
}

pub(super) fn not_running() -> Diagnostic {
    Diagnostic::new(Code::NoQuorum, "this node is stopping, or its control plane does not answer")
        .hint("ask another node")
}

/// How long a detail may take.
const PATIENCE: Duration = Duration::from_millis(500);
