//! Commands on their way into one entry.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::client::Origin;
use crate::state::{Command, MasterCommand, Operation, Outcome, TaskEffect};
use crate::types::NodeId;
use crate::wire::{self, WireError};

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Waiter {
    /// The request.
    pub(super) origin: Origin,
    /// Who gets the answer: the client itself or the node that forwards.
    pub(super) from: NodeId,
}

/// A waiter and the place of its command in the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Placed {
    /// Counted from zero.
    pub(super) place: usize,
    /// Who waits.
    pub(super) waiter: Waiter,
}

/// Commands that wait for their entry, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Batch {
    waiting: VecDeque<(Command, usize, Option<Waiter>)>,
    bytes: usize,
}

/// Why a command was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Too much waits already.
    Batch,
    /// This one alone is too large.
    Command {
        /// About how large it is.
        len: u64,
    },
}

impl Batch {
    /// Adds a command, and whoever waits for its answer.
    pub(super) fn push(&mut self, command: Command, waiter: Option<Waiter>) -> Result<(), Full> {
        let size = size_of(&command);
        if size > wire::MAX_COMMAND {
            return Err(Full::Command { len: size as u64 });
        }
        if self.bytes + size > WAITING_MAX {
            return Err(Full::Batch);
        }
        self.bytes += size;
        self.waiting.push_back((command, size, waiter));
        Ok(())
    }

    /// Says whether an entry should be made now: when nothing of ours is on its way to the disk, or when enough has gathered.
    pub(super) fn is_ready(&self, is_store_busy: bool) -> bool {
        !self.waiting.is_empty() && (!is_store_busy || self.bytes >= ENTRY_SIZE)
    }

    /// Takes as many commands as belong into one entry: its payload, and who waits for which place of it.
    pub(super) fn take(&mut self) -> (Bytes, Vec<Placed>) {
        let mut commands = Vec::new();
        let mut waiters = Vec::new();
        let mut taken = 0;
        while let Some((_, size, _)) = self.waiting.front() {
            if taken > 0 && taken + size > ENTRY_SIZE {
                break;
            }
            let (command, size, waiter) = self.waiting.pop_front().expect("seen above");
            taken += size;
            waiters.extend(waiter.map(|waiter| Placed { place: commands.len(), waiter }));
            commands.push(command);
        }
        self.bytes -= taken;
        let mut payload = wire::encode(&commands, wire::MAX_MESSAGE).expect("the size was checked when it was taken");
        // The log holds it for a while.
        payload.shrink_to_fit();
        (Bytes::from(payload), waiters)
    }

    /// Forgets everything and hands back who waited.
    pub(super) fn clear(&mut self) -> Vec<Waiter> {
        self.bytes = 0;
        self.waiting.drain(..).filter_map(|(_, _, waiter)| waiter).collect()
    }
}

/// The commands of an entry.
pub(super) fn decode(payload: &[u8]) -> Result<Vec<Command>, WireError> {
    wire::decode(payload, wire::MAX_MESSAGE)
}

/// An upper bound of a command's encoding, in bytes.
fn size_of(command: &Command) -> usize {
    const FIXED: usize = 64;
    FIXED
        + match command {
            Command::Register { .. } | Command::Expire { .. } => 0,
            Command::Renew { sessions } => sessions.len() * 10,
            Command::Client { operation, .. } => size_of_operation(operation),
            Command::Master(decision) => size_of_decision(decision),
        }
}

fn size_of_operation(operation: &Operation) -> usize {
    match operation {
        Operation::Submit(tasks) => tasks
            .iter()
            .map(|task| {
                let needs: usize = task.needs.iter().map(|(key, value)| key.len() + value.len() + 10).sum();
                let key = task.once_key.as_ref().map_or(0, String::len);
                160 + task.kind.len() + task.payload.len() + needs + key
            })
            .sum(),
        Operation::Cancel { reason, .. } => reason.len(),
        Operation::Put(put) => put.size(),
        Operation::Delete(delete) => 20 + delete.key.len(),
        Operation::Transact(transaction) => transaction.size(),
        Operation::OpenSession(opening) => opening.about.label.len(),
        Operation::Right(operation) => operation.size(),
        Operation::Counter(operation) => operation.size(),
        Operation::Close | Operation::EndSession { .. } | Operation::Roster(_) => 0,
    }
}

fn size_of_decision(decision: &MasterCommand) -> usize {
    match decision {
        MasterCommand::OpenNode { offer, .. } => {
            let kinds: usize = offer.kinds.iter().map(|kind| kind.len() + 5).sum();
            let labels: usize = offer.labels.iter().map(|(key, value)| key.len() + value.len() + 10).sum();
            offer.label.len() + kinds + labels
        }
        MasterCommand::Finish { outcome: Outcome::Done { output, effects }, .. } => {
            output.len() + effects.iter().map(TaskEffect::size).sum::<usize>()
        }
        MasterCommand::Finish { outcome: Outcome::Failed { message, output, .. }, .. } => message.len() + output.len(),
        MasterCommand::EndNode { .. }
        | MasterCommand::EndReleased(_)
        | MasterCommand::Assign { .. }
        | MasterCommand::AssignSubmitted { .. }
        | MasterCommand::Release { .. } => 0,
    }
}

