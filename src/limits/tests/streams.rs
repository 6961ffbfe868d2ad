//! P4 for streams over seeds: the sum over all nodes that run is never above the limit, and hardly any permit is idle while more streams are wanted.

use std::time::Duration;

use super::Planted;
use super::asked_or;
use super::sim::Skew;
use super::streams_world::World;
use super::world::storage;
use crate::base::entropy::Entropy;
use crate::limits::Settings;
use crate::limits::faults;
use crate::limits::faults::Fault;
use crate::transport::twin::Weather;

/// Seeds within which each planted bug must be found.
const SEEDS: u64 = 200;
const SECOND: Duration = Duration::from_secs(1);

/// Holds of seconds, so that they end within a run.
fn settings(hold: u32) -> Settings {
    Settings { hold: SECOND * hold, drift: SECOND * hold / 10, ..Settings::default() }
}

fn rough(seed: u64) -> Weather {
    let loss = [0.0, 0.02, 0.2][(seed % 3) as usize];
    let delay_max = Duration::from_millis([2, 15, 60][(seed / 3 % 3) as usize]);
    Weather { loss, duplicates: 0.05 + loss, delay_max, ..Weather::default() }
}

/// So many clients at each node, of a sum that is some times the limit.
pub(super) fn clients(skew: Skew, units: u64, times: f64) -> Vec<usize> {
    skew.demand(units as f64 * times).into_iter().map(|it| it.round() as usize).collect()
}

pub(super) fn calm_world(seed: u64, units: u64, clients: &[usize], hold: u32) -> World {
    World::new(seed, (units, clients), settings(hold), Weather::default())
}

/// At least 0.95 of a part of the limit, in whole units, run on average.
fn enough(world: &mut World, lasts: Duration, part: u64) -> Result<f64, String> {
    let mean = world.measure(lasts);
    world.check()?;
    // The moments between the end of a stream and the next request are the clients'.
    if mean >= (part as f64 * 0.95).floor() { Ok(mean) } else { Err(format!("{mean:.2} of {part} ran")) }
}

/// One run with everything that can happen.
fn any_trouble(seed: u64) -> Result<World, String> {
    let draw = Entropy::seeded(seed);
    let units = [20, 100, 5, 8][(seed % 4) as usize];
    let clients = clients(Skew::ALL[draw.below(3)], units, 1.0 + draw.unit());
    let mut world = World::new(seed, (units, &clients), settings(6), rough(seed));
    world.echoes = 0.01;
    if seed % 5 == 1 {
        // Longer than half the hold: who is cut off may still run them when others have its part.
        world.lasts.1 = SECOND * 12;
    }
    for _ in 0..14 {
        world.run(SECOND.mul_f64(0.1 + draw.unit() * 2.0));
        let n = draw.below(world.nodes.len());
        match draw.below(13) {
            0 | 1 if world.nodes[n].is_alive => world.kill(n),
            0..=3 => {
                world.kill(n);
                world.run(if draw.below(2) == 0 { SECOND / 200 } else { SECOND.mul_f64(draw.unit()) });
                world.restart(n);
            }
            4 => world.stop(n, SECOND.mul_f64(draw.unit() * 9.0)),
            5 => world.split(|it| it < 4),
            6 => world.split(|it| it == n),
            7 => world.heal(),
            8 => world.depose(),
            9 => world.set_limit(units / 2 + draw.next_u64() % units),
            10 if world.nodes.len() < 10 => world.join(2),
            10 | 11 if world.nodes[n].is_alive => {
                world.leave(n);
                world.run(SECOND.mul_f64(draw.unit() * 2.0));
                world.kill(n);
            }
            _ => {
                let wanted = draw.below(units as usize);
                world.want(n, wanted);
            }
        }
    }
    world.run(SECOND * 8);
    world.check().map(|()| world)
}

/// More is wanted than there is, spread in any way.
fn drawn_calm(seed: u64) -> Result<World, String> {
    let skew = Skew::ALL[(seed % 3) as usize];
    let units = [20, 100, 8, 300][(seed / 3 % 4) as usize];
    let mut world = calm_world(seed, units, &clients(skew, units, 1.6), 60);
    world.run(SECOND * 8);
    enough(&mut world, SECOND * 20, units)?;
    Ok(world)
}

