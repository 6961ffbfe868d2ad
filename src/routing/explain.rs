//! A decision told in full, for people and for `/v1/route/explain`.

use std::cell::RefCell;

use serde::Serialize;

use crate::base::ids::WorkerId;
use crate::routing::candidate::Candidate;
use crate::routing::candidate::Candidates;
use crate::routing::policies::Ask;

/// The decision that would be made now, and everything that was looked at for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The worker's id.
    pub worker: String,
    /// The policy.
    pub policy: &'static str,
    /// Why this worker.
    pub reason: &'static str,
    /// Tokens of the prompt, estimated.
    pub prompt_tokens: u64,
    /// Bytes that make a token of this model, as learned.
    pub bytes_per_token: f32,
    /// How many workers serve the model.
    pub workers: usize,
    /// Those the policy looked at, in the order it did.
    pub considered: Vec<Considered>,
}

/// One worker that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Considered {
    /// Its id.
    pub worker: String,
    /// Whether it takes new requests.
    pub is_available: bool,
    /// Whether other nodes cannot reach it, so that it is chosen last.
    pub is_suspect: bool,
    /// Whether it failed this request already.
    pub is_tried: bool,
    /// Prompt tokens believed to be in its cache.
    pub expected_cached_tokens: u64,
    /// Prompt tokens waiting there.
    pub queued_prefill_tokens: u64,
    /// Requests in flight there.
    pub inflight: u32,
    /// Whose requests and tokens these are: `own`, `local`, `probed`, `gossiped` or `fallback`.
    pub load_source: &'static str,
    /// How old the oldest part of them is.
    pub load_age_ms: u32,
    /// Its prefill rate relative to the mean.
    pub relative_prefill_rate: f32,
    /// What `cache_aware` would say it costs, in tokens.
    pub cost: f64,
}

impl Considered {
    pub(super) fn new(ask: &Ask<'_, '_>, candidate: &Candidate) -> Self {
        Self {
            worker: candidate.worker.to_string(),
            is_available: candidate.available,
            is_suspect: candidate.suspect,
            is_tried: ask.request.tried.contains(&candidate.worker),
            expected_cached_tokens: ask.held_by(candidate.worker),
            queued_prefill_tokens: candidate.queued_prefill_tokens,
            inflight: candidate.inflight,
            load_source: candidate.told.by.as_str(),
            load_age_ms: candidate.told.age_ms,
            relative_prefill_rate: candidate.relative_prefill_rate,
            cost: ask.cost(candidate),
        }
    }
}

/// Candidates that note who was looked at, so that no policy has to.
pub(super) struct Watched<'a> {
    inner: &'a dyn Candidates,
    seen: RefCell<Vec<Candidate>>,
}

impl<'a> Watched<'a> {
    pub(super) fn new(inner: &'a dyn Candidates) -> Self {
        Self { inner, seen: RefCell::default() }
    }

    /// Each one once, in the order of the first look.
    pub(super) fn considered(&self, ask: &Ask<'_, '_>) -> Vec<Considered> {
        self.seen.borrow().iter().map(|it| Considered::new(ask, it)).collect()
    }
}

impl Candidates for Watched<'_> {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn id(&self, index: usize) -> WorkerId {
        self.inner.id(index)
    }

    fn at(&self, index: usize) -> Candidate {
        let candidate = self.inner.at(index);
        let mut seen = self.seen.borrow_mut();
        if seen.iter().all(|it| it.worker != candidate.worker) {
            seen.push(candidate);
        }
        candidate
    }

    fn position(&self, worker: WorkerId) -> Option<usize> {
        self.inner.position(worker)
    }

    fn generation(&self) -> u64 {
        self.inner.generation()
    }
}
