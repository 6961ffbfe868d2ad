//! What a policy may know of the workers it chooses from.

use crate::base::ids::WorkerId;
use crate::observability::labels::label;

label! {
    /// Where a candidate's load comes from.
    pub enum LoadSource {
        /// This node's requests alone: it is the only one, or the policy asks for no more.
        Own = "own",
        /// All nodes': this node keeps the worker's ledger.
        Local = "local",
        /// All nodes': the node that keeps the ledger said so when asked.
        Probed = "probed",
        /// This node's, and what the others have told of theirs now and then.
        Gossiped = "gossiped",
        /// The same, because the ledger was not known or nobody told it in time.
        Fallback = "fallback",
    }
}

/// Whose word a candidate's load is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Who.
    pub by: LoadSource,
    /// How old it is in milliseconds. This node's own part of it is of the moment.
    pub age_ms: u32,
}

impl Told {
    /// Of the moment.
    pub const OWN: Self = Self { by: LoadSource::Own, age_ms: 0 };
}

/// One worker at the moment of choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Which.
    pub worker: WorkerId,
    /// Whether health, breaker, backpressure and drain allow a new request.
    pub available: bool,
    /// Whether other nodes hold it for away: chosen only when no other worker can be.
    pub suspect: bool,
    /// Requests in flight at this worker.
    pub inflight: u32,
    /// Prompt tokens sent there whose prefill is not done yet.
    pub queued_prefill_tokens: u64,
    /// Whose requests and tokens these are, as far as is known.
    pub told: Told,
    /// Learned prefill rate in tokens per second, relative to the mean of its model (1.0 until known).
    pub relative_prefill_rate: f32,
}

/// The workers that serve a model, in ascending id order, read lazily: a policy that looks at four of ten thousand pays for four.
pub trait Candidates {
    /// How many there are.
    fn len(&self) -> usize;
    /// The id of the `index`-th: cheaper than [`Candidates::at`].
    fn id(&self, index: usize) -> WorkerId;
    /// The `index`-th, read now.
    fn at(&self, index: usize) -> Candidate;
    /// Where `worker` stands, if it serves the model (binary search).
    fn position(&self, worker: WorkerId) -> Option<usize>;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// A number that changes whenever the set of workers changes (for cached rings).
    fn generation(&self) -> u64;
}
