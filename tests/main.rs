//! Real processes, really killed.
//!
//! Every test here starts the binary itself, does to the processes what machines do to them, and then looks at what was
//! promised: each acknowledged write is read back, each result is recorded once, and a file outside the cluster shows how
//! often the work was really done.
//!
//! # Invariants
//!
//! * Tests wait for conditions and never for time; nothing asserts how long something took.
//! * One cluster at a time: a machine with two processors cannot keep the time-outs of several.

mod bounds;
mod command_line;
mod demo;
mod dev;
mod disk;
mod examples;
mod faults;
mod founding;
mod growth;
mod histories;
mod keys;
mod map;
mod netns;
mod refusals;
mod rights;
mod sessions;
mod snapshots;
mod stories;
mod support;
