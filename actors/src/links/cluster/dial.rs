//! Who dials whom, and how often.
//!
//! The greater NodeId dials a node that is known. An address of the join list, behind which anyone may be, is dialled by
//! whoever has it. A client dials everything. The smaller NodeId dials a known node only after it has waited a while for
//! the other, which may not know of it; two links at once cannot come of it, for the hello settles that.
//!
//! # Invariants
//!
//! * One task per target address, and it dials only while there is no link to the node behind it.
//! * Attempts back off with jitter, from 20 ms to half a second, and start afresh when a link was lost. A pause ends when a node links itself
//!   to us that says it is there: a cluster begins when each address has answered, and not a pause later.
//! * While nobody answers, a fresh connection is tried every quarter of a second: the kernel repeats the first packet of one
//!   after 1, 3 and 7 seconds only, and a network that has healed meanwhile would not be noticed.
//! * Each refusal is reported once per address and reason.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use protocol::NodeId;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::hello::{self, Answer, Decision};
use super::{Shared, stream};
use crate::links::{LinkEvent, Refusal, Role};

/// How one attempt went.
enum Outcome {
    /// There is a link to whoever is there, or will be in a moment, or it is ourselves.
    Settled(NodeId),
    /// There is none. Try again.
    Failed,
}

/// What to do about a target now.
enum Need {
    /// Nothing until something changes.
    Rest,
    /// Dial, but give the other side this long first.
    Dial(Duration),
    /// The address is no target any more.
    Gone,
}

/// Keeps a link to whoever is behind `addr`, as long as that is a target and `dialler` is in charge of it.
pub(super) async fn run(shared: Arc<Shared>, addr: SocketAddr, dialler: u64) {
    let mut changes = shared.changes.subscribe();
    let mut attempt = 0;
    let mut dialled = Instant::now();
    loop {
        changes.mark_unchanged();
        match need(&shared, addr, dialler) {
            Need::Gone => return,
            Need::Rest => {
                if changes.changed().await.is_err() {
                    return;
                }
            }
            Need::Dial(handicap) => {
                // After a long life at once; after a short one almost; not at all if it never worked.
                if dialled.elapsed() > CALM {
                    attempt = 0;
                } else if shared.worked(addr) {
                    attempt = attempt.min(1);
                }
                wait(&shared, addr, handicap + pause(attempt), &mut changes).await;
                // The other side may have been faster.
                if matches!(need(&shared, addr, dialler), Need::Dial(_)) {
                    let outcome = timeout(hello::DEADLINE, dial(&shared, addr)).await.unwrap_or(Outcome::Failed);
                    attempt += 1;
                    dialled = Instant::now();
                    if let Outcome::Settled(node) = outcome {
                        shared.identified(addr, node);
                    }
                }
            }
        }
    }
}

fn need(shared: &Shared, addr: SocketAddr, dialler: u64) -> Need {
    let (expected, found) = match shared.targets().get(&addr) {
        Some(target) if target.dialler == dialler => (target.expected, target.found),
        _ => return Need::Gone,
    };
    if shared.refuse_outside(addr) {
        return Need::Rest;
    }
    let us = &shared.table.identity;
    match expected.or(found) {
        Some(node) if node == us.node || shared.table.link(node).is_some() => Need::Rest,
        Some(node) if expected.is_some() && us.role == Role::Node && us.node < node => Need::Dial(HANDICAP),
        _ => Need::Dial(Duration::ZERO),
    }
}

/// Waits for so long, or until a node has linked itself to us that says it listens at `addr`: somebody is there now, and who that is only
/// an answer from there shows. Whoever says so and does not answer there shortens one pause, and not those that follow.
pub(super) async fn wait(shared: &Shared, addr: SocketAddr, pause: Duration, changes: &mut watch::Receiver<u64>) {
    let is_said = || shared.table.links().iter().any(|link| link.peer.addr == addr);
    if is_said() {
        return sleep(pause).await;
    }
    let somebody = async { while !is_said() && changes.changed().await.is_ok() {} };
    // When the time is over, nobody has come.
    let _ = timeout(pause, somebody).await;
}

