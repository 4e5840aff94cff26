//! What the log says: commands, questions and their answers.
//!
//! # Invariants
//!
//! * A command carries every precondition it was decided under, and changes nothing when one fails: an old decision is
//!   harmless wherever it lands in the log.
//! * Applying is a function of the state, the entry's time and the command, and of nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limits::MAX_BEGUN;
use crate::mutants::{Bug, is_on};
use crate::state::{
    Changes, ClaimState, Claimed, Counted, CounterOperation, Delete, Host, KeyPage, List, OpenSession, Outcome, Put,
    ReleaseCause, RightId, RightLine, RightOperation, RightView, Roster, SessionView, Submitted, TaskSpec, TaskView,
    Ticket, Transacted, Transaction, Value, Watch,
};
use crate::types::{Attempt, ClaimId, ClusterTime, Fence, Incarnation, NodeId, Revision, Seq, SessionId, TaskId};

/// One command of the replicated log. An entry carries a batch of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Command {
    /// Opens a client session; answered with [`Answer::Registered`]. Repeated: opens another, the first one expires unused.
    Register {
        /// For how long the session lives without a renewal.
        ttl: Duration,
    },
    /// One request of a client session, executed once whatever happens to its answer.
    Client {
        /// The session.
        session: SessionId,
        /// Which request of it.
        seq: Seq,
        /// The client holds the answers of all requests before this one.
        first_incomplete: Seq,
        /// What to do.
        operation: Operation,
    },
    /// Sessions that were heard of: their deadlines move. Answered with [`Answer::Renewed`], which names the unknown ones.
    Renew {
        /// The sessions, client's and node's alike.
        sessions: Vec<SessionId>,
    },
    /// A client has these answers, and may ask for nothing more for a long time: they are forgotten. Answered with [`Answer::Ok`].
    Heard {
        /// Its session.
        session: SessionId,
        /// It holds the answers of all requests before this one.
        first_incomplete: Seq,
    },
    /// Every session and record whose time ended by then ends now, up to a bounded number. Nothing ends before its time in
    /// the log, whatever is said here.
    Expire {
        /// The cluster time up to which.
        before: ClusterTime,
    },
    /// A decision of the master.
    Master(MasterCommand),
}

/// What a client may ask to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operation {
    /// Record these tasks, all or none. Answered with [`Answer::Submitted`], one id per task in order.
    Submit(Vec<TaskSpec>),
    /// End this task if it has not ended. Answered with [`Answer::Task`].
    Cancel {
        /// The task.
        task: TaskId,
        /// Shown to whoever looks.
        reason: String,
    },
    /// Set a key. Answered with [`Answer::Written`], a sequence with [`Answer::Sequenced`].
    Put(Put),
    /// Remove a key. Answered with [`Answer::Written`], or [`Refused::NotFound`].
    Delete(Delete),
    /// Several keys in one step. Answered with [`Answer::Transacted`].
    Transact(Transaction),
    /// End this session now.
    Close,
    /// Open a session that may own things. Answered with [`Answer::Registered`].
    OpenSession(OpenSession),
    /// End any client session now. Answered with [`Answer::Ok`], or [`Refused::NoSession`].
    EndSession {
        /// The session.
        session: SessionId,
        /// Why.
        cause: ClientEnd,
    },
    /// Claim a right, or do something with one.
    Right(RightOperation),
    /// Add to a counter, or remove it.
    Counter(CounterOperation),
    /// Change who shall vote. Answered with [`Answer::Ok`]: the wish is recorded, and the leader fulfils it step by step.
    Roster(RosterChange),
}

impl Operation {
    /// An upper bound of what it takes in the log beside its request's numbers, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Submit(tasks) => tasks
                .iter()
                .map(|task| {
                    let needs: usize = task.needs.iter().map(|(key, value)| key.len() + value.len() + 10).sum();
                    let key = task.once_key.as_ref().map_or(0, String::len);
                    160 + task.kind.len() + task.payload.len() + needs + key
                })
                .sum(),
            Self::Cancel { reason, .. } => reason.len(),
            Self::Put(put) => put.size(),
            Self::Delete(delete) => 20 + delete.key.len(),
            Self::Transact(transaction) => transaction.size(),
            Self::OpenSession(opening) => opening.about.label.len(),
            Self::Right(operation) => operation.size(),
            Self::Counter(operation) => operation.size(),
            Self::Close | Self::EndSession { .. } | Self::Roster(_) => 0,
        }
    }
}

