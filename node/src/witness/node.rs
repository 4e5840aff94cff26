//! The node's side: watches the processes behind its local socket.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use protocol::state::{ClientEnd, Operation};
use protocol::{NodeId, SessionId};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::{CONNECTIONS_MAX, GREETING, NAMED_MAX, OTHERS_MAX, WORD, Word, address, is_trusted};
use crate::client::Client;
use crate::error::Error;

/// The socket on which processes of this machine name their sessions.
pub(crate) struct Stand {
    listener: std::os::unix::net::UnixListener,
}

/// A process of this machine.
pub(crate) struct Process {
    id: i32,
    handle: AsyncFd<OwnedFd>,
}

/// What one process named.
#[derive(Default)]
struct Named {
    /// Its sessions, counted among the figures.
    sessions: BTreeSet<SessionId>,
    /// The processes that must have ended too.
    others: Vec<Process>,
}

impl Stand {
    /// Listens for the processes of this machine.
    ///
    /// # Errors
    ///
    /// If the name is taken, or the system has no such sockets.
    pub(crate) fn open(node: NodeId) -> io::Result<Self> {
        let listener = std::os::unix::net::UnixListener::bind_addr(&address(node)?)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener })
    }

    /// Watches whoever comes, for as long as this is polled. What was witnessed goes to the cluster through `client`.
    pub(crate) async fn serve(self, client: Client) {
        let listener = match UnixListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::warn!(%error, "no witness for the processes of this machine"),
        };
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let client = client.clone();
                    tokio::spawn(async move {
                        if let Err(error) = watch(stream, &client).await {
                            tracing::debug!(%error, "a process is not watched");
                        }
                        drop(place);
                    });
                }
                // Too many open files: later there may be fewer.
                Err(error) => {
                    tracing::debug!(%error, "a process could not be let in");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Watches one process until it has ended or has left, and testifies.
async fn watch(mut stream: UnixStream, client: &Client) -> io::Result<()> {
    let process = Process::behind(&stream)?;
    tokio::time::timeout(DEADLINE, greet(&mut stream)).await??;
    let mut named = Named::default();
    {
        let mut left = pin!(listen(&mut stream, &mut named));
        tokio::select! {
            biased;
            // What it said last may be on its way still.
            () = process.ended() => drop(tokio::time::timeout(DEADLINE, left).await),
            // The sockets of a process are closed before it has ended: what its handle says is still to come.
            _ = &mut left => if tokio::time::timeout(LINGER, process.ended()).await.is_err() {
                return Ok(());
            },
        }
    }
    for other in &named.others {
        other.ended().await;
    }
    testify(process.id, &named.sessions, client).await;
    Ok(())
}

/// Has a number said back, which the process can only do after its handle was taken.
async fn greet(stream: &mut UnixStream) -> io::Result<()> {
    let greeting: [u8; GREETING] = rand::random();
    stream.write_all(&greeting).await?;
    let mut echo = [0; GREETING];
    stream.read_exact(&mut echo).await?;
    if echo == greeting { Ok(()) } else { Err(io::Error::other("it does not say the greeting back")) }
}

/// Takes names until the process leaves or talks nonsense.
async fn listen(stream: &mut UnixStream, named: &mut Named) -> io::Result<()> {
    loop {
        let mut word = [0; WORD];
        stream.read_exact(&mut word).await?;
        match Word::decode(word) {
            Some(Word::Mine(session)) => named.insert(session),
            Some(Word::With(other)) => named.add(other)?,
            Some(Word::NotMine(session)) => named.remove(session),
            None => return Err(io::Error::other("not a word")),
        }
    }
}

/// Says to the cluster that the sessions of a process are over.
async fn testify(process: i32, sessions: &BTreeSet<SessionId>, client: &Client) {
    if sessions.is_empty() {
        return;
    }
    tracing::info!(process, sessions = sessions.len(), "a client process has ended");
    let client = &client.clone().timeout(PATIENCE);
    let sessions: Vec<SessionId> = sessions.iter().copied().collect();
    for some in sessions.chunks(AT_ONCE) {
        let ends = some.iter().map(|&session| async move {
            match client.write(Operation::EndSession { session, cause: ClientEnd::Proven }).await {
                Ok(_) => metrics::counter!("tenure_sessions_proven_dead_total").increment(1),
                Err(Error::NoSession(_)) => {}
                Err(error) => tracing::warn!(%session, %error, "its end could not be said; it will expire"),
            }
        });
        join_all(ends).await;
    }
}

impl Process {
    fn behind(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        if !is_trusted(credentials.uid()) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "a process of another user"));
        }
        // A process of another pid namespace has no number here.
        let id =
            credentials.pid().filter(|&id| id > 0).ok_or_else(|| io::Error::other("it cannot be seen from here"))?;
        Self::numbered(id)
    }

    /// The one that has this number now. Must be called within a runtime.
    pub(crate) fn numbered(id: i32) -> io::Result<Self> {
        let pid = Pid::from_raw(id).ok_or_else(|| io::Error::other("no number of a process"))?;
        let handle = pidfd_open(pid, PidfdFlags::empty())?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; the handle is owned by what waits for it and never lent"
        )]
        let handle = AsyncFd::with_interest(handle, Interest::READABLE)?;
        Ok(Self { id, handle })
    }

    /// Waits for the kernel's word that it has ended. Cancellation safe.
    pub(crate) async fn ended(&self) {
        if self.handle.readable().await.is_err() {
            // The runtime ends: nobody knows.
            std::future::pending::<()>().await;
        }
    }
}

impl Named {
    fn insert(&mut self, session: SessionId) {
        if self.sessions.len() < NAMED_MAX && self.sessions.insert(session) {
            metrics::gauge!("tenure_sessions_witnessed").increment(1.0);
        }
    }

    /// Whoever names another process is still there, and so is its number. If not, both have ended.
    fn add(&mut self, other: u32) -> io::Result<()> {
        if self.others.len() >= OTHERS_MAX {
            return Err(io::Error::other("it names too many processes"));
        }
        let id = i32::try_from(other).map_err(|_| io::Error::other("no number of a process"))?;
        match Process::numbered(id) {
            Ok(process) => self.others.push(process),
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ESRCH as i32) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn remove(&mut self, session: SessionId) {
        if self.sessions.remove(&session) {
            metrics::gauge!("tenure_sessions_witnessed").decrement(1.0);
        }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        metrics::gauge!("tenure_sessions_witnessed").decrement(self.sessions.len() as f64);
    }
}

/// How long the first words may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long after its socket was closed the end of a process counts for its sessions. It is there at once if that was why.
const LINGER: Duration = Duration::from_secs(10);

/// How long the cluster is told of an end.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many ends are said at once.
const AT_ONCE: usize = 64;

/// After a connection that could not be taken.
const PAUSE: Duration = Duration::from_millis(100);
