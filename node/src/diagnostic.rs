//! One shape for everything that goes wrong where people or programs see it.
//!
//! A [`Diagnostic`] says what failed, why, and what to do about it, and carries a [`Code`] that programs compare. The command
//! line renders it as text (`error: … hint: … code: …`), HTTP as a problem document of RFC 9457, and the command line
//! reads that document back into the same value: a person sees the same words whichever side found the error.
//!
//! # Invariants
//!
//! * The code alone decides the exit code and the HTTP status, except that "maybe done" is always 504.
//! * Nothing here is longer than a screen: causes are bounded.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// What failed, why, and what to do.
///
/// ```
/// use tenure::prelude::*;
///
/// # async fn example() {
/// if let Err(error) = Node::builder("orders").join(["nowhere"]).start().await {
///     let why = error.diagnostic();
///     eprintln!("{} ({})", why.message, why.code.as_str());
///     if let Some(what_to_do) = &why.hint {
///         eprintln!("{what_to_do}");
///     }
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// For programs.
    pub code: Code,
    /// What failed, in lower case, without a full stop.
    pub message: String,
    /// Why: one line per cause, for example one per address that was tried.
    pub causes: Vec<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether it may have been done nevertheless.
    pub maybe_applied: bool,
    /// Who is master, as far as the answering node knows.
    pub master: Option<String>,
}

/// The kinds of failure that programs tell apart.
///
/// ```
/// use tenure::diagnostic::Code;
///
/// assert_eq!((Code::Fenced.as_str(), Code::Fenced.status(), Code::Fenced.exit()), ("fenced", 409, 6));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The command line or request makes no sense.
    Usage,
    /// The body is not JSON.
    MalformedJson,
    /// The body is larger than allowed.
    TooLarge,
    /// The values make no sense, and never will.
    Invalid,
    /// No live node has a handler for this kind of task.
    UnknownKind,
    /// No such task, key or route.
    NotFound,
    /// The session that was named does not live: it ended, or never was.
    NoSession,
    /// The route exists, but not with this method.
    MethodNotAllowed,
    /// The request comes from a foreign web page or names a foreign host.
    Foreign,
    /// A precondition on a key failed.
    Conflict,
    /// What is asked for is so long ago that nobody remembers it.
    Compacted,
    /// The right has passed to a later holder.
    Fenced,
    /// The task has ended already.
    Ended,
    /// Somebody else holds the right, or is in line for it.
    Held,
    /// The right was lost.
    Lost,
    /// The outcome is known and will not change.
    Settled,
    /// No majority of voters answers, or there is no master at the moment.
    NoQuorum,
    /// Too much is under way.
    Busy,
    /// The cluster is full.
    Quota,
    /// No answer in time.
    Deadline,
    /// The client's session ended.
    SessionExpired,
    /// No node was reached at all.
    Unreachable,
    /// The task failed, was cancelled or got lost.
    TaskFailed,
    /// The user's `--timeout` ran out.
    Timeout,
    /// The user interrupted it.
    Interrupted,
    /// The address is taken.
    PortInUse,
    /// The data folder cannot be used.
    DataFolder,
    /// This node and the cluster it meets do not belong together.
    WrongCluster,
    /// The configuration is refused.
    Config,
    /// The node stopped itself.
    Fatal,
    /// Our own mistake.
    Internal,
}

