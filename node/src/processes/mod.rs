//! A cluster of child processes: what `dev`, `demo`, `bench` and the tests stand on.
//!
//! One process is one node, so a cluster on one machine is this binary started N times. The processes are real: they can be
//! killed, stopped and continued, come back over their data, and end when this process ends, whatever ends it.
//!
//! # Invariants
//!
//! * No child outlives this process, not even after `kill -9`.
//! * A node that is started again has the address and the data folder it had before.
//! * Dropping a [`Processes`] kills every child and removes the folder, unless it was asked to stay.

mod child;
mod interrupt;
mod launcher;
mod netns;
mod probe;
mod table;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use child::Child;
pub(crate) use interrupt::interrupted;
pub use netns::{Network, NetworkError};
pub(crate) use table::table;

use crate::diagnostic::{Code, Diagnostic};
use crate::ports;

/// What cluster to start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The binary to start; by default the one that runs now.
    pub program: PathBuf,
    /// The cluster's name.
    pub cluster: String,
    /// How many nodes.
    pub nodes: usize,
    /// Task slots of each node.
    pub slots: u32,
    /// The timers' profile: `dev`, `lan` or `wan`.
    pub profile: String,
    /// Whether tasks may run commands.
    pub allow_exec: bool,
    /// Where the nodes keep data and logs; by default a temporary folder that is removed in the end.
    pub folder: Option<PathBuf>,
    /// More flags for every node.
    pub flags: Vec<String>,
    /// The network in which the nodes run, one namespace each, instead of the machine's loopback interface. They are
    /// reached only from inside of it ([`Network::inside`]).
    pub network: Option<Arc<Network>>,
}

/// Why a cluster did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The operating system refused.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        error: std::io::Error,
    },
    /// A node ended before it was ready.
    #[error("{label} ended before it was ready ({status})")]
    Ended {
        /// Which one.
        label: String,
        /// How.
        status: String,
        /// The last lines it printed.
        log: Vec<String>,
    },
    /// A node was not ready in time.
    #[error("{label} is not ready after {waited:?}")]
    NotReady {
        /// Which one.
        label: String,
        /// How long.
        waited: Duration,
        /// What it says itself, and the last lines it printed.
        log: Vec<String>,
    },
}

impl From<StartError> for Diagnostic {
    fn from(error: StartError) -> Self {
        let diagnostic = Self::new(Code::Fatal, error.to_string());
        match error {
            StartError::Io { .. } => diagnostic,
            StartError::Ended { log, .. } | StartError::NotReady { log, .. } => {
                log.into_iter().fold(diagnostic, Self::cause)
            }
        }
    }
}

/// A cluster of child processes.
#[derive(Debug)]
pub struct Processes {
    settings: Settings,
    nodes: Vec<Node>,
    folder: PathBuf,
    /// Removes the folder when it is dropped.
    temporary: Option<tempfile::TempDir>,
}

/// One node of it.
#[derive(Debug)]
struct Node {
    label: String,
    link: SocketAddr,
    http: SocketAddr,
    child: Option<Child>,
}

impl Settings {
    /// `nodes` nodes of this very binary, one slot each, the `lan` profile, a temporary folder, no commands.
    ///
    /// # Errors
    ///
    /// If the path of this binary is not known.
    pub fn new(cluster: impl Into<String>, nodes: usize) -> Result<Self, StartError> {
        let program = std::env::current_exe().map_err(io("find this program"))?;
        Ok(Self {
            program,
            cluster: cluster.into(),
            nodes,
            slots: 1,
            profile: "lan".into(),
            allow_exec: false,
            folder: None,
            flags: Vec::new(),
            network: None,
        })
    }
}

impl Processes {
    /// Starts all nodes and returns at once; [`Processes::ready`] waits for them.
    ///
    /// # Errors
    ///
    /// If no port is free, no folder can be made or no process started.
    pub fn spawn(settings: Settings) -> Result<Self, StartError> {
        let temporary = match settings.folder {
            Some(_) => None,
            None => Some(tempfile::Builder::new().prefix("tenure-").tempdir().map_err(io("make a temporary folder"))?),
        };
        let folder = match (&settings.folder, &temporary) {
            (Some(folder), _) => folder.clone(),
            (None, Some(temporary)) => temporary.path().to_owned(),
            (None, None) => unreachable!("one of the two was just made"),
        };
        std::fs::create_dir_all(&folder).map_err(io(format!("make {}", folder.display())))?;
        let addresses = match &settings.network {
            None => ports::free(settings.nodes * 2).map_err(io("find free ports"))?,
            Some(network) => {
                let places = (0..settings.nodes).map(|place| network.address(place));
                places.flat_map(|address| PORTS.map(|port| SocketAddr::new(address, port))).collect()
            }
        };
        let nodes = addresses
            .chunks_exact(2)
            .enumerate()
            .map(|(place, pair)| Node { label: format!("n{}", place + 1), link: pair[0], http: pair[1], child: None })
            .collect();
        let mut processes = Self { settings, nodes, folder, temporary };
        for place in 0..processes.nodes.len() {
            processes.restart(place)?;
        }
        Ok(processes)
    }

