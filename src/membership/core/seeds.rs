//! Whom to look for: seeds that nobody known stands behind, and members that are down.
//!
//! In each round a few of them are greeted, at random. One that answers is enough to join two parts, so the effort does not grow with the number of the lost. The pause between
//! rounds doubles to [`PAUSE_MAX`] and starts anew with every change: news of one is often news of others.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::clock::Instant;
use crate::base::entropy::Entropy;
use crate::base::ids::NodeId;

/// Greeted in one round.
const ROUND_LEN: usize = 3;
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest pause. A healed split is whole again within it and a few probes; three seconds are promised.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Names are looked up again this often while somebody is missing: an address behind a name may have changed.
const LOOKUP_PERIOD: Duration = Duration::from_secs(10);
/// Addresses of all seeds. Beyond it the rest are left out; a cluster needs a few.
const ADDRESSES_MAX: usize = 256;

/// The seeds of this node.
#[derive(Debug)]
pub(super) struct Seeds {
    addresses: BTreeSet<SocketAddr>,
    /// Who was met at an address, which may be another than it says.
    met: BTreeMap<SocketAddr, NodeId>,
    /// Greeted and not answered yet.
    asked: BTreeSet<SocketAddr>,
    next_round: Instant,
    pause: Duration,
    next_lookup: Instant,
}

/// What a round says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) greet: Vec<SocketAddr>,
    pub(super) look_up: bool,
}

impl Seeds {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            addresses: BTreeSet::new(),
            met: BTreeMap::new(),
            asked: BTreeSet::new(),
            next_round: now,
            pause: PAUSE_MIN,
            next_lookup: now,
        }
    }

    /// The names of the seeds stand for these addresses now. None: keep what was known, names fail when networks do.
    pub(super) fn looked_up(&mut self, now: Instant, addresses: impl IntoIterator<Item = SocketAddr>) {
        let addresses: BTreeSet<_> = addresses.into_iter().take(ADDRESSES_MAX).collect();
        if !addresses.is_empty() && addresses != self.addresses {
            self.met.retain(|addr, _| addresses.contains(addr));
            self.addresses = addresses;
            self.hurry(now);
        }
    }

    /// Somebody answered there, perhaps this node itself.
    pub(super) fn met(&mut self, addr: SocketAddr, node: NodeId) {
        self.asked.remove(&addr);
        if self.addresses.contains(&addr) {
            self.met.insert(addr, node);
        }
    }

    /// Nobody answered there.
    pub(super) fn missed(&mut self, addr: SocketAddr) {
        self.asked.remove(&addr);
        self.met.remove(&addr); // what was met there may live elsewhere now
    }

    /// Something changed: look again soon.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.pause = PAUSE_MIN;
        self.next_round = self.next_round.min(now + PAUSE_MIN);
    }

    pub(super) fn next_at(&self) -> Instant {
        self.next_round
    }

    /// Whom to greet now. `is_here` tells members (and this node) by id, `at` by address, `lost` where members were that are down.
    pub(super) fn round(
        &mut self,
        now: Instant,
        entropy: &Entropy,
        is_here: impl Fn(&NodeId) -> bool,
        at: &BTreeSet<SocketAddr>,
        lost: impl Iterator<Item = SocketAddr>,
    ) -> Round {
        if now < self.next_round {
            return Round::default();
        }
        self.next_round = now + self.pause + self.pause.mul_f64(entropy.unit() / 4.0); // nodes that start together part
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        let is_covered = |addr: &SocketAddr| at.contains(addr) || self.met.get(addr).is_some_and(&is_here);
        let missing = self.addresses.iter().copied().filter(|addr| !is_covered(addr));
        let missing: BTreeSet<_> = missing.chain(lost).filter(|addr| !self.asked.contains(addr)).collect();
        let mut missing: Vec<_> = missing.into_iter().collect();
        let look_up = (self.addresses.is_empty() || !missing.is_empty()) && now >= self.next_lookup;
        if look_up {
            self.next_lookup = now + LOOKUP_PERIOD;
        }
        let mut greet = Vec::new();
        while !missing.is_empty() && greet.len() < ROUND_LEN {
            greet.push(missing.swap_remove(entropy.below(missing.len())));
        }
        self.asked.extend(&greet);
        Round { greet, look_up }
    }
}
