//! Links between nodes of one process, through a [`Hub`] that can partition, delay and kill.
//!
//! It carries `TestCluster` and the tests of the shells. Everything above the bare wire (envelopes, windows, pieces,
//! order) is the code that the real links use; only dialling is replaced by a matchmaker that looks at the targets.
//!
//! # Invariants
//!
//! * A partition loses nothing by itself: frames wait until it heals, as in a socket, or until the links are given up
//!   after ten seconds of silence.
//! * A killed node closes its links as the kernel would: its peers hear `Down` by the peer, then `Evidence`; behind a
//!   partition they hear nothing until it heals.
//! * Lock order: the hub, then a table. Wires and couriers never take the hub's lock while they hold another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use protocol::{ClusterId, NodeId};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::inbox::Inbox;
use super::link::{Link, Wire};
use super::table::{Newcomer, Table, are_compatible, next_generation};
use super::{Class, Closed, Counts, Identity, LinkEvent, Links, Peer, Refusal, Role, SendError, Target};

/// The network between the nodes of one process.
#[derive(Clone)]
pub struct Hub {
    world: Arc<Mutex<World>>,
    /// Counts every change of the network, so that couriers look again.
    changes: watch::Sender<u64>,
    /// How long a silent link lives.
    idle: Duration,
}

/// The links of one node of a [`Hub`].
pub struct MemoryLinks {
    hub: Hub,
    table: Arc<Table>,
    addr: SocketAddr,
}

#[derive(Default)]
struct World {
    members: BTreeMap<NodeId, Member>,
    cuts: BTreeSet<(NodeId, NodeId)>,
    lags: BTreeMap<(NodeId, NodeId), Duration>,
    next_port: u16,
}

struct Member {
    table: Arc<Table>,
    addr: SocketAddr,
    targets: Vec<Target>,
    /// What was said about an address, so that it is said once.
    said: BTreeMap<SocketAddr, LinkEvent>,
}

/// What travels between the two ends of a link.
enum Parcel {
    Frame(Vec<u8>),
    /// The other side closed.
    Close,
}

impl Hub {
    /// A network without nodes.
    #[must_use]
    pub fn new() -> Self {
        Self::with_idle(IDLE)
    }

    /// A network without nodes, that gives silent links up after `idle`.
    #[must_use]
    pub fn with_idle(idle: Duration) -> Self {
        Self { world: Arc::default(), changes: watch::channel(0).0, idle }
    }

