//! The failure detector without a socket or a clock: datagrams and time in, datagrams and events out.
//!
//! foca is the core of the protocol and is never driven raw. Around it stand the rules that its measured behaviour asks
//! for: a refuted suspicion is not passed on (`suspicion`), a node that nobody answers keeps asking, whole tables are
//! compared now and then (`sync`), what foca does not tell is found by comparing its table with ours (`picture`), and a
//! stall of this very process is not held against the others.
//!
//! # Invariants
//!
//! * The same inputs at the same times with the same seed give the same outputs.
//! * No input panics; every table and queue has a bound.
//! * After the farewell nothing that arrives is looked at, so a node that left cannot be talked back into life.
//! * A name is given up only because somebody holds it to be down.

mod input;
mod outbox;
mod picture;
mod settings;
mod standing;
mod suspicion;
mod sync;
mod timers;

#[cfg(test)]
mod canaries;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use foca::{Foca, OwnedNotification, Timer};
use protocol::{Epoch, Nanos, NodeId};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::board::{self, Item, SharedBoard};
use crate::codec::{self, Codec};
use crate::identity::Identity;
use crate::member::{Event, View};
use crate::packet::{self, Message, Opened, Refused};
use crate::stats::Stats;
use crate::timing::Timing;
pub use input::{CheckedTags, Effects, Input, Setup, TagsTooLong};
use outbox::Outbox;
use picture::Peer;
use settings::foca_config;
use timers::{Due, Timers};

/// The machine.
pub struct Engine {
    foca: Foca<Identity, Codec, SmallRng, SharedBoard>,
    outbox: Outbox,
    timers: Timers,
    board: SharedBoard,
    peers: BTreeMap<NodeId, Peer>,

    cluster: u64,
    seeds: Vec<SocketAddr>,
    timing: Timing,
    is_insecure: bool,
    rng: SmallRng,

    phase: Phase,
    tags: CheckedTags,
    tags_version: u64,
    /// foca's own refutation counter, which it shows only in what it sends.
    generation: u16,
    /// Whether foca is known to somebody under its present name.
    is_joined: bool,
    /// What the application was told last about being connected.
    is_connected: bool,
    /// The probe whose answer would tell a round-trip time.
    ping: Option<(Identity, u8, Nanos)>,
    /// When another bearer of our identity was met, of late.
    doubles: VecDeque<Nanos>,

    born: Nanos,
    rejoin_at: Nanos,
    sync_at: Nanos,
    sync_gap: Duration,
    sync_down_at: Nanos,
    maintain_at: Nanos,
    urgent_at: Nanos,
    /// Push-pull answers given in full in the present round of maintenance.
    full_answers: u32,

    version: u64,
    is_view_stale: bool,
    stats: Stats,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Farewells that are still to be said, and when the next one is.
    Leaving {
        left: u32,
        at: Nanos,
    },
    /// Another process bears our identity; the view stays for those who ask.
    Muted,
    /// Nothing more will be said.
    Gone,
}

impl Engine {
    /// A node that knows nobody yet. It asks its seeds at the first [`Input::Time`].
    #[must_use]
    pub fn new(setup: Setup, now: Nanos) -> Self {
        let Setup { node, incarnation, cluster, addr, link, seeds, timing, tags, insecure, seed } = setup;
        let mut rng = SmallRng::seed_from_u64(seed);
        let board = SharedBoard::default();
        let identity = Identity { node, incarnation, bump: 0, addr, link };
        let foca_rng = SmallRng::seed_from_u64(rng.random());
        let mut engine = Self {
            foca: Foca::with_custom_broadcast(identity, foca_config(&timing), foca_rng, Codec, board.clone()),
            outbox: Outbox::default(),
            timers: Timers::default(),
            board,
            peers: BTreeMap::new(),
            cluster: packet::cluster_hash(&cluster),
            seeds: seeds.into_iter().filter(|seed| *seed != addr).take(MAX_SEEDS).collect(),
            timing,
            is_insecure: insecure,
            rng,
            phase: Phase::Running,
            tags: tags.clone(),
            tags_version: 0,
            generation: 0,
            is_joined: false,
            is_connected: false,
            ping: None,
            doubles: VecDeque::new(),
            born: now,
            rejoin_at: now,
            sync_at: Nanos::NEVER,
            sync_gap: timing.sync,
            sync_down_at: now + timing.sync_down,
            maintain_at: now + timing.gossip * MAINTAIN_EVERY,
            urgent_at: now,
            full_answers: 0,
            version: 0,
            is_view_stale: false,
            stats: Stats::default(),
        };
        engine.publish_tags(tags);
        engine
    }

