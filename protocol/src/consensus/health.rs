//! Whether this leader is well enough to lead.
//!
//! A leader whose disk, links or event loop have become slow is not dead, so nobody suspects it; everything just takes long,
//! until it stalls for an election timeout and an election follows. It knows better and earlier than the others, and hands
//! over while it still can (E8).
//!
//! Three signs are measured, each as a span: the age of the oldest batch that the disk has not answered, how much later than
//! a heartbeat interval a quorum last answered, and how late our own timer fires. The worst of them
//! counts.
//!
//! # Invariants
//!
//! * A single bad moment moves nothing: a sign must be bad for a while, and it must become clearly good before it may be bad
//!   anew.
//! * Hand-overs by ourselves are rare, so that two sick nodes do not play ping-pong.
//! * The heir was heard lately and holds the whole log; otherwise we stay.

use std::time::Duration;

use crate::profile::Profile;
use crate::types::Nanos;

use super::{Consensus, Effect, HandOverCause, Symptom};

/// How a leader has felt lately.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Health {
    /// Since when the worst sign is bad.
    bad_since: Option<Nanos>,
    /// When we handed over last because of that.
    tried_at: Option<Nanos>,
    /// How late our timer fired last, and when.
    lag: Option<(Nanos, Duration)>,
}

impl Health {
    /// Forgets how it was, but not when it handed over.
    pub(super) fn reset(&mut self) {
        (self.bad_since, self.lag) = (None, None);
    }

    /// Notes that our timer fired this late.
    pub(super) fn note_lag(&mut self, now: Nanos, span: Duration) {
        self.lag = Some((now, span));
    }

    /// Judges the worst sign; says whether it has been bad for long enough to hand over now.
    fn judge(&mut self, now: Nanos, worst: Duration, profile: &Profile) -> bool {
        let bad = profile.election_timeout / 4;
        if worst < bad / 2 {
            self.bad_since = None;
        } else if worst >= bad {
            self.bad_since.get_or_insert(now);
        }
        let is_sick = self.bad_since.is_some_and(|since| now >= since + bad);
        is_sick && self.tried_at.is_none_or(|at| now >= at + profile.election_timeout * PAUSE)
    }

    /// How late it fired lately; a single time is forgotten before it could make us sick.
    fn recent_lag(&self, now: Nanos, profile: &Profile) -> Duration {
        let recent = self.lag.filter(|(at, _)| now < *at + profile.election_timeout / 4);
        recent.map_or(Duration::ZERO, |(_, span)| span)
    }
}

impl Consensus {
    /// On a leader, with every heartbeat: hands over if it is sick and somebody else is not.
    pub(super) fn check_health(&mut self, effects: &mut Vec<Effect>) {
        let profile = self.profile;
        let disk = self.pending_for();
        let links = self.now.since(self.quorum_contact()).saturating_sub(profile.heartbeat);
        let timer = self.health.recent_lag(self.now, &profile);
        let signs = [(disk, Symptom::Disk), (links, Symptom::Links), (timer, Symptom::Timer)];
        let (worst, symptom) = signs.into_iter().max_by_key(|(span, _)| *span).expect("there are three");
        if !self.health.judge(self.now, worst, &profile) || !self.may_hand_over() {
            return;
        }
        let last = self.log.last().index;
        if let Some(heir) = self.heir_among(|peer| peer.matched == last) {
            self.health.tried_at = Some(self.now);
            self.begin_transfer(heir, HandOverCause::Slow(symptom, worst), effects);
        }
    }
}

/// Election timeouts between two hand-overs that nobody asked for.
const PAUSE: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const BAD: Duration = Duration::from_millis(125);
    const MIDDLING: Duration = Duration::from_millis(100);
    const GOOD: Duration = Duration::from_millis(20);

    fn at(ms: u64) -> Nanos {
        Nanos(ms * 1_000_000)
    }

    /// Judges one sign after the other, 50 ms apart, and says at which of them a hand-over is due.
    fn judged(signs: &[Duration]) -> Option<usize> {
        let mut health = Health::default();
        signs.iter().enumerate().position(|(place, sign)| health.judge(at(place as u64 * 50), *sign, &Profile::LAN))
    }

    #[test]
    fn what_is_bad_for_a_while_is_sick() {
        assert_eq!(judged(&[GOOD, BAD, BAD, BAD, BAD, BAD]), Some(4));
    }

    #[test]
    fn a_bad_moment_is_forgotten_when_it_is_clearly_good_again() {
        assert_eq!(judged(&[BAD, BAD, GOOD, BAD, BAD, GOOD, BAD, BAD]), None);
        assert_eq!(judged(&[BAD, MIDDLING, MIDDLING, MIDDLING]), Some(3));
        assert_eq!(judged(&[MIDDLING; 20]), None);
    }

    #[test]
    fn the_next_try_waits() {
        let mut health = Health { tried_at: Some(at(0)), ..Health::default() };
        let tries: Vec<u64> = (1..200).filter(|beat| health.judge(at(beat * 50), BAD, &Profile::LAN)).collect();
        assert_eq!(tries[0], 100);
    }

    #[test]
    fn old_lateness_does_not_count() {
        let mut health = Health::default();
        health.note_lag(at(100), BAD);
        assert_eq!(health.recent_lag(at(224), &Profile::LAN), BAD);
        assert_eq!(health.recent_lag(at(225), &Profile::LAN), Duration::ZERO);
    }
}
