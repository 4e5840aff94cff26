//! The master: which attempt goes to which worker, and what is lost and goes again.
//!
//! A master exists only while its node leads: it begins with a copy of the state when the first entry of the epoch is
//! applied, follows what later entries change, and is dropped when leadership ends (F7). It decides nothing by itself: every
//! decision is proposed to the log, carries its preconditions, and counts when it comes back applied. So it needs no clock
//! and no lease, and an old decision does no harm wherever it lands.
//!
//! # Invariants
//!
//! * Nothing is dispatched before its grant has come back applied.
//! * Inputs of another epoch change nothing.
//! * A broken link moves no right; evidence of death moves at-least-once attempts at once; at-most-once attempts end only
//!   with the session, or where they certainly never started (D5, F8).
//! * What is under way is bounded; what does not fit is decided again later.

mod attempts;
mod board;
mod clock;
mod crew;
mod decisions;
mod machine;
mod message;
mod placement;
mod sessions;
#[cfg(test)]
mod tests;

pub use message::{Coming, Grant, Input, ToWorker};

use std::collections::BTreeMap;

use machine::Master;

use crate::effects::{Effects, Local};
use crate::profile::Profile;
use crate::replica;
use crate::state::MasterView;
use crate::types::{Epoch, Incarnation, Nanos, NodeId};

/// The place where a master is while this node leads, and what it must know at once when it begins: who is linked, and who
/// seems to be dead.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mastership {
    node: NodeId,
    profile: Profile,
    /// Links to other nodes. This node hears itself without one.
    links: BTreeMap<NodeId, Incarnation>,
    /// Runs that seem to be dead; a new link clears the name.
    dead: BTreeMap<NodeId, Incarnation>,
    master: Option<Master>,
}

impl Mastership {
    /// No master yet.
    #[must_use]
    pub fn new(node: NodeId, profile: Profile) -> Self {
        Self { node, profile, links: BTreeMap::new(), dead: BTreeMap::new(), master: None }
    }

    /// Handles one input. Whatever must follow from it is added to `effects`.
    pub fn step(&mut self, now: Nanos, input: Input, effects: &mut Effects) {
        match input {
            Input::Begin(view) => self.on_begin(now, *view, effects),
            Input::End { epoch } => self.on_end(epoch, effects),
            Input::Surrender { epoch } => {
                self.on_end(epoch, effects);
                effects.local.push(Local::Replica(replica::Input::Surrendered { epoch }));
            }
            Input::LinkUp { node, incarnation } => self.on_link_up(node, incarnation, effects),
            Input::LinkDown { node, incarnation } => self.on_link_down(node, incarnation),
            Input::Evidence { node, incarnation } => self.on_evidence(node, incarnation, effects),
            Input::Unsent { node, task, fence } => {
                if let Some(master) = &mut self.master {
                    master.on_unsent(node, task, fence);
                }
            }
            Input::Writable { node } => {
                if let Some(master) = &mut self.master {
                    master.on_writable(node, effects);
                }
            }
            Input::Message { from, incarnation, message } => {
                if self.is_linked(from, incarnation)
                    && let Some(master) = &mut self.master
                {
                    master.on_message(now, from, incarnation, message, effects);
                }
            }
            Input::Applied { epoch, time, changes } => {
                if let Some(master) = self.of(epoch) {
                    master.on_applied(now, time, changes, effects);
                }
            }
            Input::Submitting { epoch, tasks } => {
                if let Some(master) = self.of(epoch) {
                    master.on_submitting(now, tasks, effects);
                }
            }
            Input::Dropped { epoch } => {
                if let Some(master) = self.of(epoch) {
                    master.on_dropped(now);
                }
            }
            Input::Tick => {}
        }
        if let Some(master) = &mut self.master {
            master.decide(now, effects);
        }
    }

    /// When [`Input::Tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Nanos {
        self.master.as_ref().map_or(Nanos::NEVER, Master::next_deadline)
    }

    /// The epoch in which this node is at work as master.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.master.as_ref().map(Master::epoch)
    }

    fn on_begin(&mut self, now: Nanos, view: MasterView, effects: &mut Effects) {
        if self.epoch().is_some_and(|epoch| epoch >= view.epoch) {
            return;
        }
        let mut master = Master::new(self.node, self.profile, now, view, effects);
        for &node in self.links.keys() {
            master.on_link_up(node, effects);
        }
        for (&node, &incarnation) in &self.dead {
            master.on_evidence(node, incarnation, effects);
        }
        self.master = Some(master);
    }

    fn on_end(&mut self, epoch: Epoch, effects: &mut Effects) {
        if self.of(epoch).is_some() {
            self.master = None;
            effects.note(format!("master no more: epoch {epoch} is over"));
        }
    }

    fn on_link_up(&mut self, node: NodeId, incarnation: Incarnation, effects: &mut Effects) {
        if node == self.node {
            return;
        }
        self.links.insert(node, incarnation);
        self.dead.remove(&node);
        if let Some(master) = &mut self.master {
            master.on_link_up(node, effects);
        }
    }

    fn on_link_down(&mut self, node: NodeId, incarnation: Incarnation) {
        if self.links.get(&node) != Some(&incarnation) {
            return;
        }
        self.links.remove(&node);
        if let Some(master) = &mut self.master {
            master.on_link_down(node);
        }
    }

    fn on_evidence(&mut self, node: NodeId, incarnation: Incarnation, effects: &mut Effects) {
        // A link that is up, or a newer run, is the better witness.
        if node == self.node || self.links.get(&node).is_some_and(|&linked| linked >= incarnation) {
            return;
        }
        if !self.dead.contains_key(&node) && self.dead.len() >= DEAD_MAX {
            self.dead.pop_first();
        }
        self.dead.insert(node, incarnation);
        if let Some(master) = &mut self.master {
            master.on_evidence(node, incarnation, effects);
        }
    }

    fn of(&mut self, epoch: Epoch) -> Option<&mut Master> {
        self.master.as_mut().filter(|master| master.epoch() == epoch)
    }

    fn is_linked(&self, node: NodeId, incarnation: Incarnation) -> bool {
        node == self.node || self.links.get(&node) == Some(&incarnation)
    }
}

/// How many dead runs are remembered. Forgetting one costs time only: its session expires.
const DEAD_MAX: usize = 1024;
