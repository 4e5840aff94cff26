//! The words of the scripts: how commands and messages are read, and how what was seen is written.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::consensus::{Append, AppendReply, Consensus, Drop, Message, Snapshot, SnapshotReply, Verdict};
use protocol::durable::{ConfState, Entry, Payload, Persist, SnapMeta};
use protocol::effects::Role;
use protocol::{ClusterTime, Epoch, Index, LogId, Nanos, NodeId};

use crate::script::{PROMISE, span};
use crate::world::Seen;

/// One command.
pub struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    /// Splits a line.
    pub fn new(line: &'a str) -> Self {
        Self(line.split_whitespace().collect())
    }

    /// What to do.
    pub fn verb(&self) -> &'a str {
        self.0[0]
    }

    /// The word at a place, or nothing.
    pub fn at(&self, place: usize) -> &'a str {
        self.0.get(place).copied().unwrap_or("")
    }

    /// The node named at a place, counted from zero.
    pub fn node(&self, place: usize) -> usize {
        (node(self.at(place)).0 - 1) as usize
    }

    /// The span at a place.
    pub fn span(&self, place: usize) -> u64 {
        span(self.at(place))
    }

    /// The value of `key=value`.
    pub fn value(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// The number of `key=number`.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.value(key).map(|value| value.parse().expect("a number"))
    }

    /// The nodes of `key=n1,n2`.
    pub fn nodes(&self, key: &str) -> Vec<NodeId> {
        self.value(key).into_iter().flat_map(|list| list.split(',')).map(node).collect()
    }

    /// Whether a word is there.
    pub fn has(&self, word: &str) -> bool {
        self.0.contains(&word)
    }
}

/// `n2`
pub fn node(word: &str) -> NodeId {
    NodeId(word.strip_prefix('n').and_then(|number| number.parse().ok()).expect("a node is called n1, n2, .."))
}

/// `5@3`
fn place(word: &str) -> LogId {
    let (index, epoch) = word.split_once('@').expect("a place is written index@epoch");
    LogId { epoch: Epoch(epoch.parse().expect("an epoch")), index: Index(index.parse().expect("an index")) }
}

/// Reads the message of `tell n2 from n1 MESSAGE`. Appends are sent now by the sender's clock, replies answer something sent
/// `ago=` by the receiver's.
pub fn message(words: &Words, sender: Nanos, receiver: Nanos) -> Message {
    let epoch = Epoch(words.number("epoch").expect("every message has epoch="));
    let last = || place(words.value("last").expect("last="));
    let granted = words.has("granted");
    match words.at(4) {
        "pre-vote" => Message::PreVote { epoch, last: last() },
        "pre-vote-reply" => Message::PreVoteReply { epoch, granted },
        "vote" => Message::Vote { epoch, last: last(), transfer: words.has("transfer") },
        "vote-reply" => Message::VoteReply { epoch, granted },
        "append" => {
            let prev = place(words.value("prev").expect("prev="));
            let epochs = words.value("entries").into_iter().flat_map(|list| list.split(','));
            let entry = |(after, epoch): (usize, &str)| Entry {
                id: LogId {
                    epoch: Epoch(epoch.parse().expect("an epoch")),
                    index: Index(prev.index.0 + 1 + after as u64),
                },
                time: ClusterTime(words.number("time").unwrap_or(1000)),
                payload: Payload::Noop,
            };
            let entries = epochs.enumerate().map(entry).collect();
            let commit = Index(words.number("commit").unwrap_or(0));
            Message::Append(Append { epoch, prev, entries, commit, sent: sender })
        }
        "append-reply" => {
            let verdict = match words.number("matched") {
                Some(index) => Verdict::Matched(Index(index)),
                None => Verdict::Rejected {
                    at: Index(words.number("rejected").expect("matched= or rejected=")),
                    hint: place(words.value("hint").expect("hint=")),
                },
            };
            let ago = Duration::from_nanos(words.value("ago").map_or(0, span));
            let promise = words.value("promise").map_or(PROMISE, |word| Duration::from_nanos(span(word)));
            let (sent, is_eager) = (receiver - ago, words.has("eager"));
            Message::AppendReply(AppendReply { epoch, verdict, sent, promise, is_eager })
        }
        "read-index" => Message::ReadIndex { epoch, number: 1, may_lease: words.has("lease") },
        "read-index-reply" => Message::ReadIndexReply { epoch, number: 1, index: words.number("index").map(Index) },
        "timeout-now" => Message::TimeoutNow { epoch },
        "not-member" => Message::NotMember { epoch, config: Index(words.number("config").expect("config=")) },
        "snapshot" => Message::Snapshot(Box::new(Snapshot { epoch, meta: meta(words), sent: sender })),
        "snapshot-reply" => Message::SnapshotReply(SnapshotReply {
            epoch,
            index: Index(words.number("index").expect("index=")),
            sent: receiver,
            promise: PROMISE,
        }),
        other => panic!("no such message: {other}"),
    }
}

