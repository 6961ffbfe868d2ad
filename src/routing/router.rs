//! The handle everybody uses.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use crate::base::clock::Instant;
use crate::routing::candidate::Candidates;
use crate::routing::request::RouteRequest;
use crate::routing::route::Feedback;
use crate::routing::route::Placed;
use crate::routing::route::Reason;
use crate::routing::route::Route;
use crate::routing::route::RouteError;

/// Chooses workers in turn.
#[derive(Default)]
pub struct Router {
    turn: AtomicUsize,
}

impl Router {
    /// Chooses a worker that was not tried; one that is out only where every one is.
    pub fn choose(
        &self,
        _now: Instant,
        request: &RouteRequest<'_>,
        candidates: &dyn Candidates,
    ) -> Result<Route, RouteError> {
        let count = candidates.len();
        if count == 0 {
            return Err(RouteError::NoWorkers);
        }
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        let ring =
            || (0..count).map(|it| (it + start) % count).filter(|it| !request.tried.contains(&candidates.id(*it)));
        let chosen = ring().find(|it| candidates.at(*it).available).or_else(|| ring().next());
        let worker = candidates.id(chosen.ok_or(RouteError::AllTried)?);
        Ok(Route {
            worker,
            policy: "round_robin",
            reason: Reason::Turn,
            expected_cached_tokens: 0,
            new_tokens: (request.body_len / 4) as u64 + 1,
            placed: Placed { worker },
        })
    }

    /// Learns from an outcome.
    pub fn observe(&self, _now: Instant, _feedback: &Feedback<'_>) {}

    /// Whether the retry budget allows one more attempt.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        true
    }
}
