//! Several keys in one step.

use std::future::IntoFuture;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use protocol::Revision;
use protocol::state::{Answer, Condition, Delete, Expect, KeyOperation, Operation, Put, Transacted, Transaction};

use super::at;
use crate::client::{Client, unexpected};
use crate::error::Error;
use crate::recipes::Guard;
use crate::session::Session;

/// A transaction, done when it is awaited. Dropping the future withdraws the wait, not the transaction.
///
/// ```no_run
/// # use tenure::prelude::*;
/// use tenure::kv::{get, put, rev_of};
/// # async fn example(kv: Kv, revision: Revision) -> Result<(), Error> {
/// let done = kv
///     .txn()
///     .when(rev_of("stock/apple").eq(revision))
///     .then(put("stock/apple", "41"))
///     .then(put("orders/7", "1 apple"))
///     .or_else(get("stock/apple"))
///     .await?;
/// println!("{}", if done.held { "sold" } else { "somebody was faster" });
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is done until this is awaited"]
pub struct Transacting {
    client: Client,
    transaction: Transaction,
}

/// A key to be compared: see [`rev_of`].
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// # use tenure::kv::{get, rev_of};
/// let done = client.kv().txn().when(rev_of("lock").is_absent()).then(get("a")).await?;
/// # drop(done);
/// # Ok(()) }
/// ```
pub struct KeyIs(String);

/// A condition on a key.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// # use tenure::kv::{put, rev_of};
/// client.kv().txn().when(rev_of("a").is_present()).then(put("b", "1")).await?;
/// # Ok(()) }
/// ```
pub fn rev_of(key: impl Into<String>) -> KeyIs {
    KeyIs(key.into())
}

/// Holds while a session lives.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client, session: Session) -> Result<(), Error> {
/// # use tenure::kv::{is_live, put};
/// client.kv().txn().when(is_live(&session)).then(put("report", "done")).await?;
/// # Ok(()) }
/// ```
#[must_use]
pub fn is_live(session: &Session) -> Condition {
    Condition::Lives(session.id())
}

/// Holds while a right does: whoever lost it in the meantime changes nothing, however late the transaction arrives.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// # use tenure::kv::{held, put};
/// let guard = client.lock("stock").await?;
/// client.kv().txn().when(held(&guard)).then(put("stock/42", "6")).await?;
/// # Ok(()) }
/// ```
#[must_use]
pub fn held(guard: &impl Guard) -> Condition {
    guard.condition()
}

/// A step that reads a key, as the steps before it left it.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// # use tenure::kv::{get};
/// let done = client.kv().txn().then(get("a")).then(get("b")).await?; // both at one revision
/// # drop(done);
/// # Ok(()) }
/// ```
pub fn get(key: impl Into<String>) -> KeyOperation {
    KeyOperation::Get(key.into())
}

/// A step that sets a key.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// # use tenure::kv::{put};
/// client.kv().txn().then(put("a", "1")).then(put("b", "2")).await?; // both, or none
/// # Ok(()) }
/// ```
pub fn put(key: impl Into<String>, value: impl Into<Bytes>) -> KeyOperation {
    KeyOperation::Put(Put::new(key, value))
}

/// A step that removes a key; one that is not there is no failure.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// # use tenure::kv::{delete, put};
/// client.kv().txn().then(delete("old/name")).then(put("new/name", "1")).await?;
/// # Ok(()) }
/// ```
pub fn delete(key: impl Into<String>) -> KeyOperation {
    KeyOperation::Delete(Delete { key: key.into(), expect: Expect::Any })
}

impl KeyIs {
    /// Holds if the key is at this revision; at revision zero: if there is no such key.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use tenure::kv::{put, rev_of};
    /// let first = client.kv().put("a", "1").await?;
    /// client.kv().txn().when(rev_of("a").eq(first)).then(put("a", "2")).await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn eq(self, revision: Revision) -> Condition {
        Condition::Key { key: self.0, expect: at(revision) }
    }

    /// Holds if there is no such key.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use tenure::kv::{put, rev_of};
    /// client.kv().txn().when(rev_of("a").is_absent()).then(put("a", "1")).await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn is_absent(self) -> Condition {
        Condition::Key { key: self.0, expect: Expect::Absent }
    }

    /// Holds if there is such a key.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use tenure::kv::{delete, rev_of};
    /// client.kv().txn().when(rev_of("b").is_present()).then(delete("a")).await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn is_present(self) -> Condition {
        Condition::Key { key: self.0, expect: Expect::Present }
    }

    /// Holds if the key has exactly this value.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use tenure::kv::{put, rev_of};
    /// client.kv().txn().when(rev_of("state").has_value("draft")).then(put("state", "final")).await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn has_value(self, value: impl Into<Bytes>) -> Condition {
        Condition::Value { key: self.0, value: value.into() }
    }
}

impl Transacting {
    pub(super) fn new(client: Client) -> Self {
        Self { client, transaction: Transaction::default() }
    }

    /// The same that was put together elsewhere.
    pub(crate) fn of(mut self, transaction: Transaction) -> Self {
        self.transaction = transaction;
        self
    }

    /// One more condition: all must hold.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use tenure::kv::{put, rev_of};
    /// let done = client.kv().txn().when(rev_of("a").is_absent()).then(put("a", "1")).await?;
    /// println!("all conditions held: {}", done.held);
    /// # Ok(()) }
    /// ```
    pub fn when(mut self, condition: Condition) -> Self {
        self.transaction.when.push(condition);
        self
    }

    /// One more step, done if all conditions hold.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use tenure::kv::{put};
    /// client.kv().txn().then(put("a", "1")).await?;
    /// # Ok(()) }
    /// ```
    pub fn then(mut self, step: KeyOperation) -> Self {
        self.transaction.then.push(step);
        self
    }

    /// One more step, done if one does not.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use tenure::kv::{get, put, rev_of};
    /// let done = client.kv().txn().when(rev_of("a").is_absent()).then(put("a", "1")).or_else(get("a")).await?;
    /// # drop(done);
    /// # Ok(()) }
    /// ```
    pub fn or_else(mut self, step: KeyOperation) -> Self {
        self.transaction.or_else.push(step);
        self
    }
}

impl IntoFuture for Transacting {
    type Output = Result<Transacted, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        async move {
            match self.client.write(Operation::Transact(self.transaction)).await? {
                Answer::Transacted(transacted) => Ok(transacted),
                other => Err(unexpected(&other)),
            }
        }
        .boxed()
    }
}
