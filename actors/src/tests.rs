//! Whole nodes over in-memory links: founding, a task, a write, a killed master.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocol::client::{Consistency, Work};
use protocol::effects::Role;
use protocol::replica::{Compaction, Status};
use protocol::state::{
    Answer, HistoryEvent, Offer, Operation, Outcome, Put, Query, ReleaseCause, TaskSpec, TaskState, TaskView,
};
use protocol::worker::{AbortCause, Run};
use protocol::{Fence, NodeId, Profile, TaskId};

use crate::links::memory::Hub;
use crate::{Clock, Done, Executor, Host, Settings, Storage, Wires};

/// Answers every attempt with its payload.
#[derive(Clone)]
struct Echo;

impl Executor for Echo {
    fn start(&self, run: Run, done: Done) {
        done.finish(Outcome::done(run.grant.payload));
    }

    fn abort(&self, _: Fence, _: AbortCause) {}
}

/// Attempts that end when they are stopped, and not before.
#[derive(Clone, Default)]
struct Endless {
    running: Arc<Mutex<BTreeMap<Fence, Done>>>,
}

impl Executor for Endless {
    fn start(&self, run: Run, done: Done) {
        self.running.lock().expect("nobody panics here").insert(run.grant.fence, done);
    }

    fn abort(&self, fence: Fence, _: AbortCause) {
        drop(self.running.lock().expect("nobody panics here").remove(&fence));
    }
}

fn settings(hub: &Hub, place: usize, count: usize) -> Settings {
    let addresses: Vec<SocketAddr> =
        (0..count).map(|place| SocketAddr::from(([127, 0, 0, 1], 9000 + place as u16))).collect();
    Settings {
        cluster: "test".into(),
        storage: Storage::Memory,
        wires: Wires::Memory { hub: hub.clone(), address: Some(addresses[place]) },
        join: if count == 1 { Vec::new() } else { addresses.iter().map(ToString::to_string).collect() },
        had_others: false,
        voters: None,
        profile: CALM,
        offer: Offer {
            label: format!("n{}", place + 1),
            slots: 2,
            kinds: BTreeSet::from(["echo".to_owned()]),
            ..Offer::default()
        },
        replace_after: protocol::replica::REPLACE_AFTER,
        compaction: Compaction::every(20),
        clock: Clock::default(),
    }
}

async fn cluster(count: usize) -> (Hub, Vec<Host>) {
    cluster_of(count, Echo).await
}

async fn cluster_of<E: Executor + Clone>(count: usize, executor: E) -> (Hub, Vec<Host>) {
    let hub = Hub::new();
    let mut hosts = Vec::new();
    for place in 0..count {
        let host = Host::start(settings(&hub, place, count), Arc::new(executor.clone())).await;
        hosts.push(host.unwrap_or_else(|error| panic!("node {place} does not start: {error}")));
    }
    (hub, hosts)
}

async fn put(host: &Host, key: &str, value: &str) -> Answer {
    let operation = Operation::Put(Put::new(key, value.to_owned()));
    host.client().call(Work::Write(operation), PATIENCE).await.expect("a quorum is here")
}

async fn get(host: &Host, key: &str) -> Option<String> {
    let query = Work::Read(Query::Get(key.into()), Consistency::Linearizable);
    match host.client().call(query, PATIENCE).await.expect("a quorum is here") {
        Answer::Value { found, .. } => found.map(|value| String::from_utf8(value.value.to_vec()).expect("text")),
        other => panic!("{other:?}"),
    }
}

