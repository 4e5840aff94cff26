//! The claims that a session of this process holds, and whether the cluster still knows them.
//!
//! A session that lives says nothing of one claim: somebody may have given it back in its name. So one question per session stands at a
//! node for as long as anything is held, and is answered when one of these claims has ended.
//!
//! # Invariants
//!
//! * What has ended stays so: a claim is never made again under its name.
//! * The question costs the same however often rights are taken: a new claim is asked about after a short while, not at once.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::state::limits::MAX_OWNED;
use protocol::state::{Answer, Query};
use protocol::{ClaimId, SessionId};
use tokio::sync::watch;

use crate::client::Client;
use crate::recipes::place::long;

/// The claims of one session that somebody holds here. Dropped with the session; then nobody asks any more.
#[derive(Debug)]
pub(crate) struct Claims {
    held: watch::Sender<Held>,
}

/// A claim that is held, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Watched {
    claim: ClaimId,
    held: watch::Sender<Held>,
    is_over: watch::Receiver<bool>,
}

/// Each claim, and whether it has ended.
type Held = BTreeMap<ClaimId, watch::Sender<bool>>;

impl Claims {
    /// Must be called within a runtime.
    pub(crate) fn new(client: Client, session: SessionId) -> Self {
        let held = watch::Sender::new(Held::new());
        tokio::spawn(ask(client, session, held.subscribe()));
        Self { held }
    }

    /// Watches a claim from now on.
    pub(crate) fn watch(&self, claim: ClaimId) -> Watched {
        let (over, is_over) = watch::channel(false);
        self.held.send_modify(|held| drop(held.insert(claim, over)));
        Watched { claim, held: self.held.clone(), is_over }
    }
}

impl Watched {
    /// Whether the cluster said that it has ended.
    pub(crate) fn is_over(&self) -> bool {
        *self.is_over.borrow()
    }

    /// Waits until the cluster says that it has ended. Cancellation safe.
    pub(crate) async fn over(&self) {
        let mut is_over = self.is_over.clone();
        if is_over.wait_for(|is_over| *is_over).await.is_err() {
            std::future::pending::<()>().await; // Nobody asks any more: its session is over, which is heard elsewhere.
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Whoever asks learns of it when the claim is given back, and need not ask anew.
        self.held.send_if_modified(|held| {
            held.remove(&self.claim);
            false
        });
    }
}

/// Asks for as long as the session is held here.
async fn ask(client: Client, session: SessionId, mut held: watch::Receiver<Held>) {
    loop {
        let claims = standing(&mut held);
        if claims.is_empty() {
            match held.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        }
        tokio::select! {
            answer = long(&client, Query::AwaitEnd { session, claims }) => match answer {
                Ok(Answer::Ended(ended)) => note(&held, &ended),
                other => tracing::debug!(%session, ?other, "nobody says which claims have ended"),
            },
            changed = held.changed() => if changed.is_err() {
                return;
            },
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The claims that have not ended as far as we know.
fn standing(held: &mut watch::Receiver<Held>) -> Vec<ClaimId> {
    let held = held.borrow_and_update();
    held.iter().filter(|(_, over)| !*over.borrow()).map(|(claim, _)| *claim).take(MAX_OWNED).collect()
}

fn note(held: &watch::Receiver<Held>, ended: &[ClaimId]) {
    let held = held.borrow();
    for over in ended.iter().filter_map(|claim| held.get(claim)) {
        over.send_replace(true);
    }
}

/// Between two questions, so that many rights taken one after the other do not make as many.
const PAUSE: Duration = Duration::from_millis(100);
