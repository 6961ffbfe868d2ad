//! Where history is kept, as everything above sees it: commands go in, rows of one moment come out.
//!
//! All backends keep the same rows, made by the same [machine](super::machine); they differ in who agrees on the order of commands, and where the rows lie.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::machine::Outcome;
use crate::raft::Rows;

/// Something that takes time.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Reads rows. May run on a thread that waits for disks, and more than once: the last time counts.
pub type Reading = Box<dyn Fn(&dyn Rows) + Send>;

/// Why there was no answer. Nobody's fault who asked; the same may be asked again, also the same command: it counts once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Nobody who could decide was reached in time. A command may still take effect.
    #[error("history is not reachable now: no majority of its nodes, or its server, answered in time")]
    Unreached,
    /// The disk of whoever decides is full. Nothing was changed.
    #[error("history takes nothing now: the disk of the node that decides is full")]
    NoRoom,
    /// More waits than may. Nothing was changed.
    #[error("history is busy: too many requests wait for it")]
    Busy,
    /// What is kept cannot be read. Nothing was changed; the operator must look at it.
    #[error("history cannot be read: its rows are damaged, or a newer release wrote them. The log says more")]
    Damaged,
}

/// See the file's header.
pub trait Backend: Send + Sync + 'static {
    /// As `--history-backend` names it.
    fn name(&self) -> &'static str;

    /// How many commands were carried out, as far as is known here: [`super::machine::Entry::seen`].
    fn commands(&self) -> u64;

    /// Carries out an [`super::machine::Entry`], encoded. What it did is kept as safely as this backend keeps anything when this returns.
    fn propose(&self, entry: Vec<u8>, limit: Duration) -> Doing<'_, Result<Outcome, Unavailable>>;

    /// Reads the rows of one moment, which is not before this was called: all that anybody was told before is in them.
    fn read(&self, reading: Reading, limit: Duration) -> Doing<'_, Result<(), Unavailable>>;

    /// Reads the rows as they are known here, maybe not the newest: for whoever looks again and again, and whose conclusions are commands that the machine judges. Asks nobody where it can.
    fn glance(&self, reading: Reading, limit: Duration) -> Doing<'_, Result<(), Unavailable>> {
        self.read(reading, limit)
    }

    /// How its group is; None: it has none.
    fn group(&self) -> Option<super::group::Status> {
        None
    }

    /// Lets go of the log that is not needed any more, where there is one. None: there is none.
    fn snapshot(&self) -> Option<Doing<'_, Result<u64, Unavailable>>> {
        None
    }

    /// Whether this node is the one that looks after leases and expiry. Several may believe so; what they do twice counts once.
    fn is_watcher(&self) -> bool;
}

/// None that could be reached, whatever is asked.
pub struct Absent;

impl Backend for Absent {
    fn name(&self) -> &'static str {
        "absent"
    }

    fn commands(&self) -> u64 {
        0
    }

    fn propose(&self, _: Vec<u8>, _: Duration) -> Doing<'_, Result<Outcome, Unavailable>> {
        Box::pin(std::future::ready(Err(Unavailable::Unreached)))
    }

    fn read(&self, _: Reading, _: Duration) -> Doing<'_, Result<(), Unavailable>> {
        Box::pin(std::future::ready(Err(Unavailable::Unreached)))
    }

    fn is_watcher(&self) -> bool {
        false
    }
}
