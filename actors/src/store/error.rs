//! Why a store could not do what it was asked, in words that an operator can act on.

use std::io;
use std::path::{Path, PathBuf};

use protocol::NodeId;
use protocol::wire::WireError;

/// Why the log store cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data folder or a file in it cannot be created, opened or written. Check owner, mode and mount.
    #[error("cannot {doing} {}: {cause}", path.display())]
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// The folder or file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        cause: io::Error,
    },
    /// No room is left for the log. Free some, then start the node again: nothing that was acknowledged is lost.
    #[error("disk full: cannot {doing} {}: {cause}", path.display())]
    Full {
        /// What was tried, as a verb.
        doing: &'static str,
        /// The folder or file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        cause: io::Error,
    },
    /// Another process uses the folder. Stop it or choose another folder.
    #[error("data folder {} is in use by {}", path.display(), process(*pid))]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The process, if it has said who it is.
        pid: Option<u32>,
    },
    /// The log was written by another version of the format. Use the version of the program that wrote it. None is
    /// converted as long as there has been no release.
    #[error("{} has format {found}, this program reads format {known}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format it has.
        found: u32,
        /// The format we read.
        known: u32,
    },
    /// What was read is not what was written: bit rot, or another program's doing. The node must not take part under
    /// its identity with this log; [`super::open_or_replace`] lets it come back as another one.
    #[error("{} is corrupt: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        what: String,
    },
    /// The node with this identity has given up its log and never votes again. Use an empty folder.
    #[error("{} belonged to node {node}, which has retired", path.display())]
    Retired {
        /// The file.
        path: PathBuf,
        /// Who it was.
        node: NodeId,
    },
    /// A record is larger than any record may be: a bug of the caller.
    #[error("cannot record entry: {0}")]
    Record(#[from] WireError),
    /// An earlier error ended this store.
    #[error("stopped by an earlier error: {first}")]
    Halted {
        /// That error.
        first: String,
    },
}

impl StoreError {
    /// An error of the operating system, met while `doing` something to `path`.
    pub(super) fn io(doing: &'static str, path: &Path, cause: io::Error) -> Self {
        let path = path.to_path_buf();
        if matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Self::Full { doing, path, cause }
        } else {
            Self::Io { doing, path, cause }
        }
    }

    /// An error of the engine, met while `doing` something to `path`.
    pub(super) fn engine(doing: &'static str, path: &Path, error: impl Into<redb::Error>) -> Self {
        match error.into() {
            redb::Error::DatabaseAlreadyOpen => Self::InUse { path: path.to_path_buf(), pid: None },
            redb::Error::UpgradeRequired(found) => {
                Self::Format { path: path.to_path_buf(), found: found.into(), known: super::tables::FORMAT }
            }
            // The engine reports a foreign or truncated file in this way.
            redb::Error::Io(cause)
                if matches!(cause.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                Self::corrupt(path, cause.to_string())
            }
            redb::Error::Io(cause) => Self::io(doing, path, cause),
            redb::Error::PreviousIo => Self::Halted { first: String::from("input or output failed before") },
            other => Self::corrupt(path, other.to_string()),
        }
    }

    /// What was read is not what was written.
    pub(super) fn corrupt(path: &Path, what: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_path_buf(), what: what.into() }
    }
}

/// Names the process that holds a folder.
fn process(pid: Option<u32>) -> String {
    pid.map_or_else(|| String::from("another process"), |pid| format!("process {pid}"))
}