    /// Adds a node, at an address of its own or at `addr`. An older run of the same node is killed first. Must be called
    /// inside a tokio runtime.
    pub fn join(&self, identity: Identity, addr: Option<SocketAddr>) -> (MemoryLinks, Inbox) {
        self.kill(identity.node);
        let node = identity.node;
        let (table, inbox) = Table::new(identity);
        let mut world = self.lock();
        world.next_port += 1;
        let addr = addr.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, world.next_port)));
        let member = Member { table: table.clone(), addr, targets: Vec::new(), said: BTreeMap::new() };
        world.members.insert(node, member);
        drop(world);
        self.reconcile();
        (MemoryLinks { hub: self.clone(), table, addr }, inbox)
    }

    /// Cuts two nodes apart, silently and in both directions.
    pub fn cut(&self, a: NodeId, b: NodeId) {
        if self.lock().cuts.insert(pair(a, b)) {
            self.give_up_later(a, b);
        }
        self.changed();
    }

    /// Joins two nodes again.
    pub fn heal(&self, a: NodeId, b: NodeId) {
        self.lock().cuts.remove(&pair(a, b));
        self.changed();
        self.reconcile();
    }

    /// Cuts one node off from all others.
    pub fn isolate(&self, node: NodeId) {
        for other in self.others(node) {
            self.cut(node, other);
        }
    }

    /// Joins all nodes again.
    pub fn heal_all(&self) {
        self.lock().cuts.clear();
        self.changed();
        self.reconcile();
    }

    /// Delays what travels between two nodes, in both directions.
    pub fn lag(&self, a: NodeId, b: NodeId, lag: Duration) {
        self.lock().lags.insert(pair(a, b), lag);
    }

    /// Ends a node as SIGKILL would. Its inbox ends; the others hear of it as far as they can reach it.
    pub fn kill(&self, node: NodeId) {
        let Some(member) = self.lock().members.remove(&node) else { return };
        member.table.end();
        self.changed();
    }

    /// Removes a member, unless a newer run of it is there by now.
    fn forget(&self, node: NodeId, table: &Arc<Table>) {
        let mut world = self.lock();
        if world.members.get(&node).is_some_and(|member| Arc::ptr_eq(&member.table, table)) {
            world.members.remove(&node);
        }
    }

    fn others(&self, node: NodeId) -> Vec<NodeId> {
        self.lock().members.keys().copied().filter(|other| *other != node).collect()
    }

    /// Makes every link that somebody wants and that can be.
    fn reconcile(&self) {
        let mut world = self.lock();
        let wishes: Vec<(NodeId, Target)> = world
            .members
            .iter()
            .flat_map(|(node, member)| member.targets.iter().map(|target| (*node, *target)))
            .collect();
        for (node, target) in wishes {
            self.dial(&mut world, node, target);
        }
    }

    fn dial(&self, world: &mut World, node: NodeId, target: Target) {
        let Some(found) = world.members.iter().find(|(_, member)| member.addr == target.addr).map(|(node, _)| *node)
        else {
            return;
        };
        if world.cuts.contains(&pair(node, found)) {
            return;
        }
        if let Err(why) = may_link(world, node, found, target) {
            world.say(node, target.addr, LinkEvent::Refused { addr: target.addr, why });
            return;
        }
        world.say(node, target.addr, LinkEvent::Identified { addr: target.addr, node: found });
        let (ours, theirs) = (&world.members[&node], &world.members[&found]);
        let incarnation = theirs.table.identity.incarnation;
        let is_linked =
            ours.table.link(found).is_some_and(|link| !link.is_closed() && link.peer.incarnation == incarnation);
        if node != found && theirs.table.identity.role == Role::Node && !is_linked {
            self.connect(ours, theirs);
        }
    }

    fn connect(&self, a: &Member, b: &Member) {
        let (to_b, from_a) = mpsc::unbounded_channel();
        let (to_a, from_b) = mpsc::unbounded_channel();
        let (name_a, name_b) = (rand::random(), rand::random());
        // As if the greater one had dialled, which no older link withstands.
        let dialler = a.id().max(b.id());
        let wire_a = MemoryWire { hub: self.clone(), ends: (a.id(), b.id()), parcels: to_b };
        let wire_b = MemoryWire { hub: self.clone(), ends: (b.id(), a.id()), parcels: to_a };
        let link_a = a.table.admit(b.newcomer(name_a, name_b), next_generation(), Box::new(wire_a), dialler);
        let link_b = b.table.admit(a.newcomer(name_b, name_a), next_generation(), Box::new(wire_b), dialler);
        let (Some(link_a), Some(link_b)) = (link_a, link_b) else { return };
        link_a.raise();
        link_b.raise();
        tokio::spawn(self.clone().courier(from_a, a.id(), b.table.clone(), link_b));
        tokio::spawn(self.clone().courier(from_b, b.id(), a.table.clone(), link_a));
    }

    /// Carries parcels from `from` to the node of `table`, as late as the network wants.
    async fn courier(
        self,
        mut parcels: mpsc::UnboundedReceiver<(Instant, Parcel)>,
        from: NodeId,
        table: Arc<Table>,
        link: Arc<Link>,
    ) {
        let ends = pair(from, table.identity.node);
        while let Some((sent, parcel)) = parcels.recv().await {
            let lag = self.lock().lags.get(&ends).copied();
            if let Some(lag) = lag {
                tokio::time::sleep_until(sent + lag).await;
            }
            self.passable(ends).await;
            match parcel {
                Parcel::Frame(frame) => table.receive(&frame),
                Parcel::Close => {
                    table.close(&link, Closed::ByPeer);
                    if link.ended_by() == Some(Closed::ByPeer) {
                        self.probe(&table, link.peer);
                    }
                    return;
                }
            }
        }
    }

    /// Waits until the two nodes are not cut apart.
    async fn passable(&self, ends: (NodeId, NodeId)) {
        let mut changes = self.changes.subscribe();
        while self.lock().cuts.contains(&ends) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Reports evidence to the owner of `table` if that run of the peer is gone.
    fn probe(&self, table: &Table, peer: Peer) {
        let is_there = self.lock().members.values().any(|member| member.addr == peer.addr);
        if !is_there && peer.role == Role::Node {
            table.report(LinkEvent::Evidence { node: peer.node, incarnation: peer.incarnation });
        }
    }

    /// Gives up the links between two nodes if they stay cut apart for too long.
    fn give_up_later(&self, a: NodeId, b: NodeId) {
        let hub = self.clone();
        tokio::spawn(async move {
            let healed = hub.passable(pair(a, b));
            if tokio::time::timeout(hub.idle, healed).await.is_err() {
                let tables: Vec<Arc<Table>> =
                    [a, b].iter().filter_map(|node| Some(hub.lock().members.get(node)?.table.clone())).collect();
                for table in tables {
                    let other = if table.identity.node == a { b } else { a };
                    table.close_node(other, Closed::Idle);
                }
            }
        });
    }

    fn reconcile_later(&self) {
        let hub = self.clone();
        // A link may end while the runtime itself goes down.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(REDIAL).await;
                hub.reconcile();
            });
        }
    }

    fn changed(&self) {
        self.changes.send_modify(|change| *change += 1);
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("nobody panics under this lock")
    }
}

