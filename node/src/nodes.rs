//! Which nodes take part, by the log, now and as it changes.
//!
//! # Invariants
//!
//! * A stream begins with a snapshot, and what follows brings that up to date. What was so for a moment only may be passed over; what is told
//!   was so.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt as _};
use protocol::SessionId;
use protocol::state::{NodeView, Query};

use crate::client::{Client, nodes};
use crate::error::Error;
use crate::recipes::place::long;

/// The nodes that have a session, as a stream that begins with all of them and tells what changes. Made by [`Client::members`], in a node or
/// outside of all.
///
/// While there is no quorum nothing is told; the stream goes on by itself.
///
/// ```no_run
/// # use tenure::prelude::*;
/// use tenure::NodeEvent;
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::connect("orders", ["127.0.0.1:7001"]).await?;
/// let mut members = client.members();
/// while let Some(event) = members.next().await {
///     match event? {
///         NodeEvent::Snapshot(all) => println!("{} nodes take part", all.len()),
///         NodeEvent::Up(node) => println!("{} takes part, in run {}", node.offer.label, node.incarnation),
///         NodeEvent::Changed(node) => println!("{} has {} slots now", node.offer.label, node.offer.slots),
///         NodeEvent::Down(node) => println!("{} is given no work any more", node.offer.label),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct NodeSessions {
    events: Pin<Box<dyn Stream<Item = Result<NodeEvent, Error>> + Send>>,
}

/// What happened to the session of a node.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// # use tenure::NodeEvent;
/// if let Some(NodeEvent::Snapshot(all)) = client.members().next().await.transpose()? {
///     println!("{} nodes take part", all.len());
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeEvent {
    /// All of them as they are: the first event.
    Snapshot(Vec<NodeView>),
    /// It began. A node that is back in another process has another one.
    Up(NodeView),
    /// The node offers something else: other labels, slots or kinds of task.
    Changed(NodeView),
    /// It ended: the node said goodbye, is back in another process, or was silent for too long. Its attempts are over.
    Down(NodeView),
}

impl NodeSessions {
    pub(crate) fn new(client: Client) -> Self {
        let following = Following { client, known: None, ready: VecDeque::new() };
        Self { events: Box::pin(futures_util::stream::unfold(Some(following), Following::next)) }
    }

    /// The next event; `None` after an error. Cancellation safe: what was not returned is returned by the next call.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let mut members = client.members();
    /// while let Some(event) = members.next().await {
    ///     println!("{:?}", event?);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn next(&mut self) -> Option<Result<NodeEvent, Error>> {
        self.events.next().await
    }
}

impl Stream for NodeSessions {
    type Item = Result<NodeEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_next_unpin(context)
    }
}

impl std::fmt::Debug for NodeSessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeSessions").finish_non_exhaustive()
    }
}

/// A stream under way.
struct Following {
    client: Client,
    /// What was told, once something was.
    known: Option<Vec<NodeView>>,
    ready: VecDeque<NodeEvent>,
}

impl Following {
    async fn next(following: Option<Self>) -> Option<(Result<NodeEvent, Error>, Option<Self>)> {
        let mut following = following?;
        loop {
            if let Some(event) = following.ready.pop_front() {
                return Some((Ok(event), Some(following)));
            }
            let query = match &following.known {
                None => Query::Nodes,
                Some(known) => Query::AwaitNodes { known: NodeView::sum(known) },
            };
            match long(&following.client, query).await.and_then(nodes) {
                Ok(now) => following.learn(now),
                Err(error) => return Some((Err(error), None)),
            }
        }
    }

    fn learn(&mut self, now: Vec<NodeView>) {
        match self.known.replace(now.clone()) {
            None => self.ready.push_back(NodeEvent::Snapshot(now)),
            Some(before) => self.ready.extend(differences(before, now)),
        }
    }
}

/// What leads from one list to another: first the sessions that ended, then the rest.
fn differences(before: Vec<NodeView>, now: Vec<NodeView>) -> impl Iterator<Item = NodeEvent> {
    let by_session = |views: Vec<NodeView>| -> BTreeMap<SessionId, NodeView> {
        views.into_iter().map(|view| (view.session, view)).collect()
    };
    let (mut before, now) = (by_session(before), by_session(now));
    let later: Vec<NodeEvent> = now
        .into_iter()
        .filter_map(|(session, view)| match before.remove(&session) {
            None => Some(NodeEvent::Up(view)),
            Some(earlier) => (earlier.offer != view.offer).then_some(NodeEvent::Changed(view)),
        })
        .collect();
    before.into_values().map(NodeEvent::Down).chain(later)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use protocol::state::Offer;
    use protocol::{Incarnation, NodeId};

    use super::*;

    fn view(session: u64, slots: u32, assigned: u32) -> NodeView {
        let (node, incarnation, session) = (NodeId(session / 10), Incarnation(session), SessionId(session));
        let offer = Offer { slots, ..Offer::default() };
        NodeView { node, incarnation, session, offer, ttl: Duration::from_secs(3), assigned }
    }

    #[test]
    fn a_difference_names_ends_before_beginnings_and_says_nothing_of_what_is_done() {
        let before = vec![view(10, 1, 0), view(20, 1, 0), view(30, 1, 0)];
        let now = vec![view(10, 1, 7), view(21, 1, 0), view(30, 4, 0)];
        let told: Vec<NodeEvent> = differences(before, now).collect();
        assert_eq!(
            told,
            [NodeEvent::Down(view(20, 1, 0)), NodeEvent::Up(view(21, 1, 0)), NodeEvent::Changed(view(30, 4, 0))]
        );
    }
}
