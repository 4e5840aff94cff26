//! Who says of itself that it is master, and since when.
//!
//! # Invariants
//!
//! * What is noted is what the nodes say themselves, each asked directly: a frozen node that wakes up as the master it was is
//!   seen like any other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::processes::ask;

/// Asks every node all the time, until it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    seen: Arc<Mutex<Seen>>,
    reign: watch::Receiver<Option<Reign>>,
    /// One per node: a frozen one holds up nobody else.
    _askers: JoinSet<()>,
}

/// One term of one master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reign {
    pub(super) epoch: u64,
    /// The master's place among the processes.
    pub(super) place: usize,
    /// The master's id.
    pub(super) node: String,
    /// When it was first seen at work.
    pub(super) since: Instant,
}

#[derive(Debug, Default)]
struct Seen {
    /// Who said of itself that it leads, by epoch.
    leaders: BTreeMap<u64, BTreeSet<usize>>,
}

impl Watch {
    /// Watches these nodes.
    pub(super) fn new(nodes: Vec<SocketAddr>) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (sender, reign) = watch::channel(None);
        let sender = Arc::new(sender);
        let mut askers = JoinSet::new();
        for (place, http) in nodes.into_iter().enumerate() {
            let (seen, sender) = (seen.clone(), sender.clone());
            askers.spawn(async move {
                loop {
                    if let Some(status) = ask(http, "/v1/status").await {
                        note(place, &status, &seen, &sender);
                    }
                    tokio::time::sleep(EVERY).await;
                }
            });
        }
        Self { seen, reign, _askers: askers }
    }

    /// The newest reign with an epoch greater than `epoch`, as soon as there is one.
    pub(super) async fn after(&self, epoch: u64) -> Reign {
        let mut reign = self.reign.clone();
        let newer = |reign: &Option<Reign>| reign.as_ref().is_some_and(|reign| reign.epoch > epoch);
        let reign = reign.wait_for(newer).await.expect("the askers hold the other end, and live as long as this");
        reign.clone().expect("waited for one")
    }

    /// The newest reign.
    pub(super) fn now(&self) -> Option<Reign> {
        self.reign.borrow().clone()
    }

    /// Who said of itself that it leads, by epoch.
    pub(super) fn leaders(&self) -> BTreeMap<u64, BTreeSet<usize>> {
        lock(&self.seen).leaders.clone()
    }
}

fn note(place: usize, status: &Value, seen: &Mutex<Seen>, sender: &watch::Sender<Option<Reign>>) {
    let (Some(epoch), Some("leader")) = (status["epoch"].as_u64(), status["role"].as_str()) else { return };
    lock(seen).leaders.entry(epoch).or_default().insert(place);
    if status["master_is_fresh"] == true {
        sender.send_if_modified(|reign| {
            let is_newer = reign.as_ref().is_none_or(|reign| reign.epoch < epoch);
            if is_newer {
                let node = status["node"].as_str().unwrap_or_default().to_owned();
                *reign = Some(Reign { epoch, place, node, since: Instant::now() });
            }
            is_newer
        });
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().expect("nothing panics while it is held")
}

const EVERY: Duration = Duration::from_millis(40);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(epoch: u64, role: &str, fresh: bool) -> Value {
        json!({ "epoch": epoch, "role": role, "master_is_fresh": fresh, "node": "n" })
    }

    #[test]
    fn two_leaders_of_one_epoch_are_both_noted_and_the_first_stays_master() {
        let (seen, (sender, reign)) = (Mutex::default(), watch::channel(None));
        note(0, &status(1, "leader", true), &seen, &sender);
        note(1, &status(1, "leader", true), &seen, &sender);
        note(2, &status(1, "follower", true), &seen, &sender);
        assert_eq!(lock(&seen).leaders[&1], BTreeSet::from([0, 1]));
        assert_eq!(reign.borrow().as_ref().map(|reign| reign.place), Some(0));
    }

    #[test]
    fn a_master_that_wakes_up_in_an_old_epoch_is_noted_and_not_believed() {
        let (seen, (sender, reign)) = (Mutex::default(), watch::channel(None));
        note(1, &status(2, "leader", true), &seen, &sender);
        note(0, &status(1, "leader", true), &seen, &sender);
        note(2, &status(3, "leader", false), &seen, &sender);
        assert_eq!(lock(&seen).leaders.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(reign.borrow().as_ref().map(|reign| reign.epoch), Some(2));
    }
}
