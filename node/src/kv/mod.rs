//! Keys, values and their revisions: the metadata that a cluster keeps for its applications.
//!
//! Read in this order: [`Kv`] (what can be asked), [`Writing`] and its kin (how), [`Transacting`] (several keys in one step), [`Watch`]
//! (what changes).
//!
//! # Invariants
//!
//! * A write is executed once, however often it had to be sent.
//! * A [`Watch`] skips nothing silently: where it cannot know what happened it says [`WatchEvent::Resync`].

mod listing;
mod requests;
mod transaction;
mod watch;

use bytes::Bytes;
use protocol::Revision;
use protocol::state::{Answer, Expect, Operation, Put, Query};

pub use listing::{Listing, Page};
pub use protocol::state::{Condition, KeyEnd, KeyOperation, KeyResult, Transacted, Value};
pub use requests::{Reading, Removing, Sequencing, Writing};
pub use transaction::{KeyIs, Transacting, delete, get, held, is_live, put, rev_of};
pub(crate) use watch::Told;
pub use watch::{Watch, WatchEvent, Watching};

use crate::client::Client;
use crate::error::Error;

/// The cluster's keys. Every write gets a revision, a number that grows with every change anywhere in the cluster.
///
/// ```no_run
/// # use std::time::Duration;
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// let kv = client.kv();
/// let first = kv.put("config/limit", "10").await?;
/// kv.put("config/limit", "11").if_at(first).await?;                 // only if nobody was faster
/// let refused = kv.put("config/limit", "12").if_at(first).await;
/// assert!(matches!(refused, Err(Error::Conflict { .. })));
///
/// let session = client.session(Duration::from_secs(6)).await?;
/// kv.put("workers/w1", "here").ephemeral(&session).if_absent().await?;
/// let (key, _) = kv.create_seq("jobs/job-", "x").await?;             // jobs/job-00000000000000000042
/// for (key, value) in kv.list("jobs/").await?.entries {
///     println!("{key} = {:?}", value.value);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Kv {
    client: Client,
}

impl Kv {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// A key's value and revisions; await it.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// if let Some(found) = client.kv().get("config/limit").await? {
    ///     println!("{:?}, set at {}", found.value, found.modified);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// When awaited: see [`Error`].
    pub fn get(&self, key: impl Into<String>) -> Reading {
        Reading::new(self.client.clone(), key.into())
    }

    /// Sets a key; await it. Without an owner and a time to live the key stays, even if it had one before.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let revision = client.kv().put("config/limit", "10").await?;
    /// # let _ = revision;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// When awaited: [`Error::Conflict`] if a precondition does not hold, [`Error::NoSession`] if its owner does not live; see
    /// [`Error`].
    pub fn put(&self, key: impl Into<String>, value: impl Into<Bytes>) -> Writing {
        Writing::new(self.client.clone(), Put::new(key, value))
    }

    /// Makes a key whose name ends with the revision of its making, in twenty digits: names in the order in which they were made.
    /// Await it for the name and the revision.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let (key, _) = client.kv().create_seq("jobs/job-", "x").await?;
    /// println!("{key}"); // jobs/job-00000000000000000042
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// When awaited: see [`Kv::put`].
    pub fn create_seq(&self, prefix: impl Into<String>, value: impl Into<Bytes>) -> Sequencing {
        Sequencing::new(self.client.clone(), Put { sequence: true, ..Put::new(prefix, value) })
    }

    /// Sets a key if it is at this revision; at revision zero: if there is no such key.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use tenure::Revision;
    /// let first = client.kv().put("config/limit", "10").await?;
    /// client.kv().cas("config/limit", first, "11").await?;
    /// assert!(matches!(client.kv().cas("config/limit", first, "12").await, Err(Error::Conflict { .. })));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] if it is at another one; see [`Error`].
    pub async fn cas(
        &self,
        key: impl Into<String>,
        revision: Revision,
        value: impl Into<Bytes>,
    ) -> Result<Revision, Error> {
        self.put(key, value).if_at(revision).await
    }

    /// Removes a key; await it.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// client.kv().delete("config/limit").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// When awaited: [`Error::NotFound`] if there is none, [`Error::Conflict`] if a precondition does not hold; see [`Error`].
    pub fn delete(&self, key: impl Into<String>) -> Removing {
        Removing::new(self.client.clone(), key.into())
    }

    /// The keys that begin with `prefix`, in order: await it for a page, or go through all of them with [`Listing::stream`].
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// for (key, value) in client.kv().list("workers/").await?.entries {
    ///     println!("{key} was set at {}", value.modified);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// When awaited: see [`Error`].
    pub fn list(&self, prefix: impl Into<String>) -> Listing {
        Listing::new(self.client.clone(), prefix.into())
    }

    /// Reads and writes several keys in one step; await it. Strictly serializable: it happens at one point between its beginning and
    /// its answer.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use tenure::kv::{put, rev_of};
    /// let done = client.kv().txn().when(rev_of("a").is_absent()).then(put("a", "1")).then(put("b", "2")).await?;
    /// println!("both, or none: {}", done.held);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// When awaited: [`Error::Conflict`] or [`Error::NoSession`] if one of its steps is refused, and then nothing is done; see
    /// [`Error`].
    pub fn txn(&self) -> Transacting {
        Transacting::new(self.client.clone())
    }

    /// What happens to the keys that begin with `prefix`; await it.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let mut watch = client.kv().watch("workers/").with_snapshot().await?;
    /// while let Some(event) = watch.next().await {
    ///     println!("{:?}", event?);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// When awaited: see [`Error`].
    pub fn watch(&self, prefix: impl Into<String>) -> Watching {
        Watching::new(self.client.clone(), prefix.into())
    }
}

/// Reads what a query asks for, from whoever is asked or from whoever knows best.
async fn read(client: &Client, query: Query, is_stale: bool) -> Result<Answer, Error> {
    if is_stale { client.read_stale(query).await } else { client.read(query).await }
}

async fn written(client: &Client, operation: Operation) -> Result<Revision, Error> {
    match client.write(operation).await? {
        Answer::Written(revision) => Ok(revision),
        other => Err(crate::client::unexpected(&other)),
    }
}

/// What a precondition on a revision asks for; at revision zero nothing is there.
fn at(revision: Revision) -> Expect {
    if revision == Revision(0) { Expect::Absent } else { Expect::Revision(revision) }
}
