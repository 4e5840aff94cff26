//! What a seed draws: every run has a world of its own, so that no fixed mix of faults hides a bug.
//!
//! # Invariants
//!
//! * All that is drawn here follows from the seed alone.

use protocol::replica::Compaction;

use crate::dice::Dice;

/// One millisecond.
pub const MS: u64 = 1_000_000;

/// One second.
pub const SECOND: u64 = 1_000 * MS;

/// A node that is started at the address of another one, which goes on: paused or cut off at first, and with all that it knows.
#[derive(Clone, Copy, Debug)]
pub struct Replacement {
    /// Whose address.
    pub at: usize,
    /// When.
    pub when: u64,
    /// For how long the old one is paused.
    pub pause: u64,
    /// Nothing reaches or leaves the old one at first.
    pub is_cut: bool,
}

/// The world of one seed. Times in nanoseconds, chances in parts per thousand unless a name says otherwise.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nodes, all of them on the join list.
    pub nodes: usize,
    /// How many of them shall vote; as many as can if nothing is said.
    pub voters: Option<u8>,
    /// Clients without a replica.
    pub outside: usize,
    /// Messages that may be lost are.
    pub loss: u64,
    /// Messages that may be repeated are.
    pub twice: u64,
    /// The usual way takes from and to.
    pub delay: (u64, u64),
    /// Messages that take the slow path.
    pub slow: u64,
    /// The longest slow path.
    pub slow_delay: u64,
    /// Messages of masters and workers that find their window full.
    pub busy: u64,
    /// Hops inside a node that take longer.
    pub slow_hop: u64,
    /// The longest of these.
    pub slow_hop_delay: u64,
    /// Syncs that take longer.
    pub slow_sync: u64,
    /// The longest of these.
    pub slow_sync_delay: u64,
    /// How often chance strikes.
    pub strike: u64,
    /// At a strike, for every node that is up: it crashes.
    pub crash: u64,
    /// At a strike: all nodes crash together.
    pub crash_all: u64,
    /// At a strike, for every node: it stops for a while.
    pub pause: u64,
    /// At a strike: links are cut.
    pub cut: u64,
    /// At a strike: cut links heal.
    pub heal: u64,
    /// At a strike, for every node: it is asked to drain, and stops when it has.
    pub leave: u64,
    /// At a strike: one node is told that a live one is dead, or suspected.
    pub false_evidence: u64,
    /// At a strike, for every node: its next sync fails, and it stops.
    pub disk_fails: u64,
    /// At a strike, for every node: its disk takes up to half a second for every sync, for some seconds.
    pub slow_disk: u64,
    /// At a strike, for every node: it loses its disk, if the cluster can bear it.
    pub disk_loss: u64,
    /// How long a voter may be silent before another node takes its seat.
    pub replace_after: u64,
    /// Calls that change who shall vote.
    pub roster: u64,
    /// Calls that open and end sessions.
    pub sessions: u64,
    /// Calls about rights and counters.
    pub rights: u64,
    /// A disk that is lost while the cluster begins: whose, and when.
    pub lost_at_founding: Option<(usize, u64)>,
    /// A node that is replaced at its address while the cluster begins.
    pub replaced_at_founding: Option<Replacement>,
    /// A node that is started with the first two places of the join list exchanged.
    pub exchanges_list: Option<usize>,
    /// The longest way of what founders and the founded say.
    pub slow_founding: u64,
    /// Starts after which the clock shows another time: clocks are told from nothing but their rate.
    pub reboot: u64,
    /// At a strike: the leader is asked to hand over, to anybody or to somebody.
    pub transfer: u64,
    /// Whether the clocks keep the bound on their rates. Where not, what rests on clocks is not checked (F26).
    pub is_clock_bound_kept: bool,
    /// The slowest and the fastest clock, in parts per million.
    pub rates: (u64, u64),
    /// The pause of a client between two calls.
    pub pace: u64,
    /// The most tasks in one submission.
    pub batch: u64,
    /// How many keys there are.
    pub keys: u64,
    /// Tasks that may run once.
    pub at_most_once: u64,
    /// Handlers that fail, are slow, hang.
    pub handlers: [u64; 3],
    /// How long an attempt may take that has a limit: one of these, in milliseconds.
    pub limits: [u64; 2],
    /// Attempts that a node runs at once.
    pub slots: u32,
    /// When snapshots are written: soon, so that every run has some.
    pub compaction: Compaction,
    /// How long work on an image takes at most.
    pub slow_image: u64,
    /// Until when faults go on.
    pub faults: u64,
    /// When the run ends.
    pub end: u64,
}

impl Options {
    /// A world without faults.
    pub fn calm(nodes: usize) -> Self {
        Self {
            nodes,
            voters: None,
            outside: 1,
            loss: 0,
            twice: 0,
            delay: (MS / 20, MS / 2),
            slow: 0,
            slow_delay: MS,
            busy: 0,
            slow_hop: 0,
            slow_hop_delay: MS,
            slow_sync: 0,
            slow_sync_delay: 2 * MS,
            strike: 100 * MS,
            crash: 0,
            crash_all: 0,
            pause: 0,
            cut: 0,
            heal: 0,
            leave: 0,
            false_evidence: 0,
            disk_fails: 0,
            slow_disk: 0,
            disk_loss: 0,
            replace_after: 300 * SECOND,
            roster: 0,
            sessions: 0,
            rights: 250,
            lost_at_founding: None,
            replaced_at_founding: None,
            exchanges_list: None,
            slow_founding: 0,
            reboot: 0,
            transfer: 0,
            is_clock_bound_kept: true,
            rates: (1_000_000, 1_000_000),
            pace: 200 * MS,
            batch: 4,
            keys: 3,
            at_most_once: 300,
            handlers: [100, 50, 20],
            limits: [700, 2_000],
            slots: 4,
            compaction: Compaction { entries: 50, bytes: 1 << 20, trailing: 10 },
            slow_image: 5 * MS,
            faults: 10 * SECOND,
            end: 40 * SECOND,
        }
    }

