//! What the keys must be, by the commands of the log alone: a map, and no index, draft or hash.
//!
//! # Invariants
//!
//! * Versions of a key and changes of all keys are in the order of their revisions.

use std::collections::BTreeMap;

use protocol::state::{
    Answer, ClusterChange, Command, Condition, Delete, Expect, KeyChange, KeyEnd, KeyEvent, KeyOperation, KeyResult,
    MasterCommand, Operation, Outcome, Put, RightId, TaskEffect, Transacted, Transaction, Value,
};
use protocol::{ClusterTime, Fence, Revision, SessionId};

use crate::check::Verdict;
use crate::oracle::token;

/// The keys and their past.
#[derive(Default)]
pub struct Book {
    keys: BTreeMap<String, Value>,
    versions: BTreeMap<String, Vec<Version>>,
    /// Every change of a key, in order.
    pub changes: Vec<KeyChange>,
    /// Which write of a value took effect, and when.
    pub written: BTreeMap<u64, Revision>,
    /// What transactions came to, by the revision they were answered with.
    pub transactions: BTreeMap<Revision, Vec<Transacted>>,
}

/// What a key held from one revision on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Since.
    pub revision: Revision,
    /// The token of the value, unless it was removed.
    pub value: Option<u64>,
}

/// What is known when a command is applied.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    /// The time of the entry.
    pub time: ClusterTime,
    /// The newest revision before.
    pub before: Revision,
    /// Whether a client's session lives before.
    pub lives: &'a dyn Fn(SessionId) -> bool,
    /// Whether a result that comes now is recorded, because its attempt holds the task.
    pub records: bool,
    /// Whether a grant of a right is live before.
    pub holds: &'a dyn Fn(&RightId, Fence) -> bool,
}

impl Book {
    /// Follows a command of the log, and says whether the state did with the keys what it had to.
    pub fn follow(&mut self, command: &Command, answer: &Answer, changes: &[ClusterChange], at: Moment<'_>) -> Verdict {
        let told: Vec<&KeyChange> = changes.iter().filter_map(of_key).collect();
        let expected = self.expect(command, answer, changes, at)?;
        if !told.iter().copied().eq(&expected) {
            return Err(format!("I3 {command:?} changed {told:?}, and should have changed {expected:?}"));
        }
        expected.into_iter().try_for_each(|change| self.note(change))
    }

