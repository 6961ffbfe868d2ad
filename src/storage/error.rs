//! How opening the data directory can fail.

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
    /// Another process has it open.
    #[error("data directory `{}` is in use by another process", directory.display())]
    InUse {
        /// The directory asked for.
        directory: PathBuf,
    },
    /// It is there, but the database in it cannot be opened or read: it is damaged or newer.
    #[error("the store in `{}` cannot be opened: {source}", directory.display())]
    Store {
        /// The directory asked for.
        directory: PathBuf,
        /// What is wrong with it.
        source: StoreError,
    },
    /// The key that seals secrets in it is not one.
    #[error("`{}` is not a seal key: expected 64 hex digits", path.display())]
    SealKey {
        /// The file.
        path: PathBuf,
    },
}

impl OpenError {
    /// What the operator can do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::NotWritable { .. } => {
                "let the gateway's user write it, or name another one with --data-dir (`none` keeps nothing)"
            }
            Self::InUse { .. } => "give each gateway a --data-dir of its own, or stop the other one",
            Self::Store { .. } => "restore it from a backup, or move it away to start with an empty one",
            Self::SealKey { .. } => {
                "restore the file from a backup, or move it away: workers then come back without their keys"
            }
        }
    }
}
