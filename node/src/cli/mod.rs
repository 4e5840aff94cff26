//! The command line: one binary, one frame for every verb.
//!
//! A verb is a module with `Args` and `async fn run(args, &Frame) -> Result<Exit, Diagnostic>`. The frame gives it the
//! cluster and the output; what it returns becomes the exit code.
//!
//! # Invariants
//!
//! * Exit codes are those of [`exit::EXIT_CODES`] and of nothing else.
//! * A verb never prints an error itself: it returns a [`Diagnostic`], rendered here once.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};

pub mod context;
pub mod exit;
mod fence;
mod guardian;
pub mod http;
mod item;
mod kv;
mod log;
mod members;
mod node;
pub mod output;
pub(crate) mod pages;
pub mod parent;
mod patient;
mod rights;
mod roster;
mod session;
mod status;
mod submit;
mod task;
mod under;

pub use exit::Exit;
pub use http::{Cluster, Request};
pub(crate) use item::WORD_MAX;
pub use output::{Format, Output, Paint};
pub use patient::Patient;

pub use crate::diagnostic::{Code, Diagnostic};
pub(crate) use crate::parse;

/// Identical nodes that elect a master, run tasks exactly as often as asked, and lose nothing they acknowledged.
#[derive(Debug, Parser)]
#[command(
    name = "tenure",
    version,
    about,
    propagate_version = true,
    disable_help_subcommand = true,
    max_term_width = 110
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// Flags that every verb understands.
#[derive(Debug, clap::Args)]
struct Global {
    /// Form of the result
    #[arg(short = 'o', long = "output", global = true, value_enum, default_value = "table", value_name = "FORM")]
    format: Format,
    /// HTTP address of a node; several with commas [env: TENURE_NODES] [default: the dev or demo that was started last and still runs]
    #[arg(long = "node", global = true, value_name = "ADDR[,ADDR]")]
    nodes: Vec<String>,
    /// Give up on an answer after this long [default: 10s; longer where a verb waits for something]
    #[arg(long, global = true, value_parser = parse::duration, value_name = "TIME")]
    timeout: Option<Duration>,
    /// When to use colour
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "WHEN")]
    color: output::Color,
    /// Print ASCII only
    #[arg(long, global = true)]
    ascii: bool,
    /// No notes and no progress
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// A real job on a real cluster whose master is killed and paused on purpose
    Demo(crate::demo::Args),
    /// A cluster on this machine that stays until Ctrl-C
    Dev(crate::dev::Args),
    /// Run a command for every input line, spread over the cluster
    Map(crate::map::Args),
    /// Run a node, or give and take votes
    Node(node::Args),
    /// Who is master; hand mastership over
    #[command(subcommand)]
    Master(roster::MasterVerb),
    /// Figures, each with its target
    Bench(crate::bench::Args),
    /// Who is master, how far the log is; exits with 4 if the node that answers knows no master at work
    Status(status::Args),
    /// The nodes, and how this node sees them
    Members(members::Args),
    /// Record a task
    Submit(submit::Args),
    /// Look at tasks, wait for them, cancel them
    #[command(subcommand)]
    Task(task::Verb),
    /// Read and write keys
    #[command(subcommand)]
    Kv(kv::Verb),
    /// Files that refuse a holder who was replaced
    #[command(subcommand)]
    Fence(fence::Verb),
    /// The sessions of clients; run a command with one; end one
    #[command(subcommand)]
    Session(session::Verb),
    /// Run a command while holding a lock
    Lock(rights::LockArgs),
    /// Run a command while leading
    Elect(rights::ElectArgs),
    /// Run a command while holding permits of a semaphore
    Sem(rights::SemArgs),
    /// Run a command until it has succeeded once in the whole cluster
    Once(rights::OnceArgs),
    /// Wait until so many wait
    Barrier(rights::BarrierArgs),
    /// Be in a group; see who is
    #[command(subcommand)]
    Group(rights::GroupVerb),
    /// Add items to a queue; take them
    #[command(subcommand)]
    Queue(rights::QueueVerb),
    /// Who holds which right, and who waits
    #[command(subcommand)]
    Right(rights::RightVerb),
    /// Numbers that everybody adds to
    #[command(subcommand)]
    Counter(rights::CounterVerb),
    /// Print a completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Help about verbs, and about `exit-codes`
    Help {
        /// A verb, or `exit-codes`
        topic: Vec<String>,
    },
    /// Run a command that ends with its parent (used by `exec` tasks)
    #[command(name = parent::VERB, hide = true)]
    Parented(parent::Args),
    /// Guard a command, and all that it starts (used by `lock` and its kin)
    #[command(name = guardian::VERB, hide = true)]
    Guardian(guardian::Args),
    /// Hold a session and a lock until it is killed (used by `bench`)
    #[command(name = crate::bench::primitives::VERB, hide = true)]
    Hold(crate::bench::primitives::Holder),
}

/// What a verb works with.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Where to print.
    pub output: Output,
    /// The `--timeout`, if one was given.
    pub timeout: Option<Duration>,
    nodes: Vec<String>,
}

