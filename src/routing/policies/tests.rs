//! Claims about the single policies. `cache_aware` has its own in `routing/tests.rs`.

use std::collections::HashMap;

use super::POLICIES;
use super::PolicyName;
use crate::base::setting::Setting;
use crate::routing::Config;
use crate::routing::Reason;
use crate::routing::config::AssignmentMode;
use crate::routing::fixture::Bench;
use crate::routing::fixture::Fleet;
use crate::routing::fixture::Want;
use crate::routing::fixture::prose;

fn counts(bench: &Bench, fleet: &Fleet, wants: impl IntoIterator<Item = String>) -> HashMap<u64, u32> {
    let mut counts = HashMap::new();
    for text in wants {
        *counts.entry(bench.send(&Want::text(&text), fleet)).or_default() += 1;
    }
    counts
}

#[test]
fn names_are_distinct_and_survive_being_shown() {
    for entry in POLICIES {
        let name = <PolicyName as Setting>::parse(entry.name).expect("known");
        assert_eq!((name.entry().name, Setting::render(&name)), (entry.name, entry.name.to_owned()));
    }
    assert_eq!(PolicyName::DEFAULT.as_str(), "cache_aware");
}

#[test]
fn every_policy_works_without_prompt_key_or_load() {
    for entry in POLICIES {
        let (bench, fleet) = (Bench::new(entry.name), Fleet::new(20));
        for n in 0..50 {
            let route = bench.choose(&Want::len(n * 1_000), &fleet).expect("a worker");
            assert_eq!(route.policy, entry.name);
        }
    }
}

#[test]
fn no_policy_starves_a_worker_of_an_idle_fleet_of_different_requests() {
    for entry in POLICIES {
        let (bench, fleet) = (Bench::new(entry.name), Fleet::new(6));
        // Lengths differ, so that all bands are used.
        let texts = (0..900).map(|n| prose(n, 300 + (n as usize * 7_919) % 9_000));
        let counts = counts(&bench, &fleet, texts);
        assert_eq!(counts.len(), 6, "{}: {counts:?}", entry.name);
    }
}

#[test]
fn round_robin_gives_the_neighbour_of_a_dead_worker_no_more_than_its_share() {
    let (bench, mut fleet) = (Bench::new("round_robin"), Fleet::new(4));
    fleet.worker(2).available = false;
    let counts = counts(&bench, &fleet, (0..300).map(|n| prose(n, 10)));
    assert_eq!(counts, HashMap::from([(1, 100), (3, 100), (4, 100)]));
}

#[test]
fn random_is_even() {
    let (bench, mut fleet) = (Bench::new("random"), Fleet::new(10));
    fleet.worker(4).available = false;
    let counts = counts(&bench, &fleet, (0..9_000).map(|_| String::from("x")));
    assert!(counts.len() == 9 && counts.values().all(|it| (850..1_150).contains(it)), "{counts:?}");
}

#[test]
fn power_of_two_avoids_the_loaded_half() {
    let (bench, mut fleet) = (Bench::new("power_of_two"), Fleet::new(10));
    (1..=5).for_each(|id| fleet.worker(id).inflight = 20);
    let counts = counts(&bench, &fleet, (0..1_000).map(|_| String::from("x")));
    let loaded: u32 = (1..=5).filter_map(|id| counts.get(&id)).sum();
    assert!((150..300).contains(&loaded), "both of two are loaded in 22 %: {loaded}");
}

#[test]
fn power_of_two_counts_queued_tokens_at_the_workers_own_rate() {
    let (bench, mut fleet) = (Bench::new("power_of_two"), Fleet::new(2));
    (fleet.worker(1).queued_prefill_tokens, fleet.worker(2).queued_prefill_tokens) = (10_000, 15_000);
    assert!((0..20).all(|_| bench.send(&Want::text("x"), &fleet) == 1));
    fleet.worker(2).relative_prefill_rate = 2.0;
    assert!((0..20).all(|_| bench.send(&Want::text("x"), &fleet) == 2));
}

