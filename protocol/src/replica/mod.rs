//! The replica: consensus, founding, and the state that the log means, applied in the same step.
//!
//! Requests of clients and decisions of the master become commands; commands are gathered into one entry while the store is
//! busy with the one before, so that a slow disk makes larger batches and not a longer queue. An answer leaves when its entry
//! is applied.
//!
//! # Invariants
//!
//! * An answer to a write says what the log decided: it leaves only after the entry at its place was applied with its epoch.
//!   Another epoch there means "certainly not done", the end of leadership before that means "maybe" (F30).
//! * A decision of the master enters the log only in the epoch in which it was made (F7).
//! * State and applied index change together: nobody sees one without the other.

mod batch;
mod coming;
mod exchange;
mod growth;
mod history;
mod images;
mod input;
mod log;
mod mastership;
mod policy;
mod requests;
mod serving;
mod staff;
mod waiting;
mod watches;

pub(crate) use self::batch::WAITING_MAX;
pub use growth::REPLACE_AFTER;
pub use input::{Fetching, Input, Status};

use std::collections::BTreeMap;
use std::time::Duration;

use crate::client::Origin;
use crate::consensus::{self, Consensus};
use crate::durable::{Durable, GENESIS, Genesis};
use crate::effects::{Effects, Event, Local, Outgoing, Part, Role};
use crate::founding::{self, Founding};
use crate::master;
use crate::mutants::{Bug, is_on};
use crate::profile::Profile;
use crate::state::{Answer, State};
use crate::types::{ClusterId, Epoch, Index, Nanos, NodeId};

use batch::{Batch, Placed, Proposed, Waiter};
use coming::Coming;
use exchange::Exchange;
use growth::Herald;
use history::History;
use requests::{Forwarded, Question};
use serving::Serving;
use staff::{Acquaintance, Staff};
use waiting::Waiting;

/// How a replica was told to begin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// The timers.
    pub profile: Profile,
    /// The cluster's name.
    pub name: String,
    /// The join list, in order.
    pub join: Vec<String>,
    /// The wish for voters.
    pub voters: Option<u8>,
    /// Seeds the random time-outs: different in every run.
    pub seed: u64,
    /// The identity to give a cluster that this node founds: random, different in every run.
    pub cluster: ClusterId,
    /// How long a voter may be silent before the leader has it replaced.
    pub replace_after: Duration,
    /// Whether this node remembers nothing over a restart.
    pub is_forgetful: bool,
    /// When a snapshot is written and how much of the log it leaves.
    pub compaction: Compaction,
}

/// When a snapshot is written: whichever comes first. Log and disk stay bounded under endless load. While a snapshot is more than
/// [`REWRITTEN`](Compaction::REWRITTEN) times as large as `bytes`, both thresholds grow with it, so that a large state is not written
/// again and again; and while another
/// node fetches a snapshot of ours, they are eight times as high, and at least the standard ones. The log then waits for that
/// node, at most until the second snapshot after the one that it fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Compaction {
    /// After this many entries.
    pub entries: u64,
    /// After this many bytes of commands.
    pub bytes: u64,
    /// This many entries stay in the log behind a snapshot, but no more than half of `bytes`: a follower that lacks no more needs
    /// no image.
    pub trailing: u64,
}

impl Compaction {
    /// How many bytes of images may be written for one of the log. The log is held in memory, decoded, an image is not: the more
    /// is written, the smaller is a node under load.
    pub const REWRITTEN: u64 = 4;

    /// The same with a snapshot after so many entries, of which at most half stay in the log behind it.
    #[must_use]
    pub fn every(entries: u64) -> Self {
        let standard = Self::default();
        Self { entries, trailing: standard.trailing.min(entries / 2), ..standard }
    }

    /// The thresholds where a snapshot takes so many bytes.
    fn for_image(self, bytes: u64) -> Self {
        let times = (bytes / self.bytes.saturating_mul(Self::REWRITTEN).max(1)).max(1);
        Self { entries: self.entries.saturating_mul(times), bytes: self.bytes.saturating_mul(times), ..self }
    }

