//! A node: everything of one process that takes part in a cluster, started and stopped as a whole.
//!
//! ```no_run
//! use tenure::prelude::*;
//!
//! #[task]
//! async fn greet(name: String) -> Result<String, TaskError> {
//!     Ok(format!("hello, {name}"))
//! }
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let list = ["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"];   // the same on every node
//! let node = Node::builder("orders")
//!     .data_dir("./data-1").listen("127.0.0.1:7001").http("127.0.0.1:8001")
//!     .join(list).label("name", "n1").slots(8)
//!     .task::<greet>()
//!     .start().await?;
//! node.ready().await;
//! let handle = node.client().submit::<greet>("Ada".to_owned()).await?;
//! println!("{}", handle.result().await?);
//! node.shutdown(std::time::Duration::from_secs(20)).await;
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants
//!
//! * Handlers run on the runtime on which the node was started; leases, heartbeats and HTTP run on threads of their own, so
//!   that no handler can hold them up.
//! * Dropping a node stops it without a goodbye; [`Node::shutdown`] says goodbye. Its handlers stop with it either way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actors::{
    ClientHandle, Clock, Done, Executor, Fact, Host, KeptSession, Mastership, Probe, Settings, Storage, Wires,
};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use membership::Membership;
use protocol::client::Work;
use protocol::effects::{Part, Role};
use protocol::replica::{Compaction, Status};
use protocol::state::{Answer, Offer, OpenSession};
use protocol::worker::{AbortCause, Run};
use protocol::{ClusterId, Fence, Incarnation, NodeId, Profile, SessionId};
use tokio::sync::watch;

use crate::backstage::Backstage;
use crate::book::{self, Book};
use crate::builder::Builder;
use crate::client::{self, Backend, Client};
use crate::diagnostic::{Code, Diagnostic};
use crate::error::{Error, StartError};
use crate::executor::Handlers;
use crate::folder::NameFile;
use crate::http::Server;
use crate::members::{Members, Sightings};
use crate::ports;
use crate::site::{Identity, Member, Site, short};
use crate::task::RawHandler;
use crate::{gossip, start, waiting, witness};

/// A running node.
///
/// ```
/// # use std::time::Duration;
/// # use tenure::prelude::*;
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Node::builder("orders").ephemeral().start().await?;
/// node.ready().await; // it is in a cluster whose master is at work
/// node.client().kv().put("greeting", "hello").await?;
/// node.shutdown(Duration::from_secs(20)).await; // hands over, finishes or hands back what runs, says goodbye
/// # Ok(())
/// # }
/// ```
pub struct Node {
    inside: Arc<Inside>,
    host: Host,
    server: Option<Server>,
    duplicate: watch::Receiver<bool>,
    _backstage: Backstage,
}

/// What to start, checked.
pub(crate) struct Plan {
    pub(crate) cluster: String,
    pub(crate) storage: Storage,
    pub(crate) listen: SocketAddr,
    pub(crate) http: Option<TcpListener>,
    pub(crate) join: Vec<String>,
    pub(crate) voters: Option<u8>,
    pub(crate) offer: Offer,
    pub(crate) profile: Profile,
    pub(crate) handlers: BTreeMap<String, Arc<dyn RawHandler>>,
    pub(crate) is_insecure: bool,
    pub(crate) replace_after: Duration,
    pub(crate) compaction: Compaction,
}

/// What HTTP sees of a node.
struct Inside {
    identity: Identity,
    client: Client,
    probe: Probe,
    membership: Membership,
    sightings: Arc<Sightings>,
    is_leaving: AtomicBool,
    join: Vec<String>,
}

impl Node {
    /// Describes a node of the cluster with this name.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = Node::builder("orders").ephemeral().start().await?;
    /// # drop(node);
    /// # Ok(()) }
    /// ```
    pub fn builder(cluster: impl Into<String>) -> Builder {
        Builder::new(cluster.into())
    }

