//! The words of the protocol: identities, counters and times, each a type of its own so that none can stand in for
//! another.
//!
//! # Invariants
//!
//! * Every counter here only grows: an epoch, an index, a revision, an incarnation is never handed out twice.
//! * [`Nanos`] is one node's own boot clock and never crosses the wire as a point in time; [`ClusterTime`] is the
//!   replicated clock and is never read from a wall clock.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Defines a counter-like newtype over `u64` with the derives that every machine needs.
macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The value that follows this one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("a 64-bit counter does not run out"))
            }
        }

        impl From<u64> for $name {
            fn from(value: u64) -> Self {
                Self(value)
            }
        }
    };
}

/// Displays a newtype as its bare number, or with a letter in front of it.
macro_rules! display {
    ($name:ident, $format:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}

newtype! {
    /// A node (or an outside client) for as long as its data folder lives. Random, never zero, never reused: a node that
    /// lost its disk comes back under another one.
    NodeId
}
display!(NodeId, "{:016x}");

newtype! {
    /// One run of a node's process: greater than that of every earlier run over the same data folder.
    Incarnation
}
display!(Incarnation, "{}");

newtype! {
    /// An election term. At most one node is elected in it.
    Epoch
}
display!(Epoch, "{}");

newtype! {
    /// A place in the replicated log, counted from one. Indexes stay inside `consensus` and `replica`.
    Index
}
display!(Index, "{}");

newtype! {
    /// The replicated counter: every command that changes state takes the next value, every grant in it one of its own.
    Revision
}
display!(Revision, "{}");

newtype! {
    /// The revision of the grant of a right (mastership, attempt, lock, session). It grows with every grant, anywhere.
    Fence
}
display!(Fence, "{}");

newtype! {
    /// A task: a replicated counter, shown `t42`.
    TaskId
}
display!(TaskId, "t{}");

newtype! {
    /// A client's or node's replicated session: the revision of the command that opened it.
    SessionId
}
display!(SessionId, "s{}");

newtype! {
    /// A client's wish for a right, granted or in line: the revision of the command that made it.
    ClaimId
}
display!(ClaimId, "c{}");

newtype! {
    /// A request of one client session, counted from one without gaps.
    Seq
}
display!(Seq, "{}");

newtype! {
    /// Nanoseconds on one node's boot clock (it counts suspend). Only differences mean anything, and only on that node.
    Nanos
}

newtype! {
    /// Milliseconds of replicated time: it advances with the log and stands still while nobody leads.
    ClusterTime
}
display!(ClusterTime, "{}");

/// An entry's place and the epoch it was written in. Ordered as logs are compared: epoch first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogId {
    /// The epoch of the leader that wrote the entry.
    pub epoch: Epoch,
    /// The entry's place.
    pub index: Index,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.epoch)
    }
}

/// A cluster's identity: drawn by its founder, part of the genesis. Zero means "in no cluster yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(pub u128);

impl ClusterId {
    /// The value of a node that is in no cluster yet.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The n-th run of a task, shown `t42#2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// The task.
    pub task: TaskId,
    /// Which run of it, counted from one.
    pub number: u32,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.task, self.number)
    }
}

impl From<Revision> for Fence {
    fn from(revision: Revision) -> Self {
        Self(revision.0)
    }
}

impl From<Revision> for SessionId {
    fn from(revision: Revision) -> Self {
        Self(revision.0)
    }
}

impl Nanos {
    /// A point in time so late that it never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// How long ago `earlier` was; zero if it has not come yet.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Nanos {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Nanos {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl ClusterTime {
    /// A point in time so late that it never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// How long it is since `earlier`; nothing if that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for ClusterTime {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}
