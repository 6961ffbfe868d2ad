//! Why a node does not start.

use super::mesh::MeshError;
use crate::control::Unusable;
use crate::history::InvalidKeys;
use crate::history::external::InvalidUrl;
use crate::observability::logs;
use crate::observability::traces;
use crate::raft::StartError;
use crate::replication::core::LoadError;
use crate::workers;

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
        /// Which, without credentials.
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
    /// The mesh.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// The tables in the data directory cannot be read back. Nothing in it was changed.
    #[error(
        "{0}: restore the data directory from a backup, or move it away; with a mesh the other nodes have the tables"
    )]
    Tables(#[from] LoadError),
    /// A newer release wrote what is in the data directory, or it is damaged.
    #[error(transparent)]
    Control(#[from] Unusable),
    /// The same of history.
    #[error(
        "what the data directory has of history cannot be read: {0}: use the release that wrote it, or look at docs/operating/backup.md"
    )]
    Unreadable(StartError),
    /// The server that is to keep history.
    #[error(transparent)]
    History(#[from] InvalidUrl),
    /// The keys that seal it.
    #[error(transparent)]
    HistoryKeys(#[from] InvalidKeys),
    /// A part of it ended that it cannot go on without. It has stopped in good order.
    #[error("stopped, because a part of the node failed: the log says which, and why")]
    Failed,
    /// Threads or the runtime.
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
}

impl Error {
    /// Whether the command line or configuration is to mend, rather than the machine.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Mesh(error) => error.is_usage(),
            Self::Control(_) | Self::Unreadable(_) | Self::History(_) | Self::HistoryKeys(_) => true,
            _ => false,
        }
    }
}
