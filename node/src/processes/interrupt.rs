//! Ctrl-C and its relatives.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::Exit;

/// Waits until somebody wants this process to end, and says with which exit code it should.
pub(crate) async fn interrupted() -> Exit {
    let listen = |kind| signal(kind).ok();
    let (mut int, mut term, mut hup) =
        (listen(SignalKind::interrupt()), listen(SignalKind::terminate()), listen(SignalKind::hangup()));
    tokio::select! {
        () = arrival(&mut int) => Exit::INTERRUPTED,
        () = arrival(&mut term) => Exit(143),
        // The terminal was closed.
        () = arrival(&mut hup) => Exit(129),
    }
}

async fn arrival(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        // A signal that cannot be listened to ends the process by itself.
        None => std::future::pending().await,
    }
}
