//! Who is here, now and as it changes.
//!
//! # Invariants
//!
//! * A stream begins with a snapshot, and what follows brings that up to date: nothing is skipped. A reader so slow that events had to
//!   be dropped gets a new snapshot.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt as _};
use membership::{Event, MemberState, Membership, View};
use protocol::NodeId;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::gossip;
use crate::site::Member;

/// Whom a node sees by gossip, itself included: [`snapshot`](Members::snapshot) shows it at once, and as a stream it tells what changes.
/// It is a hint: no right rests on it.
///
/// ```no_run
/// # use tenure::prelude::*;
/// use tenure::MemberEvent;
/// # async fn example(node: Node) {
/// println!("{} nodes now", node.members().snapshot().len());
/// let mut members = node.members();
/// while let Some(event) = members.next().await {
///     match event {
///         MemberEvent::Snapshot(all) => println!("{} nodes are here", all.len()),
///         MemberEvent::Up(member) => println!("{} is here", member.name),
///         MemberEvent::Suspect(member) => println!("{} missed a probe", member.name),
///         MemberEvent::Down(member) => println!("{} does not answer any more", member.name),
///         MemberEvent::Left(member) => println!("{} said goodbye", member.name),
///         _ => {} // it says something else of itself, or is listed no more
///     }
/// }
/// # }
/// ```
pub struct Members {
    membership: Membership,
    events: Pin<Box<dyn Stream<Item = MemberEvent> + Send>>,
}

/// What happened to a member.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(node: Node) -> Result<(), Error> {
/// # use tenure::MemberEvent;
/// let mut members = node.members();
/// if let Some(MemberEvent::Snapshot(all)) = members.next().await {
///     println!("{} nodes are here", all.len());
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum MemberEvent {
    /// All of them as they are: the first event, and again whenever the reader was too slow to be told each change.
    Snapshot(Vec<Member>),
    /// It is here: for the first time, in a new process, again after it was down, or after it was suspected in vain.
    Up(Member),
    /// It missed a probe.
    Suspect(Member),
    /// It does not answer. It may be dead, cut off, or merely slow.
    Down(Member),
    /// It said goodbye.
    Left(Member),
    /// It says something else of itself: its name, where it serves HTTP, or what it is to the log.
    Changed(Member),
    /// It was down or had left for so long that it is not listed any more.
    Forgotten(NodeId),
}

/// What gossip told a node, for all who listen.
pub(crate) struct Sightings {
    view: Mutex<View>,
    events: broadcast::Sender<MemberEvent>,
}

impl Members {
    /// Whom the node sees now, itself first.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(node: Node) -> Result<(), Error> {
    /// for member in node.members().snapshot() {
    ///     println!("{} at {}", member.name, member.link);
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> Vec<Member> {
        gossip::members(&self.membership)
    }

    /// The next event; `None` when the node has stopped. Cancellation safe: what was not returned is returned by the next call.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(node: Node) -> Result<(), Error> {
    /// let mut members = node.members();
    /// while let Some(event) = members.next().await {
    ///     println!("{event:?}");
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn next(&mut self) -> Option<MemberEvent> {
        self.events.next().await
    }
}

impl Stream for Members {
    type Item = MemberEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<MemberEvent>> {
        self.events.poll_next_unpin(context)
    }
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Members").field("members", &self.snapshot().len()).finish_non_exhaustive()
    }
}

impl Sightings {
    /// Begins with what membership knows.
    pub(crate) fn new(membership: &Membership) -> Self {
        Self { view: Mutex::new(View::clone(&membership.members())), events: broadcast::Sender::new(EVENTS) }
    }

    /// Something happened.
    pub(crate) fn note(&self, event: &Event) {
        let mut view = self.lock();
        event.apply(&mut view);
        if let Some(event) = told(event, &view) {
            // Nobody may be listening.
            let _ = self.events.send(event);
        }
    }

    /// Everything from now on, beginning with a snapshot.
    pub(crate) fn members(self: &Arc<Self>, membership: &Membership) -> Members {
        let state = Listening { sightings: Arc::downgrade(self), ready: VecDeque::new(), events: None };
        let events = futures_util::stream::unfold(state, Listening::next);
        Members { membership: membership.clone(), events: Box::pin(events) }
    }

