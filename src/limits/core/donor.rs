//! What a node gives away: to a peer that asks because requests wait there, and, before a window begins, to those that were asked for more than their share.
//!
//! A request that waits is certain, one that is expected is not. So for those that wait a donor keeps only what it needs itself before it could ask in turn, and for what is
//! expected elsewhere it keeps all that it expects itself. Who has requests waiting gives nothing.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Around;
use super::Life;
use super::account::Account;
use crate::base::ids::StorageId;
use crate::limits::calendar::Place;
use crate::limits::messages::Given;
use crate::limits::messages::Pull;

/// How much of a window has passed when units of the next one are given away. Earlier, and the demand that it goes by is older; later, and they come too late.
pub(super) const AHEAD_AT: f64 = 0.75;
/// For how many milliseconds of its own demand a donor keeps units from requests that wait elsewhere: two rounds.
const KEEP_MS: f64 = 40.0;

impl Account {
    /// A peer is short. The answer says what it has got in all, however often it asks.
    pub(super) fn pulled(&mut self, around: &Around<'_>, from: Life, pull: &Pull) -> Given {
        let place = self.roll(around);
        let window = pull.window;
        let is_ahead = window == place.window + 1 && place.passed >= AHEAD_AT;
        if !is_ahead && window != place.window && window + 1 != place.window {
            // Its clock is elsewhere.
            return Given { limit: self.mint.limit, window, boot: from.1, total: 0, left: 0 };
        }
        if window >= place.window {
            self.open(around, window);
        }
        let given = self.slot_or_new(window).given.get(&from).copied().unwrap_or_default();
        // What it has not got yet is under way to it, or was lost and is said again now.
        let is_answered = given > pull.have;
        let spare = if is_answered || !self.waiting.is_empty() { 0 } else { self.spare(place, pull) };
        self.give(window, from, spare)
    }

    fn spare(&self, place: Place, pull: &Pull) -> u64 {
        let left = self.left(pull.window);
        let demand = self.demand(place) as f64;
        let (soon, rest) = match pull.window.cmp(&place.window) {
            std::cmp::Ordering::Less => (0.0, 0.0),
            std::cmp::Ordering::Equal => {
                (demand * KEEP_MS / f64::from(self.mint.window_ms.max(1)), demand * (1.0 - place.passed))
            }
            std::cmp::Ordering::Greater => (demand, demand),
        };
        let beyond = |keep: f64| left.saturating_sub(keep.round() as u64);
        beyond(soon).min(pull.need).max(beyond(rest).min(pull.need.saturating_add(pull.want)))
    }

    /// Gives units of the next window to those that will be short, by the demand of this one. Each donor finds its part by itself.
    pub(super) fn give_ahead(&mut self, around: &Around<'_>, place: Place) -> Vec<(Life, Given)> {
        let next = place.window + 1;
        if self.ahead == next || place.passed < AHEAD_AT {
            return Vec::new();
        }
        self.ahead = next;
        let me = around.me.0;
        let own = self.demand(place);
        let demand = |it: &StorageId| {
            if *it == me { own } else { self.heard.get(it).map_or(0, |it| it.demand) }
        };
        let (mut short, mut spare): (BTreeMap<StorageId, u64>, u64) = Default::default();
        for storage in around.members.keys().chain([&me]) {
            let (units, demand) = (self.mint.share(*storage, next), demand(storage));
            spare += units.saturating_sub(demand);
            if demand > units && *storage != me {
                short.insert(*storage, demand - units);
            }
        }
        let missing: u64 = short.values().sum();
        if missing == 0 {
            return Vec::new();
        }
        self.open(around, next);
        let mine = self.left(next).saturating_sub(own);
        let mine = if missing >= spare { mine } else { scaled(mine, missing, spare.max(1)) };
        let order = |it: &StorageId| xxh3_64_with_seed(&it.0.to_le_bytes(), me.0 as u64 ^ next);
        let parts = parts(mine, missing, short, order);
        let boot = |it: &StorageId| around.members.get(it).map_or(0, |it| it.boot);
        let lives = parts.into_iter().map(|(storage, units)| ((storage, boot(&storage)), units));
        lives.filter(|it| it.1 > 0).map(|(to, units)| (to, self.give(next, to, units))).collect()
    }
}

/// `units * part / whole`, without overflow.
pub(super) fn scaled(units: u64, part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(units) * u128::from(part) / u128::from(whole)).unwrap_or(units)
}

/// Divides units among those that miss some, by how many they miss. What does not divide goes by `order`.
pub(super) fn parts(
    units: u64,
    missing: u64,
    short: BTreeMap<StorageId, u64>,
    order: impl Fn(&StorageId) -> u64,
) -> Vec<(StorageId, u64)> {
    let mut parts: Vec<(StorageId, u64)> =
        short.into_iter().map(|(it, short)| (it, scaled(units, short, missing))).collect();
    parts.sort_by_key(|it| order(&it.0));
    let rest = units.saturating_sub(parts.iter().map(|it| it.1).sum());
    for (n, part) in parts.iter_mut().enumerate() {
        part.1 += u64::from((n as u64) < rest);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_divided_adds_up_and_goes_to_those_that_miss_most() {
        let short = |it: &[(u128, u64)]| it.iter().map(|it| (StorageId(it.0), it.1)).collect();
        let divided = parts(10, 40, short(&[(1, 30), (2, 10)]), |it| it.0 as u64);
        assert_eq!(divided, [(StorageId(1), 8), (StorageId(2), 2)]);
        assert_eq!(parts(1, 2, short(&[(1, 1), (2, 1)]), |it| 9 - it.0 as u64)[0], (StorageId(2), 1));
        assert_eq!(scaled(u64::MAX, u64::MAX, u64::MAX), u64::MAX);
    }
}
