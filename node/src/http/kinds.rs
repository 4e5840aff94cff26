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

use crate::diagnostic::{Code, Diagnostic};
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
        let Ok(nodes) = site.client().members().await else { return Ok(()) };
        let mut live: BTreeSet<String> = nodes.into_iter().flat_map(|node| node.offer.kinds).collect();
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

/// A longer list helps nobody.
const SHOWN: usize = 20;
