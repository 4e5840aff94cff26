//! `tenure lock`, `elect`, `sem`, `once`, `barrier`, `group`, `queue`, `counter`: rights for scripts.
//!
//! A command that runs under a right has its fence in `TENURE_FENCE`, and is stopped before the right ends.

use std::ffi::OsString;
use std::time::Duration;

use axum::http::Method;
use protocol::client::Guarding;
use protocol::state::{RightId, RightKind};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::guardian::Variable;
use super::http::escape;
use super::item::Item;
use super::status::word;
use super::under::{Keeper, supervise};
use super::{Cluster, Code, Diagnostic, Exit, Format, Frame, Request, pages, parse};
use crate::http::SCHEMA;

/// How the session behind a right is kept, and the command that runs under it.
#[derive(Debug, clap::Args)]
pub(super) struct Under {
    /// The session, and the right with it, ends when nothing is heard of this process for so long [default: 6s; 30s with the profile `wan`]
    #[arg(long, value_parser = parse::duration, value_name = "TIME")]
    ttl: Option<Duration>,
    /// How long the command has between SIGTERM and SIGKILL when the right is about to be lost, at most a third of the TTL less 100ms
    /// [default: a sixth of the TTL, at most 1s]
    #[arg(long, value_parser = parse::duration, value_name = "TIME")]
    grace: Option<Duration>,
    /// The command
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(super) command: Vec<OsString>,
}

impl Under {
    /// Opens the session; says how long the command has between SIGTERM and SIGKILL.
    pub(super) async fn open(&self, cluster: &Cluster, label: &str) -> Result<(Keeper, Duration), Diagnostic> {
        let keeper = Keeper::open(cluster, self.ttl, label).await?;
        match grace_within(self.grace, keeper.ttl()) {
            Ok(grace) => Ok((keeper, grace)),
            Err(error) => {
                keeper.close().await;
                Err(error)
            }
        }
    }
}

/// How long a command has to end, of what was asked for. A session that is renewed in time has more than half of its time left, always. The
/// command is told to end its grace and a margin before the end, and must not be told so because a renewal is a little late.
fn grace_within(asked: Option<Duration>, ttl: Duration) -> Result<Duration, Diagnostic> {
    let margin = Guarding::COMMAND.margin;
    let most = (ttl / 3).saturating_sub(margin);
    let grace = asked.unwrap_or((ttl / 6).min(GRACE).min(most));
    if most.is_zero() {
        let why = format!("a session of {ttl:?} is too short for a command: it could not be told to end before that");
        return Err(Diagnostic::new(Code::Usage, why).hint("take --ttl=1s or more"));
    }
    if grace > most {
        let why = format!("a session of {ttl:?} is too short for a command that has {grace:?} to end");
        let enough = grace.saturating_add(margin).saturating_mul(3);
        let hint = format!("give it at most --grace={}ms, or take --ttl={enough:?} or more", most.as_millis());
        return Err(Diagnostic::new(Code::Usage, why).hint(hint));
    }
    Ok(grace)
}

/// `tenure lock NAME -- CMD`
#[derive(Debug, clap::Args)]
pub(super) struct LockArgs {
    /// The lock
    #[arg(value_parser = parse::name)]
    name: String,
    /// Stand in line; for so long if a time is given (as --wait=5s). While no quorum answers, --timeout goes on top of that
    #[arg(long, num_args = 0..=1, default_missing_value = "24000h", require_equals = true, value_parser = parse::duration, value_name = "TIME")]
    wait: Option<Duration>,
    /// Together with other readers
    #[arg(long)]
    shared: bool,
    #[command(flatten)]
    under: Under,
}

/// `tenure elect NAME -- CMD`
#[derive(Debug, clap::Args)]
pub(super) struct ElectArgs {
    /// The election
    #[arg(value_parser = parse::name)]
    name: String,
    /// What is shown to whoever observes; this machine's process unless told otherwise
    #[arg(long)]
    value: Option<String>,
    #[command(flatten)]
    under: Under,
}

/// `tenure sem NAME LIMIT -- CMD`
#[derive(Debug, clap::Args)]
pub(super) struct SemArgs {
    /// The semaphore
    #[arg(value_parser = parse::name)]
    name: String,
    /// How many permits there are in all
    limit: u32,
    /// How many of them to take
    #[arg(short = 'n', long, default_value_t = 1)]
    count: u32,
    #[command(flatten)]
    under: Under,
}

/// `tenure once KEY -- CMD`
#[derive(Debug, clap::Args)]
pub(super) struct OnceArgs {
    /// What is to be done once
    #[arg(value_parser = parse::name)]
    key: String,
    #[command(flatten)]
    under: Under,
}

