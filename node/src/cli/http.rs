//! How the command line reaches a cluster: over HTTP, through any node that answers.
//!
//! # Invariants
//!
//! * A request that may have been done is sent again only if it is safe to repeat (a read, or a write with a once key).
//! * A refused connection fails at once, and the error names every address that was tried and why.
//! * An answer is never larger than a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::http::{self, HeaderMap, HeaderValue, Method, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::context::Context;
use crate::diagnostic::{Code, Diagnostic};

/// The nodes of a cluster, seen from outside. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cluster {
    nodes: Arc<[String]>,
    /// The node that answered last is asked first.
    preferred: Arc<AtomicUsize>,
    http: Client<HttpConnector, Full<Bytes>>,
    timeout: Duration,
    is_patient: bool,
}

/// A request, not yet bound to a node.
#[derive(Clone, Debug)]
pub struct Request {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    is_repeatable: bool,
    /// How long an answer may take by its nature.
    wait: Duration,
}

/// An answer with a status below 400.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The address that answered.
    pub node: String,
}

impl Cluster {
    /// These addresses, or those of `TENURE_NODES`, or of the context of a cluster on this machine, or the default one, in this order.
    ///
    /// # Errors
    ///
    /// If an address makes no sense, or a context file is there and cannot be used.
    pub fn find(flag: &[String]) -> Result<Self, Diagnostic> {
        let listed = |text: &str| -> Vec<String> {
            text.split(',').map(str::trim).filter(|node| !node.is_empty()).map(str::to_owned).collect()
        };
        let flag: Vec<String> = flag.iter().flat_map(|text| listed(text)).collect();
        if !flag.is_empty() {
            return Self::checked(flag, "--node");
        }
        let environment = std::env::var("TENURE_NODES").map(|text| listed(&text)).unwrap_or_default();
        if !environment.is_empty() {
            return Self::checked(environment, "TENURE_NODES");
        }
        match Context::load()? {
            Some(context) if !context.nodes.is_empty() => Ok(Self::new(context.nodes)),
            _ => Ok(Self::new([DEFAULT_NODE.to_owned()])),
        }
    }

    /// What somebody wrote, if it makes sense: without a port, HTTP would ask port 80.
    fn checked(nodes: Vec<String>, place: &str) -> Result<Self, Diagnostic> {
        for node in &nodes {
            crate::address::check(bare(node)).map_err(|why| {
                let what = format!("the address `{}` of {place} cannot be used: {why}", node.escape_debug());
                Diagnostic::new(Code::Usage, what).hint(format!("write HOST:PORT, for example {DEFAULT_NODE}"))
            })?;
        }
        Ok(Self::new(nodes))
    }

