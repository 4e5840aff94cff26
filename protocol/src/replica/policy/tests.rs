//! The policy, one sentence a test. Node 1 leads unless said otherwise.

use super::*;
use crate::durable::ConfState;
use crate::state::{Command, MAX_VOTERS, Operation, RosterChange, State};
use crate::types::{ClusterTime, Seq};

/// A cluster as its leader sees it, and a hand that fulfils what the policy asks for.
struct Bench {
    state: State,
    session: crate::types::SessionId,
    seq: u64,
    leader: NodeId,
    voters: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
    /// Nodes that are here.
    here: BTreeSet<NodeId>,
    slow: BTreeSet<NodeId>,
    lost: BTreeSet<NodeId>,
    unfit: BTreeSet<NodeId>,
    /// What an operator asks for while the next change is under way.
    meanwhile: Vec<RosterChange>,
    /// What was done, step by step: voters and learners.
    steps: Vec<String>,
}

impl Bench {
    fn new(voters: &[u64], others: &[u64]) -> Self {
        let voters = nodes(voters);
        let mut state = State::default();
        state.found(&Vec::from_iter(voters.clone()), u8::try_from(voters.len()).unwrap());
        let ttl = std::time::Duration::from_secs(60);
        let crate::state::Answer::Registered(session) =
            state.apply(ClusterTime(1), &Command::Register { ttl }, &mut Vec::new())
        else {
            panic!("a session opens")
        };
        let here = voters.union(&nodes(others)).copied().collect();
        let (learners, slow, lost, unfit) = Default::default();
        let (meanwhile, steps) = Default::default();
        Self { state, session, seq: 0, leader: NodeId(1), voters, learners, here, slow, lost, unfit, meanwhile, steps }
    }

    fn ask(&mut self, change: RosterChange) -> &mut Self {
        self.seq += 1;
        let (session, seq) = (self.session, Seq(self.seq));
        let command = Command::Client { session, seq, first_incomplete: seq, operation: Operation::Roster(change) };
        let answer = self.state.apply(ClusterTime(1), &command, &mut Vec::new());
        assert_eq!(answer, crate::state::Answer::Ok);
        self
    }

    fn promote(&mut self, node: u64) -> &mut Self {
        self.ask(RosterChange::Promote(NodeId(node)))
    }

    fn demote(&mut self, node: u64) -> &mut Self {
        self.ask(RosterChange::Demote(NodeId(node)))
    }

    fn remove(&mut self, node: u64) -> &mut Self {
        self.ask(RosterChange::Remove(NodeId(node)))
    }

    fn ask_what_waits(&mut self) {
        for change in std::mem::take(&mut self.meanwhile) {
            self.ask(change);
        }
    }

    /// Dead for so long that it is given up.
    fn lose(&mut self, node: u64) -> &mut Self {
        self.here.remove(&NodeId(node));
        self.lost.insert(NodeId(node));
        self
    }

    fn gone(&mut self, node: u64) -> &mut Self {
        self.here.remove(&NodeId(node));
        self
    }

    fn next(&self) -> Next {
        let members: BTreeSet<NodeId> = self.voters.union(&self.learners).copied().collect();
        next(&View {
            leader: self.leader,
            roster: self.state.roster(),
            voters: &self.voters,
            learners: &self.learners,
            heard: &self.here.intersection(&members).copied().collect(),
            caught_up: &self.learners.difference(&self.slow).copied().collect(),
            lost: &self.lost,
            candidates: &self.here.difference(&members).copied().collect(),
            unfit: &self.unfit,
        })
    }

