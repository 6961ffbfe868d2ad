//! When a member stands for election. Pure: it is told the time, the members, and what was heard.
//!
//! ```text
//! last heard ────── lease: nobody gives a vote ──────┬─ GRACE ─┬─ step ─┬─ step ─┬
//!                                                    │         first    second   third voter
//! ```
//! openraft draws one patience for each process and keeps it: two that drew nearly the same stand together, split the votes, and do so again, for as long as
//! they run. Here the voters stand in the order of their ids, a step apart, so the first is usually elected before the second would stand, and no time is lost to a draw.
//! Attempts that fail are repeated after draws of their own, longer each time.
//!
//! Whoever would stand asks the others first whether they miss a leader, too ([`Candidacy::misses_a_leader`]), and raises no term unless a majority does (a pre-vote, Ongaro's thesis 9.6): a member that is cut off, or
//! hears only some of the others, would otherwise come back with a term that ends the office of a leader whom everybody else hears.
//!
//! *Invariants.* 1. Nobody stands within a lease of what it last heard of a leader, or of a candidate that has its vote. 2. A member that was not run when it should have been
//! listens for two heartbeats first: what a leader said meanwhile may lie in its inbox. Neither is needed for safety, which is the votes'; both keep a leader in office.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Timing;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;

/// After the lease: others heard the same leader a little later, and give no vote before their own lease is over. Shorter, and the first attempt is often in vain; longer, and each
/// failover takes as much longer.
const GRACE: Duration = Duration::from_millis(50);
/// Between two attempts, at least, and the same again as a draw; twice as long after each, up to [`BACKOFF_MAX`] times. A vote takes two fsyncs and two ways.
const RETRY: Duration = Duration::from_millis(250);
const BACKOFF_MAX: u32 = 8;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Stand for election now, and look again.
    Stand,
    /// Look again then.
    Wait(Instant),
}

/// What is known of the group.
pub(super) struct Seen<'a> {
    pub(super) me: StorageId,
    pub(super) leader: Option<StorageId>,
    /// Of every change that may be in force: one that is on its way out may be the only one with the whole log.
    pub(super) voters: &'a BTreeSet<StorageId>,
}

/// See the file's header.
#[derive(Debug)]
pub(super) struct Candidacy {
    timing: Timing,
    /// When a leader was heard, or a vote given.
    heard: Instant,
    /// When a leader was heard, if ever since the start.
    led: Option<Instant>,
    /// Since then: how often this member stood, and when it may again.
    attempts: u32,
    again: Option<Instant>,
    /// When it meant to look.
    planned: Option<Instant>,
}

impl Candidacy {
    /// Of a member that starts: whoever leads will be heard.
    pub(super) fn new(now: Instant, timing: Timing) -> Self {
        Self { timing, heard: now, led: None, attempts: 0, again: None, planned: None }
    }

    /// A candidate has got this member's vote.
    pub(super) fn heard(&mut self, now: Instant) {
        (self.heard, self.attempts, self.again) = (now, 0, None);
    }

    /// A leader has spoken.
    pub(super) fn led(&mut self, now: Instant) {
        self.led = Some(now);
        self.heard(now);
    }

    /// Whether a leader should have spoken by now. A vote that was given is none yet.
    pub(super) fn misses_a_leader(&self, now: Instant) -> bool {
        self.led.is_none_or(|it| now >= it + self.timing.lease)
    }

    /// What to do now. `draw`: from 0 to 1.
    pub(super) fn look(&mut self, now: Instant, seen: &Seen<'_>, draw: f64) -> Look {
        let is_voter = seen.voters.contains(&seen.me);
        if !is_voter || seen.leader == Some(seen.me) {
            self.led(now);
            // Without any it has only begun: what is on disk is known in a moment.
            let again = if seen.voters.is_empty() { self.timing.heartbeat } else { self.timing.lease };
            return self.wait(now + again);
        }
        let was_not_run = self.planned.is_some_and(|it| now > it + self.timing.heartbeat);
        let due = self.due(seen);
        if now < due {
            return self.wait(due);
        }
        if was_not_run && seen.voters.len() > 1 {
            let until = now + 2 * self.timing.heartbeat;
            self.again = Some(until);
            return self.wait(until);
        }
        let backoff = RETRY * (1 << self.attempts).min(BACKOFF_MAX);
        self.attempts = (self.attempts + 1).min(BACKOFF_MAX);
        self.again = Some(now + backoff + backoff.mul_f64(draw));
        self.planned = None;
        Look::Stand
    }

