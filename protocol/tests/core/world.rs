//! A virtual cluster of cores: one global time, and for every node a clock, a disk and links of its own.
//!
//! # Invariants
//!
//! * Everything that happens is an event of one queue, ordered by time and then by age, so a seed replays exactly.
//! * A crash loses what was not synced, except for a prefix of it that may just have reached the disk.
//! * A message whose `after` names a batch leaves when that batch is synced.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

use bytes::Bytes;
use protocol::consensus::{Config, Consensus, Effect, HandOverCause, Input, Message};
use protocol::durable::{Durable, Entry, Genesis, Persist, SnapMeta, Snapshot};
use protocol::effects::{Authority, Role};
use protocol::{ClusterId, Epoch, Incarnation, Index, LogId, Nanos, NodeId, Profile};

use crate::dice::Dice;

/// One millisecond.
pub const MS: u64 = 1_000_000;

/// The cluster.
pub struct World {
    /// Global time.
    pub time: u64,
    /// Node `NodeId(n)` stands at `n - 1`.
    pub nodes: Vec<Node>,
    /// How messages travel.
    pub net: Net,
    /// How long a master takes to stop, from and to.
    pub surrender: (u64, u64),
    /// Chance for everything but the cores.
    pub dice: Dice,
    /// What the cores said that a checker may want to see, until it is taken.
    pub seen: Vec<(usize, Seen)>,
    /// Steps of cores so far.
    pub steps: u64,
    /// Messages are shown in `seen` instead of being sent, and so are writes.
    pub is_tapped: bool,
    /// How long an image travels at most.
    pub fetch_delay: u64,
    /// How long it takes at most to write a snapshot.
    pub save_delay: u64,
    /// How every core that starts from here on is broken.
    #[cfg(feature = "mutants")]
    pub bug: Option<protocol::consensus::Bug>,
    queue: BinaryHeap<Reverse<Scheduled>>,
    order: u64,
}

/// One node of it.
pub struct Node {
    /// The core, unless the node is down.
    pub core: Option<Consensus>,
    /// What is synced.
    pub disk: Durable,
    /// What is written but not synced, with the time at which it will be.
    pub unsynced: VecDeque<(Persist, u64)>,
    /// Messages that wait for a batch.
    pub held: Vec<(u64, usize, Message)>,
    /// What was applied in this run.
    pub applied: Vec<Entry>,
    /// The authority that is shown.
    pub authority: Option<Authority>,
    /// The last words of a core that broke.
    pub fatal: Option<String>,
    /// It gave up its log, and its identity never starts again.
    pub is_retired: bool,
    /// How long a sync takes, from and to.
    pub sync: (u64, u64),
    /// No sync ends while this is set.
    pub is_disk_stuck: bool,
    /// Nothing is handled before.
    pub paused_until: u64,
    /// Clock rate in parts per million, and where the clock stood at global time zero.
    pub clock: (u64, u64),
    /// The timers; a change counts from the next start.
    pub profile: Profile,
    seed: u64,
    run: u64,
    wake: u64,
    synced_seq: u64,
}

/// How messages travel, in parts per thousand and nanoseconds.
#[derive(Clone, Debug)]
pub struct Net {
    /// Lost.
    pub loss: u64,
    /// Delivered twice.
    pub twice: u64,
    /// From and to.
    pub delay: (u64, u64),
    /// On the slow path.
    pub slow: u64,
    /// The longest way.
    pub slow_delay: u64,
    /// Cut in this direction.
    pub cut: BTreeSet<(usize, usize)>,
}

/// What a core said that is not a message or a batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Seen {
    /// These were applied.
    Applied(Vec<Entry>),
    /// Only while tapped: see [`Effect::Fetch`].
    Fetches(NodeId, LogId),
    /// See [`Effect::Installed`].
    Installed(LogId),
    /// See [`Effect::ReadReady`].
    ReadReady(u64, Index),
    /// See [`Effect::Accepted`].
    Accepted(u64, LogId),
    /// See [`Effect::Dropped`].
    Dropped(u64, protocol::consensus::Drop),
    /// See [`Effect::Role`].
    Role(Role, Epoch, Option<NodeId>),
    /// See [`Effect::Authority`].
    Authority(Option<Authority>),
    /// See [`Effect::Surrender`].
    Surrender(Epoch, HandOverCause),
    /// See [`Effect::Resume`].
    Resume(Epoch),
    /// The leader told this node to campaign when its log ended there.
    Urged(usize, LogId),
    /// It gave up its log.
    Retired,
    /// It begins to write a snapshot of this.
    Saves(LogId),
    /// See [`Effect::Fatal`].
    Fatal(String),
    /// Only while tapped: a message, and whether it waits for the disk.
    Sent {
        /// The receiver.
        to: NodeId,
        /// What was said.
        message: Message,
        /// Whether it waits for the disk.
        waits: bool,
    },
    /// Only while tapped: a batch.
    Wrote(Box<Persist>),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Scheduled {
    at: u64,
    order: u64,
    what: Happening,
}

