//! The sessions that a client keeps alive for its application.
//!
//! The application must know of the end of a session before anybody else can be given what it owned. So its end is counted
//! from the moment at which the renewal was first asked for, which is before the log heard of it, and shortened by what our
//! clock may run slower than the one that stamps the log (F10). When it comes without a renewal, the session is over for the
//! application, whatever the cluster thinks.
//!
//! # Invariants
//!
//! * The end that is published for a session only moves later.
//! * A session is asked for in at most one renewal at a time.
//! * Every kept session stands in `wakes` once, at the time that [`Kept::wake`] names.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::mutants::{Bug, is_on};
use crate::profile::shortened;
use crate::state::limits::MAX_RENEWED;
use crate::types::{Nanos, SessionId};

/// The book of kept sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Keeping {
    kept: BTreeMap<SessionId, Kept>,
    wakes: BTreeSet<(Nanos, SessionId)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kept {
    ttl: Duration,
    /// The end for the application, unless it is renewed.
    until: Nanos,
    /// When to ask for the next renewal; never while one is asked for.
    renew_at: Nanos,
}

impl Keeping {
    /// Takes a session that was asked for at `asked`; returns its end.
    pub(super) fn keep(&mut self, session: SessionId, ttl: Duration, asked: Nanos) -> Nanos {
        let kept = Kept { ttl, until: end(asked, ttl), renew_at: asked + ttl / 3 };
        if let Some(before) = self.kept.insert(session, kept) {
            self.wakes.remove(&(before.wake(), session));
        }
        self.wakes.insert((kept.wake(), session));
        kept.until
    }

    /// The renewal that was first asked for at `asked` counts; returns the new end, if we still keep the session.
    pub(super) fn renewed(&mut self, session: SessionId, asked: Nanos) -> Option<Nanos> {
        self.change(session, |kept| {
            kept.until = kept.until.max(end(asked, kept.ttl));
            kept.renew_at = asked + kept.ttl / 3;
        })
    }

    /// Nobody answered for this session: when to ask again.
    pub(super) fn renew_next(&mut self, session: SessionId, at: Nanos) {
        self.change(session, |kept| kept.renew_at = at);
    }

    /// We do not keep this session any more; says whether we did.
    pub(super) fn forget(&mut self, session: SessionId) -> bool {
        let Some(kept) = self.kept.remove(&session) else { return false };
        self.wakes.remove(&(kept.wake(), session))
    }

    /// Whose time is over. They are kept no more.
    pub(super) fn take_ended(&mut self, now: Nanos) -> Vec<SessionId> {
        let is_ended = |session: &SessionId| self.kept[session].until <= now;
        let ended: Vec<SessionId> = self.awake(now).filter(is_ended).collect();
        for session in &ended {
            self.forget(*session);
        }
        ended
    }

    /// The sessions for the next renewal, if one is due: those that are due soon go with it.
    pub(super) fn take_due(&mut self, now: Nanos) -> Vec<SessionId> {
        let is_due = |ahead: u32, session: &SessionId| {
            let kept = &self.kept[session];
            kept.renew_at <= now + kept.ttl / 6 * ahead
        };
        if !self.awake(now).any(|session| is_due(0, &session)) {
            return Vec::new();
        }
        let next = self.wakes.iter().map(|&(_, session)| session);
        let due: Vec<SessionId> = next.filter(|session| is_due(1, session)).take(MAX_RENEWED).collect();
        for session in &due {
            self.change(*session, |kept| kept.renew_at = Nanos::NEVER);
        }
        due
    }

    /// The shortest time to live of these.
    pub(super) fn shortest(&self, sessions: &[SessionId]) -> Option<Duration> {
        sessions.iter().filter_map(|session| self.kept.get(session)).map(|kept| kept.ttl).min()
    }

    /// When something is to be done here.
    pub(super) fn next_wake(&self) -> Nanos {
        self.wakes.first().map_or(Nanos::NEVER, |&(at, _)| at)
    }

    fn awake(&self, now: Nanos) -> impl Iterator<Item = SessionId> {
        self.wakes.range(..=(now, SessionId(u64::MAX))).map(|&(_, session)| session)
    }

    fn change(&mut self, session: SessionId, change: impl FnOnce(&mut Kept)) -> Option<Nanos> {
        let kept = self.kept.get_mut(&session)?;
        self.wakes.remove(&(kept.wake(), session));
        change(kept);
        self.wakes.insert((kept.wake(), session));
        Some(kept.until)
    }
}

impl Kept {
    fn wake(&self) -> Nanos {
        self.until.min(self.renew_at)
    }
}

/// When a session is over for its application.
fn end(asked: Nanos, ttl: Duration) -> Nanos {
    if is_on(Bug::WaitsToBeTold) {
        return Nanos::NEVER;
    }
    asked + shortened(ttl).saturating_sub(TICK)
}

/// The granularity of cluster time: what is stamped there may be this much older than it says.
const TICK: Duration = Duration::from_millis(1);
