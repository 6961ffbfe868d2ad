//! A round as it is kept: one fault, from injection to healed and whole, under load, with evidence that it bit.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;

/// One line of a file of rounds. What a reader does not find is empty, and what it does not know it passes over, so that fields can be added; [`Round::VERSION`] rises when
/// something that was there means something else.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Round {
    /// What its fields mean: [`Round::VERSION`] when it was written.
    pub version: u8,
    /// The commit that was tried. Rounds of different revisions are never added up.
    pub revision: String,
    /// When it began, RFC 3339.
    pub date: String,
    /// The computer it ran on, in words.
    pub machine: String,
    /// What was done and to whom, as a name.
    pub scenario: String,
    /// The promises that it puts to the test: `P1`, `P3`.
    pub promises: Vec<String>,
    /// Repeats its draws.
    pub seed: u64,
    /// Which round of its run it was.
    pub number: u64,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// When the round began. All times of a round are in milliseconds since one moment, which the timeline begins at too.
    pub began_ms: u64,
    /// When the fault began.
    pub fault_from_ms: u64,
    /// When the fault had been taken away.
    pub fault_to_ms: u64,
    /// When the cluster was whole again; nothing if it never was.
    pub whole_at_ms: Option<u64>,
    /// What was done, to whom.
    pub fault: String,
    /// Evidence that the fault bit.
    pub bit: Vec<Proof>,
    /// How it ended, as whoever ran it says; [`Round::verdict`] is what counts.
    pub outcome: Outcome,
    /// What cannot have happened and did. One that begins with a promise's number and a colon speaks of that promise alone.
    pub violations: Vec<String>,
    /// The rule that the binary broke on purpose, if it did.
    pub planted: Option<String>,
    /// `requests`, `failed_elsewhere`, `acknowledged`, `lost`, ...
    #[serde(deserialize_with = "those_known")]
    pub counts: BTreeMap<String, f64>,
    /// `write_gap`, `heal`, ..., in milliseconds.
    #[serde(deserialize_with = "those_known")]
    pub times_ms: BTreeMap<String, f64>,
    /// Resident memory of each node at the end.
    pub rss_bytes: Vec<u64>,
    /// What happened when.
    pub timeline: Timeline,
}

/// How a round ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It bit, and what was promised held.
    Held,
    /// Something happened that must not.
    Violated,
    /// Nothing was shown: the fault did not bite, or the round did not get to its end.
    #[default]
    Void,
}

/// One thing that shows that the fault bit, or that there was load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Proof {
    /// What was counted.
    pub what: String,
    /// How many.
    #[serde(deserialize_with = "known")]
    pub number: f64,
    /// Whether that is enough.
    pub is_so: bool,
}

/// What happened in each step of a round. All lists begin at the round's moment zero; they need not be of one length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timeline {
    /// How long a step is.
    pub step_ms: u32,
    /// Requests that ended.
    pub requests: Vec<u32>,
    /// Of those, how many failed.
    pub errors: Vec<u32>,
    /// Median time of an answer; 0 where nothing was answered.
    #[serde(deserialize_with = "measured")]
    pub p50_ms: Vec<f32>,
    /// The time that one answer of a hundred exceeded.
    #[serde(deserialize_with = "measured")]
    pub p99_ms: Vec<f32>,
    /// Writes that were acknowledged.
    pub acknowledged: Vec<u32>,
    /// Which node led; nothing where nobody said that it did.
    pub leader: Vec<Option<u8>>,
    /// The highest term that was seen.
    pub terms: Vec<u64>,
    /// What else was done or noticed.
    pub marks: Vec<Mark>,
}

/// Something with a time and a name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mark {
    /// Since when.
    pub from_ms: u64,
    /// Until when; the same for a moment.
    pub to_ms: u64,
    /// What.
    pub text: String,
}

impl Round {
    /// What this code writes.
    pub const VERSION: u8 = 1;

    /// How it counts. A violation is one whatever else was shown, and a fault without evidence shows nothing, whatever was said of the round's outcome.
    #[must_use]
    pub fn verdict(&self) -> Outcome {
        if self.outcome == Outcome::Violated || !self.violations.is_empty() {
            Outcome::Violated
        } else if self.outcome == Outcome::Void || self.bit.iter().any(|it| !it.is_so) {
            Outcome::Void
        } else {
            Outcome::Held
        }
    }

    /// What the proof is called that the place of a planted bug was reached.
    pub const REACHED: &str = "the planted bug was reached";

    /// Whether it was noticed that a rule was broken on purpose. What happens where the place was never reached has another cause.
    #[must_use]
    pub fn shows_its_bug(&self) -> bool {
        let is_reached = self.bit.iter().all(|it| it.what != Self::REACHED || it.is_so);
        self.planted.is_some() && self.verdict() == Outcome::Violated && is_reached
    }

    /// Whether this promise was put to the test here.
    #[must_use]
    pub fn tries(&self, promise: &str) -> bool {
        self.promises.iter().any(|it| it == promise) || self.names(promise)
    }

    /// Whether this round is a violation of this promise. Where no violation says which promise it is of, it is one of all that were tried.
    #[must_use]
    pub fn violates(&self, promise: &str) -> bool {
        let is_said = self.violations.iter().any(|it| promise_of(it).is_none()) || self.violations.is_empty();
        self.verdict() == Outcome::Violated && self.tries(promise) && (is_said || self.names(promise))
    }

    fn names(&self, promise: &str) -> bool {
        self.violations.iter().any(|it| promise_of(it) == Some(promise))
    }
}

/// The promise that a violation says it is of.
fn promise_of(violation: &str) -> Option<&str> {
    let (head, _) = violation.split_once(':')?;
    let number = head.strip_prefix('P')?;
    (!number.is_empty() && number.bytes().all(|it| it.is_ascii_digit())).then_some(head)
}

// JSON has no word for a number that is none: it is written as null.

fn known<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn measured<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f32>, D::Error> {
    Ok(Vec::<Option<f32>>::deserialize(from)?.into_iter().map(Option::unwrap_or_default).collect())
}

fn those_known<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let all = BTreeMap::<String, Option<f64>>::deserialize(from)?;
    Ok(all.into_iter().filter_map(|(name, number)| Some((name, number?))).collect())
}
