//! What can go wrong, named by what the caller can do.
//!
//! # Invariants
//!
//! * [`Error::maybe_applied`] is false only if it was certainly not done.

use std::time::Duration;

use protocol::client::{CallError, Denied};
use protocol::state::Refused;
use protocol::{Fence, NodeId, Revision, SessionId};

use crate::diagnostic::{Code, Diagnostic};

/// Why a call to the cluster has no answer.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// match client.counter("orders").add(1).await {
///     Ok(sum) => println!("{sum} orders"),
///     Err(error) if error.maybe_applied() => println!("nobody knows: look, or add under a key with `once`"),
///     Err(error) if error.is_retryable() => println!("certainly not done, and it may work later: {error}"),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody who can answer was reached in time: no quorum, or no master at the moment. Calls are retried inside their
    /// deadline already.
    #[error("no answer within {waited:.1?}: no quorum, or no master at the moment")]
    NoQuorum {
        /// Whether it may have been done.
        maybe_applied: bool,
        /// How long.
        waited: Duration,
        /// Who was master last, as far as is known.
        master: Option<NodeId>,
    },
    /// No node lets this client in: it was given another cluster's name, or nodes of another cluster.
    #[error("no node lets this client in: {0}")]
    NotLetIn(String),
    /// The precondition does not hold.
    #[error("conflict: the key is at revision {current}")]
    Conflict {
        /// What is there; zero if nothing is.
        current: Revision,
    },
    /// Changes so long ago are not remembered any more: look at what is, and watch on from there.
    #[error("changes up to revision {oldest} are forgotten")]
    Compacted {
        /// Watch after this revision or a later one.
        oldest: Revision,
    },
    /// The client's session ended while the call was under way.
    #[error("the session has expired")]
    SessionExpired {
        /// Whether it may have been done.
        maybe_applied: bool,
    },
    /// The session that was named does not live: it ended, or never was.
    #[error("there is no session {0}")]
    NoSession(SessionId),
    /// No such task or key.
    #[error("not found")]
    NotFound,
    /// The task has ended already.
    #[error("the task has ended already")]
    Ended,
    /// The right is not free, or others are in line for it.
    #[error("somebody else holds it, under fence {fence}")]
    Held {
        /// The newest grant; zero if nobody holds it.
        fence: Fence,
    },
    /// The right is not held under this claim, any more or yet.
    #[error("the right is not held: its newest fence is {current}")]
    NotHeld {
        /// The newest grant; zero if nobody holds it.
        current: Fence,
    },
    /// The once is settled: its outcome is known and will not change.
    #[error("it is settled already")]
    Settled,
    /// Too many calls under way, or too many tasks that have not ended: wait for some of them.
    #[error("too much is under way")]
    Busy,
    /// Larger than allowed: store it elsewhere and pass a reference.
    #[error("{len} bytes exceed the limit of {limit}")]
    TooLarge {
        /// What it is.
        len: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The values make no sense, and never will.
    #[error("{0}")]
    Invalid(String),
    /// The cluster is full, in words.
    #[error("{0}")]
    Quota(String),
    /// The task ended without a result.
    #[error("the task {0}")]
    Task(TaskEnd),
    /// A value does not have the expected form.
    #[error("{0}")]
    Codec(String),
}

/// How a task ended without a result.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// # use tenure::TaskEnd;
/// match client.task(TaskId(42)).result().await {
///     Err(Error::Task(TaskEnd::Lost)) => println!("its worker vanished, and it may run only once"),
///     Err(Error::Task(end)) => println!("it {end}"),
///     other => drop(other?),
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TaskEnd {
    /// Its attempts failed.
    #[error("failed: {0}")]
    Failed(String),
    /// Somebody ended it.
    #[error("was cancelled: {0}")]
    Cancelled(String),
    /// It was allowed to run only once and its worker vanished: it may or may not have run.
    #[error("is lost: it was allowed to run once, and its worker vanished")]
    Lost,
}

/// Why a node did not start, or a client did not connect.
///
/// ```
/// # use tenure::prelude::*;
/// # #[tokio::main] async fn main() {
/// let error = Node::builder("orders").ephemeral().listen("no address").start().await.expect_err("it cannot listen there");
/// println!("{error}");                        // what failed, and why
/// println!("{:?}", error.diagnostic().hint);  // what to do
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message)]
pub struct StartError(pub(crate) Box<Diagnostic>);

impl Error {
    /// Whether it may have been done nevertheless.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// if let Err(error) = client.kv().put("a", "1").await {
    ///     println!("{error}; it may be written: {}", error.maybe_applied());
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn maybe_applied(&self) -> bool {
        match self {
            Self::NoQuorum { maybe_applied, .. } | Self::SessionExpired { maybe_applied } => *maybe_applied,
            _ => false,
        }
    }

