//! The lease of this node, and the look at those of others.
//!
//! A node believes in its lease for [`LEASE`] from when it *asked* for the last renewal; whoever looks after leases calls it lapsed when it saw no renewal *take effect* for as long. The second
//! is later than the first wherever both clocks run alike, so that a node stops before another takes over; that the machine refuses earlier attempts does not depend on it.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::timeout;

use super::Lease;
use super::backend::Backend;
use super::backend::Unavailable;
use super::handle;
use super::machine::Command;
use super::machine::Outcome;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;
use crate::base::ids::StorageId;

/// How long a renewal holds. Shorter, and a leader that is lost costs the jobs of all nodes; longer, and what a dead node made is stuck for longer.
pub const LEASE: Duration = Duration::from_secs(3);
/// Between two renewals.
pub const RENEW_EVERY: Duration = Duration::from_secs(1);
/// A lease that nobody asked for in this time is not renewed any more: an idle node writes nothing.
const IDLE_AFTER: Duration = Duration::from_secs(60);

/// See the file's header.
pub(super) struct Leases {
    state: Mutex<State>,
    /// One renewal at a time.
    renewing: tokio::sync::Mutex<()>,
}

struct State {
    lease: Lease,
    beat: u64,
    /// Until when it is believed in.
    until: Option<Instant>,
    /// When it was last asked for.
    used: Option<Instant>,
}

impl Leases {
    pub(super) fn new(lease: Lease) -> Self {
        Self {
            state: Mutex::new(State { lease, beat: 0, until: None, used: None }),
            renewing: tokio::sync::Mutex::default(),
        }
    }

    fn held(&self) -> Option<Lease> {
        let state = self.state.lock();
        state.until.filter(|it| Clock.now() < *it).map(|_| state.lease)
    }

    pub(super) fn is_held(&self, lease: Lease) -> bool {
        self.held() == Some(lease)
    }

    pub(super) async fn get(&self, backend: &dyn Backend, entropy: &Entropy) -> Result<Lease, Unavailable> {
        self.state.lock().used = Some(Clock.now());
        if let Some(lease) = self.held() {
            return Ok(lease);
        }
        // Who waits for another's renewal waits no longer than for its own.
        let renewed = async {
            let _one = self.renewing.lock().await;
            match self.held() {
                Some(lease) => Ok(lease),
                None => self.renew(backend, entropy, handle::LIMIT).await,
            }
        };
        timeout(handle::LIMIT, renewed).await.unwrap_or(Err(Unavailable::Unreached))
    }

    pub(super) async fn renew_if_used(&self, backend: &dyn Backend, entropy: &Entropy) {
        let is_used = self.state.lock().used.is_some_and(|it| Clock.now() < it + IDLE_AFTER);
        if !is_used {
            return;
        }
        let _one = self.renewing.lock().await;
        if let Err(error) = self.renew(backend, entropy, LEASE).await {
            tracing::debug!(%error, "the lease for responses was not renewed; it is tried again");
        }
    }

    /// Renews it. One that lapsed is followed by the next.
    async fn renew(&self, backend: &dyn Backend, entropy: &Entropy, limit: Duration) -> Result<Lease, Unavailable> {
        let end = Clock.now() + limit;
        loop {
            let asked = Clock.now();
            let (lease, beat) = {
                let mut state = self.state.lock();
                state.beat += 1;
                (state.lease, state.beat)
            };
            match handle::propose(backend, entropy, Command::Renew { lease, beat }, end).await? {
                Outcome::Refused(_) => {
                    let mut state = self.state.lock();
                    (state.lease.number, state.beat, state.until) = (lease.number + 1, 0, None);
                }
                _ => {
                    self.state.lock().until = Some(asked + LEASE);
                    return Ok(lease);
                }
            }
            if Clock.now() >= end {
                return Err(Unavailable::Unreached);
            }
        }
    }
}

/// What whoever looks after leases has seen of them. BOUND: data directories that ever had one.
#[derive(Debug, Default)]
pub(super) struct Watch(BTreeMap<StorageId, (Lease, u64, Instant)>);

impl Watch {
    /// These are held now. Answers those of which nothing was heard for too long, with their last beats.
    pub(super) fn look(&mut self, now: Instant, held: &[(Lease, u64)]) -> Vec<(Lease, u64)> {
        self.0.retain(|storage, _| held.iter().any(|it| it.0.storage == *storage));
        for (lease, beat) in held {
            let seen = self.0.entry(lease.storage).or_insert((*lease, *beat, now));
            if (seen.0, seen.1) != (*lease, *beat) {
                *seen = (*lease, *beat, now);
            }
        }
        let is_silent = |it: &&(Lease, u64, Instant)| now.saturating_duration_since(it.2) >= LEASE;
        self.0.values().filter(is_silent).map(|it| (it.0, it.1)).collect()
    }

    /// Another looked meanwhile: what was seen is old.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::machine::read;
    use super::super::memory::Memory;
    use super::*;

    fn lease(number: u64) -> Lease {
        Lease { storage: StorageId(1), boot: 1, number }
    }

    #[test]
    fn a_lease_lapses_once_nothing_was_heard_of_it_for_as_long_as_it_holds() {
        let (mut watch, now) = (Watch::default(), Clock.now());
        assert_eq!(watch.look(now, &[(lease(1), 1)]), []);
        assert_eq!(watch.look(now + LEASE - RENEW_EVERY, &[(lease(1), 2)]), [], "renewed");
        assert_eq!(watch.look(now + LEASE, &[(lease(1), 2)]), []);
        assert_eq!(watch.look(now + 2 * LEASE - RENEW_EVERY, &[(lease(1), 2)]), [(lease(1), 2)]);
        assert_eq!(watch.look(now + 2 * LEASE, &[(lease(2), 1)]), [], "the next one");
        watch.clear();
        assert_eq!(watch.look(now + 9 * LEASE, &[(lease(2), 1)]), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_renewed_while_it_is_used_and_one_that_lapsed_is_followed_by_another() {
        let (backend, entropy) = (Arc::new(Memory::default()), Entropy::seeded(1));
        let leases = Leases::new(lease(1));
        assert!(!leases.is_held(lease(1)));
        assert_eq!(leases.get(&*backend, &entropy).await, Ok(lease(1)));
        for _ in 0..10 {
            Clock.sleep(RENEW_EVERY).await;
            leases.renew_if_used(&*backend, &entropy).await;
            assert!(leases.is_held(lease(1)));
        }
        let beat = backend.rows(|rows| read::leases(rows).unwrap()[0].1);
        let lapse = Command::Lapse { lease: lease(1), beat };
        handle::propose(&*backend, &entropy, lapse, Clock.now()).await.unwrap();
        leases.renew_if_used(&*backend, &entropy).await;
        assert!(leases.is_held(lease(2)) && !leases.is_held(lease(1)));
        Clock.sleep(IDLE_AFTER).await;
        leases.renew_if_used(&*backend, &entropy).await;
        assert!(!leases.is_held(lease(2)), "nobody asked for it");
    }
}
