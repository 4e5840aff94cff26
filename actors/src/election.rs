//! The actor around the replica: who may act as master, what is committed, what it means.
//!
//! It shows the outside a [`Status`], read in one step, and what the application may know of mastership.

use std::sync::Arc;

use protocol::effects::{Authority, Event, Part, Role};
use protocol::replica::{Input, Replica, Status};
use protocol::{ClusterId, Epoch, NodeId};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{oneshot, watch};

use crate::links::{Credit, Links};
use crate::shell::Shell;
use crate::supervisor::Fatal;

/// What the actor is told.
pub(crate) enum Message {
    /// An input for its machine, and what it holds of the window of the peer it came from until it was handled.
    Step(Input, Credit),
    /// Read the status, atomically.
    Status(oneshot::Sender<Status>),
}

impl ractor::Message for Message {}

/// See the module.
pub(crate) struct Election;

/// What the actor begins with.
pub(crate) struct Arguments {
    pub(crate) shell: Shell<Replica>,
    pub(crate) views: Views,
}

/// What the outside may watch.
#[derive(Clone)]
pub(crate) struct Views {
    pub(crate) mastership: watch::Sender<Mastership>,
    pub(crate) links: Arc<dyn Links>,
    pub(crate) fatal: Fatal,
}

/// Who is master, as far as this node knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mastership {
    /// What this node is.
    pub role: Role,
    /// The epoch.
    pub epoch: Epoch,
    /// Who leads it.
    pub leader: Option<NodeId>,
    /// On the master: until when nobody else can be.
    pub authority: Option<Authority>,
    /// The cluster this node is in.
    pub cluster: ClusterId,
    /// What this node is to the log.
    pub part: Part,
    /// Whether an operator removed this node from the cluster: it is to end.
    pub is_removed: bool,
}

pub(crate) struct State {
    shell: Shell<Replica>,
    views: Views,
}

impl Actor for Election {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, _: ActorRef<Message>, arguments: Arguments) -> Result<State, ActorProcessingErr> {
        Ok(State { shell: arguments.shell, views: arguments.views })
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Step(input, _credit) => state.step(input),
            // Whoever asked may have gone.
            Message::Status(reply) => drop(reply.send(state.shell.machine.status(state.shell.outlet.clock().now()))),
        }
        Ok(())
    }
}

impl State {
    fn step(&mut self, input: Input) {
        if let Input::Persisted { seq } = input {
            self.shell.open_gate(seq);
        }
        let views = &self.views;
        self.shell.step(input, |event| views.show(event));
    }
}

impl Views {
    fn show(&self, event: Event) {
        match event {
            Event::Role { role, epoch, leader } => {
                tracing::info!(?role, %epoch, leader = leader.map(tracing::field::display), "role changed");
                metrics::gauge!("tenure_epoch").set(epoch.0 as f64);
                metrics::gauge!("tenure_is_master").set(if role == Role::Leader { 1.0 } else { 0.0 });
                self.mastership.send_modify(|view| *view = Mastership { role, epoch, leader, ..*view });
            }
            Event::Founded(genesis) => {
                tracing::info!(cluster = %genesis.cluster, voters = genesis.voters.len(), "in a cluster");
                self.links.set_cluster(genesis.cluster);
                self.mastership.send_modify(|view| view.cluster = genesis.cluster);
            }
            Event::Removed => self.mastership.send_modify(|view| view.is_removed = true),
            Event::Part(part) => {
                tracing::info!(?part, "place in the log changed");
                self.mastership.send_modify(|view| view.part = part);
            }
            Event::Authority(authority) => {
                // It is extended with every heartbeat: whoever watches is woken only when it begins or ends.
                self.mastership.send_if_modified(|view| {
                    let is_news = view.authority.is_some() != authority.is_some();
                    view.authority = authority;
                    is_news
                });
            }
            Event::Note(line) => tracing::warn!("{line}"),
            Event::Fatal(why) => self.fatal.raise(why),
            Event::Start(_)
            | Event::Abort { .. }
            | Event::Drained
            | Event::Completed { .. }
            | Event::Kept { .. }
            | Event::Ended { .. } => {
                unreachable!("a replica neither runs attempts nor answers calls of its own")
            }
        }
    }
}
