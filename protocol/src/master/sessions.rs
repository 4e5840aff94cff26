//! The master and its nodes: who is linked, who is here, whose session lives.
//!
//! # Invariants
//!
//! * A worker is welcome when the opening or renewal that it asked for is applied, and the answer names its question: an
//!   entry that is older than the question does not answer it.
//! * Nothing is dispatched to a worker that is not welcome on the link of today.

use super::board::Told;
use super::crew::{Asked, Opening, Report};
use super::machine::Master;
use super::message::ToWorker;
use crate::effects::Effects;
use crate::state::limits::check_offer;
use crate::state::{Begun, Command, NodeSession, Offer};
use crate::types::{ClusterTime, Fence, Nanos, NodeId, SessionId};

impl Master {
    /// A node can be spoken to on a new link.
    pub(super) fn on_link_up(&mut self, node: NodeId, effects: &mut Effects) {
        self.relink(node, true);
        effects.send(node, ToWorker::Here { epoch: self.epoch });
    }

    /// A link broke. No right moves; what the worker certainly never heard of goes elsewhere. Whatever it asked for it asks again on
    /// the next link, if there is one.
    pub(super) fn on_link_down(&mut self, node: NodeId) {
        self.openings.remove(&node);
        self.relink(node, false);
    }

    /// A worker is here. It is told of its attempts when it is welcome: a worker that lost its session by its own clock could
    /// only hand them back before.
    pub(super) fn on_hello(&mut self, now: Nanos, report: &Report, offer: Offer, effects: &mut Effects) {
        let &Report { node, incarnation, sent, .. } = report;
        if let Err(why) = check_offer(&offer) {
            return self.say(node, ToWorker::Refused { epoch: self.epoch, why }, effects);
        }
        let at = self.clock.time(now);
        let member = self.crew.entry(node).or_default();
        if member.session.as_ref().is_some_and(|session| session.incarnation > incarnation) {
            return;
        }
        member.greeted = Some(incarnation);
        member.is_welcome = false;
        member.is_dead = false;
        member.is_full = false;
        self.has_news = true;
        let session = member.session_of(incarnation);
        let is_known = session.is_some_and(|session| session.offer == offer);
        if session.is_some() {
            member.asked = Some(Asked { sent, at });
            self.renew_at = Some(now);
        }
        if !is_known {
            self.decide_opening(node, Opening { incarnation, offer, sent, at });
        }
        self.reconcile(report, None, effects);
    }

    /// A worker still lives.
    pub(super) fn on_renew(
        &mut self,
        now: Nanos,
        report: &Report,
        session: SessionId,
        seen: Fence,
        effects: &mut Effects,
    ) {
        let &Report { node, incarnation, sent, .. } = report;
        let at = self.clock.time(now);
        let member = self.crew.entry(node).or_default();
        if member.session_of(incarnation).is_none_or(|own| own.session != session) {
            effects.send(node, ToWorker::Unknown { epoch: self.epoch });
            return;
        }
        member.asked = Some(Asked { sent, at });
        self.renew_at.get_or_insert(now + self.profile.heartbeat);
        if member.greeted == Some(incarnation) {
            self.has_news |= std::mem::take(&mut member.is_full);
            self.reconcile(report, Some(seen), effects);
        }
    }

    /// A worker goes.
    pub(super) fn on_goodbye(&mut self, node: NodeId, session: SessionId, begun: Begun) {
        if self.sessions.get(&session) == Some(&node) {
            let begun = begun.bounded();
            let bytes = begun.size();
            self.endings.insert_sized(session, begun, bytes);
        }
    }

    pub(super) fn on_node_opened(&mut self, session: NodeSession, effects: &mut Effects) {
        let (node, incarnation) = (session.node, session.incarnation);
        let (id, ttl, deadline, offer) = (session.session, session.ttl, session.deadline, session.offer.clone());
        if !self.sessions.contains_key(&id) {
            effects.note(format!("{node} ({}) is here with {} slots", offer.label, offer.slots));
        }
        self.open(session);
        self.has_news = true;
        let Some(&Opening { incarnation: wanted, sent, at, .. }) = self.openings.get(&node) else { return };
        let is_this = wanted == incarnation && self.openings.get(&node).is_some_and(|opening| opening.offer == offer);
        if wanted < incarnation || is_this {
            self.openings.remove(&node);
        }
        // Opening and changing a session renews it.
        if is_this && deadline >= at + ttl {
            self.welcome(node, ToWorker::Welcome { epoch: self.epoch, incarnation, session: id, ttl, sent }, effects);
        }
    }

