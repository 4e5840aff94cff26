//! Clusters that grow, shrink, heal and hand over, while somebody writes.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tenure::cli::{Cluster, Patient, Request};

use crate::support::sockets::links;
use crate::support::{TestCluster, Writer};

/// A cluster of which the first `voters` vote.
fn cluster(nodes: usize, voters: u8, flags: &[&str]) -> TestCluster {
    TestCluster::with(|settings| {
        settings.nodes = nodes;
        settings.flags = vec![format!("--voters={voters}")];
        settings.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
    })
}

fn post(cluster: &TestCluster, path: &str, body: &Value) -> Value {
    let http = cluster.http().timeout(Duration::from_secs(20)).patient();
    let answer = cluster.wait(http.send(Request::post(path).json(body).repeatable()));
    answer.unwrap_or_else(|error| panic!("{path}: {error:?}")).json().expect("JSON")
}

fn roster(cluster: &TestCluster) -> Value {
    let http = cluster.http().timeout(Duration::from_secs(20)).patient();
    cluster.wait(http.get("/v1/roster")).expect("somebody answers")
}

/// The names in one list of the roster, sorted.
fn names(roster: &Value, list: &str) -> Vec<String> {
    let rows = roster[list].as_array().expect("a list");
    let mut names: Vec<String> = rows.iter().map(|row| row["label"].as_str().expect("a name").to_owned()).collect();
    names.sort();
    names
}

fn until_voters(cluster: &TestCluster, wanted: &[&str]) {
    let mut seen = Value::Null;
    cluster.until(&format!("{wanted:?} vote"), || {
        seen = roster(cluster);
        names(&seen, "voters") == wanted && names(&seen, "learners").is_empty()
    });
}

#[test]
fn a_cluster_grows_from_one_to_three_to_five_and_back_and_loses_nothing() {
    let mut cluster = cluster(5, 1, &[]);
    let writer = Writer::start(&cluster);
    for node in ["n2", "n3"] {
        post(&cluster, &format!("/v1/nodes/{node}/promote"), &json!(null));
    }
    until_voters(&cluster, &["n1", "n2", "n3"]);
    writer.goes_on(&cluster);
    for node in ["n4", "n5"] {
        post(&cluster, &format!("/v1/nodes/{node}/promote"), &json!(null));
    }
    until_voters(&cluster, &["n1", "n2", "n3", "n4", "n5"]);
    writer.goes_on(&cluster);
    // The first one, too, may go: whoever leads hands over before it loses its vote.
    for node in ["n1", "n2"] {
        post(&cluster, &format!("/v1/nodes/{node}/demote"), &json!(null));
    }
    until_voters(&cluster, &["n3", "n4", "n5"]);
    writer.goes_on(&cluster);
    cluster.ready();
    // Those who went are members still, and everybody answers.
    for place in 0..5 {
        cluster.put_at(place, &format!("through-{place}"), "yes").expect("any node takes a write");
    }
    writer.finish(&cluster);
}

#[test]
fn plain_members_are_linked_to_voters_only() {
    let cluster = cluster(6, 3, &[]);
    // While the cluster began, everybody dialled the whole join list.
    let holders = |voters: &[usize]| -> Vec<BTreeSet<usize>> {
        let wanted =
            |node| (0..6).filter(move |&other| other != node && (voters.contains(&node) || voters.contains(&other)));
        (0..6).map(|node| wanted(node).collect()).collect()
    };
    let until_linked = |voters: &[usize]| {
        let mut seen = Vec::new();
        cluster.until(&format!("members keep links to {voters:?} only"), || {
            seen = links(&cluster);
            seen == holders(voters)
        });
    };
    until_linked(&[0, 1, 2]);
    // Whoever gets a vote is found by all others, and whoever loses it keeps what it needs.
    post(&cluster, "/v1/nodes/n4/promote", &json!(null));
    post(&cluster, "/v1/nodes/n1/demote", &json!(null));
    until_voters(&cluster, &["n2", "n3", "n4"]);
    until_linked(&[1, 2, 3]);
    for place in 0..6 {
        cluster.put_at(place, &format!("through-{place}"), "yes").expect("any node takes a write");
    }
}

#[test]
fn a_voter_that_is_killed_for_good_is_replaced() {
    let mut cluster = cluster(4, 3, &["--replace-after=2s"]);
    let writer = Writer::start(&cluster);
    writer.goes_on(&cluster);
    let (master, _) = cluster.master_after(0);
    let victim = (0..3).find(|place| *place != master).expect("there are three");
    cluster.processes.kill(victim);
    let wanted: Vec<String> = (0..4).filter(|place| *place != victim).map(|place| format!("n{}", place + 1)).collect();
    until_voters(&cluster, &wanted.iter().map(String::as_str).collect::<Vec<_>>());
    writer.goes_on(&cluster);
    // It comes back over its data, finds its seat taken, and is a member like any other.
    cluster.processes.restart(victim).expect("it starts again");
    cluster.ready();
    until_voters(&cluster, &wanted.iter().map(String::as_str).collect::<Vec<_>>());
    cluster.put_at(victim, "late", "yes").expect("any node takes a write");
    writer.finish(&cluster);
}

