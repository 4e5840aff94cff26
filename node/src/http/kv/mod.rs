//! The routes under `/v1/kv`, and `/v1/txn`.
//!
//! A value is the body, as it is. Its revision stands in `X-Revision`; a write with `If-Match: REVISION` is done only if the
//! key is still there, one with `If-None-Match: *` only if there is none.

pub(super) mod txn;
mod watch;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use protocol::state::{Expect, Value};
use protocol::{Revision, SessionId};
use serde_json::json;

use super::Door;
use super::json::{SCHEMA, encoded};
use super::problem::Answer;
use super::query::Query;
use crate::diagnostic::{Code, Diagnostic};
use crate::error::Error;

/// The keys of a prefix: a page of them, or what happens to them.
pub(super) async fn list(State(door): State<Door>, RawQuery(query): RawQuery, headers: HeaderMap) -> Answer {
    let known = ["prefix", "after", "limit", "keys_only", "stale", "watch", "from", "snapshot", "wait"];
    let query = Query::parse(query.as_deref(), &known)?;
    let prefix = query.text("prefix").unwrap_or_default();
    if query.flag("watch") {
        return watch::watch(&door, prefix, &query, &headers).await;
    }
    let mut listing = door.client(&headers).kv().list(prefix).after(query.text("after").unwrap_or_default());
    if let Some(limit) = query.number("limit")? {
        listing = listing.limit(limit);
    }
    listing = if query.flag("keys_only") { listing.keys_only() } else { listing };
    listing = if query.flag("stale") { listing.stale() } else { listing };
    let page = door.answer(listing).await?;
    let keys: Vec<_> = page.entries.iter().map(|(key, value)| document(key, value, !query.flag("keys_only"))).collect();
    let answer = json!({ "schema": SCHEMA, "keys": keys, "more": page.more, "revision": page.revision.0 });
    let mut response = Json(answer).into_response();
    set_revision(&mut response, page.revision);
    Ok(response)
}

pub(super) async fn read(
    State(door): State<Door>,
    Path(key): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let query = Query::parse(query.as_deref(), &["stale", "watch", "from", "snapshot", "wait"])?;
    if query.flag("watch") {
        return watch::watch(&door, &key, &query, &headers).await;
    }
    let reading = door.client(&headers).kv().get(&key);
    let reading = if query.flag("stale") { reading.stale() } else { reading };
    let value = door.answer(reading).await?.ok_or_else(|| missing(&key))?;
    let wants_json =
        headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"application/json"));
    let (modified, created) = (value.modified, value.created);
    let mut response = if wants_json {
        let mut document = document(&key, &value, true);
        document["schema"] = SCHEMA.into();
        Json(document).into_response()
    } else {
        // A stored page must not run as one in somebody's browser.
        let headers = [("content-type", "application/octet-stream"), ("x-content-type-options", "nosniff")];
        (headers, value.value).into_response()
    };
    set_revision(&mut response, modified);
    response.headers_mut().insert("x-created-revision", HeaderValue::from(created.0));
    Ok(response)
}

pub(super) async fn write(
    State(door): State<Door>,
    Path(key): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let query = Query::parse(query.as_deref(), &["session", "ttl", "seq"])?;
    let expect = expectation(&headers)?;
    let (owner, ttl) = (query.text("session").map(session).transpose()?, query.duration("ttl")?);
    if query.flag("seq") && expect != Expect::Any {
        return Err(Diagnostic::new(Code::Usage, "`?seq` makes a new key, which is as nobody can expect it")
            .hint("send it without `If-Match` and `If-None-Match`"));
    }
    let value = value(body)?;
    let kv = door.client(&headers).kv();
    if query.flag("seq") {
        let mut making = kv.create_seq(&key, value);
        making = if let Some(owner) = owner { making.owner(owner) } else { making };
        making = if let Some(ttl) = ttl { making.ttl(ttl) } else { making };
        let (key, revision) = door.answer(making).await?;
        return Ok(written(&key, revision));
    }
    let mut writing = kv.put(&key, value).expect(expect);
    writing = if let Some(owner) = owner { writing.owner(owner) } else { writing };
    writing = if let Some(ttl) = ttl { writing.ttl(ttl) } else { writing };
    let revision = door.answer(writing).await.map_err(|error| about(&key, error))?;
    Ok(written(&key, revision))
}

pub(super) async fn remove(State(door): State<Door>, Path(key): Path<String>, headers: HeaderMap) -> Answer {
    let removing = door.client(&headers).kv().delete(&key).expect(expectation(&headers)?);
    let revision = door.answer(removing).await.map_err(|error| about(&key, error))?;
    Ok(written(&key, revision))
}

fn value(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Diagnostic> {
    let limit = protocol::wire::MAX_VALUE;
    match body {
        Ok(value) if value.len() <= limit => Ok(value),
        Ok(value) => Err(Error::TooLarge { len: value.len() as u64, limit: limit as u64 }.into()),
        Err(_) => Err(Diagnostic::new(Code::TooLarge, format!("a value has at most {limit} bytes"))
            .hint("store it elsewhere and put a reference")),
    }
}

/// A key as it is shown.
fn document(key: &str, value: &Value, has_value: bool) -> serde_json::Value {
    let mut document = json!({ "key": key, "revision": value.modified.0, "created": value.created.0 });
    if has_value {
        encoded(&mut document, "value", &value.value);
    }
    if let Some(owner) = value.owner {
        document["session"] = owner.to_string().into();
    }
    if let Some(expires) = value.expires {
        document["expires_ms"] = expires.0.into();
    }
    document
}

fn session(text: &str) -> Result<SessionId, Diagnostic> {
    number(text.trim_start_matches('s')).map(SessionId)
}

fn number(text: &str) -> Result<u64, Diagnostic> {
    text.parse().map_err(|_| Diagnostic::new(Code::Usage, format!("`{}` is no number", text.escape_debug())))
}

fn written(key: &str, revision: Revision) -> Response {
    let mut response = Json(json!({ "schema": SCHEMA, "key": key, "revision": revision.0 })).into_response();
    set_revision(&mut response, revision);
    response
}

fn set_revision(response: &mut Response, revision: Revision) {
    response.headers_mut().insert("x-revision", HeaderValue::from(revision.0));
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{revision}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
}

fn expectation(headers: &HeaderMap) -> Result<Expect, Diagnostic> {
    let text = |name: header::HeaderName| {
        headers.get(name).map(|value| value.to_str().unwrap_or("?").trim().trim_matches('"').to_owned())
    };
    match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        (None, None) => Ok(Expect::Any),
        (None, Some(star)) if star == "*" => Ok(Expect::Absent),
        (Some(star), None) if star == "*" => Ok(Expect::Present),
        (Some(revision), None) => revision.parse().map(|revision| Expect::Revision(Revision(revision))).map_err(|_| {
            Diagnostic::new(Code::Usage, format!("`If-Match: {}` is no revision", revision.escape_debug()))
                .hint("send the number that came in X-Revision")
        }),
        (None, Some(other)) => Err(Diagnostic::new(
            Code::Usage,
            format!("`If-None-Match: {}`: only * is understood", other.escape_debug()),
        )),
        (Some(_), Some(_)) => Err(Diagnostic::new(Code::Usage, "`If-Match` and `If-None-Match` exclude each other")),
    }
}

fn about(key: &str, diagnostic: Diagnostic) -> Diagnostic {
    if diagnostic.code == Code::NotFound { missing(key) } else { diagnostic }
}

fn missing(key: &str) -> Diagnostic {
    Diagnostic::new(Code::NotFound, format!("no key `{}`", key.escape_debug()))
}
