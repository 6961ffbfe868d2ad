//! What stands in for the exporter in a build without the feature `otel`: it says so.

use tokio::sync::mpsc;

use super::Metrics;
use super::span::Finished;
use crate::base::tasks::Tasks;

/// This build cannot export. The operator's to mend; nothing was started.
#[derive(Debug, thiserror::Error)]
#[error("cannot export traces to `{endpoint}`: this build is without the feature `otel`")]
pub struct ExportError {
    /// Where to.
    pub endpoint: String,
}

/// Refuses.
pub fn start(
    endpoint: &str,
    _node_name: &str,
    _finished: mpsc::Receiver<Finished>,
    _metrics: Metrics,
    _tasks: &Tasks,
) -> Result<(), ExportError> {
    Err(ExportError { endpoint: endpoint.to_owned() })
}
