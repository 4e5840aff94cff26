//! One seed from beginning to end: faults, then peace, then the question whether all is well.

use std::panic::{AssertUnwindSafe, catch_unwind};

use protocol::{NodeId, Profile, Revision};

use crate::check::Verdict;
use crate::host::Host;
use crate::options::{Options, SECOND};
use crate::world::World;

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Simulated time.
    pub nanos: u64,
    /// Steps of machines.
    pub steps: u64,
    /// The hash over all that happened.
    pub trace: u64,
    /// Entries committed.
    pub committed: usize,
    /// Tasks recorded.
    pub tasks: usize,
    /// Epochs with a leader.
    pub leaders: usize,
    /// Attempts taken back from their workers.
    pub taken_back: usize,
    /// Tasks that ended `Lost`.
    pub lost: usize,
    /// Calls answered.
    pub answered: u64,
    /// Calls given up.
    pub unanswered: u64,
    /// Histories of a key or task that were too hard to judge.
    pub unjudged: usize,
    /// Grants of locks that somebody was told of.
    pub grants: usize,
    /// Steps of work under rights.
    pub worked: u64,
    /// Changes of keys that watches were told.
    pub watched: usize,
}

/// Runs one seed. A panic of a machine is a violation like any other.
pub fn run(seed: u64, options: Options, is_told: bool) -> Result<Report, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, options, Profile::LAN);
        world.is_told = is_told;
        let verdict = live(&mut world).and_then(|()| judge_histories(&mut world));
        let report = Report {
            nanos: world.time,
            steps: world.steps,
            trace: world.trace,
            committed: world.check.committed.len(),
            tasks: world.check.oracle.tasks.len(),
            leaders: world.check.leaders(),
            taken_back: world.check.oracle.taken_back,
            lost: world.check.oracle.lost(),
            answered: world.history.answered,
            unanswered: world.history.unanswered(),
            unjudged: verdict.as_ref().copied().unwrap_or_default(),
            grants: world.history.witness.locks.grants(),
            worked: world.worked,
            watched: world.history.told_changes,
        };
        verdict.map(|_| report).map_err(|why| format!("at {:.4} s: {why}", world.time as f64 / SECOND as f64))
    }));
    outcome.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("I0 a machine broke: {}", words.unwrap_or_default()))
    })
}

fn live(world: &mut World) -> Verdict {
    let (faults, end) = (world.options.faults, world.options.end);
    world.start_all();
    world.run_until(faults)?;
    world.calm();
    world.run_until(faults + 5 * SECOND)?;
    // A hand-over that was asked for before may be under way in this very moment.
    world.run_while(faults + 6 * SECOND, |world| one_leader_soon_after_the_faults(world).is_ok())?;
    one_leader_soon_after_the_faults(world)?;
    world.is_idle = true;
    a_fresh_write_is_served(world)?;
    every_watch_is_told(world)?;
    world.run_until(end)?;
    run_while_tasks_end(world)?;
    all_tasks_end_and_logs_are_equal(world)?;
    every_seat_is_taken(world)?;
    world.sessions_live_with_their_owners()?;
    world.all_work_is_under_rights()?;
    world.history.certainly_not_done_is_not_done(&world.check.oracle)
}

/// What was seen from outside has an order.
fn judge_histories(world: &mut World) -> Result<usize, String> {
    for at in 0..world.hosts.len() {
        world.note_relied_on(at, false);
    }
    world.history.witness.unjudged(world.options.is_clock_bound_kept)
}

/// I11: ten election timeouts after the faults stopped, one node leads and nobody else believes to.
fn one_leader_soon_after_the_faults(world: &World) -> Verdict {
    let leaders: Vec<_> = world.leaders().collect();
    let [(leader, _)] = leaders[..] else { return Err(format!("I11 after the faults, leaders are {leaders:?}")) };
    let host = &world.hosts[leader];
    let is_master = host.replica().is_some_and(|replica| replica.consensus().has_authority(host.local(world.time)));
    if is_master { Ok(()) } else { Err(format!("I11 n{} leads, but is no master", leader + 1)) }
}

