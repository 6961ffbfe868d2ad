//! Builds what makes a node one of several: identity, trust, transport, membership. Decides nothing but where others reach it.

pub mod config;
mod trust;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::time::timeout;

use self::config::Config;
use self::trust::Source;
use crate::api::gateway::Members;
use crate::base::clock::Clock;
use crate::base::entropy::Entropy;
use crate::base::seal::Opened;
use crate::base::seal::Sealer;
use crate::base::seal::Sealing;
use crate::base::seal::Seals;
use crate::base::secret::Secret;
use crate::base::tasks::Tasks;
use crate::chaos;
use crate::control::core::bootstrap;
use crate::control::core::voters::Patience;
use crate::membership;
use crate::observability::metrics::Registry;
use crate::storage;
use crate::transport;
use crate::transport::Peer;
use crate::transport::Received;
use crate::transport::Request;
use crate::transport::Stream;
use crate::transport::identity::Identity;
use crate::transport::identity::IdentityError;
use crate::transport::trust::TrustError;
use crate::workers::forward::FindPeer;
use crate::workers::forward::Ways;

/// A name server that does not answer must not keep the node from starting.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Documentation addresses, routed like any other: no packet is sent, the system only says which address it would send from.
const FAR_AWAY: &[&str] = &["192.0.2.1:9", "[2001:db8::1]:9"];

/// Why a node does not join. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// Anybody could join.
    #[error(
        "the mesh needs a secret: its address or a seed can be reached from other machines. Make one, and give it to every node:\n  \
         smg mesh secret > mesh.secret && chmod 600 mesh.secret\n  smg --ha-mesh --mesh-secret-file mesh.secret ..."
    )]
    NoSecret,
    /// A file with secrets.
    #[error("cannot use the mesh secret file `{}`: {reason}", path.display())]
    SecretFile {
        /// Which.
        path: PathBuf,
        /// Why; never what is in it.
        reason: String,
    },
    /// Workers' keys could not be sealed so that every node opens them.
    #[error(
        "with certificates from files, workers' keys need a key to be sealed with. Make one, and give it to every node:\n  \
         openssl rand -hex 32 > seal.key && chmod 600 seal.key\n  smg --ha-mesh --seal-key-file seal.key ..."
    )]
    NoSealKey,
    /// A file with that key.
    #[error("cannot use the seal key file `{}`: {reason}", path.display())]
    SealKeyFile {
        /// Which.
        path: PathBuf,
        /// Why; never what is in it.
        reason: String,
    },
    /// Certificates.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The data directory.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The port is taken or the address is not ours.
    #[error("cannot listen on {address}/udp for the mesh: {source}")]
    Bind {
        /// Where.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// Others could not be told where this node is.
    #[error("`--mesh-advertise-host` {host}: it stands for no address that this node's mesh listens on")]
    Advertise {
        /// As given.
        host: String,
    },
    /// There is no network, or several.
    #[error("cannot find out under which address other nodes reach this one: name it with `--mesh-advertise-host`")]
    NoAddress,
    /// How many nodes make a cluster.
    #[error(transparent)]
    Expect(#[from] bootstrap::TooFew),
    /// The transport.
    #[error(transparent)]
    Start(#[from] transport::StartError),
}

impl MeshError {
    /// Whether the command line or configuration is to mend, rather than the machine.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::NoSecret
            | Self::SecretFile { .. }
            | Self::NoSealKey
            | Self::SealKeyFile { .. }
            | Self::Trust(_)
            | Self::Expect(_)
            | Self::Advertise { .. } => true,
            Self::Identity(_) | Self::Bind { .. } | Self::NoAddress | Self::Start(_) => false,
        }
    }
}

/// This node as one of several.
pub(super) struct Mesh {
    /// For those who read.
    pub(super) members: Members,
    /// Where the socket is.
    pub(super) address: SocketAddr,
    /// Whether other machines reach it there.
    pub(super) is_remote: bool,
    /// Holds the data directory for as long as the node lives.
    pub(super) identity: Identity,
    /// How other nodes are reached.
    pub(super) transport: transport::Handle,
    /// What they send. Inboxes that nobody takes are dropped: their lanes refuse.
    pub(super) inboxes: Inboxes,
    /// Keys that seal what travels.
    pub(super) seal_keys: Vec<[u8; 32]>,
    /// What all nodes key their hashes of prompts with.
    pub(super) prefix_key: [u8; 32],
    /// How many fresh nodes make a cluster.
    pub(super) expect: usize,
    pub(super) patience: Patience,
}

/// What other nodes send, besides membership's packets.
pub(super) struct Inboxes {
    pub(super) deltas: mpsc::Receiver<Received>,
    pub(super) sync: mpsc::Receiver<Request>,
    pub(super) ledger: mpsc::Receiver<Request>,
    pub(super) bulk: mpsc::Receiver<Request>,
    pub(super) raft: mpsc::Receiver<Request>,
    pub(super) limits: mpsc::Receiver<Received>,
    pub(super) renewals: mpsc::Receiver<Request>,
    pub(super) forward: mpsc::Receiver<Stream>,
}

impl Mesh {
    /// The way to workers that only other nodes reach.
    pub(super) fn ways(&self) -> Ways {
        let members = self.members.handle.clone();
        let find: FindPeer = Arc::new(move |storage| {
            let view = members.view();
            let found = view.members.iter().find(|it| it.peer.storage == storage && it.status.is_active());
            found.map(|it| Arc::clone(&it.peer))
        });
        Ways { me: self.identity.storage, transport: self.transport.clone(), find }
    }
}

