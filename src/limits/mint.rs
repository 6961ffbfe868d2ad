//! Who may spend how much of a limit. The group's leader divides, the group agrees, and nothing else makes a right.
//!
//! When the division changes, an old share and a new one must never both be spent, though no two nodes learn of it at once. So a mint is *pending* first: each node uses
//! the smaller of what it had and what it gets ([`Share::floor`]), from the first window in which it has not used more already, and says from which. Once everybody who
//! might still use more ([`Share::ceiling`]) has said so, or holds nothing any more, the mint is *settled*: from a window that comes after all of
//! those on, each share counts whole.
//!
//! ```text
//!   L in every window:   Σ ceiling <= L before          Σ floor <= L after          Σ units = L after
//!                        ───── who has not heard ─────▶ ─── who has heard ────────▶ ── settled, from window X ──▶
//! ```

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Deserialize;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::LimitId;
use super::faults::Fault;
use super::faults::planted;
use crate::base::ids::StorageId;
use crate::observability::labels::label;

/// Largest limit, in units a window. Purses count in 32 bits; tokens of a busy minute are a thousandth of it.
pub const UNITS_MAX: u64 = 1 << 31;
/// Shortest window. Shorter ones are gone before a unit can be asked for.
pub const WINDOW_MS_MIN: u32 = 1_000;
/// Longest window: a day.
pub const WINDOW_MS_MAX: u32 = 86_400_000;
/// Nodes that one limit is divided over. More take part without a share of their own; they ask for units.
pub const SHARES_LEN_MAX: usize = 256;
/// Windows that must have passed before what a mint gave is taken for what everybody has: more than clocks of two nodes are apart.
pub(super) const WINDOWS_APART_MAX: u64 = 4;

label! {
    /// What a limit counts.
    #[derive(PartialOrd, Ord, Serialize, Deserialize)]
    pub enum Kind {
        /// Requests that begin in a window.
        Requests = "requests",
        /// Tokens of a window.
        Tokens = "tokens",
        /// Requests that are open at a time. It has no windows: a unit is in use until its request ends, and then free again.
        Streams = "streams",
    }
}

impl Kind {
    /// Those whose units come anew with each window.
    pub const WINDOWED: [Self; 2] = [Self::Requests, Self::Tokens];

    /// Whether it is one of these.
    #[must_use]
    pub const fn has_windows(self) -> bool {
        match self {
            Self::Requests | Self::Tokens => true,
            Self::Streams => false,
        }
    }

    /// Whether its windows may be so long. What has none says 0.
    fn fits(self, window_ms: u32) -> bool {
        if self.has_windows() { (WINDOW_MS_MIN..=WINDOW_MS_MAX).contains(&window_ms) } else { window_ms == 0 }
    }
}

/// Why a limit cannot be minted. The operator's fault; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMint {
    /// More than can be counted.
    #[error("a limit may be at most {UNITS_MAX}, this one is: {0}")]
    TooLarge(u64),
    /// A window that is too short or too long, or one of a limit that has none.
    #[error("a window must be 1 s to 1 day long, and 0 for streams; this one has ms: {0}")]
    Window(u32),
    /// The shares do not add up, or one is used before it is there.
    #[error("the shares of a mint must add up to its limit")]
    Shares,
}

/// One node's part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Units a window, once the mint is in force.
    pub units: u64,
    /// What may be used before: the smallest of what it was since the last mint that was in force.
    pub floor: u64,
    /// The most that may still be in use, because of earlier mints.
    pub ceiling: u64,
    /// Whether it takes part. If not, it is named because it may still use something.
    pub is_in: bool,
}

