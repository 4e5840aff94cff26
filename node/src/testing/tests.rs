use std::future::IntoFuture as _;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use protocol::Revision;
use protocol::state::{Answer, TaskState};

use super::notes::Call;
use super::*;
use crate::kv::{held, put};
use crate::{Error, Guard as _, NodeEvent, TaskCx, TaskError};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_the_master_and_what_was_written_outlives_its_node() {
    let mut cluster = TestCluster::builder().start().await.unwrap();
    let master = cluster.master().await;
    let other = (master + 1) % 3;
    let session = cluster.client(other).session(Duration::from_secs(60)).await.unwrap();
    cluster.client(master).kv().put("k", "v").await.unwrap();
    cluster.kill(master);
    assert_ne!(cluster.master().await, master);
    let read = |client: Client| async move { client.kv().get("k").await.unwrap().unwrap().value };
    assert_eq!(read(cluster.client(other)).await, "v");
    assert!(!session.is_lost());
    cluster.restart(master).await.unwrap();
    assert_eq!(read(cluster.client(master)).await, "v");
    session.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_cut_off_or_paused_has_no_quorum_until_that_is_over() {
    let mut cluster = TestCluster::builder().start().await.unwrap();
    let master = cluster.master().await;
    let others = [(master + 1) % 3, (master + 2) % 3];
    cluster.partition([&[master], &others]);
    let lonely = cluster.client(master).timeout(Duration::from_millis(300));
    assert!(matches!(lonely.kv().put("k", "1").await, Err(Error::NoQuorum { .. })));
    cluster.client(others[0]).kv().put("k", "2").await.unwrap();
    cluster.heal();
    cluster.client(master).kv().put("k", "3").await.unwrap();
    cluster.pause(master);
    cluster.client(others[0]).kv().put("k", "4").await.unwrap();
    cluster.resume(master);
    assert_eq!(cluster.client(master).kv().get("k").await.unwrap().unwrap().value, "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_members_goes_on_over_the_death_of_the_master() {
    let mut cluster = TestCluster::builder().start().await.unwrap();
    let master = cluster.master().await;
    let mut members = cluster.client((master + 1) % 3).members();
    let mut here = BTreeMap::new();
    let mut follow = async |wanted: usize| {
        while here.len() != wanted {
            match members.next().await.unwrap().unwrap() {
                NodeEvent::Snapshot(all) => here.extend(all.into_iter().map(|node| (node.session, node.node))),
                NodeEvent::Up(node) => assert_eq!(here.insert(node.session, node.node), None),
                NodeEvent::Down(node) => assert_eq!(here.remove(&node.session), Some(node.node)),
                NodeEvent::Changed(node) => assert!(here.contains_key(&node.session)),
            }
        }
    };
    follow(3).await;
    cluster.kill(master);
    follow(2).await;
    cluster.restart(master).await.unwrap();
    follow(3).await;
}

/// Counts up until it is dropped.
struct Count(Arc<AtomicU32>);

impl TaskHandler for Count {
    const NAME: &'static str = "count";
    type Input = ();
    type Output = ();

    async fn run(&self, _: &TaskCx, (): ()) -> Result<(), TaskError> {
        loop {
            self.0.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_node_ran_stops_soon() {
    let counted = Arc::new(AtomicU32::new(0));
    let mut cluster = TestCluster::builder().nodes(1).register(Count(counted.clone())).start().await.unwrap();
    cluster.client(0).submit::<Count>(()).await.unwrap();
    while counted.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    cluster.kill(0);
    let mut seen = 0;
    while seen != counted.load(Ordering::SeqCst) {
        seen = counted.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

struct Double;

impl TaskHandler for Double {
    const NAME: &'static str = "double";
    type Input = u32;
    type Output = u32;

    async fn run(&self, cx: &TaskCx, number: u32) -> Result<u32, TaskError> {
        cx.effects().put("doubled", number.to_string())?;
        Ok(2 * number)
    }
}

/// A cluster whose master was killed while it had something to do, and what was seen of that.
async fn history_of_a_failover() -> History {
    let mut cluster = TestCluster::builder().register(Double).start().await.unwrap();
    let master = cluster.master().await;
    let client = cluster.client((master + 1) % 3);
    let first = client.kv().put("k", "1").await.unwrap();
    let tasks = futures_util::future::try_join_all((0..8).map(|number| client.submit::<Double>(number).into_future()));
    let tasks = tasks.await.unwrap();
    cluster.kill(master);
    client.kv().put("k", "2").if_at(first).await.unwrap();
    for (number, task) in (0..).zip(&tasks) {
        assert_eq!(task.result().await.unwrap(), 2 * number);
    }
    // Written by tasks, which the judge of keys does not see: it must not judge this one.
    assert!(client.kv().get("doubled").await.unwrap().is_some());
    assert_eq!(client.kv().get("k").await.unwrap().unwrap().value, "2");
    cluster.history().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_seen_of_a_failover_is_judged_and_right() {
    let history = history_of_a_failover().await;
    history.assert_single_master_per_epoch().assert_commits_at_most_once().assert_no_task_lost().assert_linearizable();
    assert!(history.len() > 20, "{history:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_cannot_be_true_is_told_with_its_evidence() {
    let history = history_of_a_failover().await;
    let fails = |spoil: &dyn Fn(&mut History), judge: fn(&History) -> &History| {
        let mut history = history.clone();
        spoil(&mut history);
        let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| _ = judge(&history)));
        *judged.expect_err("it is not noticed").downcast::<String>().expect("a panic in words")
    };
    let two_masters = |history: &mut History| {
        let mut view = history.seen.views.iter().find(|view| view.mastership.leader.is_some()).unwrap().clone();
        view.mastership.leader = Some(protocol::NodeId(1));
        history.seen.views.push(view);
    };
    assert!(fails(&two_masters, History::assert_single_master_per_epoch).contains("more than one master"));

    let two_ends = |history: &mut History| {
        let is_end = |call: &&mut Call| matches!(&call.answer, Some(Answer::Task(view)) if view.state.is_final());
        let Some(Answer::Task(view)) = &mut history.seen.calls.iter_mut().find(is_end).unwrap().answer else { return };
        view.state = TaskState::Failed { message: "no".into(), output: Bytes::new(), at: view.submitted };
    };
    assert!(fails(&two_ends, History::assert_commits_at_most_once).contains("ended in two ways"));

    let forgotten = |history: &mut History| *history.tasks.values_mut().next().unwrap() = None;
    let told = fails(&forgotten, History::assert_no_task_lost);
    for part in ["was acknowledged and is gone", "starts t", "ends t"] {
        assert!(told.contains(part), "{told}");
    }

    let old_read = |history: &mut History| {
        let found = |call: &&mut Call| matches!(call.answer, Some(Answer::Value { found: Some(_), .. }));
        history.seen.calls.iter_mut().rfind(found).unwrap().answer =
            Some(Answer::Value { found: None, at: Revision(0) });
    };
    assert!(fails(&old_read, History::assert_linearizable).contains("no register answers so"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_clocks_within_their_bound_and_a_clock_that_is_slow_learns_late() {
    let cluster = TestCluster::builder().start().await.unwrap();
    let master = cluster.master().await;
    let [fast, slow] = [(master + 1) % 3, (master + 2) % 3];
    cluster.skew(master, 0.95);
    cluster.skew(fast, 1.05);
    // It ends before the other one is known to be over, unless it is renewed: and long before a slow machine could be too late with that.
    let kept = cluster.client(fast).session(Duration::from_secs(3)).await.unwrap();
    cluster.skew(slow, 0.1);
    let session = cluster.client(slow).session(Duration::from_secs(1)).await.unwrap();
    // By its own clock it has most of its time left when it hears that it is over for everybody else.
    assert_eq!(session.lost().await, crate::Lost::Gone);
    assert!(!kept.is_lost());
    cluster.history().await.unwrap().assert_single_master_per_epoch();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_outlives_the_master_also_where_elections_take_long() {
    let mut cluster = TestCluster::builder().profile(Profile::WAN).start().await.unwrap();
    let master = cluster.master().await;
    let client = cluster.client((master + 1) % 3);
    let guard = client.lock("a").await.unwrap();
    cluster.pause(master);
    let write = || client.kv().txn().when(held(&guard)).then(put("stock", "6")).into_future();
    let done = loop {
        match write().await {
            Ok(done) => break done,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    };
    assert!(done.held && guard.valid_for().is_some(), "nobody else was granted it, and its holder does not think so");
}

/// Who leads and in which epoch, as a node that runs sees it.
fn leadership(cluster: &TestCluster, place: usize) -> (protocol::Epoch, Option<NodeId>) {
    let State::Up(host) = &cluster.members[place].state else { panic!("node {place} does not run") };
    let view = *host.mastership().borrow();
    (view.epoch, view.leader)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_far_from_its_peers_stays_and_nothing_runs_twice() {
    const FAR: Duration = Duration::from_millis(800);
    // An answer takes more than half of the time-out; what is left of it is for a slow machine.
    const PATIENT: Profile = Profile {
        heartbeat: Duration::from_millis(100),
        election_timeout: Duration::from_secs(3),
        session: Duration::from_secs(30),
        ..Profile::WAN
    };
    let election = PATIENT.election_timeout;
    assert!(election / 2 < 2 * FAR && 2 * FAR < election);
    let cluster = TestCluster::builder().profile(PATIENT).register(Double).start().await.unwrap();
    let master = cluster.master().await;
    let before = leadership(&cluster, master);
    cluster.lag(master, FAR);
    let seconds = std::env::var("TENURE_OVERLOAD_S").map_or(8, |text| text.parse().expect("a number of seconds"));
    let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let mut tasks = Vec::new();
    while tokio::time::Instant::now() < end {
        let number = tasks.len() as u32;
        let task = cluster.client(tasks.len() % 3).submit::<Double>(number).await.unwrap();
        assert_eq!(task.result().await.unwrap(), 2 * number);
        tasks.push(task);
    }
    cluster.lag(master, Duration::ZERO);
    assert_eq!(leadership(&cluster, master), before, "nobody took over");
    for task in &tasks {
        assert_eq!(task.view().await.unwrap().attempts, 1, "it was given to one worker");
    }
    cluster
        .history()
        .await
        .unwrap()
        .assert_single_master_per_epoch()
        .assert_commits_at_most_once()
        .assert_no_task_lost();
}
