//! One node: everything between its data folder and its links, started and stopped as a whole.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use protocol::durable::Durable;
use protocol::effects::{Effects, Local, Role};
use protocol::replica::{Replica, Status};
use protocol::state::Offer;
use protocol::{ClusterId, Incarnation, Nanos, NodeId, Profile, client, master, replica, worker};
use ractor::{Actor, ActorRef};
use tokio::sync::{oneshot, watch};

use crate::client::ClientHandle;
use crate::clock::Clock;
use crate::control::{Built, Control, Frozen};
use crate::election::{self, Mastership, Views};
use crate::links::{self, Inbox, Links, cluster, memory};
use crate::members::{self, Fact};
use crate::outlet::{Outlet, Routes};
use crate::shell::Shell;
use crate::store::{self, DiskStore, LogStore, MemoryStore, StoreError, StoreEvent, StoreThread};
use crate::supervisor::{Fatal, Stopping, Supervisor};
use crate::worker::Executor;
use crate::{clock, gateway};

/// How a node is to be run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster's name.
    pub cluster: String,
    /// Where it remembers.
    pub storage: Storage,
    /// How it reaches the others.
    pub wires: Wires,
    /// The join list, in order, the same on every node. Empty: a cluster of its own.
    pub join: Vec<String>,
    /// Whether it has met others in an earlier run: it is a part of their cluster then, whatever became of its log.
    pub had_others: bool,
    /// The wish for voters; only read when a cluster is founded.
    pub voters: Option<u8>,
    /// The timers.
    pub profile: Profile,
    /// What it offers to run.
    pub offer: Offer,
    /// How long a voter may be silent before another member takes its place.
    pub replace_after: Duration,
    /// When it writes a snapshot, and how much of the log it keeps behind that.
    pub compaction: replica::Compaction,
    /// What its timers go by.
    pub clock: Clock,
}

/// Where a node remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In this folder, which is created if it is not there.
    Folder(PathBuf),
    /// In memory: the node is another one after a restart.
    Memory,
}

/// How a node reaches the others.
#[derive(Clone)]
pub enum Wires {
    /// Over TCP.
    Tcp {
        /// Where to listen; port 0 picks a free one.
        listen: SocketAddr,
        /// Whether plain streams may leave the machine.
        insecure: bool,
    },
    /// Inside this process.
    Memory {
        /// The network.
        hub: memory::Hub,
        /// The node's address on it; `None` picks one.
        address: Option<SocketAddr>,
    },
}

impl std::fmt::Debug for Wires {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { listen, insecure } => write!(f, "Tcp({listen}, insecure: {insecure})"),
            Self::Memory { address, .. } => write!(f, "Memory({address:?})"),
        }
    }
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The timers do not fit together, in words.
    #[error("inconsistent profile: {0}")]
    Profile(String),
    /// The data folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The address cannot be used.
    #[error(transparent)]
    Links(#[from] cluster::StartError),
    /// The system refused a thread or a timer.
    #[error("the system refused a thread or a timer: {0}")]
    System(#[from] std::io::Error),
}

/// A running node. Dropped, it stops without saying goodbye.
pub struct Host {
    parts: Parts,
    control: Control,
}

impl Host {
    /// Starts a node. It works as soon as this returns; whether it is in a cluster by then, [`Host::mastership`] tells.
    ///
    /// # Errors
    ///
    /// [`StartError`]: nothing runs.
    pub async fn start(settings: Settings, executor: Arc<dyn Executor>) -> Result<Self, StartError> {
        settings.profile.validate().map_err(StartError::Profile)?;
        let (control, parts) = Control::start(async || begin(settings, executor).await, end).await?;
        Ok(Self { parts, control })
    }

    /// Who this node is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.parts.node
    }

    /// Which run of it this is.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.parts.incarnation
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.parts.address
    }

    /// Makes calls to the cluster, through this node.
    #[must_use]
    pub fn client(&self) -> ClientHandle {
        self.parts.client.clone()
    }

    /// What this node knows of the cluster, read in one step; `None` once it has stopped.
    pub async fn status(&self) -> Option<Status> {
        self.probe().status().await
    }

    /// Asks for the status without holding the node.
    #[must_use]
    pub fn probe(&self) -> Probe {
        Probe { election: self.parts.election.clone() }
    }

    /// Who is master, as it changes.
    #[must_use]
    pub fn mastership(&self) -> watch::Receiver<Mastership> {
        self.parts.mastership.subscribe()
    }

    /// Lets everything that decides here stand still until what this returns is dropped.
    pub fn freeze(&self) -> Frozen {
        self.control.freeze()
    }

    /// Passes on what membership knows.
    pub fn tell(&self, fact: Fact) {
        self.teller().tell(fact);
    }

    /// Passes on what membership knows, from elsewhere.
    #[must_use]
    pub fn teller(&self) -> Teller {
        Teller { members: self.parts.members.clone() }
    }

    /// The reason for which this node must stop, once there is one.
    pub fn fatal(&self) -> impl Future<Output = String> + Send + 'static {
        let fatal = self.parts.fatal.clone();
        async move { fatal.raised().await }
    }

    /// Hands mastership over if this node has it, takes no more work, waits at most `drain` for what runs, stops the rest, says
    /// goodbye and stops.
    pub async fn shutdown(self, drain: Duration) {
        let Self { parts, control } = self;
        parts.outlet.deliver(Local::Replica(replica::Input::Leave));
        hand_over(&parts).await;
        parts.outlet.deliver(Local::Worker(worker::Input::Drain));
        let mut is_idle = parts.is_idle.subscribe();
        if tokio::time::timeout(drain, is_idle.wait_for(|idle| *idle)).await.is_err() {
            parts.outlet.deliver(Local::Worker(worker::Input::Stop));
            // The worker is done within an election timeout; a thread that stands still is not waited for.
            let _ = tokio::time::timeout(parts.patience * 2, is_idle.wait_for(|idle| *idle)).await;
        }
        // Whoever was the only one who could lead meanwhile may find an heir by now.
        hand_over(&parts).await;
        parts.client.close();
        tokio::time::sleep(GOODBYE).await;
        control.stop().await;
    }
}

