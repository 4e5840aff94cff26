//! The HTTP face of a node: JSON in, JSON out, problems as RFC 9457 documents.
//!
//! | verb, path | what |
//! |---|---|
//! | `POST /v1/tasks` | record a task; `Idempotency-Key` is its once key |
//! | `POST /v1/tasks:batch` | record many, all or none |
//! | `GET /v1/tasks?after=&limit=&state=` | tasks, oldest first; `newest`, `before=`: newest first |
//! | `GET /v1/tasks/{id}?wait=30s` | one task, as soon as it has ended or the wait is over |
//! | `POST /v1/tasks/{id}/cancel` | end it |
//! | `GET /v1/members` | the nodes: gossip's view and the sessions that the master gives work to; `watch`: the sessions as events |
//! | `GET /v1/status` | master, epoch and lease read atomically; commit, applied, state hash, voters |
//! | `GET\|PUT\|DELETE /v1/kv/{key}` | keys; `If-Match: REVISION`, `If-None-Match: *`, `X-Revision`; `?session=s42`, `?ttl=30s`, `?seq` |
//! | `GET /v1/kv?prefix=&after=&limit=` | keys in order; `keys_only`, `stale` |
//! | `GET /v1/kv?watch&prefix=&from=`, `GET /v1/kv/{prefix}?watch` | what happens, as server-sent events; `snapshot` first; `wait=30s`: once, as JSON |
//! | `POST /v1/txn` | `{"when": [], "then": [], "or_else": []}`: several keys in one step |
//! | `POST /v1/sessions` | open a session: `{"ttl_ms": 6000, "label": ""}`; renew it in time. Without a `ttl_ms` it outlives a slow failover |
//! | `GET /v1/sessions?after=&limit=`, `GET\|PUT\|DELETE /v1/sessions/{id}` | look, renew (`valid_for_ms`), end |
//! | `POST /v1/locks/{name}` | claim for a session: `{"session": "s42", "wait_ms": 5000}`; `"stay": true` stays in line |
//! | `GET /v1/locks/{name}?after=REVISION&wait=30s` | who holds it, as soon as that is not as it was; a page, the next one with `after_fence=`; `?watch`: all that is, as server-sent events |
//! | `GET\|PUT\|DELETE /v1/locks/{name}/claims/{claim}` | where a claim stands (`?wait=30s`; with `held-by=s42`, when it is over), its value, give it back (`?session=s42`) |
//! | `POST /v1/once/{name}/claims/{claim}/settle?session=s42` | done: the outcome of a once, or an item of a queue |
//! | the same for `elections` (`/campaign`, `/leader`), `semaphores`, `groups`, `barriers`, `once`, `queues` (`/items`) | |
//! | `GET /v1/rights?kind=&after=&limit=` | the rights that are in use |
//! | `GET\|POST\|DELETE /v1/counters/{name}` | a counter; `{"by": 1}` adds, `Idempotency-Key` makes it count once |
//! | `GET /v1/roster` | who votes, who shall, and what the next step waits for |
//! | `POST /v1/nodes/{node}/promote`, `demote`, `remove` | change who shall vote |
//! | `GET /v1/master` | who is master, in which epoch, and where it serves HTTP |
//! | `POST /v1/master/transfer` | hand mastership over; `{"to": NODE}` names the heir |
//! | `POST /v1/found` | found without the addresses in `without` |
//! | `GET /livez`, `/readyz`, `/metrics` | health (`?verbose`) and figures |
//!
//! A request may say for how long it wants to wait (`X-Timeout-Ms`). Any node answers; what only the master can do is forwarded.
//!
//! # Invariants
//!
//! * Only requests that name a loopback host and come from no foreign web page are answered, unless the node is `insecure`.
//! * Every body and every wait has a bound, and so has the number of streams: one more is `busy`.
//! * So have the connections of a node, and the time in which a request must come: see `listening`.
//! * An error says whether it may have been done: 503, 409, 412 certainly not; 504 with `maybe_applied: true` maybe.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::diagnostic::{Code, Diagnostic};
use crate::site::Site;

mod cluster;
mod explain;
mod guard;
mod health;
pub mod json;
mod kinds;
mod kv;
mod listening;
pub mod metrics;
mod problem;
mod query;
mod rights;
mod roster;
mod sessions;
mod streams;
mod tasks;

