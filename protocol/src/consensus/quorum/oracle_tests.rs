//! The answers of etcd-io/raft to every case of its own quorum tests, compared with ours.
//!
//! The cases are data files beside the repository (`../shared/oracles/etcd-raft`, Apache-2.0). Where they are absent the test
//! says so and compares nothing. Cases without voters are left out: there an empty quorum decides everything, which is
//! handy inside a joint one; ours never decides.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::*;

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

/// Our answer in their words; `None` for a case without voters.
fn ours(asked: &str) -> Option<String> {
    let conf = ConfState { voters: nodes(asked, "cfg"), outgoing: nodes(asked, "cfgj"), ..ConfState::default() };
    if conf.voters.is_empty() {
        return None;
    }
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
        return Some(reached(&conf, value).to_string());
    }
    let vote = |node: NodeId| match given.get(&node).map(String::as_str) {
        Some("y") => Some(true),
        Some("n") => Some(false),
        _ => None,
    };
    Some(format!("Vote{:?}", tally(&conf, vote)))
}

fn folder() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.ancestors().map(|above| above.join("shared/oracles/etcd-raft/quorum")).find(|folder| folder.is_dir())
}

#[test]
fn every_quorum_case_of_etcd_has_the_same_answer() {
    let Some(folder) = folder() else {
        println!("skipped: no ../shared/oracles/etcd-raft beside the repository");
        return;
    };
    let (mut compared, mut skipped) = (0, 0);
    for name in ["majority_commit", "majority_vote", "joint_commit", "joint_vote"] {
        let text = std::fs::read_to_string(folder.join(name).with_extension("txt")).expect("the oracle is readable");
        for Case { asked, answer } in cases(&text) {
            match ours(&asked) {
                Some(ours) => assert_eq!(ours, answer, "{name}: {asked}"),
                None => skipped += 1,
            }
            compared += 1;
        }
    }
    println!("{compared} cases, {skipped} of them without voters");
    assert!(compared >= 127, "only {compared} cases were found");
}
