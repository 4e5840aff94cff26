//! The routes under `/v1/tasks`.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use protocol::TaskId;
use protocol::state::{Delivery, Operation, TaskSpec};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Door;
use super::json::{self, SCHEMA, from_base64};
use super::problem::Answer;
use super::query::Query;
use crate::diagnostic::{Code, Diagnostic};
use crate::parse;

/// A task as a request describes it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewTask {
    kind: String,
    /// Any JSON: the handler sees its text.
    payload: Option<Value>,
    payload_text: Option<String>,
    payload_base64: Option<String>,
    delivery: Option<String>,
    retries: Option<u32>,
    backoff_ms: Option<u64>,
    timeout_ms: Option<u64>,
    priority: Option<i32>,
    once_key: Option<String>,
    keep_ms: Option<u64>,
    #[serde(default)]
    needs: BTreeMap<String, String>,
    /// Accept a kind that no live node has a handler for.
    #[serde(default)]
    queue: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    tasks: Vec<NewTask>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancel {
    #[serde(default)]
    reason: String,
}

pub(super) async fn submit(
    State(door): State<Door>,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Answer {
    let mut task: NewTask = parsed(body)?;
    if let Some(key) = headers.get("idempotency-key") {
        let key = key.to_str().map_err(|_| Diagnostic::new(Code::Usage, "the Idempotency-Key is no text"))?;
        task.once_key = Some(key.to_owned());
    }
    let once_key = task.once_key.clone();
    let spec = door.spec(task).await?;
    let submitted = door.answer(door.client(&headers).submit_all(vec![spec])).await?;
    let first = submitted.first().ok_or_else(|| Diagnostic::new(Code::Internal, "the cluster recorded no task"))?;
    let status = if first.fresh { StatusCode::CREATED } else { StatusCode::OK };
    let document =
        json!({ "schema": SCHEMA, "id": first.task.to_string(), "fresh": first.fresh, "once_key": once_key });
    Ok((status, [("location", format!("/v1/tasks/{}", first.task))], Json(document)).into_response())
}

pub(super) async fn submit_batch(
    State(door): State<Door>,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Answer {
    let batch: Batch = parsed(body)?;
    if batch.tasks.is_empty() || batch.tasks.len() > BATCH_MAX {
        return Err(Diagnostic::new(
            Code::Invalid,
            format!("a batch has 1 to {BATCH_MAX} tasks, not {}", batch.tasks.len()),
        ));
    }
    let mut specs = Vec::with_capacity(batch.tasks.len());
    for (place, task) in batch.tasks.into_iter().enumerate() {
        specs.push(
            door.spec(task)
                .await
                .map_err(|why| Diagnostic { message: format!("task {place} of the batch: {}", why.message), ..why })?,
        );
    }
    let bytes: usize = specs.iter().map(|spec| spec.payload.len()).sum();
    if bytes > protocol::wire::MAX_VALUE {
        return Err(too_large("the payloads of the batch together", bytes).hint("send smaller batches"));
    }
    let submitted = door.answer(door.client(&headers).submit_all(specs)).await?;
    let tasks: Vec<Value> =
        submitted.iter().map(|one| json!({ "id": one.task.to_string(), "fresh": one.fresh })).collect();
    Ok((StatusCode::CREATED, Json(json!({ "schema": SCHEMA, "tasks": tasks }))).into_response())
}

pub(super) async fn list(State(door): State<Door>, headers: HeaderMap, RawQuery(query): RawQuery) -> Answer {
    let query = Query::parse(query.as_deref(), &["after", "before", "newest", "limit", "state"])?;
    let (after, before) = (query.task("after")?, query.task("before")?);
    let is_newest_first = query.flag("newest") || before.is_some();
    if after.is_some() && is_newest_first {
        return Err(Diagnostic::new(Code::Usage, "`after` is said of the oldest tasks, `before` of the newest"));
    }
    let mut last = after.or(before);
    let limit = query.number("limit")?.unwrap_or(100).clamp(1, LIST_MAX);
    let state = query.text("state");
    if let Some(state) = state
        && !json::STATES.contains(&state)
    {
        return Err(Diagnostic::new(Code::Usage, format!("no state `{}`", state.escape_debug()))
            .hint(format!("the states are {}", json::STATES.join(", "))));
    }
    let client = door.client(&headers);
    let members = door.site.members();
    let mut shown = Vec::new();
    let mut is_more = false;
    // With a filter, many records may be passed over; the scan is bounded, and `next` says where to go on.
    for _ in 0..SCANS_MAX {
        let page = if is_newest_first {
            door.answer(client.newest_tasks(last, limit)).await?
        } else {
            door.answer(client.tasks(last.unwrap_or_default(), limit)).await?
        };
        // A page ends early where results are large; only an empty one is the end.
        is_more = !page.is_empty();
        for task in page {
            last = Some(task.id);
            if state.is_none_or(|state| json::state(&task.state) == state) {
                shown.push(json::task(&task, &members));
            }
            if shown.len() == limit as usize {
                break;
            }
        }
        if !is_more || shown.len() == limit as usize {
            break;
        }
    }
    let next = last.filter(|_| is_more).map(|last| last.to_string());
    Ok(Json(json!({ "schema": SCHEMA, "tasks": shown, "next": next })).into_response())
}

pub(super) async fn show(
    State(door): State<Door>,
    headers: HeaderMap,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    let id = task_id(&id)?;
    let query = Query::parse(query.as_deref(), &["wait"])?;
    let wait = query.duration("wait")?.unwrap_or_default().min(WAIT_MAX);
    let client = door.client(&headers);
    let task = tokio::select! {
        task = door.answer(client.wait(id, wait)) => task,
        // A node that stops answers with what it knows, so that the asker can go on at another one.
        () = door.stopping.cancelled() => door.answer(client.wait(id, Duration::ZERO)).await,
    }
    .map_err(|error| about(id, error))?;
    Ok(Json(json::task(&task, &door.site.members())).into_response())
}

pub(super) async fn cancel(
    State(door): State<Door>,
    headers: HeaderMap,
    Path(id): Path<String>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Answer {
    let id = task_id(&id)?;
    let body = body.map_err(|rejection| Diagnostic::new(Code::TooLarge, rejection.body_text()))?;
    let Cancel { reason } = if body.is_empty() { Cancel::default() } else { from_json(&body)? };
    let client = door.client(&headers);
    let answer =
        door.answer(client.write(Operation::Cancel { task: id, reason })).await.map_err(|error| about(id, error))?;
    let task = match answer {
        protocol::state::Answer::Task(task) => *task,
        _ => door.answer(client.wait(id, Duration::ZERO)).await?,
    };
    Ok(Json(json::task(&task, &door.site.members())).into_response())
}

impl Door {
    /// Checks a described task and fills in what was left out.
    async fn spec(&self, task: NewTask) -> Result<TaskSpec, Diagnostic> {
        if !task.queue {
            self.kinds.check(&*self.site, &task.kind).await?;
        }
        let payload = payload(&task)?;
        if payload.len() > protocol::wire::MAX_VALUE {
            return Err(too_large("the payload", payload.len()));
        }
        let mut spec = TaskSpec::new(task.kind, payload);
        spec.delivery = match task.delivery.as_deref() {
            None | Some("at-least-once") => Delivery::AtLeastOnce,
            Some("at-most-once") => {
                spec.retries = 0;
                Delivery::AtMostOnce
            }
            Some(other) => {
                return Err(Diagnostic::new(Code::Invalid, format!("no delivery `{}`", other.escape_debug()))
                    .hint("it is `at-least-once` or `at-most-once`"));
            }
        };
        spec.retries = task.retries.unwrap_or(spec.retries);
        spec.backoff = task.backoff_ms.map_or(spec.backoff, Duration::from_millis);
        spec.timeout = task.timeout_ms.map_or(spec.timeout, Duration::from_millis);
        spec.keep = task.keep_ms.map_or(spec.keep, Duration::from_millis);
        spec.priority = task.priority.unwrap_or(spec.priority);
        spec.once_key = task.once_key;
        spec.needs = task.needs;
        Ok(spec)
    }
}

fn payload(task: &NewTask) -> Result<Vec<u8>, Diagnostic> {
    match (&task.payload, &task.payload_text, &task.payload_base64) {
        (None, None, None) => Ok(Vec::new()),
        (Some(value), None, None) => Ok(value.to_string().into_bytes()),
        (None, Some(text), None) => Ok(text.clone().into_bytes()),
        (None, None, Some(text)) => {
            from_base64(text).map_err(|why| Diagnostic::new(Code::Invalid, format!("`payload_base64` is {why}")))
        }
        _ => Err(Diagnostic::new(Code::Invalid, "give one of `payload`, `payload_text` and `payload_base64`")),
    }
}

pub(super) fn parsed<T: serde::de::DeserializeOwned>(
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<T, Diagnostic> {
    let body = body.map_err(|_| {
        Diagnostic::new(Code::TooLarge, format!("the body is larger than {} bytes", super::BODY_MAX))
            .hint("send smaller batches; store large payloads elsewhere and pass a reference")
    })?;
    from_json(&body)
}

fn from_json<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Diagnostic> {
    serde_json::from_slice(body).map_err(|error| {
        let what = if error.is_data() { "the JSON does not fit" } else { "the body is no JSON" };
        let code = if error.is_data() { Code::Invalid } else { Code::MalformedJson };
        Diagnostic::new(code, format!("{what}: {error}")).hint(r#"for example {"kind": "tenure.echo", "payload": 1}"#)
    })
}

fn too_large(what: &str, len: usize) -> Diagnostic {
    Diagnostic::new(Code::TooLarge, format!("{what}: {len} bytes exceed the limit of {}", protocol::wire::MAX_VALUE))
        .hint("store it elsewhere and pass a reference")
}

fn task_id(text: &str) -> Result<TaskId, Diagnostic> {
    parse::task(text).map_err(|why| Diagnostic::new(Code::Usage, why))
}

fn about(id: TaskId, diagnostic: Diagnostic) -> Diagnostic {
    if diagnostic.code != Code::NotFound {
        return diagnostic;
    }
    Diagnostic { message: format!("no task {id}"), ..diagnostic }
        .hint("it was never recorded, or its record was kept for its time and is gone")
}

const BATCH_MAX: usize = 1000;
const LIST_MAX: u32 = 1000;
const SCANS_MAX: usize = 10;

/// Longer waits are asked again: a connection that is silent for longer is cut somewhere anyway.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(60);
