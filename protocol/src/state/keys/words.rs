//! What may be asked of keys, and what is answered and told.
//!
//! # Invariants
//!
//! * A key belongs to one session at most, and it goes with it; a write without an owner makes it stay.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::state::RightId;
use crate::types::{ClusterTime, Fence, Revision, SessionId};

/// Set a key. Answered with the write's revision; a sequence with its key too.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Put {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// Only if.
    pub expect: Expect,
    /// The live session that the key goes with. Without one the key stays, even if it belonged to a session before.
    pub owner: Option<SessionId>,
    /// The key goes after this long in cluster time. Without one it stays, even if it was to go before.
    pub ttl: Option<Duration>,
    /// The revision of this write, in twenty digits, is added to the key: names in the order of their making.
    pub sequence: bool,
}

impl Put {
    /// Sets a key for good, whatever is there.
    pub fn new(key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        let (key, value, expect) = (key.into(), value.into(), Expect::Any);
        Self { key, value, expect, owner: None, ttl: None, sequence: false }
    }

    /// An upper bound of its encoding, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        80 + self.key.len() + self.value.len()
    }

    /// The key that a write at this revision sets.
    #[must_use]
    pub fn key_at(&self, revision: Revision) -> String {
        if self.sequence { format!("{}{:0SEQUENCE_DIGITS$}", self.key, revision.0) } else { self.key.clone() }
    }
}

/// Remove a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Delete {
    /// The key.
    pub key: String,
    /// Only if.
    pub expect: Expect,
}

/// The precondition of a write to a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Expect {
    /// Whatever is there.
    #[default]
    Any,
    /// Nothing is there.
    Absent,
    /// Something is there.
    Present,
    /// Exactly this revision is there; zero: nothing is.
    Revision(Revision),
}

/// Several keys in one step: `then` if all conditions hold, `or_else` if not. All that is written has one revision; if one
/// operation is refused, nothing is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Transaction {
    /// All of these must hold.
    pub when: Vec<Condition>,
    /// Done in order if they do.
    pub then: Vec<KeyOperation>,
    /// Done in order if one does not.
    pub or_else: Vec<KeyOperation>,
}

impl Transaction {
    /// An upper bound of its encoding, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        let condition = |condition: &Condition| match condition {
            Condition::Key { key, .. } => 40 + key.len(),
            Condition::Value { key, value } => 40 + key.len() + value.len(),
            Condition::Lives(_) => 20,
            Condition::Held { right, .. } => 40 + right.name.len(),
        };
        let operation = |operation: &KeyOperation| match operation {
            KeyOperation::Get(key) => 20 + key.len(),
            KeyOperation::Put(put) => 10 + put.size(),
            KeyOperation::Delete(delete) => 40 + delete.key.len(),
        };
        let branches = self.then.iter().chain(&self.or_else).map(operation).sum::<usize>();
        30 + branches + self.when.iter().map(condition).sum::<usize>()
    }
}

/// What a transaction may ask.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Condition {
    /// What a key is at.
    Key {
        /// The key.
        key: String,
        /// What must be there.
        expect: Expect,
    },
    /// A key has exactly this value.
    Value {
        /// The key.
        key: String,
        /// The value.
        value: Bytes,
    },
    /// A client's session lives.
    Lives(SessionId),
    /// A grant of a right is live: whoever was granted it under this fence has not given it back, and has not lost it.
    Held {
        /// Which right.
        right: RightId,
        /// The grant's fence.
        fence: Fence,
    },
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyOperation {
    /// Read a key, as the steps before this one left it.
    Get(String),
    /// Set a key.
    Put(Put),
    /// Remove a key; one that is not there is no failure here.
    Delete(Delete),
}

/// What a transaction did.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Transacted {
    /// Whether all conditions held.
    pub held: bool,
    /// What each step of the branch that was taken came to.
    pub results: Vec<KeyResult>,
    /// The revision of all that was written; the newest one before, if nothing was.
    pub revision: Revision,
}

/// What one step of a transaction came to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyResult {
    /// The key's value, if it has one.
    Found(Option<Value>),
    /// This key was set.
    Written(String),
    /// Whether the key was there to be removed.
    Deleted(bool),
}

impl Transacted {
    /// About how many bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let bytes = |result: &KeyResult| match result {
            KeyResult::Found(found) => 64 + found.as_ref().map_or(0, |value| value.value.len()),
            KeyResult::Written(key) => 32 + key.len(),
            KeyResult::Deleted(_) => 32,
        };
        self.results.iter().map(bytes).sum::<usize>() as u64
    }
}

/// A key's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Value {
    /// The value.
    pub value: Bytes,
    /// The revision that made the key.
    pub created: Revision,
    /// The revision that wrote it last.
    pub modified: Revision,
    /// The session that it goes with.
    pub owner: Option<SessionId>,
    /// When it goes, in cluster time.
    pub expires: Option<ClusterTime>,
}

/// Keys in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct List {
    /// Those that begin with this.
    pub prefix: String,
    /// Those after this one; all of them if it is empty.
    pub after: String,
    /// At most so many; fewer are answered where values are large.
    pub limit: u32,
    /// The values are not wanted: they are answered empty.
    pub keys_only: bool,
}

/// Some keys in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyPage {
    /// The keys and their values.
    pub entries: Vec<(String, Value)>,
    /// Whether there are more after the last of these.
    pub more: bool,
    /// The revision at which all this is so.
    pub at: Revision,
}

/// Changes of keys after a revision, as soon as there are some.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Watch {
    /// Of keys that begin with this.
    pub prefix: String,
    /// Of revisions greater than this.
    pub after: Revision,
}

/// All changes of the keys that are watched between two revisions, in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Changes {
    /// The changes; none if nothing happened for a while.
    pub changes: Vec<KeyChange>,
    /// They are complete up to and with this revision: watch on after it.
    pub next: Revision,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyChange {
    /// The revision: everything that changed under it changed together.
    pub revision: Revision,
    /// The key.
    pub key: Arc<str>,
    /// What happened.
    pub what: KeyEvent,
}

/// What can happen to a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyEvent {
    /// It was set.
    Put(Value),
    /// It is gone.
    Deleted(KeyEnd),
}

/// Why a key is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyEnd {
    /// A client removed it.
    Deleted,
    /// Its session ended.
    SessionEnded,
    /// Its time was over.
    Expired,
}

/// How many digits a sequence adds to a key: enough for every revision, so that names and revisions have one order.
pub const SEQUENCE_DIGITS: usize = 20;