    fn due(&self, seen: &Seen<'_>) -> Instant {
        if let Some(again) = self.again {
            return again;
        }
        if seen.voters.len() == 1 {
            return self.heard;
        }
        let rank = seen.voters.iter().filter(|it| seen.leader != Some(**it)).take_while(|it| **it != seen.me).count();
        self.heard + self.timing.lease + GRACE + self.timing.step * u32::try_from(rank).unwrap_or(u32::MAX)
    }

    fn wait(&mut self, until: Instant) -> Look {
        self.planned = Some(until);
        Look::Wait(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;

    const TIMING: Timing = Timing {
        heartbeat: Duration::from_millis(250),
        lease: Duration::from_millis(1500),
        step: Duration::from_millis(300),
    };

    struct Member {
        now: Instant,
        it: Candidacy,
        me: u128,
        leader: Option<u128>,
        voters: BTreeSet<StorageId>,
    }

    impl Member {
        fn new(me: u128, leader: Option<u128>, voters: impl IntoIterator<Item = u128>) -> Self {
            let now = Clock.now();
            let voters = voters.into_iter().map(StorageId).collect();
            Self { now, it: Candidacy::new(now, TIMING), me, leader, voters }
        }

        fn look(&mut self) -> Look {
            let (me, leader) = (StorageId(self.me), self.leader.map(StorageId));
            self.it.look(self.now, &Seen { me, leader, voters: &self.voters }, 0.5)
        }

        /// Waits as it is told until it stands: how long that took.
        fn stands(&mut self) -> Duration {
            let since = self.now;
            for _ in 0..100 {
                match self.look() {
                    Look::Stand => return self.now - since,
                    Look::Wait(until) => self.now = until,
                }
            }
            panic!("it never stands");
        }
    }

    #[test]
    fn voters_stand_a_step_apart_after_the_lease_and_the_lost_leader_is_not_counted() {
        let took = |me| Member::new(me, Some(1), 1..=5).stands().as_millis();
        assert_eq!([2, 3, 4, 5].map(took), [1550, 1850, 2150, 2450]);
        assert_eq!(Member::new(2, None, 1..=3).stands().as_millis(), 1850, "nobody is known to have led");
    }

    #[test]
    fn whoever_hears_a_leader_or_leads_or_has_no_vote_does_not_stand() {
        let mut member = Member::new(2, Some(1), 1..=3);
        for _ in 0..100 {
            member.now += TIMING.heartbeat;
            member.it.heard(member.now);
            assert!(matches!(member.look(), Look::Wait(_)));
        }
        for (me, leader) in [(2, 2), (9, 1)] {
            let mut member = Member::new(me, Some(leader), 1..=3);
            for _ in 0..10 {
                let Look::Wait(until) = member.look() else { panic!("it stands") };
                member.now = until;
            }
        }
    }

    #[test]
    fn attempts_that_fail_come_apart_and_one_that_is_heard_ends_them() {
        let mut member = Member::new(2, Some(1), 1..=3);
        member.stands();
        let took: Vec<u128> = (0..6).map(|_| member.stands().as_millis()).collect();
        assert_eq!(took, [375, 750, 1500, 3000, 3000, 3000]);
        member.it.heard(member.now);
        assert_eq!(member.stands().as_millis(), 1550);
    }

    #[test]
    fn a_member_that_was_not_run_listens_first() {
        let mut member = Member::new(2, Some(1), 1..=3);
        assert!(matches!(member.look(), Look::Wait(_)));
        member.now += Duration::from_secs(10);
        assert_eq!(member.look(), Look::Wait(member.now + 2 * TIMING.heartbeat));
        let heard = member.now + TIMING.heartbeat;
        member.it.heard(heard);
        member.now = heard;
        assert_eq!(member.stands().as_millis(), 1550, "the leader had spoken");
        // One that hears nothing stands after that.
        let mut member = Member::new(2, Some(1), 1..=3);
        assert!(matches!(member.look(), Look::Wait(_)));
        member.now += Duration::from_secs(10);
        assert_eq!(member.stands(), 2 * TIMING.heartbeat);
    }

    #[test]
    fn the_only_voter_waits_for_nobody() {
        assert_eq!(Member::new(1, None, [1]).stands(), Duration::ZERO);
        let mut late = Member::new(1, None, [1]);
        late.now += Duration::from_secs(10);
        assert_eq!(late.stands(), Duration::ZERO);
    }
}
