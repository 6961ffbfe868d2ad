//! The leader's side: who may still be using which share. It knows what it saw itself; of what others saw before it, it assumes the worst.
//!
//! *Invariants.* 1. A node that was not heard of holds its share until `hold + drift` after this leader took office. 2. A mint is settled only when nobody can use more
//! than it gives.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use super::Ignored;
use super::Life;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::limits::LimitId;
use crate::limits::Mint;
use crate::limits::Settings;
use crate::limits::faults::Fault;
use crate::limits::faults::planted;
use crate::limits::messages;
use crate::limits::messages::Renewal;
use crate::limits::messages::Use;
use crate::limits::mint::UNITS_MAX;
use crate::limits::mint::WINDOWS_APART_MAX;

/// Nodes that are remembered. Beyond it new ones are not renewed: they serve by `on_isolation`.
pub const HOLDERS_LEN_MAX: usize = 1024;
/// Limits without windows of which a leader remembers what nodes use, summed up over nodes. Beyond it nothing is remembered of a node that says more, and its part stays as it is.
pub const USES_LEN_MAX: usize = 1 << 18;
/// A node that was not heard for so long may use all that it has, for all that is known. Longer, and what it has not said yet that it uses is waited for in vain; shorter than two renewals, and one lost
/// renewal does it.
const SILENT: Duration = Duration::from_millis(1_300);
/// What a node said so long ago that it uses is forgotten, if it has more to say than fits one renewal.
const FORGET: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Seen {
    boot: u64,
    at: Instant,
    renewal: Renewal,
    /// What it uses of limits without windows, and when it said so.
    uses: BTreeMap<LimitId, (Instant, Use)>,
}

/// What one leader knows. It is made anew whenever a node takes office.
#[derive(Debug)]
pub struct Holders {
    office: Instant,
    settings: Settings,
    seen: BTreeMap<StorageId, Seen>,
    uses_len: usize,
}

impl Holders {
    /// A node takes office.
    #[must_use]
    pub fn new(now: Instant, settings: Settings) -> Self {
        Self { office: now, settings, seen: BTreeMap::new(), uses_len: 0 }
    }

    /// A renewal came. It may be answered once a majority has confirmed *after this* that this node leads.
    pub fn renewed(&mut self, now: Instant, from: Life, mut renewal: Renewal) -> Result<(), Ignored> {
        match self.seen.get(&from.0) {
            None if self.seen.len() >= HOLDERS_LEN_MAX => return Err(Ignored::TooMany),
            Some(seen) if (seen.boot, seen.renewal.number) >= (from.1, renewal.number) => return Err(Ignored::Late),
            None | Some(_) => {}
        }
        let is_all = renewal.uses.len() < messages::USES_LEN_MAX;
        let said = std::mem::take(&mut renewal.uses).into_iter().map(|it| (it.limit, (now, it)));
        let before = self.seen.remove(&from.0);
        self.uses_len -= before.as_ref().map_or(0, |it| it.uses.len());
        let mut uses = before.filter(|it| it.boot == from.1 && !is_all).map(|it| it.uses).unwrap_or_default();
        uses.retain(|_, it| now < it.0 + FORGET);
        uses.extend(said);
        if self.uses_len + uses.len() > USES_LEN_MAX {
            uses.clear();
        }
        self.uses_len += uses.len();
        self.seen.insert(from.0, Seen { boot: from.1, at: now, renewal, uses });
        Ok(())
    }

    /// What a node uses of a limit and what it wants beyond that, if it was heard lately.
    #[must_use]
    pub(super) fn uses(&self, now: Instant, storage: StorageId, limit: LimitId) -> Option<(u64, u64)> {
        let is_blind = planted(Fault::SilentIsIdle);
        let seen = self.seen.get(&storage).filter(|it| now < it.at + SILENT || is_blind)?;
        Some(seen.uses.get(&limit).map_or((0, 0), |(_, it)| (it.in_use.min(UNITS_MAX), it.wanted.min(UNITS_MAX))))
    }

    /// Whether a node may be using a share, as far as time tells.
    #[must_use]
    pub fn may_hold(&self, now: Instant, storage: StorageId) -> bool {
        let Settings { hold, drift, .. } = self.settings;
        let wait = if planted(Fault::SettledBeforeHold) { hold / 8 } else { hold + drift };
        let seen = self.seen.get(&storage).map(|it| it.at);
        match seen {
            None if planted(Fault::OfficeDoesNotCount) => false,
            None => now < self.office + wait,
            Some(at) => now < at.max(self.office) + wait,
        }
    }

    /// Over whom a limit should be divided now: whoever has a share and may hold it still, and whoever was heard of; not who left.
    #[must_use]
    pub fn over(&self, now: Instant, mint: Option<&Mint>) -> BTreeSet<StorageId> {
        let sharing = mint.into_iter().flat_map(|it| it.shares.iter().filter(|it| it.1.is_in).map(|it| *it.0));
        let has_left = |it: &StorageId| self.seen.get(it).is_some_and(|it| it.renewal.leaves_ms.is_some());
        let all = sharing.chain(self.seen.keys().copied());
        all.filter(|it| self.may_hold(now, *it) && !has_left(it)).collect()
    }

