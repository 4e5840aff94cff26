//! Snapshots in whole nodes: logs that stay short, starts from a snapshot, and images for whoever lacks what is forgotten.
//!
//! The nodes here write a snapshot after a few entries, so that a short load does what weeks do elsewhere.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;

use crate::support::{TestCluster, Writer, put};

#[test]
fn log_and_file_stay_bounded_under_endless_writes() {
    let mut cluster = cluster();
    // The file takes its size, in large steps, before it is measured.
    let early = fill(&cluster, 0..100);
    until_compacted(&cluster, &[0, 1, 2], GENESIS);
    let before: Vec<u64> = (0..3).map(|place| file_bytes(&cluster, place)).collect();
    let late = fill(&cluster, 100..500);
    cluster.until("every log is short", || {
        (0..3).all(|place| number(&cluster, place, "applied") - number(&cluster, place, "log_base") < SHORT)
    });
    let written = late - early;
    for (place, before) in before.iter().enumerate() {
        let grown = file_bytes(&cluster, place).saturating_sub(*before);
        assert!(grown < written / 2, "n{} grew by {grown} bytes while {written} were written", place + 1);
    }
    // All of them start again from what they kept, and nothing is missing.
    cluster.processes.kill_all();
    for place in 0..3 {
        cluster.processes.restart(place).expect("it starts again");
    }
    cluster.ready();
    assert!((0..3).all(|place| number(&cluster, place, "log_base") > GENESIS), "they begin after what is forgotten");
    for place in 0..KEYS {
        assert_eq!(cluster.get(&format!("fill-{place}")).map(|value| value.len()), Some(VALUE_BYTES));
    }
    until_equal(&cluster);
}

#[test]
fn a_node_that_was_killed_starts_from_its_snapshot_and_its_log() {
    // What it misses meanwhile must stay in the logs of the others.
    let mut cluster = cluster_with_snapshots_every(10 * EVERY);
    let writer = Writer::start(&cluster);
    until_compacted(&cluster, &[0, 1, 2], GENESIS);
    writer.finish(&cluster);
    let (master, _) = cluster.master_after(0);
    let victim = (master + 1) % 3;
    let kept = number(&cluster, victim, "snapshot");
    cluster.processes.kill(victim);
    cluster.processes.restart(victim).expect("it starts again");
    cluster.until("it answers", || cluster.status(victim).is_some());
    assert!(number(&cluster, victim, "snapshot") >= kept, "what it had written it has");
    cluster.ready();
    until_equal(&cluster);
    assert_eq!(images_taken(&cluster, victim), 0, "it lacked nothing that was forgotten elsewhere");
}

#[test]
fn a_node_that_was_away_for_too_long_is_sent_the_state_while_writes_go_on() {
    let mut cluster = cluster_with_much_state();
    let (master, _) = cluster.master_after(0);
    let victim = (master + 1) % 3;
    let writer = Writer::start(&cluster);
    away_for_too_long(&mut cluster, victim);
    cluster.processes.restart(victim).expect("it starts again");
    cluster.until("it has the state of the others", || images_taken(&cluster, victim) > 0);
    cluster.ready();
    writer.goes_on(&cluster);
    writer.finish(&cluster);
    until_equal(&cluster);
}

#[test]
fn another_master_goes_on_when_the_one_that_sends_the_state_is_killed() {
    let mut cluster = cluster_with_much_state();
    let writer = Writer::start(&cluster);
    let (master, epoch) = cluster.master_after(0);
    let victim = (master + 1) % 3;
    // Whoever looks too late looks once more.
    let sender = (0..10).find_map(|_| {
        away_for_too_long(&mut cluster, victim);
        let before = images_taken(&cluster, victim);
        cluster.processes.restart(victim).expect("it starts again");
        sender_of_half(&cluster, victim, before).map(|sender| (sender, before))
    });
    let (sender, before) = sender.expect("the state is on its way, and far from all of it there");
    let killed = (0..3).find(|place| *place != victim && cluster.answer(*place)["node"] == sender);
    let killed = killed.expect("it is one of ours");
    cluster.processes.kill(killed);
    // The two that are left are a majority only with the one that lacks so much.
    let (successor, _) = cluster.master_after(epoch);
    assert_ne!(successor, killed);
    writer.goes_on(&cluster);
    assert!(images_taken(&cluster, victim) > before, "from the other one");
    cluster.processes.restart(killed).expect("it starts again");
    cluster.ready();
    writer.finish(&cluster);
    until_equal(&cluster);
}

#[test]
fn a_node_with_an_empty_disk_is_sent_the_state_and_votes_again() {
    let mut cluster = cluster_with_much_state();
    let writer = Writer::start(&cluster);
    until_compacted(&cluster, &[0, 1, 2], GENESIS);
    let (master, _) = cluster.master_after(0);
    let victim = (master + 1) % 3;
    let before = cluster.answer(victim)["node"].clone();
    cluster.processes.kill(victim);
    std::fs::remove_dir_all(cluster.processes.folder().join(cluster.processes.label(victim)))
        .expect("its data is there");
    cluster.processes.restart(victim).expect("it starts again");
    cluster.ready();
    cluster.until("it votes under its new name", || {
        cluster.status(victim).is_some_and(|status| status["node"] != before && status["part"] == "voter")
    });
    assert!(images_taken(&cluster, victim) > 0, "the log it needs is forgotten");
    writer.goes_on(&cluster);
    writer.finish(&cluster);
    until_equal(&cluster);
}