    /// Handles one input. Whatever must follow from it is added to `effects`.
    pub fn step(&mut self, now: Nanos, input: Input<'_>, effects: &mut Effects) {
        match (self.phase, input) {
            (Phase::Muted, Input::Leave) => self.phase = Phase::Gone,
            (Phase::Muted | Phase::Gone, _) => {}
            (Phase::Leaving { left, at }, Input::Time) if at <= now => self.say_farewell(now, left, effects),
            (Phase::Leaving { .. }, _) => {}
            (Phase::Running, Input::Datagram { from, bytes }) => self.on_datagram(now, from, bytes, effects),
            (Phase::Running, Input::Time) => self.on_time(now, effects),
            (Phase::Running, Input::Tags(tags)) => self.on_tags(now, tags, effects),
            (Phase::Running, Input::Master { epoch, node }) => self.on_master(now, epoch, node, effects),
            (Phase::Running, Input::Leave) => self.on_leave(now, effects),
        }
    }

    /// The present picture, if it changed since this was last asked.
    pub fn take_view(&mut self) -> Option<Arc<View>> {
        std::mem::take(&mut self.is_view_stale).then(|| Arc::new(self.view()))
    }

    /// When the next [`Input::Time`] is needed.
    #[must_use]
    pub fn next_deadline(&self) -> Nanos {
        match self.phase {
            Phase::Muted | Phase::Gone => Nanos::NEVER,
            Phase::Leaving { at, .. } => at,
            Phase::Running => [self.rejoin_at, self.sync_at, self.sync_down_at, self.maintain_at]
                .into_iter()
                .chain(self.timers.first())
                .min()
                .unwrap_or(Nanos::NEVER),
        }
    }

