//! The one timer of a shell.
//!
//! It is the system's and not the runtime's, which wakes its thread twice for most timers of more than a few milliseconds, and
//! once more whenever one is set that comes before all others: that was most of what a leader at rest cost. This one runs on
//! the clock that the machines are shown, also while the machine sleeps.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use protocol::Nanos;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;

use crate::clock::Clock;

/// A timer that is moved when it would come too late or much too early. When it comes a little too early, the machine finds
/// nothing due and the timer is set again: cheaper than to move it with each input of a busy machine.
pub(crate) struct Alarm {
    set: Option<Nanos>,
    timer: Arc<Timer>,
    ringer: AbortHandle,
}

struct Timer {
    fd: AsyncFd<OwnedFd>,
    has_rung: AtomicBool,
}

impl Alarm {
    /// A timer that is not set yet; `ring` is called each time it is due. Must be called on a runtime.
    ///
    /// # Errors
    ///
    /// The system's, when it has no timer left for us.
    pub(crate) fn new(ring: impl Fn() + Send + 'static) -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; the timer is owned by what waits for it and never lent"
        )]
        let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
        let timer = Arc::new(Timer { fd, has_rung: AtomicBool::new(false) });
        let ringer = tokio::spawn({
            let timer = timer.clone();
            async move {
                // The runtime is told of each time anew, so nothing needs to be read.
                while let Ok(mut due) = timer.fd.readable().await {
                    due.clear_ready();
                    timer.has_rung.store(true, Ordering::Relaxed);
                    ring();
                }
            }
        });
        Ok(Self { set: None, timer, ringer: ringer.abort_handle() })
    }

    /// It rings at `deadline` or later, and never before; a deadline that has passed is due in a millisecond.
    pub(crate) fn set(&mut self, deadline: Nanos, clock: &Clock) {
        if self.timer.has_rung.swap(false, Ordering::Relaxed) {
            self.set = None;
        }
        // One that is due is about to ring: moved again and again, it never would.
        let is_good = |at| at <= deadline && (deadline.since(at) < EARLY || at <= clock.now());
        if deadline == Nanos::NEVER || self.set.is_some_and(is_good) {
            return;
        }
        self.set = Some(deadline);
        let wait = clock.until(deadline).clamp(SOONEST, LATEST);
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec::try_from(wait).expect("the longest wait is within what a timer takes"),
        };
        timerfd_settime(&self.timer.fd, TimerfdTimerFlags::empty(), &once)
            .expect("a timer of ours takes any valid time");
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.ringer.abort();
    }
}

/// For so much less a timer is not moved back.
const EARLY: Duration = Duration::from_millis(5);

/// A machine that is always in time for something must leave room for others.
const SOONEST: Duration = Duration::from_millis(1);

/// A deadline that lies further away is looked at again then.
const LATEST: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::clock::now;

    /// An alarm that says when it rings.
    fn alarm() -> (Alarm, mpsc::Receiver<Nanos>) {
        let (rung, heard) = mpsc::channel();
        (Alarm::new(move || rung.send(now()).expect("the test listens")).expect("a timer"), heard)
    }

    async fn next(heard: &mpsc::Receiver<Nanos>) -> Nanos {
        loop {
            match heard.try_recv() {
                Ok(at) => return at,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    #[tokio::test]
    async fn it_rings_once_for_each_time_it_is_set_and_never_early() {
        let clock = Clock::default();
        let (mut alarm, heard) = alarm();
        for _ in 0..5 {
            let deadline = clock.now() + Duration::from_millis(3);
            alarm.set(deadline, &clock);
            assert!(next(&heard).await >= deadline);
            assert!(heard.try_recv().is_err());
        }
    }

    /// How long after the first moment an alarm rings that is set to these moments, one after another. On a busy machine, one
    /// of them may have come before all are set: then once more.
    async fn rings_after(moments: &[Duration]) -> Duration {
        let clock = Clock::default();
        let first = moments.iter().min().expect("it is set to something");
        loop {
            let (mut alarm, heard) = alarm();
            let start = clock.now();
            moments.iter().for_each(|&moment| alarm.set(start + moment, &clock));
            if clock.now() < start + *first {
                return next(&heard).await.since(start);
            }
        }
    }

    #[tokio::test]
    async fn it_is_moved_forward_at_once_and_back_only_by_much() {
        let soon = Duration::from_millis(30);
        assert!(rings_after(&[LATEST, soon, soon + EARLY / 2, Duration::MAX]).await >= soon);
        assert!(rings_after(&[soon, soon + 3 * EARLY]).await >= soon + 3 * EARLY);
    }

    #[tokio::test]
    async fn a_deadline_of_the_past_is_due_now_whatever_is_set_behind_it() {
        let clock = Clock::default();
        let (mut alarm, heard) = alarm();
        for _ in 0..3 {
            alarm.set(Nanos(0), &clock);
            next(&heard).await;
        }
    }
}