#[derive(Clone, Debug)]
enum Happening {
    Arrival { from: usize, to: usize, message: Message },
    Wake { node: usize, run: u64 },
    Synced { node: usize, run: u64 },
    Staged { node: usize, run: u64, meta: Box<SnapMeta> },
    Saved { node: usize, run: u64, meta: Box<SnapMeta>, trailing: u64 },
    Surrendered { node: usize, run: u64, epoch: Epoch },
}

/// Two happenings are ordered by time and age alone.
impl PartialEq for Happening {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Happening {}
impl PartialOrd for Happening {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Happening {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl World {
    /// `count` nodes that are founded on one genesis, with good links, disks and clocks.
    pub fn new(count: usize, seed: u64) -> Self {
        Self::with(count, count, seed, |_| Profile::LAN)
    }

    /// The same, every node with a profile of its own. Only the first `voters` are in the genesis; the others hold it too,
    /// as a node does that joins a cluster.
    pub fn with(count: usize, voters: usize, seed: u64, profile: impl Fn(usize) -> Profile) -> Self {
        let mut dice = Dice(seed);
        let voters: Vec<NodeId> = (1..=voters as u64).map(NodeId).collect();
        let nodes = (0..count).map(|at| Node::founded(&voters, at, profile(at), dice.any())).collect();
        let net =
            Net { loss: 0, twice: 0, delay: (MS / 5, MS / 5), slow: 0, slow_delay: 800 * MS, cut: BTreeSet::new() };
        let queue = BinaryHeap::new();
        let mut world = Self {
            time: 1,
            nodes,
            net,
            surrender: (MS / 10, MS / 10),
            dice,
            seen: Vec::new(),
            steps: 0,
            is_tapped: false,
            fetch_delay: 5 * MS,
            save_delay: MS,
            #[cfg(feature = "mutants")]
            bug: None,
            queue,
            order: 0,
        };
        for at in 0..count {
            world.restart(at);
        }
        world
    }

    /// Starts a node from its disk.
    pub fn restart(&mut self, at: usize) {
        let now = self.local(at);
        let node = &mut self.nodes[at];
        node.disk.incarnation = Incarnation(node.disk.incarnation.0 + 1);
        node.run += 1;
        node.seed = node.seed.wrapping_add(1);
        let config = Config { node: node.disk.node, profile: node.profile, seed: node.seed };
        let core = Consensus::new(config, node.disk.clone(), now);
        #[cfg(feature = "mutants")]
        let core = core.with_bug(self.bug);
        node.core = Some(core);
        node.applied.clear();
        (node.wake, node.synced_seq, node.paused_until) = (u64::MAX, 0, 0);
        self.arm(at);
    }

    /// Kills a node. Of what it had written, the first `survivors` batches reached the disk.
    pub fn crash(&mut self, at: usize, survivors: usize) {
        let node = &mut self.nodes[at];
        node.core = None;
        node.authority = None;
        for (batch, _) in node.unsynced.drain(..).take(survivors) {
            node.disk.apply(&batch);
        }
        node.held.clear();
    }

    /// A node gives up its log and with it, for ever, its identity (F2), unless its own log may still want it: whoever
    /// acknowledged an entry and holds it no longer would help to elect a leader without it.
    pub fn retire(&mut self, at: usize) {
        let Some(core) = &self.nodes[at].core else { return };
        let is_named = core.conf().is_some_and(|conf| crate::swarm::is_named(conf, NodeId(at as u64 + 1)));
        // It is named and no member if a leader said so; else its own configuration must be committed.
        if core.is_member() || core.role() == Role::Halted || (!is_named && core.commit() < core.last().index) {
            return;
        }
        self.crash(at, 0);
        self.nodes[at].retire();
        self.seen.push((at, Seen::Retired));
        #[cfg(feature = "mutants")]
        if self.bug == Some(protocol::consensus::Bug::RetiredVotes) {
            self.restart(at);
        }
    }

