//! `exec`: runs a command of the node's machine as a task.
//!
//! # Invariants
//!
//! * A command runs in a process group of its own, and the whole group is killed when the command itself has ended, when the
//!   attempt's right ends, when its time is up, or when the handler is dropped for any other reason.
//! * An attempt lasts as long as its command and a moment more, whoever holds the pipes: only what left the group outlives it.
//! * In the binary, a command is also killed when the node itself is killed.
//! * What it prints is bounded: too much on stdout fails the attempt for good, because half an output is a wrong one; of
//!   stderr the end is kept.
//! * What it writes to the file `TENURE_EFFECTS` is done together with its result, or not at all.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, FusedFuture as _};
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use protocol::wire::MAX_VALUE;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::effects::Effects;
use crate::http::{coded, decoded, encoded, from_base64};
use crate::task::{RawHandler, TaskCx, TaskError};
use crate::witness::Process;

/// The name of this kind of task.
///
/// ```no_run
/// # use tenure::prelude::*;
/// use tenure::builtin::exec::{Exec, KIND};
///
/// # async fn example(client: Client) -> Result<(), Error> {
/// let date = Exec { command: vec!["date".into()], ..Exec::default() };
/// let task = client.submit_raw(KIND, date.payload()).await?;
/// # drop(task);
/// # Ok(()) }
/// ```
pub const KIND: &str = "exec";

/// What to run: the payload of an `exec` task.
///
/// ```
/// use tenure::builtin::exec::Exec;
///
/// let count = Exec { command: vec!["wc".into(), "-l".into()], stdin: Some("one\ntwo\n".into()), ..Exec::default() };
/// assert_eq!(count.timeout_ms, 0); // as long as it takes
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// What the program reads, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// What the program reads, as base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin_base64: Option<String>,
    /// Where it runs; where the node runs, unless told otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// More environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Kill it after this long; zero: never. (The task's own time-out holds as well.)
    #[serde(default)]
    pub timeout_ms: u64,
}

/// How it ended: the output of an `exec` task, also of one that failed.
///
/// ```
/// use tenure::builtin::exec::Report;
///
/// let report = Report { exit_code: Some(0), stdout: b"2\n".to_vec(), ..Report::default() };
/// assert_eq!(report.signal, None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The exit code, if it exited.
    pub exit_code: Option<i32>,
    /// The signal, if one ended it.
    pub signal: Option<i32>,
    /// What it printed to stdout.
    pub stdout: Vec<u8>,
    /// The end of what it printed to stderr.
    pub stderr: Vec<u8>,
}

impl Exec {
    /// The payload of a task that runs this.
    ///
    /// ```
    /// # use tenure::builtin::exec::Exec;
    /// let date = Exec { command: vec!["date".into()], ..Exec::default() };
    /// assert!(date.payload().starts_with(br#"{"command":["date"]"#));
    /// ```
    #[must_use]
    pub fn payload(&self) -> Bytes {
        serde_json::to_vec(self).expect("words have a JSON form").into()
    }
}

impl Report {
    /// Reads the output of an `exec` task; `None` if it is none.
    ///
    /// ```
    /// # use tenure::builtin::exec::Report;
    /// let report = Report::parse(br#"{"exit_code": 1, "signal": null, "stdout": "", "stderr": "no such file"}"#);
    /// assert_eq!(report.and_then(|report| report.exit_code), Some(1));
    /// ```
    #[must_use]
    pub fn parse(output: &[u8]) -> Option<Self> {
        let document: serde_json::Value = serde_json::from_slice(output).ok()?;
        let number = |name: &str| document[name].as_i64().and_then(|number| i32::try_from(number).ok());
        Some(Self {
            exit_code: number("exit_code"),
            signal: number("signal"),
            stdout: decoded(&document, "stdout")?,
            stderr: decoded(&document, "stderr")?,
        })
    }

    fn to_output(&self) -> Bytes {
        let document = |put: fn(&mut Value, &str, &[u8])| {
            let mut document = json!({ "exit_code": self.exit_code, "signal": self.signal });
            put(&mut document, "stdout", &self.stdout);
            put(&mut document, "stderr", &self.stderr);
            document.to_string()
        };
        let text = document(encoded);
        if text.len() <= MAX_VALUE { text.into() } else { document(coded).into() }
    }

