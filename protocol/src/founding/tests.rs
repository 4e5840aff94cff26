//! The rules of founding one by one.

use std::collections::{BTreeSet, VecDeque};

use super::*;
use crate::types::Incarnation;

pub(super) const RETRY: Duration = Duration::from_millis(100);

pub(super) fn config(node: u64, places: usize) -> Config {
    Config {
        node: NodeId(node),
        name: "photos".into(),
        list: (1..=places).map(|place| format!("host{place}:7400")).collect(),
        voters: voters_wanted(places, None),
        cluster: ClusterId(u128::from(node)),
        retry: RETRY,
    }
}

fn founding(node: u64, places: usize) -> Founding {
    Founding::new(config(node, places), &Durable::fresh(NodeId(node), Incarnation(1)), Nanos(0))
}

pub(super) fn sent(effects: &[Effect]) -> Vec<(NodeId, Message)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send(to, message) => Some((*to, message.clone())),
            _ => None,
        })
        .collect()
}

#[test]
fn a_node_without_a_list_founds_at_once() {
    let mut alone = founding(1, 0);
    let mut effects = Vec::new();
    alone.tick(Nanos(0), false, &mut effects);
    assert_eq!(alone.genesis().unwrap().voters, [NodeId(1)]);
    assert!(effects.contains(&Effect::Campaign));
}

#[test]
fn a_founder_waits_for_every_address() {
    let mut founder = founding(1, 3);
    let mut effects = Vec::new();
    founder.resolved(Nanos(1), 0, NodeId(1));
    founder.resolved(Nanos(1), 1, NodeId(2));
    founder.tick(Nanos(2), false, &mut effects);
    assert_eq!(effects, [], "one address is not known yet");

    founder.resolved(Nanos(3), 2, NodeId(3));
    founder.tick(Nanos(3), false, &mut effects);
    let Effect::Promise(ballot) = effects[0] else { panic!("the ballot becomes durable first: {effects:?}") };
    assert_eq!(sent(&effects).len(), 2);

    effects.clear();
    let clean = |node| Message::FoundReply { ballot, answer: FoundAnswer::Clean(NodeId(node)) };
    founder.message(Nanos(4), NodeId(2), clean(2), &mut effects);
    founder.message(Nanos(4), NodeId(2), clean(2), &mut effects);
    assert_eq!(sent(&effects), [], "a majority is not enough");
    founder.message(Nanos(5), NodeId(3), clean(3), &mut effects);
    let [(_, Message::Genesis(genesis)), _] = &sent(&effects)[..] else { panic!("it proposes: {effects:?}") };
    assert_eq!(genesis.voters, [NodeId(1), NodeId(2), NodeId(3)]);
}

#[test]
fn a_founder_accepts_last_when_it_makes_a_majority() {
    let mut nodes: Vec<Founding> = (1..=5).map(|node| founding(node, 5)).collect();
    settle(&mut nodes, |to, message| to == NodeId(2) || !matches!(message, Message::Genesis(_)));
    assert!(nodes[1].genesis().is_some() && nodes[0].genesis().is_none(), "two of five are none");
    let proposed = nodes[1].genesis().unwrap().clone();
    let mut effects = Vec::new();
    let reply = Message::GenesisReply { genesis: proposed.clone() };
    nodes[0].message(Nanos(4), NodeId(3), reply, &mut effects);
    assert_eq!(effects, [Effect::Accept(proposed), Effect::Campaign]);
}

#[test]
fn a_founder_that_was_outbid_after_all_had_promised_bids_again() {
    let mut nodes: Vec<Founding> = (1..=3).map(|node| founding(node, 3)).collect();
    settle(&mut nodes, |_, message| !matches!(message, Message::Genesis(_)));
    // A rival that nobody hears of any more.
    let rival = Ballot { round: 7, node: NodeId(9) };
    for node in &mut nodes[1..] {
        let Config { name, list, voters, .. } = node.config.clone();
        node.message(Nanos(4), NodeId(9), Message::Found { name, list, voters, ballot: rival }, &mut Vec::new());
    }
    settle(&mut nodes, |_, _| true);
    assert_eq!(nodes[0].genesis(), None, "all refuse it");
    settle(&mut nodes, |_, _| true);
    let ballot = Ballot { round: rival.round + 1, node: NodeId(1) };
    let is_founded = |node: &Founding| node.genesis().is_some_and(|genesis| genesis.ballot == ballot);
    assert!(nodes.iter().all(is_founded), "{nodes:?}");
}