impl Diagnostic {
    /// A failure with a message and nothing else.
    ///
    /// ```
    /// use tenure::diagnostic::{Code, Diagnostic};
    ///
    /// let full = Diagnostic::new(Code::Quota, "the shelf is full");
    /// assert_eq!((full.status(), full.code.exit()), (507, 6));
    /// ```
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), causes: Vec::new(), hint: None, maybe_applied: false, master: None }
    }

    /// Adds a cause. Beyond 16 they are dropped.
    ///
    /// ```
    /// use tenure::diagnostic::{Code, Diagnostic};
    ///
    /// let closed = Diagnostic::new(Code::Unreachable, "no shop was reached").cause("harbour  no answer");
    /// assert_eq!(closed.causes, ["harbour  no answer"]);
    /// ```
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        if self.causes.len() < CAUSES_MAX {
            self.causes.push(cause.into());
        }
        self
    }

    /// Says what to do.
    ///
    /// ```
    /// use tenure::diagnostic::{Code, Diagnostic};
    ///
    /// let full = Diagnostic::new(Code::Quota, "the shelf is full").hint("sell something first");
    /// assert_eq!(full.hint.as_deref(), Some("sell something first"));
    /// ```
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says whether it may have been done.
    ///
    /// ```
    /// use tenure::diagnostic::{Code, Diagnostic};
    ///
    /// let silence = Diagnostic::new(Code::Deadline, "the shop did not answer").maybe_applied(true);
    /// assert!(!silence.is_retryable(), "it may have been sold");
    /// ```
    #[must_use]
    pub fn maybe_applied(mut self, maybe: bool) -> Self {
        self.maybe_applied = maybe;
        self
    }

    /// Says who is master.
    ///
    /// ```
    /// use tenure::diagnostic::{Code, Diagnostic};
    ///
    /// let late = Diagnostic::new(Code::NoQuorum, "no master answered").master(Some("n2".into()));
    /// assert_eq!(late.master.as_deref(), Some("n2"));
    /// ```
    #[must_use]
    pub fn master(mut self, master: Option<String>) -> Self {
        self.master = master;
        self
    }

    /// The lines for a terminal; `paint` may add colour to a word.
    ///
    /// ```
    /// use tenure::diagnostic::{Code, Diagnostic};
    ///
    /// let full = Diagnostic::new(Code::Quota, "the shelf is full").hint("sell something first");
    /// let text = full.render(|_tone, word| word.to_uppercase());
    /// assert_eq!(text, "ERROR: the shelf is full\nHINT: sell something first\nCODE: quota (exit 6)\n");
    /// ```
    #[must_use]
    pub fn render(&self, paint: impl Fn(Tone, &str) -> String) -> String {
        let mut out = format!("{} {}\n", paint(Tone::Error, "error:"), self.message);
        for cause in &self.causes {
            let _ = writeln!(out, "  {cause}");
        }
        if self.maybe_applied {
            let _ = writeln!(out, "{} it may have been done nevertheless", paint(Tone::Hint, "note:"));
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(out, "{} {hint}", paint(Tone::Hint, "hint:"));
        }
        let _ = writeln!(out, "{} {} (exit {})", paint(Tone::Hint, "code:"), self.code.as_str(), self.code.exit());
        out
    }

    /// The HTTP status.
    ///
    /// ```
    /// use tenure::diagnostic::{Code, Diagnostic};
    ///
    /// let silence = Diagnostic::new(Code::NoQuorum, "no master answered");
    /// assert_eq!(silence.status(), 503);
    /// assert_eq!(silence.maybe_applied(true).status(), 504);
    /// ```
    #[must_use]
    pub fn status(&self) -> u16 {
        if self.maybe_applied { 504 } else { self.code.status() }
    }

    /// Whether the same request may succeed later. What may have been done is not repeated blindly.
    ///
    /// ```
    /// use tenure::diagnostic::{Code, Diagnostic};
    ///
    /// assert!(Diagnostic::new(Code::Busy, "too much is under way").is_retryable());
    /// assert!(!Diagnostic::new(Code::Conflict, "the price is another one").is_retryable());
    /// ```
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.code.is_retryable() && !self.maybe_applied
    }

    /// The problem document.
    ///
    /// ```
    /// use tenure::diagnostic::{Code, Diagnostic};
    ///
    /// let full = Diagnostic::new(Code::Quota, "the shelf is full").to_problem();
    /// assert_eq!((&full["status"], &full["detail"]), (&507.into(), &"the shelf is full".into()));
    /// ```
    #[must_use]
    pub fn to_problem(&self) -> Value {
        json!({
            "type": format!("about:blank#{}", self.code.as_str()),
            "title": self.code.title(),
            "status": self.status(),
            "detail": self.message,
            "code": self.code.as_str(),
            "causes": self.causes,
            "hint": self.hint,
            "retryable": self.is_retryable(),
            "maybe_applied": self.maybe_applied,
            "master": self.master,
        })
    }

    /// Reads a problem document; whatever else came with an error status becomes an internal error that quotes it.
    ///
    /// ```
    /// use tenure::diagnostic::{Code, Diagnostic};
    ///
    /// let full = Diagnostic::new(Code::Quota, "the shelf is full");
    /// let body = full.to_problem().to_string();
    /// assert_eq!(Diagnostic::from_problem(507, body.as_bytes()), full);
    /// assert_eq!(Diagnostic::from_problem(502, b"<html>").code, Code::Internal);
    /// ```
    #[must_use]
    pub fn from_problem(status: u16, body: &[u8]) -> Self {
        let Ok(problem) = serde_json::from_slice::<Value>(body) else {
            let quote: String = String::from_utf8_lossy(body).chars().take(200).collect();
            return Self::new(Code::Internal, format!("the node answered {status}: {quote}"));
        };
        let text = |key: &str| problem.get(key).and_then(Value::as_str).map(str::to_owned);
        let code = text("code").and_then(|code| Code::parse(&code)).unwrap_or(Code::Internal);
        let causes = problem.get("causes").and_then(Value::as_array).into_iter().flatten();
        Self {
            code,
            message: text("detail").unwrap_or_else(|| format!("the node answered {status}")),
            causes: causes.filter_map(Value::as_str).take(CAUSES_MAX).map(str::to_owned).collect(),
            hint: text("hint"),
            maybe_applied: problem.get("maybe_applied").and_then(Value::as_bool).unwrap_or(false),
            master: text("master"),
        }
    }
}

