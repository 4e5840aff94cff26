//! The worker: which attempts run here, whether their fence is current, and when to stop by its own clock.
//!
//! A worker obeys the master of the highest epoch it has heard of. It asks for a session and renews it; while its own clock
//! says that the session lives, its attempts run. What ended stays with the worker until the log has judged it, over any
//! number of masters.
//!
//! # Invariants
//!
//! * Nothing said in an epoch below the highest one seen is obeyed (F8).
//! * An attempt starts at most once per fence: what was handed back, stopped or judged does not start again.
//! * Nothing runs under a session that has ended by this clock, which is earlier than it ends in the state, as long as
//!   clocks drift less than the bound.
//! * A result is reported until it is judged.

mod holding;
mod machine;
mod message;
#[cfg(test)]
mod tests;

pub use machine::{GRACE, Worker};
pub use message::{AbortCause, Config, Held, Input, Run, ToMaster};