impl Frame {
    /// The cluster to ask. Requests give up after `--timeout`, or ten seconds.
    ///
    /// # Errors
    ///
    /// If a context file is there and cannot be used.
    pub fn cluster(&self) -> Result<Cluster, Diagnostic> {
        let cluster = Cluster::find(&self.nodes)?;
        Ok(match self.timeout {
            Some(timeout) => cluster.timeout(timeout),
            None => cluster,
        })
    }

    /// Whether `--node` was given.
    #[must_use]
    pub fn names_nodes(&self) -> bool {
        !self.nodes.is_empty()
    }
}

/// Runs the binary: reads the arguments, carries out the verb, answers with its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let error = with_tip(error, std::env::args_os().skip(1));
            // clap prints usage errors to stderr and asked-for help to stdout, with its own exit codes 2 and 0.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let Global { format, nodes, timeout, color, ascii, quiet } = cli.global;
    let frame = Frame { output: Output::new(format, color, ascii, quiet), timeout, nodes };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            frame.output.error(&Diagnostic::new(Code::Internal, format!("cannot start a runtime: {error}")));
            return Exit::FAILED.into();
        }
    };
    let result = runtime.block_on(run(cli.verb, &frame));
    // A handler that ignores its cancellation must not keep the process alive.
    runtime.shutdown_background();
    match result {
        Ok(exit) => exit.into(),
        Err(diagnostic) => {
            frame.output.error(&diagnostic);
            Exit::from(diagnostic.code).into()
        }
    }
}

/// Says so where a value was given after a space to a flag whose value may be missing: such a flag takes it after `=` only.
fn with_tip(mut error: clap::Error, words: impl Iterator<Item = OsString>) -> clap::Error {
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    let words: Vec<String> = words.map_while(|word| word.into_string().ok()).take_while(|word| word != "--").collect();
    let mut verb = &Cli::command();
    for word in &words {
        verb = verb.find_subcommand(word).unwrap_or(verb);
    }
    let takes_value = |word: &str| {
        let name = word.strip_prefix("--");
        verb.get_arguments().any(|flag| flag.is_require_equals_set() && name.is_some() && flag.get_long() == name)
    };
    let apart = words.windows(2).find(|pair| takes_value(&pair[0]) && !pair[1].starts_with('-'));
    if let Some([flag, value]) = apart {
        let tip = format!("to give '{flag}' a value, write '{flag}={value}'").into();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
    error
}

async fn run(verb: Verb, frame: &Frame) -> Result<Exit, Diagnostic> {
    match verb {
        Verb::Bench(args) => crate::bench::run(args, frame).await,
        Verb::Demo(args) => crate::demo::run(args, frame).await,
        Verb::Dev(args) => crate::dev::run(args, frame).await,
        Verb::Map(args) => crate::map::run(args, frame).await,
        Verb::Node(args) => node::run(args, frame).await,
        Verb::Master(verb) => roster::master(verb, frame).await,
        Verb::Status(args) => status::run(args, frame).await,
        Verb::Members(args) => members::run(args, frame).await,
        Verb::Submit(args) => submit::run(args, frame).await,
        Verb::Task(verb) => task::run(verb, frame).await,
        Verb::Kv(verb) => kv::run(verb, frame).await,
        Verb::Fence(verb) => fence::run(verb, frame),
        Verb::Session(verb) => session::run(verb, frame).await,
        Verb::Lock(args) => rights::lock(args, frame).await,
        Verb::Elect(args) => rights::elect(args, frame).await,
        Verb::Sem(args) => rights::sem(args, frame).await,
        Verb::Once(args) => rights::once(args, frame).await,
        Verb::Barrier(args) => rights::barrier(args, frame).await,
        Verb::Group(verb) => rights::group(verb, frame).await,
        Verb::Queue(verb) => rights::queue(verb, frame).await,
        Verb::Right(verb) => rights::right(verb, frame).await,
        Verb::Counter(verb) => rights::counter(verb, frame).await,
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tenure", &mut script);
            frame.output.bytes(&script);
            Ok(Exit::OK)
        }
        Verb::Help { topic } => help(&topic, frame),
        Verb::Parented(args) => parent::run(args),
        Verb::Guardian(args) => guardian::run(&args),
        Verb::Hold(args) => crate::bench::primitives::hold(args).await,
    }
}

fn help(topic: &[String], frame: &Frame) -> Result<Exit, Diagnostic> {
    if topic == ["exit-codes"] {
        frame.output.bytes(exit::EXIT_CODES.as_bytes());
        return Ok(Exit::OK);
    }
    let mut command = Cli::command();
    command.build();
    for name in topic {
        command = command.find_subcommand(name).cloned().ok_or_else(|| {
            Diagnostic::new(Code::Usage, format!("no verb `{name}`"))
                .hint("`tenure help` lists them; there is also `tenure help exit-codes`")
        })?;
    }
    frame.output.line(command.render_help().to_string().trim_end());
    Ok(Exit::OK)
}
