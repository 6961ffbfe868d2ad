//! P2: a long split with edits on both sides.

use std::collections::BTreeSet;
use std::time::Duration;

use super::cluster::Cluster;
use super::seeds;
use crate::replication::tables::WORKERS;
use crate::transport::twin::Weather;

const SEEDS: u64 = 5;

#[test]
fn field_15_after_a_long_split_both_sides_have_what_either_was_told_and_nothing_else() {
    let (mut took, all) = (Vec::new(), seeds(SEEDS));
    for seed in all.clone() {
        let mut cluster = Cluster::new(seed, 5, Weather::default());
        cluster.run(Duration::from_secs(4));
        let mut expected = BTreeSet::new();
        for n in 0..6 {
            let url = format!("http://before{n}:1");
            cluster.post(n % 5, &url);
            expected.insert(url);
        }
        cluster.run(Duration::from_secs(2));
        cluster.split(&[0, 1], &[2, 3, 4]);
        for round in 0..60 {
            cluster.run(Duration::from_secs(5));
            let node = cluster.below(5);
            let known = cluster.workers(node);
            match cluster.below(3) {
                0 if known.len() > 2 => {
                    let url = &known[cluster.below(known.len())];
                    cluster.delete(node, url);
                    expected.remove(url);
                }
                1 if !known.is_empty() => {
                    let url = &known[cluster.below(known.len())];
                    cluster.change(node, url, format!("{round}").as_bytes());
                }
                _ => {
                    let url = format!("http://split{round}:1");
                    cluster.post(node, &url);
                    expected.insert(url);
                }
            }
        }
        let sides = [cluster.workers(0), cluster.workers(4)];
        assert_ne!(sides[0], sides[1], "SEED={seed}: the split was felt");
        cluster.twin.heal();
        let is_as_expected =
            |it: &Cluster| it.up().all(|n| it.workers(n).into_iter().collect::<BTreeSet<_>>() == expected);
        let healed = cluster.until(Duration::from_secs(30), is_as_expected);
        let seen: Vec<_> = (0..5).map(|n| cluster.workers(n)).collect();
        took.push(healed.unwrap_or_else(|| panic!("SEED={seed}: {seen:?} is not {expected:?}")));
        cluster.run(Duration::from_secs(30));
        let is_same = |n: usize| cluster.nodes[n].core().admin(WORKERS) == cluster.nodes[0].core().admin(WORKERS);
        assert!(is_as_expected(&cluster) && (0..5).all(is_same), "SEED={seed}: and it stays so");
    }
    took.sort_unstable();
    println!("seeds {all:?}: splits of five minutes, whole after {:?} at most", took.last());
    assert!(took.last() <= Some(&Duration::from_secs(10)), "{took:?}");
}
