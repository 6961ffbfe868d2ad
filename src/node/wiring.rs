//! Builds each area with the few handles it needs. Binds nothing, decides nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::error::Error;
use super::ground::Ground;
use super::mesh;
use super::mesh::Mesh;
use super::metrics::Metrics as Counts;
use super::sharing;
use crate::api;
use crate::api::gateway::Gateway;
use crate::api::gateway::Members;
use crate::api::gateway::Phase;
use crate::api::gateway::ThisNode;
use crate::api::intake::Intake;
use crate::api::intake::Patience;
use crate::base::clock::Clock;
use crate::base::entropy::Entropy;
use crate::base::secret::Secret;
use crate::base::tasks::Tasks;
use crate::chaos;
use crate::config::Config;
use crate::limits;
use crate::observability::labels::ModelLabels;
use crate::observability::logs;
use crate::observability::metrics::Registry as MetricsRegistry;
use crate::observability::panics;
use crate::observability::process;
use crate::observability::traces;
use crate::observability::traces::span::Tracer;
use crate::replication;
use crate::routing::Feedback;
use crate::routing::Router;
use crate::routing::edits::PolicyEdits;
use crate::storage;
use crate::tenancy;
use crate::tenancy::admission::Admission;
use crate::tenancy::budget::Budgets;
use crate::tenancy::keys::Keys;
use crate::transport::identity::Identity;
use crate::workers;
use crate::workers::address::Origin;
use crate::workers::address::without_credentials;
use crate::workers::edits::Edits;
use crate::workers::edits::Grounds;
use crate::workers::observers;
use crate::workers::observers::Observers;
use crate::workers::prober::OnRestart;
use crate::workers::prober::Prober;
use crate::workers::registry::Registry;

/// A node, built.
pub(super) struct Built {
    pub(super) gateway: Arc<Gateway>,
    pub(super) counts: Counts,
    /// Where other nodes are listened to.
    pub(super) mesh_address: Option<SocketAddr>,
    /// Keeps other processes from being this node.
    pub(super) identity: Option<Arc<Identity>>,
    /// Takes units of limits.
    pub(super) limits: limits::Handle,
    /// The limits that there are to be.
    pub(super) definitions: watch::Sender<Arc<[limits::Definition]>>,
}

/// Everything a request needs, registered with `metrics`.
pub(super) fn build(
    config: &Config,
    tasks: &Tasks,
    metrics: &mut MetricsRegistry,
    mesh: Option<Mesh>,
    chaos: chaos::Handle,
) -> Result<Built, Error> {
    process::register(metrics);
    logs::register(metrics);
    panics::register(metrics);
    let entropy = Entropy::from_os();
    let keys = super::history::keys(&config.history)?;
    let owns_loopback = mesh.as_ref().is_some_and(|it| it.is_remote);
    let prefix_key = mesh.as_ref().map(|it| it.prefix_key);
    let (definitions, defined) = watch::channel(Arc::default());
    let ground = Ground::lay(config, tasks, metrics, mesh, &chaos, defined)?;
    let Ground { registry, storage, seals, tables, ledger, members, control, .. } = ground;
    let (router, sharing) = sharing::router(config, prefix_key, &entropy, metrics);
    if let Some(sharing) = sharing {
        sharing.start(config, &router, &tables, &registry, &entropy, tasks);
    }
    let prober = prober(config, &registry, &tables, members.as_ref(), &router, ground.worker_metrics, tasks);
    let standing = prober.observers.clone();
    let forgetting = Arc::clone(&router);
    let grounds = Grounds {
        registry: Arc::clone(&registry),
        tables: tables.clone(),
        seals,
        entropy: entropy.clone(),
        tasks: tasks.clone(),
        owns_loopback,
        is_dead: Arc::new(move |place| standing.is_dead(&place.url, place.via)),
        on_gone: Arc::new(move |worker| forgetting.observe(Clock.now(), Feedback::Forgotten(worker))),
    };
    let edits = Edits::start(grounds, named_workers(config)?);
    let configured = config.routing.policies();
    let policies = PolicyEdits::start(Arc::clone(&router), tables.clone(), configured, entropy.clone(), tasks.clone());
    let me = (tables.storage(), ground.identity.as_ref().map_or(1, |it| it.boot));
    let kept = super::history::Start { storage: &storage, control: control.as_ref(), me, entropy: &entropy, keys };
    let history = super::history::start(&config.history, &kept, metrics, tasks)?;
    let server = &config.server;
    let (admission, keys) = admission(config, metrics);
    let tenants =
        tenancy::edits::Edits::start(Arc::clone(&keys), tables.clone(), entropy.clone(), definitions.clone(), tasks);
    tenants.configure_limits(config.tenancy.limits.clone());
    tenants.write_configured(members.as_ref().map_or(Duration::ZERO, |it| it.join_timeout), tasks);
    let intake = intake(server, metrics);
    let budgets = Budgets::new(Arc::clone(&keys), ground.limits.clone());
    let gateway = Gateway {
        budgets,
        keys,
        tenants,
        admission,
        intake,
        registry,
        prober,
        edits,
        router,
        policies,
        storage,
        tables,
        ledger,
        members,
        control,
        history,
        chaos,
        node: ThisNode { name: node_name(config), started: Clock.now(), tasks: tasks.clone() },
        metrics: api::metrics::Metrics::register(metrics, ModelLabels::default()),
        tracer: tracer(config, tasks, metrics, &entropy)?,
        config: server.clone(),
        clock: Clock,
        entropy,
        phase: Phase::default(),
    };
    let counts = Counts::register(metrics);
    let Ground { limits, mesh_address, identity, .. } = ground;
    Ok(Built { gateway: Arc::new(gateway), counts, mesh_address, identity, limits, definitions })
}

