//! Making it happen: ractor actors around the machines of `protocol`, links between nodes, and the log store.
//!
//! [`Host`] is a node; [`Remote`] is an outside process that talks to one. Nothing of ractor shows in either.

mod alarm;
mod client;
mod clock;
mod control;
mod election;
mod gateway;
mod host;
pub mod links;
mod master;
mod members;
mod outlet;
mod remote;
mod shell;
pub mod store;
mod supervisor;
mod worker;

pub use client::{ClientHandle, KeptSession};
pub use clock::{Clock, now, unix_ms};
pub use control::Frozen;
pub use election::Mastership;
pub use host::{Host, Probe, Settings, StartError, Storage, Teller, Wires};
pub use members::Fact;
pub use remote::{Remote, RemoteSettings};
pub use worker::{Done, Executor};

#[cfg(test)]
mod tests;