    /// The thresholds while somebody fetches the snapshot that there is: a newer one can wait a while.
    fn while_served(self) -> Self {
        let standard = Self::default();
        let entries = self.entries.saturating_mul(8).max(standard.entries);
        let bytes = self.bytes.saturating_mul(8).max(standard.bytes);
        Self { entries, bytes, ..self }
    }
}

impl Default for Compaction {
    fn default() -> Self {
        Self { entries: 10_000, bytes: 4 * 1024 * 1024, trailing: 1024 }
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    node: NodeId,
    profile: Profile,
    consensus: Consensus,
    founding: Founding,
    state: State,
    /// Commands that wait for their entry.
    batch: Batch,
    /// Tasks among them that the master may grant in the same entry.
    coming: Coming,
    /// Batches handed to consensus in this step, by context, until it says where they stand.
    proposed: BTreeMap<u64, Proposed>,
    /// Who waits for the entry at this place, and the epoch it must have.
    placed: BTreeMap<Index, (Epoch, Vec<Placed>)>,
    /// Reads that consensus has not confirmed yet.
    reads: BTreeMap<u64, Question>,
    /// Questions whose answer is still to come.
    waiting: Waiting,
    /// What happened to keys lately.
    history: History,
    /// Requests sent on to the leader.
    forwarded: BTreeMap<Origin, Forwarded>,
    next_context: u64,
    /// The epoch in which this node's master works.
    mastering: Option<Epoch>,
    /// The last leader that was published.
    leader: Option<NodeId>,
    /// The master that told a node without a place in the log that it leads.
    herald: Option<Herald>,
    /// Since when masters say that this node is removed, and nothing else, and when one said so last.
    removed_since: Option<(Nanos, Nanos)>,
    staff: Staff,
    /// When those who hold no log are told again who leads.
    leads_at: Nanos,
    /// What was published of this node's place in the log.
    told_part: Part,
    /// The batch of the last founding promise or acceptance.
    promised_seq: u64,
    /// An entry could not be read: nothing more is done here.
    is_broken: bool,
    /// The time of the current step.
    now: Nanos,
    /// When places that were given up are looked for; never while nobody waits.
    sweep_at: Nanos,
    /// A genesis that nobody is told of before this batch is durable.
    accepted: Option<(u64, Genesis)>,
    /// Images of the state on their way to our store and from others.
    exchange: Exchange,
    /// And on their way to others.
    serving: Serving,
    compaction: Compaction,
    /// Why our own snapshot cannot be read, until that is told.
    unreadable: Option<String>,
    /// Consensus effects of the current step; kept for its capacity.
    scratch: Vec<consensus::Effect>,
}

impl Replica {
    /// Continues from what the node remembers.
    #[must_use]
    pub fn new(config: Config, mut durable: Durable, now: Nanos) -> Self {
        let staff = Staff::new(&config);
        let founding = Founding::new(
            founding::Config {
                node: config.node,
                name: config.name,
                voters: founding::voters_wanted(config.join.len(), config.voters),
                list: config.join,
                cluster: config.cluster,
                retry: config.profile.election_timeout / 2,
            },
            &durable,
            now,
        );
        let settings = consensus::Config { node: config.node, profile: config.profile, seed: config.seed };
        let mut state = State::default();
        if let Some(genesis) = founding.genesis() {
            state.found(&genesis.voters, genesis.target);
        }
        let mut unreadable = None;
        if let Some(snapshot) = &mut durable.snapshot {
            match images::restored(&std::mem::take(&mut snapshot.chunks)) {
                Ok(restored) => state = restored,
                Err(why) => unreadable = Some(format!("the snapshot of {} cannot be read: {why}", snapshot.meta.last)),
            }
        }
        let history = History::from(state.revision());
        Self {
            node: config.node,
            profile: config.profile,
            consensus: Consensus::new(settings, durable, now),
            founding,
            state,
            batch: Batch::default(),
            coming: Coming::default(),
            proposed: BTreeMap::new(),
            placed: BTreeMap::new(),
            reads: BTreeMap::new(),
            waiting: Waiting::default(),
            history,
            forwarded: BTreeMap::new(),
            next_context: 0,
            mastering: None,
            leader: None,
            herald: None,
            removed_since: None,
            staff,
            leads_at: Nanos(0),
            told_part: Part::Outside,
            promised_seq: 0,
            is_broken: false,
            now,
            sweep_at: Nanos::NEVER,
            accepted: None,
            exchange: Exchange::new(config.profile.election_timeout),
            serving: Serving::new(config.profile.election_timeout * 4),
            compaction: config.compaction,
            unreadable,
            scratch: Vec::new(),
        }
    }

