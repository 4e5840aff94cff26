//! Transactions, keys of sessions, sequences and watches, as simulated clients use them.
//!
//! A transaction is strictly serializable: what it answered stands in the log at its revision, and that is not before anything
//! that was answered before it began. A watch is told what the log changed between two revisions, all of it, in order.

use std::time::Duration;

use protocol::client::{Consistency, Work};
use protocol::state::{
    Answer, Changes, Condition, Delete, Expect, KeyOperation, KeyPage, List, Operation, Put, Query, Refused,
    Transacted, Transaction, Watch,
};
use protocol::{Revision, SessionId};

use crate::book::Version;
use crate::check::Verdict;
use crate::dice::Dice;
use crate::options::Options;
use crate::oracle::{Oracle, token};
use crate::work::{History, Kind, value};

/// Somebody who watches, from one answer to the next.
#[derive(Clone, Debug, Default)]
pub struct Watcher {
    /// What was told last is complete up to here.
    pub after: Revision,
    /// A question is under way.
    pub is_asking: bool,
}

impl History {
    /// A write that goes by itself, a transaction or a list, on keys that nobody else writes: those judge keys by plain writes.
    pub(crate) fn key_work(&mut self, call: u64, options: &Options, dice: &mut Dice) -> (Kind, Work) {
        match dice.between(0, 9) {
            0..4 => self.transaction(call, options, dice),
            4 => {
                let list = List { prefix: "m".into(), after: String::new(), limit: 1_000, keys_only: false };
                let kind = Kind::List { prefix: list.prefix.clone(), after: self.frontier };
                (kind, Work::Read(Query::List(list), Consistency::Linearizable))
            }
            _ => self.temporary(call, options, dice),
        }
    }

    fn temporary(&mut self, call: u64, options: &Options, dice: &mut Dice) -> (Kind, Work) {
        let sequence = dice.happens(150);
        let key = if sequence { format!("{}-", key(options, dice)) } else { key(options, dice) };
        let owner = self.owner(dice).filter(|_| dice.happens(700));
        let ttl = dice.happens(300).then(|| Duration::from_millis(dice.pick(&[50, 1_000, 20_000])));
        let put = Put { sequence, owner, ttl, ..Put::new(key.clone(), value(call, 0)) };
        (Kind::Temporary { key, token: call << 16 }, Work::Write(Operation::Put(put)))
    }

    /// Some conditions, and in either branch some reads and writes.
    fn transaction(&mut self, call: u64, options: &Options, dice: &mut Dice) -> (Kind, Work) {
        let when = (0..dice.between(0, 2)).map(|_| self.condition(options, dice)).collect();
        let then = self.branch(call, 0, options, dice);
        let or_else = self.branch(call, 1_000, options, dice);
        let tokens = [tokens(&then), tokens(&or_else)];
        let transaction = Transaction { when, then, or_else };
        (Kind::Transaction { tokens, after: self.frontier }, Work::Write(Operation::Transact(transaction)))
    }

    /// The next question of a host's watcher, unless it waits for an answer.
    pub(crate) fn watch(&mut self, host: usize, dice: &mut Dice) -> Option<(Kind, Work)> {
        let prefix = if host.is_multiple_of(2) { String::new() } else { dice.pick(&["m", "k1", "m1"]).into() };
        let watcher = self.watchers.entry(host).or_default();
        if std::mem::replace(&mut watcher.is_asking, true) {
            return None;
        }
        let after = watcher.after;
        let watch = Watch { prefix: prefix.clone(), after };
        Some((Kind::Watch { host, prefix, after }, Work::Read(Query::Watch(watch), Consistency::Stale)))
    }

    /// Where a host's watcher is; for a question at the end of a run.
    pub(crate) fn watch_from(
        &mut self,
        (host, begin): (usize, u64),
        prefix: &str,
        after: Revision,
    ) -> (u64, Work, Duration) {
        let call = self.number();
        let watch = Watch { prefix: prefix.into(), after };
        self.expect_answer(call, (host, begin), Kind::Watch { host, prefix: prefix.into(), after });
        (call, Work::Read(Query::Watch(watch), Consistency::Stale), Duration::from_secs(20))
    }

    /// What was told is what happened, no more and no less.
    pub(crate) fn judge_watch(
        &mut self,
        host: usize,
        prefix: &str,
        after: Revision,
        answer: &Answer,
        oracle: &Oracle,
    ) -> Verdict {
        let watcher = self.watchers.entry(host).or_default();
        watcher.is_asking = false;
        match answer {
            Answer::Changes(Changes { changes, next }) => {
                let expected = oracle.book.between(prefix, after, *next);
                if *next < after || !changes.iter().eq(expected.iter().copied()) {
                    return Err(format!(
                        "I3 a watch of {prefix:?} from {after} to {next} was told {changes:?}, and there was {expected:?}"
                    ));
                }
                self.told_changes += changes.len();
                watcher.after = watcher.after.max(*next);
                Ok(())
            }
            Answer::Refused(Refused::Compacted { oldest }) if *oldest > after => {
                watcher.after = *oldest;
                Ok(())
            }
            answer => Err(format!("I3 a watch from {after} was answered with {answer:?}")),
        }
    }

