//! What a node stands on: its data directory, its workers, the tables and, in a mesh, the other nodes. Built first; decides nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::error::Error;
use super::mesh::ClusterSeals;
use super::mesh::Inboxes;
use super::mesh::Mesh;
use super::tables;
use super::wiring::data_place;
use crate::api::gateway::Members;
use crate::base::ids::StorageId;
use crate::base::seal::Sealer;
use crate::base::seal::Seals;
use crate::base::tasks::Tasks;
use crate::chaos;
use crate::config::Config;
use crate::control;
use crate::history::group;
use crate::ledger;
use crate::limits;
use crate::observability::metrics::Registry as MetricsRegistry;
use crate::replication;
use crate::replication::Peers;
use crate::storage;
use crate::storage::Place;
use crate::transport::identity::Identity;
use crate::workers;
use crate::workers::forward;
use crate::workers::forward::Forwarder;
use crate::workers::health::Rules;
use crate::workers::http::Dialer;
use crate::workers::observers;
use crate::workers::registry::Registry;

/// Longest pause a worker may ask for with `Retry-After`.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// See the file's header.
pub(super) struct Ground {
    pub(super) registry: Arc<Registry>,
    pub(super) storage: storage::Handle,
    /// Seals credentials of workers.
    pub(super) seals: Arc<dyn Seals>,
    pub(super) tables: replication::Handle,
    /// `None` without the mesh, as are the next.
    pub(super) ledger: Option<ledger::Handle>,
    pub(super) members: Option<Members>,
    /// `None` with a mesh and a data directory that cannot be used.
    pub(super) control: Option<control::Handle>,
    /// Nothing is limited where there is no `control`.
    pub(super) limits: limits::Handle,
    /// Where other nodes are listened to.
    pub(super) mesh_address: Option<SocketAddr>,
    /// Keeps other processes from being this node.
    pub(super) identity: Option<Arc<Identity>>,
    pub(super) worker_metrics: workers::metrics::Metrics,
}

/// What the mesh brings.
struct Others {
    members: Members,
    address: SocketAddr,
    identity: Identity,
    ledger: ledger::Handle,
    control: Option<control::Handle>,
    limits: limits::Handle,
}

impl Ground {
    /// Builds it, and starts what carries it.
    pub(super) fn lay(
        config: &Config,
        tasks: &Tasks,
        metrics: &mut MetricsRegistry,
        mesh: Option<Mesh>,
        chaos: &chaos::Handle,
        definitions: watch::Receiver<Arc<[limits::Definition]>>,
    ) -> Result<Self, Error> {
        let worker_metrics = workers::metrics::Metrics::register(metrics);
        let mut dialer = Dialer::new(&config.workers, tasks.clone(), worker_metrics.clone())?;
        dialer.chaos = chaos.clone();
        let registry = Registry::new(rules(&config.workers), dialer);
        let forwarder = mesh.as_ref().map(|it| Forwarder::new(it.ways())).unwrap_or_default();
        let registry = Arc::new(registry.with_forwarder(forwarder));
        workers::fleet::register(metrics, Arc::clone(&registry));
        let place = data_place(config);
        let storage = storage::Handle::open(place.clone(), storage::Metrics::register(metrics), chaos.clone());
        if let Some(store) = storage.opened() {
            control::check(&store)?;
            group::check(&store).map_err(Error::Unreadable)?;
        }
        let seals: Arc<dyn Seals> = match &mesh {
            Some(it) => Arc::new(ClusterSeals { cluster: Sealer::new(&it.seal_keys), own: storage.clone() }),
            None => Arc::new(storage.clone()),
        };
        let me = mesh.as_ref().map(tables::member_of);
        let counts = &worker_metrics;
        let bases = Bases { registry: &registry, storage: &storage, counts, chaos, definitions: definitions.clone() };
        let others = mesh.map(|it| Others::meet(it, config, bases, metrics, tasks));
        let (others, peers) = others.map_or((None, None), |(others, peers)| (Some(others), Some(peers)));
        let tables = tables::start(&storage, &place, me.zip(peers), metrics, tasks)?;
        if let Some(ledger) = others.as_ref().map(|it| &it.ledger) {
            ledger::gossip::start(ledger, tables.handle.clone(), tasks);
        }
        let (tables, identity) = (tables.handle, tables.identity.map(Arc::new));
        let (members, mesh_address, ledger, control, limits, identity) = match others {
            Some(Others { members, address, identity, ledger, control, limits }) => {
                (Some(members), Some(address), Some(ledger), control, limits, Some(Arc::new(identity)))
            }
            None => {
                let alone =
                    Alone { me: tables.storage(), storage: &storage, place: &place, identity: identity.clone() };
                let (control, limits) = alone.start(config, definitions, metrics, tasks);
                (None, None, None, Some(control), limits, identity)
            }
        };
        Ok(Self {
            registry,
            storage,
            seals,
            tables,
            ledger,
            members,
            control,
            limits,
            mesh_address,
            identity,
            worker_metrics,
        })
    }
}

