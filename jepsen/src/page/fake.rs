//! Rounds as a run would leave them, drawn from a seed: for looking at the page, and for trying its bounds.

use super::round::Mark;
use super::round::Outcome;
use super::round::Proof;
use super::round::Round;
use super::round::Timeline;

const STEP_MS: u32 = 100;

/// A scenario, the promises it tries, what it does, and how long writes stop for.
const SCENARIOS: [(&str, &[&str], &str, f64); 8] = [
    ("history_leader_killed", &["P1", "P3", "P10"], "kill -9 of node {}, which led history", 900.0),
    ("history_leader_paused", &["P1", "P3"], "SIGSTOP of node {} for 6 s, which led history", 1_400.0),
    ("minority_cut_off", &["P1", "P3", "P2"], "node {} cut off from both others, both ways", 300.0),
    ("one_way_cut", &["P1", "P3"], "node {} hears nobody and is heard by all", 1_100.0),
    ("power_cut_of_all", &["P2", "P3"], "power of all nodes cut in the middle of writes, node {} last", 4_200.0),
    ("disks_full", &["P1", "P3", "P8"], "disk of node {} filled up to the last byte", 150.0),
    ("clock_jumps", &["P3", "P4"], "wall clock of node {} set 300 s ahead, then 60 s back", 90.0),
    (
        "workers_killed_under_streams",
        &["P1", "P6", "P7"],
        "two of four workers of node {} killed with streams open",
        0.0,
    ),
];

const PLANTED: [(&str, usize); 5] = [
    ("history::AcknowledgesBeforeFsync", 0),
    ("raft::VotesTwiceInATerm", 1),
    ("history::ReadsWithoutAsking", 1),
    ("limits::SharesAreNotReturned", 6),
    ("ledger::AnOwnerNeverExpires", 7),
];

/// Draws that are the same each time.
pub(super) struct Draws(pub u64);

impl Draws {
    /// From 0 to 1.
    pub(super) fn part(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, n: usize) -> usize {
        ((self.part() * n as f64) as usize).min(n - 1)
    }
}

/// Rounds of one revision: most hold, some are void, and with `violations` one in fifty breaks something.
pub(super) fn rounds(seed: u64, count: usize, revision: &str, day: u32, with_violations: bool) -> Vec<Round> {
    let mut draws = Draws(seed);
    let mut all: Vec<_> = (0..count)
        .map(|number| {
            let mut it = round(&mut draws, number, number % SCENARIOS.len());
            it.revision = revision.to_owned();
            it.date = format!("2026-11-{day:02}T{:02}:{:02}:{:02}Z", number / 60 % 24, number % 60, draws.below(60));
            if with_violations && draws.below(50) == 0 && it.outcome == Outcome::Held {
                violated(&mut it);
            }
            it
        })
        .collect();
    for (bug, scenario) in PLANTED {
        for n in 0..6 {
            let mut it = round(&mut draws, count + n, scenario);
            it.revision = revision.to_owned();
            it.date = format!("2026-11-{day:02}T23:{n:02}:00Z");
            it.planted = Some(bug.to_owned());
            if bug != "ledger::AnOwnerNeverExpires" && draws.below(3) == 0 {
                violated(&mut it);
            }
            all.push(it);
        }
    }
    all
}

fn violated(round: &mut Round) {
    round.outcome = Outcome::Violated;
    round.violations = vec![
        "P3: append 4711 to conv_31 was acknowledged at 12.4 s and is in no read after 19.8 s <at any node>".to_owned(),
    ];
    round.counts.insert("lost".to_owned(), 1.0);
}

