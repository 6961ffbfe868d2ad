//! Hard delete: what was deleted or has expired goes off this node's disk, content and all, within a time that is promised.
//!
//! ```text
//!  removed ──── a quarter ────▶ how far has the log come? ──── a quarter ────▶ purged up to there ──▶ …
//! ```
//! What is removed in the second quarter waits for the next turn, so that it, too, is gone within three quarters and the time that the work takes. The log is let go of as it was a quarter ago,
//! because followers that are a little late, and commands that are sent again, are then through. *Absent on purpose:* agreement. Each node does it for its own disk.

use std::sync::Arc;
use std::time::Duration;

use super::metrics::Metrics;
use crate::base::clock::Clock;
use crate::history::machine::History;
use crate::raft::Group;
use crate::raft::PurgeError;

/// Runs until the group has stopped. Nothing is done while nothing is removed.
pub(super) async fn run(group: Arc<Group<History>>, within: Duration, metrics: Metrics) {
    loop {
        group.until_removed().await;
        Clock.sleep(within / 4).await;
        let upto = group.applied();
        Clock.sleep(within / 4).await;
        loop {
            let purged = group.purge(upto).await;
            metrics.purged(purged.is_ok());
            match purged {
                Ok(()) => break,
                Err(PurgeError::Stopped(_)) => return,
                Err(error) => {
                    tracing::warn!(%error, "what was deleted still lies on this node's disk; it is tried again");
                    Clock.sleep(within / 8).await;
                }
            }
        }
        tracing::debug!(upto, "what was deleted is off this node's disk");
    }
}
