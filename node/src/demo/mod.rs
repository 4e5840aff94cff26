//! The demo: a real job on a real cluster whose master is killed and paused on purpose.

pub mod picture;
pub mod render;
