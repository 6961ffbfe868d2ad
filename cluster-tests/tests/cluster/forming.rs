//! Nodes that start in any order become one cluster.

use std::time::Duration;

use super::case::Case;
use super::fleet::Fleet;
use super::fleet::STARTING;
use super::fleet::Start;

/// Three, five and eight nodes, each started in an order drawn from the seed; the node that all others name as their only seed comes last.
pub(crate) async fn in_any_order(case: &Case) {
    for size in [3, 5, 8] {
        let mut fleet = Fleet::new(case, size);
        let mut order = case.shuffled(size);
        let seed = order.pop().expect("there are some");
        let only = Start { seeds: Some(vec![fleet.nodes[seed].mesh.to_string()]), ..Start::default() };
        for at in &order {
            fleet.start(*at, &only);
        }
        cluster_tests::within("they run, each alone", STARTING, async || {
            for at in &order {
                if !fleet.sees(*at, &[*at]).await {
                    return false;
                }
            }
            true
        })
        .await;
        case.did(format_args!("{size} nodes, started {order:?}, then their only seed {seed}"));
        fleet.start(seed, &only);
        let took = fleet.whole(STARTING).await;
        case.figure(format_args!("{size} nodes {:.2} s after the seed", took.as_secs_f64()));
        fleet.check_alive();
    }
}

/// Seeds are names, which stand for nothing until everybody runs.
pub(crate) async fn by_name(case: &Case) {
    let mut fleet = Fleet::new(case, 3);
    let hosts = fleet.directory.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost\n").expect("is written");
    let seeds = vec!["gateway-a:30001".to_owned(), "gateway-b:30001".to_owned()];
    for at in 0..3 {
        fleet.start(at, &Start { seeds: Some(seeds.clone()), hosts: Some(hosts.clone()), ..Start::default() });
    }
    for at in 0..3 {
        cluster_tests::within("they run, each alone", STARTING, async || fleet.sees(at, &[at]).await).await;
    }
    case.bites("nobody is found without names", fleet.sees(0, &[0]).await);
    let known = format!(
        "127.0.0.1 localhost\n{} gateway-a\n{} gateway-b\n",
        fleet.nodes[0].mesh.ip(),
        fleet.nodes[1].mesh.ip()
    );
    std::fs::write(&hosts, known).expect("is written");
    case.did("the seeds' names got addresses");
    let took = fleet.whole(STARTING).await;
    case.figure(format_args!("whole {:.2} s after that", took.as_secs_f64()));
    assert!(took < Duration::from_secs(13), "names are looked up every ten seconds");
}