    /// Handles the next happening; `false` if there is none up to `until`.
    pub fn advance(&mut self, until: u64) -> bool {
        let is_due = self.queue.peek().is_some_and(|Reverse(next)| next.at <= until);
        if !is_due {
            self.time = self.time.max(until);
            return false;
        }
        let Reverse(Scheduled { at, what, .. }) = self.queue.pop().expect("just seen");
        self.time = self.time.max(at);
        let (Happening::Arrival { to: node, .. }
        | Happening::Wake { node, .. }
        | Happening::Synced { node, .. }
        | Happening::Staged { node, .. }
        | Happening::Saved { node, .. }
        | Happening::Surrendered { node, .. }) = what;
        let resumes = self.nodes[node].paused_until;
        if resumes > self.time {
            self.schedule(resumes, what);
            return true;
        }
        match what {
            Happening::Arrival { from, to, message } => {
                self.step(to, Input::Message { from: NodeId(from as u64 + 1), message });
            }
            Happening::Wake { node, run } if self.nodes[node].run == run => self.wake(node),
            Happening::Staged { node, run, meta } if self.nodes[node].run == run => self.stage(node, *meta),
            Happening::Saved { node, run, meta, trailing } if self.nodes[node].run == run => {
                self.note_saved(node, *meta, trailing);
            }
            Happening::Surrendered { node, run, epoch } if self.nodes[node].run == run => {
                self.step(node, Input::Surrendered { epoch });
            }
            Happening::Synced { node, run } if self.nodes[node].run == run => self.sync(node),
            _ => {}
        }
        true
    }

    /// Lets time pass.
    pub fn run_for(&mut self, span: u64) {
        let until = self.time + span;
        while self.advance(until) {}
    }

    /// All nodes forget everything and accept one genesis: they have promised nothing to anyone.
    pub fn found(&mut self) {
        for at in 0..self.nodes.len() {
            let now = self.local(at);
            let node = &mut self.nodes[at];
            let genesis = node.disk.genesis.take().expect("every node was made with one");
            node.disk = Durable::fresh(node.disk.node, Incarnation(1));
            let config = Config { node: node.disk.node, profile: node.profile, seed: node.seed };
            let mut core = Consensus::new(config, node.disk.clone(), now);
            let mut effects = Vec::new();
            core.adopt_genesis(now, &genesis, &mut effects);
            node.core = Some(core);
            (node.run, node.wake) = (node.run + 1, u64::MAX);
            self.carry_out(at, effects);
            self.arm(at);
        }
    }

    /// An election begins at this node at once.
    pub fn campaign(&mut self, at: usize) {
        let now = self.local(at);
        let mut effects = Vec::new();
        self.nodes[at].core.as_mut().expect("the node is up").campaign_now(now, &mut effects);
        self.carry_out(at, effects);
        self.arm(at);
    }

    /// Gives a core an input; nothing happens if the node is down.
    pub fn step(&mut self, at: usize, input: Input) {
        let now = self.local(at);
        let Some(core) = self.nodes[at].core.as_mut() else { return };
        let mut effects = Vec::new();
        core.step(now, input, &mut effects);
        self.steps += 1;
        self.carry_out(at, effects);
        self.arm(at);
    }

    /// Proposes a number in the node's own epoch.
    pub fn propose(&mut self, at: usize, value: u64) {
        let epoch = self.core(at).epoch();
        let payload = Bytes::copy_from_slice(&value.to_be_bytes());
        self.step(at, Input::Propose { context: value, epoch, payload });
    }

    /// The leader of the highest epoch.
    pub fn leader(&self) -> Option<usize> {
        let leads = |at: &usize| self.nodes[*at].core.as_ref().is_some_and(|core| core.role() == Role::Leader);
        (0..self.nodes.len()).filter(leads).max_by_key(|at| self.core(*at).epoch())
    }

    /// The core of a node that is up.
    pub fn core(&self, at: usize) -> &Consensus {
        self.nodes[at].core.as_ref().expect("the node is up")
    }

    /// The clock of a node.
    pub fn local(&self, at: usize) -> Nanos {
        let (rate, offset) = self.nodes[at].clock;
        Nanos(offset + (u128::from(self.time) * u128::from(rate) / 1_000_000) as u64)
    }

    /// Puts a message on its way, as if `from` had said it.
    pub fn transmit(&mut self, from: usize, to: usize, message: Message) {
        if self.net.cut.contains(&(from, to)) || self.dice.happens(self.net.loss) {
            return;
        }
        let copies = if self.dice.happens(self.net.twice) { 2 } else { 1 };
        for _ in 0..copies {
            let (least, most) = self.net.delay;
            let most = if self.dice.happens(self.net.slow) { self.net.slow_delay.max(most) } else { most };
            let at = self.time + self.dice.between(least, most);
            self.schedule(at, Happening::Arrival { from, to, message: message.clone() });
        }
    }

