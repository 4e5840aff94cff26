//! Keys, values and their revisions.

use bytes::Bytes;
use protocol::Revision;
use protocol::state::{Answer, Delete, Expect, Operation, Put, Query, Value};

use crate::client::{Client, unexpected};
use crate::error::Error;

/// The cluster's keys. Every write gets a revision, a number that grows with every change anywhere in the cluster.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// let kv = client.kv();
/// let first = kv.put("config/limit", "10").await?;
/// kv.cas("config/limit", first, "11").await?;                       // only if nobody was faster
/// let refused = kv.cas("config/limit", first, "12").await;
/// assert!(matches!(refused, Err(Error::Conflict { .. })));
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

    /// A key's value and revisions.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn get(&self, key: impl Into<String>) -> Result<Option<Value>, Error> {
        value(self.client.read(Query::Get(key.into())).await?)
    }

    /// A key's value as far as the asked node has applied the log: it may miss the newest writes, and needs no quorum.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn get_stale(&self, key: impl Into<String>) -> Result<Option<Value>, Error> {
        value(self.client.read_stale(Query::Get(key.into())).await?)
    }

    /// Sets a key.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn put(&self, key: impl Into<String>, value: impl Into<Bytes>) -> Result<Revision, Error> {
        self.put_if(key, value, Expect::Any).await
    }

    /// Sets a key if it is at this revision; at revision zero: if there is no such key.
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
        let expect = if revision == Revision(0) { Expect::Absent } else { Expect::Revision(revision) };
        self.put_if(key, value, expect).await
    }

    /// Sets a key if a precondition holds.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] if it does not; see [`Error`].
    pub async fn put_if(
        &self,
        key: impl Into<String>,
        value: impl Into<Bytes>,
        expect: Expect,
    ) -> Result<Revision, Error> {
        written(self.client.write(Operation::Put(Put { expect, ..Put::new(key, value) })).await?)
    }

    /// Removes a key.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is none; see [`Error`].
    pub async fn delete(&self, key: impl Into<String>) -> Result<Revision, Error> {
        self.delete_if(key, Expect::Any).await
    }

    /// Removes a key if a precondition holds.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] if it does not; see [`Error`].
    pub async fn delete_if(&self, key: impl Into<String>, expect: Expect) -> Result<Revision, Error> {
        written(self.client.write(Operation::Delete(Delete { key: key.into(), expect })).await?)
    }
}

fn value(answer: Answer) -> Result<Option<Value>, Error> {
    match answer {
        Answer::Value { found, .. } => Ok(found),
        other => Err(unexpected(&other)),
    }
}

fn written(answer: Answer) -> Result<Revision, Error> {
    match answer {
        Answer::Written(revision) => Ok(revision),
        other => Err(unexpected(&other)),
    }
}