#[test]
fn a_founder_that_holds_a_genesis_hands_it_on_to_those_who_promised_more() {
    let mut nodes: Vec<Founding> = (1..=5).map(|node| founding(node, 5)).collect();
    settle(&mut nodes, |to, message| to.0 < 4 || !matches!(message, Message::Genesis(_)));
    let first = nodes[0].genesis().expect("three of five have it").clone();
    // Two of these lose their disks, and the others have promised a rival more.
    (nodes[1], nodes[2]) = (founding(12, 5), founding(13, 5));
    for node in &mut nodes[1..] {
        let Config { name, list, voters, .. } = node.config.clone();
        let ballot = Ballot { round: 7, node: NodeId(9) };
        node.message(Nanos(4), NodeId(9), Message::Found { name, list, voters, ballot }, &mut Vec::new());
    }
    // A start forgets what was proposed.
    let durable = Durable { genesis: Some(first.clone()), ..Durable::fresh(NodeId(1), Incarnation(2)) };
    nodes[0] = Founding::new(config(1, 5), &durable, Nanos(4));
    settle(&mut nodes, |_, _| true);
    settle(&mut nodes, |_, _| true);
    let holders = nodes.iter().filter(|node| node.genesis().is_some_and(|genesis| genesis.cluster == first.cluster));
    assert_eq!(holders.count(), 3, "those of its voters who are left");
}

#[test]
fn a_ballot_above_which_nobody_could_bid_is_nobodys() {
    let mut nodes: Vec<Founding> = (1..=3).map(|node| founding(node, 3)).collect();
    let highest = Ballot { round: u64::MAX, node: NodeId(9) };
    let genesis = Genesis { cluster: ClusterId(9), ballot: highest, voters: vec![NodeId(9), NodeId(1)], target: 3 };
    settle(&mut nodes, |_, message| !matches!(message, Message::Genesis(_)));
    let ballot = nodes[0].handed_on().expect("it proposes").ballot;
    let Config { name, list, voters, .. } = nodes[0].config.clone();
    for message in [
        Message::Found { name, list, voters, ballot: highest },
        Message::FoundReply { ballot, answer: FoundAnswer::Promised(highest) },
        Message::FoundReply { ballot, answer: FoundAnswer::Member { cluster: ClusterId(9), genesis: genesis.clone() } },
        Message::Genesis(genesis.clone()),
        Message::Established(genesis),
    ] {
        for node in &mut nodes {
            let mut effects = Vec::new();
            node.message(Nanos(4), NodeId(9), message.clone(), &mut effects);
            assert_eq!(effects, [], "{message:?}");
        }
    }
    // Another node behind an address, so that all of them bid again.
    nodes[0].withdraw();
    settle(&mut nodes, |_, _| true);
    assert!(nodes.iter().all(|node| node.genesis().is_some()), "{nodes:?}");
}

#[test]
fn who_knows_of_a_cluster_bids_to_hand_it_on_and_founds_none() {
    let mut nodes: Vec<Founding> = (1..=3).map(|node| founding(node, 3)).collect();
    nodes[0].cluster_exists();
    settle(&mut nodes, |_, _| true);
    assert!(nodes.iter().all(|node| node.genesis().is_none()), "nobody knows which one");
    settle(&mut nodes, |to, message| to == NodeId(2) || !matches!(message, Message::Genesis(_)));

    let mut nodes: Vec<Founding> = (1..=3).map(|node| founding(node, 3)).collect();
    settle(&mut nodes, |to, message| {
        to == NodeId(2) || !matches!(message, Message::Genesis(_) | Message::GenesisReply { .. })
    });
    let first = nodes[1].genesis().expect("the second has accepted it").clone();
    nodes[0] = founding(1, 3);
    nodes[0].cluster_exists();
    settle(&mut nodes, |_, _| true);
    assert!(nodes.iter().all(|node| node.genesis().is_some_and(|genesis| genesis.cluster == first.cluster)));
}