/// What an operator may ask of the roster. Each is the same done once or often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RosterChange {
    /// This node shall vote, in addition to those who do.
    Promote(NodeId),
    /// This node shall not vote, and nobody in its place.
    Demote(NodeId),
    /// This node shall not vote, and somebody else in its place; and it shall leave the cluster.
    Remove(NodeId),
}

/// What the master decides. Only the master proposes these, tagged with its epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MasterCommand {
    /// Opens the session of a node's run. An older run's session of the same node ends in the same step, which is proof of
    /// that run's death (F12). Repeated for the same run: changes nothing but the facts given.
    OpenNode {
        /// The node.
        node: NodeId,
        /// Its run.
        incarnation: Incarnation,
        /// What it offers.
        offer: Offer,
        /// For how long its session lives without a renewal.
        ttl: Duration,
    },
    /// There is evidence that this run of a node is dead: the client sessions in its process that wanted no proof end (F12).
    EndReleased(Host),
    /// Ends a node's session early: it said goodbye. What it was granted is taken back; what never began there goes again.
    EndNode {
        /// The session.
        session: SessionId,
        /// What may have begun under it.
        begun: Begun,
    },
    /// Grants attempt `attempt` to a worker. Only if the task is pending, this is its next attempt and the session lives.
    Assign {
        /// Which run of which task.
        attempt: Attempt,
        /// The worker's session.
        session: SessionId,
    },
    /// Takes an attempt back: the task is pending again, or ends `Lost` if it may run only once and may have begun. Only if the
    /// attempt holds this fence. Evidence of death is refused for at-most-once tasks (F8).
    Release {
        /// The task.
        task: TaskId,
        /// The grant to take back.
        fence: Fence,
        /// Why.
        cause: ReleaseCause,
    },
    /// The outcome of an attempt, judged by task and fence alone (F13).
    Finish {
        /// The task.
        task: TaskId,
        /// The grant under which it ran.
        fence: Fence,
        /// How it ended.
        outcome: Outcome,
    },
    /// Grants the first attempt of a task that has no id yet where this is decided, because its submission stands in the same
    /// entry (D8). Only if that submission made the task, it waits for its first attempt and the session lives.
    AssignSubmitted {
        /// Which task of which submission.
        ticket: Ticket,
        /// The worker's session.
        session: SessionId,
    },
}

/// What a node offers to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Offer {
    /// The node's name for people.
    pub label: String,
    /// How many attempts may run at once.
    pub slots: u32,
    /// The kinds of task it has handlers for.
    pub kinds: BTreeSet<String>,
    /// Free words about the node.
    pub labels: BTreeMap<String, String>,
}

/// Of all that was granted to a run that goes, what may have begun there. Nothing else ever did, or will.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Begun {
    /// Every fence up to this one: it does not know better.
    pub through: Fence,
    /// And these.
    pub fences: Vec<Fence>,
}

impl Begun {
    /// About how many bytes it takes in the log.
    #[must_use]
    pub fn size(&self) -> usize {
        self.fences.len() * 10
    }

    /// The same or more, in few words: a list that is too long becomes everything up to its last one.
    #[must_use]
    pub fn bounded(self) -> Self {
        if self.fences.len() <= MAX_BEGUN {
            return self;
        }
        let through = self.fences.iter().copied().fold(self.through, Ord::max);
        Self { through, fences: Vec::new() }
    }

    /// Says whether the attempt under this fence may have begun.
    #[must_use]
    pub fn contains(&self, fence: Fence) -> bool {
        fence <= self.through || self.fences.contains(&fence) || is_on(Bug::GoodbyeLosesAll)
    }
}

/// Why a client's session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ClientEnd {
    /// Its client closed it.
    Closed,
    /// Somebody ended it.
    Killed,
    /// Nobody renewed it in time.
    Expired,
    /// Its process is known to be dead.
    Proven,
    /// Its process seems to be dead, and it wanted no proof.
    Evidence,
}

