//! How words on the command line and in queries become values.

use std::time::Duration;

use protocol::TaskId;

/// A span of time: `250ms`, `5m`, `1h 30m`, or a bare number of seconds. At most a thousand years, which can be added to any point in time.
///
/// # Errors
///
/// The sentence to show.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let bounded = |span| if span <= MAX { Ok(span) } else { Err(format!("`{text}` is more than a thousand years")) };
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds)
            .map_err(|_| format!("`{text}` is no span of time"))
            .and_then(bounded);
    }
    let span: jiff::SignedDuration =
        text.parse().map_err(|_| format!("`{text}` is no span of time; write for example 250ms, 5s or 1h30m"))?;
    Duration::try_from(span).map_err(|_| format!("`{text}` is negative")).and_then(bounded)
}

/// The name of a right or a counter.
///
/// # Errors
///
/// The sentence to show.
pub(crate) fn name(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("a name has at least one character".into()) } else { Ok(text.into()) }
}

/// A task's id, `t42`.
///
/// # Errors
///
/// The sentence to show.
pub(crate) fn task(text: &str) -> Result<TaskId, String> {
    let number = text.strip_prefix('t').and_then(|digits| digits.parse().ok());
    number.map(TaskId).ok_or_else(|| format!("`{text}` is no task; a task looks like t42"))
}

/// A label, `key=value`.
///
/// # Errors
///
/// The sentence to show.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is no label; write KEY=VALUE")),
    }
}

/// The longest span of time that anybody can mean.
const MAX: Duration = Duration::from_secs(1_000 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_are_read_as_people_write_them() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("31536000000"), Ok(MAX));
        for wrong in ["", "soon", "-5s", "-1", "NaN", "1e300", "1e19", "31536000001", "9000000h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn printed_ids_paste_back() {
        assert_eq!(task(&TaskId(42).to_string()), Ok(TaskId(42)));
        for wrong in ["42", "t", "t-1", "t42#2", "tx"] {
            assert!(task(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_have_something_in_them() {
        assert_eq!(name("a b"), Ok("a b".into()));
        assert!(name("").is_err());
    }

    #[test]
    fn labels_need_a_key() {
        assert_eq!(label("zone=a"), Ok(("zone".into(), "a".into())));
        assert_eq!(label("flag="), Ok(("flag".into(), String::new())));
        assert!(label("=a").is_err() && label("zone").is_err());
    }
}
