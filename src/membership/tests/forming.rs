//! Nodes that start find each other, whatever the order, the loss and the names.

use std::time::Duration;

use super::addr;
use super::sim::Sim;
use super::sim::percentile;
use super::sim::seeds;
use crate::base::entropy::Entropy;
use crate::transport::twin::Weather;

const LOSSY: Weather = Weather {
    loss: 0.05,
    duplicates: 0.01,
    delay_min: Duration::from_micros(200),
    delay_max: Duration::from_millis(3),
};

/// Five nodes started in a random order within two seconds.
fn form(seed: u64) -> (Sim, Option<Duration>) {
    let (mut sim, entropy) = (Sim::new(seed, 5, LOSSY), Entropy::seeded(seed ^ 0xF0));
    let mut waiting: Vec<_> = (0..5).collect();
    while !waiting.is_empty() {
        let node = waiting.swap_remove(entropy.below(waiting.len()));
        sim.start(node);
        sim.run(Duration::from_millis(entropy.below(500) as u64));
    }
    let took = sim.until(Duration::from_secs(30), Sim::is_formed);
    (sim, took)
}

#[test]
fn five_nodes_form_in_any_order_though_every_twentieth_packet_is_lost() {
    let (mut times, mut lost) = (Vec::new(), 0);
    for seed in seeds(100) {
        let (sim, took) = form(seed);
        times.push(took.unwrap_or_else(|| panic!("seed {seed}: not formed")));
        lost += sim.twin.counts().1;
    }
    assert!(lost > 100, "packets were lost: {lost}");
    let (p50, p99) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
    println!("formed after the last start: {} of {} runs, p50 {p50:?}, p99 {p99:?}", times.len(), times.len());
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = |seed| {
        let (mut sim, _) = form(seed);
        sim.kill(2);
        sim.run(Duration::from_secs(5));
        (sim.trace(), sim.packets, sim.bytes)
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3).0, run(4).0);
}

#[test]
fn a_name_may_stand_for_several_addresses_this_node_and_nobody() {
    let mut sim = Sim::new(1, 4, Weather::default());
    // One name for all of them, one more where nobody ever was.
    let name: Vec<_> = (0..4).map(addr).chain([addr(99)]).collect();
    (0..4).for_each(|n| sim.seeds(n, name.clone()));
    (0..4).for_each(|n| sim.start(n));
    let took = sim.until(Duration::from_secs(5), Sim::is_formed).expect("formed");
    println!("four nodes behind one name: {took:?}");
    sim.run(Duration::from_secs(30));
    let quiet = sim.twin.counts().0;
    sim.run(Duration::from_secs(60));
    let per_second = (sim.twin.counts().0 - quiet) / 60 / 4;
    assert!(per_second < 30, "an address without a node is not a storm: {per_second} packets a second and node");
}

#[test]
fn nodes_that_know_only_one_of_them_find_all() {
    let mut sim = Sim::new(1, 5, LOSSY);
    (0..5).for_each(|n| sim.seeds(n, vec![addr(0)]));
    (0..5).rev().for_each(|n| sim.start(n));
    sim.until(Duration::from_secs(10), Sim::is_formed).expect("formed");
    // The only seed may go and come back as another life, elsewhere nothing is lost.
    sim.kill(0);
    sim.run(Duration::from_secs(10));
    sim.start(0);
    sim.until(Duration::from_secs(10), Sim::is_formed).expect("formed again");
}

#[test]
fn twenty_nodes_form_and_stay_quiet() {
    let mut sim = Sim::new(1, 20, LOSSY);
    (0..20).for_each(|n| sim.start(n));
    let took = sim.until(Duration::from_secs(20), Sim::is_formed).expect("formed");
    sim.run(Duration::from_secs(20));
    let (packets, bytes) = (sim.packets, sim.bytes);
    sim.run(Duration::from_secs(20));
    let per_node = |n: u64| n / 20 / 20;
    println!(
        "20 nodes: formed in {took:?}; then {} packets and {} bytes a second and node",
        per_node(sim.packets - packets),
        per_node(sim.bytes - bytes)
    );
    assert!(per_node(sim.bytes - bytes) < 20_000);
    assert_eq!(sim.false_downs, []);
}
