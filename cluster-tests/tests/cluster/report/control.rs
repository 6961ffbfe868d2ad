//! The control group: how long it takes to be there, and to have another leader.

use std::time::Duration;

use cluster_tests::lasting;
use smg::base::clock::Clock;
use smg::raft::Timing;

use super::asked;
use super::percentile;
use crate::case::Case;
use crate::fleet::Fleet;
use crate::fleet::Start;

fn show(times: &[Duration]) -> String {
    let at = |share| percentile(times, share);
    format!("p50 {:.2} s, p90 {:.2} s, max {:.2} s", at(0.5), at(0.9), at(1.0))
}

/// As it is set, to stand beside what was measured.
pub(super) fn settings() -> String {
    let Timing { heartbeat, lease, step } = Timing::default();
    format!("heartbeat {heartbeat:?}, lease {lease:?}, a step of {step:?}")
}

/// Three fresh nodes that are started together, from the start of the first process to one group of three voters at all of them.
pub(super) async fn bootstrap(case: &Case) {
    let mut took = Vec::new();
    for _ in 0..asked("FORMED", 10) {
        let mut fleet = Fleet::new(case, 3);
        let begun = Clock.now();
        (0..3).for_each(|at| fleet.start(at, &Start::default()));
        fleet.one_group(3).await;
        took.push(Clock.now() - begun);
    }
    println!("| three fresh nodes become one group | N={} | {} |", took.len(), show(&took));
}

/// `kill -9` of the leader of three, until both others know another one.
pub(super) async fn failover(case: &Case) {
    let mut fleet = Fleet::started(case, 3, &[]).await;
    fleet.one_group(3).await;
    let (mut took, mut back) = (Vec::new(), Vec::new());
    for _ in 0..asked("KILLS", 20) {
        let (lost, known) = fleet.lose_leader().await;
        took.push(known);
        let begun = Clock.now();
        fleet.start(lost, &Start::default());
        fleet.one_group(3).await;
        back.push(Clock.now() - begun);
        // The next one is not measured in the wake of this one.
        lasting(Duration::from_secs(2)).await;
    }
    println!(
        "| kill -9 of the leader of 3 ({}) | N={} | another known to all after {} |",
        settings(),
        took.len(),
        show(&took)
    );
    println!("| the killed node is started anew | N={} | one group of 3 again after {} |", back.len(), show(&back));
    let limit = Duration::from_secs(4);
    let late = took.iter().filter(|it| **it > limit).count();
    println!("| failovers over {limit:?} | N={} | {late} |", took.len());
}
