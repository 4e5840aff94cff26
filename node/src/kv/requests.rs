//! One key: read, set, removed.

use std::future::IntoFuture;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use protocol::state::{Answer, Delete, Expect, Operation, Put, Query, Value};
use protocol::{Revision, SessionId};

use super::{at, read, written};
use crate::client::{Client, unexpected};
use crate::error::Error;
use crate::session::Session;

/// Reads a key when it is awaited. Dropping the future withdraws the wait.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(kv: Kv) -> Result<(), Error> {
/// if let Some(limit) = kv.get("config/limit").await? {
///     println!("{:?} since revision {}", limit.value, limit.modified);
/// }
/// let perhaps_old = kv.get("config/limit").stale().await?; // what this node has, also without a quorum
/// # drop(perhaps_old);
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is read until this is awaited"]
pub struct Reading {
    client: Client,
    key: String,
    is_stale: bool,
}

impl Reading {
    pub(super) fn new(client: Client, key: String) -> Self {
        Self { client, key, is_stale: false }
    }

    /// As far as the asked node has applied the log: it may miss the newest writes, and needs no quorum.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let found = client.kv().get("config/limit").stale().await?; // also without a quorum
    /// # drop(found);
    /// # Ok(()) }
    /// ```
    pub fn stale(mut self) -> Self {
        self.is_stale = true;
        self
    }
}

impl IntoFuture for Reading {
    type Output = Result<Option<Value>, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        async move {
            match read(&self.client, Query::Get(self.key), self.is_stale).await? {
                Answer::Value { found, .. } => Ok(found),
                other => Err(unexpected(&other)),
            }
        }
        .boxed()
    }
}

/// Sets a key when it is awaited, and gives the revision. Dropping the future withdraws the wait, not the write.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(kv: Kv, session: Session) -> Result<(), Error> {
/// let first = kv.put("workers/w1", "idle").ephemeral(&session).if_absent().await?; // goes with the session
/// kv.put("workers/w1", "busy").ephemeral(&session).if_at(first).await?;            // only if nobody was faster
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is written until this is awaited"]
pub struct Writing {
    client: Client,
    put: Put,
}

impl Writing {
    pub(super) fn new(client: Client, put: Put) -> Self {
        Self { client, put }
    }

    /// Only if there is no such key.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// client.kv().put("config/limit", "10").if_absent().await?; // `Error::Conflict` if it is there
    /// # Ok(()) }
    /// ```
    pub fn if_absent(self) -> Self {
        self.expect(Expect::Absent)
    }

    /// Only if there is such a key.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// client.kv().put("config/limit", "11").if_present().await?;
    /// # Ok(()) }
    /// ```
    pub fn if_present(self) -> Self {
        self.expect(Expect::Present)
    }

    /// Only if the key is at this revision; at revision zero: if there is no such key.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let first = client.kv().put("config/limit", "10").await?;
    /// client.kv().put("config/limit", "11").if_at(first).await?;
    /// # Ok(()) }
    /// ```
    pub fn if_at(self, revision: Revision) -> Self {
        self.expect(at(revision))
    }

    /// Only if this holds.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// client.kv().put("config/limit", "11").expect(Expect::Present).await?;
    /// # Ok(()) }
    /// ```
    pub fn expect(mut self, expect: Expect) -> Self {
        self.put.expect = expect;
        self
    }
}

impl IntoFuture for Writing {
    type Output = Result<Revision, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        async move { written(&self.client, Operation::Put(self.put)).await }.boxed()
    }
}

/// Makes a key of a sequence when it is awaited, and gives its name and revision. Dropping the future withdraws the wait, not the write.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(kv: Kv) -> Result<(), Error> {
/// let (key, revision) = kv.create_seq("jobs/job-", "x").await?; // jobs/job-00000000000000000042
/// assert!(key.ends_with(&format!("{:020}", revision.0)));
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is written until this is awaited"]
pub struct Sequencing {
    client: Client,
    put: Put,
}

impl Sequencing {
    pub(super) fn new(client: Client, put: Put) -> Self {
        Self { client, put }
    }
}

impl IntoFuture for Sequencing {
    type Output = Result<(String, Revision), Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        async move {
            match self.client.write(Operation::Put(self.put)).await? {
                Answer::Sequenced { key, revision } => Ok((key, revision)),
                other => Err(unexpected(&other)),
            }
        }
        .boxed()
    }
}

/// Gives a type that has a `Put` in its field `put` the ends that its key may have.
macro_rules! ends {
    ($($name:ident)*) => {$(
        impl $name {
            /// The key goes with this session.
            ///
            /// ```no_run
            /// # use tenure::prelude::*;
            /// # async fn example(client: Client, session: Session) -> Result<(), Error> {
            /// client.kv().put("workers/w1", "here").ephemeral(&session).await?;
            /// # Ok(()) }
            /// ```
            pub fn ephemeral(self, session: &Session) -> Self {
                self.owner(session.id())
            }

            /// The key goes with the session of this id, whoever keeps that.
            ///
            /// ```no_run
            /// # use tenure::prelude::*;
            /// # async fn example(client: Client) -> Result<(), Error> {
            /// # use tenure::SessionId;
            /// client.kv().put("workers/w1", "here").owner(SessionId(42)).await?; // a session of another process
            /// # Ok(()) }
            /// ```
            pub fn owner(mut self, session: SessionId) -> Self {
                self.put.owner = Some(session);
                self
            }

            /// The key goes after this long, by the cluster's time, unless it is written again.
            ///
            /// ```no_run
            /// # use tenure::prelude::*;
            /// # async fn example(client: Client) -> Result<(), Error> {
            /// # use std::time::Duration;
            /// client.kv().put("cache/a", "x").ttl(Duration::from_secs(60)).await?;
            /// # Ok(()) }
            /// ```
            pub fn ttl(mut self, ttl: Duration) -> Self {
                self.put.ttl = Some(ttl);
                self
            }
        }
    )*};
}
ends! { Writing Sequencing }

/// Removes a key when it is awaited, and gives the revision. Dropping the future withdraws the wait, not the write.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(kv: Kv) -> Result<(), Error> {
/// match kv.delete("config/limit").await {
///     Ok(revision) => println!("gone since {revision}"),
///     Err(Error::NotFound) => println!("there was none"),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is removed until this is awaited"]
pub struct Removing {
    client: Client,
    delete: Delete,
}

impl Removing {
    pub(super) fn new(client: Client, key: String) -> Self {
        Self { client, delete: Delete { key, expect: Expect::Any } }
    }

    /// Only if the key is at this revision.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let first = client.kv().put("config/limit", "10").await?;
    /// client.kv().delete("config/limit").if_at(first).await?; // unless somebody wrote it since
    /// # Ok(()) }
    /// ```
    pub fn if_at(self, revision: Revision) -> Self {
        self.expect(Expect::Revision(revision))
    }

    /// Only if this holds.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// client.kv().delete("config/limit").expect(Expect::Present).await?;
    /// # Ok(()) }
    /// ```
    pub fn expect(mut self, expect: Expect) -> Self {
        self.delete.expect = expect;
        self
    }
}

impl IntoFuture for Removing {
    type Output = Result<Revision, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        async move { written(&self.client, Operation::Delete(self.delete)).await }.boxed()
    }
}
