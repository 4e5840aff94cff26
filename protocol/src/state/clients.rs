//! Client sessions: a request is executed once, however often it arrives.
//!
//! A client numbers its requests and says with each which answers it still waits for. The answers of those are kept here;
//! a request that arrives again gets the kept answer. A refusal is an answer like any other: were it not kept, a late
//! duplicate could do what the client was told is certainly not done.
//!
//! # Invariants
//!
//! * Kept answers have numbers in `first_incomplete .. first_incomplete + WINDOW`; nothing is evicted by count (F9).
//! * A session that ended is never created again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdSet;

use super::digest::{Sum, Tag, fingerprint};
use super::image::Item;
use super::limits::{LINE_BYTES, MAX_HOSTED, MAX_PAGE, MAX_REPLY_BYTES, MAX_SESSIONS, REPLY_BYTES, TASK_BYTES, WINDOW};
use super::sessions::{Session, Sessions};
use crate::mutants::{Bug, is_on};
use crate::state::{About, Answer, Host, OpenSession, Refused, SessionView};
use crate::types::{ClusterTime, Incarnation, NodeId, Revision, Seq, SessionId};

/// The live client sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Clients {
    sessions: Sessions<Window>,
    /// Those that live in the process of a node's run.
    hosted: OrdSet<(Host, SessionId)>,
    /// What all kept answers take.
    bytes: u64,
    digest: Sum,
}

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Execute it, it is new.
    Execute,
    /// Answer this and execute nothing.
    Answer(Answer),
}

/// The requests of one session whose answers the client may still need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Window {
    about: About,
    first_incomplete: Seq,
    replies: BTreeMap<Seq, Reply>,
}

/// A kept answer, with its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reply {
    answer: Answer,
    digest: u64,
}

impl Clients {
    /// Says why this session cannot be opened, if so.
    pub(super) fn check(&self, opening: &OpenSession) -> Result<(), Refused> {
        opening.check()?;
        if self.sessions.len() >= MAX_SESSIONS {
            return Err(Refused::Quota(format!("the cluster is full: {MAX_SESSIONS} client sessions are open")));
        }
        if let Some(Host { node, .. }) = opening.about.host
            && self.hosted(node).len() >= MAX_HOSTED
        {
            return Err(Refused::Quota(format!("{node} is full: it hosts {MAX_HOSTED} sessions")));
        }
        Ok(())
    }

    /// Opens a session under the revision of its grant.
    pub(super) fn open(&mut self, revision: Revision, opening: &OpenSession, now: ClusterTime) -> SessionId {
        let id = SessionId::from(revision);
        let OpenSession { ttl, ref about } = *opening;
        let is_new = self.restore(id, ttl, now + ttl, Seq(1), about.clone());
        assert!(is_new, "session {id} was handed out twice");
        id
    }

    /// Ends a session and forgets its answers; says whether it lived.
    pub(super) fn close(&mut self, id: SessionId) -> bool {
        let Some(session) = self.sessions.close(id) else { return false };
        self.digest.remove(session.holder.fingerprint(id));
        self.digest.remove(session.holder.about.fingerprint(id));
        if let Some(host) = session.holder.about.host {
            self.hosted.remove(&(host, id));
        }
        for reply in session.holder.replies.values() {
            self.digest.remove(reply.digest);
            self.bytes -= weight(&reply.answer);
        }
        true
    }

    /// Says what to do with request `seq`, after forgetting the answers that the client says it has.
    pub(super) fn admit(&mut self, id: SessionId, seq: Seq, first_incomplete: Seq) -> Admission {
        self.forget_before(id, first_incomplete);
        let Some(window) = self.sessions.holder_mut(id) else { return refuse(Refused::SessionExpired) };
        if seq < window.first_incomplete {
            return refuse(Refused::Stale(seq));
        }
        if let Some(reply) = window.replies.get(&seq).filter(|_| !is_on(Bug::SkipsDedupe)) {
            return Admission::Answer(reply.answer.clone());
        }
        // Without room for its answer nothing may be executed. Room comes back as soon as clients say what they have:
        // with the next request, or the next renewal.
        if seq.0 - window.first_incomplete.0 >= WINDOW || self.bytes > MAX_REPLY_BYTES {
            return refuse(Refused::Busy);
        }
        Admission::Execute
    }

