//! What must happen: the pure state machines of Tenure.
//!
//! Nothing here knows a clock, a socket, a file or a thread. A machine is told what happened and what time it is, and answers
//! with what must follow; `actors` makes it happen and the simulator makes it happen in a world of its own.

pub mod client;
pub mod consensus;
pub mod durable;
pub mod effects;
pub mod founding;
pub mod gate;
pub mod history;
pub mod image;
pub mod master;
pub mod message;
#[doc(hidden)]
pub mod mutants;
pub mod profile;
pub mod replica;
pub mod route;
pub mod state;
pub mod types;
pub mod wire;
pub mod worker;

pub use effects::{Effects, Event, Local, Outgoing};
pub use profile::Profile;
pub use types::*;
