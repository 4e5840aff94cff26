//! The door.

#[doc(hidden)]
pub mod cli;
pub mod demo;
pub mod diagnostic;
pub mod http;
pub mod processes;
