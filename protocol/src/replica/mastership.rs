//! Mastership on this node: how it begins in an epoch, and how it is handed over.
//!
//! # Invariants
//!
//! * The master is built from the state as it is applied, once per epoch; a hand-over that is given up builds it again.
//! * A hand-over goes on only after the master has stopped (F6).

use super::Replica;
use super::batch::Waiter;
use crate::effects::{Effects, Local};
use crate::state::{Answer, Refused};
use crate::types::{Epoch, Nanos, NodeId};
use crate::{consensus, master};

use super::Input;

impl Replica {
    /// Builds the master of this epoch from the state as it is.
    pub(super) fn begin_mastering(&mut self, effects: &mut Effects) {
        let epoch = self.consensus.epoch();
        self.mastering = Some(epoch);
        let view = self.state.master_view(epoch);
        effects.local.push(Local::Master(master::Input::Begin(Box::new(view))));
        self.say_leads(None, effects);
    }

    /// An operator's order. One that was meant for an earlier leadership is carried out already.
    pub(super) fn on_hand_over(
        &mut self,
        now: Nanos,
        waiter: Waiter,
        to: Option<NodeId>,
        epoch: Epoch,
        effects: &mut Effects,
    ) {
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

    pub(super) fn on_transfer(&mut self, now: Nanos, to: Option<NodeId>, effects: &mut Effects) {
        let Some(to) = to.or_else(|| self.consensus.heir()) else {
            return effects.note("mastership stays here: no other voter was heard");
        };
        let context = self.context();
        self.core(now, consensus::Input::Transfer { context, to }, effects);
    }

    /// Stops the master, which says when nothing more comes from it; where there is none yet, nothing can come.
    pub(super) fn surrender(&mut self, epoch: Epoch, effects: &mut Effects) {
        let input = match self.mastering.take() {
            Some(_) => Local::Master(master::Input::Surrender { epoch }),
            None => Local::Replica(Input::Surrendered { epoch }),
        };
        effects.local.push(input);
    }

    /// The hand-over was given up: the master of this epoch is built again, from a copy of what is applied by now.
    pub(super) fn resume(&mut self, effects: &mut Effects) {
        if self.consensus.is_at_work() {
            self.begin_mastering(effects);
        }
    }
}
