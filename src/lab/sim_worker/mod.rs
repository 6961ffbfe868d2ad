//! A worker without a model: it answers like a real engine, in the engine's own shapes, and misbehaves on command.
//!
//! ```text
//! server   sockets ─▶ handle ─▶ route ─▶ answers ─▶ reply (what is said) ─▶ render (how, per dialect) ─▶ body
//!             ▲          │                  │                                                            │
//!             │          └ faults           └▶ engine (when: batching, cache)                            │
//!          sabotage ◀───────────────────────────── an answer to be broken below HTTP ◀───────────────────┘
//! ```
//!
//! Invariants: the same options and the same requests give the same bytes (ids and `created` included, no `date`
//! header); a client that leaves frees its slot before anything else happens. Absent: TLS, h2, sampling, images.

mod answers;
mod ask;
mod body;
mod catalog;
mod checks;
pub mod faults;
mod handle;
mod meters;
mod options;
mod pooling;
mod prompts;
mod refusal;
mod render;
mod reply;
mod route;
mod sabotage;
mod schema;
mod server;
mod shared;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

pub use self::options::Options;
pub use self::options::Personality;
pub use self::options::ServedTask;
pub use self::shared::Recorded;
pub use self::shared::Snapshot;
use crate::base::tasks::Stop;
use crate::base::tasks::Tasks;
use crate::lab::engine::driver::Engine;

/// Why a worker could not be started. Nothing was left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        cause: io::Error,
    },
    /// A fault in the options is not one.
    #[error(transparent)]
    Fault(#[from] faults::InvalidRule),
}

/// A running simulated worker. Dropping this leaves it running; [`SimWorker::stop`] or its tasks' end stops it.
pub struct SimWorker {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Stop,
}

use self::shared::Shared;

/// Serves on `listener` until the stages of `tasks` stop or the returned handle is told to.
pub fn serve(listener: TcpListener, options: Options, tasks: &Tasks) -> Result<SimWorker, StartError> {
    let rules = options.faults.iter().map(|it| faults::Rule::parse(it)).collect::<Result<Vec<_>, _>>()?;
    let engine = Engine::start(options.settings(), tasks);
    let shared = Arc::new(Shared::new(options, engine));
    handle::add_faults(&shared, rules)?;
    let stop = Stop::new();
    let address = server::listen(Arc::clone(&shared), listener, tasks, stop.clone())
        .map_err(|cause| StartError::Listen { address: "the given listener".to_owned(), cause })?;
    Ok(SimWorker { address, shared, stop })
}

impl SimWorker {
    /// Starts a worker on `127.0.0.1` and a free port, whatever the options' own say.
    pub fn start(options: Options, tasks: &Tasks) -> Result<Self, StartError> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), options, tasks)
    }

    /// Starts a worker at `address`.
    pub fn start_at(address: SocketAddr, options: Options, tasks: &Tasks) -> Result<Self, StartError> {
        let listener =
            server::bind(address).map_err(|cause| StartError::Listen { address: address.to_string(), cause })?;
        serve(listener, options, tasks)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its state now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// The last requests it saw (32 at most, `/sim/*` left out), the newest last.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.recorded()
    }

    /// Adds a fault, in the short form or JSON: `worker.fault("cut after=2 next=1")`.
    pub fn fault(&self, rule: &str) -> Result<(), faults::InvalidRule> {
        handle::add_faults(&self.shared, vec![faults::Rule::parse(rule)?])
    }

    /// Forgets all faults.
    pub fn clear_faults(&self) {
        self.shared.faults.clear();
    }

    /// Closes the port for so long: connecting is refused, connections already there go on.
    pub fn refuse_for(&self, duration: Duration) {
        handle::close_port(&self.shared, u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    }

    /// Dies: the port and every connection close at once.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests;
