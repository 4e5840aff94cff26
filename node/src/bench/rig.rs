//! The cluster that is measured.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::usage::Usage;
use protocol::Profile;

use crate::Client;
use crate::cli::{Cluster, Code, Diagnostic};
use crate::processes::{Network, Processes, Settings};
use crate::remote::ClientSettings;

/// A cluster and a client of it.
pub(super) struct Rig {
    pub(super) client: Client,
    /// Its processes, if they are our own.
    pub(super) processes: Option<Processes>,
}

impl Rig {
    /// Starts a cluster of its own and waits until it is ready. Each node runs up to `slots` tasks at once.
    pub(super) async fn start(slots: u32) -> Result<Self, Diagnostic> {
        let mut settings = Settings::new(CLUSTER, NODES)?;
        settings.allow_exec = true;
        settings.slots = slots;
        let processes = Processes::start(settings, PATIENCE).await?;
        let client = connect(CLUSTER, processes.links(), false).await?;
        Ok(Self { client, processes: Some(processes) })
    }

    /// The same on a network, from inside of it.
    pub(super) async fn on(network: Arc<Network>, nodes: usize) -> Result<Self, Diagnostic> {
        let mut settings = Settings::new(CLUSTER, nodes)?;
        settings.network = Some(network);
        let processes = Processes::start(settings, PATIENCE).await?;
        let client = connect(CLUSTER, processes.links(), true).await?;
        Ok(Self { client, processes: Some(processes) })
    }

    /// Another client, which knows only this node.
    pub(super) async fn client_of(&self, place: usize) -> Result<Client, Diagnostic> {
        let processes = self.own()?;
        connect(CLUSTER, vec![processes.link(place)], processes.is_on_network()).await
    }

    /// Starts the processes of a cluster and waits for nothing.
    pub(super) async fn spawn() -> Result<Self, Diagnostic> {
        let processes = Processes::spawn(Settings::new(CLUSTER, NODES)?)?;
        let client = connect(CLUSTER, processes.links(), false).await?;
        Ok(Self { client, processes: Some(processes) })
    }

    /// Connects to the cluster that these HTTP addresses belong to.
    pub(super) async fn find(cluster: &Cluster) -> Result<Self, Diagnostic> {
        let status = cluster.get("/v1/status").await?;
        let members = cluster.get("/v1/members").await?;
        let name = status["cluster"].as_str().unwrap_or_default();
        let links: Vec<SocketAddr> = members["members"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|member| member["link"].as_str()?.parse().ok())
            .collect();
        Ok(Self { client: connect(name, links, false).await?, processes: None })
    }

    /// The place of the node that is master now, as most nodes see it.
    pub(super) async fn master(&self) -> Result<usize, Diagnostic> {
        let processes = self.own()?;
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            for place in 0..processes.len() {
                if let Some(status) = processes.get(place, "/v1/status").await
                    && status["role"] == "leader"
                    && status["master_is_fresh"] == true
                {
                    return Ok(place);
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(Diagnostic::new(Code::NoQuorum, format!("no master within {} s", PATIENCE.as_secs())))
    }

    /// The id of a node.
    pub(super) async fn node(&self, place: usize) -> Result<String, Diagnostic> {
        let processes = self.own()?;
        let status = processes.get(place, "/v1/status").await;
        let node = status.and_then(|status| status["node"].as_str().map(str::to_owned));
        node.ok_or_else(|| Diagnostic::new(Code::Unreachable, format!("{} does not answer", processes.label(place))))
    }

    /// Starts what was killed, and waits until the cluster is whole and at rest.
    pub(super) async fn mend(&mut self) -> Result<(), Diagnostic> {
        let processes = self.own_mut()?;
        for place in 0..processes.len() {
            if !processes.is_alive(place) {
                processes.restart(place)?;
            }
        }
        processes.ready(PATIENCE).await?;
        // The worker of a node that has just started gets work only when the master has opened its session.
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            match self.client.nodes().await {
                Ok(members) if members.len() >= NODES => break,
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
        tokio::time::sleep(REST).await;
        Ok(())
    }

    /// What all its nodes have used so far, if they are our own.
    pub(super) fn usage(&self) -> Option<Usage> {
        self.processes.as_ref().map(Usage::of_all)
    }

    pub(super) fn own(&self) -> Result<&Processes, Diagnostic> {
        self.processes.as_ref().ok_or_else(not_ours)
    }

    pub(super) fn own_mut(&mut self) -> Result<&mut Processes, Diagnostic> {
        self.processes.as_mut().ok_or_else(not_ours)
    }
}

async fn connect(cluster: &str, links: Vec<SocketAddr>, insecure: bool) -> Result<Client, Diagnostic> {
    let settings = ClientSettings {
        cluster: cluster.to_owned(),
        nodes: links.iter().map(ToString::to_string).collect(),
        profile: Profile::LAN,
        insecure,
    };
    let client = Client::connect_with(settings).await.map_err(|error| error.diagnostic().clone())?;
    Ok(client.timeout(PATIENCE))
}

fn not_ours() -> Diagnostic {
    Diagnostic::new(Code::Usage, "only processes of the benchmark's own are killed")
}

pub(super) const CLUSTER: &str = "bench";

const NODES: usize = 3;

const PATIENCE: Duration = Duration::from_secs(30);

const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Between two rounds: links are up again on all sides and every session was renewed.
const REST: Duration = Duration::from_millis(700);
