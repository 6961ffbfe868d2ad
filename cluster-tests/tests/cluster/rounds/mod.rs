//! Rounds that add up: one fault each, under load and before clients who write down what they see ([ADR 19](../../../../docs/adr/0019-proof-from-outside.md)).
//!
//! ```text
//!  plan (what, to whom) ─▶ life: a cluster, clients, load ─▶ inject ─ lasts ─ heal ─ whole? ─▶ … ─▶ checkers ─▶ a line for each round
//! ```
//! `make chaos` goes on until each scenario has so many rounds of this revision; what was there already counts, so it can be stopped at any time; `LIFE=seed` is a life once more, with its bug if one was planted. *Invariants:* 1. a round without evidence that the fault
//! bit is void and counts for nothing; 2. rounds of different revisions are never added up; 3. who reads the figures can repeat them: every line has its seed.

mod again;
mod inject;
mod life;
mod load;
mod plan;
mod score;
mod soak;
mod watch;
mod world;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitCode;
use std::time::Duration;

use cluster_tests::net;
use jepsen::page;
use jepsen::page::Outcome;
use jepsen::page::Round;
use parking_lot::Mutex;
use smg::base::clock::Clock;
use smg::base::entropy::Entropy;

use crate::case::Case;
use crate::report::asked;
use life::Identity;
use life::Lived;
use plan::PLANS;
use plan::Plan;

pub(crate) use score::run as score;
pub(crate) use soak::run as soak;

/// Rounds that a cluster lives through. More would be more of them without a verdict if its life ends early.
const ROUNDS_OF_A_LIFE: usize = 6;
/// No life takes so long; one that hangs is over.
const LIFE_MAX: Duration = Duration::from_secs(1200);
/// Lives in a row that gave no round at all: something is wrong with the machine or with what is tried.
const FAILURES_MAX: usize = 3;

/// Where rounds are kept, and what they are of.
struct Book {
    folder: PathBuf,
    identity: Identity,
}

impl Book {
    /// What is tried is told by `revision`, which was looked at when the run began: the tree may change meanwhile, what runs does not.
    fn open(revision: &str) -> Self {
        let folder = std::env::var("ROUNDS").map_or_else(|_| PathBuf::from("rounds"), PathBuf::from);
        std::fs::create_dir_all(&folder).expect("ROUNDS names a folder that can be made");
        Self { folder, identity: Identity { revision: revision.to_owned(), machine: machine(), planted: None } }
    }

    fn file(&self) -> PathBuf {
        self.folder.join("rounds.jsonl")
    }

    /// All rounds that were kept, of whatever revision.
    fn rounds(&self) -> Vec<Round> {
        if self.file().exists() { page::read(&self.file()).expect("the file of rounds is read") } else { Vec::new() }
    }

    /// Those of this revision as it is.
    fn ours(&self) -> Vec<Round> {
        let ours = |it: &Round| it.revision == self.identity.revision && it.planted.is_none();
        self.rounds().into_iter().filter(ours).collect()
    }

    /// How many rounds of this revision have shown something, by scenario.
    fn counted(&self) -> BTreeMap<String, usize> {
        let mut counted = BTreeMap::new();
        for round in self.ours().iter().filter(|it| it.verdict() != Outcome::Void) {
            *counted.entry(round.scenario.clone()).or_default() += 1;
        }
        counted
    }

    fn keep(&self, lived: &Lived) {
        for round in &lived.rounds {
            page::append(&self.file(), round).expect("the round is kept");
        }
        self.show(lived);
    }

    fn show(&self, lived: &Lived) {
        lived.rounds.iter().for_each(print);
        if let Some(round) = lived.rounds.iter().find(|it| it.verdict() == Outcome::Violated) {
            let file = self.folder.join(format!("history-{}-{}.jsonl", round.seed, round.number));
            jepsen::history::write(&file, &lived.history).expect("the history is kept");
            println!("     what clients saw: {} (`jepsen check FILE` reads it again)", file.display());
        }
    }

    /// The pages, from all that was kept.
    fn publish(&self) {
        let rounds = self.rounds();
        let write =
            |name: &str, text: &str| std::fs::write(self.folder.join(name), text).expect("the report is written");
        write("chaos.md", &page::markdown(&rounds));
        write("chaos.html", &page::html(&rounds));
        write("chaos.json", &page::json(&rounds).to_string());
        println!("report: {}", self.folder.join("chaos.html").display());
    }
}

