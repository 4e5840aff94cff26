//! `tenure node`: runs one node until it is told to stop. The verbs under it are in [`roster`](super::roster).

use std::path::PathBuf;
use std::time::Duration;

use protocol::effects::Role;
use protocol::replica::Compaction;
use protocol::{ClusterId, Profile};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::roster::NodeVerb;
use super::{Code, Diagnostic, Exit, Frame, parse};
use crate::builder::SNAPSHOT_EVERY_MIN;
use crate::node::Node;

/// A verb of `node`, or the flags of a node to run.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Option<NodeVerb>,
    #[command(flatten)]
    start: StartArgs,
}

/// Flags of a node to run.
#[derive(Debug, clap::Args)]
struct StartArgs {
    /// The cluster's name, the same on every node
    #[arg(long, env = "TENURE_CLUSTER", default_value = "tenure")]
    cluster: String,
    /// Where this node remembers
    #[arg(long, env = "TENURE_DATA", default_value = "tenure-data", value_name = "FOLDER")]
    data: PathBuf,
    /// Remember nothing: after a restart this is another node
    #[arg(long, env = "TENURE_EPHEMERAL")]
    ephemeral: bool,
    /// Where other nodes reach this one, over TCP and UDP
    #[arg(long, env = "TENURE_LISTEN", default_value = "127.0.0.1:7400", value_name = "ADDR")]
    listen: String,
    /// Where this node serves HTTP
    #[arg(long, env = "TENURE_HTTP", default_value = super::http::DEFAULT_NODE, value_name = "ADDR")]
    http: String,
    /// The addresses of the first nodes, the same list on every node; without it, a cluster of one
    #[arg(long, env = "TENURE_JOIN", value_delimiter = ',', value_name = "ADDR,ADDR,…")]
    join: Vec<String>,
    /// How many of them vote; only read when the cluster is founded
    #[arg(long, env = "TENURE_VOTERS", value_parser = clap::value_parser!(u8).range(1..=7))]
    voters: Option<u8>,
    /// A word about this node that tasks may ask for; `name=` is its name for people
    #[arg(long, env = "TENURE_LABEL", value_delimiter = ',', value_parser = parse::label, value_name = "KEY=VALUE")]
    label: Vec<(String, String)>,
    /// How many tasks may run here at once [default: one per processor]
    #[arg(long, env = "TENURE_SLOTS", value_parser = clap::value_parser!(u32).range(0..=4096))]
    slots: Option<u32>,
    /// All timers, the same on every node
    #[arg(long, env = "TENURE_PROFILE", value_enum, default_value = "lan")]
    profile: ProfileName,
    /// Run commands as tasks of kind `exec`: whoever can submit a task can then run anything here
    #[arg(long, env = "TENURE_ALLOW_EXEC")]
    allow_exec: bool,
    /// Allow addresses outside this machine although nothing is encrypted yet
    #[arg(long, env = "TENURE_INSECURE")]
    insecure: bool,
    /// How long a voter may be silent before another member takes its place
    #[arg(long, env = "TENURE_REPLACE_AFTER", value_parser = parse::duration, default_value = "5m", value_name = "TIME")]
    replace_after: Duration,
    /// Write a snapshot and forget the log behind it after so many entries
    #[arg(
        long,
        env = "TENURE_SNAPSHOT_EVERY",
        value_parser = clap::value_parser!(u64).range(SNAPSHOT_EVERY_MIN..),
        default_value_t = Compaction::default().entries,
        value_name = "ENTRIES"
    )]
    snapshot_every: u64,
    /// How long to wait for running tasks when told to stop
    #[arg(long, env = "TENURE_DRAIN", value_parser = parse::duration, default_value = "30s", value_name = "TIME")]
    drain: Duration,
    /// How log lines look
    #[arg(long, env = "TENURE_LOG_FORMAT", value_enum, default_value = "pretty")]
    log_format: super::log::Format,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ProfileName {
    /// For trials on one machine
    Dev,
    /// One data centre
    Lan,
    /// Several data centres
    Wan,
}

pub(super) async fn run(args: Args, frame: &Frame) -> Result<Exit, Diagnostic> {
    match args.verb {
        Some(verb) => super::roster::node(verb, frame).await,
        None => start(args.start, frame).await,
    }
}

