//! Masters and workers that die, freeze and come back.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::TestCluster;

/// A cluster that gives up no worker because its machine is busy: only for being killed. So attempts can be counted.
fn patient_cluster() -> TestCluster {
    TestCluster::with(|settings| settings.profile = "wan".into())
}

#[test]
fn a_killed_master_loses_no_acknowledged_write() {
    let mut cluster = TestCluster::start();
    let mut acknowledged = BTreeSet::new();
    let (mut master, mut epoch) = cluster.master_after(0);
    for round in 0..3 {
        for number in 0..20 {
            let key = format!("write-{round}-{number}");
            if number == 10 {
                cluster.processes.kill(master);
            }
            // A write that fails may or may not have been done; only acknowledged ones are promised.
            if cluster.put(&key, &key).is_ok() {
                acknowledged.insert(key);
            }
        }
        let next = cluster.master_after(epoch);
        cluster.processes.restart(master).expect("it starts again");
        cluster.ready();
        (master, epoch) = next;
        // A node that comes back may be elected meanwhile, for example because another one was slow.
        if !cluster.status(master).is_some_and(|status| status["role"] == "leader") {
            (master, epoch) = cluster.master_after(0);
        }
    }
    assert!(acknowledged.len() >= 3 * 10, "the writes before each kill are acknowledged");
    for key in &acknowledged {
        assert_eq!(cluster.get(key).as_ref(), Some(key));
    }
}

#[test]
fn a_task_survives_its_worker_that_dies_before_the_effect() {
    let mut cluster = patient_cluster();
    let (started, effects) = (cluster.ledger("started"), cluster.ledger("effects"));
    let script = format!("{}; {}; {}", started.append("x"), effects.until_open(), effects.append("$TENURE_ATTEMPT"));
    let task = cluster.submit_script(&script);
    cluster.until("the handler begins", || started.lines().len() == 1);
    let worker = cluster.worker_of(&task);
    cluster.processes.kill(worker);
    cluster.until("another worker begins", || started.lines().len() == 2);
    effects.open();
    assert_eq!(cluster.ended(&task)["state"], "done");
    assert_eq!(effects.lines(), [format!("{task}#2")], "the effect came once, of the second attempt");
    assert_eq!(cluster.count(&task, "done"), 1);
}

/// The fail point between the work and the report: the first attempt kills the node that runs it.
const DIES: &str = "case $TENURE_ATTEMPT in *'#1') kill -9 $PPID; exec sleep 600;; esac";

#[test]
fn a_worker_that_dies_between_work_and_report_did_it_twice_and_is_recorded_once() {
    let mut cluster = patient_cluster();
    let work = cluster.ledger("work");
    let task = cluster.submit_script(&format!("{}; {DIES}", work.append("$TENURE_ONCE_KEY $TENURE_FENCE")));
    assert_eq!(cluster.ended(&task)["state"], "done");
    let lines = work.lines();
    let (keys, fences): (BTreeSet<_>, Vec<u64>) = lines
        .iter()
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(key, fence)| (key.to_owned(), fence.parse::<u64>().expect("a fence is a number")))
        .unzip();
    assert_eq!(lines.len(), 2, "at least once: it was done twice");
    assert_eq!(keys.len(), 1, "both attempts have one once key");
    assert!(fences[0] < fences[1], "a sink that compares fences refuses the older attempt from now on");
    assert_eq!((cluster.count(&task, "done"), cluster.count(&task, "assigned")), (1, 2));
    revive(&mut cluster);

    // A sink that keeps the once key with its data.
    let (work, sink) = (cluster.ledger("work-once"), cluster.ledger("sink"));
    let script = format!("{}; {}; {DIES}", work.append("x"), sink.append_once("$TENURE_ONCE_KEY"));
    let task = cluster.submit_script(&script);
    assert_eq!(cluster.ended(&task)["state"], "done");
    assert_eq!((work.lines().len(), sink.lines().len()), (2, 1), "done twice, one effect");
    assert_eq!(cluster.count(&task, "done"), 1);
    revive(&mut cluster);

    // Effects that are part of the report.
    let work = cluster.ledger("work-effects");
    let effects = r#"echo '{"add":"done"}' >> "$TENURE_EFFECTS"; echo "{\"put\":\"by\",\"value\":\"$TENURE_ATTEMPT\"}" >> "$TENURE_EFFECTS""#;
    let task = cluster.submit_script(&format!("{}; {effects}; {DIES}", work.append("x")));
    assert_eq!(cluster.ended(&task)["state"], "done");
    assert_eq!(work.lines().len(), 2, "done twice");
    let counter = cluster.wait(cluster.client.get("/v1/counters/done")).expect("it is there");
    assert_eq!((counter["value"].as_i64(), cluster.get("by")), (Some(1), Some(format!("{task}#2"))), "one effect");
}

#[test]
fn a_task_that_may_run_once_is_lost_with_its_worker_and_never_runs_again() {
    let mut cluster = patient_cluster();
    let work = cluster.ledger("work");
    let script = format!("{}; {DIES}", work.append("x"));
    let task = cluster
        .submit(json!({ "kind": "exec", "payload": { "command": ["sh", "-c", script] }, "delivery": "at-most-once" }));
    revive(&mut cluster);
    assert_eq!(cluster.ended(&task)["state"], "lost");
    assert_eq!(work.lines().len(), 1);
    assert_eq!((cluster.count(&task, "assigned"), cluster.count(&task, "done")), (1, 0));
}