fn print(round: &Round) {
    let word = match round.verdict() {
        Outcome::Held => "HELD",
        Outcome::Violated => "VIOLATED",
        Outcome::Void => "VOID",
    };
    let figure =
        |name: &str| round.times_ms.get(name).map_or_else(|| "-".to_owned(), |it| format!("{:.2} s", it / 1e3));
    println!(
        "{word:<8} {:<16} seed {} round {}: {}; {} of {} requests served, write gap {}, whole after {}",
        round.scenario,
        round.seed,
        round.number,
        round.fault,
        round.counts.get("served").unwrap_or(&0.0),
        round.counts.get("requests").unwrap_or(&0.0),
        figure("write_gap"),
        figure("heal"),
    );
    for violation in &round.violations {
        println!("     {violation}");
    }
    for void in round.bit.iter().filter(|it| !it.is_so) {
        println!("     nothing is shown: {} = {}", void.what, void.number);
    }
}

/// The commit, and whether it is that commit alone.
fn revision() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output();
        output.map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned()).unwrap_or_default()
    };
    // What only the harness or the documents say does not change what is tried.
    let tried = git(&["log", "-1", "--format=%h", "--", "src", "proto", "Cargo.toml", "Cargo.lock"]);
    let is_changed = !git(&["status", "--porcelain", "--", "src", "proto", "Cargo.toml", "Cargo.lock"]).is_empty();
    if is_changed { format!("{tried}-changed") } else { tried }
}

fn machine() -> String {
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let build = std::env::var("SMG_BIN").unwrap_or_default();
    let build = match build.as_str() {
        it if it.contains("/release/") => "release",
        it if it.contains("/proof/") => "optimised, self-checking",
        _ => "debug",
    };
    let lives = if lives() == 1 { String::new() } else { format!(", {} clusters at a time", lives()) };
    format!("{cpus} cores, Linux {}, {build} build{lives}", kernel.trim())
}

/// The words of the command line.
fn words() -> Vec<String> {
    std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect()
}

/// What all is drawn from.
fn entropy() -> Entropy {
    number("SEED").map_or_else(Entropy::from_os, Entropy::seeded)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|it| it.parse().ok())
}

/// A life to come.
#[derive(Clone)]
struct Next {
    plans: Vec<&'static Plan>,
    identity: Identity,
    seed: u64,
    /// The number of its first round.
    first: u64,
}

/// Says what is lived next, and keeps what came of it.
trait Director: Send {
    /// Beside these, which are under way; nothing, when that is all.
    fn next(&mut self, under_way: &[Next]) -> Option<Next>;
    fn keep(&mut self, next: &Next, lived: &Lived);
}

/// `LIVES` at a time, until the director knows no more or `MINUTES` are over.
fn live_all(director: &mut impl Director) {
    let limit = Duration::from_secs(60) * u32::try_from(asked("MINUTES", 24 * 60)).unwrap_or(u32::MAX);
    let begun = Clock.now();
    let shared = Mutex::new((director, Vec::<Next>::new(), 0));
    let work = || loop {
        let next = {
            let (director, under_way, failures) = &mut *shared.lock();
            if *failures >= FAILURES_MAX || Clock.now() - begun >= limit {
                return;
            }
            let Some(next) = director.next(under_way) else { return };
            under_way.push(next.clone());
            next
        };
        let lived = life(&next);
        let (director, under_way, failures) = &mut *shared.lock();
        under_way.retain(|it| it.seed != next.seed);
        *failures = if lived.is_some() { 0 } else { *failures + 1 };
        if let Some(lived) = lived {
            director.keep(&next, &lived);
        }
    };
    std::thread::scope(|scope| (0..lives()).for_each(|_| drop(scope.spawn(work))));
}

/// Lives at a time.
fn lives() -> usize {
    asked("LIVES", 1)
}

