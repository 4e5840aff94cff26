//! The cluster on which the stories are played: what is done to it, and what is shown of that.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::journal::{BEGINS, ENDS, LOCKS, Line, SCRIPT, UNDER_LOCK, UNLOCKS};
use super::{Story, Way, counted, failed};
use crate::builtin::exec::{self, Exec};
use crate::cli::{Cluster, Diagnostic, Output, Paint, Patient, Request};
use crate::demo::job::{self, PATIENCE};
use crate::demo::screen::Screen;
use crate::processes::Processes;

/// A cluster, and what is shown of it.
pub(super) struct Stage<'a> {
    processes: &'a mut Processes,
    cluster: Patient,
    screen: Screen<'a>,
    /// How many lines of the journal were shown.
    shown: usize,
}

impl<'a> Stage<'a> {
    pub(super) fn new(processes: &'a mut Processes, output: &'a Output, is_shown: bool) -> Self {
        let cluster = Patient::new(Cluster::new(processes.https()), PATIENCE);
        Self { processes, cluster, screen: Screen::new(output, is_shown), shown: 0 }
    }

    /// A task whose first worker does the work and is frozen before it reports.
    pub(super) async fn delayed(&mut self, way: &Way) -> Result<Story, Diagnostic> {
        self.introduce(way, "");
        let task = self.submit(way, "delayed").await?;
        let first = self.granted(&task, 1).await?;
        self.until(&task, 1, UNLOCKS, way).await?;
        self.spare_master(first).await?;
        self.freeze(first, "before its report goes out");
        self.granted(&task, 2).await?;
        self.until(&task, 2, UNLOCKS, way).await?;
        self.done(&task).await?;
        std::fs::write(self.file("gate", way), "").map_err(|error| failed(format!("cannot open the gate: {error}")))?;
        self.until(&task, 1, ENDS, way).await?;
        tokio::time::sleep(SETTLE).await;
        self.wake(first).await?;
        let words = if self.is_refused(&task).await? {
            format!("{} wakes up: its result of {task}#1 is refused", self.processes.label(first))
        } else {
            format!("{} wakes up, and its right to {task}#1 is over", self.processes.label(first))
        };
        self.screen.event(Paint::Good, "⊘", &words);
        self.told(way, &task, 0, way.lesson).await
    }

    /// A task whose report reaches the quorum before its worker is frozen.
    pub(super) async fn reported(&mut self, way: &Way) -> Result<Story, Diagnostic> {
        let before = self.effects(way).await?;
        self.introduce(way, ", and the report is in time");
        // The gate is open by now.
        let task = self.submit(way, "reported").await?;
        let first = self.granted(&task, 1).await?;
        self.until(&task, 1, UNLOCKS, way).await?;
        self.done(&task).await?;
        self.spare_master(first).await?;
        self.freeze(first, "behind its report");
        self.taken_for_dead(first).await?;
        self.screen.event(
            Paint::Good,
            "●",
            &format!("{} is taken for dead, and nobody is started", self.processes.label(first)),
        );
        self.wake(first).await?;
        self.told(
            way,
            &task,
            before,
            "The result is recorded, and the effect with it: whatever becomes of the worker, the task is over.",
        )
        .await
    }

    fn introduce(&mut self, way: &Way, more: &str) {
        self.shown = self.journal(way).len();
        self.screen.line("");
        self.screen.line(&format!("{}{more}", way.title));
        self.screen.line(&format!("  $ {}", way.effect));
    }

    async fn submit(&self, way: &Way, name: &str) -> Result<String, Diagnostic> {
        let program = std::env::current_exe().map_err(|error| failed(format!("cannot find this program: {error}")))?;
        let file = |name| self.file(name, way).display().to_string();
        let under_lock = UNDER_LOCK.replace("EFFECT", &way.effect.replace("tenure ", "\"$TENURE\" "));
        let env = [
            ("TENURE", program.display().to_string()),
            ("SINK", file("sink")),
            ("JOURNAL", file("journal")),
            ("GATE", file("gate")),
            ("LOCK", format!("demo/{}", way.name)),
            ("UNDER_LOCK", under_lock),
        ];
        let env = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let exec = Exec { command: ["sh", "-c", SCRIPT].map(str::to_owned).to_vec(), env, ..Exec::default() };
        let once_key = format!("{}-{name}", way.name);
        // No retries: an attempt that fails must not look like one that was replaced.
        let task = json!({ "kind": exec::KIND, "payload": exec, "retries": 0, "once_key": once_key });
        let answer = self.cluster.post("/v1/tasks:batch", &json!({ "tasks": [task] })).await?;
        answer["tasks"][0]["id"].as_str().map(str::to_owned).ok_or_else(|| failed("the task was not recorded"))
    }

