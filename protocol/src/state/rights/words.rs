//! What is said about rights: claims, their grants, and how a right is shown.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::types::{ClaimId, Fence, Revision, SessionId};

/// What a right is for: who may hold it together with whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RightKind {
    /// One writer, or any number of readers.
    Lock,
    /// One leader, which says something of itself.
    Election,
    /// As many permits as its limit.
    Semaphore,
    /// Everybody, each with a value: a list of who is here.
    Group,
    /// Nobody, until as many wait as it is for; then all of them at once.
    Barrier,
    /// One runner at a time, until one has settled it for ever.
    Once,
    /// One holder for every item; settled, the item is gone; released, it is back in its old place.
    Queue,
}

/// Names a right. Rights of different kinds have nothing to do with each other, whatever their names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RightId {
    /// What it is for.
    pub kind: RightKind,
    /// Its name.
    pub name: Arc<str>,
}

/// How a claim wants to hold its right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// Alone: of a lock, an election, a once, one item of a queue.
    Exclusive,
    /// Together with others who share: of a lock.
    Shared,
    /// A number of permits: of a semaphore.
    Permits {
        /// How many.
        count: u32,
        /// How many there are in all. Everybody who uses the semaphore at one time says the same.
        limit: u32,
    },
    /// One of many: of a group.
    Member,
    /// One of those that a barrier waits for.
    Party {
        /// How many it waits for. Everybody who uses the barrier at one time says the same.
        parties: u32,
    },
}

/// A wish for a right on behalf of a session, with which it ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// Which right.
    pub right: RightId,
    /// Who is to hold it: a live client session, any one.
    pub session: SessionId,
    /// How.
    pub mode: Mode,
    /// Shown beside the holder.
    pub value: Bytes,
    /// Whether to stand in line if it is not free. Otherwise that is refused with [`Refused::Held`].
    ///
    /// [`Refused::Held`]: crate::state::Refused::Held
    pub wait: bool,
}

/// What can be done with rights.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RightOperation {
    /// Claim a right. Answered with [`Answer::Claimed`].
    ///
    /// [`Answer::Claimed`]: crate::state::Answer::Claimed
    Claim(Claim),
    /// Give a right back, or the place in line for it. Answered with [`Answer::Ok`]. Refused with [`Refused::NotHeld`] if the
    /// claim stands and is another session's.
    ///
    /// [`Answer::Ok`]: crate::state::Answer::Ok
    /// [`Refused::NotHeld`]: crate::state::Refused::NotHeld
    Release {
        /// Which right.
        right: RightId,
        /// Whose claim.
        session: SessionId,
        /// The claim.
        claim: ClaimId,
    },
    /// Change the value beside a holder. Answered with [`Answer::Written`]; only while it holds the right.
    ///
    /// [`Answer::Written`]: crate::state::Answer::Written
    SetValue {
        /// Which right.
        right: RightId,
        /// Who holds it.
        session: SessionId,
        /// The holder's claim.
        claim: ClaimId,
        /// From now on.
        value: Bytes,
    },
    /// It is done: records the outcome of a once, for ever and for all who wait; removes the item of a queue. Answered with
    /// [`Answer::Written`]; only while the claim holds the right.
    ///
    /// [`Answer::Written`]: crate::state::Answer::Written
    Settle {
        /// Which right.
        right: RightId,
        /// Who holds it.
        session: SessionId,
        /// The holder's claim.
        claim: ClaimId,
        /// What came of it; nothing for a queue.
        outcome: Bytes,
    },
    /// Add an item to a queue. Answered with [`Answer::Written`]: the item's id.
    ///
    /// [`Answer::Written`]: crate::state::Answer::Written
    Push {
        /// Which queue.
        queue: Arc<str>,
        /// The item.
        value: Bytes,
        /// Higher goes first; among equals, older.
        priority: i32,
    },
    /// Forget the outcome of a once, or the items of a queue that nobody holds: as many as one step may (F28), so it is said again until
    /// there is nothing to forget. Answered with [`Answer::Written`].
    ///
    /// [`Answer::Written`]: crate::state::Answer::Written
    Forget(RightId),
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Claimed {
    /// Names it from now on.
    pub claim: ClaimId,
    /// The grant, if there was one at once.
    pub fence: Option<Fence>,
}

/// Where a claim stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ClaimState {
    /// In line.
    Waiting,
    /// Holds the right.
    Held(Grant),
    /// The right is settled, by this claim or another one: this is the outcome.
    Settled(Bytes),
    /// Over: released, ended with its session, or never made.
    Gone,
}

