//! What was seen of a cluster of tests: every call of its clients, every start of an attempt, every word about who is master.
//!
//! # Invariants
//!
//! * A call is written down once, when it is over: also if whoever made it did not wait for its end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actors::{Done, Executor, KeptSession, Mastership};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use protocol::client::{Consistency, Work};
use protocol::state::{Answer, OpenSession, Operation, Outcome, Query};
use protocol::worker::{AbortCause, Run};
use protocol::{Attempt, Fence, SessionId};
use tokio::sync::watch;

use crate::client::Backend;
use crate::error::Error;
use crate::executor::Handlers;

/// Where all nodes and clients of a cluster write down what they see.
pub(super) struct Notes {
    begin: Instant,
    seen: Mutex<Seen>,
}

/// What was seen, in the order in which it was written down. Times are nanoseconds since the cluster began to start.
#[derive(Clone, Default)]
pub(super) struct Seen {
    pub(super) calls: Vec<Call>,
    pub(super) starts: Vec<Start>,
    pub(super) finishes: Vec<Finish>,
    pub(super) views: Vec<View>,
}

/// A call that may tell something: of keys, or of tasks.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// Through which node.
    pub(super) place: usize,
    pub(super) begin: u64,
    pub(super) end: u64,
    pub(super) work: Work,
    /// What came of it; nothing if it may or may not have been done, and may still be.
    pub(super) answer: Option<Answer>,
}

/// An attempt was started.
#[derive(Clone, Debug)]
pub(super) struct Start {
    pub(super) place: usize,
    pub(super) at: u64,
    pub(super) run: Run,
}

/// An attempt ended by itself. Whether that counts, the log says.
#[derive(Clone, Debug)]
pub(super) struct Finish {
    pub(super) place: usize,
    pub(super) at: u64,
    pub(super) attempt: Attempt,
    pub(super) outcome: Outcome,
}

/// A node said who is master.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) place: usize,
    pub(super) at: u64,
    pub(super) mastership: Mastership,
}

impl Default for Notes {
    fn default() -> Self {
        Self { begin: Instant::now(), seen: Mutex::default() }
    }
}

impl Notes {
    /// Everything that was written down until now.
    pub(super) fn so_far(&self) -> Seen {
        self.lock().clone()
    }

    /// The time of now.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Writes down what a node says of mastership until it has stopped.
    pub(super) async fn follow(self: Arc<Self>, place: usize, mut masterships: watch::Receiver<Mastership>) {
        loop {
            let mastership = *masterships.borrow_and_update();
            self.lock().views.push(View { place, at: self.now(), mastership });
            if masterships.changed().await.is_err() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands between a node and its client or its handlers, and writes down what passes.
pub(super) struct Recorded<T> {
    inner: T,
    place: usize,
    notes: Arc<Notes>,
}

impl<T> Recorded<T> {
    pub(super) fn new(inner: T, place: usize, notes: &Arc<Notes>) -> Self {
        Self { inner, place, notes: notes.clone() }
    }
}

impl<B: Backend> Backend for Recorded<B> {
    fn call(&self, work: Work, timeout: Duration) -> BoxFuture<'_, Result<Answer, Error>> {
        async move {
            let begin = self.notes.now();
            let call =
                tells(&work).then(|| Call { place: self.place, begin, end: begin, work: work.clone(), answer: None });
            let mut pending = Pending { notes: &self.notes, call };
            let result = self.inner.call(work, timeout).await;
            pending.end(&result);
            result
        }
        .boxed()
    }

    fn keep(&self, opening: OpenSession, timeout: Duration) -> BoxFuture<'_, Result<KeptSession, Error>> {
        self.inner.keep(opening, timeout)
    }

    fn end(&self, session: SessionId) {
        self.inner.end(session);
    }

    fn host(&self) -> Option<protocol::state::Host> {
        self.inner.host()
    }
}

impl Executor for Recorded<Handlers> {
    fn start(&self, run: Run, done: Done) {
        let (place, attempt, notes) = (self.place, run.grant.attempt, self.notes.clone());
        notes.lock().starts.push(Start { place, at: notes.now(), run: run.clone() });
        Handlers::start(&self.inner, run, move |outcome| {
            let finish = Finish { place, at: notes.now(), attempt, outcome: outcome.clone() };
            notes.lock().finishes.push(finish);
            done.finish(outcome);
        });
    }

    fn abort(&self, fence: Fence, why: AbortCause) {
        Executor::abort(&self.inner, fence, why);
    }
}

/// A call under way. Dropped without an end, its outcome is unknown.
struct Pending<'a> {
    notes: &'a Notes,
    call: Option<Call>,
}

impl Pending<'_> {
    fn end(&mut self, result: &Result<Answer, Error>) {
        match (&mut self.call, result) {
            (Some(call), Ok(answer)) => call.answer = Some(answer.clone()),
            (_, Err(error)) if error.maybe_applied() => {}
            // Certainly not done: nothing happened.
            _ => self.call = None,
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            let end = self.notes.now();
            self.notes.lock().calls.push(Call { end, ..call });
        }
    }
}

/// Whether the judges have a use for it.
fn tells(work: &Work) -> bool {
    match work {
        Work::Write(operation) => matches!(
            operation,
            Operation::Put(_)
                | Operation::Delete(_)
                | Operation::Transact(_)
                | Operation::Submit(_)
                | Operation::Cancel { .. }
        ),
        Work::Read(query, Consistency::Linearizable) => {
            matches!(query, Query::Get(_) | Query::Task(_) | Query::Await(_))
        }
        _ => false,
    }
}