    /// Exactly these addresses (`host:port`, or `http://host:port`).
    #[must_use]
    pub fn new(nodes: impl IntoIterator<Item = String>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        Self {
            nodes: nodes.into_iter().map(|node| bare(&node).to_owned()).collect(),
            preferred: Arc::default(),
            http: Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(30)).build(connector),
            timeout: Duration::from_secs(10),
            is_patient: false,
        }
    }

    /// Gives up on a request after this long.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long a request may take.
    pub(crate) fn patience(&self) -> Duration {
        self.timeout
    }

    /// The same for a question whose good answer may take `wait`: see [`Request::waits`].
    #[must_use]
    pub fn waiting(&self, wait: Duration) -> Self {
        self.clone().timeout(self.timeout.saturating_add(wait))
    }

    /// Keeps trying until the time-out even while every address refuses: for clusters that are known to come back.
    #[must_use]
    pub fn patient(mut self) -> Self {
        self.is_patient = true;
        self
    }

    /// The addresses.
    #[must_use]
    pub fn nodes(&self) -> &[String] {
        &self.nodes
    }

    /// Reads JSON.
    ///
    /// # Errors
    ///
    /// See [`Cluster::send`].
    pub async fn get(&self, path: impl Into<String>) -> Result<Value, Diagnostic> {
        self.send(Request::get(path)).await?.json()
    }

    /// Sends a request to one node after the other until one answers.
    ///
    /// # Errors
    ///
    /// What the last node answered, or that none was reached. `maybe_applied` says whether it may have been done.
    pub async fn send(&self, request: Request) -> Result<Reply, Diagnostic> {
        let begin = Instant::now();
        let mut answered: Option<Diagnostic> = None;
        for round in 0u32.. {
            let mut unreached = Vec::with_capacity(self.nodes.len());
            let first = self.preferred.load(Ordering::Relaxed);
            for step in 0..self.nodes.len() {
                let place = (first + step) % self.nodes.len();
                let left = self.timeout.saturating_sub(begin.elapsed());
                if left.is_zero() {
                    break;
                }
                match self.ask(&self.nodes[place], &request, left).await {
                    Ok(reply) => {
                        self.preferred.store(place, Ordering::Relaxed);
                        return Ok(reply);
                    }
                    Err(Failure::Final(diagnostic)) => return Err(diagnostic),
                    // Another node may be on the right side of a cut.
                    Err(Failure::Later(diagnostic)) => answered = Some(diagnostic),
                    Err(Failure::Unreached(why)) => {
                        // The next request begins elsewhere: it may have less time than this one.
                        self.preferred.store((place + 1) % self.nodes.len(), Ordering::Relaxed);
                        let is_final = why.sent && !request.is_repeatable;
                        unreached.push((&*self.nodes[place], why));
                        if is_final {
                            return Err(self.unreachable(&unreached).maybe_applied(true));
                        }
                    }
                }
            }
            let is_hopeless = unreached.iter().filter(|(_, why)| !why.sent).count() == self.nodes.len();
            let pause = backoff(round);
            let is_over = (is_hopeless && !self.is_patient) || begin.elapsed() + pause >= self.timeout;
            if !is_over {
                tokio::time::sleep(pause).await;
            }
            // A round for which there is no time would say less than this one.
            if is_over || begin.elapsed() + ROUND_MIN >= self.timeout {
                return Err(answered.unwrap_or_else(|| self.unreachable(&unreached)));
            }
        }
        unreachable!("the loop ends by returning")
    }

    /// Asks exactly one node, once.
    ///
    /// # Errors
    ///
    /// What it answered, or that it was not reached.
    pub async fn send_to(&self, node: &str, request: Request) -> Result<Reply, Diagnostic> {
        self.ask(node, &request, self.timeout).await.map_err(|failure| match failure {
            Failure::Final(diagnostic) | Failure::Later(diagnostic) => diagnostic,
            Failure::Unreached(why) => {
                let maybe = why.sent && !request.is_repeatable;
                self.unreachable(&[(node, why)]).maybe_applied(maybe)
            }
        })
    }

    async fn ask(&self, node: &str, request: &Request, left: Duration) -> Result<Reply, Failure> {
        // The node gives up on the cluster before we give up on the node: its answer says more than our silence. A request
        // that may be repeated does not stay with one node for long, as that node may be frozen.
        let margin = MARGIN_MAX.min(left / 4);
        let share = if request.is_repeatable { (left / 2).min(SHARE_MAX) } else { left - margin };
        let patience = if request.is_repeatable { (share + request.wait + margin).min(left) } else { left };
        let message = request.to_http(node, share).map_err(Failure::Final)?;
        let broken = |error: &(dyn std::error::Error + 'static), sent| {
            Failure::Unreached(Unreached { why: root_cause(error), sent, is_late: false })
        };
        let exchange = async {
            let response = self.http.request(message).await.map_err(|error| broken(&error, !error.is_connect()))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, BODY_MAX).collect().await.map_err(|error| broken(error.as_ref(), true))?;
            Ok((head, body.to_bytes()))
        };
        let (head, body) = tokio::time::timeout(patience, exchange).await.map_err(|_| {
            Failure::Unreached(Unreached { why: format!("no answer within {patience:.1?}"), sent: true, is_late: true })
        })??;
        if head.status.as_u16() < 400 {
            return Ok(Reply { status: head.status, headers: head.headers, body, node: node.to_owned() });
        }
        let diagnostic = Diagnostic::from_problem(head.status.as_u16(), &body);
        let is_safe = request.is_repeatable || !diagnostic.maybe_applied;
        if diagnostic.code.is_retryable() && is_safe {
            return Err(Failure::Later(diagnostic));
        }
        Err(Failure::Final(diagnostic))
    }

    fn unreachable(&self, unreached: &[(&str, Unreached)]) -> Diagnostic {
        let is_late = unreached.iter().any(|(_, why)| why.is_late);
        let diagnostic = match (is_late, &*self.nodes) {
            (true, _) => Diagnostic::new(Code::Deadline, "no answer in time")
                .hint("the node may be frozen or cut off; name another one with --node"),
            (false, nodes) => {
                let message = match nodes {
                    [one] => format!("no node was reached at {one}"),
                    nodes => format!("none of {} nodes was reached", nodes.len()),
                };
                Diagnostic::new(Code::Unreachable, message).hint(
                    "is it running? start a cluster with `tenure dev`, or name a node with --node HOST:PORT (its HTTP address)",
                )
            }
        };
        unreached.iter().fold(diagnostic, |diagnostic, (node, why)| diagnostic.cause(format!("{node}  {}", why.why)))
    }
}

