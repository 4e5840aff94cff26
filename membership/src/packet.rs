//! What a datagram looks like on the wire.
//!
//! Every datagram opens with our envelope: two magic bytes, the version, the hash of the cluster's name, and the kind
//! of what follows: either a packet of foca, or a [`Message`] of our own. The cluster's name is there so that two
//! clusters that came to share addresses do not merge; it keeps neighbours apart, it does not keep attackers out. That
//! is what sealing will do: the datagram then is encrypted as a whole behind the envelope, for which [`SEAL_ROOM`] is
//! kept free, and everything after `open` stays as it is.
//!
//! # Invariants
//!
//! * No datagram is longer than [`MAX_DATAGRAM`].
//! * Arbitrary bytes never panic and never allocate more than the datagram's own size allows.

use bytes::Bytes;
use protocol::NodeId;
use protocol::wire::{self, WireError};
use serde::{Deserialize, Serialize};

use crate::identity::Identity;

/// What nodes say to each other beside foca's own packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Message {
    /// Push-pull: everything the sender knows, in as many datagrams as that takes. Also the hello to a seed, which foca
    /// cannot greet before it knows who is there. If lost, the next round says it again; a repetition changes nothing.
    Sync(Sync),
    /// The receiver bears a name that somebody holds to be down: it must take a new one to be heard there. If lost, it
    /// is said again with the next push-pull; a repetition names an identity that is no longer borne, and is ignored.
    SeenDown {
        /// The name that is down.
        name: Identity,
    },
    /// Asks for the tags of these nodes. If lost, it is asked again; a repetition costs a second answer.
    WantTags {
        /// Whose tags.
        nodes: Vec<NodeId>,
    },
    /// Items that also spread as broadcasts: an answer to [`Message::WantTags`], or the last word of a node that leaves.
    /// If lost, gossip brings the same; a repetition is recognised by its version.
    Items {
        /// The items, each encoded on its own.
        items: Vec<Bytes>,
    },
}

/// One datagram of a push-pull.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sync {
    /// Who speaks.
    pub(crate) from: Identity,
    /// The speaker's own refutation counter.
    pub(crate) generation: u16,
    /// Whether the receiver should answer with all it knows.
    pub(crate) wants_reply: bool,
    /// The speaker's tags and the last word about the master, as broadcast items.
    pub(crate) items: Vec<Bytes>,
    /// Members the speaker knows of.
    pub(crate) entries: Vec<Entry>,
}

/// What somebody knows of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its name.
    pub(crate) id: Identity,
    /// Its refutation counter.
    pub(crate) generation: u16,
    /// How it is.
    pub(crate) state: EntryState,
    /// The version of its tags that the speaker holds; zero if none.
    pub(crate) tags_version: u64,
}

/// How a member is, on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EntryState {
    /// It answers.
    Alive,
    /// Somebody misses its answer.
    Suspect,
    /// It was declared down.
    Down,
    /// It said that it leaves.
    Left,
}

/// What follows the envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Opened<'a> {
    /// A packet of foca.
    Gossip(&'a [u8]),
    /// A message of ours.
    Message(Message),
}

/// Why a datagram was not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Not one of ours, or of another version.
    Malformed,
    /// From a cluster of another name.
    Foreign,
}

/// Puts a packet of foca into its envelope.
pub(crate) fn wrap_gossip(cluster: u64, packet: &[u8]) -> Vec<u8> {
    wrap(cluster, GOSSIP, packet)
}

/// Puts a message of ours into its envelope.
///
/// # Errors
///
/// [`WireError::TooLong`] if it does not fit a datagram.
pub(crate) fn wrap_message(cluster: u64, message: &Message) -> Result<Vec<u8>, WireError> {
    Ok(wrap(cluster, MESSAGE, &wire::encode(message, MAX_BODY)?))
}

