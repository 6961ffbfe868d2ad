//! Whether what clients were told can have happened. Everything here reads histories alone, and goes from what is plain to what is clever: direct checks, then our search for an order, then `adya`.

mod adya;
mod background;
mod idempotency;
mod limits;
mod linear;
mod lists;
mod orders;
mod responses;
mod stream;
mod workers;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Deserialize;
use serde::Serialize;

use super::history::Event;
use super::history::Kind;
use super::history::NEMESIS;
use super::history::Operation;
use super::history::operations;
use super::workload::Workload;

/// Violations that a verdict lists; more are counted.
const LISTED_MAX: usize = 50;

/// What a checker says of a workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// `direct`, `linearizable` or `adya`.
    pub checker: String,
    /// Whose operations it looked at.
    pub workload: String,
    /// Operations that took effect.
    pub ok: u64,
    /// Operations that did not.
    pub fail: u64,
    /// Operations of which nobody knows.
    pub info: u64,
    /// What cannot have happened if the cluster kept its word.
    pub violations: Vec<Violation>,
    /// Why it is not known whether there are others.
    pub unknown: Option<String>,
}

/// Something that was told and cannot be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Violation {
    /// In a sentence; it begins with the kind and a colon.
    pub what: String,
    /// When, in nanoseconds since the history began.
    pub at: Vec<u64>,
}

/// What a checker found so far.
#[derive(Debug, Default)]
struct Findings {
    violations: Vec<Violation>,
    more: usize,
    unknown: Option<String>,
}

impl Findings {
    fn add(&mut self, what: String, at: &[u64]) {
        if self.violations.len() < LISTED_MAX {
            self.violations.push(Violation { what, at: at.to_vec() });
        } else {
            self.more += 1;
        }
    }

    /// The first reason is kept.
    fn doubt(&mut self, why: String) {
        self.unknown.get_or_insert(why);
    }

    fn verdict(mut self, checker: &str, workload: &str, ops: &[Operation]) -> Verdict {
        if self.more > 0 {
            let what = format!("and {} more", self.more);
            let at = self.violations.last().map(|it| it.at.clone()).unwrap_or_default();
            self.violations.push(Violation { what, at });
        }
        let count = |kind| ops.iter().filter(|it| it.kind == kind).count() as u64;
        Verdict {
            checker: checker.to_owned(),
            workload: workload.to_owned(),
            ok: count(Kind::Ok),
            fail: count(Kind::Fail),
            info: count(Kind::Info),
            violations: self.violations,
            unknown: self.unknown,
        }
    }
}

/// Scenarios that take a node's data away.
const FORGETTING: &[&str] = &["wipe", "snapshot_cut"];

/// What is known of a history besides its operations.
struct Facts {
    /// How many nodes were asked.
    nodes: usize,
    /// Parts of the names of the runs.
    tags: BTreeSet<String>,
    /// When clients began, in nanoseconds.
    begun: Option<u64>,
    /// Milliseconds since 1970 when it began.
    wall_ms: Option<u64>,
    /// Whether somebody changed a clock.
    clocks_differ: bool,
    /// Whether a node lost what it had.
    has_forgotten: bool,
    /// Whether the last reads were asked for.
    has_settled: bool,
    /// Workloads that ran.
    workloads: BTreeSet<String>,
}

impl Facts {
    fn of(events: &[Event]) -> Self {
        let notes: Vec<_> = events.iter().filter(|it| it.workload == NEMESIS).collect();
        let runs: Vec<_> = notes.iter().filter(|it| it.f == "run").collect();
        let named = runs.iter().flat_map(|it| it.value["workloads"].as_array().cloned().unwrap_or_default());
        Self {
            nodes: runs.iter().filter_map(|it| it.value["nodes"].as_u64()).max().unwrap_or_default() as usize,
            tags: runs.iter().map(|it| it.key.clone()).collect(),
            begun: runs.first().map(|it| it.time),
            wall_ms: runs.first().and_then(|it| it.value["wall_ms"].as_u64()),
            clocks_differ: notes.iter().any(|it| it.f.contains("clock") || it.key.contains("clock")),
            has_forgotten: notes
                .iter()
                .any(|it| FORGETTING.contains(&it.f.as_str()) || FORGETTING.contains(&it.key.as_str())),
            has_settled: notes.iter().any(|it| it.f == "settled"),
            workloads: named.filter_map(|it| it.as_str().map(ToOwned::to_owned)).collect(),
        }
    }
}

/// Every checker on every workload that the history has.
#[must_use]
pub fn check(events: &[Event]) -> Vec<Verdict> {
    let (facts, all) = (Facts::of(events), operations(events));
    let mut verdicts = Vec::new();
    for workload in Workload::ALL {
        let ops: Vec<_> = all.iter().filter(|it| it.workload == workload.name()).cloned().collect();
        if ops.is_empty() && !facts.workloads.contains(workload.name()) {
            continue;
        }
        let mut say =
            |checker: &str, findings: Findings| verdicts.push(findings.verdict(checker, workload.name(), &ops));
        let mut direct = match workload {
            Workload::Lists => lists::direct(&ops, &facts),
            Workload::Responses => responses::direct(&ops, &facts),
            Workload::Idempotency => idempotency::direct(&ops, &facts),
            Workload::Background => background::direct(&ops, &facts),
            Workload::Workers => workers::direct(&ops, &facts),
            Workload::Limits => limits::direct(&ops, &facts),
        };
        if !ops.iter().any(Operation::is_ok) {
            direct.doubt("no operation succeeded".to_owned());
        }
        say("direct", direct);
        match workload {
            Workload::Lists => {
                say("linearizable", orders::lists(&ops));
                say("adya", adya::lists(&ops));
            }
            Workload::Responses => say("linearizable", orders::responses(&ops)),
            Workload::Idempotency | Workload::Background | Workload::Workers | Workload::Limits => {}
        }
    }
    verdicts
}

/// By what they are about, each in its order.
fn by_key(ops: &[Operation]) -> BTreeMap<&str, Vec<&Operation>> {
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for op in ops {
        keys.entry(&op.key).or_default().push(op);
    }
    keys
}

/// Whether each key that must have a last read at each node has one.
fn finals(findings: &mut Findings, facts: &Facts, keys: &[&str], ops: &[Operation], f: &str) {
    if !facts.has_settled {
        return findings.doubt("the history ends before the last reads".to_owned());
    }
    let read: BTreeSet<_> =
        ops.iter().filter(|it| it.f == f && it.is_ok()).map(|it| (it.key.as_str(), it.node)).collect();
    for node in 0..facts.nodes {
        let missing = keys.iter().filter(|it| !read.contains(&(**it, Some(node)))).count();
        if missing > 0 {
            findings.doubt(format!("node {node} answered no last read of {missing} of {}", keys.len()));
        }
    }
}

/// A time as people read it, in seconds.
fn s(time: u64) -> String {
    format!("{:.3} s", time as f64 / 1e9)
}

/// The node of an operation, as people read it.
fn at_node(op: &Operation) -> String {
    op.node.map_or_else(|| "some node".to_owned(), |it| format!("node {it}"))
}
