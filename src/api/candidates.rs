//! The workers of a model as routing sees them.

use std::sync::Arc;

use crate::base::clock::Instant;
use crate::base::ids::WorkerId;
use crate::routing::candidate::Candidate;
use crate::routing::candidate::Candidates;
use crate::workers::registry::Entry;

/// A model's workers at one moment, read lazily.
pub struct Pool<'a> {
    /// In ascending id order.
    pub entries: &'a [Arc<Entry>],
    /// The moment.
    pub now: Instant,
    /// Of the fleet.
    pub generation: u64,
}

impl Candidates for Pool<'_> {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn id(&self, index: usize) -> WorkerId {
        self.entries[index].id
    }

    fn at(&self, index: usize) -> Candidate {
        let entry = &self.entries[index];
        let (available, suspect) = entry.standing(self.now);
        Candidate {
            worker: entry.id,
            available,
            suspect,
            inflight: u32::try_from(entry.load.requests()).unwrap_or(u32::MAX),
            queued_prefill_tokens: entry.load.queued_prefill_tokens(self.now),
            // A dear worker counts as a slow one.
            relative_prefill_rate: entry.load.relative_prefill_rate() / entry.spec.cost,
        }
    }

    fn position(&self, worker: WorkerId) -> Option<usize> {
        self.entries.binary_search_by_key(&worker, |it| it.id).ok()
    }

    fn generation(&self) -> u64 {
        self.generation
    }
}
