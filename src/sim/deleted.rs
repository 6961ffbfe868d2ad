//! P2: what was deleted stays deleted, and what was changed stays changed. By name, the runs that DESIGN 5 was written against.

use std::time::Duration;

use super::cluster::Cluster;
use super::fleet::PRIORITY;
use super::seeds;
use crate::replication::tables::WORKERS;
use crate::transport::twin::Weather;

const SEEDS: u64 = 20;
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
const GPU: &str = "http://gpu1:8000";

fn weather(seed: u64) -> Weather {
    let loss = if seed.is_multiple_of(2) { 0.0 } else { 0.05 };
    Weather { loss, duplicates: loss / 2.0, ..Weather::default() }
}

/// Three nodes that know each other; the first one's flag names the worker.
fn flagged(seed: u64) -> Cluster {
    let mut cluster = Cluster::new(seed, 3, weather(seed));
    cluster.run(Duration::from_secs(3));
    cluster.flag(0, &[GPU]);
    cluster.until(Duration::from_secs(3), |it| it.is_at_all(GPU)).expect("the flag is heard everywhere");
    cluster
}

/// Its node comes back and its flag says the same again.
fn restart_with_its_flag(cluster: &mut Cluster, node: usize, after: Duration) {
    cluster.crash(node);
    let disk = cluster.nodes[node].disk.clone();
    cluster.restart_after(after, node, disk, 0, false);
    cluster.run(after + Duration::from_millis(1));
    cluster.flag(node, &[GPU]);
}

#[test]
fn field_12_a_deleted_worker_does_not_come_back_with_the_node_whose_flag_names_it() {
    for seed in seeds(SEEDS) {
        let mut cluster = flagged(seed);
        let deleter = 1 + cluster.below(2);
        let request = cluster.delete(deleter, GPU);
        let took = cluster.until(Duration::from_secs(1), |it| it.is_at_none(GPU));
        assert!(took.is_some(), "SEED={seed}: not gone within a second");
        cluster.until(Duration::from_secs(3), |it| it.nodes[deleter].answers.contains_key(&request)).expect("answered");
        for _ in 0..3 {
            restart_with_its_flag(&mut cluster, 0, Duration::from_millis(500));
            for _ in 0..80 {
                cluster.run(Duration::from_millis(100));
                assert!(cluster.is_at_none(GPU), "SEED={seed}: it came back");
            }
        }
        // Only a person brings it back.
        let poster = cluster.below(3);
        cluster.post(poster, GPU);
        assert!(cluster.until(Duration::from_secs(1), |it| it.is_at_all(GPU)).is_some(), "SEED={seed}: not back");
    }
}

#[test]
fn field_12_a_worker_does_not_die_with_the_node_whose_flag_named_it() {
    for seed in seeds(SEEDS / 4) {
        let mut cluster = flagged(seed);
        cluster.crash(0);
        cluster.run(Duration::from_secs(60));
        assert!(cluster.up().all(|it| cluster.nodes[it].is_ready()) && cluster.is_at_all(GPU), "SEED={seed}");
    }
}

#[test]
fn field_12_an_edit_that_races_a_delete_ends_the_same_everywhere_and_revives_nothing() {
    for seed in seeds(10 * SEEDS) {
        let mut cluster = Cluster::new(seed, 3, weather(seed));
        cluster.run(Duration::from_secs(2));
        cluster.post(0, GPU);
        cluster.until(Duration::from_secs(3), |it| it.is_at_all(GPU)).expect("heard everywhere");
        if seed.is_multiple_of(3) {
            // Neither hears of the other's until much later, and one clock is wrong besides.
            cluster.split(&[0], &[1, 2]);
            cluster.nodes[0].clock_ms = 45_000;
        }
        for round in 0..5_u8 {
            let pause = cluster.below(30) as u64;
            cluster.run(Duration::from_millis(pause));
            cluster.change(0, GPU, &[round]);
            if round == 2 {
                cluster.delete(1, GPU);
            }
        }
        cluster.run(Duration::from_secs(2));
        cluster.twin.heal();
        let is_same =
            |it: &Cluster| it.up().all(|n| it.nodes[n].core().admin(WORKERS) == it.nodes[0].core().admin(WORKERS));
        assert!(cluster.until(Duration::from_secs(20), is_same).is_some(), "SEED={seed}: they differ");
        assert!(cluster.is_at_none(GPU), "SEED={seed}: an edit brought it back");
    }
}

