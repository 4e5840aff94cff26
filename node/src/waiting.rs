//! A node that waits where nothing may go on by itself says for what, and what helps: to whoever asks it, and in the log.

use std::time::Duration;

use actors::Probe;
use protocol::ClusterId;
use protocol::founding::Wait;

use crate::diagnostic::{Code, Diagnostic};

/// A wait in words.
pub(crate) fn in_words(wait: &Wait) -> Diagnostic {
    let (why, hint) = match wait {
        Wait::Answers(silent) => (
            format!(
                "this node founds the cluster, and needs an answer of every address of the join list: not yet of {}",
                silent.join(", ")
            ),
            "start the nodes there; if one of them is gone for good: `tenure node found --without ADDRESS`".into(),
        ),
        Wait::Founder(founder) => (
            format!("in no cluster yet: the node at {founder}, first in the join list, founds one or lets this one in"),
            format!(
                "start that node, or see what it waits for; if it is gone for good: \
                 `tenure node found --without {founder}` at the next one of the list"
            ),
        ),
        Wait::Master => (
            "a cluster of this name exists already: this node founds none, and joins when it hears its master".into(),
            "start the nodes of that cluster; if nothing is left of it: stop this node, remove `members` from its data \
             folder, and start it again"
                .into(),
        ),
        Wait::Majority { founder } => (
            "this node holds the beginning of a cluster, and has heard no master of it yet: a majority of its voters \
             must be there"
                .into(),
            match founder {
                None => "start the other nodes of the join list".into(),
                Some(founder) => format!(
                    "start the other nodes of the join list; if the one at {founder} is gone for good: a new one \
                     there, with an empty data folder"
                ),
            },
        ),
    };
    Diagnostic::new(Code::NoQuorum, why).hint(hint)
}

/// Says in the log what a node waits for, once for each reason, until it has seen a cluster at work.
pub(crate) async fn say(probe: Probe) {
    let mut told = None;
    loop {
        tokio::time::sleep(PAUSE).await;
        let Some(status) = probe.status().await else { return };
        if status.waits_for.is_none() && status.cluster != ClusterId::NONE {
            return;
        }
        if status.waits_for != told
            && let Some(wait) = &status.waits_for
        {
            let Diagnostic { message, hint, .. } = in_words(wait);
            tracing::warn!("waits: {message}; {}", hint.unwrap_or_default());
        }
        told = status.waits_for;
    }
}

/// Between two looks: what is over sooner is no news.
const PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_says_what_helps() {
        let hint = |wait| in_words(&wait).hint.expect("something helps");
        assert!(in_words(&Wait::Answers(vec!["b:1".into(), "c:1".into()])).message.contains("not yet of b:1, c:1"));
        assert!(hint(Wait::Founder("a:1".into())).contains("--without a:1"));
        assert!(hint(Wait::Master).contains("stop this node"));
        assert!(hint(Wait::Majority { founder: Some("a:1".into()) }).contains("a:1 is gone for good: a new one there"));
        assert!(!hint(Wait::Majority { founder: None }).contains("gone"), "it is this node itself");
    }
}
