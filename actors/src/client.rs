//! The actor around the client, and the handle through which calls reach it.
//!
//! # Invariants
//!
//! * At most [`CALLS_MAX`] calls of a process are under way, those in the mailbox included; more are refused at once.
//! * A session that was opened for nobody, because whoever asked is gone, is ended again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::SessionId;
use protocol::client::{CallError, Client as Machine, Input, Loss, Standing, Work};
use protocol::effects::Event;
use protocol::state::{Answer, ClientEnd, OpenSession, Operation};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::clock::Clock;
use crate::links::Credit;
use crate::shell::Shell;

/// Makes calls to the cluster. Cheap to clone.
#[derive(Clone)]
pub struct ClientHandle {
    actor: ActorRef<Message>,
    /// A place for every call that may be under way.
    places: Arc<Semaphore>,
}

/// A session that is kept. Whoever holds this ends it in the end.
#[derive(Debug)]
pub struct KeptSession {
    /// Its id.
    pub id: SessionId,
    /// How it stands.
    pub standing: watch::Receiver<Standing>,
    /// The clock by which it ends.
    pub clock: Clock,
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
        let (reply, result) = oneshot::channel();
        self.ask(work, timeout, Reply::Answer(reply), result).await
    }

    /// Opens a session and keeps it; an answer instead says why there is none.
    ///
    /// Cancellation: dropping the future ends a session that was opened nevertheless.
    ///
    /// # Errors
    ///
    /// As [`ClientHandle::call`].
    pub async fn keep(
        &self,
        opening: OpenSession,
        timeout: Duration,
    ) -> Result<Result<KeptSession, Answer>, CallError> {
        let (reply, result) = oneshot::channel();
        self.ask(Work::Keep(opening), timeout, Reply::Session(reply), result).await
    }

    /// Ends a session that is kept, in the background: for the application it is over at once.
    pub fn end(&self, session: SessionId) {
        let _ = self.actor.cast(Message::End(session));
    }

    /// Ends all sessions, so that what hangs on them goes at once and not only when they expire.
    pub fn close(&self) {
        let _ = self.actor.cast(Message::Close);
    }

    async fn ask<T>(
        &self,
        work: Work,
        timeout: Duration,
        reply: Reply,
        result: oneshot::Receiver<Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let _place = self.places.try_acquire().map_err(|_| CallError::Busy)?;
        let never = || CallError::Deadline { maybe_applied: false, waited: Duration::ZERO, leader: None, last: None };
        let (number, named) = oneshot::channel();
        self.actor.cast(Message::Call { work, timeout, reply, number }).map_err(|_| never())?;
        let mut forget = Forget { actor: &self.actor, call: Some(named) };
        let result = result.await;
        forget.call = None;
        result.unwrap_or_else(|_| {
            Err(CallError::Deadline { maybe_applied: true, waited: timeout, leader: None, last: None })
        })
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
        reply: Reply,
        /// Where the number goes under which the call can be forgotten.
        number: oneshot::Sender<u64>,
    },
    /// Nobody needs this session any more.
    End(SessionId),
    /// Nobody needs anything any more.
    Close,
}

/// Where the result of a call goes.
pub(crate) enum Reply {
    /// To whoever waits for the answer as it is.
    Answer(oneshot::Sender<Result<Answer, CallError>>),
    /// To whoever opens a session.
    Session(oneshot::Sender<Result<Result<KeptSession, Answer>, CallError>>),
}

impl ractor::Message for Message {}

/// See the module.
pub(crate) struct Client;

pub(crate) struct State {
    shell: Shell<Machine>,
    waiting: HashMap<u64, Reply>,
    sessions: Sessions,
    last_call: u64,
}

/// The sessions that are kept.
#[derive(Default)]
struct Sessions {
    standing: HashMap<SessionId, watch::Sender<Standing>>,
    /// Those that were opened for nobody.
    orphans: Vec<SessionId>,
}

impl Actor for Client {
    type Msg = Message;
    type State = State;
    type Arguments = Shell<Machine>;

    async fn pre_start(&self, _: ActorRef<Message>, shell: Shell<Machine>) -> Result<State, ActorProcessingErr> {
        Ok(State { shell, waiting: HashMap::new(), sessions: Sessions::default(), last_call: 0 })
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
            Message::End(session) => state.end(session),
            Message::Close => {
                let kept: Vec<SessionId> = state.sessions.standing.keys().copied().collect();
                kept.into_iter().for_each(|session| state.end(session));
                state.step(Input::Close);
            }
        }
        Ok(())
    }
}

impl State {
    fn step(&mut self, input: Input) {
        if let Input::Forget { call } = input {
            match self.waiting.get(&call) {
                // It may be opened already: the answer says which session it is that nobody wants.
                Some(Reply::Session(_)) => return,
                _ => drop(self.waiting.remove(&call)),
            }
        }
        let Self { waiting, sessions, .. } = self;
        let clock = self.shell.outlet.clock().clone();
        self.shell.step(input, |event| match event {
            Event::Completed { call, result } => {
                if let Some(reply) = waiting.remove(&call) {
                    sessions.complete(reply, result, &clock);
                }
            }
            Event::Kept { session, until } => sessions.set(session, Standing::Until(until)),
            Event::Ended { session, why } => {
                tracing::debug!(%session, ?why, "a session is over");
                sessions.set(session, Standing::Ended(why));
            }
            Event::Note(line) => tracing::info!("{line}"),
            other => tracing::debug!(?other, "of no interest to the application"),
        });
        while let Some(session) = self.sessions.orphans.pop() {
            self.end(session);
        }
    }

    fn end(&mut self, session: SessionId) {
        // Nobody waits for the answer. Lost, the session expires: it is not renewed any more.
        self.last_call += 1;
        let work = Work::Write(Operation::EndSession { session, cause: ClientEnd::Closed });
        self.step(Input::Call { call: self.last_call, work, timeout: END_PATIENCE });
    }
}

impl Sessions {
    fn set(&mut self, session: SessionId, standing: Standing) {
        self.standing.entry(session).or_insert_with(|| watch::Sender::new(standing)).send_replace(standing);
        if matches!(standing, Standing::Ended(_)) {
            self.standing.remove(&session);
        }
    }

    fn complete(&mut self, reply: Reply, result: Result<Answer, CallError>, clock: &Clock) {
        match reply {
            Reply::Answer(reply) => drop(reply.send(result)),
            Reply::Session(reply) => {
                let opened = result.map(|answer| match answer {
                    Answer::Registered(id) => Ok(self.kept(id, clock.clone())),
                    refused => Err(refused),
                });
                if let Err(Ok(Ok(orphan))) = reply.send(opened) {
                    self.orphans.push(orphan.id);
                }
            }
        }
    }

    fn kept(&mut self, id: SessionId, clock: Clock) -> KeptSession {
        // It is said to be kept before the call completes.
        let standing = self
            .standing
            .get(&id)
            .map_or_else(|| watch::Sender::new(Standing::Ended(Loss::Silence)).subscribe(), watch::Sender::subscribe);
        KeptSession { id, standing, clock }
    }
}

/// How many calls of one process may be under way: room for as many tasks to be waited for at once.
const CALLS_MAX: usize = 65_536;

/// How long the end of a session is asked for.
const END_PATIENCE: Duration = Duration::from_secs(10);