    /// In words, with the last line of stderr.
    fn failure(&self) -> String {
        let how = match (self.exit_code, self.signal) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None) => "ended".to_owned(),
        };
        match String::from_utf8_lossy(&self.stderr).trim_end().lines().last() {
            Some(line) => format!("{how}: {line}"),
            None => how,
        }
    }
}

/// The handler.
pub(crate) struct ExecHandler {
    /// Children are started and attended to on one thread that lives as long as the process: the kernel's "your parent died"
    /// is about the thread that started the child.
    thread: Handle,
    /// Whether this process is the binary, which can wrap a command so that it ends with the node.
    is_wrapped: bool,
    /// Where this node serves HTTP: `tenure` in a command asks the node that runs it, unless the command is told otherwise.
    http: Option<SocketAddr>,
    /// Where commands write their effects, for this alone; where all temporary files are, if the node keeps nothing.
    folder: Option<PathBuf>,
    /// Whether nothing of an earlier run is in the folder any more.
    is_clear: Mutex<bool>,
}

impl ExecHandler {
    /// Starts the thread that attends to children. What is in `folder`, if there is one, is removed when the first command is run: the node
    /// has its data for itself then.
    pub(crate) fn new(is_wrapped: bool, http: Option<SocketAddr>, folder: Option<PathBuf>) -> io::Result<Self> {
        let folder = folder.map(std::path::absolute).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = runtime.handle().clone();
        std::thread::Builder::new()
            .name("tenure-exec".into())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        Ok(Self { thread, is_wrapped, http, folder, is_clear: Mutex::new(false) })
    }

    /// A file for the effects of one command. Killed, the node leaves it to be removed by its next run.
    fn effects(&self) -> io::Result<NamedTempFile> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("tenure-effects-");
        let Some(folder) = &self.folder else { return builder.tempfile() };
        let mut is_clear = self.is_clear.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_clear {
            match fs::remove_dir_all(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => fs::create_dir(folder)?,
            }
            *is_clear = true;
        }
        builder.tempfile_in(folder)
    }

    fn command(&self, exec: &Exec, cx: &TaskCx, effects: &Path) -> Result<Command, TaskError> {
        let (program, args) =
            exec.command.split_first().ok_or_else(|| TaskError::fatal("`command` needs at least a program"))?;
        let mut command = if self.is_wrapped {
            // The running binary, even if its file was replaced since.
            let mut command = Command::new("/proc/self/exe");
            command.arg0("tenure").arg(WRAPPER).arg(std::process::id().to_string()).arg("--").arg(program);
            command
        } else {
            Command::new(program)
        };
        if let Some(http) = self.http {
            command.env("TENURE_NODES", http.to_string());
        }
        command
            .args(args)
            .envs(&exec.env)
            .env("TENURE_TASK", cx.task().to_string())
            .env("TENURE_ATTEMPT", cx.attempt().to_string())
            .env("TENURE_FENCE", cx.fence().to_string())
            .env("TENURE_ONCE_KEY", cx.once_key())
            .env("TENURE_EFFECTS", effects)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(folder) = &exec.folder {
            command.current_dir(folder);
        }
        Ok(command)
    }
}

impl RawHandler for ExecHandler {
    fn run<'a>(&'a self, cx: &'a TaskCx, payload: Bytes) -> BoxFuture<'a, Result<Bytes, TaskError>> {
        async move {
            let exec: Exec = serde_json::from_slice(&payload)
                .map_err(|error| TaskError::fatal(format!("the payload is no command: {error}")))?;
            let stdin = stdin(&exec)?;
            let effects = self.effects()?;
            let command = self.command(&exec, cx, effects.path())?;
            let patience = if exec.timeout_ms == 0 { FOREVER } else { Duration::from_millis(exec.timeout_ms) };
            let (sender, mut receiver) = oneshot::channel();
            let (stop, stopped) = oneshot::channel();
            let name = exec.command[0].clone();
            let work = self.thread.spawn(async move {
                let _ = sender.send(attend(command, &name, stdin, patience, stopped).await);
            });
            // If this future is dropped, so is the attendance, and with it the group is killed.
            let _abort = AbortOnDrop(work);
            let ended = tokio::select! {
                ended = &mut receiver => ended,
                () = cx.cancelled() => {
                    drop(stop);
                    // Killed, unless it had ended well before that: then the log judges its result.
                    receiver.await
                }
            };
            let report = ended.map_err(|_| TaskError::retry("the thread that runs commands has gone"))??;
            let output = report.to_output();
            if report.exit_code != Some(0) {
                return Err(TaskError::retry(report.failure()).with_output(output));
            }
            gather(effects.path(), cx.effects())?;
            Ok(output)
        }
        .boxed()
    }
}