/// `tenure barrier NAME PARTIES`
#[derive(Debug, clap::Args)]
pub(super) struct BarrierArgs {
    /// The barrier
    #[arg(value_parser = parse::name)]
    name: String,
    /// How many it waits for
    parties: u32,
}

/// The verbs under `group`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum GroupVerb {
    /// Be in a group while a command runs
    Join {
        /// The group
        #[arg(value_parser = parse::name)]
        name: String,
        /// What is shown to whoever looks
        #[arg(long, default_value = "")]
        value: String,
        #[command(flatten)]
        under: Under,
    },
    /// Who is in it
    #[command(alias = "list")]
    Ls {
        /// The group
        #[arg(value_parser = parse::name)]
        name: String,
    },
}

/// The verbs under `queue`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum QueueVerb {
    /// Add an item
    Push {
        /// The queue
        #[arg(value_parser = parse::name)]
        name: String,
        /// The item
        value: String,
        /// Higher goes first
        #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
        priority: i32,
    },
    /// Run a command for the first item, which is in the file TENURE_ITEM_FILE, and in TENURE_ITEM unless it holds NUL or is longer than 128
    /// KiB; the item is gone if the command exits with 0, and back in its place if not
    Pop {
        /// The queue
        #[arg(value_parser = parse::name)]
        name: String,
        #[command(flatten)]
        under: Under,
    },
}

/// The verbs under `right`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum RightVerb {
    /// The rights that are in use: locks, elections, semaphores, groups, barriers, once, queues
    #[command(alias = "list")]
    Ls {
        /// Only those of this kind
        kind: Option<RightKind>,
        /// Only those after this one, such as `lock stock`
        #[arg(long, value_name = "RIGHT")]
        after: Option<RightId>,
        /// At most this many
        #[arg(long, default_value_t = u32::MAX)]
        limit: u32,
    },
    /// Who holds a right
    #[command(alias = "get")]
    Show {
        /// The kind
        kind: RightKind,
        /// Its name
        #[arg(value_parser = parse::name)]
        name: String,
    },
}

/// The verbs under `counter`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum CounterVerb {
    /// Add to a counter, and print the sum
    Add {
        /// The counter
        #[arg(value_parser = parse::name)]
        name: String,
        /// How much
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        by: i64,
        /// Adds nothing if this key was used within the hour
        #[arg(long, value_name = "KEY")]
        once: Option<String>,
    },
    /// Print a counter
    Get {
        /// The counter
        #[arg(value_parser = parse::name)]
        name: String,
    },
    /// Remove a counter
    #[command(aliases = ["del", "delete", "remove"])]
    Rm {
        /// The counter
        #[arg(value_parser = parse::name)]
        name: String,
    },
}

pub(super) async fn lock(args: LockArgs, frame: &Frame) -> Result<Exit, Diagnostic> {
    let wait = args.wait.unwrap_or_default();
    let claim = json!({ "shared": args.shared, "value": myself() });
    run_under(frame, path("locks", &args.name), claim, wait, args.under, &Ending::Release).await
}

pub(super) async fn elect(args: ElectArgs, frame: &Frame) -> Result<Exit, Diagnostic> {
    let claim = json!({ "value": args.value.unwrap_or_else(myself) });
    run_under(frame, path("elections", &args.name), claim, FOREVER, args.under, &Ending::Release).await
}

pub(super) async fn sem(args: SemArgs, frame: &Frame) -> Result<Exit, Diagnostic> {
    let claim = json!({ "count": args.count, "limit": args.limit, "value": myself() });
    run_under(frame, path("semaphores", &args.name), claim, FOREVER, args.under, &Ending::Release).await
}

pub(super) async fn once(args: OnceArgs, frame: &Frame) -> Result<Exit, Diagnostic> {
    // As the library records what has no outcome.
    let done = Ending::Settle("null");
    run_under(frame, path("once", &args.key), json!({ "value": myself() }), FOREVER, args.under, &done).await
}

pub(super) async fn group(verb: GroupVerb, frame: &Frame) -> Result<Exit, Diagnostic> {
    match verb {
        GroupVerb::Join { name, value, under } => {
            run_under(frame, path("groups", &name), json!({ "value": value }), FOREVER, under, &Ending::Release).await
        }
        GroupVerb::Ls { name } => {
            let answer = pages::holders(&frame.cluster()?, &path("groups", &name)).await?;
            show_holders(frame, answer, &["SESSION", "SINCE", "VALUE"]);
            Ok(Exit::OK)
        }
    }
}

