//! One leader per epoch, one log on a quorum.
//!
//! This is Raft in the shape that etcd gave it: pre-vote, check-quorum, a lease acknowledged by a quorum, quorum arithmetic
//! for joint configurations, learners. It is told what happened and what time it is ([`Input`]) and answers with what must follow
//! ([`Effect`]); it never reads a clock, draws its randomness from a seeded state of its own, and can be cloned, compared
//! and hashed, so that a simulator and a model checker can drive it.
//!
//! # Invariants
//!
//! * At most one node is elected in any epoch; a vote is durable before it is sent.
//! * A committed entry is on the disks of a quorum, and every later leader has it.
//! * Only what is committed **and** on our own disk is applied, on the leader too.
//! * At most one lease is valid at any time, as long as clocks drift less than the bound. No write rests on that.
//! * `now` strictly grows from input to input, so a message sent before a read can never confirm it (F24).
//!
//! # Where things are
//!
//! `election` decides who leads, `follower` and `leader` move the log, `snapshot` forgets the beginning of it and installs
//! another's, `lease` confirms reads and `ask` those of followers, `change` moves the voters, `transfer` hands leadership
//! over, `health` says when to, `disk` numbers what must be durable, `log`, `progress` and `quorum` are plain data.

mod ask;
mod change;
mod disk;
mod election;
mod follower;
mod health;
mod input;
mod leader;
mod lease;
mod log;
mod message;
#[cfg(feature = "mutants")]
mod mutants;
#[cfg(test)]
mod oracle;
mod progress;
mod quorum;
mod snapshot;
mod transfer;

use std::collections::VecDeque;

pub use change::{Follower, Refusal, Target};
pub(crate) use election::EPOCH_MAX;
pub use input::{Drop, Effect, HandOverCause, Input, ReadMode, Symptom};
pub use message::{Append, AppendReply, Message, Snapshot, SnapshotReply, Verdict};
#[cfg(feature = "mutants")]
pub use mutants::Bug;

use crate::durable::{ConfState, Durable, Entry, GENESIS, Genesis, HardState, Payload, SnapMeta};
use crate::effects::{Authority, Role};
use crate::profile::Profile;
use crate::types::{ClusterTime, Epoch, Index, LogId, Nanos, NodeId};

use ask::Asks;
use disk::Pending;
use health::Health;
use lease::PendingRead;
use log::Log;
use progress::Progress;
use snapshot::Installing;
use transfer::Transfer;

/// What a core is built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Who we are.
    pub node: NodeId,
    /// The timers.
    pub profile: Profile,
    /// Where its randomness starts. Equal seeds and inputs give equal outputs.
    pub seed: u64,
}

/// The consensus core of one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Consensus {
    node: NodeId,
    profile: Profile,
    random: u64,
    now: Nanos,

    // What is durable, or will be when its batch is.
    hard: HardState,
    log: Log,
    /// The configurations of the log with the places where they begin; the last one is in force (C1). Empty before the
    /// genesis.
    confs: Vec<(Index, ConfState)>,
    seq: u64,
    durable_seq: u64,
    /// The last batch that changed epoch or vote.
    hard_seq: u64,
    pending: VecDeque<Pending>,
    /// Where this step's batch stands in the caller's effects; `None` between steps.
    open: Option<usize>,
    hinted: Index,

    commit: LogId,
    applied: Index,
    /// Our durable snapshot.
    snapshot: Option<SnapMeta>,
    /// A snapshot whose install is on its way to the disk.
    installing: Option<Installing>,
    /// Who named its snapshot last, in which epoch, and when by its clock.
    fetching: Option<(NodeId, Epoch, Nanos)>,

    role: Role,
    leader: Option<NodeId>,
    /// When this node started with a log, and so may have promised something that it does not remember.
    boot: Option<Nanos>,
    /// When the last append of a leader of our epoch was handled, and whose it was.
    contact: Option<(Nanos, NodeId)>,
    /// Evidence of death of that leader waives our stickiness beyond the promise, until the next append (F4).
    waived: bool,
    /// When an election begins here unless a leader is heard.
    deadline: Nanos,
    /// A leader says that we have no place in the configuration that begins here (C6).
    excluded_at: Index,
    votes: Vec<(NodeId, bool)>,

    /// Reads that the leader is asked about.
    asks: Asks,
    /// Somebody here waits for what is committed.
    is_eager: bool,

    // Only on a leader.
    elected_at: Nanos,
    time_base: ClusterTime,
    noop: Index,
    peers: Vec<Progress>,
    heartbeat_due: Nanos,
    /// When followers hear of a commit index that no append has told them.
    tell_at: Nanos,
    uncommitted: usize,
    health: Health,
    transfer: Option<Transfer>,
    /// This node is about to stop.
    is_leaving: bool,
    /// The heir that did not take over when it was asked last, and in which epoch.
    unwilling: Option<(Epoch, NodeId)>,
    /// A hand-over was begun in this epoch, so its lease is over (L4).
    is_lease_off: bool,
    /// The master of this epoch was asked to stop and has not answered.
    owes_surrender: bool,
    /// Who left with the configuration that begins here was told so.
    told_leavers: Index,
    reads: VecDeque<PendingRead>,
    /// When the last round of heartbeats for reads began.
    read_round: Nanos,

    told_role: (Role, Epoch, Option<NodeId>),
    told_authority: Option<Authority>,
    #[cfg(feature = "mutants")]
    bug: Option<Bug>,
}