/// What others stand on.
struct Bases<'a> {
    registry: &'a Arc<Registry>,
    storage: &'a storage::Handle,
    counts: &'a workers::metrics::Metrics,
    chaos: &'a chaos::Handle,
    definitions: watch::Receiver<Arc<[limits::Definition]>>,
}

impl Others {
    fn meet(
        mesh: Mesh,
        config: &Config,
        bases: Bases<'_>,
        metrics: &mut MetricsRegistry,
        tasks: &Tasks,
    ) -> (Self, Peers) {
        let Mesh { members, address, identity, transport, inboxes, expect, patience, .. } = mesh;
        let Bases { registry, storage, counts, chaos, definitions } = bases;
        let Inboxes { deltas, sync, ledger, bulk, raft, limits: messages, renewals, forward } = inboxes;
        let (handle, ways) = (members.handle.clone(), transport.clone());
        let chaos = chaos.clone();
        let part = super::control::Start {
            storage,
            members: handle,
            transport: ways,
            inbox: raft,
            bulk,
            chaos,
            expect,
            patience,
        };
        let control = super::control::start(part, metrics, tasks);
        let (handle, ways) = (members.handle.clone(), transport.clone());
        let group = control.clone();
        let me = (ways.me().storage, ways.me().boot);
        let nearby = limits::Others { membership: handle, transport: ways, messages, renewals };
        let part = super::limits::Start { control: group, definitions, me, others: Some(nearby) };
        let limits = super::limits::start(part, &config.limits, metrics, tasks);
        forward::owner::start(forward, Arc::clone(registry), counts.clone(), tasks);
        let asked =
            ledger::Peers { membership: members.handle.clone(), transport: transport.clone(), questions: ledger };
        let told = ledger::metrics::Metrics::register(metrics);
        let ledger = ledger::start(&config.ledger, asked, Arc::clone(registry), told, tasks);
        let peers = Peers { membership: members.handle.clone(), transport, deltas, sync };
        (Self { members, address, identity, ledger, control, limits }, peers)
    }
}

/// What a node without a mesh has instead.
struct Alone<'a> {
    /// Which data directory it is, or will be.
    me: StorageId,
    storage: &'a storage::Handle,
    place: &'a Place,
    identity: Option<Arc<Identity>>,
}

impl Alone<'_> {
    fn start(
        self,
        config: &Config,
        definitions: watch::Receiver<Arc<[limits::Definition]>>,
        metrics: &mut MetricsRegistry,
        tasks: &Tasks,
    ) -> (control::Handle, limits::Handle) {
        let Self { me, storage, place, identity } = self;
        // Where rows are kept but nothing says which start this is, there may have been one that spent.
        let is_first = identity.is_none() && storage.opened().is_none();
        let boot = identity.as_ref().map_or(if is_first { 1 } else { 2 }, |it| it.boot);
        let control = super::control::start_alone(me, storage, place, identity, config.mesh.zone.as_ref(), tasks);
        let part = super::limits::Start { control: Some(control.clone()), definitions, me: (me, boot), others: None };
        (control, super::limits::start(part, &config.limits, metrics, tasks))
    }
}

fn rules(workers: &workers::config::Config) -> Rules {
    Rules {
        failure_threshold: workers.failure_threshold,
        success_threshold: workers.success_threshold,
        breaker_failures: workers.breaker_failures,
        breaker_window: workers.breaker_window,
        breaker_open: workers.breaker_open,
        pause_max: PAUSE_MAX,
        memory: observers::memory(workers.probe_interval),
    }
}
