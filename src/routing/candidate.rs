//! What a policy may know of the workers it chooses from.

use crate::base::ids::WorkerId;

/// One worker at the moment of choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Which.
    pub worker: WorkerId,
    /// Whether health, breaker, backpressure and drain allow a new request.
    pub available: bool,
    /// Whether other nodes hold it for away: chosen only when no other worker can be.
    pub suspect: bool,
    /// Requests in flight at this worker from this node.
    pub inflight: u32,
    /// Prompt tokens sent there whose prefill is not done yet.
    pub queued_prefill_tokens: u64,
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
