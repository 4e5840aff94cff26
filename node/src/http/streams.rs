//! Answers that go on: server-sent events, of which a node serves a bounded number at a time.

use std::convert::Infallible;
use std::sync::Arc;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::{Stream, StreamExt as _};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::diagnostic::{Code, Diagnostic};

/// Room for the streams of a node. Cheap to clone.
#[derive(Clone)]
pub(super) struct Streams {
    places: Arc<Semaphore>,
    stopping: CancellationToken,
}

/// Room for one stream, which is given back when the stream has ended or nobody listens any more.
pub(super) struct Place {
    place: OwnedSemaphorePermit,
    stopping: CancellationToken,
}

impl Streams {
    /// Streams that end when the node stops.
    pub(super) fn new(stopping: CancellationToken) -> Self {
        Self { places: Arc::new(Semaphore::new(STREAMS_MAX)), stopping }
    }

    /// Room for one more.
    pub(super) fn take(&self) -> Result<Place, Diagnostic> {
        match self.places.clone().try_acquire_owned() {
            Ok(place) => Ok(Place { place, stopping: self.stopping.clone() }),
            Err(_) => Err(Diagnostic::new(Code::Busy, format!("this node serves {STREAMS_MAX} streams already"))
                .hint("ask another node, or ask with `wait=30s`, again and again")),
        }
    }
}

impl Place {
    /// Answers with these events.
    pub(super) fn respond(self, events: impl Stream<Item = Event> + Send + 'static) -> Response {
        let Self { place, stopping } = self;
        let events = events.map(move |event| {
            let _held = &place;
            Ok::<_, Infallible>(event)
        });
        let events = events.take_until(async move { stopping.cancelled().await });
        Sse::new(events).keep_alive(KeepAlive::default()).into_response()
    }
}

/// An event with a JSON document.
pub(super) fn named(name: &str, document: &Value) -> Event {
    Event::default().event(name).data(document.to_string())
}

/// How many streams a node serves at a time: a browser has at most six, a node a thread for all of them.
pub(super) const STREAMS_MAX: usize = 256;
