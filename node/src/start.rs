//! Why a node did not start, in the words of [`Diagnostic`].

use std::io;

use actors::links::cluster;
use actors::store::StoreError;

use crate::diagnostic::{Code, Diagnostic};
use crate::error::StartError;

/// The system refused a thread.
pub(crate) fn thread(error: io::Error) -> StartError {
    StartError::new(Diagnostic::new(Code::Internal, format!("cannot start a thread: {error}")))
}

/// The system refused what the actors need.
fn system(error: &io::Error) -> StartError {
    let why = format!("the system refused a thread or a timer: {error}");
    StartError::new(Diagnostic::new(Code::Internal, why).hint("look at the limits of this process: `ulimit -a`"))
}

/// The system has no port for a node that takes any.
pub(crate) fn no_port(error: &io::Error) -> StartError {
    let why = format!("no port is free for both TCP and UDP: {error}");
    StartError::new(Diagnostic::new(Code::PortInUse, why).hint("name one with --listen"))
}

/// The actors did not start.
pub(crate) fn host(error: actors::StartError) -> StartError {
    StartError::new(match error {
        actors::StartError::Profile(why) => Diagnostic::new(Code::Config, format!("inconsistent profile: {why}")),
        actors::StartError::Store(error) => store(&error),
        actors::StartError::Links(error) => links(&error),
        actors::StartError::System(error) => return system(&error),
    })
}

/// Membership did not start.
pub(crate) fn membership(error: membership::StartError) -> StartError {
    use membership::StartError as Error;
    StartError::new(match &error {
        Error::Bind { addr, source } if source.kind() == io::ErrorKind::AddrInUse => {
            Diagnostic::new(Code::PortInUse, format!("cannot listen at {addr} (UDP): the address is in use"))
                .hint("does a node run there already? choose another address with --listen")
        }
        Error::NotLoopback { .. } => not_loopback(&error.to_string()),
        _ => Diagnostic::new(Code::Config, error.to_string()),
    })
}

fn store(error: &StoreError) -> Diagnostic {
    let diagnostic = Diagnostic::new(Code::DataFolder, error.to_string());
    match error {
        StoreError::Io { cause, .. } if cause.kind() == io::ErrorKind::PermissionDenied => {
            diagnostic.hint("check who owns the folder and its mode, or choose another one with --data")
        }
        StoreError::Io { .. } => diagnostic.hint("choose another folder with --data"),
        StoreError::Full { .. } => {
            diagnostic.hint("free some room and start again: nothing that was acknowledged is lost")
        }
        StoreError::InUse { .. } => diagnostic.hint("stop that process, or choose another folder with --data"),
        StoreError::Corrupt { .. } => diagnostic
            .cause("a node that is alone cannot fetch again what its damaged log held")
            .hint("move tenure.redb and tenure.journal away, and the node begins anew, without its data"),
        StoreError::Format { found, known, .. } if found < known => diagnostic
            .cause("an earlier version of this program made it")
            .hint("start that version again, or another folder with --data"),
        _ => diagnostic,
    }
}

fn links(error: &cluster::StartError) -> Diagnostic {
    match error {
        cluster::StartError::Listen { addr, source } if source.kind() == io::ErrorKind::AddrInUse => {
            Diagnostic::new(Code::PortInUse, format!("cannot listen at {addr}: the address is in use"))
                .hint("does a node run there already? choose another address with --listen")
        }
        cluster::StartError::NotLoopback(_) => not_loopback(&error.to_string()),
        _ => Diagnostic::new(Code::Config, error.to_string()),
    }
}

fn not_loopback(why: &str) -> Diagnostic {
    Diagnostic::new(Code::Config, why).hint("use a loopback address, or say --insecure if you mean it")
}
