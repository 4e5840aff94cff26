//! Networks that fail: every node in a namespace of its own, and a router between them that drops what it is told to.
//!
//! Needs root and the programs `ip` and `nft`. Without them every test here says that it was skipped; with
//! `TENURE_NETNS=require` it fails instead, so that a machine that should run them cannot pass them over.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use tenure::cli::{Cluster, Diagnostic};
use tenure::processes::{Network, Settings};

use crate::sessions::witnessed;
use crate::support::{BINARY, Clients, Running, TestCluster, put};

#[test]
fn a_master_cut_off_acknowledges_nothing_and_follows_when_it_is_back() {
    on_a_network_with(3, patient, |network, cluster| {
        let clients = Clients::start(cluster);
        let (old, epoch) = cluster.master_after(0);
        clients.go_on(cluster, 60);
        network.allow(|from, to| from != old && to != old).expect("the rules are set");
        for number in 0..3 {
            alone(cluster, old, &format!("minority-{number}")).expect_err("one of three is no quorum");
        }
        let (new, next) = cluster.master_after(epoch);
        assert_ne!(new, old);
        cluster.until("the old one steps down", || {
            cluster.status(old).is_some_and(|status| status["role"] != "leader" && status["epoch"] == epoch)
        });
        clients.go_on(cluster, 60);
        serves_after_healing(network, cluster, old);
        assert_eq!(cluster.master_after(0), (new, next), "whoever comes back disturbs nobody");
        clients.go_on(cluster, 60);
        clients.check(cluster);
    });
}

#[test]
fn a_follower_cut_off_burns_no_epoch_and_serves_again() {
    on_a_network_with(3, patient, |network, cluster| {
        let clients = Clients::start(cluster);
        let (master, epoch) = cluster.master_after(0);
        let follower = (master + 1) % 3;
        for _ in 0..2 {
            network.allow(|from, to| from != follower && to != follower).expect("the rules are set");
            cluster.until("it would like to be elected", || {
                cluster.status(follower).is_some_and(|status| status["role"] == "pre-candidate")
            });
            cluster.until("the others miss it", || presence(cluster, master, follower) != "alive");
            clients.go_on(cluster, 60);
            serves_after_healing(network, cluster, follower);
            assert_eq!(cluster.master_after(0), (master, epoch), "it asks before it raises the epoch");
        }
        clients.go_on(cluster, 60);
        clients.check(cluster);
    });
}

#[test]
fn a_master_that_hears_nobody_is_replaced() {
    replaced_when(|old, _, to| to != old);
}

#[test]
fn a_master_whom_nobody_hears_is_replaced() {
    replaced_when(|old, from, _| from != old);
}

/// A cut through one direction of the master's cable: the others elect, and nobody acknowledges twice.
fn replaced_when(may_pass: fn(usize, usize, usize) -> bool) {
    on_a_network_with(3, patient, |network, cluster| {
        let clients = Clients::start(cluster);
        let (old, epoch) = cluster.master_after(0);
        clients.go_on(cluster, 60);
        network.allow(|from, to| may_pass(old, from, to)).expect("the rules are set");
        let (new, next) = cluster.master_after(epoch);
        assert_ne!(new, old);
        alone(cluster, old, "minority").expect_err("it cannot be heard and answered");
        clients.go_on(cluster, 60);
        serves_after_healing(network, cluster, old);
        assert_eq!(cluster.master_after(0), (new, next));
        clients.check(cluster);
    });
}

#[test]
fn two_halves_joined_by_one_node_go_on() {
    on_a_network_with(5, patient, |network, cluster| {
        let clients = Clients::start(cluster);
        let (master, epoch) = cluster.master_after(0);
        let joint = (master + 1) % 5;
        // The master's half has itself and one more.
        let is_near = |place| place == master || place == (master + 2) % 5;
        network
            .allow(|from, to| from == joint || to == joint || is_near(from) == is_near(to))
            .expect("the rules are set");
        clients.go_on(cluster, 300);
        let (_, now) = cluster.master_after(0);
        assert!(now <= epoch + 1, "a majority hears each other: at most one change, not {}", now - epoch);
        network.heal().expect("the rules are set");
        cluster.until("all are ready", || (0..5).all(|place| cluster.is_ready(place)));
        clients.go_on(cluster, 60);
        clients.check(cluster);
    });
}

