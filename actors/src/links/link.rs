//! One link: the windows of its classes, messages cut into pieces and put together, and the order of what is reported.
//!
//! # Invariants
//!
//! * What the consumer sees of one link is `Up`, then messages, then `Down`; every report is made under the link's lock.
//! * A long message takes credit piece by piece. While its rest waits for credit, its class answers `Busy`, so pieces of
//!   two messages never mix, and the sender holds at most one such rest per class.
//! * The receiver gives the credit of early pieces back while it assembles, so a message longer than the window still
//!   arrives; the assembled message keeps half a window of credit until the consumer takes it.

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::{ClusterId, Incarnation, NodeId, wire};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use super::counts::{Counters, Dropped};
use super::envelope::{Body, Envelope, MAX_PIECE, VERSION};
use super::inbox::Item;
use super::window::{Ledger, Total, Window, cost, limit};
use super::{Class, Closed, LinkEvent, Peer, SendError};

/// The longest message of the control class, in bytes.
pub const MAX_CONTROL: usize = MAX_PIECE;

/// The bare wire under a link. Its methods neither block nor call back into the link.
pub(super) trait Wire: Send + Sync {
    /// Can frames be put on it yet?
    fn is_ready(&self) -> bool;
    /// Puts one frame on its way.
    fn put(&self, frame: Vec<u8>);
    /// Cuts it: frees whatever carries it, and lets the other side notice.
    fn cut(&self);
    /// How long nothing was heard on it.
    fn silent_for(&self) -> Duration;
}

/// What all links of a process share.
#[derive(Debug)]
pub(super) struct Common {
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub cluster: RwLock<ClusterId>,
    pub counters: Counters,
    pub events: UnboundedSender<Item>,
}

/// One link to one run of one peer.
pub(super) struct Link {
    /// The other end.
    pub peer: Peer,
    /// Our name for it, which the peer writes on what it sends.
    pub name: u64,
    peers_name: u64,
    /// Which of the two nodes dialled.
    pub dialler: NodeId,
    /// Since when it is agreed on.
    pub born: Instant,
    common: Arc<Common>,
    wire: Box<dyn Wire>,
    is_superseded: AtomicBool,
    /// Counts what was put on the wire.
    frames: AtomicU64,
    /// Told of every message that is no mere sign of life, in either direction.
    stir: Notify,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// How it ended, if it was up before.
    ended_by: Option<Closed>,
    outgoing: [Outgoing; 3],
    incoming: [Incoming; 3],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Agreed at the hello, not usable yet.
    Reserved,
    Up,
    /// We said goodbye and wait for the peer to close.
    Leaving,
    Closed,
}

struct Outgoing {
    class: Class,
    window: Window,
    /// The part of a long message that waits for credit.
    rest: Bytes,
    /// Somebody was told `Busy`.
    owes_writable: bool,
}

struct Incoming {
    class: Class,
    ledger: Ledger,
    /// The length of the message being put together, zero if there is none.
    total: usize,
    buffer: Vec<u8>,
    /// The credit that its pieces hold.
    held: Total,
}

impl Link {
    /// A link that was agreed on. `names` are our and the peer's name for it.
    pub(super) fn new(
        peer: Peer,
        (name, peers_name): (u64, u64),
        dialler: NodeId,
        common: Arc<Common>,
        wire: Box<dyn Wire>,
    ) -> Arc<Self> {
        let classes = [Class::Control, Class::Data, Class::Bulk];
        let state = State {
            phase: Phase::Reserved,
            ended_by: None,
            outgoing: classes.map(Outgoing::new),
            incoming: classes.map(Incoming::new),
        };
        Arc::new(Self {
            peer,
            name,
            peers_name,
            dialler,
            born: Instant::now(),
            common,
            wire,
            is_superseded: AtomicBool::new(false),
            frames: AtomicU64::new(0),
            stir: Notify::new(),
            state: Mutex::new(state),
        })
    }

    /// Reports the link up if its wire is ready and it was not yet.
    pub(super) fn raise(&self) {
        self.raise_locked(&mut self.lock());
    }