fn cluster() -> TestCluster {
    cluster_with_snapshots_every(EVERY)
}

fn cluster_with_snapshots_every(entries: u64) -> TestCluster {
    TestCluster::with(|settings| settings.flags = vec![format!("--snapshot-every={entries}")])
}

/// The state travels in many chunks. Meanwhile the sender goes on for eight times as many entries before it writes another
/// snapshot, which would make the one that is on its way useless: time enough, with a few more entries to each.
fn cluster_with_much_state() -> TestCluster {
    let cluster = cluster_with_snapshots_every(5 * EVERY);
    let value = "s".repeat(200_000);
    for round in 0..12 {
        write_all(&cluster, (0..KEYS).map(|place| (format!("large-{round}-{place}"), value.as_str())));
    }
    cluster
}

/// Who sends the state to this node while less than half of it is there; nobody if all of it was there before that was seen.
fn sender_of_half(cluster: &TestCluster, victim: usize, before: usize) -> Option<Value> {
    let mut sender = None;
    cluster.until("the state is on its way, or there", || {
        let fetching = cluster.status(victim).map_or(Value::Null, |status| status["fetching"].clone());
        let (staged, count) = (fetching["staged"].as_u64(), fetching["count"].as_u64());
        let is_half = staged > Some(0) && staged.zip(count).is_some_and(|(staged, count)| staged < count / 2);
        sender = is_half.then(|| fetching["from"].clone());
        is_half || images_taken(cluster, victim) > before
    });
    sender
}

/// Stops a node until the others have forgotten what it lacks.
fn away_for_too_long(cluster: &mut TestCluster, victim: usize) {
    let held = number(cluster, victim, "commit");
    cluster.processes.kill(victim);
    let others: Vec<usize> = (0..3).filter(|place| *place != victim).collect();
    // It may have got some more before it was killed.
    until_compacted(cluster, &others, held + 2 * EVERY);
}

/// Waits until these nodes have forgotten the log up to an entry after `index`.
fn until_compacted(cluster: &TestCluster, places: &[usize], index: u64) {
    cluster.until("the logs are compacted", || {
        places
            .iter()
            .all(|place| cluster.status(*place).is_some_and(|status| status["log_base"].as_u64() > Some(index)))
    });
}

/// Waits until all nodes have applied the same, and looks whether it came to the same.
fn until_equal(cluster: &TestCluster) {
    let mut all = Vec::new();
    cluster.until("all have applied the same", || {
        all = (0..3).filter_map(|place| cluster.status(place)).collect();
        all.len() == 3 && all.iter().all(|status| status["applied"] == all[0]["applied"])
    });
    let same = |key: &str| all.iter().all(|status| status[key] == all[0][key]);
    assert!(same("state_hash") && same("revision"), "{all:#?}");
}

/// Writes a few keys again and again, several at a time; returns how many bytes that were by now.
fn fill(cluster: &TestCluster, rounds: std::ops::Range<usize>) -> u64 {
    let end = rounds.end;
    let value = "v".repeat(VALUE_BYTES);
    for _ in rounds {
        write_all(cluster, (0..KEYS).map(|place| (format!("fill-{place}"), value.as_str())));
    }
    (end * KEYS * VALUE_BYTES) as u64
}

fn write_all<'a>(cluster: &TestCluster, writes: impl Iterator<Item = (String, &'a str)>) {
    let http = cluster.http().timeout(Duration::from_secs(20)).patient();
    let writes = writes.map(|(key, value)| http.send(put(&key, value).repeatable()));
    for answer in cluster.wait(join_all(writes)) {
        answer.unwrap_or_else(|error| panic!("a quorum is here: {error:?}"));
    }
}

/// A figure of a node that runs.
fn number(cluster: &TestCluster, place: usize, key: &str) -> u64 {
    cluster.answer(place)[key].as_u64().unwrap_or_else(|| panic!("n{} says {key}", place + 1))
}

fn file_bytes(cluster: &TestCluster, place: usize) -> u64 {
    let file = cluster.processes.folder().join(cluster.processes.label(place)).join("tenure.redb");
    file.metadata().expect("its log is there").len()
}

/// How often a node took the state of another one, in all its runs.
fn images_taken(cluster: &TestCluster, place: usize) -> usize {
    let log = std::fs::read_to_string(cluster.processes.log(place)).expect("it wrote a log");
    log.matches("was taken from a snapshot").count()
}

/// Where every log begins before anything is forgotten.
const GENESIS: u64 = 1;

/// After how many entries these nodes write a snapshot.
const EVERY: u64 = 20;

/// How many entries a log may have while more come in: several snapshots' worth, since one takes a while to write.
const SHORT: u64 = 15 * EVERY;

/// How many keys are written at a time.
const KEYS: usize = 8;

const VALUE_BYTES: usize = 32 * 1024;
