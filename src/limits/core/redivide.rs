//! How a leader divides limits without windows: by what nodes use and want, as these say with their renewals.
//!
//! A node that is short gets what others have and do not use. So those that give can go by the new mint at once, as a rule. Where nothing is spare, one that has less than others and
//! wants more gets a few units of the one that has most; these come as streams end there. *Invariants.* 1. Nothing is divided anew while nobody is short. 2. One limit is not divided anew more often than once
//! in [`REDIVIDE_EVERY`], all of them not more often than [`REDIVISIONS_MAX`] times in it. 3. Who was not heard lately keeps what it has.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Holders;
use super::donor::parts;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::limits::LimitId;
use crate::limits::Mint;
use crate::limits::faults::Fault;
use crate::limits::faults::planted;
use crate::limits::mint::InvalidMint;
use crate::limits::mint::SHARES_LEN_MAX;
use crate::limits::mint::UNITS_MAX;

/// One limit is divided anew this often at most. Shorter, and units go to and fro with every request; longer, and they are idle where they are not wanted any more.
pub(super) const REDIVIDE_EVERY: Duration = Duration::from_secs(1);
/// And so many limits in that time. Each is two entries of the group's log.
pub(super) const REDIVISIONS_MAX: usize = 32;
/// A limit of which nothing is spare is not looked at again before this. Shorter, and a leader of many limits that are all in use does nothing else.
const REST: Duration = Duration::from_millis(200);
/// Of a limit of so many units a node, each node keeps one unit that it does not want, so that its next request need not wait. Of a smaller one that would be too much.
const KEEPS_AT: u64 = 32;
/// Where nothing is spare, this part of a limit goes from who has most to who has least at a time. More, and more is idle on its way.
const EVEN_OUT: u64 = 64;

/// Which limits may be divided anew now.
#[derive(Debug)]
pub(super) struct Turns {
    /// Limits of which somebody is short. BOUND: those that there are.
    short: BTreeSet<LimitId>,
    /// Until when they rest: they were looked at. BOUND: those of the last second.
    rests: BTreeMap<LimitId, Instant>,
    /// When limits were divided anew. BOUND: [`REDIVISIONS_MAX`].
    divided: VecDeque<Instant>,
    next: LimitId,
}

impl Default for Turns {
    fn default() -> Self {
        let (short, rests, divided) = Default::default();
        Self { short, rests, divided, next: LimitId(0) }
    }
}

impl Turns {
    /// Somebody is short of it.
    pub(super) fn want(&mut self, limit: LimitId) {
        self.short.insert(limit);
    }

    /// Those that may be divided now, in turn. They are asked for once: who is short says so again.
    pub(super) fn due(&mut self, now: Instant) -> Vec<LimitId> {
        self.rests.retain(|_, until| now < *until);
        self.divided.retain(|it| now < *it + REDIVIDE_EVERY);
        let may = |it: &&LimitId| !self.rests.contains_key(it);
        let due: Vec<LimitId> =
            self.short.range(self.next..).chain(self.short.range(..self.next)).filter(may).copied().collect();
        for limit in &due {
            self.short.remove(limit);
        }
        due
    }

    /// Whether another one may be divided anew.
    pub(super) fn may(&self) -> bool {
        self.divided.len() < REDIVISIONS_MAX
    }

    /// It was looked at, and is divided anew now or as it should be.
    pub(super) fn had(&mut self, now: Instant, limit: LimitId, is_divided: bool) {
        self.rests.insert(limit, now + if is_divided { REDIVIDE_EVERY } else { REST });
        if is_divided {
            self.divided.push_back(now);
            self.next = LimitId(limit.0.wrapping_add(1));
        }
    }
}

/// A node's part.
#[derive(Clone, Copy, Debug)]
struct Part {
    storage: StorageId,
    /// What it gets.
    units: u64,
    /// What it runs, or may run for all that is known.
    least: u64,
    /// What it runs and would run.
    want: u64,
    /// Whether it was heard lately.
    is_heard: bool,
}

