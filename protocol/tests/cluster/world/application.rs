//! The application of a host: what it hears, the handlers that it runs, and what its client thinks of.

use super::*;

impl World {
    pub(super) fn publish(&mut self, at: usize, event: Event) {
        if self.is_told && !matches!(event, Event::Authority(_)) {
            println!("{} n{} says {event:?}", stamp(self.time), at + 1);
        }
        if let Some(seen) = &mut self.seen {
            seen.push(Seen::Said(at, event.clone()));
        }
        match event {
            Event::Start(run) => self.begin_attempt(at, run),
            Event::Abort { attempt, fence, .. } => self.abort_attempt(at, attempt.task, fence),
            Event::Completed { call, result } => {
                let is_safe = self.options.is_clock_bound_kept;
                let asked = self.history.asked(call);
                let verdict = self.history.complete((call, self.time), &result, &mut self.check.oracle, is_safe);
                self.judge(verdict);
                if let Some(asked) = asked {
                    self.heed(at, call, asked, &result);
                }
            }
            Event::Authority(Some(Authority { epoch, until })) => {
                let until = self.hosts[at].global(until);
                let verdict = self.check.one_valid_lease(at, self.time, Some((epoch, until)));
                self.judge(verdict);
            }
            Event::Kept { session, until } => self.note_kept(at, session, until),
            Event::Ended { session, why } => {
                let verdict = self.note_ended(at, session, why);
                self.judge(verdict);
            }
            Event::Fatal(_) if self.hosts[at].disk.has_failed => {
                let run = self.hosts[at].run;
                self.queue.add(self.time + MS, Happening::Leave { at, run });
            }
            Event::Fatal(why) if self.is_word_of_lists(&why) => {
                let run = self.hosts[at].run;
                self.queue.add(self.time + MS, Happening::Leave { at, run });
                self.queue.add(self.time + MS, Happening::Corrected);
            }
            Event::Fatal(why) => self.judge(Err(format!("I0 {} must stop: {why}", self.hosts[at].id))),
            Event::Drained => {
                let run = self.hosts[at].run;
                self.queue.add(self.time + MS, Happening::Leave { at, run });
            }
            Event::Authority(None)
            | Event::Role { .. }
            | Event::Part(_)
            | Event::Removed
            | Event::Founded(_)
            | Event::Note(_) => {}
        }
    }

    pub(super) fn begin_attempt(&mut self, at: usize, run: worker::Run) {
        let verdict = self.check.an_attempt_starts_once(self.hosts[at].id, &run);
        self.judge(verdict);
        self.history.witness.started(self.time, &run);
        let fence = run.grant.fence;
        self.hosts[at].running.insert(fence, run.grant.session);
        if let Some((span, outcome)) = behaviour(&run.grant.kind, run.grant.attempt, fence, self.dice.any()) {
            let run = self.hosts[at].run;
            self.queue.add(self.time + span.as_nanos() as u64, Happening::Handled { at, run, fence, outcome });
        }
    }

    /// A handler that is told to stop sees it a little later; what it has ready by then it still reports. Some never return.
    pub(super) fn abort_attempt(&mut self, at: usize, task: TaskId, fence: Fence) {
        if self.hosts[at].running.remove(&fence).is_none() {
            return;
        }
        let stopped = || Outcome::Failed { message: "stopped".into(), retry: true, output: bytes::Bytes::new() };
        let outcome = match self.dice.between(0, 999) {
            0..300 => result(task, fence),
            300..350 => return,
            _ => stopped(),
        };
        let (run, wait) = (self.hosts[at].run, self.dice.between(0, 20 * MS));
        self.queue.add(self.time + wait, Happening::Handled { at, run, fence, outcome });
    }

    pub(super) fn idea(&mut self, at: usize) {
        if self.is_idle {
            return;
        }
        let run = self.hosts[at].run;
        let wait = self.dice.between(self.options.pace / 2, self.options.pace * 3 / 2);
        self.queue.add(self.time + wait, Happening::Idea { at, run });
        let is_busy = self.hosts[at].machines.as_ref().is_none_or(|machines| machines.client.under_way() > 16);
        if !is_busy {
            // What is recorded must be able to end within the half minute after the faults.
            let room = 6 * self.options.nodes * self.options.slots as usize;
            let is_full = self.check.oracle.unfinished > room.min(40);
            let (call, work, timeout) = if self.options.sessions > 0 && self.dice.happens(self.options.sessions) {
                self.history.draw_session((at, self.time), &self.hosts[at], &mut self.dice)
            } else if self.options.rights > 0 && self.dice.happens(self.options.rights) {
                self.history.draw_right((at, self.time), &self.hosts[at], &self.check.oracle, &mut self.dice)
            } else {
                self.history.draw((at, self.time), &self.options, &mut self.dice, is_full)
            };
            self.call(at, call, work, timeout);
        }
    }

    /// Makes a call of a host's client.
    pub fn call(&mut self, at: usize, call: u64, work: client::Work, timeout: std::time::Duration) {
        self.hand_on(at, Part::Application, Local::Client(client::Input::Call { call, work, timeout }));
    }
}