    /// A renewal counts when it is applied. The one that was asked for after this entry was stamped is answered by a later
    /// entry.
    pub(super) fn on_renewed(&mut self, session: SessionId, deadline: ClusterTime, effects: &mut Effects) {
        let Some(&node) = self.sessions.get(&session) else { return };
        let Some(member) = self.crew.get_mut(&node) else { return };
        let Some(own) = member.session.as_mut() else { return };
        own.deadline = deadline;
        let (ttl, incarnation) = (own.ttl, own.incarnation);
        if let Some(asked) = member.proposed.take_if(|asked| deadline >= asked.at + ttl) {
            let sent = asked.sent;
            self.welcome(node, ToWorker::Welcome { epoch: self.epoch, incarnation, session, ttl, sent }, effects);
        }
    }

    pub(super) fn on_node_ended(&mut self, session: SessionId) {
        self.endings.remove(&session);
        let Some(node) = self.sessions.remove(&session) else { return };
        if let Some(member) = self.crew.get_mut(&node)
            && member.session.as_ref().is_some_and(|own| own.session == session)
        {
            member.session = None;
            member.asked = None;
            member.proposed = None;
        }
        self.forget_if_nothing(node);
    }

    pub(super) fn propose_renewals(&mut self, now: Nanos, commands: &mut Vec<Command>) {
        if self.renew_at.is_none_or(|at| now < at) {
            return;
        }
        self.renew_at = None;
        let mut sessions = Vec::new();
        for member in self.crew.values_mut() {
            let Some(session) = &member.session else { continue };
            // While one is on its way, the next one waits for its answer, so that no answer is taken for the other's.
            if member.proposed.is_none() {
                member.proposed = member.asked.take();
                sessions.extend(member.proposed.map(|_| session.session));
            } else if member.asked.is_some() {
                self.renew_at = Some(now + self.profile.heartbeat);
            }
        }
        if !sessions.is_empty() {
            commands.push(Command::Renew { sessions });
        }
    }

    pub(super) fn open(&mut self, session: NodeSession) {
        self.sessions.insert(session.session, session.node);
        let member = self.crew.entry(session.node).or_default();
        if let Some(old) = member.session.replace(session)
            && member.session.as_ref().is_some_and(|new| new.session != old.session)
        {
            self.sessions.remove(&old.session);
            member.asked = None;
            member.proposed = None;
        }
    }

    /// Says something to a node that can be spoken to. What is lost otherwise comes again after its next hello.
    pub(super) fn say(&self, node: NodeId, message: ToWorker, effects: &mut Effects) {
        if self.crew.get(&node).is_some_and(|member| member.is_linked) {
            effects.send(node, message);
        }
    }

    fn decide_opening(&mut self, node: NodeId, opening: Opening) {
        if let Some(known) = self.openings.get(&node) {
            let is_same = known.incarnation == opening.incarnation && known.offer == opening.offer;
            let is_recent = opening.at < known.at + self.profile.session;
            if known.incarnation > opening.incarnation || (is_same && is_recent) {
                return;
            }
            self.openings.remove(&node);
        }
        let bytes = opening.offer.size();
        self.openings.insert_sized(node, opening, bytes);
    }

    /// Says that the session lives, and then what was granted under it and not said on this link.
    fn welcome(&mut self, node: NodeId, welcome: ToWorker, effects: &mut Effects) {
        self.say(node, welcome, effects);
        let Some(member) = self.crew.get_mut(&node) else { return };
        if std::mem::replace(&mut member.is_welcome, true) {
            return;
        }
        for (_, task) in self.grants_of(node) {
            self.dispatch(task, effects);
        }
    }

    fn relink(&mut self, node: NodeId, is_linked: bool) {
        self.crew.entry(node).or_default().relink(is_linked);
        for (fence, task) in self.grants_of(node) {
            match self.board.granted(task) {
                Some((_, _, Told::OnThisLink | Told::Missing | Told::Again)) => self.board.tell(task, Told::Earlier),
                Some((_, _, Told::Never)) if !is_linked => self.take_back_unheard(task, fence),
                _ => {}
            }
        }
        self.forget_if_nothing(node);
    }

    pub(super) fn forget_if_nothing(&mut self, node: NodeId) {
        if let Some(member) = self.crew.get(&node)
            && !member.is_linked
            && member.session.is_none()
            && member.load() == 0
        {
            self.crew.remove(&node);
        }
    }
}