pub(super) async fn right(verb: RightVerb, frame: &Frame) -> Result<Exit, Diagnostic> {
    match verb {
        RightVerb::Ls { kind, after, limit } => list(frame, kind, after, limit).await,
        RightVerb::Show { kind, name } => {
            let answer = pages::holders(&frame.cluster()?, &path(crate::http::word_of(kind), &name)).await?;
            if answer["revision"] == 0 {
                let why = format!("nobody holds or waits for the {kind} `{}`", name.escape_debug());
                return Err(Diagnostic::new(Code::NotFound, why).hint("`tenure right ls` shows what is in use"));
            }
            show_holders(frame, answer, &["SESSION", "FENCE", "VALUE"]);
            Ok(Exit::OK)
        }
    }
}

async fn list(frame: &Frame, kind: Option<RightKind>, after: Option<RightId>, limit: u32) -> Result<Exit, Diagnostic> {
    let path = kind.map_or("/v1/rights?".to_owned(), |kind| format!("/v1/rights?kind={kind}"));
    let list = pages::List { path: &path, rows: "rights", name: "right" };
    let after = after.map(|right| right.to_string());
    let rights = pages::rows(&frame.cluster()?, list, after, limit).await?;
    match frame.output.format() {
        Format::Json => frame.output.json(json!({ "schema": SCHEMA, "rights": rights })),
        Format::Jsonl => rights.into_iter().for_each(|right| frame.output.json(right)),
        Format::Name => rights.iter().for_each(|right| frame.output.line(word(&right["right"]))),
        Format::Table | Format::Wide => {
            let names = ["kind", "name", "holders", "session", "fence", "waiting", "items", "settled"];
            let row = |right: &Value| names.map(|name| word(&right[name])).to_vec();
            let rows: Vec<Vec<String>> = rights.iter().map(row).collect();
            frame.output.table(&["KIND", "NAME", "HOLDERS", "FIRST", "FENCE", "WAITING", "ITEMS", "SETTLED"], &rows);
        }
    }
    Ok(Exit::OK)
}

/// Who holds a right.
fn show_holders(frame: &Frame, answer: Value, head: &[&str; 3]) {
    let holders: Vec<Value> = answer["holders"].as_array().cloned().unwrap_or_default();
    match frame.output.format() {
        Format::Json => frame.output.json(answer),
        Format::Jsonl => holders.into_iter().for_each(|holder| frame.output.json(holder)),
        Format::Name => holders.iter().for_each(|holder| frame.output.line(word(&holder["session"]))),
        Format::Table | Format::Wide => {
            let row = |holder: &Value| vec![word(&holder["session"]), word(&holder["fence"]), word(&holder["value"])];
            let rows: Vec<Vec<String>> = holders.iter().map(row).collect();
            frame.output.table(head, &rows);
            if let Some(waiting) = answer["waiting"].as_u64().filter(|waiting| *waiting > 0) {
                frame.output.note(format!("{waiting} in line"));
            }
        }
    }
}

pub(super) async fn queue(verb: QueueVerb, frame: &Frame) -> Result<Exit, Diagnostic> {
    match verb {
        QueueVerb::Push { name, value, priority } => {
            let request = Request::post(format!("{}/items", path("queues", &name)));
            let request = request.json(&json!({ "value": value, "priority": priority }));
            let answer = frame.cluster()?.send(request).await?.json()?;
            match frame.output.format() {
                Format::Json | Format::Jsonl => frame.output.json(answer),
                Format::Name => frame.output.line(word(&answer["revision"])),
                Format::Table | Format::Wide => frame.output.revision(&answer["revision"]),
            }
            Ok(Exit::OK)
        }
        QueueVerb::Pop { name, under } => {
            run_under(frame, path("queues", &name), json!({}), FOREVER, under, &Ending::Settle("")).await
        }
    }
}

pub(super) async fn counter(verb: CounterVerb, frame: &Frame) -> Result<Exit, Diagnostic> {
    let request = match verb {
        CounterVerb::Add { name, by, once } => {
            let request = Request::post(path("counters", &name)).json(&json!({ "by": by, "once": once }));
            if once.is_some() { request.repeatable() } else { request }
        }
        CounterVerb::Get { name } => Request::get(path("counters", &name)),
        CounterVerb::Rm { name } => Request::new(Method::DELETE, path("counters", &name)),
    };
    let answer = frame.cluster()?.send(request).await?.json()?;
    match frame.output.format() {
        Format::Json | Format::Jsonl => frame.output.json(answer),
        _ if answer["value"].is_null() => {}
        _ => frame.output.line(word(&answer["value"])),
    }
    Ok(Exit::OK)
}

