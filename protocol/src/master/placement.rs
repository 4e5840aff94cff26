//! Which ready task goes to which worker.
//!
//! # Invariants
//!
//! * A worker gets no more than it has slots for, and only what it has a handler and the labels for.
//! * The highest priority that any worker can take goes first, then the oldest.
//! * The least loaded worker gets it, relative to its slots. On a tie it is not the master's own node, so that the crash of
//!   a master loses less.

use std::collections::btree_set;
use std::collections::{BTreeMap, BTreeSet};

use super::board::{Board, Demand, Rank};
use super::crew::Member;
use super::message::Coming;
use crate::state::{Offer, Ticket};
use crate::types::{ClusterTime, NodeId, SessionId, TaskId};

/// One task for one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    pub(super) task: TaskId,
    pub(super) node: NodeId,
    pub(super) session: SessionId,
}

/// A worker with room.
struct Candidate {
    node: NodeId,
    session: SessionId,
    load: usize,
    slots: usize,
}

/// Places at most `limit` ready tasks.
pub(super) fn place(
    board: &Board,
    crew: &BTreeMap<NodeId, Member>,
    own: NodeId,
    now: ClusterTime,
    limit: usize,
) -> Vec<Placement> {
    let mut placements = Vec::new();
    let (mut candidates, offers) = with_room(crew, now);
    if candidates.is_empty() {
        return placements;
    }
    let mut queues: Vec<(btree_set::Iter<'_, Rank>, Vec<usize>)> = Vec::new();
    let mut heads: BTreeSet<(Rank, usize)> = BTreeSet::new();
    for (demand, ranks) in board.ready() {
        let fit: Vec<usize> = (0..offers.len()).filter(|&place| demand.is_met_by(offers[place])).collect();
        let mut ranks = ranks.iter();
        if let (false, Some(&head)) = (fit.is_empty(), ranks.next()) {
            heads.insert((head, queues.len()));
            queues.push((ranks, fit));
        }
    }
    while placements.len() < limit
        && let Some(((_, task), queue)) = heads.pop_first()
    {
        let (ranks, fit) = &mut queues[queue];
        // A demand that nobody has room for leaves the race: loads only grow here.
        let Some(place) = least_loaded(&candidates, fit, own) else { continue };
        let candidate = &mut candidates[place];
        candidate.load += 1;
        placements.push(Placement { task, node: candidate.node, session: candidate.session });
        if let Some(&next) = ranks.next() {
            heads.insert((next, queue));
        }
    }
    placements
}

/// Places tasks that are about to be recorded, those of the highest priority first, as they come. None of them overtakes a task of the
/// same demand that is ready already.
pub(super) fn place_coming(
    board: &Board,
    crew: &BTreeMap<NodeId, Member>,
    own: NodeId,
    now: ClusterTime,
    coming: Vec<Coming>,
) -> Vec<(Ticket, NodeId, SessionId)> {
    let mut placements = Vec::new();
    let (mut candidates, offers) = with_room(crew, now);
    for task in coming {
        if candidates.is_empty() {
            break;
        }
        let (ticket, demand) = (task.ticket, Demand::of_coming(task));
        let fit: Vec<usize> = (0..offers.len()).filter(|&place| demand.is_met_by(offers[place])).collect();
        if board.has_ready(&demand) {
            continue;
        }
        if let Some(place) = least_loaded(&candidates, &fit, own) {
            let candidate = &mut candidates[place];
            candidate.load += 1;
            placements.push((ticket, candidate.node, candidate.session));
        }
    }
    placements
}

/// The workers with room, and what they offer.
fn with_room(crew: &BTreeMap<NodeId, Member>, now: ClusterTime) -> (Vec<Candidate>, Vec<&Offer>) {
    let with_room = crew.iter().filter_map(|(&node, member)| {
        let session = member.usable(now)?;
        let slots = session.offer.slots as usize;
        let candidate = Candidate { node, session: session.session, load: member.load(), slots };
        (candidate.load < slots).then_some((candidate, &session.offer))
    });
    with_room.unzip()
}

fn least_loaded(candidates: &[Candidate], fit: &[usize], own: NodeId) -> Option<usize> {
    fit.iter().copied().filter(|&place| candidates[place].load < candidates[place].slots).min_by(|&left, &right| {
        let (left, right) = (&candidates[left], &candidates[right]);
        // load/slots of both, compared without a fraction.
        let share = (left.load * right.slots).cmp(&(right.load * left.slots));
        share.then((left.node == own).cmp(&(right.node == own))).then(left.node.cmp(&right.node))
    })
}
