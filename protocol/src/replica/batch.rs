//! Commands on their way into one entry.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::client::Origin;
use crate::state::limits::COMMAND_BYTES;
use crate::state::{Command, MasterCommand};
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

/// Commands that wait for their entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Batch {
    /// What keeps rights and nodes alive, and what the master decided. It goes first, also while no more of the rest is taken.
    urgent: Lane,
    /// What clients ask for, and the grants that belong to it.
    asked: Lane,
}

/// Some of them, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Lane {
    waiting: VecDeque<(Command, usize, Option<Waiter>)>,
    bytes: usize,
}

/// What becomes of one entry.
#[derive(Debug)]
pub(super) struct Taken {
    /// The commands.
    pub(super) payload: Bytes,
    /// What is to be remembered of them.
    pub(super) proposed: Proposed,
}

/// What is known of an entry on its way into the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Proposed {
    /// Who waits for which place of it.
    pub(super) waiters: Vec<Placed>,
    /// Whether anything in it was decided by the master.
    pub(super) has_decisions: bool,
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
        let lane = if is_urgent(&command) { &mut self.urgent } else { &mut self.asked };
        // A grant belongs to what waits already, and there are few of them.
        if lane.bytes + size > WAITING_MAX && !matches!(command, Command::Master(MasterCommand::AssignSubmitted { .. }))
        {
            return Err(Full::Batch);
        }
        lane.bytes += size;
        lane.waiting.push_back((command, size, waiter));
        Ok(())
    }

    /// Says whether an entry should be made now: when nothing of ours is on its way to the disk, or when enough has gathered. While
    /// the log has no room, only what is urgent counts.
    pub(super) fn is_ready(&self, is_store_busy: bool, has_room: bool) -> bool {
        let (commands, bytes) =
            self.lanes(has_room).fold((0, 0), |sum, lane| (sum.0 + lane.waiting.len(), sum.1 + lane.bytes));
        commands > 0 && (!is_store_busy || bytes >= ENTRY_SIZE)
    }

    /// Takes as many commands as belong into one entry; while the log has no room, only of what is urgent.
    pub(super) fn take(&mut self, has_room: bool) -> Taken {
        let mut commands = Vec::new();
        let mut proposed = Proposed { waiters: Vec::new(), has_decisions: false };
        let mut taken = 0;
        for lane in [Some(&mut self.urgent), has_room.then_some(&mut self.asked)].into_iter().flatten() {
            while let Some((command, size, waiter)) = lane.pop_within(ENTRY_SIZE, taken) {
                taken += size;
                proposed.waiters.extend(waiter.map(|waiter| Placed { place: commands.len(), waiter }));
                proposed.has_decisions |= waiter.is_none() && !matches!(command, Command::Heard { .. });
                commands.push(command);
            }
        }
        let mut payload = wire::encode(&commands, wire::MAX_MESSAGE).expect("the size was checked when it was taken");
        // The log holds it for a while.
        payload.shrink_to_fit();
        Taken { payload: Bytes::from(payload), proposed }
    }

    /// Forgets everything and hands back who waited.
    pub(super) fn clear(&mut self) -> Vec<Waiter> {
        let Self { urgent, asked } = std::mem::take(self);
        urgent.waiting.into_iter().chain(asked.waiting).filter_map(|(_, _, waiter)| waiter).collect()
    }

    fn lanes(&self, has_room: bool) -> impl Iterator<Item = &Lane> {
        [Some(&self.urgent), has_room.then_some(&self.asked)].into_iter().flatten()
    }
}

impl Lane {
    /// The next one, if it is the first of an entry or has room beside so many bytes.
    fn pop_within(&mut self, limit: usize, taken: usize) -> Option<(Command, usize, Option<Waiter>)> {
        let next = self.waiting.pop_front_if(|(_, size, _)| taken == 0 || taken + *size <= limit)?;
        self.bytes -= next.1;
        Some(next)
    }
}

/// Whether a command goes in front of what clients ask for. Under a load that the log cannot take, sessions are renewed and work
/// goes on all the same: whoever asks for too much is told so, and nobody else pays for it.
fn is_urgent(command: &Command) -> bool {
    match command {
        Command::Renew { .. } | Command::Heard { .. } | Command::Expire { .. } => true,
        // It means a task that is recorded in front of it.
        Command::Master(MasterCommand::AssignSubmitted { .. }) => false,
        Command::Master(_) => true,
        Command::Register { .. } | Command::Client { .. } => false,
    }
}

