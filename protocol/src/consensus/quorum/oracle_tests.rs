//! The answers of etcd-io/raft to every case of its own quorum tests, compared with ours.
//!
//! Three cases have no voters. There an empty quorum decides everything, which is handy inside a joint one; ours decides
//! nothing, so that a node without a configuration can never act. These cases say where the two differ, and nothing else does.

use std::collections::BTreeMap;
use std::fs;

use super::*;
use crate::consensus::oracle;

/// One case: what is asked, and the last line of the answer.
struct Case {
    asked: String,
    answer: String,
}

fn cases(text: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (place, _) in lines.iter().enumerate().filter(|(_, line)| **line == "----") {
        let answer = lines[place + 1..].iter().take_while(|line| !line.is_empty()).last();
        // Spaces inside parentheses go, so that every argument is one word.
        let asked = lines[place - 1].replace(", ", ",");
        cases.push(Case { asked, answer: answer.expect("every case has an answer").to_string() });
    }
    cases
}

fn list(asked: &str, key: &str) -> Option<Vec<String>> {
    let (_, rest) = asked.split_once(&format!("{key}=("))?;
    let (inside, _) = rest.split_once(')')?;
    Some(inside.split(',').map(|word| word.trim().to_owned()).collect())
}

fn nodes(asked: &str, key: &str) -> Vec<NodeId> {
    let node = |word: String| NodeId(word.parse().expect("a node is a number"));
    list(asked, key).unwrap_or_default().into_iter().map(node).collect()
}

/// Our answer in their words.
fn ours(asked: &str) -> String {
    let conf = ConfState { voters: nodes(asked, "cfg"), outgoing: nodes(asked, "cfgj"), ..ConfState::default() };
    let values = list(asked, "idx").or_else(|| list(asked, "votes")).unwrap_or_default();
    let mut given = BTreeMap::new();
    let mut values = values.into_iter();
    for node in conf.voters.iter().chain(&conf.outgoing) {
        if !given.contains_key(node) {
            given.insert(*node, values.next().unwrap_or_else(|| "_".into()));
        }
    }
    if asked.starts_with("committed") {
        let value = |node: NodeId| given.get(&node).and_then(|word| word.parse().ok()).unwrap_or(0);
        let index = reached(&conf, value);
        let is_everything = conf.voters.is_empty() && index == 0;
        return if is_everything { "<empty majority quorum>∞".into() } else { index.to_string() };
    }
    let vote = |node: NodeId| match given.get(&node).map(String::as_str) {
        Some("y") => Some(true),
        Some("n") => Some(false),
        _ => None,
    };
    match tally(&conf, vote) {
        Tally::Lost if conf.voters.is_empty() => "VoteWon".into(),
        tally => format!("Vote{tally:?}"),
    }
}

#[test]
fn every_quorum_case_of_the_oracle_has_the_same_answer() {
    let Some(folder) = oracle::folder("quorum") else { return };
    let mut compared = 0;
    for name in ["majority_commit", "majority_vote", "joint_commit", "joint_vote"] {
        let text = fs::read_to_string(folder.join(name).with_extension("txt")).expect("the oracle is readable");
        for Case { asked, answer } in cases(&text) {
            assert_eq!(ours(&asked), answer, "{name}: {asked}");
            compared += 1;
        }
    }
    println!("{compared} cases");
    assert!(compared >= 127, "only {compared} cases were found");
}