#[test]
fn a_founder_campaigns_again_when_another_voter_has_taken_the_genesis() {
    let mut nodes: Vec<Founding> = (1..=3).map(|node| founding(node, 3)).collect();
    settle(&mut nodes, |to, message| to != NodeId(3) || !matches!(message, Message::Genesis(_)));
    let genesis = nodes[0].genesis().expect("two of three hold it").clone();
    let mut effects = Vec::new();
    let other = Genesis { cluster: ClusterId(99), ..genesis.clone() };
    nodes[0].message(Nanos(3), NodeId(3), Message::GenesisReply { genesis: other }, &mut effects);
    assert_eq!(effects, [], "only for ours");
    let reply = Message::GenesisReply { genesis };
    nodes[0].message(Nanos(4), NodeId(3), reply.clone(), &mut effects);
    assert_eq!(effects, [Effect::Campaign]);
    effects.clear();
    nodes[0].message(Nanos(5), NodeId(3), reply.clone(), &mut effects);
    assert_eq!(effects, [], "once for each");
    nodes[1].message(Nanos(6), NodeId(3), reply, &mut effects);
    assert_eq!(effects, [], "who is not the founder leaves it to that");
}

#[test]
fn a_promise_refuses_a_smaller_genesis_but_not_an_established_one() {
    let mut node = founding(2, 3);
    let mut effects = Vec::new();
    let high = Ballot { round: 5, node: NodeId(9) };
    let Config { name, list, voters, .. } = config(9, 3);
    node.message(Nanos(1), NodeId(9), Message::Found { name, list, voters, ballot: high }, &mut effects);
    assert_eq!(effects[0], Effect::Promise(high));

    let genesis = Genesis {
        cluster: ClusterId(1),
        ballot: Ballot { round: 1, node: NodeId(1) },
        voters: vec![NodeId(1), NodeId(2), NodeId(3)],
        target: 3,
    };
    node.message(Nanos(2), NodeId(1), Message::Genesis(genesis.clone()), &mut effects);
    assert_eq!(node.genesis(), None);
    node.message(Nanos(3), NodeId(1), Message::Established(genesis.clone()), &mut effects);
    assert_eq!(node.genesis(), Some(&genesis));
}

#[test]
fn a_newcomer_joins_the_cluster_of_an_elected_leader_and_of_nobody_else() {
    let mut newcomer = founding(4, 3);
    let mut effects = Vec::new();
    let genesis = Genesis {
        cluster: ClusterId(1),
        ballot: Ballot { round: 1, node: NodeId(1) },
        voters: vec![NodeId(1), NodeId(2), NodeId(3)],
        target: 3,
    };
    newcomer.message(Nanos(1), NodeId(1), Message::Genesis(genesis.clone()), &mut effects);
    assert_eq!((newcomer.genesis(), effects.len()), (None, 0), "a genesis may come to nothing");
    newcomer.message(Nanos(2), NodeId(1), Message::Established(genesis.clone()), &mut effects);
    assert_eq!(effects[0], Effect::Accept(genesis.clone()));
    assert_eq!(sent(&effects), [(NodeId(1), Message::GenesisReply { genesis })]);
}

