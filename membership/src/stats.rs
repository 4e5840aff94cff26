//! What a membership counted.

/// Counters since the start. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Datagrams sent.
    pub sent: u64,
    /// Bytes in them, without UDP and IP headers.
    pub sent_bytes: u64,
    /// Datagrams received.
    pub received: u64,
    /// Bytes in them.
    pub received_bytes: u64,
    /// Datagrams of a cluster of another name, dropped.
    pub foreign: u64,
    /// Datagrams or parts of them that meant nothing, dropped.
    pub malformed: u64,
    /// Datagrams not taken or not sent for a rule: an address outside loopback, a full table.
    pub refused: u64,
    /// Probes that nobody answered in time.
    pub failed_probes: u64,
    /// Suspicions that were refuted before they ended.
    pub stale_suspicions: u64,
    /// Suspicions that were prolonged because this node heard too few others.
    pub held_suspicions: u64,
    /// Times this node was declared down and took a new name.
    pub renewals: u64,
    /// Times this process was found to have stood still.
    pub stalls: u64,
    /// Calls that foca refused, and messages that did not fit.
    pub errors: u64,
    /// Events that a slow reader missed; it got a snapshot instead.
    pub dropped_events: u64,
    /// Datagrams that the socket did not take.
    pub unsent: u64,
}
