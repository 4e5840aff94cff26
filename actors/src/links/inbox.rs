//! Where everything arrives: one queue of events and messages, whose length the windows bound.
//!
//! # Invariants
//!
//! * Dropping the [`Credit`] that came with a message is what opens its peer's window again. Whoever keeps it until the
//!   message is handled, and not only queued elsewhere, extends the bound of the windows over all queues behind.
//! * A message of a link that a newer one replaced is dropped here, whenever it was queued.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedReceiver;

use super::counts::Dropped;
use super::link::{Common, Link};
use super::window::Total;
use super::{Class, LinkEvent};

/// The receiving end of all links of a process.
pub struct Inbox {
    items: UnboundedReceiver<Item>,
    common: Arc<Common>,
}

/// The part of a peer's window that a message holds, given back on drop. What holds none is free.
#[derive(Default)]
pub struct Credit(Option<(Arc<Link>, Class, Total)>);

impl Drop for Credit {
    fn drop(&mut self) {
        if let Some((link, class, held)) = self.0.take() {
            link.free(class, held);
        }
    }
}

/// What waits in the inbox.
pub(super) enum Item {
    Event(LinkEvent),
    Message {
        link: Arc<Link>,
        class: Class,
        body: Bytes,
        /// The credit to give back.
        held: Total,
    },
    /// The links are shut down.
    End,
}

impl Inbox {
    pub(super) fn new(items: UnboundedReceiver<Item>, common: Arc<Common>) -> Self {
        Self { items, common }
    }

    /// The next event; `None` after the links were shut down. If it is a message, its credit is given back.
    pub async fn recv(&mut self) -> Option<LinkEvent> {
        self.take().await.map(|(event, _)| event)
    }

    /// The next event, and what it holds of its peer's window; `None` after the links were shut down.
    pub async fn take(&mut self) -> Option<(LinkEvent, Credit)> {
        loop {
            match self.items.recv().await {
                None | Some(Item::End) => return None,
                Some(item) => {
                    if let Some(taken) = self.open(item) {
                        return Some(taken);
                    }
                }
            }
        }
    }

    /// The next event, if one is there already.
    pub fn try_recv(&mut self) -> Option<LinkEvent> {
        while let Ok(item) = self.items.try_recv() {
            if let Some((event, _)) = self.open(item) {
                return Some(event);
            }
        }
        None
    }

    /// How many events and messages wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Does nothing wait?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn open(&mut self, item: Item) -> Option<(LinkEvent, Credit)> {
        match item {
            Item::End => {
                self.items.close();
                None
            }
            Item::Event(event) => Some((event, Credit::default())),
            Item::Message { link, .. } if link.is_superseded() => {
                self.common.counters.count(Dropped::Stale);
                None
            }
            Item::Message { link, class, body, held } => {
                let event = LinkEvent::Message { peer: link.peer, class, body };
                Some((event, Credit(Some((link, class, held)))))
            }
        }
    }
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Event(event) => event.fmt(f),
            Self::Message { link, body, .. } => write!(f, "{} bytes from {}", body.len(), link.peer.node),
            Self::End => f.write_str("end"),
        }
    }
}
