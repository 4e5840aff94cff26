//! The thread that owns the socket and the timers.
//!
//! A thread of its own, because a failure detector that waits behind other work suspects everybody. It decides nothing:
//! it carries datagrams and time into the engine and what follows out of it.
//!
//! # Invariants
//!
//! * Datagrams that have arrived are handled before timers, so that a process that stood still sees its answers first.
//! * The view is published before the events that led to it are queued.
//! * Nothing here waits for a reader: a full event queue drops events and sends a snapshot when there is room again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use protocol::{Epoch, Nanos, NodeId};
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use crate::engine::{CheckedTags, Effects, Engine, Input};
use crate::member::{Event, View};
use crate::stats::Stats;

/// What the handle asks of the thread.
pub(crate) enum Command {
    /// Say this of the node.
    Tags(CheckedTags),
    /// Spread who is master.
    Master { epoch: Epoch, node: NodeId },
    /// Say farewell, end, and then tell.
    Leave(oneshot::Sender<()>),
    /// End without a word, as a crash would.
    Stop,
}

/// What the thread shows to the handles.
#[derive(Debug)]
pub(crate) struct Shown {
    view: RwLock<Arc<View>>,
    stats: RwLock<Stats>,
}

impl Shown {
    pub(crate) fn new(view: View) -> Self {
        Self { view: RwLock::new(Arc::new(view)), stats: RwLock::default() }
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn stats(&self) -> Stats {
        *self.stats.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's whole world.
pub(crate) struct Driver {
    pub(crate) socket: UdpSocket,
    pub(crate) engine: Engine,
    pub(crate) clock: Instant,
    pub(crate) commands: Receiver<Command>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) shown: Arc<Shown>,
}

impl Driver {
    /// Runs until the farewell is over or nobody holds a handle any more.
    pub(crate) fn run(mut self) {
        let mut effects = Effects::default();
        let mut queue = Queue::new(self.events.clone());
        let mut buffer = [0; BUFFER];
        let mut waiting = Vec::new();
        loop {
            self.receive(&mut buffer, &mut effects);
            let is_over = self.obey(&mut waiting, &mut effects);
            self.engine.step(self.now(), Input::Time, &mut effects);
            self.send(&mut effects, &mut queue);
            self.publish(&mut effects, &mut queue);
            if is_over || self.engine.is_gone() {
                break;
            }
        }
        // The port is free before anybody is told so.
        drop(self.socket);
        for done in waiting {
            let _ = done.send(());
        }
    }

    /// Waits for a datagram until the next deadline, then takes all that have arrived, within a bound.
    fn receive(&mut self, buffer: &mut [u8], effects: &mut Effects) {
        let wait = self.engine.next_deadline().since(self.now()).min(LONGEST_WAIT);
        if !wait.is_zero() {
            // A zero time-out would mean to wait for ever.
            let is_set = self.socket.set_read_timeout(Some(wait.max(SHORTEST_WAIT))).is_ok();
            if !is_set || !self.receive_one(buffer, effects) {
                return;
            }
        }
        if self.socket.set_nonblocking(true).is_err() {
            return;
        }
        for _ in 0..DRAINED_AT_ONCE {
            if !self.receive_one(buffer, effects) {
                break;
            }
        }
        if let Err(error) = self.socket.set_nonblocking(false) {
            debug!(%error, "the gossip socket stays non-blocking");
        }
    }

    fn receive_one(&mut self, buffer: &mut [u8], effects: &mut Effects) -> bool {
        match self.socket.recv_from(buffer) {
            // Empty datagrams are how handles wake us.
            Ok((0, _)) => true,
            Ok((length, from)) => {
                let bytes = &buffer[..length];
                self.engine.step(self.now(), Input::Datagram { from: canonical(from), bytes }, effects);
                true
            }
            Err(error) => self.on_error(&error),
        }
    }

    /// Whether to try again at once after this error.
    fn on_error(&self, error: &io::Error) -> bool {
        match error.kind() {
            io::ErrorKind::Interrupted => true,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => false,
            _ => {
                // The network is in trouble, which may last. Timers go on; this loop must not spin.
                debug!(%error, "the gossip socket cannot receive");
                std::thread::sleep(TROUBLE_PAUSE);
                false
            }
        }
    }

    /// Does what the handles asked for. True if the thread should end at once.
    fn obey(&mut self, waiting: &mut Vec<oneshot::Sender<()>>, effects: &mut Effects) -> bool {
        loop {
            let input = match self.commands.try_recv() {
                Ok(Command::Tags(tags)) => Input::Tags(tags),
                Ok(Command::Master { epoch, node }) => Input::Master { epoch, node },
                Ok(Command::Leave(done)) => {
                    waiting.push(done);
                    Input::Leave
                }
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return true,
                Err(TryRecvError::Empty) => return false,
            };
            self.engine.step(self.now(), input, effects);
        }
    }

    fn send(&mut self, effects: &mut Effects, queue: &mut Queue) {
        for (to, datagram) in effects.sends.drain(..) {
            if self.socket.send_to(&datagram, to).is_err() {
                queue.unsent += 1;
            }
        }
    }

    fn publish(&mut self, effects: &mut Effects, queue: &mut Queue) {
        if let Some(view) = self.engine.take_view() {
            *self.shown.view.write().unwrap_or_else(PoisonError::into_inner) = view;
        }
        for event in effects.events.drain(..) {
            // Whoever reads the events logs what they mean; this is for finding out what went on beneath.
            debug!(?event, "membership");
            queue.push(event);
        }
        queue.catch_up(&self.shown);
        let stats = Stats { dropped_events: queue.dropped, unsent: queue.unsent, ..self.engine.stats() };
        *self.shown.stats.write().unwrap_or_else(PoisonError::into_inner) = stats;
    }

    fn now(&self) -> Nanos {
        Nanos(0) + self.clock.elapsed()
    }
}

/// The way to the reader of the events.
struct Queue {
    events: mpsc::Sender<Event>,
    is_behind: bool,
    dropped: u64,
    unsent: u64,
}

impl Queue {
    fn new(events: mpsc::Sender<Event>) -> Self {
        Self { events, is_behind: false, dropped: 0, unsent: 0 }
    }

    fn push(&mut self, event: Event) {
        if self.is_behind {
            self.dropped += 1;
        } else if let Err(mpsc::error::TrySendError::Full(_)) = self.events.try_send(event) {
            self.is_behind = true;
            self.dropped += 1;
        }
    }

    /// Gives a reader that missed events the whole picture, once there is room for it.
    fn catch_up(&mut self, shown: &Shown) {
        if self.is_behind && self.events.try_send(Event::Snapshot(shown.view())).is_ok() {
            self.is_behind = false;
        }
    }
}

/// An IPv4 peer of an IPv6 socket under the address that everybody else knows it by.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Where an empty datagram must go to wake the thread that listens here.
pub(crate) fn wake_address(bound: SocketAddr) -> SocketAddr {
    match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, bound.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::from((Ipv6Addr::LOCALHOST, bound.port())),
        _ => bound,
    }
}

/// Longer than any datagram of ours, so that a longer one is seen to be too long.
const BUFFER: usize = 2048;

/// How many datagrams are handled before timers get their turn.
const DRAINED_AT_ONCE: usize = 512;

/// The longest sleep: what a command waits for if the datagram that should wake us is lost.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// The shortest sleep.
const SHORTEST_WAIT: Duration = Duration::from_micros(100);

/// How long to let a socket be that cannot receive.
const TROUBLE_PAUSE: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use protocol::Incarnation;

