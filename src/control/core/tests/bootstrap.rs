//! Any number of fresh nodes, messages that are lost, late and doubled, crashes, views that differ: below twice as many nodes as grants are needed, at most
//! one founds; a data directory's grant is one; and where nothing goes wrong, one founds.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;
use crate::base::ids::ClusterId;
use crate::base::ids::StorageId;
use crate::control::core::bootstrap::Core;
use crate::control::core::bootstrap::Effect;
use crate::control::core::bootstrap::LISTEN;
use crate::control::core::bootstrap::Said;
use crate::control::core::bootstrap::Stage;
use crate::control::core::bootstrap::Standing;
use crate::control::core::bootstrap::TooFew;
use crate::control::core::bootstrap::expect;
use crate::control::faults::Fault;
use crate::control::faults::plant;

const HISTORIES: u64 = 200;
const STEP: Duration = Duration::from_millis(500);

fn id(number: usize) -> StorageId {
    StorageId(number as u128)
}

fn fresh(now: Instant, me: usize, stage: Stage, expect: usize) -> Core {
    Core::new(now, id(me), stage, expect, ClusterId(100 + me as u128), None)
}

/// One random history of `nodes` that each need `expect` grants. An error says what went wrong; Ok: how many founded.
fn history(seed: u64, nodes: usize, expect: usize, trouble: f64) -> Result<usize, String> {
    let (entropy, mut now) = (Entropy::seeded(seed), Clock.now());
    let mut cores: Vec<Core> = (0..nodes).map(|it| fresh(now, it, Stage::Fresh, expect)).collect();
    let mut disks = vec![Stage::Fresh; nodes];
    let mut first_grant: BTreeMap<usize, StorageId> = BTreeMap::new();
    let mut asks: Vec<(usize, usize)> = Vec::new();
    let mut answers: Vec<(usize, usize, bool)> = Vec::new();
    let is_bad = || entropy.unit() < trouble;
    // Some never see each other.
    let pairs = (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b)));
    let hidden: BTreeSet<(usize, usize)> = pairs.filter(|_| is_bad()).collect();
    let seen_by = |me: usize| -> BTreeSet<StorageId> {
        let is_seen = |it: &usize| *it != me && !hidden.contains(&(me.min(*it), me.max(*it)));
        (0..nodes).filter(is_seen).map(id).collect()
    };
    for _ in 0..40 {
        now += STEP;
        for me in 0..nodes {
            let active = seen_by(me);
            for other in (0..nodes).filter(|it| active.contains(&id(*it))) {
                let said = cores[other].says(&seen_by(other));
                if !is_bad() {
                    cores[me].heard(now, id(other), said);
                }
            }
            let mut effects = Vec::new();
            cores[me].step(now, &active, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Keep(stage) => keep(me, stage, &mut disks, &mut first_grant)?,
                    Effect::AskGrant(whom) => asks.push((me, whom.0 as usize)),
                    Effect::Found(_) | Effect::Join(_) => {}
                }
            }
        }
        for _ in 0..asks.len() {
            let (from, to) = asks[entropy.below(asks.len())]; // some twice, some later, some never
            let mut effects = Vec::new();
            let is_granted = cores[to].asked(id(from), expect, &mut effects);
            for effect in effects {
                if let Effect::Keep(stage) = effect {
                    keep(to, stage, &mut disks, &mut first_grant)?;
                }
            }
            answers.push((to, from, is_granted));
        }
        asks.retain(|_| is_bad());
        for (from, to, is_granted) in std::mem::take(&mut answers) {
            if !is_bad() {
                cores[to].answered(now, id(from), is_granted);
            }
        }
        if is_bad() && entropy.below(4) == 0 {
            let victim = entropy.below(nodes);
            cores[victim] = fresh(now, victim, disks[victim], expect);
        }
        // A founder's group is there after a while.
        for me in 0..nodes {
            let mut effects = Vec::new();
            if matches!(disks[me], Stage::Founding { .. }) && entropy.below(3) == 0 {
                cores[me].founded(&mut effects);
                effects.into_iter().for_each(|it| {
                    if let Effect::Keep(stage) = it {
                        disks[me] = stage
                    }
                });
            }
        }
    }
    let clusters: BTreeSet<ClusterId> = disks.iter().filter_map(|it| it.cluster()).collect();
    if clusters.len() > 1 { Err(format!("clusters: {clusters:?}")) } else { Ok(clusters.len()) }
}

fn keep(me: usize, stage: Stage, disks: &mut [Stage], first: &mut BTreeMap<usize, StorageId>) -> Result<(), String> {
    if let Stage::Granted { to } = stage {
        let before = *first.entry(me).or_insert(to);
        if before != to {
            return Err(format!("{me} granted {to} after {before}"));
        }
    }
    if disks[me].cluster().is_some() && disks[me].cluster() != stage.cluster() {
        return Err(format!("{me} left {:?} for {stage:?}", disks[me]));
    }
    disks[me] = stage;
    Ok(())
}

fn histories(trouble: f64) -> Result<usize, String> {
    let mut founded = 0;
    for seed in 0..HISTORIES {
        let needed = 1 + (seed % 4) as usize;
        let nodes = if needed == 1 { 1 } else { needed + (seed / 4) as usize % needed };
        founded += history(seed, nodes, needed, trouble).map_err(|what| format!("seed {seed}: {what}"))?;
    }
    Ok(founded)
}