#[test]
fn cache_aware_leaves_a_fast_worker_for_a_slow_one_when_its_queue_takes_longer() {
    let (bench, mut fleet) = (Bench::new("cache_aware"), Fleet::new(2));
    (fleet.worker(1).relative_prefill_rate, fleet.worker(2).relative_prefill_rate) = (1.6, 0.4);
    let prompt = |n| prose(n, 16_000); // about 4,000 tokens: 2,500 of the fast one's time, 10,000 of the slow one's
    fleet.worker(1).queued_prefill_tokens = 8_000;
    assert_eq!(bench.send(&Want::text(&prompt(1)), &fleet), 1, "5,000 and its own 2,500 are sooner");
    fleet.worker(1).queued_prefill_tokens = 16_000;
    assert_eq!(bench.send(&Want::text(&prompt(2)), &fleet), 2, "10,000 and its own 2,500 are later");
}

#[test]
fn a_key_stays_on_its_ring_place_and_a_lost_worker_moves_only_its_own() {
    let (bench, mut fleet) = (Bench::new("consistent_hashing"), Fleet::new(10));
    let keys: Vec<String> = (0..500).map(|n| format!("session-{n}")).collect();
    let place = |fleet: &Fleet| keys.iter().map(|it| bench.send(&Want::key(it), fleet)).collect::<Vec<_>>();
    let before = place(&fleet);
    assert_eq!(place(&fleet), before);
    fleet.remove(7);
    for (was, is) in before.iter().zip(place(&fleet)) {
        assert!(*was == is || *was == 7, "{was} moved to {is}");
    }
}

#[test]
fn two_nodes_agree_on_the_ring() {
    let fleet = Fleet::new(40);
    for policy in ["consistent_hashing", "prefix_hash"] {
        let (here, there) = (Bench::new(policy), Bench::new(policy));
        (0..30).for_each(|_| drop(there.choose(&Want::len(1), &fleet))); // other draws
        for n in 0..50 {
            let text = prose(n, 500);
            assert_eq!(here.send(&Want::text(&text), &fleet), there.send(&Want::text(&text), &fleet));
        }
    }
}

#[test]
fn one_hot_key_spills_to_the_next_on_the_ring_when_its_worker_is_over_its_share() {
    for policy in ["consistent_hashing", "prefix_hash"] {
        let (bench, mut fleet) = (Bench::new(policy), Fleet::new(4));
        let system = prose(1, 1_500);
        let want = Want { key: (policy == "consistent_hashing").then_some("hot"), ..Want::text(&system) };
        for _ in 0..400 {
            let worker = bench.send(&want, &fleet);
            fleet.worker(worker).inflight += 1;
        }
        let most = fleet.workers.iter().map(|it| it.inflight).max();
        assert!(most <= Some(127), "no worker has more than 1.25 times its share: {most:?}");
    }
}

#[test]
fn a_ring_of_another_set_of_workers_harms_nobody() {
    let (bench, here) = (Bench::new("consistent_hashing"), Fleet::new(4));
    let mut there = Fleet::new(8);
    there.workers.drain(..4);
    for n in 0..100 {
        let (key, fleet) = (n.to_string(), if n % 2 == 0 { &here } else { &there });
        let chosen = bench.send(&Want::key(&key), fleet);
        assert!(fleet.workers.iter().any(|it| it.worker.0 == chosen), "{chosen}");
    }
}

#[test]
fn prefix_hash_looks_at_the_beginning_only() {
    let (bench, fleet) = (Bench::new("prefix_hash"), Fleet::new(16));
    let head = prose(1, 1_200);
    let home = bench.send(&Want::text(&head), &fleet);
    assert!((0..20).all(|n| bench.send(&Want::text(&format!("{head}{}", prose(n, 900))), &fleet) == home));
}

#[test]
fn a_credential_is_never_a_key() {
    let (bench, fleet) = (Bench::new("consistent_hashing"), Fleet::new(8));
    let counts = counts(&bench, &fleet, (0..200).map(|n| prose(n, 400)));
    assert!(counts.len() == 8, "one tenant's requests use the whole fleet: {counts:?}");
}

