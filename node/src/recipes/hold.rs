//! A right that is held, and the wish for one.

use std::future::IntoFuture;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use protocol::Revision;
use protocol::client::{Guarding, Standing};
use protocol::state::{Grant, Mode, RightId};
use tokio::time::Instant;

use super::place::{Patience, Place, Wish};
use crate::claims::Watched;
use crate::client::Client;
use crate::error::Error;
use crate::session::{Lost, Session};

/// A right that is held under a session of this process, until that is over or the claim is.
pub(super) struct Hold {
    place: Place,
    grant: Grant,
    session: Session,
    watched: Watched,
}

impl Hold {
    pub(super) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// For how long it certainly lasts from now on.
    pub(super) fn left(&self) -> Duration {
        self.standing().left(self.session.clock().now())
    }

    /// One step of work may begin now, and this is asked again before the next one, and after so long if there is none before; or why not.
    pub(super) fn step(&self) -> Result<Duration, Lost> {
        let clock = self.session.clock();
        Guarding::WORK.step(self.standing(), clock.now()).map(|look| clock.until(look))
    }

    /// Waits until it is over, and says why.
    pub(super) async fn over(&self) -> Lost {
        tokio::select! {
            biased;
            why = self.session.lost() => why,
            () = self.watched.over() => Lost::Gone,
        }
    }

    fn standing(&self) -> Standing {
        self.session.standing().of_claim(self.watched.is_over())
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Gives it back. The session lives until that is done, also where nobody else holds it.
    pub(super) async fn release(self) -> Result<(), Error> {
        let Self { place, session: _lives, .. } = self;
        place.release().await
    }

    /// Ends the right for good. The session lives until that is recorded, also where nobody else holds it.
    pub(super) async fn settle(self, outcome: Bytes) -> Result<Revision, Error> {
        let Self { place, session: _lives, .. } = self;
        place.settle(outcome).await
    }
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hold")
            .field("right", self.place.right())
            .field("claim", &self.place.claim())
            .field("fence", &self.grant.fence)
            .finish_non_exhaustive()
    }
}

/// A wish for a right; await it to claim. Dropping the future withdraws the claim.
///
/// ```no_run
/// # use std::time::Duration;
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// let session = client.session(Duration::from_secs(10)).await?;
/// let permit = client
///     .semaphore("ffmpeg", 4)
///     .acquire(2)
///     .session(&session)                 // ends with this session, not with the one that all rights share
///     .value("transcoder 7")             // what others see
///     .wait(Duration::from_secs(30))     // `Error::Held` if it takes longer
///     .await?;
/// permit.release().await
/// # }
/// ```
///
/// The right is owned by a session that all rights of this client share and that is renewed as long as the client lives, or by the one
/// that is named with [`Acquire::session`].
#[must_use = "nothing is claimed until this is awaited"]
pub struct Acquire<G> {
    client: Client,
    right: RightId,
    mode: Mode,
    value: Bytes,
    patience: Patience,
    session: Option<Session>,
    make: fn(Hold) -> G,
}

impl<G> Acquire<G> {
    pub(super) fn new(client: &Client, right: RightId, mode: Mode, patience: Patience, make: fn(Hold) -> G) -> Self {
        Self { client: client.clone(), right, mode, value: Bytes::new(), patience, session: None, make }
    }

    pub(super) fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Stands in line for so long, and then gives up with [`Error::Held`]; nothing is [`Acquire::no_wait`].
    ///
    /// If the cluster has not taken the claim by then, that is [`Error::NoQuorum`]. So it is if nobody answers any more when the wait is over,
    /// which takes the client's time-out to find out.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use std::time::Duration;
    /// let guard = client.lock("stock").wait(Duration::from_secs(5)).await?; // `Error::Held` if it is not free by then
    /// # drop(guard);
    /// # Ok(()) }
    /// ```
    pub fn wait(mut self, patience: Duration) -> Self {
        self.patience = if patience.is_zero() { Patience::None } else { Patience::UpTo(patience) };
        self
    }

    /// Stands in line as long as it takes.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let guard = client.lock("stock").wait_long().await?;
    /// # drop(guard);
    /// # Ok(()) }
    /// ```
    pub fn wait_long(mut self) -> Self {
        self.patience = Patience::Endless;
        self
    }

    /// Does not stand in line: [`Error::Held`] says at once that it is not free.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// match client.semaphore("ffmpeg", 4).acquire(1).no_wait().await {
    ///     Err(Error::Held { .. }) => println!("all four are taken"),
    ///     permit => permit?.release().await?,
    /// }
    /// # Ok(()) }
    /// ```
    pub fn no_wait(mut self) -> Self {
        self.patience = Patience::None;
        self
    }

    /// The right ends with this session.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client, session: Session) -> Result<(), Error> {
    /// let guard = client.lock("stock").session(&session).await?; // goes with the session
    /// # drop(guard);
    /// # Ok(()) }
    /// ```
    pub fn session(mut self, session: &Session) -> Self {
        self.session = Some(session.clone());
        self
    }

    /// What is shown beside the holder.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let guard = client.lock("stock").value("by the nightly job").await?;
    /// # drop(guard);
    /// # Ok(()) }
    /// ```
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = value.into();
        self
    }
}

impl<G: 'static> IntoFuture for Acquire<G> {
    type Output = Result<G, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { client, right, mode, value, patience, session, make } = self;
        async move {
            let began = Instant::now();
            let take = async |session: &Session| {
                let patience = patience.after(began.elapsed());
                let wish = Wish { right: right.clone(), session: session.id(), mode, value: value.clone(), patience };
                Place::take(&client, wish).await
            };
            let share =
                async || client.shared_session(patience.after(began.elapsed()).at_most(client.patience())).await;
            let (session, taken) = match session {
                Some(session) => (session.clone(), take(&session).await),
                None => {
                    let shared = share().await?;
                    match take(&shared).await {
                        // Somebody has ended it, and its next renewal has not told us yet: nothing was claimed.
                        Err(Error::NoSession(_)) => {
                            client.forget_shared(shared.id()).await;
                            let next = share().await?;
                            (next.clone(), take(&next).await)
                        }
                        taken => (shared, taken),
                    }
                }
            };
            let (place, grant) = taken?;
            let watched = session.watch(place.claim());
            Ok(make(Hold { place, grant, session, watched }))
        }
        .boxed()
    }
}
