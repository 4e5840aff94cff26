//! The routes under `/v1/kv`.
//!
//! A value is the body, as it is. Its revision stands in `X-Revision`; a write with `If-Match: REVISION` is done only if the
//! key is still there, one with `If-None-Match: *` only if there is none.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use protocol::Revision;
use protocol::state::Expect;
use serde_json::json;

use super::Door;
use super::json::{SCHEMA, encoded};
use super::problem::Answer;
use super::query::Query;
use crate::diagnostic::{Code, Diagnostic};
use crate::error::Error;

pub(super) async fn read(
    State(door): State<Door>,
    Path(key): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let query = Query::parse(query.as_deref(), &["stale"])?;
    let kv = door.client(&headers).kv();
    let value = match query.flag("stale") {
        true => door.answer(kv.get_stale(&key)).await,
        false => door.answer(kv.get(&key)).await,
    };
    let value = value?.ok_or_else(|| missing(&key))?;
    let wants_json =
        headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"application/json"));
    let mut response = if wants_json {
        let mut document =
            json!({ "schema": SCHEMA, "key": key, "revision": value.modified.0, "created": value.created.0 });
        encoded(&mut document, "value", &value.value);
        Json(document).into_response()
    } else {
        // A stored page must not run as one in somebody's browser.
        let headers = [("content-type", "application/octet-stream"), ("x-content-type-options", "nosniff")];
        (headers, value.value).into_response()
    };
    set_revision(&mut response, value.modified);
    response.headers_mut().insert("x-created-revision", HeaderValue::from(value.created.0));
    Ok(response)
}

pub(super) async fn write(
    State(door): State<Door>,
    Path(key): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let expect = expectation(&headers)?;
    let value = match body {
        Ok(value) if value.len() <= protocol::wire::MAX_VALUE => value,
        Ok(value) => {
            return Err(Error::TooLarge { len: value.len() as u64, limit: protocol::wire::MAX_VALUE as u64 }.into());
        }
        Err(_) => {
            return Err(Diagnostic::new(
                Code::TooLarge,
                format!("a value has at most {} bytes", protocol::wire::MAX_VALUE),
            )
            .hint("store it elsewhere and put a reference"));
        }
    };
    let revision = door
        .answer(door.client(&headers).kv().put_if(&key, value, expect))
        .await
        .map_err(|error| about(&key, error))?;
    Ok(written(&key, revision))
}

pub(super) async fn remove(State(door): State<Door>, Path(key): Path<String>, headers: HeaderMap) -> Answer {
    let expect = expectation(&headers)?;
    let revision =
        door.answer(door.client(&headers).kv().delete_if(&key, expect)).await.map_err(|error| about(&key, error))?;
    Ok(written(&key, revision))
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