    /// Ends all syncs that were due while the disk was stuck.
    pub fn sync(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.is_disk_stuck || node.core.is_none() {
            return;
        }
        let due = node.unsynced.iter().take_while(|(_, due)| *due <= self.time).count();
        self.sync_first(at, due);
    }

    /// So many of the batches that were written first are durable.
    pub fn sync_first(&mut self, at: usize, count: usize) {
        let node = &mut self.nodes[at];
        let mut seq = None;
        for (batch, _) in node.unsynced.drain(..count) {
            node.disk.apply(&batch);
            seq = Some(batch.seq);
        }
        let Some(seq) = seq else { return };
        node.synced_seq = seq;
        let (ready, held) = std::mem::take(&mut node.held).into_iter().partition(|(after, ..)| *after <= seq);
        node.held = held;
        for (_, to, message) in ready {
            self.transmit(at, to, message);
        }
        self.step(at, Input::Persisted { seq });
    }

    /// Makes a disk good again: everything written is synced at once, and later writes within a millisecond.
    pub fn mend_disk(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.is_disk_stuck = false;
        node.sync = (MS / 10, MS);
        node.unsynced.iter_mut().for_each(|(_, due)| *due = self.time);
        self.sync(at);
    }

    /// The image of a snapshot is staged. Cores know nothing of what is in one, so there is nothing in it.
    pub fn stage(&mut self, at: usize, meta: SnapMeta) {
        if self.nodes[at].core.as_ref().is_some_and(Consensus::is_installing) {
            return; // A replica stages nothing before what it has installed.
        }
        self.nodes[at].disk.staged = Some((meta.last, Vec::new()));
        self.step(at, Input::Staged { meta });
    }

    /// A node writes a snapshot of what it has applied, and forgets all but `trailing` of the entries in it.
    pub fn save(&mut self, at: usize, trailing: u64) {
        if let Some(meta) = self.next_image(at) {
            self.note_saved(at, meta, trailing);
        }
    }

    /// The same, and it takes a while.
    pub fn begin_to_save(&mut self, at: usize, trailing: u64) {
        let Some(meta) = self.next_image(at) else { return };
        self.seen.push((at, Seen::Saves(meta.last)));
        let (run, due) = (self.nodes[at].run, self.time + self.dice.between(0, self.save_delay));
        self.schedule(due, Happening::Saved { node: at, run, meta: Box::new(meta), trailing });
    }

    /// What a snapshot of today would stand for, if it is news.
    fn next_image(&self, at: usize) -> Option<SnapMeta> {
        let core = self.nodes[at].core.as_ref().filter(|core| !core.is_installing())?;
        core.snap_meta().filter(|meta| core.snapshot().is_none_or(|held| held.index < meta.last.index))
    }

    /// A snapshot is written, unless another that is newer came in between.
    fn note_saved(&mut self, at: usize, meta: SnapMeta, trailing: u64) {
        let held = self.nodes[at].core.as_ref().map(|core| (core.is_installing(), core.snapshot()));
        let Some((false, held)) = held else { return };
        if held.is_none_or(|held| held.index < meta.last.index) {
            self.nodes[at].disk.snapshot = Some(Snapshot { meta: meta.clone(), chunks: Vec::new() });
            self.step(at, Input::Saved { meta, trailing });
        }
    }

    fn wake(&mut self, at: usize) {
        self.nodes[at].wake = u64::MAX;
        let now = self.local(at);
        match &self.nodes[at].core {
            Some(core) if core.next_deadline() <= now => self.step(at, Input::Tick),
            Some(_) => self.arm(at),
            None => {}
        }
    }