impl Part {
    fn need(&self) -> u64 {
        self.want.saturating_sub(self.units)
    }

    fn spare(&self) -> u64 {
        self.units.saturating_sub(self.want)
    }
}

/// The mint that should follow, if any: `units` are to be divided over these nodes.
pub(super) fn next(
    now: Instant,
    holders: &Holders,
    mint: &Mint,
    (revision, units): (u64, u64),
    over: &BTreeSet<StorageId>,
) -> Result<Option<Mint>, InvalidMint> {
    if units > UNITS_MAX {
        return Err(InvalidMint::TooLarge(units));
    }
    let chosen = chosen(now, holders, mint, over);
    let is_same = mint.shares.iter().filter(|it| it.1.is_in).map(|it| it.0).eq(&chosen);
    let is_changed = !is_same || units != mint.units() || revision != mint.revision;
    if !is_changed && !mint.is_settled && planted(Fault::PendingIsWaitedFor) {
        return Ok(None);
    }
    let keeps = u64::from(units / KEEPS_AT >= chosen.len() as u64);
    let part = |storage: &StorageId| part(now, holders, mint, *storage, keeps);
    let mut parts: Vec<Part> = chosen.iter().map(part).collect();
    let was_short: Vec<(StorageId, u64)> = parts.iter().map(|it| (it.storage, given(mint, it.storage))).collect();
    divide(mint, units, &mut parts);
    let gains = |(part, (_, before)): (&Part, &(StorageId, u64))| part.want > *before && part.units > *before;
    if !is_changed && !parts.iter().zip(&was_short).any(gains) {
        return Ok(None);
    }
    Ok(mint.redivided(revision, parts.iter().map(|it| (it.storage, it.units)).collect()))
}

fn given(mint: &Mint, storage: StorageId) -> u64 {
    mint.shares.get(&storage).filter(|it| it.is_in).map_or(0, |it| it.units)
}

/// Over whom it is divided: of more than may be, those that have something or want something come first.
fn chosen(now: Instant, holders: &Holders, mint: &Mint, over: &BTreeSet<StorageId>) -> BTreeSet<StorageId> {
    if over.len() <= SHARES_LEN_MAX && over.len() + mint.shares.len() <= 2 * SHARES_LEN_MAX {
        return over.clone();
    }
    let hash = |it: &StorageId| xxh3_64_with_seed(&it.0.to_le_bytes(), mint.limit.0);
    let idle = |it: &StorageId| {
        let wanted = holders.uses(now, *it, mint.limit).map_or(0, |it| it.0 + it.1);
        given(mint, *it) == 0 && wanted == 0
    };
    let mut order: Vec<StorageId> = over.iter().copied().collect();
    order.sort_by_cached_key(|it| (idle(it), hash(it)));
    // While others are on their way out, nobody new comes beside as many as may be.
    let room = (2 * SHARES_LEN_MAX).saturating_sub(mint.shares.len());
    let (known, new): (Vec<_>, Vec<_>) = order.into_iter().partition(|it| mint.shares.contains_key(it));
    known.into_iter().chain(new.into_iter().take(room)).take(SHARES_LEN_MAX).collect()
}

fn part(now: Instant, holders: &Holders, mint: &Mint, storage: StorageId, keeps: u64) -> Part {
    let share = mint.shares.get(&storage).copied().unwrap_or_default();
    let may_run = if mint.is_settled { share.units } else { share.ceiling };
    let uses = holders.uses(now, storage, mint.limit);
    let (least, want) = match uses {
        Some((in_use, wanted)) => (in_use.min(may_run), in_use.saturating_add(wanted).min(UNITS_MAX).max(keeps)),
        None => (may_run, may_run),
    };
    // What a pending mint takes from a node that runs more is left to it, so that others need not wait for it.
    Part { storage, units: share.units.max(least), least, want, is_heard: uses.is_some() }
}

