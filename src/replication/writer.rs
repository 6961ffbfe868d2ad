//! The one thread that writes tables to disk: batches in order, one fsync for all that wait.
//!
//! *Invariant:* after a failed write nothing more is written and nothing is said to be durable.

use tokio::sync::mpsc;

use super::store::Batch;
use super::store::Store;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;

const TASK: Task = Task { name: "replication-writer", stage: Stage::Carry, on_end: OnEnd::Log };
/// Batches that wait for the disk. Beyond it replication waits too.
const BATCHES_MAX: usize = 1024;
/// Batches of one fsync. More makes the first of them wait longer for its answer.
const GROUP_MAX: usize = 256;

/// What became of batches.
pub(super) enum Written {
    /// These are durable.
    Through(Vec<u64>),
    /// The disk failed. Nothing follows.
    Failed,
}

/// Starts it. It ends when nobody can send any more, after the last batch.
pub(super) fn start(mut store: Box<dyn Store>, tasks: &Tasks) -> (mpsc::Sender<(u64, Batch)>, mpsc::Receiver<Written>) {
    let (batches, mut waiting) = mpsc::channel::<(u64, Batch)>(BATCHES_MAX);
    let (done, written) = mpsc::channel(BATCHES_MAX);
    let write = move || {
        let mut group = Vec::new();
        while waiting.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
            let (tokens, rows): (Vec<u64>, Vec<Batch>) = group.drain(..).unzip();
            let batch: Batch = rows.into_iter().flatten().collect();
            // An empty batch waits for those before it, which are durable by now.
            let result = if batch.is_empty() { Ok(()) } else { store.append(batch) };
            let is_failed = result.is_err();
            if let Err(error) = result {
                tracing::error!(%error, "tables are not written any more: mend the disk and restart this node");
            }
            let told = done.blocking_send(if is_failed { Written::Failed } else { Written::Through(tokens) });
            if is_failed || told.is_err() {
                return;
            }
        }
    };
    tasks.spawn(TASK, |_| async move {
        let _ = tokio::task::spawn_blocking(write).await; // a panic in it was logged, and ends replication as a closed channel does
    });
    (batches, written)
}
