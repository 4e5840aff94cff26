//! The actor around the client, and the handle through which calls reach it.
//!
//! # Invariants
//!
//! * At most [`CALLS_MAX`] calls of a process are under way, those in the mailbox included; more are refused at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::client::{CallError, Client as Machine, Input, Work};
use protocol::effects::Event;
use protocol::state::Answer;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{Semaphore, oneshot};

use crate::links::Credit;
use crate::outlet::Outlet;
use crate::shell::Shell;

/// Makes calls to the cluster. Cheap to clone.
#[derive(Clone)]
pub struct ClientHandle {
    actor: ActorRef<Message>,
    /// A place for every call that may be under way.
    places: Arc<Semaphore>,
}

impl ClientHandle {
    pub(crate) fn new(actor: ActorRef<Message>) -> Self {
        Self { actor, places: Arc::new(Semaphore::new(CALLS_MAX)) }
    }

    /// Makes one call and waits for its result, at most `timeout`.
    ///
    /// Cancellation: dropping the future forgets the call; a write may be done nevertheless.
    ///
    /// # Errors
    ///
    /// [`CallError`] if there is no answer. An [`Answer::Refused`] is an answer.
    pub async fn call(&self, work: Work, timeout: Duration) -> Result<Answer, CallError> {
        let _place = self.places.try_acquire().map_err(|_| CallError::Busy)?;
        let never = || CallError::Deadline { maybe_applied: false, waited: Duration::ZERO, leader: None, last: None };
        let (reply, result) = oneshot::channel();
        let (number, named) = oneshot::channel();
        self.actor.cast(Message::Call { work, timeout, reply, number }).map_err(|_| never())?;
        let mut forget = Forget { actor: &self.actor, call: Some(named) };
        let result = result.await;
        forget.call = None;
        result.unwrap_or_else(|_| {
            Err(CallError::Deadline { maybe_applied: true, waited: timeout, leader: None, last: None })
        })
    }

    /// Ends the session, so that what hangs on it goes at once and not only when it expires.
    pub fn close(&self) {
        let _ = self.actor.cast(Message::Step(Input::Close, Credit::default()));
    }
}

/// Tells the actor that nobody waits any more, when the future of a call is dropped before its end.
struct Forget<'a> {
    actor: &'a ActorRef<Message>,
    call: Option<oneshot::Receiver<u64>>,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(Ok(call)) = self.call.as_mut().map(oneshot::Receiver::try_recv) {
            let _ = self.actor.cast(Message::Step(Input::Forget { call }, Credit::default()));
        }
    }
}

/// What the actor is told.
pub(crate) enum Message {
    /// An input for its machine, and what it holds of the window of the peer it came from until it was handled.
    Step(Input, Credit),
    /// A call of the application.
    Call {
        /// What to do.
        work: Work,
        /// Give up after this long.
        timeout: Duration,
        /// Where the result goes.
        reply: oneshot::Sender<Result<Answer, CallError>>,
        /// Where the number goes under which the call can be forgotten.
        number: oneshot::Sender<u64>,
    },
}

impl ractor::Message for Message {}

/// See the module.
pub(crate) struct Client;

pub(crate) struct State {
    shell: Shell<Machine>,
    waiting: HashMap<u64, oneshot::Sender<Result<Answer, CallError>>>,
    last_call: u64,
}

impl Actor for Client {
    type Msg = Message;
    type State = State;
    type Arguments = (Machine, Outlet);

    async fn pre_start(
        &self,
        _: ActorRef<Message>,
        (machine, outlet): Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        Ok(State { shell: Shell::new(machine, outlet), waiting: HashMap::new(), last_call: 0 })
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Step(input, _credit) => state.step(input),
            Message::Call { work, timeout, reply, number } => {
                state.last_call += 1;
                let call = state.last_call;
                state.waiting.insert(call, reply);
                // If the future was dropped meanwhile, the reply port is closed too and the call ends by its time-out.
                let _ = number.send(call);
                state.step(Input::Call { call, work, timeout });
            }
        }
        Ok(())
    }
}

impl State {
    fn step(&mut self, input: Input) {
        if let Input::Forget { call } = input {
            self.waiting.remove(&call);
        }
        let waiting = &mut self.waiting;
        self.shell.step(input, |event| match event {
            Event::Completed { call, result } => {
                if let Some(reply) = waiting.remove(&call) {
                    let _ = reply.send(result);
                }
            }
            Event::Note(line) => tracing::info!("{line}"),
            other => tracing::debug!(?other, "of no interest to the application"),
        });
    }
}

/// How many calls of one process may be under way: room for as many tasks to be waited for at once.
const CALLS_MAX: usize = 65_536;
