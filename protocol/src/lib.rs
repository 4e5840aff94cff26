//! What must happen: the pure state machines of Tenure.

pub mod durable;
pub mod profile;
pub mod types;
pub mod wire;

pub use profile::Profile;
pub use types::*;