fn stdin(exec: &Exec) -> Result<Vec<u8>, TaskError> {
    match (&exec.stdin, &exec.stdin_base64) {
        (Some(_), Some(_)) => Err(TaskError::fatal("give `stdin` or `stdin_base64`, not both")),
        (Some(text), None) => Ok(text.clone().into_bytes()),
        (None, Some(text)) => from_base64(text).map_err(|why| TaskError::fatal(format!("`stdin_base64`: {why}"))),
        (None, None) => Ok(Vec::new()),
    }
}

/// Takes what a command wrote into the file of its effects: one JSON object a line, `{"put":"key","value":"text"}`,
/// `{"delete":"key"}` or `{"add":"counter","by":1}`.
fn gather(path: &Path, effects: &Effects) -> Result<(), TaskError> {
    let text = written(path).map_err(|error| TaskError::fatal(format!("TENURE_EFFECTS is not readable: {error}")))?;
    if text.len() > EFFECTS_MAX {
        return Err(TaskError::fatal(format!("TENURE_EFFECTS has more than {EFFECTS_MAX} bytes")));
    }
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |why: String| TaskError::fatal(format!("TENURE_EFFECTS:{}: {why}", number + 1));
        let line: EffectLine = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
        let taken = match line {
            EffectLine { put: Some(key), value: Some(value), delete: None, add: None, by: None } => {
                effects.put(key, value)
            }
            EffectLine { delete: Some(key), put: None, value: None, add: None, by: None } => effects.delete(key),
            EffectLine { add: Some(counter), by, put: None, value: None, delete: None } => {
                effects.add(counter, by.unwrap_or(1))
            }
            _ => return Err(wrong("give `put` and `value`, or `delete`, or `add` and `by`".into())),
        };
        taken.map_err(|why| wrong(why.to_string()))?;
    }
    Ok(())
}

/// What is in the file at this path now, which need not be the one that was there at first: commands replace files by renaming. Reads one
/// byte too many at most.
fn written(path: &Path) -> io::Result<String> {
    // Neither a link nor a pipe that a command has put there is followed or waited for.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    file.take(EFFECTS_MAX as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// One line of `TENURE_EFFECTS`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EffectLine {
    put: Option<String>,
    value: Option<String>,
    delete: Option<String>,
    add: Option<String>,
    by: Option<i64>,
}

/// Starts a command and stays with it until it has ended. It is killed when the other end of `stopped` is dropped.
async fn attend(
    mut command: Command,
    name: &str,
    input: Vec<u8>,
    patience: Duration,
    stopped: oneshot::Receiver<()>,
) -> Result<Report, TaskError> {
    let child = command.spawn().map_err(|error| TaskError::retry(format!("cannot start `{name}`: {error}")))?;
    let mut group = Group::new(child)?;
    let leader = group.leader;
    let kill = async move {
        let _ = stopped.await;
        let _ = killpg(leader, Signal::SIGKILL);
    };
    let work = async {
        let mut work = pin!(group.work(input));
        tokio::select! {
            biased;
            ended = &mut work => ended,
            () = kill => work.await,
        }
    };
    match tokio::time::timeout(patience, work).await {
        Ok(result) => result,
        Err(_) => Err(TaskError::retry(format!("timed out after {patience:?}"))),
    }
}

fn report(status: ExitStatus, stdout: Vec<u8>, stderr: Vec<u8>) -> Report {
    Report { exit_code: status.code(), signal: status.signal(), stdout, stderr }
}

/// All of it, or an error. What was read before the future is dropped is in `bytes`.
async fn head(mut from: impl AsyncRead + Unpin, bytes: &mut Vec<u8>) -> Result<(), TaskError> {
    while from.read_buf(bytes).await? > 0 {
        if bytes.len() > STDOUT_MAX {
            return Err(TaskError::fatal(format!("printed more than {STDOUT_MAX} bytes; write to a file instead")));
        }
        bytes.reserve(READ);
    }
    Ok(())
}