impl Consensus {
    /// A core that remembers what `durable` holds.
    #[must_use]
    pub fn new(config: Config, durable: Durable, now: Nanos) -> Self {
        let Durable { genesis, hard_state, snapshot, base, entries, commit_hint, .. } = durable;
        let snapshot = snapshot.map(|snapshot| snapshot.meta);
        let covered = snapshot.as_ref().map_or(base, |meta| meta.last);
        let log = Log::after(base, snapshot.as_ref().map_or(ClusterTime(0), |meta| meta.time), entries);
        let mut confs = Vec::new();
        // F16: that of the snapshot, and those that begin after it.
        if let Some(meta) = &snapshot {
            confs.push((meta.last.index, meta.conf.clone()));
        } else if let Some(genesis) = &genesis {
            confs.push((base.index, ConfState { voters: genesis.voters.clone(), ..ConfState::default() }));
        }
        for entry in log.from(covered.index.next()) {
            if let Payload::Config(conf) = &entry.payload {
                confs.push((entry.id.index, conf.clone()));
            }
        }
        let commit = commit_hint.clamp(covered.index, log.last().index);
        let mut core = Self {
            node: config.node,
            profile: config.profile,
            random: config.seed,
            now,
            hard: hard_state,
            commit: log.id_at(commit).expect("the commit hint was clamped to the log"),
            log,
            confs,
            seq: 0,
            durable_seq: 0,
            hard_seq: 0,
            pending: VecDeque::new(),
            open: None,
            hinted: commit,
            applied: covered.index,
            snapshot,
            installing: None,
            fetching: None,
            role: Role::Follower,
            leader: None,
            boot: None,
            contact: None,
            waived: false,
            deadline: now,
            excluded_at: Index(0),
            votes: Vec::new(),
            asks: Asks::default(),
            is_eager: false,
            elected_at: Nanos(0),
            time_base: ClusterTime(0),
            noop: Index(0),
            peers: Vec::new(),
            heartbeat_due: Nanos::NEVER,
            tell_at: Nanos::NEVER,
            uncommitted: 0,
            health: Health::default(),
            transfer: None,
            is_leaving: false,
            unwilling: None,
            is_lease_off: false,
            owes_surrender: false,
            told_leavers: Index(0),
            reads: VecDeque::new(),
            read_round: Nanos(0),
            told_role: (Role::Follower, hard_state.epoch, None),
            told_authority: None,
            #[cfg(feature = "mutants")]
            bug: None,
        };
        if !core.is_alone() {
            core.boot = core.is_founded().then_some(now);
            core.deadline = core.draw_deadline();
        }
        core
    }

    /// Takes the place of an initial voter (F1): the genesis is durable with the batch that this adds, whose number it
    /// answers with. A node that is in a cluster already keeps its own and answers `None`.
    pub fn adopt_genesis(&mut self, now: Nanos, genesis: &Genesis, effects: &mut Vec<Effect>) -> Option<u64> {
        if self.is_founded() || self.role == Role::Halted {
            return None;
        }
        self.begin(now);
        self.batch(effects).genesis = Some(genesis.clone());
        self.hard = HardState { epoch: GENESIS.epoch, vote: None };
        self.hard_seq = self.seq;
        self.log = Log::new(GENESIS, Vec::new());
        self.confs = vec![(GENESIS.index, ConfState { voters: genesis.voters.clone(), ..ConfState::default() })];
        self.commit = GENESIS;
        self.applied = GENESIS.index;
        self.hinted = GENESIS.index;
        self.deadline = self.draw_deadline();
        self.finish(effects);
        Some(self.seq)
    }