    /// The world of `seed`.
    pub fn draw(seed: u64) -> Self {
        let mut dice = Dice(seed ^ 0x5eed_0f07_1500_0000);
        let is_clock_bound_kept = !dice.happens(150);
        let half = dice.pick(&[0, 10_000, 45_000]);
        let rates = if is_clock_bound_kept { (1_000_000 - half, 1_000_000 + half) } else { (800_000, 1_250_000) };
        let nodes = dice.pick(&[1, 3, 3, 3, 3, 4, 4, 5]);
        let drawn = Self {
            nodes,
            voters: dice.pick(&[None, None, Some(3)]),
            outside: dice.between(1, 2) as usize,
            loss: dice.pick(&[0, 0, 20, 100, 300]),
            twice: dice.pick(&[0, 0, 20, 200]),
            delay: dice.pick(&[(MS / 20, MS / 5), (MS / 20, 2 * MS), (MS, 20 * MS)]),
            slow: dice.pick(&[0, 0, 5, 50, 200]),
            slow_delay: dice.pick(&[20, 100, 800]) * MS,
            busy: dice.pick(&[0, 0, 5, 50]),
            slow_hop: dice.pick(&[0, 10, 100]),
            slow_hop_delay: dice.pick(&[1, 10, 80]) * MS,
            slow_sync: dice.pick(&[0, 0, 10, 100]),
            slow_sync_delay: dice.pick(&[20, 200, 1500]) * MS,
            strike: dice.pick(&[50, 100, 400]) * MS,
            crash: dice.pick(&[0, 0, 1, 4, 15]),
            crash_all: dice.pick(&[0, 0, 0, 2]),
            pause: dice.pick(&[0, 0, 1, 5, 15]),
            cut: dice.pick(&[0, 0, 10, 40]),
            heal: dice.pick(&[10, 30, 100]),
            false_evidence: dice.pick(&[0, 0, 10, 100]),
            is_clock_bound_kept,
            rates,
            pace: dice.pick(&[150, 400, 1000, 1500]) * MS,
            batch: dice.pick(&[1, 3, 10]),
            keys: dice.pick(&[1, 3, 6]),
            at_most_once: dice.pick(&[0, 200, 600]),
            handlers: dice.pick(&[[0, 0, 0], [100, 100, 0], [200, 300, 60], [400, 0, 100]]),
            slots: dice.pick(&[1, 3, 8]),
            leave: dice.pick(&[0, 0, 0, 2, 8]),
            disk_fails: dice.pick(&[0, 0, 1, 4]),
            slow_disk: dice.pick(&[0, 0, 2, 10]),
            disk_loss: dice.pick(&[0, 0, 1, 4]),
            replace_after: dice.pick(&[4, 15, 300, 300]) * SECOND,
            roster: dice.pick(&[0, 0, 5, 30]),
            rights: dice.pick(&[0, 200, 600]),
            lost_at_founding: dice
                .happens(250)
                .then(|| (dice.between(0, nodes as u64 - 1) as usize, dice.between(1, 600) * MS)),
            reboot: dice.pick(&[0, 300]),
            transfer: dice.pick(&[0, 0, 2, 10]),
            compaction: Compaction {
                entries: dice.pick(&[3, 200, 200, 1000, 1000]),
                bytes: dice.pick(&[30_000, 1 << 30, 1 << 30]),
                trailing: dice.pick(&[0, 1, 10, 50]),
            },
            slow_image: dice.pick(&[1, 5, 50, 400]) * MS,
            sessions: dice.pick(&[0, 30, 150]),
            faults: 85 * SECOND,
            end: 120 * SECOND,
            ..Self::calm(nodes)
        };
        drawn.draw_beginning(&mut dice).draw_long_attempts(&mut dice)
    }

    /// Attempts that take longer than a session lasts, and cuts that last as long: a worker that nobody hears must stop by its own
    /// clock (D5).
    fn draw_long_attempts(mut self, dice: &mut Dice) -> Self {
        if self.nodes > 2 && dice.happens(80) {
            (self.handlers, self.limits, self.slots) = ([100, 100, 300], [2_000, 5_000], 8);
            (self.strike, self.cut, self.heal) = (100 * MS, 20, 20);
            (self.crash, self.crash_all) = (dice.pick(&[0, 1]), 0);
        }
        self
    }

    /// What goes wrong while the cluster begins, beside a lost disk. Drawn last, so that older seeds keep their weather.
    fn draw_beginning(mut self, dice: &mut Dice) -> Self {
        let last = self.nodes as u64 - 1;
        if self.nodes > 1 && dice.happens(200) {
            self.replaced_at_founding = Some(Replacement {
                at: if dice.happens(600) { 0 } else { dice.between(0, last) as usize },
                when: dice.between(50, 2_000) * MS,
                pause: dice.pick(&[0, 300, 1_500, 6_000]) * MS,
                is_cut: self.cut > 0 && dice.happens(300),
            });
        }
        if self.nodes > 1 && dice.happens(50) {
            self.exchanges_list = Some(dice.between(0, last) as usize);
        }
        if self.lost_at_founding.is_some() || self.replaced_at_founding.is_some() {
            self.slow_founding = dice.pick(&[0, 300, 1_500, 4_000]) * MS;
        }
        self
    }
}
