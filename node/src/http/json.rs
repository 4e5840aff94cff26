//! How values look in JSON: the schema `tenure/v1`.
//!
//! # Invariants
//!
//! * Bytes are shown as text where they are UTF-8 and as base64 otherwise, and a second field says which.
//! * Times carry their unit in the name; nodes are 16 hexadecimal digits; tasks are shown `t42`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::NodeId;
use protocol::state::{HistoryEvent, HistoryLine, ReleaseCause, TaskState, TaskView};
use serde_json::{Value, json};

use crate::site::{Identity, Member};

/// The name and version of all documents.
pub const SCHEMA: &str = "tenure/v1";

/// Bytes in base64.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The bytes of a base64 text.
///
/// # Errors
///
/// The sentence to show.
pub fn from_base64(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|error| format!("not base64: {error}"))
}

/// Puts bytes under `name`, and how they are written under `name_encoding`.
pub fn encoded(document: &mut Value, name: &str, bytes: &[u8]) {
    let (text, encoding) = match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), UTF_8),
        Err(_) => (base64(bytes), BASE64),
    };
    document[name] = text.into();
    document[format!("{name}_encoding")] = encoding.into();
}

/// Puts bytes under `name` as base64, which is never much longer than they are: text with many quotes or line ends may be.
pub fn coded(document: &mut Value, name: &str, bytes: &[u8]) {
    document[name] = base64(bytes).into();
    document[format!("{name}_encoding")] = BASE64.into();
}

/// The bytes that [`encoded`] or [`coded`] put under `name`.
#[must_use]
pub fn decoded(document: &Value, name: &str) -> Option<Vec<u8>> {
    let text = document[name].as_str()?;
    match document[format!("{name}_encoding")].as_str() {
        Some(BASE64) => from_base64(text).ok(),
        _ => Some(text.as_bytes().to_vec()),
    }
}

/// A task with what happened to it.
pub(crate) fn task(task: &TaskView, members: &[Member]) -> Value {
    let mut document = json!({
        "schema": SCHEMA,
        "id": task.id.to_string(),
        "kind": task.kind,
        "state": state(&task.state),
        "is_final": task.state.is_final(),
        "attempts": task.attempts,
        "once_key": task.once_key,
        "submitted_ms": task.submitted.0,
    });
    match &task.state {
        TaskState::Pending { not_before } => document["not_before_ms"] = not_before.0.into(),
        TaskState::Assigned { number, fence, node, session, since } => {
            document["attempt"] = format!("{}#{number}", task.id).into();
            document["fence"] = fence.0.into();
            document["node"] = node.to_string().into();
            document["label"] = Identity::name_of(members, *node).into();
            document["session"] = session.to_string().into();
            document["since_ms"] = since.0.into();
        }
        TaskState::Done { output, at } => {
            encoded(&mut document, "output", output);
            document["ended_ms"] = at.0.into();
        }
        TaskState::Failed { message, output, at } => {
            encoded(&mut document, "output", output);
            document["message"] = message.clone().into();
            document["ended_ms"] = at.0.into();
        }
        TaskState::Cancelled { reason, at } => {
            document["message"] = reason.clone().into();
            document["ended_ms"] = at.0.into();
        }
        TaskState::Lost { at } => {
            document["message"] =
                "it may or may not have run: its worker vanished, and it was allowed to run once".into();
            document["ended_ms"] = at.0.into();
        }
    }
    document["history"] = task.history.iter().map(|line| history(task, line, members)).collect();
    document
}

/// Where a task stands, in one word.
pub(crate) fn state(state: &TaskState) -> &'static str {
    match state {
        TaskState::Pending { .. } => "pending",
        TaskState::Assigned { .. } => "assigned",
        TaskState::Done { .. } => "done",
        TaskState::Failed { .. } => "failed",
        TaskState::Cancelled { .. } => "cancelled",
        TaskState::Lost { .. } => "lost",
    }
}

/// One event of a task's life: the parts for programs, the sentence for people.
fn history(task: &TaskView, line: &HistoryLine, members: &[Member]) -> Value {
    let attempt = format!("{}#{}", task.id, line.attempt);
    let name = |node: &NodeId| Identity::name_of(members, *node);
    let (event, text) = match &line.what {
        HistoryEvent::Assigned(node) => ("assigned", format!("{attempt} assigned to {}", name(node))),
        HistoryEvent::Released(cause) => ("released", format!("{attempt} taken back: {}", words(*cause))),
        HistoryEvent::Done => ("done", format!("{attempt} done: its result is recorded")),
        HistoryEvent::Failed(message) => ("failed", format!("{attempt} failed: {message}")),
        HistoryEvent::LateResultRefused(fence) => {
            ("late-result-refused", format!("a late result of {attempt} (fence {fence}) was refused"))
        }
        HistoryEvent::Cancelled => ("cancelled", "cancelled".to_owned()),
    };
    let mut document = json!({ "at_ms": line.at.0, "attempt": line.attempt, "event": event, "text": text });
    match &line.what {
        HistoryEvent::Assigned(node) => {
            document["node"] = node.to_string().into();
            document["label"] = name(node).into();
        }
        HistoryEvent::Released(cause) => document["cause"] = cause_name(*cause).into(),
        HistoryEvent::LateResultRefused(fence) => document["fence"] = fence.0.into(),
        HistoryEvent::Done | HistoryEvent::Failed(_) | HistoryEvent::Cancelled => {}
    }
    document
}

fn words(cause: ReleaseCause) -> &'static str {
    match cause {
        ReleaseCause::Evidence => "the worker is dead (its connection closed and a new one was refused)",
        ReleaseCause::SessionEnded => "the worker's session ended",
        ReleaseCause::NotHeld => "the worker does not hold it any more",
        ReleaseCause::TimedOut => "it ran longer than it may",
        ReleaseCause::HandedBack => "the worker handed it back",
    }
}

fn cause_name(cause: ReleaseCause) -> &'static str {
    match cause {
        ReleaseCause::Evidence => "evidence",
        ReleaseCause::SessionEnded => "session-ended",
        ReleaseCause::NotHeld => "not-held",
        ReleaseCause::TimedOut => "timed-out",
        ReleaseCause::HandedBack => "handed-back",
    }
}

/// Every word that [`state`] gives.
pub(crate) const STATES: [&str; 6] = ["pending", "assigned", "done", "failed", "cancelled", "lost"];

const UTF_8: &str = "utf-8";
const BASE64: &str = "base64";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text_and_bytes_become_base64() {
        let mut document = serde_json::json!({});
        encoded(&mut document, "output", "ü".as_bytes());
        assert_eq!(document, serde_json::json!({ "output": "ü", "output_encoding": "utf-8" }));
        encoded(&mut document, "output", &[0xff, 0]);
        assert_eq!(document["output_encoding"], "base64");
        assert_eq!(decoded(&document, "output"), Some(vec![0xff, 0]));
    }
}