/// Reads what a snapshot stands for.
pub fn meta(words: &Words) -> SnapMeta {
    let conf = ConfState { voters: words.nodes("voters"), learners: words.nodes("learners"), ..ConfState::default() };
    let last = place(words.value("last").expect("last="));
    SnapMeta { last, time: ClusterTime(words.number("time").unwrap_or(1000)), conf }
}

/// One line about something seen.
pub fn seen(seen: &Seen, names: &BTreeMap<u64, String>) -> String {
    let name = |context: &u64| names.get(context).map_or("?", String::as_str);
    match seen {
        Seen::Applied(entries) => format!("applies {}", range(entries)),
        Seen::Fetches(from, last) => format!("fetches the snapshot of {last} from n{}", from.0),
        Seen::Installed(last) => format!("takes the state of {last}"),
        Seen::ReadReady(context, index) => format!("answers {} as of {index}", name(context)),
        Seen::Accepted(context, id) => format!("accepts {} as {id}", name(context)),
        Seen::Dropped(context, why) => {
            let why = match why {
                Drop::NotLeader => "not the leader",
                Drop::Epoch => "decided in another epoch",
                Drop::Busy => "busy",
                Drop::HandOver => "handing over",
                Drop::Behind => "the log does not bring in time what was confirmed",
                Drop::NoVoter => "no other voter",
                Drop::Change(refusal) => return format!("drops {}: {refusal}", name(context)),
            };
            format!("drops {}: {why}", name(context))
        }
        Seen::Role(role, epoch, leader) => match (role, leader) {
            (Role::Leader, _) => format!("leads epoch {epoch}"),
            (Role::Follower, Some(leader)) => format!("follows n{} in epoch {epoch}", leader.0),
            (Role::Follower, None) => format!("follows nobody in epoch {epoch}"),
            (Role::PreCandidate, Some(leader)) => {
                format!("asks for pre-votes in epoch {epoch}, still under n{}", leader.0)
            }
            (Role::PreCandidate, None) => format!("asks for pre-votes in epoch {epoch}"),
            (Role::Candidate, _) => format!("asks for votes in epoch {epoch}"),
            (Role::Halted, _) => format!("is halted in epoch {epoch}"),
        },
        Seen::Authority(Some(_)) => "has the lease".into(),
        Seen::Authority(None) => "has no lease".into(),
        Seen::Surrender(epoch, why) => format!("hands over in epoch {epoch}: {why}"),
        Seen::Resume(epoch) => format!("goes on in epoch {epoch}"),
        Seen::Urged(to, last) => format!("tells n{} to campaign, at {last}", to + 1),
        Seen::Retired => "gives up its log".into(),
        Seen::Saves(last) => format!("begins to write a snapshot of {last}"),
        Seen::Fatal(why) => format!("stops: {why}"),
        Seen::Sent { to, message, waits } => {
            let waits = if *waits { ", when the disk has it" } else { "" };
            format!("-> n{} {}{waits}", to.0, said(message))
        }
        Seen::Wrote(batch) => format!("writes {}", written(batch)),
    }
}

