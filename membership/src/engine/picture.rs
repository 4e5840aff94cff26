//! The picture that the application sees, kept by comparing foca's table with it.
//!
//! foca tells of members that come and go, but neither of suspects and refutations nor whether somebody crashed or left.
//! Comparing the tables after every call finds all of it, in one place, and cannot miss anything. It costs a walk over
//! the members per packet, a few dozen times a second.
//!
//! # Invariants
//!
//! * What the events say and what the view shows is the same (`Event::apply`).
//! * `Restarted` is told if and only if the incarnation grew; a new name of the same run is a rejoining at most.
//! * A member that said farewell is `Left`, even if its crash was noticed first.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use foca::{Header, Message as FocaMessage, State};
use protocol::{Nanos, NodeId};

use super::{Effects, Engine, Identity, MAINTAIN_EVERY, Phase};
use crate::member::{Event, Member, MemberState, Tags, View};
use crate::packet::Message;

/// A member, with what the engine must remember of it.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The name it bears.
    pub(super) id: Identity,
    /// How it is.
    pub(super) state: MemberState,
    /// Since when.
    pub(super) since: Nanos,
    /// When it was last heard itself.
    pub(super) heard: Option<Nanos>,
    /// How long its last answer took.
    pub(super) rtt: Option<Duration>,
    /// What it says of itself, as far as the application was told.
    tags: Arc<Tags>,
    /// When it was last tried although absent.
    pub(super) tried: Option<Nanos>,
    /// Whether somebody holds its present name to be down, and it was told.
    pub(super) is_doubted: bool,
    /// When it was last asked for its tags.
    asked: Option<Nanos>,
}

impl Peer {
    fn new(id: Identity, state: MemberState, tags: Arc<Tags>, now: Nanos) -> Self {
        Self { id, state, since: now, heard: None, rtt: None, tags, tried: None, is_doubted: false, asked: None }
    }

    fn member(&self) -> Member {
        let Identity { node, incarnation, addr, link, .. } = self.id;
        let (state, since, tags, rtt) = (self.state, self.since, self.tags.clone(), self.rtt);
        Member { node, incarnation, addr, link, state, since, tags, rtt }
    }

    pub(super) fn is_active(&self) -> bool {
        self.state.is_active()
    }

    /// Whether it was heard within the last `span`.
    pub(super) fn is_heard(&self, now: Nanos, span: Duration) -> bool {
        self.heard.is_some_and(|at| now.since(at) <= span)
    }
}

