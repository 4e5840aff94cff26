//! Between membership and the rest of the node: what it sees becomes facts for the actors and rows for people, and what the
//! replica knows of the cluster becomes hints for the others.
//!
//! # Invariants
//!
//! * Nothing here moves a right: a fact may bring a question forward, never decide it.
//! * A node says that it is in a cluster only after its genesis is durable.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use actors::{Fact, Mastership, Teller};
use membership::{Config, Event, EventStream, MemberState, Membership, Timing, View};
use protocol::effects::Part;
use protocol::{ClusterId, Profile};
use tokio::sync::watch;

use crate::book::Known;
use crate::error::StartError;
use crate::members::Sightings;
use crate::node::is_master;
use crate::site::{Identity, Member, Presence, short};
use crate::start;

/// What membership needs of a node's settings.
pub(crate) struct Settings<'a> {
    pub(crate) profile: Profile,
    pub(crate) join: &'a [String],
    /// Where members were at an earlier time.
    pub(crate) known: &'a [Known],
    pub(crate) is_insecure: bool,
}

/// Starts membership beside the links: the same address, but UDP.
pub(crate) async fn start(
    identity: &Identity,
    settings: &Settings<'_>,
    tags: BTreeMap<String, String>,
) -> Result<(Membership, EventStream), StartError> {
    let join = settings.join.to_vec();
    let own = identity.link;
    // Names may need a server: not on a thread that others wait for.
    let mut seeds = tokio::task::spawn_blocking(move || seeds(&join, own)).await.unwrap_or_default();
    seeds.extend(settings.known.iter().map(|known| known.gossip).filter(|addr| *addr != own));
    seeds.sort_unstable();
    seeds.dedup();
    let config = Config {
        node: identity.node,
        incarnation: identity.incarnation,
        cluster: identity.cluster.clone(),
        bind: identity.link,
        advertise: None,
        link: identity.link,
        seeds,
        timing: timing(settings.profile),
        tags,
        insecure: settings.is_insecure,
    };
    Membership::start(config).map_err(start::membership)
}

/// What this node says of itself.
pub(crate) fn tags(identity: &Identity, cluster: ClusterId, part: Part) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::from([(NAME.to_owned(), identity.name.clone())]);
    if let Some(http) = identity.http {
        tags.insert(HTTP.to_owned(), http.to_string());
    }
    if cluster != ClusterId::NONE {
        tags.insert(CLUSTER.to_owned(), cluster.to_string());
    }
    if let Some(word) = part_word(part) {
        tags.insert(PART.to_owned(), word.to_owned());
    }
    if identity.is_forgetful {
        tags.insert(FORGETFUL.to_owned(), String::new());
    }
    tags
}

/// Tells the actors what membership sees, and the log what changed.
pub(crate) async fn pass_on(
    mut events: EventStream,
    teller: Teller,
    sightings: Arc<Sightings>,
    duplicate: watch::Sender<bool>,
) {
    while let Some(event) = events.next().await {
        log(&event);
        sightings.note(&event);
        match event {
            Event::Snapshot(view) => view.active().for_each(|member| here(&teller, member)),
            Event::Joined(member)
            | Event::Rejoined(member)
            | Event::Restarted { new: member, .. }
            | Event::TagsChanged(member) => {
                here(&teller, &member);
            }
            Event::Suspected(node) => teller.tell(Fact::Suspected(node)),
            Event::Failed(member) => teller.tell(Fact::Down { node: member.node, incarnation: member.incarnation }),
            Event::Left(member) => teller.tell(Fact::Left(member.node)),
            Event::DuplicateNode(_) => drop(duplicate.send_replace(true)),
            Event::Refuted(_)
            | Event::Forgotten(_)
            | Event::Master { .. }
            | Event::Isolated
            | Event::Connected
            | Event::SelfDeclaredDown => {}
        }
    }
}