pub(crate) use rights::word_of;

pub use json::{SCHEMA, base64, coded, decoded, encoded, from_base64};

/// What every route works with.
#[derive(Clone)]
pub(crate) struct Door {
    site: Arc<dyn Site>,
    kinds: Arc<kinds::Known>,
    /// Ends long waits when the node stops.
    stopping: CancellationToken,
    streams: streams::Streams,
}

/// A running HTTP server.
pub(crate) struct Server {
    address: SocketAddr,
    stopping: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves `site` on a listener that is bound already, on a runtime that no handler of the application can hold up.
    pub(crate) fn start(
        listener: std::net::TcpListener,
        site: Arc<dyn Site>,
        is_insecure: bool,
        runtime: &Handle,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let stopping = CancellationToken::new();
        let door = Door {
            site,
            kinds: Arc::default(),
            streams: streams::Streams::new(stopping.clone()),
            stopping: stopping.clone(),
        };
        let app = router(door, is_insecure);
        let task =
            runtime.spawn(listening::serve(listener, app, listening::Bounds::of_this_process(), stopping.clone()));
        Ok(Self { address, stopping, task })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends waits, lets answers under way leave, and stops.
    pub(crate) async fn stop(mut self) {
        self.stopping.cancel();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

fn router(door: Door, is_insecure: bool) -> Router {
    let is_guarded = !is_insecure;
    rights::routes(Router::new())
        .route("/v1/tasks", post(tasks::submit).get(tasks::list))
        .route("/v1/tasks:batch", post(tasks::submit_batch))
        .route("/v1/tasks/{id}", get(tasks::show))
        .route("/v1/tasks/{id}/cancel", post(tasks::cancel))
        .route("/v1/members", get(cluster::members))
        .route("/v1/status", get(cluster::status))
        .route("/v1/kv", get(kv::list))
        .route("/v1/txn", post(kv::txn::run))
        .route("/v1/kv/{*key}", get(kv::read).put(kv::write).delete(kv::remove))
        .route("/v1/sessions", get(sessions::list).post(sessions::open))
        .route("/v1/sessions/{id}", get(sessions::show).put(sessions::renew).delete(sessions::end))
        .route("/v1/roster", get(roster::show))
        .route("/v1/nodes/{node}/{verb}", post(roster::change))
        .route("/v1/master", get(cluster::master))
        .route("/v1/master/transfer", post(roster::transfer))
        .route("/v1/found", post(roster::found))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::show))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(axum::middleware::from_fn(readable))
        .layer(axum::middleware::from_fn(bounded))
        .layer(axum::middleware::from_fn(move |request, next| guard::check(is_guarded, request, next)))
        .with_state(door)
}

/// Gives up on a request whose body does not come, or whose answer is not to be had.
async fn bounded(request: axum::extract::Request, next: axum::middleware::Next) -> Response {
    let is_read = request.method().is_safe();
    match tokio::time::timeout(REQUEST_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Diagnostic::new(Code::Deadline, format!("the request took longer than {REQUEST_MAX:?}"))
            .maybe_applied(!is_read)
            .into_response(),
    }
}

/// Refuses a path that is no text in words like those of all other refusals.
async fn readable(request: axum::extract::Request, next: axum::middleware::Next) -> Response {
    if query::is_text(request.uri().path()) {
        return next.run(request).await;
    }
    Diagnostic::new(Code::Usage, "the path is no text").hint("write it in UTF-8, with percent signs").into_response()
}

async fn no_route(uri: axum::http::Uri) -> Response {
    Diagnostic::new(Code::NotFound, format!("no such path: {}", uri.path())).into_response()
}

async fn no_method(method: axum::http::Method, uri: axum::http::Uri) -> Response {
    Diagnostic::new(Code::MethodNotAllowed, format!("{} does not understand {method}", uri.path())).into_response()
}

/// A batch of tasks may be as large as the largest message between nodes, written as JSON.
const BODY_MAX: usize = 4 * 1024 * 1024;

/// Longer than every wait that a request can ask for.
const REQUEST_MAX: Duration = Duration::from_secs(150);

#[cfg(test)]
mod tests;
