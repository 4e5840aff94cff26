//! Making it happen: the actors around the machines, the links between nodes, and the log store.

pub mod links;
pub mod store;
