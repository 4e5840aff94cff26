//! Effects: what an attempt writes together with its result.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use protocol::state::TaskEffect;
use protocol::state::limits::{MAX_EFFECTS, MAX_KEY};
use protocol::wire::MAX_VALUE;

use crate::task::TaskError;

/// What an attempt writes together with its result: keys and counters of the cluster, changed in the very step that records the
/// result, and only then. A task has at most one recorded result, so they are changed **exactly once**, however many attempts ran,
/// died, or came too late.
///
/// ```
/// use tenure::prelude::*;
///
/// #[task]
/// async fn resize(cx: &TaskCx, image: String) -> Result<(), TaskError> {
///     let thumb = image.to_uppercase(); // the work
///     cx.effects().put(format!("thumbs/{image}"), thumb)?.add("resized", 1)?;
///     Ok(()) // the key is set and the counter goes up when this is recorded
/// }
/// ```
///
/// Nothing is written before that: another attempt, a reader and the attempt itself see the old values. An attempt that fails, is
/// cancelled or was replaced writes nothing. A key that is set stays, whatever time it had to live.
///
/// An effect that the cluster refuses when it records the result fails the **task** for good, and none of its effects is done:
/// because the cluster is full, the key belongs to a session, or a counter would leave the 64 bits. Another attempt would come to the
/// same. What can be known before is said at once, see [`EffectError`].
#[derive(Debug)]
pub struct Effects {
    /// Nothing: the attempt has ended.
    gathered: Mutex<Option<Vec<TaskEffect>>>,
}

/// Why an effect was not taken. The effects before it stay.
///
/// As an error of a handler it is [final](TaskError::fatal): another attempt would come to the same. Like [`TaskError`] it is
/// deliberately no error type itself, as otherwise `?` would make a failure of it that is tried again.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(cx: &TaskCx) -> Result<(), TaskError> {
/// # use tenure::EffectError;
/// cx.effects().put("a", "1")?;
/// assert!(cx.effects().put("a", "2").is_err(), "one key once");
/// let _: Result<_, EffectError> = cx.effects().delete("b");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EffectError {
    /// So many effects are there already.
    TooMany {
        /// How many one attempt may have.
        limit: usize,
    },
    /// All effects together would have so many bytes, keys and a little for each included. The result counts too, at the end.
    TooLarge {
        /// What it would be.
        len: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The name of a key or counter is empty or too long.
    Name {
        /// How many bytes it has.
        len: usize,
        /// How many it may have.
        limit: usize,
    },
    /// The key is written by an effect already: one of a step cannot follow another.
    Twice(String),
    /// The attempt has ended: its result is on its way, or it was dropped.
    Ended,
}

impl Effects {
    /// Sets a key for good, whatever is there; at most 1 MiB, all effects of the attempt together.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(cx: &TaskCx) -> Result<(), TaskError> {
    /// cx.effects().put("thumbs/cat", "small")?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`EffectError`].
    pub fn put(&self, key: impl Into<String>, value: impl Into<Bytes>) -> Result<&Self, EffectError> {
        self.gather(TaskEffect::Put { key: key.into(), value: value.into() })
    }

    /// Removes a key. That it is not there is no failure.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(cx: &TaskCx) -> Result<(), TaskError> {
    /// cx.effects().delete("queue/cat")?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`EffectError`].
    pub fn delete(&self, key: impl Into<String>) -> Result<&Self, EffectError> {
        self.gather(TaskEffect::Delete(key.into()))
    }

    /// Adds to a counter.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(cx: &TaskCx) -> Result<(), TaskError> {
    /// cx.effects().add("resized", 1)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`EffectError`].
    pub fn add(&self, counter: impl AsRef<str>, by: i64) -> Result<&Self, EffectError> {
        self.gather(TaskEffect::Add { counter: counter.as_ref().into(), by })
    }

    /// All of them; no more are taken.
    pub(crate) fn take(&self) -> Vec<TaskEffect> {
        self.lock().take().unwrap_or_default()
    }

    fn gather(&self, effect: TaskEffect) -> Result<&Self, EffectError> {
        let mut gathered = self.lock();
        let gathered = gathered.as_mut().ok_or(EffectError::Ended)?;
        let name = effect.name().len();
        if name == 0 || name > MAX_KEY {
            return Err(EffectError::Name { len: name, limit: MAX_KEY });
        }
        if gathered.len() == MAX_EFFECTS {
            return Err(EffectError::TooMany { limit: MAX_EFFECTS });
        }
        let len = gathered.iter().map(TaskEffect::size).sum::<usize>() + effect.size();
        if len > MAX_VALUE {
            return Err(EffectError::TooLarge { len, limit: MAX_VALUE });
        }
        if let Some(key) = effect.key().filter(|key| gathered.iter().any(|other| other.key() == Some(key))) {
            return Err(EffectError::Twice(key.to_owned()));
        }
        gathered.push(effect);
        Ok(self)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<TaskEffect>>> {
        // Nothing that holds the lock can panic.
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Effects {
    fn default() -> Self {
        Self { gathered: Mutex::new(Some(Vec::new())) }
    }
}

impl fmt::Display for EffectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { limit } => write!(f, "an attempt has {limit} effects at most"),
            Self::TooLarge { len, limit } => {
                write!(f, "the effects would have {len} bytes, more than the {limit} allowed")
            }
            Self::Name { len: 0, .. } => write!(f, "the name of a key or counter must not be empty"),
            Self::Name { len, limit } => {
                write!(f, "the name of a key or counter has {len} bytes, more than the {limit} allowed")
            }
            Self::Twice(key) => write!(f, "an effect writes the key {key:?} already"),
            Self::Ended => write!(f, "the attempt has ended"),
        }
    }
}

impl From<EffectError> for TaskError {
    fn from(error: EffectError) -> Self {
        Self::fatal(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_are_taken_in_order_until_the_attempt_ends() {
        let effects = Effects::default();
        effects.put("a", "1").unwrap().delete("b").unwrap().add("n", 2).unwrap().add("n", -1).unwrap();
        let taken = effects.take();
        assert_eq!(taken.len(), 4);
        assert_eq!(taken[0], TaskEffect::Put { key: "a".into(), value: "1".into() });
        assert_eq!(effects.put("c", "1").unwrap_err(), EffectError::Ended);
        assert_eq!(effects.take(), []);
    }

    #[test]
    fn what_can_be_known_before_is_refused_at_once_and_for_good() {
        let effects = Effects::default();
        effects.put("a", "1").unwrap();
        assert_eq!(effects.delete("a").unwrap_err(), EffectError::Twice("a".into()));
        assert_eq!(effects.add("", 1).unwrap_err(), EffectError::Name { len: 0, limit: 512 });
        assert_eq!(effects.put("k".repeat(513), "1").unwrap_err(), EffectError::Name { len: 513, limit: 512 });
        let refused = effects.put("b", vec![0; MAX_VALUE]).unwrap_err();
        assert!(matches!(refused, EffectError::TooLarge { limit: MAX_VALUE, .. }));
        assert!(!TaskError::from(refused).is_retryable());
        for _ in 1..MAX_EFFECTS {
            effects.add("n", 1).unwrap();
        }
        assert_eq!(effects.add("n", 1).unwrap_err(), EffectError::TooMany { limit: 128 });
        assert_eq!(effects.take().len(), MAX_EFFECTS);
    }
}
