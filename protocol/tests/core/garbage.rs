//! What a broken or hostile peer may say: a core answers, ignores or stops in words, but never panics.

use protocol::consensus::{
    Append, AppendReply, Config, Consensus, Input, Message, ReadMode, Snapshot, SnapshotReply, Verdict,
};
use protocol::durable::{ConfState, Durable, Entry, Genesis, Payload, Persist, SnapMeta};
use protocol::effects::Role;
use protocol::{ClusterId, ClusterTime, Epoch, Incarnation, Index, LogId, Nanos, NodeId, Profile};

use crate::dice::Dice;

/// Mostly numbers that mean something, some at the edges.
fn number(dice: &mut Dice, about: u64) -> u64 {
    match dice.between(0, 29) {
        0 => dice.pick(&[0, 1, u64::MAX, u64::MAX - 1, 1 << 62, (1 << 62) + 1]),
        1..=20 => about,
        _ => about.saturating_add(dice.between(0, 4)).saturating_sub(2),
    }
}

fn place(dice: &mut Dice, core: &Consensus) -> LogId {
    let id = core.entries(Index(0)..=Index(u64::MAX)).last().map_or(core.base(), |entry| entry.id);
    if dice.happens(300) {
        return if dice.happens(500) { id } else { core.base() };
    }
    LogId { epoch: Epoch(number(dice, id.epoch.0)), index: Index(number(dice, id.index.0)) }
}

fn entries(dice: &mut Dice, prev: LogId, epoch: u64) -> Vec<Entry> {
    let count = dice.between(0, 3);
    let mut index = prev.index.0;
    let entry = |_| {
        index = if dice.happens(50) { number(dice, index) } else { index.saturating_add(1) };
        let payload = match dice.between(0, 9) {
            0 => Payload::Config(ConfState { voters: vec![NodeId(dice.between(0, 3))], ..ConfState::default() }),
            1 => Payload::Config(ConfState::default()),
            _ => Payload::Noop,
        };
        let epoch = if dice.happens(100) { number(dice, epoch) } else { epoch };
        let time = ClusterTime(if dice.happens(20) { number(dice, 0) } else { 5 });
        Entry { id: LogId { epoch: Epoch(epoch), index: Index(index) }, time, payload }
    };
    (0..count).map(entry).collect()
}

fn meta(dice: &mut Dice, core: &Consensus) -> SnapMeta {
    let voters = (0..dice.between(0, 3)).map(|_| NodeId(dice.between(0, 4))).collect();
    let conf = ConfState { voters, ..ConfState::default() };
    SnapMeta { last: place(dice, core), time: ClusterTime(number(dice, 5)), conf }
}

fn message(dice: &mut Dice, core: &Consensus, now: Nanos) -> Message {
    let about = number(dice, core.epoch().0);
    let epoch = Epoch(about);
    match dice.between(0, 13) {
        0 => Message::PreVote { epoch, last: place(dice, core) },
        1 => Message::PreVoteReply { epoch, granted: dice.happens(700) },
        2 => Message::Vote { epoch, last: place(dice, core), transfer: dice.happens(200) },
        3 => Message::VoteReply { epoch, granted: dice.happens(700) },
        4 | 5 => {
            let prev = place(dice, core);
            let entries = entries(dice, prev, about);
            let commit = Index(number(dice, core.commit().0));
            Message::Append(Append { epoch, prev, entries, commit, sent: Nanos(number(dice, now.0)) })
        }
        6 | 7 => {
            Message::Snapshot(Box::new(Snapshot { epoch, meta: meta(dice, core), sent: Nanos(number(dice, now.0)) }))
        }
        8 => {
            let (index, sent) = (Index(number(dice, core.last().index.0)), Nanos(number(dice, now.0)));
            Message::SnapshotReply(SnapshotReply { epoch, index, sent, promise: Profile::LAN.promise })
        }
        9 => Message::ReadIndex { epoch, number: number(dice, 1), may_lease: dice.happens(500) },
        10 => {
            let index = dice.happens(700).then(|| Index(number(dice, core.commit().0)));
            Message::ReadIndexReply { epoch, number: number(dice, 1), index }
        }
        11 => match dice.happens(500) {
            true => Message::TimeoutNow { epoch },
            false => Message::NotMember { epoch, config: Index(number(dice, 1)) },
        },
        _ => {
            let verdict = match dice.happens(600) {
                true => Verdict::Matched(Index(number(dice, core.last().index.0))),
                false => Verdict::Rejected { at: Index(number(dice, core.last().index.0)), hint: place(dice, core) },
            };
            let promise = dice.pick(&[std::time::Duration::ZERO, Profile::LAN.promise, std::time::Duration::MAX]);
            Message::AppendReply(AppendReply {
                epoch,
                verdict,
                sent: Nanos(number(dice, now.0)),
                promise,
                is_eager: dice.happens(500),
            })
        }
    }
}

#[test]
fn no_message_makes_a_core_panic() {
    let voters: Vec<NodeId> = (1..=3).map(NodeId).collect();
    let genesis = Genesis { cluster: ClusterId(7), ballot: Default::default(), voters, target: 3 };
    for seed in 0..2_000 {
        let mut dice = Dice(seed);
        let mut disk = Durable::fresh(NodeId(1), Incarnation(1));
        disk.apply(&Persist { genesis: Some(genesis.clone()), ..Persist::default() });
        let config = Config { node: NodeId(1), profile: Profile::LAN, seed };
        let mut core = Consensus::new(config, disk, Nanos(0));
        let (mut now, mut effects) = (Nanos(600_000_000), Vec::new());
        if dice.happens(700) {
            core.campaign_now(now, &mut effects);
            let pre_vote = Message::PreVoteReply { epoch: Epoch(2), granted: true };
            core.step(now, Input::Message { from: NodeId(2), message: pre_vote }, &mut effects);
            core.step(now, Input::Persisted { seq: 1 }, &mut effects);
            let vote = Message::VoteReply { epoch: Epoch(2), granted: true };
            core.step(now, Input::Message { from: NodeId(2), message: vote }, &mut effects);
            assert_eq!(core.role(), Role::Leader);
        }
        for _ in 0..200 {
            now = Nanos(now.0 + dice.pick(&[1, 1_000_000, 300_000_000]));
            let input = match dice.between(0, 11) {
                0 => Input::Tick,
                1 => Input::Persisted { seq: number(&mut dice, 5) },
                2 => Input::Propose { context: 0, epoch: core.epoch(), payload: Default::default() },
                3 => Input::Read { context: 0, mode: ReadMode::Quorum },
                // An image is staged whatever its sender named; our own snapshots are honest.
                4 => Input::Staged { meta: meta(&mut dice, &core) },
                5 => match core.snap_meta().filter(|_| !core.is_installing()) {
                    Some(meta) => Input::Saved { meta, trailing: dice.between(0, 2) },
                    None => Input::Tick,
                },
                _ => {
                    let message = message(&mut dice, &core, now);
                    Input::Message { from: NodeId(dice.between(0, 4)), message }
                }
            };
            core.step(now, input, &mut effects);
            effects.clear();
            if core.role() == Role::Halted {
                break;
            }
        }
    }
}
