//! The lines of the input, one after the other.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;

use tokio::sync::mpsc;

use crate::cli::{Code, Diagnostic, WORD_MAX};

/// One line of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Counted from one.
    pub(super) number: u64,
    /// Without its end.
    pub(super) text: String,
}

/// The file, or stdin.
pub(super) fn open(path: Option<&Path>) -> Result<Box<dyn BufRead + Send>, Diagnostic> {
    let Some(path) = path.filter(|path| *path != Path::new("-")) else {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    };
    let file = File::open(path)
        .map_err(|error| Diagnostic::new(Code::Usage, format!("cannot read {}: {error}", path.display())))?;
    Ok(Box::new(BufReader::new(file)))
}

/// Hands on line after line until the input ends, is wrong, or nobody wants more.
pub(super) fn read(mut source: impl BufRead, ending: u8, lines: &mpsc::Sender<Result<Line, Diagnostic>>) {
    for number in 1.. {
        let line = match next(&mut source, ending, number) {
            Ok(Some(line)) => Ok(line),
            Ok(None) => return,
            Err(error) => Err(error),
        };
        let is_last = line.is_err();
        if lines.blocking_send(line).is_err() || is_last {
            return;
        }
    }
}

fn next(source: &mut impl BufRead, ending: u8, number: u64) -> Result<Option<Line>, Diagnostic> {
    let mut bytes = Vec::new();
    let wrong = |why: String| Diagnostic::new(Code::Usage, format!("line {number} of the input {why}"));
    let read = source.take(LINE_MAX + 1).read_until(ending, &mut bytes);
    if read.map_err(|error| wrong(format!("cannot be read: {error}")))? == 0 {
        return Ok(None);
    }
    if bytes.last() == Some(&ending) {
        bytes.pop();
    } else if bytes.len() as u64 > LINE_MAX {
        return Err(wrong(format!("is longer than {LINE_MAX} bytes")).hint("no program takes a longer argument"));
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong("is no UTF-8 text".into()))?;
    Ok(Some(Line { number, text }))
}

/// A line becomes one argument of a program.
const LINE_MAX: u64 = WORD_MAX as u64;

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8], ending: u8) -> Vec<Result<Line, Diagnostic>> {
        let (sender, mut receiver) = mpsc::channel(16);
        read(input, ending, &sender);
        drop(sender);
        std::iter::from_fn(|| receiver.try_recv().ok()).collect()
    }

    fn texts(input: &[u8], ending: u8) -> Vec<String> {
        all(input, ending).into_iter().map(|line| line.expect("a good line").text).collect()
    }

    #[test]
    fn the_last_line_needs_no_end() {
        assert_eq!(texts(b"a\n\nb", b'\n'), ["a", "", "b"]);
        assert_eq!(texts(b"a\nb\n", b'\n'), ["a", "b"]);
        assert_eq!(texts(b"", b'\n'), [""; 0]);
    }

    #[test]
    fn lines_that_end_with_nul_may_hold_newlines() {
        assert_eq!(texts(b"a\nb\0c\0", b'\0'), ["a\nb", "c"]);
    }

    #[test]
    fn a_line_that_no_program_takes_ends_the_input_with_an_error() {
        let mut input = vec![b'x'; LINE_MAX as usize + 10];
        input.extend(b"\nnext\n");
        let lines = all(&input, b'\n');
        assert_eq!(lines.len(), 1);
        assert!(lines[0].as_ref().unwrap_err().message.contains("longer"));
        assert!(all(b"ok\n\xff\xfe\n", b'\n')[1].as_ref().unwrap_err().message.contains("line 2"));
    }
}