/// The commands of an entry.
pub(super) fn decode(payload: &[u8]) -> Result<Vec<Command>, WireError> {
    wire::decode(payload, wire::MAX_MESSAGE)
}

/// An upper bound of a command's encoding, in bytes.
fn size_of(command: &Command) -> usize {
    COMMAND_BYTES
        + match command {
            Command::Register { .. } | Command::Heard { .. } | Command::Expire { .. } => 0,
            Command::Renew { sessions } => sessions.len() * 10,
            Command::Client { operation, .. } => operation.size(),
            Command::Master(decision) => size_of_decision(decision),
        }
}

fn size_of_decision(decision: &MasterCommand) -> usize {
    match decision {
        MasterCommand::OpenNode { offer, .. } => offer.size(),
        MasterCommand::Finish { outcome, .. } => outcome.size(),
        MasterCommand::EndNode { begun, .. } => begun.size(),
        MasterCommand::EndReleased(_)
        | MasterCommand::Assign { .. }
        | MasterCommand::AssignSubmitted { .. }
        | MasterCommand::Release { .. } => 0,
    }
}

/// How large an entry of several commands may become, in bytes: an Append carries one whole (F14).
const ENTRY_SIZE: usize = 192 * 1024;

/// How much of one sort may wait for an entry, in bytes; more is `Busy`.
pub(crate) const WAITING_MAX: usize = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{
        Add, Begun, Claim, Condition, CounterOperation, Delete, Expect, KeyOperation, Mode, Operation, Put, RightId,
        RightKind, RightOperation, Ticket, Transaction,
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
        assert!(batch.is_ready(false, true));
        assert!(!batch.is_ready(true, true));
        batch.push(put(ENTRY_SIZE), None).unwrap();
        assert!(batch.is_ready(true, true), "enough has gathered");
    }

    #[test]
    fn an_entry_is_cut_at_its_size_but_holds_one_command_of_any() {
        let mut batch = Batch::default();
        for number in 0..4 {
            batch.push(put(ENTRY_SIZE - 1000), Some(waiter(number))).unwrap();
        }
        let Taken { payload, proposed } = batch.take(true);
        assert_eq!(decode(&payload).unwrap().len(), 1);
        assert_eq!(proposed.waiters, [Placed { place: 0, waiter: waiter(0) }]);
        assert_eq!(batch.clear(), [waiter(1), waiter(2), waiter(3)]);
        assert!(!batch.is_ready(false, true));
    }

    #[test]
    fn what_keeps_others_alive_goes_first_and_also_while_the_log_has_no_room() {
        let renew = || Command::Renew { sessions: vec![SessionId(1)] };
        let ticket = Ticket { client: SessionId(1), seq: Seq(1), place: 0 };
        let grant = Command::Master(MasterCommand::AssignSubmitted { ticket, session: SessionId(2) });
        let mut batch = Batch::default();
        while batch.push(put(1024 * 1024), Some(waiter(1))).is_ok() {}
        assert!(!batch.is_ready(false, false), "it waits for room");
        batch.push(grant, None).unwrap();
        batch.push(renew(), Some(waiter(2))).unwrap();
        assert!(batch.is_ready(false, false));
        let Taken { payload, proposed } = batch.take(false);
        assert_eq!(decode(&payload).unwrap(), [renew()]);
        assert_eq!(proposed, Proposed { waiters: vec![Placed { place: 0, waiter: waiter(2) }], has_decisions: false });
        batch.push(renew(), None).unwrap();
        let Taken { payload, proposed } = batch.take(true);
        assert_eq!(decode(&payload).unwrap(), [renew()], "a large one goes alone");
        assert!(proposed.has_decisions);
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
            Command::Heard { session: SessionId(u64::MAX), first_incomplete: Seq(u64::MAX) },
            Command::Master(MasterCommand::EndNode {
                session: SessionId(u64::MAX),
                begun: Begun { through: Fence(u64::MAX), fences: vec![Fence(u64::MAX); 100] },
            }),
        ];
        for command in commands {
            let encoded = wire::encode(&command, wire::MAX_MESSAGE).unwrap().len();
            assert!(encoded <= size_of(&command), "{command:?} takes {encoded}");
        }
    }
}