#[test]
fn a_ring_of_five_of_which_each_hears_its_neighbours_goes_on() {
    on_a_network_with(5, patient, |network, cluster| {
        let clients = Clients::start(cluster);
        let (master, epoch) = cluster.master_after(0);
        clients.go_on(cluster, 60);
        network.allow(|from, to| (from + 1) % 5 == to || (to + 1) % 5 == from).expect("the rules are set");
        clients.go_on(cluster, 300);
        // Those who do not hear the master ask its followers, who do and say so.
        assert_eq!(cluster.master_after(0), (master, epoch), "a master with a majority stays");
        network.heal().expect("the rules are set");
        cluster.until("all are ready", || (0..5).all(|place| cluster.is_ready(place)));
        clients.go_on(cluster, 60);
        clients.check(cluster);
    });
}

#[test]
fn a_fifth_of_all_packets_lost_costs_time_and_nothing_else() {
    on_a_network(3, |network, cluster| {
        let clients = Clients::start(cluster);
        clients.go_on(cluster, 60);
        network.lose(20).expect("the rules are set");
        clients.go_on(cluster, 200);
        network.lose(0).expect("the rules are set");
        cluster.until("all are ready", || (0..3).all(|place| cluster.is_ready(place)));
        clients.go_on(cluster, 60);
        clients.check(cluster);
    });
}

#[test]
fn what_was_acknowledged_outlives_the_death_of_all_behind_a_cut() {
    on_a_network(3, |network, cluster| {
        let (master, epoch) = cluster.master_after(0);
        let mut acknowledged = Vec::new();
        let mut write = |cluster: &TestCluster, master: usize, name: &str| {
            let keys = (0..30).map(|number| format!("{name}-{number}"));
            acknowledged.extend(keys.filter(|key| cluster.put_at(master, key, key).is_ok()));
        };
        write(cluster, master, "whole");
        network.allow(|from, to| from != master && to != master).expect("the rules are set");
        let (successor, _) = cluster.master_after(epoch);
        write(cluster, successor, "cut");
        cluster.processes.kill_all();
        // The old master is among those that come back first: it holds the oldest log.
        network.heal().expect("the rules are set");
        for place in [master, (master + 1) % 3, (master + 2) % 3] {
            cluster.processes.restart(place).expect("it starts again");
        }
        cluster.ready();
        assert!(acknowledged.len() > 40, "{}", acknowledged.len());
        for key in &acknowledged {
            assert_eq!(cluster.get(key).as_ref(), Some(key));
        }
    });
}

#[test]
fn a_quorum_lost_and_regained_loses_nothing() {
    on_a_network(3, |network, cluster| {
        let clients = Clients::start(cluster);
        clients.go_on(cluster, 60);
        network.allow(|_, _| false).expect("the rules are set");
        cluster.until("nobody leads", || {
            (0..3).all(|place| cluster.status(place).is_some_and(|status| status["role"] != "leader"))
        });
        let epochs =
            |cluster: &TestCluster| (0..3).map(|place| cluster.answer(place)["epoch"].clone()).collect::<Vec<_>>();
        let before = epochs(cluster);
        for place in 0..3 {
            let error = alone(cluster, place, "nobody").expect_err("one of three is no quorum");
            assert_eq!(error.code.exit(), 4, "{error:?}");
        }
        assert_eq!(epochs(cluster), before, "who hears no majority raises no epoch");
        network.heal().expect("the rules are set");
        cluster.until("all are ready", || (0..3).all(|place| cluster.is_ready(place)));
        clients.go_on(cluster, 60);
        clients.check(cluster);
    });
}

