//! What goes into the core and what comes out.

use std::collections::HashSet;
use std::time::Duration;

use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;
use crate::routing::prefix_map::chain::Boundary;
use crate::routing::prefix_map::slots::Lesson;

/// What this node did or saw, in the order in which it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// The worker gets a prompt that has this prefix.
    Placed(WorkerId, Boundary),
    /// It does not, after all.
    Withdrawn(WorkerId, Boundary),
    /// An answer told of its cache, against a belief of that age. An answer without numbers tells nothing.
    Taught(WorkerId, Lesson, Duration),
    /// It was removed, or restarted with an empty cache.
    NewLife(WorkerId),
    /// The map forgot what it held, without proof that it began anew. Not told.
    Doubted(WorkerId),
}

/// A row that its owner wrote so long ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Whose.
    pub owner: StorageId,
    /// How long ago.
    pub age: Duration,
    /// The value; None: removed, which says nothing.
    pub value: Option<Vec<u8>>,
}

/// What happens to the core.
#[derive(Clone, Debug)]
pub enum Event {
    /// This node did or saw these.
    Said(Vec<Said>),
    /// Rows of the table, own ones too, in any order, once or more often. `is_again`: all are read once more.
    Heard {
        /// The rows.
        rows: Vec<Heard>,
        /// Whether lessons in them were taken already.
        is_again: bool,
    },
    /// The workers that are known here now.
    Workers(HashSet<WorkerId>),
    /// Time passed: a few times a minute.
    Tick,
}

/// Milliseconds on the core's clock; negative: before it started.
pub type AtMs = i64;

/// What the core wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write rows of this node.
    Publish(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    /// The worker got it then.
    Put(WorkerId, Boundary, AtMs),
    /// The worker did not have it then.
    Withdraw(WorkerId, Boundary, AtMs),
    /// Nothing the worker held counts any longer.
    Forget(WorkerId),
    /// An answer somewhere told of its cache, against a belief of that age.
    Learn(WorkerId, Lesson, Duration),
    /// Hand in all rows again: some of them count now that did not, or were undone with others.
    ReadAgain,
}

/// What was told, heard and given up, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Placements told.
    pub sent: u64,
    /// Placements of others that count here, repeated ones too.
    pub received: u64,
    /// Withdrawals, lessons and new lives told.
    pub retractions_sent: u64,
    /// Those of others.
    pub retractions_received: u64,
    /// Bytes of the batches told.
    pub batch_bytes: u64,
    /// Placements that did not fit a batch. They are told when they come again.
    pub over_batch: u64,
    /// Rows that went before their time, because there were too many or they had too many bytes.
    pub over_share: u64,
    /// Rows that could not be read.
    pub garbage: u64,
    /// Rows hashed under another key: a secret is being replaced, or a node has another.
    pub foreign_keys: u64,
}
