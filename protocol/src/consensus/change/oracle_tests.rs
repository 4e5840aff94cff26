//! The configurations that etcd-io/raft reaches in every step of its own tests, compared with ours.
//!
//! A step is a list of operations (`v1 l2 r3 u4`) on one node each; ours is a target, so the operations are played on the
//! target first. etcd knows simple changes of one voter as well; ours always pass through a joint configuration, so the
//! driver below composes one of the same two functions, and refuses what needs more than one step there.

use std::fs;

use super::*;
use crate::consensus::oracle;

/// The configuration after a step, or etcd's words for a refusal.
fn step(conf: &ConfState, verb: &str, operations: &str) -> Result<ConfState, &'static str> {
    let target = played(conf, operations);
    match verb {
        "leave-joint" if !is_joint(conf) => Err("can't leave a non-joint config"),
        "leave-joint" => Ok(leave(conf)),
        "enter-joint" => match enter(conf, &target) {
            Err(Refusal::UnderWay) => Err("config is already joint"),
            Err(_) if conf.voters.is_empty() => Err("can't make a zero-voter config joint"),
            entered => Ok(entered.expect("nothing else is refused in these tests")),
        },
        "simple" => simple(conf, &target),
        other => panic!("no such verb: {other}"),
    }
}

fn simple(conf: &ConfState, target: &Target) -> Result<ConfState, &'static str> {
    if target.voters.is_empty() {
        return Err("removed all voters");
    }
    if conf.voters.is_empty() {
        // There is nothing to come from: this is how a cluster begins, by a genesis.
        let (voters, learners) = (sorted(&target.voters), sorted(&target.learners));
        return Ok(ConfState { voters, learners, ..ConfState::default() });
    }
    let joint = enter(conf, target).map_err(|why| match why {
        Refusal::UnderWay => "can't apply simple config change in joint config",
        other => panic!("not refused there: {other}"),
    })?;
    let only = |one: &[NodeId], other: &[NodeId]| one.iter().filter(|node| !other.contains(node)).count();
    if only(&joint.voters, &joint.outgoing) + only(&joint.outgoing, &joint.voters) > 1 {
        return Err("more than one voter changed without entering joint config");
    }
    Ok(leave(&joint))
}

/// The target that the operations lead to.
fn played(conf: &ConfState, operations: &str) -> Target {
    let mut target = Target { voters: conf.voters.clone(), learners: conf.learners.clone() };
    for word in operations.split_whitespace() {
        let (verb, node) = word.split_at(1);
        let node = NodeId(node.parse().expect("an operation ends with a node"));
        if verb == "u" || node == NodeId(0) {
            continue;
        }
        target.voters.retain(|voter| *voter != node);
        target.learners.retain(|learner| *learner != node);
        match verb {
            "v" => target.voters.push(node),
            "l" => target.learners.push(node),
            "r" => {}
            other => panic!("no such operation: {other}"),
        }
    }
    target
}

/// A configuration in etcd's words.
fn written(conf: &ConfState) -> String {
    let list = |nodes: &[NodeId]| nodes.iter().map(|node| node.0.to_string()).collect::<Vec<_>>().join(" ");
    let mut words = format!("voters=({})", list(&conf.voters));
    for (name, nodes) in
        [("&&", &conf.outgoing), (" learners=", &conf.learners), (" learners_next=", &conf.learners_next)]
    {
        if !nodes.is_empty() {
            words += &format!("{name}({})", list(nodes));
        }
    }
    words
}

#[test]
fn every_step_of_the_oracle_reaches_the_same_configuration() {
    let Some(folder) = oracle::folder("confchange") else { return };
    let mut steps = 0;
    for file in fs::read_dir(folder).expect("the oracle is readable") {
        let path = file.expect("readable").path();
        let text = fs::read_to_string(&path).expect("the oracle is readable");
        let mut conf = ConfState::default();
        for case in text.split("\n\n") {
            let lines: Vec<&str> = case.lines().filter(|line| !line.starts_with('#')).collect();
            let Some(rule) = lines.iter().position(|line| *line == "----") else { continue };
            let verb = lines[0].split_whitespace().next().expect("a step has a verb");
            // Whether a joint configuration is left by itself is etcd's choice for each; ours always is.
            let expected = lines[rule + 1].trim_end_matches(" autoleave");
            let reached = step(&conf, verb, &lines[1..rule].join(" "));
            let ours = reached.as_ref().map_or_else(|why| (*why).to_owned(), written);
            assert_eq!(ours, expected, "{}: step {steps}, {lines:?} from {}", path.display(), written(&conf));
            conf = reached.unwrap_or(conf);
            steps += 1;
        }
    }
    println!("{steps} steps");
    assert!(steps >= 58, "only {steps} steps were found");
}
