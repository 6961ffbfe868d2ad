//! Runs scenarios beside each other as far as the machine bears it, and prints a line for each.
//!
//! A scenario that cannot run is NOT RUN, one whose fault did not bite is VOID; neither is a success.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use cluster_tests::disk;
use cluster_tests::net;
use smg::base::clock::Clock;
use smg::base::entropy::Entropy;

use super::case::Case;
use super::case::Outcome;

/// Nodes that run at one time, all scenarios together. More on two cores would measure the scheduler.
const NODES_MAX: usize = 16;
/// No scenario takes half of this. One that hangs is named, and the others go on.
const DEADLINE: Duration = Duration::from_secs(240);
/// Figures take as long as they were asked for.
const FIGURE_DEADLINE: Duration = Duration::from_secs(4 * 3600);

/// One claim about a cluster.
pub(crate) struct Scenario {
    name: &'static str,
    nodes: usize,
    needs_disks: bool,
    run: Arc<dyn Fn(&Case) + Send + Sync>,
}

impl Scenario {
    /// `nodes`: how many it runs at one time.
    pub(crate) fn new(name: &'static str, nodes: usize, claim: impl AsyncFn(&Case) + Send + Sync + 'static) -> Self {
        Self::within(name, nodes, DEADLINE, claim)
    }

    /// One that takes figures, alone.
    pub(crate) fn figure(name: &'static str, claim: impl AsyncFn(&Case) + Send + Sync + 'static) -> Self {
        Self::within(name, NODES_MAX, FIGURE_DEADLINE, claim)
    }

    fn within(
        name: &'static str,
        nodes: usize,
        deadline: Duration,
        claim: impl AsyncFn(&Case) + Send + Sync + 'static,
    ) -> Self {
        let run = Arc::new(move |case: &Case| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let ended = tokio::time::timeout(deadline, claim(case)).await;
                assert!(ended.is_ok(), "it did not end within {deadline:?}");
            });
        });
        Self { name, nodes, needs_disks: false, run }
    }

    /// The same on disks whose power can be cut.
    pub(crate) fn on_disks(self) -> Self {
        Self { needs_disks: true, ..self }
    }
}

/// Runs those that the command line names; all, when it names none.
pub(crate) fn run(scenarios: &[Scenario]) -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let chosen = scenarios.iter().filter(|it| words.is_empty() || words.iter().any(|word| it.name.contains(word)));
    let chosen: Vec<_> = chosen.collect();
    let has_disks = || if chosen.iter().any(|it| it.needs_disks) { disk::is_possible() } else { Ok(()) };
    if let Err(reason) = net::is_possible().and_then(|()| has_disks()) {
        return not_run(&chosen, &reason);
    }
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|it| it.parse().ok())
        .unwrap_or_else(|| Entropy::from_os().next_u64() >> 32);
    println!("{} scenarios, SEED={seed}", chosen.len());
    let start = Clock.now();
    let turns = net::Turns::watch();
    let outcomes = side_by_side(&chosen, seed, &turns);
    let failed = outcomes.iter().filter(|it| **it != Outcome::Pass).count();
    let took = (Clock.now() - start).as_secs_f64();
    println!("{} of {} held, in {took:.0} s", outcomes.len() - failed, chosen.len());
    if failed == 0 && outcomes.len() == chosen.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn not_run(chosen: &[&Scenario], reason: &str) -> ExitCode {
    for scenario in chosen {
        println!("NOT RUN {:<55} {reason}", scenario.name);
    }
    let is_allowed = std::env::var("ALLOW_REDUCED").is_ok_and(|it| it == "1");
    let verdict = if is_allowed { "allowed by ALLOW_REDUCED=1" } else { "a failure; ALLOW_REDUCED=1 lets it pass" };
    println!("{} scenarios were NOT RUN: {verdict}", chosen.len());
    if is_allowed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn side_by_side(chosen: &[&Scenario], seed: u64, turns: &net::Turns) -> Vec<Outcome> {
    let (done, ended) = mpsc::sync_channel(chosen.len().max(1));
    let (mut waiting, mut outcomes, mut running) = (chosen.iter(), Vec::new(), 0);
    let mut next = waiting.next();
    std::thread::scope(|scope| {
        while outcomes.len() < chosen.len() {
            while let Some(scenario) = next.filter(|it| running == 0 || running + it.nodes <= NODES_MAX) {
                let (done, run) = (done.clone(), Arc::clone(&scenario.run));
                let case = Case::new(scenario.name, seed);
                let nodes = scenario.nodes;
                running += nodes;
                next = waiting.next();
                let thread = std::thread::Builder::new().name(scenario.name.to_owned());
                let work = move || {
                    let held = catch_unwind(AssertUnwindSafe(|| run(&case)));
                    let outcome = case.end(held.is_ok(), turns.longest_wait());
                    let _ = done.send((nodes, outcome)); // the loop below waits for it
                };
                thread.spawn_scoped(scope, work).expect("a thread");
            }
            let Ok((nodes, outcome)) = ended.recv() else { break };
            running -= nodes;
            outcomes.push(outcome);
        }
    });
    outcomes
}
