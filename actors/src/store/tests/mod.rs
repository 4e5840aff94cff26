//! Tests of the store: what it remembers, what it survives, and how it fails.

mod crash;
mod fault;
mod folder;
mod image;
mod journal;
mod model;
mod mutants;
pub(super) mod platter;
mod repair;
mod rot;
mod script;
mod thread;
