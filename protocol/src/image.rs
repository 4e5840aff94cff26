//! Images of the state: what a snapshot is made of, and how it travels.
//!
//! An image is the state after one entry, cut into chunks. A store writes its own chunk by chunk between its commits, keeps
//! it beside the log, and reads single chunks for whoever asks, also of the snapshot before while somebody fetches that. A follower that needs one asks for the next chunk when the
//! one before is staged, so that at most [`WANTED_MAX`] are under way, a broken link loses nothing but those, and the
//! sender keeps no account of it.
//!
//! # Invariants
//!
//! * Equal states have equal images, chunk by chunk. Chunks of two nodes are mixed never: a transfer names its source (F23).
//! * A staged image counts for nothing until a batch installs it (`Persist::install`); a store may forget it at a restart.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::durable::SnapMeta;
use crate::state::State;
use crate::types::{LogId, NodeId};

/// What a store is asked to do with images, in the order of its batches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// Write the image of this state as our snapshot, in chunks between commits, so that no batch waits for more than
    /// one of them. It takes the place of the earlier snapshot when it is complete and durable, and is answered then. The
    /// earlier one can still be read until it is forgotten or another one takes the place of this one.
    Save {
        /// What it stands for.
        meta: SnapMeta,
        /// The state, frozen: a copy that shares what did not change since.
        state: Box<State>,
    },
    /// Forget the snapshot before ours: nobody reads it any more. This has no answer.
    Forget {
        /// The last entry of it. If it is another one, or is gone, there is nothing to do.
        last: LogId,
    },
    /// Read one chunk of our snapshot, or of the one before it.
    Read {
        /// Who asked for it; comes back.
        to: NodeId,
        /// The last entry of the snapshot that is meant.
        last: LogId,
        /// Which chunk, counted from zero.
        place: u32,
    },
    /// Keep one chunk of an image that is being received. Place zero forgets what was staged before.
    Stage {
        /// The last entry of the snapshot that it belongs to.
        last: LogId,
        /// Which fetch of this image or of another it belongs to; comes back.
        turn: u64,
        /// Which chunk, counted from zero, without gaps.
        place: u32,
        /// The chunk.
        chunk: Bytes,
    },
}

/// The answer of a store to a piece of [`Work`]. A failure is that of the whole store and is told as such.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Done {
    /// Our snapshot is durable.
    Saved {
        /// The last entry in it.
        last: LogId,
    },
    /// A chunk was read.
    Read {
        /// Who asked for it.
        to: NodeId,
        /// The last entry of the snapshot that was meant.
        last: LogId,
        /// Which chunk.
        place: u32,
        /// How many there are, and the chunk; `None` if that snapshot is gone, or has no such chunk.
        found: Option<(u32, Bytes)>,
    },
    /// A chunk is staged (not necessarily durable before the batch that installs it).
    Staged {
        /// Which fetch it belongs to.
        turn: u64,
        /// Which chunk.
        place: u32,
    },
}

/// What two replicas say to each other about an image.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// "Send me this chunk of your snapshot." Lost: asked again. Repeated: sent again.
    Want {
        /// The last entry of the snapshot.
        last: LogId,
        /// Which chunk, counted from zero.
        place: u32,
    },
    /// One chunk. Lost: asked for again. Repeated: ignored.
    Chunk {
        /// The last entry of the snapshot.
        last: LogId,
        /// Which chunk.
        place: u32,
        /// How many there are.
        count: u32,
        /// The CRC-32C of `chunk`.
        crc: u32,
        /// The chunk.
        chunk: Bytes,
    },
    /// "That snapshot is gone": take a newer one. Lost: asked again.
    Gone {
        /// The last entry of the snapshot that was asked for.
        last: LogId,
    },
}

/// How many chunks one receiver has asked for at a time: 512 KiB, the bulk window of a link.
pub const WANTED_MAX: u32 = 2;
/// How many bytes one chunk holds at most; a single record that is larger stands alone. With what a store and a link put
/// around it, it fits into a page and half a window of 256 KiB.
pub const CHUNK_BYTES: usize = 252 * 1024;
