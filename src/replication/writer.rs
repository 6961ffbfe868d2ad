//! The one task that writes tables to disk: batches in order, one fsync for all that wait.
//!
//! *Invariant:* after a failed write nothing more is written and nothing is said to be durable.

use tokio::sync::mpsc;

use super::store::Batch;
use super::store::Store;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;

const TASK: Task = Task { name: "replication-writer", stage: Stage::Carry, on_end: OnEnd::Fine };
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
    tasks.spawn(TASK, |_| async move {
        let mut group = Vec::new();
        while waiting.recv_many(&mut group, GROUP_MAX).await > 0 {
            let (tokens, rows): (Vec<u64>, Vec<Batch>) = group.drain(..).unzip();
            let batch: Batch = rows.into_iter().flatten().collect();
            // An empty batch waits for those before it, which are durable by now.
            if !batch.is_empty() {
                // A thread of its own only while it writes: one that waits would be a thread that does nothing.
                let writing = tokio::task::spawn_blocking(move || {
                    let result = store.append(batch);
                    (store, result)
                });
                // The node stopped, or a panic in it, which was logged: nothing is durable either way.
                let Ok((returned, result)) = writing.await else { return };
                store = returned;
                if let Err(error) = result {
                    tracing::error!(%error, "tables are not written any more: mend the disk and restart this node");
                    let _ = done.send(Written::Failed).await; // replication has ended: nobody waits
                    return;
                }
            }
            if done.send(Written::Through(tokens)).await.is_err() {
                return;
            }
        }
    });
    (batches, written)
}
