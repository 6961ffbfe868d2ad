//! `smg bench` against simulated workers: it counts what they answered, and what they kept waiting.

use std::collections::BTreeMap;
use std::time::Duration;

use smg::base::tasks::Tasks;
use smg::bench;
use smg::bench::core::report::Report;
use smg::bench::core::tally::Failure;
use smg::bench::options::Arrivals;
use smg::bench::options::Options;
use smg::lab::Lab;
use smg::lab::sim_worker;

/// The worker that is asked, and the load it gets.
async fn load(worker: sim_worker::Options, options: Options) -> Report {
    let tasks = Tasks::new();
    let lab = Lab::start(1, &worker, &tasks).expect("starts");
    let options = Options { url: vec![lab.urls()[0].clone()], ..options };
    let sent = tokio::task::spawn_blocking(move || bench::run(&options, &bench::Progress::default()));
    sent.await.expect("ends").expect("runs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_counted_streamed_or_not() {
    for stream in [false, true] {
        let options =
            Options { requests: 200, connections: 4, threads: 2, stream, max_tokens: 5, ..Options::default() };
        let report = load(sim_worker::Options::fastest(), options).await;
        assert_eq!((report.tally.ok, report.tally.failed), (200, BTreeMap::new()));
        assert_eq!(report.tally.first_token.count(), if stream { 200 } else { 0 });
        // Five texts each: four gaps.
        assert_eq!(report.tally.between_tokens.count(), if stream { 800 } else { 0 });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_counted_by_kind_and_do_not_end_the_run() {
    let faults = vec!["status:status=503:next=3".to_owned()];
    let worker = sim_worker::Options { faults, ..sim_worker::Options::fastest() };
    let report = load(worker, Options { requests: 20, connections: 1, ..Options::default() }).await;
    assert_eq!((report.tally.ok, report.tally.failed), (17, BTreeMap::from([(Failure::Status(503), 3)])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_server_cannot_hide_behind_the_load_that_waits_for_it() {
    let worker = sim_worker::Options { prefill_base: Duration::from_millis(40), ..sim_worker::Options::fastest() };
    let options = Options {
        requests: 20,
        connections: 1,
        rate: 1000.0,
        arrivals: Arrivals::Fixed,
        max_tokens: 1,
        ..Options::default()
    };
    let report = load(worker, options).await;
    assert_eq!(report.tally.ok, 20);
    // Each takes 40 ms, all are due within 20: the last one waited for nineteen others.
    let longest = report.tally.latency.quantile(1.0) / 1000.0;
    assert!(longest >= 19.0 * 40.0, "{longest} ms");
}
