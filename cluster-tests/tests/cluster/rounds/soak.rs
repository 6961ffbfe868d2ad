//! One cluster for hours: the same processes through faults that end none of them, quiet and judged every few rounds, and whether what they take of the machine grows (P8).

use std::process::ExitCode;
use std::time::Duration;

use jepsen::page::Outcome;
use jepsen::page::Proof;
use jepsen::page::Round;
use smg::base::clock::Clock;
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::Book;
use super::life::live_in;
use super::plan::Fault;
use super::plan::Ground;
use super::plan::PLANS;
use super::plan::Plan;
use super::world::World;
use crate::case::Case;
use crate::report::asked;

/// Between two quiet moments.
const ROUNDS: usize = 6;
/// What happened before this part of the time is warming up: caches and buffers fill.
const WARM_AFTER: f64 = 0.25;
/// In less time all growth is warming up, and none is judged.
const HOURS_MIN: f64 = 0.5;
/// More than an allocator's noise. Sessions, items and tenants of the clients are kept on disk, or have bounds.
const BYTES_PER_HOUR_MAX: f64 = 10.0 * 1024.0 * 1024.0;
/// Files and threads that may be more at the end than after warming up: connections that happen to be kept.
const HANDLES_MAX: f64 = 24.0;
/// The last reads of all that was kept take a while.
const SLACK: Duration = Duration::from_secs(1800);

/// What one node takes while nobody asks.
#[derive(Clone, Copy)]
struct Taken {
    hours: f64,
    bytes: f64,
    files: f64,
    threads: f64,
}

/// Faults after which every process is still the same.
fn is_gentle(plan: &Plan) -> bool {
    let spares = !matches!(
        plan.fault,
        Fault::Kill(_)
            | Fault::Drain(_)
            | Fault::Roll
            | Fault::Wipe(_)
            | Fault::Backup(_)
            | Fault::Torn(_)
            | Fault::SnapshotCut(_)
    );
    spares && (plan.ground, plan.nodes) == (Ground::Plain, 3)
}

/// For `HOURS`, or `MINUTES` to try it.
pub(crate) fn run() -> ExitCode {
    if let Err(reason) = cluster_tests::net::is_possible() {
        println!("NOT RUN: {reason}");
        return ExitCode::FAILURE;
    }
    let minutes = asked("MINUTES", 60 * asked("HOURS", 1));
    let time = Duration::from_secs(60 * minutes as u64);
    let entropy = super::entropy();
    let seed = entropy.next_u64() >> 32;
    let book = Book::open(&super::revision());
    println!("{minutes} minutes at {}, seed {seed}", book.identity.revision);
    let is_sound = super::on_a_thread(seed, time + SLACK, async move |case: &Case| {
        let is_sound = LocalSet::new().run_until(live(case, &book, time)).await;
        book.publish();
        is_sound
    });
    if is_sound == Some(true) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn live(case: &Case, book: &Book, time: Duration) -> bool {
    let gentle: Vec<&'static Plan> = PLANS.iter().filter(|it| is_gentle(it)).collect();
    let mut world = World::begin(case, Ground::Plain, 3, None).await;
    let (begun, mut taken, mut number, mut violated) = (Clock.now(), vec![Vec::new(); 3], 0, 0);
    while Clock.now() - begun < time {
        let plans: Vec<_> = (0..ROUNDS).map(|_| gentle[case.entropy.below(gentle.len())]).collect();
        let lived = live_in(&mut world, &plans, &book.identity, number).await;
        number += ROUNDS as u64;
        book.keep(&lived);
        violated += lived.rounds.iter().filter(|it| it.verdict() == Outcome::Violated).count();
        if lived.rounds.last().is_none_or(|it| it.whole_at_ms.is_none()) {
            break; // it was told; what comes after would say nothing of its own
        }
        for (at, taken) in taken.iter_mut().enumerate() {
            let now = now(&mut world, at, begun);
            println!(
                "     node {at} after {:.2} h: {:.1} MB, {} files, {} threads",
                now.hours,
                now.bytes / 1024.0 / 1024.0,
                now.files,
                now.threads
            );
            taken.push(now);
        }
    }
    let round = judged(case, book, &taken, Clock.now() - begun >= time);
    let lived = super::Lived { rounds: vec![round], history: Vec::new() };
    book.keep(&lived);
    violated == 0 && lived.rounds[0].verdict() == Outcome::Held
}

fn now(world: &mut World<'_>, at: usize, begun: Instant) -> Taken {
    let process = world.fleet.process(at);
    let count =
        |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", process.id())).map_or(0, Iterator::count) as f64;
    Taken {
        hours: (Clock.now() - begun).as_secs_f64() / 3600.0,
        bytes: process.memory() as f64,
        files: count("fd"),
        threads: count("task"),
    }
}

/// The slope of a line through the points, by least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let len = points.len().max(1) as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |sum, it| (sum.0 + it.0 / len, sum.1 + it.1 / len));
    let (over, under) = points.iter().fold((0.0, 0.0), |sum, it| {
        let apart = it.0 - x;
        (sum.0 + apart * (it.1 - y), sum.1 + apart * apart)
    });
    if under > 0.0 { over / under } else { 0.0 }
}

