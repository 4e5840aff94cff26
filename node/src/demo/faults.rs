//! What is done to the cluster on purpose, and what came of it.
//!
//! # Invariants
//!
//! * Two faults never overlap: the second one waits until the node of the first is back, so that a quorum always lives.
//! * A master is paused only while it runs a frame: only then can a late result come of it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::job::{self, Open};
use super::render::FRAMES;
use super::screen::Screen;
use super::watch::{Reign, Watch};
use crate::cli::{Cluster, Code, Diagnostic, Paint, Patient};
use crate::processes::Processes;

/// A fault that the demo can cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Fault {
    /// `kill -9` to the master at 40 % of the frames; it is started again 3 s later
    Kill,
    /// SIGSTOP to the master at 75 % of the frames, SIGCONT 7 s later
    Pause,
    /// Nothing
    None,
}

/// A change of master that a fault caused.
#[derive(Clone, Debug)]
pub(super) struct Failover {
    pub(super) fault: Fault,
    pub(super) from: Reign,
    pub(super) to: Reign,
    /// From the fault to the next master at work.
    pub(super) gap: Duration,
}

/// What the pause left for the checks.
#[derive(Clone, Debug)]
pub(super) struct Late {
    /// The task whose late result was refused, and the text of the event.
    pub(super) task: String,
    pub(super) text: String,
}

/// Causes faults.
pub(super) struct Faults<'a> {
    pub(super) processes: &'a mut Processes,
    pub(super) watch: &'a Watch,
    pub(super) open: watch::Receiver<Open>,
}

