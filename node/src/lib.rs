//! Tenure: identical nodes that elect a master, notice every crash, run tasks exactly as often as asked, and lose nothing they
//! acknowledged. This crate is the door: the library that applications use, and the binary `tenure`.
//!
//! Read in this order: [`TaskHandler`] (the work), [`Client`] (asking for it), [`Error`] (what can go wrong).

#[allow(dead_code)]
pub mod builtin;
#[doc(hidden)]
pub mod cli;
#[allow(dead_code)]
mod client;
#[doc(hidden)]
pub mod demo;
#[doc(hidden)]
pub mod dev;
pub mod diagnostic;
#[allow(dead_code)]
mod error;
#[allow(dead_code)] // used as soon as a node starts here
mod executor;
#[doc(hidden)]
#[allow(dead_code)]
pub mod http;
mod kv;
#[doc(hidden)]
pub mod map;
#[doc(hidden)]
pub mod processes;
mod site;
mod submit;
#[allow(dead_code)]
mod task;

pub use client::Client;
pub use error::{Error, StartError, TaskEnd};
pub use kv::Kv;
pub use protocol::profile::Profile;
pub use protocol::state::{Delivery, Expect, TaskSpec, TaskState, TaskView};
pub use protocol::{Attempt, Epoch, Fence, Incarnation, NodeId, Revision, TaskId};
pub use site::{Member, Presence};
pub use submit::{Handle, Submit};
pub use task::{RawHandler, TaskCx, TaskError, TaskHandler};

/// What most programs need.
pub mod prelude {
    pub use crate::{
        Client, Error, Expect, Handle, Kv, Profile, RawHandler, Revision, TaskCx, TaskEnd, TaskError, TaskHandler,
        TaskId,
    };
}