    /// Handles one input. Whatever must follow from it is added to `effects`.
    pub fn step(&mut self, now: Nanos, input: Input, effects: &mut Effects) {
        if self.is_broken {
            return;
        }
        if let Some(why) = self.unreadable.take() {
            self.is_broken = true;
            effects.publish.push(Event::Fatal(why));
            return;
        }
        self.now = now;
        self.coming.expire(now);
        match input {
            Input::Tick => self.tick(now, effects),
            Input::Consensus { from, message } => {
                self.core(now, consensus::Input::Message { from, message }, effects);
            }
            Input::Founding { from, message: founding::Message::Leads { epoch } } => {
                self.on_master_heard(now, from, epoch, effects);
            }
            Input::Founding { message: founding::Message::Removed, .. } => self.on_removed(now, effects),
            Input::Founding { from, message } => {
                self.found(now, effects, |founding, out| founding.message(now, from, message, out));
            }
            Input::Resolved { place, node } => {
                let leads = self.consensus.role() == Role::Leader;
                self.found(now, effects, |founding, out| {
                    founding.resolved(now, place, node);
                    founding.tick(now, leads, out);
                });
            }
            Input::Image { from, message } => self.on_image(now, from, message, effects),
            Input::ImageDone(done) => self.on_image_done(now, done, effects),
            Input::ClusterExists => self.founding.cluster_exists(),
            Input::FoundWithout { places } => {
                let leads = self.consensus.role() == Role::Leader;
                self.found(now, effects, |founding, out| {
                    founding.found_without(now, &places, out);
                    founding.tick(now, leads, out);
                });
            }
            Input::Request { from, request } => self.on_request(now, from, request, effects),
            Input::Response(response) => self.on_response(response, effects),
            Input::Propose { epoch, commands } => self.on_propose(epoch, commands, effects),
            Input::Configure { epoch, target } => {
                let context = self.context();
                self.core(now, consensus::Input::ProposeConf { context, epoch, target }, effects);
            }
            Input::Transfer { to } => self.on_transfer(now, to, effects),
            Input::Leave => self.consensus.leave(),
            Input::Surrendered { epoch } => self.core(now, consensus::Input::Surrendered { epoch }, effects),
            Input::Placed { epoch, commands } => {
                self.coming.on_answer();
                self.on_propose(epoch, commands, effects);
            }
            Input::Persisted { seq } => self.on_persisted(now, seq, effects),
            Input::StorageFailed { why } => self.core(now, consensus::Input::StorageFailed { why }, effects),
            Input::Evidence { node, incarnation } => {
                self.core(now, consensus::Input::Evidence { node, incarnation }, effects);
            }
            Input::LinkUp { node } => {
                self.staff.link_up(node);
                self.say_leads(Some(node), effects);
                self.founding.link_up(now, node);
                self.exchange.link_up(now, node, effects);
            }
            Input::LinkDown { node } => self.on_link_down(now, node, effects),
            Input::Member { node, address, is_alive, is_forgetful } => {
                self.staff.note_member(node, Acquaintance { address, is_alive, is_forgetful });
            }
            Input::Suspected { node } => self.core(now, consensus::Input::Suspected { node }, effects),
        }
        self.install(now, effects);
        self.propose_batch(now, effects);
        self.consensus.want_commits(self.waiting.wants_commits());
        self.tell_part(effects);
        self.save(now, effects);
    }

