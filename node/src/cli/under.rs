//! A session that is kept over HTTP, and a command that runs as long as it lives.
//!
//! # Invariants
//!
//! * The end of the session is counted from the moment at which a renewal was sent, by a clock that goes on while the machine sleeps.
//! * A command is killed as soon as the cluster says that its claim has ended, though its session lives.
//! * A command is told to end (SIGTERM) its grace before that end, and is killed before it, with all that it started, also if this process
//!   is frozen meanwhile. It is also killed when this process is, before its right passes on (see `guardian`).

use std::ffi::OsString;
use std::pin::pin;
use std::time::Duration;

use axum::http::Method;
use nix::sys::signal::Signal;
use protocol::client::{Guarding, Standing};
use protocol::{Nanos, NodeId, SessionId};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::guardian::{Ended, Guarded, Variable};
use super::{Cluster, Code, Diagnostic, Exit, Request};
use crate::witness::{Watched, be_watched};

/// Keeps a session until it is closed. Dropped, it renews no more, and the session expires.
pub(super) struct Keeper {
    cluster: Cluster,
    session: String,
    ttl: Duration,
    until: watch::Receiver<Nanos>,
    renewals: JoinHandle<()>,
    /// Killed, this process loses the session at once if the node that opened it is on the same machine.
    watched: Option<Watched>,
}

impl Keeper {
    /// Opens a session and renews it from now on. Without a time to live it has the one that suits the cluster.
    pub(super) async fn open(cluster: &Cluster, ttl: Option<Duration>, label: &str) -> Result<Self, Diagnostic> {
        let sent = actors::now();
        let ttl_ms = ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let request = Request::post("/v1/sessions").json(&json!({ "ttl_ms": ttl_ms, "label": label }));
        // One that was opened by a try whose answer was lost owns nothing, and expires.
        let opened = cluster.send(request.repeatable()).await?.json()?;
        let session = opened["session"].as_str().unwrap_or_default().to_owned();
        let ttl = Duration::from_millis(opened["ttl_ms"].as_u64().unwrap_or_default());
        let (told, until) = watch::channel(sent + valid_for(&opened));
        let renewals = tokio::spawn(renew(cluster.clone(), session.clone(), ttl, told));
        let watched = watched(&opened).await;
        Ok(Self { cluster: cluster.clone(), session, ttl, until, renewals, watched })
    }

    /// Its id.
    pub(super) fn session(&self) -> &str {
        &self.session
    }

