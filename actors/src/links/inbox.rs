//! Where everything arrives: one queue of events and messages, whose length the windows bound.
//!
//! # Invariants
//!
//! * Taking a message off is what gives its credit back; a consumer that stops taking stops its peers.
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

    /// The next event; `None` after the links were shut down.
    pub async fn recv(&mut self) -> Option<LinkEvent> {
        loop {
            match self.items.recv().await {
                None | Some(Item::End) => return None,
                Some(item) => {
                    if let Some(event) = self.open(item) {
                        return Some(event);
                    }
                }
            }
        }
    }

    /// The next event, if one is there already.
    pub fn try_recv(&mut self) -> Option<LinkEvent> {
        while let Ok(item) = self.items.try_recv() {
            if let Some(event) = self.open(item) {
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

    fn open(&mut self, item: Item) -> Option<LinkEvent> {
        match item {
            Item::End => {
                self.items.close();
                None
            }
            Item::Event(event) => Some(event),
            Item::Message { link, .. } if link.is_superseded() => {
                self.common.counters.count(Dropped::Stale);
                None
            }
            Item::Message { link, class, body, held } => {
                link.free(class, held);
                Some(LinkEvent::Message { peer: link.peer, class, body })
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
