//! A network of namespaces: every node behind a cable of its own, and a router between them that can be told what to drop.
//!
//! The namespaces of the nodes know only the router; whoever drives the cluster works in the router's namespace
//! ([`Network::inside`]) and so reaches every node whatever is cut between them. Packets between two nodes cross the
//! router's `forward` hook, where one table decides: a cut between any sets of nodes, one way or both, is one transaction.
//!
//! # Invariants
//!
//! * Nothing is left in the machine's own namespace but the names of ours, and those go with the [`Network`]; names of a
//!   process that was killed are swept when the next network is made.
//! * A cut is atomic: no packet meets half of it. It drops in silence, as a cable does; no socket sees an error.
//! * The driver's own packets are never dropped.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::kill;
use nix::unistd::{Pid, Uid};

use super::launcher;
use crate::diagnostic::{Code, Diagnostic};

/// Namespaces joined by a router, all removed on drop.
#[derive(Debug)]
pub struct Network {
    /// What all names of this network begin with.
    prefix: String,
    nodes: u8,
}

/// Why there is no network, or why it does not do what it was told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// This machine or this user cannot have one.
    #[error("needs root, ip and nft: {0}")]
    Missing(String),
    /// A program that should change the network failed.
    #[error("{command}: {why}")]
    Failed {
        /// What was run.
        command: String,
        /// What it said.
        why: String,
    },
}

impl From<NetworkError> for Diagnostic {
    fn from(error: NetworkError) -> Self {
        Self::new(Code::Config, format!("no network of namespaces: {error}"))
            .hint("run as root on Linux, with `ip` and `nft` installed (the packages iproute2 and nftables)")
    }
}

impl Network {
    /// Builds a network for so many nodes, in which every packet passes.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Missing`] if this machine or user cannot have one.
    pub fn new(nodes: u8) -> Result<Self, NetworkError> {
        check()?;
        sweep();
        // Children are started by one thread for all: it must be born in the machine's own namespace.
        launcher::start();
        let serial = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let network = Self { prefix: format!("{PREFIX}{}-{serial}-", std::process::id()), nodes };
        let names: Vec<String> = network.places().map(|place| network.namespace(place)).collect();
        let all = names.iter().chain([&network.router()]).map(|name| format!("netns add {name}\n")).collect::<String>();
        run(&["ip", "-batch", "-"], &all)?;
        let mut cables = String::from("link set lo up\n");
        for (place, name) in network.places().zip(&names) {
            let cable = place + 1;
            cables += &format!("link add n{cable} type veth peer name eth0 netns {name}\n");
            cables += &format!("addr add {}/24 dev n{cable}\nlink set n{cable} up\n", gate(place));
        }
        run(&["ip", "-n", &network.router(), "-batch", "-"], &cables)?;
        for (place, name) in network.places().zip(&names) {
            let (address, gate) = (network.address(place), gate(place));
            let own = format!("link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n");
            run(&["ip", "-n", name, "-batch", "-"], &format!("{own}route add default via {gate}\n"))?;
        }
        network.on_router(&["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"], "")?;
        network.rules(RULES)?;
        Ok(network)
    }

    /// Lets pass what `may_pass(from, to)` says, and drops the rest. What was cut before is forgotten.
    ///
    /// # Errors
    ///
    /// If the rules could not be set; nothing has changed then.
    pub fn allow(&self, may_pass: impl Fn(usize, usize) -> bool) -> Result<(), NetworkError> {
        let pairs = self.places().flat_map(|from| self.places().map(move |to| (from, to)));
        let cut = pairs.filter(|&(from, to)| from != to && !may_pass(from, to));
        let cut: Vec<String> = cut.map(|(from, to)| format!("{} . {}", self.address(from), self.address(to))).collect();
        let mut rules = String::from("flush set inet tenure cut\n");
        if !cut.is_empty() {
            rules += &format!("add element inet tenure cut {{ {} }}\n", cut.join(", "));
        }
        self.rules(&rules)
    }

    /// Ends every cut.
    ///
    /// # Errors
    ///
    /// If the rules could not be set.
    pub fn heal(&self) -> Result<(), NetworkError> {
        self.allow(|_, _| true)
    }