/// Opens a datagram of the cluster with this hash.
///
/// # Errors
///
/// [`Refused`], to be counted.
pub(crate) fn open(cluster: u64, datagram: &[u8]) -> Result<Opened<'_>, Refused> {
    if datagram.len() > MAX_DATAGRAM {
        return Err(Refused::Malformed);
    }
    let Some((envelope, body)) = datagram.split_first_chunk::<ENVELOPE>() else {
        return Err(Refused::Malformed);
    };
    let (head, [kind]) = envelope.split_at(ENVELOPE - 1) else {
        return Err(Refused::Malformed);
    };
    if head[..3] != [MAGIC[0], MAGIC[1], VERSION] {
        return Err(Refused::Malformed);
    }
    if head[3..] != cluster.to_be_bytes() {
        return Err(Refused::Foreign);
    }
    match *kind {
        GOSSIP => Ok(Opened::Gossip(body)),
        MESSAGE => wire::decode(body, MAX_BODY).map(Opened::Message).map_err(|_| Refused::Malformed),
        _ => Err(Refused::Malformed),
    }
}

/// The hash by which datagrams name their cluster: FNV-1a, chosen because it can never change under us.
pub(crate) fn cluster_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn wrap(cluster: u64, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(ENVELOPE + body.len());
    datagram.extend_from_slice(&MAGIC);
    datagram.push(VERSION);
    datagram.extend_from_slice(&cluster.to_be_bytes());
    datagram.push(kind);
    datagram.extend_from_slice(body);
    datagram
}

const MAGIC: [u8; 2] = *b"Tn";
const VERSION: u8 = 1;
const GOSSIP: u8 = 0;
const MESSAGE: u8 = 1;

/// Magic, version, cluster, kind.
const ENVELOPE: usize = 2 + 1 + 8 + 1;

/// The longest datagram: below the MTU of any path we expect, with IPv6 and UDP headers.
pub(crate) const MAX_DATAGRAM: usize = 1400;

/// Bytes kept free for the nonce and tag of a sealed datagram.
pub(crate) const SEAL_ROOM: usize = 48;

/// The longest content of a datagram.
pub(crate) const MAX_BODY: usize = MAX_DATAGRAM - ENVELOPE - SEAL_ROOM;

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::identity::tests::drawn;

    fn message() -> Message {
        let id = drawn(&mut SmallRng::seed_from_u64(1));
        let entry = Entry { id, generation: 3, state: EntryState::Left, tags_version: 7 };
        Message::Sync(Sync {
            from: id,
            generation: 1,
            wants_reply: true,
            items: vec![Bytes::from_static(b"item")],
            entries: vec![entry, entry],
        })
    }

    #[test]
    fn a_message_comes_back_as_it_was() {
        let datagram = wrap_message(7, &message()).unwrap();
        assert_eq!(open(7, &datagram), Ok(Opened::Message(message())));
        assert_eq!(open(7, &wrap_gossip(7, b"xyz")), Ok(Opened::Gossip(b"xyz")));
    }

    #[test]
    fn another_cluster_is_told_apart_from_noise() {
        let datagram = wrap_message(7, &message()).unwrap();
        assert_eq!(open(8, &datagram), Err(Refused::Foreign));
        assert_eq!(open(7, b"GET / HTTP/1.1\r\n\r\n"), Err(Refused::Malformed));
        assert_eq!(open(7, &[]), Err(Refused::Malformed));
        assert_ne!(cluster_hash("photos"), cluster_hash("videos"));
    }

    #[test]
    fn a_damaged_message_never_panics() {
        let mut rng = SmallRng::seed_from_u64(2);
        let datagram = wrap_message(7, &message()).unwrap();
        for _ in 0..20_000 {
            let mut damaged = datagram.clone();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..damaged.len());
                damaged[at] = rng.random();
            }
            damaged.truncate(rng.random_range(0..=damaged.len()));
            let _ = open(7, &damaged);
        }
    }

    #[test]
    fn what_does_not_fit_a_datagram_is_refused() {
        let items = vec![Bytes::from(vec![0; MAX_BODY])];
        assert!(matches!(wrap_message(7, &Message::Items { items }), Err(WireError::TooLong { .. })));
    }
}