/// Starts it. `data` is the data directory.
pub(super) async fn start(
    config: &Config,
    data: &Path,
    metrics: &mut Registry,
    chaos: &chaos::Handle,
    tasks: &Tasks,
) -> Result<Mesh, MeshError> {
    let source = Source::of(config, data)?;
    let socket = bind(config)?;
    let address =
        socket.local_addr().map_err(|source| MeshError::Bind { address: config.mesh_host.clone(), source })?;
    let advertised = advertised(config, address).await?;
    let expect = bootstrap::expect(named(config, advertised).await, config.bootstrap_expect)?;
    let wall_ms = u64::try_from(Clock.wall().as_millis()).unwrap_or(u64::MAX);
    let identity = Identity::open(data, wall_ms, &Entropy::from_os())?;
    let seal_keys = source.seal_keys(config)?;
    let trust = source.trust(config, identity.node.clone())?;
    let prefix_key = trust.prefix_key();
    let me = Peer {
        node: trust.node().clone(),
        storage: identity.storage,
        boot: identity.boot,
        generation: identity.generation,
        renewals: 0,
        addr: advertised,
        zone: config.zone.clone(),
    };
    let node = me.node.clone();
    let carried = transport::metrics::Metrics::register(metrics);
    let (transport, inboxes) = transport::start(socket, me, trust, carried, chaos.clone(), tasks)?;
    let seen = membership::metrics::Metrics::register(metrics);
    let timing = membership::Config::default();
    let handle = membership::start(config.seeds.clone(), timing, transport.clone(), inboxes.swim, seen, tasks);
    tracing::info!(%node, %address, %advertised, seeds = config.seeds.len(), "the mesh is on");
    // The first node of a cluster has nobody to wait for.
    let join_timeout = if config.seeds.is_empty() { Duration::ZERO } else { config.join_timeout };
    let members = Members { handle, me: node, join_timeout };
    let transport::Inboxes { deltas, sync, ledger, bulk, raft, limits, renewals, forward, .. } = inboxes;
    let inboxes = Inboxes { deltas, sync, ledger, bulk, raft, limits, renewals, forward };
    let is_remote = !advertised.ip().is_loopback();
    let patience = Patience::new(config.voter_replace_after);
    Ok(Mesh { members, address, is_remote, identity, transport, inboxes, seal_keys, prefix_key, expect, patience })
}

/// Seals for every node; opens also what this node sealed for itself before it had a mesh.
pub(super) struct ClusterSeals {
    pub(super) cluster: Sealer,
    pub(super) own: storage::Handle,
}

impl Seals for ClusterSeals {
    fn seal<'a>(&'a self, secret: &'a Secret, bound_to: &'a str) -> Sealing<'a> {
        self.cluster.seal(secret, bound_to)
    }

    fn open(&self, sealed: &[u8], bound_to: &str) -> Option<Opened> {
        let own = || Seals::open(&self.own, sealed, bound_to).map(|it| Opened { is_current: false, ..it });
        self.cluster.open(sealed, bound_to).or_else(own)
    }
}

fn bind(config: &Config) -> Result<UdpSocket, MeshError> {
    let host = config.mesh_host.trim_matches(['[', ']']);
    UdpSocket::bind((host, config.mesh_port))
        .map_err(|source| MeshError::Bind { address: format!("{}:{}", config.mesh_host, config.mesh_port), source })
}

/// Where others reach what is bound to `local`.
async fn advertised(config: &Config, local: SocketAddr) -> Result<SocketAddr, MeshError> {
    let fits = |it: &IpAddr| it.is_ipv4() == local.is_ipv4() && !it.is_unspecified();
    if let Some(host) = &config.mesh_advertise_host {
        let found = look_up(&format!("{host}:{}", local.port())).await;
        let ip = found.into_iter().map(|it| it.ip()).find(fits);
        return ip.map(|it| (it, local.port()).into()).ok_or_else(|| MeshError::Advertise { host: host.clone() });
    }
    if !local.ip().is_unspecified() {
        return Ok(local);
    }
    for target in config.seeds.iter().map(String::as_str).chain(FAR_AWAY.iter().copied()) {
        for target in look_up(target).await {
            let asked =
                UdpSocket::bind((local.ip(), 0)).and_then(|it| it.connect(target).and_then(|()| it.local_addr()));
            if let Some(ip) = asked.ok().map(|it| it.ip()).filter(fits) {
                return Ok((ip, local.port()).into());
            }
        }
    }
    Err(MeshError::NoAddress)
}

/// How many nodes the seeds name, and this one. A name that cannot be looked up now counts as one.
async fn named(config: &Config, advertised: SocketAddr) -> usize {
    let (mut known, mut unknown) = (BTreeSet::from([advertised]), BTreeSet::new());
    for seed in &config.seeds {
        // One node may have an address of either kind.
        let found: Vec<_> = look_up(seed).await.into_iter().filter(|it| it.is_ipv4() == advertised.is_ipv4()).collect();
        if found.is_empty() {
            unknown.insert(seed);
        }
        known.extend(found);
    }
    known.len() + unknown.len()
}

async fn look_up(target: &str) -> Vec<SocketAddr> {
    match timeout(LOOKUP_TIMEOUT, lookup_host(target)).await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(_)) | Err(_) => Vec::new(), // membership looks seeds up again
    }
}
