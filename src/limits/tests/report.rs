//! The figures of docs/protocol/limits.md, when asked for: `SMG_SIM_LONG=limits`.

use std::time::Duration;

use super::laws::renew;
use super::sim::Skew;
use super::sim::plan;
use super::sim::settings;
use super::streams;
use super::world::World;
use super::world::storage;
use crate::base::clock::Clock;
use crate::limits::Kind;
use crate::limits::LimitId;
use crate::limits::Mint;
use crate::limits::Settings;
use crate::limits::calendar::Calendar;
use crate::limits::core::Core;
use crate::limits::purse::Purse;
use crate::transport::twin::Weather;

const NODES: usize = 8;

fn is_asked_for() -> bool {
    std::env::var("SMG_SIM_LONG").is_ok_and(|it| it.split(',').any(|it| it == "limits"))
}

/// What is done to the nodes in a run, once it has gone on for some windows.
type Trouble = fn(&mut World, Duration);

/// Max and min of what was admitted over the limit, and of the sum over ten windows, over the windows from `after` on.
fn row(world: &World, after: usize) -> String {
    let units = world.plans[0].units as f64;
    let sums: Vec<(f64, bool)> = world
        .windows(0)
        .map(|it| ((it.1.used + it.1.over) as f64 / units, it.1.wanted as f64 >= units))
        .skip(after)
        .collect();
    let most = sums.iter().map(|it| it.0).fold(0.0, f64::max);
    let least = sums.iter().filter(|it| it.1).map(|it| it.0).fold(f64::MAX, f64::min);
    let mean = sums.iter().filter(|it| it.1).map(|it| it.0).sum::<f64>() / sums.iter().filter(|it| it.1).count() as f64;
    format!("{} | {most:.3} | {mean:.3} | {least:.3}", sums.len())
}

fn percentile(waits: &mut [Duration], of: f64) -> Duration {
    waits.sort_unstable();
    waits.get(((waits.len() as f64 - 1.0) * of) as usize).copied().unwrap_or_default()
}

fn case(kind: Kind, window_ms: u32, units: u64, skew: Skew, windows: u32) -> World {
    let mut plan = plan(kind, window_ms, units, skew, 1.5);
    plan.size_max = if kind == Kind::Tokens { (units / 100).max(1) } else { 1 };
    let mut world = World::new(units, NODES, settings(window_ms), Weather::default(), vec![plan]);
    (world.error, world.error_input) = (0.4, 0.1);
    world.run(Duration::from_millis(u64::from(window_ms)) * windows);
    world.check().expect("P4");
    world
}

#[test]
fn figures_in_calm_weather() {
    if !is_asked_for() {
        return;
    }
    println!(
        "| kind | window | L | demand 1.5 L | windows | max | mean | min | slow way | wait p50 | p99 of those | messages a node and s |"
    );
    for (kind, window_ms) in [(Kind::Requests, 1_000), (Kind::Requests, 60_000), (Kind::Tokens, 1_000)] {
        for units in [20, 100, 10_000] {
            for skew in Skew::ALL {
                let mut world = case(kind, window_ms, units, skew, 103);
                let row = row(&world, 1);
                let all = world.waits.len();
                let mut slow: Vec<Duration> = world.waits.iter().copied().filter(|it| !it.is_zero()).collect();
                let (p50, p99) = (percentile(&mut slow, 0.5), percentile(&mut slow, 0.99));
                let seconds = f64::from(window_ms) / 1000.0 * 103.0 * NODES as f64;
                let (share, rate) = (slow.len() as f64 / all as f64, world.messages as f64 / seconds);
                println!(
                    "| {kind:?} | {} s | {units} | {skew:?} | {row} | {:.1} % | {p50:?} | {p99:?} | {rate:.1} |",
                    window_ms / 1000,
                    share * 100.0
                );
                world.waits.clear();
            }
        }
    }
}

