//! How long until an edit at one node is in force at all.

use std::time::Duration;

use cluster_tests::lasting;
use futures_util::future::join_all;
use serde_json::Value;
use serde_json::json;
use smg::base::clock::Clock;
use tokio::task::LocalSet;

use super::asked;
use super::percentile;
use crate::ask::Link;
use crate::ask::open;
use crate::case::Case;
use crate::fleet::Fleet;
use crate::load::Clients;

const NODES: usize = 8;

/// Edits one after the other, each at another node, each waited for at all eight, with requests going through every node meanwhile. The clock runs from before the
/// edit is sent to when the last node shows it; answers of the API are what is in force.
pub(super) async fn in_force(case: &Case) {
    let fleet = Fleet::started(case, NODES, &[]).await;
    let worker = fleet.worker("m").await;
    let id = fleet.add(0, &json!({"url": worker.url()})).await;
    fleet.all_serve("m", Duration::from_secs(20)).await;
    let path = format!("/workers/{id}");
    let local = LocalSet::new();
    let (times, answers, served) = local
        .run_until(async {
            let clients: Vec<_> = fleet.nodes.iter().map(|it| Clients::of(it.http)).collect();
            let mut links = Vec::new();
            for node in &fleet.nodes {
                links.push(open(node.http).await.expect("it listens"));
            }
            let (mut times, mut answers) = (Vec::new(), Vec::new());
            for number in 0..asked("EDITS", 3000) {
                let at = case.entropy.below(NODES);
                let before = Clock.now();
                let change = json!({"priority": number + 1}).to_string();
                let (status, answer) = links[at].call("PATCH", &path, &change).await.expect("it answers");
                assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
                answers.push(Clock.now() - before);
                let seen = links.iter_mut().map(async |link| {
                    while !shows(link, &path, number + 1).await {
                        lasting(Duration::from_millis(1)).await;
                    }
                });
                join_all(seen).await;
                times.push(Clock.now() - before);
            }
            let mut served = 0;
            for clients in clients {
                let tally = clients.end().await;
                assert_eq!(tally.failed.get(), 0, "{}", tally.first_failure.borrow());
                served += tally.served.get();
            }
            (times, answers, served)
        })
        .await;
    let show = |it: &[Duration]| {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| percentile(it, share) * 1000.0);
        format!("p50 {p50:.0} ms, p99 {p99:.0} ms, p99.9 {p999:.0} ms, max {:.0} ms", percentile(it, 1.0) * 1000.0)
    };
    println!(
        "| edits, {NODES} nodes, {served} requests meanwhile | N={} | answered {}; in force at all {} |",
        times.len(),
        show(&answers),
        show(&times)
    );
}

async fn shows(link: &mut Link, path: &str, priority: usize) -> bool {
    let answer = link.call("GET", path, "").await.map(|it| it.1).unwrap_or_default();
    serde_json::from_slice::<Value>(&answer).is_ok_and(|it| it["priority"] == priority)
}
