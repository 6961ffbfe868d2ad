//! Bytes per second of one table: a bucket that holds one second's worth and may be overdrawn by one message.

use std::time::Duration;

/// See the file's header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    per_s: usize,
    left: i64,
    at: Duration,
}

impl Budget {
    /// Full.
    pub(super) fn new(per_s: usize) -> Self {
        Self { per_s, left: per_s as i64, at: Duration::ZERO }
    }

    /// What may be sent now.
    pub(super) fn left(&mut self, now: Duration) -> usize {
        let passed = now.saturating_sub(self.at).as_millis().min(60_000) as i64;
        let earned = self.per_s as i64 * passed / 1000;
        // The clock moves only with what was earned, or frequent questions would round everything away.
        if earned > 0 || self.per_s == 0 {
            self.left = (self.left + earned).min(self.per_s as i64);
            self.at = now;
        }
        usize::try_from(self.left).unwrap_or(0)
    }

    /// So many were sent.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.left -= bytes as i64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_its_rate_however_often_it_is_asked() {
        let mut budget = Budget::new(1000);
        let mut sent = 0;
        for ms in 0..10_000 {
            let left = budget.left(Duration::from_millis(ms));
            budget.spend(left);
            sent += left;
        }
        assert!((10_900..=11_000).contains(&sent), "{sent}");
        budget.spend(5000);
        assert_eq!(budget.left(Duration::from_secs(12)), 0, "what was overdrawn is paid back first");
    }
}
