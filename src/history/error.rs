//! How opening a log and appending to it can fail.

use std::io;
use std::path::PathBuf;

use super::store::StoreError;

/// Why the data directory cannot be used. The operator's to mend; nothing was changed. The node can serve without it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be made or written: rights, a read-only or full disk, a file in its place.
    #[error("data directory `{}` cannot be written: {source}", directory.display())]
    NotWritable {
        /// The directory asked for.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is there, but the database in it cannot be opened or read: another process holds it, or it is damaged or newer.
    #[error("the store in `{}` cannot be opened: {source}", directory.display())]
    Store {
        /// The directory asked for.
        directory: PathBuf,
        /// What is wrong with it.
        source: StoreError,
    },
}

/// Why a command was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The disk or the store failed. Whether the command will be there after a restart is unknown; it was not
    /// acknowledged, and this log takes no more commands. The operator's to mend.
    #[error("the log could not be written: {0}")]
    Store(#[from] StoreError),
    /// An earlier write failed, so this log takes no more commands. Nothing was changed; restart the node.
    #[error("the log takes no more commands since an earlier write failed")]
    Failed,
    /// The node is shutting down. Nothing may have been changed; ask again after the restart.
    #[error("the log is closing")]
    Closing,
}