    /// Does what the policy says until it says nothing more; answers with the steps and the last word.
    fn run(&mut self) -> (Vec<String>, Next) {
        self.steps.clear();
        loop {
            assert!(self.steps.len() < 20, "it never ends: {:?}", self.steps);
            match self.next() {
                Next::Change { voters, learners } => {
                    self.ask_what_waits();
                    let conf = ConfState {
                        voters: Vec::from_iter(voters.clone()),
                        learners: Vec::from_iter(learners.clone()),
                        ..ConfState::default()
                    };
                    self.state.configure(ClusterTime(1), &conf, &mut Vec::new());
                    self.steps.push(format!("{}|{}", text(&voters), text(&learners)));
                    (self.voters, self.learners) = (voters, learners);
                    self.lost.retain(|node| conf.voters.contains(node) || conf.learners.contains(node));
                }
                Next::HandOver { .. } => {
                    self.steps.push("hand over".into());
                    let is_heir =
                        |node: &&NodeId| self.here.contains(node) && !self.state.roster().excluded.contains(node);
                    let heir = self.voters.iter().find(|node| is_heir(node) && !self.lost.contains(node));
                    self.leader = *heir.expect("somebody stays");
                }
                _ if !self.meanwhile.is_empty() => self.ask_what_waits(),
                last => return (self.steps.clone(), last),
            }
        }
    }

    fn steps(&mut self) -> Vec<String> {
        let (steps, last) = self.run();
        assert_eq!(last, Next::Nothing);
        steps
    }

    fn obstacle(&mut self) -> String {
        match self.run() {
            (_, Next::Wait(obstacle)) => obstacle,
            other => panic!("waits for nothing: {other:?}"),
        }
    }
}

fn nodes(list: &[u64]) -> BTreeSet<NodeId> {
    list.iter().copied().map(NodeId).collect()
}

fn text(nodes: &BTreeSet<NodeId>) -> String {
    nodes.iter().map(|node| node.0.to_string()).collect()
}

#[test]
fn a_cluster_as_it_shall_be_stays_as_it_is_whoever_else_is_here() {
    assert_eq!(Bench::new(&[1, 2, 3], &[4, 5, 6]).steps(), [""; 0]);
}

#[test]
fn d4_a_promoted_node_listens_first_and_votes_when_it_is_caught_up() {
    let mut bench = Bench::new(&[1, 2, 3], &[4, 5]);
    bench.slow = nodes(&[5]);
    assert_eq!(bench.promote(5).obstacle(), format!("{} to catch up", NodeId(5)));
    assert_eq!(bench.steps, ["123|5"]);
    bench.slow.clear();
    assert_eq!(bench.steps(), ["1235|"]);
}

#[test]
fn d4_a_cluster_grows_from_one_to_three_to_five_without_even_stops() {
    let mut bench = Bench::new(&[1], &[2, 3, 4, 5]);
    assert_eq!(bench.promote(2).promote(3).steps(), ["1|23", "123|"]);
    assert_eq!(bench.promote(4).promote(5).steps(), ["123|45", "12345|"]);
}

#[test]
fn d4_a_single_voter_of_three_waits_for_two_others_unless_one_was_named() {
    let mut bench = Bench::new(&[1, 2, 3], &[]);
    assert_eq!(bench.remove(2).remove(3).obstacle(), "2 more members that may vote");
    assert_eq!(bench.steps, ["1|"]);
    bench.here.insert(NodeId(4));
    assert_eq!(bench.obstacle(), "1 more members that may vote");
    assert_eq!(bench.steps, ["1|4"], "if it died with its disk, node 1 could never go on");
    bench.here.insert(NodeId(5));
    assert_eq!(bench.steps(), ["1|45", "145|"]);

    let mut bench = Bench::new(&[1, 2, 3], &[]);
    bench.remove(2).remove(3).run();
    bench.here.insert(NodeId(4));
    assert_eq!(bench.promote(4).obstacle(), "1 more members that may vote");
    assert_eq!(bench.steps, ["1|4", "14|"]);
}

#[test]
fn d4_a_cluster_shrinks_from_five_to_three() {
    let mut bench = Bench::new(&[1, 2, 3, 4, 5], &[]);
    assert_eq!(bench.demote(5).demote(4).steps(), ["123|"]);
    assert_eq!(bench.state.roster().target, 3);
}

#[test]
fn d4_a_voter_that_is_to_go_leaves_when_its_successor_is_ready() {
    assert_eq!(Bench::new(&[1, 2, 3], &[4]).remove(3).steps(), ["123|4", "124|"]);
}