    /// From which window on a pending mint is in force, if by now nobody can be using more than it gives. `ms`: the leader's calendar.
    #[must_use]
    pub fn settles(&self, now: Instant, ms: u64, mint: &Mint) -> Option<u64> {
        let window = ms.checked_div(u64::from(mint.window_ms)).unwrap_or_default();
        let mut from = window + 1;
        for storage in mint.owing() {
            let seen = self.seen.get(&storage);
            let adopted = seen.and_then(|seen| {
                let adopted = seen.renewal.adopted.iter().find(|it| (it.limit, it.epoch) == (mint.limit, mint.epoch));
                adopted.map(|it| it.from)
            });
            let left = seen.and_then(|it| left(&it.renewal, mint));
            let ended = (!self.may_hold(now, storage)).then_some(window + WINDOWS_APART_MAX);
            from = from.max(adopted.or(left).or(ended)?);
        }
        Some(if mint.kind.has_windows() { from } else { 0 })
    }
}

/// From which window on a node that leaves uses nothing any more.
fn left(renewal: &Renewal, mint: &Mint) -> Option<u64> {
    let ms = renewal.leaves_ms?;
    if mint.kind.has_windows() {
        // None after the window that follows.
        return ms.checked_div(u64::from(mint.window_ms)).map(|it| it.saturating_add(2));
    }
    let is_idle = !renewal.is_busy || planted(Fault::LeavingIsIdle);
    is_idle.then_some(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::clock::Clock;
    use crate::limits::Kind;
    use crate::limits::LimitId;
    use crate::limits::messages::Adopted;

    const A: StorageId = StorageId(1);
    const B: StorageId = StorageId(2);

    fn pending() -> Mint {
        let first = Mint::first(LimitId(1), 1, 1, (Kind::Requests, 1000), 10, &[A, B].into()).unwrap();
        first.next(2, 4, &[A, B].into(), 100).unwrap().unwrap()
    }

    fn renewal(number: u64, from: Option<u64>) -> Renewal {
        let adopted = from.map(|from| Adopted { limit: LimitId(1), epoch: 2, from });
        Renewal { number, adopted: adopted.into_iter().collect(), ..Renewal::default() }
    }

    #[test]
    fn a_mint_settles_once_everybody_goes_by_it() {
        let (now, mint) = (Clock.now(), pending());
        let mut holders = Holders::new(now, Settings::default());
        holders.renewed(now, (A, 1), renewal(1, Some(102))).unwrap();
        holders.renewed(now, (B, 1), renewal(1, None)).unwrap();
        assert_eq!(holders.settles(now, 100_000, &mint), None, "B has not heard");
        holders.renewed(now, (B, 1), renewal(2, Some(107))).unwrap();
        assert_eq!(holders.settles(now, 100_000, &mint), Some(107));
        holders.renewed(now, (B, 2), renewal(1, None)).unwrap();
        assert_eq!(holders.settles(now, 100_000, &mint), None, "B was started anew");
        assert_eq!(holders.renewed(now, (B, 1), renewal(9, Some(1))), Err(Ignored::Late));
    }

    #[test]
    fn who_is_silent_holds_its_share_until_hold_and_drift_have_passed_since_it_was_heard_or_office_was_taken() {
        let (now, mint, second) = (Clock.now(), pending(), Duration::from_secs(1));
        let mut holders = Holders::new(now, Settings::default());
        let heard = now + 20 * second;
        holders.renewed(heard, (A, 1), renewal(1, None)).unwrap();
        assert_eq!(holders.settles(now + 630 * second, 700_000, &mint), None, "A was heard later");
        assert_eq!(holders.over(now + 630 * second, Some(&mint)), [A].into());
        assert_eq!(holders.settles(heard + 630 * second, 700_000, &mint), Some(704));
        assert!(holders.may_hold(heard + 629 * second, A));
    }

    #[test]
    fn what_cannot_be_is_taken_for_the_most_that_can() {
        let (now, mint) = (Clock.now(), Mint { window_ms: 1, ..pending() });
        let mut holders = Holders::new(now, Settings::default());
        let uses = vec![Use { limit: LimitId(1), in_use: u64::MAX, wanted: u64::MAX }];
        let absurd = Renewal { number: 1, leaves_ms: Some(u64::MAX), uses, ..Renewal::default() };
        holders.renewed(now, (A, 1), absurd).unwrap();
        assert_eq!(holders.uses(now, A, LimitId(1)), Some((UNITS_MAX, UNITS_MAX)));
        holders.renewed(now, (B, 1), renewal(1, Some(u64::MAX))).unwrap();
        assert_eq!(holders.settles(now, 1000, &mint), Some(u64::MAX));
    }

    #[test]
    fn who_leaves_is_not_waited_for() {
        let (now, mint) = (Clock.now(), pending());
        let mut holders = Holders::new(now, Settings::default());
        holders.renewed(now, (A, 1), renewal(1, Some(101))).unwrap();
        let leaves = Renewal { number: 1, leaves_ms: Some(104_900), ..Renewal::default() };
        holders.renewed(now, (B, 3), leaves).unwrap();
        assert_eq!(holders.settles(now, 100_000, &mint), Some(106));
        assert_eq!(holders.over(now, Some(&mint)), [A].into());
        holders.renewed(now, (B, 4), renewal(1, None)).unwrap();
        assert_eq!(holders.over(now, Some(&mint)), [A, B].into(), "it is back");
    }
}