    /// Starts all nodes and waits until all are ready. If another program was faster to take a port, tries again.
    /// Dropping the future kills what was started.
    ///
    /// # Errors
    ///
    /// See [`Processes::spawn`] and [`Processes::ready`].
    pub async fn start(settings: Settings, patience: Duration) -> Result<Self, StartError> {
        let mut tries = 0;
        loop {
            let mut processes = Self::spawn(settings.clone())?;
            tries += 1;
            match processes.ready(patience).await {
                Ok(()) => return Ok(processes),
                Err(StartError::Ended { log, .. })
                    if tries < START_TRIES && log.iter().any(|line| line.contains("port-in-use")) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until every node that runs says that it is ready: it has joined, there is a master at work, and a quorum.
    ///
    /// # Errors
    ///
    /// If a node ends or takes longer than `patience`.
    pub async fn ready(&mut self, patience: Duration) -> Result<(), StartError> {
        let begin = Instant::now();
        for place in 0..self.nodes.len() {
            while self.nodes[place].child.is_some() && !self.is_ready(place).await {
                self.check_start(place, begin.elapsed(), patience).await?;
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    async fn check_start(&mut self, place: usize, waited: Duration, patience: Duration) -> Result<(), StartError> {
        let node = &mut self.nodes[place];
        let Some(child) = &mut node.child else { return Ok(()) };
        let label = node.label.clone();
        let mut log = child.last_lines(LINES_SHOWN);
        if let Some(status) = child.ended() {
            return Err(StartError::Ended { label, status: status.to_string(), log });
        }
        if waited > patience {
            if let Ok((_, text)) = probe::get(node.http, "/readyz?verbose", PROBE_TIMEOUT).await {
                log.extend(text.lines().take(LINES_SHOWN).map(str::to_owned));
            }
            return Err(StartError::NotReady { label, waited: patience, log });
        }
        Ok(())
    }

    /// Whether this node says that it is ready.
    pub async fn is_ready(&self, place: usize) -> bool {
        matches!(probe::get(self.nodes[place].http, "/readyz", PROBE_TIMEOUT).await, Ok((200, _)))
    }

    /// The body of `GET path` from exactly this node, if it answers well.
    pub async fn get(&self, place: usize, path: &str) -> Option<serde_json::Value> {
        ask(self.nodes[place].http, path).await
    }

    /// Starts a node (again), over the data it left.
    ///
    /// # Errors
    ///
    /// If the process cannot be started.
    pub fn restart(&mut self, place: usize) -> Result<(), StartError> {
        self.start_with(place, |_| {})
    }

    /// The same without a join list: it has nothing but its data to find the others.
    ///
    /// # Errors
    ///
    /// If the process cannot be started.
    pub fn restart_alone(&mut self, place: usize) -> Result<(), StartError> {
        self.start_with(place, |arguments| arguments.retain(|argument| !argument.starts_with("--join=")))
    }

    fn start_with(&mut self, place: usize, change: impl FnOnce(&mut Vec<String>)) -> Result<(), StartError> {
        self.kill(place);
        let mut args = self.arguments(place);
        change(&mut args);
        let log = self.log(place);
        let wrapper = self.settings.network.as_ref().map_or(Vec::new(), |network| network.wrapper(place));
        let child = Child::spawn(&self.settings.program, &wrapper, &args, &log)
            .map_err(io(format!("start {}", self.settings.program.display())))?;
        self.nodes[place].child = Some(child);
        Ok(())
    }

    /// `kill -9`, and waits until it has ended.
    pub fn kill(&mut self, place: usize) {
        self.nodes[place].child = None;
    }

    /// `kill -9` to all of them, before waiting for any.
    pub fn kill_all(&mut self) {
        for node in &mut self.nodes {
            if let Some(child) = &mut node.child {
                child.signal(Signal::SIGKILL);
            }
        }
        for node in &mut self.nodes {
            node.child = None;
        }
    }

    /// Asks all nodes to end by themselves, and waits until they have; kills what takes longer than `patience`. Says
    /// whether all of them ended well.
    pub async fn terminate(&mut self, patience: Duration) -> bool {
        for place in 0..self.nodes.len() {
            // A frozen process would hear of it only when it goes on.
            self.signal(place, Signal::SIGTERM);
            self.signal(place, Signal::SIGCONT);
        }
        let begin = Instant::now();
        while self.nodes.iter_mut().any(Node::is_alive) && begin.elapsed() < patience {
            tokio::time::sleep(POLL).await;
        }
        let is_well = |node: &mut Node| {
            node.child.as_mut().is_none_or(|child| child.ended().is_some_and(|status| status.success()))
        };
        let all_well = self.nodes.iter_mut().all(is_well);
        self.kill_all();
        all_well
    }

    /// Freezes a node in the middle of whatever it does.
    pub fn pause(&mut self, place: usize) {
        self.signal(place, Signal::SIGSTOP);
    }

    /// Lets a frozen node go on.
    pub fn resume(&mut self, place: usize) {
        self.signal(place, Signal::SIGCONT);
    }

    /// Asks one node to end by itself, and does not wait.
    pub fn ask_to_end(&mut self, place: usize) {
        self.signal(place, Signal::SIGTERM);
    }

    fn signal(&mut self, place: usize, signal: Signal) {
        if let Some(child) = &mut self.nodes[place].child {
            child.signal(signal);
        }
    }

    /// Whether its process runs (or is frozen).
    pub fn is_alive(&mut self, place: usize) -> bool {
        self.nodes[place].is_alive()
    }

    /// How a node ended that was not killed from here, and the last lines it printed.
    pub fn ended(&mut self, place: usize) -> Option<(String, Vec<String>)> {
        let child = self.nodes[place].child.as_mut()?;
        child.ended().map(|status| (status.to_string(), child.last_lines(LINES_SHOWN)))
    }

    /// Keeps the folder when all is over.
    pub fn keep_folder(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            self.folder = temporary.keep();
        }
    }

    /// How many nodes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A node's name for people.
    #[must_use]
    pub fn label(&self, place: usize) -> &str {
        &self.nodes[place].label
    }

    /// Its process number, if it runs.
    #[must_use]
    pub fn pid(&self, place: usize) -> Option<u32> {
        self.nodes[place].child.as_ref().map(Child::pid)
    }

    /// Where other nodes and clients of the library reach it.
    #[must_use]
    pub fn link(&self, place: usize) -> SocketAddr {
        self.nodes[place].link
    }

    /// Where it serves HTTP.
    #[must_use]
    pub fn http(&self, place: usize) -> SocketAddr {
        self.nodes[place].http
    }

    /// The HTTP addresses of all nodes.
    #[must_use]
    pub fn https(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.http.to_string()).collect()
    }

    /// The link addresses of all nodes.
    #[must_use]
    pub fn links(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.link).collect()
    }

    /// Whether the nodes run in namespaces of a network, and not on the loopback interface.
    #[must_use]
    pub fn is_on_network(&self) -> bool {
        self.settings.network.is_some()
    }

    /// Where data and logs lie.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file with everything a node printed, over all its runs.
    #[must_use]
    pub fn log(&self, place: usize) -> PathBuf {
        self.folder.join(format!("{}.log", self.nodes[place].label))
    }

    fn arguments(&self, place: usize) -> Vec<String> {
        let node = &self.nodes[place];
        let join: Vec<_> = self.nodes.iter().map(|node| node.link.to_string()).collect();
        let data = self.folder.join(&node.label).display().to_string();
        let mut args: Vec<String> =
            ["node", "--cluster", &self.settings.cluster, "--data", &data].map(String::from).into();
        args.extend(["--listen".into(), node.link.to_string(), "--http".into(), node.http.to_string()]);
        // A single node has nobody to join.
        args.extend((join.len() > 1).then(|| format!("--join={}", join.join(","))));
        args.extend(["--label".into(), format!("name={}", node.label)]);
        args.extend(["--slots".into(), self.settings.slots.to_string()]);
        args.extend(["--profile".into(), self.settings.profile.clone()]);
        args.extend(self.settings.allow_exec.then(|| "--allow-exec".into()));
        args.extend(self.settings.network.is_some().then(|| "--insecure".into()));
        args.extend(self.settings.flags.iter().cloned());
        args
    }
}

impl Node {
    fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.ended().is_none())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // All at once: the last one would otherwise elect itself a master while its peers are taken away.
        self.kill_all();
    }
}

/// The body of `GET path` from exactly this address, if it answers well.
pub async fn ask(http: SocketAddr, path: &str) -> Option<serde_json::Value> {
    match probe::get(http, path, PROBE_TIMEOUT).await {
        Ok((200, body)) => serde_json::from_str(&body).ok(),
        _ => None,
    }
}

/// Says what failed beside why.
fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> StartError {
    let what = what.into();
    move |error| StartError::Io { what: format!("cannot {what}"), error }
}

/// Between two looks at a process: short beside everything it can be waited for.
const POLL: Duration = Duration::from_millis(10);

/// For links and HTTP, where a node has a namespace to itself.
const PORTS: [u16; 2] = [7400, 8400];

/// How often a cluster is started before a port in use is an error.
const START_TRIES: u32 = 3;

/// Of a log, in an error.
const LINES_SHOWN: usize = 8;

/// How long one question to a node may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
