//! The rules of keys once more, slowly: a list of keys, and copies instead of drafts.

use std::time::Duration;

use super::naive::Naive;
use crate::state::limits::{check_key, check_size};
use crate::state::*;
use crate::types::*;
use crate::wire::MAX_VALUE;

impl Naive {
    pub(super) fn put(&mut self, put: &Put) -> Result<Answer, Refused> {
        let revision = Revision(self.revision + 1);
        let key = self.put_at(put, revision)?;
        self.revision += 1;
        if put.sequence {
            return Ok(Answer::Sequenced { key, revision });
        }
        Ok(Answer::Written(revision))
    }

    pub(super) fn delete(&mut self, delete: &Delete) -> Result<Answer, Refused> {
        let revision = Revision(self.revision + 1);
        self.delete_at(delete, revision)?;
        self.revision += 1;
        Ok(Answer::Written(revision))
    }

    pub(super) fn transact(&mut self, transaction: &Transaction) -> Result<Answer, Refused> {
        let before = self.clone();
        let revision = Revision(self.revision + 1);
        for branch in [&transaction.then, &transaction.or_else] {
            twice(branch.iter().filter_map(|operation| match operation {
                KeyOperation::Put(put) if put.sequence => None,
                KeyOperation::Put(put) => Some(put.key.clone()),
                KeyOperation::Delete(delete) => Some(delete.key.clone()),
                KeyOperation::Get(_) => None,
            }))?;
        }
        let held = transaction.when.iter().all(|condition| match condition {
            Condition::Key { key, expect } => self.expect(key, *expect).is_ok(),
            Condition::Value { key, value } => self.value(key).is_some_and(|found| found.value == *value),
            Condition::Held { right, fence } => {
                self.right_view(right).holders.iter().any(|holder| holder.fence == *fence)
            }
            Condition::Lives(session) => self.content.clients.iter().any(|client| client.id == *session),
        });
        let branch = if held { &transaction.then } else { &transaction.or_else };
        let mut results = Vec::new();
        for operation in branch {
            let written = self.told[before.told.len()..].iter().map(|change| change.key.to_string());
            let next = match operation {
                KeyOperation::Put(put) if put.sequence => Some(format!("{}{:020}", put.key, revision.0)),
                _ => None,
            };
            match twice(written.chain(next)).and_then(|()| self.perform(operation, revision)) {
                Ok(result) => results.push(result),
                Err(refused) => {
                    *self = before;
                    return Err(refused);
                }
            }
        }
        if self.told.len() > before.told.len() {
            self.revision += 1;
        }
        Ok(Answer::Transacted(Transacted { held, results, revision: Revision(self.revision) }))
    }

    /// Does all effects of a result, or says why there is none of them.
    pub(super) fn write_all(&mut self, effects: &[TaskEffect]) -> Result<(), String> {
        let mut seen = Vec::new();
        for key in effects.iter().filter_map(TaskEffect::key) {
            if seen.contains(&key) {
                return Err(format!("its effects write the key {key:?} twice"));
            }
            seen.push(key);
        }
        let before = self.clone();
        for effect in effects {
            if let Err(why) = self.write(effect, Revision(before.revision + 1)) {
                *self = before;
                return Err(format!("an effect was refused: {why}"));
            }
        }
        self.revision += u64::from(!effects.is_empty());
        Ok(())
    }

    fn write(&mut self, effect: &TaskEffect, revision: Revision) -> Result<(), Refused> {
        if let Some(key) = effect.key()
            && let Some(owner) = self.value(key).and_then(|value| value.owner)
        {
            return Err(Refused::Invalid(format!("the key {key:?} belongs to the session {owner}")));
        }
        match effect {
            TaskEffect::Put { key, value } => self.put_at(&Put::new(key.as_str(), value.clone()), revision).map(drop),
            TaskEffect::Delete(key) if self.value(key).is_none() => Ok(()),
            TaskEffect::Delete(key) => self.delete_at(&Delete { key: key.clone(), expect: Expect::Any }, revision),
            TaskEffect::Add { counter, by } => self.increase(counter, *by, revision).map(drop),
        }
    }

