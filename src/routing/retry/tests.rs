//! Claims about retries.

use std::time::Duration;

use super::*;
use crate::base::clock::Clock;
use crate::routing::faults::plant;

fn status(code: u16) -> Outcome {
    Outcome::Status { code, retry_after: None }
}

fn failure(outcome: Outcome) -> Failure {
    Failure { outcome, attempts: 1, untried: 3, is_content_sent: false }
}

fn check(failure: Failure, expect: Verdict) {
    let verdict = decide(&Config::default(), &mut Budget::new(10), Clock.now(), failure, 1.0);
    assert_eq!(verdict, expect, "{failure:?}");
}

#[test]
fn what_the_request_is_to_blame_for_is_not_retried() {
    for code in [400, 401, 403, 404, 408, 413, 422, 501, 302] {
        assert_eq!(status(code).class(), Class::Neutral);
        check(failure(status(code)), Verdict::GiveUp(GiveUp::Pointless));
    }
}

#[test]
fn backpressure_and_failures_are_retried_elsewhere() {
    let after = Duration::from_millis(50);
    for code in [429, 503, 529] {
        assert_eq!(status(code).class(), Class::Backpressure);
        check(failure(status(code)), Verdict::Retry { after });
    }
    for outcome in [status(500), status(502), status(504), Outcome::Lost, Outcome::Malformed, Outcome::FirstByteTimeout]
    {
        assert_eq!(outcome.class(), Class::Failed);
        check(failure(outcome), Verdict::Retry { after });
    }
    check(failure(Outcome::NotConnected), Verdict::Retry { after: Duration::ZERO });
}

#[test]
fn a_planted_bug_passes_on_what_another_worker_would_have_answered() {
    for (fault, outcome) in [(Fault::BusyIsPassedOn, status(503)), (Fault::GarbageIsPassedOn, Outcome::Malformed)] {
        plant(Some(fault));
        check(failure(outcome), Verdict::GiveUp(GiveUp::Pointless));
        check(failure(Outcome::Lost), Verdict::Retry { after: Duration::from_millis(50) });
        plant(None);
    }
}

#[test]
fn nothing_is_retried_once_content_was_sent() {
    check(Failure { is_content_sent: true, ..failure(Outcome::Lost) }, Verdict::GiveUp(GiveUp::ContentSent));
}

#[test]
fn attempts_and_workers_run_out() {
    check(Failure { attempts: 3, ..failure(Outcome::Lost) }, Verdict::GiveUp(GiveUp::AttemptsSpent));
    check(Failure { untried: 0, ..failure(Outcome::Lost) }, Verdict::GiveUp(GiveUp::NoWorkerLeft));
}

#[test]
fn pauses_double_to_the_bound_and_half_of_them_is_random() {
    let config = Config { retry_max_attempts: 100, ..Config::default() };
    let pause = |attempts, unit| {
        let failure = Failure { attempts, ..failure(Outcome::Lost) };
        match decide(&config, &mut Budget::new(10), Clock.now(), failure, unit) {
            Verdict::Retry { after } => after.as_millis(),
            Verdict::GiveUp(why) => panic!("{why:?}"),
        }
    };
    assert_eq!([1, 2, 3, 6, 7, 90].map(|it| pause(it, 1.0)), [50, 100, 200, 1_600, 2_000, 2_000]);
    assert_eq!(pause(2, 0.0), 50);
}

#[test]
fn a_short_retry_after_is_waited_for_and_a_long_one_is_not() {
    let wish = |seconds| Outcome::Status { code: 503, retry_after: Some(Duration::from_secs(seconds)) };
    check(failure(wish(1)), Verdict::Retry { after: Duration::from_secs(1) });
    check(failure(wish(30)), Verdict::Retry { after: Duration::from_millis(50) });
}

#[test]
fn retries_stay_within_a_tenth_of_the_traffic_and_a_quiet_node_can_still_retry() {
    let (mut budget, now) = (Budget::new(10), Clock.now());
    let mut retries = 0;
    for _ in 0..10_000 {
        budget.request();
        retries += u32::from(budget.take(now));
    }
    assert!((1_000..=1_100).contains(&retries), "a tenth and the first hundred: {retries}");
    let later = now + Duration::from_secs(3);
    assert_eq!((0..100).filter(|_| budget.take(later)).count(), 15, "five a second without any traffic");
    let much_later = later + Duration::from_secs(86_400);
    assert_eq!((0..500).filter(|_| budget.take(much_later)).count(), 100, "and no more than can be saved up");
}

#[test]
fn retries_can_be_turned_off() {
    let config = Config { disable_retries: true, ..Config::default() };
    let verdict = decide(&config, &mut Budget::new(10), Clock.now(), failure(Outcome::Lost), 0.5);
    assert_eq!(verdict, Verdict::GiveUp(GiveUp::Disabled));
}