    pub(crate) async fn start(plan: Plan) -> Result<Self, StartError> {
        let backstage = Backstage::start().map_err(start::thread)?;
        let kinds: BTreeSet<String> = plan.offer.kinds.clone();
        let runtime = tokio::runtime::Handle::current();
        let handlers = Arc::new(Handlers::new(plan.cluster.clone(), plan.handlers, runtime));
        let name_file = match &plan.storage {
            Storage::Folder(folder) => Some(NameFile::new(folder)),
            Storage::Memory => None,
        };
        name_file.as_ref().map_or(Ok(()), |file| file.check(&plan.cluster)).map_err(StartError::new)?;
        let book = match &plan.storage {
            Storage::Folder(folder) => Some(Book::new(folder)),
            Storage::Memory => None,
        };
        let known = book.as_ref().map_or_else(Vec::new, Book::read);
        // Others look for its gossip where its links are: a node that takes any port has one for both, kept until membership takes it over.
        let (listen, reserved) = if plan.listen.port() == 0 {
            let held = ports::hold(plan.listen.ip()).map_err(|error| start::no_port(&error))?;
            (held.address, Some(held.datagrams))
        } else {
            (plan.listen, None)
        };
        let settings = Settings {
            cluster: plan.cluster.clone(),
            storage: plan.storage,
            wires: Wires::Tcp { listen, insecure: plan.is_insecure },
            join: plan.join.clone(),
            had_others: !known.is_empty(),
            voters: plan.voters,
            profile: plan.profile,
            offer: plan.offer.clone(),
            replace_after: plan.replace_after,
            compaction: plan.compaction,
            clock: Clock::default(),
        };
        let host = Host::start(settings, handlers).await.map_err(start::host)?;
        let http = plan.http.as_ref().and_then(|listener| listener.local_addr().ok());
        let name = if plan.offer.label.is_empty() { short(host.node()) } else { plan.offer.label };
        let identity = Identity {
            node: host.node(),
            incarnation: host.incarnation(),
            cluster: plan.cluster,
            name,
            link: host.address(),
            http,
            kinds,
            is_forgetful: book.is_none(),
        };
        let tags = gossip::tags(&identity, ClusterId::NONE, Part::Outside);
        let settings =
            gossip::Settings { profile: plan.profile, join: &plan.join, known: &known, is_insecure: plan.is_insecure };
        drop(reserved);
        let (membership, events) = gossip::start(&identity, &settings, tags).await?;
        let teller = host.teller();
        known.iter().for_each(|known| teller.tell(Fact::Was { node: known.node, link: known.link }));
        let (found, duplicate) = watch::channel(false);
        let sightings = Arc::new(Sightings::new(&membership));
        backstage.handle().spawn(gossip::pass_on(events, host.teller(), Arc::clone(&sightings), found));
        if let Some(book) = book {
            backstage.handle().spawn(book::keep(book, membership.clone()));
        }
        backstage.handle().spawn(gossip::show(identity.clone(), host.mastership(), membership.clone()));
        backstage.handle().spawn(waiting::say(host.probe()));
        if let Some(file) = name_file {
            backstage.handle().spawn(sign(file, identity.cluster.clone(), host.mastership()));
        }
        let client = Client::new(Arc::new(Local::of(&host)), plan.profile);
        match witness::Stand::open(identity.node) {
            Ok(stand) => drop(backstage.handle().spawn(stand.serve(client.clone()))),
            Err(error) => {
                tracing::warn!(%error, "no witness for the processes of this machine: their sessions end by time")
            }
        }
        let is_leaving = AtomicBool::new(false);
        let join = plan.join;
        let inside =
            Arc::new(Inside { identity, client, probe: host.probe(), membership, sightings, is_leaving, join });
        let server = match plan.http {
            Some(listener) => {
                let site: Arc<dyn Site> = inside.clone();
                Some(Server::start(listener, site, plan.is_insecure, backstage.handle()).map_err(start::thread)?)
            }
            None => None,
        };
        Ok(Self { inside, host, server, duplicate, _backstage: backstage })
    }

