//! What rounds come to, when they are added up: by revision, since rounds of different programs say nothing about each other.
//!
//! *Invariants:* 1. a void round counts as nothing but void; 2. a round of a binary with a planted bug says something about the harness and nothing about promises; 3. every round is counted once.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Serialize;
use serde::Serializer;

use super::date;
use super::round::Outcome;
use super::round::Round;

/// What is promised, in few words; DESIGN's numbers.
pub const PROMISES: [(&str, &str); 11] = [
    ("P1", "Any node serves what some worker can serve, whoever else is lost"),
    ("P2", "An edit is in force everywhere within a second, survives restarts, and nothing deleted comes back"),
    (
        "P3",
        "Acknowledged history is never lost while a majority of disks lives; reads are linearizable; no quorum is a 503",
    ),
    ("P4", "A limit holds once for all nodes, split or whole"),
    ("P5", "Spread over nodes, caches are hit as on one node"),
    ("P6", "A worker's failure is retried before content and said after it: no silence, no duplicate"),
    ("P7", "A client that leaves ends its request at the worker; in-flight counts return to 0"),
    ("P8", "All that grows has a bound"),
    ("P9", "Only members speak in the mesh; only a tenant sees its own; no secret leaves"),
    ("P10", "Rolling every node, versions mixed, fails no request"),
    ("P11", "Prompts and completions never travel in gossip"),
];

/// Worst rounds of a scenario that are named.
pub const WORST_MAX: usize = 10;

/// Rounds, added up.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// Newest first.
    pub revisions: Vec<Revision<'a>>,
}

/// What rounds of one revision come to.
#[derive(Debug, Serialize)]
pub struct Revision<'a> {
    /// The commit.
    pub revision: &'a str,
    /// When its first round began.
    pub first: &'a str,
    /// When its last round began.
    pub last: &'a str,
    /// Computers that rounds ran on.
    pub machines: BTreeSet<&'a str>,
    /// Rounds of the program as it is.
    pub rounds: Tally,
    /// Violations by the program as it is.
    pub violations: Vec<Violation<'a>>,
    /// A line for each promise, those that nothing tried too.
    pub promises: Vec<Promise<'a>>,
    /// A line for each scenario; those with violations first.
    pub scenarios: Vec<Scenario<'a>>,
    /// A line for each bug that was planted; those that nobody noticed first.
    pub planted: Vec<Planted<'a>>,
    /// A line for each cluster.
    pub lives: Vec<Life<'a>>,
}

/// How rounds ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// What was promised held.
    pub held: usize,
    /// It did not.
    pub violated: usize,
    /// Nothing was shown.
    pub void: usize,
}

/// A promise and the rounds that put it to the test.
#[derive(Debug, Serialize)]
pub struct Promise<'a> {
    /// `P1`.
    pub number: &'a str,
    /// In few words.
    pub text: &'a str,
    /// What put it to the test.
    pub scenarios: BTreeSet<&'a str>,
    /// Rounds.
    pub rounds: Tally,
    /// With 95 % it is broken in fewer rounds than this part of them; nothing where it was broken, or the rounds are too few to say.
    pub bound: Option<f64>,
}

/// A violation and where it was.
#[derive(Debug, Serialize)]
pub struct Violation<'a> {
    /// What cannot have happened and did.
    pub text: &'a str,
    /// The round.
    #[serde(serialize_with = "named")]
    pub round: &'a Round,
}

/// What the rounds of one scenario come to.
#[derive(Debug, Serialize)]
pub struct Scenario<'a> {
    /// Its name.
    pub name: &'a str,
    /// The promises that it tries.
    pub promises: BTreeSet<&'a str>,
    /// Rounds.
    pub rounds: Tally,
    /// What was counted, in all rounds that are not void.
    pub counts: BTreeMap<&'a str, Sum>,
    /// How long things took, in all rounds that are not void.
    pub times_ms: BTreeMap<&'a str, Spread>,
    /// Bugs on purpose that it showed: a scenario that was never seen to fail proves little.
    pub showed: BTreeSet<&'a str>,
    /// The largest resident memory of a node.
    pub rss_bytes_max: Option<u64>,
    /// The worst rounds, worst first.
    #[serde(serialize_with = "all_named")]
    pub worst: Vec<&'a Round>,
}

