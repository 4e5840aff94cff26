//! Tenure: identical nodes that elect a master, notice every crash, run tasks exactly as often as asked, and lose nothing they
//! acknowledged. This crate is the door: the library that applications use, and the binary `tenure`.
//!
//! Read in this order: [`Node`] (taking part), [`#[task]`](macro@task) (the work), [`Client`] (asking for it), [`Error`] (what can go wrong).

// Some of it serves the command line alone; the build with it tells what nobody uses.
#![cfg_attr(not(feature = "cli"), allow(dead_code, unused_imports))]

mod address;
mod backstage;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod bench;
mod book;
mod builder;
pub mod builtin;
mod claims;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
mod client;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod demo;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod dev;
pub mod diagnostic;
mod effects;
mod error;
mod executor;
pub mod fenced;
mod folder;
mod gossip;
#[doc(hidden)]
pub mod http;
pub mod kv;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod map;
mod members;
mod node;
mod nodes;
mod parse;
mod ports;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod processes;
mod recipes;
mod remote;
mod session;
mod site;
mod start;
mod submit;
mod task;
pub mod testing;
mod waiting;
mod witness;

pub use builder::Builder;
pub use client::Client;
pub use effects::{EffectError, Effects};
pub use error::{Error, StartError, TaskEnd};
pub use kv::Kv;
/// Makes a kind of task of an `async fn`: nodes take it on ([`task::<greet>()`](Builder::task)) and clients submit it
/// ([`submit::<greet>(input)`](Client::submit)), both by the function's name, which is then a type's name too.
///
/// ```no_run
/// use tenure::prelude::*;
///
/// /// Takes its input and, first and only if it wants to, the context of its attempt.
/// #[task]
/// async fn repeat(cx: &TaskCx, word: String, times: usize) -> Result<String, TaskError> {
///     cx.effects().add("repeated", 1)?;
///     Ok(word.repeat(times))
/// }
///
/// /// Submitted by another name, which stays when the function is renamed. Any error is worth another attempt.
/// #[task(name = "clock.tick")]
/// async fn tick() -> std::io::Result<()> {
///     std::fs::write("tick", "tock")
/// }
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Node::builder("orders").task::<repeat>().task::<tick>().start().await?;
/// let client = node.client();
/// client.submit::<tick>(()).await?;
/// let echo = client.submit::<repeat>(("echo ".to_owned(), 3)).retries(5).await?; // several inputs are a tuple
/// assert_eq!(echo.result().await?, "echo echo echo ");
/// tick().await?; // it is a function still: this calls it, here and now
/// # Ok(())
/// # }
/// ```
///
/// Inputs and output travel as JSON: their types implement `serde`'s traits, and are owned. What has a state, or is generic, implements
/// [`TaskHandler`] itself.
pub use macros::task;
pub use members::{MemberEvent, Members};
pub use node::Node;
pub use nodes::{NodeEvent, NodeSessions};
pub use protocol::profile::Profile;
pub use protocol::state::{Delivery, Expect, NodeView, Offer, TaskSpec, TaskState, TaskView};
pub use protocol::state::{RightId, RightKind, RightLine, SessionView};
pub use protocol::{Attempt, Epoch, Fence, Incarnation, NodeId, Revision, SessionId, TaskId};
pub use recipes::{
    Acquire, Addition, Barrier, Counter, Election, Group, GroupMember, Guard, Leader, Leadership, LockGuard,
    Membership, Once, OnceError, Pass, Permit, Push, Queue, Semaphore, Taken,
};
pub use remote::ClientSettings;
pub use session::{Lost, Opening, Session};
pub use site::{Member, Presence};
pub use submit::{Handle, Submit};
pub use task::{RawHandler, Returned, TaskCx, TaskError, TaskHandler};

/// What most programs need.
pub mod prelude {
    pub use crate::{
        Client, Error, Expect, Fence, Guard, Handle, Kv, Node, Profile, RawHandler, Revision, Session, TaskCx, TaskEnd,
        TaskError, TaskHandler, TaskId, task,
    };
}

/// The examples of the guides and of the first page compile.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../../README.md")]
    struct Readme;
    #[doc = include_str!("../../docs/guide/barrier.md")]
    struct Barrier;
    #[doc = include_str!("../../docs/guide/counter.md")]
    struct Counter;
    #[doc = include_str!("../../docs/guide/election.md")]
    struct Election;
    #[doc = include_str!("../../docs/guide/fences.md")]
    struct Fences;
    #[doc = include_str!("../../docs/guide/group.md")]
    struct Group;
    #[doc = include_str!("../../docs/guide/lock.md")]
    struct Lock;
    #[doc = include_str!("../../docs/guide/members.md")]
    struct Members;
    #[doc = include_str!("../../docs/guide/metadata.md")]
    struct Metadata;
    #[doc = include_str!("../../docs/guide/once.md")]
    struct Once;
    #[doc = include_str!("../../docs/guide/queue.md")]
    struct Queue;
    #[doc = include_str!("../../docs/guide/rights.md")]
    struct Rights;
    #[doc = include_str!("../../docs/guide/semaphore.md")]
    struct Semaphore;
    #[doc = include_str!("../../docs/guide/sessions.md")]
    struct Sessions;
    #[doc = include_str!("../../docs/guide/tasks.md")]
    struct Tasks;
    #[doc = include_str!("../../docs/guide/watches.md")]
    struct Watches;
}

#[cfg(test)]
mod tests;