    fn perform(&mut self, operation: &KeyOperation, revision: Revision) -> Result<KeyResult, Refused> {
        match operation {
            KeyOperation::Get(key) => Ok(KeyResult::Found(self.value(key))),
            KeyOperation::Put(put) => self.put_at(put, revision).map(KeyResult::Written),
            KeyOperation::Delete(delete) => match self.delete_at(delete, revision) {
                Ok(()) => Ok(KeyResult::Deleted(true)),
                Err(Refused::NotFound) => Ok(KeyResult::Deleted(false)),
                Err(refused) => Err(refused),
            },
        }
    }

    fn put_at(&mut self, put: &Put, revision: Revision) -> Result<String, Refused> {
        let key = if put.sequence { format!("{}{:020}", put.key, revision.0) } else { put.key.clone() };
        check_key(&key)?;
        check_size(put.value.len(), MAX_VALUE)?;
        if put.ttl.is_some_and(|ttl| ttl < Duration::from_millis(1) || ttl > Duration::from_secs(30 * 24 * 3600)) {
            return Err(Refused::Invalid("a key with a time to live lives between a millisecond and 30 days".into()));
        }
        let old = self.expect(&key, put.expect)?;
        if let Some(owner) = put.owner
            && !self.content.clients.iter().any(|client| client.id == owner)
        {
            return Err(Refused::NoSession(owner));
        }
        let created = old.map_or(revision, |value| value.created);
        let expires = put.ttl.map(|ttl| self.time + ttl);
        let value = Value { value: put.value.clone(), created, modified: revision, owner: put.owner, expires };
        self.content.keys.retain(|(name, _)| *name != key);
        self.content.keys.push((key.clone(), value.clone()));
        self.told.push(KeyChange { revision, key: key.as_str().into(), what: KeyEvent::Put(value) });
        Ok(key)
    }

    fn delete_at(&mut self, delete: &Delete, revision: Revision) -> Result<(), Refused> {
        let old = match (self.value(&delete.key), delete.expect) {
            (None, Expect::Absent | Expect::Present) => None,
            _ => self.expect(&delete.key, delete.expect)?,
        };
        old.ok_or(Refused::NotFound)?;
        self.remove(&delete.key, revision, KeyEnd::Deleted);
        Ok(())
    }

    /// Keys whose time is over go one by one, the one that was to go first goes first.
    pub(super) fn expire_keys(&mut self, time: ClusterTime) {
        let mut due: Vec<_> =
            self.content.keys.iter().filter_map(|(key, value)| Some((value.expires?, key.clone()))).collect();
        due.sort();
        for (_, key) in due.into_iter().filter(|(expires, _)| *expires <= time) {
            self.revision += 1;
            self.remove(&key, Revision(self.revision), KeyEnd::Expired);
        }
    }

    pub(super) fn end_keys_of(&mut self, session: SessionId, revision: Revision) {
        let mut keys: Vec<_> = self.content.keys.iter().filter(|(_, value)| value.owner == Some(session)).collect();
        keys.sort_by_key(|(key, _)| key.clone());
        for key in keys.into_iter().map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.remove(&key, revision, KeyEnd::SessionEnded);
        }
    }

    pub(super) fn page(&self, list: &List) -> Answer {
        let mut entries = self.content.keys.clone();
        entries.sort_by_key(|(key, _)| key.clone());
        entries.retain(|(key, _)| key.starts_with(&list.prefix) && (list.after.is_empty() || *key > list.after));
        let more = entries.len() > list.limit as usize;
        entries.truncate(list.limit as usize);
        if list.keys_only {
            entries.iter_mut().for_each(|(_, value)| value.value.clear());
        }
        Answer::Keys(KeyPage { entries, more, at: Revision(self.revision) })
    }

    fn remove(&mut self, key: &str, revision: Revision, why: KeyEnd) {
        self.content.keys.retain(|(name, _)| name != key);
        self.told.push(KeyChange { revision, key: key.into(), what: KeyEvent::Deleted(why) });
    }
}

/// Refuses a key that is named a second time.
fn twice(keys: impl Iterator<Item = String>) -> Result<(), Refused> {
    let mut seen = Vec::new();
    for key in keys {
        if seen.contains(&key) {
            return Err(Refused::Invalid(format!("a branch of a transaction writes the key {key:?} twice")));
        }
        seen.push(key);
    }
    Ok(())
}