    /// How long it lives without a renewal.
    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Whether the cluster says that it lives.
    pub(super) async fn lives(&self) -> Result<bool, Diagnostic> {
        let renewed = self.cluster.send(renewal(&self.session)).await;
        match renewed {
            Ok(_) => Ok(true),
            Err(error) if error.code == Code::NoSession => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits until it is over.
    pub(super) async fn lost(&self) {
        self.over(Guarding::SESSION).await;
    }

    /// Waits until it is over for what is guarded like this.
    async fn over(&self, guarding: Guarding) {
        let step = |now| guarding.step(Standing::Until(*self.until.borrow()), now).map(|look| look.since(now));
        while let Ok(look) = step(actors::now()) {
            tokio::time::sleep(look).await;
        }
    }

    /// Whether a command that has so long to end has been told to.
    fn ends_within(&self, grace: Duration) -> bool {
        let untold = Guarding { margin: grace.saturating_add(Guarding::COMMAND.margin), ..Guarding::COMMAND };
        untold.step(Standing::Until(*self.until.borrow()), actors::now()).is_err()
    }

    /// Whether the cluster says that it is over.
    pub(super) fn is_ended(&self) -> bool {
        *self.until.borrow() == Nanos(0)
    }

    /// Why it is over, or about to be.
    fn why(&self) -> &'static str {
        if self.is_ended() {
            "the cluster says that its session has ended"
        } else {
            "nobody has renewed its session in time"
        }
    }

    /// Waits until a claim of it is over, as far as the cluster says.
    async fn taken(&self, place: &str) {
        let request = format!("{place}?wait={}s&held-by={}", TURN.as_secs(), self.session);
        let cluster = self.cluster.waiting(TURN);
        loop {
            let reply = cluster.send(Request::get(request.as_str()).waits(TURN)).await;
            match reply.and_then(|reply| reply.json()) {
                Ok(claim) if claim["state"] == "gone" || claim["state"] == "settled" => return,
                // Nobody says that it has ended: also where nobody could be asked.
                Ok(_) => {}
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Ends it, and with it everything that it owns.
    pub(super) async fn close(self) {
        self.renewals.abort();
        let request = Request::new(Method::DELETE, format!("/v1/sessions/{}", self.session)).repeatable();
        // Lost, it expires.
        let _ = self.cluster.clone().timeout(GOODBYE).send(request).await;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.renewals.abort();
    }
}

/// Asks the node that opened a session to watch this process. Without that it ends by time.
async fn watched(opened: &serde_json::Value) -> Option<Watched> {
    let node = u64::from_str_radix(opened["node"].as_str()?, 16).ok().map(NodeId)?;
    let session = opened["session"].as_str()?.trim_start_matches('s').parse().ok().map(SessionId)?;
    tokio::task::spawn_blocking(move || be_watched(node, session)).await.ok()?.ok()
}

async fn renew(cluster: Cluster, session: String, ttl: Duration, until: watch::Sender<Nanos>) {
    let cluster = cluster.timeout(ttl / 3).patient();
    let mut pause = ttl / 3;
    loop {
        tokio::time::sleep(pause).await;
        let sent = actors::now();
        let renewed = cluster.send(renewal(&session)).await.and_then(|reply| reply.json());
        match renewed {
            // What ended meanwhile is not brought back: somebody may have acted on it.
            Ok(document) if *until.borrow() > actors::now() => {
                until.send_modify(|until| *until = (*until).max(sent + valid_for(&document)));
            }
            Err(error) if error.code != Code::NoSession => {
                pause = ttl / 10;
                continue;
            }
            _ => {
                until.send_replace(Nanos(0));
                return std::future::pending().await; // Whoever asks hears that, and not that nobody says anything.
            }
        }
        pause = ttl / 3;
    }
}

fn renewal(session: &str) -> Request {
    Request::new(Method::PUT, format!("/v1/sessions/{session}")).repeatable()
}

fn valid_for(document: &serde_json::Value) -> Duration {
    Duration::from_millis(document["valid_for_ms"].as_u64().unwrap_or_default())
}

/// Runs a command as long as the session lives and its claim at `place`, if it has one, stands; its exit code is ours.
pub(super) async fn supervise(
    keeper: &mut Keeper,
    place: Option<&str>,
    command: &[OsString],
    environment: &[Variable],
    grace: Duration,
) -> Result<Exit, Diagnostic> {
    let lost = |why| lost(if place.is_some() { "right" } else { "session" }, why);
    let signals = |kind| signal(kind).map_err(|error| Diagnostic::new(Code::Internal, format!("no signals: {error}")));
    let (mut interrupted, mut terminated) = (signals(SignalKind::interrupt())?, signals(SignalKind::terminate())?);
    let mut watched = keeper.watched.take();
    let right = (*keeper.until.borrow_and_update(), grace);
    let mut guarded = tokio::select! {
        started = Guarded::start(command, environment, right, watched.as_mut()) => started?,
        () = keeper.over(Guarding::COMMAND) => return Err(lost(keeper.why())),
    };
    keeper.watched = watched;
    let keeper = &*keeper;
    let mut until = keeper.until.clone();
    let mut taken = pin!(async {
        match place {
            Some(place) => keeper.taken(place).await,
            None => std::future::pending().await,
        }
    });
    loop {
        tokio::select! {
            ended = guarded.ended() => return match ended? {
                // A command may exit with this by itself.
                Ended::Guarded(code) if Exit(code) == Exit::LOST && keeper.ends_within(grace) => Err(lost(keeper.why())),
                Ended::Guarded(code) => Ok(Exit(code)),
                Ended::Unguarded => Err(lost("somebody killed the process that guards it")),
            },
            Ok(()) = until.changed() => guarded.lasts(*until.borrow_and_update()),
            // The guardian does so by itself, unless it is the guardian that is frozen.
            () = keeper.over(Guarding::COMMAND) => {
                guarded.kill().await;
                return Err(lost(keeper.why()));
            }
            () = &mut taken => {
                guarded.kill().await;
                return Err(lost("the cluster says that its claim has ended"));
            }
            _ = interrupted.recv() => guarded.signal(Signal::SIGINT),
            _ = terminated.recv() => guarded.signal(Signal::SIGTERM),
        }
    }
}

/// What a command runs under was lost: it was stopped, or not begun.
fn lost(what: &str, why: &str) -> Diagnostic {
    Diagnostic::new(Code::Lost, format!("the {what} was lost, and the command stopped: {why}"))
        .hint("what it was about may be done in part, and somebody else may be at it now")
}

/// How long one question for the end of a claim waits.
const TURN: Duration = Duration::from_secs(20);

/// The wait before a question that nobody answered is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// How long the end of a session is asked for.
const GOODBYE: Duration = Duration::from_secs(3);