    pub(super) fn send(&self, class: Class, body: Bytes) -> Result<(), SendError> {
        let longest = if class == Class::Control { MAX_CONTROL } else { wire::MAX_MESSAGE };
        if body.len() > longest {
            return Err(SendError::TooLong { len: body.len() });
        }
        let mut state = self.lock();
        if state.phase != Phase::Up {
            return Err(SendError::NoLink);
        }
        let outgoing = &mut state.outgoing[class as usize];
        let first = body.len().min(MAX_PIECE);
        if !outgoing.rest.is_empty() || !outgoing.window.take(cost(first)) {
            if class == Class::Control {
                self.common.counters.count(Dropped::ControlFull);
                return Ok(());
            }
            outgoing.owes_writable = true;
            return Err(SendError::Busy);
        }
        if first == body.len() {
            self.put(Body::Whole { class, bytes: body });
            return Ok(());
        }
        let total = u32::try_from(body.len()).expect("a message is shorter than 4 GiB");
        self.put(Body::Piece { class, total: Some(total), is_last: false, bytes: body.slice(..first) });
        outgoing.rest = body.slice(first..);
        self.pump(outgoing);
        Ok(())
    }

    /// Handles what the peer put inside an envelope. An error means that it broke the rules and the link must go.
    pub(super) fn receive(self: &Arc<Self>, body: Body) -> Result<Heard, Closed> {
        let mut state = self.lock();
        // The peer may hear of its end before we hear of ours.
        self.raise_locked(&mut state);
        if !matches!(state.phase, Phase::Up | Phase::Leaving) {
            self.common.counters.count(Dropped::Stale);
            return Ok(Heard::Something);
        }
        self.note_stir(&body);
        match body {
            Body::Whole { class, bytes } => self.receive_whole(&mut state.incoming[class as usize], bytes)?,
            Body::Piece { class, total, is_last, bytes } => {
                let incoming = &mut state.incoming[class as usize];
                if self.receive_piece(incoming, total, is_last, &bytes)? {
                    self.announce(&mut state);
                }
            }
            Body::Credit(totals) => self.receive_credit(&mut state, totals),
            Body::Bye => return Ok(Heard::Goodbye),
        }
        Ok(Heard::Something)
    }

    /// Gives back the credit of a message that the consumer took.
    pub(super) fn free(&self, class: Class, held: Total) {
        let mut state = self.lock();
        let is_due = state.incoming[class as usize].ledger.free(held.messages, held.bytes);
        if is_due && matches!(state.phase, Phase::Up | Phase::Leaving) {
            self.announce(&mut state);
        }
    }

    /// Waits until a message crosses the link that somebody may wait for.
    pub(super) async fn stirred(&self) {
        self.stir.notified().await;
    }

    /// How many frames were put on the wire so far.
    pub(super) fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Puts a frame on the wire that says nothing new.
    pub(super) fn nudge(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Up {
            self.announce(&mut state);
        }
    }

    /// Says goodbye once no piece waits any more. False if it must be asked again.
    pub(super) fn leave(&self) -> bool {
        let mut state = self.lock();
        if state.phase != Phase::Up {
            return true;
        }
        if state.outgoing.iter().any(|outgoing| !outgoing.rest.is_empty()) {
            return false;
        }
        self.put(Body::Bye);
        state.phase = Phase::Leaving;
        true
    }

    /// Ends the link. Reports it if it had been reported up. False if it had ended before.
    pub(super) fn close(&self, why: Closed) -> bool {
        let mut state = self.lock();
        let phase = mem::replace(&mut state.phase, Phase::Closed);
        for outgoing in &mut state.outgoing {
            outgoing.rest = Bytes::new();
        }
        for incoming in &mut state.incoming {
            incoming.buffer = Vec::new();
        }
        let why = if phase == Phase::Leaving { Closed::BySelf } else { why };
        match phase {
            Phase::Closed => return false,
            Phase::Reserved => {}
            Phase::Up | Phase::Leaving => {
                state.ended_by = Some(why);
                self.report(LinkEvent::Down { peer: self.peer, why });
            }
        }
        self.wire.cut();
        true
    }

    /// From now on, what the inbox still holds of this link is dropped.
    pub(super) fn supersede(&self) {
        self.is_superseded.store(true, Ordering::Release);
    }

    pub(super) fn is_superseded(&self) -> bool {
        self.is_superseded.load(Ordering::Acquire)
    }

    pub(super) fn is_up(&self) -> bool {
        self.lock().phase == Phase::Up
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().phase == Phase::Closed
    }

    /// How it ended, if it has ended and was up before.
    pub(super) fn ended_by(&self) -> Option<Closed> {
        self.lock().ended_by
    }

    pub(super) fn silent_for(&self) -> Duration {
        self.wire.silent_for()
    }

    fn raise_locked(&self, state: &mut State) {
        if state.phase == Phase::Reserved && self.wire.is_ready() {
            state.phase = Phase::Up;
            self.report(LinkEvent::Up(self.peer));
        }
    }

