//! The composition root: builds each area with the few handles it needs, runs, drains. Holds no logic.

pub mod config;
pub mod metrics;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::TcpListener;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio_rustls::TlsAcceptor;

use crate::api;
use crate::api::gateway::Gateway;
use crate::api::gateway::Phase;
use crate::base::clock::Clock;
use crate::base::entropy::Entropy;
use crate::base::journal::Journal;
use crate::base::secret::Secret;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::config::Config;
use crate::config::Loaded;
use crate::history;
use crate::observability::labels::ModelLabels;
use crate::observability::logs;
use crate::observability::metrics::Registry as MetricsRegistry;
use crate::observability::panics;
use crate::observability::process;
use crate::observability::traces;
use crate::observability::traces::span::Tracer;
use crate::routing;
use crate::routing::Feedback;
use crate::routing::Router;
use crate::routing::edits::PolicyEdits;
use crate::tenancy;
use crate::tenancy::admission::Admission;
use crate::tenancy::keys::Keys;
use crate::workers;
use crate::workers::address::Origin;
use crate::workers::edits::Edits;
use crate::workers::health::Rules;
use crate::workers::http::Dialer;
use crate::workers::prober::Prober;
use crate::workers::registry::Registry;

use self::metrics::Metrics as Counts;
use self::metrics::Reload;

const PROBER: Task = Task { name: "prober", stage: Stage::Decide, on_end: OnEnd::StopNode };
const METRICS: Task = Task { name: "metrics", stage: Stage::Carry, on_end: OnEnd::Log };

