//! The composition root: `wiring` builds each area with the few handles it needs; here it is run and drained. Holds no logic.

mod about;
pub mod config;
mod control;
mod error;
mod faults;
mod ground;
mod history;
mod limits;
pub mod mesh;
pub mod metrics;
mod sharing;
mod tables;
mod wiring;

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
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::api;
use crate::api::gateway::Gateway;
use crate::base::clock::Clock;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Stop;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::config::Config;
use crate::config::Loaded;
use crate::limits::Definition;
use crate::limits::Handle as Limits;
use crate::observability::logs;
use crate::observability::metrics::Registry as MetricsRegistry;
use crate::observability::panics;
use crate::tenancy::budget::Budgets;
use crate::transport::identity::Identity;

pub use self::error::Error;
use self::faults::Fault;
use self::faults::planted;
use self::metrics::Metrics as Counts;
use self::metrics::Reload;
use self::wiring::Built;
use self::wiring::build;
use self::wiring::named_workers;

const PROBER: Task = Task { name: "prober", stage: Stage::Decide, on_end: OnEnd::StopNode };
const METRICS: Task = Task { name: "metrics", stage: Stage::Carry, on_end: OnEnd::Log };

/// A running node.
pub struct Node {
    /// Where clients go.
    pub address: SocketAddr,
    /// Where metrics are; `None` when turned off.
    pub metrics_address: Option<SocketAddr>,
    /// Where other nodes are listened to; `None` without the mesh.
    pub mesh_address: Option<SocketAddr>,
    /// Takes units of limits.
    pub limits: Limits,
    /// The limits that there are to be.
    pub definitions: watch::Sender<Arc<[Definition]>>,
    gateway: Arc<Gateway>,
    tasks: Tasks,
    counts: Counts,
    /// Keeps other processes from being this node.
    _identity: Option<Arc<Identity>>,
}

impl Node {
    /// Builds and starts a node. Port 0 takes any free port.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let tasks = Tasks::new();
        let mut registry = MetricsRegistry::default();
        let chaos = wiring::chaos(&config, &tasks, &mut registry);
        let mesh = wiring::mesh(&config, &tasks, &mut registry, &chaos).await?;
        let Built { gateway, counts, mesh_address, identity, limits, definitions } =
            build(&config, &tasks, &mut registry, mesh, chaos)?;
        let listener = listen(&config.server.host, config.server.port).await?;
        let address = listener.local_addr()?;
        api::responses::start(&gateway);
        about::start(&gateway, address, config.server.tls_cert_path.is_some(), &tasks);
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
        Ok(Self {
            address,
            metrics_address,
            mesh_address,
            limits,
            definitions,
            gateway,
            tasks,
            counts,
            _identity: identity,
        })
    }

    /// Puts in force what can be changed while running (workers, keys, limits, policies, log level) and says what needs a restart.
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
        self.gateway.tenants.configure_limits(new.config.tenancy.limits.clone());
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

    /// What requests take from their tenants' limits: the way in that the API has, for who embeds a node.
    #[must_use]
    pub fn budgets(&self) -> &Budgets {
        &self.gateway.budgets
    }

    /// What responses and conversations are kept in, for who embeds a node; `None` with `--history-backend none`.
    #[must_use]
    pub fn history(&self) -> Option<&crate::history::Handle> {
        self.gateway.history.as_ref()
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
        // Two seconds more than the drain: the last streams are told and end.
        let served = if planted(Fault::NobodyIsWaitedFor) { Duration::ZERO } else { drain + Duration::from_secs(2) };
        tokio::select! {
            left = self.tasks.stop_stage(Stage::Serve, served) => {
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

/// Runs a node until a signal, `stop` or an admin's word: the first drains, a second signal ends it. SIGHUP reads the configuration again.
pub fn run(loaded: Loaded, stop: &Stop) -> Result<(), Error> {
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
        let has_failed = loop {
            tokio::select! {
                _ = terminate.recv() => break false,
                _ = interrupt.recv() => break false,
                () = node.fatal().cancelled_owned() => break true,
                () = stop.cancelled() => break false,
                () = node.gateway.phase.asked() => break false,
                _ = hangup.recv() => loaded = node.reload(loaded, log.as_ref()),
            }
        };
        tokio::select! {
            () = node.shutdown() => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // Whoever watches the process must not take this for a wish.
        if has_failed { Err(Error::Failed) } else { Ok(()) }
    })
}

#[cfg(test)]
mod tests;
