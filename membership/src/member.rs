//! Members, and how the picture of them changes.
//!
//! The picture is a hint. It triggers work and chooses places; it never decides who holds a right.
//!
//! # Invariants
//!
//! * A [`View`] to which the events after it are applied equals the view of that moment (`Event::apply` does it).
//! * There is at most one member per node.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use protocol::{Epoch, Incarnation, Nanos, NodeId};

/// What other nodes must know of a node: its label, its HTTP address, its slots. Encoded, at most [`MAX_TAGS`] bytes.
pub type Tags = BTreeMap<String, String>;

/// The longest encoding of a node's tags, in bytes.
pub const MAX_TAGS: usize = 512;

/// One member as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// The run of its process.
    pub incarnation: Incarnation,
    /// Where its gossip is heard.
    pub addr: SocketAddr,
    /// Where its links are accepted.
    pub link: SocketAddr,
    /// How it is.
    pub state: MemberState,
    /// Since when it is so, on the clock of this membership (see `Membership::now`).
    pub since: Nanos,
    /// What it says of itself. Empty until its tags have arrived, which an [`Event::TagsChanged`] tells.
    pub tags: Arc<Tags>,
    /// How long its last answer to a direct probe of ours took.
    pub rtt: Option<Duration>,
}

/// How a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// It answers.
    Alive,
    /// Somebody misses its answer; it has not been declared down.
    Suspect,
    /// It was declared down and did not say that it leaves.
    Unreachable,
    /// It said that it leaves.
    Left,
}

impl MemberState {
    /// Whether the member still counts as present.
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
}

/// The whole picture at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Grows with every event; equal versions are equal pictures, but for round-trip times.
    pub version: u64,
    /// This node itself.
    pub me: Member,
    /// The others, including those that are down or left and not yet forgotten.
    pub members: BTreeMap<NodeId, Member>,
    /// The last word heard about who is master, by the highest epoch. A hint: the epoch check decides.
    pub master: Option<(Epoch, NodeId)>,
    /// Whether any other member is there.
    pub is_connected: bool,
    /// Whether another process with this node's identity was met; this one then has fallen silent.
    pub is_duplicate: bool,
}

impl View {
    /// The other members that are alive or merely suspected.
    pub fn active(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.state.is_active())
    }
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The whole picture: the first event, and again whenever the reader was so slow that events had to be dropped.
    Snapshot(Arc<View>),
    /// A member unknown until now.
    Joined(Member),
    /// Somebody misses this member's answer.
    Suspected(NodeId),
    /// The suspect answered.
    Refuted(NodeId),
    /// The member was declared down. It may be dead, cut off, or merely slow.
    Failed(Member),
    /// The member left of its own will.
    Left(Member),
    /// The member runs in a new process: every session of the old one is over.
    Restarted {
        /// The run that is over.
        old: Incarnation,
        /// The member as it is now.
        new: Member,
    },
    /// A member that had been declared down is back in the same process.
    Rejoined(Member),
    /// The tags of an active member arrived or changed; it may be this node itself.
    TagsChanged(Member),
    /// The member was down or left for so long that it is no longer listed.
    Forgotten(NodeId),
    /// Somebody announced a master of a higher epoch than was known here.
    Master {
        /// Its epoch.
        epoch: Epoch,
        /// The master.
        node: NodeId,
    },
    /// No other member is left.
    Isolated,
    /// The first other member is there.
    Connected,
    /// Another process bears this node's identity, in a later run. This one stops taking part.
    DuplicateNode(NodeId),
    /// Others had declared this node down; it took a new name and joins again. Its incarnation is unchanged.
    SelfDeclaredDown,
}

impl Event {
    /// Brings a view that was right before this event up to date.
    pub fn apply(&self, view: &mut View) {
        match self {
            Self::Snapshot(whole) => {
                *view = View::clone(whole);
                return;
            }
            Self::Joined(member) | Self::Failed(member) | Self::Left(member) => put(view, member),
            Self::Restarted { new, .. } => put(view, new),
            Self::TagsChanged(member) if member.node == view.me.node => view.me = member.clone(),
            Self::Rejoined(member) | Self::TagsChanged(member) => put(view, member),
            Self::Suspected(node) => set_state(view, *node, MemberState::Suspect),
            Self::Refuted(node) => set_state(view, *node, MemberState::Alive),
            Self::Forgotten(node) => {
                view.members.remove(node);
            }
            Self::Master { epoch, node } => view.master = Some((*epoch, *node)),
            Self::Isolated => view.is_connected = false,
            Self::Connected => view.is_connected = true,
            Self::DuplicateNode(_) => view.is_duplicate = true,
            Self::SelfDeclaredDown => {}
        }
        view.version += 1;
    }
}

fn put(view: &mut View, member: &Member) {
    view.members.insert(member.node, member.clone());
}

fn set_state(view: &mut View, node: NodeId, state: MemberState) {
    if let Some(member) = view.members.get_mut(&node) {
        member.state = state;
    }
}