/// Counts of rounds, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sum {
    /// Of all rounds.
    pub sum: f64,
    /// Of one round.
    pub max: f64,
}

/// Where values of rounds lie.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// How many there are.
    pub n: usize,
    /// The median.
    pub p50: f64,
    /// As many as 99 of 100 are not above it.
    pub p99: f64,
    /// The largest.
    pub max: f64,
    /// All, sorted.
    #[serde(skip)]
    pub values: Vec<f64>,
}

/// The rounds that one cluster lived through, and what all of it was drawn from.
#[derive(Debug, Serialize)]
pub struct Life<'a> {
    /// The seed.
    pub seed: u64,
    /// Its rounds.
    pub scenarios: Vec<&'a str>,
    /// The bug on purpose.
    pub planted: Option<&'a str>,
}

/// A bug on purpose, and whether it was noticed.
#[derive(Debug, Serialize)]
pub struct Planted<'a> {
    /// The rule that was broken.
    pub bug: &'a str,
    /// What was to notice.
    pub scenarios: BTreeSet<&'a str>,
    /// Rounds; `violated` are those in which it was noticed.
    pub rounds: Tally,
    /// Rounds until it was noticed, that one counted and void ones not; nothing if it never was.
    pub needed: Option<usize>,
    /// What was said when it was noticed first.
    pub noticed: Option<&'a str>,
}

impl<'a> Report<'a> {
    /// Adds them up.
    #[must_use]
    pub fn of(rounds: &'a [Round]) -> Self {
        let mut groups: BTreeMap<&str, Vec<&Round>> = BTreeMap::new();
        for round in rounds {
            groups.entry(&round.revision).or_default().push(round);
        }
        let mut revisions: Vec<_> = groups.into_iter().map(|(name, rounds)| Revision::of(name, &rounds)).collect();
        revisions.sort_by_key(|it| std::cmp::Reverse(date::seconds(it.last)));
        Self { revisions }
    }
}

impl<'a> Revision<'a> {
    fn of(revision: &'a str, all: &[&'a Round]) -> Self {
        let of_planted: Vec<_> = all.iter().copied().filter(|it| it.planted.is_some()).collect();
        let rounds: Vec<_> = all.iter().copied().filter(|it| it.planted.is_none()).collect();
        let dates = || all.iter().map(|it| it.date.as_str());
        Self {
            revision,
            first: dates().min_by_key(|it| date::seconds(it)).unwrap_or_default(),
            last: dates().max_by_key(|it| date::seconds(it)).unwrap_or_default(),
            machines: all.iter().map(|it| it.machine.as_str()).filter(|it| !it.is_empty()).collect(),
            rounds: Tally::of(&rounds),
            violations: violations(&rounds),
            promises: PROMISES.iter().map(|(number, text)| Promise::of(number, text, &rounds)).collect(),
            scenarios: scenarios(&rounds, &of_planted),
            planted: planted(&of_planted),
            lives: lives(all),
        }
    }

    /// How many of the planted bugs were noticed.
    #[must_use]
    pub fn caught(&self) -> usize {
        self.planted.iter().filter(|it| it.needed.is_some()).count()
    }
}

impl Tally {
    fn of(rounds: &[&Round]) -> Self {
        let ended = |outcome| rounds.iter().filter(|it| it.verdict() == outcome).count();
        Self { held: ended(Outcome::Held), violated: ended(Outcome::Violated), void: ended(Outcome::Void) }
    }

    /// Rounds that showed something.
    #[must_use]
    pub fn shown(self) -> usize {
        self.held + self.violated
    }

    /// The rule of three: what happened in none of N rounds happens, with 95 %, in fewer than 3/N of them.
    #[must_use]
    pub fn bound(self) -> Option<f64> {
        (self.violated == 0 && self.held > 3).then(|| 3.0 / self.held as f64)
    }