#[test]
fn a_leader_offers_its_cluster_to_every_node_until_that_is_in_it() {
    let mut leader = founding(1, 0);
    let mut effects = Vec::new();
    leader.tick(Nanos(1), false, &mut effects);
    let genesis = leader.genesis().unwrap().clone();
    effects.clear();
    leader.link_up(Nanos(2), NodeId(9));
    leader.tick(Nanos(2), false, &mut effects);
    assert_eq!(effects, [], "it is not elected yet");
    leader.lead(Nanos(3));
    for _ in 0..2 {
        effects.clear();
        leader.tick(leader.next_deadline().max(Nanos(3)), true, &mut effects);
        assert_eq!(sent(&effects), [(NodeId(9), Message::Established(genesis.clone()))]);
    }
    leader.message(Nanos(9), NodeId(9), Message::GenesisReply { genesis }, &mut effects);
    effects.clear();
    leader.tick(leader.next_deadline(), true, &mut effects);
    assert_eq!((effects, leader.next_deadline()), (Vec::new(), Nanos::NEVER));
}

#[test]
fn an_operator_founds_without_an_address_that_cannot_answer() {
    let mut second = founding(2, 3);
    let mut effects = Vec::new();
    second.resolved(Nanos(1), 1, NodeId(2));
    second.resolved(Nanos(1), 2, NodeId(3));
    second.tick(Nanos(2), false, &mut effects);
    assert_eq!(effects, [], "the first address founds");
    second.found_without(Nanos(3), &BTreeSet::from([0]), &mut effects);
    second.tick(Nanos(3), false, &mut effects);
    let Effect::Promise(ballot) = effects[0] else { panic!("{effects:?}") };
    effects.clear();
    let answer = FoundAnswer::Clean(NodeId(3));
    second.message(Nanos(4), NodeId(3), Message::FoundReply { ballot, answer }, &mut effects);
    let [(to, Message::Genesis(genesis))] = &sent(&effects)[..] else { panic!("it proposes: {effects:?}") };
    assert_eq!(*to, NodeId(3));
    assert_eq!((genesis.voters.as_slice(), genesis.target), ([NodeId(2), NodeId(3)].as_slice(), 3));
}

#[test]
fn a_founder_whose_disk_was_wiped_hands_on_what_it_founded_before_and_waits_to_join_it() {
    let mut founder = founding(4, 3);
    let mut effects = Vec::new();
    for (place, node) in [4, 2, 3].into_iter().enumerate() {
        founder.resolved(Nanos(1), place, NodeId(node));
    }
    founder.tick(Nanos(2), false, &mut effects);
    let Effect::Promise(ballot) = effects[0] else { panic!("{effects:?}") };
    let genesis = Genesis {
        cluster: ClusterId(1),
        ballot: Ballot { round: 1, node: NodeId(1) },
        voters: vec![NodeId(1), NodeId(2), NodeId(3)],
        target: 3,
    };
    effects.clear();
    let answer = FoundAnswer::Member { cluster: ClusterId(1), genesis: genesis.clone() };
    founder.message(Nanos(3), NodeId(2), Message::FoundReply { ballot, answer }, &mut effects);
    // Whoever promised this founder refuses the genesis from everybody with a smaller ballot.
    let under_our_ballot = Message::Genesis(Genesis { ballot, ..genesis.clone() });
    assert_eq!(sent(&effects), [1, 3].map(|node| (NodeId(node), under_our_ballot.clone())), "it founds nothing");
    assert_eq!(founder.genesis(), None, "it has no part in it");
    effects.clear();
    founder.message(Nanos(4), NodeId(3), Message::GenesisReply { genesis: genesis.clone() }, &mut effects);
    founder.tick(founder.next_deadline(), false, &mut effects);
    assert_eq!(sent(&effects).len(), 1, "again to those who have not confirmed it");
    founder.message(Nanos(4), NodeId(2), Message::Established(genesis.clone()), &mut effects);
    assert_eq!(founder.genesis(), Some(&genesis));
}

