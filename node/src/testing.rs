//! Several nodes in one process, to test applications against crashes, pauses and cuts.
//!
//! They are the nodes of the product but for the wires between them, which run through memory and can be cut; there is no gossip, which
//! decides nothing.
//!
//! # Invariants
//!
//! * A killed node remembers what it had made durable, and nothing else, when it starts again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actors::links::memory::Hub;
use actors::{Frozen, Host, Settings, Storage, Wires};
use protocol::effects::Role;
use protocol::replica::{Compaction, REPLACE_AFTER};
use protocol::state::Offer;
use protocol::{NodeId, Profile};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::diagnostic::{Code, Diagnostic};
use crate::error::StartError;
use crate::executor::Handlers;
use crate::node::Local;
use crate::start;
use crate::task::{RawHandler, TaskHandler, Typed};

/// A cluster inside this process. Nodes are counted from zero.
///
/// ```
/// # use tenure::prelude::*;
/// # use tenure::testing::TestCluster;
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut cluster = TestCluster::builder().nodes(3).start().await?;
/// cluster.client(0).kv().put("greeting", "hello").await?;
/// let master = cluster.master().await;
/// cluster.kill(master);
/// let value = cluster.client((master + 1) % 3).kv().get("greeting").await?;
/// assert_eq!(value.expect("nothing acknowledged is lost").value, "hello");
/// # Ok(())
/// # }
/// ```
pub struct TestCluster {
    settings: Builder,
    hub: Hub,
    members: Vec<Member>,
    folder: TempDir,
}

/// A cluster about to start.
#[must_use = "a cluster starts with `start()`"]
pub struct Builder {
    nodes: usize,
    slots: u32,
    profile: Profile,
    handlers: BTreeMap<String, Arc<dyn RawHandler>>,
}

struct Member {
    state: State,
    node: NodeId,
    client: Client,
}

enum State {
    Up(Host),
    Paused {
        _frozen: Frozen,
        host: Host,
    },
    /// Its threads end.
    Down(Option<JoinHandle<()>>),
}

impl TestCluster {
    /// Describes a cluster: three nodes with four slots each and the timers of `Profile::DEV`, unless told otherwise.
    pub fn builder() -> Builder {
        Builder { nodes: 3, slots: 4, profile: Profile::DEV, handlers: BTreeMap::new() }
    }

    /// Asks the cluster through this node. A node that starts again has another client.
    #[must_use]
    pub fn client(&self, place: usize) -> Client {
        self.members[place].client.clone()
    }