    /// Whether the same call may succeed later.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// while let Err(error) = client.kv().put("a", "1").await {
    ///     if !error.is_retryable() {
    ///         return Err(error);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NoQuorum { .. } | Self::SessionExpired { .. } | Self::Busy)
    }

    /// How long to wait before the same call is made again, if that may help and repeats nothing: nothing else than what HTTP says in
    /// `Retry-After`.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// if let Err(error) = client.kv().put("a", "1").await
    ///     && let Some(pause) = error.retry_after()
    /// {
    ///     tokio::time::sleep(pause).await;
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        (self.is_retryable() && !self.maybe_applied()).then_some(RETRY_AFTER)
    }
}

impl StartError {
    pub(crate) fn new(diagnostic: Diagnostic) -> Self {
        Self(Box::new(diagnostic))
    }

    /// What failed, why, and what to do.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// if let Err(error) = Node::builder("orders").slots(1_000_000).start().await {
    ///     println!("{}", error.diagnostic().message);
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn diagnostic(&self) -> &Diagnostic {
        &self.0
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Deadline { maybe_applied: false, last: Some(Denied::Busy), .. } => Self::Busy,
            CallError::Deadline { maybe_applied, waited, leader, .. } => {
                Self::NoQuorum { maybe_applied, waited, master: leader }
            }
            CallError::SessionExpired { maybe_applied } => Self::SessionExpired { maybe_applied },
            CallError::Busy => Self::Busy,
        }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotFound => Self::NotFound,
            Refused::Conflict { current } => Self::Conflict { current },
            Refused::Compacted { oldest } => Self::Compacted { oldest },
            Refused::SessionExpired => Self::SessionExpired { maybe_applied: false },
            Refused::NoSession(session) => Self::NoSession(session),
            Refused::Busy => Self::Busy,
            Refused::TooLarge { len, limit } => Self::TooLarge { len, limit },
            Refused::Invalid(why) => Self::Invalid(why),
            Refused::Quota(why) => Self::Quota(why),
            Refused::Ended => Self::Ended,
            Refused::Held { fence } => Self::Held { fence },
            Refused::NotHeld { current } => Self::NotHeld { current },
            Refused::Settled => Self::Settled,
            // Only a client that dropped an answer asks so; to its caller that answer is unknown.
            Refused::Stale(_) => Self::SessionExpired { maybe_applied: true },
        }
    }
}

impl From<Error> for Diagnostic {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::NoQuorum { .. } => Code::NoQuorum,
            Error::NotLetIn(_) => Code::WrongCluster,
            Error::Conflict { .. } => Code::Conflict,
            Error::Compacted { .. } => Code::Compacted,
            Error::SessionExpired { .. } => Code::SessionExpired,
            Error::NoSession(_) => Code::NoSession,
            Error::NotFound => Code::NotFound,
            Error::Ended => Code::Ended,
            Error::Held { .. } => Code::Held,
            Error::NotHeld { .. } => Code::Fenced,
            Error::Settled => Code::Settled,
            Error::Busy => Code::Busy,
            Error::TooLarge { .. } => Code::TooLarge,
            Error::Invalid(_) | Error::Codec(_) => Code::Invalid,
            Error::Quota(_) => Code::Quota,
            Error::Task(_) => Code::TaskFailed,
        };
        let diagnostic = Self::new(code, error.to_string()).maybe_applied(error.maybe_applied());
        match error {
            Error::NoQuorum { master, maybe_applied, .. } => {
                diagnostic.master(master.map(|node| node.to_string())).hint(if maybe_applied {
                    "read before you repeat it, or repeat it with the same Idempotency-Key"
                } else {
                    "it was not done; try again when a majority of the voters is back"
                })
            }
            Error::TooLarge { .. } => diagnostic.hint("store it elsewhere and pass a reference"),
            Error::Compacted { .. } => {
                diagnostic.hint("list the keys again and watch on from the revision of the list")
            }
            Error::NoSession(_) => diagnostic.hint("what it owned is gone: open another one, and claim again"),
            Error::Busy => diagnostic.hint("wait for some of the calls or tasks under way"),
            Error::Conflict { .. } => diagnostic.hint("read the key again and decide on what is there now"),
            _ => diagnostic,
        }
    }
}

/// An election takes less, and so does a queue.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_done_is_not_to_be_repeated_unasked() {
        let error = |maybe_applied| Error::NoQuorum { maybe_applied, waited: RETRY_AFTER, master: None };
        assert_eq!((error(false).retry_after(), error(true).retry_after()), (Some(RETRY_AFTER), None));
        assert_eq!(Error::NotFound.retry_after(), None);
    }

    #[test]
    fn a_call_that_was_put_off_to_its_end_was_busy() {
        let call = |maybe_applied, last| {
            let (waited, leader) = (RETRY_AFTER, None);
            Error::from(CallError::Deadline { maybe_applied, waited, leader, last: Some(last) })
        };
        assert_eq!(call(false, Denied::Busy), Error::Busy);
        assert!(
            matches!(call(true, Denied::Busy), Error::NoQuorum { maybe_applied: true, .. }),
            "an earlier try may be done"
        );
        assert!(matches!(call(false, Denied::NotMaster), Error::NoQuorum { maybe_applied: false, .. }));
    }
}
