//! The door.

#[doc(hidden)]
pub mod cli;
pub mod diagnostic;
pub mod http;
