//! What foca wants done, kept until the engine has time for it.
//!
//! foca calls back in the middle of its own work; the engine takes everything out when the call is over, so that no
//! decision is made on a half-changed table.

use std::time::Duration;

use foca::{Notification, OwnedNotification, Runtime, Timer};

use crate::identity::Identity;

/// Everything that one call into foca asked for.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Packets to send.
    pub(crate) sends: Vec<(Identity, Vec<u8>)>,
    /// Timers to set.
    pub(crate) timers: Vec<(Timer<Identity>, Duration)>,
    /// What happened.
    pub(crate) notes: Vec<OwnedNotification<Identity>>,
}

impl Runtime<Identity> for Outbox {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        // Ups, downs and new names are found by comparing tables, which cannot miss one.
        if matches!(notification, Notification::MemberUp(_) | Notification::MemberDown(_) | Notification::Rename(..)) {
            return;
        }
        self.notes.push(notification.to_owned());
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.sends.push((to, data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        self.timers.push((event, after));
    }
}
