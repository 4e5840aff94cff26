//! One sentence per rule. The log is a real [`State`] to which proposals are applied when the test says so.

mod loss;
mod placement;
mod reconciliation;
mod results;
mod sessions;

use std::time::Duration;

use bytes::Bytes;

use super::decisions::UNDER_WAY_MAX;
use super::*;
use crate::effects::{Local, Outgoing};
use crate::message::Body;
use crate::profile::Profile;
use crate::replica;
use crate::state::{
    Answer, Begun, ClusterChange, Command, Delivery, Host, MasterCommand, Offer, Operation, Outcome, Put, Refused,
    ReleaseCause, State, TaskSpec, TaskState, Ticket,
};
use crate::types::{Attempt, ClusterTime, Fence, Seq, SessionId, TaskId};
use crate::worker::{Held, ToMaster};

const OWN: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);
const LAN: Profile = Profile::LAN;
const MS: Duration = Duration::from_millis(1);

/// A master, the log it proposes to, and what it said since it was last asked.
struct Bench {
    mastership: Mastership,
    state: State,
    now: Nanos,
    epoch: Epoch,
    effects: Effects,
    client: (SessionId, Seq),
}

impl Bench {
    /// A master in epoch 1, linked to B and C; no worker has said anything.
    fn new() -> Self {
        let mut state = State::default();
        let now = Nanos(60_000_000_000);
        let register = Command::Register { ttl: Duration::from_secs(3000) };
        let Answer::Registered(session) = state.apply(time(now), &register, &mut Vec::new()) else {
            panic!("no session")
        };
        let mut bench = Self {
            mastership: Mastership::new(OWN, LAN),
            state,
            now,
            epoch: Epoch(1),
            effects: Effects::new(),
            client: (session, Seq(0)),
        };
        bench.link_up(B);
        bench.link_up(C);
        bench.begin(1);
        bench
    }

    /// The workers of these nodes are here, with so many slots each.
    fn with_workers(workers: &[(NodeId, u32)]) -> Self {
        let mut bench = Self::new();
        for &(node, slots) in workers {
            bench.hello(node, slots, &[]);
        }
        bench.settle();
        bench.said();
        bench
    }

    fn begin(&mut self, epoch: u64) {
        self.epoch = Epoch(epoch);
        let mut view = self.state.master_view(self.epoch);
        view.time = time(self.now);
        self.step(Input::Begin(Box::new(view)));
    }

    fn step(&mut self, input: Input) {
        self.mastership.step(self.now, input, &mut self.effects);
    }

    fn wait(&mut self, span: Duration) {
        self.now = self.now + span;
        self.step(Input::Tick);
    }

    fn link_up(&mut self, node: NodeId) {
        self.step(Input::LinkUp { node, incarnation: Incarnation(1) });
    }

    fn link_down(&mut self, node: NodeId) {
        self.step(Input::LinkDown { node, incarnation: Incarnation(1) });
    }

    fn evidence(&mut self, node: NodeId) {
        self.step(Input::Evidence { node, incarnation: Incarnation(1) });
    }

    fn hear(&mut self, from: NodeId, message: ToMaster) {
        self.step(Input::Message { from, incarnation: Incarnation(1), message });
    }

    fn hello(&mut self, from: NodeId, slots: u32, held: &[Held]) {
        self.hello_offering(from, Offer { slots, ..offer() }, held);
    }

    fn hello_offering(&mut self, from: NodeId, offer: Offer, held: &[Held]) {
        let (epoch, sent) = (self.epoch, self.now);
        self.hear(from, ToMaster::Hello { epoch, offer, held: held.to_vec(), sent });
    }

    fn renew(&mut self, from: NodeId, held: &[Held], seen: u64) {
        let session = self.session(from);
        let (epoch, sent) = (self.epoch, self.now);
        self.hear(from, ToMaster::Renew { epoch, session, held: held.to_vec(), seen: Fence(seen), sent });
    }

