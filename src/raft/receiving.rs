//! The last piece of a snapshot: with it the snapshot is put in place, which may take longer than any message is waited for.
//!
//! ```text
//!  leader ── last piece ──▶ member   puts it in place …
//!         ── the same  ───▶          … and answers both when it is there
//! ```
//! *Invariant:* a last piece that comes again begins nothing anew: to openraft it would be one of a snapshot that it knows nothing of, and all of it would be sent again, for ever where that takes long.

use std::sync::Arc;

use openraft::AsyncRuntime as _;
use openraft::Raft;
use openraft::SnapshotId;
use openraft::Vote;
use openraft::error::InstallSnapshotError;
use openraft::error::RaftError;
use openraft::error::SnapshotMismatch;
use openraft::raft::InstallSnapshotRequest;
use openraft::raft::InstallSnapshotResponse;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::Group;
use super::Machine;
use super::TypeConfig;
use super::frame::Answer;
use super::frame::Refusal;
use super::runtime::Runtime;
use crate::base::ids::StorageId;

type Piece = InstallSnapshotRequest<TypeConfig>;

/// What came of a piece.
#[derive(Clone, Debug)]
pub(super) enum Took {
    /// It was taken; with the last one the snapshot is in place.
    Taken(Vote<StorageId>),
    /// The pieces do not fit.
    Mismatch(SnapshotMismatch),
    /// The group has stopped.
    Stopped,
}

/// Whose snapshot, and which.
pub(super) type Name = (Vote<StorageId>, SnapshotId);

/// The last snapshot of which all pieces came, and what comes of it. BOUND: one.
pub(super) type Receiving = Arc<Mutex<Option<(Name, watch::Receiver<Option<Took>>)>>>;

impl<M: Machine> Group<M> {
    /// Answers a piece of a snapshot. Goes on with the last one also when nobody waits any more.
    pub(super) async fn take_piece(&self, piece: Piece) -> Answer {
        let took = if piece.done { self.take_last(piece).await } else { take(&self.raft, piece).await };
        match took {
            Took::Taken(vote) => Answer::Snapshot(InstallSnapshotResponse { vote }),
            Took::Mismatch(mismatch) => Answer::Mismatch(mismatch),
            Took::Stopped => Answer::Refused(Refusal::Absent.into()),
        }
    }

    async fn take_last(&self, piece: Piece) -> Took {
        let name: Name = (piece.vote, piece.meta.snapshot_id.clone());
        let mut took = {
            let mut receiving = self.receiving.lock();
            let goes_on = |it: &watch::Receiver<Option<Took>>| matches!(*it.borrow(), None | Some(Took::Taken(_)));
            match receiving.as_ref().filter(|it| it.0 == name && goes_on(&it.1)) {
                Some((_, took)) => took.clone(),
                None => {
                    let (end, took) = watch::channel(None);
                    let raft = self.raft.clone();
                    drop(Runtime::spawn(async move {
                        end.send_replace(Some(take(&raft, piece).await));
                    }));
                    *receiving = Some((name, took.clone()));
                    took
                }
            }
        };
        let told = took.wait_for(Option::is_some).await.ok().and_then(|it| it.clone());
        told.unwrap_or(Took::Stopped)
    }
}

async fn take(raft: &Raft<TypeConfig>, piece: Piece) -> Took {
    match raft.install_snapshot(piece).await {
        Ok(answer) => Took::Taken(answer.vote),
        Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch))) => Took::Mismatch(mismatch),
        Err(RaftError::Fatal(_)) => Took::Stopped,
    }
}