/// I11: every client's fresh write is answered.
fn a_fresh_write_is_served(world: &mut World) -> Verdict {
    let until = world.time + 6 * SECOND;
    let calls: Vec<u64> = served(world)
        .into_iter()
        .map(|at| {
            let (call, work, timeout) = world.history.fresh_write(at, world.time);
            world.call(at, call, work, timeout);
            call
        })
        .collect();
    let before = world.history.unanswered();
    let is_answered = world.run_while(until, |world| calls.iter().all(|call| !world.history.is_pending(*call)))?;
    if is_answered && world.check.oracle.versions("fresh").len() > calls.len() {
        return Ok(());
    }
    Err(format!("I11 a fresh write was not served; {} calls failed", world.history.unanswered() - before))
}

/// I11: on every host a watch is told of these writes, or that they are forgotten there.
fn every_watch_is_told(world: &mut World) -> Verdict {
    let until = world.time + 15 * SECOND;
    let first = world.check.oracle.versions("fresh")[1].revision;
    let calls: Vec<u64> = served(world)
        .into_iter()
        .map(|at| {
            let (call, work, timeout) = world.history.watch_from((at, world.time), "fresh", Revision(first.0 - 1));
            world.call(at, call, work, timeout);
            call
        })
        .collect();
    let is_answered = world.run_while(until, |world| calls.iter().all(|call| !world.history.is_pending(*call)))?;
    if is_answered && !calls.iter().any(|call| world.history.is_given_up(*call)) {
        return Ok(());
    }
    Err(String::from("I11 a watch was not told what happened"))
}

/// All hosts but those that belong to it no more: a removed node is told to end, and one without an address was ended.
fn served(world: &World) -> Vec<usize> {
    let removed = &world.check.oracle.state.roster().removed;
    let is_served = |host: &Host| host.is_at_home && !removed.contains(&host.id);
    (0..world.hosts.len()).filter(|at| is_served(&world.hosts[*at])).collect()
}

/// F27: whoever lost its disk for good has no seat any more, and no change is left half done.
fn every_seat_is_taken(world: &World) -> Verdict {
    let Some(conf) = &world.check.oracle.conf else { return Err("I11 nobody votes".into()) };
    let excluded = &world.check.oracle.state.roster().excluded;
    let may_vote = |id: NodeId| !conf.voters.contains(&id) && !excluded.contains(&id);
    let is_wanted = world.hosts.iter().any(|host| host.is_node && host.is_at_home && may_vote(host.id));
    // A leader that has restarted does not know where a lost voter was: its patience must end (F27).
    if !is_wanted || world.options.replace_after > world.options.end - world.options.faults - 10 * SECOND {
        return Ok(());
    }
    match conf.voters.iter().find(|node| world.is_gone(**node)) {
        Some(node) => Err(format!("I11 {node} has lost its disk and its seat is not taken: {conf:?}")),
        None if !conf.outgoing.is_empty() => Err(format!("I11 a change is not complete: {conf:?}")),
        None => Ok(()),
    }
}

/// A single slot may have more to do than half a minute: there is time as long as tasks end.
fn run_while_tasks_end(world: &mut World) -> Verdict {
    let mut before = usize::MAX;
    while (1..before).contains(&world.check.oracle.unfinished) {
        before = world.check.oracle.unfinished;
        world.run_while(world.time + 30 * SECOND, |world| world.check.oracle.unfinished == 0)?;
    }
    Ok(())
}

/// I4, I11: all tasks have ended, and all replicas have applied the same log.
fn all_tasks_end_and_logs_are_equal(world: &mut World) -> Verdict {
    let oracle = &world.check.oracle;
    if let Some(place) = oracle.tasks.iter().position(|task| !task.is_ended) {
        let task = &oracle.tasks[place];
        return Err(format!(
            "I11 t{} has not ended: {} attempts, live {:?}, {} unfinished",
            place + 1,
            task.fences.len(),
            task.live,
            oracle.unfinished
        ));
    }
    if let Some(task) = world.history.acknowledged.iter().find(|task| oracle.tasks.len() < task.0 as usize) {
        return Err(format!("I4 {task} was acknowledged and is lost"));
    }
    // Sessions are renewed for ever, so the log goes on: whoever is behind now has what is committed now a second later.
    let committed = world.check.committed.len() as u64 + 1;
    let until = world.time + SECOND;
    world.run_until(until)?;
    for host in &world.hosts {
        if let Some(replica) = host.replica()
            && world.check.oracle.conf.as_ref().is_some_and(|conf| conf.voters.contains(&host.id))
            && replica.consensus().applied().0 < committed
        {
            let applied = replica.consensus().applied();
            return Err(format!("I11 {} has applied {applied} of {committed} entries", host.id));
        }
    }
    Ok(())
}