#[test]
fn manual_keeps_a_key_and_binds_it_again_for_good_when_its_worker_is_gone_or_out() {
    let (bench, mut fleet) = (Bench::new("manual"), Fleet::new(5));
    let home = bench.send(&Want::key("a"), &fleet);
    assert!((0..30).all(|_| bench.send(&Want::key("a"), &fleet) == home));
    fleet.worker(home).available = false;
    let second = bench.choose(&Want::key("a"), &fleet).expect("a worker");
    assert_eq!((second.reason, second.worker.0 == home), (Reason::Assigned, false));
    fleet.worker(home).available = true;
    let third = bench.choose(&Want::key("a"), &fleet).expect("a worker");
    assert_eq!((third.reason, third.worker), (Reason::Bound, second.worker));
    fleet.remove(third.worker.0);
    let fourth = bench.choose(&Want::key("a"), &fleet).expect("a worker");
    assert!(fourth.reason == Reason::Assigned && fourth.worker != third.worker);
    assert_eq!(bench.choose(&Want::text("no key"), &fleet).expect("a worker").reason, Reason::Assigned);
}

#[test]
fn manual_keys_are_bounded_and_idle_ones_are_forgotten() {
    let policy = PolicyName::parse("manual").expect("known");
    let config = Config { policy, manual_keys_max: 1_000, ..Config::default() };
    let mut registry = crate::observability::metrics::Registry::default();
    let (mut bench, fleet) = (Bench::with(config), Fleet::new(50));
    bench.router = bench.router.with_metrics(crate::routing::Metrics::register(&mut registry));
    bench.send(&Want::key("kept"), &fleet);
    for n in 0..5_000 {
        bench.send(&Want::key(&format!("key-{n}")), &fleet);
        assert_eq!(bench.choose(&Want::key("kept"), &fleet).expect("a worker").reason, Reason::Bound, "in use at {n}");
    }
    let text = registry.render();
    let keys = text.lines().find_map(|line| line.strip_prefix("smg_manual_policy_cache_entries ")).expect("shown");
    assert!(keys.parse::<u32>().is_ok_and(|keys| (500..=1_000).contains(&keys)), "{keys}");
    bench.pass(14_401);
    assert_eq!(bench.choose(&Want::key("kept"), &fleet).expect("a worker").reason, Reason::Assigned);
}

#[test]
fn manual_can_assign_by_load() {
    let policy = PolicyName::parse("manual").expect("known");
    let bench = Bench::with(Config { policy, assignment_mode: AssignmentMode::MinLoad, ..Config::default() });
    let mut fleet = Fleet::new(2);
    fleet.worker(1).inflight = 9;
    assert!((0..30).all(|n| bench.send(&Want::key(&n.to_string()), &fleet) == 2));
}

#[test]
fn bucket_learns_bands_of_equal_work() {
    let (bench, fleet) = (Bench::new("bucket"), Fleet::new(4));
    let lengths = |n: usize| 1_000 + (n * 7_919) % 100_000;
    let mut work: HashMap<u64, usize> = HashMap::new();
    let mut longest: HashMap<u64, usize> = HashMap::new();
    for n in 0..4_000 {
        let worker = bench.send(&Want::len(lengths(n)), &fleet);
        if n >= 1_000 {
            *work.entry(worker).or_default() += lengths(n);
            let known = longest.entry(worker).or_default();
            *known = lengths(n).max(*known);
        }
    }
    let total: usize = work.values().sum();
    assert!(work.values().all(|it| (total / 5..total / 3).contains(it)), "{work:?}");
    assert!(longest[&1] < longest[&2] && longest[&2] < longest[&3] && longest[&3] < longest[&4], "{longest:?}");
}

#[test]
fn bucket_shares_a_load_of_equal_lengths() {
    let (bench, fleet) = (Bench::new("bucket"), Fleet::new(4));
    (0..200).for_each(|_| drop(bench.choose(&Want::len(5_000), &fleet)));
    let mut counts: HashMap<u64, u32> = HashMap::new();
    (0..400).for_each(|_| *counts.entry(bench.send(&Want::len(5_000), &fleet)).or_default() += 1);
    assert!(counts.len() == 4 && counts.values().all(|it| *it > 50), "{counts:?}");
}

#[test]
fn bucket_spills_to_the_neighbour_while_a_band_is_down() {
    let (bench, mut fleet) = (Bench::new("bucket"), Fleet::new(4));
    let home = bench.choose(&Want::len(100), &fleet).expect("a worker");
    assert_eq!((home.worker.0, home.reason), (1, Reason::Band));
    fleet.worker(1).available = false;
    let spilled = bench.choose(&Want::len(100), &fleet).expect("a worker");
    assert_eq!((spilled.worker.0, spilled.reason), (2, Reason::BandSpill));
}
