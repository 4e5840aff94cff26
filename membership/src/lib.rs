//! Who is here: SWIM gossip over UDP.
//!
//! Every node probes random others, suspects who does not answer, and spreads what it learned on the back of its
//! probes. The cost per node does not grow with the cluster, and everybody knows of a crash within a second or two. This
//! is a hint and never a right: it brings elections forward and chooses places; quorums decide.
//!
//! [`Membership`] is the door: a handle to a thread that owns the socket and the timers. The thread is thin; what must
//! happen is decided in [`engine`], which a simulator drives as well. foca is the core of the protocol, and this is the
//! only crate that knows it.

mod membership;

mod config;
mod member;
mod stats;
mod timing;

pub mod engine;
mod udp;

mod board;
mod codec;
mod identity;
mod packet;

pub use config::{Config, StartError};
pub use engine::{CheckedTags, TagsTooLong};
pub use member::{Event, MAX_TAGS, Member, MemberState, Tags, View};
pub use membership::{EventStream, Membership};
pub use stats::Stats;
pub use timing::Timing;
