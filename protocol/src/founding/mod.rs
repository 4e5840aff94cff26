//! How a cluster begins: one founder, a durable promise from every address of the join list, one genesis.
//!
//! The node that finds itself behind the first address of the list is the founder. It bids with a ballot that it has made
//! durable, and founds only after **every** address has promised, durably, to accept no genesis under a smaller ballot. All
//! initial voters are in that genesis, so that the first entry already needs a majority of them. The founder accepts last: when
//! its own acceptance makes a majority. Until then it can still be outbid, holds nothing, and bids again.
//!
//! Whoever comes later joins: it takes the genesis from an elected leader, so from a cluster that has begun, and has no vote
//! by it. A leader offers it to every node that it is linked to.
//!
//! # Invariants
//!
//! * Two geneses never both reach a majority while fewer than a majority of the initial voters lose their disk or are replaced
//!   at their address, however long the rest of the list is. (Majority promises instead of all of them lose this with one
//!   wiped disk; see `docs/protocol.md`.)
//! * A node accepts at most one genesis in its life.
//! * A promise is durable before it is told.
//! * A founder is bound by its own promise too: when it has promised a rival, its own smaller bid founds nothing.
//! * A founder that meets an accepted genesis hands on exactly that one.
//! * A genesis that this node proposed is accepted by it only together with a majority. What a founder alone had accepted, nobody
//!   would know of who asks at its address for another node; and who has accepted a genesis accepts no other, ever.
//! * No two geneses of one identity: a new bid makes a new one.
//! * A node without a vote in a genesis takes it only from an elected leader: one that may come to nothing binds nobody else.

mod message;
mod wait;

pub use message::{FoundAnswer, Message};
pub use wait::Wait;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::durable::{Ballot, Durable, Genesis};
use crate::mutants::{self, Bug};
use crate::types::{ClusterId, Nanos, NodeId};

/// How this node was told to begin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// The cluster's name.
    pub name: String,
    /// The join list, in order; empty means "found at once, alone".
    pub list: Vec<String>,
    /// How many voters the cluster wants to have: odd, at most as many as the list is long.
    pub voters: u8,
    /// What the identity of a cluster that this node founds is made of: random, different in every run.
    pub cluster: ClusterId,
    /// How long to wait before asking again.
    pub retry: Duration,
}

/// What follows from a step. `Send` leaves when the promises and acceptances before it are durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Make this promise durable.
    Promise(Ballot),
    /// Make this acceptance durable, in one transaction with all that it implies.
    Accept(Genesis),
    /// Send this once the above is durable.
    Send(NodeId, Message),
    /// Campaign at once: a founder need not wait for a time-out.
    Campaign,
    /// Tell the operator.
    Note(String),
    /// Stop with these words: the operator must decide.
    Fatal(String),
}

/// The founding of one cluster as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Founding {
    config: Config,
    promised: Ballot,
    genesis: Option<Genesis>,
    /// The nodes behind the places of the join list, as links found them.
    resolved: BTreeMap<usize, NodeId>,
    /// A cluster with our name is known to exist: never found another.
    exists: bool,
    bid: Option<Bid>,
    /// What we propose under our ballot, new or met at somebody: who promised us takes it from us alone.
    proposal: Option<Genesis>,
    /// Somebody refuses the genesis that we hold, for a higher ballot.
    is_outbid: bool,
    /// Nodes that are known to have accepted what we hand on.
    confirmed: BTreeSet<NodeId>,
    /// Nodes that can be spoken to.
    links: BTreeSet<NodeId>,
    /// Places of the list that an operator gave up.
    without: BTreeSet<usize>,
    /// When to try again.
    deadline: Nanos,
    /// When a node that waits for another one to found asks it whether their lists are the same.
    compares_at: Nanos,
    /// The operator was told of what does not change by itself.
    told: bool,
}

/// A founder's try.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Bid {
    ballot: Ballot,
    clean: BTreeSet<NodeId>,
}

