//! The hybrid logical clock: stamps that order edits of one field, near wall time and never going back.
//!
//! A stamp is 48 bits of milliseconds since 1970 and 16 bits that count within one (Kulkarni et al. 2014). Stamps decide
//! between concurrent edits of a *field* only: no clock has a say in whether an instance lives.
//!
//! Which time it is, the members say together: each tells its wall clock, and the lower median of those, carried on by the
//! monotonic clock, is the time here. One clock that is wrong or steps therefore changes nothing where three are known; of two
//! that disagree the earlier counts, so that nobody is dragged ahead. *Invariants:* 1. a stamp handed out is above every stamp
//! handed out or seen before; 2. a stamp further ahead than [`AHEAD_MAX`] is refused and teaches nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use super::Now;
use super::faults::Fault;
use super::faults::planted;
use crate::base::ids::StorageId;

/// How far ahead of the time here a stamp may be. Smaller refuses honest nodes whose clocks are off; larger lets one bad clock win every
/// conflict for longer.
pub const AHEAD_MAX: Duration = Duration::from_secs(60);

/// Clocks remembered. Fewer forget the time sooner when members leave; more only cost memory.
const CLOCKS_MAX: usize = 1024;

const COUNT_BITS: u32 = 16;

/// A point on the hybrid clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp(u64);

impl Stamp {
    /// The first stamp of a moment of wall time.
    #[must_use]
    pub fn at(wall: Duration) -> Self {
        Self((wall.as_millis().min(1 << (64 - COUNT_BITS - 1)) as u64) << COUNT_BITS)
    }

    /// The wall time it is near.
    #[must_use]
    pub fn wall(self) -> Duration {
        Duration::from_millis(self.0 >> COUNT_BITS)
    }

    fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// See the file's header.
#[derive(Clone, Debug, Default)]
pub struct Hlc {
    last: Stamp,
    /// Wall time less monotonic time here when it was told, in milliseconds.
    clocks: BTreeMap<StorageId, i64>,
}

impl Hlc {
    /// Remembers what another member's wall clock shows. It goes on counting while that member is away: who is cut off keeps the
    /// time of the others.
    pub fn hear(&mut self, now: Now, from: StorageId, wall: Duration) {
        self.clocks.insert(from, millis(wall).saturating_sub(millis(now.mono)));
    }

    /// Forgets the clocks of all but `members` when there are too many.
    pub fn keep(&mut self, mut members: impl FnMut(StorageId) -> bool) {
        if self.clocks.len() > CLOCKS_MAX {
            self.clocks.retain(|storage, _| members(*storage));
        }
    }

    /// How many other clocks are known.
    #[must_use]
    pub fn heard(&self) -> usize {
        self.clocks.len()
    }

    /// The time, as the members tell it together.
    #[must_use]
    pub fn time(&self, now: Now) -> Duration {
        let own = millis(now.wall).saturating_sub(millis(now.mono));
        let mut offsets: Vec<i64> = self.clocks.values().copied().chain([own]).collect();
        offsets.sort_unstable();
        let median = offsets[(offsets.len() - 1) / 2];
        Duration::from_millis(median.saturating_add(millis(now.mono)).max(0).unsigned_abs())
    }

    /// The first stamp that would be refused. What was accepted once counts as time too: a clock that was set back does
    /// not make a node refuse what goes on from there.
    #[must_use]
    pub fn horizon(&self, now: Now) -> Stamp {
        let base = Stamp::at(self.time(now)).max(self.last);
        Stamp::at(base.wall().saturating_add(AHEAD_MAX))
    }

    /// A stamp above all that were handed out or seen.
    pub fn next(&mut self, now: Now) -> Stamp {
        let time = Stamp::at(self.time(now));
        self.last =
            if planted(Fault::StampsFollowTheWallClock) { Stamp::at(now.wall) } else { time.max(self.last.next()) };
        self.last
    }

    /// A stamp was accepted, from another member or from disk.
    pub fn saw(&mut self, stamp: Stamp) {
        self.last = self.last.max(stamp);
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: u64 = 365 * 86_400;

    fn at(mono: u64, wall: u64) -> Now {
        Now { mono: Duration::from_secs(mono), wall: Duration::from_secs(wall) }
    }

    #[test]
    fn stamps_never_go_back_however_the_wall_clock_steps() {
        let mut hlc = Hlc::default();
        let mut last = Stamp::default();
        for (mono, wall) in [(1, 1000), (2, 10 * YEAR), (3, 5), (4, 1001), (5, 0)] {
            let stamp = hlc.next(at(mono, wall));
            assert!(stamp > last);
            last = stamp;
        }
    }

    #[test]
    fn one_wrong_clock_of_three_changes_nothing() {
        for wrong in [0, 10 * YEAR] {
            let mut hlc = Hlc::default();
            hlc.hear(at(1, wrong), StorageId(1), Duration::from_secs(1001));
            hlc.hear(at(1, wrong), StorageId(2), Duration::from_secs(1002));
            assert!((1000..=1003).contains(&hlc.next(at(2, wrong)).wall().as_secs()), "it stamps like the others");
            let mut hlc = Hlc::default();
            hlc.hear(at(1, 1000), StorageId(1), Duration::from_secs(1001));
            hlc.hear(at(1, 1000), StorageId(2), Duration::from_secs(wrong));
            assert!((1000..=1003).contains(&hlc.next(at(2, 1001)).wall().as_secs()), "the others do not follow it");
        }
    }

    #[test]
    fn a_stamp_is_refused_from_a_minute_ahead_on() {
        let mut hlc = Hlc::default();
        let now = at(1, 1000);
        assert!(Stamp::at(Duration::from_millis(1_059_999)) < hlc.horizon(now));
        assert!(Stamp::at(Duration::from_secs(1061)) >= hlc.horizon(now));
        hlc.saw(Stamp::at(Duration::from_secs(2000)));
        assert!(Stamp::at(Duration::from_secs(2010)) < hlc.horizon(now), "what was accepted counts as time");
    }
}
