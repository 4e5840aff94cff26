//! HTTP.

pub mod json;

pub use json::{SCHEMA, base64, decoded, encoded};
