//! Push-pull: two nodes tell each other everything they know.
//!
//! Gossip alone forgets: a missed piece of news stays missed, late joiners never hear the old, and two halves that each
//! hold the other to be down never speak again. So whole tables are compared when a node joins, now and then with a
//! random member, and with somebody who is absent, which heals a partition in seconds. The same message is the hello to
//! a seed of which only the address is known.
//!
//! # Invariants
//!
//! * Our own entry is heeded first: a node that is held to be down takes a new name before it answers.
//! * A member that is present here is not declared down on hearsay; see `doubt`.
//! * Each datagram stands for itself: any of them may be lost, repeated or come late.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use foca::State;
use protocol::wire;
use protocol::{Nanos, NodeId};
use rand::RngExt;
use rand::seq::IteratorRandom;

use super::{Effects, Engine, Identity};
use crate::board::{self, Item};
use crate::packet::{Entry, EntryState, MAX_BODY, Message, Sync};

impl Engine {
    /// Nobody answers us: asks the seeds and some whom we knew.
    pub(super) fn rejoin(&mut self, now: Nanos, effects: &mut Effects) {
        if self.is_joined {
            self.rejoin_at = Nanos::NEVER;
            return;
        }
        self.rejoin_at = now + self.jitter(self.timing.rejoin);
        let known = self.peers.values().filter(|peer| peer.state != crate::MemberState::Left).map(|peer| peer.id.addr);
        let mut targets = known.sample(&mut self.rng, REJOIN_AT_ONCE);
        targets.extend(self.seeds.iter().copied().sample(&mut self.rng, SEEDS_AT_ONCE));
        targets.sort_unstable();
        targets.dedup();
        for target in targets {
            self.send_sync(target, true, usize::MAX, effects);
        }
    }

    /// Compares tables with a random member.
    pub(super) fn sync_with_active(&mut self, now: Nanos, effects: &mut Effects) {
        self.sync_gap = (self.sync_gap * 2).min(self.timing.sync);
        self.sync_at = now + self.jitter(self.sync_gap);
        let target = self.peers.values().filter(|peer| peer.is_active()).map(|peer| peer.id.addr).choose(&mut self.rng);
        if let Some(target) = target {
            self.send_sync(target, true, usize::MAX, effects);
        }
    }

    /// Tries somebody who is absent: a member that is down, or a seed where nobody is.
    pub(super) fn sync_with_absent(&mut self, now: Nanos, effects: &mut Effects) {
        self.sync_down_at = now + self.jitter(self.timing.sync_down);
        let is_due = |since: Nanos, tried: Option<Nanos>| {
            let gap = if now.since(since) < SOON { Duration::ZERO } else { SELDOM };
            tried.is_none_or(|at| now.since(at) >= gap)
        };
        let down = self
            .peers
            .values()
            .filter(|peer| peer.state == crate::MemberState::Unreachable && is_due(peer.since, peer.tried))
            .map(|peer| (Some(peer.id.node), peer.id.addr));
        let is_there = |seed: &SocketAddr| self.peers.values().any(|peer| peer.is_active() && peer.id.addr == *seed);
        let seeds = self.seeds.iter().filter(|seed| !is_there(seed)).map(|seed| (None, *seed));
        let Some((node, addr)) = down.chain(seeds).choose(&mut self.rng) else { return };
        if let Some(peer) = node.and_then(|node| self.peers.get_mut(&node)) {
            peer.tried = Some(now);
        }
        self.send_sync(addr, true, usize::MAX, effects);
    }

    /// Takes in what another node knows, and answers.
    pub(super) fn on_sync(&mut self, now: Nanos, from: SocketAddr, sync: &Sync, effects: &mut Effects) {
        let sender = sync.from;
        if sender.node == self.me().node {
            if self.is_double(&sender) {
                self.on_double(now, effects);
            }
            return;
        }
        if self.is_full() && !self.knows(sender.node) {
            self.stats.refused += 1;
            return;
        }
        let name = *self.me();
        if !self.heed_own_entry(now, &sync.entries, effects) {
            return;
        }
        for item in &sync.items {
            self.add_broadcast(item);
        }
        self.merge(now, sync, effects);
        self.mark_heard(now, &sender);
        self.ask_for_newer_tags(sync, from, effects);
        if sync.wants_reply {
            self.answer(from, effects);
        } else if name != *self.me() {
            // We took a new name just now, and the sender waits for no answer: it must learn the name all the same.
            self.send_sync(from, false, usize::MAX, effects);
        } else if self.peers.get(&sender.node).is_some_and(|peer| peer.id == sender && !peer.is_active()) {
            self.send_message(from, &Message::SeenDown { name: sender }, effects);
        }
    }

