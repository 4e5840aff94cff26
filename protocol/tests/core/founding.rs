//! How a core comes into a cluster (F1): by a genesis, and by nothing else.

use protocol::consensus::{Append, Config, Consensus, Effect, Input, Message};
use protocol::durable::{Ballot, Durable, GENESIS, Genesis, HardState};
use protocol::effects::Role;
use protocol::{ClusterId, Epoch, Incarnation, Index, Nanos, NodeId, Profile};

fn core(node: u64) -> Consensus {
    let config = Config { node: NodeId(node), profile: Profile::LAN, seed: 1 };
    Consensus::new(config, Durable::fresh(NodeId(node), Incarnation(1)), Nanos(0))
}

fn genesis(voters: &[u64]) -> Genesis {
    let voters = voters.iter().map(|node| NodeId(*node)).collect();
    Genesis { cluster: ClusterId(7), ballot: Ballot::default(), voters, target: 3 }
}

fn append(epoch: u64) -> Message {
    Message::Append(Append {
        epoch: Epoch(epoch),
        prev: GENESIS,
        entries: Vec::new(),
        commit: Index(1),
        sent: Nanos(1),
    })
}

#[test]
fn a_node_without_a_genesis_hears_nobody_and_never_campaigns() {
    let mut core = core(2);
    let mut effects = Vec::new();
    let vote = Message::Vote { epoch: Epoch(9), last: GENESIS, transfer: true };
    for message in [append(9), vote, Message::PreVote { epoch: Epoch(9), last: GENESIS }] {
        core.step(Nanos(1), Input::Message { from: NodeId(1), message }, &mut effects);
    }
    core.step(Nanos(u64::MAX / 2), Input::Tick, &mut effects);
    core.campaign_now(Nanos(u64::MAX / 2), &mut effects);
    assert_eq!((effects, core.next_deadline()), (Vec::new(), Nanos::NEVER));
}

#[test]
fn a_genesis_is_accepted_once_and_in_one_batch_with_what_follows_from_it() {
    let mut core = core(2);
    let mut effects = Vec::new();
    assert_eq!(core.persist(Nanos(1), &mut effects, |batch| batch.promised = Some(Ballot::default())), 1);
    assert_eq!(core.adopt_genesis(Nanos(2), &genesis(&[1, 2, 3]), &mut effects), Some(2));
    assert_eq!(core.adopt_genesis(Nanos(3), &genesis(&[2]), &mut effects), None);

    let mut disk = Durable::fresh(NodeId(2), Incarnation(1));
    for effect in &effects {
        if let Effect::Persist(batch) = effect {
            disk.apply(batch);
        }
    }
    assert_eq!((disk.base, disk.hard_state), (GENESIS, HardState { epoch: Epoch(1), vote: None }));
    assert_eq!((core.last(), core.epoch(), core.commit()), (GENESIS, Epoch(1), Index(1)));
}

#[test]
fn what_an_accepted_genesis_allows_waits_for_the_disk() {
    let mut core = core(2);
    let mut effects = Vec::new();
    core.adopt_genesis(Nanos(1), &genesis(&[1, 2, 3]), &mut effects);
    core.step(Nanos(2), Input::Message { from: NodeId(1), message: append(1) }, &mut effects);
    let Some(Effect::Send { after, .. }) = effects.iter().find(|effect| matches!(effect, Effect::Send { .. })) else {
        panic!("an append is answered: {effects:?}")
    };
    assert_eq!(*after, Some(1));
}

#[test]
fn a_lone_founder_leads_when_its_disk_has_answered() {
    let mut core = core(1);
    let mut effects = Vec::new();
    core.adopt_genesis(Nanos(1), &genesis(&[1]), &mut effects);
    core.campaign_now(Nanos(2), &mut effects);
    assert_eq!(core.role(), Role::Candidate);
    core.step(Nanos(3), Input::Persisted { seq: 2 }, &mut effects);
    assert_eq!(core.role(), Role::Leader);
    assert!(!core.has_authority(Nanos(3)), "the no-op is not applied yet");
    core.step(Nanos(4), Input::Persisted { seq: 3 }, &mut effects);
    assert!(core.has_authority(Nanos(4)));
    assert!(effects.contains(&Effect::Apply { from: Index(2), to: Index(2) }));
}

#[test]
fn what_was_known_to_be_committed_is_applied_again_at_the_first_step_after_a_restart() {
    let mut core = core(1);
    let mut effects = Vec::new();
    core.adopt_genesis(Nanos(1), &genesis(&[1]), &mut effects);
    core.campaign_now(Nanos(2), &mut effects);
    for seq in 2..6 {
        core.step(Nanos(seq), Input::Persisted { seq }, &mut effects);
        core.step(
            Nanos(seq),
            Input::Propose { context: seq, epoch: Epoch(2), payload: Default::default() },
            &mut effects,
        );
    }
    let mut disk = Durable::fresh(NodeId(1), Incarnation(1));
    for effect in &effects {
        if let Effect::Persist(batch) = effect {
            disk.apply(batch);
        }
    }
    let hint = disk.commit_hint;
    assert!(hint > Index(1));
    let config = Config { node: NodeId(1), profile: Profile::LAN, seed: 1 };
    let mut restarted = Consensus::new(config, disk, Nanos(100));
    effects.clear();
    restarted.step(Nanos(100), Input::Tick, &mut effects);
    assert!(effects.contains(&Effect::Apply { from: Index(2), to: hint }));
}
