//! A town of replicas whose disks and wires answer at once: who joins, who votes, who is replaced.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use super::*;
use crate::client::{Consistency, Denied, Origin, Request, RequestBody, Response};
use crate::durable::Durable;
use crate::effects::{Local, Outgoing};
use crate::master;
use crate::message::Body;
use crate::profile::Profile;
use crate::replica::{Compaction, Config, Input};
use crate::state::{Command, Operation, Query, Roster, RosterChange};
use crate::types::{ClusterId, Incarnation, Seq, SessionId};

struct Town {
    now: Nanos,
    nodes: BTreeMap<u64, Replica>,
    dead: BTreeSet<u64>,
    /// Nodes whose disks hang.
    stuck: BTreeSet<u64>,
    /// Nodes that remember nothing over a restart.
    forgetful: BTreeSet<u64>,
    wires: VecDeque<(u64, u64, Body)>,
    responses: Vec<Response>,
    /// Nodes that were told that they are removed.
    removed: BTreeSet<u64>,
    session: Option<SessionId>,
    asked: u64,
}

impl Town {
    /// The first nodes of a join list, founded and led.
    fn founded(count: u64) -> Self {
        Self::with(count, &[])
    }

    /// The same, where some nodes remember nothing.
    fn with(count: u64, forgetful: &[u64]) -> Self {
        let mut town = Self {
            now: Nanos(1),
            nodes: BTreeMap::new(),
            dead: BTreeSet::new(),
            stuck: BTreeSet::new(),
            forgetful: forgetful.iter().copied().collect(),
            wires: VecDeque::new(),
            responses: Vec::new(),
            removed: BTreeSet::new(),
            session: None,
            asked: 0,
        };
        let join: Vec<String> = (1..=count).map(|node| format!("host{node}:7400")).collect();
        for node in 1..=count {
            town.start(node, 7400 + node, join.clone());
        }
        for node in 1..=count {
            for other in 1..=count {
                let place = usize::try_from(other - 1).unwrap();
                town.step(node, Input::Resolved { place, node: NodeId(other) });
            }
        }
        town.run(Duration::from_secs(5));
        assert_eq!(town.roster().voters.len() as u64, count);
        town
    }