impl Request {
    /// Reads a path.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self { is_repeatable: true, ..Self::new(Method::GET, path) }
    }

    /// Writes to a path. Sent again only when it was certainly not done, unless it is [`Request::repeatable`].
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: Bytes::new(),
            is_repeatable: false,
            wait: Duration::ZERO,
        }
    }

    /// Posts to a path.
    #[must_use]
    pub fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    /// Carries JSON.
    #[must_use]
    pub fn json(mut self, value: &Value) -> Self {
        self.body = value.to_string().into();
        self.header("content-type", "application/json")
    }

    /// Carries bytes as they are.
    #[must_use]
    pub fn bytes(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.header("content-type", "application/octet-stream")
    }

    /// Carries a header. Values that no header can hold are refused when it is sent.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Doing it twice is the same as doing it once: it carries a once key.
    #[must_use]
    pub fn repeatable(mut self) -> Self {
        self.is_repeatable = true;
        self
    }

    /// A good answer may take this long, as it asks to wait for something.
    #[must_use]
    pub fn waits(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    fn to_http(&self, node: &str, share: Duration) -> Result<http::Request<Full<Bytes>>, Diagnostic> {
        let mut message = http::Request::builder()
            .method(self.method.clone())
            .uri(format!("http://{node}{}", self.path))
            .header("x-timeout-ms", share.as_millis().to_string())
            .body(Full::new(self.body.clone()))
            .map_err(|error| Diagnostic::new(Code::Usage, format!("`{node}` is no address: {error}")))?;
        for (name, value) in &self.headers {
            let value = HeaderValue::from_str(value).map_err(|_| {
                Diagnostic::new(Code::Usage, format!("no HTTP header can carry `{}`", value.escape_debug()))
            })?;
            message.headers_mut().insert(*name, value);
        }
        Ok(message)
    }
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn json(&self) -> Result<Value, Diagnostic> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Diagnostic::new(Code::Internal, format!("{} answered no JSON: {error}", self.node)))
    }

    /// A header as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Why one node did not give the answer.
enum Failure {
    /// Asking again changes nothing, or is not safe.
    Final(Diagnostic),
    /// Certainly not done, or safe to repeat.
    Later(Diagnostic),
    /// No answer.
    Unreached(Unreached),
}

/// Why there was no answer.
struct Unreached {
    why: String,
    /// Whether the request may have arrived.
    sent: bool,
    /// Whether the time ran out.
    is_late: bool,
}

/// A part of a path or query, with everything escaped that has a meaning there.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// An address without what a URL has around it.
fn bare(node: &str) -> &str {
    node.trim_start_matches("http://").trim_end_matches('/')
}

/// The innermost error in a chain: "connection refused" says more than "client error".
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    let text = match inner.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
        Some(std::io::ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
        _ => inner.to_string(),
    };
    text.chars().take(200).collect()
}

/// Grows from 20 ms to half a second, with jitter so that many clients do not come back together.
fn backoff(round: u32) -> Duration {
    let full = (20u64 << round.min(5)).min(500);
    Duration::from_millis(full / 2 + rand::random_range(0..=full / 2))
}

/// Where `tenure node` serves HTTP unless it is told otherwise.
pub const DEFAULT_NODE: &str = "127.0.0.1:7480";

/// For how long one node may look for the master before another node is asked.
const SHARE_MAX: Duration = Duration::from_secs(3);

/// What a node may take beyond the time it was given.
const MARGIN_MAX: Duration = Duration::from_secs(1);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// With less time than this, not all nodes are asked once more.
const ROUND_MIN: Duration = Duration::from_millis(100);

/// A batch of task views can be long; beyond this it is refused.
const BODY_MAX: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refused_connections_name_every_address_and_exit_with_3() {
        // Bound, so that nobody else comes to listen there, and no listeners.
        let sockets = [(); 2].map(|()| {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            socket
        });
        let [one, two] = sockets.each_ref().map(|socket| socket.local_addr().unwrap().to_string());
        let error = Cluster::new([one.clone(), two.clone()]).get("/v1/status").await.unwrap_err();
        assert_eq!(error.code.exit(), 3);
        assert_eq!(error.causes, [format!("{one}  connection refused"), format!("{two}  connection refused")]);
        assert!(!error.maybe_applied);
        let patient = Cluster::new([one, two]).timeout(Duration::from_secs(1)).patient();
        assert_eq!(patient.get("/v1/status").await.unwrap_err().causes, error.causes, "the last round is a whole one");
    }

    #[tokio::test]
    async fn a_write_that_may_have_arrived_is_not_sent_again() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = listener.local_addr().unwrap().to_string();
        let accepted = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 64];
            tokio::io::AsyncReadExt::read(&mut stream, &mut head).await.unwrap();
            drop(stream);
            listener
        });
        let error = Cluster::new([node]).send(Request::post("/v1/tasks")).await.unwrap_err();
        assert!(error.maybe_applied, "{error:?}");
        drop(accepted.await.unwrap());
    }

    #[tokio::test]
    async fn a_node_that_says_nothing_costs_a_part_of_the_time_and_is_not_asked_first_again() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let well = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nodes = [&silent, &well].map(|node| node.local_addr().unwrap().to_string());
        let router = axum::Router::new().route("/v1/status", axum::routing::get(async || "{}"));
        let served = tokio::spawn(async move { axum::serve(well, router).await });
        let cluster = Cluster::new(nodes).timeout(Duration::from_secs(20));
        cluster.get("/v1/status").await.unwrap();
        let asked = silent.accept().await;
        cluster.get("/v1/status").await.unwrap();
        let again = tokio::time::timeout(Duration::ZERO, silent.accept()).await;
        assert!(asked.is_ok() && again.is_err(), "it was asked first again");
        served.abort();
    }

    #[test]
    fn paths_escape_what_has_a_meaning() {
        assert_eq!(escape("a/b c?ü"), "a%2Fb%20c%3F%C3%BC");
    }
}
