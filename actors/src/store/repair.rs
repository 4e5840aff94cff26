//! What becomes of a log that is damaged: another one, of another node.
//!
//! A node that lost a part of its log may have acknowledged what was in it. If it voted on, it could help to elect somebody
//! who does not hold that either. So its identity ends with its log, and the folder begins again under a new one, which
//! has promised nothing and learns everything from the others.
//!
//! # Invariants
//!
//! * The damaged file is out of the way, durably, before a new identity is made.
//! * Nothing is removed: the damaged file stays for the operator.
//! * Only damage is answered so. A disk that fails, is full or cannot be reached today may be well tomorrow.

use std::fmt;
use std::path::{Path, PathBuf};

use protocol::NodeId;
use protocol::durable::Durable;

use super::{DiskStore, LogStore, StoreError};

/// A log that was given up, and the identity with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// Whose it was, if that could still be read.
    pub node: Option<NodeId>,
    /// What was wrong with it.
    pub damage: String,
    /// Where it is now.
    pub aside: PathBuf,
}

impl fmt::Display for Replaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { damage, aside, .. } = self;
        let whose = self.node.map_or_else(|| String::from("whoever wrote it"), |node| format!("node {node}"));
        write!(
            f,
            "{damage}; {whose} has retired and never votes again; the damaged file is kept as {}",
            aside.display()
        )
    }
}

/// Opens the store in `folder` and reads it. If what is there is damaged, the file is set aside and an empty store takes
/// its place, under the new identity that `fresh` draws. For nodes that can learn from others what they lost.
///
/// # Errors
///
/// [`StoreError`] for everything but damage.
pub fn open_or_replace(
    folder: &Path,
    unix_ms: u64,
    fresh: impl Fn() -> NodeId,
) -> Result<(DiskStore, Durable, Option<Replaced>), StoreError> {
    let damage = match open_whole(folder, unix_ms, fresh()) {
        Ok((store, durable)) => return Ok((store, durable, None)),
        Err(error @ StoreError::Corrupt { .. }) => error.to_string(),
        Err(error) => return Err(error),
    };
    let (aside, node) = DiskStore::set_aside(folder)?;
    let (store, durable) = open_whole(folder, unix_ms, fresh())?;
    Ok((store, durable, Some(Replaced { node, damage, aside })))
}

/// Opens a store and reads everything in it.
fn open_whole(folder: &Path, unix_ms: u64, fresh: NodeId) -> Result<(DiskStore, Durable), StoreError> {
    let mut store = DiskStore::open(folder, unix_ms, fresh)?;
    let durable = store.load()?;
    Ok((store, durable))
}