    fn carry_out(&mut self, at: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Persist(batch) => {
                    if self.is_tapped {
                        self.seen.push((at, Seen::Wrote(Box::new(batch.clone()))));
                    }
                    self.write(at, batch);
                }
                Effect::Send { to, message, after } if self.is_tapped => {
                    let waits = after.is_some_and(|seq| seq > self.nodes[at].synced_seq);
                    self.seen.push((at, Seen::Sent { to, message, waits }));
                }
                Effect::Send { to, message, after } => {
                    let to = (to.0 - 1) as usize;
                    if matches!(message, Message::TimeoutNow { .. }) {
                        self.seen.push((at, Seen::Urged(to, self.core(at).last())));
                    }
                    match after.filter(|seq| *seq > self.nodes[at].synced_seq) {
                        Some(seq) => self.nodes[at].held.push((seq, to, message)),
                        None => self.transmit(at, to, message),
                    }
                }
                Effect::Apply { from, to } => {
                    let entries = self.core(at).entries(from..=to).to_vec();
                    self.nodes[at].applied.extend(entries.iter().cloned());
                    self.seen.push((at, Seen::Applied(entries)));
                }
                Effect::Fetch { from, meta } => {
                    if self.is_tapped {
                        self.seen.push((at, Seen::Fetches(from, meta.last)));
                        continue;
                    }
                    let (run, due) = (self.nodes[at].run, self.time + self.dice.between(MS, self.fetch_delay));
                    self.schedule(due, Happening::Staged { node: at, run, meta: Box::new(meta) });
                }
                Effect::Installed { meta } => {
                    self.nodes[at].applied.clear();
                    self.seen.push((at, Seen::Installed(meta.last)));
                }
                Effect::ReadReady { context, index } => self.seen.push((at, Seen::ReadReady(context, index))),
                Effect::Accepted { context, id } => self.seen.push((at, Seen::Accepted(context, id))),
                Effect::Dropped { context, why } => self.seen.push((at, Seen::Dropped(context, why))),
                Effect::Role { role, epoch, leader } => self.seen.push((at, Seen::Role(role, epoch, leader))),
                Effect::Authority(authority) => {
                    self.nodes[at].authority = authority;
                    self.seen.push((at, Seen::Authority(authority)));
                }
                Effect::Surrender { epoch, why, .. } => {
                    self.seen.push((at, Seen::Surrender(epoch, why)));
                    let (least, most) = self.surrender;
                    let (run, due) = (self.nodes[at].run, self.time + self.dice.between(least, most));
                    self.schedule(due, Happening::Surrendered { node: at, run, epoch });
                }
                Effect::Resume { epoch } => self.seen.push((at, Seen::Resume(epoch))),
                Effect::Fatal(why) => {
                    self.nodes[at].fatal = Some(why.clone());
                    self.seen.push((at, Seen::Fatal(why)));
                }
            }
        }
    }

    fn write(&mut self, at: usize, batch: Persist) {
        let (least, most) = self.nodes[at].sync;
        let span = self.dice.between(least, most);
        let node = &mut self.nodes[at];
        let (running, gathering) = (node.unsynced.front(), node.unsynced.back());
        let due = match (running, gathering) {
            // Group commit: what comes while one sync runs goes into the next one, together.
            (Some((_, running)), Some((_, gathering))) if gathering > running => *gathering,
            (Some((_, running)), _) => (*running).max(self.time) + span,
            _ => self.time + span,
        };
        node.unsynced.push_back((batch, due));
        let run = node.run;
        self.schedule(due, Happening::Synced { node: at, run });
    }

    /// Wakes a core at its next deadline.
    fn arm(&mut self, at: usize) {
        let Some(core) = &self.nodes[at].core else { return };
        let deadline = core.next_deadline();
        if deadline == Nanos::NEVER {
            return;
        }
        let node = &self.nodes[at];
        let (rate, offset) = node.clock;
        let ahead = u128::from(deadline.0.saturating_sub(offset));
        let due = ((ahead * 1_000_000).div_ceil(u128::from(rate)) as u64).max(self.time + 1);
        if due < node.wake {
            let run = node.run;
            self.nodes[at].wake = due;
            self.schedule(due, Happening::Wake { node: at, run });
        }
    }

    fn schedule(&mut self, at: u64, what: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Scheduled { at, order: self.order, what }));
    }
}

impl Node {
    fn founded(voters: &[NodeId], at: usize, profile: Profile, seed: u64) -> Self {
        let mut disk = Durable::fresh(NodeId(at as u64 + 1), Incarnation(0));
        let genesis = Genesis { cluster: ClusterId(7), ballot: Default::default(), voters: voters.to_vec(), target: 3 };
        disk.apply(&Persist { genesis: Some(genesis), ..Persist::default() });
        Self {
            core: None,
            disk,
            unsynced: VecDeque::new(),
            held: Vec::new(),
            applied: Vec::new(),
            authority: None,
            fatal: None,
            is_retired: false,
            sync: (MS / 5, MS / 5),
            is_disk_stuck: false,
            paused_until: 0,
            clock: (1_000_000, 0),
            profile,
            seed,
            run: 0,
            wake: u64::MAX,
            synced_seq: 0,
        }
    }

    /// Whether it has given a vote that is not on its disk.
    pub fn owes_vote(&self) -> bool {
        self.unsynced.iter().any(|(batch, _)| batch.hard_state.is_some_and(|hard| hard.vote.is_some()))
    }

    /// Its log is gone, and what it wrote last with it; its epoch and vote stay.
    fn retire(&mut self) {
        self.is_retired = true;
        self.disk.entries.clear();
        self.disk.commit_hint = self.disk.base.index;
    }
}
