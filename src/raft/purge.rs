//! What was removed goes off this disk, too: out of the log, the write-ahead log and the files of rows.
//!
//! A row's value lies in the entry that brought it and in the rows, and each of them in the write-ahead log and in files. *Invariant:* that something was removed is on disk with the removal
//! ([`Key::Removed`]) until all of them were written anew after it, so that a restart forgets none.

use std::time::Duration;

use openraft::error::Fatal;
use tokio::time::timeout;

use super::Group;
use super::LogId;
use super::Machine;
use crate::base::clock::Clock;
use crate::base::ids::StorageId;
use crate::storage::StoreError;
use crate::storage::keys::Key;

/// The log is let go of within this, or it is tried again later. A leader waits for messages that are on their way with these entries.
const LOG_LIMIT: Duration = Duration::from_secs(60);
/// Longest that is waited for who reads what was there before: an export takes no longer.
const VIEWS_LIMIT: Duration = Duration::from_secs(3600);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(50);

/// Why something that was removed may still lie on this disk. Nothing else was changed; ask again later.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// The group has stopped: its store failed. The node stops.
    #[error("the group has stopped: {0}")]
    Stopped(String),
    /// The log could not be let go of in time.
    #[error("the log was not let go of in time")]
    Log,
    /// Somebody reads what was there before, such as an export.
    #[error("what was there before is still being read")]
    Read,
    /// The disk is full, or has failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<M: Machine> Group<M> {
    /// Waits until something was removed that may still lie on this disk.
    pub async fn until_removed(&self) {
        self.state.until_removed().await;
    }

    /// Whether something was removed that may still lie on this disk.
    #[must_use]
    pub fn is_to_be_purged(&self) -> bool {
        self.state.removed() > 0
    }

    /// Whatever entries up to this one removed is gone from this disk when this returns. A member that lacks any of them gets a snapshot.
    pub async fn purge(&self, upto: u64) -> Result<(), PurgeError> {
        timeout(LOG_LIMIT, self.let_go(upto)).await.map_err(|_late| PurgeError::Log)??;
        let moment = self.store.moment();
        let settled = async {
            while !self.store.is_settled(moment)? {
                Clock.sleep(LOOK).await;
            }
            Ok::<_, StoreError>(())
        };
        timeout(VIEWS_LIMIT, settled).await.map_err(|_late| PurgeError::Read)??;
        let group = self.state.group();
        for part in self.store.on_disk(move |store| store.begin_rewrite(group)).await? {
            let begun = Clock.now();
            self.store.on_disk(move |store| store.rewrite(&part)).await?;
            // BOUND: half of the time is others'.
            Clock.sleep(Clock.now() - begun).await;
        }
        let state = self.state.clone();
        Ok(self.store.on_disk(move |_| state.purged(upto)).await?)
    }

    /// Lets go of the log up to an entry that has taken effect.
    async fn let_go(&self, upto: u64) -> Result<(), PurgeError> {
        let stopped = |error: Fatal<StorageId>| PurgeError::Stopped(error.to_string());
        loop {
            let purged: Option<LogId> = self.store.read(Key::Purged(self.state.group()))?;
            if purged.is_some_and(|it| it.index >= upto) {
                return Ok(());
            }
            let (kept, last) = {
                let metrics = self.raft.metrics();
                let metrics = metrics.borrow();
                (metrics.snapshot, metrics.last_log_index.unwrap_or(0))
            };
            if kept.is_some_and(|it| it.index >= upto) {
                self.raft.trigger().purge_log(upto).await.map_err(stopped)?;
            } else if last >= self.applied() {
                self.raft.trigger().snapshot().await.map_err(stopped)?;
            } // else the state came from a member that was further than its log has come here: openraft must not hear of entries that it does not have
            Clock.sleep(LOOK).await;
        }
    }
}
