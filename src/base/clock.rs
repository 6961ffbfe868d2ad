//! The only door to time.
//!
//! Cores are told the time; drivers ask here. Monotonic time follows tokio's clock, so a test that pauses tokio holds
//! every timer and every `now` of the process still together. Wall time is for people and headers, never for decisions.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// Waits; in paused time, advances.
    pub async fn sleep(self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
