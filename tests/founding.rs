//! How a cluster begins when its list cannot be complete any more, and what is left of the one before.

use serde_json::Value;

use crate::support::{TestCluster, command};

#[test]
fn an_operator_founds_without_those_who_are_lost_and_what_is_left_of_the_old_cluster_is_refused() {
    let mut cluster = TestCluster::start();
    cluster.put("old", "1").expect("a whole cluster acknowledges");
    let old = cluster.answer(0)["cluster_id"].clone();
    cluster.processes.kill_all();
    // Two of three disks are gone for good, as far as the operator knows; the third one is given up, too.
    std::fs::remove_dir_all(cluster.processes.folder().join("n1")).expect("its data is there");
    let links: Vec<String> = cluster.processes.links().iter().map(ToString::to_string).collect();
    let (context, node) = (cluster.processes.folder().join("context"), cluster.processes.http(0).to_string());
    let found = || {
        command(&["node", "found", "--without", &links[1], "--without", &links[2]], &context)
            .env("TENURE_NODES", &node)
            .output()
            .expect("the binary is there")
    };

    // Whoever hears of the old cluster founds none beside it, and says so.
    cluster.processes.restart(0).expect("it starts again");
    cluster.processes.restart(1).expect("it starts again");
    cluster.until("it has heard of a cluster", || waits(&cluster).contains("exists already"));
    let refused = found();
    assert_eq!(refused.status.code(), Some(6), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("stop this node"), "{refused:?}");

    // That word is gone with whoever said it when this one starts again.
    cluster.processes.kill(1);
    cluster.processes.restart(0).expect("it starts again");
    cluster.until("it waits", || waits(&cluster).contains(&format!("not yet of {}, {}", links[1], links[2])));
    assert!(!cluster.is_ready(0), "a list that is not complete founds nothing");
    let log = || std::fs::read_to_string(cluster.processes.log(0)).unwrap_or_default();
    cluster.until("the log says so", || log().contains("waits: this node founds the cluster"));
    let output = found();
    assert!(output.status.success(), "{output:?}");
    cluster.until("it serves alone", || cluster.is_ready(0));
    let new = cluster.answer(0)["cluster_id"].clone();
    assert_ne!(new, old);
    cluster.put_at(0, "new", "1").expect("one of one is a quorum");

    // One that was thought lost comes back with its data: it belongs to a cluster that is no more, and to no other.
    cluster.processes.restart(1).expect("it starts again");
    cluster.until("it answers", || cluster.status(1).is_some());
    for number in 0..20 {
        cluster.put_at(0, "new", &number.to_string()).expect("the new cluster is not disturbed");
    }
    assert_eq!(cluster.answer(1)["cluster_id"], old);
    assert!(!cluster.is_ready(1), "one of three is no quorum");
    assert_eq!(members(&cluster), 1, "it is no member of the new one");
    assert_eq!(cluster.get("old"), None);

    // With an empty disk it is a node like any other, and joins.
    cluster.processes.kill(1);
    std::fs::remove_dir_all(cluster.processes.folder().join("n2")).expect("its data is there");
    cluster.processes.restart(1).expect("it starts again");
    cluster.until("it has joined", || cluster.is_ready(1));
    assert_eq!(cluster.answer(1)["cluster_id"], new);
    cluster.put_at(1, "through", "1").expect("any node takes a write");
}

/// What the first node says that it waits for.
fn waits(cluster: &TestCluster) -> String {
    let status = cluster.status(0).unwrap_or_default();
    status["waits_for"]["why"].as_str().unwrap_or_default().to_owned()
}

/// How many nodes have a seat or wait for one.
fn members(cluster: &TestCluster) -> usize {
    let roster: Value = cluster.wait(cluster.processes.get(0, "/v1/roster")).expect("it answers");
    ["voters", "learners"].iter().map(|list| roster[list].as_array().map_or(0, Vec::len)).sum()
}
