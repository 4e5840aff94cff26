//! The consensus core alone: golden scripts, one rule each, and a seeded swarm of faults with every invariant checked.

mod dice;
mod founding;
mod laws;
#[cfg(feature = "mutants")]
mod mutants;
mod script;
mod swarm;
mod text;
mod world;