/// See the file's header. Ground state: it lies in the group's log and is never changed, only followed by another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mint {
    /// Of what.
    pub limit: LimitId,
    /// Which edit of the limit it is made of; for people.
    pub revision: u64,
    /// Orders the mints of a limit. The group accepts a mint only if it follows the last one.
    pub epoch: u64,
    /// What is counted.
    pub kind: Kind,
    /// Length of a window in milliseconds; 0: it has none.
    pub window_ms: u32,
    /// Whether nothing else is in use from [`Mint::from`] on.
    pub is_settled: bool,
    /// First window in which the units count. Of a pending mint, the same of the one before. 0 where there are no windows.
    pub from: u64,
    /// By data directory. The units add up to the limit.
    pub shares: BTreeMap<StorageId, Share>,
}

impl Mint {
    /// The first of a limit. Nothing is in use before, so it is in force at once. `epoch`: above any that a limit of this number may have had before.
    pub fn first(
        limit: LimitId,
        revision: u64,
        epoch: u64,
        (kind, window_ms): (Kind, u32),
        units: u64,
        over: &BTreeSet<StorageId>,
    ) -> Result<Self, InvalidMint> {
        if !kind.fits(window_ms) {
            return Err(InvalidMint::Window(window_ms));
        }
        let shares = divide(limit, units, over)?;
        let shares = shares
            .into_iter()
            .map(|(it, units)| (it, Share { units, floor: units, ceiling: units, is_in: true }))
            .collect();
        Ok(Self { limit, revision, epoch, kind, window_ms, is_settled: true, from: 0, shares })
    }

    /// The limit that it adds up to.
    #[must_use]
    pub fn units(&self) -> u64 {
        self.shares.values().map(|it| it.units).sum()
    }

    /// The most that may be spent in a window while it is the newest, by whoever has heard of which mint.
    #[must_use]
    pub fn bound(&self) -> u64 {
        self.units().max(self.shares.values().map(|it| it.ceiling).sum())
    }

    /// What a node may use in a window.
    #[must_use]
    pub fn share(&self, of: StorageId, window: u64) -> u64 {
        let Some(share) = self.shares.get(&of) else { return 0 };
        let is_whole = self.is_settled && window >= self.from || planted(Fault::PendingCountsWhole);
        if is_whole { share.units } else { share.floor }
    }

    /// The next one: another limit, or other nodes. `window`: the leader's. None: it would be the same. Pending, until [`Mint::settled`].
    pub fn next(
        &self,
        revision: u64,
        units: u64,
        over: &BTreeSet<StorageId>,
        window: u64,
    ) -> Result<Option<Self>, InvalidMint> {
        // Before its first window, or while a clock may be there still, a node has only what it had before that.
        let has_come = window >= self.from.saturating_add(WINDOWS_APART_MAX);
        Ok(self.pending(revision, divide(self.limit, units, over)?, has_come))
    }

    /// The same for a limit without windows, whose units the leader divides as they are wanted.
    #[must_use]
    pub fn redivided(&self, revision: u64, divided: BTreeMap<StorageId, u64>) -> Option<Self> {
        self.pending(revision, divided, true)
    }

    /// `has_come`: what it gives, if it is settled, is what everybody who has heard of it may use.
    fn pending(&self, revision: u64, divided: BTreeMap<StorageId, u64>, has_come: bool) -> Option<Self> {
        let is_same = self.shares.iter().filter(|it| it.1.is_in).map(|it| (*it.0, it.1.units)).eq(divided.clone());
        if is_same && revision == self.revision {
            return None;
        }
        let has_come = self.is_settled && has_come;
        let mut shares = BTreeMap::new();
        for (storage, before) in &self.shares {
            let units = divided.get(storage).copied().unwrap_or_default();
            let floor = units.min(if has_come { before.units } else { before.floor });
            let ceiling = if self.is_settled { before.units } else { before.ceiling };
            shares.insert(*storage, Share { units, floor, ceiling, is_in: divided.contains_key(storage) });
        }
        for (storage, units) in divided {
            shares.entry(storage).or_insert(Share { units, floor: 0, ceiling: 0, is_in: true });
        }
        Some(Self { revision, epoch: self.epoch + 1, is_settled: false, shares, ..self.clone() })
    }