    /// Forgets the answers of the requests before this one: the client has them.
    pub(super) fn forget_before(&mut self, id: SessionId, first_incomplete: Seq) {
        if self.sessions.get(id).is_none_or(|session| session.holder.first_incomplete >= first_incomplete) {
            return;
        }
        let Some(window) = self.sessions.holder_mut(id) else { return };
        self.digest.remove(window.fingerprint(id));
        window.first_incomplete = first_incomplete;
        self.digest.add(window.fingerprint(id));
        while let Some(oldest) = window.replies.first_entry().filter(|oldest| *oldest.key() < first_incomplete) {
            let reply = oldest.remove();
            self.digest.remove(reply.digest);
            self.bytes -= weight(&reply.answer);
        }
    }

    /// Says whether an answer to a request before this one is kept.
    pub(super) fn keeps_before(&self, id: SessionId, first_incomplete: Seq) -> bool {
        let oldest = self.sessions.get(id).and_then(|session| session.holder.replies.keys().next());
        oldest.is_some_and(|oldest| *oldest < first_incomplete)
    }

    /// Keeps the answer of a request that was executed.
    pub(super) fn keep(&mut self, id: SessionId, seq: Seq, answer: Answer) {
        let Some(window) = self.sessions.holder_mut(id) else { return };
        let digest = fingerprint(Tag::Reply, &(id, seq, &answer));
        self.digest.add(digest);
        self.bytes += weight(&answer);
        let earlier = window.replies.insert(seq, Reply { answer, digest });
        assert!(earlier.is_none() || is_on(Bug::SkipsDedupe), "request {seq} of {id} was executed twice");
    }

    /// Refuses what names a session that does not live as the owner of something.
    pub(super) fn require(&self, id: SessionId) -> Result<(), Refused> {
        self.sessions.get(id).map(drop).ok_or(Refused::NoSession(id))
    }

    /// The sessions that live in processes of this node, and in which run.
    pub(super) fn hosted(&self, node: NodeId) -> Vec<(Incarnation, SessionId)> {
        let host = |run| Host { node, incarnation: Incarnation(run) };
        let range = (host(0), SessionId(0))..=(host(u64::MAX), SessionId(u64::MAX));
        self.hosted.range(range).map(|&(host, id)| (host.incarnation, id)).collect()
    }

    /// Whether evidence of its host's death is enough to end this session.
    pub(super) fn is_fast_released(&self, id: SessionId) -> bool {
        self.sessions.get(id).is_some_and(|session| session.holder.about.fast_release)
    }

    /// Some sessions as they are shown; `owned` says how many keys and claims are each one's.
    pub(super) fn page(
        &self,
        after: SessionId,
        limit: u32,
        now: ClusterTime,
        owned: impl Fn(SessionId) -> (u32, u32),
    ) -> Vec<SessionView> {
        let limit = MAX_PAGE.min(limit as usize);
        self.sessions
            .after(after)
            .take(limit)
            .map(|(id, session)| {
                let (keys, claims) = owned(id);
                let (ttl, left, about) = (session.ttl, session.deadline.since(now), session.holder.about.clone());
                SessionView { id, ttl, left, about, keys, claims }
            })
            .collect()
    }

    /// The kept answer of a request.
    pub(super) fn answer(&self, id: SessionId, seq: Seq) -> Option<&Answer> {
        self.sessions.get(id)?.holder.replies.get(&seq).map(|reply| &reply.answer)
    }

    /// See [`Sessions::renew`].
    pub(super) fn renew(&mut self, id: SessionId, now: ClusterTime) -> Option<ClusterTime> {
        self.sessions.renew(id, now)
    }

