//! How a node is described before it starts.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actors::Storage;
use protocol::Profile;
use protocol::replica::{Compaction, REPLACE_AFTER};
use protocol::state::Offer;
use protocol::state::limits::{MAX_KIND, MAX_KINDS, MAX_LABELS};

use crate::builtin::exec::{self, ExecHandler};
use crate::diagnostic::{Code, Diagnostic};
use crate::error::StartError;
use crate::node::{Node, Plan};
use crate::task::{RawHandler, TaskHandler, Typed};

/// A node about to start. Made by [`Node::builder`].
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let list = ["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"]; // the same on every node
/// let node = Node::builder("orders")
///     .data_dir("./data-1")       // nothing that was acknowledged is lost with the process
///     .listen("127.0.0.1:7001")   // for the other nodes
///     .http("127.0.0.1:8001")     // for people, scripts and `tenure`
///     .join(list)
///     .label("name", "n1")
///     .slots(8)                   // so many attempts at once
///     .profile(Profile::LAN)      // one word for all timers
///     .start()
///     .await?;
/// # drop(node);
/// # Ok(())
/// # }
/// ```
#[must_use = "a node starts with `start()`"]
pub struct Builder {
    cluster: String,
    storage: Storage,
    listen: String,
    http: Option<String>,
    join: Vec<String>,
    voters: Option<u8>,
    labels: BTreeMap<String, String>,
    slots: u32,
    profile: Profile,
    handlers: BTreeMap<String, Arc<dyn RawHandler>>,
    exec: Option<Wrapping>,
    is_insecure: bool,
    replace_after: Duration,
    compaction: Compaction,
}

/// Whether commands are wrapped so that they end with this process.
enum Wrapping {
    /// This process is the binary `tenure`, which can be its own wrapper.
    Own,
    /// It is not.
    None,
}

