//! How this node itself stands in the cluster: joined, alone, declared down, gone, or not the only one of its name.
//!
//! # Invariants
//!
//! * A node under whose present name nobody knows it asks until somebody does.
//! * After the farewell nothing that arrives is looked at.
//! * Of two processes with one identity the earlier run falls silent.

use std::net::SocketAddr;
use std::time::Duration;

use protocol::Nanos;

use super::{Effects, Engine, Phase};
use crate::board::{self, Item};
use crate::identity::Identity;
use crate::member::Event;
use crate::packet::Message;

impl Engine {
    pub(super) fn on_joined(&mut self, now: Nanos, effects: &mut Effects) {
        self.is_joined = true;
        self.rejoin_at = Nanos::NEVER;
        // Those who started together know little of each other yet: compare soon, then ever more rarely.
        self.sync_gap = self.timing.gossip * 4;
        self.sync_at = now + self.jitter(self.timing.gossip * 2);
        if !self.is_connected {
            self.is_connected = true;
            self.tell(Event::Connected, effects);
        }
    }

    pub(super) fn on_alone(&mut self, now: Nanos, effects: &mut Effects) {
        self.is_joined = false;
        self.sync_at = Nanos::NEVER;
        self.rejoin_at = now;
        if self.is_connected {
            self.is_connected = false;
            self.tell(Event::Isolated, effects);
        }
    }

    pub(super) fn on_renewed(&mut self, now: Nanos, effects: &mut Effects) {
        self.stats.renewals += 1;
        self.is_joined = false;
        self.generation = 0;
        self.rejoin_at = now;
        self.tell(Event::SelfDeclaredDown, effects);
    }

    pub(super) fn on_leave(&mut self, now: Nanos, effects: &mut Effects) {
        let me = *self.me();
        self.timers.clear();
        self.add_item(&Item::Leave { node: me.node, incarnation: me.incarnation });
        let outcome = self.foca.leave_cluster(&mut self.outbox);
        self.count(outcome);
        self.flush(now, effects);
        self.say_farewell(now, FAREWELLS, effects);
    }

    /// Says to up to 64 members directly that we are gone, and lets gossip tell the rest.
    pub(super) fn say_farewell(&mut self, now: Nanos, left: u32, effects: &mut Effects) {
        let there: Vec<SocketAddr> =
            self.peers.values().filter(|peer| peer.is_active()).map(|peer| peer.id.addr).collect();
        if left == 0 || there.is_empty() {
            self.phase = Phase::Gone;
            return;
        }
        let me = *self.me();
        if let Ok(item) = board::item(&Item::Leave { node: me.node, incarnation: me.incarnation }) {
            for addr in there.into_iter().take(64) {
                self.send_message(addr, &Message::Items { items: vec![item.clone()] }, effects);
            }
        }
        let outcome = self.foca.gossip(&mut self.outbox);
        self.count(outcome);
        self.flush(now, effects);
        self.phase = Phase::Leaving { left: left - 1, at: now + self.timing.gossip.min(FAREWELL_GAP_MAX) };
    }

    /// Another process bears our identity. Once may be a stray packet; three times in ten seconds is not.
    pub(super) fn on_double(&mut self, now: Nanos, effects: &mut Effects) {
        self.doubles.push_back(now);
        self.doubles.retain(|at| now.since(*at) <= DOUBLE_WINDOW);
        if self.doubles.len() < DOUBLES {
            return;
        }
        self.phase = Phase::Muted;
        self.timers.clear();
        let node = self.me().node;
        self.tell(Event::DuplicateNode(node), effects);
    }

    /// A name of our own node that is greater than ours: a later run of it, or a copy of its data folder.
    pub(super) fn is_double(&self, name: &Identity) -> bool {
        name.node == self.me().node && name > self.me()
    }
}

/// How often the farewell is said.
const FAREWELLS: u32 = 3;

/// The longest pause between two farewells.
const FAREWELL_GAP_MAX: Duration = Duration::from_millis(100);

/// How many meetings with our own identity are proof.
const DOUBLES: usize = 3;

/// Within which time.
const DOUBLE_WINDOW: Duration = Duration::from_secs(10);
