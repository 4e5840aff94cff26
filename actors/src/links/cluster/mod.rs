//! Links between processes: ractor_cluster sessions over our own streams.
//!
//! Our accept loop and dialler exchange hellos, decide which link shall be, and only then hand the stream, behind a guard,
//! to a session. A keeper watches each link and gathers evidence when the peer's side closed it.
//!
//! # Invariants
//!
//! * Plain streams stay on loopback unless `insecure` is said, and then a warning says so every minute.
//! * Of two links between the same two runs, made by both dialling at once, both sides keep the one that the greater
//!   NodeId dialled. A link that only one side still believes in gives way to a new one.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use protocol::{ClusterId, NodeId};
use ractor::ActorRef;
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::hello::Hello;
use self::keeper::Keeper;
use self::session::{Frame, Gateway, GatewayWire, gateway_name};
use self::stream::Guard;
use super::table::{Newcomer, Table, next_generation};
use super::{Class, Closed, Counts, Identity, Inbox, Links, Peer, Refusal, Role, SendError, Target};

mod accept;
mod dial;
mod evidence;
mod hello;
mod keeper;
mod session;
mod stream;
#[cfg(test)]
mod tests;

/// How to start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who we are.
    pub identity: Identity,
    /// Where to listen; port 0 takes a free one. Ignored by a client.
    pub listen: SocketAddr,
    /// What others are told to dial, if it is not where we listen.
    pub advertise: Option<SocketAddr>,
    /// A word that all nodes share. A guard against mis-wiring, not security.
    pub secret: Option<String>,
    /// Let plain streams leave the machine.
    pub insecure: bool,
}

/// Why the links could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Plain streams may not leave the machine.
    #[error("{0} is not a loopback address, and links are not encrypted; say `insecure` if you mean it")]
    NotLoopback(SocketAddr),
    /// The cluster name is too long, or empty.
    #[error("a cluster name has 1 to {MAX_NAME} bytes, not {0}", MAX_NAME = hello::MAX_NAME)]
    Name(usize),
    /// The address is taken, or not ours.
    #[error("cannot listen at {addr}: {source}")]
    Listen {
        /// Where.
        addr: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The gateway could not be started.
    #[error("cannot start the gateway: {0}")]
    Gateway(String),
}

/// Links to other processes.
pub struct ClusterLinks {
    shared: Arc<Shared>,
    gateway: ActorRef<Frame>,
}

/// What the tasks of the links share.
struct Shared {
    table: Arc<Table>,
    address: SocketAddr,
    /// The random part of our gateway's name.
    gateway: u64,
    cookie: String,
    insecure: bool,
    targets: Mutex<BTreeMap<SocketAddr, TargetState>>,
    suspects: Mutex<evidence::Suspects>,
    /// Counts whatever may give the diallers something to do.
    changes: watch::Sender<u64>,
    /// Ends accepting, dialling and asking.
    stop: CancellationToken,
}

/// What is known about a target.
#[derive(Default)]
struct TargetState {
    /// Which dialler is in charge; one of an earlier time, when this was a target before, is not.
    dialler: u64,
    expected: Option<NodeId>,
    /// Who answered there last.
    found: Option<NodeId>,
    /// Who was reported to be there.
    said: Option<NodeId>,
    /// A link to it worked since the last dial.
    was_up: bool,
    /// The reasons reported.
    refused: Vec<Refusal>,
}

/// Starts the links of this process on the current runtime.
///
/// # Errors
///
/// [`StartError`]; nothing is left running then.
pub async fn start(config: Config) -> Result<(Arc<ClusterLinks>, Inbox), StartError> {
    let Config { identity, listen, advertise, secret, insecure } = config;
    let name_length = identity.cluster_name.len();
    if name_length == 0 || name_length > hello::MAX_NAME {
        return Err(StartError::Name(name_length));
    }
    let listener = listener(identity.role, listen, insecure).await?;
    let bound = match &listener {
        Some(listener) => listener.local_addr().map_err(|source| StartError::Listen { addr: listen, source })?,
        None => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
    };
    let cookie = cookie(&identity.cluster_name, secret.as_deref());
    let (table, inbox) = Table::new(identity);
    let shared = Arc::new(Shared {
        gateway: rand::random(),
        table,
        address: advertise.unwrap_or(bound),
        cookie,
        insecure,
        targets: Mutex::default(),
        suspects: Mutex::default(),
        changes: watch::channel(0).0,
        stop: CancellationToken::new(),
    });
    let gateway = Gateway::spawn(shared.table.clone(), shared.gateway_name());
    let gateway = gateway.await.map_err(|error| StartError::Gateway(error.to_string()))?;
    if let Some(listener) = listener {
        shared.spawn(accept::run(shared.clone(), listener));
    }
    if insecure {
        shared.spawn(warn_for_ever());
    }
    Ok((Arc::new(ClusterLinks { shared, gateway }), inbox))
}

impl Links for ClusterLinks {
    fn send(&self, to: NodeId, class: Class, body: Bytes) -> Result<(), SendError> {
        self.shared.table.send(to, class, body)
    }

