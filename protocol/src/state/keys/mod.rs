//! Keys and their values: the metadata that a cluster keeps for its applications.
//!
//! # Invariants
//!
//! * `created <= modified`, and both are revisions: a key that was deleted and made again never has an old one.
//! * A key with an owner stands in `owned` once, one with an end in `expiries` once, and no other does.
//! * Every change of a key is told with the revision under which it happened; all of a revision are told together.

mod transaction;
mod words;

use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

pub use self::words::*;

use super::clients::Clients;
use super::digest::{Sum, Tag, fingerprint};
use super::image::Item;
use super::limits::{
    KEY_BYTES, MAX_OWNED, MAX_OWNED_BYTES, MAX_PAGE, MAX_PAGE_BYTES, check_key, check_life, check_size, full,
};
use super::rights::Rights;
use super::{ClusterChange, Refused, Step};
use crate::mutants::{Bug, is_on};
use crate::types::{ClusterTime, Revision, SessionId};
use crate::wire::MAX_VALUE;

/// All keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Keys {
    values: OrdMap<Arc<str>, Stored>,
    /// What goes with which session.
    owned: OrdMap<SessionId, Owned>,
    expiries: OrdSet<(ClusterTime, Arc<str>)>,
    bytes: u64,
    digest: Sum,
}

/// What a write depends on beside the keys.
pub(super) struct Ground<'a> {
    /// The time of the write.
    pub(super) time: ClusterTime,
    /// How many bytes all keys may take.
    pub(super) limit: u64,
    /// Who may own something.
    pub(super) clients: &'a Clients,
    /// Who holds what.
    pub(super) rights: &'a Rights,
}

/// A key's value, with its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    value: Value,
    digest: u64,
}

/// The keys of one session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Owned {
    keys: OrdSet<Arc<str>>,
    /// What the keys themselves take: they go under one revision, and that must fit into one message.
    bytes: usize,
}

impl Keys {
    /// Sets a key under this revision if what is there is what was expected. Nothing is changed by one that is refused.
    pub(super) fn put(
        &mut self,
        put: &Put,
        revision: Revision,
        ground: &Ground<'_>,
        changes: &mut Vec<ClusterChange>,
    ) -> Result<(), Refused> {
        let key = put.key_at(revision);
        check_key(&key)?;
        check_size(put.value.len(), MAX_VALUE)?;
        put.ttl.map_or(Ok(()), check_life)?;
        let old = self.values.get(&*key).map(|stored| &stored.value);
        expected(put.expect, old.map_or(Revision(0), |old| old.modified))?;
        let (bytes, freed) = (weight(&key, &put.value), old.map_or(0, |old| weight(&key, &old.value)));
        if bytes > freed && self.bytes - freed + bytes > ground.limit {
            return Err(full());
        }
        if let Some(owner) = put.owner {
            ground.clients.require(owner)?;
            if old.is_none_or(|old| old.owner != Some(owner)) {
                self.check_owner(owner, &key)?;
            }
        }
        let created = old.map_or(revision, |old| old.created);
        let expires = put.ttl.map(|ttl| ground.time + ttl);
        let value = Value { value: put.value.clone(), created, modified: revision, owner: put.owner, expires };
        let key: Arc<str> = key.into();
        self.set(key.clone(), value.clone());
        changes.push(ClusterChange::Key(KeyChange { revision, key, what: KeyEvent::Put(value) }));
        Ok(())
    }

    /// Removes a key under this revision if what is there is what was expected.
    pub(super) fn delete(
        &mut self,
        delete: &Delete,
        revision: Revision,
        changes: &mut Vec<ClusterChange>,
    ) -> Result<(), Refused> {
        let current = self.revision_of(&delete.key);
        if current == Revision(0) {
            return match delete.expect {
                Expect::Revision(wanted) if wanted != Revision(0) => Err(Refused::Conflict { current }),
                _ => Err(Refused::NotFound),
            };
        }
        expected(delete.expect, current)?;
        self.remove(&delete.key, revision, KeyEnd::Deleted, changes);
        Ok(())
    }

    /// Refuses a key that belongs to a session.
    pub(super) fn require_unowned(&self, key: &str) -> Result<(), Refused> {
        match self.get(key).and_then(|value| value.owner) {
            Some(owner) => Err(Refused::Invalid(format!("the key {key:?} belongs to the session {owner}"))),
            None => Ok(()),
        }
    }

    /// A session ended: everything that belonged to it goes under one revision.
    pub(super) fn end_session(&mut self, session: SessionId, revision: Revision, changes: &mut Vec<ClusterChange>) {
        let Some(owned) = self.owned.get(&session).cloned() else { return };
        let spared = usize::from(is_on(Bug::EphemeralOutlivesSession));
        for key in owned.keys.iter().skip(spared) {
            self.remove(key, revision, KeyEnd::SessionEnded, changes);
        }
    }

    /// Removes one key whose time is over, and says whether there was one.
    pub(super) fn expire_one(&mut self, time: ClusterTime, step: &mut Step<'_>) -> bool {
        let Some((_, key)) = self.expiries.get_min().filter(|(expires, _)| *expires <= time).cloned() else {
            return false;
        };
        let revision = step.grant();
        self.remove(&key, revision, KeyEnd::Expired, step.changes);
        true
    }

    /// Takes a key as it was elsewhere; says whether it can stand here.
    pub(super) fn restore(&mut self, key: Arc<str>, value: Value, newest: Revision, clients: &Clients) -> bool {
        let is_sound = check_key(&key).is_ok()
            && value.value.len() <= MAX_VALUE
            && value.created <= value.modified
            && value.modified <= newest
            && value.owner.is_none_or(|owner| clients.require(owner).is_ok() && self.check_owner(owner, &key).is_ok());
        if !is_sound || self.values.contains_key(&key) {
            return false;
        }
        self.set(key, value);
        true
    }

