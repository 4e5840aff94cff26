//! The rule itself, for a service of your own, and the header in which a fence travels to it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use protocol::Fence;

use super::Error;

/// The header in which a fence travels with a request: `Tenure-Fence: 4711`.
///
/// A service that changes something under a right compares it with the highest it has taken for that thing, and answers
/// `409 Conflict` to a lower one. A request without it is from somebody who does not take part: refuse it with
/// `428 Precondition Required`.
///
/// ```
/// # use tenure::Fence;
/// use tenure::fenced::HEADER;
///
/// assert_eq!(format!("{HEADER}: {}", Fence(4711)), "Tenure-Fence: 4711");
/// ```
pub const HEADER: &str = "Tenure-Fence";

/// Reads the value of [`HEADER`]; nothing if it is not a fence.
///
/// ```
/// use tenure::Fence;
/// use tenure::fenced::parse_header;
///
/// assert_eq!(parse_header(" 4711"), Some(Fence(4711)));
/// assert_eq!(parse_header("-1"), None);
/// ```
#[must_use]
pub fn parse_header(value: &str) -> Option<Fence> {
    let digits = value.trim();
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok().map(Fence)).flatten()
}

/// The highest fence per thing, in memory: for a service that holds the things in memory as well. One that restarts and
/// goes on with what it had must keep the fences with it, in the same transaction: see [`super::Sql`].
///
/// Holds one number for every name it was asked about; the names are yours to bound.
///
/// ```
/// # use tenure::Fence;
/// # use tenure::fenced;
/// let gate = fenced::Gate::default();
/// assert!(gate.run("stock", Fence(12), || "written").is_ok());
/// assert!(gate.run("stock", Fence(7), || "too late").is_err(), "it was replaced");
/// ```
#[derive(Debug, Default)]
pub struct Gate {
    highest: Mutex<BTreeMap<String, Fence>>,
}

impl Gate {
    /// Runs `effect` under this fence, unless a higher one was here for `name`. No other effect of any name runs meanwhile.
    ///
    /// ```
    /// # use tenure::Fence;
    /// # use tenure::fenced;
    /// let gate = fenced::Gate::default();
    /// let left = gate.run("stock", Fence(12), || 41)?;
    /// assert_eq!(left, 41);
    /// # Ok::<_, fenced::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Stale`]; `effect` has not run then.
    pub fn run<T>(&self, name: &str, fence: impl Into<Fence>, effect: impl FnOnce() -> T) -> Result<T, Error> {
        let held = fence.into();
        // An effect that panics leaves the fences as right as they were.
        let mut highest = self.highest.lock().unwrap_or_else(PoisonError::into_inner);
        match highest.get_mut(name) {
            Some(current) if *current > held => return Err(Error::Stale { held, current: *current }),
            Some(current) => *current = held,
            None => {
                highest.insert(name.to_owned(), held);
            }
        }
        Ok(effect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_a_highest_fence_of_its_own() {
        let gate = Gate::default();
        assert_eq!(gate.run("a", Fence(5), || 1).unwrap(), 1);
        assert_eq!(gate.run("a", Fence(5), || 2).unwrap(), 2, "the same holder goes on");
        assert_eq!(gate.run("b", Fence(3), || 3).unwrap(), 3);
        let refused = gate.run("a", Fence(4), || unreachable!("a replaced holder has no effect")).unwrap_err();
        assert!(matches!(refused, Error::Stale { held: Fence(4), current: Fence(5) }));
    }

    #[test]
    fn a_header_is_a_number_and_nothing_else() {
        assert_eq!(parse_header(" 4711 "), Some(Fence(4711)));
        for value in ["", "-1", "+1", "4711a", "99999999999999999999"] {
            assert_eq!(parse_header(value), None, "{value:?}");
        }
    }
}