    /// A node begins at an address, with an empty disk; everybody who lives hears of it.
    fn start(&mut self, node: u64, port: u64, join: Vec<String>) {
        let config = Config {
            node: NodeId(node),
            profile: Profile::LAN,
            name: "town".into(),
            join,
            voters: None,
            seed: node,
            cluster: ClusterId(u128::from(node)),
            replace_after: Duration::from_secs(20),
            is_forgetful: self.forgetful.contains(&node),
            compaction: Compaction::default(),
        };
        let replica = Replica::new(config, Durable::fresh(NodeId(node), Incarnation(1)), self.now);
        self.nodes.insert(node, replica);
        let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()));
        for other in self.living().into_iter().filter(|other| *other != node) {
            let there = SocketAddr::from(([127, 0, 0, 1], u16::try_from(7400 + other).unwrap()));
            let forgets = |node| self.forgetful.contains(&node);
            let (is_here, is_there) = (forgets(node), forgets(other));
            self.step(other, Input::Member { node: NodeId(node), address, is_alive: true, is_forgetful: is_here });
            self.step(
                node,
                Input::Member { node: NodeId(other), address: there, is_alive: true, is_forgetful: is_there },
            );
            self.step(other, Input::LinkUp { node: NodeId(node) });
            self.step(node, Input::LinkUp { node: NodeId(other) });
        }
    }

    fn kill(&mut self, node: u64) {
        self.dead.insert(node);
        for other in self.living() {
            self.step(other, Input::LinkDown { node: NodeId(node) });
        }
    }

    fn revive(&mut self, node: u64) {
        self.dead.remove(&node);
        for other in self.living().into_iter().filter(|other| *other != node) {
            self.step(other, Input::LinkUp { node: NodeId(node) });
            self.step(node, Input::LinkUp { node: NodeId(other) });
        }
    }

    fn living(&self) -> Vec<u64> {
        self.nodes.keys().filter(|node| !self.dead.contains(node)).copied().collect()
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.now = self.now + Duration::from_millis(10);
            for node in self.living() {
                self.step(node, Input::Tick);
            }
        }
    }

    fn step(&mut self, node: u64, input: Input) {
        self.handle(node, input);
        while let Some((from, to, body)) = self.wires.pop_front() {
            if self.dead.contains(&from) || self.dead.contains(&to) {
                continue;
            }
            match body {
                Body::Response(response) if response.origin.node == CLIENT => self.responses.push(response),
                Body::Response(response) => self.handle(to, Input::Response(response)),
                Body::Consensus(message) => self.handle(to, Input::Consensus { from: NodeId(from), message }),
                Body::Founding(message) => self.handle(to, Input::Founding { from: NodeId(from), message }),
                Body::Request(request) => self.handle(to, Input::Request { from: NodeId(from), request }),
                _ => {}
            }
        }
    }

    fn handle(&mut self, node: u64, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Some(replica) = self.nodes.get_mut(&node) else { return };
            let mut effects = Effects::new();
            replica.step(self.now, input, &mut effects);
            let hangs = self.stuck.contains(&node);
            if !hangs {
                inputs.extend(effects.persist.iter().map(|batch| Input::Persisted { seq: batch.seq }));
            }
            for local in effects.local {
                match local {
                    Local::Replica(input) => inputs.push_back(input),
                    Local::Master(master::Input::Surrender { epoch }) => inputs.push_back(Input::Surrendered { epoch }),
                    _ => {}
                }
            }
            for event in effects.publish {
                match event {
                    Event::Removed => drop(self.removed.insert(node)),
                    Event::Fatal(why) => panic!("{node} must stop: {why}"),
                    _ => {}
                }
            }
            let leaves = effects.send.into_iter().filter(|outgoing| !hangs || outgoing.after.is_none());
            self.wires.extend(leaves.map(|Outgoing { to, body, .. }| (node, to.0, body)));
        }
    }

    fn leader(&self) -> u64 {
        let leads = |node: &u64| self.nodes[node].consensus().is_at_work();
        self.living().into_iter().find(leads).expect("somebody leads")
    }

    fn roster(&self) -> Roster {
        self.nodes[&self.leader()].state().roster().clone()
    }

    fn voters(&self) -> Vec<u64> {
        self.roster().voters.iter().map(|node| node.0).collect()
    }

    /// Asks through this node, once; the answer that came at once or within a second.
    fn ask(&mut self, node: u64, body: RequestBody) -> Result<Answer, Denied> {
        let origin = self.begin_to_ask(node, body);
        self.run(Duration::from_secs(1));
        let found = self.responses.iter().position(|response| response.origin == origin);
        self.responses.swap_remove(found.expect("there is an answer")).result
    }

    fn begin_to_ask(&mut self, node: u64, body: RequestBody) -> Origin {
        self.asked += 1;
        let origin = Origin { node: CLIENT, number: self.asked, turn: 1 };
        self.step(node, Input::Request { from: CLIENT, request: Request { origin, forwarded: false, body } });
        origin
    }

    fn write(&mut self, node: u64, operation: Operation) -> Answer {
        let body = self.writing(node, operation);
        self.ask(node, body).expect("it is written")
    }

    fn writing(&mut self, node: u64, operation: Operation) -> RequestBody {
        let session = self.session.unwrap_or_else(|| {
            let ttl = Duration::from_secs(3600);
            let Ok(Answer::Registered(session)) = self.ask(node, RequestBody::Register { ttl }) else {
                panic!("a session opens")
            };
            session
        });
        self.session = Some(session);
        let seq = Seq(self.asked + 1);
        RequestBody::Write { session, seq, first_incomplete: seq, operation }
    }

    fn change(&mut self, change: RosterChange) {
        let leader = self.leader();
        assert_eq!(self.write(leader, Operation::Roster(change)), Answer::Ok);
        self.run(Duration::from_secs(5));
    }
}

#[test]
fn d4_a_newcomer_joins_without_a_vote_and_is_served_through_the_master() {
    let mut town = Town::founded(3);
    town.start(4, 7404, vec!["host1:7400".into()]);
    town.run(Duration::from_secs(1));
    let status = town.nodes[&4].status(town.now);
    assert_eq!((status.part, status.leader), (Part::Outside, Some(NodeId(town.leader()))));
    assert!(status.cluster != ClusterId::NONE && status.master_fresh);
    assert_eq!(town.voters(), [1, 2, 3]);
    let put = Operation::Put(crate::state::Put::new("k", "v"));
    assert!(matches!(town.write(4, put), Answer::Written(_)));
    for consistency in [Consistency::Linearizable, Consistency::Stale] {
        let answer = town.ask(4, RequestBody::Read { query: Query::Get("k".into()), consistency });
        assert!(matches!(answer, Ok(Answer::Value { found: Some(_), .. })), "its own state is empty: {answer:?}");
    }
    assert_eq!(town.nodes[&4].state().revision().0, 0, "it holds no log");
}