    /// Whether the farewell is over and the engine may be dropped.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// What was counted so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let noise = self.board.lock().malformed;
        Stats { malformed: self.stats.malformed + noise, ..self.stats }
    }

    fn on_datagram(&mut self, now: Nanos, from: SocketAddr, bytes: &[u8], effects: &mut Effects) {
        self.stats.received += 1;
        self.stats.received_bytes += bytes.len() as u64;
        match packet::open(self.cluster, bytes) {
            Ok(Opened::Gossip(packet)) => self.on_gossip(now, packet, effects),
            Ok(Opened::Message(message)) => self.on_message(now, from, message, effects),
            Err(Refused::Foreign) => self.stats.foreign += 1,
            Err(Refused::Malformed) => self.stats.malformed += 1,
        }
    }

    fn on_gossip(&mut self, now: Nanos, packet: &[u8], effects: &mut Effects) {
        let Ok((header, members)) = codec::scan(packet) else {
            self.stats.malformed += 1;
            return;
        };
        let names = || std::iter::once(&header.src).chain(members.iter().map(foca::Member::id));
        if names().any(|name| self.is_double(name)) {
            // foca would declare our later run down. It is right and we are not.
            self.on_double(now, effects);
            return;
        }
        if header.src.node == self.me().node || (self.is_full() && names().any(|name| !self.knows(name.node))) {
            self.stats.refused += 1;
            return;
        }
        let outcome = self.foca.handle_data(packet, &mut self.outbox);
        self.count(outcome);
        self.settle(now, effects);
    }

    fn on_message(&mut self, now: Nanos, from: SocketAddr, message: Message, effects: &mut Effects) {
        match message {
            Message::Sync(sync) => self.on_sync(now, from, &sync, effects),
            Message::SeenDown { name } => self.on_seen_down(now, from, name, effects),
            Message::WantTags { nodes } => self.on_want_tags(&nodes, from, effects),
            Message::Items { items } => self.on_items(now, &items, effects),
        }
    }

    fn on_time(&mut self, now: Nanos, effects: &mut Effects) {
        self.forgive_stall(now);
        while let Some(due) = self.timers.pop(now) {
            match due {
                Due::Foca(timer) => self.pass_on(now, timer, effects),
                Due::Suspicion { timer, held } => self.on_suspicion_over(now, timer, held, effects),
                Due::Doubt { name, since, tries } => self.on_doubt_over(now, name, since, tries, effects),
            }
            if self.phase != Phase::Running {
                return;
            }
        }
        if self.rejoin_at <= now {
            self.rejoin(now, effects);
        }
        if self.sync_at <= now {
            self.sync_with_active(now, effects);
        }
        if self.sync_down_at <= now {
            self.sync_with_absent(now, effects);
        }
        if self.maintain_at <= now {
            self.maintain(now, effects);
        }
    }

    fn on_tags(&mut self, now: Nanos, tags: CheckedTags, effects: &mut Effects) {
        if tags == self.tags {
            return;
        }
        self.publish_tags(tags);
        self.settle(now, effects);
        let me = self.myself();
        self.tell(Event::TagsChanged(me), effects);
        self.gossip_now(now, effects);
    }

    fn on_master(&mut self, now: Nanos, epoch: Epoch, node: NodeId, effects: &mut Effects) {
        self.add_item(&Item::Master { epoch, node });
        self.settle(now, effects);
        self.gossip_now(now, effects);
    }

    fn pass_on(&mut self, now: Nanos, timer: Timer<Identity>, effects: &mut Effects) {
        let outcome = self.foca.handle_timer(timer, &mut self.outbox);
        self.count(outcome);
        self.settle(now, effects);
    }

    /// Sends news at once instead of with the next round of gossip.
    fn gossip_now(&mut self, now: Nanos, effects: &mut Effects) {
        for _ in 0..2 {
            let outcome = self.foca.gossip(&mut self.outbox);
            self.count(outcome);
        }
        self.flush(now, effects);
    }

    /// Does what foca asked for in its last calls, and finds out what they changed.
    fn settle(&mut self, now: Nanos, effects: &mut Effects) {
        self.heed_farewells();
        // The picture first: who was heard must be in it, and the last one fails before nobody is left.
        let is_urgent = self.refresh(now, effects);
        self.flush(now, effects);
        if is_urgent && self.urgent_at <= now {
            self.urgent_at = now + self.timing.gossip;
            self.gossip_now(now, effects);
        }
    }

    /// Empties the outbox.
    fn flush(&mut self, now: Nanos, effects: &mut Effects) {
        for (timer, after) in std::mem::take(&mut self.outbox.timers) {
            let due = match timer {
                Timer::ChangeSuspectToDown { .. } => Due::Suspicion { timer, held: 0 },
                timer => Due::Foca(timer),
            };
            self.timers.set(now + after, due);
        }
        for note in std::mem::take(&mut self.outbox.notes) {
            self.on_note(now, note, effects);
        }
        for (to, packet) in std::mem::take(&mut self.outbox.sends) {
            let datagram = packet::wrap_gossip(self.cluster, &packet);
            self.send(to.addr, datagram, effects);
        }
    }

    fn on_note(&mut self, now: Nanos, note: OwnedNotification<Identity>, effects: &mut Effects) {
        match note {
            OwnedNotification::Active => self.on_joined(now, effects),
            OwnedNotification::Idle => self.on_alone(now, effects),
            OwnedNotification::Rejoin(_) => self.on_renewed(now, effects),
            OwnedNotification::DataSent(header) => self.on_sent(now, &header),
            OwnedNotification::DataReceived(header) => self.on_heard(now, &header),
            OwnedNotification::ProbeFailed(..) => self.stats.failed_probes += 1,
            _ => {}
        }
    }

    /// If our own timers are late, this process stood still; the others did not get their time to answer either.
    fn forgive_stall(&mut self, now: Nanos) {
        let late = self.timers.first().map_or(Duration::ZERO, |first| now.since(first));
        if late > self.timing.probe_period / 2 {
            self.timers.shift(late);
            self.stats.stalls += 1;
        }
    }

    fn publish_tags(&mut self, tags: CheckedTags) {
        let me = *self.me();
        self.tags_version += 1;
        let (version, encoded) = (self.tags_version, tags.encoded.clone());
        self.tags = tags;
        self.add_item(&Item::Tags { node: me.node, incarnation: me.incarnation, version, tags: encoded });
    }

    fn add_item(&mut self, item: &Item) {
        let bytes = board::item(item).expect("checked tags and fixed-size facts fit an item");
        self.add_broadcast(&bytes);
    }

    fn add_broadcast(&mut self, item: &[u8]) {
        let outcome = self.foca.add_broadcast(item).map(|_| ());
        self.count(outcome);
    }

    fn send_message(&mut self, to: SocketAddr, message: &Message, effects: &mut Effects) {
        match packet::wrap_message(self.cluster, message) {
            Ok(datagram) => self.send(to, datagram, effects),
            Err(_) => self.stats.errors += 1,
        }
    }

    /// Addresses come from other nodes; without sealing nobody may point us at the world outside.
    fn send(&mut self, to: SocketAddr, datagram: Vec<u8>, effects: &mut Effects) {
        if !self.is_insecure && !to.ip().is_loopback() {
            self.stats.refused += 1;
            return;
        }
        self.stats.sent += 1;
        self.stats.sent_bytes += datagram.len() as u64;
        effects.sends.push((to, datagram));
    }

    fn tell(&mut self, event: Event, effects: &mut Effects) {
        self.version += 1;
        self.is_view_stale = true;
        effects.events.push(event);
    }

    fn count(&mut self, outcome: Result<(), foca::Error>) {
        if outcome.is_err() {
            self.stats.errors += 1;
        }
    }

    /// Between half of `span` and all of it.
    fn jitter(&mut self, span: Duration) -> Duration {
        span.mul_f64(self.rng.random_range(0.5..1.0))
    }

    fn me(&self) -> &Identity {
        self.foca.identity()
    }

    fn knows(&self, node: NodeId) -> bool {
        self.peers.contains_key(&node)
    }

    fn is_full(&self) -> bool {
        self.peers.len() >= MAX_MEMBERS
    }
}

/// How many members are remembered, absent ones included.
const MAX_MEMBERS: usize = 4096;

/// How many seeds are heeded.
const MAX_SEEDS: usize = 64;

/// Rounds of gossip between two rounds of maintenance.
const MAINTAIN_EVERY: u32 = 4;
