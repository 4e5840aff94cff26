//! An outside process: a client without a node, linked to all the nodes it was told of.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use protocol::{ClusterId, Incarnation, NodeId, Profile, client};
use ractor::{Actor, ActorRef};
use tokio::sync::watch;

use crate::client::ClientHandle;
use crate::control::{Built, Control};
use crate::host::{StartError, client_config};
use crate::links::{self, Links, Target, cluster};
use crate::outlet::{Outlet, Routes};
use crate::shell::Shell;
use crate::supervisor::{Fatal, Stopping, Supervisor};
use crate::{clock, gateway};

/// How an outside process reaches the cluster.
#[derive(Clone, Debug)]
pub struct RemoteSettings {
    /// The cluster's name.
    pub cluster: String,
    /// Where nodes listen for links.
    pub nodes: Vec<SocketAddr>,
    /// The timers of the cluster.
    pub profile: Profile,
    /// Whether plain streams may leave the machine.
    pub insecure: bool,
}

/// A running client. Dropped, it closes its links; its session expires.
pub struct Remote {
    parts: Parts,
    control: Control,
}

impl Remote {
    /// Begins to connect. Calls made from now on wait for a link, within their time-outs.
    ///
    /// # Errors
    ///
    /// [`StartError`]: nothing runs.
    pub async fn connect(settings: RemoteSettings) -> Result<Self, StartError> {
        settings.profile.validate().map_err(StartError::Profile)?;
        let (control, parts) = Control::start(async || begin(settings).await, end).await?;
        Ok(Self { parts, control })
    }

    /// Makes calls to the cluster.
    #[must_use]
    pub fn client(&self) -> ClientHandle {
        self.parts.client.clone()
    }

    /// Why a node did not let this client in, if one did not and none has.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        self.parts.refusal.borrow().clone()
    }

    /// The nodes that are linked now, and where.
    #[must_use]
    pub fn peers(&self) -> Vec<(NodeId, SocketAddr)> {
        self.parts.outlet.links().peers().into_iter().map(|peer| (peer.node, peer.addr)).collect()
    }

    /// Ends the session and closes the links.
    pub async fn close(self) {
        self.parts.client.close();
        tokio::time::sleep(GOODBYE).await;
        self.control.stop().await;
    }
}

#[derive(Clone)]
struct Parts {
    outlet: Outlet,
    client: ClientHandle,
    refusal: watch::Sender<Option<String>>,
}

struct Inside {
    parts: Parts,
    links: Arc<dyn Links>,
    supervisor: ActorRef<Stopping>,
}

impl Built for Inside {
    type Outside = Parts;

    fn outside(&self) -> Parts {
        self.parts.clone()
    }
}

async fn begin(settings: RemoteSettings) -> Result<Inside, StartError> {
    let node = NodeId(rand::random_range(1..=u64::MAX));
    let incarnation = Incarnation(clock::unix_ms());
    let identity = links::Identity {
        cluster_name: settings.cluster,
        cluster: ClusterId::NONE,
        node,
        incarnation,
        role: links::Role::Client,
    };
    let config = cluster::Config {
        identity,
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        advertise: None,
        secret: None,
        insecure: settings.insecure,
    };
    let (links, inbox) = cluster::start(config).await?;
    let links: Arc<dyn Links> = links;
    let outlet = Outlet::new(node, incarnation, clock::Clock::default(), Arc::clone(&links), None);
    let (supervisor, _) = Supervisor::spawn(None, Supervisor, Fatal::new()).await.expect("it cannot fail to begin");
    let machine = client::Client::new(client_config(node, false, settings.profile, clock::now()));
    let arguments = Shell::new(machine, outlet.clone())?;
    let (client, _) = Actor::spawn_linked(None, crate::client::Client, arguments, supervisor.get_cell())
        .await
        .expect("an unnamed actor whose beginning cannot fail");
    let refusal = watch::Sender::new(None);
    outlet.connect(Routes { election: None, master: None, worker: None, client: client.clone() });
    tokio::spawn(gateway::run(node, inbox, outlet.clone(), None, gateway::Home::Outside(refusal.clone())));
    links.set_targets(settings.nodes.into_iter().map(|addr| Target { addr, node: None }).collect());
    Ok(Inside { parts: Parts { outlet, client: ClientHandle::new(client), refusal }, links, supervisor })
}

async fn end(inside: Inside) {
    let _ = inside.supervisor.cast(Stopping);
    inside.links.shutdown().await;
    let _ = inside.supervisor.stop_and_wait(None, Some(Duration::from_secs(2))).await;
}

/// Time for the goodbye to leave; if it does not, the session expires instead.
const GOODBYE: Duration = Duration::from_millis(20);
