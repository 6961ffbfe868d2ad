//! How long until everything is as it was: after a split, after a restart.

use std::time::Duration;

use cluster_tests::within;
use futures_util::future::join_all;
use serde_json::Value;
use serde_json::json;
use smg::base::clock::Clock;

use super::asked;
use super::percentile;
use crate::case::Case;
use crate::fleet::Fleet;
use crate::fleet::STARTING;
use crate::fleet::Start;
use crate::splitting;

/// Splits of a minute, as the scenario makes them.
pub(super) async fn splits(case: &Case) {
    let took = splitting::split_for_a_minute(case, asked("ROUNDS", 4)).await;
    println!(
        "| splits of 60 s | N={} | whole after p50 {:.2} s, p99 {:.2} s |",
        took.len(),
        percentile(&took, 0.5),
        percentile(&took, 0.99)
    );
}

/// From a POST at one of five nodes to the first answer of the new worker through the last of them.
pub(super) async fn added(case: &Case) {
    let fleet = Fleet::started(case, 5, &[]).await;
    let (mut took, mut kept) = (Vec::new(), Vec::new());
    for round in 0..asked("ADDED", 100) {
        let worker = fleet.worker(NAMES[round % NAMES.len()]).await;
        let before = Clock.now();
        let id = fleet.add(round % 5, &json!({"url": worker.url()})).await;
        let name = NAMES[round % NAMES.len()];
        let served =
            (0..5).map(async |at| within("it is served", STARTING, async || fleet.serves(at, name).await).await);
        join_all(served).await;
        took.push(Clock.now() - before);
        fleet.ask(round % 5, "DELETE", &format!("/workers/{id}"), &Value::Null).await.expect("it answers");
        fleet.all_know(&[], STARTING).await;
        kept.push(worker);
    }
    println!(
        "| worker added at one of 5 nodes | N={} | served by all after p50 {:.2} s, p99 {:.2} s |",
        took.len(),
        percentile(&took, 0.5),
        percentile(&took, 0.99)
    );
}

/// A model each, so that no node can serve it from what it knew.
const NAMES: [&str; 4] = ["a1", "a2", "a3", "a4"];

/// From the start of the process to the first `/readiness` that is 200, with forty workers that another node was told of.
pub(super) async fn restarts(case: &Case) {
    let mut fleet = Fleet::started(case, 3, &[]).await;
    let worker = fleet.worker("m").await;
    fleet.add(0, &json!({"url": worker.url()})).await;
    let others = (0..39).map(|it| json!({"url": format!("http://10.66.0.254:{}", 9100 + it), "models": ["m"]}));
    join_all(others.map(async |it| fleet.add(0, &it).await).collect::<Vec<_>>()).await;
    let (mut ready, mut whole) = (Vec::new(), Vec::new());
    for round in 0..asked("RESTARTS", 30) {
        let at = 1 + round % 2;
        fleet.process(at).kill();
        within("it is seen to be down", STARTING, async || {
            fleet.members(0).await.get(&at).is_some_and(|it| it == "down")
        })
        .await;
        let before = Clock.now();
        fleet.start(at, &Start::default());
        within("it is ready", STARTING, async || {
            fleet.ask(at, "GET", "/readiness", &Value::Null).await.is_ok_and(|it| it.0 == 200)
        })
        .await;
        ready.push(Clock.now() - before);
        assert_eq!(fleet.urls(at).await.len(), 40, "it was ready without its workers");
        within("it serves", STARTING, async || fleet.serves(at, "m").await).await;
        whole.push(Clock.now() - before);
    }
    let show = |it: &[Duration]| format!("p50 {:.2} s, p99 {:.2} s", percentile(it, 0.5), percentile(it, 0.99));
    println!("| restart after kill -9 | N={} | ready {}; serving {} |", ready.len(), show(&ready), show(&whole));
}
