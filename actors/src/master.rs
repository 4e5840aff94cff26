//! The actor around the master: which attempt goes to which worker.

use protocol::effects::Event;
use protocol::master::{Input, Mastership};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::links::Credit;
use crate::shell::Shell;

/// An input for its machine, and what it holds of the window of the peer it came from until it was handled.
pub(crate) struct Message(pub(crate) Input, pub(crate) Credit);

impl ractor::Message for Message {}

/// See the module.
pub(crate) struct Master;

impl Actor for Master {
    type Msg = Message;
    type State = Shell<Mastership>;
    type Arguments = Shell<Mastership>;

    async fn pre_start(
        &self,
        _: ActorRef<Message>,
        shell: Shell<Mastership>,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(shell)
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        Message(input, _credit): Message,
        shell: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        shell.step(input, |event| match event {
            Event::Note(line) => tracing::info!("{line}"),
            other => tracing::debug!(?other, "of no interest to the application"),
        });
        Ok(())
    }
}
