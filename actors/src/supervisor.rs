//! What happens when an actor of the node ends.
//!
//! The rule is short: none is started again. An actor that fails has met a bug, and its machine is in a state that nobody
//! has checked; a new process, which rebuilds everything from the disk and keeps the promises that it finds there, is the
//! only restart that is proven. The node therefore stops with the reason, and whoever runs it starts it again.

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::watch;

/// The reason why this node must stop; the first one counts.
#[derive(Clone, Debug)]
pub(crate) struct Fatal {
    why: watch::Sender<Option<String>>,
}

impl Fatal {
    pub(crate) fn new() -> Self {
        Self { why: watch::Sender::new(None) }
    }

    /// Stops the node.
    pub(crate) fn raise(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.why.send_if_modified(|why| {
            let is_first = why.is_none();
            if is_first {
                tracing::error!("this node must stop: {reason}");
                *why = Some(reason);
            }
            is_first
        });
    }

    /// Waits for the reason.
    pub(crate) async fn raised(&self) -> String {
        let mut watcher = self.why.subscribe();
        let why = watcher.wait_for(Option::is_some).await.expect("the sender is in self");
        why.clone().expect("waited for it")
    }
}

/// The parent of all actors of a node.
pub(crate) struct Supervisor;

/// Sent before the node stops on purpose: from then on, actors may end.
pub(crate) struct Stopping;

impl ractor::Message for Stopping {}

pub(crate) struct State {
    fatal: Fatal,
    is_stopping: bool,
}

impl Actor for Supervisor {
    type Msg = Stopping;
    type State = State;
    type Arguments = Fatal;

    async fn pre_start(&self, _: ActorRef<Stopping>, fatal: Fatal) -> Result<State, ActorProcessingErr> {
        Ok(State { fatal, is_stopping: false })
    }

    async fn handle(&self, _: ActorRef<Stopping>, _: Stopping, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.is_stopping = true;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Stopping>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(actor, error) => {
                state.fatal.raise(format!("actor {} failed: {error}", actor.get_id()));
            }
            SupervisionEvent::ActorTerminated(actor, _, reason) if !state.is_stopping => {
                let reason = reason.unwrap_or_else(|| "no reason given".into());
                state.fatal.raise(format!("actor {} ended: {reason}", actor.get_id()));
            }
            _ => {}
        }
        Ok(())
    }
}