    /// Takes a session as it was elsewhere; says whether it can stand here.
    pub(super) fn restore(
        &mut self,
        id: SessionId,
        ttl: Duration,
        deadline: ClusterTime,
        first_incomplete: Seq,
        about: About,
    ) -> bool {
        self.digest.add(about.fingerprint(id));
        self.hosted.extend(about.host.map(|host| (host, id)));
        let window = Window { about, first_incomplete, replies: BTreeMap::new() };
        self.digest.add(window.fingerprint(id));
        self.sessions.restore(id, Session { ttl, deadline, holder: window })
    }

    /// Takes a kept answer as it was elsewhere; says whether it can stand here.
    pub(super) fn restore_reply(&mut self, id: SessionId, seq: Seq, answer: Answer) -> bool {
        let Some(window) = self.sessions.holder_mut(id) else { return false };
        let is_inside = seq.0.checked_sub(window.first_incomplete.0).is_some_and(|ahead| ahead < WINDOW);
        if !is_inside || window.replies.contains_key(&seq) {
            return false;
        }
        self.keep(id, seq, answer);
        true
    }

    /// All of this as records of an image.
    pub(super) fn into_items(self) -> impl Iterator<Item = Item> {
        self.sessions.into_iter().flat_map(|(id, session)| {
            let Session { ttl, deadline, holder } = Arc::unwrap_or_clone(session);
            let Window { about, first_incomplete, replies } = holder;
            let client = Item::Client { id, ttl, deadline, first_incomplete, about };
            let replies = replies.into_iter().map(|(seq, reply)| Item::Reply { seq, answer: reply.answer });
            std::iter::once(client).chain(replies)
        })
    }

    /// How many bytes the kept answers take.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The sessions themselves.
    pub(super) fn sessions(&self) -> &Sessions<impl Clone + use<>> {
        &self.sessions
    }

    /// The hash of all sessions.
    pub(super) fn digest(&self) -> u64 {
        self.digest.value().wrapping_add(self.sessions.digest().value())
    }
}

impl About {
    fn fingerprint(&self, id: SessionId) -> u64 {
        fingerprint(Tag::About, &(id, self))
    }
}

impl Window {
    fn fingerprint(&self, id: SessionId) -> u64 {
        fingerprint(Tag::Progress, &(id, self.first_incomplete))
    }
}

/// How many bytes a kept answer counts for.
fn weight(answer: &Answer) -> u64 {
    match answer {
        Answer::Submitted(tasks) => REPLY_BYTES + 16 * tasks.len() as u64,
        Answer::Sequenced { key, .. } => REPLY_BYTES + key.len() as u64,
        Answer::Transacted(transacted) => REPLY_BYTES + transacted.bytes(),
        Answer::Task(view) => REPLY_BYTES + TASK_BYTES + LINE_BYTES * view.history.len() as u64,
        _ => REPLY_BYTES,
    }
}

fn refuse(why: Refused) -> Admission {
    Admission::Answer(Answer::Refused(why))
}

#[cfg(test)]
impl Clients {
    /// Recomputes hashes and indexes from the sessions, and compares.
    pub(super) fn assert_coherent(&self) {
        self.sessions.assert_coherent();
        let mut digest = Sum::default();
        let mut bytes = 0;
        let mut hosted = OrdSet::new();
        for (id, session) in self.sessions.iter() {
            let window = &session.holder;
            digest.add(window.fingerprint(id));
            digest.add(window.about.fingerprint(id));
            hosted.extend(window.about.host.map(|host| (host, id)));
            for (seq, reply) in &window.replies {
                digest.add(fingerprint(Tag::Reply, &(id, seq, &reply.answer)));
                bytes += weight(&reply.answer);
                let ahead =
                    seq.0.checked_sub(window.first_incomplete.0).expect("an answer that the client has is kept");
                assert!(ahead < WINDOW, "an answer beyond the window is kept");
            }
        }
        assert_eq!(digest, self.digest, "the digest of the clients drifted");
        assert_eq!(bytes, self.bytes, "the size of the answers drifted");
        assert_eq!(hosted, self.hosted, "the index of hosts drifted");
    }
}
