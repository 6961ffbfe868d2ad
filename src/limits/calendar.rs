//! Which window it is. Wall time aligns a node's windows once, when it starts; from then on they advance on the monotonic clock, whatever is done to the wall's.
//!
//! Two nodes that were started with clocks a second apart number their windows a second apart. Rights go by the number, so this costs no exactness; it costs
//! transfers, since a unit of a window that is over at one of them is of no use there.

use std::time::Duration;

use crate::base::clock::Instant;

/// A node's windows.
#[derive(Clone, Copy, Debug)]
pub struct Calendar {
    started: Instant,
    /// Wall time of that moment, in milliseconds since the Unix epoch.
    started_ms: u64,
}

/// A moment in a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// The window's number: windows since the Unix epoch.
    pub window: u64,
    /// How much of it has passed, 0 to 1.
    pub passed: f64,
}

impl Calendar {
    /// `wall`: since the Unix epoch, at `now`.
    #[must_use]
    pub fn new(now: Instant, wall: Duration) -> Self {
        Self { started: now, started_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX / 2) }
    }

    /// Milliseconds since the Unix epoch, as this node counts them.
    #[must_use]
    pub fn ms(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.started).as_millis();
        self.started_ms.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// Where `now` is in windows of this length.
    #[must_use]
    pub fn place(&self, now: Instant, window_ms: u32) -> Place {
        let (ms, length) = (self.ms(now), u64::from(window_ms.max(1)));
        Place { window: ms / length, passed: (ms % length) as f64 / length as f64 }
    }

    /// When a window begins, if it has not yet.
    #[must_use]
    pub fn begins(&self, now: Instant, window_ms: u32, window: u64) -> Instant {
        let at = window.saturating_mul(u64::from(window_ms));
        // BOUND: a day; a number from elsewhere must not overflow the clock.
        now + Duration::from_millis(at.saturating_sub(self.ms(now)).min(86_400_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;

    #[test]
    fn windows_begin_where_the_wall_has_them_and_go_on_without_it() {
        let now = Clock.now();
        let calendar = Calendar::new(now, Duration::from_millis(10_250));
        assert_eq!(calendar.place(now, 1000), Place { window: 10, passed: 0.25 });
        assert_eq!(calendar.place(now + Duration::from_millis(1_500), 1000), Place { window: 11, passed: 0.75 });
        assert_eq!(calendar.begins(now, 1000, 11), now + Duration::from_millis(750));
        assert_eq!(calendar.begins(now, 1000, 3), now, "it has begun");
    }
}
