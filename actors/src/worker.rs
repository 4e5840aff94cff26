//! The actor around the worker: which attempts run here. What runs them is the application's [`Executor`].

use std::sync::Arc;

use protocol::Fence;
use protocol::effects::{Event, Local};
use protocol::state::Outcome;
use protocol::worker::{AbortCause, Input, Run, Worker as Machine};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use crate::links::Credit;
use crate::outlet::Outlet;
use crate::shell::Shell;

/// Runs attempts. Both methods return at once: what they begin goes on elsewhere, so that no handler can hold up a heartbeat.
pub trait Executor: Send + Sync + 'static {
    /// Begins an attempt and says through `done` how it ended.
    fn start(&self, run: Run, done: Done);
    /// Ends an attempt: its right is over. What it reports from here on is ignored.
    fn abort(&self, fence: Fence, why: AbortCause);
}

/// The way back from one attempt. Dropped without a word, the attempt has failed.
pub struct Done {
    fence: Fence,
    outlet: Option<Outlet>,
}

impl Done {
    /// Reports how the attempt ended.
    pub fn finish(mut self, outcome: Outcome) {
        self.report(outcome);
    }

    fn report(&mut self, outcome: Outcome) {
        if let Some(outlet) = self.outlet.take() {
            outlet.deliver(Local::Worker(Input::Finished { fence: self.fence, outcome }));
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        self.report(Outcome::Failed {
            message: "the handler ended without a result".into(),
            retry: true,
            output: bytes::Bytes::new(),
        });
    }
}

/// An input for its machine, and what it holds of the window of the peer it came from until it was handled.
pub(crate) struct Message(pub(crate) Input, pub(crate) Credit);

impl ractor::Message for Message {}

/// See the module.
pub(crate) struct Worker;

pub(crate) struct State {
    shell: Shell<Machine>,
    executor: Arc<dyn Executor>,
    /// Becomes true when a drained worker holds nothing any more.
    is_idle: watch::Sender<bool>,
}

impl Actor for Worker {
    type Msg = Message;
    type State = State;
    type Arguments = (Shell<Machine>, Arc<dyn Executor>, watch::Sender<bool>);

    async fn pre_start(
        &self,
        _: ActorRef<Message>,
        (shell, executor, is_idle): Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        Ok(State { shell, executor, is_idle })
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        Message(input, _credit): Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let (executor, outlet) = (&state.executor, state.shell.outlet.clone());
        state.shell.step(input, |event| match event {
            Event::Start(run) => {
                tracing::debug!(attempt = %run.grant.attempt, fence = %run.grant.fence, kind = run.grant.kind, "starts");
                let done = Done { fence: run.grant.fence, outlet: Some(outlet.clone()) };
                executor.start(run, done);
            }
            Event::Abort { attempt, fence, why } => {
                tracing::info!(%attempt, %fence, ?why, "attempt stopped");
                executor.abort(fence, why);
            }
            Event::Drained => drop(state.is_idle.send_replace(true)),
            Event::Note(line) => tracing::info!("{line}"),
            other => tracing::debug!(?other, "of no interest to the application"),
        });
        Ok(())
    }
}