/// A message, as it is written in scripts; times are left out.
fn said(message: &Message) -> String {
    let outcome = |granted: &bool| if *granted { "granted" } else { "refused" };
    match message {
        Message::PreVote { epoch, last } => format!("pre-vote epoch={epoch} last={last}"),
        Message::PreVoteReply { epoch, granted } => format!("pre-vote-reply epoch={epoch} {}", outcome(granted)),
        Message::Vote { epoch, last, .. } => format!("vote epoch={epoch} last={last}"),
        Message::VoteReply { epoch, granted } => format!("vote-reply epoch={epoch} {}", outcome(granted)),
        Message::Append(append) => {
            let Append { epoch, prev, entries, commit, .. } = append;
            let entries = if entries.is_empty() { String::new() } else { format!(" entries {}", range(entries)) };
            format!("append epoch={epoch} prev={prev}{entries} commit={commit}")
        }
        Message::Snapshot(snapshot) => format!("snapshot epoch={} last={}", snapshot.epoch, snapshot.meta.last),
        Message::SnapshotReply(reply) => format!("snapshot-reply epoch={} index={}", reply.epoch, reply.index),
        Message::AppendReply(AppendReply { epoch, verdict, .. }) => match verdict {
            Verdict::Matched(index) => format!("append-reply epoch={epoch} matched={index}"),
            Verdict::Rejected { at, hint } => format!("append-reply epoch={epoch} rejected={at} hint={hint}"),
        },
        Message::ReadIndex { epoch, .. } => format!("read-index epoch={epoch}"),
        Message::ReadIndexReply { epoch, index, .. } => {
            let index = index.map_or("none".to_owned(), |index| index.to_string());
            format!("read-index-reply epoch={epoch} index={index}")
        }
        Message::TimeoutNow { epoch } => format!("timeout-now epoch={epoch}"),
        Message::NotMember { epoch, config } => format!("not-member epoch={epoch} config={config}"),
    }
}

fn written(batch: &Persist) -> String {
    let mut parts = Vec::new();
    if batch.genesis.is_some() {
        parts.push("the genesis".to_owned());
    }
    if let Some(hard) = batch.hard_state {
        let vote = hard.vote.map_or("nobody".to_owned(), |vote| format!("n{}", vote.0));
        parts.push(format!("epoch {} with a vote for {vote}", hard.epoch));
    }
    if let Some(index) = batch.truncate_from {
        parts.push(format!("the end of all from {index} on"));
    }
    if let Some(meta) = &batch.install {
        parts.push(format!("the snapshot of {}", meta.last));
    }
    if let Some(base) = batch.compact_to {
        parts.push(format!("that all up to {base} may go"));
    }
    if !batch.append.is_empty() {
        parts.push(format!("entries {}", range(&batch.append)));
    }
    parts.join(", ")
}

fn range(entries: &[Entry]) -> String {
    match entries {
        [] => "nothing".into(),
        [one] => one.id.to_string(),
        [first, .., last] => format!("{}..{}", first.id, last.id),
    }
}

/// The configuration in force, in one line.
pub fn conf(conf: &ConfState) -> String {
    let list = |nodes: &[NodeId]| nodes.iter().map(|node| format!("n{}", node.0)).collect::<Vec<_>>().join(" ");
    let mut words = format!("voters {}", list(&conf.voters));
    let parts = [("outgoing", &conf.outgoing), ("learners", &conf.learners), ("learners next", &conf.learners_next)];
    for (name, nodes) in parts.into_iter().filter(|(_, nodes)| !nodes.is_empty()) {
        words += &format!(", {name} {}", list(nodes));
    }
    words
}

/// The state of a core in one line.
pub fn state(core: &Consensus, now: Nanos) -> String {
    let hard = core.hard_state();
    let vote = hard.vote.map_or("nobody".to_owned(), |vote| format!("n{}", vote.0));
    let leader = core.leader().map_or("nobody".to_owned(), |leader| format!("n{}", leader.0));
    let lease = if core.lease_until(now).is_some() { ", lease" } else { "" };
    let snapshot = core.snapshot().map_or(String::new(), |last| format!(", base {}, snapshot {last}", core.base()));
    format!(
        "{:?} in epoch {}, vote {vote}, leader {leader}, last {}, durable {}, commit {}, applied {}{lease}{snapshot}",
        core.role(),
        hard.epoch,
        core.last(),
        core.durable(),
        core.commit(),
        core.applied()
    )
}
