//! A session that is kept over HTTP, and a command that runs as long as it lives.
//!
//! # Invariants
//!
//! * The end of the session is counted from the moment at which a renewal was sent, by a clock that goes on while the machine sleeps.
//! * A command is killed as soon as the cluster says that its claim has ended, though its session lives.
//! * A command is told to end (SIGTERM) its grace before that end, and is killed before it, with all that it started. It is also killed
//!   when this process is, before its right passes on (see `guardian`).

use std::ffi::OsString;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::Method;
use nix::sys::signal::Signal;
use protocol::{Nanos, NodeId, SessionId};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use super::guardian::{Ended, Guarded};
use super::{Cluster, Code, Diagnostic, Exit, Request};
use crate::witness::{Watched, be_watched};

/// Keeps a session until it is closed. Dropped, it renews no more, and the session expires.
pub(super) struct Keeper {
    cluster: Cluster,
    session: String,
    until: Arc<Mutex<Nanos>>,
    renewals: JoinHandle<()>,
    /// Killed, this process loses the session at once if the node that opened it is on the same machine.
    watched: Option<Watched>,
}

impl Keeper {
    /// Opens a session and renews it from now on.
    pub(super) async fn open(cluster: &Cluster, ttl: Duration, label: &str) -> Result<Self, Diagnostic> {
        let sent = actors::now();
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let request = Request::post("/v1/sessions").json(&json!({ "ttl_ms": ttl_ms, "label": label }));
        // One that was opened by a try whose answer was lost owns nothing, and expires.
        let opened = cluster.send(request.repeatable()).await?.json()?;
        let session = opened["session"].as_str().unwrap_or_default().to_owned();
        let until = Arc::new(Mutex::new(sent + valid_for(&opened)));
        let renewals = tokio::spawn(renew(cluster.clone(), session.clone(), ttl, until.clone()));
        let watched = watched(&opened).await;
        Ok(Self { cluster: cluster.clone(), session, until, renewals, watched })
    }

    /// Its id.
    pub(super) fn session(&self) -> &str {
        &self.session
    }

    /// For how long it certainly lives.
    pub(super) fn left(&self) -> Duration {
        self.until.lock().unwrap_or_else(PoisonError::into_inner).since(actors::now())
    }

    /// Waits until it is over.
    pub(super) async fn lost(&self) {
        self.less_than(Duration::ZERO).await;
    }

    /// Waits until it lives for no longer than this.
    async fn less_than(&self, span: Duration) {
        loop {
            let left = self.left().saturating_sub(span);
            if left.is_zero() {
                return;
            }
            // Timers stand still while the machine sleeps, our clock does not.
            tokio::time::sleep(left.min(LOOK)).await;
        }
    }

    /// Waits until a claim of it is over, as far as the cluster says.
    async fn taken(&self, place: &str) {
        let request = format!("{place}?wait={}s&held-by={}", TURN.as_secs(), self.session);
        loop {
            let reply = self.cluster.send(Request::get(request.as_str()).waits(TURN)).await;
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

async fn renew(cluster: Cluster, session: String, ttl: Duration, until: Arc<Mutex<Nanos>>) {
    let cluster = cluster.timeout(ttl / 3).patient();
    let mut pause = ttl / 3;
    loop {
        tokio::time::sleep(pause).await;
        let sent = actors::now();
        let request = Request::new(Method::PUT, format!("/v1/sessions/{session}")).repeatable();
        let renewed = cluster.send(request).await.and_then(|reply| reply.json());
        let mut until = until.lock().unwrap_or_else(PoisonError::into_inner);
        match renewed {
            // What ended meanwhile is not brought back: somebody may have acted on it.
            Ok(document) if *until > actors::now() => *until = (*until).max(sent + valid_for(&document)),
            Err(error) if error.code != Code::NoSession => {
                pause = ttl / 10;
                continue;
            }
            _ => {
                *until = Nanos(0);
                return;
            }
        }
        pause = ttl / 3;
    }
}

fn valid_for(document: &serde_json::Value) -> Duration {
    Duration::from_millis(document["valid_for_ms"].as_u64().unwrap_or_default())
}

/// Runs a command as long as the session lives and its claim at `place` stands; its exit code is ours.
pub(super) async fn supervise(
    keeper: &mut Keeper,
    place: &str,
    command: &[OsString],
    environment: &[(&str, String)],
    grace: Duration,
) -> Result<Exit, Diagnostic> {
    let signals = |kind| signal(kind).map_err(|error| Diagnostic::new(Code::Internal, format!("no signals: {error}")));
    let (mut interrupted, mut terminated) = (signals(SignalKind::interrupt())?, signals(SignalKind::terminate())?);
    let mut watched = keeper.watched.take();
    let mut guarded = tokio::select! {
        started = Guarded::start(command, environment, watched.as_mut()) => started?,
        () = keeper.less_than(KILL) => return Ok(Exit::LOST),
    };
    keeper.watched = watched;
    let keeper = &*keeper;
    let mut is_told = false;
    let mut taken = pin!(keeper.taken(place));
    loop {
        let bound = if is_told { KILL } else { grace + KILL };
        tokio::select! {
            ended = guarded.ended() => return Ok(match ended? {
                Ended::Itself(code) if !is_told => Exit(code),
                Ended::Itself(_) | Ended::Unguarded => Exit::LOST,
            }),
            () = keeper.less_than(bound) => {
                if is_told {
                    guarded.kill().await;
                    return Ok(Exit::LOST);
                }
                guarded.signal(Signal::SIGTERM);
                is_told = true;
            }
            () = &mut taken => {
                guarded.kill().await;
                return Ok(Exit::LOST);
            }
            _ = interrupted.recv() => guarded.signal(Signal::SIGINT),
            _ = terminated.recv() => guarded.signal(Signal::SIGTERM),
        }
    }
}

/// How long before the end of its right a command is killed.
const KILL: Duration = Duration::from_millis(100);

/// How often the clock is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How long one question for the end of a claim waits.
const TURN: Duration = Duration::from_secs(20);

/// The wait before a question that nobody answered is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// How long the end of a session is asked for.
const GOODBYE: Duration = Duration::from_secs(3);