fn round(draws: &mut Draws, number: usize, scenario: usize) -> Round {
    let (name, promises, fault, gap) = SCENARIOS[scenario];
    let node = draws.below(3);
    let from_ms = 8_000 + draws.below(3_000) as u64;
    let to_ms = from_ms + 6_000 + draws.below(2_000) as u64;
    let gap_ms = gap * (0.7 + 0.8 * draws.part() + if draws.below(20) == 0 { 4.0 * draws.part() } else { 0.0 });
    let heal_ms = 300.0 + 2_500.0 * draws.part() * draws.part();
    let timeline = timeline(draws, node as u8, (from_ms, to_ms), gap_ms as u64, heal_ms as u64);
    let bit = draws.below(25) != 0;
    let sum = |of: &[u32]| of.iter().map(|it| f64::from(*it)).sum::<f64>();
    let mut counts = vec![
        ("requests", sum(&timeline.requests)),
        ("failed_elsewhere", 0.0),
        ("failed_at_the_hurt_node", sum(&timeline.errors)),
        ("streams_broken", draws.below(4) as f64),
        ("stuck", 0.0),
        ("in_flight_at_idle", 0.0),
        ("panics", 0.0),
    ];
    let mut times = vec![("heal", heal_ms)];
    if gap > 0.0 {
        counts.extend([("acknowledged", sum(&timeline.acknowledged)), ("lost", 0.0), ("twice", 0.0)]);
        times.push(("write_gap", gap_ms));
    }
    Round {
        version: Round::VERSION,
        machine: "2 cores (AMD EPYC, virtual), 24 GB, Linux 6.18; three nodes and the observer on one computer"
            .to_owned(),
        scenario: name.to_owned(),
        promises: promises.iter().map(ToString::to_string).collect(),
        seed: 7_000 + number as u64,
        number: number as u64,
        nodes: 3,
        began_ms: 0,
        fault_from_ms: from_ms,
        fault_to_ms: to_ms,
        whole_at_ms: Some(to_ms + heal_ms as u64),
        fault: fault.replace("{}", &node.to_string()),
        bit: vec![
            Proof { what: "requests failed at the hurt node".to_owned(), number: counts[2].1, is_so: bit },
            Proof { what: "changes of leader".to_owned(), number: 2.0, is_so: true },
        ],
        outcome: if bit { Outcome::Held } else { Outcome::Void },
        counts: counts.into_iter().map(|(what, number)| (what.to_owned(), number)).collect(),
        times_ms: times.into_iter().map(|(what, ms)| (what.to_owned(), ms)).collect(),
        rss_bytes: (0..3).map(|_| 28_000_000 + draws.below(3_000_000) as u64).collect(),
        timeline,
        ..Round::default()
    }
}

fn timeline(draws: &mut Draws, node: u8, fault: (u64, u64), gap_ms: u64, heal_ms: u64) -> Timeline {
    let steps = ((fault.1 + heal_ms + 6_000) / u64::from(STEP_MS)) as usize;
    let mut line = Timeline { step_ms: STEP_MS, ..Timeline::default() };
    let found_ms = fault.0 + gap_ms;
    for step in 0..steps {
        let at = step as u64 * u64::from(STEP_MS);
        let is_hurt = (fault.0..fault.1).contains(&at);
        let is_electing = gap_ms > 0 && (fault.0..found_ms).contains(&at);
        let requests = 22 + draws.below(9) as u32 - if is_hurt { 8 } else { 0 };
        line.requests.push(requests);
        line.errors.push(if is_hurt { draws.below(6) as u32 } else { 0 });
        let p50 = (6.0 + 3.0 * draws.part()) * if is_electing { 2.0 } else { 1.0 };
        let tail = if draws.below(30) == 0 { 30.0 } else { 1.0 };
        line.p50_ms.push(p50 as f32);
        line.p99_ms.push((p50 * (2.5 + 2.0 * draws.part()) * tail * if is_electing { 25.0 } else { 1.0 }) as f32);
        line.acknowledged.push(if is_electing { 0 } else { 7 + draws.below(5) as u32 });
        line.leader.push((!is_electing).then_some(if at < fault.0 || gap_ms == 0 { node } else { (node + 1) % 3 }));
        line.terms.push(if at < fault.0 || gap_ms == 0 { 2 } else { 3 });
    }
    line.marks = vec![
        Mark { from_ms: fault.0 + 1_750, to_ms: fault.0 + 1_750, text: format!("node {node} is seen down") },
        Mark { from_ms: found_ms, to_ms: found_ms + 600, text: "history hands leases over".to_owned() },
        Mark { from_ms: fault.1, to_ms: fault.1 + heal_ms, text: format!("node {node} starts and catches up") },
    ];
    line
}
