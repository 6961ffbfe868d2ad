//! Simulated workers as a process: what `smg sim-worker` runs.
//!
//! The caller parses flags into [`Options`] and prints; this builds the runtime and waits for what ends it.

use std::time::Duration;

use super::Lab;
use super::sim_worker::Options;
use super::sim_worker::StartError;
use crate::base::tasks::Stage;
use crate::base::tasks::Stop;
use crate::base::tasks::Tasks;

/// Connections get this long to notice that the process ends; nothing a simulation says is worth waiting for.
const STOP_DEADLINE: Duration = Duration::from_millis(200);

/// Why the process ended badly.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A worker could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The operating system refused a runtime or a signal handler.
    #[error("the operating system refused: {0}")]
    System(#[from] std::io::Error),
}

/// Runs `count` workers until SIGINT, SIGTERM or `stop`; `ready` gets their URLs once they listen.
pub fn run(count: usize, options: &Options, stop: &Stop, ready: impl FnOnce(&[String])) -> Result<(), RunError> {
    // One thread needs no stealing between queues, which is a quarter of the time of a small answer.
    let mut builder = match options.threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(options.threads.max(1)).enable_all().build()?;
    runtime.block_on(async {
        let tasks = Tasks::new();
        let lab = Lab::start(count, options, &tasks)?;
        ready(&lab.urls());
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted?,
            _ = terminate.recv() => {}
            () = stop.cancelled() => {}
        }
        for stage in [Stage::Accept, Stage::Serve] {
            tasks.stop_stage(stage, STOP_DEADLINE).await;
        }
        Ok(())
    })
}
