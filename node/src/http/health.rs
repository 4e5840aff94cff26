//! `/livez`: do the loops tick? `/readyz`: is it worth asking this node?

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use protocol::ClusterId;

use super::Door;
use crate::site::Presence;
use crate::waiting;

/// One line of a check.
struct Check {
    name: &'static str,
    /// What is wrong.
    failure: Option<String>,
}

pub(super) async fn livez(State(door): State<Door>, RawQuery(query): RawQuery) -> Response {
    let answers = door.site.status().await.is_some();
    let control = Check { name: "control", failure: (!answers).then(|| "the control plane does not answer".into()) };
    render(&[control], query.as_deref())
}

pub(super) async fn readyz(State(door): State<Door>, RawQuery(query): RawQuery) -> Response {
    let mut checks = Vec::new();
    let mut check = |name, is_good: bool, why: &str| {
        checks.push(Check { name, failure: (!is_good).then(|| why.to_owned()) });
    };
    check("staying", !door.site.is_leaving(), "this node is shutting down");
    match door.site.status().await {
        None => check("control", false, "the control plane does not answer"),
        Some(status) => {
            check("control", true, "");
            let is_joined = status.cluster != ClusterId::NONE;
            let waits = status.waits_for.as_ref().map(|wait| waiting::in_words(wait).message);
            check("joined", is_joined, waits.as_deref().unwrap_or("not in a cluster yet"));
            let why = match (status.leader, &waits) {
                (Some(_), _) => "the master was not heard lately",
                (None, Some(why)) if is_joined => why,
                (None, _) => "no master is known",
            };
            check("master", status.leader.is_some() && status.master_fresh, why);
            // A follower that hears a fresh master knows that the master hears a quorum; whether their disks take what it writes, only
            // the master knows, which counts itself.
            let heard = status.heard.len();
            let need = status.voters.len() / 2 + 1;
            let is_leader = status.role == protocol::effects::Role::Leader;
            let has_quorum = if is_leader { heard >= need } else { status.master_fresh };
            check(
                "quorum",
                has_quorum,
                &format!("{heard} of {} voters answer and keep up; need {need}", status.voters.len()),
            );
        }
    }
    let sees_itself = door
        .site
        .members()
        .iter()
        .any(|member| member.node == door.site.identity().node && member.presence == Presence::Alive);
    check("gossip", sees_itself, "membership has stopped");
    render(&checks, query.as_deref())
}

fn render(checks: &[Check], query: Option<&str>) -> Response {
    let is_good = checks.iter().all(|check| check.failure.is_none());
    let status = if is_good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let is_verbose = query.is_some_and(|query| query.split('&').any(|word| word.starts_with("verbose")));
    let mut text = String::new();
    for check in checks {
        match &check.failure {
            None if is_verbose => text.push_str(&format!("[+]{} ok\n", check.name)),
            Some(why) => text.push_str(&format!("[-]{} failed: {why}\n", check.name)),
            None => {}
        }
    }
    if is_good && !is_verbose {
        text.push_str("ok\n");
    }
    (status, text).into_response()
}
