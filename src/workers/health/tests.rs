//! The laws of the breaker, of pauses and of probes.

use proptest::prelude::*;

use super::*;
use crate::base::clock::Clock;

const RULES: Rules = Rules {
    failure_threshold: 3,
    success_threshold: 2,
    breaker_failures: 5,
    breaker_window: Duration::from_secs(60),
    breaker_open: Duration::from_secs(10),
    pause_max: Duration::from_secs(30),
    memory: Duration::from_secs(15),
};

fn ready() -> (Health, Instant) {
    let (mut health, now) = (Health::new(RULES), Instant::now());
    health.probed(now, Probe::Ok);
    (health, now)
}

#[test]
fn a_worker_that_served_thousands_and_then_fails_is_out_after_a_few() {
    let (mut health, mut now) = (Health::new(RULES), Clock.now());
    for _ in 0..5_000 {
        now += Duration::from_millis(2);
        health.ended(now, now, Outcome::Success);
    }
    let failed = (1..).find(|_| {
        now += Duration::from_millis(2);
        health.ended(now, now, Outcome::Failure);
        health.breaker(now) == Breaker::Open
    });
    assert_eq!(failed, Some(RULES.breaker_failures), "each failure more is a retry, and retries are few");
}

#[test]
fn a_worker_that_fails_now_and_then_stays_in() {
    let (mut health, mut now) = (Health::new(RULES), Clock.now());
    for turn in 0..10_000 {
        now += Duration::from_millis(2);
        health.ended(now, now, if turn % 5 == 0 { Outcome::Failure } else { Outcome::Success });
        assert_eq!(health.breaker(now), Breaker::Closed, "request {turn}");
    }
}

#[test]
fn a_worker_that_begins_to_fail_two_of_three_requests_is_out_before_retries_are_used_up() {
    let (mut health, mut now) = (Health::new(RULES), Clock.now());
    for _ in 0..5_000 {
        now += Duration::from_millis(2);
        health.ended(now, now, Outcome::Success);
    }
    let failed = (1..1_000).find(|turn| {
        now += Duration::from_millis(2);
        health.ended(now, now, if turn % 3 == 0 { Outcome::Success } else { Outcome::Failure });
        health.breaker(now) == Breaker::Open
    });
    assert!(failed.is_some_and(|it| it < 100), "{failed:?}");
}

#[test]
fn field_d1_ten_thousand_bad_requests_open_no_breaker() {
    let (mut health, now) = ready();
    (0..10_000).for_each(|_| health.ended(now, now, Outcome::Neutral));
    assert_eq!(health.state(now), State::Ready);
}

#[test]
fn field_d2_busy_is_a_pause_that_ends_and_is_bounded() {
    let (mut health, now) = ready();
    health.ended(now, now, Outcome::Busy(Some(Duration::from_secs(3600))));
    assert_eq!(health.state(now), State::Paused);
    assert_eq!(health.state(now + Duration::from_secs(31)), State::Ready);
}

#[test]
fn a_pause_lasts_as_long_as_the_longest_that_was_asked_for_whatever_from_before_ends_meanwhile() {
    let (mut health, now) = ready();
    health.ended(now, now, Outcome::Busy(Some(Duration::from_secs(10))));
    let (before, later) = (now - Duration::from_secs(1), now + Duration::from_secs(1));
    for (sent, outcome) in [
        (before, Outcome::Success),
        (now, Outcome::Success),
        (later, Outcome::Neutral),
        (later, Outcome::Failure),
        (later, Outcome::Busy(None)),
    ] {
        health.ended(later, sent, outcome);
        health.probed(now, Probe::Ok);
        assert_eq!(health.pause_left(now + Duration::from_secs(9)), Some(Duration::from_secs(1)), "{outcome:?}");
    }
    assert_eq!(health.state(now + Duration::from_secs(10)), State::Ready);
    let later = now + Duration::from_secs(2);
    health.ended(later, later, Outcome::Success);
    assert_eq!(health.state(later), State::Ready, "it was asked since then, and it served");
}

#[test]
fn retry_after_is_seconds_or_a_date_by_the_worker_s_own_clock() {
    let wall = Duration::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
    let date = "Sun, 06 Nov 1994 08:49:47 GMT";
    for (text, theirs, expected) in [
        ("7", None, Some(7)),
        (" 0 ", None, Some(0)),
        (date, None, Some(10)),
        (date, Some("Sun, 06 Nov 1994 08:49:44 GMT"), Some(3)),
        (date, Some("Sun, 06 Nov 1994 09:00:00 GMT"), Some(0)),
        (date, Some("yesterday"), Some(10)),
        ("soon", None, None),
        ("-1", None, None),
    ] {
        assert_eq!(pause(text, theirs, wall), expected.map(Duration::from_secs), "{text} {theirs:?}");
    }
}

#[test]
fn field_d10_a_busy_worker_whose_probe_times_out_is_not_taken_out() {
    let (mut health, now) = ready();
    for _ in 0..10 {
        health.ended(now, now, Outcome::Success);
        health.probed(now, Probe::TimedOut);
    }
    assert_eq!(health.state(now), State::Ready);
    for _ in 0..3 {
        health.probed(now, Probe::TimedOut);
    }
    assert_eq!(health.state(now), State::NotReady);
}

