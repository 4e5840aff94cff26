//! Sessions: what this process owns in the cluster, for as long as it lives.
//!
//! # Invariants
//!
//! * A session is over for its owner before anybody else can be given what it owned, as long as clocks keep their bound: its end is
//!   counted from the moment at which its last renewal was asked for, by a clock that also counts while the machine sleeps.
//! * What cannot be renewed in time is lost; a session that is over never comes back.

use std::future::IntoFuture;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use actors::Clock;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use protocol::client::{Guarding, Loss, Standing};
use protocol::state::{About, Answer, ClientEnd, OpenSession, Operation};
use protocol::{ClaimId, SessionId};
use tokio::sync::watch;

use crate::claims::{Claims, Watched};
use crate::client::{Client, unexpected};
use crate::error::Error;

/// A session of this process. Clones are the same session; it is ended when it is [closed](Session::close), or in the background when
/// the last clone is dropped.
///
/// ```no_run
/// # use std::time::Duration;
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// let session = client.session(Duration::from_secs(6)).label("indexer").await?;
/// tokio::select! {
///     why = session.lost() => println!("everything it owned is gone: {why}"),
///     () = tokio::time::sleep(Duration::from_secs(60)) => session.close().await?,
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a session ends when it is dropped"]
#[derive(Clone)]
pub struct Session {
    inside: Arc<Inside>,
}

/// Opens a session when it is awaited. Dropping the future ends a session that was opened nevertheless.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// # use std::time::Duration;
/// let session = client.session(Duration::from_secs(6)).label("indexer").fast_release().await?;
/// # drop(session);
/// # Ok(()) }
/// ```
#[must_use = "nothing is opened until this is awaited"]
pub struct Opening {
    client: Client,
    ttl: Duration,
    label: String,
    fast_release: bool,
    patience: Duration,
}

/// Why a session is over. Whatever it owned is given to others, now or soon.
///
/// ```no_run
/// # use tenure::prelude::*;
/// use tenure::Lost;
/// # async fn example(session: Session) {
/// match session.lost().await {
///     Lost::Silence => println!("the cluster was out of reach for too long"),
///     other => println!("stop: {other}"),
/// }
/// # }
/// ```
pub type Lost = Loss;

struct Inside {
    client: Client,
    id: SessionId,
    ttl: Duration,
    standing: watch::Receiver<Standing>,
    clock: Clock,
    claims: OnceLock<Claims>,
}

impl Client {
    /// Opens a session that lives for `ttl` without a renewal, and is renewed by itself until it is dropped. A `ttl` of several seconds
    /// outlives a change of the master.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use std::time::Duration;
    /// let session = client.session(Duration::from_secs(6)).await?;
    /// client.kv().put("workers/w1", "here").ephemeral(&session).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// When awaited: see [`Error`].
    pub fn session(&self, ttl: Duration) -> Opening {
        Opening { client: self.clone(), ttl, label: String::new(), fast_release: false, patience: self.patience() }
    }
}

impl Opening {
    /// Its name for people.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use std::time::Duration;
    /// let session = client.session(Duration::from_secs(6)).label("indexer").await?;
    /// # drop(session);
    /// # Ok(()) }
    /// ```
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Lets evidence of this node's death end the session at once: others saw its connections close, and its address refuses new ones.
    /// Only for clients of a node in the same process. Mutual exclusion in time then rests on such refusals being honest; fences do not.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use std::time::Duration;
    /// let session = client.session(Duration::from_secs(60)).fast_release().await?;
    /// # drop(session);
    /// # Ok(()) }
    /// ```
    pub fn fast_release(mut self) -> Self {
        self.fast_release = true;
        self
    }

    /// Gives up after so long, and not with the patience of the client.
    pub(crate) fn within(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

impl IntoFuture for Opening {
    type Output = Result<Session, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { client, ttl, label, fast_release, patience } = self;
        async move {
            let label = if label.is_empty() { UNLABELLED.to_owned() } else { label };
            let about = About { label, host: client.backend().host(), fast_release };
            let kept = client.backend().keep(OpenSession { ttl, about }, patience).await?;
            let inside = Inside {
                client,
                id: kept.id,
                ttl,
                standing: kept.standing,
                clock: kept.clock,
                claims: OnceLock::new(),
            };
            Ok(Session { inside: Arc::new(inside) })
        }
        .boxed()
    }
}

impl Session {
    /// Its id: whatever it owns shows this.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client, session: Session) -> Result<(), Error> {
    /// println!("tenure session kill {}", session.id());
    /// # drop(client);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.inside.id
    }

