//! Whether anybody can run a kind of task.
//!
//! The cluster accepts every kind: its worker may start later. For a person or program that submits over HTTP, a kind that
//! no live node has a handler for is nearly always a typing error, so it is refused here unless the request says `"queue":
//! true`.
//!
//! # Invariants
//!
//! * A kind that some node was seen to offer is not asked about again: the check costs nothing in the common case.
//! * If the question cannot be answered, the task is accepted: the check is a courtesy, not a right.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use protocol::state::{Answer, Query};

use crate::diagnostic::{Code, Diagnostic};
use crate::error::Error;
use crate::site::Site;

/// The kinds that were seen.
#[derive(Default)]
pub(super) struct Known(Mutex<BTreeSet<String>>);

impl Known {
    /// Refuses a kind that no live node runs.
    pub(super) async fn check(&self, site: &dyn Site, kind: &str) -> Result<(), Diagnostic> {
        if site.identity().kinds.contains(kind) || self.lock().contains(kind) {
            return Ok(());
        }
        // What this node has applied answers nearly always, and at once; only a kind that is missing there is worth the way
        // to the master.
        let client = site.client().timeout(PATIENCE);
        let mut live = kinds(client.read_stale(Query::Nodes).await);
        if !live.contains(kind) {
            match client.read(Query::Nodes).await {
                Ok(answer) => live = kinds(Ok(answer)),
                Err(_) => return Ok(()),
            }
        }
        live.extend(site.identity().kinds.iter().cloned());
        let is_known = live.contains(kind);
        let list = live.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
        let mut known = self.lock();
        *known = live;
        if is_known {
            return Ok(());
        }
        let diagnostic = Diagnostic::new(
            Code::UnknownKind,
            format!("no live node has a handler for kind `{}`; known: {list}", kind.escape_debug()),
        );
        Err(match kind {
            crate::builtin::exec::KIND => diagnostic.hint("start a node with --allow-exec"),
            _ => diagnostic
                .hint("start a node that has a handler for it, or accept the wait with `--queue` (`\"queue\": true`)"),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn kinds(answer: Result<Answer, Error>) -> BTreeSet<String> {
    match answer {
        Ok(Answer::Nodes(nodes)) => nodes.into_iter().flat_map(|node| node.offer.kinds).collect(),
        _ => BTreeSet::new(),
    }
}

/// How long the check may take; an election should fit in.
const PATIENCE: Duration = Duration::from_secs(2);

/// A longer list helps nobody.
const SHOWN: usize = 20;