    /// What a transaction came to stands in the log, where it can.
    pub(crate) fn judge_transaction(
        &mut self,
        tokens: [Vec<u64>; 2],
        after: Revision,
        done: &Transacted,
        oracle: &Oracle,
    ) -> Verdict {
        let is_known = oracle.book.transactions.get(&done.revision).is_some_and(|all| all.contains(done));
        if !is_known || done.revision < after {
            return Err(format!("I3 the log has no {done:?} after {after}"));
        }
        let [then, or_else] = tokens;
        let (taken, left) = if done.held { (then, or_else) } else { (or_else, then) };
        if let Some(token) = taken.iter().find(|token| oracle.book.written.get(token) != Some(&done.revision)) {
            return Err(format!("I3 {token} was acknowledged at {} and is not there", done.revision));
        }
        self.undone.extend(left);
        self.frontier = self.frontier.max(done.revision);
        Ok(())
    }

    /// What was written stands in the log at the revision that was answered, under the name that was answered.
    pub(crate) fn judge_temporary(&mut self, key: &str, token: u64, answer: &Answer, oracle: &mut Oracle) -> Verdict {
        let (key, revision) = match answer {
            Answer::Written(revision) => (key, *revision),
            Answer::Sequenced { key, revision } => (key.as_str(), *revision),
            Answer::Refused(_) => {
                self.undone.push(token);
                return Ok(());
            }
            answer => return Err(format!("I3 a write of {key} was answered with {answer:?}")),
        };
        self.frontier = self.frontier.max(revision);
        if oracle.versions(key).contains(&Version { revision, value: Some(token) }) {
            return Ok(());
        }
        Err(format!("I3 the log has no {token} in {key} at {revision}"))
    }

    /// A list shows what the keys were at its revision, which is not before what was told before it was asked for.
    pub(crate) fn judge_list(
        &mut self,
        prefix: &str,
        bound: Option<Revision>,
        page: &KeyPage,
        oracle: &Oracle,
    ) -> Verdict {
        let found: Vec<_> = page.entries.iter().map(|(key, value)| (key.clone(), value.modified)).collect();
        let expected = oracle.book.keys_at(prefix, page.at);
        if found != expected || bound.is_some_and(|after| page.at < after) {
            return Err(format!("I3 a list after {bound:?} shows {found:?} at {}, there was {expected:?}", page.at));
        }
        self.frontier = if bound.is_some() { self.frontier.max(page.at) } else { self.frontier };
        Ok(())
    }

    fn condition(&mut self, options: &Options, dice: &mut Dice) -> Condition {
        if let Some((right, fence)) = self.claims.grant(dice).filter(|_| dice.happens(500)) {
            return Condition::Held { right, fence };
        }
        let name = key(options, dice);
        match (dice.between(0, 3), self.owner(dice)) {
            (0, Some(session)) => Condition::Lives(session),
            (1, _) => Condition::Value { key: name, value: value(self.recent_call(dice), 0) },
            _ => Condition::Key { expect: self.expectation(&name, dice), key: name },
        }
    }

    /// Up to four steps on different keys; a key that is written may be read before and after.
    fn branch(&mut self, call: u64, place: u64, options: &Options, dice: &mut Dice) -> Vec<KeyOperation> {
        let mut steps = Vec::new();
        for (at, name) in (1..=options.keys.min(3)).map(|number| format!("m{number}")).enumerate() {
            match dice.between(0, 4) {
                0 => steps.push(KeyOperation::Get(name)),
                1 => steps.push(KeyOperation::Delete(Delete { key: name, expect: Expect::Any })),
                2 | 3 => {
                    let owner = self.owner(dice).filter(|_| dice.happens(300));
                    let put = Put { owner, ..Put::new(name.clone(), value(call, place + at as u64)) };
                    steps.push(KeyOperation::Put(put));
                    steps.push(KeyOperation::Get(name));
                }
                _ => {}
            }
        }
        steps
    }

    /// A session that was opened lately, and may have ended since.
    fn owner(&self, dice: &mut Dice) -> Option<SessionId> {
        let last = self.sessions.len().checked_sub(1)?;
        let first = last.saturating_sub(3);
        Some(self.sessions[dice.between(first as u64, last as u64) as usize])
    }
}

/// One of the keys that only these calls write.
fn key(options: &Options, dice: &mut Dice) -> String {
    format!("m{}", dice.between(1, options.keys))
}

fn tokens(branch: &[KeyOperation]) -> Vec<u64> {
    let written = branch.iter().filter_map(|step| match step {
        KeyOperation::Put(put) => Some(token(&put.value)),
        _ => None,
    });
    written.collect()
}
