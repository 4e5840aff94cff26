//! Counters: numbers that everybody adds to.

use std::future::IntoFuture;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use protocol::state::{Add, Answer, CounterOperation, Operation, Query};

use super::place::written;
use crate::client::{Client, unexpected};
use crate::error::Error;

/// A number of 64 bits; zero before anybody added to it. Made by [`Client::counter`].
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// let ids = client.counter("ids");
/// assert!(ids.add(1).await? <= ids.get().await?);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Counter {
    client: Client,
    name: Arc<str>,
}

/// Adds when it is awaited, and returns the sum.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// let sum = client.counter("ids").add(100).once("request-9").await?;
/// # let _ = sum;
/// # Ok(()) }
/// ```
#[must_use = "nothing is added until this is awaited"]
pub struct Addition {
    client: Client,
    add: Add,
}

impl Client {
    /// A counter.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let end = client.counter("ids").add(100).once("request-9").await?; // ids end-99 to end are ours
    /// # let _ = end;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn counter(&self, name: impl AsRef<str>) -> Counter {
        Counter { client: self.clone(), name: name.as_ref().into() }
    }
}

impl Counter {
    /// Adds. A sum that does not fit into 64 bits is refused.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let end = client.counter("ids").add(100).await?;
    /// println!("{} to {end} are ours", end - 99);
    /// # Ok(()) }
    /// ```
    pub fn add(&self, by: i64) -> Addition {
        Addition { client: self.client.clone(), add: Add { counter: self.name.clone(), by, once: None } }
    }

    /// The number.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// println!("{} so far", client.counter("ids").get().await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn get(&self) -> Result<i64, Error> {
        counted(self.client.read(Query::Counter(self.name.clone())).await?)
    }

    /// Removes the counter: it is zero again.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// client.counter("ids").remove().await?; // it is zero again
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if nobody added to it; see [`Error`].
    pub async fn remove(&self) -> Result<(), Error> {
        let operation = Operation::Counter(CounterOperation::Remove(self.name.clone()));
        written(self.client.write(operation).await?).map(drop)
    }
}

impl Addition {
    /// Adds once under this key: the same key again within an hour returns the first sum, and adds nothing.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let first = client.counter("ids").add(100).once("request-9").await?;
    /// let again = client.counter("ids").add(100).once("request-9").await?;
    /// assert_eq!(first, again); // within an hour
    /// # Ok(()) }
    /// ```
    pub fn once(mut self, key: impl AsRef<str>) -> Self {
        self.add.once = Some(key.as_ref().into());
        self
    }
}

impl IntoFuture for Addition {
    type Output = Result<i64, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { client, add } = self;
        async move { counted(client.write(Operation::Counter(CounterOperation::Add(add))).await?) }.boxed()
    }
}

fn counted(answer: Answer) -> Result<i64, Error> {
    match answer {
        Answer::Counted(counted) => Ok(counted.value),
        other => Err(unexpected(&other)),
    }
}