    /// When [`Input::Tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Nanos {
        self.consensus
            .next_deadline()
            .min(self.founding.next_deadline())
            .min(self.sweep_at)
            .min(self.coming.deadline())
            .min(self.exchange.next_deadline())
            .min(self.serving.next_deadline())
    }

    /// What this node knows of the cluster.
    #[must_use]
    pub fn status(&self, now: Nanos) -> Status {
        let conf = self.consensus.conf().filter(|_| self.part() != Part::Outside);
        Status {
            cluster: self.founding.genesis().map_or(ClusterId::NONE, |genesis| genesis.cluster),
            role: self.consensus.role(),
            epoch: self.leader_epoch(),
            leader: self.leader(),
            master_fresh: self.is_master_fresh(now),
            lease_ms: self
                .consensus
                .lease_until(now)
                .map_or(0, |until| u64::try_from(until.since(now).as_millis()).unwrap_or(u64::MAX)),
            commit: self.consensus.commit().0,
            applied: self.consensus.applied().0,
            state_hash: self.state.digest(),
            revision: self.state.revision().0,
            part: self.part(),
            voters: conf.map_or_else(Vec::new, |conf| conf.voters.clone()),
            learners: conf.map_or_else(Vec::new, |conf| conf.learners.clone()),
            heard: self.consensus.heard(now),
            log_base: self.consensus.base().index.0,
            snapshot: self.consensus.snapshot().map_or(0, |last| last.index.0),
            fetching: self.exchange.fetching(),
            waits_for: if self.has_begun() { None } else { self.founding.waits_for() },
        }
    }

    /// Whether this node has seen anything of a cluster at work, in this life or in an earlier one.
    fn has_begun(&self) -> bool {
        self.leader().is_some() || self.consensus.last().index > GENESIS.index
    }

    /// The core, for those who check it.
    #[must_use]
    pub fn consensus(&self) -> &Consensus {
        &self.consensus
    }

    /// The state as far as it is applied, for those who check it.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The genesis this node has accepted, for those who check it.
    #[must_use]
    pub fn founding(&self) -> &Founding {
        &self.founding
    }

    fn tick(&mut self, now: Nanos, effects: &mut Effects) {
        if now >= self.sweep_at {
            self.sweep(effects);
        }
        self.exchange.tick(now, effects);
        self.serving.tick(now, effects);
        self.core(now, consensus::Input::Tick, effects);
        self.tend_staff(now, effects);
        self.say_leads_again(now, effects);
        let leads = self.consensus.role() == Role::Leader;
        self.found(now, effects, |founding, out| founding.tick(now, leads, out));
    }

    fn on_persisted(&mut self, now: Nanos, seq: u64, effects: &mut Effects) {
        if let Some((_, genesis)) = self.accepted.take_if(|(accepted, _)| *accepted <= seq) {
            effects.publish.push(Event::Founded(genesis));
        }
        self.core(now, consensus::Input::Persisted { seq }, effects);
    }

    fn on_link_down(&mut self, now: Nanos, node: NodeId, effects: &mut Effects) {
        self.waiting.forget(node);
        self.founding.link_down(node);
        self.staff.link_down(node);
        self.forget_herald(node);
        self.give_back_forwarded(|forwarded| forwarded.to == node, effects);
        self.core(now, consensus::Input::Unreachable { node }, effects);
    }

    /// One step of the core, and all that follows from it.
    fn core(&mut self, now: Nanos, input: consensus::Input, effects: &mut Effects) {
        let mut out = std::mem::take(&mut self.scratch);
        self.consensus.step(now, input, &mut out);
        self.carry_out(&mut out, effects);
        self.scratch = out;
    }

