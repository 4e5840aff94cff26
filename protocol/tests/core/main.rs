//! The consensus core alone: golden scripts, one rule each, and a seeded swarm of faults with every invariant checked.

#![allow(clippy::disallowed_methods, reason = "a test may ask its environment which seeds to run")]

mod dice;
mod founding;
mod garbage;
mod laws;
#[cfg(feature = "mutants")]
mod model;
#[cfg(feature = "mutants")]
mod mutants;
mod script;
mod swarm;
mod text;
mod world;