#[test]
fn another_list_stops_the_founder_with_both_lists_in_the_error() {
    let mut founder = founding(1, 3);
    let mut effects = Vec::new();
    for place in 0..3 {
        founder.resolved(Nanos(1), place, NodeId(place as u64 + 1));
    }
    founder.tick(Nanos(2), false, &mut effects);
    let (_, Message::Found { name, list, voters, ballot }) = sent(&effects)[0].clone() else { panic!("{effects:?}") };
    let mut other = Founding::new(config(2, 5), &Durable::fresh(NodeId(2), Incarnation(1)), Nanos(0));
    effects.clear();
    other.message(Nanos(3), NodeId(1), Message::Found { name, list, voters, ballot }, &mut effects);
    let (_, reply) = sent(&effects)[0].clone();
    effects.clear();
    founder.message(Nanos(4), NodeId(2), reply, &mut effects);
    let Effect::Fatal(words) = &effects[0] else { panic!("{effects:?}") };
    assert!(words.contains("host3:7400]") && words.contains("host5:7400]"), "{words}");
}

#[test]
fn one_node_behind_two_addresses_stops_the_founder() {
    let mut founder = founding(1, 3);
    for (place, node) in [1, 2, 1].into_iter().enumerate() {
        founder.resolved(Nanos(1), place, NodeId(node));
    }
    let mut effects = Vec::new();
    founder.tick(Nanos(2), false, &mut effects);
    assert!(matches!(&effects[0], Effect::Fatal(words) if words.contains("twice")), "{effects:?}");
}

#[test]
fn the_wish_for_voters_is_odd_and_at_most_seven() {
    let wanted: Vec<u8> =
        [(0, None), (1, None), (2, None), (3, None), (4, None), (9, None), (5, Some(4)), (3, Some(9))]
            .into_iter()
            .map(|(listed, asked)| voters_wanted(listed, asked))
            .collect();
    assert_eq!(wanted, [1, 1, 1, 3, 3, 7, 3, 3]);
}

#[test]
fn a_founder_that_has_promised_a_rival_founds_nothing_below_it() {
    let mut founder = founding(1, 3);
    (1..=3).for_each(|node| founder.resolved(Nanos(1), node - 1, NodeId(node as u64)));
    let mut effects = Vec::new();
    founder.tick(Nanos(2), false, &mut effects);
    let Effect::Promise(ballot) = effects[0] else { panic!("it bids: {effects:?}") };
    let rival = Ballot { round: ballot.round, node: NodeId(9) };
    let Message::Found { name, list, voters, .. } = sent(&effects)[0].1.clone() else { panic!("it asks: {effects:?}") };
    founder.message(Nanos(3), NodeId(9), Message::Found { name, list, voters, ballot: rival }, &mut effects);
    for node in [2, 3].map(NodeId) {
        let answer = FoundAnswer::Clean(node);
        founder.message(Nanos(4), node, Message::FoundReply { ballot, answer }, &mut effects);
    }
    assert!(
        !effects.iter().any(|effect| matches!(effect, Effect::Send(_, Message::Genesis(_)))),
        "the rival may found with our promise: {effects:?}"
    );

    effects.clear();
    founder.tick(founder.next_deadline(), false, &mut effects);
    assert_eq!(effects[0], Effect::Promise(Ballot { round: rival.round + 1, node: NodeId(1) }), "if not, we do");
}

#[test]
fn two_nodes_that_each_take_the_other_for_the_first_are_told() {
    let (mut nodes, ids) = ([founding(1, 2), founding(2, 2)], [NodeId(1), NodeId(2)]);
    nodes[0].config.list.swap(0, 1);
    let mut effects = Vec::new();
    for (at, node) in nodes.iter_mut().enumerate() {
        ids.iter().enumerate().for_each(|(place, id)| node.resolved(Nanos(1), place ^ (1 - at), *id));
        node.tick(Nanos(1), false, &mut effects);
    }
    assert_eq!(effects, [], "both wait");
    let [one, other] = &mut nodes;
    one.tick(one.next_deadline(), false, &mut effects);
    let [(to, question)] = &sent(&effects)[..] else { panic!("it asks one: {effects:?}") };
    assert_eq!(*to, NodeId(2));
    let mut answers = Vec::new();
    other.message(Nanos(2), NodeId(1), question.clone(), &mut answers);
    one.message(Nanos(3), NodeId(2), sent(&answers)[0].1.clone(), &mut effects);
    assert!(matches!(effects.last(), Some(Effect::Fatal(why)) if why.contains("host2:7400,host1:7400")), "{effects:?}");
}

