//! Where what operators decided is kept over restarts: the seam between the areas that decide and the log that remembers.
//!
//! A row is a name and opaque bytes; whoever writes one versions it. `history` implements it on disk. *Invariants:* what was
//! answered with [`Kept::Durably`] is there after any restart; a refused row changed nothing; a secret leaves here sealed.

use std::future::Future;
use std::pin::Pin;

use super::ids::WorkerId;
use super::secret::Secret;

/// Longest value of a row. A smaller bound would cut long model lists; a larger one, times the number of workers, would
/// make a snapshot too big to hold in memory.
pub const VALUE_BYTES_MAX: usize = 8 << 10;

/// What is kept, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    /// What was decided about one worker.
    Worker(WorkerId),
    /// The routing policies, all of them.
    Policies,
}

/// How long a decision holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// On disk.
    Durably,
    /// In memory only: this node has no usable data directory, which it said at its start.
    UntilRestart,
}

/// Why a decision was not kept. It must not be put in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// There are as many rows as may be. The caller's to make room.
    #[error("as many workers are kept as may be")]
    Full,
    /// The value is longer than [`VALUE_BYTES_MAX`]. The caller's to shorten.
    #[error("its description is longer than {VALUE_BYTES_MAX} bytes")]
    TooLong,
    /// The disk failed, now or before; whether this write is there after a restart is unknown. The operator's to mend.
    #[error("the data directory could not be written: mend the disk and restart this node, its log says why")]
    Failed,
    /// The node is stopping. Ask again after the restart.
    #[error("this node is stopping")]
    Closing,
}

/// An edit on its way to the disk. Dropping it does not undo it.
pub type Keeping<'a> = Pin<Box<dyn Future<Output = Result<Kept, NotKept>> + Send + 'a>>;

/// A sealed secret on its way; `None`: nothing is kept here, so there is nothing to seal for.
pub type Sealing<'a> = Pin<Box<dyn Future<Output = Option<Vec<u8>>> + Send + 'a>>;

/// See the file's header.
pub trait Journal: Send + Sync {
    /// Keeps a row, or replaces it. Resolves when it is on disk.
    fn put(&self, row: Row, value: Vec<u8>) -> Keeping<'_>;

    /// Forgets a row. Doing so twice changes nothing.
    fn remove(&self, row: Row) -> Keeping<'_>;

    /// What is kept, in order.
    fn rows(&self) -> Vec<(Row, Vec<u8>)>;

    /// Seals a secret so that only this journal opens it, and only for `bound_to`.
    fn seal<'a>(&'a self, secret: &'a Secret, bound_to: &'a str) -> Sealing<'a>;

    /// Opens what [`Journal::seal`] made; `None`: another key sealed it, or for something else.
    fn unseal(&self, sealed: &[u8], bound_to: &str) -> Option<Secret>;
}
