//! The client's side: names the sessions of this process to every linked node of the same machine.
//!
//! Which nodes these are is not to be seen from where they are linked: a node of this machine may listen on any of its addresses. So each is
//! looked for by its name, which is known to this machine's kernel only, and costs one call where it is not.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

use actors::Remote;
use nix::sys::socket::{getsockopt, sockopt};
use protocol::client::Standing;
use protocol::{NodeId, SessionId};
use tokio::sync::watch;

use super::{GREETING, Word, address, is_trusted};

/// The sessions of this process, and the thread that names them. It begins with the first session and ends with the client.
pub(crate) struct Witnesses {
    shared: Arc<Shared>,
}

struct Shared {
    remote: Weak<Remote>,
    sessions: Mutex<BTreeMap<SessionId, watch::Receiver<Standing>>>,
    thread: OnceLock<Option<Thread>>,
}

/// What became of the last search for a node.
struct Missed {
    again: Instant,
    pause: Duration,
}

/// The socket to one node.
struct Witness {
    stream: UnixStream,
    told: BTreeSet<SessionId>,
}

/// A session of this process that one node watches, for as long as this is held.
pub(crate) struct Watched {
    witness: Witness,
}

/// Names a session to one node, once.
///
/// # Errors
///
/// If there is no such node on this machine, or it does not answer.
pub(crate) fn be_watched(node: NodeId, session: SessionId) -> io::Result<Watched> {
    let mut witness = Witness::meet(node)?;
    witness.tell(&BTreeSet::from([session]))?;
    Ok(Watched { witness })
}

impl Watched {
    /// The session does not end with this process alone, only when that one has ended too.
    ///
    /// # Errors
    ///
    /// If the node does not listen any more.
    pub(crate) fn together_with(&mut self, process: u32) -> io::Result<()> {
        self.witness.stream.write_all(&Word::With(process).encode())
    }
}

impl Witnesses {
    pub(crate) fn new(remote: &Arc<Remote>) -> Self {
        let (sessions, thread) = (Mutex::default(), OnceLock::new());
        Self { shared: Arc::new(Shared { remote: Arc::downgrade(remote), sessions, thread }) }
    }

    /// Names a session for as long as it stands. Best effort: without a witness it expires.
    pub(crate) fn name(&self, session: SessionId, standing: watch::Receiver<Standing>) {
        self.shared.sessions().insert(session, standing);
        let thread = self.shared.thread.get_or_init(|| {
            let shared = Arc::downgrade(&self.shared);
            let begun = std::thread::Builder::new().name("tenure-witness".into()).spawn(move || tend(&shared));
            begun.ok().map(|thread| thread.thread().clone())
        });
        if let Some(thread) = thread {
            thread.unpark();
        }
    }
}

impl Shared {
    fn sessions(&self) -> std::sync::MutexGuard<'_, BTreeMap<SessionId, watch::Receiver<Standing>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sessions that stand.
    fn standing(&self) -> BTreeSet<SessionId> {
        let mut sessions = self.sessions();
        sessions.retain(|_, standing| matches!(*standing.borrow(), Standing::Until(_)));
        sessions.keys().copied().collect()
    }
}

fn tend(shared: &Weak<Shared>) {
    let mut witnesses: BTreeMap<NodeId, Witness> = BTreeMap::new();
    let mut missed: BTreeMap<NodeId, Missed> = BTreeMap::new();
    while let Some(shared) = shared.upgrade() {
        let Some(remote) = shared.remote.upgrade() else { return };
        let peers = remote.peers();
        drop(remote);
        let peers: BTreeSet<NodeId> = peers.into_iter().map(|(node, _)| node).collect();
        let sessions = shared.standing();
        witnesses.retain(|node, witness| peers.contains(node) && witness.is_there());
        missed.retain(|node, _| peers.contains(node));
        for node in peers {
            if missed.get(&node).is_some_and(|missed| missed.again > Instant::now()) {
                continue;
            }
            match tell(&mut witnesses, node, &sessions) {
                Ok(()) => drop(missed.remove(&node)),
                Err(error) => {
                    tracing::debug!(%node, %error, "this node does not watch us");
                    witnesses.remove(&node);
                    Missed::once_more(&mut missed, node);
                }
            }
        }
        drop(shared);
        std::thread::park_timeout(LOOK);
    }
}

fn tell(witnesses: &mut BTreeMap<NodeId, Witness>, node: NodeId, sessions: &BTreeSet<SessionId>) -> io::Result<()> {
    match witnesses.entry(node) {
        Entry::Occupied(mut witness) => witness.get_mut().tell(sessions),
        Entry::Vacant(_) if sessions.is_empty() => Ok(()),
        Entry::Vacant(place) => place.insert(Witness::meet(node)?).tell(sessions),
    }
}

impl Missed {
    /// A node that is linked may be about to begin to watch; one that is on another machine never will.
    fn once_more(missed: &mut BTreeMap<NodeId, Self>, node: NodeId) {
        let pause = missed.get(&node).map_or(LOOK, |last| (last.pause * 2).min(FAR));
        missed.insert(node, Self { again: Instant::now() + pause, pause });
    }
}

impl Witness {
    fn meet(node: NodeId) -> io::Result<Self> {
        let mut stream = UnixStream::connect_addr(&address(node)?)?;
        if !is_trusted(getsockopt(&stream, sockopt::PeerCredentials)?.uid()) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "a node of another user"));
        }
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        let mut greeting = [0; GREETING];
        stream.read_exact(&mut greeting)?;
        stream.write_all(&greeting)?;
        Ok(Self { stream, told: BTreeSet::new() })
    }

    fn tell(&mut self, sessions: &BTreeSet<SessionId>) -> io::Result<()> {
        let mine = sessions.difference(&self.told).map(|&session| Word::Mine(session));
        let not_mine = self.told.difference(sessions).map(|&session| Word::NotMine(session));
        let words: Vec<u8> = not_mine.chain(mine).flat_map(Word::encode).collect();
        if !words.is_empty() {
            self.stream.write_all(&words)?;
            self.told.clone_from(sessions);
        }
        Ok(())
    }

    /// Whether the other side has not closed the socket: it never says anything more.
    fn is_there(&mut self) -> bool {
        let mut byte = [0];
        let read = self.stream.set_nonblocking(true).and_then(|()| self.stream.read(&mut byte));
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            && self.stream.set_nonblocking(false).is_ok()
    }
}

/// How long a node may take to answer: it may be frozen.
const DEADLINE: Duration = Duration::from_millis(500);

/// How often to look for a node that is not on this machine, as far as was seen.
const FAR: Duration = Duration::from_secs(10);

/// How often to look for nodes that came, went, or started again.
const LOOK: Duration = Duration::from_millis(500);