#[test]
fn d4_a_promoted_newcomer_votes_and_a_demoted_voter_is_a_member() {
    let mut town = Town::founded(3);
    town.start(4, 7404, vec!["host1:7400".into()]);
    town.change(RosterChange::Promote(NodeId(4)));
    assert_eq!(town.voters(), [1, 2, 3, 4]);
    let leader = town.leader();
    town.change(RosterChange::Demote(NodeId(leader)));
    assert!(!town.voters().contains(&leader), "it handed over and went");
    assert_eq!(town.nodes[&leader].status(town.now).part, Part::Outside);
    assert!(town.nodes[&leader].status(town.now).master_fresh);
    assert!(town.removed.is_empty());
}

#[test]
fn d4_a_removed_node_is_told_when_its_seat_is_free() {
    let mut town = Town::founded(3);
    town.start(4, 7404, vec!["host1:7400".into()]);
    let victim = if town.leader() == 3 { 2 } else { 3 };
    town.change(RosterChange::Remove(NodeId(victim)));
    assert!(town.voters().contains(&4) && !town.voters().contains(&victim));
    assert_eq!(town.removed, BTreeSet::from([victim]));
}

#[test]
fn d4_a_word_of_removal_that_was_taken_back_while_its_reader_was_frozen_ends_nothing() {
    let mut town = Town::founded(3);
    town.start(4, 7404, vec!["host1:7400".into()]);
    let from = NodeId(town.leader());
    for node in [if from == NodeId(3) { 2 } else { 3 }, 4] {
        for _ in 0..2 {
            // All that waited is read in one moment, and then what is said now.
            for _ in 0..20 {
                town.handle(node, Input::Founding { from, message: founding::Message::Removed });
            }
            town.run(Duration::from_secs(5));
        }
    }
    assert!(town.removed.is_empty());
}

#[test]
fn f27_a_voter_that_stays_silent_is_replaced_and_not_before() {
    let mut town = Town::founded(3);
    town.start(4, 7404, vec!["host1:7400".into()]);
    let victim = if town.leader() == 3 { 2 } else { 3 };
    town.kill(victim);
    town.run(Duration::from_secs(15));
    assert_eq!(town.voters(), [1, 2, 3]);
    town.run(Duration::from_secs(15));
    assert!(town.voters().contains(&4) && !town.voters().contains(&victim), "{:?}", town.voters());
}

#[test]
fn f27_a_voter_whose_disk_hangs_is_replaced_like_a_silent_one() {
    let mut town = Town::founded(3);
    town.start(4, 7404, vec!["host1:7400".into()]);
    let leader = town.leader();
    let victim = if leader == 3 { 2 } else { 3 };
    town.stuck.insert(victim);
    let put = Operation::Put(crate::state::Put::new("k", "v"));
    assert!(matches!(town.write(leader, put), Answer::Written(_)));
    let here = |town: &mut Town| match town.ask(leader, RequestBody::Read { query: Query::Roster, consistency: STALE })
    {
        Ok(Answer::Roster(view)) => view.seats.iter().any(|seat| seat.node == NodeId(victim) && seat.is_here),
        other => panic!("no roster: {other:?}"),
    };
    assert!(!here(&mut town), "it answers heartbeats, and nothing counts on it");
    assert_eq!(town.nodes[&leader].status(town.now).heard.len(), 2);
    town.run(Duration::from_secs(15));
    assert_eq!(town.voters(), [1, 2, 3]);
    town.run(Duration::from_secs(15));
    assert!(town.voters().contains(&4) && !town.voters().contains(&victim), "{:?}", town.voters());
}

#[test]
fn d4_a_node_that_forgets_takes_a_seat_by_itself_only_among_its_like() {
    for (forgetful, is_called) in [(&[4][..], false), (&[1, 2, 3, 4], true), (&[3, 4], true)] {
        let mut town = Town::with(3, forgetful);
        town.start(4, 7404, vec!["host1:7400".into()]);
        let victim = if town.leader() == 3 { 2 } else { 3 };
        town.kill(victim);
        town.run(Duration::from_secs(30));
        assert_eq!(town.voters().contains(&4), is_called, "{forgetful:?}");
    }
}

#[test]
fn f27_a_voter_whose_address_holds_another_node_is_replaced_at_once() {
    let mut town = Town::founded(3);
    let victim = if town.leader() == 3 { 2 } else { 3 };
    town.kill(victim);
    town.start(9, 7400 + victim, vec!["host1:7400".into()]);
    town.run(Duration::from_secs(5));
    assert!(town.voters().contains(&9) && !town.voters().contains(&victim), "{:?}", town.voters());
}

