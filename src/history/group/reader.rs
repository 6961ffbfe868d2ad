//! How far a read must have come: one question to the leader for all who wait at the same time.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::oneshot;

use super::committer::RETRY_AFTER;
use super::shared::Shared;
use crate::base::clock::Clock;
use crate::history::LIMIT;
use crate::history::Unavailable;
use crate::history::faults::Fault;
use crate::history::faults::planted;

/// Reads that wait. Beyond it they are refused as busy.
pub(super) const QUEUE_MAX: usize = 8192;

/// Who waits.
pub(super) type Waiting = oneshot::Sender<Result<u64, Unavailable>>;

/// Runs until nobody can ask any more.
pub(super) async fn run(shared: Arc<Shared>, mut queue: mpsc::Receiver<Waiting>) {
    while let Some(first) = queue.recv().await {
        let mut waiting = vec![first];
        while let Ok(next) = queue.try_recv() {
            waiting.push(next);
        }
        let begun = Clock.now();
        let index = loop {
            match shared.index().await {
                Ok(index) => {
                    shared.metrics.indexed(waiting.len(), Clock.now() - begun);
                    break Ok(index);
                }
                Err(_) if planted(Fault::UnheardLeadersAreNotNeeded) => break Ok(0),
                Err(why) if Clock.now() >= begun + LIMIT => break Err(why),
                Err(_) => Clock.sleep(RETRY_AFTER).await,
            }
            waiting.retain(|it| !it.is_closed());
            if waiting.is_empty() {
                break Err(Unavailable::Unreached);
            }
        };
        for it in waiting {
            if let Err(why) = index {
                shared.metrics.unavailable(why);
            }
            let _ = it.send(index); // who asked may have gone
        }
    }
}