/// What a word in a rendered diagnostic stands for.
///
/// ```
/// use tenure::diagnostic::{Code, Diagnostic, Tone};
///
/// let full = Diagnostic::new(Code::Quota, "the shelf is full");
/// let red = |tone, word: &str| if tone == Tone::Error { format!("\x1b[31m{word}\x1b[0m") } else { word.to_owned() };
/// assert!(full.render(red).starts_with("\x1b[31merror:\x1b[0m the shelf is full"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// The word `error:`.
    Error,
    /// The words that introduce advice.
    Hint,
}

impl Code {
    /// The name that programs compare.
    ///
    /// ```
    /// # use tenure::diagnostic::Code;
    /// assert_eq!(Code::NoQuorum.as_str(), "no-quorum");
    /// ```
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.facts().0
    }

    /// The HTTP status of a failure that is certainly without effect.
    ///
    /// ```
    /// # use tenure::diagnostic::Code;
    /// assert_eq!(Code::NotFound.status(), 404);
    /// ```
    #[must_use]
    pub fn status(self) -> u16 {
        self.facts().1
    }

    /// The exit code of the command line.
    ///
    /// ```
    /// # use tenure::diagnostic::Code;
    /// assert_eq!(Code::Unreachable.exit(), 3);
    /// ```
    #[must_use]
    pub fn exit(self) -> u8 {
        self.facts().2
    }

    /// A few words for people.
    ///
    /// ```
    /// # use tenure::diagnostic::Code;
    /// assert_eq!(Code::NoQuorum.title(), "No quorum");
    /// ```
    #[must_use]
    pub fn title(self) -> &'static str {
        self.facts().3
    }

    /// Whether waiting may help.
    ///
    /// ```
    /// # use tenure::diagnostic::Code;
    /// assert!(Code::Busy.is_retryable() && !Code::Usage.is_retryable());
    /// ```
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::NoQuorum | Self::Busy | Self::Deadline | Self::SessionExpired | Self::Unreachable)
    }

    /// The code of this name.
    ///
    /// ```
    /// # use tenure::diagnostic::Code;
    /// assert_eq!(Code::parse("fenced"), Some(Code::Fenced));
    /// assert_eq!(Code::parse("out-of-tea"), None);
    /// ```
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        CODES.into_iter().find(|code| code.as_str() == name)
    }

    fn facts(self) -> (&'static str, u16, u8, &'static str) {
        match self {
            Self::Usage => ("usage", 400, 2, "The request makes no sense"),
            Self::MalformedJson => ("malformed-json", 400, 2, "The body is not the JSON that was expected"),
            Self::TooLarge => ("too-large", 413, 2, "Larger than allowed"),
            Self::Invalid => ("invalid", 422, 2, "The values make no sense"),
            Self::UnknownKind => ("unknown-kind", 422, 2, "No node runs this kind of task"),
            Self::NotFound => ("not-found", 404, 5, "Not found"),
            Self::NoSession => ("no-session", 404, 5, "The session does not live"),
            Self::MethodNotAllowed => ("method-not-allowed", 405, 2, "Not with this method"),
            Self::Foreign => ("foreign", 403, 2, "Refused for its origin"),
            Self::Conflict => ("conflict", 412, 6, "The precondition does not hold"),
            Self::Compacted => ("compacted", 410, 6, "Forgotten"),
            Self::Fenced => ("fenced", 409, 6, "Replaced by a later holder"),
            Self::Ended => ("ended", 409, 6, "The task has ended already"),
            Self::Held => ("held", 409, 6, "Somebody else holds it"),
            Self::Lost => ("lost", 409, 75, "The right was lost"),
            Self::Settled => ("settled", 409, 6, "It is settled already"),
            Self::NoQuorum => ("no-quorum", 503, 4, "No quorum"),
            Self::Busy => ("busy", 503, 4, "Too much is under way"),
            Self::Quota => ("quota", 507, 6, "The cluster is full"),
            Self::Deadline => ("deadline", 504, 4, "No answer in time"),
            Self::SessionExpired => ("session-expired", 503, 4, "The session has expired"),
            Self::Unreachable => ("unreachable", 502, 3, "No node was reached"),
            Self::TaskFailed => ("task-failed", 200, 1, "The task did not succeed"),
            Self::Timeout => ("timeout", 504, 124, "The time ran out"),
            Self::Interrupted => ("interrupted", 503, 130, "Interrupted"),
            Self::PortInUse => ("port-in-use", 500, 1, "The address is taken"),
            Self::DataFolder => ("data-folder", 500, 1, "The data folder cannot be used"),
            Self::WrongCluster => ("wrong-cluster", 500, 1, "Another cluster"),
            Self::Config => ("config", 500, 2, "The configuration is refused"),
            Self::Fatal => ("fatal", 500, 1, "The node stopped itself"),
            Self::Internal => ("internal", 500, 1, "Our mistake"),
        }
    }
}

