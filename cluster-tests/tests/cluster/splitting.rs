//! Networks that break apart, whole or in one direction.

use std::time::Duration;

use cluster_tests::lasting;
use cluster_tests::net::Fault;
use cluster_tests::within;
use futures_util::future::join_all;
use smg::base::clock::Clock;

use super::case::Case;
use super::case::spread;
use super::fleet::Fleet;
use super::fleet::STARTING;
use super::fleet::Start;

/// What is aimed at after a split of any length; ten times of it is waited for.
const HEALED_MAX: Duration = Duration::from_secs(3);
const SPLIT: Duration = Duration::from_secs(60);
const ROUNDS: usize = 2;

/// Ten splits 2|1 and six 3|3, each of a minute.
pub(crate) async fn for_a_minute(case: &Case) {
    split_for_a_minute(case, ROUNDS).await; // that they are whole again; how soon is for the report
}

/// Five clusters of three, split 2|1, and three of six, split 3|3, all on one switch. How long each took to be whole again.
pub(crate) async fn split_for_a_minute(case: &Case, rounds: usize) -> Vec<Duration> {
    let clusters: Vec<Vec<usize>> = (0..5).map(|it| (it * 3..it * 3 + 3).collect()).collect();
    let larger = (0..3).map(|it| (15 + it * 6..15 + it * 6 + 6).collect());
    let clusters: Vec<Vec<usize>> = clusters.into_iter().chain(larger).collect();
    let mut fleet = Fleet::new(case, 33);
    for cluster in &clusters {
        let seeds: Vec<_> = cluster.iter().map(|it| fleet.nodes[*it].mesh.to_string()).collect();
        for at in cluster {
            fleet.start(*at, &Start { seeds: Some(seeds.clone()), ..Start::default() });
        }
    }
    join_all(clusters.iter().map(async |it| fleet.agree(it, STARTING).await)).await;
    let mut took = Vec::new();
    for round in 0..rounds {
        let sides: Vec<_> = clusters.iter().map(|it| it.split_at(it.len() - (it.len() / 2))).collect();
        for (these, those) in &sides {
            fleet.lab.switch.between(these, those, Fault::cutting());
        }
        let cut_before = fleet.lab.switch.total().cut;
        case.did(format_args!("cut 5 clusters 2|1 and 3 clusters 3|3 for {SPLIT:?}"));
        let start = Clock.now();
        let halves = || sides.iter().flat_map(|it| [it.0, it.1]);
        join_all(halves().map(async |it| fleet.agree(it, Duration::from_secs(10)).await)).await;
        lasting(SPLIT.saturating_sub(Clock.now() - start)).await;
        join_all(halves().map(async |it| fleet.agree(it, Duration::from_secs(2)).await)).await;
        let cut = fleet.lab.switch.total().cut - cut_before;
        case.bites("the cut stopped packets", cut > 100);
        fleet.lab.switch.heal();
        case.did(format_args!("healed for round {} of {rounds}; {cut} packets were cut", round + 1));
        took.extend(join_all(clusters.iter().map(async |it| fleet.agree(it, HEALED_MAX * 10).await)).await);
    }
    case.figure(format_args!("whole after the split: {}", spread(&took)));
    fleet.check_alive();
    took
}

/// What one node says to another is lost, and what it hears is not. Others still reach both, so nobody is down; then nobody hears it at all.
pub(crate) async fn one_way(case: &Case) {
    let fleet = Fleet::started(case, 3, &[]).await;
    fleet.lab.switch.set(2, 0, Fault::cutting());
    case.did("node 0 does not hear node 2 for 15 s");
    lasting(Duration::from_secs(15)).await;
    let cut = fleet.lab.switch.count(2, 0).cut;
    case.bites("the cut stopped packets", cut > 10);
    let downs = fleet.sum(r#"smg_membership_changes_total{status="down"}"#).await;
    assert_eq!(downs, 0.0, "node 1 reaches both");
    case.figure(format_args!("{cut} packets cut, 0 down"));
    fleet.lab.switch.set(2, 1, Fault::cutting());
    case.did("nobody hears node 2");
    let others = async || fleet.sees(0, &[0, 1]).await && fleet.sees(1, &[0, 1]).await;
    let took = within("it is down at the others", Duration::from_secs(10), others).await;
    case.figure(format_args!("mute node down after {:.2} s", took.as_secs_f64()));
    lasting(Duration::from_secs(5)).await;
    fleet.lab.switch.heal();
    case.did("healed");
    case.figure(format_args!("whole after that: {}", spread(&[fleet.whole(HEALED_MAX).await])));
}
