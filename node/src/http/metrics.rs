//! `/metrics`: figures in Prometheus' text form.
//!
//! The node's own figures are always there. Those that the crates below record through the `metrics` facade are there if a
//! recorder is installed: the binary installs one; an application may bring its own and scrape that.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::Door;
use crate::site::Presence;

/// Installs the recorder of this process, once; for binaries. Must be called inside a runtime, which then does its upkeep.
pub fn install() {
    // Without buckets a histogram would be shown as quantiles, which cannot be added up over nodes.
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
        .expect("there are buckets");
    let Ok(handle) = builder.install_recorder() else { return };
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
    let recorded = RECORDER.get().map(PrometheusHandle::render).unwrap_or_default();
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, value: u64| {
        // The crates below may record a figure of the same name: a family must not stand in the text twice.
        if !recorded.contains(&format!("# TYPE {name} ")) {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
        }
    };
    if let Some(status) = door.site.status().await {
        let is_master = status.role == protocol::effects::Role::Leader && status.master_fresh;
        gauge("tenure_epoch", "The epoch this node is in.", status.epoch.0);
        gauge("tenure_is_master", "Whether this node is master.", u64::from(is_master));
        gauge("tenure_has_master", "Whether a master was heard lately.", u64::from(status.master_fresh));
        gauge("tenure_commit_index", "How far the log is committed.", status.commit);
        gauge("tenure_applied_index", "How far the log is applied.", status.applied);
        gauge("tenure_log_base", "Up to which entry the log is forgotten.", status.log_base);
        gauge("tenure_snapshot_index", "The last entry in the snapshot of this node.", status.snapshot);
        gauge("tenure_revision", "The newest revision applied.", status.revision);
        gauge("tenure_voters", "How many voters there are.", status.voters.len() as u64);
    }
    let members = door.site.members();
    let _ = writeln!(text, "# HELP tenure_members Nodes by what gossip thinks of them.\n# TYPE tenure_members gauge");
    for presence in [Presence::Alive, Presence::Suspect, Presence::Unreachable, Presence::Left] {
        let count = members.iter().filter(|member| member.presence == presence).count();
        let _ = writeln!(text, "tenure_members{{state=\"{}\"}} {count}", presence.as_str());
    }
    text.push_str(&recorded);
    ([("content-type", "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

const UPKEEP: Duration = Duration::from_secs(5);

/// From a good sync to a hopeless wait.
const SECONDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];
