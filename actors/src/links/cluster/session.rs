//! The part that ractor_cluster plays: a session per link, and one gateway actor per node that all peers write to.
//!
//! We spawn [`NodeSession`]s ourselves, each under a registrar of its own, instead of running a `NodeServer`: the server's
//! listener cannot be turned off (it would be an unguarded door), its election of sessions by name lets a half-open one
//! block its successor, and its single mailbox delays handshakes. Which link survives was decided at the hello.
//!
//! # Invariants
//!
//! * The gateway's message is the only remotable one, has no name, and is raw bytes: nothing is decoded where a failure
//!   would be a panic.
//! * A peer's gateway is found by its group, which the hello told, and by the number of *our* session to it. So a proxy
//!   never outlives its link, and two nodes in one process never take each other's gateway for a remote one.
//! * A proxy is only ever written to; stopping one would end its session.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use protocol::{Incarnation, NodeId};
use ractor::message::{BoxedDowncastErr, SerializedMessage};
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent, pg};
use ractor_cluster::node::{NodeConnectionMode, SessionCheckReply};
use ractor_cluster::{NetworkStream, NodeServerMessage, NodeSession, NodeSessionMessage};
use tokio::io::BufReader;

use super::stream::{Ending, Guard, Reader, Writer};
use crate::links::link::{Link, Wire};
use crate::links::table::Table;

/// One envelope, as bytes, on its way to a gateway.
pub(super) struct Frame(Vec<u8>);

/// The actor that all peers of this node write to.
pub(super) struct Gateway {
    table: Arc<Table>,
}

/// Stands where a `NodeServer` would: answers one session's questions and hears of its end.
struct Registrar {
    link: Arc<Link>,
    guard: Arc<Guard>,
    peers_gateway: String,
}

/// The wire of a link: the proxy of the peer's gateway, once the session has brought it.
pub(super) struct GatewayWire {
    generation: u64,
    peers_gateway: String,
    proxy: OnceLock<ActorCell>,
    guard: Arc<Guard>,
}

/// A running session.
pub(super) struct Session {
    session: ActorRef<NodeSessionMessage>,
    registrar: ActorRef<NodeServerMessage>,
}

/// What a session needs to know.
pub(super) struct Opening<'a> {
    pub link: &'a Arc<Link>,
    pub guard: &'a Arc<Guard>,
    pub our_gateway: String,
    pub peers_gateway: String,
    pub cookie: &'a str,
    pub is_dialled_by_us: bool,
}

impl Gateway {
    /// Starts the gateway, to be found under `name`.
    pub(super) async fn spawn(table: Arc<Table>, name: String) -> Result<ActorRef<Frame>, SpawnErr> {
        let (gateway, _) = Actor::spawn(None, Self { table }, ()).await?;
        pg::join(name, vec![gateway.get_cell()]);
        Ok(gateway)
    }
}

impl Session {
    pub(super) async fn open(opening: Opening<'_>, reader: Reader, writer: Writer) -> Result<Self, SpawnErr> {
        let Opening { link, guard, our_gateway, peers_gateway, cookie, is_dialled_by_us } = opening;
        let registrar = Registrar { link: link.clone(), guard: guard.clone(), peers_gateway };
        let (registrar, _) = Actor::spawn(None, registrar, ()).await?;
        let stream = NetworkStream::External {
            peer_label: None,
            local_label: None,
            reader: Box::new(BufReader::with_capacity(READ_BUFFER, reader)),
            writer: Box::new(writer),
        };
        let session = node_session(link.peer.generation, !is_dialled_by_us, cookie, &registrar, our_gateway);
        match Actor::spawn_linked(None, session, stream, registrar.get_cell()).await {
            Ok((session, _)) => Ok(Self { session, registrar }),
            Err(error) => {
                registrar.stop(None);
                Err(error)
            }
        }
    }

    /// Ends the session and waits until its tasks let go of the socket.
    pub(super) async fn stop(self) {
        if self.session.stop_and_wait(None, Some(STOP_DEADLINE)).await.is_err() {
            self.session.kill();
        }
        self.registrar.stop(None);
    }
}

