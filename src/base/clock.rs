//! The only door to time.
//!
//! Cores are told the time; drivers ask here. Monotonic time follows tokio's clock, so a test that pauses tokio holds
//! every timer and every `now` of the process still together. Wall time is for people and headers, never for decisions.

use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds that the wall clock of this process is made to be off by, which is a fault on purpose. The system's clock is one for a process, and so is this.
static WALL_OFFSET: AtomicI64 = AtomicI64::new(0);

/// From now on the wall clock is off by so many seconds. The monotonic one goes on.
pub(crate) fn set_wall_offset(seconds: i64) {
    WALL_OFFSET.store(seconds, Ordering::Relaxed);
}

/// A wall clock that is off.
fn off_by(wall: Duration, seconds: i64) -> Duration {
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { wall.saturating_sub(by) } else { wall.saturating_add(by) }
}

/// A point on the monotonic clock.
pub type Instant = tokio::time::Instant;

/// Hands out the time. Cheap to copy; holds no state.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// Now, on the monotonic clock (held still by tokio's paused time).
    #[must_use]
    pub fn now(self) -> Instant {
        Instant::now()
    }

    /// Seconds since the Unix epoch, for headers, ids and log lines.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub fn wall(self) -> Duration {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        off_by(wall, WALL_OFFSET.load(Ordering::Relaxed))
    }

    /// Stops this thread for so long, as a device that does not answer would. Not for an async worker thread.
    pub fn block(self, duration: Duration) {
        if !duration.is_zero() {
            std::thread::sleep(duration);
        }
    }

    /// Waits; in paused time, advances.
    pub async fn sleep(self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_off_in_either_direction_and_never_before_the_epoch() {
        let wall = Duration::from_millis(100_500);
        assert_eq!([0, 60, -60].map(|it| off_by(wall, it).as_millis()), [100_500, 160_500, 40_500]);
        assert_eq!(off_by(wall, i64::MIN), Duration::ZERO);
    }
}