/// How large an entry of several commands may become, in bytes: an Append carries one whole (F14).
const ENTRY_SIZE: usize = 192 * 1024;

/// How much may wait for an entry, in bytes; more is `Busy`.
const WAITING_MAX: usize = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{
        Add, Claim, Condition, CounterOperation, Delete, Expect, KeyOperation, Mode, Put, RightId, RightKind,
        RightOperation, Transaction,
    };
    use crate::types::{ClaimId, Fence, Revision, Seq, SessionId};

    fn put(len: usize) -> Command {
        Command::Client {
            session: SessionId(u64::MAX),
            seq: Seq(u64::MAX),
            first_incomplete: Seq(u64::MAX),
            operation: Operation::Put(Put::new("k", vec![7; len])),
        }
    }

    fn waiter(number: u64) -> Waiter {
        Waiter { origin: Origin { node: NodeId(1), number, turn: 1 }, from: NodeId(1) }
    }

    #[test]
    fn a_command_goes_alone_while_the_store_is_idle_and_gathers_while_it_is_busy() {
        let mut batch = Batch::default();
        batch.push(put(10), Some(waiter(1))).unwrap();
        assert!(batch.is_ready(false));
        assert!(!batch.is_ready(true));
        batch.push(put(ENTRY_SIZE), None).unwrap();
        assert!(batch.is_ready(true), "enough has gathered");
    }

    #[test]
    fn an_entry_is_cut_at_its_size_but_holds_one_command_of_any() {
        let mut batch = Batch::default();
        for number in 0..4 {
            batch.push(put(ENTRY_SIZE - 1000), Some(waiter(number))).unwrap();
        }
        let (payload, waiters) = batch.take();
        assert_eq!(decode(&payload).unwrap().len(), 1);
        assert_eq!(waiters, [Placed { place: 0, waiter: waiter(0) }]);
        assert_eq!(batch.clear(), [waiter(1), waiter(2), waiter(3)]);
        assert!(!batch.is_ready(false));
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_waits() {
        let mut batch = Batch::default();
        assert!(matches!(batch.push(put(wire::MAX_COMMAND), None), Err(Full::Command { .. })));
        while batch.push(put(1024 * 1024), None).is_ok() {}
        assert_eq!(batch.push(put(1024 * 1024), None), Err(Full::Batch));
    }

    #[test]
    fn the_estimate_bounds_the_encoding() {
        let most = Expect::Revision(Revision(u64::MAX));
        let (owner, ttl) = (Some(SessionId(u64::MAX)), Some(std::time::Duration::MAX));
        let put_all = Put { expect: most, owner, ttl, sequence: true, ..Put::new("k", "v") };
        let delete = Delete { key: "k".into(), expect: most };
        let right = RightId::new(RightKind::Queue, "r");
        let claim = RightOperation::Claim(Claim {
            right: right.clone(),
            session: SessionId(u64::MAX),
            mode: Mode::Permits { count: u32::MAX, limit: u32::MAX },
            value: "v".into(),
            wait: true,
        });
        let (session, last) = (SessionId(u64::MAX), ClaimId(u64::MAX));
        let settle = RightOperation::Settle { right: right.clone(), session, claim: last, outcome: "o".into() };
        let push = RightOperation::Push { queue: "q".into(), value: "v".into(), priority: i32::MIN };
        let add = CounterOperation::Add(Add { counter: "n".into(), by: i64::MIN, once: Some("m".into()) });
        let transaction = Transaction {
            when: vec![
                Condition::Key { key: "k".into(), expect: most },
                Condition::Value { key: "k".into(), value: "v".into() },
                Condition::Lives(SessionId(u64::MAX)),
                Condition::Held { right: right.clone(), fence: Fence(u64::MAX) },
            ],
            then: vec![KeyOperation::Put(put_all.clone()), KeyOperation::Get("k".into())],
            or_else: vec![KeyOperation::Delete(delete.clone())],
        };
        let client = |operation| Command::Client {
            session: SessionId(u64::MAX),
            seq: Seq(u64::MAX),
            first_incomplete: Seq(u64::MAX),
            operation,
        };
        let commands = [
            put(0),
            put(1000),
            client(Operation::Put(put_all)),
            client(Operation::Delete(delete)),
            client(Operation::Transact(transaction)),
            client(Operation::Right(claim)),
            client(Operation::Right(settle)),
            client(Operation::Right(push)),
            client(Operation::Counter(add)),
            Command::Renew { sessions: vec![SessionId(u64::MAX); 100] },
        ];
        for command in commands {
            let encoded = wire::encode(&command, wire::MAX_MESSAGE).unwrap().len();
            assert!(encoded <= size_of(&command), "{command:?} takes {encoded}");
        }
    }
}