impl Failover {
    pub(super) fn to_json(&self, label: impl Fn(usize) -> String) -> Value {
        json!({
            "fault": match self.fault { Fault::Kill => "kill", Fault::Pause => "pause", Fault::None => "none" },
            "from": label(self.from.place),
            "from_epoch": self.from.epoch,
            "to": label(self.to.place),
            "to_epoch": self.to.epoch,
            "gap_ms": u64::try_from(self.gap.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

impl Faults<'_> {
    /// Waits until so many frames are done.
    pub(super) async fn until(&mut self, frames: u32) -> Result<(), Diagnostic> {
        self.open.wait_for(|open| open.ended >= frames).await.map(drop).map_err(|_| over("the job ended early"))
    }

    /// Kills the master and starts it again; done when it is back.
    pub(super) async fn kill(&mut self, screen: &Screen<'_>) -> Result<Failover, Diagnostic> {
        let from = self.master()?;
        let label = self.processes.label(from.place).to_owned();
        let held = self.held(&from).await?;
        screen.event(Paint::Bad, "✕", &format!("kill -9 {label} (master, epoch {}) — on purpose", from.epoch));
        let at = Instant::now();
        self.processes.kill(from.place);
        let failover = self.failover(Fault::Kill, from, at, screen).await?;
        if !held.is_empty() && self.again(&failover.from, &held, at).await? {
            screen.event(Paint::Odd, "↻", &format!("{} of {label} dispatched again", held.join(", ")));
        }
        tokio::time::sleep(RESTART_AFTER.saturating_sub(at.elapsed())).await;
        self.processes.restart(failover.from.place)?;
        screen.event(Paint::Odd, "↻", &format!("{label} started again over its data"));
        self.processes.ready(PATIENCE).await?;
        screen.event(Paint::Good, "●", &format!("{label} is back"));
        Ok(failover)
    }

    /// Freezes the master while it runs a frame, and lets it go on later; done when its late result was refused.
    pub(super) async fn pause(&mut self, screen: &Screen<'_>) -> Result<(Failover, Late), Diagnostic> {
        for _ in 0..PAUSE_TRIES {
            let from = self.until_it_works().await?;
            let label = self.processes.label(from.place).to_owned();
            let words = format!("pause {label} (master, epoch {}) for {} s — on purpose", from.epoch, PAUSE.as_secs());
            screen.event(Paint::Bad, "✕", &words);
            let at = Instant::now();
            self.processes.pause(from.place);
            let failover = self.failover(Fault::Pause, from, at, screen).await?;
            // Its frame may have been recorded in the last moment: then nothing late can come of this pause.
            let held = self.held(&failover.from).await?;
            if held.is_empty() {
                screen.event(Paint::Dim, "·", &format!("{label} had just recorded its frame: once more"));
                self.processes.resume(failover.from.place);
                self.processes.ready(PATIENCE).await?;
                continue;
            }
            tokio::time::sleep(PAUSE.saturating_sub(at.elapsed())).await;
            self.processes.resume(failover.from.place);
            screen.event(Paint::Odd, "●", &format!("{label} goes on, as the master of epoch {}", failover.from.epoch));
            let late = self.refused(&failover.from, &held).await?;
            screen.event(Paint::Good, "⊘", &format!("{label} woke up: {}", late.text));
            return Ok((failover, late));
        }
        Err(over("no frame was under way on the master whenever it was paused"))
    }

    fn master(&self) -> Result<Reign, Diagnostic> {
        self.watch.now().ok_or_else(|| Diagnostic::new(Code::NoQuorum, "no node says that it is master"))
    }

    async fn failover(
        &self,
        fault: Fault,
        from: Reign,
        at: Instant,
        screen: &Screen<'_>,
    ) -> Result<Failover, Diagnostic> {
        let to = tokio::time::timeout(PATIENCE, self.watch.after(from.epoch)).await.map_err(|_| {
            Diagnostic::new(Code::NoQuorum, format!("no new master after {} s", PATIENCE.as_secs()))
                .hint("the logs of the nodes are kept with --keep")
        })?;
        let gap = to.since.saturating_duration_since(at);
        let text = format!(
            "{} master, epoch {}    no master for {:.1} s",
            self.processes.label(to.place),
            to.epoch,
            gap.as_secs_f64()
        );
        screen.event(Paint::Good, "★", &text);
        Ok(Failover { fault, from, to, gap })
    }

    /// Waits until the master runs a frame, whoever the master is by then.
    async fn until_it_works(&self) -> Result<Reign, Diagnostic> {
        loop {
            let reign = self.master()?;
            if !self.held(&reign).await?.is_empty() {
                return Ok(reign);
            }
            if self.open.borrow().ended >= FRAMES {
                return Err(over("all frames were done before the master could be paused"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The open tasks that this node runs, as the other nodes know it.
    async fn held(&self, reign: &Reign) -> Result<Vec<String>, Diagnostic> {
        let open = self.open.borrow().tasks.clone();
        job::held(&self.others(reign.place), &open, &reign.node).await
    }

    /// Waits until all these tasks of a dead node were granted to others. Says no if that takes longer than it stays dead: one may
    /// have been recorded in its last moment.
    async fn again(&self, from: &Reign, held: &[String], at: Instant) -> Result<bool, Diagnostic> {
        let cluster = self.others(from.place);
        while at.elapsed() < RESTART_AFTER {
            let mut all = true;
            for task in held {
                let history = job::history(&cluster, task).await?;
                let last = history.iter().rev().find(|line| line["event"] == "assigned");
                all &= last.is_some_and(|line| line["node"] != from.node.as_str());
            }
            if all {
                return Ok(true);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(false)
    }

    /// Waits until a result of one of these tasks came late from the paused node and was refused.
    async fn refused(&self, from: &Reign, held: &[String]) -> Result<Late, Diagnostic> {
        let cluster = self.others(from.place);
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            for task in held {
                let history = job::history(&cluster, task).await?;
                if let Some(text) = refusal(task, &history, &from.node) {
                    return Ok(Late { task: task.clone(), text });
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let message = format!("no late result of {} was refused within {} s", held.join(", "), PATIENCE.as_secs());
        Err(Diagnostic::new(Code::TaskFailed, message))
    }

    fn others(&self, place: usize) -> Patient {
        let nodes: BTreeSet<String> = (0..self.processes.len())
            .filter(|other| *other != place)
            .map(|other| self.processes.http(other).to_string())
            .collect();
        Patient::new(Cluster::new(nodes), job::PATIENCE)
    }
}

/// In words, if a late result of an attempt that ran on `node` was refused.
fn refusal(task: &str, history: &[Value], node: &str) -> Option<String> {
    let refused = history.iter().find(|line| {
        let is_theirs = |other: &&Value| {
            other["event"] == "assigned" && other["node"] == node && other["attempt"] == line["attempt"]
        };
        line["event"] == "late-result-refused" && history.iter().any(|other| is_theirs(&other))
    })?;
    let winner = history.iter().rev().find(|line| line["event"] == "assigned")?;
    Some(format!("result of {task}#{} refused, {task}#{} replaced it", refused["attempt"], winner["attempt"]))
}

fn over(why: &str) -> Diagnostic {
    Diagnostic::new(Code::TaskFailed, why)
}

const RESTART_AFTER: Duration = Duration::from_secs(3);

const PAUSE: Duration = Duration::from_secs(7);

const PAUSE_TRIES: u32 = 5;

/// What should take two seconds may take this long on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(30);

const LOOK_EVERY: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    fn history(refused_attempt: u32) -> Vec<Value> {
        vec![
            json!({ "event": "assigned", "attempt": 1, "node": "a" }),
            json!({ "event": "released", "attempt": 1 }),
            json!({ "event": "assigned", "attempt": 2, "node": "b" }),
            json!({ "event": "done", "attempt": 2 }),
            json!({ "event": "late-result-refused", "attempt": refused_attempt }),
        ]
    }

    #[test]
    fn a_refusal_names_the_attempt_and_the_one_that_replaced_it() {
        assert_eq!(refusal("t3", &history(1), "a").as_deref(), Some("result of t3#1 refused, t3#2 replaced it"));
    }

    #[test]
    fn a_refusal_of_another_node_is_not_the_one_that_is_waited_for() {
        assert_eq!(refusal("t3", &history(2), "a"), None);
        assert_eq!(refusal("t3", &history(1)[..4], "a"), None);
    }
}