/// A question about the state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Query {
    /// One task. Answered with [`Answer::Task`].
    Task(TaskId),
    /// One task, as soon as it has ended. Answered with [`Answer::Task`]. The state answers at once; the replica waits.
    Await(TaskId),
    /// Tasks by id. Answered with [`Answer::Tasks`], fewer than asked for where results are large; none only at the end.
    Tasks {
        /// Ids greater than this.
        after: TaskId,
        /// At most this many.
        limit: u32,
    },
    /// One key. Answered with [`Answer::Value`].
    Get(String),
    /// Keys in order. Answered with [`Answer::Keys`].
    List(List),
    /// Changes of keys, as soon as there are some. Answered with [`Answer::Changes`] by a replica: the state does not remember
    /// how it came about.
    Watch(Watch),
    /// The node sessions. Answered with [`Answer::Nodes`].
    Nodes,
    /// Client sessions by id. Answered with [`Answer::Sessions`].
    Sessions {
        /// Ids greater than this.
        after: SessionId,
        /// At most this many.
        limit: u32,
    },
    /// Counts, revision and hash. Answered with [`Answer::Summary`].
    Summary,
    /// A right. Answered with [`Answer::Right`].
    Right {
        /// Which right.
        right: RightId,
        /// Shows holders with greater fences than this.
        after: Fence,
    },
    /// A right, as soon as its record is not the one of this revision; zero: as soon as there is one. States between may be
    /// passed over. Answered with [`Answer::Right`], with the first page of holders. The state answers at once; the replica
    /// waits.
    AwaitRight {
        /// Which right.
        right: RightId,
        /// The revision of the view that the asker has.
        after: Revision,
    },
    /// Where a claim stands, as soon as it is in line no more. Answered with [`Answer::Claim`]. The state answers at once; the
    /// replica waits.
    AwaitClaim {
        /// Which right.
        right: RightId,
        /// The claim.
        claim: ClaimId,
    },
    /// Which of these claims of a session are over, as soon as one of them is. Answered with [`Answer::Ended`]. The state answers
    /// at once; the replica waits.
    AwaitEnd {
        /// Whose they are.
        session: SessionId,
        /// The claims that the asker takes for standing.
        claims: Vec<ClaimId>,
    },
    /// A counter. Answered with [`Answer::Counted`].
    Counter(Arc<str>),
    /// Who shall vote, and how far that is. Answered with [`Answer::Roster`].
    Roster,
    /// The rights that are in use, by kind and name. Answered with [`Answer::Rights`], none only at the end.
    Rights {
        /// Those after this one.
        after: Option<RightId>,
        /// At most this many.
        limit: u32,
    },
    /// The node sessions, as soon as they are not those of this [sum](NodeView::sum). States between may be passed over. Answered with
    /// [`Answer::Nodes`]. The state answers at once; the replica waits.
    AwaitNodes {
        /// The sum of the sessions that the asker knows.
        known: u64,
    },
    /// Tasks, those with the greatest ids first. Answered with [`Answer::Tasks`] as [`Query::Tasks`] is.
    NewestTasks {
        /// Ids smaller than this; all of them if none is named.
        before: Option<TaskId>,
        /// At most this many.
        limit: u32,
    },
    /// Where a claim stands. Answered with [`Answer::Claim`].
    Claim {
        /// Which right.
        right: RightId,
        /// The claim.
        claim: ClaimId,
    },
}

impl Query {
    /// Says whether its answer may be long in coming, so that silence says nothing. A watch is not among them: whoever serves one says so
    /// in time, even if nothing happens.
    #[must_use]
    pub fn waits(&self) -> bool {
        use Query::{Await, AwaitClaim, AwaitEnd, AwaitNodes, AwaitRight};
        matches!(self, Await(_) | AwaitNodes { .. } | AwaitRight { .. } | AwaitClaim { .. } | AwaitEnd { .. })
    }
}

/// The answer to an operation or a question.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Answer {
    /// The session that was opened.
    Registered(SessionId),
    /// Done.
    Ok,
    /// The sessions were renewed, but for these, which do not live.
    Renewed {
        /// Those that do not live.
        ended: Vec<SessionId>,
    },
    /// Some client sessions.
    Sessions(Vec<SessionView>),
    /// The tasks recorded, in the order given. `fresh` is false where a once key named an earlier one.
    Submitted(Vec<Submitted>),
    /// One task.
    Task(Box<TaskView>),
    /// Some tasks.
    Tasks(Vec<TaskView>),
    /// The write's revision.
    Written(Revision),
    /// The write's revision, and the key that it made.
    Sequenced {
        /// The key.
        key: String,
        /// The revision.
        revision: Revision,
    },
    /// What a transaction did.
    Transacted(Transacted),
    /// A key's value, if it has one.
    Value {
        /// The value.
        found: Option<Value>,
        /// The revision at which this is so.
        at: Revision,
    },
    /// Some keys.
    Keys(KeyPage),
    /// Changes of keys.
    Changes(Changes),
    /// The node sessions.
    Nodes(Vec<NodeView>),
    /// Counts, revision and hash.
    Summary(Summary),
    /// A right was claimed.
    Claimed(Claimed),
    /// Where a claim stands.
    Claim(ClaimState),
    /// The claims asked about that do not stand.
    Ended(Vec<ClaimId>),
    /// A right.
    Right(Box<RightView>),
    /// A counter.
    Counted(Counted),
    /// Certainly not done.
    Refused(Refused),
    /// Who shall vote, and how far that is.
    Roster(Box<RosterView>),
    /// Some rights.
    Rights(Vec<RightLine>),
}