/// Goes on until each scenario that the command line names has `N` rounds, or `MINUTES` are over.
pub(crate) fn run() -> ExitCode {
    let words = words();
    if let Err(reason) = net::is_possible() {
        println!("NOT RUN: {reason}");
        return ExitCode::FAILURE;
    }
    if let Some(seed) = number("LIFE") {
        return again::run(seed);
    }
    let chosen = |it: &&Plan| words.is_empty() || words.iter().any(|word| it.name == word);
    let plans: Vec<&'static Plan> = PLANS.iter().filter(|it| chosen(it)).collect();
    let (plans, impossible): (Vec<_>, Vec<_>) = plans.into_iter().partition(|it| world::is_possible(it.ground).is_ok());
    for plan in &impossible {
        println!("NOT RUN  {:<16} {}", plan.name, world::is_possible(plan.ground).err().unwrap_or_default());
    }
    let mut all = Rounds { plans, wanted: asked("N", 20), book: Book::open(&revision()), entropy: entropy() };
    println!("{} scenarios, {} rounds each, at {}", all.plans.len(), all.wanted, all.book.identity.revision);
    live_all(&mut all);
    let Rounds { plans, wanted, book, .. } = all;
    book.publish();
    let counted = book.counted();
    let missing: usize = plans.iter().map(|it| wanted.saturating_sub(counted.get(it.name).copied().unwrap_or(0))).sum();
    let violated = book.ours().iter().filter(|it| it.verdict() == Outcome::Violated).count();
    println!("{} rounds, {violated} violated, {missing} still to do", counted.values().sum::<usize>());
    if violated == 0 && missing == 0 && impossible.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// So many rounds of each.
struct Rounds {
    plans: Vec<&'static Plan>,
    wanted: usize,
    book: Book,
    entropy: Entropy,
}

impl Director for Rounds {
    fn next(&mut self, under_way: &[Next]) -> Option<Next> {
        let mut counted = self.book.counted();
        for plan in under_way.iter().flat_map(|it| &it.plans) {
            *counted.entry(plan.name.to_owned()).or_default() += 1;
        }
        let plans = next(&self.plans, &counted, self.wanted, &self.entropy);
        let (identity, seed) = (self.book.identity.clone(), self.entropy.next_u64() >> 32);
        (!plans.is_empty()).then_some(Next { plans, identity, seed, first: 0 })
    }

    fn keep(&mut self, _: &Next, lived: &Lived) {
        self.book.keep(lived);
    }
}

/// Those of one ground and size that lack most, in an order that is drawn.
fn next(
    plans: &[&'static Plan],
    counted: &BTreeMap<String, usize>,
    wanted: usize,
    entropy: &Entropy,
) -> Vec<&'static Plan> {
    let lacks = |it: &Plan| wanted.saturating_sub(counted.get(it.name).copied().unwrap_or(0));
    let mut grounds: Vec<(usize, &Plan)> = Vec::new();
    for plan in plans {
        match grounds.iter_mut().find(|it| (it.1.ground, it.1.nodes) == (plan.ground, plan.nodes)) {
            Some(known) => known.0 += lacks(plan),
            None => grounds.push((lacks(plan), plan)),
        }
    }
    let Some(ground) = grounds.into_iter().filter(|it| it.0 > 0).max_by_key(|it| it.0) else { return Vec::new() };
    let mut these: Vec<&'static Plan> = plans
        .iter()
        .filter(|it| (it.ground, it.nodes) == (ground.1.ground, ground.1.nodes) && lacks(it) > 0)
        .copied()
        .collect();
    for at in (1..these.len()).rev() {
        these.swap(at, entropy.below(at + 1));
    }
    these.sort_by_key(|it| std::cmp::Reverse(lacks(it)));
    // Few scenarios come again in one life.
    let lacking: usize = these.iter().map(|it| lacks(it)).sum();
    these.iter().cycle().take(lacking.min(ROUNDS_OF_A_LIFE)).copied().collect()
}

/// One cluster's life. `None`: it did not get as far as a verdict, and why was printed.
fn life(next: &Next) -> Option<Lived> {
    on_a_thread(next.seed, LIFE_MAX, {
        let next = next.clone();
        async move |case: &Case| life::live(case, &next.plans, &next.identity, next.first).await
    })
    .or_else(|| {
        let names: Vec<&str> = next.plans.iter().map(|it| it.name).collect();
        println!("FAILED   a life of seed {} with rounds {names:?} ended without a verdict", next.seed);
        None
    })
}

/// On a thread of its own, which the processes of its cluster end with.
fn on_a_thread<T: Send + 'static>(
    seed: u64,
    limit: Duration,
    live: impl AsyncFn(&Case) -> T + Send + 'static,
) -> Option<T> {
    let name: &'static str = "life";
    let lived = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let case = Case::new(name, seed);
        let lived = catch_unwind(AssertUnwindSafe(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async { tokio::time::timeout(limit, live(&case)).await.ok() })
        }));
        lived.ok().flatten()
    });
    lived.expect("a thread").join().ok().flatten()
}
