//! History that a server keeps: PostgreSQL, Redis or Oracle. Several gateways may share one.
//!
//! ```text
//!  propose ──▶ queue ──▶ Writer: begin · run the machine · fetch what it missed · … · change the rows, commit ──▶ answers
//!  read    ─────────────▶ Readers: begin · the reading, fetching as it goes · end
//! ```
//! The rows are those of every other backend, made by the same [machine](super::machine); the server only keeps them. Commands that come while a transaction runs go into the next one
//! together. A connection that is lost in a commit leaves open what became of it: the same commands are carried out again, which counts once.
//!
//! *Invariants.* 1. Who was answered is kept, as safely as the server keeps what it has committed. 2. Of all gateways one decides at a time. 3. A read sees one moment, which is not before it
//! was asked for. *Absent on purpose:* replicas of the server are not read from, and rows are not cached between transactions: another gateway may have changed them.

#[cfg(test)]
mod fake;
mod known;
mod metrics;
#[cfg(feature = "oracle")]
mod oracle;
mod postgres;
mod readers;
mod redis;
mod server;
#[cfg(test)]
mod tests;
mod tls;
mod url;
mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::backend::Backend;
use super::backend::Doing;
use super::backend::Reading;
use super::backend::Unavailable;
use super::config::Kind;
use super::machine::Outcome;
use crate::base::entropy::Entropy;
use crate::base::secret::Secret;
use crate::base::tasks::Tasks;
use crate::observability::metrics::Registry;
use metrics::Metrics;
use readers::Readers;
use server::Server;
pub use url::InvalidUrl;
use writer::Driver;
use writer::Writer;

/// Until a connection stands. A server that takes longer is not there for whoever waits.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// See the file's header.
pub struct External {
    server: Arc<dyn Server>,
    writer: Writer,
    readers: Readers,
    commands: Arc<AtomicU64>,
    metrics: Metrics,
}

impl External {
    /// Whether `url` is one that this kind of server can have, and this binary can speak to it. Nothing is asked of the server.
    pub fn check(kind: Kind, url: &Secret) -> Result<(), InvalidUrl> {
        server(kind, url, &Tasks::new()).map(drop)
    }

    /// Over the server at `url`. It is connected to when it is first needed; until it is there, nothing is.
    pub fn start(
        kind: Kind,
        url: &Secret,
        entropy: &Entropy,
        metrics: &mut Registry,
        tasks: &Tasks,
    ) -> Result<Self, InvalidUrl> {
        Ok(Self::over(server(kind, url, tasks)?, entropy, metrics, tasks))
    }

    fn over(server: Arc<dyn Server>, entropy: &Entropy, metrics: &mut Registry, tasks: &Tasks) -> Self {
        let (commands, metrics) = (Arc::new(AtomicU64::new(0)), Metrics::register(metrics));
        let driver = Driver::new(Arc::clone(&server), Arc::clone(&commands), metrics.clone(), entropy.clone());
        Self {
            readers: Readers::new(Arc::clone(&server)),
            server,
            writer: Writer::start(driver, tasks),
            commands,
            metrics,
        }
    }
}

fn server(kind: Kind, url: &Secret, tasks: &Tasks) -> Result<Arc<dyn Server>, InvalidUrl> {
    Ok(match kind {
        Kind::Postgres => Arc::new(postgres::Postgres::new(url, tasks.clone())?),
        Kind::Redis => Arc::new(redis::Redis::new(url, tasks.clone())?),
        #[cfg(feature = "oracle")]
        Kind::Oracle => Arc::new(oracle::Oracle::new(url)?),
        #[cfg(not(feature = "oracle"))]
        Kind::Oracle => return Err(InvalidUrl::NotBuilt),
        Kind::Raft | Kind::Memory | Kind::None => return Err(InvalidUrl::NoServer),
    })
}

impl Backend for External {
    fn name(&self) -> &'static str {
        self.server.name()
    }

    fn commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
    }

    fn propose(&self, entry: Vec<u8>, limit: Duration) -> Doing<'_, Result<Outcome, Unavailable>> {
        Box::pin(async move {
            let done = self.writer.propose(entry, limit).await;
            done.inspect_err(|why| self.metrics.unavailable(*why))
        })
    }

    fn read(&self, reading: Reading, limit: Duration) -> Doing<'_, Result<(), Unavailable>> {
        Box::pin(async move {
            let done = self.readers.read(reading, limit).await;
            done.inspect(|()| self.metrics.read()).inspect_err(|why| self.metrics.unavailable(*why))
        })
    }

    /// Every node: none knows of the others, and what they do twice counts once.
    fn is_watcher(&self) -> bool {
        true
    }
}