/// Asks a node for its status.
#[derive(Clone)]
pub struct Probe {
    election: ActorRef<election::Message>,
}

impl Probe {
    /// What the node knows of the cluster, read in one step; `None` once it has stopped.
    pub async fn status(&self) -> Option<Status> {
        let (reply, status) = oneshot::channel();
        self.election.cast(election::Message::Status(reply)).ok()?;
        status.await.ok()
    }
}

impl Probe {
    /// Passes on an operator's word: found without these places of the join list.
    pub fn found_without(&self, places: BTreeSet<usize>) {
        // A node that is stopping founds nothing.
        let input = replica::Input::FoundWithout { places };
        let _ = self.election.cast(election::Message::Step(input, links::Credit::default()));
    }
}

/// Passes facts about members on to a node.
#[derive(Clone)]
pub struct Teller {
    members: ActorRef<members::Message>,
}

impl Teller {
    /// Passes on what membership knows.
    pub fn tell(&self, fact: Fact) {
        // A node that is stopping has no use for it.
        let _ = self.members.cast(members::Message::Fact(fact));
    }
}

/// What may be used from other threads.
#[derive(Clone)]
struct Parts {
    node: NodeId,
    incarnation: Incarnation,
    address: SocketAddr,
    outlet: Outlet,
    client: ClientHandle,
    election: ActorRef<election::Message>,
    members: ActorRef<members::Message>,
    mastership: watch::Sender<Mastership>,
    /// Becomes true when the worker has said goodbye.
    is_idle: watch::Sender<bool>,
    fatal: Fatal,
    /// How long a hand-over may take: an election timeout.
    patience: Duration,
}

/// What lives on the control thread.
struct Inside {
    parts: Parts,
    links: Arc<dyn Links>,
    supervisor: ActorRef<Stopping>,
    store: StoreThread,
}

impl Built for Inside {
    type Outside = Parts;

    fn outside(&self) -> Parts {
        self.parts.clone()
    }
}