    /// A key's value.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.keys.get(key)
    }

    /// What a key held, oldest first.
    pub fn versions(&mut self, key: &str) -> &[Version] {
        self.versions.entry(key.into()).or_insert_with(|| vec![Version { revision: Revision(0), value: None }])
    }

    /// The changes of keys with this prefix between two revisions.
    pub fn between(&self, prefix: &str, after: Revision, until: Revision) -> Vec<&KeyChange> {
        let first = self.changes.partition_point(|change| change.revision <= after);
        let rest = self.changes[first..].iter().take_while(|change| change.revision <= until);
        rest.filter(|change| change.key.starts_with(prefix)).collect()
    }

    /// The keys with this prefix at a revision, in order, and when each was written.
    pub fn keys_at(&self, prefix: &str, at: Revision) -> Vec<(String, Revision)> {
        let keys = self.versions.iter().filter(|(key, _)| key.starts_with(prefix));
        let last = keys.filter_map(|(key, versions)| {
            let before = versions.partition_point(|version| version.revision <= at);
            Some((key.clone(), versions[..before].last()?)).filter(|(_, version)| version.value.is_some())
        });
        last.map(|(key, version)| (key, version.revision)).collect()
    }

    fn expect(
        &mut self,
        command: &Command,
        answer: &Answer,
        changes: &[ClusterChange],
        at: Moment<'_>,
    ) -> Result<Vec<KeyChange>, String> {
        let next = at.before.next();
        match (command, answer) {
            (Command::Client { operation: Operation::Put(put), .. }, Answer::Written(revision))
                if *revision > at.before =>
            {
                Ok(vec![self.put(put, *revision, at)])
            }
            (Command::Client { operation: Operation::Put(put), .. }, Answer::Sequenced { key, revision })
                if *revision > at.before =>
            {
                if *key != format!("{}{:020}", put.key, revision.0) {
                    return Err(format!("I3 the sequence {} was called {key} at {revision}", put.key));
                }
                Ok(vec![self.put(put, *revision, at)])
            }
            (Command::Client { operation: Operation::Delete(delete), .. }, Answer::Written(revision))
                if *revision > at.before =>
            {
                Ok(vec![gone(&delete.key, *revision, KeyEnd::Deleted)])
            }
            // An answer of an older revision is that of a request that came twice.
            (Command::Client { operation: Operation::Transact(transaction), .. }, Answer::Transacted(done))
                if done.revision > at.before || (done.revision == at.before && !has_written(done)) =>
            {
                self.transactions.entry(done.revision).or_default().push(done.clone());
                self.transact(transaction, done, next, at)
            }
            (Command::Master(MasterCommand::Finish { outcome: Outcome::Done { effects, .. }, .. }), _) => {
                Ok(if at.records { self.effects(effects, next, at) } else { Vec::new() })
            }
            _ => self.ended(changes, at.time),
        }
    }

    /// What the effects of a result do to the keys.
    fn effects(&self, effects: &[TaskEffect], revision: Revision, at: Moment<'_>) -> Vec<KeyChange> {
        let change = |effect: &TaskEffect| match effect {
            TaskEffect::Put { key, value } => Some(self.put(&Put::new(key.as_str(), value.clone()), revision, at)),
            TaskEffect::Delete(key) => self.keys.get(key).map(|_| gone(key, revision, KeyEnd::Deleted)),
            TaskEffect::Add { .. } => None,
        };
        effects.iter().filter_map(change).collect()
    }

    fn transact(
        &self,
        transaction: &Transaction,
        done: &Transacted,
        next: Revision,
        at: Moment<'_>,
    ) -> Result<Vec<KeyChange>, String> {
        let held = transaction.when.iter().all(|condition| match condition {
            Condition::Key { key, expect } => self.is_as(key, *expect),
            Condition::Value { key, value } => self.keys.get(key).is_some_and(|found| found.value == *value),
            Condition::Lives(session) => (at.lives)(*session),
            Condition::Held { right, fence } => (at.holds)(right, *fence),
        });
        let mut after = self.keys.clone();
        let (mut results, mut expected) = (Vec::new(), Vec::new());
        for operation in if held { &transaction.then } else { &transaction.or_else } {
            results.push(match operation {
                KeyOperation::Get(key) => KeyResult::Found(after.get(key).cloned()),
                KeyOperation::Put(put) => {
                    let change = self.put(put, next, at);
                    let KeyEvent::Put(value) = &change.what else { continue };
                    after.insert(change.key.to_string(), value.clone());
                    expected.push(change.clone());
                    KeyResult::Written(change.key.to_string())
                }
                KeyOperation::Delete(Delete { key, .. }) => {
                    let was_there = after.remove(key).is_some();
                    expected.extend(was_there.then(|| gone(key, next, KeyEnd::Deleted)));
                    KeyResult::Deleted(was_there)
                }
            });
        }
        let revision = if expected.is_empty() { at.before } else { next };
        let should = Transacted { held, results, revision };
        if *done == should {
            return Ok(expected);
        }
        Err(format!("I3 {transaction:?} came to {done:?}, and should have come to {should:?}"))
    }

    /// I6: with a session go its keys and no others, under one revision; and a key with an end goes at its end.
    fn ended(&self, changes: &[ClusterChange], time: ClusterTime) -> Result<Vec<KeyChange>, String> {
        let mut expected = Vec::new();
        let mut told = changes.iter().filter_map(of_key).peekable();
        for change in changes {
            let ClusterChange::ClientEnded { session, .. } = change else { continue };
            let keys: Vec<_> = self.keys.iter().filter(|(_, value)| value.owner == Some(*session)).collect();
            // Which revision it is follows from the first of them; that all have the same one is what is checked.
            let revision = told.peek().map_or(Revision(0), |change| change.revision);
            told.by_ref().take(keys.len()).for_each(drop);
            expected.extend(keys.into_iter().map(|(key, _)| gone(key, revision, KeyEnd::SessionEnded)));
        }
        for change in told {
            let due = self.keys.get(&*change.key).and_then(|value| value.expires);
            if due.is_none_or(|due| due > time) || change.what != KeyEvent::Deleted(KeyEnd::Expired) {
                return Err(format!("I6 {change:?} at {time}, and the key was to go at {due:?}"));
            }
            expected.push(change.clone());
        }
        Ok(expected)
    }

    fn put(&self, put: &Put, revision: Revision, at: Moment<'_>) -> KeyChange {
        let key = put.key_at(revision);
        let created = self.keys.get(&key).map_or(revision, |old| old.created);
        let expires = put.ttl.map(|ttl| at.time + ttl);
        let value = Value { value: put.value.clone(), created, modified: revision, owner: put.owner, expires };
        KeyChange { revision, key: key.into(), what: KeyEvent::Put(value) }
    }

    fn is_as(&self, key: &str, expect: Expect) -> bool {
        let current = self.keys.get(key).map_or(Revision(0), |value| value.modified);
        match expect {
            Expect::Any => true,
            Expect::Absent => current == Revision(0),
            Expect::Present => current != Revision(0),
            Expect::Revision(wanted) => current == wanted,
        }
    }

    fn note(&mut self, change: KeyChange) -> Verdict {
        let (key, revision) = (change.key.to_string(), change.revision);
        self.versions(&key);
        let value = match &change.what {
            KeyEvent::Put(value) => {
                self.keys.insert(key.clone(), value.clone());
                Some(token(&value.value))
            }
            KeyEvent::Deleted(_) => {
                self.keys.remove(&key);
                None
            }
        };
        self.versions.get_mut(&key).expect("made above").push(Version { revision, value });
        if self.changes.last().is_some_and(|last| last.revision > revision) {
            return Err(format!("I3 {key} was changed at {revision}, after a later revision"));
        }
        self.changes.push(change);
        match value.and_then(|token| self.written.insert(token, revision)) {
            Some(earlier) => Err(format!("I3 one write took effect twice: at revisions {earlier} and {revision}")),
            None => Ok(()),
        }
    }
}

fn has_written(done: &Transacted) -> bool {
    done.results.iter().any(|result| matches!(result, KeyResult::Written(_) | KeyResult::Deleted(true)))
}

fn of_key(change: &ClusterChange) -> Option<&KeyChange> {
    match change {
        ClusterChange::Key(change) => Some(change),
        _ => None,
    }
}

fn gone(key: &str, revision: Revision, why: KeyEnd) -> KeyChange {
    KeyChange { revision, key: key.into(), what: KeyEvent::Deleted(why) }
}
