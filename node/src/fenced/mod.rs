//! Sinks that look at fences: what makes a right safe where clocks and timeouts cannot.
//!
//! A guard ends by its holder's clock before anybody else gets the right. That is enough only as long as clocks run as
//! they should and no process is frozen between its last look at the guard and its write. A sink that remembers the
//! highest fence it has seen, and refuses every lower one, needs neither: a holder that was replaced can do no harm there,
//! however late it wakes up. See M. Kleppmann, "How to do distributed locking" (2016), for the argument.
//!
//! * [`File`]: a file that is written as a whole, or appended to.
//! * [`Sql`]: the statements for a database that knows `ON CONFLICT` (SQLite, PostgreSQL).
//! * [`Gate`] and [`HEADER`]: a service of your own, and how the fence travels to it.
//!
//! # Invariants
//!
//! * A sink never takes a fence below one that it has taken before. An equal one is the same holder again.
//! * Looking and writing are one step: no other writer comes between.

mod file;
mod gate;
mod sql;

use std::io;
use std::path::PathBuf;

use protocol::Fence;

pub use file::File;
pub use gate::{Gate, HEADER, parse_header};
pub use sql::{Dialect, Sql};

use crate::diagnostic::{Code, Diagnostic};

/// Why a fenced sink did not take a write.
///
/// ```
/// use tenure::Fence;
/// use tenure::fenced::{Error, Gate};
///
/// let gate = Gate::default();
/// gate.run("stock", Fence(12), || {})?;
/// let refused = gate.run("stock", Fence(7), || {});
/// assert!(matches!(refused, Err(Error::Stale { held: Fence(7), current: Fence(12) })));
/// # Ok::<_, Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A later holder of the right was here: this one was replaced, and nothing was written.
    #[error("fence {held} was replaced: {current} was here already")]
    Stale {
        /// The fence of this write.
        held: Fence,
        /// The highest that was taken.
        current: Fence,
    },
    /// The highest fence cannot be read, so nothing is taken.
    #[error("{}: the fence in it cannot be read", .0.display())]
    Unreadable(PathBuf),
    /// The file system failed. What was there before is whole; what was to be written may be there or not.
    #[error("{}: cannot {what} it: {cause}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

impl Error {
    /// Whether the holder was replaced: there is no use in trying again.
    ///
    /// ```
    /// # use tenure::Fence;
    /// # use tenure::fenced;
    /// let gate = fenced::Gate::default();
    /// gate.run("stock", Fence(12), || {})?;
    /// assert!(gate.run("stock", Fence(7), || {}).is_err_and(|error| error.is_stale()));
    /// # Ok::<_, fenced::Error>(())
    /// ```
    #[must_use]
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::Stale { .. })
    }
}

impl From<Error> for Diagnostic {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Stale { .. } => Self::new(Code::Fenced, message)
                .hint("the right has passed to a later holder; nothing was written: stop, and ask for it again"),
            Error::Unreadable(_) => {
                Self::new(Code::DataFolder, message).hint("if nobody holds the right, remove the file and begin again")
            }
            Error::Io { .. } => Self::new(Code::DataFolder, message),
        }
    }
}