    /// What is, and what happens from then on.
    fn listen(&self) -> (MemberEvent, broadcast::Receiver<MemberEvent>) {
        let view = self.lock();
        (MemberEvent::Snapshot(gossip::rows(&view)), self.events.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream under way. It does not keep the node's side alive, so that it ends with the node.
struct Listening {
    sightings: std::sync::Weak<Sightings>,
    ready: VecDeque<MemberEvent>,
    events: Option<broadcast::Receiver<MemberEvent>>,
}

impl Listening {
    async fn next(mut self) -> Option<(MemberEvent, Self)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((event, self));
            }
            let told = match &mut self.events {
                Some(events) => events.recv().await,
                None => Err(RecvError::Lagged(0)),
            };
            match told {
                Ok(event) => return Some((event, self)),
                Err(RecvError::Closed) => return None,
                Err(RecvError::Lagged(_)) => {
                    let (snapshot, events) = self.sightings.upgrade()?.listen();
                    self.events = Some(events);
                    self.ready.push_back(snapshot);
                }
            }
        }
    }
}

/// What an event means to an application, in a view that knows of it.
fn told(event: &Event, view: &View) -> Option<MemberEvent> {
    let listed = |node: &NodeId| view.members.get(node).map(gossip::row);
    Some(match event {
        Event::Snapshot(view) => MemberEvent::Snapshot(gossip::rows(view)),
        Event::Joined(member) | Event::Rejoined(member) | Event::Restarted { new: member, .. } => {
            MemberEvent::Up(gossip::row(member))
        }
        Event::Refuted(node) => MemberEvent::Up(listed(node)?),
        Event::Suspected(node) => MemberEvent::Suspect(listed(node)?),
        Event::Failed(member) => MemberEvent::Down(gossip::row(member)),
        Event::Left(member) => MemberEvent::Left(gossip::row(member)),
        // Tags of a member that is down are no news of it.
        Event::TagsChanged(member) if member.state == MemberState::Alive || member.state == MemberState::Suspect => {
            MemberEvent::Changed(gossip::row(member))
        }
        Event::Forgotten(node) => MemberEvent::Forgotten(*node),
        Event::TagsChanged(_)
        | Event::Master { .. }
        | Event::Isolated
        | Event::Connected
        | Event::DuplicateNode(_)
        | Event::SelfDeclaredDown => return None,
    })
}

/// How many events a reader may be behind before it gets a snapshot instead.
const EVENTS: usize = 256;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use membership::Config;
    use protocol::Incarnation;

    use super::*;

    fn membership() -> Membership {
        let link = SocketAddr::from(([127, 0, 0, 1], 9));
        Membership::start(Config::loopback(NodeId(1), Incarnation(1), "test", link)).unwrap().0
    }

    fn other(membership: &Membership, state: MemberState) -> membership::Member {
        membership::Member { node: NodeId(2), state, ..membership.members().me.clone() }
    }

    #[tokio::test]
    async fn a_stream_begins_with_a_snapshot_and_tells_every_change_until_the_node_stops() {
        let membership = membership();
        let sightings = Arc::new(Sightings::new(&membership));
        let mut members = sightings.members(&membership);
        let Some(MemberEvent::Snapshot(all)) = members.next().await else { panic!("no snapshot") };
        assert_eq!(all.iter().map(|member| member.node).collect::<Vec<_>>(), [NodeId(1)]);
        let alive = other(&membership, MemberState::Alive);
        sightings.note(&Event::Joined(alive.clone()));
        sightings.note(&Event::Suspected(NodeId(2)));
        sightings.note(&Event::Refuted(NodeId(2)));
        sightings.note(&Event::Failed(other(&membership, MemberState::Unreachable)));
        sightings.note(&Event::Forgotten(NodeId(2)));
        assert!(matches!(members.next().await, Some(MemberEvent::Up(member)) if member.node == NodeId(2)));
        assert!(matches!(members.next().await, Some(MemberEvent::Suspect(_))));
        assert!(matches!(members.next().await, Some(MemberEvent::Up(_))));
        assert!(matches!(members.next().await, Some(MemberEvent::Down(_))));
        assert_eq!(members.next().await, Some(MemberEvent::Forgotten(NodeId(2))));
        drop(sightings);
        assert_eq!(members.next().await, None);
    }

    #[tokio::test]
    async fn a_reader_that_is_too_slow_gets_a_snapshot_and_goes_on() {
        let membership = membership();
        let sightings = Arc::new(Sightings::new(&membership));
        let mut members = sightings.members(&membership);
        assert!(matches!(members.next().await, Some(MemberEvent::Snapshot(_))));
        sightings.note(&Event::Joined(other(&membership, MemberState::Alive)));
        for _ in 0..EVENTS {
            sightings.note(&Event::Suspected(NodeId(2)));
            sightings.note(&Event::Refuted(NodeId(2)));
        }
        let Some(MemberEvent::Snapshot(all)) = members.next().await else { panic!("no snapshot") };
        assert_eq!(all.len(), 2);
        sightings.note(&Event::Left(other(&membership, MemberState::Left)));
        assert!(matches!(members.next().await, Some(MemberEvent::Left(_))));
    }
}