    /// Begins an election now instead of at the next deadline, by all the rules: as a founder does, and whoever knows
    /// that nobody can lead yet. Does nothing while this node is in touch with a leader.
    pub fn campaign_now(&mut self, now: Nanos, effects: &mut Vec<Effect>) {
        self.begin(now);
        let is_led = self.leader.is_some() && self.is_sticky();
        if matches!(self.role, Role::Follower | Role::PreCandidate) && !is_led && self.may_campaign() {
            self.pre_campaign(effects);
        }
        self.finish(effects);
    }

    /// Handles one input. Whatever must follow from it is added to `effects`.
    pub fn step(&mut self, now: Nanos, input: Input, effects: &mut Vec<Effect>) {
        self.begin(now);
        self.check_leadership(effects);
        self.check_transfer(effects);
        match input {
            Input::Tick => self.on_tick(effects),
            Input::Message { from, message } => self.on_message(from, message, effects),
            Input::Propose { context, epoch, payload } => self.on_propose(context, epoch, payload, effects),
            Input::ProposeConf { context, epoch, target } => self.on_propose_conf(context, epoch, &target, effects),
            Input::Transfer { context, to } => self.on_transfer(context, to, effects),
            Input::Surrendered { epoch } => self.on_surrendered(epoch, effects),
            Input::Read { context, mode } => self.on_read(context, mode, effects),
            Input::Saved { meta, trailing } => self.on_saved(meta, trailing, effects),
            Input::Staged { meta } => self.on_staged(meta, effects),
            Input::Persisted { seq } => self.on_persisted(seq, effects),
            Input::StorageFailed { why } => self.fail(why, effects),
            Input::Evidence { node, .. } => self.on_evidence(node),
            Input::Unreachable { node } => self.on_unreachable(node),
            Input::Suspected { node } => self.on_suspected(node, effects),
        }
        self.finish(effects);
    }

    /// Says whether somebody here waits for what is committed: if so, the leader tells it at once instead of with the next append
    /// (R9). It hears of this with our next answer.
    pub fn want_commits(&mut self, is_eager: bool) {
        self.is_eager = is_eager;
    }

    /// This node is about to stop: it leads only if nobody else does for long, and is no heir.
    pub fn leave(&mut self) {
        self.is_leaving = true;
    }

    /// When to call [`Consensus::step`] with [`Input::Tick`] if nothing else happens.
    #[must_use]
    pub fn next_deadline(&self) -> Nanos {
        if self.role == Role::Halted || !self.is_founded() {
            return Nanos::NEVER;
        }
        if self.applicable() > self.applied {
            return self.now;
        }
        if self.role != Role::Leader {
            let election = if self.may_campaign() { self.deadline } else { Nanos::NEVER };
            return election.min(self.asks.due(self.profile.heartbeat));
        }
        let shown = self.told_authority.map_or(Nanos::NEVER, |authority| authority.until);
        // Check-quorum fails when more than an election timeout has passed, so a nanosecond later.
        let alone = (self.quorum_contact() + self.profile.election_timeout).next();
        let given_up = self.transfer.as_ref().map_or(Nanos::NEVER, |transfer| transfer.until);
        self.heartbeat_due.min(self.tell_at).min(alone).min(self.stalls_at()).min(shown).min(given_up)
    }