    /// From now on so many packets of a hundred between nodes are lost, at random.
    ///
    /// # Errors
    ///
    /// If the rules could not be set.
    pub fn lose(&self, percent: u8) -> Result<(), NetworkError> {
        let loss = format!("add rule inet tenure loss numgen random mod 100 < {percent} drop\n");
        self.rules(&format!("flush chain inet tenure loss\n{}", if percent > 0 { &loss } else { "" }))
    }

    /// Does something on a thread of the router's namespace. Threads that it starts stay there too.
    ///
    /// # Errors
    ///
    /// If the namespace cannot be entered; nothing was done then.
    ///
    /// # Panics
    ///
    /// If `work` does.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetworkError> {
        let enter = || -> Result<(), NetworkError> {
            let path = format!("{NAMES}/{}", self.router());
            let failed = |why: String| NetworkError::Failed { command: format!("enter {path}"), why };
            let file = std::fs::File::open(&path).map_err(|error| failed(error.to_string()))?;
            setns(file, CloneFlags::CLONE_NEWNET).map_err(|error| failed(error.to_string()))
        };
        std::thread::scope(|scope| match scope.spawn(|| enter().map(|()| work())).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Where a node is.
    #[must_use]
    pub fn address(&self, place: usize) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 77, third(place), 2))
    }

    /// The words before a command that is to run where a node is.
    #[must_use]
    pub fn wrapper(&self, place: usize) -> Vec<String> {
        ["ip", "netns", "exec", &self.namespace(place)].map(String::from).into()
    }

    fn places(&self) -> std::ops::Range<usize> {
        0..usize::from(self.nodes)
    }

    fn namespace(&self, place: usize) -> String {
        format!("{}n{}", self.prefix, place + 1)
    }

    fn router(&self) -> String {
        format!("{}router", self.prefix)
    }

    fn rules(&self, rules: &str) -> Result<(), NetworkError> {
        self.on_router(&["nft", "-f", "-"], rules)
    }

    fn on_router(&self, command: &[&str], input: &str) -> Result<(), NetworkError> {
        run(&[&["ip", "netns", "exec", &self.router()], command].concat(), input)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // A network that was only half made has only some of the names.
        for name in names().filter(|name| name.starts_with(&self.prefix)) {
            remove(&name);
        }
    }
}

/// Whether this user and machine can have a network at all.
fn check() -> Result<(), NetworkError> {
    if !Uid::effective().is_root() {
        return Err(NetworkError::Missing("not root".into()));
    }
    for (program, version) in [("ip", "-V"), ("nft", "-v")] {
        let there = Command::new(program).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !there.is_ok_and(|status| status.success()) {
            return Err(NetworkError::Missing(format!("`{program}` is not installed")));
        }
    }
    Ok(())
}

/// Removes what processes left that were killed.
fn sweep() {
    for name in names() {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse().ok());
        if owner.is_some_and(|owner| kill(Pid::from_raw(owner), None) == Err(Errno::ESRCH)) {
            remove(&name);
        }
    }
}

fn remove(name: &str) {
    // Another process may sweep at the same time.
    if let Err(error) = run(&["ip", "netns", "del", name], "") {
        tracing::debug!(%error, "a namespace was not removed");
    }
}

/// The names of all namespaces.
fn names() -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(NAMES).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

/// The router's address on a node's cable.
fn gate(place: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 77, third(place), 1))
}

fn third(place: usize) -> u8 {
    u8::try_from(place + 1).expect("a network has at most 255 nodes")
}

/// Runs a program to its end with something to read.
fn run(command: &[&str], input: &str) -> Result<(), NetworkError> {
    let failed = |why: String| NetworkError::Failed { command: command.join(" "), why };
    let io = |error: std::io::Error| failed(error.to_string());
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io)?;
    // One that does not read has failed already, and says why below.
    let _ = child.stdin.take().expect("it is a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().map_err(io)?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// What packets between nodes meet. Those of the router itself take other hooks.
const RULES: &str = "
table inet tenure {
    set cut { type ipv4_addr . ipv4_addr; }
    chain loss { }
    chain forward {
        type filter hook forward priority 0; policy accept;
        ip saddr . ip daddr @cut drop
        jump loss
    }
}
";

/// What the names of all networks begin with; the number of the owner follows.
const PREFIX: &str = "tenure-";

/// Where the system keeps the names.
const NAMES: &str = "/run/netns";

/// How many networks this process has made.
static NETWORKS: AtomicU32 = AtomicU32::new(0);