    /// For how long it lives without a renewal.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client, session: Session) -> Result<(), Error> {
    /// assert!(session.expires_in() <= session.ttl());
    /// # drop(client);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.inside.ttl
    }

    /// For how long it certainly lives from now on, if nothing renews it; nothing if it is over.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client, session: Session) -> Result<(), Error> {
    /// println!("certainly ours for another {:?}", session.expires_in());
    /// # drop(client);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn expires_in(&self) -> Duration {
        self.standing().left(self.clock().now())
    }

    /// Whether it is over.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client, session: Session) -> Result<(), Error> {
    /// while !session.is_lost() {
    ///     client.kv().put("heartbeat", "here").ephemeral(&session).await?;
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.expires_in().is_zero()
    }

    /// Waits until it is over, and says why. Cancellation safe.
    ///
    /// The clock is asked whenever this is polled, so that whatever is polled behind it, in a `select!` that is `biased`, does not go on
    /// after a sleep of the machine.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client, session: Session) -> Result<(), Error> {
    /// tokio::select! {
    ///     why = session.lost() => println!("stop: {why}"),
    ///     done = client.kv().put("work", "done").ephemeral(&session) => println!("at {}", done?),
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn lost(&self) -> Lost {
        let mut told = pin!(self.told());
        std::future::poll_fn(|cx| match Guarding::SESSION.step(self.standing(), self.clock().now()) {
            Ok(_) => told.as_mut().poll(cx),
            Err(why) => Poll::Ready(why),
        })
        .await
    }

    /// Waits until it is over, by what the cluster says and by timers.
    async fn told(&self) -> Lost {
        let mut standing = self.inside.standing.clone();
        loop {
            let known = *standing.borrow_and_update();
            let look = match Guarding::SESSION.step(known, self.clock().now()) {
                Ok(look) => look,
                Err(why) => return why,
            };
            tokio::select! {
                changed = standing.changed() => if changed.is_err() && matches!(*standing.borrow(), Standing::Until(_)) {
                    // The client machine stopped, and with it all renewals.
                    return Loss::Silence;
                },
                // The timer stands still while the machine sleeps, our clock does not: it is asked often.
                () = tokio::time::sleep(self.clock().until(look)) => {}
            }
        }
    }

    /// Watches a claim of this session. Must be called within a runtime.
    pub(crate) fn watch(&self, claim: ClaimId) -> Watched {
        let Inside { client, id, claims, .. } = &*self.inside;
        claims.get_or_init(|| Claims::new(client.clone(), *id)).watch(claim)
    }

    /// Ends it now, and with it everything that it owns.
    ///
    /// Cancellation: it ends nevertheless.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client, session: Session) -> Result<(), Error> {
    /// session.close().await?; // what it owned is gone when this returns
    /// # drop(client);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Error`]. For this process it is over in any case, and it is renewed no more.
    pub async fn close(self) -> Result<(), Error> {
        let operation = Operation::EndSession { session: self.id(), cause: ClientEnd::Closed };
        let mut closing = Closing { session: &self, is_done: false };
        let closed = self.inside.client.write(operation).await;
        closing.is_done = matches!(closed, Ok(_) | Err(Error::NoSession(_)));
        match closed {
            Ok(Answer::Ok) | Err(Error::NoSession(_)) => Ok(()),
            Ok(other) => Err(unexpected(&other)),
            Err(error) => Err(error),
        }
    }

    /// How it stands, by its [clock](Self::clock).
    pub(crate) fn standing(&self) -> Standing {
        *self.inside.standing.borrow()
    }

    /// The clock by which it ends.
    pub(crate) fn clock(&self) -> &Clock {
        &self.inside.clock
    }
}

/// The end of a session, as it is asked for. Dropped before it is known to have ended, that is asked for in the background.
struct Closing<'a> {
    session: &'a Session,
    is_done: bool,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            self.session.inside.client.backend().end(self.session.id());
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if matches!(*self.standing.borrow(), Standing::Until(_)) {
            self.client.backend().end(self.id);
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id())
            .field("expires_in", &self.expires_in())
            .finish_non_exhaustive()
    }
}

/// What a session is called whose owner did not say.
const UNLABELLED: &str = "client";

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use actors::KeptSession;
    use protocol::client::Work;
    use protocol::{Nanos, Profile};

    use super::*;
    use crate::client::Backend;

    /// A cluster that opens a session and answers nothing more.
    struct Deaf {
        standing: watch::Sender<Standing>,
        /// It says so, instead of nothing.
        is_busy: bool,
        ended: Mutex<Vec<SessionId>>,
    }

    impl Backend for Deaf {
        fn call(&self, _: Work, _: Duration) -> BoxFuture<'_, Result<Answer, Error>> {
            if self.is_busy { std::future::ready(Err(Error::Busy)).boxed() } else { std::future::pending().boxed() }
        }

        fn keep(&self, _: OpenSession, _: Duration) -> BoxFuture<'_, Result<KeptSession, Error>> {
            let standing = self.standing.subscribe();
            std::future::ready(Ok(KeptSession { id: SessionId(7), standing, clock: Clock::default() })).boxed()
        }

        fn end(&self, session: SessionId) {
            self.ended.lock().unwrap().push(session);
        }

        fn host(&self) -> Option<protocol::state::Host> {
            None
        }
    }

    #[tokio::test]
    async fn a_session_ends_though_nobody_waits_for_that() {
        for (is_busy, closed) in [(false, None), (true, Some(Err(Error::Busy)))] {
            let standing = watch::Sender::new(Standing::Until(Nanos::NEVER));
            let deaf = Arc::new(Deaf { standing, is_busy, ended: Mutex::default() });
            let client = Client::new(deaf.clone(), Profile::DEV);
            let session = client.session(Duration::from_secs(6)).await.unwrap();
            let clone = session.clone();
            assert_eq!(session.close().now_or_never(), closed);
            let ended = deaf.ended.lock().unwrap().clone();
            assert_eq!(ended, [SessionId(7)]);
            drop(clone);
        }
    }
}