#[test]
fn below_twice_as_many_nodes_as_grants_one_founds_at_most() {
    let calm = histories(0.0).unwrap();
    assert_eq!(calm, HISTORIES as usize, "where nothing goes wrong, one founds");
    for trouble in [0.05, 0.2, 0.5] {
        println!("trouble {trouble}: {} of {HISTORIES} founded", histories(trouble).unwrap());
    }
}

#[test]
fn a_majority_of_grants_is_not_enough() {
    plant(Some(Fault::AMajorityFounds));
    let found = histories(0.3);
    plant(None);
    assert!(found.is_err(), "the law sees nothing");
}

fn said(stage: Stage, sees: &[usize]) -> Said {
    Said { stage, expect: 1, sees: sees.iter().map(|it| id(*it)).collect() }
}

#[test]
fn a_node_that_expects_nobody_listens_first_and_joins_what_it_hears() {
    let (begun, active) = (Clock.now(), BTreeSet::from([id(2)]));
    let mut core = fresh(begun, 1, Stage::Fresh, 1);
    let mut effects = Vec::new();
    core.step(begun + LISTEN - STEP, &active, &mut effects);
    assert_eq!(effects, [], "it listens");
    let member = Stage::Member { cluster: ClusterId(5) };
    core.heard(begun + LISTEN - STEP, id(2), said(member, &[1]));
    core.step(begun + LISTEN, &active, &mut effects);
    assert_eq!(effects, [Effect::Keep(member), Effect::Join(ClusterId(5))]);
    effects.clear();
    let mut alone = fresh(begun, 1, Stage::Fresh, 1);
    for after in [LISTEN, LISTEN + STEP] {
        alone.step(begun + after, &BTreeSet::new(), &mut effects);
    }
    assert_eq!(effects[effects.len() - 1], Effect::Found(ClusterId(101)));
}

#[test]
fn of_two_clusters_none_is_joined_and_both_are_named() {
    let (now, active) = (Clock.now(), BTreeSet::from([id(2), id(3)]));
    let mut core = fresh(now, 1, Stage::Fresh, 3);
    for other in [2, 3] {
        core.heard(now, id(other), said(Stage::Member { cluster: ClusterId(other as u128) }, &[1]));
    }
    let mut effects = Vec::new();
    core.step(now, &active, &mut effects);
    assert_eq!((effects, core.standing()), (Vec::new(), Standing::TwoClusters(ClusterId(2), ClusterId(3))));
    let mut member = fresh(now, 1, Stage::Member { cluster: ClusterId(2) }, 3);
    member.heard(now, id(3), said(Stage::Member { cluster: ClusterId(3) }, &[1]));
    let text = member.standing().to_string();
    assert!(text.contains(&ClusterId(3).to_string()) && text.contains("--new-storage"), "{text}");
}

#[test]
fn a_new_directory_of_a_member_joins_its_old_cluster_only_and_founds_none() {
    let (now, active) = (Clock.now(), BTreeSet::from([id(2)]));
    let mut core = Core::new(now, id(1), Stage::Fresh, 1, ClusterId(9), Some(ClusterId(5)));
    let mut effects = Vec::new();
    core.step(now + LISTEN * 2, &BTreeSet::new(), &mut effects);
    core.heard(now + LISTEN * 2, id(2), said(Stage::Member { cluster: ClusterId(6) }, &[1]));
    core.step(now + LISTEN * 2, &active, &mut effects);
    assert_eq!((&effects[..], core.asked(id(2), 3, &mut Vec::new())), (&[][..], false));
    core.heard(now + LISTEN * 2, id(2), said(Stage::Member { cluster: ClusterId(5) }, &[1]));
    core.step(now + LISTEN * 2, &active, &mut effects);
    assert_eq!(effects.last(), Some(&Effect::Join(ClusterId(5))));
}

#[test]
fn a_grant_is_kept_over_a_restart_and_only_a_person_takes_it_back() {
    let (now, mut effects) = (Clock.now(), Vec::new());
    let mut core = fresh(now, 3, Stage::Fresh, 3);
    assert!(!core.asked(id(1), 2, &mut effects), "who needs fewer grants could be one of two");
    assert!(core.asked(id(1), 3, &mut effects));
    let granted = Stage::Granted { to: id(1) };
    assert_eq!(effects, [Effect::Keep(granted)]);
    let mut core = fresh(now, 3, granted, 3);
    assert!(!core.asked(id(2), 3, &mut effects) && core.asked(id(1), 3, &mut effects));
    let text = core.standing().to_string();
    assert!(text.contains(&id(1).to_string()) && text.contains("smg mesh bootstrap --reset"), "{text}");
}

#[test]
fn a_number_of_nodes_that_could_make_two_groups_is_refused() {
    for (nodes, asked, expected) in [
        (1, None, Ok(1)),
        (3, None, Ok(3)),
        (6, Some(3), Err(TooFew { asked: 3, nodes: 6, least: 4 })),
        (6, Some(4), Ok(4)),
        (5, Some(3), Ok(3)),
        (3, Some(0), Err(TooFew { asked: 0, nodes: 3, least: 2 })),
        (1, Some(5), Ok(5)),
    ] {
        assert_eq!(expect(nodes, asked), expected);
    }
}