#[test]
fn whoever_waits_for_a_founder_with_the_same_list_goes_on_waiting() {
    let (mut first, mut second) = (founding(1, 2), founding(2, 2));
    (1..=2).for_each(|node| second.resolved(Nanos(1), node - 1, NodeId(node as u64)));
    let mut effects = Vec::new();
    second.tick(second.next_deadline(), false, &mut effects);
    let at = second.next_deadline();
    second.tick(at, false, &mut effects);
    let question = sent(&effects)[0].1.clone();
    let mut answers = Vec::new();
    first.message(at, NodeId(2), question, &mut answers);
    assert_eq!(answers.len(), 1, "nothing is promised: {answers:?}");
    effects.clear();
    second.message(at, NodeId(1), sent(&answers)[0].1.clone(), &mut effects);
    assert_eq!((effects, second.genesis()), (Vec::new(), None));
}

/// Lets the first of these nodes found, and everybody hear what passes `hears`.
fn settle(nodes: &mut [Founding], hears: impl Fn(NodeId, &Message) -> bool) {
    let ids: Vec<NodeId> = nodes.iter().map(|node| node.config.node).collect();
    for node in &mut *nodes {
        ids.iter().enumerate().for_each(|(place, &id)| node.resolved(Nanos(1), place, id));
    }
    let mut effects = Vec::new();
    let at = nodes[0].next_deadline().max(Nanos(2));
    nodes[0].tick(at, false, &mut effects);
    let mut wires: VecDeque<_> = sent(&effects).into_iter().map(|(to, message)| (ids[0], to, message)).collect();
    while let Some((from, to, message)) = wires.pop_front() {
        let Some(at) = ids.iter().position(|id| *id == to).filter(|_| hears(to, &message)) else { continue };
        effects.clear();
        nodes[at].message(Nanos(3), from, message, &mut effects);
        wires.extend(sent(&effects).into_iter().map(|(next, message)| (to, next, message)));
    }
}

#[test]
fn what_counts_are_the_voters_and_not_the_length_of_the_list() {
    let started = |node: u64| {
        let config = Config { voters: 3, ..config(node, 5) };
        Founding::new(config, &Durable::fresh(NodeId(node), Incarnation(1)), Nanos(0))
    };
    let mut nodes: Vec<Founding> = (1..=5).map(started).collect();
    settle(&mut nodes, |to, message| to != NodeId(3) || !matches!(message, Message::Genesis(_)));
    let first = nodes[1].genesis().expect("it has a vote").cluster;
    let has_first = |node: &Founding| node.genesis().is_some_and(|genesis| genesis.cluster == first);
    assert_eq!(nodes.iter().filter(|node| has_first(node)).count(), 2, "two of three voters have accepted it");

    // Two replaced nodes are few of five and most of the three that vote: nobody is left who knows of the first genesis.
    (nodes[0], nodes[1]) = (started(11), started(12));
    settle(&mut nodes, |_, _| true);
    let second = nodes[2].genesis().expect("the third voter has a genesis now");
    assert_eq!(second.voters, [NodeId(3), NodeId(11), NodeId(12)]);

    // One replaced voter is borne, and so are all who do not vote.
    let mut nodes: Vec<Founding> = (1..=5).map(started).collect();
    settle(&mut nodes, |to, message| to != NodeId(3) || !matches!(message, Message::Genesis(_)));
    let first = nodes[1].genesis().expect("it has a vote").cluster;
    let has_first = |node: &Founding| node.genesis().is_some_and(|genesis| genesis.cluster == first);
    (nodes[0], nodes[3], nodes[4]) = (started(11), started(14), started(15));
    settle(&mut nodes, |_, _| true);
    assert!(nodes.iter().all(|node| node.genesis().is_none() || has_first(node)));
}