async fn run_task(host: &Host, payload: &str) -> TaskState {
    let task = TaskSpec::new("echo", payload.to_owned());
    let submitted = host.client().call(Work::Write(Operation::Submit(vec![task])), PATIENCE).await;
    let Ok(Answer::Submitted(tasks)) = submitted else { panic!("{submitted:?}") };
    let query = Work::Read(Query::Await(tasks[0].task), Consistency::Linearizable);
    match host.client().call(query, PATIENCE).await {
        Ok(Answer::Task(view)) => view.state,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_node_alone_runs_a_task() {
    let (_hub, hosts) = cluster(1).await;
    assert!(matches!(run_task(&hosts[0], "hello").await, TaskState::Done { output, .. } if output == "hello"));
    for host in hosts {
        host.shutdown(PATIENCE).await;
    }
}

#[tokio::test]
async fn a_node_that_has_no_time_to_drain_gives_back_what_runs_and_nobody_takes_it_for_dead() {
    let endless = Endless::default();
    let (_hub, mut hosts) = cluster_of(3, endless.clone()).await;
    let submit = Work::Write(Operation::Submit(vec![TaskSpec::new("echo", "")]));
    let Ok(Answer::Submitted(tasks)) = hosts[0].client().call(submit, PATIENCE).await else { panic!("not submitted") };
    let first = granted(&hosts[0], tasks[0].task, 1).await;
    while endless.running.lock().expect("nobody panics here").is_empty() {
        tokio::time::sleep(POLL).await; // granted, it may still be on its way
    }
    let place = hosts.iter().position(|host| host.node() == first).expect("it runs here");
    hosts.remove(place).shutdown(Duration::ZERO).await;
    let second = granted(&hosts[0], tasks[0].task, 2).await;
    assert_ne!(first, second);
    let history = view(&hosts[0], tasks[0].task).await.history;
    let history: Vec<_> = history.into_iter().map(|line| line.what).collect();
    let released = HistoryEvent::Released(ReleaseCause::NotHeld);
    assert_eq!(history, [HistoryEvent::Assigned(first), released, HistoryEvent::Assigned(second)]);
}

/// Waits until this attempt of a task is granted, and says to whom.
async fn granted(host: &Host, task: TaskId, attempt: u32) -> NodeId {
    loop {
        match view(host, task).await.state {
            TaskState::Assigned { number, node, .. } if number == attempt => return node,
            TaskState::Pending { .. } | TaskState::Assigned { .. } => tokio::time::sleep(POLL).await,
            ended => panic!("{ended:?}"),
        }
    }
}

async fn view(host: &Host, task: TaskId) -> TaskView {
    let query = Work::Read(Query::Task(task), Consistency::Linearizable);
    match host.client().call(query, PATIENCE).await {
        Ok(Answer::Task(view)) => *view,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn three_nodes_survive_the_death_of_their_master() {
    let (hub, mut hosts) = cluster(3).await;
    put(&hosts[0], "k", "before").await;
    assert!(matches!(run_task(&hosts[1], "hello").await, TaskState::Done { .. }));

    let master = master(&hosts).await;
    let dead = hosts.remove(master);
    hub.kill(dead.node());

    assert_eq!(get(&hosts[0], "k").await.as_deref(), Some("before"));
    put(&hosts[1], "k", "after").await;
    assert_eq!(get(&hosts[0], "k").await.as_deref(), Some("after"));
    assert!(matches!(run_task(&hosts[0], "again").await, TaskState::Done { .. }));
}

#[tokio::test]
async fn a_node_that_was_cut_off_for_long_is_sent_the_state() {
    let (hub, hosts) = cluster(3).await;
    put(&hosts[0], "k", "before").await;
    let away = (master(&hosts).await + 1) % 3;
    let held = status(&hosts[away]).await.applied;
    hub.isolate(hosts[away].node());
    let others = [(away + 1) % 3, (away + 2) % 3];
    // The log is forgotten beyond all that the lost node can have: whatever it is asked later comes from an image.
    let mut number = 0;
    while status(&hosts[others[0]]).await.log_base <= held + 40 || status(&hosts[others[1]]).await.log_base <= held + 40
    {
        put(&hosts[others[0]], &format!("k{number}"), "meanwhile").await;
        number += 1;
    }
    hub.heal_all();
    let all_equal = async {
        loop {
            let all = [status(&hosts[0]).await, status(&hosts[1]).await, status(&hosts[2]).await];
            if all.iter().all(|one| one.applied == all[0].applied) {
                break all;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let all = tokio::time::timeout(PATIENCE, all_equal).await.expect("they come to the same");
    assert!(all.iter().all(|one| one.state_hash == all[0].state_hash), "{all:#?}");
    assert!(all[away].snapshot > held, "{all:#?}");
    assert_eq!(get(&hosts[away], &format!("k{}", number - 1)).await.as_deref(), Some("meanwhile"));
}

/// The place of whoever leads, as soon as somebody does.
async fn master(hosts: &[Host]) -> usize {
    loop {
        for (place, host) in hosts.iter().enumerate() {
            if status(host).await.role == Role::Leader {
                return place;
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn status(host: &Host) -> Status {
    host.status().await.expect("it runs")
}

/// A machine that stands still for seconds deposes no master and ends no session. Whoever is killed is missed at once all the same.
const CALM: Profile =
    Profile { election_timeout: Duration::from_secs(3), session: Duration::from_secs(120), ..Profile::DEV };

/// Far longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);
