//! The content hash: equal contents, equal numbers, on every node and every version of the compiler.
//!
//! The hash of the state is the sum of the hashes of its records, so that a change costs one subtraction and one addition
//! and the order of the changes does not matter. A record's hash is taken over its canonical encoding, the same bytes
//! that the wire would carry, and never through `std::hash`, whose byte stream is not promised to stay as it is.
//!
//! # Invariants
//!
//! * The same content has the same digest, however it came about.
//! * Each kind of record hashes under a tag of its own, so that two kinds cannot stand in for each other.
//!
//! The hash finds replicas that went apart by mistake. It is no defence against somebody who wants two contents to collide.

use bincode::enc::write::Writer;
use bincode::error::EncodeError;
use serde::Serialize;

/// The sum of the hashes of a set of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Sum(u64);

impl Sum {
    /// A record joined the set.
    pub(super) fn add(&mut self, record: u64) {
        self.0 = self.0.wrapping_add(record);
    }

    /// A record left the set.
    pub(super) fn remove(&mut self, record: u64) {
        self.0 = self.0.wrapping_sub(record);
    }

    /// The sum.
    pub(super) fn value(self) -> u64 {
        self.0
    }
}

/// What a hash is about.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) enum Tag {
    /// The counters at the top.
    Head,
    /// A session's time to live and deadline.
    Session,
    /// How far a client says it is.
    Progress,
    /// A stored reply.
    Reply,
    /// A node's run and its offer.
    Run,
    /// What a submitter asked for.
    Spec,
    /// Where a task stands.
    Standing,
    /// One line of a task's history.
    Line,
    /// A task as a whole.
    Task,
    /// A key.
    Key,
    /// Not content: the draw that spreads retries.
    Jitter,
    /// Who shall vote.
    Roster,
    /// What a client session says of itself.
    About,
    /// A right as a whole.
    Right,
    /// A claim to a right.
    Claim,
    /// An item of a queue.
    Item,
    /// A counter.
    Counter,
    /// The mark of an addition.
    Mark,
}

/// Hashes the canonical encoding of a value.
pub(super) fn fingerprint<T: Serialize>(tag: Tag, value: &T) -> u64 {
    let mut hasher = Hasher::new(tag as u64);
    bincode::serde::encode_into_writer(value, &mut hasher, bincode::config::standard().with_fixed_int_encoding())
        .expect("our own types encode, and the hasher takes every byte");
    hasher.finish()
}

/// Folds a stream of bytes into 64 bits, eight at a time; where the stream is cut into writes makes no difference.
struct Hasher {
    state: u64,
    /// Bytes that do not fill a word yet, lowest first.
    carry: u64,
    /// How many bits of `carry` are in use: always below 64.
    carried: u32,
    len: u64,
}

impl Hasher {
    fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(STEP) ^ STEP, carry: 0, carried: 0, len: 0 }
    }

    fn word(&mut self, word: u64) {
        if self.carried == 0 {
            return self.mix(word);
        }
        self.mix(self.carry | word << self.carried);
        self.carry = word >> (64 - self.carried);
    }

    /// Takes `bits` (below 64) bits of `word`; those above are zero.
    fn part(&mut self, word: u64, bits: u32) {
        self.carry |= word << self.carried;
        if self.carried + bits < 64 {
            self.carried += bits;
            return;
        }
        self.mix(self.carry);
        // `bits` is below 64, so something was carried before and the shift is below 64 too.
        self.carry = word >> (64 - self.carried);
        self.carried = self.carried + bits - 64;
    }

    fn mix(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(FACTOR);
        self.state = (product as u64 ^ (product >> 64) as u64).wrapping_add(STEP);
    }

    fn finish(mut self) -> u64 {
        self.mix(self.carry);
        self.mix(self.len);
        // The sum of many hashes must depend on every bit of each.
        let mut hash = self.state;
        hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^ hash >> 31
    }
}

impl Writer for Hasher {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.len += bytes.len() as u64;
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.part(u64::from_le_bytes(last), 8 * rest.len() as u32);
        }
        Ok(())
    }
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_in_pieces(bytes: &[u8], size: usize) -> u64 {
        let mut hasher = Hasher::new(1);
        for piece in bytes.chunks(size) {
            hasher.write(piece).expect("the hasher takes every byte");
        }
        hasher.finish()
    }

    #[test]
    fn where_the_stream_is_cut_makes_no_difference() {
        let bytes: Vec<u8> = (0..200u8).collect();
        for len in [0, 1, 7, 8, 9, 63, 64, 65, 200] {
            let whole = hash_in_pieces(&bytes[..len], 1000);
            for size in 1..20 {
                assert_eq!(hash_in_pieces(&bytes[..len], size), whole, "{len} bytes in pieces of {size}");
            }
        }
    }

    #[test]
    fn every_byte_and_the_length_count() {
        let zeros = [0u8; 40];
        let mut seen = std::collections::BTreeSet::new();
        for len in 0..40 {
            assert!(seen.insert(hash_in_pieces(&zeros[..len], 40)));
        }
        for at in 0..40 {
            let mut one = zeros;
            one[at] = 1;
            assert!(seen.insert(hash_in_pieces(&one, 40)));
        }
    }

    #[test]
    fn the_hash_stays_what_it_was() {
        // A change here makes old and new versions disagree about equal contents: do not change it lightly.
        assert_eq!(fingerprint(Tag::Key, &("a", 7u64, Some("b"))), 13_246_639_877_449_745_728);
        assert_ne!(fingerprint(Tag::Key, &7u64), fingerprint(Tag::Task, &7u64));
    }

    #[test]
    fn a_sum_forgets_what_was_removed_whatever_the_order() {
        let mut sum = Sum::default();
        for record in [u64::MAX, 7, 9] {
            sum.add(record);
        }
        sum.remove(u64::MAX);
        sum.remove(7);
        assert_eq!(sum.value(), 9);
    }
}
