//! What a node holds for limits, and what it does with more of them than it knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster_tests::Scrape;
use cluster_tests::lasting;
use cluster_tests::within;
use smg::limits::Definition;
use smg::limits::Kind;
use smg::limits::LimitId;
use smg::limits::core::Answer;

use crate::nodes;

/// Limits that are defined, one number after the other.
const STEPS: [u64; 4] = [1, 8_192, 16_384, 100_000];
/// As many divisions as there are come one after the other, with two fsyncs each.
const SETTLED: Duration = Duration::from_secs(600);

pub(crate) async fn run() {
    let nodes = nodes::start::<1>().await;
    let node = &nodes[0].node;
    let metrics = node.metrics_address.expect("metrics are served");
    within("it leads", Duration::from_secs(60), async || {
        Scrape::of(metrics).await.value("smg_control_is_leader") == 1.0
    })
    .await;
    let idle = resident();
    println!("RSS of this process with one idle node: {idle:.1} MB");
    for count in STEPS {
        let definition =
            |n| Definition { limit: LimitId(n), revision: 1, kind: Kind::Requests, window_ms: 1_000, units: 100 };
        let definitions: Arc<[Definition]> = (1..=count).map(definition).collect();
        drop(node.definitions.send_replace(definitions));
        let mut before = -1.0;
        within("nothing new is divided", SETTLED, async || {
            lasting(Duration::from_secs(5)).await;
            let known = Scrape::of(metrics).await.value("smg_limits_known");
            std::mem::replace(&mut before, known) == known && known > 0.0
        })
        .await;
        let mut answers: BTreeMap<String, u64> = BTreeMap::new();
        for limit in (1..=count).map(LimitId) {
            let answer = match node.limits.take(limit, 1).await {
                Answer::Admitted(_) => "admitted".to_owned(),
                Answer::Open => "let through, not counted".to_owned(),
                Answer::Refused(why) => why.to_string().split(':').next().unwrap_or_default().to_owned(),
            };
            *answers.entry(answer).or_default() += 1;
        }
        let scrape = Scrape::of(metrics).await;
        println!("{count} limits are defined: {before} known, RSS {:.1} MB, {:+.1}", resident(), resident() - idle);
        println!("  one unit of each is wanted: {answers:?}");
        for name in ["known", "unusable", "ignored_total", "proposals_total"].map(|it| format!("smg_limits_{it}")) {
            println!("  {name} {}", scrape.sum(&name));
        }
    }
}

/// Memory of this process in megabytes.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"));
    line.and_then(|it| it.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
