//! The one thing that crosses a link: an envelope that says from whom, to whom, and over which link.
//!
//! # Invariants
//!
//! * Every field is mandatory (F8): a successor at a reused address, or an older run of the same node, never answers for
//!   somebody else.
//! * `link` is the receiver's own random name for the link, told only to the peer at its hello. Since all peers write to
//!   one gateway, it is what ties an envelope to the session it came over.
//! * An envelope is at most [`MAX_ENVELOPE`] bytes long; what is longer travels in pieces.

use bytes::Bytes;
use protocol::{ClusterId, Incarnation, NodeId, wire};
use serde::{Deserialize, Serialize};

use super::Class;
use super::window::Total;

/// One frame of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Envelope {
    /// [`VERSION`].
    pub version: u8,
    /// The sender's cluster, zero while it is in none.
    pub cluster: ClusterId,
    /// The sender.
    pub from: NodeId,
    /// Its run.
    pub from_incarnation: Incarnation,
    /// The receiver.
    pub to: NodeId,
    /// Its run.
    pub to_incarnation: Incarnation,
    /// The receiver's name for the link.
    pub link: u64,
    /// What is inside.
    pub body: Body,
}

/// The inside of an envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Body {
    /// A whole message. If lost, the layers above repeat what matters.
    Whole { class: Class, bytes: Bytes },
    /// A part of a longer message, in order. The first says how long the whole is.
    Piece { class: Class, total: Option<u32>, is_last: bool, bytes: Bytes },
    /// How much the receiver has taken off so far, by class. Free of credit itself; cumulative, so a repeated or lost one
    /// does no harm.
    Credit([Total; 3]),
    /// The sender leaves on purpose. Everything it sent came before this.
    Bye,
}

impl Envelope {
    pub(super) fn encode(&self) -> Vec<u8> {
        wire::encode(self, MAX_ENVELOPE).expect("a piece and its header fit into an envelope")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, wire::WireError> {
        wire::decode(bytes, MAX_ENVELOPE)
    }
}

/// The version of this layout.
pub(super) const VERSION: u8 = 1;

/// The longest envelope, in bytes.
pub(super) const MAX_ENVELOPE: usize = 64 * 1024;

/// The longest piece of a message in one envelope: what remains beside the greatest header.
pub(super) const MAX_PIECE: usize = MAX_ENVELOPE - 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(body: Body) -> Envelope {
        Envelope {
            version: VERSION,
            cluster: ClusterId(u128::MAX),
            from: NodeId(u64::MAX),
            from_incarnation: Incarnation(u64::MAX),
            to: NodeId(u64::MAX - 1),
            to_incarnation: Incarnation(u64::MAX),
            link: u64::MAX,
            body,
        }
    }

    #[test]
    fn the_longest_piece_and_the_longest_header_fit() {
        let bytes = Bytes::from(vec![7; MAX_PIECE]);
        let longest = envelope(Body::Piece { class: Class::Bulk, total: Some(u32::MAX), is_last: true, bytes });
        assert_eq!(Envelope::decode(&longest.encode()), Ok(longest));
    }

    #[test]
    fn the_layout_is_what_it_was() {
        let mut small = envelope(Body::Whole { class: Class::Data, bytes: Bytes::from_static(b"hi") });
        small.cluster = ClusterId(1);
        small.from = NodeId(2);
        small.from_incarnation = Incarnation(3);
        small.to = NodeId(4);
        small.to_incarnation = Incarnation(5);
        small.link = 6;
        assert_eq!(small.encode(), [1, 1, 1, 2, 3, 4, 5, 6, 0, 1, 2, b'h', b'i']);
    }

    #[test]
    fn any_damage_is_an_error_and_never_a_panic() {
        let good = envelope(Body::Credit([Total { messages: 1, bytes: 2 }; 3])).encode();
        for cut in 0..good.len() {
            assert!(Envelope::decode(&good[..cut]).is_err());
            let mut bad = good.clone();
            bad[cut] ^= 0xff;
            let _ = Envelope::decode(&bad);
        }
    }
}
