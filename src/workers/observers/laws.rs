//! The laws of the core: whose word counts, for how long, and that one odd voice is never enough.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::core::Core;
use super::core::Counts;
use super::core::OBSERVERS;
use super::core::Sight;
use super::core::memory;
use crate::base::clock::Instant;
use crate::base::ids::ModelId;
use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;
use crate::workers::detect::Engine;
use crate::workers::detect::ServedModel;
use crate::workers::health::Probe;
use crate::workers::health::Word;
use crate::workers::registry::Facts;

const INTERVAL: Duration = Duration::from_secs(5);
const AWAY_MAX: Duration = Duration::from_secs(600);
const WORKER: WorkerId = WorkerId(7);
const ME: StorageId = StorageId(0);

fn sight(is_down: bool) -> Sight {
    let last = if is_down { Probe::TimedOut } else { Probe::Ok };
    let succeeded_ago = (!is_down).then_some(Duration::ZERO);
    let failures = u32::from(is_down) * 3;
    Sight { is_down, last, failures, succeeded_ago, restarted_ago: None, interval: INTERVAL, facts: Facts::default() }
}

fn core(members: u128) -> (Core, Instant) {
    let mut core = Core::new(ME, AWAY_MAX);
    core.members((0..members).map(StorageId));
    (core, Instant::now() + Duration::from_secs(10_000))
}

/// One thing that arrives: from whom, whether it says down, how old it is, how long to wait before it.
type Arrival = (u128, bool, u64, u64);

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    proptest::collection::vec((0..7u128, any::<bool>(), 0..30_000u64, 0..8_000u64), 0..40)
}

proptest! {
    /// The oracle keeps the last word of each node with the time it was true, and counts by hand.
    #[test]
    fn only_fresh_sights_of_members_count_and_doubt_takes_two_and_a_majority(arrivals in arrivals(), here in 1..7u128) {
        let (mut core, mut now) = core(here);
        let mut last: BTreeMap<u128, (Instant, bool)> = BTreeMap::new();
        for (by, is_down, age, wait) in arrivals {
            now += Duration::from_millis(wait);
            let age = Duration::from_millis(age);
            core.observe(now, StorageId(by), WORKER, age, sight(is_down));
            if last.get(&by).is_none_or(|it| it.0 <= now - age) {
                last.insert(by, (now - age, is_down));
            }
            let fresh = last.iter().filter(|(by, (at, _))| **by < here && now < *at + memory(INTERVAL));
            let votes: Vec<bool> = fresh.map(|(_, (_, is_down))| *is_down).collect();
            let down = votes.iter().filter(|it| **it).count();
            let word = core.word(now, WORKER);
            prop_assert_eq!(word.doubted_until.is_some(), down >= 2 && down * 2 > votes.len(), "{:?}", votes);
            prop_assert_eq!(word.vouched_until.is_some(), word.doubted_until.is_none() && down < votes.len());
            prop_assert!([word.doubted_until, word.vouched_until].iter().flatten().all(|until| *until > now));
            // Doubt ends by itself, at its time and not before.
            if let Some(until) = word.doubted_until {
                prop_assert!(core.word(until, WORKER).doubted_until.is_none());
                prop_assert!(core.word(until - Duration::from_millis(1), WORKER).doubted_until.is_some());
            }
        }
        let before = now - Duration::from_secs(1000);
        prop_assert_eq!(core.word(before, WORKER), Word::default(), "what is later than now does not count");
    }

    /// Whatever one node says, how often, and however long it says it is good for.
    #[test]
    fn one_odd_observer_alone_never_casts_doubt(
        said in proptest::collection::vec((any::<bool>(), 0..10_000u64, 0..100_000u64), 1..50), here in 1..7u128,
    ) {
        let (mut core, mut now) = core(here);
        for (is_down, interval, wait) in said {
            now += Duration::from_millis(wait);
            let odd = Sight { interval: Duration::from_secs(interval), ..sight(is_down) };
            core.observe(now, StorageId(here - 1), WORKER, Duration::ZERO, odd);
            prop_assert!(core.word(now, WORKER).doubted_until.is_none());
        }
    }

    /// Three observers of a healthy worker, each telling what it sees in its turn. One sleeps for any time; before it sleeps or after it wakes it
    /// may see anything. The reader may be the one that slept.
    #[test]
    fn an_observer_that_was_paused_takes_no_healthy_worker_out(
        sleeper in 0..3u128, from in 0..40u64, length in 1..400u64, sees in any::<[bool; 2]>(), reader_sleeps in any::<bool>(),
    ) {
        let (mut core, start) = core(3);
        let is_asleep = |n: u64| (from..from + length).contains(&n);
        for n in 0..500u64 {
            let now = start + Duration::from_secs(n);
            for by in (0..3u128).filter(|by| (n + *by as u64).is_multiple_of(5)) {
                if by == sleeper && is_asleep(n) {
                    continue;
                }
                let is_odd = by == sleeper && ((sees[0] && n + 5 >= from && n < from) || (sees[1] && n >= from + length && n < from + length + 5));
                core.observe(now, StorageId(by), WORKER, Duration::ZERO, sight(is_odd));
            }
            if !(reader_sleeps && is_asleep(n)) {
                prop_assert!(core.word(now, WORKER).doubted_until.is_none(), "after {n} s");
            }
        }
    }

    #[test]
    fn every_worker_has_three_observers_or_all_and_nobody_else_moves_when_one_leaves(
        members in proptest::collection::btree_set(1..1000u128, 1..12), worker in any::<u64>(), via in proptest::option::of(0..12usize),
    ) {
        let all: Vec<StorageId> = members.iter().copied().map(StorageId).collect();
        let (mut core, worker) = (Core::new(all[0], AWAY_MAX), WorkerId(worker));
        let via = via.and_then(|n| all.get(n).copied());
        core.members(all.iter().copied());
        let before: BTreeSet<_> = core.observers(worker, via).into_iter().collect();
        prop_assert_eq!(before.len(), all.len().min(OBSERVERS));
        prop_assert!(via.is_none_or(|owner| before.contains(&owner)), "its owner always looks");
        for gone in &all[1..] {
            core.members(all.iter().copied().filter(|it| it != gone));
            let after: BTreeSet<_> = core.observers(worker, via).into_iter().collect();
            prop_assert!(before.iter().filter(|it| *it != gone).all(|it| after.contains(it)), "who stays goes on");
        }
    }
}

