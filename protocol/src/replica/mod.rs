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
mod input;
mod policy;
mod staff;

pub use growth::REPLACE_AFTER;
pub use input::{Fetching, Input, Status};

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;

use crate::client::{Consistency, Denied, Origin, Request, RequestBody, Response};
use crate::consensus::{self, Consensus, ReadMode};
use crate::durable::{Durable, Genesis, Payload, SnapMeta};
use crate::effects::{Effects, Event, Local, Outgoing, Part, Role};
use crate::founding::{self, Founding};
use crate::mutants::{Bug, is_on};
use crate::profile::Profile;
use crate::state::{Answer, ClusterChange, Command, ImageError, Operation, Query, Refused, Restore, State};
use crate::types::{ClusterId, Epoch, Index, Nanos, NodeId, TaskId};
use crate::{image, master, wire};

use batch::{Batch, Placed, Waiter};
use coming::Coming;
use exchange::Exchange;
use growth::Herald;
use staff::Staff;

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
    /// When a snapshot is written and how much of the log it leaves.
    pub compaction: Compaction,
}

/// When a snapshot is written: whichever comes first. Log and disk stay bounded under endless load. While half of the state is
/// larger than `bytes`, both thresholds grow with it, so that a large state is not written again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Compaction {
    /// After this many entries.
    pub entries: u64,
    /// After this many bytes of commands.
    pub bytes: u64,
    /// This many entries stay in the log behind a snapshot: a follower that lacks no more needs no image.
    pub trailing: u64,
}

impl Compaction {
    /// The same with a snapshot after so many entries, of which at most half stay in the log behind it.
    #[must_use]
    pub fn every(entries: u64) -> Self {
        let standard = Self::default();
        Self { entries, trailing: standard.trailing.min(entries / 2), ..standard }
    }

    /// The thresholds for a state of so many bytes.
    fn for_state(self, bytes: u64) -> Self {
        let times = (bytes / 2 / self.bytes.max(1)).max(1);
        Self { entries: self.entries.saturating_mul(times), bytes: self.bytes.saturating_mul(times), ..self }
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
    proposed: BTreeMap<u64, Vec<Placed>>,
    /// Who waits for the entry at this place, and the epoch it must have.
    placed: BTreeMap<Index, (Epoch, Vec<Placed>)>,
    /// Reads that consensus has not confirmed yet.
    reads: BTreeMap<u64, Question>,
    /// Who waits for the end of a task.
    awaiting: BTreeMap<(TaskId, Origin), Awaiting>,
    /// Requests sent on to the leader.
    forwarded: BTreeMap<Origin, Forwarded>,
    next_context: u64,
    /// The epoch in which this node's master works.
    mastering: Option<Epoch>,
    /// The last leader that was published.
    leader: Option<NodeId>,
    /// The master that told a node without a place in the log that it leads.
    herald: Option<Herald>,
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
    /// Images of the state on their way.
    exchange: Exchange,
    compaction: Compaction,
    /// Why our own snapshot cannot be read, until that is told.
    unreadable: Option<String>,
    /// Consensus effects of the current step; kept for its capacity.
    scratch: Vec<consensus::Effect>,
}

/// A read under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    waiter: Waiter,
    query: Query,
}

/// A request that the leader was asked to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Forwarded {
    /// When its place is given up: whoever still waits has asked again by then.
    until: Nanos,
    /// Who gets the answer, to the last try of it.
    waiter: Waiter,
    /// Who was asked.
    to: NodeId,
}

/// A request that waits for the end of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Awaiting {
    waiter: Waiter,
    /// When its place is given up: whoever still waits has asked again by then.
    until: Nanos,
}