    /// The role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The highest epoch heard of.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.hard.epoch
    }

    /// Who leads, as far as we know.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// How much is known to be committed.
    #[must_use]
    pub fn commit(&self) -> Index {
        self.commit.index
    }

    /// How much the caller was told to apply.
    #[must_use]
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// The end of the log.
    #[must_use]
    pub fn last(&self) -> LogId {
        self.log.last()
    }

    /// The entry before the first one held.
    #[must_use]
    pub fn base(&self) -> LogId {
        self.log.base()
    }

    /// How much of the log is on our own disk.
    #[must_use]
    pub fn durable(&self) -> Index {
        self.log.durable()
    }

    /// Epoch and vote, durable or about to be.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.hard
    }

    /// The entries of a range, both ends included, as far as they are held.
    #[must_use]
    pub fn entries(&self, range: std::ops::RangeInclusive<Index>) -> &[Entry] {
        self.log.range(*range.start(), *range.end())
    }

    /// The configuration in force; `None` before a genesis is accepted.
    #[must_use]
    pub fn conf(&self) -> Option<&ConfState> {
        if broken!(self, ConfiguresLate) {
            return self.confs.iter().rev().find(|(since, _)| *since <= self.commit.index).map(|(_, conf)| conf);
        }
        self.confs.last().map(|(_, conf)| conf)
    }

    /// Whether this node has a place in the newest configuration that it knows of, with or without a vote.
    #[must_use]
    pub fn is_member(&self) -> bool {
        !self.is_dismissed() && self.conf().is_some_and(|conf| quorum::holds(conf, self.node))
    }

    /// Whether a genesis was accepted.
    #[must_use]
    pub fn is_founded(&self) -> bool {
        !self.confs.is_empty()
    }

    /// Begins a step: time strictly grows (F24).
    fn begin(&mut self, now: Nanos) {
        self.now = now.max(Nanos(self.now.0.saturating_add(1)));
        self.open = None;
    }

    /// Ends a step: applies, answers reads, tells what changed, and checks what must be true.
    fn finish(&mut self, effects: &mut Vec<Effect>) {
        let to = self.applicable();
        if to > self.applied {
            effects.push(Effect::Apply { from: self.applied.next(), to });
            self.applied = to;
        }
        if self.role == Role::Leader {
            self.answer_reads(effects);
        }
        self.tend_asks(effects);
        self.tell(effects);
        if self.open.is_some() && self.commit.index > self.hinted {
            self.hinted = self.commit.index;
            self.batch(effects).commit_hint = Some(self.hinted);
        }
        self.open = None;
        self.check();
    }

    /// Tells the role and the lease if they changed. A lease that merely grew is told a few times per heartbeat.
    fn tell(&mut self, effects: &mut Vec<Effect>) {
        let role = (self.role, self.hard.epoch, self.leader);
        if role != self.told_role {
            self.told_role = role;
            effects.push(Effect::Role { role: self.role, epoch: self.hard.epoch, leader: self.leader });
        }
        let lease = self.lease_until(self.now).map(|until| Authority { epoch: self.hard.epoch, until });
        let is_news = match (self.told_authority, lease) {
            (None, None) => false,
            (Some(old), Some(new)) => {
                let grown = new.until.since(old.until);
                old.epoch != new.epoch || old.until <= self.now || grown * 4 >= self.profile.heartbeat
            }
            _ => true,
        };
        if is_news {
            self.told_authority = lease;
            effects.push(Effect::Authority(lease));
        }
    }

    /// What must be true after every step, in release builds too.
    fn check(&self) {
        assert!(
            self.log.epoch_at(self.commit.index) == Some(self.commit.epoch),
            "a committed entry changed or vanished"
        );
        assert!(self.applied <= self.commit.index.min(self.log.durable()), "applied what is not committed and durable");
        assert!(self.log.last().epoch <= self.hard.epoch, "an entry of an epoch that has not begun");
        if self.role == Role::Leader {
            assert!(self.hard.vote == Some(self.node) || self.has_bug_with_votes(), "a leader voted for itself");
            let begins = self.log.epoch_at(self.noop).is_none_or(|epoch| epoch == self.hard.epoch);
            let is_held = self.noop > self.log.base().index && self.noop <= self.log.last().index;
            assert!(begins && (is_held || self.noop <= self.applied), "a leader's epoch begins with its no-op");
        }
    }

    /// How much may be applied (R9a).
    fn applicable(&self) -> Index {
        self.commit.index.min(self.log.durable())
    }

    /// A number below `bound`, from a generator of our own (splitmix64).
    fn draw(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}

#[cfg(not(feature = "mutants"))]
impl Consensus {
    /// Whether votes are broken on purpose; never in a product.
    #[inline]
    fn has_bug_with_votes(&self) -> bool {
        false
    }
}

/// Says whether the core is broken on purpose in this way: always `false` unless the feature `mutants` is on.
macro_rules! broken {
    ($core:expr, $bug:ident) => {{
        #[cfg(feature = "mutants")]
        {
            $core.has_bug(crate::consensus::Bug::$bug)
        }
        #[cfg(not(feature = "mutants"))]
        {
            false
        }
    }};
}
use broken;
