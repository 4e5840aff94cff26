//! What the log means: sessions, tasks and keys.

mod change;
mod command;

pub use change::*;
pub use command::*;