impl Replica {
    /// Continues from what the node remembers.
    #[must_use]
    pub fn new(config: Config, mut durable: Durable, now: Nanos) -> Self {
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
            match restored(&std::mem::take(&mut snapshot.chunks)) {
                Ok(restored) => state = restored,
                Err(why) => unreadable = Some(format!("the snapshot of {} cannot be read: {why}", snapshot.meta.last)),
            }
        }
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
            awaiting: BTreeMap::new(),
            forwarded: BTreeMap::new(),
            next_context: 0,
            mastering: None,
            leader: None,
            herald: None,
            staff: Staff::new(config.node, config.profile, config.replace_after),
            leads_at: Nanos(0),
            told_part: Part::Outside,
            promised_seq: 0,
            is_broken: false,
            now,
            sweep_at: Nanos::NEVER,
            accepted: None,
            exchange: Exchange::new(config.profile.election_timeout),
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
            Input::Founding { message: founding::Message::Removed, .. } => effects.publish.push(Event::Removed),
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
            Input::Member { node, address, is_alive } => self.staff.note_member(node, address, is_alive),
            Input::Suspected { node } => self.core(now, consensus::Input::Suspected { node }, effects),
        }
        self.propose_batch(now, effects);
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
        }
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
            self.sweep();
        }
        self.exchange.tick(now, effects);
        self.core(now, consensus::Input::Tick, effects);
        self.tend_staff(now, effects);
        self.say_leads_again(now, effects);
        let leads = self.consensus.role() == Role::Leader;
        self.found(now, effects, |founding, out| founding.tick(now, leads, out));
    }

    /// Until when somebody's place is held who asks from now on.
    fn hold(&mut self) -> Nanos {
        self.sweep_at = self.sweep_at.min(self.now + HOLD);
        self.now + HOLD
    }

    /// Gives up the places of those who have not asked again: a client that no longer waits tells nobody.
    fn sweep(&mut self) {
        let now = self.now;
        self.forwarded.retain(|_, forwarded| forwarded.until > now);
        self.awaiting.retain(|_, awaiting| awaiting.until > now);
        let is_empty = self.forwarded.is_empty() && self.awaiting.is_empty();
        self.sweep_at = if is_empty { Nanos::NEVER } else { now + HOLD / 2 };
    }

    fn on_persisted(&mut self, now: Nanos, seq: u64, effects: &mut Effects) {
        if let Some((_, genesis)) = self.accepted.take_if(|(accepted, _)| *accepted <= seq) {
            effects.publish.push(Event::Founded(genesis));
        }
        self.core(now, consensus::Input::Persisted { seq }, effects);
    }

    // ---- images ----

    fn on_image(&mut self, now: Nanos, from: NodeId, message: image::Message, effects: &mut Effects) {
        if let image::Message::Want { last, place } = message {
            return self.exchange.wanted(from, last, place, effects);
        }
        if let Err(why) = self.exchange.chunk(now, from, message, effects) {
            effects.note(why);
        }
    }

    fn on_image_done(&mut self, now: Nanos, done: image::Done, effects: &mut Effects) {
        match done {
            image::Done::Saved { last } => {
                if let Some(meta) = self.exchange.saved(last) {
                    let trailing = self.compaction.trailing;
                    self.core(now, consensus::Input::Saved { meta, trailing }, effects);
                }
            }
            image::Done::Read { to, last, place, found } => self.exchange.read(now, to, (last, place), found, effects),
            image::Done::Staged { last, place } => {
                if let Err(why) = self.exchange.staged(now, last, place, effects) {
                    effects.note(why);
                }
            }
        }
        // What is received is installed as soon as our own snapshot, if one is being written, is out of its way.
        if let Some(meta) = self.exchange.ready().filter(|_| !self.consensus.is_installing()).cloned() {
            self.core(now, consensus::Input::Staged { meta }, effects);
            if self.consensus.is_installing() {
                self.exchange.installing();
            } else {
                self.exchange.forget_up_to(self.consensus.commit());
            }
        }
    }

    /// Writes a snapshot when enough has been applied since the last one.
    fn save(&mut self, now: Nanos, effects: &mut Effects) {
        let is_due = self.exchange.should_save(now, self.compaction.for_state(self.state.bytes()));
        if !is_due || self.consensus.is_installing() || self.is_broken {
            return;
        }
        if let Some(meta) = self.consensus.snap_meta() {
            self.exchange.save(meta, &self.state, effects);
        }
    }

    /// The state is another one from here on: whoever waits for something in the part of the log that is jumped over cannot
    /// know what became of it.
    fn installed(&mut self, meta: &SnapMeta, effects: &mut Effects) {
        let Some(state) = self.exchange.install(meta) else {
            self.is_broken = true;
            effects.publish.push(Event::Fatal(format!("the state of {} is installed and not at hand", meta.last)));
            return;
        };
        self.state = state;
        effects.note(format!("the state of {} was taken from a snapshot", meta.last));
        let later = self.placed.split_off(&meta.last.index.next());
        for (_, (_, waiters)) in std::mem::replace(&mut self.placed, later) {
            for Placed { waiter, .. } in waiters {
                self.respond(waiter, Err(Denied::Unknown), effects);
            }
        }
        for ((task, _), Awaiting { waiter, .. }) in std::mem::take(&mut self.awaiting) {
            self.answer(waiter, &Query::Await(task), effects);
        }
    }

    // ---- requests ----

    fn on_request(&mut self, now: Nanos, from: NodeId, request: Request, effects: &mut Effects) {
        let waiter = Waiter { origin: request.origin, from };
        match request.body {
            RequestBody::Read { query, consistency: Consistency::Stale } if !self.is_outside() => {
                self.answer(waiter, &query, effects)
            }
            RequestBody::Read { query, .. } if self.consensus.role() == Role::Leader && is_on(Bug::ReadsBlindly) => {
                self.answer(waiter, &query, effects);
            }
            RequestBody::Read { query, .. } if !request.forwarded && self.reads_here(&query) => {
                self.read(now, waiter, query, effects);
            }
            body if self.consensus.role() == Role::Leader => self.on_leader_request(now, waiter, body, effects),
            body => self.forward(waiter, request.forwarded, body, effects),
        }
    }

    fn on_leader_request(&mut self, now: Nanos, waiter: Waiter, body: RequestBody, effects: &mut Effects) {
        let command = match body {
            RequestBody::Register { ttl } => Command::Register { ttl },
            RequestBody::Renew { session } => Command::Renew { sessions: vec![session] },
            RequestBody::Write { session, seq, first_incomplete, operation } => {
                if let (Operation::Submit(tasks), Some(_)) = (&operation, self.mastering) {
                    self.coming.note(session, seq, tasks);
                }
                Command::Client { session, seq, first_incomplete, operation }
            }
            RequestBody::Read { query: Query::HandOver { to, epoch }, .. } => {
                return self.on_hand_over(now, waiter, to, epoch, effects);
            }
            RequestBody::Read { query, .. } => {
                return self.read(now, waiter, query, effects);
            }
        };
        match self.batch.push(command, Some(waiter)) {
            Ok(()) => {}
            Err(batch::Full::Batch) => self.respond(waiter, Err(Denied::Busy), effects),
            Err(batch::Full::Command { len }) => {
                let limit = wire::MAX_COMMAND as u64;
                self.respond(waiter, Ok(Answer::Refused(Refused::TooLarge { len, limit })), effects);
            }
        }
    }

    /// A linearizable read from our own state, as soon as consensus says that it is recent enough.
    fn read(&mut self, now: Nanos, waiter: Waiter, query: Query, effects: &mut Effects) {
        let context = self.context();
        self.reads.insert(context, Question { waiter, query });
        self.core(now, consensus::Input::Read { context, mode: ReadMode::Lease }, effects);
    }

    /// Whether this node holds the log of a leader that it follows, so that it need not send the whole question on. What only
    /// the leader knows or does is for the leader.
    fn reads_here(&self, query: &Query) -> bool {
        let follows = self.consensus.role() == Role::Follower && self.consensus.leader().is_some();
        let is_for_leader = matches!(query, Query::Roster | Query::HandOver { .. });
        follows && self.consensus.is_member() && !self.is_outside() && !is_for_leader
    }

    /// Asks the leader on the client's behalf, once.
    fn forward(&mut self, waiter: Waiter, was_forwarded: bool, body: RequestBody, effects: &mut Effects) {
        let leader = self.leader().filter(|&leader| leader != self.node && !was_forwarded);
        let Some(to) = leader else {
            self.respond(waiter, Err(Denied::NotMaster), effects);
            return;
        };
        if self.forwarded.len() >= FORWARDED_MAX {
            self.respond(waiter, Err(Denied::Busy), effects);
            return;
        }
        let until = self.hold();
        self.forwarded.insert(waiter.origin.request(), Forwarded { until, waiter, to });
        effects.send(to, Request { origin: waiter.origin, forwarded: true, body });
    }

    fn on_response(&mut self, response: Response, effects: &mut Effects) {
        let key = response.origin.request();
        let Some(forwarded) = self.forwarded.get(&key) else { return };
        // A refusal of an earlier try says nothing of the one that is under way now.
        if response.result.is_err() && response.origin.turn != forwarded.waiter.origin.turn {
            return;
        }
        effects.send(forwarded.waiter.from, response);
        self.forwarded.remove(&key);
    }

    fn on_propose(&mut self, epoch: Epoch, commands: Vec<Command>, effects: &mut Effects) {
        if self.mastering != Some(epoch) {
            effects.local.push(Local::Master(master::Input::Dropped { epoch }));
            return;
        }
        let mut was_dropped = false;
        for command in commands {
            was_dropped |= self.batch.push(command, None).is_err();
        }
        if was_dropped {
            effects.local.push(Local::Master(master::Input::Dropped { epoch }));
        }
    }

    fn on_link_down(&mut self, now: Nanos, node: NodeId, effects: &mut Effects) {
        self.awaiting.retain(|_, awaiting| awaiting.waiter.from != node);
        self.founding.link_down(node);
        self.staff.link_down(node);
        self.forget_herald(node);
        self.give_back_forwarded(|forwarded| forwarded.to == node, effects);
        self.core(now, consensus::Input::Unreachable { node }, effects);
    }

    /// Whoever was to answer these will not: their clients ask again, under the same numbers.
    fn give_back_forwarded(&mut self, is_lost: impl Fn(&Forwarded) -> bool, effects: &mut Effects) {
        let lost: Vec<Waiter> =
            self.forwarded.values().filter(|forwarded| is_lost(forwarded)).map(|forwarded| forwarded.waiter).collect();
        for waiter in lost {
            self.forwarded.remove(&waiter.origin.request());
            self.respond(waiter, Err(Denied::Unknown), effects);
        }
    }

    fn respond(&self, waiter: Waiter, result: Result<Answer, Denied>, effects: &mut Effects) {
        effects.send(waiter.from, Response { origin: waiter.origin, leader: self.leader(), result });
    }

    fn answer(&mut self, waiter: Waiter, query: &Query, effects: &mut Effects) {
        let answer = match self.state.query(query) {
            Answer::Roster(view) => return self.answer_roster(waiter, *view, effects),
            answer => answer,
        };
        if let (Query::Await(task), Answer::Task(view)) = (query, &answer)
            && !view.state.is_final()
        {
            if self.awaiting.len() >= AWAITING_MAX {
                self.respond(waiter, Err(Denied::Busy), effects);
            } else {
                let until = self.hold();
                self.awaiting.insert((*task, waiter.origin.request()), Awaiting { waiter, until });
            }
            return;
        }
        self.respond(waiter, Ok(answer), effects);
    }

    // ---- handing over ----

    /// An operator's order. One that was meant for an earlier leadership is carried out already.
    fn on_hand_over(&mut self, now: Nanos, waiter: Waiter, to: Option<NodeId>, epoch: Epoch, effects: &mut Effects) {
        let is_voter = |node: NodeId| self.consensus.conf().is_some_and(|conf| conf.voters.contains(&node));
        let refusal = match to.or_else(|| self.consensus.heir()) {
            _ if epoch != self.consensus.epoch() || to == Some(self.node) => None,
            None => Some("no other voter answers".to_owned()),
            Some(heir) if !is_voter(heir) => Some(format!("{heir} is no voter: promote it first")),
            Some(heir) => {
                self.respond(waiter, Ok(Answer::Ok), effects);
                return self.on_transfer(now, Some(heir), effects);
            }
        };
        let answer = refusal.map_or(Answer::Ok, |why| Answer::Refused(Refused::Invalid(why)));
        self.respond(waiter, Ok(answer), effects);
    }

    fn on_transfer(&mut self, now: Nanos, to: Option<NodeId>, effects: &mut Effects) {
        let Some(to) = to.or_else(|| self.consensus.heir()) else {
            return effects.note("mastership stays here: no other voter was heard");
        };
        let context = self.context();
        self.core(now, consensus::Input::Transfer { context, to }, effects);
    }

    /// Stops the master, which says when nothing more comes from it; where there is none yet, nothing can come.
    fn surrender(&mut self, epoch: Epoch, effects: &mut Effects) {
        let input = match self.mastering.take() {
            Some(_) => Local::Master(master::Input::Surrender { epoch }),
            None => Local::Replica(Input::Surrendered { epoch }),
        };
        effects.local.push(input);
    }

    /// The hand-over was given up: the master of this epoch is built again, from a copy of what is applied by now.
    fn resume(&mut self, effects: &mut Effects) {
        if self.consensus.is_at_work() {
            self.begin_mastering(effects);
        }
    }

    // ---- the log ----

    /// Hands the gathered commands to consensus, unless the store is still busy with an entry of ours and there is room to
    /// gather more, or the master is being asked about tasks among them.
    fn propose_batch(&mut self, now: Nanos, effects: &mut Effects) {
        while self.batch.is_ready(self.consensus.last().index > self.consensus.durable()) {
            if let (Some(epoch), Some(tasks)) = (self.mastering, self.coming.ask(now)) {
                effects.local.push(Local::Master(master::Input::Submitting { epoch, tasks }));
            }
            if self.coming.is_waiting() {
                return;
            }
            let (payload, waiters) = self.batch.take();
            let context = self.context();
            self.proposed.insert(context, waiters);
            let epoch = self.consensus.epoch();
            self.core(now, consensus::Input::Propose { context, epoch, payload }, effects);
        }
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
                consensus::Effect::Fetch { from, meta } => self.exchange.begin(self.now, from, meta, effects),
                consensus::Effect::Installed { meta } => self.installed(&meta, effects),
                consensus::Effect::ReadReady { context, .. } => {
                    if let Some(Question { waiter, query }) = self.reads.remove(&context) {
                        self.answer(waiter, &query, effects);
                    }
                }
                consensus::Effect::Accepted { context, id } => {
                    if let Some(mut waiters) = self.proposed.remove(&context) {
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
                consensus::Effect::Surrender { epoch } => self.surrender(epoch, effects),
                consensus::Effect::Resume { epoch } => {
                    effects.note(format!("mastership was not handed over: going on in epoch {epoch}"));
                    self.resume(effects);
                }
                consensus::Effect::Fatal(why) => effects.publish.push(Event::Fatal(why)),
            }
        }
    }

    fn on_dropped(&mut self, context: u64, why: consensus::Drop, effects: &mut Effects) {
        if let consensus::Drop::Change(refusal) = why {
            effects.note(format!("the voters stay as they are: {refusal}"));
        }
        let denied = match why {
            consensus::Drop::NotLeader | consensus::Drop::Epoch => Denied::NotMaster,
            consensus::Drop::Busy
            | consensus::Drop::HandOver
            | consensus::Drop::NoVoter
            | consensus::Drop::Change(_) => Denied::Busy,
        };
        if let Some(Question { waiter, .. }) = self.reads.remove(&context) {
            self.respond(waiter, Err(denied), effects);
        }
        if let Some(waiters) = self.proposed.remove(&context) {
            for Placed { waiter, .. } in waiters {
                self.respond(waiter, Err(denied), effects);
            }
            if let Some(epoch) = self.mastering {
                effects.local.push(Local::Master(master::Input::Dropped { epoch }));
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

    /// Everything that waited for this node to lead is answered: what never became an entry is certainly not done, what did
    /// may be.
    fn stop_leading(&mut self, effects: &mut Effects) {
        for waiter in self.batch.clear() {
            self.respond(waiter, Err(Denied::NotMaster), effects);
        }
        for (_, (_, waiters)) in std::mem::take(&mut self.placed) {
            for Placed { waiter, .. } in waiters {
                let denied = if is_on(Bug::UnknownIsNo) { Denied::NotMaster } else { Denied::Unknown };
                self.respond(waiter, Err(denied), effects);
            }
        }
        for (_, Question { waiter, .. }) in std::mem::take(&mut self.reads) {
            self.respond(waiter, Err(Denied::NotMaster), effects);
        }
        for (_, Awaiting { waiter, .. }) in std::mem::take(&mut self.awaiting) {
            self.respond(waiter, Err(Denied::NotMaster), effects);
        }
    }

    /// Applies committed entries, answers whoever waited for them, and tells the master.
    fn apply(&mut self, range: RangeInclusive<Index>, effects: &mut Effects) {
        let mut changes = Vec::new();
        let (first, last) = (range.start().0, range.end().0);
        for index in first..=last {
            // Cloning an entry copies no payload: it is a counted reference.
            let entry = self.consensus.entries(Index(index)..=Index(index))[0].clone();
            self.exchange.note_applied(match &entry.payload {
                Payload::Commands(bytes) => bytes.len(),
                Payload::Noop | Payload::Config(_) => 0,
            });
            match &entry.payload {
                Payload::Noop => self.state.begin_epoch(entry.time, &mut changes),
                Payload::Config(conf) => {
                    self.state.configure(entry.time, conf, &mut changes);
                    self.staff.stir();
                }
                Payload::Commands(bytes) => match batch::decode(bytes.as_ref()) {
                    Ok(commands) => self.apply_commands(&entry, &commands, &mut changes, effects),
                    Err(error) => {
                        // What follows would be applied to a state with a hole: nothing may be answered from it.
                        self.is_broken = true;
                        effects.publish.push(Event::Fatal(format!("entry {} cannot be read: {error}", entry.id)));
                        return;
                    }
                },
            }
            if entry.payload == Payload::Noop && entry.id.epoch == self.consensus.epoch() && self.consensus.is_at_work()
            {
                changes.clear();
                self.begin_mastering(effects);
            }
            self.answer_ended(&changes, effects);
            self.tell_master(&mut changes, &entry, effects);
        }
    }

    /// Builds the master of this epoch from the state as it is.
    fn begin_mastering(&mut self, effects: &mut Effects) {
        let epoch = self.consensus.epoch();
        self.mastering = Some(epoch);
        let view = self.state.master_view(epoch);
        effects.local.push(Local::Master(master::Input::Begin(Box::new(view))));
        self.say_leads(None, effects);
    }

    fn apply_commands(
        &mut self,
        entry: &crate::durable::Entry,
        commands: &[Command],
        changes: &mut Vec<ClusterChange>,
        effects: &mut Effects,
    ) {
        let waiters = self.placed.remove(&entry.id.index);
        let is_ours = waiters.as_ref().is_some_and(|(epoch, _)| *epoch == entry.id.epoch);
        let mut waiters = waiters.map(|(_, waiters)| waiters).unwrap_or_default().into_iter().peekable();
        for (place, command) in commands.iter().enumerate() {
            let answer = self.state.apply(entry.time, command, changes);
            if matches!(command, Command::Client { operation: Operation::Roster(_), .. }) {
                self.staff.stir();
            }
            while let Some(Placed { waiter, .. }) = waiters.next_if(|waiting| is_ours && waiting.place == place) {
                self.respond(waiter, Ok(answer.clone()), effects);
            }
        }
        // Another leader's entry stands where ours should: ours is certainly not in the log.
        for Placed { waiter, .. } in waiters {
            self.respond(waiter, Err(Denied::NotMaster), effects);
        }
    }

    fn answer_ended(&mut self, changes: &[ClusterChange], effects: &mut Effects) {
        if self.awaiting.is_empty() {
            return;
        }
        for change in changes {
            let ClusterChange::Ended { task, .. } = change else { continue };
            let key = |number| (*task, Origin { node: NodeId(number), number, turn: 0 });
            let waiting: Vec<(TaskId, Origin)> =
                self.awaiting.range(key(0)..=key(u64::MAX)).map(|(&key, _)| key).collect();
            for key in waiting {
                let Awaiting { waiter, .. } = self.awaiting.remove(&key).expect("found above");
                self.answer(waiter, &Query::Task(*task), effects);
            }
        }
    }

    fn tell_master(&self, changes: &mut Vec<ClusterChange>, entry: &crate::durable::Entry, effects: &mut Effects) {
        let changes = std::mem::take(changes);
        if let Some(epoch) = self.mastering {
            effects.local.push(Local::Master(master::Input::Applied { epoch, time: entry.time, changes }));
        }
    }

    fn context(&mut self) -> u64 {
        self.next_context += 1;
        self.next_context
    }
}

/// The state of a snapshot.
fn restored(chunks: &[Bytes]) -> Result<State, ImageError> {
    let mut restore = Restore::default();
    chunks.iter().try_for_each(|chunk| restore.take(chunk))?;
    restore.finish()
}

/// How long a place is held for a request that waits elsewhere or for a task's end. Clients ask again every two seconds at the
/// latest, which begins the time anew.
const HOLD: Duration = Duration::from_secs(6);

/// How many requests may wait for the leader on behalf of others; one more is `Busy`.
const FORWARDED_MAX: usize = 65_536;

/// How many requests may wait for the end of a task; one more is `Busy`.
const AWAITING_MAX: usize = 262_144;

#[cfg(test)]
mod tests;
