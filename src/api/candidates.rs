//! The workers of a model as routing sees them: health and pace of this node's own knowledge, load as far as it was asked for.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Instant;
use crate::base::ids::WorkerId;
use crate::ledger;
use crate::ledger::InFlight;
use crate::ledger::Reading;
use crate::ledger::Source;
use crate::routing::Route;
use crate::routing::RouteError;
use crate::routing::candidate::Candidate;
use crate::routing::candidate::Candidates;
use crate::routing::candidate::LoadSource;
use crate::routing::candidate::Told;
use crate::workers::registry::Entry;

/// A model's workers at one moment, read lazily.
pub struct Pool<'a> {
    /// In ascending id order.
    pub entries: &'a [Arc<Entry>],
    /// The moment.
    pub now: Instant,
    /// Of the fleet.
    pub generation: u64,
    /// What is added to this node's own counts.
    pub loads: Loads<'a>,
}

impl Pool<'_> {
    /// The worker of a decision.
    pub fn pick(&self, route: Route) -> Result<(Arc<Entry>, Route), RouteError> {
        let at = self.position(route.worker).ok_or(RouteError::NoWorkers)?;
        Ok((Arc::clone(&self.entries[at]), route))
    }
}

/// Whose load is known.
#[derive(Clone, Copy)]
pub enum Loads<'a> {
    /// This node's.
    Own,
    /// And what others told now and then.
    Gossiped(&'a ledger::Handle),
    /// And what was said of these workers just now; of others what was told now and then.
    Probed(&'a ledger::Handle, &'a [WorkerId], &'a [Reading]),
}

impl Loads<'_> {
    /// All that is in flight at a worker, and who says so, if `own` is this node's.
    fn all(self, worker: WorkerId, own: InFlight) -> (InFlight, Told) {
        match self {
            Self::Own => (own, Told::OWN),
            Self::Gossiped(ledger) => gossiped(own, ledger.gossiped(worker), LoadSource::Gossiped),
            Self::Probed(ledger, workers, readings) => match workers.iter().position(|it| *it == worker) {
                Some(at) => probed(own, &readings[at], || ledger.gossiped(worker)),
                None => gossiped(own, ledger.gossiped(worker), LoadSource::Gossiped),
            },
        }
    }
}

/// This node's own load with what a ledger says of the others'.
pub(crate) fn probed(
    own: InFlight,
    reading: &Reading,
    gossip: impl FnOnce() -> (InFlight, Duration),
) -> (InFlight, Told) {
    let mut all = own;
    let by = match reading.source {
        Source::Local => LoadSource::Local,
        Source::Remote => LoadSource::Probed,
        Source::Unknown | Source::Missed => {
            let (others, age) = gossip();
            let (mut all, told) = gossiped(own, (others.max(reading.others), age), LoadSource::Fallback);
            // Unknown is never zero: it must not look better than a worker that is known to be idle.
            all.requests = all.requests.max(1);
            return (all, told);
        }
    };
    all.add(reading.others);
    (all, Told { by, age_ms: age_ms(reading.age) })
}

pub(crate) fn gossiped(own: InFlight, (others, age): (InFlight, Duration), by: LoadSource) -> (InFlight, Told) {
    let mut all = own;
    all.add(others);
    (all, Told { by, age_ms: age_ms(age) })
}

fn age_ms(age: Duration) -> u32 {
    u32::try_from(age.as_millis()).unwrap_or(u32::MAX)
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
        let own = InFlight {
            requests: u32::try_from(entry.load.requests()).unwrap_or(u32::MAX),
            queued_tokens: entry.load.queued_prefill_tokens(self.now),
        };
        let (load, told) = self.loads.all(entry.id, own);
        Candidate {
            worker: entry.id,
            available,
            suspect,
            inflight: load.requests,
            queued_prefill_tokens: load.queued_tokens,
            told,
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn load(requests: u32, queued_tokens: u64) -> InFlight {
        InFlight { requests, queued_tokens }
    }

    fn judged(own: InFlight, source: Source, others: InFlight, gossip: InFlight) -> (InFlight, LoadSource) {
        let reading = Reading { source, others, age: Duration::from_millis(40) };
        let (all, told) = probed(own, &reading, || (gossip, SECOND));
        (all, told.by)
    }

    #[test]
    fn what_a_ledger_says_is_added_to_own_requests_and_gossip_has_no_say() {
        for (source, by) in [(Source::Local, LoadSource::Local), (Source::Remote, LoadSource::Probed)] {
            let judged = judged(load(2, 30), source, load(5, 600), load(90, 9_000));
            assert_eq!(judged, (load(7, 630), by));
        }
    }

    #[test]
    fn an_unknown_ledger_is_judged_by_the_larger_of_what_it_said_at_least_and_gossip() {
        let at_least = judged(load(2, 30), Source::Unknown, load(5, 600), load(1, 9_000));
        assert_eq!(at_least, (load(7, 9_030), LoadSource::Fallback));
        let missed = judged(load(2, 30), Source::Missed, InFlight::default(), load(3, 10));
        assert_eq!(missed, (load(5, 40), LoadSource::Fallback));
    }

    #[test]
    fn unknown_is_never_zero() {
        for source in [Source::Unknown, Source::Missed] {
            let (all, _) = judged(InFlight::default(), source, InFlight::default(), InFlight::default());
            assert_eq!(all, load(1, 0));
        }
        let known = judged(InFlight::default(), Source::Remote, InFlight::default(), load(4, 4));
        assert_eq!(known.0, InFlight::default(), "known to be idle");
    }
}