    /// All of this as records of an image.
    pub(super) fn into_items(self) -> impl Iterator<Item = Item> {
        self.values.into_iter().map(|(key, stored)| Item::Key(key, stored.value))
    }

    /// A key's value.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).map(|stored| &stored.value)
    }

    /// Some keys in order, and whether there are more. One is always shown if there is one.
    pub(super) fn page(&self, list: &List) -> (Vec<(String, Value)>, bool) {
        let limit = usize::try_from(list.limit).unwrap_or(usize::MAX).clamp(1, MAX_PAGE);
        let begin = if list.after.as_str() >= list.prefix.as_str() && !list.after.is_empty() {
            Bound::Excluded(list.after.as_str())
        } else {
            Bound::Included(list.prefix.as_str())
        };
        let rest = self.values.range::<(Bound<&str>, Bound<&str>), str>((begin, Bound::Unbounded));
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for (key, stored) in rest.take_while(|(key, _)| key.starts_with(&list.prefix)) {
            let mut value = stored.value.clone();
            if list.keys_only {
                value.value.clear();
            }
            bytes += key.len() + value.value.len();
            if entries.len() == limit || (bytes > MAX_PAGE_BYTES && !entries.is_empty()) {
                return (entries, true);
            }
            entries.push((key.to_string(), value));
        }
        (entries, false)
    }

    /// How many keys this session owns.
    pub(super) fn owned_by(&self, session: SessionId) -> u32 {
        self.owned.get(&session).map_or(0, |owned| owned.keys.len() as u32)
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// How many bytes they take.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the first key goes, if nobody writes it again.
    pub(super) fn next_expiry(&self) -> Option<ClusterTime> {
        self.expiries.get_min().map(|(expires, _)| *expires)
    }

    /// The hash of all keys.
    pub(super) fn digest(&self) -> u64 {
        self.digest.value()
    }

    /// The revision that a key is at, zero if there is none.
    fn revision_of(&self, key: &str) -> Revision {
        self.get(key).map_or(Revision(0), |value| value.modified)
    }

    fn check_owner(&self, owner: SessionId, key: &str) -> Result<(), Refused> {
        let Some(owned) = self.owned.get(&owner) else { return Ok(()) };
        if owned.keys.len() >= MAX_OWNED || owned.bytes + key.len() > MAX_OWNED_BYTES {
            let limit = MAX_OWNED_BYTES >> 10;
            return Err(Refused::Quota(format!("a session owns {MAX_OWNED} keys of {limit} KiB together at most")));
        }
        Ok(())
    }

    fn set(&mut self, key: Arc<str>, value: Value) {
        let (owner, expires) = (value.owner, value.expires);
        let digest = value.fingerprint(&key);
        self.digest.add(digest);
        self.bytes += weight(&key, &value.value);
        if let Some(earlier) = self.values.insert(key.clone(), Stored { value, digest }) {
            self.forget(&key, &earlier);
        }
        if let Some(owner) = owner {
            let owned = self.owned.entry(owner).or_default();
            owned.bytes += key.len();
            owned.keys.insert(key.clone());
        }
        if let Some(expires) = expires {
            self.expiries.insert((expires, key));
        }
    }

    fn remove(&mut self, key: &str, revision: Revision, why: KeyEnd, changes: &mut Vec<ClusterChange>) {
        let Some((key, stored)) = self.values.remove_with_key(key) else { return };
        self.forget(&key, &stored);
        changes.push(ClusterChange::Key(KeyChange { revision, key, what: KeyEvent::Deleted(why) }));
    }

    /// Takes what a key was out of all books.
    fn forget(&mut self, key: &Arc<str>, Stored { value, digest }: &Stored) {
        self.digest.remove(*digest);
        self.bytes -= weight(key, &value.value);
        if let Some(owner) = value.owner
            && let Some(owned) = self.owned.get_mut(&owner)
        {
            owned.bytes -= key.len();
            owned.keys.remove(key);
            if owned.keys.is_empty() {
                self.owned.remove(&owner);
            }
        }
        if let Some(expires) = value.expires {
            self.expiries.remove(&(expires, key.clone()));
        }
    }
}

impl Value {
    fn fingerprint(&self, key: &str) -> u64 {
        fingerprint(Tag::Key, &(key, self))
    }
}

/// Compares what is there with what was expected; revision zero means that nothing is there.
fn expected(expect: Expect, current: Revision) -> Result<(), Refused> {
    let holds = match expect {
        Expect::Any => true,
        Expect::Absent => current == Revision(0),
        Expect::Present => current != Revision(0),
        Expect::Revision(wanted) if is_on(Bug::ComparesLoosely) && wanted != Revision(0) => current >= wanted,
        Expect::Revision(wanted) => current == wanted,
    };
    if holds { Ok(()) } else { Err(Refused::Conflict { current }) }
}

fn weight(key: &str, value: &[u8]) -> u64 {
    KEY_BYTES + (key.len() + value.len()) as u64
}

#[cfg(test)]
impl Keys {
    /// Recomputes hash, size and indexes from the values, and compares.
    pub(super) fn assert_coherent(&self, clients: &Clients) {
        let mut again = Self::default();
        for (key, stored) in &self.values {
            assert_eq!(stored.value.fingerprint(key), stored.digest, "the digest of {key} drifted");
            assert!(stored.value.created <= stored.value.modified);
            again.set(key.clone(), stored.value.clone());
        }
        assert_eq!(again, *self, "hash, size or an index of the keys drifted");
        for owner in self.owned.keys() {
            assert!(clients.require(*owner).is_ok(), "{owner} owns something and does not live");
        }
    }
}