async fn begin(settings: Settings, executor: Arc<dyn Executor>) -> Result<Inside, StartError> {
    let (store, durable) = open_store(&settings)?;
    let (node, incarnation) = (durable.node, durable.incarnation);
    let (links, inbox) = open_links(&settings, &durable).await?;
    let fatal = Fatal::new();

    let late = Arc::new(OnceLock::new());
    let store = StoreThread::start(store, on_store(Arc::clone(&late)))?;
    let clock = settings.clock.clone();
    let outlet = Outlet::new(node, incarnation, clock.clone(), Arc::clone(&links), Some(store.handle()));
    assert!(late.set(outlet.clone()).is_ok(), "set once");

    let now = clock.now();
    let Settings { cluster, join, had_others, voters, profile, offer, replace_after, compaction, .. } = settings;
    let mastership = watch::Sender::new(Mastership { cluster: durable.cluster(), ..Mastership::default() });
    let is_idle = watch::Sender::new(false);
    let is_forgetful = matches!(settings.storage, Storage::Memory);
    let is_left_behind = had_others && join.len() <= 1 && durable.genesis.is_none();
    let mut replica = Replica::new(
        replica::Config {
            node,
            profile,
            name: cluster,
            join: join.clone(),
            voters,
            seed: rand::random(),
            cluster: ClusterId(rand::random()),
            replace_after,
            is_forgetful,
            compaction,
        },
        durable,
        now,
    );
    if is_left_behind {
        tracing::warn!(
            "this node was in a cluster and has no log: it waits for the others, and founds nothing by itself while there is a file `members` in its data folder"
        );
        replica.step(now, replica::Input::ClusterExists, &mut Effects::new());
    }
    let views = Views { mastership: mastership.clone(), links: Arc::clone(&links), fatal: fatal.clone() };
    let master = master::Mastership::new(node, profile);
    let worker = worker::Worker::new(worker::Config { node, incarnation, offer, profile }, now);
    let client = client::Client::new(client_config(node, true, profile, now));

    let (supervisor, _) = Supervisor::spawn(None, Supervisor, fatal.clone()).await.expect("it cannot fail to begin");
    let parent = || supervisor.get_cell();
    let arguments = election::Arguments { shell: Shell::new(replica, outlet.clone())?, views: views.clone() };
    let (election, _) = spawned(Actor::spawn_linked(None, election::Election, arguments, parent()).await);
    let arguments = Shell::new(master, outlet.clone())?;
    let (master, _) = spawned(Actor::spawn_linked(None, crate::master::Master, arguments, parent()).await);
    let arguments = (Shell::new(worker, outlet.clone())?, executor, is_idle.clone());
    let (worker, _) = spawned(Actor::spawn_linked(None, crate::worker::Worker, arguments, parent()).await);
    let arguments = Shell::new(client, outlet.clone())?;
    let (client, _) = spawned(Actor::spawn_linked(None, crate::client::Client, arguments, parent()).await);
    outlet.connect(Routes {
        election: Some(election.clone()),
        master: Some(master),
        worker: Some(worker),
        client: client.clone(),
    });
    let arguments = members::Arguments { outlet: outlet.clone(), node, join };
    let (members, _) = spawned(Actor::spawn_linked(None, members::Members, arguments, parent()).await);
    tokio::spawn(pass_on_part(mastership.subscribe(), members.clone()));
    let gateway =
        tokio::spawn(gateway::run(node, inbox, outlet.clone(), Some(members.clone()), gateway::Home::Node(views)));
    let deaf = fatal.clone();
    tokio::spawn(async move {
        // It ends by itself when the links are shut down; a node that hears nobody must not go on.
        if let Err(error) = gateway.await
            && error.is_panic()
        {
            deaf.raise(format!("the gateway failed: {error}"));
        }
    });
    outlet.wake_all();

    let address = links.address();
    let client = ClientHandle::new(client);
    let patience = profile.election_timeout;
    let parts =
        Parts { node, incarnation, address, outlet, client, election, members, mastership, is_idle, fatal, patience };
    Ok(Inside { parts, links, supervisor, store })
}

/// Says goodbye to the peers, then ends the actors, then the store, so that nothing is acknowledged without it.
async fn end(inside: Inside) {
    let Inside { parts, links, supervisor, store } = inside;
    let _ = supervisor.cast(Stopping);
    links.shutdown().await;
    let _ = supervisor.stop_and_wait(None, Some(STOP_MAX)).await;
    drop(parts);
    drop(store);
}

/// Opens and reads the store. A log that is damaged is replaced by an empty one, under a new identity (F2), if there are
/// others to join, on the list or from an earlier run, and it is not the only voter: alone, the node would begin a new cluster
/// without a word about what the old one held.
fn open_store(settings: &Settings) -> Result<(Box<dyn LogStore>, Durable), StoreError> {
    let fresh = || NodeId(rand::random_range(1..=u64::MAX));
    match &settings.storage {
        Storage::Folder(folder) if settings.join.len() > 1 || settings.had_others => {
            let (store, durable, replaced) =
                store::open_or_replace(folder, clock::unix_ms(), settings.join.len() > 1, fresh)?;
            if let Some(replaced) = replaced {
                tracing::error!("{replaced}; this node joins again as {}, with an empty log", durable.node);
            }
            Ok((Box::new(store), durable))
        }
        Storage::Folder(folder) => {
            let mut store = DiskStore::open(folder, clock::unix_ms(), fresh())?;
            let durable = store.load()?;
            Ok((Box::new(store), durable))
        }
        Storage::Memory => {
            let mut store = MemoryStore::new(fresh(), Incarnation(clock::unix_ms()));
            let durable = store.load()?;
            Ok((Box::new(store), durable))
        }
    }
}

