//! Questions whose answer is still to come.
//!
//! Each waits for what it is about. When an applied entry changes that, the question is asked again, and answered or put back.
//! A client that still waits asks again in time, which takes the same place anew; one that does not tells nobody.
//!
//! # Invariants
//!
//! * A request has one place. The places are bounded, and each is given up by time.

use std::collections::BTreeMap;

use super::batch::Waiter;
use crate::client::Origin;
use crate::state::{Query, RightId};
use crate::types::{ClaimId, Nanos, NodeId, SessionId, TaskId};

/// Who waits for what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Waiting {
    places: BTreeMap<Subject, BTreeMap<Origin, Place>>,
    /// The weight of all places.
    len: usize,
}

/// What a question can wait for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Subject {
    /// A session of a node that begins, ends or offers something else.
    Nodes,
    /// The end of a task.
    Task(TaskId),
    /// The end of a claim of this session.
    Claims(SessionId),
    /// A change of a key that begins with this.
    Keys(String),
    /// A claim that is in line.
    Claim(ClaimId),
    /// A change of a right.
    Right(RightId),
}

/// One question that waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// Who asks.
    pub(super) waiter: Waiter,
    /// What to ask again.
    pub(super) query: Query,
    /// When the place is given up.
    pub(super) until: Nanos,
}

impl Waiting {
    /// Lets a question wait, in the place of an earlier try of it. Says whether there was room.
    pub(super) fn insert(&mut self, subject: Subject, place: Place) -> bool {
        if self.len + place.weight() > WAITING_MAX {
            return false;
        }
        self.len += place.weight();
        let of_subject = self.places.entry(subject).or_default();
        let earlier = of_subject.insert(place.waiter.origin.request(), place);
        self.len -= earlier.as_ref().map_or(0, Place::weight);
        true
    }

    /// Takes everybody who waits for this.
    pub(super) fn take(&mut self, subject: &Subject) -> impl Iterator<Item = Place> + use<> {
        let places = self.places.remove(subject).unwrap_or_default();
        self.len -= places.values().map(Place::weight).sum::<usize>();
        places.into_values()
    }

    /// Takes everybody who may be told something old here from now on: a watch goes on at any replica.
    pub(super) fn take_unless_watching(&mut self) -> Vec<Place> {
        self.take_if(|place| !matches!(place.query, Query::Watch(_)))
    }

    /// Takes everybody.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Place> + use<> {
        self.len = 0;
        std::mem::take(&mut self.places).into_values().flat_map(BTreeMap::into_values)
    }

    /// Takes everybody whose time is over.
    pub(super) fn take_due(&mut self, now: Nanos) -> Vec<Place> {
        self.take_if(|place| place.until <= now)
    }

    /// Forgets who asked over a link that broke.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.take_if(|place| place.waiter.from == node);
    }

    /// What is waited for that a change of this key is part of.
    pub(super) fn watching(&self, key: &str) -> Vec<Subject> {
        let mut prefix = Subject::Keys(String::new());
        let mut watched = Vec::new();
        for next in std::iter::once(None).chain(key.chars().map(Some)) {
            if let Subject::Keys(prefix) = &mut prefix {
                prefix.extend(next);
            }
            if self.places.contains_key(&prefix) {
                watched.push(prefix.clone());
            }
        }
        watched
    }

    /// Says whether somebody waits for a change of a key or a right, and wants to hear of it at once.
    pub(super) fn wants_commits(&self) -> bool {
        self.places.range(Subject::Keys(String::new())..).next().is_some()
    }

    /// Says whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn take_if(&mut self, is_meant: impl Fn(&Place) -> bool) -> Vec<Place> {
        let mut taken = Vec::new();
        self.places.retain(|_, places| {
            taken.extend(places.extract_if(.., |_, place| is_meant(place)).map(|(_, place)| place));
            !places.is_empty()
        });
        self.len -= taken.iter().map(Place::weight).sum::<usize>();
        taken
    }
}

impl Place {
    /// How many questions of the usual length it counts for.
    fn weight(&self) -> usize {
        match &self.query {
            Query::AwaitEnd { claims, .. } => 1 + claims.len() / CLAIMS_PER_PLACE,
            _ => 1,
        }
    }
}

/// How many questions may wait, long ones counted as several; one more is `Busy`.
const WAITING_MAX: usize = 262_144;

/// So many claims take as much memory as any other question.
const CLAIMS_PER_PLACE: usize = 64;
