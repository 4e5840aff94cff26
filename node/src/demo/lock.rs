//! `tenure demo lock-is-not-enough`: one task, two workers, and what each way to guard its effect is worth.
//!
//! A task is given to a worker, which takes a lock, does the work and gives the lock back. Before it can report, it is frozen; the
//! cluster must take it for dead and gives the task to another worker, which takes the lock too. No step of the two comes between
//! the steps of the other, so no lock and no fence has anything to object to. What helps is a record that is kept with the effect.
//!
//! # Invariants
//!
//! * Effects are counted where they are: lines of a file outside the cluster, or a counter in it.
//! * The frozen worker is never the master, so that a worker's death is all that happens.
//! * The exit code is 0 only if the counts are what they must be.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::job::{self, PATIENCE};
use super::screen::Screen;
use crate::builtin::exec::{self, Exec};
use crate::cli::{Cluster, Code, Diagnostic, Output, Paint, Patient, Request};
use crate::processes::Processes;

/// One way to guard the effect of a task.
struct Way {
    name: &'static str,
    title: &'static str,
    /// The shell words of the effect. `$SINK` is a file, `$TENURE_FENCE` that of the lock.
    effect: &'static str,
    lesson: &'static str,
}

const WAYS: [Way; 4] = [
    Way {
        name: "lock",
        title: "a lock",
        effect: r#"echo $TENURE_ONCE_KEY >> "$SINK""#,
        lesson: "The lock kept them apart. It does not know that the work was done before.",
    },
    Way {
        name: "lock-and-fence",
        title: "a lock, and a sink that compares fences",
        effect: r#"tenure fence check "$SINK" && echo $TENURE_ONCE_KEY >> "$SINK""#,
        lesson: "A fence refuses whoever writes after being replaced. Here nobody did: the second holder's fence is higher.",
    },
    Way {
        name: "once-key",
        title: "the same, and a once key that is kept with the data",
        effect: r#"tenure fence check "$SINK" && { grep -sqx $TENURE_ONCE_KEY "$SINK" || echo $TENURE_ONCE_KEY >> "$SINK"; }"#,
        lesson: "The sink itself knows what was done. The second worker finds the key, and does nothing.",
    },
    Way {
        name: "effects",
        title: "cx.effects(): the effect is a part of the report",
        effect: r#"echo '{"add":"lock-is-not-enough"}' >> "$TENURE_EFFECTS""#,
        lesson: "Effect and report are one step of the log. What was not reported has not happened; what comes late is refused.",
    },
];

/// What became of one task.
struct Story {
    /// What is there, counted where it is.
    effects: usize,
    /// The workers that it was given to, in order, and the fence of each attempt.
    attempts: Vec<(String, u64)>,
    /// The fences under which the lock was granted, in order.
    locks: Vec<u64>,
}

/// A cluster, and what is shown of it.
struct Stage<'a> {
    processes: &'a mut Processes,
    cluster: Patient,
    screen: Screen<'a>,
    /// How many lines of the journal were shown.
    shown: usize,
}

/// Plays all of it, shows what came of it, and says whether that is what it must be.
pub(super) async fn play(
    processes: &mut Processes,
    output: &Output,
    is_shown: bool,
    ready: Duration,
) -> Result<bool, Diagnostic> {
    let begin = Instant::now();
    let cluster = Patient::new(Cluster::new(processes.https()), PATIENCE);
    let mut stage = Stage { processes, cluster, screen: Screen::new(output, is_shown), shown: 0 };
    let mut stories = Vec::new();
    for way in &WAYS {
        stories.push(stage.delayed(way).await?);
    }
    let reported = stage.reported(&WAYS[3]).await?;
    let effects: Vec<usize> = stories.iter().map(|story| story.effects).collect();
    let pass = effects == EXPECTED && (reported.effects, reported.attempts.len()) == (1, 1);
    if output.is_json() {
        let runs: Vec<Value> = stories.iter().zip(&WAYS).map(|(story, way)| story.to_json(way)).collect();
        output.json(json!({
            "pass": pass,
            "effects": effects,
            "runs": runs,
            "reported": reported.to_json(&WAYS[3]),
            "ready_ms": ms(ready),
            "elapsed_ms": ms(begin.elapsed()),
        }));
    } else {
        summarize(output, &stories, &reported);
    }
    Ok(pass)
}