async fn open_links(settings: &Settings, durable: &Durable) -> Result<(Arc<dyn Links>, Inbox), StartError> {
    let identity = links::Identity {
        cluster_name: settings.cluster.clone(),
        cluster: durable.cluster(),
        node: durable.node,
        incarnation: durable.incarnation,
        role: links::Role::Node,
    };
    Ok(match &settings.wires {
        Wires::Tcp { listen, insecure } => {
            let (listen, insecure) = (*listen, *insecure);
            let config = cluster::Config { identity, listen, advertise: None, secret: None, insecure };
            let (links, inbox) = cluster::start(config).await?;
            (links as Arc<dyn Links>, inbox)
        }
        Wires::Memory { hub, address } => {
            let (links, inbox) = hub.join(identity, *address);
            (Arc::new(links) as Arc<dyn Links>, inbox)
        }
    })
}

/// A master that is told to stop lets another one lead first: the cluster hardly notices. Where nobody can, each of two tries takes a
/// little more than an election timeout.
async fn hand_over(parts: &Parts) {
    let mut mastership = parts.mastership.subscribe();
    // The heir that is chosen first may be about to stop, too, and say nothing; then another one is.
    for _ in 0..2 {
        if mastership.borrow_and_update().role != Role::Leader {
            return;
        }
        let status = Probe { election: parts.election.clone() }.status().await;
        if status.is_none_or(|status| status.heard.len() < 2) {
            return;
        }
        parts.outlet.deliver(Local::Replica(replica::Input::Transfer { to: None }));
        let handed = mastership.wait_for(|now| now.role != Role::Leader);
        // A little longer than the core tries.
        let _ = tokio::time::timeout(parts.patience * 5 / 4, handed).await;
    }
    if mastership.borrow().role == Role::Leader {
        tracing::info!("mastership was not handed over before this node stops");
    }
}

/// Tells who dials what this node is to the log, from the time at which it is in a cluster.
async fn pass_on_part(mut mastership: watch::Receiver<Mastership>, members: ActorRef<members::Message>) {
    let mut told = None;
    loop {
        let now = *mastership.borrow_and_update();
        let part = (now.cluster != ClusterId::NONE).then_some(now.part);
        if let Some(part) = part.filter(|_| part != told) {
            told = Some(part);
            if members.cast(members::Message::Part(part)).is_err() {
                return;
            }
        }
        if mastership.changed().await.is_err() {
            return;
        }
    }
}

/// Brings the store's answers to the replica: one hop from the thread that synced.
fn on_store(outlet: Arc<OnceLock<Outlet>>) -> Box<dyn Fn(StoreEvent) + Send> {
    Box::new(move |event| {
        let input = match event {
            StoreEvent::Persisted { seq } => replica::Input::Persisted { seq },
            StoreEvent::Image(done) => replica::Input::ImageDone(done),
            StoreEvent::Failed { message } => replica::Input::StorageFailed { why: message },
        };
        outlet.get().expect("nothing is persisted before the outlet is there").deliver(Local::Replica(input));
    })
}

/// How clients behave, inside a node or outside.
pub(crate) fn client_config(node: NodeId, local_replica: bool, profile: Profile, now: Nanos) -> client::Config {
    client::Config {
        node,
        local_replica,
        ttl: profile.session * 10,
        patience: profile.election_timeout * 2,
        // Numbers of an earlier run of this node are never met again: half of the space is left for this one's.
        first_number: rand::random_range(1..=u64::MAX / 2),
        now,
    }
}

/// None of our actors can fail to begin: what can fail is done before.
fn spawned<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    result.expect("an unnamed actor whose beginning cannot fail")
}

/// Time for the client's goodbye to leave; if it does not, its session expires instead.
const GOODBYE: Duration = Duration::from_millis(20);

/// How long actors may take to end, before their thread ends without them.
const STOP_MAX: Duration = Duration::from_secs(2);
