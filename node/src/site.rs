//! What HTTP, and whoever else looks at a node from inside, may see of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use protocol::effects::Part;
use protocol::replica::Status;
use protocol::{Incarnation, NodeId};

use crate::client::Client;
use crate::diagnostic::Diagnostic;

/// A node, seen from inside.
pub(crate) trait Site: Send + Sync + 'static {
    /// Who it is.
    fn identity(&self) -> &Identity;
    /// Asks the cluster through it.
    fn client(&self) -> Client;
    /// What it knows of the cluster, read atomically; `None` if its control plane does not answer.
    fn status(&self) -> BoxFuture<'_, Option<Status>>;
    /// Whom it sees, itself included.
    fn members(&self) -> Vec<Member>;
    /// Whether it is on its way out.
    fn is_leaving(&self) -> bool;
    /// Founds without these addresses of its join list, if it is the one that waits to found.
    fn found_without(&self, addresses: &[String]) -> Result<(), Diagnostic>;
}

/// Who a node is, for as long as it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The node.
    pub(crate) node: NodeId,
    /// Its run.
    pub(crate) incarnation: Incarnation,
    /// The cluster's name.
    pub(crate) cluster: String,
    /// Its name for people.
    pub(crate) name: String,
    /// Where others reach it.
    pub(crate) link: SocketAddr,
    /// Where it serves HTTP, if it does.
    pub(crate) http: Option<SocketAddr>,
    /// The kinds of task it has handlers for.
    pub(crate) kinds: BTreeSet<String>,
    /// Whether it remembers nothing over a restart.
    pub(crate) is_forgetful: bool,
}

/// A node as another one sees it by gossip. It is a hint: no right rests on it.
///
/// ```no_run
/// # use tenure::prelude::*;
/// use tenure::Member;
/// # async fn example(node: Node) {
/// let slowest = node.members().snapshot().into_iter().max_by_key(|member| member.rtt);
/// if let Some(Member { name, rtt: Some(rtt), .. }) = slowest {
///     println!("a probe of {name} takes {rtt:?}");
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Its run.
    pub incarnation: Incarnation,
    /// Its name for people.
    pub name: String,
    /// Whether it seems to be there.
    pub presence: Presence,
    /// Where others reach it.
    pub link: SocketAddr,
    /// Where it serves HTTP, if it does.
    pub http: Option<String>,
    /// What it says that it is to the log.
    pub part: Part,
    /// How long a probe takes.
    pub rtt: Option<Duration>,
}

/// Whether a node seems to be there.
///
/// ```no_run
/// # use tenure::prelude::*;
/// use tenure::Presence;
/// # async fn example(node: Node) {
/// let here = node.members().snapshot().into_iter().filter(|member| member.presence == Presence::Alive);
/// println!("{} nodes answer", here.count());
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It answers.
    Alive,
    /// It missed a probe.
    Suspect,
    /// It does not answer.
    Unreachable,
    /// It said goodbye.
    Left,
}

impl Presence {
    /// One word.
    ///
    /// ```
    /// # use tenure::Presence;
    /// assert_eq!(Presence::Unreachable.as_str(), "unreachable");
    /// ```
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Unreachable => "unreachable",
            Self::Left => "left",
        }
    }
}

impl Identity {
    /// The name of a node for people: its own label if it is known, the short form of its number otherwise.
    pub(crate) fn name_of(members: &[Member], node: NodeId) -> String {
        let name = members.iter().find(|member| member.node == node).map(|member| member.name.clone());
        name.filter(|name| !name.is_empty()).unwrap_or_else(|| short(node))
    }
}

/// Enough of a node's number to tell a handful apart.
pub(crate) fn short(node: NodeId) -> String {
    node.to_string()[..6].to_owned()
}
