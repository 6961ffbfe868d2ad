//! Nodes that run slowly, or not at all for a while, and networks that lose: nobody healthy is declared down for it.

use std::time::Duration;

use cluster_tests::lasting;
use cluster_tests::net::Fault;
use smg::base::clock::Clock;

use super::case::Case;
use super::fleet::Fleet;

const DOWN: &str = r#"smg_membership_changes_total{status="down"}"#;

/// One node is stopped again and again, for longer than others wait. It declares nobody down, and the others nobody but it.
pub(crate) async fn paused(case: &Case) {
    let mut fleet = Fleet::started(case, 5, &[]).await;
    let observer = 4;
    for seconds in [0.7, 1.5, 3.0, 6.0, 12.0] {
        case.did(format_args!("SIGSTOP of node {observer} for {seconds} s"));
        fleet.process(observer).pause();
        lasting(Duration::from_secs_f64(seconds)).await;
        fleet.process(observer).resume();
        let took = fleet.whole(Duration::from_secs(5)).await;
        case.figure(format_args!("{seconds} s: whole after {:.2} s", took.as_secs_f64()));
    }
    let scrape = fleet.scrape(observer).await;
    case.bites("it noticed that it did not run", scrape.value("smg_membership_slept_total") >= 4.0);
    assert_eq!(scrape.value(DOWN), 0.0, "the stopped node declared others down");
    for at in 0..observer {
        let log = std::fs::read_to_string(&fleet.nodes[at].log).expect("a log");
        let wrong = log.lines().filter(|it| it.contains("status=\"down\"") && !it.contains("10.66.0.5:"));
        assert_eq!(wrong.count(), 0, "node {at} declared somebody down who ran");
    }
}

/// Nodes get their turn by fits and starts, as on a machine that is overloaded: for 15 s each is stopped again and again for up to half a second, which is too
/// short to count as sleep. Who is suspected meanwhile is not the point; that they are whole as soon as it ends, and stay so, is.
pub(crate) async fn by_fits_and_starts(case: &Case) {
    let mut fleet = Fleet::started(case, 5, &[]).await;
    let end = Clock.now() + Duration::from_secs(15);
    let mut stops = 0;
    while Clock.now() < end {
        let at = case.entropy.below(5);
        let other = (at + 1 + case.entropy.below(4)) % 5;
        for at in [at, other] {
            fleet.process(at).pause();
        }
        lasting(Duration::from_millis(100 + case.entropy.below(400) as u64)).await;
        for at in [at, other] {
            fleet.process(at).resume();
        }
        stops += 2;
        lasting(Duration::from_millis(case.entropy.below(60) as u64)).await;
    }
    case.did(format_args!("{stops} stops of 0.1 to 0.5 s, two nodes at a time"));
    let took = fleet.whole(Duration::from_secs(5)).await;
    let renewed = fleet.sum("smg_membership_renewed_total").await;
    lasting(Duration::from_secs(5)).await;
    let later = fleet.sum("smg_membership_renewed_total").await;
    let (downs, suspected) = (fleet.sum(DOWN).await, fleet.sum("smg_membership_refuted_total").await);
    case.bites("somebody was suspected", suspected + downs > 0.0);
    case.figure(format_args!(
        "{suspected} refuted, {downs} down; whole {:.2} s after the last stop",
        took.as_secs_f64()
    ));
    assert_eq!(renewed, later, "nobody is held for dead once all run");
    fleet.whole(Duration::from_secs(1)).await;
}

/// Five packets in a hundred are lost everywhere, for 40 s.
pub(crate) async fn at_loss(case: &Case) {
    let (nodes, lasts) = (8, Duration::from_secs(40));
    let fleet = Fleet::started(case, nodes, &[]).await;
    let everybody: Vec<usize> = (0..nodes).collect();
    let fault = Fault { jitter: Duration::from_millis(2), ..Fault::losing(0.05) };
    let before = fleet.sum(DOWN).await;
    fleet.lab.switch.between(&everybody, &everybody, fault);
    case.did("5 % loss and up to 2 ms of delay on every link for 40 s");
    lasting(lasts).await;
    let (count, downs) = (fleet.lab.switch.total(), fleet.sum(DOWN).await - before);
    case.bites("packets were lost", count.lost > 100);
    let hours = nodes as f64 * lasts.as_secs_f64() / 3600.0;
    case.figure(format_args!("{} of {} packets lost, {downs} down in {hours:.2} node-hours", count.lost, count.frames));
    assert_eq!(downs, 0.0, "a node that runs was declared down");
    assert!(fleet.sum("smg_membership_refuted_total").await < 1000.0, "suspicion is rare");
}
