//! `tenure demo`: a real job on a real cluster whose master is killed and paused on purpose.
//!
//! Three nodes of this very binary draw the frames of a zoom into the Mandelbrot set. At 40 % the master gets `kill -9`, at
//! 75 % the next one is frozen for seven seconds, so that it wakes up believing in its old epoch. In the end every frame is
//! compared with the sums that are shipped with the source.
//!
//! `tenure demo lock-is-not-enough` is another story on the same cluster: one task, two workers, and what keeps its effect from coming
//! twice.
//!
//! # Invariants
//!
//! * The exit code is 0 only if every check passed.
//! * No process is left behind, whatever ends the demo; the temporary folder goes too unless `--keep` or `kill -9` is why.

mod checks;
mod faults;
pub mod handler;
mod job;
mod lock;
pub mod picture;
pub mod render;
mod screen;
mod watch;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch as tokio_watch};

use crate::cli::context::Context;
use crate::cli::{Cluster, Code, Diagnostic, Exit, Frame as CliFrame, Output, Paint, Patient};
use crate::processes::{Processes, Settings, interrupted, table};

use checks::Check;
use faults::{Failover, Fault, Faults, Late};
use job::{Job, Open};
use render::FRAMES;
use screen::Screen;
use watch::Watch;

/// What can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Show {
    /// A real job, while the master is killed and the next one frozen
    Render,
    /// One task, two workers: what a lock, a fence, a once key and effects are worth
    LockIsNotEnough,
}

/// Flags of `demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to show
    #[arg(value_enum, default_value = "render", value_name = "STORY")]
    show: Show,
    /// What to do to the cluster while it renders
    #[arg(long, value_enum, value_delimiter = ',', default_value = "kill,pause", value_name = "FAULT[,FAULT]")]
    faults: Vec<Fault>,
    /// Leave the cluster up in the end, until Ctrl-C, and keep its folder
    #[arg(long)]
    keep: bool,
    /// Plain lines and no bar, for logs
    #[arg(long)]
    no_ui: bool,
    /// Where the picture goes
    #[arg(long, default_value = "tenure-demo", value_name = "FOLDER")]
    out: PathBuf,
}

/// How it went.
#[derive(Debug)]
struct Verdict {
    checks: Vec<Check>,
    failovers: Vec<Failover>,
    ready: Duration,
    elapsed: Duration,
    picture: PathBuf,
}

/// Runs the verb.
///
/// # Errors
///
/// If the cluster does not start, or breaks so that the job cannot go on.
pub async fn run(args: Args, frame: &CliFrame) -> Result<Exit, Diagnostic> {
    // Whatever is under way when a signal comes is dropped, and the processes with it.
    tokio::select! {
        result = demo(&args, frame) => result,
        exit = interrupted() => {
            Context::remove_own();
            Ok(exit)
        }
        () = expiry(frame.timeout) => {
            Context::remove_own();
            Err(Diagnostic::new(Code::Timeout, "the time ran out before the demo was over"))
        }
    }
}