#[test]
fn the_breaker_opens_trickles_and_closes_and_a_400_does_not_close_it() {
    let (mut health, now) = ready();
    (0..5).for_each(|_| health.ended(now, now, Outcome::Failure));
    assert_eq!(health.state(now), State::Tripped);
    let later = now + Duration::from_secs(11);
    assert_eq!(health.state(later), State::Ready, "half-open lets one through");
    health.sent(later);
    assert_eq!(health.state(later), State::Tripped, "and no second one");
    health.ended(later, later, Outcome::Neutral);
    assert_eq!(health.state(later), State::Tripped);
    health.ended(later, later, Outcome::Success);
    assert_eq!(health.state(later), State::Ready);
}

#[test]
fn each_change_is_told_once() {
    let (mut health, now) = ready();
    assert_eq!(health.changes(now), Changes::default());
    (0..5).for_each(|_| health.ended(now, now, Outcome::Failure));
    assert_eq!(health.changes(now).breaker, Some((Breaker::Closed, Breaker::Open)));
    assert_eq!(health.changes(now), Changes::default());
    let later = now + Duration::from_secs(11);
    health.sent(later);
    assert_eq!(health.changes(later).breaker, Some((Breaker::Open, Breaker::HalfOpen)));
    health.ended(later, later, Outcome::Success);
    assert_eq!(health.changes(later).breaker, Some((Breaker::HalfOpen, Breaker::Closed)));
    for expected in [true, false] {
        health.ended(later, later, Outcome::Unreachable);
        assert_eq!(health.changes(later), Changes { breaker: None, went_away: expected });
    }
}

#[test]
fn a_refused_connection_counts_at_once_and_probes_bring_it_back() {
    let (mut health, now) = ready();
    health.ended(now, now, Outcome::Unreachable);
    assert_eq!(health.state(now), State::NotReady);
    assert!(!health.probed(now, Probe::Ok) && health.probed(now, Probe::Ok));
    assert_eq!(health.state(now), State::Ready);
}

#[test]
fn what_others_say_takes_a_worker_out_only_where_it_did_not_succeed_lately_and_ends_with_its_time() {
    let (mut health, now) = ready();
    let until = now + Duration::from_secs(20);
    health.heard(Word { doubted_until: Some(until), vouched_until: None });
    assert_eq!((health.state(now), health.is_suspect(now)), (State::Ready, true), "last, because it answered here");
    let later = now + RULES.memory;
    assert_eq!((health.state(later), health.is_suspect(later)), (State::NotReady, false));
    assert!(health.changes(later).went_away && !health.wants_look(later, false, true));
    health.ended(later, later, Outcome::Success);
    assert_eq!(
        (health.state(later), health.is_suspect(later)),
        (State::Ready, true),
        "tried as the last one, it served"
    );
    assert_eq!((health.state(until), health.is_suspect(until)), (State::Ready, false));
}

#[test]
fn a_worker_that_another_node_reaches_is_ready_unless_it_is_away_for_this_one() {
    let (mut health, now) = (Health::new(RULES), Instant::now());
    health.heard(Word { doubted_until: None, vouched_until: Some(now + Duration::from_secs(15)) });
    assert_eq!(health.state(now), State::Ready);
    health.probed(now, Probe::TimedOut);
    assert_eq!(health.state(now), State::Ready, "one missed probe of a worker that is known to be well");
    health.ended(now, now, Outcome::Unreachable);
    assert_eq!((health.state(now), health.wants_look(now, false, false)), (State::NotReady, true));
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Pass(u64),
    Send,
    End(usize, bool),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        (0..4000u64).prop_map(Act::Pass),
        Just(Act::Send),
        (any::<usize>(), any::<bool>()).prop_map(|(which, is_well)| Act::End(which, is_well)),
    ];
    proptest::collection::vec(act, 1..400)
}

proptest! {
    #[test]
    fn an_open_breaker_is_moved_only_by_requests_sent_since_and_lets_one_through_at_a_time(acts in acts()) {
        let (mut health, mut now) = ready();
        let mut flying: Vec<Instant> = Vec::new();
        let (mut opened, mut until, mut let_through) = (now, now, None);
        for act in acts {
            let before = health.breaker(now);
            match act {
                Act::Pass(ms) => now += Duration::from_millis(ms),
                Act::Send if health.state(now) == State::Ready => {
                    health.sent(now);
                    flying.push(now);
                    if before == Breaker::HalfOpen {
                        prop_assert!(let_through.replace(now).is_none_or(|it| now - it >= TRICKLE));
                    }
                }
                Act::End(which, is_well) if !flying.is_empty() => {
                    let sent = flying.swap_remove(which % flying.len());
                    health.ended(now, sent, if is_well { Outcome::Success } else { Outcome::Failure });
                    let after = health.breaker(now);
                    if before != Breaker::Closed && sent <= opened {
                        prop_assert_eq!(after, before, "it was sent before");
                    } else if before == Breaker::HalfOpen {
                        prop_assert_eq!(after, if is_well { Breaker::Closed } else { Breaker::Open });
                    }
                    if after == Breaker::Open && (before != Breaker::Open || sent > opened) {
                        (opened, until, let_through) = (now, now + RULES.breaker_open, None);
                    }
                }
                Act::Send | Act::End(..) => {}
            }
            if health.breaker(now) != Breaker::Closed {
                prop_assert_eq!(health.breaker(now) == Breaker::Open, now < until, "an opening ends at its time");
            }
        }
    }
}
