//! A cluster cut in two, with the master on the smaller side: one side answers, the other says that it cannot, and afterwards
//! nothing differs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tenure::processes::Settings;

use crate::netns::{alone, on_a_network_with};
use crate::support::{Clients, Ledger, TestCluster};

/// When an attempt wrote lines: the first and the last, in nanoseconds of this machine's clock.
type Spans = BTreeMap<(String, u64), (u64, u64)>;

fn spans(ledger: &Ledger) -> Spans {
    let mut spans = Spans::new();
    for line in ledger.lines() {
        let (attempt, at) = line.split_once(' ').expect("two words");
        let (task, number) = attempt.rsplit_once('#').expect("an attempt");
        let at = at.parse().expect("a number");
        let span = spans.entry((task.to_owned(), number.parse().expect("a number"))).or_insert((at, at));
        span.1 = at;
    }
    spans
}

/// Who was master in which epoch, by what the nodes wrote down.
fn masters(cluster: &TestCluster) -> BTreeMap<u64, BTreeSet<usize>> {
    let mut masters = BTreeMap::<u64, BTreeSet<usize>>::new();
    for place in 0..cluster.processes.len() {
        let log = std::fs::read_to_string(cluster.processes.log(place)).expect("a node has a log");
        for line in log.lines().filter(|line| line.contains("role=Leader")) {
            let epoch = line.split_once(" epoch=").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
            masters.entry(epoch.unwrap_or_else(|| panic!("no epoch: {line}"))).or_default().insert(place);
        }
    }
    masters
}

#[test]
fn two_sides_are_never_both_the_cluster() {
    // A slot each for the task that it gets first, and one for a task of the other side.
    let two_slots = |settings: &mut Settings| settings.slots = 2;
    on_a_network_with(5, two_slots, |network, cluster| {
        let clients = Clients::start(cluster);
        let work = cluster.ledger("work");
        let (old, epoch) = cluster.master_after(0);
        let beat = work.append("$TENURE_ATTEMPT $(date +%s%N)");
        let script = format!("while [ ! -e '{}' ]; do {beat}; sleep 0.02; done", work.gate().display());
        let tasks: Vec<String> = (0..5).map(|_| cluster.submit_script(&script)).collect();
        // On which nodes they are at work.
        let at_work = || -> Vec<Value> {
            let spans = spans(&work);
            let views = tasks.iter().map(|task| (task, cluster.task(task)));
            let is_at_work = |task: &String, view: &Value| {
                let has_begun = |number| spans.contains_key(&(task.clone(), number));
                view["state"] == "assigned" && view["attempts"].as_u64().is_some_and(has_begun)
            };
            views.filter(|(task, view)| is_at_work(task, view)).map(|(_, view)| view["node"].clone()).collect()
        };
        cluster.until("every node runs one", || {
            let nodes: BTreeSet<String> = at_work().iter().map(Value::to_string).collect();
            nodes.len() == 5
        });

        let is_minor = |place| place == old || place == (old + 1) % 5;
        network.allow(|from, to| is_minor(from) == is_minor(to)).expect("the rules are set");
        let (new, next) = cluster.master_after(epoch);
        assert!(!is_minor(new), "two of five elect nobody");
        // The other side's lease has begun, so this one must be over.
        let status = cluster.answer(old);
        assert_eq!(status["lease_ms"], 0, "two leases at once: {status}");
        let minor: Vec<usize> = (0..5).filter(|place| is_minor(*place)).collect();
        for place in &minor {
            let error = alone(cluster, *place, "minority").expect_err("two of five are no quorum");
            assert_eq!(error.code.exit(), 4, "{error:?}");
        }
        clients.go_on(cluster, 60);
        let names: Vec<Value> = minor.iter().map(|place| cluster.answer(*place)["node"].clone()).collect();
        cluster.until("the smaller side's tasks run on the larger one", || {
            let nodes = at_work();
            nodes.len() == tasks.len() && nodes.iter().all(|node| !names.contains(node))
        });

        // One way only, then the other way only: who is heard and hears nothing is no master either.
        for hears in [true, false] {
            network
                .allow(|from, to| is_minor(from) == is_minor(to) || is_minor(to) == hears)
                .expect("the rules are set");
            clients.go_on(cluster, 60);
        }
        // A cable with a loose contact.
        for _ in 0..20 {
            network.allow(|from, to| is_minor(from) == is_minor(to)).expect("the rules are set");
            clients.go_on(cluster, 2);
            network.heal().expect("the rules are set");
            clients.go_on(cluster, 2);
        }
        cluster.until("all are ready", || (0..5).all(|place| cluster.is_ready(place)));
        work.open();
        for task in &tasks {
            assert_eq!(cluster.ended(task)["state"], "done");
            assert_eq!(cluster.count(task, "done"), 1);
        }
        let spans = spans(&work);
        for ((task, number), (first, _)) in spans.iter().filter(|((_, number), _)| *number > 1) {
            let before = spans.range(..(task.clone(), *number)).next_back().filter(|((other, _), _)| other == task);
            assert!(before.is_none_or(|(_, (_, last))| last < first), "two attempts of {task} at once: {spans:?}");
        }
        clients.check(cluster);
        let state = |place: usize| {
            let status = cluster.status(place)?;
            Some((status["revision"].clone(), status["state_hash"].clone()))
        };
        cluster.until("all hold the same", || {
            let first = state(0);
            first.is_some() && (1..5).all(|place| state(place) == first)
        });
        let masters = masters(cluster);
        assert!(masters.contains_key(&next), "{masters:?}");
        assert!(masters.values().all(|places| places.len() == 1), "two masters in one epoch: {masters:?}");
    });
}
