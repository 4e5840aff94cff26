//! `tenure members --watch`: what changes among the members, as the node sees it that answers.
//!
//! What a node sees has no history to be asked for. So the list is read again and again, from whichever node answers, and compared with the
//! one before.
//!
//! # Invariants
//!
//! * What is told brings the list before up to date. What was so for a moment only may be passed over.
//! * Nodes may differ in what they see: where another one is asked than before, the difference is told as changes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::status::word;
use super::super::{Diagnostic, Exit, Format, Frame, Output, Paint};
use super::{listed, show};
use crate::processes::interrupted;

/// Follows until it is interrupted, or no node has answered for as long as `--timeout` says.
pub(super) async fn run(frame: &Frame) -> Result<Exit, Diagnostic> {
    tokio::select! {
        result = follow(frame) => result.map(|never| match never {}),
        exit = interrupted() => Ok(exit),
    }
}

async fn follow(frame: &Frame) -> Result<Infallible, Diagnostic> {
    let (output, cluster) = (&frame.output, frame.cluster()?);
    let mut known = listed(&cluster.get(PATH).await?);
    if output.is_json() {
        output.json_line(json!({ "event": "snapshot", "members": known }));
    } else {
        show(&known, output);
    }
    // Nodes that have answered once may be on their way back.
    let cluster = cluster.patient();
    loop {
        tokio::time::sleep(PAUSE).await;
        let now = listed(&cluster.get(PATH).await?);
        for change in changes(&known, &now) {
            tell(&change, output);
        }
        known = now;
    }
}

/// What happened to a member, in the words of the library's `MemberEvent`.
#[derive(Clone, Debug, PartialEq)]
struct Change {
    event: &'static str,
    /// For people.
    what: String,
    /// The member as it is now; as it was, if it is listed no more.
    member: Value,
}

/// What leads from one list to another, in the order of the lists.
fn changes(before: &[Value], now: &[Value]) -> Vec<Change> {
    let by_node = |list: &[Value]| -> BTreeMap<String, Value> {
        list.iter().map(|member| (word(&member["node"]), member.clone())).collect()
    };
    let (mut earlier, listed) = (by_node(before), by_node(now));
    let changed = now.iter().flat_map(|member| difference(earlier.remove(&word(&member["node"])).as_ref(), member));
    let mut all: Vec<Change> = changed.collect();
    let gone = before.iter().filter(|member| !listed.contains_key(&word(&member["node"])));
    all.extend(gone.map(|member| Change {
        event: "forgotten",
        what: "is listed no more".into(),
        member: member.clone(),
    }));
    all
}

/// Whether it is there comes first, and then what else is new about it.
fn difference(before: Option<&Value>, now: &Value) -> Vec<Change> {
    let change = |event, what: &str| Change { event, what: what.into(), member: now.clone() };
    let is_same = |key: &str| before.is_some_and(|before| before[key] == now[key]);
    let presence = || match now["state"].as_str() {
        Some("alive") if before.is_none() => change("up", "is here"),
        Some("alive") if is_same("incarnation") => change("up", "answers again"),
        Some("alive") => change("up", "is back, in another run"),
        Some("suspect") => change("suspect", "missed a probe"),
        Some("left") => change("left", "said goodbye"),
        _ => change("down", "does not answer"),
    };
    let is_present_as_before = is_same("state") && is_same("incarnation");
    let mut all: Vec<Change> = (!is_present_as_before).then(presence).into_iter().collect();
    let Some(before) = before else { return all };
    let role = format!("is {} now", word(&now["role"]));
    let http = format!("serves HTTP at {} now", word(&now["http"]));
    let label = format!("was called {}", word(&before["label"]));
    let said = [("role", role), ("http", http), ("label", label)];
    // A node whom only its session tells of says nothing of its HTTP server.
    let is_new = |key: &str| !is_same(key) && !now[key].is_null();
    let told: Vec<String> = said.into_iter().filter(|(key, _)| is_new(key)).map(|(_, what)| what).collect();
    if !told.is_empty() {
        all.push(change("changed", &told.join(", ")));
    }
    all
}

fn tell(change: &Change, output: &Output) {
    let Change { event, what, member } = change;
    match output.format() {
        Format::Json | Format::Jsonl => {
            let mut document = member.clone();
            document["event"] = (*event).into();
            output.json_line(document);
        }
        Format::Name => output.line(word(&member["node"])),
        Format::Table | Format::Wide => {
            let (paint, symbol) = match *event {
                "up" => (Paint::Good, "●"),
                "suspect" => (Paint::Odd, "○"),
                "down" => (Paint::Bad, "✕"),
                _ if member["role"] == "master" => (Paint::Good, "★"),
                _ => (Paint::Dim, "·"),
            };
            let symbol = output.paint(paint, output.symbol(symbol));
            output.line(format!("{symbol} {} {what}", word(&member["label"])));
        }
    }
}

const PATH: &str = "/v1/members";

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: &str, state: &str, incarnation: u64, role: &str) -> Value {
        json!({ "node": node, "label": node, "state": state, "incarnation": incarnation, "role": role })
    }

    #[test]
    fn every_difference_has_a_word_and_what_comes_and_goes_with_every_answer_has_none() {
        let before = [
            member("a", "alive", 1, "master"),
            member("b", "alive", 1, "voter"),
            member("c", "unreachable", 1, "voter"),
            member("d", "suspect", 1, "member"),
            member("e", "unreachable", 1, "member"),
        ];
        let mut master = member("b", "alive", 1, "master");
        master["assigned"] = 3.into();
        master["rtt_ms"] = 0.2.into();
        let now = [
            member("a", "suspect", 1, "voter"),
            master.clone(),
            member("c", "alive", 2, "voter"),
            member("d", "alive", 1, "voter"),
            member("f", "alive", 1, "member"),
        ];
        let told: Vec<String> = changes(&before, &now)
            .into_iter()
            .map(|Change { event, what, member }| format!("{event}: {} {what}", word(&member["label"])))
            .collect();
        assert_eq!(
            told,
            [
                "suspect: a missed a probe",
                "changed: a is voter now",
                "changed: b is master now",
                "up: c is back, in another run",
                "up: d answers again",
                "changed: d is voter now",
                "up: f is here",
                "forgotten: e is listed no more",
            ]
        );
        master["rtt_ms"] = 0.9.into();
        assert_eq!(changes(&[master.clone()], &[master]), []);
        let gone = changes(&now[2..4], &[member("c", "left", 2, "voter"), member("d", "unreachable", 1, "voter")]);
        assert_eq!(gone.iter().map(|change| change.event).collect::<Vec<_>>(), ["left", "down"]);
    }
}