#[test]
fn a_master_frozen_and_cut_off_meanwhile_wakes_up_as_a_follower() {
    on_a_network_with(3, patient, |network, cluster| {
        let clients = Clients::start(cluster);
        let (old, epoch) = cluster.master_after(0);
        clients.go_on(cluster, 60);
        cluster.processes.pause(old);
        network.allow(|from, to| from != old && to != old).expect("the rules are set");
        let (new, next) = cluster.master_after(epoch);
        clients.go_on(cluster, 60);
        // It wakes up in the belief that it leads, and can reach nobody who would tell it otherwise.
        cluster.processes.resume(old);
        alone(cluster, old, "asleep").expect_err("its time is over, by its own clock");
        serves_after_healing(network, cluster, old);
        assert_eq!(cluster.master_after(0), (new, next));
        clients.go_on(cluster, 60);
        clients.check(cluster);
    });
}

#[test]
fn a_client_beside_its_node_is_missed_at_once_by_whatever_address_it_is_linked() {
    on_a_network(3, |network, cluster| {
        let links: Vec<String> = cluster.processes.links().iter().map(ToString::to_string).collect();
        let [program, args @ ..] = &network.wrapper(0)[..] else { panic!("a program") };
        let hold = ["hold", "test", &links.join(","), "--lock", "a", "--ttl", "3600000", "--insecure"];
        let mut holder = Command::new(program);
        holder.args(args).arg(BINARY).args(hold).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = Running(holder.spawn().expect("`ip` is there"));
        let mut line = String::new();
        BufReader::new(holder.0.stdout.take().expect("it is piped")).read_line(&mut line).expect("it speaks");
        cluster.until("its node watches it, and no other", || witnessed(cluster) == 1);
        holder.signal(Signal::SIGKILL);
        holder.code();
        cluster.until("nobody holds the lock", || {
            cluster.wait(cluster.client.get("/v1/locks/a")).is_ok_and(|shown| shown["holders"] == serde_json::json!([]))
        });
    });
}

/// Ends all cuts and waits until this node serves again.
pub fn serves_after_healing(network: &Network, cluster: &TestCluster, place: usize) {
    network.heal().expect("the rules are set");
    cluster.until("the healed node serves", || alone(cluster, place, "healed").is_ok());
    cluster.until("the healed node is ready", || cluster.is_ready(place));
}

/// A write that only this node is asked for.
pub fn alone(cluster: &TestCluster, place: usize, key: &str) -> Result<(), Diagnostic> {
    let node = Cluster::new([cluster.processes.http(place).to_string()]).timeout(TRY);
    cluster.wait(node.send(put(key, "x"))).map(drop)
}

/// How one node sees another.
fn presence(cluster: &TestCluster, at: usize, of: usize) -> String {
    let members = cluster.wait(cluster.processes.get(at, "/v1/members")).unwrap_or_default();
    let label = cluster.processes.label(of);
    let member = members["members"].as_array().and_then(|list| list.iter().find(|member| member["label"] == label));
    member.map_or(String::new(), |member| member["state"].as_str().unwrap_or_default().to_owned())
}

/// Timers that a busy machine keeps, for a test in which a master stays.
fn patient(settings: &mut Settings) {
    settings.profile = "wan".into();
}

/// Runs a test with a cluster on a network of its own, or says why not.
pub fn on_a_network(nodes: u8, test: impl FnOnce(&Network, &mut TestCluster) + Send) {
    on_a_network_with(nodes, |_| {}, test);
}

/// The same with other settings.
pub fn on_a_network_with(
    nodes: u8,
    change: impl FnOnce(&mut Settings) + Send,
    test: impl FnOnce(&Network, &mut TestCluster) + Send,
) {
    let network = match Network::new(nodes) {
        Ok(network) => Arc::new(network),
        Err(error) if std::env::var("TENURE_NETNS").is_ok_and(|word| word == "require") => panic!("{error}"),
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let result = network.inside(|| {
        let mut cluster = TestCluster::with(|settings| {
            settings.nodes = nodes.into();
            settings.network = Some(network.clone());
            change(settings);
        });
        test(&network, &mut cluster);
    });
    result.expect("the network was just made");
    eprintln!("netns: {} tests ran so far", RAN.fetch_add(1, Ordering::Relaxed) + 1);
}

static RAN: AtomicU32 = AtomicU32::new(0);

/// How long one write is tried that is expected to fail.
const TRY: Duration = Duration::from_millis(1500);
