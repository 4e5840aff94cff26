//! Keys and their values: the metadata that a cluster keeps for its applications.
//!
//! # Invariants
//!
//! * `created <= modified`, and both are revisions: a key that was deleted and made again never has an old one.

use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;

use super::Step;
use super::digest::{Sum, Tag, fingerprint};
use super::image::Item;
use super::limits::{KEY_BYTES, check_key, check_size, full};
use crate::state::{Expect, Refused, Value};
use crate::types::Revision;
use crate::wire::MAX_VALUE;

/// All keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Keys {
    values: OrdMap<Arc<str>, Stored>,
    bytes: u64,
    digest: Sum,
}

/// A key's value, with its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    value: Value,
    digest: u64,
}

impl Keys {
    /// Sets a key if what is there is what was expected. `room` is how many bytes may be added.
    pub(super) fn put(
        &mut self,
        key: &str,
        value: &Bytes,
        expect: Expect,
        room: u64,
        step: &mut Step<'_>,
    ) -> Result<Revision, Refused> {
        check_key(key)?;
        check_size(value.len(), MAX_VALUE)?;
        let bytes = weight(key, value);
        let Some(stored) = self.values.get_mut(key) else {
            check(expect, Revision(0))?;
            if bytes > room {
                return Err(full());
            }
            let modified = step.grant();
            let value = Value { value: value.clone(), created: modified, modified };
            let digest = value.fingerprint(key);
            self.digest.add(digest);
            self.bytes += bytes;
            self.values.insert(key.into(), Stored { value, digest });
            return Ok(modified);
        };
        check(expect, stored.value.modified)?;
        let freed = weight(key, &stored.value.value);
        if bytes > freed && bytes - freed > room {
            return Err(full());
        }
        stored.value.modified = step.grant();
        stored.value.value = value.clone();
        self.bytes = self.bytes - freed + bytes;
        self.digest.remove(stored.digest);
        stored.digest = stored.value.fingerprint(key);
        self.digest.add(stored.digest);
        Ok(stored.value.modified)
    }

    /// Removes a key if what is there is what was expected.
    pub(super) fn delete(&mut self, key: &str, expect: Expect, step: &mut Step<'_>) -> Result<Revision, Refused> {
        let Some(stored) = self.values.get(key) else {
            return match expect {
                Expect::Revision(wanted) if wanted != Revision(0) => Err(Refused::Conflict { current: Revision(0) }),
                _ => Err(Refused::NotFound),
            };
        };
        check(expect, stored.value.modified)?;
        self.digest.remove(stored.digest);
        self.bytes -= weight(key, &stored.value.value);
        self.values.remove(key);
        Ok(step.grant())
    }

    /// Takes a key as it was elsewhere; says whether it can stand here.
    pub(super) fn restore(&mut self, key: Arc<str>, value: Value) -> bool {
        let is_sound = check_key(&key).is_ok() && value.value.len() <= MAX_VALUE && value.created <= value.modified;
        let digest = value.fingerprint(&key);
        self.digest.add(digest);
        self.bytes += weight(&key, &value.value);
        is_sound && self.values.insert(key, Stored { value, digest }).is_none()
    }

    /// All of this as records of an image.
    pub(super) fn into_items(self) -> impl Iterator<Item = Item> {
        self.values.into_iter().map(|(key, stored)| Item::Key(key, stored.value))
    }

    /// A key's value.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).map(|stored| &stored.value)
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// How many bytes they take.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The hash of all keys.
    pub(super) fn digest(&self) -> u64 {
        self.digest.value()
    }
}

impl Value {
    fn fingerprint(&self, key: &str) -> u64 {
        fingerprint(Tag::Key, &(key, self))
    }
}

/// Compares what is there with what was expected; revision zero means that nothing is there.
fn check(expect: Expect, current: Revision) -> Result<(), Refused> {
    let holds = match expect {
        Expect::Any => true,
        Expect::Absent => current == Revision(0),
        Expect::Present => current != Revision(0),
        Expect::Revision(wanted) => current == wanted,
    };
    if holds { Ok(()) } else { Err(Refused::Conflict { current }) }
}

fn weight(key: &str, value: &Bytes) -> u64 {
    KEY_BYTES + (key.len() + value.len()) as u64
}

#[cfg(test)]
impl Keys {
    /// Recomputes hash and size from the values, and compares.
    pub(super) fn assert_coherent(&self) {
        let mut digest = Sum::default();
        let mut bytes = 0;
        for (key, stored) in &self.values {
            digest.add(stored.value.fingerprint(key));
            bytes += weight(key, &stored.value.value);
            assert!(stored.value.created <= stored.value.modified);
        }
        assert_eq!(digest, self.digest, "the digest of the keys drifted");
        assert_eq!(bytes, self.bytes, "the size of the keys drifted");
    }
}