async fn expiry(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

async fn demo(args: &Args, frame: &CliFrame) -> Result<Exit, Diagnostic> {
    let output = &frame.output;
    let is_shown = !output.is_json();
    let begin = Instant::now();
    let mut processes =
        Processes::start(Settings { allow_exec: true, ..Settings::new("demo", NODES)? }, PATIENCE).await?;
    if args.keep {
        processes.keep_folder();
    }
    let ready = begin.elapsed();
    Context::new("demo", processes.https()).save()?;
    if is_shown {
        introduce(&mut processes, ready, output).await;
    }
    let result = match args.show {
        Show::Render => render_job(args, &mut processes, output, is_shown, ready).await,
        Show::LockIsNotEnough => lock::play(&mut processes, output, is_shown, ready).await,
    };
    if result.is_err() && !args.keep {
        // What the nodes printed says why; without the folder it would be gone.
        processes.keep_folder();
        output.note(format!("the nodes' logs are kept in {}", processes.folder().display()));
    }
    let passed = result.inspect_err(|_| Context::remove_own())?;
    if args.keep {
        output.note(format!("the cluster stays up until Ctrl-C; logs and data in {}", processes.folder().display()));
        interrupted().await;
    }
    Context::remove_own();
    if is_shown && passed && !args.keep {
        output.line("");
        output.line("Next:  tenure dev          a cluster that stays up");
        output.line("       tenure map --help   run your own commands on it");
    }
    Ok(if passed { Exit::OK } else { Exit::FAILED })
}

async fn introduce(processes: &mut Processes, ready: Duration, output: &Output) {
    let count = processes.len();
    output.line(format!("tenure demo · {count} nodes on this machine · data in {}", processes.folder().display()));
    let (head, rows) = table(processes, output).await;
    output.table(&head, &rows);
    output.line(format!(
        "ready in {:.1} s      (another terminal: tenure status · tenure members · tenure task ls)",
        ready.as_secs_f64()
    ));
}

/// The job from its title to its verdict: says whether all checks passed.
async fn render_job(
    args: &Args,
    processes: &mut Processes,
    output: &Output,
    is_shown: bool,
    ready: Duration,
) -> Result<bool, Diagnostic> {
    if is_shown {
        output.line("");
        output.line(format!("Job · render {FRAMES} frames of a Mandelbrot zoom"));
    }
    let screen = Screen::new(output, is_shown);
    let screen = if args.no_ui { screen.without_bar() } else { screen };
    let verdict = play(args, processes, screen, ready).await?;
    verdict.show(processes, output, is_shown);
    Ok(verdict.checks.iter().all(|check| check.pass))
}

/// The job, the faults and the checks.
async fn play(
    args: &Args,
    processes: &mut Processes,
    screen: Screen<'_>,
    ready: Duration,
) -> Result<Verdict, Diagnostic> {
    let faults: BTreeSet<Fault> = args.faults.iter().copied().filter(|fault| *fault != Fault::None).collect();
    let cluster = Patient::new(Cluster::new(processes.https()), job::PATIENCE);
    let watch = Watch::new((0..processes.len()).map(|place| processes.http(place)).collect());
    let (open, opened) = tokio_watch::channel(Open::default());
    let (tasks, recorded) = mpsc::channel(FRAMES as usize);
    let mut progress = opened.clone();
    let show = async {
        while progress.changed().await.is_ok() {
            let ended = progress.borrow_and_update().ended;
            screen.progress(ended);
        }
        Ok(())
    };
    let at = Faults { processes: &mut *processes, watch: &watch, open: opened };
    let cause = cause(at, &faults, Job::new(cluster.clone()), tasks, &screen);
    let collect = job::collect(cluster.clone(), recorded, open);
    let (results, (failovers, late), ()) = tokio::try_join!(collect, cause, show)?;
    screen.finish(u32::try_from(results.values().filter(|result| result.drawn.is_ok()).count()).unwrap_or(0));
    let elapsed = screen.elapsed();

    let mut checks = vec![checks::frames(&results), checks::results(&cluster, &results).await?];
    checks.extend(checks::late(&faults, late.as_ref()));
    checks.push(checks::states(processes).await);
    checks.push(checks::masters(&watch.leaders()));
    let frames: Vec<_> =
        (0..FRAMES).map(|number| results.get(&number).and_then(|result| result.drawn.clone().ok())).collect();
    let picture = save_picture(&args.out, &frames)?;
    Ok(Verdict { checks, failovers, ready, elapsed, picture })
}

/// Records the tasks and causes the faults.
async fn cause(
    mut at: Faults<'_>,
    faults: &BTreeSet<Fault>,
    mut job: Job,
    tasks: mpsc::Sender<(u32, String)>,
    screen: &Screen<'_>,
) -> Result<(Vec<Failover>, Option<Late>), Diagnostic> {
    let (mut failovers, mut late) = (Vec::new(), None);
    // The last quarter is recorded when the killed node is back: on a fast machine nothing would be left to draw by then.
    hand_on(job.submit(FRAMES * 3 / 4).await?, &tasks).await;
    if faults.contains(&Fault::Kill) {
        at.until(FRAMES * 2 / 5).await?;
        failovers.push(at.kill(screen).await?);
    }
    hand_on(job.submit(FRAMES).await?, &tasks).await;
    drop(tasks);
    if faults.contains(&Fault::Pause) {
        at.until(FRAMES * 3 / 4).await?;
        let (failover, refused) = at.pause(screen).await?;
        failovers.push(failover);
        late = Some(refused);
    }
    Ok((failovers, late))
}

async fn hand_on(recorded: Vec<(u32, String)>, tasks: &mpsc::Sender<(u32, String)>) {
    for task in recorded {
        // Nobody takes it only if waiting for results failed, which is reported there.
        let _ = tasks.send(task).await;
    }
}

fn save_picture(folder: &Path, frames: &[Option<render::Frame>]) -> Result<PathBuf, Diagnostic> {
    let path = folder.join("contact-sheet.png");
    std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, picture::contact_sheet(frames))).map_err(
        |error| {
            Diagnostic::new(Code::Config, format!("cannot write {}: {error}", path.display()))
                .hint("name another folder with --out")
        },
    )?;
    Ok(path)
}

impl Verdict {
    fn show(&self, processes: &Processes, output: &Output, is_shown: bool) {
        if output.is_json() {
            output.json(self.to_json(processes));
            return;
        }
        if is_shown {
            output.line("");
            output.line("Checks");
        }
        for check in &self.checks {
            let (paint, symbol) = if check.pass { (Paint::Good, "✓") } else { (Paint::Bad, "✕") };
            output.line(format!("  {} {}", output.paint(paint, output.symbol(symbol)), check.text));
        }
        output.line(format!("Picture  {}", self.picture.display()));
    }

    fn to_json(&self, processes: &Processes) -> Value {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let label = |place: usize| processes.label(place).to_owned();
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(|check| json!({ "name": check.name, "pass": check.pass, "text": check.text }))
            .collect();
        let failovers: Vec<Value> = self.failovers.iter().map(|failover| failover.to_json(label)).collect();
        json!({
            "pass": self.checks.iter().all(|check| check.pass),
            "frames": FRAMES,
            "ready_ms": ms(self.ready),
            "elapsed_ms": ms(self.elapsed),
            "checks": checks,
            "failovers": failovers,
            "picture": self.picture.display().to_string(),
        })
    }
}

const NODES: usize = 3;

/// How long the cluster may take to become ready on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
