//! A choice in two steps, with a question to other nodes between them: [`Router::shortlist`], and [`Router::settle`] once the answers are there.
//!
//! Both are pure and what they need is carried from one to the other, hashes and numbers only, so the prompt is read once. Policies that
//! go by this node's own counts have no shortlist, and neither has a request that names its worker; these are for [`Router::choose`].

use std::time::Duration;

use smallvec::SmallVec;

use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::ids::WorkerId;
use crate::routing::candidate::Candidates;
use crate::routing::draw::Draw;
use crate::routing::explain::Considered;
use crate::routing::explain::Explanation;
use crate::routing::explain::Watched;
use crate::routing::policies::Ask;
use crate::routing::policies::SHORTLIST_MAX;
use crate::routing::policies::TwoSteps;
use crate::routing::request::RouteRequest;
use crate::routing::route::Route;
use crate::routing::route::RouteError;
use crate::routing::router::Known;
use crate::routing::router::Router;
use crate::routing::router::decide;
use crate::routing::scratch;

/// Candidates whose load is to be asked for, and what is known so far.
pub struct Shortlist {
    /// The candidates, at most [`SHORTLIST_MAX`].
    pub workers: SmallVec<[WorkerId; SHORTLIST_MAX]>,
    steps: &'static TwoSteps,
    known: Known,
    hashes: Vec<u64>,
    draw: Draw,
    took: Duration,
    /// Looked at in the first step.
    seen: Vec<Considered>,
}

impl std::fmt::Debug for Shortlist {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shortlist").field("workers", &self.workers).finish_non_exhaustive()
    }
}

impl Router {
    /// The first step. None: the policy asks nobody, or there is nothing to choose; [`Router::choose`] decides.
    pub fn shortlist(
        &self,
        now: Instant,
        request: &RouteRequest<'_, '_>,
        candidates: &dyn Candidates,
    ) -> Option<Shortlist> {
        self.shortlist_with(now, request, candidates, || Draw::new(self.entropy.next_u64()), |_| Vec::new())
    }

    /// The same for an explanation: other numbers are drawn, and who was looked at is noted.
    pub fn rehearse_shortlist(
        &self,
        now: Instant,
        request: &RouteRequest<'_, '_>,
        candidates: &dyn Candidates,
    ) -> Option<Shortlist> {
        let watched = Watched::new(candidates);
        self.shortlist_with(now, request, &watched, || Draw::new(0), |ask| watched.considered(ask))
    }

    fn shortlist_with(
        &self,
        now: Instant,
        request: &RouteRequest<'_, '_>,
        candidates: &dyn Candidates,
        draw: impl FnOnce() -> Draw,
        seen: impl FnOnce(&Ask<'_, '_>) -> Vec<Considered>,
    ) -> Option<Shortlist> {
        let steps = self.models.get(request.model).policy.entry().two_steps.as_ref()?;
        if request.target.is_some() || candidates.len() < 2 {
            return None;
        }
        let (started, mut draw) = (Clock.now(), draw());
        scratch::with(|scratch| {
            let known = self.know(now, request, candidates, scratch, &mut draw).ok()?;
            let ask = known.ask(now, request, candidates);
            let workers = (steps.shortlist)(&ask, &mut draw).into_iter().map(|it| candidates.id(it)).collect();
            let (seen, hashes) = (seen(&ask), scratch.hashes.clone());
            let took = Clock.now().saturating_duration_since(started);
            Some(Shortlist { workers, steps, known, hashes, draw, took, seen })
        })
    }

    /// The second step: chooses from the shortlist as `candidates` are now, and remembers that the worker will hold the prompt. Where none of
    /// them can be used any more, all are looked at.
    pub fn settle(
        &self,
        now: Instant,
        request: &RouteRequest<'_, '_>,
        shortlist: Shortlist,
        candidates: &dyn Candidates,
    ) -> Result<Route, RouteError> {
        self.settle_with(now, request, shortlist, candidates, |_| ()).map(|it| it.0)
    }

    /// The same, and who was looked at for it, for traces.
    pub fn settle_watched(
        &self,
        now: Instant,
        request: &RouteRequest<'_, '_>,
        shortlist: Shortlist,
        candidates: &dyn Candidates,
    ) -> Result<(Route, Vec<Considered>), RouteError> {
        let watched = Watched::new(candidates);
        self.settle_with(now, request, shortlist, &watched, |ask| watched.considered(ask))
    }

    fn settle_with<T>(
        &self,
        now: Instant,
        request: &RouteRequest<'_, '_>,
        shortlist: Shortlist,
        candidates: &dyn Candidates,
        tell: impl FnOnce(&Ask<'_, '_>) -> T,
    ) -> Result<(Route, T), RouteError> {
        let started = Clock.now();
        self.count(request);
        let Shortlist { known, mut draw, workers, steps, hashes, took, .. } = shortlist;
        let ask = known.ask(now, request, candidates);
        let choice = decide(&ask, &mut draw, |ask, draw| {
            (steps.settle)(ask, &workers).or_else(|| known.model.choose(ask, draw).0)
        });
        let result = choice.map(|it| (self.route(now, &ask, it, &known, &hashes), tell(&ask)));
        let took = took + Clock.now().saturating_duration_since(started);
        self.tell(result.as_ref().map(|it| &it.0), took);
        result
    }

    /// The decision [`Router::settle`] would make, without any effect.
    pub fn explain_settled(
        &self,
        now: Instant,
        request: &RouteRequest<'_, '_>,
        shortlist: Shortlist,
        candidates: &dyn Candidates,
    ) -> Result<Explanation, RouteError> {
        let watched = Watched::new(candidates);
        let Shortlist { known, mut draw, workers, steps, seen, .. } = shortlist;
        let ask = known.ask(now, request, &watched);
        let choice = decide(&ask, &mut draw, |ask, draw| {
            (steps.settle)(ask, &workers).or_else(|| known.model.rehearse(ask, draw))
        })?;
        let mut considered = watched.considered(&ask);
        let rest = seen.into_iter().filter(|it| considered.iter().all(|other| other.worker != it.worker));
        considered.extend(rest.collect::<Vec<_>>());
        Ok(known.explanation(&ask, choice, considered))
    }
}

#[cfg(test)]
mod tests;