/// The end of it, and perhaps as much of what was before. What was read before the future is dropped is in `bytes`.
async fn tail(mut from: impl AsyncRead + Unpin, bytes: &mut Vec<u8>) -> Result<(), TaskError> {
    while from.read_buf(bytes).await? > 0 {
        if bytes.len() > 2 * STDERR_MAX {
            bytes.drain(..bytes.len() - STDERR_MAX);
        }
    }
    Ok(())
}

/// A child and everything that it started.
struct Group {
    child: Child,
    leader: Pid,
    /// The child, as the kernel tells of it: its end does not collect it.
    process: Process,
    is_collected: bool,
}

/// The ends of a child's pipes.
struct Pipes {
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: ChildStderr,
}

impl Group {
    fn new(mut child: Child) -> Result<Self, TaskError> {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let leader = id.map(Pid::from_raw).ok_or_else(|| TaskError::retry("the command ended before it began"))?;
        match Process::numbered(leader.as_raw()) {
            Ok(process) => Ok(Self { child, leader, process, is_collected: false }),
            Err(error) => {
                let _ = child.start_kill();
                Err(TaskError::retry(format!("the command cannot be waited for: {error}")))
            }
        }
    }

    /// Stays with the child until it has ended, and takes what is left of the group with it.
    async fn work(&mut self, input: Vec<u8>) -> Result<Report, TaskError> {
        let pipes = Pipes {
            stdin: self.child.stdin.take().expect("stdin is a pipe"),
            stdout: self.child.stdout.take().expect("stdout is a pipe"),
            stderr: self.child.stderr.take().expect("stderr is a pipe"),
        };
        let (stdout, stderr) = self.talk(pipes, &input).await?;
        let status = self.child.wait().await?;
        self.is_collected = true;
        Ok(report(status, stdout, stderr))
    }

    /// Tells the child what it is to read and hears what it prints, until it has ended; then ends the rest of the group.
    async fn talk(&self, pipes: Pipes, input: &[u8]) -> Result<(Vec<u8>, Vec<u8>), TaskError> {
        let Pipes { mut stdin, stdout, stderr } = pipes;
        let (mut printed, mut complained) = (Vec::new(), Vec::new());
        {
            let mut feed = pin!(
                async move {
                    // A program may end without reading what it is given: that is its right.
                    let _ = stdin.write_all(input).await;
                }
                .fuse()
            );
            let hear = async { tokio::try_join!(head(stdout, &mut printed), tail(stderr, &mut complained)) };
            let mut hear = pin!(hear.fuse());
            loop {
                tokio::select! {
                    biased;
                    () = self.process.ended() => break,
                    heard = &mut hear => drop(heard?),
                    () = &mut feed => {}
                }
            }
            self.kill();
            // With the group go its ends of the pipes. Whoever left it may hold one for ever: then what is in the pipe is all.
            if !hear.is_terminated()
                && let Ok(heard) = tokio::time::timeout(DRAIN, hear).await
            {
                heard?;
            }
        }
        complained.drain(..complained.len().saturating_sub(STDERR_MAX));
        Ok((printed, complained))
    }

