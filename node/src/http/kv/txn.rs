//! `POST /v1/txn`: several keys in one step.
//!
//! ```json
//! {"when": [{"key": "a", "revision": 7}, {"key": "b", "absent": true}, {"key": "c", "value": "x"}, {"session": "s42"},
//!           {"held": "lock stock", "fence": 41}],
//!  "then": [{"put": "a", "value": "1", "session": "s42", "ttl_ms": 6000}, {"get": "a"}, {"delete": "b"}],
//!  "or_else": [{"get": "a"}]}
//! ```
//!
//! Values that are no text are written in base64, with `"value_encoding": "base64"`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use axum::response::IntoResponse as _;
use bytes::Bytes;
use protocol::state::{Condition, Delete, Expect, KeyOperation, KeyResult, Put, Transaction};
use protocol::{Fence, Revision};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{document, session, set_revision};
use crate::diagnostic::{Code, Diagnostic};
use crate::http::Door;
use crate::http::json::{SCHEMA, from_base64};
use crate::http::problem::Answer;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    #[serde(default)]
    when: Vec<When>,
    #[serde(default)]
    then: Vec<Step>,
    #[serde(default)]
    or_else: Vec<Step>,
}

#[derive(Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct When {
    key: Option<String>,
    revision: Option<u64>,
    absent: bool,
    present: bool,
    value: Option<String>,
    value_encoding: Option<String>,
    session: Option<String>,
    /// A right, as claims name it; `fence` says which grant of it.
    held: Option<String>,
    fence: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Step {
    get: Option<String>,
    put: Option<String>,
    delete: Option<String>,
    value: Option<String>,
    value_encoding: Option<String>,
    revision: Option<u64>,
    absent: bool,
    session: Option<String>,
    ttl_ms: Option<u64>,
    seq: bool,
}

pub(in crate::http) async fn run(
    State(door): State<Door>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let body = body.map_err(|_| Diagnostic::new(Code::TooLarge, "a transaction is smaller than that"))?;
    let wish: Wish = serde_json::from_slice(&body).map_err(|error| malformed(format!("no transaction: {error}")))?;
    let transaction = Transaction {
        when: wish.when.into_iter().map(condition).collect::<Result<_, _>>()?,
        then: wish.then.into_iter().map(step).collect::<Result<_, _>>()?,
        or_else: wish.or_else.into_iter().map(step).collect::<Result<_, _>>()?,
    };
    let done = door.answer(door.client(&headers).kv().txn().of(transaction)).await?;
    let results: Vec<Value> = done.results.iter().map(result).collect();
    let held = done.held;
    let answer = json!({ "schema": SCHEMA, "held": held, "revision": done.revision.0, "results": results });
    let mut response = Json(answer).into_response();
    set_revision(&mut response, done.revision);
    Ok(response)
}

fn condition(when: When) -> Result<Condition, Diagnostic> {
    if let When { held: Some(right), fence: Some(fence), .. } = &when {
        let is_alone = When { held: when.held.clone(), fence: when.fence, ..When::default() } == when;
        let right = right.parse().map_err(malformed)?;
        return if is_alone { Ok(Condition::Held { right, fence: Fence(*fence) }) } else { Err(no_condition()) };
    }
    if when.held.is_some() || when.fence.is_some() {
        return Err(malformed("a right is named by `held` and its grant by `fence`".into()));
    }
    let value = when.value.map(|text| decode(text, when.value_encoding.as_deref())).transpose()?;
    match (when.key, when.session, when.revision, when.absent, when.present, value) {
        (None, Some(id), None, false, false, None) => Ok(Condition::Lives(session(&id)?)),
        (Some(key), None, Some(revision), false, false, None) => {
            Ok(Condition::Key { key, expect: Expect::Revision(Revision(revision)) })
        }
        (Some(key), None, None, true, false, None) => Ok(Condition::Key { key, expect: Expect::Absent }),
        (Some(key), None, None, false, true, None) => Ok(Condition::Key { key, expect: Expect::Present }),
        (Some(key), None, None, false, false, Some(value)) => Ok(Condition::Value { key, value }),
        _ => Err(no_condition()),
    }
}

fn no_condition() -> Diagnostic {
    malformed(
        "a condition names a session, or `held` and `fence`, or a key and one of `revision`, `absent`, `present`, `value`"
            .into(),
    )
}

fn step(step: Step) -> Result<KeyOperation, Diagnostic> {
    let expect = match (step.revision, step.absent) {
        (None, false) => Expect::Any,
        (None, true) => Expect::Absent,
        (Some(revision), false) => Expect::Revision(Revision(revision)),
        (Some(_), true) => return Err(malformed("`revision` and `absent` exclude each other".into())),
    };
    match (step.get, step.put, step.delete) {
        (Some(key), None, None) => Ok(KeyOperation::Get(key)),
        (None, None, Some(key)) => Ok(KeyOperation::Delete(Delete { key, expect })),
        (None, Some(key), None) => {
            let value = decode(step.value.unwrap_or_default(), step.value_encoding.as_deref())?;
            let owner = step.session.as_deref().map(session).transpose()?;
            let ttl = step.ttl_ms.map(Duration::from_millis);
            Ok(KeyOperation::Put(Put { expect, owner, ttl, sequence: step.seq, ..Put::new(key, value) }))
        }
        _ => Err(malformed("a step is one of `get`, `put`, `delete`".into())),
    }
}

fn result(result: &KeyResult) -> Value {
    match result {
        KeyResult::Found(Some(value)) => {
            let mut found = document("", value, true);
            if let Some(fields) = found.as_object_mut() {
                fields.remove("key");
            }
            found
        }
        KeyResult::Found(None) => Value::Null,
        KeyResult::Written(key) => json!({ "written": key }),
        KeyResult::Deleted(was_there) => json!({ "deleted": was_there }),
    }
}

fn decode(text: String, encoding: Option<&str>) -> Result<Bytes, Diagnostic> {
    match encoding {
        None | Some("utf-8") => Ok(text.into()),
        Some("base64") => from_base64(&text).map(Bytes::from).map_err(malformed),
        Some(other) => Err(malformed(format!("`{}`: only utf-8 and base64 are understood", other.escape_debug()))),
    }
}

fn malformed(why: String) -> Diagnostic {
    Diagnostic::new(Code::Usage, why)
        .hint(r#"{"when": [{"key": "a", "revision": 7}], "then": [{"put": "a", "value": "1"}]}"#)
}