impl Engine {
    /// The whole picture.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            version: self.version,
            me: self.myself(),
            members: self.peers.iter().map(|(node, peer)| (*node, peer.member())).collect(),
            master: self.board.lock().master,
            is_connected: self.is_connected,
            is_duplicate: self.phase == Phase::Muted,
        }
    }

    /// This node as a member.
    pub(super) fn myself(&self) -> Member {
        let me = self.me();
        Member {
            node: me.node,
            incarnation: me.incarnation,
            addr: me.addr,
            link: me.link,
            state: MemberState::Alive,
            since: self.born,
            tags: self.tags.tags.clone(),
            rtt: None,
        }
    }

    /// Compares foca's table with the picture and tells what changed. True if it should spread at once.
    pub(super) fn refresh(&mut self, now: Nanos, effects: &mut Effects) -> bool {
        let me = self.me().node;
        let table: Vec<(Identity, State)> =
            self.foca.iter_membership_state().map(|member| (*member.id(), member.state())).collect();
        let mut is_urgent = false;
        for (id, state) in table.into_iter().filter(|(id, _)| id.node != me) {
            let state = self.seen_as(&id, state);
            if let Some(event) = self.update(id, state, now) {
                is_urgent |= matches!(event, Event::Failed(_) | Event::Left(_));
                self.tell(event, effects);
            }
        }
        self.tell_news(effects);
        is_urgent
    }

    /// Remembers when members were heard, and how long their answers took.
    pub(super) fn on_heard(&mut self, now: Nanos, header: &Header<Identity>) {
        self.mark_heard(now, &header.src);
        let Some((pinged, number, at)) = self.ping else { return };
        if header.message == FocaMessage::Ack(number) && header.src == pinged {
            self.ping = None;
            if let Some(peer) = self.peers.get_mut(&pinged.node) {
                peer.rtt = Some(now.since(at));
            }
        }
    }

    /// Remembers probes, and the refutation counter that foca shows only here.
    pub(super) fn on_sent(&mut self, now: Nanos, header: &Header<Identity>) {
        self.generation = header.src_incarnation;
        if let FocaMessage::Ping(number) = header.message {
            self.ping = Some((header.dst, number, now));
        }
    }

    /// Notes that the bearer of this name was heard.
    pub(super) fn mark_heard(&mut self, now: Nanos, name: &Identity) {
        if let Some(peer) = self.peers.get_mut(&name.node).filter(|peer| peer.id == *name) {
            peer.heard = Some(now);
        }
    }

    /// Takes those who said farewell out of the table at once.
    pub(super) fn heed_farewells(&mut self) {
        let farewells = std::mem::take(&mut self.board.lock().farewells);
        for node in farewells {
            let Some(peer) = self.peers.get(&node).filter(|peer| peer.is_active()) else { continue };
            let name = peer.id;
            if self.board.lock().is_leaving(node, name.incarnation) {
                let down = std::iter::once(foca::Member::down(name));
                let outcome = self.foca.apply_many(down, true, &mut self.outbox);
                self.count(outcome);
            }
        }
    }

    /// What needs no hurry: forgets the long absent, asks for missing tags, freshens round-trip times.
    pub(super) fn maintain(&mut self, now: Nanos, effects: &mut Effects) {
        self.maintain_at = now + self.timing.gossip * MAINTAIN_EVERY;
        self.full_answers = 0;
        self.is_view_stale = true;
        self.forget(now, effects);
        self.ask_for_tags(now, effects);
    }

    fn seen_as(&self, id: &Identity, state: State) -> MemberState {
        match state {
            State::Alive => MemberState::Alive,
            State::Suspect => MemberState::Suspect,
            State::Down if self.board.lock().is_leaving(id.node, id.incarnation) => MemberState::Left,
            State::Down => MemberState::Unreachable,
        }
    }

    /// Takes one row of foca's table into the picture; the event if it changed.
    fn update(&mut self, id: Identity, state: MemberState, now: Nanos) -> Option<Event> {
        let old = self.peers.get(&id.node).cloned();
        if old.as_ref().is_some_and(|peer| peer.id == id && peer.state == state) {
            return None;
        }
        let tags = self.board.lock().tags(id.node, id.incarnation).unwrap_or_default();
        let mut peer = Peer::new(id, state, tags, now);
        if let Some(old) = old.as_ref().filter(|old| old.id.incarnation == id.incarnation) {
            // A new name of the same run: what we know of the process still holds.
            peer.heard = old.heard;
            peer.rtt = old.rtt;
            if old.is_active() || !state.is_active() {
                // Changed tags of a member that is there are told apart; those of an absent one when it is back.
                peer.tags = old.tags.clone();
            }
            peer.asked = old.asked;
            peer.is_doubted = old.is_doubted && old.id == id;
            peer.since = if old.state == state { old.since } else { now };
        }
        let member = peer.member();
        self.peers.insert(id.node, peer);
        match old {
            None => Some(first_event(member)),
            Some(old) => next_event(&old, member),
        }
    }

    /// Tells what came over the board.
    fn tell_news(&mut self, effects: &mut Effects) {
        let (changed, master) = {
            let mut board = self.board.lock();
            let is_news = std::mem::take(&mut board.is_master_news);
            (std::mem::take(&mut board.changed), board.master.filter(|_| is_news))
        };
        for node in changed {
            let Some(peer) = self.peers.get_mut(&node).filter(|peer| peer.is_active()) else { continue };
            // Tags of a run that is not in the table yet wait on the board until it is.
            let tags = self.board.lock().tags(node, peer.id.incarnation);
            if let Some(tags) = tags.filter(|tags| *tags != peer.tags) {
                peer.tags = tags;
                let member = peer.member();
                self.tell(Event::TagsChanged(member), effects);
            }
        }
        if let Some((epoch, node)) = master {
            self.tell(Event::Master { epoch, node }, effects);
        }
    }

    /// Forgets who has been absent for long, and the longest absent if there are too many.
    fn forget(&mut self, now: Nanos, effects: &mut Effects) {
        let mut absent: Vec<(Nanos, NodeId)> =
            self.peers.iter().filter(|(_, peer)| !peer.is_active()).map(|(node, peer)| (peer.since, *node)).collect();
        absent.sort_unstable();
        let surplus = absent.len().saturating_sub(MAX_ABSENT);
        for (at, (since, node)) in absent.into_iter().enumerate() {
            if at >= surplus && now.since(since) < self.timing.forget {
                break;
            }
            self.remove(node, effects);
        }
        let known: std::collections::BTreeSet<NodeId> = self.peers.keys().copied().collect();
        let me = self.me().node;
        self.board.lock().retain(|node| node == me || known.contains(&node));
    }

    fn remove(&mut self, node: NodeId, effects: &mut Effects) {
        let Some(peer) = self.peers.remove(&node) else { return };
        let outcome = self.foca.handle_timer(foca::Timer::RemoveDown(peer.id), &mut self.outbox);
        self.count(outcome);
        self.board.lock().remove(node);
        self.tell(Event::Forgotten(node), effects);
    }

    /// Asks a few members for tags that gossip should have brought by now.
    fn ask_for_tags(&mut self, now: Nanos, effects: &mut Effects) {
        let pause = self.timing.gossip * MAINTAIN_EVERY;
        let missing: Vec<(NodeId, SocketAddr)> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.is_active() && now.since(peer.since) >= self.timing.gossip * 2)
            .filter(|(_, peer)| peer.asked.is_none_or(|at| now.since(at) >= pause))
            .filter(|(node, peer)| self.board.lock().tags_version(**node, peer.id.incarnation) == 0)
            .map(|(node, peer)| (*node, peer.id.addr))
            .take(ASK_AT_ONCE)
            .collect();
        for (node, addr) in missing {
            self.send_message(addr, &Message::WantTags { nodes: vec![node] }, effects);
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.asked = Some(now);
            }
        }
    }
}