/// How many at a time, and who may ask.
fn admission(config: &Config, metrics: &mut MetricsRegistry) -> (Admission, Arc<Keys>) {
    let tenancy = &config.tenancy;
    let metrics = tenancy::metrics::Metrics::register(metrics);
    let (concurrent, queue) = (tenancy.max_concurrent_requests.0, tenancy.queue_size);
    let admission = Admission::new(concurrent, queue, tenancy.queue_timeout, metrics.clone());
    (admission, Arc::new(Keys::new(tenancy.keys.iter().cloned().map(Into::into).collect(), metrics)))
}

/// Who probes this node's share of the workers, and hears of the others'.
fn prober(
    config: &Config,
    registry: &Arc<Registry>,
    tables: &replication::Handle,
    members: Option<&Members>,
    router: &Arc<Router>,
    metrics: workers::metrics::Metrics,
    tasks: &Tasks,
) -> Prober {
    let forgetting = Arc::clone(router);
    let on_restart: OnRestart = Arc::new(move |worker, is_certain| {
        let feedback = if is_certain { Feedback::Forgotten(worker) } else { Feedback::Doubted(worker) };
        forgetting.observe(Clock.now(), feedback);
    });
    let observers = Observers::alone(tables.storage(), config.workers.away_max);
    let setup = observers::Setup {
        observers: observers.clone(),
        registry: Arc::clone(registry),
        tables: tables.clone(),
        members: members.map(|it| it.handle.clone()),
        interval: config.workers.probe_interval,
        on_restart: Arc::clone(&on_restart),
        metrics: metrics.clone(),
    };
    observers::start(setup, tasks);
    Prober::new(Arc::clone(registry), &config.workers, metrics, tasks.clone(), on_restart, observers)
}

/// What makes this node fail on purpose, if it may.
pub(super) fn chaos(config: &Config, tasks: &Tasks, metrics: &mut MetricsRegistry) -> chaos::Handle {
    if config.node.chaos { chaos::start(Entropy::from_os(), metrics, tasks) } else { chaos::Handle::default() }
}

/// This node as one of several, if it is to be.
pub(super) async fn mesh(
    config: &Config,
    tasks: &Tasks,
    metrics: &mut MetricsRegistry,
    chaos: &chaos::Handle,
) -> Result<Option<Mesh>, Error> {
    let (true, storage::Place::Named(data) | storage::Place::Default(data)) = (config.mesh.ha_mesh, data_place(config))
    else {
        return Ok(None);
    };
    Ok(Some(mesh::start(&config.mesh, &data, metrics, chaos, tasks).await?))
}

fn intake(server: &api::config::Config, metrics: &mut MetricsRegistry) -> Intake {
    let patience =
        Patience { idle: server.body_idle_timeout, whole: server.body_timeout, budget: server.body_budget_wait };
    let intake = Intake::new(server.max_payload_size.0, server.body_budget.0, patience);
    intake.register(metrics);
    intake
}

/// The workers that flags, environment and file name.
pub(super) fn named_workers(config: &Config) -> Result<Vec<(Origin, Option<Secret>)>, Error> {
    let origin = |url: &String| match Origin::parse(url) {
        Ok(origin) => Ok((origin, config.workers.api_key.clone())),
        Err(source) => Err(Error::Worker { url: without_credentials(url), source: source.into() }),
    };
    config.workers.urls.iter().map(origin).collect()
}

/// Where this node keeps what must survive. A port that is not known before the start names no directory.
pub(super) fn data_place(config: &Config) -> storage::Place {
    match (config.node.data_dir.as_deref(), config.server.port) {
        (Some("none"), _) | (None, 0) => storage::Place::Nowhere,
        (Some(path), _) => storage::Place::Named(path.into()),
        (None, port) => storage::Place::Default(format!("./smg-data/{port}").into()),
    }
}

fn tracer(config: &Config, tasks: &Tasks, metrics: &mut MetricsRegistry, entropy: &Entropy) -> Result<Tracer, Error> {
    let spans = traces::Metrics::register(metrics);
    let Some(endpoint) = &config.node.otlp_traces_endpoint else { return Ok(Tracer::off()) };
    let (tracer, finished) = Tracer::new(config.node.trace_sample_ratio, entropy.clone(), Clock, spans.clone());
    traces::export::start(endpoint, &node_name(config), finished, spans, tasks)?;
    Ok(tracer)
}

/// How people know this node.
fn node_name(config: &Config) -> String {
    let hostname = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    config.node.node_name.clone().unwrap_or_else(hostname).trim().to_owned()
}