#[test]
fn f27_a_failover_in_the_middle_loses_nothing_of_an_operation() {
    let mut town = Town::founded(5);
    town.start(6, 7406, vec!["host1:7400".into()]);
    let leader = town.leader();
    assert_eq!(town.write(leader, Operation::Roster(RosterChange::Promote(NodeId(6)))), Answer::Ok);
    town.kill(leader);
    town.run(Duration::from_secs(10));
    assert_eq!(town.voters(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn c6_a_learner_that_was_dropped_while_it_was_cut_off_is_told_when_it_is_back() {
    let mut town = Town::founded(3);
    town.start(4, 7404, vec!["host1:7400".into()]);
    town.run(Duration::from_secs(1));
    let leader = town.leader();
    let promote = town.writing(leader, Operation::Roster(RosterChange::Promote(NodeId(4))));
    town.begin_to_ask(leader, promote);
    while town.nodes[&4].part() != Part::Learner {
        town.run(Duration::from_millis(10));
    }
    town.kill(4);
    town.change(RosterChange::Demote(NodeId(4)));
    assert!(town.roster().learners.is_empty(), "nobody waits for it");

    town.revive(4);
    town.run(Duration::from_secs(2));
    assert_eq!(town.leader(), leader, "no election tells it");
    assert_eq!(town.nodes[&4].status(town.now).part, Part::Outside);
    let query = Query::Get("k".into());
    let answer = town.ask(4, RequestBody::Read { query, consistency: Consistency::Linearizable });
    assert!(matches!(answer, Ok(Answer::Value { found: None, .. })), "{answer:?}");
}

const STALE: Consistency = Consistency::Stale;

/// An outside client.
const CLIENT: NodeId = NodeId(99);

#[test]
fn c6_a_false_master_is_believed_by_nobody_who_is_led_and_elsewhere_only_while_it_speaks() {
    let mut town = Town::founded(3);
    town.start(4, 7404, vec!["host1:7400".into()]);
    town.run(Duration::from_secs(1));
    let leader = town.leader();
    let mut others = (1..=3).filter(|node| *node != leader);
    let (liar, voter) = (others.next().unwrap(), others.next().unwrap());
    let leads =
        |epoch| Input::Founding { from: NodeId(liar), message: founding::Message::Leads { epoch: Epoch(epoch) } };
    for node in [voter, 4] {
        town.step(node, leads(u64::MAX));
        assert_eq!(town.nodes[&node].status(town.now).leader, Some(NodeId(leader)), "nobody lives to see that epoch");
        town.step(node, leads(99));
    }
    let heeded = |town: &Town, node| town.nodes[&node].status(town.now).leader;
    assert_eq!(heeded(&town, voter), Some(NodeId(leader)));
    assert_eq!(heeded(&town, 4), Some(NodeId(liar)));
    town.run(Duration::from_secs(5));
    assert_eq!(heeded(&town, 4), Some(NodeId(leader)));
}

#[test]
fn r22_a_log_without_room_refuses_clients_and_still_carries_what_keeps_nodes_alive() {
    let mut town = Town::founded(3);
    let leader = town.leader();
    let put = |town: &mut Town| town.writing(leader, Operation::Put(crate::state::Put::new("k", vec![7; 1 << 20])));
    put(&mut town);
    // Nobody answers the leader from here on, and no time passes: nothing is committed, and it goes on leading.
    town.dead.extend((1..=3).filter(|node| *node != leader));
    let refused = |town: &mut Town| {
        let body = put(town);
        town.begin_to_ask(leader, body);
        town.responses.pop().map(|response| response.result)
    };
    let first = (0..64).find_map(|_| refused(&mut town)).expect("there is an end to it");
    assert_eq!(first, Err(Denied::Busy));
    let replica = town.nodes.get_mut(&leader).expect("it leads");
    let epoch = replica.consensus().epoch();
    for round in 0..4 {
        let before = replica.consensus().last().index;
        let commands = vec![Command::Renew { sessions: vec![SessionId(1)] }];
        let mut effects = Effects::new();
        replica.step(town.now, Input::Propose { epoch, commands }, &mut effects);
        assert_eq!(replica.consensus().last().index, before.next(), "renewal {round} is an entry at once");
        assert!(effects.local.is_empty(), "nothing of the master's was dropped: {effects:?}");
        for batch in effects.persist {
            replica.step(town.now, Input::Persisted { seq: batch.seq }, &mut Effects::new());
        }
    }
}