/// All that is wanted is wanted elsewhere, every ten seconds.
pub(super) fn moving(seed: u64, units: u64) -> (World, f64) {
    let mut world = calm_world(seed, units, &[0; 8], 60);
    world.run(SECOND * 2);
    let mut mean = 0.0;
    for round in 0..6 {
        let at = (seed as usize + round * 3) % 8;
        (0..8).for_each(|n| world.want(n, if n == at { units as usize * 3 / 2 } else { 0 }));
        mean += world.measure(SECOND * 10) / 6.0;
    }
    (world, mean)
}

/// A node dies: the others lose what it had, until its hold has ended or it is back.
fn crashed(seed: u64) -> Result<World, String> {
    let units = [20, 100][(seed % 2) as usize];
    let is_back_first = seed.is_multiple_of(3);
    let mut world = calm_world(seed, units, &clients(Skew::Uniform, units, 2.0), if is_back_first { 60 } else { 9 });
    world.run(SECOND * 4);
    let dead = (seed % 8) as usize;
    world.kill(dead);
    world.run(SECOND * 2);
    let share = world.mint().share(storage(dead), 0);
    enough(&mut world, SECOND * 4, units - share)?;
    if is_back_first {
        world.restart(dead);
        world.run(SECOND * 5);
    } else {
        world.run(SECOND * 9);
    }
    enough(&mut world, SECOND * 8, units)?;
    Ok(world)
}

/// A node that is cut off, or does not run, begins nothing when the others have its part. The leader may change meanwhile.
fn cut_off(seed: u64) -> Result<World, String> {
    let units = [20, 100][(seed % 2) as usize];
    let mut world = calm_world(seed, units, &clients(Skew::Uniform, units, 2.0), 8);
    world.lasts.1 = SECOND * 4;
    world.run(SECOND * 3 + Duration::from_millis(seed * 37 % 900));
    let away = (seed % 8) as usize;
    if seed % 3 == 1 {
        world.depose();
    }
    if seed % 3 == 2 {
        world.stop(away, Duration::from_millis(9_500));
        world.run(Duration::from_millis(30));
    }
    world.split(|it| it == away);
    world.run(SECOND * 14);
    enough(&mut world, SECOND * 6, units)?;
    world.heal();
    world.run(SECOND * 5);
    enough(&mut world, SECOND * 6, units)?;
    Ok(world)
}

/// Nodes leave in good order while they still run streams.
fn left(seed: u64) -> Result<World, String> {
    let units = [20, 100][(seed % 2) as usize];
    let mut world = calm_world(seed, units, &clients(Skew::Uniform, units, 2.0), 60);
    world.run(SECOND * 4);
    for n in [3, 5] {
        world.leave(n);
        world.run(SECOND * 4);
        world.kill(n);
    }
    world.run(SECOND * 3);
    enough(&mut world, SECOND * 6, units)?;
    Ok(world)
}

/// One node has streams without end and one does not run; others want what is free elsewhere, again and again.
fn stuck(seed: u64) -> Result<World, String> {
    let units = 40;
    let mut world = calm_world(seed, units, &[4, 0, 0, 0, 0, 0, 0, 0], 120);
    world.run(SECOND * 2);
    world.lasts = (SECOND * 600, SECOND * 601);
    world.want(1, 4);
    world.run(SECOND * 2);
    world.lasts = (SECOND / 10, SECOND * 2);
    // Node 1 opens more in the moment in which it is to give, and node 2 does not run.
    world.want(3, 30);
    world.run(Duration::from_millis(300 + seed * 13 % 600));
    world.stop(2, SECOND * 60);
    (4..8).for_each(|n| world.want(n, 8));
    world.lasts = (SECOND * 600, SECOND * 601);
    world.want(1, 12);
    world.run(SECOND);
    world.lasts = (SECOND / 10, SECOND * 2);
    world.run(SECOND * 8);
    let lost = world.mint().share(storage(2), 0);
    enough(&mut world, SECOND * 10, units - lost)?;
    if lost > 6 { Err(format!("{lost} are with the node that does not run")) } else { Ok(world) }
}

