//! Several nodes in one process, to test applications against crashes, pauses and cuts.
//!
//! They are the nodes of the product but for the wires between them, which run through memory and can be cut; there is no gossip, which
//! decides nothing.
//!
//! What their clients and workers see is written down, and [`TestCluster::history`] judges it.
//!
//! # Invariants
//!
//! * A killed node remembers what it had made durable, and nothing else, when it starts again.

mod history;
mod notes;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actors::links::memory::Hub;
use actors::{Clock, Frozen, Host, Settings, Storage, Wires};
use protocol::effects::Role;
use protocol::replica::{Compaction, REPLACE_AFTER};
use protocol::state::Offer;
use protocol::{NodeId, Profile};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::diagnostic::{Code, Diagnostic};
use crate::error::{Error, StartError};
use crate::executor::Handlers;
use crate::node::Local;
use crate::start;
use crate::task::{RawHandler, TaskHandler, Typed};

pub use history::History;
use notes::{Notes, Recorded};

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
    notes: Arc<Notes>,
}

/// A cluster about to start.
///
/// ```no_run
/// # use tenure::testing::TestCluster;
/// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
/// # use tenure::Profile;
/// let cluster = TestCluster::builder().nodes(5).slots(2).profile(Profile::LAN).start().await?;
/// # drop(cluster);
/// # Ok(()) }
/// ```
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
    clock: Clock,
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
    ///
    /// ```no_run
    /// # use tenure::testing::TestCluster;
    /// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
    /// let cluster = TestCluster::builder().nodes(1).start().await?;
    /// # drop(cluster);
    /// # Ok(()) }
    /// ```
    pub fn builder() -> Builder {
        Builder { nodes: 3, slots: 4, profile: Profile::DEV, handlers: BTreeMap::new() }
    }

    /// Asks the cluster through this node. A node that starts again has another client.
    ///
    /// ```no_run
    /// # use tenure::testing::TestCluster;
    /// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
    /// cluster.client(0).kv().put("greeting", "hello").await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn client(&self, place: usize) -> Client {
        self.members[place].client.clone()
    }

    /// Waits until a node that runs is master, and returns its place. Cancellation safe.
    ///
    /// ```no_run
    /// # use tenure::testing::TestCluster;
    /// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
    /// let master = cluster.master().await;
    /// cluster.kill(master);
    /// # Ok(()) }
    /// ```
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
    ///
    /// ```no_run
    /// # use tenure::testing::TestCluster;
    /// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
    /// cluster.kill(0);
    /// cluster.client(1).kv().put("greeting", "still here").await?;
    /// # Ok(()) }
    /// ```
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
    /// ```no_run
    /// # use tenure::testing::TestCluster;
    /// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
    /// cluster.kill(0);
    /// cluster.restart(0).await?;
    /// # Ok(()) }
    /// ```
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
        self.members[place] = self.member(place).await?;
        Ok(())
    }

    /// Lets a node stand still, as one does that the system has stopped, until it is [resumed](Self::resume).
    ///
    /// ```no_run
    /// # use tenure::testing::TestCluster;
    /// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
    /// cluster.pause(0);
    /// cluster.client(1).kv().put("greeting", "still here").await?;
    /// cluster.resume(0);
    /// # Ok(()) }
    /// ```
    pub fn pause(&mut self, place: usize) {
        let member = &mut self.members[place];
        member.state = match std::mem::replace(&mut member.state, State::Down(None)) {
            State::Up(host) => State::Paused { _frozen: host.freeze(), host },
            other => other,
        };
    }

    /// Lets a paused node go on.
    ///
    /// ```no_run
    /// # use tenure::testing::TestCluster;
    /// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
    /// cluster.pause(0);
    /// cluster.resume(0);
    /// # Ok(()) }
    /// ```
    pub fn resume(&mut self, place: usize) {
        let member = &mut self.members[place];
        member.state = match std::mem::replace(&mut member.state, State::Down(None)) {
            State::Paused { host, .. } => State::Up(host),
            other => other,
        };
    }

    /// Cuts these groups of nodes apart, silently. Nodes in no group keep all links.
    ///
    /// ```no_run
    /// # use tenure::testing::TestCluster;
    /// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
    /// cluster.partition([&[0], &[1, 2]]);
    /// assert!(cluster.client(0).kv().put("a", "1").await.is_err(), "no quorum");
    /// # Ok(()) }
    /// ```
    pub fn partition<const GROUPS: usize>(&self, groups: [&[usize]; GROUPS]) {
        for (at, group) in groups.iter().enumerate() {
            let others = groups[at + 1..].iter().flat_map(|other| other.iter());
            for (a, b) in others.flat_map(|other| group.iter().map(move |one| (*one, *other))) {
                self.hub.cut(self.members[a].node, self.members[b].node);
            }
        }
    }

    /// Joins all nodes again.
    ///
    /// ```no_run
    /// # use tenure::testing::TestCluster;
    /// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
    /// cluster.partition([&[0], &[1, 2]]);
    /// cluster.heal();
    /// cluster.client(0).kv().put("a", "1").await?;
    /// # Ok(()) }
    /// ```
    pub fn heal(&self) {
        self.hub.heal_all();
    }

    /// Delays everything between this node and all others by this much, each way.
    ///
    /// ```no_run
    /// # use tenure::testing::TestCluster;
    /// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::time::Duration;
    /// cluster.lag(0, Duration::from_millis(20));
    /// # Ok(()) }
    /// ```
    pub fn lag(&self, place: usize, span: Duration) {
        for other in (0..self.members.len()).filter(|other| *other != place) {
            self.hub.lag(self.members[place].node, self.members[other].node, span);
        }
    }

    /// Lets the clock of a node run at another rate: at 1.02 it goes ahead by 20 ms in a second. All timers of the node and the ends of
    /// the sessions of its clients go by it, from the next time that they are set; 0.9 to 1.1 is what the cluster is made for. A node
    /// that starts again has a right clock.
    ///
    /// ```no_run
    /// # use tenure::testing::TestCluster;
    /// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
    /// cluster.skew(0, 1.05); // ahead by 50 ms in a second
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    ///
    /// If the rate is not within 0.1 to 10.
    pub fn skew(&self, place: usize, rate: f64) {
        self.members[place].clock.set_rate(rate);
    }

    /// What the clients of this cluster were told so far, what its workers started and who said to be master. Asks the cluster how the
    /// tasks stand now, so there must be a quorum. Cancellation safe.
    ///
    /// ```
    /// # use tenure::prelude::*;
    /// # use tenure::testing::TestCluster;
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut cluster = TestCluster::builder().nodes(3).start().await?;
    /// cluster.client(0).kv().put("greeting", "hello").await?;
    /// let master = cluster.master().await;
    /// cluster.kill(master);
    /// cluster.client((master + 1) % 3).kv().get("greeting").await?;
    /// cluster.history().await?.assert_single_master_per_epoch().assert_linearizable();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn history(&self) -> Result<History, Error> {
        let place = self.master().await;
        let names = (1..=self.members.len()).map(|number| format!("n{number}")).collect();
        History::new(&self.notes, names, &self.members[place].client).await
    }

    async fn member(&self, place: usize) -> Result<Member, StartError> {
        let Builder { nodes, slots, profile, handlers } = &self.settings;
        let address = |place: usize| SocketAddr::from(([127, 0, 0, 1], FIRST_PORT + place as u16));
        let join = (0..*nodes).map(|place| address(place).to_string());
        let offer = Offer {
            label: format!("n{}", place + 1),
            slots: *slots,
            kinds: handlers.keys().cloned().collect(),
            ..Offer::default()
        };
        let clock = Clock::rated();
        let settings = Settings {
            cluster: NAME.to_owned(),
            storage: Storage::Folder(self.folder.path().join(&offer.label)),
            wires: Wires::Memory { hub: self.hub.clone(), address: Some(address(place)) },
            join: if *nodes == 1 { Vec::new() } else { join.collect() },
            had_others: false,
            voters: None,
            profile: *profile,
            offer,
            replace_after: REPLACE_AFTER,
            compaction: Compaction::default(),
            clock: clock.clone(),
        };
        let runtime = tokio::runtime::Handle::current();
        let handlers = Handlers::new(NAME.to_owned(), handlers.clone(), runtime);
        let handlers = Arc::new(Recorded::new(handlers, place, &self.notes));
        let host = Host::start(settings, handlers).await.map_err(start::host)?;
        tokio::spawn(self.notes.clone().follow(place, host.mastership()));
        let client = Client::new(Arc::new(Recorded::new(Local::of(&host), place, &self.notes)), *profile);
        Ok(Member { node: host.node(), clock, client, state: State::Up(host) })
    }
}

