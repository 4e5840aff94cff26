//! The client: session, request numbers, retries to the right node, matching answers.
//!
//! A call is asked of one node at a time and asked again, under the same number, until it is answered or its time is over.
//! Writes go under a session, which is opened with the first one and renewed while it is open; the session's request numbers
//! make a write happen once, however often it is asked for.
//!
//! # Invariants
//!
//! * A call is completed exactly once, unless it is forgotten; and never later than its time-out.
//! * "Certainly not done" is said only if every try was certainly refused (D9).
//! * A write leaves its session for another one only if it was certainly not done under the first (F9).
//! * At most [`WINDOW`](crate::state::limits::WINDOW) writes of a session are under way, so that none is refused for want of room (F9).

mod call;
mod guard;
mod keeping;
mod machine;
mod message;
pub(crate) mod patience;
mod session;
#[cfg(test)]
mod tests;

pub use guard::{Guarding, Standing};
pub use machine::Client;
pub use message::{CallError, Config, Consistency, Denied, Input, Loss, Origin, Request, RequestBody, Response, Work};
