//! The routes under `/v1/sessions`: sessions that are kept by whoever speaks HTTP, by renewing them in time.
//!
//! `valid_for_ms` counts from the moment at which the node read the request, and is shortened by what clocks may differ: whoever counts
//! it from the moment at which the request was *sent* stops in time.

use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use protocol::SessionId;
use protocol::profile::shortened;
use protocol::state::{About, OpenSession, SessionView};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Door;
use super::json::SCHEMA;
use super::problem::Answer;
use super::query::Query;
use crate::diagnostic::{Code, Diagnostic};
use crate::error::Error;
use crate::site::{Identity, Member};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// What the timers of the cluster ask for, unless told otherwise.
    ttl_ms: Option<u64>,
    #[serde(default)]
    label: String,
}

pub(super) async fn open(State(door): State<Door>, headers: HeaderMap, body: Result<Bytes, BytesRejection>) -> Answer {
    let asked = Instant::now();
    let body = body.map_err(|_| Diagnostic::new(Code::TooLarge, "a session is described in fewer words"))?;
    let wish: Wish = serde_json::from_slice(&body).map_err(|error| {
        Diagnostic::new(Code::Usage, format!("this describes no session: {error}"))
            .hint(r#"send {"ttl_ms": 6000, "label": "indexer"}"#)
    })?;
    let client = door.client(&headers);
    let ttl = wish.ttl_ms.map_or_else(|| client.profile().application_session(), Duration::from_millis);
    let label = if wish.label.is_empty() { UNLABELLED.to_owned() } else { wish.label };
    let about = About { label, ..About::default() };
    let id = door.answer(client.open_session(OpenSession { ttl, about })).await?;
    let mut document = json!({ "schema": SCHEMA, "session": id.to_string(), "ttl_ms": millis(ttl) });
    document["valid_for_ms"] = valid_for(ttl, asked).into();
    // A process of the same machine may ask this node to be its witness.
    document["node"] = door.site.identity().node.to_string().into();
    Ok((StatusCode::CREATED, Json(document)).into_response())
}

pub(super) async fn list(State(door): State<Door>, RawQuery(query): RawQuery, headers: HeaderMap) -> Answer {
    let query = Query::parse(query.as_deref(), &["after", "limit"])?;
    let after = query.text("after").map_or(Ok(SessionId(0)), parse)?;
    let limit = query.number("limit")?.unwrap_or(PAGE);
    let sessions = door.answer(door.client(&headers).sessions(after, limit)).await?;
    let members = door.site.members();
    let sessions: Vec<Value> = sessions.iter().map(|view| document(view, &members)).collect();
    Ok(Json(json!({ "schema": SCHEMA, "sessions": sessions })).into_response())
}

pub(super) async fn show(State(door): State<Door>, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let id = parse(&id)?;
    Ok(Json(document(&look(&door, &headers, id).await?, &door.site.members())).into_response())
}

pub(super) async fn renew(State(door): State<Door>, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let (asked, id) = (Instant::now(), parse(&id)?);
    door.answer(door.client(&headers).renew_session(id)).await?;
    let view = look(&door, &headers, id).await?;
    let mut document = document(&view, &door.site.members());
    document["valid_for_ms"] = valid_for(view.ttl, asked).into();
    Ok(Json(document).into_response())
}

pub(super) async fn end(State(door): State<Door>, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let id = parse(&id)?;
    door.answer(door.client(&headers).end_session(id)).await?;
    Ok(Json(json!({ "schema": SCHEMA, "session": id.to_string(), "state": "ended" })).into_response())
}

async fn look(door: &Door, headers: &HeaderMap, id: SessionId) -> Result<SessionView, Diagnostic> {
    let before = SessionId(id.0.saturating_sub(1));
    let found = door.answer(door.client(headers).sessions(before, 1)).await?;
    found.into_iter().find(|view| view.id == id).ok_or_else(|| Error::NoSession(id).into())
}

fn document(view: &SessionView, members: &[Member]) -> Value {
    json!({
        "schema": SCHEMA,
        "session": view.id.to_string(),
        "kind": kind(&view.about),
        "label": view.about.label,
        "ttl_ms": millis(view.ttl),
        "left_ms": millis(view.left),
        "host": view.about.host.map(|host| host.node.to_string()),
        "host_label": view.about.host.map(|host| Identity::name_of(members, host.node)),
        "fast_release": view.about.fast_release,
        "keys": view.keys,
        "claims": view.claims,
    })
}

/// What a session is for. That of a client's own requests says nothing of itself; whoever opens another one does, if only that it came over
/// HTTP or from the library.
fn kind(about: &About) -> &'static str {
    if *about == About::default() { "requests" } else { "owner" }
}

fn valid_for(ttl: Duration, asked: Instant) -> u64 {
    millis(shortened(ttl).saturating_sub(asked.elapsed() + TICK))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn parse(text: &str) -> Result<SessionId, Diagnostic> {
    text.trim_start_matches('s').parse().map(SessionId).map_err(|_| {
        Diagnostic::new(Code::Usage, format!("`{}` is no session", text.escape_debug()))
            .hint("a session is a number, such as 42")
    })
}

/// What a session is called that was opened here by somebody who did not say.
const UNLABELLED: &str = "http";

/// How many sessions one answer shows unless told otherwise.
const PAGE: u32 = 1_000;

/// The granularity of cluster time.
const TICK: Duration = Duration::from_millis(1);
