//! The workers of a model as routing sees them: health and pace of this node's own knowledge, load as far as it was asked for.

use std::sync::Arc;

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
            Self::Gossiped(ledger) => gossiped(ledger, worker, own, LoadSource::Gossiped),
            Self::Probed(ledger, workers, readings) => match workers.iter().position(|it| *it == worker) {
                Some(at) => probed(ledger, worker, own, &readings[at]),
                None => gossiped(ledger, worker, own, LoadSource::Gossiped),
            },
        }
    }
}

fn probed(ledger: &ledger::Handle, worker: WorkerId, own: InFlight, reading: &Reading) -> (InFlight, Told) {
    let by = match reading.source {
        Source::Local => LoadSource::Local,
        Source::Remote => LoadSource::Probed,
        Source::Unknown | Source::Missed => {
            let (gossiped, told) = gossiped(ledger, worker, own, LoadSource::Fallback);
            let mut all = own;
            all.add(reading.others);
            all = all.max(gossiped);
            // Unknown is never zero: it must not look better than a worker that is known to be idle.
            all.requests = all.requests.max(1);
            return (all, told);
        }
    };
    let mut all = own;
    all.add(reading.others);
    (all, Told { by, age: reading.age })
}

fn gossiped(ledger: &ledger::Handle, worker: WorkerId, own: InFlight, by: LoadSource) -> (InFlight, Told) {
    let (others, age) = ledger.gossiped(worker);
    let mut all = own;
    all.add(others);
    (all, Told { by, age })
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
        let own = InFlight {
            requests: u32::try_from(entry.load.requests()).unwrap_or(u32::MAX),
            queued_tokens: entry.load.queued_prefill_tokens(self.now),
        };
        let (load, told) = self.loads.all(entry.id, own);
        Candidate {
            worker: entry.id,
            available: entry.is_available(self.now),
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
