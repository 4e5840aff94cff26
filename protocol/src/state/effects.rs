//! Effects: what a task writes together with its result.
//!
//! An attempt reports its effects with its result, and both are judged by task and fence alone (F13). The effects are done in the
//! step that records the result, which happens at most once in the life of a task: however many attempts ran to their end, the
//! effects are there once. If one of them is refused, none is done and the attempt has failed for good (F9): another one would
//! come to the same.
//!
//! # Invariants
//!
//! * All effects of a result or none, under one revision, and none without the result.
//! * What was reported again, too late or by an attempt that was replaced changes no key and no counter.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::clients::Clients;
use super::counters::Counters;
use super::keys::{Ground, Keys};
use super::limits::{MAX_BYTES, MAX_EFFECTS, check_key};
use super::rights::Rights;
use super::{Delete, Expect, Put, Refused, Step};
use crate::wire::MAX_VALUE;

/// One thing that a task writes together with its result.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TaskEffect {
    /// Set a key for good, whatever is there. Refused if the key belongs to a session.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: Bytes,
    },
    /// Remove a key; one that is not there is no failure. Refused if the key belongs to a session.
    Delete(String),
    /// Add to a counter. Refused if the sum leaves the range of 64-bit integers.
    Add {
        /// The counter's name.
        counter: Arc<str>,
        /// May be negative.
        by: i64,
    },
}

impl TaskEffect {
    /// An upper bound of its encoding, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        20 + match self {
            Self::Put { key, value } => key.len() + value.len(),
            Self::Delete(key) => key.len(),
            Self::Add { counter, .. } => counter.len(),
        }
    }

    /// The key that it sets or removes.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Put { key, .. } | Self::Delete(key) => Some(key),
            Self::Add { .. } => None,
        }
    }

    /// The key or the counter that it changes.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Add { counter, .. } => counter,
            Self::Put { key, .. } | Self::Delete(key) => key,
        }
    }
}

/// Says in words why a result and its effects could never be recorded, whatever the state is: too long, too many, or one key twice.
pub(crate) fn check_result(output: &[u8], effects: &[TaskEffect]) -> Result<(), String> {
    let bytes = output.len() + effects.iter().map(TaskEffect::size).sum::<usize>();
    if bytes > MAX_VALUE {
        let what = if effects.is_empty() { "the result has" } else { "the result and its effects have" };
        return Err(format!("{what} {bytes} bytes, more than the limit of {MAX_VALUE}"));
    }
    if effects.len() > MAX_EFFECTS {
        return Err(format!("the result has {} effects, more than the limit of {MAX_EFFECTS}", effects.len()));
    }
    let mut written = BTreeSet::new();
    for effect in effects {
        check_key(effect.name()).map_err(|why| format!("an effect was refused: {why}"))?;
        if let Some(key) = effect.key().filter(|key| !written.insert(*key)) {
            return Err(format!("its effects write the key {key:?} twice"));
        }
    }
    Ok(())
}

/// All that effects can change, and what that depends on.
pub(super) struct Metadata<'a> {
    pub(super) keys: &'a mut Keys,
    pub(super) counters: &'a mut Counters,
    pub(super) clients: &'a Clients,
    pub(super) rights: &'a Rights,
    /// How many bytes all else takes.
    pub(super) others: u64,
}

impl Metadata<'_> {
    /// Does all of these or none. The caller has looked at them with [`check_result`].
    pub(super) fn perform(&mut self, effects: &[TaskEffect], step: &mut Step<'_>) -> Result<(), Refused> {
        if effects.is_empty() {
            return Ok(());
        }
        // Copies cost nothing; they take the place of the originals if no effect was refused.
        let (mut keys, mut counters) = (self.keys.clone(), self.counters.clone());
        let (revision, mut changes) = (step.upcoming(), Vec::new());
        for effect in effects {
            let limit = MAX_BYTES.saturating_sub(self.others + counters.bytes());
            match effect {
                TaskEffect::Put { key, value } => {
                    keys.require_unowned(key)?;
                    let ground = Ground { time: step.time, limit, clients: self.clients, rights: self.rights };
                    keys.put(&Put::new(key.as_str(), value.clone()), revision, &ground, &mut changes)?;
                }
                TaskEffect::Delete(key) => {
                    keys.require_unowned(key)?;
                    let delete = Delete { key: key.clone(), expect: Expect::Any };
                    match keys.delete(&delete, revision, &mut changes) {
                        Ok(()) | Err(Refused::NotFound) => {}
                        Err(refused) => return Err(refused),
                    }
                }
                TaskEffect::Add { counter, by } => {
                    counters.increase(counter, *by, limit.saturating_sub(keys.bytes()), revision)?;
                }
            }
        }
        // The record of the result is a change too: so it is all under this revision.
        step.grant();
        (*self.keys, *self.counters) = (keys, counters);
        step.changes.append(&mut changes);
        Ok(())
    }
}
