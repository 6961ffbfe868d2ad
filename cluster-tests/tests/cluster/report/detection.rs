//! How long until a killed node is known to be down, and how often one that runs is said to be.

use std::time::Duration;

use cluster_tests::lasting;
use cluster_tests::net::Fault;
use cluster_tests::within;
use smg::base::clock::Clock;

use super::asked;
use super::percentile;
use crate::case::Case;
use crate::fleet::Fleet;
use crate::fleet::STARTING;
use crate::fleet::Start;
use crate::trail::Sighting;
use crate::trail::Trail;
use crate::trail::since;
use crate::trail::time_of_day;

/// A kill that nobody noticed by then counts as this.
const NOTICED_MAX: Duration = Duration::from_secs(30);

/// `NODES=3,8` and `LOSSES=0,0.05` choose; `KILLS` is how many each row has.
pub(super) async fn curve(case: &Case) {
    println!(
        "| nodes | loss | kills | first survivor p50 / p99 | all survivors p50 / p99 | down though running | node-hours |"
    );
    println!("|---|---|---|---|---|---|---|");
    for nodes in list("NODES", "3,5,8,20") {
        for loss in list("LOSSES", "0,0.01,0.05,0.2") {
            row(case, nodes as usize, loss, asked("KILLS", 40)).await;
        }
    }
}

fn list(name: &str, usual: &str) -> Vec<f64> {
    let text = std::env::var(name).unwrap_or_else(|_| usual.to_owned());
    text.split(',').filter_map(|it| it.trim().parse().ok()).collect()
}

async fn row(case: &Case, nodes: usize, loss: f64, kills: usize) {
    let mut fleet = Fleet::started(case, nodes, &[]).await;
    let everybody: Vec<usize> = (0..nodes).collect();
    fleet.lab.switch.between(&everybody, &everybody, Fault::losing(loss));
    let begun = Clock.now();
    let mut trail = Trail::from_now(&fleet);
    let (mut first, mut all, mut wrong) = (Vec::new(), Vec::new(), 0);
    for _ in 0..kills {
        lasting(Duration::from_millis(200 + case.entropy.below(800) as u64)).await;
        let victim = case.entropy.below(nodes);
        wrong += downs(&trail.read(&fleet)).count();
        let killed = time_of_day();
        fleet.process(victim).kill();
        fleet.nodes[victim].process = None;
        let mut seen: Vec<Option<Duration>> = vec![None; nodes];
        let noticed = async {
            while (0..nodes).any(|it| it != victim && seen[it].is_none()) {
                lasting(Duration::from_millis(20)).await;
                for it in downs(&trail.read(&fleet)) {
                    if it.whom == victim {
                        seen[it.by].get_or_insert(since(killed, it.at));
                    } else {
                        wrong += 1;
                    }
                }
            }
        };
        let _ = tokio::time::timeout(NOTICED_MAX, noticed).await; // who did not notice counts with the longest time
        let times = (0..nodes).filter(|it| *it != victim).map(|it| seen[it].unwrap_or(NOTICED_MAX));
        let times: Vec<Duration> = times.collect();
        first.extend(times.iter().min());
        all.extend(times.iter().max());
        fleet.start(victim, &Start::default());
        within("whole again", STARTING * 3, async || {
            let running = fleet.running();
            fleet.sees(victim, &running).await && fleet.sees((victim + 1) % nodes, &running).await
        })
        .await;
    }
    wrong += downs(&trail.read(&fleet)).count();
    let hours = nodes as f64 * (Clock.now() - begun).as_secs_f64() / 3600.0;
    let count = fleet.lab.switch.total();
    case.bites("packets were lost", loss == 0.0 || count.lost > 0);
    println!(
        "| {nodes} | {:.0} % | {kills} | {:.2} / {:.2} s | {:.2} / {:.2} s | {wrong} | {hours:.2} |",
        loss * 100.0,
        percentile(&first, 0.5),
        percentile(&first, 0.99),
        percentile(&all, 0.5),
        percentile(&all, 0.99),
    );
}

fn downs(seen: &[Sighting]) -> impl Iterator<Item = &Sighting> {
    seen.iter().filter(|it| it.status == "down")
}