/// Every code, for the way back from its name.
const CODES: [Code; 31] = [
    Code::Usage,
    Code::MalformedJson,
    Code::TooLarge,
    Code::Invalid,
    Code::UnknownKind,
    Code::NotFound,
    Code::NoSession,
    Code::MethodNotAllowed,
    Code::Foreign,
    Code::Conflict,
    Code::Compacted,
    Code::Fenced,
    Code::Ended,
    Code::Held,
    Code::Lost,
    Code::Settled,
    Code::NoQuorum,
    Code::Busy,
    Code::Quota,
    Code::Deadline,
    Code::SessionExpired,
    Code::Unreachable,
    Code::TaskFailed,
    Code::Timeout,
    Code::Interrupted,
    Code::PortInUse,
    Code::DataFolder,
    Code::WrongCluster,
    Code::Config,
    Code::Fatal,
    Code::Internal,
];

/// More causes than this are a list, not an explanation.
const CAUSES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn no_quorum() -> Diagnostic {
        Diagnostic::new(Code::NoQuorum, "no quorum: 1 of 3 voters answered (n3); need 2")
            .cause("n1 127.0.0.1:7401  connection refused")
            .hint("writes wait until one of them is back")
    }

    #[test]
    fn the_text_says_what_why_what_to_do_and_the_code_last() {
        let text = no_quorum().render(|_, word| word.to_owned());
        assert_eq!(
            text,
            "error: no quorum: 1 of 3 voters answered (n3); need 2\n  n1 127.0.0.1:7401  connection refused\n\
             hint: writes wait until one of them is back\ncode: no-quorum (exit 4)\n"
        );
    }

    #[test]
    fn a_problem_document_comes_back_as_the_same_diagnostic() {
        let before = no_quorum().master(Some("n2".into()));
        let body = serde_json::to_vec(&before.to_problem()).unwrap();
        assert_eq!(Diagnostic::from_problem(before.status(), &body), before);
    }

    #[test]
    fn what_may_have_been_done_is_504_and_not_retryable() {
        let certain = no_quorum();
        assert_eq!((certain.status(), certain.is_retryable()), (503, true));
        let maybe = no_quorum().maybe_applied(true);
        assert_eq!((maybe.status(), maybe.is_retryable()), (504, false));
        assert_eq!(maybe.to_problem()["maybe_applied"], true);
    }

    #[test]
    fn every_code_has_a_name_of_its_own() {
        for code in CODES {
            assert_eq!(Code::parse(code.as_str()), Some(code));
        }
    }

    #[test]
    fn an_answer_that_is_no_problem_document_is_quoted() {
        let diagnostic = Diagnostic::from_problem(502, b"<html>bad gateway");
        assert_eq!(diagnostic.code, Code::Internal);
        assert!(diagnostic.message.contains("502") && diagnostic.message.contains("bad gateway"));
    }
}
