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
//! * A log that nobody else holds is never set aside: that of the only voter, and one that does not say who votes where no
//!   other voter is known.
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
/// its place, under the new identity that `fresh` draws. For nodes that can learn from others what they lost: `knows_voters`
/// says whether others may vote if the log itself does not say who does.
///
/// # Errors
///
/// [`StoreError`] for everything but damage, and for that too where nobody else votes.
pub fn open_or_replace(
    folder: &Path,
    unix_ms: u64,
    knows_voters: bool,
    fresh: impl Fn() -> NodeId,
) -> Result<(DiskStore, Durable, Option<Replaced>), StoreError> {
    let damage = match open_whole(folder, unix_ms, fresh()) {
        Ok((store, durable)) => return Ok((store, durable, None)),
        Err(error @ StoreError::Corrupt { .. }) if may_be_held_elsewhere(folder, knows_voters)? => error.to_string(),
        Err(error) => return Err(error),
    };
    let (aside, node) = DiskStore::set_aside(folder)?;
    let (store, durable) = open_whole(folder, unix_ms, fresh())?;
    Ok((store, durable, Some(Replaced { node, damage, aside })))
}

/// Whether anybody but the owner of a damaged log votes, and so may hold what is in it.
fn may_be_held_elsewhere(folder: &Path, knows_voters: bool) -> Result<bool, StoreError> {
    let said = DiskStore::last_voters(folder)?;
    Ok(said.map_or(knows_voters, |(node, voters)| voters.iter().any(|voter| *voter != node)))
}

/// Opens a store and reads everything in it.
fn open_whole(folder: &Path, unix_ms: u64, fresh: NodeId) -> Result<(DiskStore, Durable), StoreError> {
    let mut store = DiskStore::open(folder, unix_ms, fresh)?;
    let durable = store.load()?;
    Ok((store, durable))
}