impl Builder {
    /// How many nodes.
    ///
    /// ```no_run
    /// # use tenure::testing::TestCluster;
    /// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
    /// let cluster = TestCluster::builder().nodes(5).start().await?;
    /// # drop(cluster);
    /// # Ok(()) }
    /// ```
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// How many attempts a node runs at once.
    ///
    /// ```no_run
    /// # use tenure::testing::TestCluster;
    /// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
    /// let cluster = TestCluster::builder().slots(1).start().await?;
    /// # drop(cluster);
    /// # Ok(()) }
    /// ```
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// The timers.
    ///
    /// ```no_run
    /// # use tenure::testing::TestCluster;
    /// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
    /// # use tenure::Profile;
    /// let cluster = TestCluster::builder().profile(Profile::LAN).start().await?;
    /// # drop(cluster);
    /// # Ok(()) }
    /// ```
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// Every node runs tasks of this kind: of a function with [`#[task]`](macro@crate::task), which is named here.
    ///
    /// ```no_run
    /// # use tenure::testing::TestCluster;
    /// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
    /// # use tenure::prelude::*;
    /// #[task]
    /// async fn greet(name: String) -> Result<String, TaskError> {
    ///     Ok(format!("hello, {name}"))
    /// }
    ///
    /// let cluster = TestCluster::builder().task::<greet>().start().await?;
    /// assert_eq!(cluster.client(0).submit::<greet>("Ada".into()).await?.result().await?, "hello, Ada");
    /// # Ok(()) }
    /// ```
    pub fn task<H: TaskHandler + Default>(self) -> Self {
        self.register(H::default())
    }

