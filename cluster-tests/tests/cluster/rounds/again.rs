//! A life once more, by its seed: the same rounds in the same order, and what is drawn (who, how long, in which order) is drawn alike. What processes and clients do meanwhile is as it comes, so a violation that needs
//! luck may take several lives.

use std::process::ExitCode;

use jepsen::page::Outcome;
use jepsen::page::Round;

use super::Book;
use super::Next;
use super::life;
use super::life::Identity;
use super::plan::PLANS;
use super::plan::Plan;

/// The life of `LIFE`, with the rounds that are kept of it, or those that the command line names, in their order; with the bug that is kept of it, or `PLANTED`. It counts for nothing: what was lived once is in the book.
pub(super) fn run(seed: u64) -> ExitCode {
    let book = Book::open(&super::revision());
    let mut before: Vec<Round> = book.rounds().into_iter().filter(|it| it.seed == seed).collect();
    before.sort_by_key(|it| it.number);
    let named = |name: &str| PLANS.iter().find(|it| it.name == name);
    let words = super::words();
    let plans: Option<Vec<&'static Plan>> = match before.is_empty() {
        true => words.iter().map(|it| named(it)).collect(),
        false => before.iter().map(|it| named(&it.scenario)).collect(),
    };
    let Some(plans) = plans.filter(|it| !it.is_empty()) else {
        println!(
            "no life of seed {seed} is kept in {}: name its scenarios, in the report's order",
            book.folder.display()
        );
        return ExitCode::FAILURE;
    };
    let planted = before.first().map_or_else(|| std::env::var("PLANTED").ok(), |it| it.planted.clone());
    let names: Vec<&str> = plans.iter().map(|it| it.name).collect();
    println!("the life of seed {seed} at {}, bug on purpose {planted:?}: {names:?}", book.identity.revision);
    let first = before.first().map_or(0, |it| it.number);
    let next = Next { plans, identity: Identity { planted, ..book.identity.clone() }, seed, first };
    let Some(lived) = life(&next) else { return ExitCode::FAILURE };
    book.show(&lived);
    for (was, is) in before.iter().zip(&lived.rounds).filter(|it| it.0.fault != it.1.fault) {
        println!("round {} was, at {}: {}", is.number, was.revision, was.fault);
    }
    let is_violated = lived.rounds.iter().any(|it| it.verdict() == Outcome::Violated);
    if is_violated { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
