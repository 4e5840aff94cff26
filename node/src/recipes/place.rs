//! A claim and what becomes of it: from the wish for a right to its end.
//!
//! # Invariants
//!
//! * A claim that nobody waits for any more is withdrawn, also one whose answer had not come yet when the wait was dropped.
//! * Of a right it is said that somebody else holds it only if the cluster has said so, and knows of our claim no more.
//! * However many claims and ends of claims are under way while nobody answers, other calls find room beside them.
//! * A right that is dropped is given back in the background; at the latest it ends with its session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use protocol::state::limits::MAX_FORGOTTEN;
use protocol::state::{
    Answer, Claim, ClaimState, Claimed, Grant, Mode, Operation, Query, RightId, RightKind, RightOperation,
};
use protocol::{ClaimId, Fence, Revision, SessionId};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::watch::look;
use crate::client::{Client, unexpected};
use crate::error::Error;

/// What is wished for.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) right: RightId,
    pub(crate) session: SessionId,
    pub(crate) mode: Mode,
    pub(crate) value: Bytes,
    /// How long to stand in line.
    pub(crate) patience: Patience,
}

/// How long to stand in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Not at all.
    None,
    /// So long, and no longer.
    UpTo(Duration),
    /// As long as it takes.
    Endless,
}

impl Patience {
    /// What is left of it after so long.
    pub(super) fn after(self, elapsed: Duration) -> Self {
        match self {
            Self::UpTo(span) => Self::UpTo(span.saturating_sub(elapsed)),
            Self::None | Self::Endless => self,
        }
    }

    /// How long an answer is waited for, where the client waits for so long.
    pub(super) fn at_most(self, patience: Duration) -> Duration {
        match self {
            Self::UpTo(span) => span.min(patience),
            Self::None | Self::Endless => patience,
        }
    }
}

/// A claim that stands. Dropped, it is given up in the background.
pub(crate) struct Place {
    client: Client,
    right: RightId,
    session: SessionId,
    claim: ClaimId,
    /// Gives it up even where the place is dropped outside of any runtime.
    runtime: Handle,
    is_over: bool,
}

impl Place {
    /// Claims a right and waits until it is granted. Cancellation safe: dropped, the claim is withdrawn.
    ///
    /// Whoever has waited in vain hears why within the client's patience: [`Error::Held`] from the cluster, or [`Error::NoQuorum`].
    pub(crate) async fn take(client: &Client, wish: Wish) -> Result<(Self, Grant), Error> {
        let says_more = matches!(wish.right.kind, RightKind::Queue | RightKind::Barrier);
        let (began, patience) = (Instant::now(), wish.patience);
        let (place, fence) = Self::enter(client, wish).await?;
        let grant = match fence {
            // The item of a queue and the round of a barrier are not in the answer to the claim.
            Some(fence) if !says_more => Grant { fence, round: fence, item: None },
            _ => match patience.after(began.elapsed()) {
                Patience::UpTo(left) => match tokio::time::timeout(left, place.granted()).await {
                    Ok(granted) => granted?,
                    Err(_) => return place.leave_line().await,
                },
                Patience::None | Patience::Endless => place.granted().await?,
            },
        };
        Ok((place, grant))
    }

    /// Stands in line, or gives up with the client's patience or that of the wish. The request goes on where the future is dropped, and
    /// whatever it claimed is given up then.
    pub(crate) async fn enter(client: &Client, wish: Wish) -> Result<(Self, Option<Fence>), Error> {
        let runtime = Handle::current();
        let (sender, mut receiver) = oneshot::channel();
        let (client, handle) = (client.clone(), runtime.clone());
        let patience = wish.patience.at_most(client.patience());
        let begun = Arc::new(AtomicBool::new(false));
        let begins = begun.clone();
        let work = async move {
            let Ok(_way) = tokio::time::timeout(patience, client.way()).await else { return };
            begins.store(true, Ordering::SeqCst);
            if sender.is_closed() {
                return; // Nobody waits any more, and it was said that nothing is claimed.
            }
            let entered = enter_for_certain(&client, wish, handle).await;
            // If nobody takes it, the place is dropped here and the claim withdrawn.
            let _ = sender.send(entered);
        };
        runtime.spawn(work);
        if let Ok(Ok(entered)) = tokio::time::timeout(patience, &mut receiver).await {
            return entered;
        }
        receiver.close();
        // Whatever is claimed is withdrawn when the answer comes; until then it may stand, and a barrier count it.
        let maybe_applied = begun.load(Ordering::SeqCst);
        Err(nobody(patience, maybe_applied))
    }