    fn set_targets(&self, targets: Vec<Target>) {
        let mut states = self.shared.targets();
        let wanted: BTreeMap<SocketAddr, Option<NodeId>> =
            targets.iter().map(|target| (target.addr, target.node)).collect();
        states.retain(|addr, _| wanted.contains_key(addr));
        for (addr, expected) in wanted {
            if let Some(state) = states.get_mut(&addr) {
                if state.expected != expected {
                    let TargetState { dialler, said, .. } = *state;
                    *state = TargetState { dialler, expected, said, ..TargetState::default() };
                }
            } else {
                let dialler = rand::random();
                states.insert(addr, TargetState { dialler, expected, ..TargetState::default() });
                self.shared.spawn(dial::run(self.shared.clone(), addr, dialler));
            }
        }
        drop(states);
        self.shared.changed();
    }

    fn set_cluster(&self, cluster: ClusterId) {
        self.shared.table.set_cluster(cluster);
    }

    fn close(&self, node: NodeId) {
        self.shared.table.close_node(node, Closed::BySelf);
    }

    fn close_if_silent(&self, node: NodeId, silence: Duration) {
        self.shared.table.close_if_silent(node, silence);
    }

    fn probe(&self, node: NodeId) {
        let suspect = self.shared.suspects().of(node);
        if let Some(peer) = suspect {
            evidence::ask_for_a_while(self.shared.clone(), peer);
        }
    }

    fn peers(&self) -> Vec<Peer> {
        self.shared.table.peers()
    }

    fn address(&self) -> SocketAddr {
        self.shared.address
    }

    fn counts(&self) -> Counts {
        self.shared.table.common.counters.read()
    }

    fn shutdown(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            self.shared.stop.cancel();
            self.shared.table.leave(PATIENCE).await;
            self.gateway.stop(None);
        })
    }
}

impl Drop for ClusterLinks {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        self.shared.table.end();
        self.gateway.stop(None);
    }
}

impl Shared {
    /// Makes a link of a stream on which both sides agreed, if it is still wanted.
    fn begin(
        self: &Arc<Self>,
        stream: TcpStream,
        from: SocketAddr,
        ours: &Hello,
        theirs: Hello,
        is_dialled_by_us: bool,
    ) {
        let Hello { node, incarnation, role, addr, gateway, link: peers_name, .. } = theirs;
        let addr = match role {
            Role::Client => from,
            Role::Node if addr.ip().is_unspecified() => SocketAddr::new(from.ip(), addr.port()),
            Role::Node => addr,
        };
        let (guard, reader, writer, ended) = Guard::new(stream);
        let generation = next_generation();
        let peers_gateway = gateway_name(node, incarnation, gateway);
        let wire = GatewayWire::new(generation, peers_gateway.clone(), guard.clone());
        let newcomer = Newcomer { node, incarnation, role, addr, name: ours.link, peers_name };
        let dialler = if is_dialled_by_us { ours.node } else { node };
        let Some(link) = self.table.admit(newcomer, generation, Box::new(wire), dialler) else { return };
        self.suspects().forget(node);
        let keeper = Keeper { shared: self.clone(), link, guard, ended, is_dialled_by_us, peers_gateway };
        tokio::spawn(keeper.run(reader, writer));
        self.changed();
    }

    /// What we say first, with a new name for a link.
    fn hello(&self) -> Hello {
        let identity = &self.table.identity;
        let link = rand::random();
        Hello {
            version: hello::VERSION,
            cluster_name: identity.cluster_name.clone(),
            cluster: self.table.cluster(),
            node: identity.node,
            incarnation: identity.incarnation,
            role: identity.role,
            addr: self.address,
            gateway: self.gateway,
            link,
            proof: hello::proof(&self.cookie, identity.node, link),
        }
    }

    fn gateway_name(&self) -> String {
        gateway_name(self.table.identity.node, self.table.identity.incarnation, self.gateway)
    }

    fn may_dial(&self, addr: SocketAddr) -> bool {
        self.insecure || addr.ip().is_loopback()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.stop.clone().run_until_cancelled_owned(task));
    }

    fn changed(&self) {
        self.changes.send_modify(|change| *change += 1);
    }

    fn targets(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, TargetState>> {
        self.targets.lock().expect("nobody panics under this lock")
    }

    fn suspects(&self) -> MutexGuard<'_, evidence::Suspects> {
        self.suspects.lock().expect("nobody panics under this lock")
    }
}

async fn listener(role: Role, listen: SocketAddr, insecure: bool) -> Result<Option<TcpListener>, StartError> {
    if role == Role::Client {
        return Ok(None);
    }
    if !insecure && !listen.ip().is_loopback() {
        return Err(StartError::NotLoopback(listen));
    }
    let listener = TcpListener::bind(listen).await;
    listener.map(Some).map_err(|source| StartError::Listen { addr: listen, source })
}

fn cookie(cluster_name: &str, secret: Option<&str>) -> String {
    let mut hash = Sha256::new();
    hash.update(b"tenure\0");
    hash.update(cluster_name.as_bytes());
    hash.update(b"\0");
    hash.update(secret.unwrap_or_default().as_bytes());
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn warn_for_ever() {
    loop {
        tracing::warn!("links are not encrypted and may leave this machine (insecure)");
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
}

/// How long a goodbye waits for the peers.
const PATIENCE: Duration = Duration::from_secs(1);
