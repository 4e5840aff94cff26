//! Connections of the HTTP face: how many there are, and how long one may say nothing.
//!
//! # Invariants
//!
//! * At most [`Bounds::connections`] are open; one more is closed at once, so that the node keeps descriptors for its links and files.
//! * A connection on which no whole head of a request comes in [`Bounds::head`] is closed, be it new or kept alive. What is answered has no
//!   such bound, if its reader takes all but the last of it: a stream or a long wait is bounded by its route.
//! * A client that keeps its connection open does not keep the node alive: when it stops, answers under way have [`GOODBYE`].

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use nix::sys::resource::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What strangers can make a node hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// How many connections.
    pub(super) connections: usize,
    /// How long each of them waits for the head of a request.
    pub(super) head: Duration,
}

impl Bounds {
    /// Half of the descriptors that this process may have: with the usual thousand, room for all streams and as many others.
    pub(super) fn of_this_process() -> Self {
        let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(FILES, |(files, _)| files);
        let connections = usize::try_from(files / 2).map_or(CONNECTIONS_MAX, |half| half.min(CONNECTIONS_MAX));
        Self { connections, head: HEAD_MAX }
    }
}

/// Serves until it is told to stop, and then what is under way.
pub(super) async fn serve(listener: std::net::TcpListener, app: Router, bounds: Bounds, stop: CancellationToken) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot serve HTTP"),
    };
    let places = Arc::new(Semaphore::new(bounds.connections));
    // Dropped, it closes those that are left.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if let Ok(place) = places.clone().try_acquire_owned() {
                        connections.spawn(attend(stream, app.clone(), bounds.head, place, stop.clone()));
                    }
                }
                // One that is gone already, or no descriptor is left for it: others may be given back.
                Err(error) => {
                    tracing::debug!(%error, "a connection was not accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(GOODBYE, async { while connections.join_next().await.is_some() {} }).await;
}

/// Answers one request after the other.
async fn attend(stream: TcpStream, app: Router, head: Duration, _place: OwnedSemaphorePermit, stop: CancellationToken) {
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(head);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    let mut connection = std::pin::pin!(connection);
    // How a connection ends is the client's business.
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "a connection has ended");
    }
}

/// How many descriptors a process commonly may have.
const FILES: u64 = 1_024;

/// How many connections there are at most, however many descriptors there may be.
const CONNECTIONS_MAX: usize = 4_096;

/// Clients of ours let go of a connection that is idle for thirty seconds: nobody's next request meets one that is about to be closed.
const HEAD_MAX: Duration = Duration::from_secs(60);

/// The wait before the next connection is accepted when one could not be.
const PAUSE: Duration = Duration::from_millis(100);

/// How long answers under way may take when the node stops.
const GOODBYE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use axum::body::{Body, Bytes};
    use axum::routing::get;
    use futures_util::StreamExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Answers at once, or slowly in two parts, until the guard is dropped.
    async fn serving(bounds: Bounds) -> (std::net::SocketAddr, tokio_util::sync::DropGuard) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let app = Router::new().route("/", get(|| async { "here" })).route(
            "/slow",
            get(|| async {
                tokio::time::sleep(2 * HEAD).await;
                let parts = futures_util::stream::iter(["soon", "late"]).then(|part| async move {
                    tokio::time::sleep(2 * HEAD).await;
                    Ok::<_, std::convert::Infallible>(Bytes::from_static(part.as_bytes()))
                });
                Body::from_stream(parts)
            }),
        );
        tokio::spawn(serve(listener, app, bounds, stop.clone()));
        (address, stop.drop_guard())
    }

    /// All that comes until the other side closes.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        match stream.read_to_string(&mut text).await {
            Ok(_) => text,
            // Closed with something of ours unread.
            Err(error) => format!("{text}{error}"),
        }
    }

    async fn ask(stream: &mut TcpStream, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
    }

    async fn until(stream: &mut TcpStream, word: &str) {
        let (mut text, mut buffer) = (String::new(), [0; 1024]);
        while !text.contains(word) {
            let read = stream.read(&mut buffer).await.unwrap();
            assert_ne!(read, 0, "it ended, and said no {word}: {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    }

    const HEAD: Duration = Duration::from_secs(1);
    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn one_connection_too_many_is_closed_and_there_is_room_when_one_goes() {
        let (address, _serving) = serving(Bounds { connections: 200, head: LONG }).await;
        let connect = || async { TcpStream::connect(address).await.unwrap() };
        let mut silent = Vec::new();
        for _ in 0..199 {
            silent.push(connect().await);
        }
        let mut last = connect().await;
        ask(&mut last, "/").await;
        until(&mut last, "here").await;
        for _ in 0..100 {
            assert_eq!(rest(&mut connect().await).await, "");
        }
        ask(&mut last, "/").await;
        until(&mut last, "here").await;
        drop(silent);
        loop {
            let mut next = connect().await;
            ask(&mut next, "/").await;
            let mut byte = [0];
            if matches!(next.read(&mut byte).await, Ok(1)) {
                break;
            }
        }
    }

    #[tokio::test]
    async fn silence_is_heard_for_so_long_and_no_longer() {
        let (address, _serving) = serving(Bounds { connections: 200, head: HEAD }).await;
        let mut silent = Vec::new();
        for _ in 0..100 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut halting = TcpStream::connect(address).await.unwrap();
        halting.write_all(b"GET / HTTP/1.1\r\nhost: loc").await.unwrap();
        let mut kept = TcpStream::connect(address).await.unwrap();
        ask(&mut kept, "/").await;
        until(&mut kept, "here").await;
        silent.extend([halting, kept]);
        for mut stream in silent {
            let said = rest(&mut stream).await;
            assert!(!said.contains("200 OK"), "{said}");
        }
    }

    #[tokio::test]
    async fn an_answer_may_take_longer_than_a_question() {
        let (address, _serving) = serving(Bounds { connections: 2, head: HEAD }).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        ask(&mut stream, "/slow").await;
        until(&mut stream, "late").await;
    }
}