impl Founding {
    /// Continues from what the node remembers.
    #[must_use]
    pub fn new(config: Config, durable: &Durable, now: Nanos) -> Self {
        let confirmed = BTreeSet::from([config.node]);
        let compares_at = now + config.retry * COMPARE_AFTER;
        Self {
            config,
            promised: durable.promised,
            genesis: durable.genesis.clone(),
            resolved: BTreeMap::new(),
            exists: false,
            bid: None,
            proposal: None,
            is_outbid: false,
            confirmed,
            links: BTreeSet::new(),
            without: BTreeSet::new(),
            deadline: now,
            compares_at,
            told: false,
        }
    }

    /// A deadline may have passed. `leads` says whether this node is an elected leader of its genesis.
    pub fn tick(&mut self, now: Nanos, leads: bool, effects: &mut Vec<Effect>) {
        if now < self.deadline {
            return;
        }
        if self.handed_on().is_some() {
            self.hand_on(now, leads, effects);
        } else if self.config.list.is_empty() && !self.exists {
            self.found_alone(effects);
        } else if !self.is_founder() {
            self.compare_lists(now, effects);
        }
        // What is held and refused somewhere needs a higher ballot, unless a majority has elected us by it.
        let needs_ballot = self.genesis.is_none() || self.is_outbid && !leads;
        if self.is_founder() && self.proposal.is_none() && needs_ballot {
            self.deadline = now + self.config.retry;
            self.bid_again(now, effects);
        }
    }

    /// A node of the join list is known by now.
    pub fn resolved(&mut self, now: Nanos, place: usize, node: NodeId) {
        if place >= self.config.list.len() || self.resolved.insert(place, node) == Some(node) {
            return;
        }
        // Another node behind an address: what it had promised, or will never accept now, its successor has not.
        self.withdraw();
        self.wake(now);
    }

    /// A link to a peer came up: what was lost with the last one is said again.
    pub fn link_up(&mut self, now: Nanos, node: NodeId) {
        self.links.insert(node);
        self.wake(now);
    }

    /// The link to a peer broke.
    pub fn link_down(&mut self, node: NodeId) {
        self.links.remove(&node);
        // Whoever joined says so again; a list of all who ever did would grow for ever.
        if self.genesis.as_ref().is_some_and(|genesis| !genesis.voters.contains(&node)) {
            self.confirmed.remove(&node);
        }
    }

    /// This node was elected: from here on it may offer its genesis to everybody.
    pub fn lead(&mut self, now: Nanos) {
        self.wake(now);
    }

    /// An operator's word: these places of the list will not answer, found without them. What they may have promised or
    /// accepted is on the operator's head.
    pub fn found_without(&mut self, now: Nanos, places: &BTreeSet<usize>, effects: &mut Vec<Effect>) {
        if self.genesis.is_some() || self.exists || self.config.list.len() <= places.len() {
            effects.push(Effect::Note("there is nothing to found here".into()));
            return;
        }
        self.without.clone_from(places);
        if !self.is_founder() {
            effects.push(Effect::Note(format!(
                "this node founds nothing: of the addresses that are left, {} stands first, and that is not this node",
                self.remaining().next().map_or("none", |place| &self.config.list[place]),
            )));
        }
        self.withdraw();
        self.wake(now);
    }

    /// A cluster with our name is known to exist: this node never founds another. It may still bid, to hand that one on.
    pub fn cluster_exists(&mut self) {
        self.exists = true;
    }