    /// Who may be using more than it gets, and has to say that it does not any more.
    pub fn owing(&self) -> impl Iterator<Item = StorageId> {
        self.shares.iter().filter(|it| it.1.ceiling > it.1.units).map(|it| *it.0)
    }

    /// The same, in force from a window on.
    #[must_use]
    pub fn settled(&self, from: u64) -> Self {
        let mut shares = self.shares.clone();
        shares.retain(|_, it| it.is_in);
        shares.values_mut().for_each(|it| it.ceiling = it.units);
        Self { epoch: self.epoch + 1, is_settled: true, from: self.from.max(from), shares, ..self.clone() }
    }

    /// Whether the group may take it after `before`. The group's machine asks it: what it answers for a mint must stay the same in every release that can work at
    /// one feature level. Whoever proposes it is a member and may be wrong, but not in this.
    pub fn check(&self, before: Option<&Self>) -> Result<(), InvalidMint> {
        let is_sound = match before {
            None => self.is_first(),
            Some(it) if self.is_settled => !it.is_settled && *self == it.settled(self.from) && self.has_its_windows(),
            Some(it) => self.is_pending_after(it),
        };
        let is_within = self.shares.values().all(|it| it.units <= UNITS_MAX && it.ceiling <= UNITS_MAX);
        if is_sound && is_within && self.units() <= UNITS_MAX { Ok(()) } else { Err(InvalidMint::Shares) }
    }

    /// What has no windows is in force when it is settled.
    fn has_its_windows(&self) -> bool {
        self.kind.has_windows() || self.from == 0
    }

    fn is_first(&self) -> bool {
        let is_whole = |it: &Share| it.is_in && it.floor == it.units && it.ceiling == it.units;
        let has_window = self.kind.fits(self.window_ms);
        self.epoch > 0 && self.is_settled && self.from == 0 && has_window && self.shares.values().all(is_whole)
    }

    /// Whether it lets nobody use more than before, and forgets nobody who uses something.
    fn is_pending_after(&self, before: &Self) -> bool {
        let same = |it: &Self| (it.limit, it.kind, it.window_ms, it.from);
        let is_sound = |(storage, share): (&StorageId, &Share)| {
            let was = before.shares.get(storage).copied().unwrap_or_default();
            let (had, ceiling) = if before.is_settled { (was.units, was.units) } else { (was.floor, was.ceiling) };
            let is_nothing = !share.is_in && share.units > 0;
            share.floor <= share.units.min(had) && share.ceiling == ceiling && !is_nothing
        };
        self.epoch == before.epoch + 1
            && same(self) == same(before)
            && before.shares.keys().all(|it| self.shares.contains_key(it))
            && self.shares.iter().all(is_sound)
    }
}