/// Longest pause a worker may ask for with `Retry-After`.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Why a node did not start. The operator's to mend; nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port is taken or an address is not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// A worker URL.
    #[error("--worker-urls {url}: {source}")]
    Worker {
        /// Which.
        url: String,
        /// Why.
        source: workers::registry::EditError,
    },
    /// A certificate or key.
    #[error("cannot use the TLS file {path}: {reason}")]
    Tls {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// TLS towards workers.
    #[error(transparent)]
    WorkerTls(#[from] workers::http::TlsError),
    /// The log level.
    #[error(transparent)]
    Level(#[from] logs::InvalidLevel),
    /// Traces.
    #[error(transparent)]
    Traces(#[from] traces::export::ExportError),
    /// Threads or the runtime.
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
}

/// A running node.
pub struct Node {
    /// Where clients go.
    pub address: SocketAddr,
    /// Where metrics are; `None` when turned off.
    pub metrics_address: Option<SocketAddr>,
    gateway: Arc<Gateway>,
    tasks: Tasks,
    counts: Counts,
}

impl Node {
    /// Builds and starts a node. Port 0 takes any free port.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let tasks = Tasks::new();
        let mut registry = MetricsRegistry::default();
        let (gateway, counts) = build(&config, &tasks, &mut registry)?;
        let listener = listen(&config.server.host, config.server.port).await?;
        let address = listener.local_addr()?;
        let edge = api::serve::Edge {
            routes: api::routes::router(&gateway),
            gateway: Arc::clone(&gateway),
            tasks: tasks.clone(),
            tls: tls_in(&config)?,
        };
        let threads = match config.server.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            given => given,
        };
        api::serve::start(listener, threads, &edge)?;
        let metrics_address = match config.node.prometheus_port {
            0 => None,
            port => Some(serve_metrics(&config.node.prometheus_host, port, registry, &tasks).await?),
        };
        let prober = gateway.prober.clone();
        tasks.spawn(PROBER, |stop| prober.run(stop));
        tracing::info!(%address, threads, workers = config.workers.urls.len(), "gateway is listening");
        Ok(Self { address, metrics_address, gateway, tasks, counts })
    }

    /// Puts in force what can be changed while running (workers, keys, policies, log level) and says what needs a restart.
    pub fn reload(&self, old: Loaded, log: Option<&logs::LogHandle>) -> Loaded {
        let new = match old.reload() {
            Ok(new) => new,
            Err(errors) => {
                self.counts.reloaded(Reload::Refused);
                tracing::error!(%errors, "the configuration was not reloaded");
                return old;
            }
        };
        self.counts.reloaded(Reload::Applied);
        match named_workers(&new.config) {
            Ok(named) => self.gateway.edits.configure(named),
            Err(error) => tracing::error!(%error, "the workers were not reloaded"),
        }
        self.gateway.policies.configure(new.config.routing.policies());
        self.gateway.keys.replace(new.config.tenancy.keys.iter().cloned().map(Into::into).collect());
        if let Some(Err(error)) = log.map(|it| it.set(&new.config.node.log_level)) {
            tracing::error!(%error, "the log level was not changed");
        }
        let changes = crate::config::diff(&old, &new);
        tracing::info!(changes = changes.len(), "the configuration was read again");
        for change in changes {
            let (option, from, to) = (change.flag, change.from, change.to);
            if change.is_live {
                tracing::info!(option, from, to, "reloaded: an option changed");
            } else {
                tracing::warn!(option, from, to, "reloaded: a changed option needs a restart");
            }
        }
        new
    }

    /// Fires when a task ended that the node cannot go on without.
    #[must_use]
    pub fn fatal(&self) -> crate::base::tasks::Stop {
        self.tasks.fatal()
    }

    /// Stops in stages: no new connections, streams finish or are told, then the rest.
    pub async fn shutdown(self) {
        let drain = self.gateway.config.drain_timeout;
        self.gateway.phase.drain();
        tracing::info!(deadline = ?drain, "draining");
        self.tasks.stop_stage(Stage::Accept, Duration::from_secs(1)).await;
        let phase = Arc::clone(&self.gateway);
        let cut_off = async {
            Clock.sleep(drain).await;
            phase.phase.cut_off();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            // Two seconds more than the drain: the last streams are told and end.
            left = self.tasks.stop_stage(Stage::Serve, drain + Duration::from_secs(2)) => {
                if left > 0 {
                    tracing::warn!(connections = left, "connections were cut");
                }
            }
            () = cut_off => {}
        }
        for stage in [Stage::Decide, Stage::Agree, Stage::Share, Stage::Belong, Stage::Carry] {
            self.tasks.stop_stage(stage, Duration::from_secs(1)).await;
        }
        tracing::info!("stopped");
    }
}

fn build(config: &Config, tasks: &Tasks, metrics: &mut MetricsRegistry) -> Result<(Arc<Gateway>, Counts), Error> {
    process::register(metrics);
    logs::register(metrics);
    panics::register(metrics);
    let worker_metrics = workers::metrics::Metrics::register(metrics);
    let dialer = Dialer::new(&config.workers, tasks.clone(), worker_metrics.clone())?;
    let rules = Rules {
        failure_threshold: config.workers.failure_threshold,
        success_threshold: config.workers.success_threshold,
        breaker_failures: config.workers.breaker_failures,
        breaker_window: config.workers.breaker_window,
        breaker_open: config.workers.breaker_open,
        pause_max: PAUSE_MAX,
    };
    let entropy = Entropy::from_os();
    let registry = Arc::new(Registry::new(rules, dialer));
    workers::fleet::register(metrics, Arc::clone(&registry));
    let history = history::Handle::open(data_place(config), history::Metrics::register(metrics));
    let journal: Arc<dyn Journal> = Arc::new(history.clone());
    let edits = Edits::restore(
        Arc::clone(&registry),
        Arc::clone(&journal),
        named_workers(config)?,
        entropy.clone(),
        tasks.clone(),
    );
    let edits = edits.map_err(|source| Error::Worker { url: config.workers.urls.join(" "), source })?;
    let router = Router::new(config.routing.clone(), entropy.clone()).with_metrics(routing::Metrics::register(metrics));
    let router = Arc::new(router);
    let forgetting = Arc::clone(&router);
    let on_restart = Arc::new(move |worker| forgetting.observe(Clock.now(), Feedback::Forgotten(worker)));
    let prober = Prober::new(Arc::clone(&registry), &config.workers, worker_metrics, tasks.clone(), on_restart);
    let policies = PolicyEdits::restore(Arc::clone(&router), journal, config.routing.policies(), tasks.clone());
    let (server, tenancy) = (&config.server, &config.tenancy);
    let tenancy_metrics = tenancy::metrics::Metrics::register(metrics);
    let admission = Admission::new(
        tenancy.max_concurrent_requests.0,
        tenancy.queue_size,
        tenancy.queue_timeout,
        tenancy_metrics.clone(),
    );
    let intake = api::intake::Intake::new(
        server.max_payload_size.0,
        server.body_budget.0,
        api::intake::Patience {
            idle: server.body_idle_timeout,
            whole: server.body_timeout,
            budget: server.body_budget_wait,
        },
    );
    intake.register(metrics);
    let gateway = Gateway {
        keys: Keys::new(tenancy.keys.iter().cloned().map(Into::into).collect(), tenancy_metrics),
        admission,
        intake,
        registry,
        prober,
        edits,
        router,
        policies,
        history,
        metrics: api::metrics::Metrics::register(metrics, ModelLabels::default()),
        tracer: tracer(config, tasks, metrics, &entropy)?,
        config: server.clone(),
        clock: Clock,
        entropy,
        phase: Phase::default(),
    };
    Ok((Arc::new(gateway), Counts::register(metrics)))
}

/// The workers that flags, environment and file name.
fn named_workers(config: &Config) -> Result<Vec<(Origin, Option<Secret>)>, Error> {
    let origin = |url: &String| match Origin::parse(url) {
        Ok(origin) => Ok((origin, config.workers.api_key.clone())),
        Err(source) => Err(Error::Worker { url: url.clone(), source: source.into() }),
    };
    config.workers.urls.iter().map(origin).collect()
}

/// Where this node keeps what must survive. A port that is not known before the start names no directory.
fn data_place(config: &Config) -> history::Place {
    match (config.node.data_dir.as_deref(), config.server.port) {
        (Some("none"), _) | (None, 0) => history::Place::Nowhere,
        (Some(path), _) => history::Place::Named(path.into()),
        (None, port) => history::Place::Default(format!("./smg-data/{port}").into()),
    }
}

fn tracer(config: &Config, tasks: &Tasks, metrics: &mut MetricsRegistry, entropy: &Entropy) -> Result<Tracer, Error> {
    let spans = traces::Metrics::register(metrics);
    let Some(endpoint) = &config.node.otlp_traces_endpoint else { return Ok(Tracer::off()) };
    let hostname = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = config.node.node_name.clone().unwrap_or_else(hostname);
    let (tracer, finished) = Tracer::new(config.node.trace_sample_ratio, entropy.clone(), Clock, spans.clone());
    traces::export::start(endpoint, name.trim(), finished, spans, tasks)?;
    Ok(tracer)
}

async fn listen(host: &str, port: u16) -> Result<TcpListener, Error> {
    let address = format!("{}:{port}", if host.contains(':') { format!("[{host}]") } else { host.to_owned() });
    TcpListener::bind(&address).await.map_err(|source| Error::Listen { address, source })
}

fn tls_in(config: &Config) -> Result<Option<TlsAcceptor>, Error> {
    let (Some(cert_path), Some(key_path)) = (&config.server.tls_cert_path, &config.server.tls_key_path) else {
        return Ok(None);
    };
    let failed = |path: &String, reason: String| Error::Tls { path: path.clone(), reason };
    let certificates: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_file_iter(cert_path).and_then(Iterator::collect);
    let certificates = certificates.map_err(|error| failed(cert_path, error.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(key_path).map_err(|error| failed(key_path, error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|error| failed(cert_path, error.to_string()))?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(tls))))
}

async fn serve_metrics(host: &str, port: u16, registry: MetricsRegistry, tasks: &Tasks) -> Result<SocketAddr, Error> {
    let listener = listen(host, port).await?;
    let address = listener.local_addr()?;
    let registry = Arc::new(Mutex::new(registry));
    let routes = api::metrics_routes(move || registry.lock().render());
    tasks.spawn(METRICS, |stop| api::serve_plain(listener, routes, stop));
    Ok(address)
}

/// Runs a node until a signal: the first drains, the second ends it. SIGHUP reads the configuration again.
pub fn run(loaded: Loaded) -> Result<(), Error> {
    let node = &loaded.config.node;
    let log = logs::start(&node.log_level, node.log_json)?;
    panics::watch();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut loaded = loaded;
        let node = Node::start(loaded.config.clone()).await?;
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = node.fatal().cancelled_owned() => break,
                _ = hangup.recv() => loaded = node.reload(loaded, log.as_ref()),
            }
        }
        tokio::select! {
            () = node.shutdown() => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests;