#[test]
fn d4_a_voter_that_is_to_go_goes_although_nobody_can_come() {
    let mut bench = Bench::new(&[1, 2, 3], &[]);
    assert_eq!(bench.remove(3).obstacle(), "1 more members that may vote");
    assert_eq!(bench.steps, ["12|"]);
    bench.here.insert(NodeId(4));
    assert_eq!(bench.steps(), ["12|4", "124|"], "whoever comes later fills the seat");
}

#[test]
fn d4_a_master_that_is_to_go_hands_over_first() {
    let mut bench = Bench::new(&[1, 2, 3], &[]);
    assert_eq!(bench.demote(1).steps(), ["hand over", "23|"]);
}

#[test]
fn f27_a_lost_voter_is_swapped_for_a_learner_in_one_change() {
    assert_eq!(Bench::new(&[1, 2, 3], &[4, 5]).lose(3).steps(), ["123|4", "124|"]);
}

#[test]
fn f27_a_voter_that_is_only_silent_keeps_its_seat() {
    assert_eq!(Bench::new(&[1, 2, 3], &[4]).gone(3).steps(), [""; 0]);
}

#[test]
fn f27_a_lost_voter_keeps_its_seat_while_nobody_can_take_it() {
    let mut bench = Bench::new(&[1, 2, 3], &[]);
    assert_eq!(bench.lose(3).obstacle(), "1 more members that may vote");
    assert_eq!(bench.steps, [""; 0]);
}

#[test]
fn f27_nothing_moves_without_a_majority_of_the_old_voters() {
    let mut bench = Bench::new(&[1, 2, 3], &[4, 5]);
    assert!(matches!(bench.lose(2).lose(3).run(), (steps, Next::Wait(_)) if steps.is_empty()));
}

#[test]
fn f27_two_lost_voters_of_five_are_replaced_together() {
    assert_eq!(Bench::new(&[1, 2, 3, 4, 5], &[6, 7]).lose(4).lose(5).steps(), ["12345|67", "12367|"]);
}

#[test]
fn f27_one_replacement_for_two_lost_voters_takes_one_seat() {
    let mut bench = Bench::new(&[1, 2, 3, 4, 5], &[6]);
    bench.lose(4).lose(5).run();
    assert_eq!(bench.steps.first().map(String::as_str), Some("12345|6"));
    assert_eq!(bench.voters.len(), 5, "the other lost voter keeps its seat: {:?}", bench.steps);
    assert!(bench.voters.contains(&NodeId(6)));
}

#[test]
fn f27_a_lost_learner_is_dropped_and_another_one_called() {
    let mut bench = Bench::new(&[1, 2, 3], &[4, 5]);
    bench.slow = nodes(&[4]);
    bench.lose(3).run();
    assert_eq!(bench.steps, ["123|4"]);
    assert_eq!(bench.lose(4).steps(), ["123|5", "125|"]);
}

#[test]
fn f27_a_voter_that_comes_back_keeps_its_seat_and_the_learner_goes() {
    let mut bench = Bench::new(&[1, 2, 3], &[4]);
    bench.slow = nodes(&[4]);
    bench.lose(3).run();
    bench.lost.clear();
    bench.here.insert(NodeId(3));
    assert_eq!(bench.steps(), ["123|"]);
}

#[test]
fn d4_a_member_that_forgets_is_called_only_by_name() {
    let mut bench = Bench::new(&[1, 2, 3], &[4]);
    bench.unfit = nodes(&[4]);
    assert_eq!(bench.lose(3).obstacle(), "1 more members that may vote");
    assert_eq!(bench.steps, [""; 0], "a voter that is away may come back with what it holds");
    bench.here.insert(NodeId(5));
    assert_eq!(bench.steps(), ["123|5", "125|"]);
    assert_eq!(bench.promote(4).steps(), ["125|4", "1245|"]);

    // It may have been called before it said so.
    let mut bench = Bench::new(&[1, 2, 3], &[4]);
    bench.slow = nodes(&[4]);
    bench.lose(3).run();
    assert_eq!(bench.steps, ["123|4"]);
    bench.slow.clear();
    bench.unfit = nodes(&[4]);
    bench.run();
    assert_eq!(bench.steps, ["123|"]);
}