async fn dial(shared: &Arc<Shared>, addr: SocketAddr) -> Outcome {
    let Some(mut stream) = connect(addr).await else { return Outcome::Failed };
    let ours = shared.hello();
    let answer: Answer = match stream::tune(&stream) {
        Ok(()) => match talk(&mut stream, &ours).await {
            Ok(answer) => answer,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                shared.refused(addr, Refusal::Version);
                return Outcome::Failed;
            }
            Err(_) => return Outcome::Failed,
        },
        Err(_) => return Outcome::Failed,
    };
    let theirs = answer.hello;
    if theirs.node == ours.node && theirs.incarnation == ours.incarnation {
        return Outcome::Settled(theirs.node);
    }
    // The reason that we see names what is over there; the one they see names us.
    let why =
        ours.refusal(&theirs, &shared.cookie).or(answer.refusal).or_else(|| other_node(shared, addr, theirs.node));
    if let Some(why) = why {
        shared.refused(addr, why);
        return Outcome::Failed;
    }
    let node = theirs.node;
    if shared.table.link(node).is_some_and(|link| link.peer.incarnation >= theirs.incarnation) {
        let _ = hello::write(&mut stream, &Decision::Leave).await;
        return Outcome::Settled(node);
    }
    if hello::write(&mut stream, &Decision::Link).await.is_err() {
        return Outcome::Failed;
    }
    shared.begin(stream, addr, &ours, theirs, true);
    Outcome::Settled(node)
}

/// Tries one connection after the other, beside those that wait for an answer; the first word counts.
async fn connect(addr: SocketAddr) -> Option<TcpStream> {
    let mut tries = JoinSet::new();
    loop {
        if tries.len() < TRIES_MAX {
            tries.spawn(TcpStream::connect(addr));
        }
        // Whoever refuses is there: another try would be refused as well.
        if let Ok(answer) = timeout(NEXT_TRY, tries.join_next()).await {
            return answer?.ok()?.ok();
        }
    }
}

async fn talk(stream: &mut TcpStream, ours: &hello::Hello) -> std::io::Result<Answer> {
    hello::write(stream, ours).await?;
    hello::read(stream).await
}

fn other_node(shared: &Shared, addr: SocketAddr, found: NodeId) -> Option<Refusal> {
    let expected = shared.targets().get(&addr)?.expected;
    expected.filter(|expected| *expected != found).map(|expected| Refusal::OtherNode { expected, found })
}

impl Shared {
    /// Notes that a link to `node` worked.
    pub(super) fn has_worked(&self, node: NodeId) {
        for target in self.targets().values_mut().filter(|target| target.expected.or(target.found) == Some(node)) {
            target.was_up = true;
        }
    }

    /// Did a link to whoever is there work since the last dial?
    fn worked(&self, addr: SocketAddr) -> bool {
        self.targets().get_mut(&addr).is_some_and(|target| std::mem::take(&mut target.was_up))
    }

    /// Reports who is behind an address, if that is news.
    fn identified(&self, addr: SocketAddr, node: NodeId) {
        let event = LinkEvent::Identified { addr, node };
        if let Some(target) = self.targets().get_mut(&addr) {
            target.found = Some(node);
            target.refused.clear();
            if target.said != Some(node) {
                target.said = Some(node);
                self.table.report(event);
            }
        }
    }

    /// Reports why an address is of no use, if that is news.
    fn refused(&self, addr: SocketAddr, why: Refusal) {
        if let Some(target) = self.targets().get_mut(&addr)
            && !target.refused.contains(&why)
            && target.refused.len() < MAX_REASONS
        {
            target.found = None;
            target.refused.push(why.clone());
            tracing::warn!(%addr, %why, "no link");
            self.table.report(LinkEvent::Refused { addr, why });
        }
    }

    /// Is this an address that plain streams must not go to?
    fn refuse_outside(&self, addr: SocketAddr) -> bool {
        if self.may_dial(addr) {
            return false;
        }
        self.refused(addr, Refusal::NotLoopback(addr));
        true
    }
}

/// The pause before an attempt: none before the first, then growing, each drawn between half and the whole.
fn pause(attempt: u32) -> Duration {
    if attempt == 0 {
        return Duration::ZERO;
    }
    let most = FIRST_PAUSE.saturating_mul(1 << (attempt - 1).min(10)).min(LONGEST_PAUSE);
    most.mul_f64(rand::random_range(0.5..1.0))
}

/// How long the smaller NodeId waits for the greater one to dial.
const HANDICAP: Duration = Duration::from_millis(300);

/// A link that lived for so long was a success.
const CALM: Duration = Duration::from_secs(2);

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// When nobody has answered for so long, one more connection is tried.
const NEXT_TRY: Duration = Duration::from_millis(250);

/// How many connections to one address may wait for an answer; the deadline of a dial ends them.
const TRIES_MAX: usize = 12;

/// How many different reasons are reported for one address; a hostile one may find new ones for ever.
const MAX_REASONS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_below_half_a_second() {
        assert_eq!(pause(0), Duration::ZERO);
        for attempt in 1..100 {
            let pause = pause(attempt);
            assert!(pause >= FIRST_PAUSE / 2 && pause <= LONGEST_PAUSE, "{pause:?}");
        }
        assert!(pause(50) >= LONGEST_PAUSE / 2);
    }
}
