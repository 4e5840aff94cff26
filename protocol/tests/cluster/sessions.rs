//! Sessions of applications: none ends for the log before it has ended for its application, unless by proof or by somebody's
//! wish (I6).
//!
//! # Invariants
//!
//! * What an application believes is what its client told it last; a process that crashed believes nothing.

use std::collections::BTreeMap;

use protocol::client::{Loss, Standing};
use protocol::state::{About, Answer, ClientEnd, ClusterChange, Command, Operation};
use protocol::{Nanos, SessionId};

use crate::check::Verdict;
use crate::travel::place;
use crate::world::World;

/// What the log says of the sessions that own things.
#[derive(Default)]
pub struct Owners {
    /// What each said of itself.
    about: BTreeMap<SessionId, About>,
    /// Which call opened which.
    opened: BTreeMap<String, SessionId>,
    /// Those that ended since somebody looked.
    pub ended: Vec<(SessionId, ClientEnd)>,
}

impl Owners {
    /// Takes note of a command of the log.
    pub fn follow(&mut self, command: &Command, answer: &Answer, changes: &[ClusterChange]) -> Verdict {
        if let (Command::Client { operation: Operation::OpenSession(opening), .. }, &Answer::Registered(session)) =
            (command, answer)
        {
            let label = opening.about.label.clone();
            let first = *self.opened.entry(label).or_insert(session);
            if first != session {
                return Err(format!("I3 one call opened two sessions: {first} and {session}"));
            }
            self.about.insert(session, opening.about.clone());
        }
        for change in changes {
            if let ClusterChange::ClientEnded { session, cause } = *change {
                self.ended.push((session, cause));
            }
        }
        Ok(())
    }

    /// The session that was opened under this label.
    pub fn named(&self, label: &str) -> Option<SessionId> {
        self.opened.get(label).copied()
    }

    /// The label of a session that owns things.
    pub fn label(&self, session: SessionId) -> Option<&str> {
        self.about.get(&session).map(|about| about.label.as_str())
    }
}

impl World {
    /// I6, F12: what ended in the log since we looked was over for its application, or had another good reason.
    pub(crate) fn sessions_end_with_a_reason(&mut self) -> Verdict {
        for (session, cause) in std::mem::take(&mut self.check.oracle.owners.ended) {
            let about = self.check.oracle.owners.about.get(&session);
            match cause {
                ClientEnd::Expired if self.options.is_clock_bound_kept => {
                    self.is_over(session)?;
                    self.no_work_outlives_its_session(session)?;
                }
                ClientEnd::Evidence if !about.is_some_and(|about| about.fast_release) => {
                    return Err(format!("I6 evidence ended {session}, which asked for proof"));
                }
                ClientEnd::Proven => self.is_proven(session, about)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// F10: whoever owned something under this session knew of its end before, by its own clock.
    fn is_over(&self, session: SessionId) -> Verdict {
        for host in &self.hosts {
            if let Some(&until) = host.kept.get(&session)
                && until > self.time
            {
                let left = (until - self.time) / 1_000;
                return Err(format!("I6 {session} has expired, and {} relies on it for {left} us more", host.id));
            }
        }
        Ok(())
    }

    /// F12: the process of a session that was proven dead is dead.
    fn is_proven(&self, session: SessionId, about: Option<&About>) -> Verdict {
        let Some(run) = about.and_then(|about| about.host) else {
            return Err(format!("I6 {session} has no host that could have died"));
        };
        let host = &self.hosts[place(run.node)];
        let lives = host.id == run.node && host.run == run.incarnation.0 && host.machines.is_some();
        if lives { Err(format!("I6 {session} was proven dead, and its process lives")) } else { Ok(()) }
    }

    /// An application hears that its session lives until then.
    pub(crate) fn note_kept(&mut self, at: usize, session: SessionId, until: Nanos) {
        let host = &mut self.hosts[at];
        host.kept.insert(session, host.global(until));
        host.guards.note(session, Standing::Until(until));
        self.history.witness.locks.is_relied_on(session);
    }

    /// An application hears that its session is over: if the cluster says so, it is true.
    pub(crate) fn note_ended(&mut self, at: usize, session: SessionId, why: Loss) -> Verdict {
        if let Some(until) = self.hosts[at].kept.remove(&session) {
            self.history.witness.locks.may_be_over(session, until.min(self.time));
        }
        self.hosts[at].guards.note(session, Standing::Ended(why));
        self.wake_works(at, session);
        if why == Loss::Gone && self.check.oracle.state.has_session(session) {
            return Err(format!("I6 {session} lives, and n{} was told that it ended", at + 1));
        }
        Ok(())
    }

    /// What a host relies on may be over: it crashes, or the time of some of it has passed and it has not looked.
    pub(crate) fn note_relied_on(&mut self, at: usize, crashes: bool) {
        for (&session, &until) in &self.hosts[at].kept {
            if crashes || until <= self.time {
                self.history.witness.locks.may_be_over(session, until.min(self.time));
            }
        }
    }

    /// I11: long after the faults, applications rely on nothing that has ended, and nothing outlives its process.
    pub fn sessions_live_with_their_owners(&self) -> Verdict {
        let state = &self.check.oracle.state;
        for host in &self.hosts {
            if let Some(session) = host.kept.keys().find(|session| !state.has_session(**session)) {
                return Err(format!("I11 {session} has ended, and {} still relies on it", host.id));
            }
        }
        let is_kept = |session: &&SessionId| self.hosts.iter().any(|host| host.kept.contains_key(session));
        match self.check.oracle.owners.about.keys().find(|session| state.has_session(**session) && !is_kept(session)) {
            Some(session) => Err(format!("I11 {session} lives, and nobody relies on it any more")),
            None => Ok(()),
        }
    }
}
