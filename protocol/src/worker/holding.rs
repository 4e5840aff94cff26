//! What a worker has in hand: attempts that run, results that wait for their judgement, and what is over.
//!
//! # Invariants
//!
//! * Every fence is in one place: running or ended (then it is held), or gone.
//! * The memory of what is gone is bounded. The highest fences are the ones remembered; of those below, nothing is known but that they
//!   may have started here.

use std::collections::{BTreeMap, BTreeSet};

use super::message::Held;
use crate::state::{Begun, Outcome};
use crate::types::{Attempt, Fence, Nanos};

/// All attempts that this run has heard of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Hand {
    running: BTreeMap<Fence, Running>,
    ended: BTreeMap<Fence, Ended>,
    gone: BTreeMap<Fence, Gone>,
    /// Handlers that were told to stop and have not returned.
    stopping: BTreeSet<Fence>,
    /// The highest of those that were gone and are forgotten.
    forgotten: Fence,
}

/// An attempt whose handler is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Running {
    pub(super) attempt: Attempt,
    /// When it must stop.
    pub(super) deadline: Nanos,
}

/// A result that the log has not judged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ended {
    pub(super) attempt: Attempt,
    pub(super) outcome: Outcome,
}

/// What is neither running nor waiting for a judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Gone {
    attempt: Attempt,
    end: End,
}

/// How an attempt came to be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum End {
    /// Its handler was told to stop and may have had a result before it saw that.
    Stopped,
    /// It never started here, and never will.
    Declined,
    /// It is over, and that is all that is known.
    Over,
}

impl Hand {
    /// Its handler begins.
    pub(super) fn start(&mut self, fence: Fence, running: Running) {
        self.running.insert(fence, running);
    }

    /// It has a result, with or without having run.
    pub(super) fn end(&mut self, fence: Fence, ended: Ended) {
        self.running.remove(&fence);
        self.gone.remove(&fence);
        self.ended.insert(fence, ended);
    }

    /// Its handler is told to stop. What it had ready before it saw that may still be reported.
    pub(super) fn stop(&mut self, fence: Fence) -> Option<Running> {
        let running = self.running.remove(&fence)?;
        self.bury(fence, Gone { attempt: running.attempt, end: End::Stopped });
        self.stopping.insert(fence);
        Some(running)
    }

    /// Its handler has returned.
    pub(super) fn settle(&mut self, fence: Fence) {
        self.stopping.remove(&fence);
    }

    /// It is judged, or cancelled.
    pub(super) fn forget(&mut self, fence: Fence, attempt: Attempt) {
        self.ended.remove(&fence);
        if !self.running.contains_key(&fence) {
            self.bury(fence, Gone { attempt, end: End::Over });
        }
    }

    /// It is neither running nor ended, and will not start here. Says whether it certainly never did.
    pub(super) fn decline(&mut self, fence: Fence, attempt: Attempt) -> bool {
        self.bury(fence, Gone { attempt, end: End::Declined });
        self.gone.get(&fence).is_some_and(|gone| gone.end == End::Declined)
    }

    /// The attempt whose handler may still speak under this fence, and whether it was told to stop.
    pub(super) fn speaker(&self, fence: Fence) -> Option<(Attempt, bool)> {
        let running = self.running.get(&fence).map(|running| (running.attempt, false));
        running
            .or_else(|| self.gone.get(&fence).filter(|gone| gone.end == End::Stopped).map(|gone| (gone.attempt, true)))
    }

    /// Attempts that run.
    pub(super) fn running(&self) -> &BTreeMap<Fence, Running> {
        &self.running
    }

    /// Results that wait for their judgement.
    pub(super) fn ended(&self) -> &BTreeMap<Fence, Ended> {
        &self.ended
    }

    /// Says whether this fence was heard of before, or may have been.
    pub(super) fn is_known(&self, fence: Fence) -> bool {
        self.running.contains_key(&fence)
            || self.ended.contains_key(&fence)
            || self.gone.contains_key(&fence)
            || fence <= self.forgotten
    }

    /// What is held: running, or ended and not yet judged.
    pub(super) fn held(&self) -> Vec<Held> {
        let running = self.running.iter().map(|(&fence, running)| Held { attempt: running.attempt, fence });
        let ended = self.ended.iter().map(|(&fence, ended)| Held { attempt: ended.attempt, fence });
        running.chain(ended).collect()
    }

    /// Says whether nothing is held, and no handler is at work any more.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty() && self.ended.is_empty() && self.stopping.is_empty()
    }

    /// What may have begun here and was not judged.
    pub(super) fn begun(&self) -> Begun {
        let stopped = self.gone.iter().filter(|(_, gone)| gone.end == End::Stopped).map(|(fence, _)| fence);
        let fences = self.running.keys().chain(self.ended.keys()).chain(stopped).copied().collect();
        Begun { through: self.forgotten, fences }
    }

    fn bury(&mut self, fence: Fence, gone: Gone) {
        if fence > self.forgotten {
            self.gone.entry(fence).or_insert(gone);
        }
        if self.gone.len() > GONE_MAX
            && let Some((lowest, _)) = self.gone.pop_first()
        {
            self.forgotten = lowest;
        }
    }
}

/// How many attempts that are over are remembered.
pub(super) const GONE_MAX: usize = 4096;