    /// What was proposed since.
    fn proposed(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.effects.local)
            .into_iter()
            .flat_map(|local| match local {
                Local::Replica(
                    replica::Input::Propose { epoch, commands } | replica::Input::Placed { epoch, commands },
                ) => {
                    assert_eq!(epoch, self.epoch);
                    commands
                }
                other => panic!("a master tells the replica alone: {other:?}"),
            })
            .collect()
    }

    /// Commits these and tells the master.
    fn commit(&mut self, commands: &[Command]) -> Vec<Answer> {
        let mut changes = Vec::new();
        let answers = commands.iter().map(|command| self.state.apply(time(self.now), command, &mut changes)).collect();
        self.step(Input::Applied { epoch: self.epoch, time: time(self.now), changes });
        answers
    }

    /// Commits whatever is proposed until nothing more is.
    fn settle(&mut self) {
        for _ in 0..100 {
            let commands = self.proposed();
            if commands.is_empty() {
                return;
            }
            self.commit(&commands);
        }
        panic!("the master never rests");
    }

    fn operate(&mut self, operation: Operation) -> Answer {
        self.client.1 = self.client.1.next();
        let (session, seq) = self.client;
        self.commit(&[Command::Client { session, seq, first_incomplete: seq, operation }]).remove(0)
    }

    fn submit(&mut self, spec: TaskSpec) -> TaskId {
        self.submit_all(vec![spec])[0]
    }

    fn submit_all(&mut self, specs: Vec<TaskSpec>) -> Vec<TaskId> {
        match self.operate(Operation::Submit(specs)) {
            Answer::Submitted(tasks) => tasks.into_iter().map(|submitted| submitted.task).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn said(&mut self) -> Vec<(NodeId, ToWorker)> {
        std::mem::take(&mut self.effects.send)
            .into_iter()
            .map(|Outgoing { to, body, .. }| match body {
                Body::ToWorker(message) => (to, message),
                other => panic!("a master speaks to workers alone: {other:?}"),
            })
            .collect()
    }

    /// Who was told to run what.
    fn dispatched(&mut self) -> Vec<(NodeId, TaskId)> {
        self.said()
            .into_iter()
            .filter_map(|(to, message)| match message {
                ToWorker::Dispatch { grant, .. } => Some((to, grant.attempt.task)),
                _ => None,
            })
            .collect()
    }

    /// Who was told to stop what.
    fn cancelled(&mut self) -> Vec<(NodeId, Fence)> {
        self.said()
            .into_iter()
            .filter_map(|(to, message)| match message {
                ToWorker::Cancel { fence, .. } => Some((to, fence)),
                _ => None,
            })
            .collect()
    }

    fn session(&self, node: NodeId) -> SessionId {
        let view = self.state.master_view(self.epoch);
        view.nodes.iter().find(|session| session.node == node).expect("the node has a session").session
    }

    /// The worker and the grant of a task.
    fn grant(&self, task: TaskId) -> (NodeId, Held) {
        match self.state.task_state(task) {
            Some(TaskState::Assigned { number, fence, node, .. }) => {
                (node, Held { attempt: Attempt { task, number }, fence })
            }
            other => panic!("{task} has no grant: {other:?}"),
        }
    }

    fn is_granted(&self, task: TaskId) -> bool {
        matches!(self.state.task_state(task), Some(TaskState::Assigned { .. }))
    }
}

fn time(now: Nanos) -> ClusterTime {
    ClusterTime(now.0 / 1_000_000)
}

fn offer() -> Offer {
    Offer { slots: 1, kinds: ["echo".to_owned()].into(), ..Offer::default() }
}

fn echo() -> TaskSpec {
    TaskSpec::new("echo", Bytes::new())
}

fn once() -> TaskSpec {
    TaskSpec { delivery: Delivery::AtMostOnce, retries: 0, ..echo() }
}

fn done() -> Outcome {
    Outcome::done(Bytes::from_static(b"x"))
}

fn heres(said: &[(NodeId, ToWorker)]) -> Vec<NodeId> {
    said.iter().filter(|(_, message)| matches!(message, ToWorker::Here { .. })).map(|&(to, _)| to).collect()
}

fn releases(commands: &[Command]) -> Vec<(TaskId, ReleaseCause)> {
    commands
        .iter()
        .filter_map(|command| match command {
            Command::Master(MasterCommand::Release { task, cause, .. }) => Some((*task, *cause)),
            _ => None,
        })
        .collect()
}
