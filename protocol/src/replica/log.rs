//! The way into the log and out of it: commands become entries, and committed entries change the state.
//!
//! # Invariants
//!
//! * A decision of the master enters the log only in the epoch in which it was made (F7).
//! * An entry of another epoch at the place of ours means that ours is certainly not in the log (F30).

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::Replica;
use super::batch::{self, Placed, Taken};
use super::requests::Question;
use super::waiting::Subject;
use crate::client::Denied;
use crate::consensus;
use crate::durable::{Entry, Payload};
use crate::effects::{Effects, Event, Local};
use crate::master;
use crate::state::{ClusterChange, Command, Operation};
use crate::types::{Epoch, Index, Nanos};

impl Replica {
    /// Hands the gathered commands to consensus, unless the store is still busy with an entry of ours and there is room to
    /// gather more, too much waits for its commit, or the master is being asked about tasks among them.
    pub(super) fn propose_batch(&mut self, now: Nanos, effects: &mut Effects) {
        loop {
            let has_room = self.consensus.has_room();
            if !self.batch.is_ready(self.consensus.last().index > self.consensus.durable(), has_room) {
                return;
            }
            // Without room no submission goes into this entry.
            if has_room {
                if let (Some(epoch), Some(tasks)) = (self.mastering, self.coming.ask(now)) {
                    effects.local.push(Local::Master(master::Input::Submitting { epoch, tasks }));
                }
                if self.coming.is_waiting() {
                    return;
                }
            }
            let Taken { payload, proposed } = self.batch.take(has_room);
            let context = self.context();
            self.proposed.insert(context, proposed);
            let epoch = self.consensus.epoch();
            self.core(now, consensus::Input::Propose { context, epoch, payload }, effects);
        }
    }

    pub(super) fn on_propose(&mut self, epoch: Epoch, commands: Vec<Command>, effects: &mut Effects) {
        if self.mastering != Some(epoch) {
            effects.local.push(Local::Master(master::Input::Dropped { epoch }));
            return;
        }
        // The order of what the master decides means something: where one finds no room, none goes that stands behind it.
        if commands.into_iter().any(|command| self.batch.push(command, None).is_err()) {
            effects.local.push(Local::Master(master::Input::Dropped { epoch }));
        }
    }

    pub(super) fn on_dropped(&mut self, context: u64, why: consensus::Drop, effects: &mut Effects) {
        if let consensus::Drop::Change(refusal) = why {
            effects.note(format!("the voters stay as they are: {refusal}"));
        }
        let denied = match why {
            consensus::Drop::NotLeader | consensus::Drop::Epoch | consensus::Drop::Behind => Denied::NotMaster,
            consensus::Drop::Busy
            | consensus::Drop::HandOver
            | consensus::Drop::NoVoter
            | consensus::Drop::Change(_) => Denied::Busy,
        };
        if let Some(Question { waiter, .. }) = self.reads.remove(&context) {
            self.respond(waiter, Err(denied), effects);
        }
        if let Some(proposed) = self.proposed.remove(&context) {
            for Placed { waiter, .. } in proposed.waiters {
                self.respond(waiter, Err(denied), effects);
            }
            if let Some(epoch) = self.mastering.filter(|_| proposed.has_decisions) {
                effects.local.push(Local::Master(master::Input::Dropped { epoch }));
            }
        }
    }

    /// Applies committed entries, answers whoever waited for them, and tells the master.
    pub(super) fn apply(&mut self, range: RangeInclusive<Index>, effects: &mut Effects) {
        let mut changes = Vec::new();
        let (first, last) = (range.start().0, range.end().0);
        for index in first..=last {
            // Cloning an entry copies no payload: it is a counted reference.
            let entry = self.consensus.entries(Index(index)..=Index(index))[0].clone();
            self.exchange.note_applied(entry.payload.command_bytes());
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
            self.answer_watching(&mut changes, effects);
            self.answer_changed(&changes, effects);
            self.tell_master(&mut changes, &entry, effects);
        }
    }

    pub(super) fn apply_commands(
        &mut self,
        entry: &Entry,
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

    /// Asks the questions again whose answer may have come.
    fn answer_changed(&mut self, changes: &[ClusterChange], effects: &mut Effects) {
        if self.waiting.is_empty() {
            return;
        }
        for change in changes {
            match change {
                ClusterChange::Ended { task, .. } => self.answer_waiting(&Subject::Task(*task), effects),
                ClusterChange::NodeOpened(_) | ClusterChange::NodeEnded { .. } => {
                    self.answer_waiting(&Subject::Nodes, effects);
                }
                ClusterChange::Right(change) => {
                    let granted = change.granted.iter().map(|(claim, _)| claim);
                    for &claim in granted.chain(change.ended.iter().map(|(claim, _)| claim)) {
                        self.answer_waiting(&Subject::Claim(claim), effects);
                    }
                    for session in change.ended.iter().map(|(_, session)| *session).collect::<BTreeSet<_>>() {
                        self.answer_waiting(&Subject::Claims(session), effects);
                    }
                    self.answer_waiting(&Subject::Right(change.right.clone()), effects);
                }
                _ => {}
            }
        }
    }

    pub(super) fn tell_master(&self, changes: &mut Vec<ClusterChange>, entry: &Entry, effects: &mut Effects) {
        let changes = std::mem::take(changes);
        if let Some(epoch) = self.mastering {
            effects.local.push(Local::Master(master::Input::Applied { epoch, time: entry.time, changes }));
        }
    }
}
