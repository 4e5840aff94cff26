//! A cluster to be hurt, and the file that knows how often work was done.

mod clients;
mod ledger;
mod lockers;
pub mod sockets;
mod submitters;
mod writer;

use std::future::Future;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tenure::cli::{Cluster, Diagnostic, Patient, Request};
use tenure::processes::{Processes, Settings};

pub use clients::Clients;
pub use ledger::Ledger;
pub use lockers::Lockers;
pub use submitters::Submitters;
pub use writer::Writer;

/// Three nodes, stopped and removed on drop.
pub struct TestCluster {
    pub processes: Processes,
    pub client: Patient,
    runtime: tokio::runtime::Runtime,
    // Last, so that the next test's cluster starts when this one is gone.
    _turn: Turn,
}

/// The right to run processes: one test at a time.
pub struct Turn(#[allow(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);

impl Turn {
    /// Waits for it.
    pub fn take() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        // A test that failed leaves nothing that the next one could trip over.
        Self(TURN.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl TestCluster {
    /// Starts three nodes with one slot each and waits until they are ready.
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// The same with other settings.
    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let turn = Turn::take();
        let mut settings = Settings::new("test", 3).expect("the test's program has a path");
        settings.program = BINARY.into();
        settings.allow_exec = true;
        change(&mut settings);
        let runtime = runtime();
        let processes =
            runtime.block_on(Processes::start(settings, PATIENCE)).unwrap_or_else(|error| panic!("{error:#?}"));
        let client = Patient::new(Cluster::new(processes.https()), PATIENCE);
        Self { processes, client, runtime, _turn: turn }
    }

    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Does something meanwhile.
    pub fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.runtime.spawn(future)
    }

    /// An empty ledger in the cluster's folder.
    pub fn ledger(&self, name: &str) -> Ledger {
        Ledger::new(self.processes.folder().join(name))
    }

    /// Records a task once, whatever happens to the request.
    pub fn submit(&self, mut task: Value) -> String {
        task["once_key"] = format!("test-{:032x}", rand::random::<u128>()).into();
        let answer =
            self.wait(self.client.post("/v1/tasks:batch", &json!({ "tasks": [task] }))).expect("it is recorded");
        answer["tasks"][0]["id"].as_str().expect("a task has an id").to_owned()
    }

    /// Records a task that runs a shell script.
    pub fn submit_script(&self, script: &str) -> String {
        self.submit(
            json!({ "kind": "exec", "payload": { "command": ["sh", "-c", script] }, "retries": 3, "backoff_ms": 50 }),
        )
    }

    pub fn task(&self, id: &str) -> Value {
        self.wait(self.client.get(&format!("/v1/tasks/{id}"))).expect("the task is known")
    }

    /// The task when it has ended.
    pub fn ended(&self, id: &str) -> Value {
        self.wait(self.client.ended(id)).expect("the task ends")
    }

    /// How often this happened to a task.
    pub fn count(&self, id: &str, event: &str) -> usize {
        let task = self.task(id);
        task["history"].as_array().expect("a task has a history").iter().filter(|line| line["event"] == event).count()
    }

    /// The place of the node that runs a task, as soon as one does.
    pub fn worker_of(&self, id: &str) -> usize {
        let mut place = None;
        self.until("the task runs", || {
            let task = self.task(id);
            place = (0..self.processes.len()).find(|place| {
                let status = self.status(*place);
                status.is_some_and(|status| task["state"] == "assigned" && status["node"] == task["node"])
            });
            place.is_some()
        });
        place.expect("waited for it")
    }

    /// What exactly this node says of itself, if it answers soon.
    pub fn status(&self, place: usize) -> Option<Value> {
        self.wait(self.processes.get(place, "/v1/status"))
    }

    /// What exactly this node says of itself, when it answers.
    pub fn answer(&self, place: usize) -> Value {
        let mut status = None;
        self.until("it answers", || {
            status = self.status(place);
            status.is_some()
        });
        status.expect("waited for it")
    }

    /// The place of the master at work with an epoch greater than `epoch`, and its epoch.
    pub fn master_after(&self, epoch: u64) -> (usize, u64) {
        let mut found = None;
        self.until("there is a master", || {
            found = (0..self.processes.len()).find_map(|place| {
                let status = self.status(place)?;
                let leads = status["role"] == "leader" && status["master_is_fresh"] == true;
                let at = status["epoch"].as_u64()?;
                (leads && at > epoch).then_some((place, at))
            });
            found.is_some()
        });
        found.expect("waited for it")
    }

    /// Whether this node says that it is ready.
    pub fn is_ready(&self, place: usize) -> bool {
        self.wait(self.processes.is_ready(place))
    }

    /// Waits until all nodes that run are ready.
    pub fn ready(&mut self) {
        self.runtime.block_on(self.processes.ready(PATIENCE)).unwrap_or_else(|error| panic!("{error:#?}"));
    }

    /// Waits until something is so.
    pub fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Writes a key; an error says whether it may have been done.
    pub fn put(&self, key: &str, value: &str) -> Result<(), Diagnostic> {
        self.wait(self.http().send(put(key, value))).map(drop)
    }

    /// Writes through this node: a frozen one would leave the caller in doubt.
    pub fn put_at(&self, place: usize, key: &str, value: &str) -> Result<(), Diagnostic> {
        let cluster = Cluster::new(vec![self.processes.https()[place].clone()]).timeout(PATIENCE);
        self.wait(cluster.send(put(key, value))).map(drop)
    }

    pub fn get(&self, key: &str) -> Option<String> {
        let cluster = self.http().timeout(PATIENCE).patient();
        match self.wait(cluster.send(Request::get(format!("/v1/kv/{key}")))) {
            Ok(reply) => Some(String::from_utf8(reply.body.to_vec()).expect("only text is written")),
            Err(error) if error.code.exit() == 5 => None,
            Err(error) => panic!("{key} is not readable: {error:?}"),
        }
    }

    /// A client of the library, over the links.
    pub fn library(&self) -> tenure::Client {
        let links = self.processes.links().into_iter().map(|link| link.to_string());
        self.wait(tenure::Client::connect("test", links)).expect("the addresses make sense").timeout(PATIENCE)
    }

    /// So many clients over HTTP, each of which asks another node first.
    pub fn spread(&self, count: usize) -> impl Iterator<Item = Cluster> {
        let nodes = self.processes.https();
        (0..count).map(move |client| {
            let mut nodes = nodes.clone();
            let len = nodes.len();
            nodes.rotate_left(client % len);
            Cluster::new(nodes)
        })
    }

    pub fn http(&self) -> Cluster {
        Cluster::new(self.processes.https())
    }

    /// The last lines of all nodes, for the message of a test that fails.
    fn logs(&self) -> String {
        let mut text = String::new();
        for place in 0..self.processes.len() {
            let log = std::fs::read_to_string(self.processes.log(place)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            text.push_str(&format!(
                "---- {}\n{}\n",
                self.processes.label(place),
                lines[lines.len().saturating_sub(25)..].join("\n")
            ));
        }
        text
    }
}

pub fn put(key: &str, value: &str) -> Request {
    Request::new(axum::http::Method::PUT, format!("/v1/kv/{key}")).bytes(value.to_owned())
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// A process of the binary that does not outlive a test that fails.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Starts `tenure dev` and waits until whoever has this context finds it.
    pub fn dev(args: &[&str], context: &Path) -> Self {
        let dev = command(&[&["dev"], args].concat(), context).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let dev = Self(dev.expect("the binary is there"));
        let begin = Instant::now();
        while !has_context(context) {
            assert!(begin.elapsed() < PATIENCE, "it does not become ready");
            std::thread::sleep(Duration::from_millis(10));
        }
        dev
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).expect("process numbers are small"))
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it runs");
    }

    /// Waits for its end; the exit code, if no signal ended it.
    pub fn code(&mut self) -> Option<i32> {
        self.0.wait().expect("it ends").code()
    }
}

/// Whether a cluster of this machine is named in a context folder.
pub fn has_context(folder: &Path) -> bool {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.map(|file| file.file_name()).any(|name| {
        let name = name.to_string_lossy();
        name.starts_with("context-") && name.ends_with(".json")
    })
}

/// Runs the binary to its end, with a context folder of its own.
pub fn tenure(args: &[&str], context: &Path) -> Output {
    command(args, context).output().expect("the binary is there")
}

/// The binary, with nothing of the machine's own settings.
pub fn command(args: &[&str], context: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.args(args).env("TENURE_CONTEXT", context).env("NO_COLOR", "1").env_remove("TENURE_NODES");
    command
}

pub const BINARY: &str = env!("CARGO_BIN_EXE_tenure");

/// What takes a second on an idle machine may take this long on a busy one.
pub const PATIENCE: Duration = Duration::from_secs(60);