impl Builder {
    pub(crate) fn new(cluster: String) -> Self {
        let builtin = crate::builtin::always().into_iter().map(|(kind, handler)| (kind.to_owned(), handler));
        let slots = std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1));
        Self {
            cluster,
            storage: Storage::Folder("tenure-data".into()),
            listen: "127.0.0.1:0".into(),
            http: None,
            join: Vec::new(),
            voters: None,
            labels: BTreeMap::new(),
            slots,
            profile: Profile::LAN,
            handlers: builtin.collect(),
            exec: None,
            is_insecure: false,
            replace_after: REPLACE_AFTER,
            compaction: Compaction::default(),
        }
    }

    /// Remembers in this folder (`tenure-data` unless told otherwise).
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = Node::builder("orders").data_dir("/var/lib/orders").start().await?;
    /// # drop(node);
    /// # Ok(()) }
    /// ```
    pub fn data_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.storage = Storage::Folder(folder.into());
        self
    }

    /// Remembers nothing: the node is another one after a restart, and what only such nodes held is lost with them. Where all voters
    /// remember, such a node votes only if it is promoted by name.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = Node::builder("orders").ephemeral().start().await?;
    /// # drop(node);
    /// # Ok(()) }
    /// ```
    pub fn ephemeral(mut self) -> Self {
        self.storage = Storage::Memory;
        self
    }

    /// Where other nodes reach this one, over TCP and UDP. Port 0 (which it is unless told otherwise) picks a free one.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = Node::builder("orders").listen("127.0.0.1:7001").start().await?;
    /// # drop(node);
    /// # Ok(()) }
    /// ```
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = address.into();
        self
    }

    /// Serves HTTP at this address; port 0 picks a free one. Without this, no HTTP.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = Node::builder("orders").http("127.0.0.1:8001").start().await?;
    /// # drop(node);
    /// # Ok(()) }
    /// ```
    pub fn http(mut self, address: impl Into<String>) -> Self {
        self.http = Some(address.into());
        self
    }

    /// The addresses of the first nodes, the same list in the same order on every node, this one included. Without it, the
    /// node is a cluster of its own.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let list = ["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"];
    /// let node = Node::builder("orders").listen(list[0]).join(list).start().await?;
    /// # drop(node);
    /// # Ok(()) }
    /// ```
    pub fn join<A: Into<String>>(mut self, addresses: impl IntoIterator<Item = A>) -> Self {
        self.join = addresses.into_iter().map(Into::into).collect();
        self
    }

    /// How many of the listed nodes vote (all up to seven, unless told otherwise). Only read when the cluster is founded.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let list = ["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003", "127.0.0.1:7004"];
    /// let node = Node::builder("orders").listen(list[3]).join(list).voters(3).start().await?;
    /// # drop(node);
    /// # Ok(()) }
    /// ```
    pub fn voters(mut self, voters: u8) -> Self {
        self.voters = Some(voters);
        self
    }

    /// A word about this node, for tasks that need it. The label `name` is its name for people.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = Node::builder("orders").label("name", "n1").label("gpu", "yes").start().await?;
    /// # drop(node);
    /// let client = Client::connect("orders", ["127.0.0.1:7001"]).await?;
    /// client.submit_raw("render", "42").needs("gpu", "yes").await?;
    /// # Ok(()) }
    /// ```
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// How many attempts may run here at once (one per processor, unless told otherwise).
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = Node::builder("orders").slots(8).start().await?;
    /// # drop(node);
    /// # Ok(()) }
    /// ```
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// All timers: `Profile::DEV`, `Profile::LAN` (unless told otherwise) or `Profile::WAN`.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = Node::builder("orders").profile(Profile::WAN).start().await?;
    /// # drop(node);
    /// # Ok(()) }
    /// ```
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// Runs tasks of this kind: of a function with [`#[task]`](macro@crate::task), which is named here.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// #[task]
    /// async fn greet(name: String) -> Result<String, TaskError> {
    ///     Ok(format!("hello, {name}"))
    /// }
    ///
    /// let node = Node::builder("orders").task::<greet>().start().await?;
    /// # drop(node);
    /// # Ok(()) }
    /// ```
    pub fn task<H: TaskHandler + Default>(self) -> Self {
        self.register(H::default())
    }

    /// Runs tasks of this handler's kind.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// struct Shout(&'static str);
    ///
    /// impl TaskHandler for Shout {
    ///     const NAME: &'static str = "shout";
    ///     type Input = String;
    ///     type Output = String;
    ///
    ///     async fn run(&self, _cx: &TaskCx, word: String) -> Result<String, TaskError> {
    ///         Ok(word + self.0)
    ///     }
    /// }
    ///
    /// let node = Node::builder("orders").register(Shout("!")).start().await?;
    /// # drop(node);
    /// # Ok(()) }
    /// ```
    pub fn register<H: TaskHandler>(mut self, handler: H) -> Self {
        self.handlers.insert(H::NAME.to_owned(), Arc::new(Typed(handler)));
        self
    }

    /// Runs tasks of this kind, whose input and output are bytes.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// # use bytes::Bytes;
    /// # use futures_util::future::BoxFuture;
    /// struct Count;
    ///
    /// impl RawHandler for Count {
    ///     fn run<'a>(&'a self, _cx: &'a TaskCx, payload: Bytes) -> BoxFuture<'a, Result<Bytes, TaskError>> {
    ///         Box::pin(async move { Ok(payload.len().to_string().into()) })
    ///     }
    /// }
    ///
    /// let node = Node::builder("orders").register_raw("count", Count).start().await?;
    /// # drop(node);
    /// # Ok(()) }
    /// ```
    pub fn register_raw(mut self, kind: impl Into<String>, handler: impl RawHandler) -> Self {
        self.handlers.insert(kind.into(), Arc::new(handler));
        self
    }

    /// Runs commands of this machine as tasks of kind `exec`: whoever can submit a task can then run anything here.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = Node::builder("orders").allow_exec().start().await?;
    /// # drop(node);
    /// let client = Client::connect("orders", ["127.0.0.1:7001"]).await?;
    /// client.submit_raw("exec", r#"{"command":["date"]}"#).await?;
    /// # Ok(()) }
    /// ```
    pub fn allow_exec(mut self) -> Self {
        self.exec = Some(Wrapping::None);
        self
    }

    /// The same in the binary, where commands end with the node however that ends.
    pub(crate) fn allow_exec_wrapped(mut self) -> Self {
        self.exec = Some(Wrapping::Own);
        self
    }

    /// Allows addresses outside this machine although nothing is encrypted yet, and answers HTTP for every host name.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = Node::builder("orders").listen("10.0.0.7:7001").insecure().start().await?;
    /// # drop(node);
    /// # Ok(()) }
    /// ```
    pub fn insecure(mut self) -> Self {
        self.is_insecure = true;
        self
    }

    /// How long a voter may be silent before another member takes its place (five minutes unless told otherwise).
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::time::Duration;
    /// let node = Node::builder("orders").replace_after(Duration::from_secs(3600)).start().await?;
    /// # drop(node);
    /// # Ok(()) }
    /// ```
    pub fn replace_after(mut self, silence: Duration) -> Self {
        self.replace_after = silence;
        self
    }

    /// Writes a snapshot after so many entries of the log (10,000 unless told otherwise, and in any case after 4 MiB of
    /// them), and forgets the log behind it but for a rest: a node that was away for longer is sent the state instead. Few
    /// entries cost much writing; many cost room, and time at the next start. At least 10.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = Node::builder("orders").snapshot_every(100_000).start().await?;
    /// # drop(node);
    /// # Ok(()) }
    /// ```
    pub fn snapshot_every(mut self, entries: u64) -> Self {
        self.compaction = Compaction::every(entries);
        self
    }

    /// Starts the node. It works when this returns; whether it is in a cluster by then, [`Node::ready`] tells.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = Node::builder("orders").ephemeral().start().await?;
    /// node.ready().await; // it is in a cluster, which has a master
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StartError`]: nothing runs.
    pub async fn start(self) -> Result<Node, StartError> {
        let plan = self.plan().map_err(StartError::new)?;
        Node::start(plan).await
    }

    /// Checks what can be checked without starting anything, and takes the HTTP port.
    fn plan(mut self) -> Result<Plan, Diagnostic> {
        let wrong = |message: String| Diagnostic::new(Code::Config, message);
        if self.cluster.is_empty() || self.cluster.len() > NAME_MAX {
            return Err(wrong(format!("a cluster's name has 1 to {NAME_MAX} bytes, not {}", self.cluster.len())));
        }
        if self.slots > SLOTS_MAX {
            return Err(wrong(format!("{} slots are more than the {SLOTS_MAX} allowed", self.slots)));
        }
        if self.join.len() > JOIN_MAX {
            return Err(wrong(format!(
                "the join list has {} addresses; at most {JOIN_MAX} are allowed",
                self.join.len()
            ))
            .hint("it names the first nodes; later ones join through any of them"));
        }
        if let Some((address, why)) = self.join.iter().find_map(|at| Some((at, crate::address::check(at).err()?))) {
            return Err(
                wrong(format!("the address `{address}` of the join list cannot be used: {why}")).hint(WRITE_ADDRESS)
            );
        }
        if self.compaction.entries < SNAPSHOT_EVERY_MIN {
            return Err(wrong(format!(
                "a snapshot after {} entries is one too often: at least {SNAPSHOT_EVERY_MIN} are allowed",
                self.compaction.entries
            )));
        }
        self.profile.validate().map_err(|why| wrong(format!("inconsistent profile: {why}")))?;
        let listen = resolve("listen", &self.listen)?;
        let http = match &self.http {
            Some(address) => Some(bind_http(resolve("http", address)?, self.is_insecure)?),
            None => None,
        };
        if let Some(wrapping) = &self.exec {
            let own = http.as_ref().and_then(|listener| listener.local_addr().ok());
            let folder = match &self.storage {
                Storage::Folder(data) => Some(data.join("effects")),
                Storage::Memory => None,
            };
            let handler = ExecHandler::new(matches!(wrapping, Wrapping::Own), own, folder)
                .map_err(|error| Diagnostic::new(Code::Internal, format!("cannot prepare for commands: {error}")))?;
            self.handlers.insert(exec::KIND.to_owned(), Arc::new(handler));
        }
        let name = self.labels.remove("name").unwrap_or_default();
        if name.len() > NAME_MAX {
            return Err(wrong(format!("the name `{name}` is longer than {NAME_MAX} bytes")));
        }
        let offer = Offer {
            label: name,
            slots: self.slots,
            kinds: self.handlers.keys().cloned().collect(),
            labels: self.labels,
        };
        check_words(&offer).map_err(wrong)?;
        Ok(Plan {
            cluster: self.cluster,
            storage: self.storage,
            listen,
            http,
            join: self.join,
            voters: self.voters,
            offer,
            profile: self.profile,
            handlers: self.handlers,
            is_insecure: self.is_insecure,
            replace_after: self.replace_after,
            compaction: self.compaction,
        })
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("cluster", &self.cluster)
            .field("listen", &self.listen)
            .field("kinds", &self.handlers.keys())
            .finish_non_exhaustive()
    }
}

/// Refuses an offer that the cluster would refuse, in words.
fn check_words(offer: &Offer) -> Result<(), String> {
    let (labels, kinds) = (offer.labels.len(), offer.kinds.len());
    if labels > MAX_LABELS {
        return Err(format!("{labels} labels are more than the {MAX_LABELS} allowed"));
    }
    if kinds > MAX_KINDS {
        return Err(format!("{kinds} kinds of task are more than the {MAX_KINDS} allowed"));
    }
    let mut words = offer.labels.iter().flat_map(|(name, value)| [(name, name), (name, value)]);
    if let Some((name, text)) = words.find(|(_, text)| text.len() > MAX_KIND) {
        return Err(format!(
            "the label `{}` has {} bytes; a label's name and its value may have {MAX_KIND} each",
            excerpt(name),
            text.len()
        ));
    }
    if let Some(kind) = offer.kinds.iter().find(|kind| kind.len() > MAX_KIND) {
        return Err(format!(
            "the kind of task `{}` has {} bytes; at most {MAX_KIND} are allowed",
            excerpt(kind),
            kind.len()
        ));
    }
    Ok(())
}

/// The beginning of a word that may be long.
fn excerpt(word: &str) -> String {
    if word.chars().count() <= NAME_MAX {
        word.to_owned()
    } else {
        word.chars().take(NAME_MAX).chain(['…']).collect()
    }
}

/// The first address behind a name, `host:port`.
fn resolve(what: &str, text: &str) -> Result<SocketAddr, Diagnostic> {
    let wrong = |why: String| {
        Diagnostic::new(Code::Config, format!("the {what} address `{text}` cannot be used: {why}")).hint(WRITE_ADDRESS)
    };
    let mut found = text.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    found.next().ok_or_else(|| wrong("the name has no address".to_owned()))
}

fn bind_http(address: SocketAddr, is_insecure: bool) -> Result<TcpListener, Diagnostic> {
    if !is_insecure && !address.ip().is_loopback() {
        return Err(Diagnostic::new(
            Code::Config,
            format!("the http address {address} can be reached from outside this machine"),
        )
        .cause("HTTP is neither encrypted nor does it ask who you are")
        .hint("use a loopback address, or say --insecure if you mean it"));
    }
    TcpListener::bind(address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            Diagnostic::new(Code::PortInUse, format!("cannot serve HTTP at {address}: the address is in use"))
                .hint("does a node run there already? `tenure status` tells; or choose another address with --http")
        }
        _ => Diagnostic::new(Code::Config, format!("cannot serve HTTP at {address}: {error}")),
    })
}

/// What to do about an address that makes no sense.
pub(crate) const WRITE_ADDRESS: &str = "write HOST:PORT, for example 127.0.0.1:7400";

/// More than this is a mistake.
const SLOTS_MAX: u32 = 4096;

/// A snapshot writes the whole state: after fewer entries than this a node would do little else.
pub(crate) const SNAPSHOT_EVERY_MIN: u64 = 10;

/// The join list is asked as a whole before a cluster is founded.
const JOIN_MAX: usize = 64;

/// A name has to fit into a table, and into what gossip carries.
const NAME_MAX: usize = 64;