    /// Waits until this attempt of a task is granted; the place of its worker.
    async fn granted(&self, task: &str, number: usize) -> Result<usize, Diagnostic> {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if let Some(label) = self.workers(task).await?.get(number - 1) {
                self.screen.event(Paint::Odd, "→", &format!("{task}#{number} is given to {label}"));
                let place = (0..self.processes.len()).find(|place| self.processes.label(*place) == label);
                return place.ok_or_else(|| failed(format!("{label} is no node of this cluster")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(failed(format!("{task}#{number} was not granted within {} s", PATIENCE.as_secs())))
    }

    /// Waits until an attempt has come so far by the journal, and shows what is new in it.
    async fn until(&mut self, task: &str, number: usize, what: &str, way: &Way) -> Result<(), Diagnostic> {
        let begin = Instant::now();
        let attempt = format!("{task}#{number}");
        while begin.elapsed() < PATIENCE {
            let journal = self.journal(way);
            for line in &journal[self.shown..] {
                self.screen.event(Paint::Dim, "·", &line.words());
            }
            self.shown = journal.len();
            if journal.iter().any(|line| line.attempt == attempt && line.what == what) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let view = self.cluster.get(&format!("/v1/tasks/{task}")).await?;
        Err(failed(format!("{attempt} did not come to its end within {} s: {view}", PATIENCE.as_secs())))
    }

    async fn done(&self, task: &str) -> Result<(), Diagnostic> {
        let view = self.cluster.ended(task).await?;
        if view["state"] != "done" {
            return Err(failed(format!("{task} is {}: {}", view["state"], view["message"])));
        }
        self.screen.event(Paint::Good, "●", &format!("{task} is done"));
        Ok(())
    }

    /// Lets another node be master, if this one is.
    async fn spare_master(&self, place: usize) -> Result<(), Diagnostic> {
        let status = self.processes.get(place, "/v1/status").await;
        if status.is_none_or(|status| status["role"] != "leader") {
            return Ok(());
        }
        let heir = self.processes.label((place + 1) % self.processes.len());
        let request = Request::post("/v1/master/transfer").json(&json!({ "to": heir })).waits(PATIENCE);
        Cluster::new(self.processes.https()).send(request).await?;
        self.screen.event(Paint::Dim, "★", &format!("{heir} is made master: only a worker is to be frozen"));
        Ok(())
    }

    fn freeze(&mut self, place: usize, when: &str) {
        let words = format!("{} is frozen {when} — on purpose", self.processes.label(place));
        self.screen.event(Paint::Bad, "✕", &words);
        self.processes.pause(place);
        let others = (0..self.processes.len()).filter(|other| *other != place);
        let others: Vec<String> = others.map(|other| self.processes.http(other).to_string()).collect();
        self.cluster = Patient::new(Cluster::new(others), PATIENCE);
    }

    /// Waits until a frozen node is no worker any more.
    async fn taken_for_dead(&self, place: usize) -> Result<(), Diagnostic> {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            let members = self.cluster.get("/v1/members").await?;
            let works = |member: &Value| member["label"] == self.processes.label(place) && !member["session"].is_null();
            if !members["members"].as_array().into_iter().flatten().any(works) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(failed(format!("{} is still a worker after {} s", self.processes.label(place), PATIENCE.as_secs())))
    }

    async fn wake(&mut self, place: usize) -> Result<(), Diagnostic> {
        self.processes.resume(place);
        self.processes.ready(PATIENCE).await?;
        self.cluster = Patient::new(Cluster::new(self.processes.https()), PATIENCE);
        Ok(())
    }

    /// Says whether a result of this task came late and was refused. A worker that wakes up may also find out first that its right
    /// is over, and then says nothing.
    async fn is_refused(&self, task: &str) -> Result<bool, Diagnostic> {
        let begin = Instant::now();
        while begin.elapsed() < LATE {
            if job::history(&self.cluster, task).await?.iter().any(|line| line["event"] == "late-result-refused") {
                return Ok(true);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(false)
    }

    /// What became of a task; effects that were there before are not its own.
    async fn told(&self, way: &Way, task: &str, before: usize, lesson: &str) -> Result<Story, Diagnostic> {
        let journal: Vec<Line> =
            self.journal(way).into_iter().filter(|line| line.attempt.split('#').next() == Some(task)).collect();
        let fences = |what| journal.iter().filter(move |line| line.what == what).map(|line| line.fence);
        let story = Story {
            effects: self.effects(way).await?.saturating_sub(before),
            attempts: self.workers(task).await?.into_iter().zip(fences(BEGINS)).collect(),
            locks: fences(LOCKS).collect(),
        };
        self.screen.line(&format!("  {}. {}", counted(story.effects, "effect"), lesson));
        Ok(story)
    }

    /// How many effects there are: lines outside the cluster, or what the counter says.
    async fn effects(&self, way: &Way) -> Result<usize, Diagnostic> {
        if way.effect.contains("TENURE_EFFECTS") {
            let counter = self.cluster.get("/v1/counters/lock-is-not-enough").await?;
            return Ok(counter["value"].as_u64().and_then(|value| usize::try_from(value).ok()).unwrap_or_default());
        }
        Ok(std::fs::read_to_string(self.file("sink", way)).unwrap_or_default().lines().count())
    }

    /// The names of the workers that a task was given to, in order.
    async fn workers(&self, task: &str) -> Result<Vec<String>, Diagnostic> {
        let history = job::history(&self.cluster, task).await?;
        let assigned = history.iter().filter(|line| line["event"] == "assigned");
        Ok(assigned.filter_map(|line| line["label"].as_str()).map(str::to_owned).collect())
    }

    /// What the scripts have written down, oldest first.
    fn journal(&self, way: &Way) -> Vec<Line> {
        let text = std::fs::read_to_string(self.file("journal", way)).unwrap_or_default();
        text.split_inclusive('\n').filter_map(|line| Line::read(line.strip_suffix('\n')?)).collect()
    }

    fn file(&self, name: &str, way: &Way) -> PathBuf {
        self.processes.folder().join(format!("{name}-{}", way.name))
    }
}

/// From the last word of a script to its end.
const SETTLE: Duration = Duration::from_millis(100);

/// A result that comes late comes at once when its worker wakes up.
const LATE: Duration = Duration::from_secs(1);

const LOOK_EVERY: Duration = Duration::from_millis(20);
