//! The demo's work.
pub mod picture;
pub mod render;