impl Default for Hub {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// Reports something about an address, unless that is what was reported last.
    fn say(&mut self, node: NodeId, addr: SocketAddr, event: LinkEvent) {
        let member = self.members.get_mut(&node).expect("only members dial");
        if member.said.insert(addr, event.clone()).as_ref() != Some(&event) {
            member.table.report(event);
        }
    }
}

impl Member {
    fn id(&self) -> NodeId {
        self.table.identity.node
    }

    /// This member as its new peer sees it.
    fn newcomer(&self, name: u64, peers_name: u64) -> Newcomer {
        let Identity { node, incarnation, role, .. } = self.table.identity;
        Newcomer { node, incarnation, role, addr: self.addr, name, peers_name }
    }
}

impl Links for MemoryLinks {
    fn send(&self, to: NodeId, class: Class, body: Bytes) -> Result<(), SendError> {
        self.table.send(to, class, body)
    }

    fn set_targets(&self, targets: Vec<Target>) {
        if let Some(member) = self.hub.lock().members.get_mut(&self.table.identity.node) {
            member.targets = targets;
        }
        self.hub.reconcile();
    }

    fn set_cluster(&self, cluster: ClusterId) {
        self.table.set_cluster(cluster);
        self.hub.reconcile();
    }

    fn close(&self, node: NodeId) {
        self.table.close_node(node, Closed::BySelf);
    }

    fn close_if_silent(&self, node: NodeId, silence: Duration) {
        self.table.close_if_silent(node, silence);
    }

    fn probe(&self, _: NodeId) {}

    fn peers(&self) -> Vec<Peer> {
        self.table.peers()
    }

    fn address(&self) -> SocketAddr {
        self.addr
    }

    fn counts(&self) -> Counts {
        self.table.common.counters.read()
    }

    fn shutdown(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            let node = self.table.identity.node;
            // Gone for those who would dial, while the links that exist say goodbye.
            self.hub.forget(node, &self.table);
            self.table.leave(PATIENCE).await;
        })
    }
}

/// One end of a link in memory.
struct MemoryWire {
    hub: Hub,
    /// Whose end this is, and who is at the other.
    ends: (NodeId, NodeId),
    parcels: mpsc::UnboundedSender<(Instant, Parcel)>,
}

impl Wire for MemoryWire {
    fn is_ready(&self) -> bool {
        true
    }

    fn put(&self, frame: Vec<u8>) {
        let _ = self.parcels.send((Instant::now(), Parcel::Frame(frame)));
    }

    fn cut(&self) {
        let _ = self.parcels.send((Instant::now(), Parcel::Close));
        self.hub.reconcile_later();
    }

    fn silent_for(&self) -> Duration {
        // A healthy socket carries pings; only a cut one is silent.
        if self.hub.lock().cuts.contains(&pair(self.ends.0, self.ends.1)) { self.hub.idle } else { Duration::ZERO }
    }
}

fn may_link(world: &World, node: NodeId, found: NodeId, target: Target) -> Result<(), Refusal> {
    let (ours, theirs) = (&world.members[&node].table, &world.members[&found].table);
    if ours.identity.cluster_name != theirs.identity.cluster_name {
        return Err(Refusal::OtherName { theirs: theirs.identity.cluster_name.clone() });
    }
    if !are_compatible(ours.cluster(), theirs.cluster()) {
        return Err(Refusal::OtherCluster { theirs: theirs.cluster() });
    }
    match target.node {
        Some(expected) if expected != found => Err(Refusal::OtherNode { expected, found }),
        _ => Ok(()),
    }
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

/// How long a silent link lives unless the hub says otherwise.
const IDLE: Duration = Duration::from_secs(10);

/// How soon a broken link is made again.
const REDIAL: Duration = Duration::from_millis(20);

/// How long a goodbye waits for the peers.
const PATIENCE: Duration = Duration::from_secs(1);