/// Divides a limit. What does not divide goes to those that the limit's number draws (rendezvous hash), so that not one node has the rest of all limits; the same nodes
/// get no less of a larger limit.
pub fn divide(limit: LimitId, units: u64, over: &BTreeSet<StorageId>) -> Result<BTreeMap<StorageId, u64>, InvalidMint> {
    if units > UNITS_MAX {
        return Err(InvalidMint::TooLarge(units));
    }
    let mut order: Vec<(u64, StorageId)> =
        over.iter().map(|it| (xxh3_64_with_seed(&it.0.to_le_bytes(), limit.0), *it)).collect();
    order.sort_unstable();
    order.truncate(SHARES_LEN_MAX);
    let (each, rest) = match order.len() as u64 {
        0 => return Ok(BTreeMap::new()),
        len => (units / len, units % len),
    };
    Ok((0..).zip(order).map(|(n, (_, storage))| (storage, each + u64::from(n < rest))).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nodes(ids: impl IntoIterator<Item = u128>) -> BTreeSet<StorageId> {
        ids.into_iter().map(StorageId).collect()
    }

    fn first(units: u64, over: &BTreeSet<StorageId>) -> Mint {
        Mint::first(LimitId(7), 1, 1, (Kind::Requests, 1000), units, over).unwrap()
    }

    #[test]
    fn twenty_over_eight_is_two_or_three_and_the_rest_is_not_always_the_same_ones() {
        let mut got = BTreeMap::new();
        for limit in (0..400).map(LimitId) {
            let shares = divide(limit, 20, &nodes(1..=8)).unwrap();
            assert_eq!(shares.values().sum::<u64>(), 20);
            assert!(shares.values().all(|it| (2..=3).contains(it)), "{shares:?}");
            shares.iter().for_each(|(storage, units)| *got.entry(*storage).or_insert(0) += units);
        }
        assert!(got.values().all(|it| (930..1070).contains(it)), "a thousand each: {got:?}");
        let few = divide(LimitId(1), 3, &nodes(1..=8)).unwrap();
        assert_eq!((few.len(), few.values().filter(|it| **it == 1).count()), (8, 3));
        assert_eq!(divide(LimitId(1), 3, &nodes([])).unwrap().len(), 0);
        assert_eq!(divide(LimitId(1), UNITS_MAX + 1, &nodes([1])), Err(InvalidMint::TooLarge(UNITS_MAX + 1)));
    }

    #[test]
    fn windows_that_cannot_be_kept_are_refused() {
        for window in [0, WINDOW_MS_MIN - 1, WINDOW_MS_MAX + 1] {
            let mint = Mint::first(LimitId(7), 1, 1, (Kind::Tokens, window), 9, &nodes([1]));
            assert_eq!(mint, Err(InvalidMint::Window(window)));
        }
    }

    #[test]
    fn a_node_that_comes_has_nothing_until_the_others_use_less() {
        let mint = first(20, &nodes(1..=2));
        let pending = mint.next(1, 20, &nodes(1..=3), 100).unwrap().unwrap();
        assert_eq!((pending.units(), pending.share(StorageId(3), 500)), (20, 0));
        assert_eq!(pending.owing().collect::<Vec<_>>(), [StorageId(1), StorageId(2)]);
        let settled = pending.settled(103);
        assert_eq!(settled.share(StorageId(3), 102), 0);
        assert!(settled.share(StorageId(3), 103) >= 6);
        assert_eq!(settled.next(1, 20, &nodes(1..=3), 110).unwrap(), None, "nothing changed");
        assert!(settled.check(Some(&pending)).is_ok() && settled.check(Some(&mint)).is_err());
    }

    #[test]
    fn a_limit_that_is_raised_owes_nothing_and_one_that_is_lowered_is_low_at_once() {
        let mint = first(20, &nodes(1..=8));
        assert_eq!(mint.next(2, 30, &nodes(1..=8), 9).unwrap().unwrap().owing().count(), 0);
        let lower = mint.next(2, 8, &nodes(1..=8), 9).unwrap().unwrap();
        assert!((1..=8).all(|it| lower.share(StorageId(it), 9) == 1), "{lower:?}");
    }

    proptest! {
        /// Whoever has heard of which of many mints, a window's rights add up to a limit that was in force while they were pending.
        #[test]
        fn any_mixture_of_mints_stays_below_the_bound(
            edits in proptest::collection::vec((1u64..40, proptest::collection::btree_set(1u128..6, 1..5)), 1..6),
            heard in proptest::collection::vec(0usize..7, 6),
        ) {
            let mut chain = vec![first(20, &nodes(1..=3))];
            for (units, over) in &edits {
                let last = chain.last().expect("one at least");
                if let Some(next) = last.next(last.revision + 1, *units, &nodes(over.iter().copied()), 100).unwrap() {
                    prop_assert!(next.check(Some(last)).is_ok());
                    prop_assert_eq!(next.units(), *units);
                    chain.push(next);
                }
            }
            // Nobody has said anything yet, so nothing is settled: each node uses what the last mint it knows lets it.
            let used: u64 = (1..=5u128).zip(&heard).map(|(n, heard)| chain[(*heard).min(chain.len() - 1)].share(StorageId(n), 100)).sum();
            prop_assert!(used <= 20, "{} of 20 by {:?}", used, chain);
        }
    }
}
