//! Commands of many writers in one entry of the log: those that come while the last ones are on their way go together.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::shared::Shared;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::history::Unavailable;
use crate::history::machine::Outcome;
use crate::raft;
use crate::raft::COMMAND_BYTES_MAX;

/// Commands that wait. Beyond it they are refused as busy.
pub(super) const QUEUE_MAX: usize = 8192;
/// Entries on their way at a time. One more than is being written to disk: while followers write one, the leader writes the next.
const SHOTS_MAX: usize = 2;
/// Commands of one entry.
const BATCH_MAX: usize = 1024;
/// Bytes of one entry's commands; each is written with its length.
const BATCH_BYTES_MAX: usize = COMMAND_BYTES_MAX - (16 << 10);
const _: () = assert!(BATCH_MAX * 9 < 16 << 10);
/// Between two attempts.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(50);

/// A leader without room has found another by then, or all are full.
const FULL_LIMIT: Duration = Duration::from_secs(3);

/// A command, and who waits for what it does.
pub(super) struct Waiting {
    pub(super) bytes: Vec<u8>,
    pub(super) until: Instant,
    pub(super) answer: oneshot::Sender<Result<Outcome, Unavailable>>,
}

/// Runs until nobody can propose any more.
pub(super) async fn run(shared: Arc<Shared>, mut queue: mpsc::Receiver<Waiting>) {
    // BOUND: `SHOTS_MAX`.
    let mut shots = JoinSet::new();
    let mut next = None;
    loop {
        while shots.len() >= SHOTS_MAX {
            shots.join_next().await;
        }
        let first = match next.take() {
            Some(first) => first,
            None => match queue.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        let batch = gather(first, &mut queue, &mut next);
        let shared = Arc::clone(&shared);
        shots.spawn(raft::owned(async move { carry(&shared, batch).await }));
    }
}

/// All that wait and fit; the first that does not goes next.
fn gather(first: Waiting, queue: &mut mpsc::Receiver<Waiting>, next: &mut Option<Waiting>) -> Vec<Waiting> {
    let mut bytes = first.bytes.len();
    let mut batch = vec![first];
    while batch.len() < BATCH_MAX
        && let Ok(waiting) = queue.try_recv()
    {
        bytes += waiting.bytes.len();
        if bytes > BATCH_BYTES_MAX {
            *next = Some(waiting);
            break;
        }
        batch.push(waiting);
    }
    batch
}

/// Brings commands to whoever leads, again and again until they are answered or nobody waits any more: each counts once, however often it arrives.
async fn carry(shared: &Shared, mut batch: Vec<Waiting>) {
    let (begun, mut why) = (Clock.now(), Unavailable::Unreached);
    loop {
        let now = Clock.now();
        let is_full = why == Unavailable::NoRoom && now >= begun + FULL_LIMIT;
        let (open, late): (Vec<_>, Vec<_>) =
            batch.into_iter().filter(|it| !it.answer.is_closed()).partition(|it| now < it.until && !is_full);
        batch = open;
        for it in late {
            shared.metrics.unavailable(why);
            let _ = it.answer.send(Err(why)); // who asked may have gone
        }
        if batch.is_empty() {
            return;
        }
        match shared.commit(batch.iter().map(|it| it.bytes.clone()).collect()).await {
            Ok(outcomes) if outcomes.len() == batch.len() => {
                shared.metrics.committed(batch.len(), Clock.now() - begun);
                for (it, outcome) in batch.into_iter().zip(outcomes) {
                    let _ = it.answer.send(Ok(outcome)); // who asked may have gone
                }
                return;
            }
            Ok(_) => why = Unavailable::Unreached, // a member that does not keep to the protocol
            Err(error) => why = error,
        }
        shared.metrics.retried();
        Clock.sleep(RETRY_AFTER).await;
    }
}