#[test]
fn an_excluded_member_is_never_called() {
    let mut bench = Bench::new(&[1, 2, 3], &[4, 5]);
    assert_eq!(bench.remove(4).lose(3).steps(), ["123|5", "125|"]);
}

#[test]
fn a_promised_seat_waits_for_the_node_it_was_promised_to() {
    let mut bench = Bench::new(&[1, 2, 3], &[5]);
    assert_eq!(bench.promote(4).obstacle(), format!("{} to be here", NodeId(4)));
    assert_eq!(bench.steps, [""; 0]);
    bench.here.insert(NodeId(4));
    assert_eq!(bench.steps(), ["123|4", "1234|"]);
}

#[test]
fn a_lost_voter_is_replaced_while_a_promised_seat_waits() {
    let mut bench = Bench::new(&[1, 2, 3], &[5]);
    bench.promote(4).lose(3).run();
    assert_eq!(bench.voters, nodes(&[1, 2, 5]));
}

#[test]
fn a_seat_promised_while_another_node_takes_it_keeps_no_successor_out() {
    let mut bench = Bench::new(&[1, 2, 3], &[4]);
    bench.promote(4).lose(3).run();
    // One of four seats is empty. While node 5 takes it, an operator promises it to node 6, which is not there.
    bench.here.insert(NodeId(5));
    bench.slow = nodes(&[5]);
    assert_eq!(bench.obstacle(), format!("{} to catch up", NodeId(5)));
    bench.slow.clear();
    bench.meanwhile = vec![RosterChange::Promote(NodeId(6))];
    assert_eq!(bench.obstacle(), format!("{} to be here", NodeId(6)));
    assert_eq!(bench.voters, nodes(&[1, 2, 4, 5]));
    bench.here.insert(NodeId(7));
    bench.lose(4).run();
    assert_eq!(bench.voters, nodes(&[1, 2, 5, 7]), "a lost voter is replaced");
    bench.here.insert(NodeId(6));
    assert_eq!(bench.steps().last().unwrap(), "12567|", "and the promise is kept");
}

#[test]
fn whatever_happens_the_policy_comes_to_an_end_at_which_those_vote_who_shall() {
    let mut dice = 7u64;
    let mut roll = |bound: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % bound
    };
    for _ in 0..3_000 {
        let count = [1, 3, 5][roll(3) as usize];
        let mut bench = Bench::new(&Vec::from_iter(1..=count), &Vec::from_iter(count + 1..=count + roll(4)));
        for _ in 0..roll(8) {
            let node = NodeId(1 + roll(count + 4));
            let change = [RosterChange::Promote(node), RosterChange::Demote(node), RosterChange::Remove(node)];
            let roster = bench.state.roster().clone();
            let is_last = roster.voters.iter().all(|voter| *voter == node || roster.excluded.contains(voter));
            let is_full = roster.wished().len() >= MAX_VOTERS;
            if roster.wished().len() + 1 < MAX_VOTERS && roll(4) == 0 {
                bench.meanwhile.push(RosterChange::Promote(NodeId(1 + roll(count + 4))));
            }
            match roll(6) {
                0 if !is_full => drop(bench.ask(change[0])),
                choice @ 1..=2 if !is_last => drop(bench.ask(change[choice as usize])),
                3 if node != bench.leader => drop(bench.lose(node.0)),
                4 if node != bench.leader => drop(bench.gone(node.0)),
                _ => {
                    bench.lost.remove(&node);
                    bench.here.insert(node);
                }
            }
            let (_, last) = bench.run();
            assert!(!bench.voters.is_empty());
            let roster = bench.state.roster();
            if last == Next::Nothing {
                assert_eq!(bench.voters.len(), usize::from(roster.target), "{roster:?}");
                assert!(roster.preferred.is_empty(), "{roster:?}");
                assert!(bench.voters.is_disjoint(&roster.excluded) && bench.learners.is_empty(), "{roster:?}");
            }
        }
    }
}
