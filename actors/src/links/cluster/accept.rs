//! The door: our own accept loop, where strangers get three seconds and few places.
//!
//! # Invariants
//!
//! * A connection that has not finished its hello holds one of a limited number of places, in all and per address. When
//!   they are taken, the one that waits longest goes: a flood of silent connections delays nobody who speaks.
//! * Nothing that arrives here stops the loop, and no hello is read inside it.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::hello::{self, Answer, Decision, Hello};
use super::{Shared, stream};
use crate::links::counts::Dropped;
use crate::links::{Refusal, Role};

/// The connections that have not finished their hello, oldest first.
#[derive(Default)]
struct Strangers(VecDeque<(IpAddr, AbortHandle)>);

/// Accepts connections until the links are shut down.
pub(super) async fn run(shared: Arc<Shared>, listener: TcpListener) {
    let mut strangers = Strangers::default();
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                strangers.make_room(from.ip(), &shared);
                let task =
                    tokio::spawn(shared.stop.clone().run_until_cancelled_owned(greet(shared.clone(), stream, from)));
                strangers.0.push_back((from.ip(), task.abort_handle()));
            }
            Err(error) => {
                // Out of file descriptors, most likely; spinning would not bring any.
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Strangers {
    fn make_room(&mut self, from: IpAddr, shared: &Shared) {
        self.0.retain(|(_, task)| !task.is_finished());
        let of_address = self.0.iter().filter(|(ip, _)| *ip == from).count();
        let most = if from.is_loopback() { MAX_PER_LOOPBACK } else { MAX_PER_ADDRESS };
        let victim = if of_address >= most {
            self.0.iter().position(|(ip, _)| *ip == from)
        } else if self.0.len() >= MAX_STRANGERS {
            Some(0)
        } else {
            None
        };
        if let Some((_, task)) = victim.and_then(|at| self.0.remove(at)) {
            task.abort();
            shared.table.common.counters.count(Dropped::Stranger);
        }
    }
}

/// Exchanges hellos. The link, if there is to be one, gets a task of its own.
async fn greet(shared: Arc<Shared>, mut stream: TcpStream, from: SocketAddr) {
    match timeout(hello::DEADLINE, exchange(&shared, &mut stream)).await {
        Ok(Ok(Some((ours, theirs)))) => shared.begin(stream, from, &ours, theirs, false),
        Ok(Ok(None)) => {}
        // A bare probe, or a peer that died meanwhile.
        Ok(Err(error)) if error.kind() != io::ErrorKind::InvalidData => {}
        Ok(Err(_)) | Err(_) => shared.table.common.counters.count(Dropped::Stranger),
    }
}

async fn exchange(shared: &Shared, stream: &mut TcpStream) -> io::Result<Option<(Hello, Hello)>> {
    stream::tune(stream)?;
    let theirs: Hello = hello::read(stream).await?;
    let ours = shared.hello();
    let refusal = ours.refusal(&theirs, &shared.cookie).or_else(|| known_as_newer(shared, &theirs));
    let is_possible = refusal.is_none() && theirs.node != ours.node;
    hello::write(stream, &Answer { hello: ours.clone(), refusal }).await?;
    if !is_possible || ours.role == Role::Client {
        return Ok(None);
    }
    let decision: Decision = hello::read(stream).await?;
    Ok((decision == Decision::Link).then_some((ours, theirs)))
}

fn known_as_newer(shared: &Shared, theirs: &Hello) -> Option<Refusal> {
    let newer = shared.table.link(theirs.node)?.peer.incarnation;
    (newer > theirs.incarnation).then_some(Refusal::OldIncarnation { newer })
}

/// How many connections may be without a hello, in all.
const MAX_STRANGERS: usize = 64;

/// The same per address; on loopback all nodes of a test share one.
const MAX_PER_ADDRESS: usize = 8;
const MAX_PER_LOOPBACK: usize = 16;

const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
