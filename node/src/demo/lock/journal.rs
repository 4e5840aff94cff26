//! What the attempts run, and the file in which they say how far they came.

/// One line of the journal: which attempt did what, and under which fence.
pub(super) struct Line {
    pub(super) attempt: String,
    pub(super) what: String,
    pub(super) fence: u64,
}

impl Line {
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ').map(str::to_owned);
        let (attempt, what) = (words.next()?, words.next()?);
        Some(Self { attempt, what, fence: words.next()?.parse().ok()? })
    }

    pub(super) fn words(&self) -> String {
        let Self { attempt, what, fence } = self;
        match what.as_str() {
            LOCKS => format!("{attempt} has the lock, fence {fence}"),
            UNLOCKS => format!("{attempt} did the work, and gives the lock back"),
            BEGINS => format!("{attempt} begins, fence {fence}"),
            _ => format!("{attempt} {what}"),
        }
    }
}

/// What every attempt runs. The first one holds its report back until it may go on.
pub(super) const SCRIPT: &str = r#"
echo "$TENURE_ATTEMPT begins $TENURE_FENCE" >> "$JOURNAL"
"$TENURE" lock "$LOCK" --wait -- sh -c "$UNDER_LOCK" || exit
case $TENURE_ATTEMPT in *'#1') while [ ! -e "$GATE" ]; do sleep 0.05; done;; esac
echo "$TENURE_ATTEMPT ends $TENURE_FENCE" >> "$JOURNAL"
"#;

/// What runs under the lock, whose fence it has.
pub(super) const UNDER_LOCK: &str = r#"
echo "$TENURE_ATTEMPT locks $TENURE_FENCE" >> "$JOURNAL"
EFFECT
echo "$TENURE_ATTEMPT unlocks $TENURE_FENCE" >> "$JOURNAL"
"#;

/// Words of the journal.
pub(super) const BEGINS: &str = "begins";
pub(super) const LOCKS: &str = "locks";
pub(super) const UNLOCKS: &str = "unlocks";
pub(super) const ENDS: &str = "ends";
