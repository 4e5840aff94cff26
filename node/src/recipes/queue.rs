//! Queues: items that one after the other takes, and that nobody loses.

use std::future::IntoFuture;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use protocol::Revision;
use protocol::state::{Mode, Operation, RightId, RightKind, RightOperation};

use super::hold::{Acquire, Hold};
use super::place::{Patience, written};
use super::watch::look;
use crate::client::Client;
use crate::error::Error;

/// A queue of items. Made by [`Client::queue`].
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// let thumbs = client.queue("thumbs");
/// thumbs.push("holiday.png").await?;
/// thumbs.pop().await?.done().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Queue {
    client: Client,
    right: RightId,
}

/// An item that was taken. Unless it is [done](Taken::done), it goes back to its old place: when it is dropped, in the background; when
/// its process dies, with its session.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// let item = client.queue("thumbs").pop().await?;
/// println!("{:?}, under fence {}", item.value(), item.fence());
/// item.done().await?;
/// # Ok(()) }
/// ```
#[must_use = "an item goes back when it is dropped"]
#[derive(Debug)]
pub struct Taken {
    pub(super) hold: Hold,
}

/// Adds an item when it is awaited.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// let revision = client.queue("thumbs").push("holiday.png").priority(5).await?;
/// # let _ = revision;
/// # Ok(()) }
/// ```
#[must_use = "nothing is added until this is awaited"]
pub struct Push {
    queue: Queue,
    value: Bytes,
    priority: i32,
}

impl Client {
    /// A queue.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let queue = client.queue("thumbnails");
    /// queue.push("img-42").await?;
    /// let taken = queue.pop().await?;
    /// println!("{:?}", taken.value());
    /// taken.done().await?; // without this, somebody else gets it
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn queue(&self, name: impl AsRef<str>) -> Queue {
        Queue { client: self.clone(), right: RightId::new(RightKind::Queue, name.as_ref()) }
    }
}

impl Queue {
    /// Adds an item. Awaited, it returns the item's revision.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// client.queue("thumbs").push("holiday.png").await?;
    /// # Ok(()) }
    /// ```
    pub fn push(&self, value: impl Into<Bytes>) -> Push {
        Push { queue: self.clone(), value: value.into(), priority: 0 }
    }

    /// Takes the first item, as soon as there is one and nobody else is before us.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let item = client.queue("thumbs").pop().await?; // waits for one
    /// # drop(item);
    /// # Ok(()) }
    /// ```
    pub fn pop(&self) -> Acquire<Taken> {
        let make = |hold| Taken { hold };
        Acquire::new(&self.client, self.right.clone(), Mode::Exclusive, Patience::Endless, make)
    }

    /// How many items nobody has taken.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// println!("{} wait for somebody", client.queue("thumbs").waiting_items().await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn waiting_items(&self) -> Result<u64, Error> {
        Ok(look(&self.client, &self.right).await?.items)
    }
}

impl Push {
    /// Higher goes first; among equals, older. Zero unless told otherwise.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// client.queue("thumbs").push("urgent.png").priority(5).await?; // before all with less
    /// # Ok(()) }
    /// ```
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }
}

impl IntoFuture for Push {
    type Output = Result<Revision, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { queue: Queue { client, right }, value, priority } = self;
        let operation = RightOperation::Push { queue: right.name, value, priority };
        async move { written(client.write(Operation::Right(operation)).await?) }.boxed()
    }
}

impl Taken {
    /// The item.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let item = client.queue("thumbs").pop().await?;
    /// println!("{:?}", item.value());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn value(&self) -> &Bytes {
        static NOTHING: Bytes = Bytes::new();
        self.hold.grant().item.as_ref().map_or(&NOTHING, |item| &item.value)
    }

    /// The item's revision: equal whoever takes it, however often.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let item = client.queue("thumbs").pop().await?;
    /// let name = format!("thumbs/{}.png", item.id()); // the same whoever takes it
    /// # drop(name);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn id(&self) -> Revision {
        self.hold.grant().item.as_ref().map_or(Revision(0), |item| item.id)
    }

    /// The item is dealt with: nobody gets it any more.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// client.queue("thumbs").pop().await?.done().await?; // nobody gets it any more
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NotHeld`] if the session is over, and somebody else has the item or will get it; see [`Error`].
    pub async fn done(self) -> Result<(), Error> {
        self.hold.settle(Bytes::new()).await.map(drop)
    }

    /// Puts the item back to its old place.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// client.queue("thumbs").pop().await?.give_back().await?; // in its old place
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Error`]. It goes back in any case, at the latest with its session.
    pub async fn give_back(self) -> Result<(), Error> {
        self.hold.release().await
    }
}