/// A right that was granted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grant {
    /// The grant's fence.
    pub fence: Fence,
    /// The first fence of those that were granted together with this one: whoever has it leads the round of a barrier.
    pub round: Fence,
    /// The item, of a queue.
    pub item: Option<Item>,
}

/// An item of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Item {
    /// The revision of its push.
    pub id: Revision,
    /// Higher goes first.
    pub priority: i32,
    /// The item.
    pub value: Bytes,
}

/// A right as it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RightView {
    /// The revision of the last change; zero if there is no record of it: nobody holds it or waits for it.
    pub revision: Revision,
    /// Who holds it, in the order of their fences. A page of them.
    pub holders: Vec<Holder>,
    /// Whether there are more holders after these.
    pub has_more: bool,
    /// How many claims are in line.
    pub waiting: u64,
    /// How many items of a queue nobody holds.
    pub items: u64,
    /// The outcome, if it is settled.
    pub settled: Option<Bytes>,
}

/// A right in a list.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RightLine {
    /// Which right.
    pub right: RightId,
    /// The revision of the last change.
    pub revision: Revision,
    /// Who holds it for the longest, and under which fence.
    pub first: Option<(SessionId, Fence)>,
    /// How many hold it.
    pub holders: u64,
    /// How many claims are in line.
    pub waiting: u64,
    /// How many items of a queue nobody holds.
    pub items: u64,
    /// Whether it is settled.
    pub is_settled: bool,
}

/// Who holds a right.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Holder {
    /// Its claim.
    pub claim: ClaimId,
    /// Its session.
    pub session: SessionId,
    /// How it holds the right.
    pub mode: Mode,
    /// The grant's fence.
    pub fence: Fence,
    /// The first fence of those that were granted together with this one.
    pub round: Fence,
    /// What it says of itself.
    pub value: Bytes,
}

/// What a change of a right means to those who wait.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RightChange {
    /// The right.
    pub right: RightId,
    /// Claims that were granted, in that order.
    pub granted: Vec<(ClaimId, Fence)>,
    /// Claims that are over, each with the session that it belonged to.
    pub ended: Vec<(ClaimId, SessionId)>,
}

impl RightId {
    /// Names a right.
    #[must_use]
    pub fn new(kind: RightKind, name: impl Into<Arc<str>>) -> Self {
        Self { kind, name: name.into() }
    }
}

impl std::str::FromStr for RightId {
    type Err = String;

    /// Reads what [`Display`](fmt::Display) shows: the kind, a space, the name.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{}` is no right: it is a kind and a name, such as `lock stock`", text.escape_debug());
        let (kind, name) = text.split_once(' ').filter(|(_, name)| !name.is_empty()).ok_or_else(wrong)?;
        Ok(Self::new(kind.parse()?, name))
    }
}

impl std::str::FromStr for RightKind {
    type Err = String;

    /// Reads what [`Display`](fmt::Display) shows.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.to_string() == text).ok_or_else(|| {
            let known: Vec<String> = Self::ALL.iter().map(ToString::to_string).collect();
            format!("`{}` is no kind of right; there are: {}", text.escape_debug(), known.join(", "))
        })
    }
}

impl RightKind {
    /// Every kind, in order.
    pub const ALL: [Self; 7] =
        [Self::Lock, Self::Election, Self::Semaphore, Self::Group, Self::Barrier, Self::Once, Self::Queue];
}

impl fmt::Display for RightId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

impl fmt::Display for RightKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lock => "lock",
            Self::Election => "election",
            Self::Semaphore => "semaphore",
            Self::Group => "group",
            Self::Barrier => "barrier",
            Self::Once => "once",
            Self::Queue => "queue",
        })
    }
}

impl RightOperation {
    /// Which right it is about.
    #[must_use]
    pub fn right(&self) -> RightId {
        match self {
            Self::Claim(Claim { right, .. })
            | Self::Release { right, .. }
            | Self::SetValue { right, .. }
            | Self::Settle { right, .. }
            | Self::Forget(right) => right.clone(),
            Self::Push { queue, .. } => RightId { kind: RightKind::Queue, name: queue.clone() },
        }
    }

    /// How many bytes its encoding takes at most.
    pub(crate) fn size(&self) -> usize {
        let content = match self {
            Self::Claim(Claim { value, .. }) | Self::SetValue { value, .. } | Self::Push { value, .. } => value.len(),
            Self::Settle { outcome, .. } => outcome.len(),
            Self::Release { .. } | Self::Forget(_) => 0,
        };
        70 + self.right().name.len() + content
    }
}