    /// Asks the cluster through this node.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(node: Node) -> Result<(), Error> {
    /// node.client().kv().put("greeting", "hello").await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn client(&self) -> Client {
        self.inside.client.clone()
    }

    /// Who this node is: random, and the same for as long as its data folder lives.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(node: Node) -> Result<(), Error> {
    /// println!("node {}, run {}", node.id(), node.incarnation());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.inside.identity.node
    }

    /// Which run of it this is.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(node: Node) -> Result<(), Error> {
    /// println!("node {}, run {}", node.id(), node.incarnation());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.inside.identity.incarnation
    }

    /// Its name for people.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(node: Node) -> Result<(), Error> {
    /// println!("they call it {}", node.name());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inside.identity.name
    }

    /// Where other nodes and [`Client::connect`] reach it.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(node: Node) -> Result<(), Error> {
    /// println!("others join with --join {}", node.address());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.inside.identity.link
    }

    /// Where it serves HTTP, if it does.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(node: Node) -> Result<(), Error> {
    /// if let Some(http) = node.http_address() {
    ///     println!("curl http://{http}/v1/status");
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.server.as_ref().map(Server::address)
    }

    /// Whom this node sees, itself included: now, and as a stream that begins with a snapshot. A hint: no right rests on it.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(node: Node) -> Result<(), Error> {
    /// for member in node.members().snapshot() {
    ///     println!("{} at {}", member.name, member.link);
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn members(&self) -> Members {
        self.inside.sightings.members(&self.inside.membership)
    }

    /// What this node knows of the cluster, read in one step; `None` if its control plane does not answer.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(node: Node) {
    /// if let Some(status) = node.status().await {
    ///     println!("{:?} in epoch {}, {} entries applied", status.role, status.epoch, status.applied);
    /// }
    /// # }
    /// ```
    pub async fn status(&self) -> Option<Status> {
        self.inside.status().await
    }

    /// Waits until this node is in a cluster whose master is at work. Cancellation safe.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(node: Node) -> Result<(), Error> {
    /// node.ready().await;
    /// println!("writes are taken");
    /// # Ok(()) }
    /// ```
    pub async fn ready(&self) {
        loop {
            match self.status().await {
                Some(status) if status.cluster != ClusterId::NONE && status.leader.is_some() && status.master_fresh => {
                    return;
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// The reason for which this node cannot go on, once there is one: its disk failed, it does not belong to the cluster it
    /// met, or another process runs under its identity. Shut it down then. Cancellation safe.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(node: Node) -> Result<(), Error> {
    /// tokio::select! {
    ///     why = node.fatal() => eprintln!("it stopped by itself: {why}"),
    ///     _ = tokio::signal::ctrl_c() => {}
    /// }
    /// # Ok(()) }
    /// ```
    pub fn fatal(&self) -> impl Future<Output = String> + Send + 'static {
        let host = self.host.fatal();
        let mut duplicate = self.duplicate.clone();
        let node = self.inside.identity.node;
        async move {
            let doubled = async {
                if duplicate.wait_for(|found| *found).await.is_err() {
                    // Membership ended first: the node stops anyway.
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                why = host => why,
                () = doubled => format!("another process runs under the identity of this node, {node}: was its data folder copied?"),
            }
        }
    }

    /// Waits until an operator has removed this node from the cluster: shut it down then. Cancellation safe.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(node: Node) -> Result<(), Error> {
    /// # use std::time::Duration;
    /// node.removed().await;
    /// node.shutdown(Duration::from_secs(20)).await; // an operator wants it gone
    /// # Ok(()) }
    /// ```
    pub fn removed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut mastership = self.host.mastership();
        async move {
            if mastership.wait_for(|now| now.is_removed).await.is_err() {
                // The node stops anyway.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Takes no more work, waits at most `drain` for what runs, stops and hands back the rest, says goodbye and ends.
    ///
    /// What is stopped sees [`TaskCx::cancelled`](crate::TaskCx::cancelled), is dropped shortly after, and goes again elsewhere: a node
    /// that goes is no worker that died. A task that may run once, and has begun, ends as lost. Beyond `drain` this takes at most
    /// seven election timeouts and two seconds: as long as it takes to find that nobody can take over, and that nobody hears a goodbye. Not cancellation safe: dropped, the node stops without a goodbye.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(node: Node) -> Result<(), Error> {
    /// # use std::time::Duration;
    /// node.shutdown(Duration::from_secs(20)).await; // what runs has so long to end
    /// # Ok(()) }
    /// ```
    pub async fn shutdown(self, drain: Duration) {
        let Self { inside, host, server, .. } = self;
        inside.is_leaving.store(true, Ordering::Relaxed);
        host.shutdown(drain).await;
        // Only now: until the last result was recorded, the others had to keep their links to us.
        inside.membership.leave(FAREWELL).await;
        if let Some(server) = server {
            server.stop().await;
        }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("identity", &self.inside.identity).finish_non_exhaustive()
    }
}

impl Site for Inside {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn client(&self) -> Client {
        self.client.clone()
    }

    fn status(&self) -> BoxFuture<'_, Option<Status>> {
        async { tokio::time::timeout(PATIENCE, self.probe.status()).await.ok().flatten() }.boxed()
    }

    fn members(&self) -> Vec<Member> {
        gossip::members(&self.membership)
    }

    fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Relaxed)
    }

    fn found_without(&self, addresses: &[String]) -> Result<(), Diagnostic> {
        let place = |address: &String| {
            self.join.iter().position(|listed| listed == address).ok_or_else(|| {
                Diagnostic::new(Code::Invalid, format!("`{}` is not in the join list", address.escape_debug()))
                    .hint(format!("the join list is {}", self.join.join(",")))
            })
        };
        let places = addresses.iter().map(place).collect::<Result<_, _>>()?;
        self.probe.found_without(places);
        Ok(())
    }
}

/// Calls go to the client machine of this node.
pub(crate) struct Local {
    client: ClientHandle,
    host: protocol::state::Host,
}

impl Local {
    pub(crate) fn of(host: &Host) -> Self {
        let run = protocol::state::Host { node: host.node(), incarnation: host.incarnation() };
        Self { client: host.client(), host: run }
    }
}

impl Backend for Local {
    fn call(&self, work: Work, timeout: Duration) -> BoxFuture<'_, Result<Answer, Error>> {
        self.client.call(work, timeout).map(|result| result.map_err(Error::from)).boxed()
    }

    fn keep(&self, opening: OpenSession, timeout: Duration) -> BoxFuture<'_, Result<KeptSession, Error>> {
        async move { client::kept(self.client.keep(opening, timeout).await?) }.boxed()
    }

    fn end(&self, session: SessionId) {
        self.client.end(session);
    }

    fn host(&self) -> Option<protocol::state::Host> {
        Some(self.host)
    }
}

impl Executor for Handlers {
    fn start(&self, run: Run, done: Done) {
        Self::start(self, run, move |outcome| done.finish(outcome));
    }

    fn abort(&self, fence: Fence, _why: AbortCause) {
        Self::abort(self, fence);
    }
}

/// Writes the cluster's name into the data folder as soon as the node is in a cluster.
async fn sign(file: NameFile, cluster: String, mut mastership: watch::Receiver<Mastership>) {
    if mastership.wait_for(|now| now.cluster != ClusterId::NONE).await.is_ok() {
        file.write(&cluster);
    }
}

/// Whether a mastership is that of this node at work.
pub(crate) fn is_master(mastership: &Mastership, node: NodeId) -> bool {
    mastership.role == Role::Leader && mastership.leader == Some(node)
}

/// A control plane that takes longer than this is stuck.
const PATIENCE: Duration = Duration::from_secs(1);

/// Between two looks at a node that is not ready.
const POLL: Duration = Duration::from_millis(10);

/// How long the goodbye to the members may take.
const FAREWELL: Duration = Duration::from_secs(1);