    /// Waits until a node that runs is master, and returns its place. Cancellation safe.
    pub async fn master(&self) -> usize {
        loop {
            for (place, member) in self.members.iter().enumerate() {
                if let State::Up(host) = &member.state
                    && host.status().await.is_some_and(|status| status.role == Role::Leader && status.master_fresh)
                {
                    return place;
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Kills a node: what it had not made durable is lost, and the others see its connections close.
    pub fn kill(&mut self, place: usize) {
        let member = &mut self.members[place];
        self.hub.kill(member.node);
        let state = std::mem::replace(&mut member.state, State::Down(None));
        let ended = match state {
            State::Up(host) | State::Paused { host, .. } => Some(tokio::task::spawn_blocking(move || drop(host))),
            State::Down(ended) => ended,
        };
        self.members[place].state = State::Down(ended);
    }

    /// Starts a node again that was killed.
    ///
    /// # Errors
    ///
    /// [`StartError`] if it does not start.
    ///
    /// # Panics
    ///
    /// If it runs.
    pub async fn restart(&mut self, place: usize) -> Result<(), StartError> {
        let State::Down(ended) = &mut self.members[place].state else { panic!("node {place} runs") };
        if let Some(ended) = ended.take() {
            let _ = ended.await;
        }
        self.members[place] = self.settings.member(place, &self.hub, &self.folder).await?;
        Ok(())
    }

    /// Lets a node stand still, as one does that the system has stopped, until it is [resumed](Self::resume).
    pub fn pause(&mut self, place: usize) {
        let member = &mut self.members[place];
        member.state = match std::mem::replace(&mut member.state, State::Down(None)) {
            State::Up(host) => State::Paused { _frozen: host.freeze(), host },
            other => other,
        };
    }

    /// Lets a paused node go on.
    pub fn resume(&mut self, place: usize) {
        let member = &mut self.members[place];
        member.state = match std::mem::replace(&mut member.state, State::Down(None)) {
            State::Paused { host, .. } => State::Up(host),
            other => other,
        };
    }

    /// Cuts these groups of nodes apart, silently. Nodes in no group keep all links.
    pub fn partition<const GROUPS: usize>(&self, groups: [&[usize]; GROUPS]) {
        for (at, group) in groups.iter().enumerate() {
            let others = groups[at + 1..].iter().flat_map(|other| other.iter());
            for (a, b) in others.flat_map(|other| group.iter().map(move |one| (*one, *other))) {
                self.hub.cut(self.members[a].node, self.members[b].node);
            }
        }
    }

    /// Joins all nodes again.
    pub fn heal(&self) {
        self.hub.heal_all();
    }

    /// Delays everything between this node and all others by this much, each way.
    pub fn lag(&self, place: usize, span: Duration) {
        for other in (0..self.members.len()).filter(|other| *other != place) {
            self.hub.lag(self.members[place].node, self.members[other].node, span);
        }
    }
}

impl Builder {
    /// How many nodes.
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// How many attempts a node runs at once.
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// The timers.
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// Every node runs tasks of this handler's kind.
    pub fn register<H: TaskHandler>(mut self, handler: H) -> Self {
        self.handlers.insert(H::NAME.to_owned(), Arc::new(Typed(handler)));
        self
    }

    /// Starts the nodes, and waits until one is master.
    ///
    /// # Errors
    ///
    /// [`StartError`]: nothing runs.
    pub async fn start(self) -> Result<TestCluster, StartError> {
        if self.nodes == 0 || self.nodes > NODES_MAX {
            let why = format!("a cluster of tests has 1 to {NODES_MAX} nodes, not {}", self.nodes);
            return Err(StartError::new(Diagnostic::new(Code::Config, why)));
        }
        let folder = tempfile::tempdir().map_err(start::thread)?;
        let mut cluster = TestCluster { settings: self, hub: Hub::new(), members: Vec::new(), folder };
        for place in 0..cluster.settings.nodes {
            let member = cluster.settings.member(place, &cluster.hub, &cluster.folder).await?;
            cluster.members.push(member);
        }
        cluster.master().await;
        Ok(cluster)
    }

    async fn member(&self, place: usize, hub: &Hub, folder: &TempDir) -> Result<Member, StartError> {
        let address = |place: usize| SocketAddr::from(([127, 0, 0, 1], FIRST_PORT + place as u16));
        let join = (0..self.nodes).map(|place| address(place).to_string());
        let offer = Offer {
            label: format!("n{}", place + 1),
            slots: self.slots,
            kinds: self.handlers.keys().cloned().collect(),
            ..Offer::default()
        };
        let settings = Settings {
            cluster: NAME.to_owned(),
            storage: Storage::Folder(folder.path().join(&offer.label)),
            wires: Wires::Memory { hub: hub.clone(), address: Some(address(place)) },
            join: if self.nodes == 1 { Vec::new() } else { join.collect() },
            voters: None,
            profile: self.profile,
            offer,
            replace_after: REPLACE_AFTER,
            compaction: Compaction::default(),
        };
        let runtime = tokio::runtime::Handle::current();
        let handlers = Arc::new(Handlers::new(NAME.to_owned(), self.handlers.clone(), runtime));
        let host = Host::start(settings, handlers).await.map_err(start::host)?;
        let client = Client::new(Arc::new(Local::of(&host)));
        Ok(Member { node: host.node(), client, state: State::Up(host) })
    }
}

impl std::fmt::Debug for TestCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestCluster").field("nodes", &self.members.len()).finish_non_exhaustive()
    }
}

const NAME: &str = "test";

/// Names in memory: nothing listens there.
const FIRST_PORT: u16 = 9_000;

const NODES_MAX: usize = 64;

/// Between two looks for a master.
const POLL: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_session_outlives_the_master_and_what_was_written_outlives_its_node() {
        let mut cluster = TestCluster::builder().start().await.unwrap();
        let master = cluster.master().await;
        let other = (master + 1) % 3;
        let session = cluster.client(other).session(Duration::from_secs(60)).await.unwrap();
        cluster.client(master).kv().put("k", "v").await.unwrap();
        cluster.kill(master);
        assert_ne!(cluster.master().await, master);
        let read = |client: Client| async move { client.kv().get("k").await.unwrap().unwrap().value };
        assert_eq!(read(cluster.client(other)).await, "v");
        assert!(!session.is_lost());
        cluster.restart(master).await.unwrap();
        assert_eq!(read(cluster.client(master)).await, "v");
        session.close().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_is_cut_off_or_paused_has_no_quorum_until_that_is_over() {
        let mut cluster = TestCluster::builder().start().await.unwrap();
        let master = cluster.master().await;
        let others = [(master + 1) % 3, (master + 2) % 3];
        cluster.partition([&[master], &others]);
        let lonely = cluster.client(master).timeout(Duration::from_millis(300));
        assert!(matches!(lonely.kv().put("k", "1").await, Err(Error::NoQuorum { .. })));
        cluster.client(others[0]).kv().put("k", "2").await.unwrap();
        cluster.heal();
        cluster.client(master).kv().put("k", "3").await.unwrap();
        cluster.pause(master);
        cluster.client(others[0]).kv().put("k", "4").await.unwrap();
        cluster.resume(master);
        assert_eq!(cluster.client(master).kv().get("k").await.unwrap().unwrap().value, "4");
    }
}
