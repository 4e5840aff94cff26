//! The smallest possible HTTP request: is a child there, and what does it say?
//!
//! Whoever watches over processes must not depend on a pool or a retry: one connection to exactly this node, one answer, a
//! bound on time and size.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The status and body of `GET path`.
pub(super) async fn get(address: SocketAddr, path: &str, timeout: Duration) -> io::Result<(u16, String)> {
    tokio::time::timeout(timeout, exchange(address, path)).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

async fn exchange(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let question = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok((status, body.to_owned()))
}

const ANSWER_MAX: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    fn answering(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the test connects");
            let mut question = [0; 512];
            let _ = stream.read(&mut question);
            let _ = stream.write_all(answer);
        });
        address
    }

    #[tokio::test]
    async fn status_and_body_are_told_apart() {
        let address = answering(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 3\r\n\r\nno\n");
        assert_eq!(get(address, "/readyz", PATIENCE).await.expect("an answer"), (503, "no\n".into()));
    }

    #[tokio::test]
    async fn what_is_not_http_is_an_error() {
        assert!(get(answering(b"hello"), "/", PATIENCE).await.is_err());
        assert!(get(answering(b"\r\n\r\n"), "/", PATIENCE).await.is_err());
    }

    const PATIENCE: Duration = Duration::from_secs(20);
}
