//! Rights for applications: locks, elections, semaphores, barriers, groups, queues, things that are done once, and counters.
//!
//! Each is one type with one file. What can be lost is a [`Guard`]: it has a fence, knows its own end, and stops what runs under it
//! before anybody else is granted the right. All waiting is in strict order, and whoever drops a wait has left the line.

mod barrier;
mod counter;
mod election;
mod group;
mod guard;
mod hold;
mod lock;
mod once;
pub(crate) mod place;
mod queue;
mod semaphore;
#[cfg(test)]
mod tests;
pub(crate) mod watch;

pub use barrier::{Barrier, Pass};
pub use counter::{Addition, Counter};
pub use election::{Election, Leader, Leadership};
pub use group::{Group, GroupMember, Membership};
pub use guard::Guard;
pub use hold::Acquire;
pub use lock::LockGuard;
pub use once::{Once, OnceError};
pub use queue::{Push, Queue, Taken};
pub use semaphore::{Permit, Semaphore};

use guard::guards;

guards! { LockGuard Leadership Permit Pass Membership Taken }