/// What it came to, as a round of its own.
fn judged(case: &Case, book: &Book, taken: &[Vec<Taken>], is_whole: bool) -> Round {
    let mut round = Round {
        version: Round::VERSION,
        revision: book.identity.revision.clone(),
        machine: book.identity.machine.clone(),
        date: jepsen::page::rfc3339(Clock.wall().as_secs()),
        scenario: "soak".to_owned(),
        promises: vec!["P8".to_owned()],
        seed: case.seed,
        nodes: taken.len(),
        fault: format!("the same processes through all faults that end none, {} times quiet", taken[0].len()),
        rss_bytes: taken.iter().filter_map(|it| Some(it.last()?.bytes as u64)).collect(),
        ..Round::default()
    };
    let hours = taken[0].last().map_or(0.0, |it| it.hours);
    for (at, taken) in taken.iter().enumerate() {
        let warm: Vec<&Taken> = taken.iter().filter(|it| it.hours >= hours * WARM_AFTER).collect();
        let (Some(first), Some(last)) = (warm.first(), warm.last()) else { continue };
        let bytes = slope(&warm.iter().map(|it| (it.hours, it.bytes)).collect::<Vec<_>>());
        let grown = [("files", last.files - first.files), ("threads", last.threads - first.threads)];
        println!("     node {at}: {:+.2} MB an hour, {grown:?}", bytes / 1024.0 / 1024.0);
        round.counts.insert(format!("bytes_per_hour_{at}"), bytes);
        if bytes > BYTES_PER_HOUR_MAX && hours >= HOURS_MIN {
            round.violations.push(format!("P8: node {at} grows by {:.1} MB an hour", bytes / 1024.0 / 1024.0));
        }
        for (what, by) in grown.iter().filter(|it| it.1 > HANDLES_MAX) {
            round.violations.push(format!("P8: node {at} has {by} {what} more than after warming up"));
        }
        let what = format!("quiet moments of node {at} after warming up");
        round.bit.push(Proof { what, number: warm.len() as f64, is_so: warm.len() > 3 });
    }
    round.bit.push(Proof { what: "hours".to_owned(), number: hours, is_so: is_whole && hours >= HOURS_MIN });
    round.whole_at_ms = is_whole.then_some((hours * 3.6e6) as u64);
    round.outcome = match (round.violations.is_empty(), round.bit.iter().all(|it| it.is_so)) {
        (false, _) => Outcome::Violated,
        (true, false) => Outcome::Void,
        (true, true) => Outcome::Held,
    };
    round
}