    /// The figure, in words.
    #[must_use]
    pub fn figure(self) -> String {
        match (self.shown(), self.bound()) {
            (0, _) => "nothing shown".to_owned(),
            (of, Some(bound)) => format!("0 of {}: below {} with 95 %", count(of), percent(bound)),
            (of, None) if self.violated == 0 => format!("0 of {of}: too few for a bound"),
            (of, None) => format!("{} of {}", count(self.violated), count(of)),
        }
    }
}

/// With thousands apart.
fn count(rounds: usize) -> String {
    super::svg::number(rounds as f64)
}

/// Two digits that count.
fn percent(part: f64) -> String {
    let percent = part * 100.0;
    let digits = if percent >= 10.0 { 0 } else { (1.0 - percent.log10().floor()).clamp(0.0, 6.0) as usize };
    format!("{percent:.digits$} %")
}

/// In the order in which they were lived.
fn lives<'a>(rounds: &[&'a Round]) -> Vec<Life<'a>> {
    let mut lives: Vec<Life<'_>> = Vec::new();
    for round in rounds {
        match lives.iter_mut().find(|it| it.seed == round.seed) {
            Some(life) => life.scenarios.push(&round.scenario),
            None => lives.push(Life {
                seed: round.seed,
                scenarios: vec![&round.scenario],
                planted: round.planted.as_deref(),
            }),
        }
    }
    lives
}

impl<'a> Promise<'a> {
    fn of(number: &'a str, text: &'a str, rounds: &[&'a Round]) -> Self {
        let tried: Vec<_> = rounds.iter().copied().filter(|it| it.tries(number)).collect();
        let (mut rounds, violated) = (Tally::of(&tried), tried.iter().filter(|it| it.violates(number)).count());
        // A round that broke another promise than this one kept this one.
        rounds.held += rounds.violated - violated;
        rounds.violated = violated;
        let scenarios = tried.iter().map(|it| it.scenario.as_str()).collect();
        Self { number, text, scenarios, rounds, bound: rounds.bound() }
    }
}

impl<'a> Scenario<'a> {
    fn of(name: &'a str, rounds: &[&'a Round]) -> Self {
        let shown: Vec<_> = rounds.iter().copied().filter(|it| it.verdict() != Outcome::Void).collect();
        let mut counts: BTreeMap<&str, Sum> = BTreeMap::new();
        let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for round in &shown {
            for (what, number) in &round.counts {
                let sum = counts.entry(what).or_default();
                *sum = Sum { sum: sum.sum + number, max: sum.max.max(*number) };
            }
            for (what, ms) in &round.times_ms {
                times.entry(what).or_default().push(*ms);
            }
        }
        let mut worst = rounds.to_vec();
        worst.sort_by(|a, b| severity(b).0.cmp(&severity(a).0).then(severity(b).1.total_cmp(&severity(a).1)));
        worst.truncate(WORST_MAX);
        Self {
            name,
            promises: rounds.iter().flat_map(|it| it.promises.iter().map(String::as_str)).collect(),
            rounds: Tally::of(rounds),
            counts,
            times_ms: times.into_iter().map(|(what, values)| (what, Spread::of(values))).collect(),
            showed: BTreeSet::new(),
            rss_bytes_max: shown.iter().flat_map(|it| it.rss_bytes.iter().copied()).max(),
            worst,
        }
    }

    /// The sum of a count; nothing where nobody counted it.
    #[must_use]
    pub fn sum(&self, what: &str) -> Option<f64> {
        self.counts.get(what).map(|it| it.sum)
    }

    /// What its distribution is drawn of: the gap of writes, or else how long healing took.
    #[must_use]
    pub fn main_time(&self) -> Option<(&'a str, &Spread)> {
        let named = ["write_gap", "heal"].into_iter().find_map(|it| self.times_ms.get_key_value(it));
        named.or_else(|| self.times_ms.iter().next()).map(|(what, spread)| (*what, spread))
    }
}

