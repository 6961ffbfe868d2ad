//! Which of a worker's owners is asked: the first, unless it did not answer twice in a row; then the second for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use super::order::Owners;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;

/// Questions in a row that may go unanswered. One is a lost packet; with more, each decision of that time waits for its whole deadline.
const MISSES_MAX: u8 = 2;
/// How long an owner that does not answer is left alone.
const SKIP: Duration = Duration::from_secs(1);
/// An answer that took this many deadlines was not the owner's fault: this node itself did not run.
const OWN_FAULT: u32 = 4;

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    misses: u8,
    skip_until: Option<Instant>,
}

/// How owners have answered. BOUND: members, see [`Patience::keep`].
#[derive(Debug, Default)]
pub(super) struct Patience {
    records: BTreeMap<StorageId, Record>,
}

impl Patience {
    /// Forgets whoever is no member.
    pub(super) fn keep(&mut self, is_member: impl Fn(StorageId) -> bool) {
        self.records.retain(|member, _| is_member(*member));
    }

    /// Whom to ask; none: neither answers, and waiting for it would only cost time.
    pub(super) fn whom(&self, now: Instant, owners: Owners) -> Option<StorageId> {
        let is_skipped =
            |it: &StorageId| self.records.get(it).is_some_and(|it| it.skip_until.is_some_and(|at| now < at));
        owners.each().find(|it| !is_skipped(it))
    }

    /// It answered.
    pub(super) fn answered(&mut self, owner: StorageId) {
        self.records.remove(&owner);
    }

    /// It did not within `limit`; it was asked at `since`. True: it is skipped from now on.
    pub(super) fn missed(&mut self, now: Instant, owner: StorageId, since: Instant, limit: Duration) -> bool {
        if now.saturating_duration_since(since) > limit * OWN_FAULT {
            return false;
        }
        let record = self.records.entry(owner).or_default();
        record.misses = (record.misses + 1).min(MISSES_MAX);
        let is_out = record.misses == MISSES_MAX;
        if is_out {
            record.skip_until = Some(now + SKIP);
        }
        is_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;

    const LIMIT: Duration = Duration::from_millis(5);
    const A: StorageId = StorageId(1);
    const B: StorageId = StorageId(2);
    const OWNERS: Owners = Owners { first: Some(A), second: Some(B) };

    #[test]
    fn after_two_misses_the_second_is_asked_for_a_second_and_one_more_miss_renews_it() {
        let (mut patience, mut now) = (Patience::default(), Clock.now());
        assert!(!patience.missed(now, A, now, LIMIT));
        assert_eq!(patience.whom(now, OWNERS), Some(A), "one may be a lost packet");
        assert!(patience.missed(now, A, now, LIMIT));
        assert_eq!(patience.whom(now, OWNERS), Some(B));
        now += SKIP;
        assert_eq!(patience.whom(now, OWNERS), Some(A), "it is tried again");
        assert!(patience.missed(now, A, now, LIMIT));
        assert_eq!(patience.whom(now, OWNERS), Some(B));
        patience.answered(A);
        assert_eq!(patience.whom(now, OWNERS), Some(A));
        assert!(!patience.missed(now, A, now, LIMIT), "it begins anew");
    }

    #[test]
    fn when_neither_answers_nobody_is_waited_for() {
        let (mut patience, now) = (Patience::default(), Clock.now());
        for owner in [A, A, B, B] {
            patience.missed(now, owner, now, LIMIT);
        }
        assert_eq!(patience.whom(now, OWNERS), None);
        patience.keep(|it| it != A);
        assert_eq!(patience.whom(now, OWNERS), Some(A));
    }

    #[test]
    fn a_node_that_did_not_run_blames_nobody_for_it() {
        let (mut patience, now) = (Patience::default(), Clock.now());
        let later = now + Duration::from_secs(3);
        assert!((0..9).all(|_| !patience.missed(later, A, now, LIMIT)));
        assert_eq!(patience.whom(later, OWNERS), Some(A));
    }
}