pub(super) async fn barrier(args: BarrierArgs, frame: &Frame) -> Result<Exit, Diagnostic> {
    let cluster = frame.cluster()?;
    let keeper = Keeper::open(&cluster, None, "barrier").await?;
    let claim = json!({ "parties": args.parties, "value": myself() });
    let patience = frame.timeout.unwrap_or(FOREVER);
    let passed =
        granted(&cluster, &keeper, &path("barriers", &args.name), claim, Instant::now() + patience.min(FOREVER)).await;
    keeper.close().await;
    let passed = passed.map_err(|error| match (error.code, frame.timeout) {
        (Code::Held, Some(timeout)) => {
            let why = format!("the barrier `{}` has not opened within {timeout:?}", args.name.escape_debug());
            Diagnostic::new(Code::Timeout, why).hint("whoever waited here has been withdrawn; the others wait on")
        }
        _ => error,
    })?;
    match frame.output.format() {
        Format::Json | Format::Jsonl => frame.output.json(passed),
        _ => frame.output.line(if passed["leads"] == true { "leads" } else { "passed" }),
    }
    Ok(Exit::OK)
}

/// What becomes of the right when the command has ended well.
enum Ending {
    /// It goes to the next in line.
    Release,
    /// It is done for good, with this outcome.
    Settle(&'static str),
}

async fn run_under(
    frame: &Frame,
    path: String,
    claim: Value,
    wait: Duration,
    under: Under,
    ending: &Ending,
) -> Result<Exit, Diagnostic> {
    let cluster = frame.cluster()?;
    let (mut keeper, grace) = under.open(&cluster, &path).await?;
    let end = Instant::now() + wait.min(FOREVER);
    let mut granted = self::granted(&cluster, &keeper, &path, claim.clone(), end).await;
    // A claim that may stand in line goes with its session: under another one, or without one, nothing is in doubt.
    while let Some(error) = granted.as_ref().err().filter(|error| error.maybe_applied).cloned() {
        keeper.close().await;
        if Instant::now() >= end + cluster.patience() {
            return Err(error.maybe_applied(false));
        }
        keeper = under.open(&cluster, &path).await?.0;
        granted = self::granted(&cluster, &keeper, &path, claim.clone(), end).await;
    }
    let result = match granted {
        Ok(grant) if grant["state"] == "settled" => {
            frame.output.note("it is done already");
            Ok(Exit::OK)
        }
        Ok(grant) => {
            let command = (under.command.as_slice(), grace);
            run_granted(frame, &cluster, &mut keeper, &path, &grant, command, ending).await
        }
        Err(error) if error.code == Code::Settled => {
            frame.output.note("it is done already");
            Ok(Exit::OK)
        }
        Err(error) => Err(error),
    };
    keeper.close().await;
    result
}

async fn run_granted(
    frame: &Frame,
    cluster: &Cluster,
    keeper: &mut Keeper,
    path: &str,
    grant: &Value,
    (command, grace): (&[OsString], Duration),
    ending: &Ending,
) -> Result<Exit, Diagnostic> {
    let item = Item::of(grant)?;
    if let Some(why) = item.as_ref().and_then(Item::without_file) {
        frame.output.note(format!("{why}; the command finds it in TENURE_ITEM only"));
    }
    let mut environment: Vec<Variable> =
        vec![("TENURE_FENCE", Some(word(&grant["fence"]).into())), ("TENURE_SESSION", Some(keeper.session().into()))];
    environment.extend(item.iter().flat_map(Item::environment));
    let place = format!("{path}/claims/{}", word(&grant["claim"]));
    let exit = supervise(keeper, Some(&place), command, &environment, grace).await?;
    if exit == Exit::OK
        && let Ending::Settle(outcome) = ending
    {
        settle(cluster, keeper, &place, outcome).await?;
    }
    Ok(exit)
}

/// Records that what a right was for is done: again and again as long as the right lives, if an answer is lost.
async fn settle(cluster: &Cluster, keeper: &Keeper, place: &str, outcome: &'static str) -> Result<(), Diagnostic> {
    // Each try by itself, so that it is known whether one of them is without an answer.
    let cluster = cluster.clone().timeout(SETTLE);
    let request = Request::post(format!("{place}/settle?session={}", keeper.session())).bytes(outcome);
    let mut is_open = false;
    loop {
        let settled = tokio::select! {
            settled = cluster.send(request.clone()) => settled,
            () = keeper.lost() => return Err(unrecorded()),
        };
        match settled {
            Ok(_) => return Ok(()),
            // The claim is over. While its session lives, the try without an answer has ended it, unless somebody gave it back in its name.
            Err(error) if error.code == Code::Fenced => match keeper.lives().await {
                Ok(true) if is_open => return Ok(()),
                Ok(_) => return Err(unrecorded()),
                Err(_) => {}
            },
            Err(error) if error.code.is_retryable() => is_open |= error.maybe_applied,
            Err(error) => return Err(error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn unrecorded() -> Diagnostic {
    let why = "the command ended well, but its right was over before it was certain that this is recorded";
    Diagnostic::new(Code::Lost, why).hint("if it is not recorded, somebody else does it again")
}

/// Claims, and waits in line until `end`; without a wait it does not stand there.
async fn granted(
    cluster: &Cluster,
    keeper: &Keeper,
    path: &str,
    mut claim: Value,
    end: Instant,
) -> Result<Value, Diagnostic> {
    claim["session"] = keeper.session().into();
    claim["stay"] = (Instant::now() < end).into();
    let mut document = cluster.send(Request::post(path).json(&claim)).await?.json()?;
    let place = format!("{path}/claims/{}", word(&document["claim"]));
    let mut unanswered = None;
    while document["state"] == "waiting" {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(unanswered.unwrap_or_else(|| Diagnostic::new(Code::Held, "somebody else holds it")));
        }
        let turn = left.min(TURN);
        let request = Request::get(format!("{place}?wait={}ms", turn.as_millis())).waits(turn);
        let cluster = cluster.waiting(turn);
        let reply = tokio::select! {
            reply = cluster.send(request) => reply,
            () = keeper.lost() => return Err(out_of_line(keeper, unanswered)),
        };
        match reply {
            Ok(reply) => (document, unanswered) = (reply.json()?, None),
            // Its place in line is kept as long as its session lives.
            Err(error) if error.code.is_retryable() => {
                unanswered = Some(error);
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
    if document["state"] == "gone" {
        return Err(Diagnostic::new(Code::Lost, "the claim was withdrawn by somebody else"));
    }
    Ok(document)
}

/// Why a session that stood in line is over. It held nothing yet: where nobody answers, that is what is wrong.
fn out_of_line(keeper: &Keeper, unanswered: Option<Diagnostic>) -> Diagnostic {
    if keeper.is_ended() {
        return Diagnostic::new(Code::Lost, "the cluster says that its session has ended while it stood in line");
    }
    unanswered.unwrap_or_else(|| {
        let why = "no quorum: nobody renewed its session in time, and with that its place in line is lost";
        Diagnostic::new(Code::NoQuorum, why).hint("try again later; `tenure status` says what the cluster waits for")
    })
}

fn path(kind: &str, name: &str) -> String {
    format!("/v1/{kind}/{}", escape(name))
}

/// What is shown beside a claim: which process of which machine it is.
fn myself() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}:{}", host.trim(), std::process::id())
}

/// Longer than anybody waits.
const FOREVER: Duration = Duration::from_secs(1000 * 24 * 3600);

/// The wait before what was not answered is said again.
const PAUSE: Duration = Duration::from_millis(100);

/// How long one try to settle waits for its answer.
const SETTLE: Duration = Duration::from_secs(3);

/// How long one question for a claim waits.
const TURN: Duration = Duration::from_secs(20);

/// How long a command has to end, unless told otherwise and where its session is long enough.
const GRACE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// In words of milliseconds.
    fn grace(asked: Option<u64>, ttl: u64) -> Result<u128, Code> {
        let granted = grace_within(asked.map(Duration::from_millis), Duration::from_millis(ttl));
        granted.map(|grace| grace.as_millis()).map_err(|error| error.code)
    }

    #[test]
    fn a_command_has_as_long_to_end_as_its_session_allows() {
        assert_eq!(grace(None, 60_000), Ok(1_000));
        assert_eq!(grace(None, 3_000), Ok(500));
        assert_eq!(grace(None, 400), Ok(33), "it is told to end with a third of the time left at the earliest");
        assert_eq!(grace(None, 200), Err(Code::Usage));
        assert_eq!(grace(Some(0), 200), Err(Code::Usage));
        assert_eq!(grace(Some(1_900), 6_000), Ok(1_900));
        assert_eq!(grace(Some(1_901), 6_000), Err(Code::Usage));
        let ages = grace_within(Some(Duration::from_secs(10_000_000_000_000_000_000)), Duration::from_secs(6));
        assert_eq!(ages.map_err(|error| error.code), Err(Code::Usage));
    }
}
