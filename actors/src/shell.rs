//! The one order in which what a machine decided is carried out: step, persist (batches, then images), send, hand on,
//! publish.
//!
//! A shell owns a machine, its timer and the buffer of its effects. Each actor is a shell with a mailbox; what an actor adds
//! is how the outside reaches its machine, never a decision.
//!
//! # Invariants
//!
//! * `now` is read when an input is handled, never when it was queued, so that a full mailbox makes a leader's lease shorter
//!   and a follower's promise longer, both on the safe side.
//! * A message leaves only when the batch that it names is durable.

use std::io;

use protocol::effects::{Effects, Event, Local};
use protocol::gate::Gate;
use protocol::{Nanos, client, master, replica, worker};

use crate::alarm::Alarm;
use crate::outlet::Outlet;

/// What every machine of `protocol` has in common.
pub(crate) trait Machine: Send + 'static {
    /// What it is told.
    type Input: Send + 'static;
    /// "A deadline may have passed", to be delivered to this machine.
    const TICK: fn() -> Local;

    /// Handles one input.
    fn step(&mut self, now: Nanos, input: Self::Input, effects: &mut Effects);
    /// When the next tick is due.
    fn next_deadline(&self) -> Nanos;
}

/// A machine, its timer and the way out.
pub(crate) struct Shell<M> {
    pub(crate) machine: M,
    pub(crate) outlet: Outlet,
    effects: Effects,
    gate: Gate,
    alarm: Alarm,
}

impl<M: Machine> Shell<M> {
    /// A shell around this machine. Must be called on a runtime.
    ///
    /// # Errors
    ///
    /// The system has no timer left.
    pub(crate) fn new(machine: M, outlet: Outlet) -> io::Result<Self> {
        let alarm = Alarm::new({
            let outlet = outlet.clone();
            move || outlet.deliver(M::TICK())
        })?;
        Ok(Self { machine, outlet, effects: Effects::new(), gate: Gate::default(), alarm })
    }

    /// Handles one input and carries out what follows; `publish` takes what the application may see.
    pub(crate) fn step(&mut self, input: M::Input, publish: impl FnMut(Event)) {
        self.machine.step(self.outlet.clock().now(), input, &mut self.effects);
        self.carry_out(publish);
    }

    /// All batches up to `seq` are durable: lets go what waited for them.
    pub(crate) fn open_gate(&mut self, seq: u64) {
        for outgoing in self.gate.open(seq) {
            self.outlet.send(outgoing.to, outgoing.body);
        }
    }

    fn carry_out(&mut self, publish: impl FnMut(Event)) {
        for batch in self.effects.persist.drain(..) {
            self.outlet.persist(batch);
        }
        for work in self.effects.images.drain(..) {
            self.outlet.image(work);
        }
        for outgoing in self.effects.send.drain(..) {
            if let Some(outgoing) = self.gate.pass(outgoing) {
                self.outlet.send(outgoing.to, outgoing.body);
            }
        }
        for local in self.effects.local.drain(..) {
            self.outlet.deliver(local);
        }
        self.effects.publish.drain(..).for_each(publish);
        self.alarm.set(self.machine.next_deadline(), self.outlet.clock());
    }
}

/// Says that a machine of `protocol` is one: all of them have the same two functions and their own words for a tick.
macro_rules! machine {
    ($machine:ty, $input:ty, $local:ident) => {
        impl Machine for $machine {
            type Input = $input;
            const TICK: fn() -> Local = || Local::$local(<$input>::Tick);

            fn step(&mut self, now: Nanos, input: Self::Input, effects: &mut Effects) {
                Self::step(self, now, input, effects);
            }

            fn next_deadline(&self) -> Nanos {
                Self::next_deadline(self)
            }
        }
    };
}

machine!(replica::Replica, replica::Input, Replica);
machine!(master::Mastership, master::Input, Master);
machine!(worker::Worker, worker::Input, Worker);
machine!(client::Client, client::Input, Client);