/// A limit that is lowered takes force as streams end, and one that is raised soon.
fn changed(seed: u64) -> Result<World, String> {
    let mut world = calm_world(seed, 100, &clients(Skew::ALL[(seed % 3) as usize], 100, 2.0), 60);
    world.run(SECOND * 3);
    world.set_limit(20);
    world.run(SECOND * 6);
    if !world.mint().is_settled && world.mint().bound() > 20 {
        return Err("it is not lowered".to_owned());
    }
    enough(&mut world, SECOND * 6, 20)?;
    world.set_limit(60);
    world.run(SECOND * 4);
    enough(&mut world, SECOND * 6, 60)?;
    Ok(world)
}

/// Nobody starves: where all is in use, nodes that want the same come to have about the same.
fn fair(seed: u64) -> Result<World, String> {
    let mut world = calm_world(seed, 64, &[80, 0, 0, 0, 0, 0, 0, 0], 60);
    world.run(SECOND * 6);
    world.want(5, 40);
    enough(&mut world, SECOND * 40, 64)?;
    let share = world.mint().share(storage(5), 0);
    if share >= 20 { Ok(world) } else { Err(format!("after 40 s it has {share} of 64")) }
}

fn finds(fault: Fault) -> fn(u64) -> Result<World, String> {
    match fault {
        Fault::SettledBeforeHold | Fault::OfficeDoesNotCount | Fault::StreamsBeginAfterTheHold => cut_off,
        Fault::PermitComesBackTwice | Fault::PendingCountsWhole => drawn_calm,
        Fault::AdoptedInUse => changed,
        Fault::LeavingIsIdle => left,
        Fault::SilentIsIdle | Fault::PendingIsWaitedFor => stuck,
        _other => any_trouble,
    }
}

fn each(seeds: u64, run: fn(u64) -> Result<World, String>) {
    let first = asked_or("SMG_SIM_SEED", 0);
    for seed in first..first + asked_or("SMG_SIM_SEEDS", seeds) {
        run(seed).map(drop).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

#[test]
fn p4_no_more_streams_run_than_may_whatever_happens() {
    each(SEEDS, any_trouble);
}

#[test]
fn p4_hardly_a_permit_is_idle_while_more_streams_are_wanted() {
    each(24, drawn_calm);
}

#[test]
fn p4_a_crash_costs_what_the_dead_node_had_until_it_is_back_or_its_hold_has_ended() {
    each(12, crashed);
}

#[test]
fn p4_what_a_node_that_is_cut_off_had_runs_on_one_side_at_a_time() {
    each(12, cut_off);
}

#[test]
fn a_node_that_leaves_is_waited_for_as_long_as_it_runs_streams() {
    each(6, left);
}

#[test]
fn one_long_stream_or_a_node_that_does_not_run_keeps_nobody_from_what_others_have_free() {
    each(6, stuck);
}

#[test]
fn a_limit_takes_force_as_streams_end() {
    each(6, changed);
}

#[test]
fn where_all_is_in_use_nobody_starves() {
    each(3, fair);
}

#[test]
fn demand_that_moves_is_followed() {
    let (world, mean) = moving(1, 40);
    world.check().unwrap();
    assert!(mean > 28.0, "{mean}");
}

#[test]
fn nothing_is_divided_anew_while_nobody_is_short_and_little_while_all_are() {
    let mut idle = calm_world(1, 100, &[5; 8], 60);
    idle.run(SECOND * 60);
    assert_eq!(idle.log.len(), 1, "each has twice what it wants");
    let mut short = calm_world(1, 100, &[20; 8], 60);
    short.run(SECOND * 60);
    let (entries, waits) = (short.log.len(), short.waits.len());
    short.run(SECOND * 60);
    assert!(short.log.len() - entries <= 12, "{} entries in a minute", short.log.len() - entries);
    assert!(short.waits.len() > waits);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| any_trouble(seed).map(|it| format!("{:?} {} {}", it.log, it.messages, it.waits.len()));
    assert_eq!(run(7), run(7));
}

#[test]
fn every_planted_bug_of_streams_is_found() {
    let mut missed = Vec::new();
    for fault in faults::OF_STREAMS {
        let _planted = Planted::new(*fault);
        match (0..SEEDS).find_map(|seed| finds(*fault)(seed).err().map(|what| (seed, what))) {
            Some((seed, what)) => println!("{fault:?}: seed {seed}, {what}"),
            None => missed.push(*fault),
        }
    }
    assert!(missed.is_empty(), "not found in {SEEDS} seeds: {missed:?}");
}