    /// One step of founding, and all that follows from it.
    fn found(
        &mut self,
        now: Nanos,
        effects: &mut Effects,
        step: impl FnOnce(&mut Founding, &mut Vec<founding::Effect>),
    ) {
        let mut out = Vec::new();
        step(&mut self.founding, &mut out);
        let mut core = std::mem::take(&mut self.scratch);
        for effect in out {
            match effect {
                founding::Effect::Promise(ballot) => {
                    self.promised_seq = self.consensus.persist(now, &mut core, |batch| batch.promised = Some(ballot));
                }
                founding::Effect::Accept(genesis) => {
                    if let Some(seq) = self.consensus.adopt_genesis(now, &genesis, &mut core) {
                        self.state.found(&genesis.voters, genesis.target);
                        self.promised_seq = seq;
                        self.accepted = Some((seq, genesis));
                    }
                }
                founding::Effect::Send(to, message) => {
                    let after = Some(self.promised_seq);
                    effects.send.push(Outgoing { to, body: message.into(), after });
                }
                founding::Effect::Campaign => self.consensus.campaign_now(now, &mut core),
                founding::Effect::Note(line) => effects.note(line),
                founding::Effect::Fatal(why) => effects.publish.push(Event::Fatal(why)),
            }
        }
        self.carry_out(&mut core, effects);
        self.scratch = core;
    }

    fn carry_out(&mut self, out: &mut Vec<consensus::Effect>, effects: &mut Effects) {
        for effect in out.drain(..) {
            match effect {
                consensus::Effect::Persist(batch) => effects.persist.push(batch),
                consensus::Effect::Send { to, message, after } => {
                    effects.send.push(Outgoing { to, body: message.into(), after });
                }
                consensus::Effect::Apply { from, to } => self.apply(from..=to, effects),
                consensus::Effect::Fetch { from, meta } => self.exchange.named(self.now, from, meta, effects),
                consensus::Effect::Installed { meta } => self.installed(&meta, effects),
                consensus::Effect::ReadReady { context, .. } => {
                    if let Some(Question { waiter, query }) = self.reads.remove(&context) {
                        self.answer(waiter, &query, effects);
                    }
                }
                consensus::Effect::Accepted { context, id } => {
                    if let Some(Proposed { mut waiters, .. }) = self.proposed.remove(&context) {
                        if is_on(Bug::AnswersEarly) {
                            for Placed { waiter, .. } in waiters.drain(..) {
                                self.respond(waiter, Ok(Answer::Written(self.state.revision().next())), effects);
                            }
                        }
                        self.placed.insert(id.index, (id.epoch, waiters));
                    }
                }
                consensus::Effect::Dropped { context, why } => self.on_dropped(context, why, effects),
                consensus::Effect::Role { role, epoch, leader } => self.on_role(role, epoch, leader, effects),
                consensus::Effect::Authority(authority) => effects.publish.push(Event::Authority(authority)),
                consensus::Effect::Surrender { epoch, heir, why } => {
                    effects.note(format!("hands mastership over to {heir}: {why}"));
                    self.surrender(epoch, effects);
                }
                consensus::Effect::Resume { epoch } => {
                    effects.note(format!("mastership was not handed over: going on in epoch {epoch}"));
                    self.resume(effects);
                }
                consensus::Effect::Fatal(why) => effects.publish.push(Event::Fatal(why)),
            }
        }
    }

    fn on_role(&mut self, role: Role, epoch: Epoch, leader: Option<NodeId>, effects: &mut Effects) {
        effects.publish.push(Event::Role { role, epoch, leader });
        if self.mastering.is_some_and(|mastered| role != Role::Leader || mastered != epoch) {
            let epoch = self.mastering.take().expect("checked above");
            self.coming.clear();
            effects.local.push(Local::Master(master::Input::End { epoch }));
        }
        if role == Role::Leader {
            self.founding.lead(self.now);
            self.staff.begin();
        } else {
            self.stop_leading(effects);
        }
        if leader != self.leader {
            self.leader = leader;
            self.give_back_forwarded(|forwarded| Some(forwarded.to) != leader, effects);
        }
    }

    fn context(&mut self) -> u64 {
        self.next_context += 1;
        self.next_context
    }
}
#[cfg(test)]
mod tests;