fn summarize(output: &Output, stories: &[Story], reported: &Story) {
    output.line("");
    output.line("Done, unlocked, and taken for dead before the report");
    let rows = stories.iter().zip(&WAYS).zip(EXPECTED).map(|((story, way), expected)| (way.title, story, expected));
    for (title, story, expected) in rows.chain([("the last one, reported in time", reported, 1)]) {
        let is_right = story.effects == expected;
        let (paint, symbol) = if is_right { (Paint::Good, "✓") } else { (Paint::Bad, "✕") };
        let (effects, attempts) = (counted(story.effects, "effect"), counted(story.attempts.len(), "attempt"));
        let should = if is_right { String::new() } else { format!(", and should be {expected}") };
        let mark = output.paint(paint, output.symbol(symbol));
        output.line(format!("  {mark} {title:<52} {attempts:<11} {effects}{should}"));
    }
}

impl Stage<'_> {
    /// A task whose first worker does the work and is frozen before it reports.
    async fn delayed(&mut self, way: &Way) -> Result<Story, Diagnostic> {
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
    async fn reported(&mut self, way: &Way) -> Result<Story, Diagnostic> {
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

/// One line of the journal: which attempt did what, and under which fence.
struct Line {
    attempt: String,
    what: String,
    fence: u64,
}

impl Line {
    fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ').map(str::to_owned);
        let (attempt, what) = (words.next()?, words.next()?);
        Some(Self { attempt, what, fence: words.next()?.parse().ok()? })
    }

    fn words(&self) -> String {
        let Self { attempt, what, fence } = self;
        match what.as_str() {
            LOCKS => format!("{attempt} has the lock, fence {fence}"),
            UNLOCKS => format!("{attempt} did the work, and gives the lock back"),
            BEGINS => format!("{attempt} begins, fence {fence}"),
            _ => format!("{attempt} {what}"),
        }
    }
}

impl Story {
    fn to_json(&self, way: &Way) -> Value {
        let attempts: Vec<Value> =
            self.attempts.iter().map(|(worker, fence)| json!({ "worker": worker, "fence": fence })).collect();
        json!({ "guard": way.name, "effects": self.effects, "attempts": attempts, "lock_fences": self.locks })
    }
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn failed(why: impl Into<String>) -> Diagnostic {
    Diagnostic::new(Code::TaskFailed, why)
}

/// What every attempt runs. The first one holds its report back until it may go on.
const SCRIPT: &str = r#"
echo "$TENURE_ATTEMPT begins $TENURE_FENCE" >> "$JOURNAL"
"$TENURE" lock "$LOCK" --wait -- sh -c "$UNDER_LOCK" || exit
case $TENURE_ATTEMPT in *'#1') while [ ! -e "$GATE" ]; do sleep 0.05; done;; esac
echo "$TENURE_ATTEMPT ends $TENURE_FENCE" >> "$JOURNAL"
"#;

/// What runs under the lock, whose fence it has.
const UNDER_LOCK: &str = r#"
echo "$TENURE_ATTEMPT locks $TENURE_FENCE" >> "$JOURNAL"
EFFECT
echo "$TENURE_ATTEMPT unlocks $TENURE_FENCE" >> "$JOURNAL"
"#;

/// Words of the journal.
const BEGINS: &str = "begins";
const LOCKS: &str = "locks";
const UNLOCKS: &str = "unlocks";
const ENDS: &str = "ends";

/// How many effects there must be, by the order of the ways.
const EXPECTED: [usize; 4] = [2, 2, 1, 1];

/// From the last word of a script to its end.
const SETTLE: Duration = Duration::from_millis(100);

/// A result that comes late comes at once when its worker wakes up.
const LATE: Duration = Duration::from_secs(1);

const LOOK_EVERY: Duration = Duration::from_millis(20);