#[test]
fn a_node_whose_disk_was_wiped_comes_back_as_another_one_and_votes_again() {
    let mut cluster = cluster(3, 3, &[]);
    let writer = Writer::start(&cluster);
    writer.goes_on(&cluster);
    // The first address founds: with an empty disk it must find what it founded, not found once more.
    let before = cluster.answer(0);
    cluster.processes.kill(0);
    std::fs::remove_dir_all(cluster.processes.folder().join("n1")).expect("its data is there");
    cluster.processes.restart(0).expect("it starts again");
    cluster.ready();
    let after = cluster.answer(0);
    assert_eq!(after["cluster_id"], before["cluster_id"]);
    assert_ne!(after["node"], before["node"], "a node that lost its disk is another one");
    cluster.until("the new node votes in place of the old one", || {
        let voters = roster(&cluster)["voters"].clone();
        let voters: Vec<&Value> = voters.as_array().expect("a list").iter().map(|row| &row["node"]).collect();
        voters.len() == 3 && voters.contains(&&after["node"]) && !voters.contains(&&before["node"])
    });
    writer.goes_on(&cluster);
    writer.finish(&cluster);
}

#[test]
fn a_removed_voter_makes_room_for_another_member_and_ends() {
    let cluster = cluster(4, 3, &[]);
    let writer = Writer::start(&cluster);
    post(&cluster, "/v1/nodes/n2/remove", &json!(null));
    until_voters(&cluster, &["n1", "n3", "n4"]);
    writer.goes_on(&cluster);
    let log = cluster.processes.log(1);
    cluster.until("the removed node is told so and ends", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.contains("removed this node") && text.trim_end().ends_with("stopped")
    });
    assert_eq!(cluster.status(1), None);
    let mistake = cluster.wait(cluster.http().send(Request::post("/v1/nodes/nobody/remove")));
    assert_eq!(mistake.expect_err("nobody has that name").code.exit(), 5);
    writer.finish(&cluster);
}

#[test]
fn mastership_is_handed_to_the_heir_that_was_named() {
    let cluster = cluster(3, 3, &[]);
    let writer = Writer::start(&cluster);
    for _ in 0..3 {
        let (master, epoch) = cluster.master_after(0);
        let heir = (master + 1) % 3;
        let name = format!("n{}", heir + 1);
        let answer = post(&cluster, "/v1/master/transfer", &json!({ "to": name }));
        assert_eq!(answer["master_label"], name.as_str());
        assert!(answer["epoch"].as_u64() > Some(epoch));
        writer.goes_on(&cluster);
    }
    writer.finish(&cluster);
}

#[test]
fn a_master_that_is_told_to_stop_hands_over_first() {
    // An heir that is slow for a moment has some time to take over.
    let mut cluster = TestCluster::with(|settings| settings.profile = "wan".into());
    let writer = Writer::start(&cluster);
    writer.goes_on(&cluster);
    let (master, epoch) = cluster.master_after(0);
    cluster.processes.ask_to_end(master);
    let (successor, _) = cluster.master_after(epoch);
    assert_ne!(successor, master);
    cluster.until("it ends", || cluster_ended(&cluster, master));
    let log = std::fs::read_to_string(cluster.processes.log(master)).expect("it wrote a log");
    assert!(!log.contains("not handed over"), "{log}");
    writer.goes_on(&cluster);
    cluster.processes.restart(master).expect("it starts again");
    cluster.ready();
    writer.finish(&cluster);
}

fn cluster_ended(cluster: &TestCluster, place: usize) -> bool {
    cluster.status(place).is_none()
}

#[test]
fn members_beyond_the_voters_run_tasks_and_serve_whoever_asks_them() {
    let cluster = cluster(5, 3, &[]);
    let members: Vec<usize> = (0..5).filter(|place| cluster.answer(*place)["part"] == "member").collect();
    assert_eq!(members.len(), 2, "three of five vote");
    // One slot per node: all of them have something to do.
    let ledger = cluster.ledger("ledger");
    let tasks: Vec<String> = (0..5).map(|_| cluster.submit_script(&ledger.until_open())).collect();
    let nodes: Vec<Value> = members.iter().map(|place| cluster.answer(*place)["node"].clone()).collect();
    cluster.until("the members run some of them", || {
        let views: Vec<Value> = tasks.iter().map(|task| cluster.task(task)).collect();
        nodes.iter().all(|node| views.iter().any(|view| view["state"] == "assigned" && view["node"] == *node))
    });
    ledger.open();
    for task in &tasks {
        assert_eq!(cluster.ended(task)["state"], "done");
    }
    for place in members {
        let key = format!("through-{place}");
        cluster.put_at(place, &key, "yes").expect("any node takes a write");
        let alone = Cluster::new([cluster.processes.http(place).to_string()]);
        let value = cluster.wait(Patient::new(alone, Duration::from_secs(20)).get("/v1/roster"));
        assert_eq!(names(&value.expect("any node answers"), "voters").len(), 3);
    }
}

#[test]
fn a_whole_cluster_starts_again_with_nothing_but_its_data_folders() {
    let mut cluster = cluster(3, 3, &[]);
    cluster.put("before", "1").expect("a whole cluster acknowledges");
    let book = |place: usize| cluster.processes.folder().join(format!("n{}", place + 1)).join("members");
    cluster.until("every node has written down where the others are", || {
        (0..3).all(|place| std::fs::read_to_string(book(place)).is_ok_and(|text| text.lines().count() == 2))
    });
    cluster.processes.kill_all();
    for place in 0..3 {
        cluster.processes.restart_alone(place).expect("it starts again");
    }
    cluster.ready();
    assert_eq!(cluster.get("before").as_deref(), Some("1"));
    cluster.put("after", "1").expect("a whole cluster acknowledges");
}
