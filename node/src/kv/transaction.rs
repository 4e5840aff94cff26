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
pub struct KeyIs(String);

/// A condition on a key.
pub fn rev_of(key: impl Into<String>) -> KeyIs {
    KeyIs(key.into())
}

/// Holds while a session lives.
#[must_use]
pub fn is_live(session: &Session) -> Condition {
    Condition::Lives(session.id())
}

/// Holds while a right does: whoever lost it in the meantime changes nothing, however late the transaction arrives.
#[must_use]
pub fn held(guard: &impl Guard) -> Condition {
    guard.condition()
}

/// A step that reads a key, as the steps before it left it.
pub fn get(key: impl Into<String>) -> KeyOperation {
    KeyOperation::Get(key.into())
}

/// A step that sets a key.
pub fn put(key: impl Into<String>, value: impl Into<Bytes>) -> KeyOperation {
    KeyOperation::Put(Put::new(key, value))
}

/// A step that removes a key; one that is not there is no failure.
pub fn delete(key: impl Into<String>) -> KeyOperation {
    KeyOperation::Delete(Delete { key: key.into(), expect: Expect::Any })
}

impl KeyIs {
    /// Holds if the key is at this revision; at revision zero: if there is no such key.
    #[must_use]
    pub fn eq(self, revision: Revision) -> Condition {
        Condition::Key { key: self.0, expect: at(revision) }
    }

    /// Holds if there is no such key.
    #[must_use]
    pub fn is_absent(self) -> Condition {
        Condition::Key { key: self.0, expect: Expect::Absent }
    }

    /// Holds if there is such a key.
    #[must_use]
    pub fn is_present(self) -> Condition {
        Condition::Key { key: self.0, expect: Expect::Present }
    }

    /// Holds if the key has exactly this value.
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
    pub fn when(mut self, condition: Condition) -> Self {
        self.transaction.when.push(condition);
        self
    }

    /// One more step, done if all conditions hold.
    pub fn then(mut self, step: KeyOperation) -> Self {
        self.transaction.then.push(step);
        self
    }

    /// One more step, done if one does not.
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