    /// Withdraws the claim and says that it was made in vain, unless it was granted when the wait was over and nobody could say so.
    async fn leave_line(self) -> Result<(Self, Grant), Error> {
        let (client, right) = (self.client.clone(), self.right.clone());
        let patience = client.patience();
        let leaves = async {
            let query = Query::Claim { right: right.clone(), claim: self.claim };
            if let Some(grant) = grant(client.read(query).await?)? {
                return Ok(Some((self, grant)));
            }
            let _way = client.way().await;
            self.release().await?;
            Ok(None)
        };
        match tokio::time::timeout(patience, leaves).await {
            Ok(Ok(Some(granted))) => Ok(granted),
            Ok(Ok(None)) => {
                let view = look(&client, &right).await?;
                Err(Error::Held { fence: view.holders.last().map_or(Fence(0), |holder| holder.fence) })
            }
            // It stands in line, and may be granted, until somebody has withdrawn it.
            Ok(Err(Error::NoQuorum { waited, master, .. })) => {
                Err(Error::NoQuorum { maybe_applied: true, waited, master })
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(nobody(patience, true)),
        }
    }

    /// Waits for the grant.
    pub(crate) async fn granted(&self) -> Result<Grant, Error> {
        let query = Query::AwaitClaim { right: self.right.clone(), claim: self.claim };
        grant(long(&self.client, query).await?)?.ok_or(Error::NotHeld { current: Fence(0) })
    }

    /// Names the claim.
    pub(crate) fn claim(&self) -> ClaimId {
        self.claim
    }

    /// Names the right.
    pub(crate) fn right(&self) -> &RightId {
        &self.right
    }

    /// The cluster.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// It is somebody else's business from now on.
    pub(crate) fn keep(mut self) -> ClaimId {
        self.is_over = true;
        self.claim
    }

    /// Gives it back, and waits until that is done. What is gone already is given back.
    /// Dropped, it goes on in the background.
    pub(crate) async fn release(mut self) -> Result<(), Error> {
        release(&self.client, self.right.clone(), (self.session, self.claim)).await?;
        self.is_over = true;
        Ok(())
    }

    /// Changes what stands beside it.
    pub(crate) async fn set_value(&self, value: Bytes) -> Result<Revision, Error> {
        let (right, session, claim) = (self.right.clone(), self.session, self.claim);
        let operation = Operation::Right(RightOperation::SetValue { right, session, claim, value });
        written(self.client.write(operation).await?)
    }

    /// Ends the right for good.
    pub(crate) async fn settle(mut self, outcome: Bytes) -> Result<Revision, Error> {
        let (right, session, claim) = (self.right.clone(), self.session, self.claim);
        let operation = Operation::Right(RightOperation::Settle { right, session, claim, outcome });
        let revision = written(self.client.write(operation).await?)?;
        self.is_over = true;
        Ok(revision)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_over {
            let (client, right) = (self.client.clone(), self.right.clone());
            let (session, claim) = (self.session, self.claim);
            self.runtime.spawn(async move {
                // As long as its session may live, because nobody else can give it back.
                let client = client.timeout(UNTIL_KNOWN);
                let _way = client.way().await;
                while let Err(error) = release(&client, right.clone(), (session, claim)).await {
                    if !error.is_retryable() || matches!(error, Error::NoQuorum { .. }) {
                        return tracing::debug!(%claim, %error, "it is given back with its session");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
    }
}

/// Asks until it is known whether the claim stands: one that may or may not stand could never be given back.
async fn enter_for_certain(client: &Client, wish: Wish, runtime: Handle) -> Result<(Place, Option<Fence>), Error> {
    let Wish { right, session, mode, value, patience } = wish;
    let wait = patience != Patience::None;
    let claim = Claim { right: right.clone(), session, mode, value, wait };
    let client = client.clone();
    let patient = client.clone().timeout(UNTIL_KNOWN);
    match patient.write(Operation::Right(RightOperation::Claim(claim))).await {
        Ok(Answer::Claimed(Claimed { claim, fence })) => {
            Ok((Place { client, right, session, claim, runtime, is_over: false }, fence))
        }
        Ok(other) => Err(unexpected(&other)),
        Err(error) => {
            // A claim that may stand and has no name can be given back with its session only.
            if error.maybe_applied() {
                client.backend().end(session);
            }
            Err(error)
        }
    }
}

/// What a claim was granted; nothing while it stands in line.
fn grant(answer: Answer) -> Result<Option<Grant>, Error> {
    match answer {
        Answer::Claim(ClaimState::Held(grant)) => Ok(Some(grant)),
        Answer::Claim(ClaimState::Waiting) => Ok(None),
        Answer::Claim(ClaimState::Settled(_)) => Err(Error::Settled),
        // Somebody withdrew it, or the session is over.
        Answer::Claim(ClaimState::Gone) => Err(Error::NotHeld { current: Fence(0) }),
        other => Err(unexpected(&other)),
    }
}

/// Nobody answered in time.
fn nobody(waited: Duration, maybe_applied: bool) -> Error {
    Error::NoQuorum { maybe_applied, waited, master: None }
}

/// Gives a claim of a session back.
pub(crate) async fn release(
    client: &Client,
    right: RightId,
    (session, claim): (SessionId, ClaimId),
) -> Result<(), Error> {
    match client.write(Operation::Right(RightOperation::Release { right, session, claim })).await {
        Ok(Answer::Ok) | Err(Error::NotFound) => Ok(()),
        Ok(other) => Err(unexpected(&other)),
        Err(error) => Err(error),
    }
}

/// Forgets the outcome of a once, or the items of a queue that nobody holds: as many as there were, in several steps if those are many.
/// Dropped, it has forgotten some.
pub(crate) async fn forget(client: &Client, right: &RightId) -> Result<Revision, Error> {
    let step = || client.write(Operation::Right(RightOperation::Forget(right.clone())));
    let items = if right.kind == RightKind::Queue { look(client, right).await?.items } else { 0 };
    let mut revision = written(step().await?)?;
    for _ in 1..items.div_ceil(MAX_FORGOTTEN as u64) {
        revision = match step().await {
            Ok(answer) => written(answer)?,
            Err(Error::NotFound) => break,
            Err(error) => return Err(error),
        };
    }
    Ok(revision)
}

/// Asks what may be long in coming, again and again while nobody leads. Cancellation safe.
pub(crate) async fn long(client: &Client, query: Query) -> Result<Answer, Error> {
    let patient = client.clone().timeout(LONG);
    loop {
        match patient.read(query.clone()).await {
            // A client that has stopped says so at once.
            Err(Error::NoQuorum { .. }) => tokio::time::sleep(PAUSE).await,
            answered => return answered,
        }
    }
}

pub(crate) fn written(answer: Answer) -> Result<Revision, Error> {
    match answer {
        Answer::Written(revision) => Ok(revision),
        other => Err(unexpected(&other)),
    }
}

/// For how long a claim is asked for: longer than a session lives that is not renewed, and with that the claim.
const UNTIL_KNOWN: Duration = Duration::from_secs(24 * 3600);

/// The wait before a question that nobody answered is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// How long one question about something to come is asked.
const LONG: Duration = Duration::from_secs(3600);
