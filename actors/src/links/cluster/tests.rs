//! Real streams, sessions and processes.
//!
//! Nodes share a process here where that shows the same as two processes would; what is about a process dying is shown
//! with this test program started once more, as [`the_other_process`].

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use protocol::{ClusterId, Incarnation, NodeId, wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::*;
use crate::links::LinkEvent;
use crate::links::tests::{down, identity, message, next, until, up};

async fn start(identity: Identity) -> (Arc<ClusterLinks>, Inbox) {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = Config { identity, listen, advertise: None, secret: None, insecure: false };
    super::start(config).await.expect("loopback can be listened on")
}

fn target(links: &ClusterLinks) -> Target {
    Target { addr: links.address(), node: None }
}

async fn two() -> [(Arc<ClusterLinks>, Inbox); 2] {
    let (a, mut inbox_a) = start(identity(1)).await;
    let (b, mut inbox_b) = start(identity(2)).await;
    a.set_targets(vec![target(&b)]);
    assert_eq!(up(&mut inbox_a).await.node, NodeId(2));
    assert_eq!(up(&mut inbox_b).await.node, NodeId(1));
    [(a, inbox_a), (b, inbox_b)]
}

/// A second process that links to us and sends back what it gets. Killed when dropped.
struct Other(Child);

impl Other {
    fn start(links: &ClusterLinks, node: u64, incarnation: u64) -> Self {
        let program = std::env::current_exe().expect("a test knows its program");
        let child = Command::new(program)
            .args(["--exact", "links::cluster::tests::the_other_process", "--ignored", "--nocapture"])
            .env("TENURE_TEST_OTHER", format!("{} {node} {incarnation}", links.address()))
            .stdout(Stdio::null())
            .spawn()
            .expect("a test can start its own program");
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.0.id().try_into().expect("a pid is positive"));
        nix::sys::signal::kill(pid, signal).expect("a child can be signalled");
    }

    /// SIGSTOP, and none of its threads runs when this returns.
    fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        let pid = Pid::from_raw(self.0.id().try_into().expect("a pid is positive"));
        let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED));
        assert_eq!(stopped, Ok(WaitStatus::Stopped(pid, Signal::SIGSTOP)));
    }

    /// SIGKILL, and gone when this returns.
    fn kill(&mut self) {
        self.0.kill().expect("a child can be killed");
        self.0.wait().expect("a child can be waited for");
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs in a process of its own, started by other tests"]
async fn the_other_process() {
    let Ok(orders) = std::env::var("TENURE_TEST_OTHER") else { return };
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).expect("a process may choose how it ends");
    let words: Vec<&str> = orders.split(' ').collect();
    let incarnation = Incarnation(words[2].parse().expect("a number"));
    let (links, mut inbox) = start(Identity { incarnation, ..identity(words[1].parse().expect("a number")) }).await;
    links.set_targets(vec![Target { addr: words[0].parse().expect("an address"), node: None }]);
    // As a task, not on the thread that waits for the runtime: what arrives need not wake another thread.
    let echo = async move {
        while let Some(event) = inbox.recv().await {
            if let LinkEvent::Message { peer, class, body } = event {
                let _ = links.send(peer.node, class, body);
            }
        }
    };
    tokio::spawn(echo).await.expect("an echo does not panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_every_length_and_class_come_back_from_another_process() {
    let (a, mut inbox) = start(identity(1)).await;
    let _other = Other::start(&a, 2, 1);
    let peer = up(&mut inbox).await;
    assert_eq!((peer.node, peer.incarnation, peer.role), (NodeId(2), Incarnation(1), Role::Node));
    for class in [Class::Control, Class::Data, Class::Bulk] {
        for length in [0, 1, 60_000, 65_000, 70_000, 700_000, wire::MAX_MESSAGE] {
            if class != Class::Control || length <= crate::links::MAX_CONTROL {
                let body = Bytes::from_iter((0..length).map(|at| (at % 251) as u8));
                while a.send(NodeId(2), class, body.clone()) == Err(SendError::Busy) {
                    until(&mut inbox, |event| matches!(event, LinkEvent::Writable { .. }).then_some(())).await;
                }
                assert!(message(&mut inbox).await == body, "{class:?} {length}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_is_down_and_evidence_follows() {
    let (a, mut inbox) = start(identity(1)).await;
    let mut other = Other::start(&a, 2, 1);
    up(&mut inbox).await;
    let start = Instant::now();
    other.kill();
    assert_eq!(down(&mut inbox).await.1, Closed::ByPeer);
    let downtime = start.elapsed();
    let evidence = LinkEvent::Evidence { node: NodeId(2), incarnation: Incarnation(1) };
    until(&mut inbox, |event| (event == evidence).then_some(())).await;
    println!("down after {downtime:?}, evidence after {:?}", start.elapsed());
    assert_eq!(a.send(NodeId(2), Class::Data, Bytes::new()), Err(SendError::NoLink));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_process_makes_us_busy_and_goes_on_when_it_wakes() {
    let (a, mut inbox) = start(identity(1)).await;
    let other = Other::start(&a, 2, 1);
    up(&mut inbox).await;
    other.freeze();
    let mut sent = 0;
    while a.send(NodeId(2), Class::Data, Bytes::from(vec![0; 10_000])).is_ok() {
        sent += 1;
    }
    assert_eq!(sent, 448 * 1024 / 10_064);
    other.signal(Signal::SIGCONT);
    let (mut received, mut is_writable) = (0, false);
    while received < sent || !is_writable {
        match next(&mut inbox).await {
            LinkEvent::Message { .. } => received += 1,
            LinkEvent::Writable { .. } => is_writable = true,
            LinkEvent::Identified { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes eleven seconds"]
async fn a_process_paused_for_too_long_is_down_without_evidence() {
    let (a, mut inbox) = start(identity(1)).await;
    let other = Other::start(&a, 2, 1);
    let first = up(&mut inbox).await;
    other.freeze();
    assert_eq!(down(&mut inbox).await, (first, Closed::Idle));
    other.signal(Signal::SIGCONT);
    let second = until(&mut inbox, |event| match event {
        LinkEvent::Evidence { .. } => panic!("evidence against the living"),
        LinkEvent::Up(peer) => Some(peer),
        _ => None,
    });
    assert!(second.await.generation > first.generation);
    assert_eq!(a.peers().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_run_replaces_the_link_of_an_older_one_that_still_lives() {
    let (a, mut inbox) = start(identity(1)).await;
    let _older = Other::start(&a, 2, 1);
    let first = up(&mut inbox).await;
    let _newer = Other::start(&a, 2, 2);
    assert_eq!(down(&mut inbox).await, (first, Closed::Replaced));
    let second = up(&mut inbox).await;
    assert_eq!(second.incarnation, Incarnation(2));
    assert!(second.generation > first.generation);
    a.send(NodeId(2), Class::Data, Bytes::from_static(b"to the newer run")).unwrap();
    let from = until(&mut inbox, |event| if let LinkEvent::Message { peer, .. } = event { Some(peer) } else { None });
    assert_eq!(from.await, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_dialling_at_once_makes_one_link() {
    for _ in 0..10 {
        let (a, mut inbox_a) = start(identity(1)).await;
        let (b, mut inbox_b) = start(identity(2)).await;
        a.set_targets(vec![target(&b)]);
        b.set_targets(vec![target(&a)]);
        up(&mut inbox_a).await;
        up(&mut inbox_b).await;
        a.send(NodeId(2), Class::Data, Bytes::from_static(b"x")).unwrap();
        loop {
            match next(&mut inbox_b).await {
                LinkEvent::Message { .. } => break,
                LinkEvent::Down { peer, why } => panic!("{peer:?} flapped: {why:?}"),
                _ => {}
            }
        }
        assert_eq!((a.peers().len(), b.peers().len()), (1, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_nodes_that_all_dial_all_get_one_link_per_pair_and_no_flap() {
    let mut nodes = Vec::new();
    for node in 1..=5 {
        nodes.push(start(identity(node)).await);
    }
    let targets: Vec<Target> = nodes.iter().map(|(links, _)| target(links)).collect();
    for (links, _) in &nodes {
        links.set_targets(targets.clone());
    }
    for (links, inbox) in &mut nodes {
        let (mut ups, mut identified) = (0, 0);
        while ups < 4 || identified < 5 {
            match next(inbox).await {
                LinkEvent::Up(_) => ups += 1,
                LinkEvent::Identified { .. } => identified += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((ups, identified, links.peers().len()), (4, 5, 4));
    }
    assert!(nodes.iter_mut().all(|(_, inbox)| inbox.try_recv().is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_smaller_node_dials_when_the_greater_does_not_know_of_it() {
    let (a, mut inbox_a) = start(identity(1)).await;
    let (b, mut inbox_b) = start(identity(2)).await;
    a.set_targets(vec![Target { addr: b.address(), node: Some(NodeId(2)) }]);
    up(&mut inbox_a).await;
    up(&mut inbox_b).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_comes_and_goes_has_one_dialler() {
    let (a, mut inbox_a) = start(identity(1)).await;
    let (b, mut inbox_b) = start(identity(2)).await;
    for _ in 0..50 {
        a.set_targets(vec![target(&b)]);
        a.set_targets(Vec::new());
    }
    a.set_targets(vec![target(&b)]);
    up(&mut inbox_a).await;
    up(&mut inbox_b).await;
    assert_eq!(a.shared.targets().len(), 1);
    a.shared.changed();
    while a.shared.changes.receiver_count() > 1 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_before_a_dial_ends_when_somebody_says_that_it_is_there() {
    let (a, mut inbox_a) = start(identity(1)).await;
    let (b, _inbox_b) = start(identity(2)).await;
    let mut changes = a.shared.changes.subscribe();
    let day = Duration::from_secs(86_400);
    let mut waiting = std::pin::pin!(dial::wait(&a.shared, b.address(), day, &mut changes));
    tokio::select! {
        biased;
        () = &mut waiting => panic!("nobody is there yet"),
        () = std::future::ready(()) => {}
    }
    b.set_targets(vec![target(&a)]);
    up(&mut inbox_a).await;
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("not the whole day");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_linked_and_never_suspected() {
    let (a, mut inbox_a) = start(identity(1)).await;
    let (client, mut inbox_client) = start(Identity { role: Role::Client, ..identity(9) }).await;
    client.set_targets(vec![target(&a)]);
    assert_eq!(up(&mut inbox_a).await.role, Role::Client);
    up(&mut inbox_client).await;
    client.shutdown().await;
    assert_eq!(down(&mut inbox_a).await.1, Closed::ByPeer);
    assert!(a.shared.suspects().of(NodeId(9)).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_takes_nothing_stops_its_peer_and_taking_frees_it() {
    let [(a, mut inbox_a), (_b, mut inbox_b)] = two().await;
    let mut sent = 0;
    while a.send(NodeId(2), Class::Data, Bytes::from(vec![0; 10_000])).is_ok() {
        sent += 1;
    }
    assert_eq!(sent, 448 * 1024 / 10_064);
    for _ in 0..sent {
        message(&mut inbox_b).await;
    }
    until(&mut inbox_a, |event| matches!(event, LinkEvent::Writable { .. }).then_some(())).await;
    a.send(NodeId(2), Class::Data, Bytes::from_static(b"again")).unwrap();
    assert_eq!(message(&mut inbox_b).await, "again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_we_close_is_no_evidence_and_comes_back() {
    let [(a, mut inbox_a), (_b, mut inbox_b)] = two().await;
    a.close(NodeId(2));
    assert_eq!(down(&mut inbox_a).await.1, Closed::BySelf);
    assert_eq!(down(&mut inbox_b).await.1, Closed::ByPeer);
    for inbox in [&mut inbox_a, &mut inbox_b] {
        until(inbox, |event| match event {
            LinkEvent::Evidence { .. } => panic!("evidence against the living"),
            LinkEvent::Up(_) => Some(()),
            _ => None,
        })
        .await;
    }
}

/// Carries one connection to `to` until told to lose the far end of it: the near end stays open and silent.
async fn half_loser(to: SocketAddr, lose: Arc<Notify>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback can be listened on");
    let addr = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.expect("one dials");
        let mut far = TcpStream::connect(to).await.expect("the other listens");
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            () = lose.notified() => {
                drop(far);
                std::future::pending::<()>().await;
            }
        }
    });
    addr
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_link_gives_way_to_the_next_dial() {
    let (a, mut inbox_a) = start(identity(2)).await;
    let (b, mut inbox_b) = start(identity(1)).await;
    let lose = Arc::new(Notify::new());
    a.set_targets(vec![Target { addr: half_loser(b.address(), lose.clone()).await, node: None }]);
    let first = up(&mut inbox_a).await;
    up(&mut inbox_b).await;
    lose.notify_one();
    assert_eq!(down(&mut inbox_b).await.1, Closed::ByPeer);
    assert_eq!(a.peers(), [first]);
    b.set_targets(vec![target(&a)]);
    up(&mut inbox_b).await;
    assert_eq!(down(&mut inbox_a).await, (first, Closed::Replaced));
    up(&mut inbox_a).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_name_or_founding_or_node_is_refused_once() {
    let (a, mut inbox) = start(Identity { cluster: ClusterId(1), ..identity(1) }).await;
    let (b, _b) = start(Identity { cluster_name: "videos".into(), ..identity(2) }).await;
    let (c, _c) = start(Identity { cluster: ClusterId(9), ..identity(3) }).await;
    let (d, _d) = start(identity(4)).await;
    let expected = NodeId(7);
    let cases = [
        (target(&b), Refusal::OtherName { theirs: "videos".into() }),
        (target(&c), Refusal::OtherCluster { theirs: ClusterId(9) }),
        (Target { addr: d.address(), node: Some(expected) }, Refusal::OtherNode { expected, found: NodeId(4) }),
    ];
    for (target, why) in cases {
        a.set_targets(vec![target]);
        assert_eq!(next(&mut inbox).await, LinkEvent::Refused { addr: target.addr, why });
    }
    assert!(inbox.is_empty() && a.peers().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn something_else_behind_an_address_is_refused_and_never_linked() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback can be listened on");
    let addr = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let (a, mut inbox) = start(identity(1)).await;
    a.set_targets(vec![Target { addr, node: None }]);
    assert_eq!(next(&mut inbox).await, LinkEvent::Refused { addr, why: Refusal::Version });
}

#[tokio::test(flavor = "multi_thread")]
async fn another_secret_is_refused_before_it_replaces_anything() {
    let [(a, mut inbox_a), (_b, _inbox_b)] = two().await;
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let later = Identity { incarnation: Incarnation(2), ..identity(2) };
    let secret = Some("sesame".into());
    let config = Config { identity: later, listen, advertise: None, secret, insecure: false };
    let (c, mut inbox_c) = super::start(config).await.expect("loopback can be listened on");
    c.set_targets(vec![target(&a)]);
    let refused = LinkEvent::Refused { addr: a.address(), why: Refusal::OtherSecret };
    assert_eq!(next(&mut inbox_c).await, refused);
    assert!(
        a.peers()[0].incarnation == Incarnation(1)
            && inbox_a.try_recv().is_none_or(|event| matches!(event, LinkEvent::Identified { .. }))
    );
}

/// Run alone and by hand: other tests in the process would disturb the count.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures"]
async fn links_that_ended_leave_nothing_behind() {
    let [(a, mut inbox_a), (_b, mut inbox_b)] = two().await;
    let left = || {
        let actors = ractor::registry::pid_registry::get_all_pids().len();
        let files = std::fs::read_dir("/proc/self/fd").expect("this is Linux").count();
        let memory = std::fs::read_to_string("/proc/self/statm").expect("this is Linux");
        (actors, files, ractor::pg::which_groups().len(), memory)
    };
    for round in 0..=300 {
        if round % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            println!("after {round}: actors, files, groups, pages: {:?}", left());
        }
        a.close(NodeId(2));
        up(&mut inbox_a).await;
        up(&mut inbox_b).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_recognises_itself_behind_an_address() {
    let (a, mut inbox) = start(identity(1)).await;
    a.set_targets(vec![target(&a)]);
    assert_eq!(next(&mut inbox).await, LinkEvent::Identified { addr: a.address(), node: NodeId(1) });
    assert!(a.peers().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_loses_nothing_it_sent() {
    let [(a, mut inbox_a), (_b, mut inbox_b)] = two().await;
    let long = Bytes::from(vec![7; wire::MAX_MESSAGE]);
    a.send(NodeId(2), Class::Data, long.clone()).unwrap();
    let reader = tokio::spawn(async move {
        assert!(message(&mut inbox_b).await == long);
        assert_eq!(down(&mut inbox_b).await.1, Closed::ByPeer);
        until(&mut inbox_b, |event| matches!(event, LinkEvent::Evidence { .. }).then_some(())).await;
    });
    a.shutdown().await;
    reader.await.expect("everything arrived");
    assert_eq!(down(&mut inbox_a).await.1, Closed::BySelf);
    assert_eq!(inbox_a.recv().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_closed_and_delay_nobody() {
    let (a, mut inbox_a) = start(identity(1)).await;
    let mut strangers = Vec::new();
    for kind in 0..200 {
        let mut stream = TcpStream::connect(a.address()).await.expect("the door is open");
        match kind % 4 {
            0 => stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap_or(()),
            1 => stream.write_all(b"TENU\xff\xff").await.unwrap_or(()),
            2 => stream.write_all(b"TENU\x00\x40slow").await.unwrap_or(()),
            _ => {}
        }
        strangers.push(stream);
    }
    let (b, mut inbox_b) = start(identity(2)).await;
    b.set_targets(vec![target(&a)]);
    up(&mut inbox_b).await;
    up(&mut inbox_a).await;
    for mut stranger in strangers {
        let mut nothing = [0; 1];
        let end = tokio::time::timeout(Duration::from_secs(30), stranger.read(&mut nothing)).await;
        assert!(matches!(end, Ok(Ok(0) | Err(_))), "a stranger got an answer or stays: {end:?}");
    }
    assert!(a.counts().strangers > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_streams_stay_on_loopback() {
    let outside: SocketAddr = "192.0.2.1:7400".parse().expect("an address");
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let config = Config { identity: identity(1), listen: everywhere, advertise: None, secret: None, insecure: false };
    assert!(matches!(super::start(config).await, Err(StartError::NotLoopback(addr)) if addr == everywhere));
    let (a, mut inbox) = start(identity(1)).await;
    a.set_targets(vec![Target { addr: outside, node: None }]);
    let why = Refusal::NotLoopback(outside);
    assert_eq!(next(&mut inbox).await, LinkEvent::Refused { addr: outside, why });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_an_error_in_words() {
    let (a, _inbox) = start(identity(1)).await;
    let listen = a.address();
    let config = Config { identity: identity(2), listen, advertise: None, secret: None, insecure: false };
    let error = super::start(config).await.err().expect("the port is taken");
    assert!(error.to_string().contains(&listen.to_string()), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures"]
async fn measure() {
    tokio::spawn(measure_as_a_task()).await.expect("measuring does not panic");
}

async fn measure_as_a_task() {
    let (a, mut inbox) = start(identity(1)).await;
    let mut other = Other::start(&a, 2, 1);
    up(&mut inbox).await;
    let mut trips: Vec<Duration> = Vec::new();
    for _ in 0..5000 {
        let start = Instant::now();
        a.send(NodeId(2), Class::Data, Bytes::from_static(&[7; 64])).unwrap();
        message(&mut inbox).await;
        trips.push(start.elapsed());
    }
    trips.sort();
    println!("64 B there and back: p50 {:?}, p99 {:?}", trips[2500], trips[4950]);
    let start = Instant::now();
    let (mut sent, mut received) = (0, 0);
    while received < 100_000 {
        while sent < 100_000
            && sent - received < 512
            && a.send(NodeId(2), Class::Data, Bytes::from_static(&[7; 64])).is_ok()
        {
            sent += 1;
        }
        message(&mut inbox).await;
        received += 1;
    }
    println!("64 B, 512 at once: {:.0} round trips a second", 100_000.0 / start.elapsed().as_secs_f64());
    let start = Instant::now();
    other.kill();
    let reaped = start.elapsed();
    down(&mut inbox).await;
    let heard = start.elapsed();
    until(&mut inbox, |event| matches!(event, LinkEvent::Evidence { .. }).then_some(())).await;
    println!("killed: reaped after {reaped:?}, down after {heard:?}, evidence after {:?}", start.elapsed());
}

/// A primitive message type makes an actor remotable without a word: every peer would be told of it and could write to it.
#[test]
fn only_the_gateway_can_be_written_to_by_a_peer() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the sources are there") {
            let path = entry.expect("the sources can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with(file!()) {
                check(&path, &std::fs::read_to_string(&path).expect("sources are text"));
            }
        }
    }
}

fn check(path: &std::path::Path, source: &str) {
    let is_session = path.ends_with("links/cluster/session.rs");
    assert!(is_session || !source.contains("fn serializable()"), "{path:?} makes a message remotable");
    let is_links = path.components().any(|part| part.as_os_str() == "links");
    assert!(is_links || !source.contains("ractor_cluster::"), "{path:?} knows ractor_cluster");
    for line in source.lines().filter(|line| line.trim_start().starts_with("type Msg = ")) {
        let name = line.trim_start().trim_start_matches("type Msg = ").trim_end_matches(';');
        let is_primitive = name == "String" || !name.starts_with(char::is_uppercase) || name.starts_with("Vec<");
        assert!(!is_primitive || name.contains("::"), "{path:?} has the remotable message type {name}");
    }
}