/// A node's session as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeView {
    /// The node.
    pub node: NodeId,
    /// Its run.
    pub incarnation: Incarnation,
    /// Its session.
    pub session: SessionId,
    /// What it offers.
    pub offer: Offer,
    /// For how long the session lives without a renewal.
    pub ttl: Duration,
    /// How many attempts it holds.
    pub assigned: u32,
}

/// The roster as it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RosterView {
    /// Who shall vote.
    pub roster: Roster,
    /// What the leader knows of everybody who votes, listens or may: empty if somebody else answers.
    pub seats: Vec<Seat>,
    /// What the next step towards the roster waits for, in words; nothing if the roster is fulfilled.
    pub waits_for: Option<String>,
}

/// One node in the eyes of the leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Seat {
    /// The node.
    pub node: NodeId,
    /// Whether it is here: it answers the leader and keeps up, or is linked to it.
    pub is_here: bool,
    /// Whether it holds all but the newest entries.
    pub is_caught_up: bool,
}

/// Counts over the whole state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Summary {
    /// The newest revision.
    pub revision: Revision,
    /// Equal on all nodes that applied the same entries.
    pub hash: u64,
    /// Cluster time of the last entry applied.
    pub time: ClusterTime,
    /// Tasks waiting.
    pub pending: u64,
    /// Tasks granted.
    pub assigned: u64,
    /// Tasks that ended with a result and are still kept.
    pub done: u64,
    /// Tasks that ended otherwise and are still kept.
    pub failed: u64,
    /// Results recorded since the beginning.
    pub results_recorded: u64,
    /// Late results refused since the beginning.
    pub results_refused: u64,
    /// Attempts granted since the beginning.
    pub attempts: u64,
    /// Keys.
    pub keys: u64,
    /// Rights that somebody uses.
    pub rights: u64,
    /// Client sessions.
    pub sessions: u64,
}

/// Why an operation was certainly not done.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    /// No such task or key.
    #[error("not found")]
    NotFound,
    /// The precondition does not hold.
    #[error("conflict: the key is at revision {current}")]
    Conflict {
        /// What is there; zero if nothing is.
        current: Revision,
    },
    /// No such session: it ended. Whether an earlier try was done is for the client to know.
    #[error("the session has expired")]
    SessionExpired,
    /// The session that was to own this, or to be ended, does not live. The session of the request itself does.
    #[error("there is no session {0}")]
    NoSession(SessionId),
    /// The client said that it holds this answer already.
    #[error("request {0} is older than the first incomplete one")]
    Stale(Seq),
    /// The session has too many requests under way.
    #[error("too many requests under way")]
    Busy,
    /// Larger than allowed.
    #[error("{len} bytes exceed the limit of {limit}")]
    TooLarge {
        /// What it is.
        len: u64,
        /// What is allowed.
        limit: u64,
    },
    /// What happened after that revision is not remembered any more: look at what is, and watch on from there.
    #[error("changes up to revision {oldest} are forgotten")]
    Compacted {
        /// Watch after this one or a later one.
        oldest: Revision,
    },
    /// Makes no sense, in words.
    #[error("{0}")]
    Invalid(String),
    /// The cluster is full, in words.
    #[error("{0}")]
    Quota(String),
    /// The task ended before.
    #[error("the task has ended already")]
    Ended,
    /// The right is not free, or others are in line for it.
    #[error("somebody else holds it, under fence {fence}")]
    Held {
        /// The newest grant; zero if nobody holds it.
        fence: Fence,
    },
    /// The claim does not hold the right, any more or yet.
    #[error("the right is not held: its newest fence is {current}")]
    NotHeld {
        /// The newest grant; zero if nobody holds it.
        current: Fence,
    },
    /// The once is settled: its outcome is known and will not change.
    #[error("it is settled already")]
    Settled,
}