    fn kill(&self) {
        // The leader's number cannot have been given to another process: it is ours to collect.
        if !self.is_collected {
            let _ = killpg(self.leader, Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Together with stderr, and written as base64 at worst, this fits into the largest value.
const STDOUT_MAX: usize = 700 * 1024;
const STDERR_MAX: usize = 16 * 1024;

/// Room for what is read next.
const READ: usize = 4 * 1024;

/// How long to read what an ended command has left in its pipes.
const DRAIN: Duration = Duration::from_secs(1);

/// JSON takes more room than what it says.
const EFFECTS_MAX: usize = 2 * 1024 * 1024;

/// Stands for "no time-out".
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The verb of the binary under which a command ends with the node that runs it.
pub(crate) const WRAPPER: &str = "with-parent";

#[cfg(test)]
mod tests {
    use protocol::master::Grant;
    use protocol::state::{Delivery, TaskEffect};
    use protocol::worker::Run;
    use protocol::{Attempt, Epoch, Fence, SessionId, TaskId};
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn cx(cancel: CancellationToken) -> TaskCx {
        let grant = Grant {
            attempt: Attempt { task: TaskId(42), number: 2 },
            fence: Fence(7),
            session: SessionId(3),
            kind: KIND.into(),
            payload: Bytes::new(),
            delivery: Delivery::AtLeastOnce,
            timeout: Duration::ZERO,
            once_key: None,
        };
        TaskCx::new(&Run { grant, epoch: Epoch(1) }, "test", cancel)
    }

    fn shell(script: &str) -> Exec {
        Exec { command: ["sh", "-c", script].map(String::from).to_vec(), ..Exec::default() }
    }

    #[tokio::test]
    async fn what_a_killed_node_left_of_its_commands_is_removed() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("effects");
        let files = || fs::read_dir(&folder).unwrap().count();
        for _ in 0..2 {
            let handler = ExecHandler::new(false, None, Some(folder.clone())).unwrap();
            let script = "echo '{\"put\":\"a\",\"value\":\"b\"}' > \"$TENURE_EFFECTS\"; echo \"$TENURE_EFFECTS\"";
            for _ in 0..2 {
                let cx = cx(CancellationToken::new());
                let report = handler.run(&cx, shell(script).payload()).await.unwrap();
                assert!(String::from_utf8_lossy(&report).contains(folder.to_str().unwrap()));
                assert_eq!(files(), 0, "each goes with its command");
            }
            // As a node leaves it that is killed.
            fs::write(folder.join("tenure-effects-x"), "").unwrap();
        }
    }

    async fn run(exec: &Exec) -> Result<Bytes, TaskError> {
        let handler = ExecHandler::new(false, None, None).unwrap();
        handler.run(&cx(CancellationToken::new()), exec.payload()).await
    }

    #[tokio::test]
    async fn a_command_gets_its_input_and_fence_and_gives_its_output() {
        let exec = Exec { stdin: Some("in ".into()), ..shell("cat; echo $TENURE_ATTEMPT $TENURE_FENCE; echo e >&2") };
        let report = Report::parse(&run(&exec).await.unwrap()).unwrap();
        assert_eq!(report.exit_code, Some(0));
        assert_eq!((&report.stdout[..], &report.stderr[..]), (&b"in t42#2 7\n"[..], &b"e\n"[..]));
    }

    #[tokio::test]
    async fn a_command_writes_effects_into_a_file() {
        let (handler, cx) = (ExecHandler::new(false, None, None).unwrap(), cx(CancellationToken::new()));
        let lines = r#"printf '{"put":"k","value":"v"}\n\n{"delete":"old"}\n{"add":"n"}\n' > "$TENURE_EFFECTS""#;
        handler.run(&cx, shell(lines).payload()).await.unwrap();
        let expected = [
            TaskEffect::Put { key: "k".into(), value: "v".into() },
            TaskEffect::Delete("old".into()),
            TaskEffect::Add { counter: "n".into(), by: 1 },
        ];
        assert_eq!(cx.effects().take(), expected);
    }

    #[tokio::test]
    async fn effects_that_replace_the_file_count() {
        let (handler, cx) = (ExecHandler::new(false, None, None).unwrap(), cx(CancellationToken::new()));
        let lines = r#"echo '{"delete":"old"}' > "$TENURE_EFFECTS.new" && mv "$TENURE_EFFECTS.new" "$TENURE_EFFECTS""#;
        handler.run(&cx, shell(lines).payload()).await.unwrap();
        assert_eq!(cx.effects().take(), [TaskEffect::Delete("old".into())]);
    }

    #[tokio::test]
    async fn what_is_no_regular_file_holds_no_effects() {
        for what in ["ln -s /dev/zero", "mkfifo", "rm -f", "mkdir"] {
            let error = run(&shell(&format!("rm $TENURE_EFFECTS; {what} $TENURE_EFFECTS"))).await.unwrap_err();
            assert!(!error.is_retryable() && error.message().contains("not readable"), "{what}: {error:?}");
        }
    }

    #[tokio::test]
    async fn effects_that_make_no_sense_are_a_final_failure() {
        for (line, words) in [
            (r#"{"put":"k"}"#, "TENURE_EFFECTS:2: give `put`"),
            (r#"{"push":"k"}"#, "unknown field"),
            (r#"{"add":""}"#, "must not be empty"),
        ] {
            let error = run(&shell(&format!("printf '\\n{line}' > $TENURE_EFFECTS"))).await.unwrap_err();
            assert!(!error.is_retryable() && error.message().contains(words), "{error:?}");
        }
    }

    #[tokio::test]
    async fn an_exit_code_is_a_failed_attempt_that_keeps_its_output() {
        let error = run(&shell("printf '\\377'; echo no luck >&2; exit 3")).await.unwrap_err();
        assert_eq!((error.message(), error.is_retryable()), ("exit code 3: no luck", true));
        let report = Report::parse(&error.into_output()).unwrap();
        assert_eq!((report.exit_code, &report.stdout[..]), (Some(3), &[0xff][..]));
    }

    #[tokio::test]
    async fn what_is_not_there_or_no_command_is_said_in_words() {
        let missing = Exec { command: vec!["/no/such/program".into()], ..Exec::default() };
        assert!(run(&missing).await.unwrap_err().message().contains("cannot start `/no/such/program`"));
        assert!(!run(&Exec::default()).await.unwrap_err().is_retryable());
        let handler = ExecHandler::new(false, None, None).unwrap();
        let error = handler.run(&cx(CancellationToken::new()), Bytes::from_static(b"[1]")).await.unwrap_err();
        assert!(!error.is_retryable());
    }

    #[tokio::test]
    async fn output_that_is_longer_as_text_than_as_base64_fits() {
        let output = run(&shell(&format!("yes 1 | head -c {STDOUT_MAX}"))).await.unwrap();
        assert!(output.len() <= MAX_VALUE, "{}", output.len());
        assert_eq!(Report::parse(&output).unwrap().stdout, b"1\n".repeat(STDOUT_MAX / 2));
    }

    #[tokio::test]
    async fn too_much_output_is_a_final_failure() {
        let error = run(&shell("yes")).await.unwrap_err();
        assert!(!error.is_retryable() && error.message().contains("printed more than"), "{error:?}");
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_is_killed() {
        let error = run(&Exec { timeout_ms: 50, ..shell("sleep 600") }).await.unwrap_err();
        assert!(error.message().contains("timed out"));
    }

    /// Runs a script that prints the id of a process that it leaves behind.
    async fn left_behind(exec: &Exec) -> i32 {
        let output = tokio::time::timeout(Duration::from_secs(120), run(exec)).await.expect("the command has ended");
        let stdout = Report::parse(&output.unwrap()).unwrap().stdout;
        String::from_utf8(stdout).unwrap().trim().parse().unwrap()
    }

    #[tokio::test]
    async fn an_attempt_ends_with_its_command_whoever_holds_its_pipes() {
        let unread = "x".repeat(1024 * 1024);
        let holds_stdin = "exec 3<&0; sleep 600 <&3 3<&- & echo $!";
        for exec in [shell("sleep 600 & echo $!"), Exec { stdin: Some(unread), ..shell(holds_stdin) }] {
            let left = left_behind(&exec).await;
            while is_running(left) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    #[tokio::test]
    async fn an_attempt_ends_with_its_command_though_something_left_the_group() {
        let has_left = r#"[ "$(cut -d" " -f5 /proc/$!/stat)" = $! ]"#;
        let script = format!("setsid sleep 600 & until {has_left}; do sleep 0.01; done; echo $!");
        let left = left_behind(&shell(&script)).await;
        assert!(is_running(left), "it is none of our business any more");
        nix::sys::signal::kill(Pid::from_raw(left), Signal::SIGKILL).unwrap();
    }

    #[tokio::test]
    async fn a_cancelled_command_is_killed_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pids");
        let handler = ExecHandler::new(false, None, None).unwrap();
        let cancel = CancellationToken::new();
        let exec = shell(&format!("sleep 600 & echo $! $$ > {}; wait", file.display()));
        let cx = cx(cancel.clone());
        let attempt = handler.run(&cx, exec.payload());
        let pids = async {
            loop {
                let text = std::fs::read_to_string(&file).unwrap_or_default();
                let pids: Vec<i32> = text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
                if pids.len() == 2 && text.ends_with('\n') {
                    cancel.cancel();
                    break pids;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let (result, pids) = tokio::join!(attempt, pids);
        assert!(result.is_err());
        for pid in pids {
            while is_running(pid) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// A process that has ended may stay as a zombie until whoever adopted it collects it.
    fn is_running(pid: i32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }
}