impl GatewayWire {
    pub(super) fn new(generation: u64, peers_gateway: String, guard: Arc<Guard>) -> Self {
        Self { generation, peers_gateway, proxy: OnceLock::new(), guard }
    }

    fn is_ours(&self, cell: &ActorCell) -> bool {
        matches!(cell.get_id(), ActorId::Remote { node_id, .. } if node_id == self.generation)
    }
}

impl Wire for GatewayWire {
    fn is_ready(&self) -> bool {
        if self.proxy.get().is_none()
            && let Some(proxy) = pg::get_members(&self.peers_gateway).into_iter().find(|cell| self.is_ours(cell))
        {
            let _ = self.proxy.set(proxy);
        }
        self.proxy.get().is_some()
    }

    fn put(&self, frame: Vec<u8>) {
        if let Some(proxy) = self.proxy.get() {
            let cast = SerializedMessage::Cast { variant: String::new(), args: frame, metadata: None };
            // A proxy that is gone means a session that is gone, and its registrar knows.
            let _ = proxy.send_serialized(cast);
        }
    }

    fn cut(&self) {
        self.guard.end(Ending::Cut);
    }

    fn silent_for(&self) -> Duration {
        self.guard.silent_for()
    }
}

impl ractor::Message for Frame {
    fn serializable() -> bool {
        true
    }

    fn serialize(self) -> Result<SerializedMessage, BoxedDowncastErr> {
        Ok(SerializedMessage::Cast { variant: String::new(), args: self.0, metadata: None })
    }

    fn deserialize(message: SerializedMessage) -> Result<Self, BoxedDowncastErr> {
        match message {
            SerializedMessage::Cast { args, .. } => Ok(Self(args)),
            _ => Err(BoxedDowncastErr),
        }
    }
}

impl Actor for Gateway {
    type Msg = Frame;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Frame>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Frame>, frame: Frame, (): &mut ()) -> Result<(), ActorProcessingErr> {
        self.table.receive(&frame.0);
        Ok(())
    }
}

impl Actor for Registrar {
    type Msg = NodeServerMessage;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, message: Self::Msg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match message {
            NodeServerMessage::CheckSession { reply, .. } => {
                let _ = reply.send(SessionCheckReply::NoOtherConnection);
            }
            // The session must be with whom the hello was.
            NodeServerMessage::UpdateSession { name, .. } if name.name != self.peers_gateway => {
                self.guard.end(Ending::Session);
            }
            NodeServerMessage::ConnectionReady(_) => self.link.raise(),
            NodeServerMessage::GetSessions(reply) => {
                let _ = reply.send(std::collections::HashMap::new());
            }
            _ => {}
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        if matches!(event, SupervisionEvent::ActorTerminated(..) | SupervisionEvent::ActorFailed(..)) {
            self.guard.end(Ending::Session);
        }
        Ok(())
    }
}

/// The group that a gateway is in, alone, and its node's name among sessions.
pub(super) fn gateway_name(node: NodeId, incarnation: Incarnation, random: u64) -> String {
    format!("tenure.gateway/{node}.{incarnation}.{random:016x}")
}

/// A session of our own number. The library keeps the type of a name to itself, so one is taken out of a message that
/// carries one.
fn node_session(
    generation: u64,
    is_server: bool,
    cookie: &str,
    registrar: &ActorRef<NodeServerMessage>,
    own_name: String,
) -> NodeSession {
    let carrier = NodeServerMessage::UpdateSession { actor_id: registrar.get_id(), name: Default::default() };
    let NodeServerMessage::UpdateSession { mut name, .. } = carrier else { unreachable!("it was just made") };
    name.connection_string = own_name.clone();
    name.name = own_name;
    let mode = NodeConnectionMode::Isolated;
    NodeSession::new(generation, is_server, cookie.into(), registrar.clone(), name, mode)
        .with_max_inbound_frame_size(MAX_FRAME)
}

/// The longest frame of ractor_cluster that we accept, in bytes. An envelope and what surrounds it is far shorter.
const MAX_FRAME: u64 = 1024 * 1024;

/// How much is read ahead, in bytes: the session asks for eight bytes and then for the rest.
const READ_BUFFER: usize = 16 * 1024;

/// How long a session may take to stop before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(2);