    /// A message of another node.
    pub fn message(&mut self, now: Nanos, from: NodeId, message: Message, effects: &mut Vec<Effect>) {
        if message.round() > ROUND_MAX {
            return;
        }
        match message {
            Message::Found { name, list, voters, ballot } => {
                self.on_found(from, &name, &list, voters, ballot, effects);
            }
            Message::FoundReply { ballot, answer } => self.on_answer(now, from, ballot, answer, effects),
            Message::Genesis(genesis) => self.on_genesis(from, genesis, false, effects),
            Message::Established(genesis) => self.on_genesis(from, genesis, true, effects),
            Message::GenesisReply { genesis } => self.on_confirmed(now, from, &genesis, effects),
            // What a cluster does after its beginning is no matter of founding.
            Message::Leads { .. } | Message::Removed => {}
        }
    }

    /// When [`Founding::tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Nanos {
        self.deadline
    }

    /// The genesis this node has accepted.
    #[must_use]
    pub fn genesis(&self) -> Option<&Genesis> {
        self.genesis.as_ref()
    }

    fn on_found(
        &mut self,
        from: NodeId,
        name: &str,
        list: &[String],
        voters: u8,
        ballot: Ballot,
        effects: &mut Vec<Effect>,
    ) {
        let answer = if let Some(genesis) = &self.genesis {
            FoundAnswer::Member { cluster: genesis.cluster, genesis: genesis.clone() }
        } else if name != self.config.name || list != self.config.list || voters != self.config.voters {
            FoundAnswer::Mismatch {
                name: self.config.name.clone(),
                list: self.config.list.clone(),
                voters: self.config.voters,
            }
        } else if ballot < self.promised {
            FoundAnswer::Promised(self.promised)
        } else {
            self.promise(ballot, effects);
            FoundAnswer::Clean(self.config.node)
        };
        effects.push(Effect::Send(from, Message::FoundReply { ballot, answer }));
    }

    fn on_answer(&mut self, now: Nanos, from: NodeId, ballot: Ballot, answer: FoundAnswer, effects: &mut Vec<Effect>) {
        let is_of_bid = self.bid.as_ref().is_some_and(|bid| bid.ballot == ballot);
        match answer {
            FoundAnswer::Clean(node) if is_of_bid && node == from => self.on_clean(now, from, effects),
            FoundAnswer::Promised(higher) if is_of_bid || self.hands_on_under(ballot) => self.on_outbid(now, higher),
            // A rival has our own promise meanwhile.
            FoundAnswer::Member { .. } if is_of_bid && ballot < self.promised => self.give_way(now, self.promised.node),
            FoundAnswer::Member { genesis, .. } if is_of_bid => self.on_member(now, from, genesis, effects),
            FoundAnswer::Mismatch { name, list, voters } => {
                self.on_mismatch(from, ballot, &name, &list, voters, effects);
            }
            // The answer to an older question.
            _ => {}
        }
    }

    fn on_clean(&mut self, now: Nanos, from: NodeId, effects: &mut Vec<Effect>) {
        if let Some(bid) = &mut self.bid {
            bid.clean.insert(from);
        }
        self.found_if_all_are_clean(now, effects);
    }

    /// Somebody promised more than our bid, or than the ballot of what we hand on. Only a founder can mend that.
    fn on_outbid(&mut self, now: Nanos, higher: Ballot) {
        if !self.is_founder() || (mutants::is_on(Bug::StaysOutbid) && self.bid.is_none()) {
            return;
        }
        self.promised.round = self.promised.round.max(higher.round);
        self.give_way(now, higher.node);
    }

    /// Another founder, or this node in an earlier life, has begun already: hand exactly that genesis on.
    fn on_member(&mut self, now: Nanos, from: NodeId, genesis: Genesis, effects: &mut Vec<Effect>) {
        match &self.genesis {
            Some(own) if own.cluster == genesis.cluster => return self.on_clean(now, from, effects),
            Some(_) => return,
            None if mutants::is_on(Bug::FoundsBesideMember) => return self.on_clean(now, from, effects),
            None => {}
        }
        // Its leader, if it has one, will say so.
        if !genesis.voters.contains(&self.config.node) && !std::mem::replace(&mut self.told, true) {
            effects.push(Effect::Note(format!(
                "cluster {:?} ({}) exists already: this node founds nothing and joins it as soon as it has a master",
                self.config.name, genesis.cluster,
            )));
        }
        self.propose(now, genesis, Some(from), effects);
    }

    fn on_mismatch(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        name: &str,
        list: &[String],
        voters: u8,
        effects: &mut Vec<Effect>,
    ) {
        let is_asked = self.bid.as_ref().is_some_and(|bid| bid.ballot == ballot) || ballot == Ballot::default();
        // Where nothing is founded any more, lists may differ.
        if !is_asked || self.genesis.is_some() || self.exists {
            return;
        }
        effects.push(Effect::Fatal(format!(
            "this node was started with cluster {:?}, join list [{}] and {} voters, but node {from} with cluster {name:?}, \
             join list [{}] and {voters} voters: start all of them with the same",
            self.config.name,
            self.config.list.join(","),
            self.config.voters,
            list.join(","),
        )));
    }

    /// A rival bids at the same time: wait, longer on the one with the smaller identity, then go above it.
    fn give_way(&mut self, now: Nanos, rival: NodeId) {
        let spread = self.config.retry * (1 + u32::from(self.config.node < rival));
        self.withdraw();
        self.is_outbid = true;
        self.deadline = now + spread;
    }

    /// Takes back what is not accepted here: the next bid asks who has accepted it meanwhile.
    fn withdraw(&mut self) {
        (self.bid, self.proposal) = (None, None);
    }

    fn on_genesis(&mut self, from: NodeId, genesis: Genesis, is_established: bool, effects: &mut Vec<Effect>) {
        if self.genesis.is_none() {
            let is_initial = genesis.voters.contains(&self.config.node);
            let is_promised = genesis.ballot >= self.promised || mutants::is_on(Bug::AcceptsBelowPromise);
            let is_taken = is_established || is_initial && is_promised;
            if !is_taken && is_initial {
                // Whoever proposes it must bid again, however long ago the rival that we promised this was there last.
                let answer = FoundAnswer::Promised(self.promised);
                effects.push(Effect::Send(from, Message::FoundReply { ballot: genesis.ballot, answer }));
            }
            if !is_taken {
                return;
            }
            self.accept(genesis, effects);
        }
        if let Some(genesis) = &self.genesis {
            effects.push(Effect::Send(from, Message::GenesisReply { genesis: genesis.clone() }));
        }
    }

    /// Whoever takes the genesis only now has not heard the question that came before it: the founder asks once more, instead of after a
    /// time-out. All who hold the genesis hand it on and hear of others; if each of them campaigned, they would end each other's epochs.
    fn on_confirmed(&mut self, now: Nanos, from: NodeId, genesis: &Genesis, effects: &mut Vec<Effect>) {
        let is_ours = self.handed_on().is_some_and(|own| own.cluster == genesis.cluster);
        if !is_ours || !self.confirmed.insert(from) {
            return;
        }
        if self.genesis.is_none() {
            self.accept_if_it_decides(now, effects);
        } else if self.is_founder() {
            effects.push(Effect::Campaign);
        }
    }

    fn found_alone(&mut self, effects: &mut Vec<Effect>) {
        let ballot = Ballot { round: self.promised.round.saturating_add(1), node: self.config.node };
        self.promise(ballot, effects);
        self.accept(self.new_genesis(ballot, vec![self.config.node]), effects);
        effects.push(Effect::Campaign);
    }

    /// Asks every address that has not promised yet. The first time, the ballot becomes durable before it is told.
    fn bid_again(&mut self, now: Nanos, effects: &mut Vec<Effect>) {
        if !self.all_are_known(effects) {
            return;
        }
        if self.bid.is_none() {
            let ballot = Ballot { round: self.promised.round.saturating_add(1), node: self.config.node };
            self.promise(ballot, effects);
            self.bid = Some(Bid { ballot, clean: BTreeSet::from([self.config.node]) });
        }
        let bid = self.bid.as_ref().expect("made above");
        for node in self.listed().filter(|node| !bid.clean.contains(node)) {
            effects.push(Effect::Send(node, self.question(bid.ballot)));
        }
        // A list of this node alone needs nobody's answer.
        self.found_if_all_are_clean(now, effects);
    }

    /// Nobody founds while two nodes each take the other for the first. Whoever has waited for long asks whom it takes for the first,
    /// under the lowest ballot of all, to which nothing is promised: the answer says whether the list is another one there.
    fn compare_lists(&mut self, now: Nanos, effects: &mut Vec<Effect>) {
        if now >= self.compares_at {
            self.compares_at = now + self.config.retry * COMPARE_AFTER;
            let first = self.remaining().next().and_then(|place| self.resolved.get(&place));
            if let Some(&first) = first.filter(|_| !self.exists) {
                effects.push(Effect::Send(first, self.question(Ballot::default())));
            }
        }
        self.deadline = self.compares_at;
    }

    fn question(&self, ballot: Ballot) -> Message {
        let Config { name, list, voters, .. } = &self.config;
        Message::Found { name: name.clone(), list: list.clone(), voters: *voters, ballot }
    }

    fn found_if_all_are_clean(&mut self, now: Nanos, effects: &mut Vec<Effect>) {
        let Some(bid) = &self.bid else { return };
        let is_enough = if mutants::is_on(Bug::FoundsOnMajority) {
            bid.clean.len() * 2 > self.listed().count()
        } else {
            self.listed().all(|node| bid.clean.contains(&node))
        };
        if !is_enough {
            return;
        }
        if bid.ballot < self.promised {
            // A rival has our own promise meanwhile: a genesis below it would be refused by ourselves.
            return self.give_way(now, self.promised.node);
        }
        let genesis = match &self.genesis {
            Some(own) => own.clone(),
            None if self.exists => return,
            None => {
                let mut voters: Vec<NodeId> = self.listed().take(usize::from(self.config.voters)).collect();
                voters.sort_unstable();
                self.new_genesis(bid.ballot, voters)
            }
        };
        self.propose(now, genesis, None, effects);
    }

    /// Hands a genesis on under the ballot of our bid, and accepts it itself when that decides.
    fn propose(&mut self, now: Nanos, genesis: Genesis, holder: Option<NodeId>, effects: &mut Vec<Effect>) {
        let Some(Bid { ballot, .. }) = self.bid.take() else { return };
        self.proposal = Some(Genesis { ballot, ..genesis });
        self.is_outbid = false;
        self.confirmed = holder.into_iter().chain([self.config.node]).collect();
        self.accept_if_it_decides(now, effects);
        self.hand_on(now, false, effects);
    }

    fn accept_if_it_decides(&mut self, now: Nanos, effects: &mut Vec<Effect>) {
        let Some(proposal) = self.proposal.as_ref().filter(|_| self.genesis.is_none()) else { return };
        let holders = proposal.voters.iter().filter(|node| self.confirmed.contains(node)).count();
        let decides = holders * 2 > proposal.voters.len() || mutants::is_on(Bug::AcceptsAlone);
        if !decides || !proposal.voters.contains(&self.config.node) {
            return;
        }
        if proposal.ballot < self.promised {
            return self.give_way(now, self.promised.node);
        }
        self.accept(proposal.clone(), effects);
        effects.push(Effect::Campaign);
    }

    /// Sends the genesis to every initial voter that is not known to have it; a leader, to every node.
    fn hand_on(&mut self, now: Nanos, leads: bool, effects: &mut Vec<Effect>) {
        let Some(genesis) = self.handed_on() else { return };
        let mut missing = false;
        let is_initial = self.proposal.is_some() || genesis.voters.contains(&self.config.node);
        let voters = genesis.voters.iter().filter(|_| is_initial || leads);
        let guests = self.links.iter().filter(|node| leads && !genesis.voters.contains(node));
        for &node in voters.chain(guests).filter(|node| !self.confirmed.contains(node)) {
            missing = true;
            let message = if leads { Message::Established(genesis.clone()) } else { Message::Genesis(genesis.clone()) };
            effects.push(Effect::Send(node, message));
        }
        self.deadline = if missing { now + self.config.retry } else { Nanos::NEVER };
    }

    /// The genesis that others shall have from this node.
    fn handed_on(&self) -> Option<&Genesis> {
        self.proposal.as_ref().or(self.genesis.as_ref())
    }

    fn hands_on_under(&self, ballot: Ballot) -> bool {
        self.bid.is_none() && self.handed_on().is_some_and(|genesis| genesis.ballot == ballot)
    }

    fn promise(&mut self, ballot: Ballot, effects: &mut Vec<Effect>) {
        assert!(ballot >= self.promised, "a promise only grows");
        if ballot > self.promised {
            self.promised = ballot;
            effects.push(Effect::Promise(ballot));
        }
    }

    fn accept(&mut self, genesis: Genesis, effects: &mut Vec<Effect>) {
        assert!(self.genesis.is_none(), "a node accepts at most one genesis");
        self.bid = None;
        self.proposal.take_if(|proposal| proposal.cluster != genesis.cluster);
        self.genesis = Some(genesis.clone());
        effects.push(Effect::Accept(genesis));
    }

    /// Says whether every place of the list is resolved to a node of its own.
    fn all_are_known(&mut self, effects: &mut Vec<Effect>) -> bool {
        if self.remaining().any(|place| !self.resolved.contains_key(&place)) {
            return false;
        }
        let mut seen = BTreeMap::new();
        for (&place, &node) in self.resolved.iter().filter(|(place, _)| !self.without.contains(place)) {
            if let Some(other) = seen.insert(node, place) {
                effects.push(Effect::Fatal(format!(
                    "the join list names one node twice: {} and {} are both node {node}",
                    self.config.list[other], self.config.list[place]
                )));
                return false;
            }
        }
        true
    }

    fn is_founder(&self) -> bool {
        let first = self.remaining().next();
        first.is_some_and(|place| self.resolved.get(&place) == Some(&self.config.node))
    }

    /// The places of the list that count.
    fn remaining(&self) -> impl Iterator<Item = usize> {
        (0..self.config.list.len()).filter(|place| !self.without.contains(place))
    }

    /// The nodes that count, as far as they are known, in the order of the list.
    fn listed(&self) -> impl Iterator<Item = NodeId> {
        self.resolved.iter().filter(|(place, _)| !self.without.contains(place)).map(|(_, &node)| node)
    }

    fn new_genesis(&self, ballot: Ballot, voters: Vec<NodeId>) -> Genesis {
        let cluster = ClusterId(self.config.cluster.0.wrapping_add(u128::from(ballot.round)));
        Genesis { cluster, ballot, voters, target: self.config.voters.max(1) }
    }

    fn wake(&mut self, now: Nanos) {
        self.deadline = self.deadline.min(now);
    }
}

/// No founder lives to bid this often; above the highest ballot of all nobody could bid.
const ROUND_MAX: u64 = 1 << 62;

/// After how many tries of a founder whoever waits for one compares its list.
const COMPARE_AFTER: u32 = 40;

/// The number of voters that a cluster of `listed` addresses wants, if the operator wishes for `asked`: odd, at most seven.
#[must_use]
pub fn voters_wanted(listed: usize, asked: Option<u8>) -> u8 {
    let most = u8::try_from(listed.clamp(1, 7)).expect("at most seven");
    let wanted = asked.unwrap_or(most).clamp(1, most);
    if wanted.is_multiple_of(2) { wanted - 1 } else { wanted }
}

#[cfg(test)]
mod search;
#[cfg(test)]
mod tests;