    use super::*;
    use crate::engine::Setup;
    use crate::member::Tags;
    use crate::timing::Timing;

    fn view() -> View {
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        let tags = CheckedTags::try_from(Tags::new()).unwrap();
        let (node, incarnation, cluster, seeds) = (NodeId(1), Incarnation(1), "queue".into(), vec![]);
        let timing = Timing::LAN;
        let insecure = false;
        Engine::new(
            Setup { node, incarnation, cluster, addr, link: addr, seeds, timing, tags, insecure, seed: 1 },
            Nanos(0),
        )
        .view()
    }

    #[test]
    fn a_slow_reader_gets_the_whole_picture_instead_of_what_it_missed() {
        let shown = Shown::new(view());
        let (events, mut reader) = mpsc::channel(2);
        let mut queue = Queue::new(events);
        for _ in 0..5 {
            queue.push(Event::Isolated);
            queue.catch_up(&shown);
        }
        assert_eq!(queue.dropped, 3);
        assert_eq!(reader.try_recv(), Ok(Event::Isolated));
        assert_eq!(reader.try_recv(), Ok(Event::Isolated));
        queue.catch_up(&shown);
        queue.push(Event::Connected);
        assert_eq!(reader.try_recv(), Ok(Event::Snapshot(shown.view())));
        assert_eq!(reader.try_recv(), Ok(Event::Connected));
    }

    #[test]
    fn a_thread_that_listens_everywhere_is_woken_over_loopback() {
        assert_eq!(wake_address("0.0.0.0:7".parse().unwrap()), "127.0.0.1:7".parse().unwrap());
        assert_eq!(wake_address("[::]:7".parse().unwrap()), "[::1]:7".parse().unwrap());
        assert_eq!(wake_address("127.0.0.2:7".parse().unwrap()), "127.0.0.2:7".parse().unwrap());
    }
}