#[test]
fn field_12_a_node_that_was_away_for_a_week_brings_nothing_back_and_loses_nothing() {
    for seed in seeds(SEEDS / 2) {
        let mut cluster = flagged(seed);
        cluster.post(1, "http://kept:1");
        cluster.post(1, "http://gone:1");
        cluster.until(Duration::from_secs(3), |it| it.is_at_all("http://gone:1")).expect("heard everywhere");
        let is_cut_off = seed.is_multiple_of(2);
        if is_cut_off {
            cluster.split(&[2], &[0, 1]);
        } else {
            cluster.crash(2);
        }
        cluster.run(Duration::from_secs(30));
        cluster.delete(0, "http://gone:1");
        cluster.delete(0, GPU);
        cluster.change(1, "http://kept:1", b"later");
        cluster.post(1, "http://new:1");
        // Whoever runs meanwhile is idle: a week of nothing is skipped, its timers are not.
        cluster.run(Duration::from_secs(30));
        cluster.skip(WEEK);
        if is_cut_off {
            cluster.twin.heal();
        } else {
            let disk = cluster.nodes[2].disk.clone();
            cluster.restart_after(Duration::ZERO, 2, disk, 0, false);
        }
        let is_right = |it: &Cluster| {
            it.up().count() == 3
                && ["http://kept:1", "http://new:1"].iter().all(|url| it.is_at_all(url))
                && ["http://gone:1", GPU].iter().all(|url| it.is_at_none(url))
        };
        let took = cluster.until(Duration::from_secs(60), is_right);
        assert!(took.is_some(), "SEED={seed}: {:?}", cluster.up().map(|n| cluster.workers(n)).collect::<Vec<_>>());
        cluster.run(Duration::from_secs(10));
        assert!(is_right(&cluster), "SEED={seed}: and it stays so");
        let priority = |n: usize| {
            let admin = cluster.nodes[n].core().admin(WORKERS)?;
            let fields = admin.entries().filter_map(|(_, entry)| entry.fields.get(&PRIORITY));
            Some(fields.filter(|it| it.bytes == b"later").count())
        };
        assert!((0..3).all(|n| priority(n) == Some(1)), "SEED={seed}: the edit of the week is everywhere");
    }
}

#[test]
fn an_edit_is_in_force_everywhere_within_a_second_whichever_packets_are_lost() {
    let (mut took, all) = (Vec::new(), seeds(SEEDS));
    for seed in all.clone() {
        let mut cluster = Cluster::new(seed, 8, weather(seed));
        cluster.run(Duration::from_secs(5));
        for n in 0..25 {
            let url = format!("http://gpu{n}:1");
            let node = cluster.below(8);
            cluster.post(node, &url);
            let begun = cluster.now;
            while !cluster.is_at_all(&url) {
                cluster.run(Duration::from_millis(1));
                assert!(cluster.now - begun < Duration::from_secs(60), "SEED={seed}: never");
            }
            took.push(cluster.now - begun);
        }
    }
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    println!(
        "seeds {all:?}: {} edits at 8 nodes, everywhere after p50 {:?}, p99 {:?}, p99.9 {:?}",
        took.len(),
        at(0.5),
        at(0.99),
        at(0.999)
    );
    assert!(at(0.999) <= Duration::from_secs(1), "{:?}", at(0.999));
}
