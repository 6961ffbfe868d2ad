//! What is asked of a server that keeps rows, whichever it is: transactions in which rows are fetched, and at the end of which they are changed.

use std::io;

use crate::history::backend::Doing;
use crate::raft::RowChange;

/// Rows that somebody needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// One, if it is there.
    Row(Vec<u8>),
    /// As [`crate::raft::Rows::scan`] has it.
    Rows {
        /// The first key.
        from: Vec<u8>,
        /// The key before which they end.
        to: Vec<u8>,
        /// At most so many.
        most: usize,
        /// The last ones, last first.
        is_back: bool,
    },
}

/// Keys and values that were found.
pub type Found = Vec<(Vec<u8>, Vec<u8>)>;

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Nobody else decides while it lasts, or its end says that somebody did.
    Decide,
    /// The rows of one moment.
    Read,
}

/// Why a transaction came to nothing, as far as is known. A connection on which this happened is not used again.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// The server's fault, or the network's: no answer in time. What was to be committed may be, or may become so.
    #[error("no answer in time")]
    Late,
    /// The operator's to see to: its disk or its memory is full. Nothing was changed.
    #[error("the server has no room")]
    NoRoom,
    /// The operator's to see to: start a newer release here. Nothing was changed.
    #[error("a newer release made its tables: they are version {found}, and this one knows {known}")]
    Newer {
        /// What is there.
        found: i64,
        /// What would do.
        known: i64,
    },
    /// Nobody's fault: a read looks at more than can be remembered of a server that has no moments. Use its own backup.
    #[error("a read looked at more than {0} bytes, which this server cannot show of one moment")]
    TooMuch(usize),
    /// The server answered what it cannot have been asked: something else than what the URL says, or a bug.
    #[error("an answer that was not understood")]
    Strange,
    /// See there.
    #[error("the network: {0}")]
    Io(#[from] io::Error),
    /// See there.
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
    /// See there.
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
    /// See there.
    #[cfg(feature = "oracle")]
    #[error(transparent)]
    Oracle(#[from] oracledb::Error),
}

/// A server. Cheap to ask: nothing is kept open by it.
pub trait Server: Send + Sync + 'static {
    /// As `--history-backend` names it.
    fn name(&self) -> &'static str;

    /// Connects. Tables that are missing are made, older ones are migrated.
    fn connect(&self) -> Doing<'_, Result<Box<dyn Session>, Lost>>;
}

/// A connection, and the transaction on it. Dropped, it is closed, and what was not committed never is.
pub trait Session: Send {
    /// Begins a transaction, at the latest with the first fetch.
    fn begin(&mut self, purpose: Purpose);

    /// Fetches rows, in the order of what is wanted.
    fn fetch<'a>(&'a mut self, wants: &'a [Want]) -> Doing<'a, Result<Vec<Found>, Lost>>;

    /// Ends a [`Purpose::Decide`]. True: the changes are kept, as safely as the server keeps anything. False: somebody else decided meanwhile, and nothing was changed.
    fn commit<'a>(&'a mut self, changes: &'a [RowChange]) -> Doing<'a, Result<bool, Lost>>;

    /// Whether all that a transaction fetches is of one moment anyhow. If not, what was fetched is remembered until its end says so.
    fn has_moments(&self) -> bool;

    /// Ends a [`Purpose::Read`]. Whether all that was fetched is of one moment.
    fn end(&mut self) -> Doing<'_, Result<bool, Lost>>;
}
