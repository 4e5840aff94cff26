//! What happens to keys, as a stream.
//!
//! The stream asks again after what it was told last, at whatever node is reachable, so a node or link that breaks makes it pause and
//! never skip. A snapshot comes in pages, each of a revision of its own; changes go on after the revision of the first page, and what a
//! page shows already is left out.

use std::collections::VecDeque;
use std::future::IntoFuture;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
use protocol::Revision;
use protocol::state::{Changes, KeyChange, KeyEnd, KeyEvent, Value};

use super::listing::{Listing, Page};
use crate::client::Client;
use crate::error::Error;

/// Begins to watch when it is awaited.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// # use tenure::Revision;
/// let watch = client.kv().watch("workers/").from(Revision(120)).await?;
/// # drop(watch);
/// # Ok(()) }
/// ```
#[must_use = "nothing is watched until this is awaited"]
pub struct Watching {
    client: Client,
    prefix: String,
    after: Option<Revision>,
    has_snapshot: bool,
}

/// A watch under way. Dropping it ends it.
///
/// ```no_run
/// # use tenure::prelude::*;
/// use tenure::kv::WatchEvent;
/// # async fn example(kv: Kv) -> Result<(), Error> {
/// let mut watch = kv.watch("workers/").with_snapshot().await?;
/// while let Some(event) = watch.next().await {
///     match event? {
///         WatchEvent::Snapshot(page) => page.entries.iter().for_each(|(key, _)| println!("{key} is here")),
///         WatchEvent::Put { key, .. } => println!("{key} was set"),
///         WatchEvent::Delete { key, why, .. } => println!("{key} is gone: {why:?}"),
///         WatchEvent::Resync { .. } => println!("a snapshot follows: forget what you know"),
///         _ => {} // nothing happened for a while
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a watch ends when it is dropped"]
pub struct Watch {
    events: BoxStream<'static, Result<Told, Error>>,
}

/// An event, as whoever passes it on must know it.
pub(crate) struct Told {
    pub(crate) event: WatchEvent,
    /// Whether it is the last one of its revision.
    pub(crate) is_last: bool,
}

/// What a watch tells.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// # use tenure::kv::WatchEvent;
/// let mut watch = client.kv().watch("workers/").await?;
/// if let Some(WatchEvent::Delete { key, why, .. }) = watch.next().await.transpose()? {
///     println!("{key} is gone: {why:?}");
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// What is there, in pages of a revision each; the last one has `more: false`.
    Snapshot(Page),
    /// A key was set.
    Put {
        /// The key.
        key: String,
        /// What it holds from now on; `modified` is the revision.
        value: Value,
    },
    /// A key is gone.
    Delete {
        /// The key.
        key: String,
        /// Why.
        why: KeyEnd,
        /// The revision.
        revision: Revision,
    },
    /// Nothing happened for a while: everything up to this revision was told.
    Progress {
        /// The revision.
        revision: Revision,
    },
    /// What happened up to this revision is forgotten. Whoever watches with a snapshot gets one next; whoever does not goes on here.
    Resync {
        /// The revision.
        revision: Revision,
    },
}

impl WatchEvent {
    fn revision(&self) -> Revision {
        match self {
            Self::Snapshot(page) => page.revision,
            Self::Put { value, .. } => value.modified,
            Self::Delete { revision, .. } | Self::Progress { revision } | Self::Resync { revision } => *revision,
        }
    }
}

impl Watching {
    pub(super) fn new(client: Client, prefix: String) -> Self {
        Self { client, prefix, after: None, has_snapshot: false }
    }

    /// First what is there, then what changes, without a gap between the two. Together with [`Watching::from`], what is there
    /// comes only if the changes since then are forgotten.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let watch = client.kv().watch("workers/").with_snapshot().await?; // first what is there
    /// # drop(watch);
    /// # Ok(()) }
    /// ```
    pub fn with_snapshot(mut self) -> Self {
        self.has_snapshot = true;
        self
    }

    /// What happened after this revision, if that is remembered: else [`WatchEvent::Resync`] comes first.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let written = client.kv().put("workers/w1", "here").await?;
    /// let watch = client.kv().watch("workers/").from(written).await?; // what happened after that
    /// # drop(watch);
    /// # Ok(()) }
    /// ```
    pub fn from(mut self, revision: Revision) -> Self {
        self.after = Some(revision);
        self
    }
}

impl IntoFuture for Watching {
    type Output = Result<Watch, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        async move {
            let reading = (self.has_snapshot && self.after.is_none()).then(Reading::default);
            let after = match self.after {
                Some(revision) => revision,
                None if self.has_snapshot => Revision(0),
                None => newest(&self.client).await?,
            };
            let mut watcher = Watcher { reading, ..Watcher::new(self.client, self.prefix, self.has_snapshot, after) };
            // What happens from here on is told as it happens, however late somebody looks.
            watcher.read().await?;
            Ok(Watch { events: stream::unfold(watcher, Watcher::next).boxed() })
        }
        .boxed()
    }
}