    fn receive_whole(self: &Arc<Self>, incoming: &mut Incoming, bytes: Bytes) -> Result<(), Closed> {
        let bytes_held = cost(bytes.len());
        if incoming.total != 0 || !incoming.ledger.receive(bytes_held) {
            return Err(Closed::Violation);
        }
        self.deliver(incoming.class, bytes, Total { messages: 1, bytes: bytes_held });
        Ok(())
    }

    /// Adds a piece. True if it is time to announce credit.
    fn receive_piece(
        self: &Arc<Self>,
        incoming: &mut Incoming,
        total: Option<u32>,
        is_last: bool,
        piece: &[u8],
    ) -> Result<bool, Closed> {
        if !incoming.ledger.receive(cost(piece.len())) {
            return Err(Closed::Violation);
        }
        match total {
            Some(total) if incoming.total == 0 => incoming.begin(total as usize)?,
            None if incoming.total != 0 => {}
            _ => return Err(Closed::Violation),
        }
        let length = incoming.buffer.len() + piece.len();
        if length > incoming.total || is_last != (length == incoming.total) {
            return Err(Closed::Violation);
        }
        incoming.buffer.extend_from_slice(piece);
        let is_due = incoming.hold(cost(piece.len()));
        if is_last {
            incoming.total = 0;
            let held = mem::take(&mut incoming.held);
            self.deliver(incoming.class, Bytes::from(mem::take(&mut incoming.buffer)), held);
        }
        Ok(is_due)
    }

    fn receive_credit(&self, state: &mut State, totals: [Total; 3]) {
        for (outgoing, freed) in state.outgoing.iter_mut().zip(totals) {
            if outgoing.window.credit(freed) {
                self.pump(outgoing);
                if mem::take(&mut outgoing.owes_writable) {
                    self.report(LinkEvent::Writable { node: self.peer.node, class: outgoing.class });
                }
            }
        }
    }

    /// Sends pieces of the waiting rest as far as the credit goes.
    fn pump(&self, outgoing: &mut Outgoing) {
        while !outgoing.rest.is_empty() {
            let length = outgoing.rest.len().min(MAX_PIECE);
            if !outgoing.window.take(cost(length)) {
                return;
            }
            let bytes = outgoing.rest.split_to(length);
            let is_last = outgoing.rest.is_empty();
            self.put(Body::Piece { class: outgoing.class, total: None, is_last, bytes });
        }
    }

    fn announce(&self, state: &mut State) {
        self.put(Body::Credit([0, 1, 2].map(|class: usize| state.incoming[class].ledger.announce())));
    }

    fn deliver(self: &Arc<Self>, class: Class, body: Bytes, held: Total) {
        let _ = self.common.events.send(Item::Message { link: self.clone(), class, body, held });
    }

    /// Puts an envelope on the wire. Under the lock, so that the wire has the order in which credit was taken.
    fn put(&self, body: Body) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.note_stir(&body);
        let envelope = Envelope {
            version: VERSION,
            cluster: *self.common.cluster.read().expect("nobody panics under this lock"),
            from: self.common.node,
            from_incarnation: self.common.incarnation,
            to: self.peer.node,
            to_incarnation: self.peer.incarnation,
            link: self.peers_name,
            body,
        };
        self.wire.put(envelope.encode());
    }

    fn note_stir(&self, body: &Body) {
        if let Body::Whole { class, .. } | Body::Piece { class, .. } = body
            && *class != Class::Control
        {
            self.stir.notify_one();
        }
    }

    fn report(&self, event: LinkEvent) {
        let _ = self.common.events.send(Item::Event(event));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics under this lock")
    }
}

/// What an envelope meant for the link as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Something,
    /// The peer leaves; nothing more will come.
    Goodbye,
}

impl Outgoing {
    fn new(class: Class) -> Self {
        Self { class, window: Window::new(class), rest: Bytes::new(), owes_writable: false }
    }
}

impl Incoming {
    fn new(class: Class) -> Self {
        Self { class, ledger: Ledger::new(class), total: 0, buffer: Vec::new(), held: Total::default() }
    }

    fn begin(&mut self, total: usize) -> Result<(), Closed> {
        if self.class == Class::Control || total <= MAX_PIECE || total > wire::MAX_MESSAGE {
            return Err(Closed::Violation);
        }
        self.total = total;
        self.buffer = Vec::with_capacity(total);
        Ok(())
    }

    /// Keeps the credit of a piece while the message holds less than half a window; gives it back beyond that.
    fn hold(&mut self, cost: u64) -> bool {
        if self.held.bytes + cost > limit(self.class).bytes / 2 {
            return self.ledger.free(1, cost);
        }
        self.held.messages += 1;
        self.held.bytes += cost;
        false
    }
}
