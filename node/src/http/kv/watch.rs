//! What happens to keys, as events of a stream or one answer at a time.
//!
//! `?watch` answers with server-sent events; the last one of a revision has it as its id, so that a browser that reconnects goes on where it
//! was. `?watch&wait=` answers once, with what happened after `from` or, when the wait is over, with nothing and where to go on.

use std::time::Duration;

use axum::Json;
use axum::http::HeaderMap;
use axum::response::IntoResponse as _;
use axum::response::sse::Event;
use futures_util::{StreamExt as _, stream};
use protocol::Revision;
use protocol::state::{Changes, KeyEnd, KeyEvent};
use serde_json::{Value, json};

use super::{document, number};
use crate::diagnostic::Diagnostic;
use crate::error::Error;
use crate::http::json::SCHEMA;
use crate::http::problem::Answer;
use crate::http::query::Query;
use crate::http::streams::named;
use crate::http::{Door, tasks};
use crate::kv::{Page, Told, WatchEvent};

pub(super) async fn watch(door: &Door, prefix: &str, query: &Query, headers: &HeaderMap) -> Answer {
    let from = begin(query, headers)?;
    if let Some(wait) = query.duration("wait")? {
        return once(door, prefix, from, wait.min(tasks::WAIT_MAX), headers).await;
    }
    let place = door.streams.take()?;
    let mut watching = door.client(headers).kv().watch(prefix);
    if let Some(revision) = from {
        watching = watching.from(revision);
    }
    let has_snapshot = query.flag("snapshot");
    if has_snapshot {
        watching = watching.with_snapshot();
    }
    let watch = door.answer(watching).await?;
    let mut teller = Teller { has_snapshot, begun: None };
    Ok(place.respond(watch.told().flat_map(move |event| stream::iter(teller.events(event)))))
}

/// One answer: what happened, or nothing.
async fn once(door: &Door, prefix: &str, from: Option<Revision>, wait: Duration, headers: &HeaderMap) -> Answer {
    let client = door.client(headers);
    let after = match from {
        Some(revision) => revision,
        None => newest(door, headers).await?,
    };
    let told = tokio::select! {
        told = client.changes(prefix, after, wait) => told,
        () = door.stopping.cancelled() => Ok(Changes { changes: Vec::new(), next: after }),
    };
    let told = match told {
        Ok(told) => told,
        // Nothing is wrong with keys to which nothing happens; whether anything else is, the question tells.
        Err(Error::NoQuorum { .. }) => {
            newest(door, headers).await?;
            Changes { changes: Vec::new(), next: after }
        }
        Err(error) => return Err(error.into()),
    };
    let changes: Vec<Value> = told
        .changes
        .into_iter()
        .map(|change| match change.what {
            KeyEvent::Put(value) => document(&change.key, &value, true),
            KeyEvent::Deleted(why) => gone(&change.key, why, change.revision),
        })
        .collect();
    Ok(Json(json!({ "schema": SCHEMA, "changes": changes, "next": told.next.0 })).into_response())
}

/// The newest revision that is acknowledged.
async fn newest(door: &Door, headers: &HeaderMap) -> Result<Revision, Diagnostic> {
    Ok(door.answer(door.client(headers).kv().list("").keys_only().limit(1)).await?.revision)
}

/// Turns what a watch tells into events. The id of an event is where whoever reconnects goes on.
struct Teller {
    has_snapshot: bool,
    /// The revision of the first page of the snapshot under way: what has happened since is not in that page.
    begun: Option<Revision>,
}

impl Teller {
    fn events(&mut self, told: Result<Told, Error>) -> Vec<Event> {
        let Told { event, is_last } = match told {
            Ok(told) => told,
            Err(error) => return vec![named("problem", &Diagnostic::from(error).to_problem())],
        };
        let (event, revision, is_last) = match event {
            WatchEvent::Snapshot(page) => return self.page(page),
            // Whoever reconnects between two of a revision needs both.
            WatchEvent::Put { key, value } => (named("put", &document(&key, &value, true)), value.modified, is_last),
            WatchEvent::Delete { key, why, revision } => {
                (named("delete", &gone(&key, why, revision)), revision, is_last)
            }
            WatchEvent::Progress { revision } => {
                (named("progress", &json!({ "revision": revision.0 })), revision, true)
            }
            // Where a snapshot follows, only that is something to go on from.
            WatchEvent::Resync { revision } => {
                (named("resync", &json!({ "revision": revision.0 })), revision, !self.has_snapshot)
            }
        };
        vec![if is_last { event.id(revision.to_string()) } else { event }]
    }

    /// An event for each key, without an id before the last one: whoever reconnects in the middle needs all of it.
    fn page(&mut self, page: Page) -> Vec<Event> {
        let begun = *self.begun.get_or_insert(page.revision);
        let keys = page.entries.iter().map(|(key, value)| named("snapshot", &document(key, value, true)));
        let mut events: Vec<Event> = keys.collect();
        if !page.more {
            self.begun = None;
            events.push(named("snapshot-end", &json!({ "revision": page.revision.0 })).id(begun.to_string()));
        }
        events
    }
}

fn gone(key: &str, why: KeyEnd, revision: Revision) -> Value {
    let why = match why {
        KeyEnd::Deleted => "deleted",
        KeyEnd::SessionEnded => "session-ended",
        KeyEnd::Expired => "expired",
    };
    json!({ "key": key, "revision": revision.0, "deleted": why })
}

/// Where to begin: a browser that comes back says so, with the address that it had at first, or the query.
fn begin(query: &Query, headers: &HeaderMap) -> Result<Option<Revision>, Diagnostic> {
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    last.or(query.text("from")).map(|text| number(text).map(Revision)).transpose()
}
