//! How a record is held: as it is while the task lives, as bytes once it has ended.
//!
//! A task that has ended is kept for a while, and there are many of those: at twenty thousand tasks a second, two hundred
//! thousand whose ten seconds are not over. Hardly anybody looks at them, and as bytes they take a quarter of the memory.
//!
//! # Invariants
//!
//! * The form follows from the content alone, so all replicas count the same bytes for a record.
//! * What is held as bytes has ended and is sealed.

use std::borrow::Cow;
use std::sync::Arc;

use super::record::Record;
use crate::state::limits::{MAX_PACKED, PACKED_BYTES};
use crate::wire;

/// A record, in one form or the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// A task that has not ended, or one with so much input or output that its form makes no difference.
    Whole(Arc<Record>),
    /// A task that has ended: see [`pack`].
    Packed(Arc<[u8]>),
}

impl Kept {
    /// The task, if it has not ended.
    pub(super) fn live(&self) -> Option<&Record> {
        match self {
            Self::Whole(record) => Some(&**record).filter(|record| !record.state().is_final()),
            Self::Packed(_) => None,
        }
    }

    /// The task, to be changed, if it has not ended.
    pub(super) fn live_mut(&mut self) -> Option<&mut Record> {
        match self {
            Self::Whole(record) if !record.state().is_final() => Some(Arc::make_mut(record)),
            _ => None,
        }
    }

    /// The record, whatever its form.
    pub(super) fn record(&self) -> Cow<'_, Record> {
        match self {
            Self::Whole(record) => Cow::Borrowed(record),
            Self::Packed(bytes) => Cow::Owned(unpack(bytes)),
        }
    }

    /// The same, for whoever needs nothing else of this.
    pub(super) fn into_record(self) -> Arc<Record> {
        match self {
            Self::Whole(record) => record,
            Self::Packed(bytes) => Arc::new(unpack(&bytes)),
        }
    }

    /// How many bytes it counts for.
    pub(super) fn weight(&self) -> u64 {
        match self {
            Self::Whole(record) => record.weight(),
            // The index of once keys has a copy of the key.
            Self::Packed(bytes) => PACKED_BYTES + bytes.len() as u64 + u64::from(head(bytes).1),
        }
    }

    /// Takes the form that belongs to the content.
    pub(super) fn settle(&mut self) {
        if let Self::Whole(record) = self
            && record.state().is_final()
            && record.content_bytes() <= MAX_PACKED
        {
            *self = Self::Packed(pack(record));
        }
    }
}

impl From<Record> for Kept {
    fn from(record: Record) -> Self {
        let mut kept = Self::Whole(Arc::new(record));
        kept.settle();
        kept
    }
}

/// The hash of the record and the length of its once key, then the record.
fn pack(record: &Record) -> Arc<[u8]> {
    let once = record.spec().once_key.as_ref().map_or(0, String::len);
    let once = u16::try_from(once).expect("keys are bounded");
    let body = wire::encode(record, wire::MAX_MESSAGE).expect("what is packed is far smaller than a message");
    [&record.digest().to_le_bytes()[..], &once.to_le_bytes(), &body].concat().into()
}

fn unpack(bytes: &[u8]) -> Record {
    let (digest, _, body) = head(bytes);
    let record: Record = wire::decode(body, wire::MAX_MESSAGE).expect("it was packed here");
    record.sealed(digest)
}

fn head(bytes: &[u8]) -> (u64, u16, &[u8]) {
    let (digest, rest) = bytes.split_first_chunk().expect("it was packed here");
    let (once, body) = rest.split_first_chunk().expect("it was packed here");
    (u64::from_le_bytes(*digest), u16::from_le_bytes(*once), body)
}

#[cfg(test)]
impl Kept {
    /// Makes this anew from the content, and compares.
    pub(super) fn assert_coherent(&self) {
        let record = self.record();
        assert_eq!(Self::from(record.rehashed()), *self, "a digest of {} drifted, or its form", record.id());
    }
}