impl Watch {
    /// The next event. Cancellation safe: what was not returned is returned by the next call. After an error that waiting does not mend
    /// the watch ends.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let mut watch = client.kv().watch("workers/").await?;
    /// while let Some(event) = watch.next().await {
    ///     println!("{:?}", event?);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn next(&mut self) -> Option<Result<WatchEvent, Error>> {
        self.events.next().await.map(|told| told.map(|told| told.event))
    }

    pub(crate) fn told(self) -> BoxStream<'static, Result<Told, Error>> {
        self.events
    }
}

impl Stream for Watch {
    type Item = Result<WatchEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_next_unpin(context).map(|told| told.map(|told| told.map(|told| told.event)))
    }
}

/// The state of a watch.
struct Watcher {
    client: Client,
    prefix: String,
    has_snapshot: bool,
    /// Everything up to here was told, or is in a page.
    after: Revision,
    /// The snapshot under way.
    reading: Option<Reading>,
    /// Up to which key which revision is told by pages, until the changes have passed them all.
    pages: Vec<(String, Revision)>,
    ready: VecDeque<WatchEvent>,
    has_failed: bool,
}

/// How far a snapshot is.
#[derive(Default)]
struct Reading {
    /// The last key that was shown.
    last: Option<String>,
}

impl Watcher {
    fn new(client: Client, prefix: String, has_snapshot: bool, after: Revision) -> Self {
        let (pages, ready) = (Vec::new(), VecDeque::new());
        Self { client, prefix, has_snapshot, after, reading: None, pages, ready, has_failed: false }
    }

    async fn next(mut self) -> Option<(Result<Told, Error>, Self)> {
        if self.has_failed {
            return None;
        }
        loop {
            if let Some(event) = self.ready.pop_front() {
                // An answer has whole revisions.
                let is_last = self.ready.front().is_none_or(|next| next.revision() != event.revision());
                return Some((Ok(Told { event, is_last }), self));
            }
            let step = if self.reading.is_some() { self.read().await } else { self.ask().await };
            match step {
                Ok(()) => {}
                // Nothing is lost by waiting: the next question begins where the last answer ended.
                Err(error) if error.is_retryable() => tokio::time::sleep(PAUSE).await,
                Err(error) => {
                    self.has_failed = true;
                    return Some((Err(error), self));
                }
            }
        }
    }

    /// The next page of the snapshot.
    async fn read(&mut self) -> Result<(), Error> {
        let Some(Reading { last }) = &self.reading else { return Ok(()) };
        let listing = Listing::new(self.client.clone(), self.prefix.clone());
        let page = listing.after(last.clone().unwrap_or_default()).await?;
        if last.is_none() {
            self.after = page.revision;
        }
        self.reading = None;
        if let Some((key, _)) = page.entries.last().filter(|_| page.more) {
            self.pages.push((key.clone(), page.revision));
            self.reading = Some(Reading { last: Some(key.clone()) });
        } else {
            // The last page speaks of all keys behind it.
            self.pages.push((END.into(), page.revision));
        }
        self.ready.push_back(WatchEvent::Snapshot(page));
        Ok(())
    }

    /// What happened since.
    async fn ask(&mut self) -> Result<(), Error> {
        match self.client.changes(&self.prefix, self.after, PATIENCE).await {
            Ok(Changes { changes, next }) => {
                self.after = next;
                let has_told = !changes.is_empty();
                let news: Vec<KeyChange> = changes.into_iter().filter(|change| !self.is_in_a_page(change)).collect();
                self.ready.extend(news.into_iter().map(event));
                if !has_told {
                    self.ready.push_back(WatchEvent::Progress { revision: next });
                }
                if self.pages.iter().all(|(_, revision)| *revision <= next) {
                    self.pages.clear();
                }
                Ok(())
            }
            Err(Error::Compacted { oldest }) => {
                self.ready.push_back(WatchEvent::Resync { revision: oldest });
                self.after = oldest;
                self.pages.clear();
                self.reading = self.has_snapshot.then(Reading::default);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn is_in_a_page(&self, change: &KeyChange) -> bool {
        let page = self.pages.iter().find(|(last, _)| last == END || *change.key <= **last);
        page.is_some_and(|(_, revision)| change.revision <= *revision)
    }
}

fn event(change: KeyChange) -> WatchEvent {
    let key = change.key.to_string();
    match change.what {
        KeyEvent::Put(value) => WatchEvent::Put { key, value },
        KeyEvent::Deleted(why) => WatchEvent::Delete { key, why, revision: change.revision },
    }
}

/// The newest revision that is acknowledged.
async fn newest(client: &Client) -> Result<Revision, Error> {
    Ok(Listing::new(client.clone(), String::new()).keys_only().limit(1).await?.revision)
}

/// Stands for the end of all keys: no key is empty.
const END: &str = "";

/// How long one question waits, longer than a node lets it wait without an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Before a question that failed is asked again.
const PAUSE: Duration = Duration::from_millis(100);
