//! Transactions: several keys in one step.
//!
//! A transaction works on a copy, which costs nothing, and the copy takes the original's place if no step was refused.

use std::collections::BTreeSet;

use super::{Ground, Keys, expected};
use crate::mutants::{Bug, is_on};
use crate::state::limits::{MAX_STEPS, MAX_TRANSACTION_READ, check_key, check_size};
use crate::state::{ClusterChange, Condition, KeyOperation, KeyResult, Refused, Step, Transacted, Transaction};
use crate::types::Revision;
use crate::wire::MAX_VALUE;

impl Keys {
    /// Does one of the branches, or nothing at all.
    pub(in crate::state) fn transact(
        &mut self,
        transaction: &Transaction,
        ground: &Ground<'_>,
        step: &mut Step<'_>,
    ) -> Result<Transacted, Refused> {
        transaction.check()?;
        let held = transaction.when.iter().all(|condition| self.holds(condition, ground));
        let branch = if held { &transaction.then } else { &transaction.or_else };
        let (revision, mut draft) = (step.upcoming(), self.clone());
        let mut changes = Vec::new();
        let results = draft.perform(self, branch, revision, ground, &mut changes)?;
        let revision = if changes.is_empty() { *step.revision } else { step.grant() };
        *self = draft;
        step.changes.append(&mut changes);
        Ok(Transacted { held, results, revision })
    }

    fn perform(
        &mut self,
        before: &Self,
        branch: &[KeyOperation],
        revision: Revision,
        ground: &Ground<'_>,
        changes: &mut Vec<ClusterChange>,
    ) -> Result<Vec<KeyResult>, Refused> {
        let mut written = BTreeSet::new();
        let mut read = 0;
        let mut results = Vec::with_capacity(branch.len());
        for operation in branch {
            results.push(match operation {
                KeyOperation::Get(key) => {
                    let keys = if is_on(Bug::TransactionReadsOld) { before } else { &*self };
                    let found = keys.get(key).cloned();
                    read += found.as_ref().map_or(0, |value| value.value.len());
                    check_size(read, MAX_TRANSACTION_READ)?;
                    KeyResult::Found(found)
                }
                KeyOperation::Put(put) => {
                    let key = put.key_at(revision);
                    write_once(&mut written, &key)?;
                    self.put(put, revision, ground, changes)?;
                    KeyResult::Written(key)
                }
                KeyOperation::Delete(delete) => {
                    write_once(&mut written, &delete.key)?;
                    match self.delete(delete, revision, changes) {
                        Err(Refused::NotFound) => KeyResult::Deleted(false),
                        done => done.map(|()| KeyResult::Deleted(true))?,
                    }
                }
            });
        }
        Ok(results)
    }

    fn holds(&self, condition: &Condition, ground: &Ground<'_>) -> bool {
        match condition {
            Condition::Key { key, expect } => expected(*expect, self.revision_of(key)).is_ok(),
            Condition::Value { key, value } => self.get(key).is_some_and(|found| found.value == *value),
            Condition::Lives(session) => ground.clients.require(*session).is_ok(),
            Condition::Held { right, fence } => ground.rights.is_held(right, *fence),
        }
    }
}

impl Transaction {
    /// Refuses one that makes no sense in one of its branches, whichever would be taken.
    fn check(&self) -> Result<(), Refused> {
        check_size(self.when.len(), MAX_STEPS)?;
        for condition in &self.when {
            match condition {
                Condition::Key { key, .. } => check_key(key)?,
                Condition::Value { key, value } => {
                    check_key(key)?;
                    check_size(value.len(), MAX_VALUE)?;
                }
                Condition::Held { right, .. } => check_key(&right.name)?,
                Condition::Lives(_) => {}
            }
        }
        check_branch(&self.then)?;
        check_branch(&self.or_else)
    }
}

fn check_branch(branch: &[KeyOperation]) -> Result<(), Refused> {
    check_size(branch.len(), MAX_STEPS)?;
    let mut written = BTreeSet::new();
    let mut bytes = 0;
    for operation in branch {
        match operation {
            KeyOperation::Get(key) => check_key(key)?,
            KeyOperation::Put(put) => {
                check_key(&put.key)?;
                bytes += put.value.len();
                if !put.sequence {
                    write_once(&mut written, &put.key)?;
                }
            }
            KeyOperation::Delete(delete) => {
                check_key(&delete.key)?;
                write_once(&mut written, &delete.key)?;
            }
        }
    }
    check_size(bytes, MAX_VALUE)
}

/// Two writes of one key under one revision could not be told apart.
fn write_once(written: &mut BTreeSet<String>, key: &str) -> Result<(), Refused> {
    if written.insert(key.into()) {
        return Ok(());
    }
    Err(Refused::Invalid(format!("a branch of a transaction writes the key {key:?} twice")))
}
