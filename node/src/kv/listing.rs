//! Keys in order, page by page.

use std::future::IntoFuture;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, Stream, StreamExt as _, TryStreamExt as _, stream};
use protocol::Revision;
use protocol::state::{Answer, KeyPage, List, Query, Value};

use super::read;
use crate::client::{Client, unexpected};
use crate::error::Error;

/// Lists keys when it is awaited. Dropping the future withdraws the wait.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(kv: Kv) -> Result<(), Error> {
/// let page = kv.list("jobs/").keys_only().limit(100).await?;
/// if page.more {
///     let last = page.entries.last().map_or("", |(key, _)| key);
///     println!("and on from {last}: {:?}", kv.list("jobs/").after(last).await?);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is read until this is awaited"]
#[derive(Clone)]
pub struct Listing {
    client: Client,
    list: List,
    is_stale: bool,
}

/// Some keys in order.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// let page = client.kv().list("workers/").limit(10).await?;
/// println!("{} keys at {}, more: {}", page.entries.len(), page.revision, page.more);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The keys and their values.
    pub entries: Vec<(String, Value)>,
    /// Whether there are more after the last of these.
    pub more: bool,
    /// The revision at which all of this page is so.
    pub revision: Revision,
}

impl Listing {
    pub(super) fn new(client: Client, prefix: String) -> Self {
        Self { client, list: List { prefix, limit: PAGE, ..List::default() }, is_stale: false }
    }

    /// Begins after this key.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let page = client.kv().list("workers/").after("workers/w1").await?;
    /// # drop(page);
    /// # Ok(()) }
    /// ```
    pub fn after(mut self, key: impl Into<String>) -> Self {
        self.list.after = key.into();
        self
    }

    /// At most so many (1,000 unless told otherwise, and never more); fewer where values are large.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let page = client.kv().list("workers/").limit(10).await?;
    /// # drop(page);
    /// # Ok(()) }
    /// ```
    pub fn limit(mut self, limit: u32) -> Self {
        self.list.limit = limit;
        self
    }

    /// Without the values: they come empty.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let page = client.kv().list("workers/").keys_only().await?;
    /// # drop(page);
    /// # Ok(()) }
    /// ```
    pub fn keys_only(mut self) -> Self {
        self.list.keys_only = true;
        self
    }

    /// As far as the asked node has applied the log: it may miss the newest writes, and needs no quorum.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let page = client.kv().list("workers/").stale().await?; // also without a quorum
    /// # drop(page);
    /// # Ok(()) }
    /// ```
    pub fn stale(mut self) -> Self {
        self.is_stale = true;
        self
    }

    /// All keys, one after the other, a page at a time. Each page is read when it is reached and is of a revision of its own; for all
    /// keys at one revision and what changes after it, watch with a snapshot.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use futures_util::TryStreamExt;
    /// let mut all = std::pin::pin!(client.kv().list("workers/").stream());
    /// while let Some((key, _)) = all.try_next().await? {
    ///     println!("{key}");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn stream(self) -> impl Stream<Item = Result<(String, Value), Error>> + Send + 'static {
        let pages = stream::try_unfold(Some(self), |listing| async move {
            let Some(listing) = listing else { return Ok(None) };
            let page = listing.clone().await?;
            let last = page.entries.last().filter(|_| page.more).map(|(key, _)| key.clone());
            let next = last.map(|last| listing.after(last));
            Ok::<_, Error>(Some((stream::iter(page.entries).map(Ok), next)))
        });
        pages.try_flatten()
    }
}

impl IntoFuture for Listing {
    type Output = Result<Page, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        async move {
            match read(&self.client, Query::List(self.list), self.is_stale).await? {
                Answer::Keys(KeyPage { entries, more, at }) => Ok(Page { entries, more, revision: at }),
                other => Err(unexpected(&other)),
            }
        }
        .boxed()
    }
}

const PAGE: u32 = 1_000;