async fn start(args: StartArgs, frame: &Frame) -> Result<Exit, Diagnostic> {
    super::log::start(args.log_format, &frame.output)?;
    crate::http::metrics::install();
    let drain = args.drain;
    // From here on a signal is a wish, not an end.
    let mut signals = Signals::new()?;
    let start = builder(args).start();
    let node = tokio::select! {
        node = start => node.map_err(|error| error.diagnostic().clone())?,
        exit = signals.next() => return Ok(exit),
    };
    let http = node.http_address().map(|address| address.to_string()).unwrap_or_default();
    tracing::info!(node = %node.id(), run = node.incarnation().0, listen = %node.address(), http, "started as {}", node.name());
    let fatal = node.fatal();
    tokio::pin!(fatal);
    let exit = tokio::select! {
        why = &mut fatal => Err(why),
        exit = signals.next() => Ok(exit),
        () = node.removed() => {
            tracing::warn!("an operator removed this node from the cluster: it stops; `tenure node demote` lets it back in as a member");
            Ok(Exit::OK)
        }
        () = async { report_ready(&node).await; std::future::pending().await } => unreachable!("it never ends"),
    };
    let exit = match exit {
        Ok(_) => Exit::OK,
        Err(why) => {
            // What it promised to remember may be in doubt: it stops at once, without a word to anybody.
            let status = node.status().await;
            let is_lost = status.is_some_and(|status| status.cluster == ClusterId::NONE && status.role != Role::Halted);
            frame.output.error(&obituary(&why, is_lost));
            return Ok(Exit::FAILED);
        }
    };
    tracing::info!(
        drain_s = drain.as_secs_f64(),
        "stops: no more work, waits for what runs; once more to stop at once"
    );
    tokio::select! {
        () = node.shutdown(drain) => tracing::info!("stopped"),
        exit = signals.next() => return Ok(exit),
    }
    Ok(exit)
}

/// Why a node stopped by itself.
fn obituary(why: &str, is_lost: bool) -> Diagnostic {
    if is_lost {
        return Diagnostic::new(Code::WrongCluster, format!("this node is in no cluster, and had to stop: {why}"))
            .hint("--cluster, --join and --voters must be the same on every node");
    }
    Diagnostic::new(Code::Fatal, format!("this node had to stop: {why}"))
        .hint("nothing that was acknowledged is lost while a majority of the voters is left")
}

/// The last line of a good start.
async fn report_ready(node: &Node) {
    node.ready().await;
    if let Some(status) = node.status().await {
        let master = status.leader.map(|master| {
            let members = node.members().snapshot();
            crate::site::Identity::name_of(&members, master)
        });
        tracing::info!(
            epoch = status.epoch.0,
            master = master.unwrap_or_default(),
            voters = status.voters.len(),
            "ready"
        );
    }
}

fn builder(args: StartArgs) -> crate::Builder {
    let mut builder = Node::builder(args.cluster)
        .listen(args.listen)
        .http(args.http)
        .join(args.join)
        .replace_after(args.replace_after)
        .snapshot_every(args.snapshot_every)
        .profile(match args.profile {
            ProfileName::Dev => Profile::DEV,
            ProfileName::Lan => Profile::LAN,
            ProfileName::Wan => Profile::WAN,
        });
    builder = if args.ephemeral { builder.ephemeral() } else { builder.data_dir(args.data) };
    for (key, value) in args.label {
        builder = builder.label(key, value);
    }
    if let Some(voters) = args.voters {
        builder = builder.voters(voters);
    }
    if let Some(slots) = args.slots {
        builder = builder.slots(slots);
    }
    if args.allow_exec {
        builder = builder.allow_exec_wrapped();
    }
    if args.insecure {
        builder = builder.insecure();
    }
    builder
}

/// The signals that ask a process to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Diagnostic> {
        let listen = |kind| {
            signal(kind).map_err(|error| Diagnostic::new(Code::Internal, format!("cannot listen to signals: {error}")))
        };
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for one, and says how a process ends that does not heed it.
    async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::INTERRUPTED,
            _ = self.terminate.recv() => Exit::TERMINATED,
        }
    }
}