    /// Every node runs tasks of this handler's kind.
    ///
    /// ```no_run
    /// # use tenure::testing::TestCluster;
    /// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
    /// # use tenure::prelude::*;
    /// struct Shout(&'static str);
    ///
    /// impl TaskHandler for Shout {
    ///     const NAME: &'static str = "shout";
    ///     type Input = String;
    ///     type Output = String;
    ///
    ///     async fn run(&self, _cx: &TaskCx, word: String) -> Result<String, TaskError> {
    ///         Ok(word + self.0)
    ///     }
    /// }
    ///
    /// let cluster = TestCluster::builder().register(Shout("!")).start().await?;
    /// # drop(cluster);
    /// # Ok(()) }
    /// ```
    pub fn register<H: TaskHandler>(mut self, handler: H) -> Self {
        self.handlers.insert(H::NAME.to_owned(), Arc::new(Typed(handler)));
        self
    }

    /// Starts the nodes, and waits until one is master.
    ///
    /// ```no_run
    /// # use tenure::testing::TestCluster;
    /// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
    /// let cluster = TestCluster::builder().start().await?;
    /// # drop(cluster);
    /// # Ok(()) }
    /// ```
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
        let (hub, members, notes) = (Hub::new(), Vec::new(), Arc::default());
        let mut cluster = TestCluster { settings: self, hub, members, folder, notes };
        for place in 0..cluster.settings.nodes {
            let member = cluster.member(place).await?;
            cluster.members.push(member);
        }
        cluster.master().await;
        Ok(cluster)
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
mod tests;
