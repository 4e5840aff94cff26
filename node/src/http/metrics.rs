//! `/metrics`: figures in Prometheus' text form.
//!
//! The node's own figures are always there. Those that the crates below record through the `metrics` facade are there if a
//! recorder is installed: the binary installs one; an application may bring its own and scrape that.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use super::Door;
use crate::site::Presence;

/// Installs the recorder of this process, once; for binaries. Must be called inside a runtime, which then does its upkeep.
pub fn install() {
    let Ok(handle) = PrometheusBuilder::new().install_recorder() else { return };
    if RECORDER.set(handle.clone()).is_ok() {
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(UPKEEP);
            loop {
                tick.tick().await;
                handle.run_upkeep();
            }
        });
    }
}

pub(super) async fn show(State(door): State<Door>) -> Response {
    let mut text = String::new();
    if let Some(status) = door.site.status().await {
        let is_master = status.role == protocol::effects::Role::Leader && status.master_fresh;
        gauge(&mut text, "tenure_epoch", "The epoch this node is in.", status.epoch.0);
        gauge(&mut text, "tenure_is_master", "Whether this node is master.", u64::from(is_master));
        gauge(&mut text, "tenure_has_master", "Whether a master was heard lately.", u64::from(status.master_fresh));
        gauge(&mut text, "tenure_commit_index", "How far the log is committed.", status.commit);
        gauge(&mut text, "tenure_applied_index", "How far the log is applied.", status.applied);
        gauge(&mut text, "tenure_revision", "The newest revision applied.", status.revision);
        gauge(&mut text, "tenure_voters", "How many voters there are.", status.voters.len() as u64);
    }
    let members = door.site.members();
    let _ = writeln!(text, "# HELP tenure_members Nodes by what gossip thinks of them.\n# TYPE tenure_members gauge");
    for presence in [Presence::Alive, Presence::Suspect, Presence::Unreachable, Presence::Left] {
        let count = members.iter().filter(|member| member.presence == presence).count();
        let _ = writeln!(text, "tenure_members{{state=\"{}\"}} {count}", presence.as_str());
    }
    if let Some(recorder) = RECORDER.get() {
        text.push_str(&recorder.render());
    }
    ([("content-type", "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

fn gauge(text: &mut String, name: &str, help: &str, value: u64) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
}

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

const UPKEEP: Duration = Duration::from_secs(5);
