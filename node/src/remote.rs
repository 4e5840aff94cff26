//! A client without a node: an outside process linked to the nodes it was told of.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use actors::{KeptSession, Remote, RemoteSettings};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use protocol::client::{CallError, Work};
use protocol::state::{Answer, OpenSession};
use protocol::{Profile, SessionId};

use crate::builder::WRITE_ADDRESS;
use crate::client::{self, Backend, Client};
use crate::diagnostic::{Code, Diagnostic};
use crate::error::{Error, StartError};
use crate::start;
use crate::witness::Witnesses;

/// How an outside process reaches a cluster. See [`Client::connect_with`].
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// # use tenure::ClientSettings;
/// let settings = ClientSettings {
///     cluster: "orders".into(),
///     nodes: vec!["10.0.0.7:7001".into(), "10.0.0.8:7001".into()],
///     profile: Profile::WAN,
///     insecure: true, // beyond this machine, and not encrypted
/// };
/// let client = Client::connect_with(settings).await?;
/// # drop(client);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// The cluster's name.
    pub cluster: String,
    /// Where nodes listen for links: one that answers is enough, more survive the loss of it.
    pub nodes: Vec<String>,
    /// The timers of the cluster.
    pub profile: Profile,
    /// Allows addresses outside this machine although nothing is encrypted yet.
    pub insecure: bool,
}

impl Client {
    /// Connects an outside process to a cluster through its nodes (their `listen` addresses, not HTTP).
    ///
    /// Returns before a link is up: the first call waits for one, within its time-out.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = Client::connect("orders", ["127.0.0.1:7001", "127.0.0.1:7002"]).await?;
    /// client.kv().put("greeting", "hello").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StartError`] if an address makes no sense or the system refuses.
    pub async fn connect<A: Into<String>>(
        cluster: impl Into<String>,
        nodes: impl IntoIterator<Item = A>,
    ) -> Result<Self, StartError> {
        let nodes = nodes.into_iter().map(Into::into).collect();
        Self::connect_with(ClientSettings { cluster: cluster.into(), nodes, profile: Profile::LAN, insecure: false })
            .await
    }

    /// Connects with other timers, or beyond this machine.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// # use tenure::ClientSettings;
    /// let nodes = vec!["127.0.0.1:7001".into()];
    /// let settings = ClientSettings { cluster: "orders".into(), nodes, profile: Profile::DEV, insecure: false };
    /// let client = Client::connect_with(settings).await?;
    /// # drop(client);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Client::connect`].
    pub async fn connect_with(settings: ClientSettings) -> Result<Self, StartError> {
        let ClientSettings { cluster, nodes, profile, insecure } = settings;
        let nodes = tokio::task::spawn_blocking(move || resolve(&nodes))
            .await
            .unwrap_or_else(|_| Err(Diagnostic::new(Code::Internal, "looking up names failed")))
            .map_err(StartError::new)?;
        let remote =
            Remote::connect(RemoteSettings { cluster, nodes, profile, insecure }).await.map_err(start::host)?;
        let remote = Arc::new(remote);
        let witnesses = Witnesses::new(&remote);
        Ok(Self::new(Arc::new(Outside { remote, witnesses }), profile))
    }
}

/// Calls go to the client machine of this process, which lives as long as the last clone of the client.
struct Outside {
    remote: Arc<Remote>,
    witnesses: Witnesses,
}

impl Backend for Outside {
    fn call(&self, work: Work, timeout: Duration) -> BoxFuture<'_, Result<Answer, Error>> {
        async move { self.explain(self.remote.client().call(work, timeout).await) }.boxed()
    }

    fn keep(&self, opening: OpenSession, timeout: Duration) -> BoxFuture<'_, Result<KeptSession, Error>> {
        async move {
            let kept = client::kept(self.explain(self.remote.client().keep(opening, timeout).await)?)?;
            self.witnesses.name(kept.id, kept.standing.clone());
            Ok(kept)
        }
        .boxed()
    }

    fn end(&self, session: SessionId) {
        self.remote.client().end(session);
    }

    fn host(&self) -> Option<protocol::state::Host> {
        None
    }
}

impl Outside {
    fn explain<T>(&self, result: Result<T, CallError>) -> Result<T, Error> {
        match (result.map_err(Error::from), self.remote.refusal()) {
            // Nobody was ever linked, and that is why: the wait would have been in vain for ever.
            (Err(Error::NoQuorum { maybe_applied: false, .. }), Some(why)) => Err(Error::NotLetIn(why)),
            (result, _) => result,
        }
    }
}

fn resolve(nodes: &[String]) -> Result<Vec<SocketAddr>, Diagnostic> {
    let mut found = Vec::new();
    for node in nodes {
        let unusable = |why: String| {
            Diagnostic::new(Code::Config, format!("the address `{node}` cannot be used: {why}")).hint(WRITE_ADDRESS)
        };
        crate::address::check(node).map_err(unusable)?;
        found.extend(node.to_socket_addrs().map_err(|error| unusable(error.to_string()))?);
    }
    if found.is_empty() {
        return Err(Diagnostic::new(Code::Config, "a client needs the address of at least one node"));
    }
    Ok(found)
}
