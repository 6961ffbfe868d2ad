//! One run of a scenario: its seed, what was done to the cluster and when, what came out.

use std::fmt::Display;
use std::time::Duration;

use parking_lot::Mutex;
use smg::base::clock::Clock;
use smg::base::entropy::Entropy;
use tokio::time::Instant;

/// Above it suspicions of healthy nodes are the machine's fault: a suspect has 1.2 s, in which several threads need several turns.
const GAP_MAX: Duration = Duration::from_millis(300);

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The claim held, and the fault bit.
    Pass,
    /// The claim did not hold.
    Fail,
    /// The fault did not bite, or the machine was too slow to show anything.
    Void,
}

/// One run.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) seed: u64,
    /// Draws what the scenario leaves to chance.
    pub(crate) entropy: Entropy,
    started: Instant,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    done: Vec<String>,
    figures: Vec<String>,
    voids: Vec<String>,
}

impl Case {
    pub(crate) fn new(name: &'static str, seed: u64) -> Self {
        Self { name, seed, entropy: Entropy::seeded(seed), started: Clock.now(), notes: Mutex::default() }
    }

    /// Something was done to the cluster now.
    pub(crate) fn did(&self, what: impl Display) {
        let at = (Clock.now() - self.started).as_secs_f64();
        self.notes.lock().done.push(format!("{at:.1} s {what}"));
    }

    /// Something was measured.
    pub(crate) fn figure(&self, what: impl Display) {
        self.notes.lock().figures.push(what.to_string());
    }

    /// Unless this is so the run shows nothing.
    pub(crate) fn bites(&self, what: &str, is_so: bool) {
        if !is_so {
            self.notes.lock().voids.push(what.to_owned());
        }
    }

    /// A shuffled `0..len`.
    pub(crate) fn shuffled(&self, len: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        for at in (1..len).rev() {
            order.swap(at, self.entropy.below(at + 1));
        }
        order
    }

    /// Prints the line. `gap` is the longest that the machine let a thread wait.
    pub(crate) fn end(&self, is_held: bool, gap: Duration) -> Outcome {
        self.bites("threads get their turn within 300 ms; the machine is overloaded", is_held || gap < GAP_MAX);
        let notes = self.notes.lock();
        let outcome = match (is_held, notes.voids.is_empty()) {
            (_, false) => Outcome::Void,
            (false, true) => Outcome::Fail,
            (true, true) => Outcome::Pass,
        };
        let word = match outcome {
            Outcome::Pass => "PASS",
            Outcome::Fail => "FAIL",
            Outcome::Void => "VOID",
        };
        let took = (Clock.now() - self.started).as_secs_f64();
        let mut text = format!("{word} {:<55} {took:5.1} s  {}", self.name, notes.figures.join("; "));
        text += &format!(
            "\n     seed {}, longest wait for a turn {} ms: {}",
            self.seed,
            gap.as_millis(),
            notes.done.join(" · ")
        );
        for void in &notes.voids {
            text += &format!("\n     nothing is shown unless {void}");
        }
        println!("{text}");
        outcome
    }
}

/// The middle and the largest of some times, in seconds.
pub(crate) fn spread(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = |index: usize| sorted.get(index).map_or(0.0, Duration::as_secs_f64);
    format!("p50 {:.2} s, max {:.2} s (N={})", at(sorted.len() / 2), at(sorted.len().saturating_sub(1)), sorted.len())
}
