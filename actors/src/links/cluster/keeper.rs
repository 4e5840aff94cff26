//! The life of one link: the session is opened, watched, and cleared away.
//!
//! # Invariants
//!
//! * Every link that was admitted has exactly one keeper, and its socket and session are gone when the keeper is.
//! * Silence and stalls are counted in looks, not in elapsed time: after a pause of our own process the peer gets the whole
//!   deadline again, for what it sent meanwhile waits unread in the socket.
//! * After the last frame of a burst, two more follow that say nothing: the peer's kernel sees by them that an earlier one
//!   is missing and asks for it, which it would otherwise do by a timer of 200 ms. A link at rest sends none of them.
//! * What the peer's side closed is reported down within two milliseconds; the frames it sent before have that long to
//!   pass through the session's mailboxes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::Shared;
use super::evidence::{self, Answered};
use super::session::{Opening, Session};
use super::stream::{Ending, Guard, Progress, Reader, Writer};
use crate::links::link::Link;
use crate::links::{Closed, Role};

/// Keeps one link.
pub(super) struct Keeper {
    pub shared: Arc<Shared>,
    pub link: Arc<Link>,
    pub guard: Arc<Guard>,
    pub ended: mpsc::Receiver<Ending>,
    pub is_dialled_by_us: bool,
    pub peers_gateway: String,
}

/// How long what lasts, in looks.
#[derive(Default)]
struct Watch {
    age: u32,
    silent: u32,
    stalled: u32,
    last: Option<Progress>,
}

impl Keeper {
    /// Runs the link to its end.
    pub(super) async fn run(mut self, reader: Reader, writer: Writer) {
        let opening = Opening {
            link: &self.link,
            guard: &self.guard,
            our_gateway: self.shared.gateway_name(),
            peers_gateway: std::mem::take(&mut self.peers_gateway),
            cookie: &self.shared.cookie,
            is_dialled_by_us: self.is_dialled_by_us,
        };
        let session = Session::open(opening, reader, writer).await;
        let why = match &session {
            Ok(_) => self.watch().await,
            Err(error) => {
                tracing::warn!(peer = %self.link.peer.node, %error, "a session could not be started");
                Closed::BySelf
            }
        };
        self.close(why).await;
        if let Ok(session) = session {
            session.stop().await;
        }
    }

    /// Waits for the end and says how it came.
    async fn watch(&mut self) -> Closed {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watch = Watch::default();
        let link = self.link.clone();
        let nudges = nudge(&link);
        tokio::pin!(nudges);
        loop {
            tokio::select! {
                () = &mut nudges => unreachable!("it never ends"),
                ending = self.ended.recv() => return match ending {
                    Some(Ending::ByPeer) => Closed::ByPeer,
                    Some(Ending::Stalled) => Closed::Stalled,
                    Some(Ending::Session) => Closed::Violation,
                    // Whoever cut it has closed the link and said why.
                    Some(Ending::Cut) | None => Closed::BySelf,
                },
                _ = looks.tick() => {
                    if let Some(why) = watch.look(self.guard.progress(), self.link.is_up()) {
                        return why;
                    }
                    self.guard.note_silence(LOOK * watch.silent);
                }
            }
        }
    }

    async fn close(&self, why: Closed) {
        let (table, peer) = (&self.shared.table, self.link.peer);
        let mut answered = None;
        if why == Closed::ByPeer && peer.role == Role::Node && self.shared.may_dial(peer.addr) {
            // The peer's last frames pass through the mailboxes meanwhile.
            answered = timeout(GRACE, evidence::ask(peer.addr)).await.ok();
        }
        table.close(&self.link, why);
        let is_crash = matches!(why, Closed::Idle | Closed::Stalled | Closed::Violation);
        self.guard.cut(is_crash);
        if self.link.ended_by().is_some() {
            self.shared.has_worked(peer.node);
        }
        self.shared.changed();
        if self.link.ended_by() == Some(Closed::ByPeer) && peer.role == Role::Node {
            evidence::gather(&self.shared, peer, answered == Some(Answered::Refused));
        }
    }
}

/// Lets no burst end with a frame that may be lost unnoticed.
async fn nudge(link: &Link) {
    loop {
        link.stirred().await;
        for pause in NUDGES {
            // Whatever is sent meanwhile does the same.
            let mut before = link.frames();
            loop {
                sleep(pause).await;
                let now = link.frames();
                if std::mem::replace(&mut before, now) == now {
                    break;
                }
            }
            link.nudge();
        }
    }
}

impl Watch {
    fn look(&mut self, now: Progress, is_up: bool) -> Option<Closed> {
        let before = self.last.replace(now).unwrap_or(now);
        self.age += 1;
        self.silent = if now.reads == before.reads { self.silent + 1 } else { 0 };
        let is_stuck = now.is_writing && now.writes == before.writes;
        self.stalled = if is_stuck { self.stalled + 1 } else { 0 };
        if !is_up && self.age > HANDSHAKE_LOOKS {
            return Some(Closed::Violation);
        }
        if self.silent > IDLE_LOOKS {
            return Some(Closed::Idle);
        }
        (self.stalled > STALL_LOOKS).then_some(Closed::Stalled)
    }
}

/// How often a link is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// A healthy session speaks at least every five seconds.
const IDLE_LOOKS: u32 = 20;

/// For so long a write may make no progress.
const STALL_LOOKS: u32 = 20;

/// For so long a session may take from the hello to its first use.
const HANDSHAKE_LOOKS: u32 = 8;

/// How long after the last frame each nudge follows.
const NUDGES: [Duration; 2] = [Duration::from_millis(4), Duration::from_millis(8)];

/// For so long `Down` waits for the answer of the peer's address.
const GRACE: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(reads: u64, writes: u64, is_writing: bool) -> Progress {
        Progress { reads, writes, is_writing }
    }

    #[test]
    fn a_link_that_speaks_now_and_then_lives() {
        let mut watch = Watch::default();
        assert!((0..1000).all(|look| watch.look(progress(look / 15, 0, false), true).is_none()));
    }

    #[test]
    fn a_silent_link_is_idle_after_ten_seconds() {
        let mut watch = Watch::default();
        let first = (1..).find_map(|look| watch.look(progress(7, look, false), true).map(|why| (look, why)));
        assert_eq!(first, Some((21, Closed::Idle)));
    }

    #[test]
    fn a_write_without_progress_stalls_even_if_the_peer_speaks() {
        let mut watch = Watch::default();
        let first = (1..).find_map(|look| watch.look(progress(look, 7, true), true).map(|why| (look, why)));
        assert_eq!(first, Some((21, Closed::Stalled)));
    }

    #[test]
    fn a_session_that_never_becomes_ready_is_given_up() {
        let mut watch = Watch::default();
        let first = (1..).find_map(|look| watch.look(progress(look, look, false), false));
        assert_eq!(first, Some(Closed::Violation));
    }
}
