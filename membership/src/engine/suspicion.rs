//! When a suspect is declared down.
//!
//! foca lets a suspicion end after a fixed time and then tells the suspect that it is down, even if it refuted in the
//! meantime. And a node whose own packets wait in a queue suspects everybody. Two rules answer that.
//!
//! # Invariants
//!
//! * A suspicion that was refuted is dropped.
//! * Nobody is declared down by a node that has not itself been heard from by others of late (half of them, at most
//!   three), unless that lasted for three more times the time to refute: the contact rule.

use std::time::Duration;

use foca::{State, Timer};
use protocol::Nanos;

use super::timers::Due;
use super::{Effects, Engine, Identity};
use crate::packet::Message;

impl Engine {
    /// The suspect's time to refute is over.
    pub(super) fn on_suspicion_over(&mut self, now: Nanos, timer: Timer<Identity>, held: u32, effects: &mut Effects) {
        let Timer::ChangeSuspectToDown { member_id: suspect, incarnation, .. } = &timer else {
            return self.pass_on(now, timer, effects);
        };
        if !self.is_suspect(suspect, *incarnation) {
            self.stats.stale_suspicions += 1;
        } else if held < HELD_MAX && !self.hears_others(now, suspect) {
            self.stats.held_suspicions += u64::from(held == 0);
            self.timers.set(now + self.timing.suspicion / 4, Due::Suspicion { timer, held: held + 1 });
        } else {
            self.pass_on(now, timer, effects);
        }
    }

    /// Somebody holds `name` to be down; to us it is there. Its bearer is told, so that it takes a new name before news
    /// of the old one's end can spread. If it is dead in truth, it will not answer, and is declared down here too.
    pub(super) fn doubt(&mut self, now: Nanos, name: Identity, effects: &mut Effects) {
        let Some(peer) = self.peers.get_mut(&name.node).filter(|peer| peer.id == name && peer.is_active()) else {
            return;
        };
        if std::mem::replace(&mut peer.is_doubted, true) {
            return;
        }
        self.timers.set(now + self.timing.suspicion, Due::Doubt { name, since: now, tries: 1 });
        self.send_message(name.addr, &Message::SeenDown { name }, effects);
    }

    /// A doubted name should be given up or silent by now.
    pub(super) fn on_doubt_over(
        &mut self,
        now: Nanos,
        name: Identity,
        since: Nanos,
        tries: u32,
        effects: &mut Effects,
    ) {
        let Some(peer) = self.peers.get_mut(&name.node).filter(|peer| peer.id == name && peer.is_active()) else {
            return;
        };
        let was_heard = peer.heard.is_some_and(|at| at > since);
        if was_heard && tries >= DOUBT_TRIES {
            // It lives and did not get our word. The next push-pull raises the doubt anew.
            peer.is_doubted = false;
        } else if was_heard {
            self.timers.set(now + self.timing.suspicion / 2, Due::Doubt { name, since: now, tries: tries + 1 });
            self.send_message(name.addr, &Message::SeenDown { name }, effects);
        } else if tries < DOUBT_TRIES && !self.hears_others(now, &name) {
            self.timers.set(now + self.timing.suspicion, Due::Doubt { name, since, tries: tries + 1 });
        } else {
            let outcome = self.foca.apply_many(std::iter::once(foca::Member::down(name)), true, &mut self.outbox);
            self.count(outcome);
            self.settle(now, effects);
        }
    }

    fn is_suspect(&self, name: &Identity, generation: u16) -> bool {
        self.foca
            .iter_membership_state()
            .any(|member| member.id() == name && member.incarnation() == generation && member.state() == State::Suspect)
    }

    /// Whether enough members other than this one were heard within the time to refute.
    fn hears_others(&self, now: Nanos, suspect: &Identity) -> bool {
        let span: Duration = self.timing.suspicion;
        let others = || self.peers.values().filter(|peer| peer.is_active() && peer.id.node != suspect.node);
        let heard = others().filter(|peer| peer.is_heard(now, span)).count();
        heard >= others().count().div_ceil(2).min(CONTACTS)
    }
}

/// How many contacts are always enough.
const CONTACTS: usize = 3;

/// How often a suspicion is kept back for a quarter of the time to refute.
const HELD_MAX: u32 = 12;

/// How often the bearer of a doubted name is told.
const DOUBT_TRIES: u32 = 3;
