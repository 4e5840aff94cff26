//! The way out of every shell: to the disk, to other nodes, to the other machines of this one; and the clock of all of them.
//!
//! # Invariants
//!
//! * A message to this very node takes the same way as one that arrived, without a link.
//! * Nothing here waits: what cannot leave now is dropped and counted, and the machines say it again. For what would be missed
//!   longest, the dispatch of a task, the master is told.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use protocol::durable::Persist;
use protocol::effects::Local;
use protocol::image::Work;
use protocol::message::Body;
use protocol::{Incarnation, NodeId, client, master, replica, route, wire, worker};
use ractor::ActorRef;

use crate::clock::Clock;
use crate::links::{Credit, Links, SendError};
use crate::store::StoreHandle;
use crate::{client as client_actor, election, master as master_actor, worker as worker_actor};

/// Cheap to clone; every shell has one.
#[derive(Clone)]
pub(crate) struct Outlet {
    inner: Arc<Inner>,
}

struct Inner {
    node: NodeId,
    incarnation: Incarnation,
    clock: Clock,
    links: Arc<dyn Links>,
    store: Option<StoreHandle>,
    routes: OnceLock<Routes>,
}

/// The actors of this process. An outside client has no more than the last one.
pub(crate) struct Routes {
    pub(crate) election: Option<ActorRef<election::Message>>,
    pub(crate) master: Option<ActorRef<master_actor::Message>>,
    pub(crate) worker: Option<ActorRef<worker_actor::Message>>,
    pub(crate) client: ActorRef<client_actor::Message>,
}

impl Outlet {
    pub(crate) fn new(
        node: NodeId,
        incarnation: Incarnation,
        clock: Clock,
        links: Arc<dyn Links>,
        store: Option<StoreHandle>,
    ) -> Self {
        Self { inner: Arc::new(Inner { node, incarnation, clock, links, store, routes: OnceLock::new() }) }
    }

    /// Says where the actors are. Until then, nothing is delivered.
    pub(crate) fn connect(&self, routes: Routes) {
        assert!(self.inner.routes.set(routes).is_ok(), "the actors of a process are started once");
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    pub(crate) fn links(&self) -> &dyn Links {
        &*self.inner.links
    }

    pub(crate) fn persist(&self, batch: Persist) {
        self.inner.store.as_ref().expect("only a replica persists, and it has a store").persist(batch);
    }

    /// Hands work on images to the store, behind the batches that were handed to it before. A state that is to be saved
    /// is cut into chunks over there, one at a time.
    pub(crate) fn image(&self, work: Work) {
        let store = self.inner.store.as_ref().expect("only a replica has images, and it has a store");
        match work {
            Work::Save { meta, state } => store.save(meta, state.image()),
            Work::Read { to, last, place } => store.read(to, last, place),
            Work::Forget { last } => store.forget(last),
            Work::Stage { last, turn, place, chunk } => store.stage(turn, last, place, chunk),
        }
    }

    pub(crate) fn send(&self, to: NodeId, body: Body) {
        let Inner { node, incarnation, .. } = *self.inner;
        if to == node {
            self.deliver(route::receive(node, incarnation, node, body));
            return;
        }
        let class = body.class();
        let bytes = match wire::encode(&body, wire::MAX_MESSAGE) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) => {
                tracing::error!(%error, %to, "a message could not be encoded and was dropped");
                return;
            }
        };
        match self.inner.links.send(to, class, bytes) {
            Ok(()) | Err(SendError::NoLink) => {}
            Err(SendError::Busy) => {
                metrics::counter!("tenure_link_busy_total").increment(1);
                route::unsent(to, &body).into_iter().for_each(|local| self.deliver(local));
            }
            Err(error @ SendError::TooLong { .. }) => tracing::error!(%error, %to, "a message was dropped"),
        }
    }

    /// Hands an input to the machine that it is for, if this process has it and it still runs.
    pub(crate) fn deliver(&self, local: Local) {
        self.deliver_held(local, Credit::default());
    }

    /// Hands on what a peer sent, with the credit that it holds until it was handled.
    pub(crate) fn deliver_held(&self, local: Local, credit: Credit) {
        let Some(routes) = self.inner.routes.get() else { return };
        match local {
            Local::Replica(input) => cast(routes.election.as_ref(), election::Message::Step(input, credit)),
            Local::Master(input) => cast(routes.master.as_ref(), master_actor::Message(input, credit)),
            Local::Worker(input) => cast(routes.worker.as_ref(), worker_actor::Message(input, credit)),
            Local::Client(input) => cast(Some(&routes.client), client_actor::Message::Step(input, credit)),
        }
    }

    /// Asks every machine to look at its deadlines: the first thing that happens to it.
    pub(crate) fn wake_all(&self) {
        self.deliver(Local::Replica(replica::Input::Tick));
        self.deliver(Local::Master(master::Input::Tick));
        self.deliver(Local::Worker(worker::Input::Tick));
        self.deliver(Local::Client(client::Input::Tick));
    }
}

/// Puts a message into a mailbox, if there is one. A mailbox that is closed belongs to a node that is stopping.
fn cast<M: ractor::Message>(actor: Option<&ActorRef<M>>, message: M) {
    if let Some(actor) = actor {
        let _ = actor.cast(message);
    }
}