    /// Somebody holds our name to be down: takes a new one and introduces it.
    pub(super) fn on_seen_down(&mut self, now: Nanos, from: SocketAddr, name: Identity, effects: &mut Effects) {
        if name != *self.me() {
            return;
        }
        let outcome = self.foca.apply_many(std::iter::once(foca::Member::down(name)), true, &mut self.outbox);
        self.count(outcome);
        self.settle(now, effects);
        self.send_sync(from, true, usize::MAX, effects);
    }

    /// Tells the tags that somebody misses, as far as they are known here.
    pub(super) fn on_want_tags(&mut self, nodes: &[NodeId], to: SocketAddr, effects: &mut Effects) {
        let items: Vec<Bytes> = {
            let board = self.board.lock();
            nodes.iter().take(WANTED_MAX).filter_map(|node| board.tags_item(*node)).collect()
        };
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            let mut room = MAX_BODY - 16;
            let mut chunk = Vec::new();
            while let Some(item) = items.next_if(|item| item.len() + 3 <= room) {
                room -= item.len() + 3;
                chunk.push(item);
            }
            self.send_message(to, &Message::Items { items: chunk }, effects);
        }
    }

    /// Takes in items that came outside gossip.
    pub(super) fn on_items(&mut self, now: Nanos, items: &[Bytes], effects: &mut Effects) {
        for item in items {
            self.add_broadcast(item);
        }
        self.settle(now, effects);
    }

    /// Heeds what is said of ourselves. False if somebody else bears our identity, and all of it is void.
    fn heed_own_entry(&mut self, now: Nanos, entries: &[Entry], effects: &mut Effects) -> bool {
        let me = *self.me();
        let Some(own) = entries.iter().find(|entry| entry.id.node == me.node) else { return true };
        if self.is_double(&own.id) {
            self.on_double(now, effects);
            return false;
        }
        if own.id == me && own.state != EntryState::Alive {
            let outcome = self.foca.apply_many(std::iter::once(row(own)), true, &mut self.outbox);
            self.count(outcome);
            self.settle(now, effects);
        }
        true
    }

    fn merge(&mut self, now: Nanos, sync: &Sync, effects: &mut Effects) {
        let me = self.me().node;
        let mut rows = vec![foca::Member::new(sync.from, sync.generation, State::Alive)];
        for entry in sync.entries.iter().filter(|entry| entry.id.node != me && entry.id.node != sync.from.node) {
            if self.is_full() && !self.knows(entry.id.node) {
                continue;
            }
            match entry.state {
                EntryState::Left => {
                    self.add_item(&Item::Leave { node: entry.id.node, incarnation: entry.id.incarnation })
                }
                EntryState::Down if self.is_present(&entry.id) => {
                    self.doubt(now, entry.id, effects);
                    continue;
                }
                _ => {}
            }
            rows.push(row(entry));
        }
        let outcome = self.foca.apply_many(rows.into_iter(), true, &mut self.outbox);
        self.count(outcome);
        self.settle(now, effects);
    }

    fn is_present(&self, name: &Identity) -> bool {
        self.peers.get(&name.node).is_some_and(|peer| peer.id == *name && peer.is_active())
    }

    fn ask_for_newer_tags(&mut self, sync: &Sync, from: SocketAddr, effects: &mut Effects) {
        let nodes: Vec<NodeId> = {
            let board = self.board.lock();
            let is_newer = |entry: &&Entry| {
                entry.tags_version > board.tags_version(entry.id.node, entry.id.incarnation)
                    && entry.id.node != self.me().node
            };
            sync.entries.iter().filter(is_newer).map(|entry| entry.id.node).take(WANTED_MAX).collect()
        };
        if !nodes.is_empty() {
            self.send_message(from, &Message::WantTags { nodes }, effects);
        }
    }

    /// Answers with everything, or with one datagram if many ask at once (a whole cluster that starts asks one seed).
    fn answer(&mut self, to: SocketAddr, effects: &mut Effects) {
        let datagrams = if self.full_answers < FULL_ANSWERS { usize::MAX } else { 1 };
        self.full_answers += 1;
        self.send_sync(to, false, datagrams, effects);
    }

    /// Sends what we know, in at most so many datagrams. Only the last one asks for an answer.
    fn send_sync(&mut self, to: SocketAddr, wants_reply: bool, datagrams: usize, effects: &mut Effects) {
        let mut chunks = self.chunks(datagrams);
        let last = chunks.pop().expect("there is always a first datagram");
        for chunk in chunks {
            self.send_message(to, &Message::Sync(chunk), effects);
        }
        self.send_message(to, &Message::Sync(Sync { wants_reply, ..last }), effects);
    }

    fn chunks(&mut self, datagrams: usize) -> Vec<Sync> {
        let empty = Sync {
            from: *self.me(),
            generation: self.generation,
            wants_reply: false,
            items: Vec::new(),
            entries: Vec::new(),
        };
        let items = self.own_items();
        let mut room = MAX_BODY - HEAD - items.iter().map(|item| item.len() + 3).sum::<usize>();
        let mut chunks = vec![Sync { items, ..empty.clone() }];
        for entry in self.entries() {
            let size = wire::encode(&entry, MAX_BODY).map_or(MAX_BODY, |bytes| bytes.len());
            if size > room {
                if chunks.len() >= datagrams {
                    break;
                }
                chunks.push(empty.clone());
                room = MAX_BODY - HEAD;
            }
            room = room.saturating_sub(size);
            chunks.last_mut().expect("never empty").entries.push(entry);
        }
        chunks
    }

    /// Our tags, and who is master.
    fn own_items(&self) -> Vec<Bytes> {
        let board = self.board.lock();
        let master = board.master.and_then(|(epoch, node)| board::item(&Item::Master { epoch, node }).ok());
        board.tags_item(self.me().node).into_iter().chain(master).collect()
    }

    /// Everything in the table, beginning at a random place so that a shortened answer is not always the same.
    fn entries(&mut self) -> Vec<Entry> {
        let me = self.me().node;
        let board = self.board.lock();
        let mut entries: Vec<Entry> = self
            .foca
            .iter_membership_state()
            .filter(|member| member.id().node != me)
            .map(|member| {
                let id = *member.id();
                let state = match member.state() {
                    State::Alive => EntryState::Alive,
                    State::Suspect => EntryState::Suspect,
                    State::Down if board.is_leaving(id.node, id.incarnation) => EntryState::Left,
                    State::Down => EntryState::Down,
                };
                // A later run's tags belong to a member that the table does not show yet.
                let version = board.tags_version(id.node, id.incarnation);
                let tags_version = if version == u64::MAX { 0 } else { version };
                Entry { id, generation: member.incarnation(), state, tags_version }
            })
            .collect();
        drop(board);
        if !entries.is_empty() {
            let start = self.rng.random_range(0..entries.len());
            entries.rotate_left(start);
        }
        entries
    }
}

fn row(entry: &Entry) -> foca::Member<Identity> {
    let state = match entry.state {
        EntryState::Alive => State::Alive,
        EntryState::Suspect => State::Suspect,
        EntryState::Down | EntryState::Left => State::Down,
    };
    foca::Member::new(entry.id, entry.generation, state)
}

/// The most that a push-pull takes beside its items and entries: the format byte, the message, the sender (node,
/// incarnation, bump, two IPv6 addresses), generation, flag, and two lengths.
const HEAD: usize = 1 + 1 + (9 + 9 + 5 + 20 + 20) + 3 + 1 + 3 + 3;

/// How many former members are asked at once to take us back.
const REJOIN_AT_ONCE: usize = 3;

/// How many seeds are asked at once.
const SEEDS_AT_ONCE: usize = 8;

/// For how long an absent member is tried in every round.
const SOON: Duration = Duration::from_secs(600);

/// How often afterwards.
const SELDOM: Duration = Duration::from_secs(60);

/// Of how many nodes the tags are told at once.
const WANTED_MAX: usize = 64;

/// How many full answers are given between two rounds of maintenance.
const FULL_ANSWERS: u32 = 32;