/// Waits until one node has died, and starts it again.
fn revive(cluster: &mut TestCluster) {
    let mut dead = None;
    let begin = std::time::Instant::now();
    while dead.is_none() {
        assert!(begin.elapsed() < crate::support::PATIENCE, "no node died");
        dead = (0..cluster.processes.len()).find(|place| !cluster.processes.is_alive(*place));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    cluster.processes.restart(dead.expect("waited for it")).expect("it starts again");
    cluster.ready();
}

#[test]
fn a_master_that_dies_while_it_runs_a_task_costs_one_more_attempt() {
    let mut cluster = patient_cluster();
    let (started, effects) = (cluster.ledger("started"), cluster.ledger("effects"));
    let (master, epoch) = cluster.master_after(0);
    // One slot per node: with three tasks one of them runs on the master.
    let script = format!("{}; {}; {}", started.append("x"), effects.until_open(), effects.append("$TENURE_TASK"));
    let tasks: Vec<String> = (0..3).map(|_| cluster.submit_script(&script)).collect();
    cluster.until("all run", || started.lines().len() == 3);
    cluster.processes.kill(master);
    cluster.master_after(epoch);
    effects.open();
    for task in &tasks {
        assert_eq!(cluster.ended(task)["state"], "done");
        assert_eq!(cluster.count(task, "done"), 1);
    }
    let done: BTreeSet<String> = effects.lines().into_iter().collect();
    assert_eq!(done, tasks.into_iter().collect());
    assert_eq!(effects.lines().len(), 3, "the dead master's script died with it, before its effect");
}

#[test]
fn a_master_paused_beyond_its_lease_is_replaced_and_its_late_result_refused() {
    let mut cluster = TestCluster::start();
    let (master, epoch) = cluster.master_after(0);
    // More frames than nodes: the master draws some of them. A frame is drawn in one go, so a paused one comes late.
    let mut tasks = Vec::<String>::new();
    let node = cluster.answer(master)["node"].clone();
    let mut held = None;
    cluster.until("the master draws a frame", || {
        let views: Vec<Value> = tasks.iter().map(|task| cluster.task(task)).collect();
        if views.iter().all(|view| view["is_final"] == true) {
            tasks.extend((5..13).map(|frame| cluster.submit(json!({ "kind": "tenure.render", "payload": frame }))));
        }
        held = views.into_iter().find(|view| view["state"] == "assigned" && view["node"] == node);
        held.is_some()
    });
    let held = held.expect("waited for it")["id"].as_str().expect("a task has an id").to_owned();
    cluster.processes.pause(master);
    let (successor, next) = cluster.master_after(epoch);
    assert_ne!(successor, master);
    cluster.put_at(successor, "while-paused", "yes").expect("two of three are a quorum");
    for task in &tasks {
        assert_eq!(cluster.ended(task)["state"], "done");
    }
    cluster.processes.resume(master);
    cluster.ready();
    let status = cluster.answer(master);
    assert!(status["epoch"].as_u64() >= Some(next), "it has learnt of the new epoch: {status}");
    assert_eq!(cluster.get("while-paused").as_deref(), Some("yes"));
    for task in &tasks {
        assert_eq!(cluster.count(task, "done"), 1, "one result per task");
    }
    // Unless it was recorded in the very moment of the pause, the frame was drawn twice and the first drawing refused.
    if cluster.count(&held, "assigned") > 1 {
        cluster.until("the late result is refused", || cluster.count(&held, "late-result-refused") >= 1);
        assert_eq!(cluster.count(&held, "done"), 1);
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_all_are_killed_and_started_again() {
    let mut cluster = patient_cluster();
    let effects = cluster.ledger("effects");
    let keys: Vec<String> = (0..30).map(|number| format!("key-{number}")).collect();
    for key in &keys {
        cluster.put(key, key).expect("a whole cluster acknowledges");
    }
    let done = cluster.submit(json!({ "kind": "tenure.echo", "payload": "before" }));
    assert_eq!(cluster.ended(&done)["state"], "done");
    let script = format!("{}; {}", effects.until_open(), effects.append("$TENURE_TASK"));
    let open: Vec<String> = (0..5).map(|_| cluster.submit_script(&script)).collect();
    cluster.processes.kill_all();
    for place in 0..cluster.processes.len() {
        cluster.processes.restart(place).expect("it starts again");
    }
    cluster.ready();
    for key in &keys {
        assert_eq!(cluster.get(key).as_ref(), Some(key));
    }
    assert_eq!(cluster.task(&done)["output"], "\"before\"");
    effects.open();
    for task in &open {
        assert_eq!(cluster.ended(task)["state"], "done");
        assert_eq!(cluster.count(task, "done"), 1);
    }
    assert_eq!(effects.lines().len(), open.len(), "what was killed before its effect did it once, later");
}

#[test]
fn a_cluster_without_quorum_says_so_and_goes_on_when_it_is_back() {
    let mut cluster = TestCluster::start();
    cluster.put("before", "1").expect("a whole cluster acknowledges");
    let (master, _) = cluster.master_after(0);
    let others: Vec<usize> = (0..3).filter(|place| *place != master).collect();
    for place in &others {
        cluster.processes.kill(*place);
    }
    let alone = tenure::cli::Cluster::new([cluster.processes.http(master).to_string()]);
    let error = cluster.wait(alone.timeout(std::time::Duration::from_secs(3)).send(crate::support::put("alone", "1")));
    let error = error.expect_err("one of three is no quorum");
    assert_eq!(error.code.exit(), 4, "{error:?}");
    for place in others {
        cluster.processes.restart(place).expect("it starts again");
    }
    cluster.ready();
    assert_eq!(cluster.get("before").as_deref(), Some("1"));
    cluster.put("after", "1").expect("a whole cluster acknowledges");
}
