//! Why the cluster did not answer, as far as this node can tell.

use std::time::Duration;

use axum::http::HeaderMap;
use protocol::effects::Part;
use protocol::{ClusterId, NodeId, replica};

use super::Door;
use crate::client::Client;
use crate::diagnostic::{Code, Diagnostic};
use crate::error::Error;
use crate::site::{Identity, Presence};
use crate::waiting;

impl Door {
    /// Asks the cluster for as long as the request allows (`X-Timeout-Ms`, five seconds unless it says otherwise).
    pub(super) fn client(&self, headers: &HeaderMap) -> Client {
        let asked = headers.get("x-timeout-ms").and_then(|value| value.to_str().ok()?.parse().ok());
        self.site.client().timeout(asked.map_or(TIMEOUT, Duration::from_millis).min(TIMEOUT_MAX))
    }

    /// Waits for an answer; says in words what is wrong if there is none.
    pub(super) async fn answer<T>(&self, call: impl IntoFuture<Output = Result<T, Error>>) -> Result<T, Diagnostic> {
        match call.await {
            Ok(answer) => Ok(answer),
            Err(Error::NoQuorum { maybe_applied, waited, .. }) => {
                Err(self.no_quorum(waited).await.maybe_applied(maybe_applied))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn no_quorum(&self, waited: Duration) -> Diagnostic {
        let Some(status) = self.site.status().await else { return super::cluster::not_running() };
        self.unled(&status, &format!("no master answered within {waited:.1?}"))
    }

    /// Why there is no master at work, seen from here; `otherwise` where nothing is wrong but that.
    pub(super) fn unled(&self, status: &replica::Status, otherwise: &str) -> Diagnostic {
        if let Some(wait) = &status.waits_for {
            return waiting::in_words(wait);
        }
        if status.cluster == ClusterId::NONE {
            return Diagnostic::new(Code::NoQuorum, "no cluster yet: this node is about to found or join one")
                .hint("try again; `tenure members` shows who is there");
        }
        let members = self.site.members();
        let presence = |node| members.iter().find(|member| member.node == node).map(|member| member.presence);
        // A node that holds no log knows of the voters what they say of themselves.
        let voters: Vec<NodeId> = match status.part {
            Part::Outside => {
                members.iter().filter(|member| member.part == Part::Voter).map(|member| member.node).collect()
            }
            Part::Learner | Part::Voter => status.voters.clone(),
        };
        let (here, gone): (Vec<NodeId>, Vec<NodeId>) =
            voters.iter().copied().partition(|node| presence(*node) == Some(Presence::Alive));
        let need = voters.len() / 2 + 1;
        let master = status.leader.map(|node| Identity::name_of(&members, node));
        if here.len() >= need {
            return Diagnostic::new(Code::NoQuorum, format!("no quorum: {otherwise}"))
                .hint("an election takes a moment; try again")
                .master(master);
        }
        let names: Vec<_> = here.iter().map(|node| Identity::name_of(&members, *node)).collect();
        let message =
            format!("no quorum: {} of {} voters answer ({}); need {need}", here.len(), voters.len(), names.join(", "));
        let diagnostic = Diagnostic::new(Code::NoQuorum, message)
            .hint("writes wait until one of them is back; `kv get --stale` reads without them")
            .master(master);
        let mut gone: Vec<_> = gone.into_iter().map(|node| (Identity::name_of(&members, node), node)).collect();
        gone.sort();
        gone.into_iter().fold(diagnostic, |diagnostic, (name, node)| {
            let seen = members.iter().find(|member| member.node == node);
            diagnostic.cause(match seen {
                Some(member) => format!("{name} {}  {}", member.link, member.presence.as_str()),
                None => format!("{name}  not seen since this node started"),
            })
        })
    }
}

/// How long a request waits for the cluster unless it says otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
