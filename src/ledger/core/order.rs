//! Which members keep a worker's ledger, the same at every node with the same members: workers are dealt into *shares*, and the first two members in rendezvous order
//! of a share keep the ledgers of all its workers.
//!
//! There is a share for every four members. With few of them a decision, which compares several workers, asks one owner or two and not as many as it has
//! candidates: a question costs two nodes more than all the rest of a decision. A member that comes or goes moves only the shares that it takes or kept, and now and then
//! one more share begins or ends. When the first owner dies the second is the first and has
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

/// Members for each share. Fewer, and a decision asks more owners; more, and one owner answers for more of the cluster.
const MEMBERS_OF_A_SHARE: usize = 4;

/// The members that keep one worker's ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
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
    /// Who keeps each share. BOUND: a quarter of the members.
    shares: Vec<Owners>,
}

impl View {
    pub(super) fn new(mut members: Vec<Arc<Peer>>) -> Self {
        members.sort_unstable_by_key(|it| it.storage);
        members.dedup_by_key(|it| it.storage);
        let names: Vec<u8> = members.iter().flat_map(|it| it.storage.0.to_le_bytes()).collect();
        let shares = (0..members.len().div_ceil(MEMBERS_OF_A_SHARE)).map(|share| first_two(&members, share)).collect();
        Self { members, hash: xxh3_64(&names), shares }
    }

    pub(super) fn get(&self, member: StorageId) -> Option<&Arc<Peer>> {
        self.members.binary_search_by_key(&member, |it| it.storage).ok().map(|at| &self.members[at])
    }

    pub(super) fn owners(&self, worker: WorkerId) -> Owners {
        let place = |share: &usize| (xxh3_64_with_seed(&share.to_le_bytes(), worker.0), *share);
        let share = (0..self.shares.len()).max_by_key(place);
        share.map_or_else(Owners::default, |it| self.shares[it])
    }
}

fn first_two(members: &[Arc<Peer>], share: usize) -> Owners {
    let (mut first, mut second): (Option<(u64, StorageId)>, _) = (None, None);
    for member in members {
        let place = Some((xxh3_64_with_seed(&member.storage.0.to_le_bytes(), share as u64), member.storage));
        if place > first {
            (first, second) = (place, first);
        } else if place > second {
            second = place;
        }
    }
    Owners { first: first.map(|it| it.1), second: second.map(|it| it.1) }
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
    use std::collections::BTreeMap;

    use super::*;
    use crate::transport::tests::peer;

    fn view(members: impl IntoIterator<Item = u16>) -> View {
        View::new(members.into_iter().map(|n| Arc::new(peer(n))).collect())
    }

    #[test]
    fn every_node_finds_the_same_owners_and_a_death_moves_only_what_the_dead_kept() {
        let (all, reversed) = (view(1..=8), view((1..=8).rev()));
        assert_eq!(all.hash, reversed.hash);
        let mut kept = BTreeMap::new();
        let workers = (0..4_000).map(|n| WorkerId(n * 7_919));
        for dead in 1..=8 {
            let left = view((1..=8).filter(|n| *n != dead));
            assert_ne!(all.hash, left.hash);
            for worker in workers.clone() {
                let (before, after) = (all.owners(worker), left.owners(worker));
                assert_eq!(before, reversed.owners(worker));
                *kept.entry(before.first).or_insert(0) += 1;
                match before.first == Some(StorageId(dead.into())) {
                    true => assert_eq!(after.first, before.second, "the second was told everything"),
                    false => assert_eq!(after.first, before.first),
                }
            }
        }
        assert!(kept.len() <= 2, "of eight, two keep all: {kept:?}");
    }

    #[test]
    fn up_to_four_members_have_one_share_and_one_more_for_each_further_four() {
        for (count, shares) in [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (8, 2), (9, 3), (20, 5), (100, 25)] {
            let all = view(1..=count);
            assert_eq!(all.shares.len(), shares, "{count} members");
            assert!(all.shares.iter().all(|it| it.second.is_some() == (count > 1) && it.first != it.second));
            let mut dealt = BTreeMap::new();
            (0..40_000).for_each(|n| *dealt.entry(all.owners(WorkerId(n))).or_insert(0) += 1);
            assert!(dealt.values().all(|it| it * shares > 30_000), "no share is much smaller than another: {dealt:?}");
        }
    }

    #[test]
    fn one_share_more_takes_its_part_of_each_and_moves_nothing_else() {
        let (few, many) = (view(1..=8), View { shares: first_two_of(3), ..view(1..=8) });
        let moved = (0..3_000).map(WorkerId).filter(|it| few.owners(*it) != many.owners(*it)).collect::<Vec<_>>();
        assert!((700..=1_100).contains(&moved.len()), "{}", moved.len());
        assert!(moved.iter().all(|it| many.owners(*it) == many.shares[2]));
    }

    fn first_two_of(shares: usize) -> Vec<Owners> {
        (0..shares).map(|share| first_two(&view(1..=8).members, share)).collect()
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