#[test]
fn figures_in_trouble() {
    if !is_asked_for() {
        return;
    }
    let troubles: [(&str, Trouble); 7] = [
        ("split 4 and 4, holds end", |world, window| {
            world.split(|it| it < 4);
            world.run(window * 20);
            world.heal();
        }),
        ("split 7 and 1, share minted anew", |world, window| {
            world.split(|it| it == 3);
            world.run(window * 20);
            world.heal();
        }),
        ("kill, hold ends, back", |world, window| {
            world.kill(2);
            world.run(window * 20);
            world.restart(2);
        }),
        ("restart inside a window", |world, window| {
            world.kill(3);
            world.run(window.mul_f64(0.3));
            world.restart(3);
        }),
        ("pause of 2.5 windows", |world, window| world.stop(3, window.mul_f64(2.5))),
        ("leader lost", |world, _| world.depose()),
        ("wall clocks step by an hour", |world, _| {
            world.nodes.iter_mut().for_each(|it| it.clock_off += 3_600_000);
        }),
    ];
    println!("| trouble | window | L | demand 1.5 L | windows | max | mean | min |");
    for (name, trouble) in troubles {
        for (window_ms, units, skew) in [
            (1_000, 20, Skew::Uniform),
            (1_000, 100, Skew::Zipf),
            (1_000, 10_000, Skew::Uniform),
            (60_000, 100, Skew::One),
        ] {
            let window = Duration::from_millis(window_ms);
            let plans = vec![plan(Kind::Requests, window_ms as u32, units, skew, 1.5)];
            let mut world = World::new(units, NODES, settings(window_ms as u32), Weather::default(), plans);
            for _ in 0..4 {
                world.run(window.mul_f64(4.3));
                trouble(&mut world, window);
                world.run(window.mul_f64(20.7));
            }
            world.run(window * 12);
            world.check().expect("P4");
            println!("| {name} | {} s | {units} | {skew:?} | {} |", window_ms / 1000, row(&world, 0));
        }
    }
}

#[test]
fn figures_of_the_fast_way() {
    if !is_asked_for() {
        return;
    }
    let now = Clock.now();
    let purse = std::sync::Arc::new(Purse::new(LimitId(1), 60_000, Calendar::new(now, Duration::from_secs(60))));
    purse.open(1);
    purse.put(1, 1 << 31);
    const N: u32 = 2_000_000;
    for threads in [1, 2, 4] {
        let began = Clock.now();
        std::thread::scope(|scope| {
            let take = || (0..N).filter_map(|_| purse.take(Clock.now(), 1)).map(std::mem::forget).count();
            (0..threads).for_each(|_| drop(scope.spawn(take)));
        });
        println!("{threads} threads, one limit: {:?} a unit taken", (Clock.now() - began) / N);
    }
    let mut core = Core::new(now, Duration::from_secs(60), (storage(0), 1), Settings::default());
    let mint = Mint::first(LimitId(1), 1, 1, (Kind::Streams, 0), 8, &[storage(0)].into()).expect("sound");
    renew(&mut core, now, vec![mint]);
    let permits = core.permits().next().expect("one").1;
    for threads in [1, 2, 4] {
        let began = Clock.now();
        std::thread::scope(|scope| {
            let take = || (0..N).filter_map(|_| permits.take(now)).for_each(drop);
            (0..threads).for_each(|_| drop(scope.spawn(take)));
        });
        println!("{threads} threads, one limit: {:?} a permit taken and dropped", (Clock.now() - began) / N);
    }
}

/// Streams: what ran of the limit, how long requests waited, and entries of the log, by skew and by what is done to the nodes.
#[test]
fn figures_of_streams() {
    if !is_asked_for() {
        return;
    }
    println!(
        "| L | demand 1.5 L | most | in use | waited | wait p50 | p99 of those | entries a minute | messages a node and s |"
    );
    for units in [20, 100, 1_000] {
        for skew in Skew::ALL {
            let mut world = streams::calm_world(units, units, &streams::clients(skew, units, 1.5), 600);
            world.run(Duration::from_secs(10));
            (world.messages, world.most) = (0, (0, 0));
            world.waits.clear();
            let entries = world.log.len();
            let mean = world.measure(Duration::from_secs(120));
            world.check().expect("P4");
            let all = world.waits.len();
            let mut slow: Vec<Duration> = world.waits.iter().copied().filter(|it| !it.is_zero()).collect();
            let (p50, p99) = (percentile(&mut slow, 0.5), percentile(&mut slow, 0.99));
            println!(
                "| {units} | {skew:?} | {:?} | {:.3} | {:.1} % | {p50:?} | {p99:?} | {:.1} | {:.1} |",
                world.most,
                mean / units as f64,
                100.0 * slow.len() as f64 / all as f64,
                (world.log.len() - entries) as f64 / 2.0,
                world.messages as f64 / 120.0 / NODES as f64
            );
        }
    }
    for units in [20, 100, 1_000] {
        let (mut world, mean) = streams::moving(1, units);
        let p99 = percentile(&mut world.waits, 0.99);
        println!(
            "demand moves every 10 s, L {units}: {:.3} in use, {} entries, wait p99 {p99:?}",
            mean / units as f64,
            world.log.len()
        );
    }
}
