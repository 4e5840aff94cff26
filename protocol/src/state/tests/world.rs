//! A state with a hand on it: short words for commands, and a check of all invariants after each.

use std::time::Duration;

use bytes::Bytes;

use crate::state::*;
use crate::types::{Attempt, ClusterTime, Fence, Incarnation, NodeId, Seq, SessionId, TaskId};

/// A state, its time and the changes of the last command.
pub(super) struct World {
    pub(super) state: State,
    pub(super) now: ClusterTime,
    pub(super) changes: Vec<ClusterChange>,
    pub(super) client: SessionId,
    seq: Seq,
    /// The session of node 1, if it was opened.
    pub(super) worker: SessionId,
}

impl World {
    /// A world with one client session and no node.
    pub(super) fn new() -> Self {
        let mut world = Self {
            state: State::default(),
            now: ClusterTime(1_000),
            changes: Vec::new(),
            client: SessionId(0),
            seq: Seq(0),
            worker: SessionId(0),
        };
        world.client = world.register(Duration::from_secs(3600));
        world
    }

    /// A world with one client session and a session of node 1, run 1.
    pub(super) fn with_worker() -> Self {
        let mut world = Self::new();
        world.worker = world.open(1, 1);
        world
    }

    pub(super) fn apply(&mut self, command: Command) -> Answer {
        let (revision, content) = (self.state.revision(), self.state.content());
        self.changes.clear();
        let answer = self.state.apply(self.now, &command, &mut self.changes);
        self.state.assert_coherent();
        assert_eq!(
            self.state.revision() > revision,
            self.state.content() != content,
            "a revision is a change: {command:?}"
        );
        answer
    }

    pub(super) fn master(&mut self, command: MasterCommand) -> Answer {
        self.apply(Command::Master(command))
    }

    /// Executes an operation as the next request of the world's client.
    pub(super) fn client(&mut self, operation: Operation) -> Answer {
        self.seq = self.seq.next();
        self.request(self.client, self.seq, self.seq, operation)
    }

    pub(super) fn request(&mut self, session: SessionId, seq: Seq, first: Seq, operation: Operation) -> Answer {
        self.apply(Command::Client { session, seq, first_incomplete: first, operation })
    }

    pub(super) fn register(&mut self, ttl: Duration) -> SessionId {
        match self.apply(Command::Register { ttl }) {
            Answer::Registered(session) => session,
            other => panic!("no session: {other:?}"),
        }
    }

    /// Opens the session of a node's run, for three seconds.
    pub(super) fn open(&mut self, node: u64, incarnation: u64) -> SessionId {
        match self.open_raw(node, incarnation) {
            Answer::Registered(session) => session,
            other => panic!("no session: {other:?}"),
        }
    }

    pub(super) fn open_raw(&mut self, node: u64, incarnation: u64) -> Answer {
        self.master(MasterCommand::OpenNode {
            node: NodeId(node),
            incarnation: Incarnation(incarnation),
            offer: Offer { label: format!("n{node}"), slots: 4, ..Offer::default() },
            ttl: Duration::from_secs(3),
        })
    }

    pub(super) fn submit(&mut self, spec: TaskSpec) -> TaskId {
        self.submit_all(vec![spec])[0].task
    }

    pub(super) fn submit_all(&mut self, specs: Vec<TaskSpec>) -> Vec<Submitted> {
        match self.client(Operation::Submit(specs)) {
            Answer::Submitted(tasks) => tasks,
            other => panic!("not submitted: {other:?}"),
        }
    }

    /// Grants an attempt to node 1 and returns its fence.
    pub(super) fn assign(&mut self, task: TaskId, number: u32) -> Fence {
        let session = self.worker;
        assert_eq!(self.assign_raw(task, number, session), Answer::Ok);
        match self.state.task_state(task).unwrap() {
            TaskState::Assigned { fence, .. } => fence,
            other => panic!("not granted: {other:?}"),
        }
    }

    pub(super) fn assign_raw(&mut self, task: TaskId, number: u32, session: SessionId) -> Answer {
        self.master(MasterCommand::Assign { attempt: Attempt { task, number }, session })
    }

    pub(super) fn finish(&mut self, task: TaskId, fence: Fence, outcome: Outcome) -> Answer {
        self.master(MasterCommand::Finish { task, fence, outcome })
    }

    pub(super) fn release(&mut self, task: TaskId, fence: Fence, cause: ReleaseCause) -> Answer {
        self.master(MasterCommand::Release { task, fence, cause })
    }

    pub(super) fn advance(&mut self, span: Duration) {
        self.now = self.now + span;
    }

    pub(super) fn expire(&mut self) -> Answer {
        self.apply(Command::Expire { before: self.now })
    }

    pub(super) fn view(&self, task: TaskId) -> TaskView {
        match self.state.query(&Query::Task(task)) {
            Answer::Task(view) => *view,
            other => panic!("no task: {other:?}"),
        }
    }

    pub(super) fn summary(&self) -> Summary {
        match self.state.query(&Query::Summary) {
            Answer::Summary(summary) => summary,
            other => panic!("no summary: {other:?}"),
        }
    }
}

impl State {
    /// Recomputes every hash, index, count and size from the records, and compares.
    pub(super) fn assert_coherent(&self) {
        self.clients.assert_coherent();
        self.nodes.assert_coherent();
        self.tasks.assert_coherent();
        self.keys.assert_coherent(&self.clients);
        self.rights.assert_coherent();
        self.counters.assert_coherent();
        for session in self.rights.owners() {
            assert!(self.clients.sessions().get(session).is_some(), "{session} is over and claims something");
        }
        assert_eq!(self.next_expiry, self.upcoming(), "the master was not told of the next expiry");
    }
}

pub(super) fn done(output: &'static str) -> Outcome {
    Outcome::done(Bytes::from_static(output.as_bytes()))
}

pub(super) fn failed(message: &str, retry: bool) -> Outcome {
    Outcome::Failed { message: message.into(), retry, output: Bytes::new() }
}

pub(super) fn once(kind: &str) -> TaskSpec {
    TaskSpec { delivery: Delivery::AtMostOnce, retries: 0, ..TaskSpec::new(kind, "") }
}