#[test]
fn whoever_waits_says_for_what() {
    let host = |place: usize| format!("host{place}:7400");
    let mut founder = founding(1, 3);
    assert_eq!(founder.waits_for(), Some(Wait::Founder(host(1))), "it does not know yet that this is itself");
    founder.resolved(Nanos(1), 0, NodeId(1));
    founder.resolved(Nanos(1), 2, NodeId(3));
    founder.tick(Nanos(2), false, &mut Vec::new());
    assert_eq!(founder.waits_for(), Some(Wait::Answers(vec![host(2)])), "nobody is there");
    founder.resolved(Nanos(3), 1, NodeId(2));
    founder.tick(Nanos(3), false, &mut Vec::new());
    assert_eq!(founder.waits_for(), Some(Wait::Answers(vec![host(2), host(3)])), "both were asked");

    // Nobody hears of the genesis that the first one proposes, and then one does whose answer is lost.
    let mut nodes: Vec<Founding> = (1..=3).map(|node| founding(node, 3)).collect();
    settle(&mut nodes, |_, message| !matches!(message, Message::Genesis(_)));
    assert_eq!(nodes[0].waits_for(), Some(Wait::Answers(vec![host(2), host(3)])));
    assert_eq!(nodes[1].waits_for(), Some(Wait::Founder(host(1))));
    nodes[0].withdraw();
    settle(&mut nodes, |to, message| {
        to == NodeId(2) || !matches!(message, Message::Genesis(_) | Message::GenesisReply { .. })
    });
    assert_eq!(nodes[1].waits_for(), Some(Wait::Majority { founder: Some(host(1)) }));
    // It loses its disk; that it was in a cluster is known already. Nobody knows which, and nobody founds another.
    nodes[0].cluster_exists();
    nodes[1] = founding(12, 3);
    settle(&mut nodes, |_, _| true);
    assert_eq!(nodes[0].waits_for(), Some(Wait::Master));
    assert!(nodes.iter().all(|node| node.genesis().is_none()));
    // A start forgets what gossip said.
    let durable = Durable { promised: nodes[0].promised, ..Durable::fresh(NodeId(1), Incarnation(2)) };
    nodes[0] = Founding::new(config(1, 3), &durable, Nanos(4));
    settle(&mut nodes, |_, _| true);
    assert!(nodes.iter().all(|node| node.genesis().is_some()), "that is the way out");
    assert_eq!(nodes[0].waits_for(), Some(Wait::Majority { founder: None }));
}

#[test]
fn a_genesis_whose_founder_is_gone_waits_for_another_node_at_its_address() {
    let mut nodes: Vec<Founding> = (1..=3).map(|node| founding(node, 3)).collect();
    settle(&mut nodes, |to, message| {
        to == NodeId(2) || !matches!(message, Message::Genesis(_) | Message::GenesisReply { .. })
    });
    let first = nodes[1].genesis().expect("the second has accepted it").cluster;
    // The third one promised somebody else more, who is gone too: it refuses what the second hands on.
    let Config { name, list, voters, .. } = config(9, 3);
    let ballot = Ballot { round: 7, node: NodeId(9) };
    nodes[2].message(Nanos(4), NodeId(9), Message::Found { name, list, voters, ballot }, &mut Vec::new());
    let mut effects = Vec::new();
    nodes[1].found_without(Nanos(5), &BTreeSet::from([0]), &mut effects);
    assert!(matches!(&effects[..], [Effect::Note(_)]), "it holds a genesis and founds none: {effects:?}");
    assert_eq!(nodes[1].waits_for(), Some(Wait::Majority { founder: Some("host1:7400".into()) }));

    nodes[0] = founding(11, 3);
    settle(&mut nodes, |_, _| true);
    settle(&mut nodes, |_, _| true);
    let has_first = |node: &Founding| node.genesis().is_some_and(|genesis| genesis.cluster == first);
    assert!(nodes[1..].iter().all(has_first), "two of its three voters are a majority");
}