fn first_event(member: Member) -> Event {
    match member.state {
        MemberState::Alive | MemberState::Suspect => Event::Joined(member),
        MemberState::Unreachable => Event::Failed(member),
        MemberState::Left => Event::Left(member),
    }
}

fn next_event(old: &Peer, member: Member) -> Option<Event> {
    use MemberState::{Alive, Left, Suspect, Unreachable};
    let is_restart = member.incarnation > old.id.incarnation;
    Some(match (old.state, member.state) {
        (_, Alive | Suspect) if is_restart => Event::Restarted { old: old.id.incarnation, new: member },
        (Left | Unreachable, Alive | Suspect) => Event::Rejoined(member),
        (Alive, Suspect) => Event::Suspected(member.node),
        (Suspect, Alive) => Event::Refuted(member.node),
        (Alive | Suspect | Left, Unreachable) => Event::Failed(member),
        (Alive | Suspect | Unreachable, Left) => Event::Left(member),
        // A later run that is gone before it was seen: the application must learn of its incarnation.
        (Unreachable, Unreachable) if is_restart => Event::Failed(member),
        (Left, Left) if is_restart => Event::Left(member),
        (Alive, Alive) if (member.addr, member.link) != (old.id.addr, old.id.link) => Event::Rejoined(member),
        (Alive, Alive) | (Suspect, Suspect) | (Unreachable, Unreachable) | (Left, Left) => return None,
    })
}

/// How many absent members are remembered.
const MAX_ABSENT: usize = 1024;

/// How many members are asked for their tags in one round.
const ASK_AT_ONCE: usize = 8;