/// Promises in the order of their numbers.
#[must_use]
pub fn in_order(promises: &BTreeSet<&str>) -> String {
    let mut all: Vec<_> = promises.iter().copied().collect();
    all.sort_by_key(|it| (it.len(), *it));
    all.join(", ")
}

/// Violations come before all else, void rounds last, and between them what took longest comes first.
fn severity(round: &Round) -> (u8, f64) {
    let rank = match round.verdict() {
        Outcome::Violated => 2,
        Outcome::Held => 1,
        Outcome::Void => 0,
    };
    let time = |what| round.times_ms.get(what).copied();
    (rank, time("write_gap").or_else(|| time("heal")).unwrap_or_default())
}

impl Spread {
    /// Of values in any order.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let n = values.len();
        let rank = |percent: usize| values.get((n * percent).div_ceil(100).saturating_sub(1)).copied();
        let [p50, p99, max] = [50, 99, 100].map(|it| rank(it).unwrap_or_default());
        Self { n, p50, p99, max, values }
    }
}

fn violations<'a>(rounds: &[&'a Round]) -> Vec<Violation<'a>> {
    let violated = rounds.iter().copied().filter(|it| it.verdict() == Outcome::Violated);
    let mut all = Vec::new();
    for round in violated {
        if round.violations.is_empty() {
            all.push(Violation { text: "violated, and nothing says how", round });
        }
        all.extend(round.violations.iter().map(|text| Violation { text, round }));
    }
    all
}

fn scenarios<'a>(rounds: &[&'a Round], planted: &[&'a Round]) -> Vec<Scenario<'a>> {
    let mut groups: BTreeMap<&str, Vec<&Round>> = BTreeMap::new();
    for round in rounds {
        groups.entry(&round.scenario).or_default().push(round);
    }
    let mut all: Vec<_> = groups.into_iter().map(|(name, rounds)| Scenario::of(name, &rounds)).collect();
    all.sort_by_key(|it| it.rounds.violated == 0);
    for scenario in &mut all {
        let seen = planted.iter().filter(|it| it.scenario == scenario.name && it.shows_its_bug());
        scenario.showed = seen.filter_map(|it| it.planted.as_deref()).collect();
    }
    all
}

/// Rounds are in the order they were run in.
fn planted<'a>(rounds: &[&'a Round]) -> Vec<Planted<'a>> {
    let mut groups: BTreeMap<&str, Vec<&Round>> = BTreeMap::new();
    for round in rounds {
        groups.entry(round.planted.as_deref().unwrap_or_default()).or_default().push(round);
    }
    let mut all: Vec<_> = groups
        .into_iter()
        .map(|(bug, rounds)| {
            let shown: Vec<_> = rounds.iter().copied().filter(|it| it.verdict() != Outcome::Void).collect();
            let at = shown.iter().position(|it| it.shows_its_bug());
            Planted {
                bug,
                scenarios: rounds.iter().map(|it| it.scenario.as_str()).collect(),
                rounds: Tally::of(&rounds),
                needed: at.map(|it| it + 1),
                noticed: at.and_then(|it| shown[it].violations.first()).map(String::as_str),
            }
        })
        .collect();
    all.sort_by_key(|it| it.needed.is_some());
    all
}

/// A round by what finds it again.
#[derive(Serialize)]
struct Named<'a> {
    scenario: &'a str,
    number: u64,
    seed: u64,
    date: &'a str,
    verdict: Outcome,
    fault: &'a str,
}

impl<'a> From<&&'a Round> for Named<'a> {
    fn from(round: &&'a Round) -> Self {
        let (scenario, number, seed, date, fault) =
            (round.scenario.as_str(), round.number, round.seed, round.date.as_str(), round.fault.as_str());
        Self { scenario, number, seed, date, verdict: round.verdict(), fault }
    }
}

fn named<S: Serializer>(round: &&Round, to: S) -> Result<S::Ok, S::Error> {
    Named::from(round).serialize(to)
}

fn all_named<S: Serializer>(rounds: &[&Round], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(rounds.iter().map(Named::from))
}
