//! A socket with a guard: it notices the end first, can be cut from outside, and knows when it last heard something.
//!
//! ractor_cluster has no deadline and no keepalive, and its writer outlives its session with all that is queued. So both
//! halves that it gets are ours. TLS will wrap the socket here, below the guard and after the hello.
//!
//! # Invariants
//!
//! * The first reason for which a stream ends is the one that is reported.
//! * The peer's end of stream is reported to the guard and *not* to ractor_cluster, which would throw away the frames it
//!   has read but not yet handed on. The session is stopped from above instead, a moment later.
//! * After [`Guard::cut`] nothing holds the socket for longer than it takes the halves to be polled.

use std::io::{self, ErrorKind, Read};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::{libc, setsockopt_impl, sockopt_impl};
use socket2::{SockRef, Socket, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// End of stream or a reset.
    ByPeer,
    /// The kernel gave up on what we wrote.
    Stalled,
    /// We cut it.
    Cut,
    /// ractor_cluster's session ended by itself: the bytes were not what it expects.
    Session,
}

/// The part of a stream that its keeper holds.
pub(super) struct Guard {
    stream: Mutex<Option<Arc<TcpStream>>>,
    endings: mpsc::Sender<Ending>,
    /// For how many milliseconds the keeper has seen no read.
    silent_ms: AtomicU64,
    /// Counts reads, so that silence can be told without a clock that runs on while the process is paused.
    reads: AtomicU64,
    /// Counts writes that got through.
    writes: AtomicU64,
    is_writing: AtomicBool,
}

/// What the keeper sees between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub reads: u64,
    pub writes: u64,
    pub is_writing: bool,
}

/// The half that ractor_cluster reads.
pub(super) struct Reader {
    stream: Arc<TcpStream>,
    guard: Arc<Guard>,
}

/// The half that ractor_cluster writes.
pub(super) struct Writer {
    stream: Arc<TcpStream>,
    guard: Arc<Guard>,
}

impl Guard {
    /// Takes a stream over. The receiver yields why it ended, once.
    pub(super) fn new(stream: TcpStream) -> (Arc<Self>, Reader, Writer, mpsc::Receiver<Ending>) {
        let (endings, ended) = mpsc::channel(1);
        let stream = Arc::new(stream);
        let guard = Arc::new(Self {
            stream: Mutex::new(Some(stream.clone())),
            endings,
            silent_ms: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            is_writing: AtomicBool::new(false),
        });
        let reader = Reader { stream: stream.clone(), guard: guard.clone() };
        let writer = Writer { stream, guard: guard.clone() };
        (guard, reader, writer, ended)
    }

    /// Notes why the stream ends, unless that is known already.
    pub(super) fn end(&self, ending: Ending) {
        // Full means that an earlier reason waits.
        let _ = self.endings.try_send(ending);
    }

    /// Frees the socket. With `at_once`, what was not yet sent is thrown away and the peer sees a reset.
    pub(super) fn cut(&self, at_once: bool) {
        let Some(stream) = self.stream.lock().expect("nobody panics under this lock").take() else { return };
        let socket = SockRef::from(&*stream);
        if at_once {
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
        // Wakes both halves, wherever they wait.
        let _ = socket.shutdown(std::net::Shutdown::Both);
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            reads: self.reads.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            is_writing: self.is_writing.load(Ordering::Relaxed),
        }
    }

    /// Notes for how long the keeper has seen no read.
    pub(super) fn note_silence(&self, silence: Duration) {
        self.silent_ms.store(u64::try_from(silence.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn silent_for(&self) -> Duration {
        Duration::from_millis(self.silent_ms.load(Ordering::Relaxed))
    }

    fn failed(&self, error: &io::Error) {
        let ending = match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => Ending::ByPeer,
            _ => Ending::Stalled,
        };
        self.end(ending);
    }
}

impl AsyncRead for Reader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let result = match ready!(self.stream.poll_read_ready(cx)) {
                Ok(()) => read_once(&self.stream, buf.initialize_unfilled()),
                Err(error) => Err(error),
            };
            match result {
                Ok(0) => {
                    self.guard.end(Ending::ByPeer);
                    return Poll::Pending;
                }
                Ok(length) => {
                    self.guard.reads.fetch_add(1, Ordering::Relaxed);
                    buf.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    self.guard.failed(&error);
                    return Poll::Pending;
                }
            }
        }
    }
}

/// Reads once. A read that does not fill the buffer has emptied the socket, and more bytes will be announced: the readiness
/// is taken back in the same step, because the stream's own `try_read` would ask the kernel once more to learn it.
fn read_once(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = None;
    let result = stream.try_io(Interest::READABLE, || {
        let mut socket: &Socket = &SockRef::from(stream);
        let length = socket.read(buffer)?;
        read = Some(length);
        if length < buffer.len() { Err(ErrorKind::WouldBlock.into()) } else { Ok(length) }
    });
    read.map_or(result, Ok)
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let result = match self.stream.poll_write_ready(cx) {
                Poll::Pending => {
                    self.guard.is_writing.store(true, Ordering::Relaxed);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(())) => self.stream.try_write(bytes),
                Poll::Ready(Err(error)) => Err(error),
            };
            match result {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    // The writer must end, or it would hold the socket for ever. Its reason comes too late to count.
                    self.guard.failed(&error);
                    return Poll::Ready(Err(error));
                }
                Ok(length) => {
                    self.guard.is_writing.store(false, Ordering::Relaxed);
                    self.guard.writes.fetch_add(1, Ordering::Relaxed);
                    return Poll::Ready(Ok(length));
                }
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write))
    }
}

/// Sets what every socket of a link needs: no waiting for more bytes, a kernel that notices a silent cut, and one that sends what was
/// lost again in the time of a heartbeat and not of an election.
pub(super) fn tune(stream: &TcpStream) -> io::Result<()> {
    // A kernel that does not know them (the first came with Linux 6.15) does as it always did.
    let _ = setsockopt(stream, RtoMinUs, &RESEND_MIN_US);
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_thin_linear_timeouts(true); // That time-out is not doubled each time while little is under way.
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE).with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}

sockopt_impl!(
    /// The shortest time-out, in microseconds, after which what was not acknowledged is sent again. The longest wait of the kernel before it
    /// acknowledges follows it. `libc` has no name for it.
    RtoMinUs, SetOnly, libc::IPPROTO_TCP, TCP_RTO_MIN_US, usize
);

const TCP_RTO_MIN_US: libc::c_int = 45;

/// Longer than a store's commit takes most often, as otherwise every acknowledgement of the kernel would travel alone. On a long way the
/// kernel waits as long as the way is.
const RESEND_MIN_US: usize = 20_000;

/// After this silence, and as often again, the kernel asks whether the peer's kernel is there.
const KEEPALIVE: Duration = Duration::from_secs(1);
const KEEPALIVE_RETRIES: u32 = 4;

/// For so long, what we wrote may stay unacknowledged by the peer's kernel.
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);
