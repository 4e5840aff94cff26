//! Ways to break the journal on purpose, to see that the tests of the store find them. Switched on for a thread, in tests only.

/// One deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// A record is acknowledged when it is written, not when it is synced.
    SkipsSync,
    /// A record counts whatever its checksum says.
    IgnoresChecksum,
    /// A round is never over: what was taken over is taken over again.
    NeverEndsRound,
    /// A start takes over all batches but the last.
    LosesLast,
}

#[cfg(test)]
pub(super) use switch::{is_on, set};

/// Whether the journal is broken in this way: never in a product.
#[cfg(not(test))]
#[inline(always)]
pub(super) const fn is_on(_: Bug) -> bool {
    false
}

#[cfg(test)]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    impl Bug {
        /// All of them.
        pub(in super::super) const ALL: [Self; 4] =
            [Self::SkipsSync, Self::IgnoresChecksum, Self::NeverEndsRound, Self::LosesLast];
    }

    thread_local! {
        static BUG: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Breaks the journals that this thread uses from now on, or none of them.
    pub(in super::super) fn set(bug: Option<Bug>) {
        BUG.set(bug);
    }

    /// Whether they are broken in this way.
    pub(in super::super) fn is_on(bug: Bug) -> bool {
        BUG.get() == Some(bug)
    }
}
