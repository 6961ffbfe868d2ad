//! Which members keep a worker's ledger: the first two in rendezvous order, the same at every node with the same members.
//!
//! A member that comes or goes moves only the ledgers that it takes or kept. When the first owner dies the second is the first and has
//! everything already. Views differ for a moment whenever somebody comes or goes, so a report says of which view it was made, and the last few are
//! remembered: what an owner was not told because its reporter sees another owner there is not taken for zero.

use std::collections::VecDeque;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;
use crate::transport::Peer;

/// Earlier views that are remembered. Fewer make ledgers unknown while several members come or go at once; more cost memory.
const VIEWS_MAX: usize = 8;

/// The members that keep one worker's ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// Asked first.
    pub first: Option<StorageId>,
    /// Asked when the first does not answer.
    pub second: Option<StorageId>,
}

impl Owners {
    /// Whether it is one of them.
    #[must_use]
    pub fn include(self, member: StorageId) -> bool {
        self.first == Some(member) || self.second == Some(member)
    }

    /// Those there are.
    pub fn each(self) -> impl Iterator<Item = StorageId> {
        self.first.into_iter().chain(self.second)
    }
}

/// The members at one moment, in the order of their data directories.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) members: Vec<Arc<Peer>>,
    pub(super) hash: u64,
}

impl View {
    pub(super) fn new(mut members: Vec<Arc<Peer>>) -> Self {
        members.sort_unstable_by_key(|it| it.storage);
        members.dedup_by_key(|it| it.storage);
        let names: Vec<u8> = members.iter().flat_map(|it| it.storage.0.to_le_bytes()).collect();
        Self { members, hash: xxh3_64(&names) }
    }

    pub(super) fn get(&self, member: StorageId) -> Option<&Arc<Peer>> {
        self.members.binary_search_by_key(&member, |it| it.storage).ok().map(|at| &self.members[at])
    }

    pub(super) fn owners(&self, worker: WorkerId) -> Owners {
        let (mut first, mut second): (Option<(u64, StorageId)>, _) = (None, None);
        for member in &self.members {
            let place = Some((xxh3_64_with_seed(&member.storage.0.to_le_bytes(), worker.0), member.storage));
            if place > first {
                (first, second) = (place, first);
            } else if place > second {
                second = place;
            }
        }
        Owners { first: first.map(|it| it.1), second: second.map(|it| it.1) }
    }
}

/// The view in force and the last few before it.
#[derive(Debug, Default)]
pub(super) struct Views {
    now: View,
    before: VecDeque<View>,
}

impl Views {
    pub(super) fn now(&self) -> &View {
        &self.now
    }

    pub(super) fn set(&mut self, view: View) {
        let old = std::mem::replace(&mut self.now, view);
        self.before.push_front(old);
        self.before.truncate(VIEWS_MAX);
    }

    /// Whether whoever sees this view tells `member` of that worker. False where the view is not known here.
    pub(super) fn is_owner(&self, hash: u64, member: StorageId, worker: WorkerId) -> bool {
        let view = std::iter::once(&self.now).chain(&self.before).find(|it| it.hash == hash);
        view.is_some_and(|it| it.owners(worker).include(member))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::tests::peer;

    fn view(members: impl IntoIterator<Item = u16>) -> View {
        View::new(members.into_iter().map(|n| Arc::new(peer(n))).collect())
    }

    #[test]
    fn every_node_finds_the_same_owners_and_a_death_moves_only_what_the_dead_kept() {
        let (all, reversed, left) = (view(1..=8), view((1..=8).rev()), view((1..=8).filter(|n| *n != 3)));
        assert_eq!(all.hash, reversed.hash);
        assert_ne!(all.hash, left.hash);
        let dead = StorageId(3);
        let mut kept = [0; 9];
        for worker in (0..4_000).map(|n| WorkerId(n * 7_919)) {
            let (before, after) = (all.owners(worker), left.owners(worker));
            assert_eq!(before, reversed.owners(worker));
            kept[before.first.unwrap().0 as usize] += 1;
            match (before.first == Some(dead), before.second == Some(dead)) {
                (true, _) => assert_eq!(after.first, before.second, "the second was told everything"),
                (false, true) => assert_eq!(after.first, before.first),
                (false, false) => assert_eq!(after, before),
            }
        }
        assert!(kept[1..].iter().all(|it| (400..600).contains(it)), "{kept:?}");
    }

    #[test]
    fn an_earlier_view_is_known_for_a_while_and_a_strange_one_is_not() {
        let mut views = Views::default();
        views.set(view(1..=2));
        let before = views.now().hash;
        views.set(view(1..=3));
        let (me, worker) = (StorageId(1), WorkerId(5));
        assert!(views.is_owner(before, me, worker), "of two, both own all");
        assert!(!views.is_owner(12_345, me, worker));
        for n in 0..VIEWS_MAX as u16 {
            views.set(view([1, 4 + n]));
        }
        assert!(!views.is_owner(before, me, worker), "it was long ago");
    }
}
