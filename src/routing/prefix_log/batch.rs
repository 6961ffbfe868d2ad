//! One row of the replicated table: what a node placed within half a second, by worker. The bytes of `docs/protocol/routing.md`.
//!
//! *Invariants:* numbers and keyed hashes only, never a byte of a prompt (P11); a batch is read whole or refused; none is longer than
//! [`BATCH_BYTES_MAX`]. What was placed in a batch comes after a restart that the same batch tells of.

use serde::Deserialize;
use serde::Serialize;

use crate::base::ids::WorkerId;
use crate::replication::wire;
use crate::replication::wire::WireError;
use crate::routing::prefix_map::chain::Boundary;
use crate::routing::prefix_map::slots::Lesson;

/// Longest batch. Smaller cuts off a busy node's placements, larger lets it take more than its part of the table's bytes per second.
pub const BATCH_BYTES_MAX: usize = 16 << 10;
/// What decoding may allocate: hashes take no more in memory than on the wire, sections about four times as much.
const DECODED_BYTES_MAX: usize = 8 * BATCH_BYTES_MAX;

/// See the file's header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The writer's hash key, as [`Key::fingerprint`](crate::routing::prefix_map::chain::Key::fingerprint) tells it: under another key the hashes mean nothing.
    pub key: u32,
    /// One for each worker.
    pub sections: Vec<Section>,
}

/// What happened to one worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// Which.
    worker: u64,
    /// It began anew, with an empty cache: what was placed before this batch is gone.
    pub is_new_life: bool,
    /// The youngest belief, in milliseconds, that turned out wrong.
    pub forgot_ms: Option<u64>,
    /// The oldest belief, in milliseconds, that turned out right, where it was worth telling.
    pub kept_ms: Option<u64>,
    /// What it got.
    pub placed: Vec<Boundary>,
    /// What was announced of it and did not reach it.
    pub withdrawn: Vec<Boundary>,
}

impl Section {
    /// Nothing happened.
    #[must_use]
    pub fn new(worker: WorkerId) -> Self {
        Self {
            worker: worker.0,
            is_new_life: false,
            forgot_ms: None,
            kept_ms: None,
            placed: Vec::new(),
            withdrawn: Vec::new(),
        }
    }

    /// Which worker.
    #[must_use]
    pub fn worker(&self) -> WorkerId {
        WorkerId(self.worker)
    }

    /// Another answer of this worker. One of each kind is told: the one that says most.
    pub fn teach(&mut self, lesson: Lesson, age_ms: u64) {
        match lesson {
            Lesson::Forgets => self.forgot_ms = Some(self.forgot_ms.map_or(age_ms, |it| it.min(age_ms))),
            Lesson::Remembers => self.kept_ms = Some(self.kept_ms.map_or(age_ms, |it| it.max(age_ms))),
        }
    }

    /// What it teaches, and of what age the belief was.
    pub fn lessons(&self) -> impl Iterator<Item = (Lesson, u64)> {
        let forgot = self.forgot_ms.map(|age| (Lesson::Forgets, age));
        forgot.into_iter().chain(self.kept_ms.map(|age| (Lesson::Remembers, age)))
    }
}

impl Batch {
    /// As a row's value.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        wire::encode(self)
    }

    /// From a row's value.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let is_short = bytes.len() <= BATCH_BYTES_MAX;
        is_short.then(|| wire::decode::<Self, DECODED_BYTES_MAX>(bytes).ok()).flatten()
    }
}
