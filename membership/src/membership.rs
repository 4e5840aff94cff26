//! The handle to a running membership.
//!
//! # Invariants
//!
//! * The thread and its port live as long as a handle does, or until the farewell is over.
//! * The stream of events begins with a snapshot.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use protocol::{Epoch, Nanos, NodeId};
use socket2::{Domain, Socket, Type};
use tokio::sync::{mpsc, oneshot};

use crate::config::{Config, StartError};
use crate::engine::{CheckedTags, Engine, Setup, TagsTooLong};
use crate::member::{Event, View};
use crate::stats::Stats;
use crate::udp::{Command, Driver, Shown, wake_address};

/// A running membership. Cheap to clone; when the last handle is dropped it falls silent without a farewell, and the
/// others will take that for a crash. [`Membership::leave`] says farewell.
///
/// ```
/// use membership::{Config, Event, Membership};
/// use protocol::{Incarnation, NodeId};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), membership::StartError> {
/// let link = "127.0.0.1:7400".parse().expect("an address");
/// let (first, _) = Membership::start(Config::loopback(NodeId(1), Incarnation(1), "photos", link))?;
/// let config = Config::loopback(NodeId(2), Incarnation(1), "photos", link);
/// let (second, mut events) = Membership::start(Config { seeds: vec![first.local_addr()], ..config })?;
/// while let Some(event) = events.next().await {
///     if let Event::Joined(member) = event {
///         assert_eq!(member.node, NodeId(1));
///         break;
///     }
/// }
/// second.leave(std::time::Duration::from_secs(1)).await;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Membership {
    inner: Arc<Inner>,
}

/// What happens to the members, in order, beginning with a snapshot. Ends when the membership does.
#[derive(Debug)]
pub struct EventStream {
    events: mpsc::Receiver<Event>,
}

#[derive(Debug)]
struct Inner {
    addr: SocketAddr,
    clock: Instant,
    commands: Sender<Command>,
    shown: Arc<Shown>,
    /// Sends empty datagrams to the thread's socket.
    waker: UdpSocket,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Membership {
    /// Binds the socket and starts to look for the others.
    ///
    /// # Errors
    ///
    /// [`StartError`] if the settings are wrong or the system refuses.
    pub fn start(config: Config) -> Result<(Self, EventStream), StartError> {
        config.validate()?;
        let tags = CheckedTags::try_from(config.tags.clone())?;
        let socket = bind(config.bind).map_err(|source| StartError::Bind { addr: config.bind, source })?;
        let bound = socket.local_addr()?;
        let addr = config.advertised(bound);
        let waker = waker(bound)?;
        let clock = Instant::now();
        let Config { node, incarnation, cluster, link, seeds, timing, insecure, .. } = config;
        let seed = rand::random();
        let setup = Setup { node, incarnation, cluster, addr, link, seeds, timing, tags, insecure, seed };
        let engine = Engine::new(setup, Nanos(0));
        let shown = Arc::new(Shown::new(engine.view()));
        let (events, stream) = mpsc::channel(EVENTS);
        events.try_send(Event::Snapshot(shown.view())).expect("a fresh queue has room");
        let (commands, orders) = channel();
        let driver = Driver { socket, engine, clock, commands: orders, events, shown: shown.clone() };
        let thread = std::thread::Builder::new().name("membership".into()).spawn(move || driver.run())?;
        let inner = Inner { addr, clock, commands, shown, waker, thread: Mutex::new(Some(thread)) };
        Ok((Self { inner: Arc::new(inner) }, EventStream { events: stream }))
    }

    /// Where others reach this node's gossip.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.addr
    }

    /// The present picture.
    #[must_use]
    pub fn members(&self) -> Arc<View> {
        self.inner.shown.view()
    }

    /// The clock on which `Member::since` stands.
    #[must_use]
    pub fn now(&self) -> Nanos {
        Nanos(0) + self.inner.clock.elapsed()
    }

    /// Changes what this node says of itself.
    ///
    /// # Errors
    ///
    /// [`TagsTooLong`]: nothing changed.
    pub fn set_tags(&self, tags: BTreeMap<String, String>) -> Result<(), TagsTooLong> {
        self.inner.order(Command::Tags(CheckedTags::try_from(tags)?));
        Ok(())
    }

    /// Spreads who is master. A hint to others; the highest epoch stands.
    pub fn announce_master(&self, epoch: Epoch, node: NodeId) {
        self.inner.order(Command::Master { epoch, node });
    }

    /// Says farewell, so that the others need not wait for us to be missed, and ends. Returns when it is said or the
    /// time is over.
    pub async fn leave(&self, within: Duration) {
        let (done, is_done) = oneshot::channel();
        self.inner.order(Command::Leave(done));
        if tokio::time::timeout(within, is_done).await.is_err() {
            self.inner.order(Command::Stop);
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.shown.stats()
    }
}

impl EventStream {
    /// The next event; `None` when the membership has ended.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// The next event if there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }
}

impl Inner {
    fn order(&self, command: Command) {
        // If the thread has ended, there is nobody left to obey, and nothing left to do.
        if self.commands.send(command).is_ok() {
            let _ = self.waker.send(&[]);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.order(Command::Stop);
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It waits for nothing but the datagram that was just sent to it; afterwards the port is free.
            let _ = thread.join();
        }
    }
}

fn bind(addr: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, None)?;
    // Room for the answers of a large cluster that all come at once. If the system grants less, less must do.
    let _ = socket.set_recv_buffer_size(1 << 20);
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

fn waker(bound: SocketAddr) -> std::io::Result<UdpSocket> {
    let target = wake_address(bound);
    let waker = UdpSocket::bind(SocketAddr::new(target.ip(), 0))?;
    waker.connect(target)?;
    waker.set_nonblocking(true)?;
    Ok(waker)
}

/// How many events may wait for their reader before they are replaced by a snapshot.
const EVENTS: usize = 1024;
