//! The question a policy answers: one request, the candidates, and what is known of the prompt.

use std::cmp::Ordering;

use xxhash_rust::xxh3::xxh3_64;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::base::clock::Instant;
use crate::base::ids::WorkerId;
use crate::routing::candidate::Candidate;
use crate::routing::candidate::Candidates;
use crate::routing::draw::Draw;
use crate::routing::draw::mix;
use crate::routing::request::RouteRequest;

/// What one token to compute weighs against one already queued: a recomputed token also delays everyone behind it and
/// evicts somebody else's blocks. 1 collapses on agent traffic, 16 starves load balance (ROUTING.md 4.2).
const MISS_WEIGHT: f64 = 4.0;
/// What a request in flight weighs, in tokens: breaks ties between workers without a queue.
const INFLIGHT_WEIGHT: f64 = 50.0;
/// Draws before a linear search for an available worker: with half of the fleet out, a search is needed once in 2^16.
const DRAWS_MAX: usize = 16;

/// A worker that is believed to have the first `tokens` tokens of the prompt in its cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Who.
    pub worker: WorkerId,
    /// How many.
    pub tokens: u64,
}

/// See the file's header.
pub struct Ask<'a, 'p> {
    /// The time.
    pub now: Instant,
    /// The request.
    pub request: &'a RouteRequest<'a, 'p>,
    /// The workers that serve the model.
    pub candidates: &'a dyn Candidates,
    /// Who holds prefixes of the prompt, most first. Empty unless the policy reads prefixes.
    pub holdings: &'a [Holding],
    /// Tokens of the prompt, estimated.
    pub prompt_tokens: u64,
    /// A number that equal prompts share and others do not.
    pub digest: u64,
    /// Whether workers that other nodes hold for away may be chosen: nobody else can be.
    pub takes_suspects: bool,
    /// To whom the routing key is bound at all nodes, if it is.
    pub bound: Option<WorkerId>,
}

impl Ask<'_, '_> {
    /// The candidate at `index`, if a policy may choose it.
    #[must_use]
    pub fn usable(&self, index: usize) -> Option<Candidate> {
        if self.request.tried.contains(&self.candidates.id(index)) {
            return None;
        }
        Some(self.candidates.at(index)).filter(|it| it.available && (self.takes_suspects || !it.suspect))
    }

    /// The same question, with workers that are suspect among those that may be chosen.
    #[must_use]
    pub fn with_suspects(&self) -> Self {
        Self { takes_suspects: true, ..*self }
    }

    /// Tokens of the prompt that `worker` is believed to hold.
    #[must_use]
    pub fn held_by(&self, worker: WorkerId) -> u64 {
        self.holdings.iter().find(|it| it.worker == worker).map_or(0, |it| it.tokens.min(self.prompt_tokens))
    }

    /// What sending the prompt there costs, in tokens of an average worker. Lower is better.
    #[must_use]
    pub fn cost(&self, candidate: &Candidate) -> f64 {
        let new = (self.prompt_tokens - self.held_by(candidate.worker)) as f64;
        // The prompt's own time is the worker's; what a miss does to others is weighed alike wherever it happens (ADR 11).
        load(candidate) + new / rate(candidate) + (MISS_WEIGHT - 1.0) * new
    }

    /// Orders by cost. Equal costs are spread by prompt and worker, so that an idle fleet does not send every prompt to
    /// its first worker; the id makes the order total.
    #[must_use]
    pub fn by_cost(&self, a: &Candidate, b: &Candidate) -> Ordering {
        let spread = |it: &Candidate| mix(self.digest ^ mix(it.worker.0));
        self.cost(a).total_cmp(&self.cost(b)).then_with(|| spread(a).cmp(&spread(b))).then(a.worker.cmp(&b.worker))
    }

    /// A usable candidate, every one equally likely while most are usable.
    #[must_use]
    pub fn draw_usable(&self, draw: &mut Draw) -> Option<(usize, Candidate)> {
        self.draw_usable_in(0, self.candidates.len(), draw)
    }

    /// The same within `from..until`.
    #[must_use]
    pub fn draw_usable_in(&self, from: usize, until: usize, draw: &mut Draw) -> Option<(usize, Candidate)> {
        let len = until.saturating_sub(from);
        if len == 0 {
            return None;
        }
        for _ in 0..DRAWS_MAX {
            let index = from + draw.below(len);
            if let Some(candidate) = self.usable(index) {
                return Some((index, candidate));
            }
        }
        let start = draw.below(len);
        (0..len).map(|step| from + (start + step) % len).find_map(|index| Some((index, self.usable(index)?)))
    }

    /// The less loaded of two usable candidates of `from..until`.
    #[must_use]
    pub fn better_of_two_in(&self, from: usize, until: usize, draw: &mut Draw) -> Option<usize> {
        let first = self.draw_usable_in(from, until, draw)?;
        // A second draw that hits the first is repeated a few times: two of two are always compared then, nearly always.
        let second = (0..DRAWS_MAX).find_map(|_| {
            let index = from + draw.below(until - from);
            Some((index, self.usable(index).filter(|_| index != first.0)?))
        });
        let Some(second) = second else { return Some(first.0) };
        // Equal loads keep the first draw: preferring the lower id would starve the higher ones of an idle fleet.
        Some(if load(&first.1) <= load(&second.1) { first.0 } else { second.0 })
    }

    /// A hash of the first `bytes` bytes of the prompt and of the tenant: the same on every node.
    #[must_use]
    pub fn head_key(&self, bytes: usize) -> Option<u64> {
        let mut head = Vec::with_capacity(bytes);
        self.request.prompt?.render(&mut head, bytes);
        Some(self.tenant_key(&head))
    }

    /// A hash of the routing key and of the tenant: the same on every node.
    #[must_use]
    pub fn routing_key(&self) -> Option<u64> {
        self.request.routing_key.map(|key| self.tenant_key(key.as_bytes()))
    }

    fn tenant_key(&self, bytes: &[u8]) -> u64 {
        xxh3_64_with_seed(bytes, xxh3_64(self.request.tenant.as_str().as_bytes()))
    }
}

/// What is ahead of a new request at a worker, in tokens of an average worker.
#[must_use]
pub fn load(candidate: &Candidate) -> f64 {
    candidate.queued_prefill_tokens as f64 / rate(candidate) + INFLIGHT_WEIGHT * f64::from(candidate.inflight)
}

/// Never 0, infinite or NaN, whatever was learned.
fn rate(candidate: &Candidate) -> f64 {
    let rate = f64::from(candidate.relative_prefill_rate);
    if rate.is_finite() { rate.clamp(0.01, 100.0) } else { 1.0 }
}
