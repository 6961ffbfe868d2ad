//! P5 and P11 in simulation: several gateways with the cores that ship, clients that go to any of them, and workers with caches.
//!
//! `make sim-routing` replays the recorded traces and prints the table of `docs/reports/simulation.md`; `make test` runs short chats and looks through all that
//! left a node.

mod gateway;
mod large;
mod load;
mod report;
mod worker;
mod world;

use std::collections::HashSet;
use std::time::Duration;

use self::load::Load;
use self::report::Report;
use self::worker::Pace;
use self::world::Setup;
use self::world::View;
use self::world::World;
use super::asked_or;
use super::is_asked_for;
use crate::bench::core::prompt::Pool;
use crate::routing::Config;

const HEAD: &str = "| gateways | workers x cache | policy, view | hits | TTFT mean s | p99 s | expected/hit | busy | imbalance | fallback | remote | gossip kB/s | ledger kB/s |";

fn setup(gateways: usize, view: View, policy: &'static str, workers: usize, pace: Pace) -> Setup {
    let ttl = Duration::from_secs(asked_or("SMG_SIM_TTL", Config::default().cache_ttl.as_secs()));
    Setup { gateways, workers, pace, view, policy, seed: 1, ttl, is_tapped: false }
}

fn run(setup: Setup, load: &Load) -> Report {
    let (report, _) = World::new(setup, load).run();
    println!("{report}");
    report
}

/// All rows of one load, and what P5 says of them.
fn table(load: &Load, workers: usize, pace: Pace, is_whole: bool) {
    let span = load.requests.last().map(|it| it.at.as_secs_f64()).unwrap_or_default();
    println!(
        "\n### {}: {} requests in {span:.0} s, {} tokens/s a worker\n\n{HEAD}\n{}|",
        load.name,
        load.requests.len(),
        pace.prefill,
        "|---".repeat(13)
    );
    let one = run(setup(1, View::Shared, "cache_aware", workers, pace), load);
    let three = is_whole.then(|| run(setup(3, View::Shared, "cache_aware", workers, pace), load));
    let eight = run(setup(8, View::Shared, "cache_aware", workers, pace), load);
    let oracle = run(setup(8, View::Oracle, "cache_aware", workers, pace), load);
    run(setup(8, View::Own, "cache_aware", workers, pace), load);
    if is_whole {
        run(setup(3, View::Own, "cache_aware", workers, pace), load);
        run(setup(8, View::Own, "round_robin", workers, pace), load);
        run(setup(8, View::Own, "random", workers, pace), load);
    }
    let hits = |it: &Report| it.hits / one.hits;
    println!(
        "\nhits against one gateway: {:.3} with three, {:.3} with eight (P5: at least 0.97); mean TTFT of eight against the oracle: {:.3} (P5: at most 1.15), against one gateway: {:.3}",
        three.as_ref().map_or(f64::NAN, hits),
        hits(&eight),
        eight.mean / oracle.mean,
        eight.mean / one.mean,
    );
}

#[test]
fn p5_figures_of_recorded_traces_when_asked_for() {
    let prefill = asked_or("SMG_SIM_PREFILL", 14_000) as f64;
    if is_asked_for("conversation")
        && let Some(load) = load::conversation(asked_or("SMG_SIM_TIMES", 2))
    {
        table(&load, 8, Pace { prefill, cache: 1_000_000, block: 512 }, true);
    }
    if is_asked_for("natural")
        && let Some(load) = load::conversation(asked_or("SMG_SIM_TIMES", 2))
    {
        table(&load, 8, Pace { prefill, cache: 4_000_000, block: 512 }, false);
    }
    if is_asked_for("agents")
        && let Some(load) = load::agents(asked_or("SMG_SIM_SESSIONS", 60) as usize)
    {
        table(&load, 16, Pace { prefill, cache: 2_000_000, block: 64 }, true);
    }
    if is_asked_for("chats") {
        table(&load::chats(1, 120.0, 600.0), 8, Pace { prefill, cache: 200_000, block: 16 }, true);
    }
}

#[test]
fn p5_eight_gateways_find_nearly_as_much_as_one_and_answer_nearly_as_soon() {
    let load = load::chats(1, 40.0, 60.0);
    let pace = Pace { prefill: 4_000.0, cache: 100_000, block: 16 };
    println!("{HEAD}");
    let [one, eight, oracle, alone] = [(1, View::Shared), (8, View::Shared), (8, View::Oracle), (8, View::Own)]
        .map(|(gateways, view)| run(setup(gateways, view, "cache_aware", 4, pace), &load));
    // Generous: a minute of chats. The figures are those of `make sim-routing`.
    assert!(eight.hits >= 0.95 * one.hits, "{:.3} of {:.3}", eight.hits, one.hits);
    assert!(eight.mean <= 1.5 * oracle.mean, "{:.3} s against {:.3} s", eight.mean, oracle.mean);
    assert!(eight.hits > alone.hits && eight.mean < alone.mean, "sharing is worth it");
    assert!(eight.fallback <= 0.01 && eight.remote > 0.5, "{:.4} {:.2}", eight.fallback, eight.remote);
}

#[test]
fn p11_no_eight_bytes_of_any_prompt_are_in_anything_that_leaves_a_node() {
    let load = load::chats(2, 20.0, 20.0);
    let pace = Pace { prefill: 4_000.0, cache: 100_000, block: 16 };
    let setup = Setup { is_tapped: true, ..setup(3, View::Shared, "cache_aware", 4, pace) };
    let (report, world) = World::new(setup, &load).run();
    let (pool, mut text) = (Pool::new(7), Vec::new());
    load.requests.iter().flat_map(|it| &it.prompt).for_each(|run| pool.write(*run, &mut text));
    let windows: HashSet<&[u8]> = text.windows(8).collect();
    let bytes: usize = world.leaked.iter().map(Vec::len).sum();
    println!("{} payloads, {bytes} bytes, {} windows of prompts; {report}", world.leaked.len(), windows.len());
    assert!(bytes > 100_000 && report.hits > 0.1, "the gateways had something to say");
    let found = world.leaked.iter().flat_map(|it| it.windows(8)).filter(|it| windows.contains(it)).count();
    assert_eq!(found, 0);
}

#[test]
fn the_same_seed_is_the_same_routing() {
    let load = load::chats(3, 20.0, 10.0);
    let pace = Pace { prefill: 4_000.0, cache: 50_000, block: 16 };
    let traces = [0, 1].map(|_| {
        let setup = Setup { is_tapped: true, ..setup(3, View::Shared, "cache_aware", 4, pace) };
        let (report, world) = World::new(setup, &load).run();
        (format!("{report}"), world.leaked)
    });
    assert!(traces[0] == traces[1], "two runs of one seed differ");
}