/// Makes the parts add up.
fn divide(mint: &Mint, units: u64, parts: &mut [Part]) {
    let sum = |parts: &[Part]| parts.iter().map(|it| it.units).sum::<u64>();
    for keep in [|it: &Part| it.want, |it: &Part| it.least, |_: &Part| 0] {
        let over = sum(parts).saturating_sub(units);
        take(mint, parts, over, |it| it.units.saturating_sub(keep(it)));
    }
    let left = units.saturating_sub(sum(parts));
    give(mint, parts, left, Part::need);
    let left = units.saturating_sub(sum(parts));
    give_evenly(mint, parts, left);
    let is_raised = parts.iter().any(|it| it.units > given(mint, it.storage));
    let needs: u64 = parts.iter().map(Part::need).sum();
    let spare: u64 = parts.iter().map(Part::spare).sum();
    let moved = needs.min(spare);
    if moved > 0 {
        // Who is short gets a little more than it needs, if there is as much: it would be short again.
        let more = |it: &Part| if it.need() > 0 { (it.want / 4).max(1) } else { 0 };
        let mores: Vec<u64> = parts.iter().map(more).collect();
        let extra = mores.iter().sum::<u64>().min((spare - moved) / 2);
        take(mint, parts, moved + extra, Part::spare);
        give(mint, parts, moved, Part::need);
        let mut mores = mores.into_iter();
        give(mint, parts, extra, |_| mores.next().unwrap_or_default());
    } else if needs > 0 && mint.is_settled && !is_raised {
        even_out(units, parts);
    }
}

/// Takes up to so many, from each by what it can do without.
fn take(mint: &Mint, all: &mut [Part], units: u64, spare: impl FnMut(&Part) -> u64) {
    share_out(mint, all, units, spare, |it, units| it.units -= units);
}

/// Gives up to so many, to each by what it misses.
fn give(mint: &Mint, all: &mut [Part], units: u64, need: impl FnMut(&Part) -> u64) {
    share_out(mint, all, units, need, |it, units| it.units += units);
}

fn share_out(
    mint: &Mint,
    all: &mut [Part],
    units: u64,
    by: impl FnMut(&Part) -> u64,
    mut act: impl FnMut(&mut Part, u64),
) {
    let weights: Vec<u64> = all.iter().map(by).collect();
    let sum: u64 = weights.iter().sum();
    let units = units.min(sum);
    if units == 0 {
        return;
    }
    let by: BTreeMap<StorageId, u64> =
        all.iter().zip(weights).filter(|it| it.1 > 0).map(|(it, weight)| (it.storage, weight)).collect();
    let order = |it: &StorageId| xxh3_64_with_seed(&it.0.to_le_bytes(), mint.limit.0);
    let got: BTreeMap<StorageId, u64> = parts(units, sum, by, order).into_iter().collect();
    for it in all {
        act(it, got.get(&it.storage).copied().unwrap_or_default());
    }
}

/// Gives all of it, to each the same.
fn give_evenly(mint: &Mint, all: &mut [Part], units: u64) {
    let each = units.checked_div(all.len() as u64).unwrap_or_default();
    all.iter_mut().for_each(|it| it.units += each);
    let rest = units.checked_rem(all.len() as u64).unwrap_or_default();
    share_out(mint, all, rest, |_| 1, |it, units| it.units += units);
}

/// From who has most to who has least and wants more.
fn even_out(units: u64, all: &mut [Part]) {
    let short = (0..all.len()).filter(|it| all[*it].need() > 0).min_by_key(|it| all[*it].units);
    let most = (0..all.len()).filter(|it| all[*it].is_heard).max_by_key(|it| all[*it].units);
    let (Some(short), Some(most)) = (short, most) else { return };
    let apart = all[most].units.saturating_sub(all[short].units);
    let moved = (units / EVEN_OUT).max(1).min(apart / 2).min(all[short].need());
    all[most].units -= moved;
    all[short].units += moved;
}
