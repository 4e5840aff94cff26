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

mod journal;
mod stage;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli::{Code, Diagnostic, Output, Paint};
use crate::processes::Processes;
use stage::Stage;

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

/// Plays all of it, shows what came of it, and says whether that is what it must be.
pub(super) async fn play(
    processes: &mut Processes,
    output: &Output,
    is_shown: bool,
    ready: Duration,
) -> Result<bool, Diagnostic> {
    let begin = Instant::now();
    let mut stage = Stage::new(processes, output, is_shown);
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

/// How many effects there must be, by the order of the ways.
const EXPECTED: [usize; 4] = [2, 2, 1, 1];