#[test]
fn observing_is_shared_out() {
    let (core, _) = core(10);
    let mut each: BTreeMap<StorageId, usize> = BTreeMap::new();
    for worker in 0..1000 {
        core.observers(WorkerId(worker), None).into_iter().for_each(|it| *each.entry(it).or_default() += 1);
    }
    assert!(each.len() == 10 && each.values().all(|it| (220..=380).contains(it)), "{each:?}");
}

#[test]
fn what_a_member_took_back_or_that_is_gone_counts_no_longer() {
    let (mut core, now) = core(3);
    for by in [1, 2] {
        core.observe(now, StorageId(by), WORKER, Duration::ZERO, sight(true));
    }
    assert!(core.word(now, WORKER).doubted_until.is_some());
    core.members([StorageId(1)]);
    assert_eq!(core.word(now, WORKER), Word::default(), "the second one died");
    core.members([StorageId(1), StorageId(2)]);
    core.forget(StorageId(1), WORKER);
    assert_eq!(core.word(now, WORKER), Word::default());
    assert_eq!(core.forget_all(StorageId(2)), [WORKER]);
    assert_eq!(core.counts(now), Counts::default());
}

#[test]
fn what_a_worker_serves_is_taken_from_the_newest_who_reaches_it() {
    let (mut core, now) = core(4);
    let serving = |model: &str, is_down| {
        let models = vec![ServedModel { id: ModelId::parse(model).expect("a model"), context_len: None }];
        Sight { facts: Facts { engine: Engine::Vllm, models }, ..sight(is_down) }
    };
    let second = Duration::from_secs(1);
    core.observe(now, StorageId(1), WORKER, second * 2, serving("older", false));
    core.observe(now, StorageId(2), WORKER, second, serving("newer", false));
    core.observe(now, StorageId(3), WORKER, Duration::ZERO, serving("of one that cannot know", true));
    assert_eq!(core.facts(now, WORKER).map(|it| it.models[0].id.to_string()), Some("newer".to_owned()));
    assert_eq!(core.facts(now + second * 60, WORKER), None);
}

#[test]
fn a_worker_is_dead_once_nobody_has_reached_it_for_as_long_as_it_may_be_away() {
    let (mut core, now) = core(3);
    assert!(!core.is_dead(now, WORKER), "nothing is known of it yet");
    assert!(!core.is_dead(now + AWAY_MAX, WORKER));
    let later = now + AWAY_MAX + Duration::from_secs(1);
    assert!(core.is_dead(later, WORKER));
    core.observe(later, StorageId(1), WORKER, Duration::ZERO, sight(true));
    assert!(core.is_dead(later, WORKER), "looking is not reaching");
    let reached = Sight { succeeded_ago: Some(Duration::from_secs(60)), ..sight(true) };
    core.observe(later, StorageId(2), WORKER, Duration::from_secs(5), reached);
    assert!(!core.is_dead(later, WORKER));
    assert!(
        !core.is_dead(later + Duration::from_secs(535), WORKER)
            && core.is_dead(later + Duration::from_secs(536), WORKER)
    );
    core.reached(WORKER, later);
    assert!(!core.is_dead(later + Duration::from_secs(600), WORKER), "this node reached it");
}
