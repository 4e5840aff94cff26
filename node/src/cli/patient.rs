//! Requests that are safe to repeat, repeated until some node answers.
//!
//! [`Cluster::send`] gives a request's whole time to the node that it asks. That is right for one question; whoever follows a
//! job over minutes wants to be rid of a frozen node after seconds, and to go on at another one.
//!
//! # Invariants
//!
//! * Only reads, and writes with a once key, go this way.
//! * Every try has a bound of its own, and so has the whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Cluster, Diagnostic, Output, Request};

/// A cluster that is asked again and again. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Patient {
    cluster: Cluster,
    /// The place of the node that answered last.
    place: Arc<AtomicUsize>,
    patience: Duration,
    /// Where it is said that nobody answers, and whether it was.
    silence: Option<(Output, Arc<AtomicBool>)>,
}

impl Patient {
    /// Asks these nodes, for at most `patience` per request.
    #[must_use]
    pub fn new(cluster: Cluster, patience: Duration) -> Self {
        Self { cluster, place: Arc::default(), patience, silence: None }
    }

    /// Says so, once each time, when nobody has answered for a while.
    #[must_use]
    pub fn noting(mut self, output: Output) -> Self {
        self.silence = Some((output, Arc::default()));
        self
    }

    /// Waits until a task has ended, for as long as it takes, and returns its document.
    ///
    /// # Errors
    ///
    /// See [`Patient::send`].
    pub async fn ended(&self, task: &str) -> Result<Value, Diagnostic> {
        let path = format!("/v1/tasks/{task}?wait={}s", WAIT.as_secs());
        loop {
            let view = self.send(&Request::get(path.as_str()), WAIT + TRY).await?;
            if view["is_final"] == true {
                return Ok(view);
            }
        }
    }

    /// Reads JSON.
    ///
    /// # Errors
    ///
    /// See [`Patient::send`].
    pub async fn get(&self, path: &str) -> Result<Value, Diagnostic> {
        self.send(&Request::get(path), TRY).await
    }

    /// Posts JSON that carries once keys.
    ///
    /// # Errors
    ///
    /// See [`Patient::send`].
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Diagnostic> {
        self.send(&Request::post(path).json(body).repeatable(), TRY * 2).await
    }

    /// Asks one node after the other, `try_for` each, until one answers or the patience is over.
    async fn send(&self, request: &Request, try_for: Duration) -> Result<Value, Diagnostic> {
        let begin = Instant::now();
        let cluster = self.cluster.clone().timeout(try_for);
        let nodes = cluster.nodes();
        let mut round = 0;
        loop {
            let place = self.place.load(Ordering::Relaxed);
            let failure = match cluster.send_to(&nodes[place % nodes.len()], request.clone()).await {
                Ok(reply) => {
                    self.silence.iter().for_each(|(_, is_said)| is_said.store(false, Ordering::Relaxed));
                    return reply.json();
                }
                Err(failure) => failure,
            };
            if begin.elapsed() >= SILENCE
                && let Some((output, is_said)) = &self.silence
                && !is_said.swap(true, Ordering::Relaxed)
            {
                let left = self.patience.saturating_sub(begin.elapsed());
                output.note(format!("no node answers: {}; trying for another {left:.0?}", failure.message));
            }
            if !failure.code.is_retryable() || begin.elapsed() >= self.patience {
                return Err(failure);
            }
            // Many requests may find the same node silent: only the first one moves on.
            let next = (place + 1) % nodes.len();
            let _ = self.place.compare_exchange(place, next, Ordering::Relaxed, Ordering::Relaxed);
            round += 1;
            let pause = if round % nodes.len() == 0 { PAUSE_ROUND } else { PAUSE };
            // Lets those who wait for a frozen node come back at different times.
            tokio::time::sleep(pause + pause.mul_f64(rand::random())).await;
        }
    }
}

/// How long one question for the end of a task waits at a node.
const WAIT: Duration = Duration::from_secs(2);

/// How long a node may take for an answer, beyond what it was asked to wait.
const TRY: Duration = Duration::from_secs(2);

/// How long nobody may answer before it is said.
const SILENCE: Duration = Duration::from_secs(3);

const PAUSE: Duration = Duration::from_millis(20);

const PAUSE_ROUND: Duration = Duration::from_millis(150);