/// Shows the others which cluster this node is in and, while it is master, that it is.
pub(crate) async fn show(identity: Identity, mut mastership: watch::Receiver<Mastership>, membership: Membership) {
    let mut shown = (ClusterId::NONE, Part::Outside);
    loop {
        let now = *mastership.borrow_and_update();
        if (now.cluster, now.part) != shown {
            shown = (now.cluster, now.part);
            if let Err(error) = membership.set_tags(tags(&identity, now.cluster, now.part)) {
                tracing::warn!(%error, "the others are not told which cluster this node is in");
            }
        }
        if is_master(&now, identity.node) {
            membership.announce_master(now.epoch, identity.node);
        }
        if mastership.changed().await.is_err() {
            return;
        }
    }
}

/// Whom membership sees, this node first.
pub(crate) fn members(membership: &Membership) -> Vec<Member> {
    rows(&membership.members())
}

/// Who is in a view, this node first.
pub(crate) fn rows(view: &View) -> Vec<Member> {
    std::iter::once(&view.me).chain(view.members.values()).map(row).collect()
}

/// A member as others may see it.
pub(crate) fn row(member: &membership::Member) -> Member {
    Member {
        node: member.node,
        incarnation: member.incarnation,
        name: member.tags.get(NAME).cloned().unwrap_or_else(|| short(member.node)),
        presence: match member.state {
            MemberState::Alive => Presence::Alive,
            MemberState::Suspect => Presence::Suspect,
            MemberState::Unreachable => Presence::Unreachable,
            MemberState::Left => Presence::Left,
        },
        link: member.link,
        http: member.tags.get(HTTP).cloned(),
        part: part(member),
        rtt: member.rtt,
    }
}

fn here(teller: &Teller, member: &membership::Member) {
    let is_forgetful = member.tags.contains_key(FORGETFUL);
    teller.tell(Fact::Here { node: member.node, link: member.link, part: part(member), is_forgetful });
    // Tags arrive after the member itself: whoever shows a cluster id is in one.
    if member.tags.contains_key(CLUSTER) {
        teller.tell(Fact::ClusterExists);
    }
}

/// What a member says that it is to the log.
fn part(member: &membership::Member) -> Part {
    let said = member.tags.get(PART).map(String::as_str);
    [Part::Learner, Part::Voter].into_iter().find(|part| said == part_word(*part)).unwrap_or_default()
}

/// The word for it; none for a member that holds no log.
fn part_word(part: Part) -> Option<&'static str> {
    match part {
        Part::Outside => None,
        Part::Learner => Some("learner"),
        Part::Voter => Some("voter"),
    }
}

fn log(event: &Event) {
    let name = |member: &membership::Member| row(member).name;
    match event {
        Event::Failed(member) => tracing::warn!(node = %member.node, "{} does not answer any more", name(member)),
        Event::Left(member) => tracing::info!(node = %member.node, "{} left", name(member)),
        Event::Restarted { new, .. } => tracing::info!(node = %new.node, "{} is back in a new process", name(new)),
        Event::Rejoined(member) => tracing::info!(node = %member.node, "{} answers again", name(member)),
        Event::Isolated => tracing::warn!("no other member is left"),
        Event::DuplicateNode(node) => tracing::error!(%node, "another process runs under the identity of this node"),
        other => tracing::debug!(?other, "membership"),
    }
}

fn seeds(join: &[String], own: SocketAddr) -> Vec<SocketAddr> {
    let found = join.iter().filter_map(|name| name.to_socket_addrs().ok()).flatten();
    found.filter(|addr| *addr != own).collect()
}

fn timing(profile: Profile) -> Timing {
    if profile == Profile::DEV {
        Timing::DEV
    } else if profile == Profile::WAN {
        Timing::WAN
    } else {
        Timing::LAN
    }
}

const NAME: &str = "name";
const HTTP: &str = "http";
const CLUSTER: &str = "cluster";
const PART: &str = "part";
/// Only its presence counts.
const FORGETFUL: &str = "forgetful";
