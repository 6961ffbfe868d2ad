//! Checkers on histories of small stores that keep every promise, and on the same histories with one thing wrong: the first must be green and the second red, for every seed.

mod files;
mod plants;
mod search;
mod worlds;

use serde_json::Value;
use serde_json::json;

use super::Verdict;
use super::check;
use crate::history::Event;
use crate::history::Kind;
use crate::history::NEMESIS;
use crate::history::Process;
use crate::random::Random;

const SEEDS: u64 = 100;
const NODES: usize = 3;
const TAG: &str = "t";
const MS: u64 = 1_000_000;

/// An operation before it is written down.
#[derive(Clone, Debug)]
struct Draft {
    process: u32,
    f: &'static str,
    key: String,
    node: usize,
    began: u64,
    /// When it takes effect, if ever.
    effect: Option<u64>,
    ended: u64,
    kind: Kind,
    asked: Value,
    told: Value,
    error: String,
}

/// Clients at random times, each with one operation at a time.
struct Sim {
    random: Random,
    drafts: Vec<Draft>,
    /// When each is free, and its number.
    clients: Vec<(u64, u32)>,
    processes: u32,
}

impl Sim {
    fn new(seed: u64, clients: u32) -> Self {
        let mut random = Random::new(seed, 0);
        let clients: Vec<_> = (0..clients).map(|it| (random.below(20) as u64 * MS + MS, it)).collect();
        Self { processes: clients.len() as u32, random, drafts: Vec::new(), clients }
    }

    /// Who is free next, and when.
    fn next(&self) -> (usize, u64) {
        let free = self.clients.iter().enumerate().min_by_key(|it| it.1).expect("there are clients");
        (free.0, free.1.0)
    }

    fn ms(&mut self, most: usize) -> u64 {
        (1 + self.random.below(most * 1000) as u64) * MS / 1000
    }

    /// That client does it: mostly it takes effect and is told so.
    fn act(&mut self, client: usize, f: &'static str, key: &str, asked: Value, is_read: bool) -> usize {
        let node = self.random.below(NODES);
        let began = self.clients[client].0 + self.ms(20);
        let soon = began + self.ms(8);
        let ended = soon + self.ms(8);
        let late = began + self.ms(400);
        let (kind, effect) = match self.random.below(100) {
            0..5 => (Kind::Fail, None),
            5..10 if !is_read => (Kind::Info, None),
            10..17 if !is_read => (Kind::Info, Some(late)),
            _ => (Kind::Ok, Some(soon)),
        };
        let process = self.clients[client].1;
        let error = if kind == Kind::Ok { String::new() } else { "503 x".to_owned() };
        let told = if kind == Kind::Ok { asked.clone() } else { Value::Null };
        self.drafts.push(Draft {
            process,
            f,
            key: key.to_owned(),
            node,
            began,
            effect,
            ended,
            kind,
            asked,
            told,
            error,
        });
        self.clients[client].0 = ended;
        if kind == Kind::Info {
            self.clients[client].1 = self.processes;
            self.processes += 1;
        }
        self.drafts.len() - 1
    }

    /// The last reads: each of these, at each node, after everything.
    fn finals(&mut self, f: &'static str, keys: &[String]) {
        let end = self.drafts.iter().map(|it| it.ended.max(it.effect.unwrap_or_default())).max().unwrap_or_default();
        for node in 0..NODES {
            let (process, mut at) = (self.processes, end + (10_000 + 5000 * node as u64) * MS);
            self.processes += 1;
            for key in keys {
                let (began, effect, ended) = (at, Some(at + MS), at + 2 * MS);
                at += 3 * MS;
                let (asked, told, error, key) = (Value::Null, Value::Null, String::new(), key.clone());
                self.drafts.push(Draft {
                    process,
                    f,
                    key,
                    node,
                    began,
                    effect,
                    ended,
                    kind: Kind::Ok,
                    asked,
                    told,
                    error,
                });
            }
        }
    }

    /// All that take effect, in that order.
    fn effects(&self) -> Vec<usize> {
        let mut all: Vec<_> = (0..self.drafts.len()).filter(|it| self.drafts[*it].effect.is_some()).collect();
        all.sort_by_key(|it| self.drafts[*it].effect);
        all
    }
}

/// A history of them.
fn events(workload: &str, drafts: &[Draft]) -> Vec<Event> {
    let note = |time, f: &str, value| Event {
        time,
        process: Process::Nemesis,
        kind: Kind::Info,
        workload: NEMESIS.to_owned(),
        f: f.to_owned(),
        key: TAG.to_owned(),
        value,
        node: None,
        error: None,
    };
    let mut all = vec![note(0, "run", json!({"nodes": NODES, "workloads": [workload], "wall_ms": 1_000_123}))];
    for it in drafts {
        let event = |time, kind, value, error| Event {
            time,
            process: Process::Client(it.process),
            kind,
            workload: workload.to_owned(),
            f: it.f.to_owned(),
            key: it.key.clone(),
            value,
            node: Some(it.node),
            error,
        };
        let value = if it.kind == Kind::Ok || !it.told.is_null() { it.told.clone() } else { it.asked.clone() };
        all.push(event(it.began, Kind::Invoke, it.asked.clone(), None));
        all.push(event(it.ended, it.kind, value, Some(it.error.clone()).filter(|it| !it.is_empty())));
    }
    let last = all.iter().map(|it| it.time).max().unwrap_or_default();
    all.push(note(last + 1, "settled", Value::Null));
    all.sort_by_key(|it| (it.time, it.kind != Kind::Invoke));
    all
}

fn judged(workload: &str, drafts: &[Draft]) -> Vec<Verdict> {
    check(&events(workload, drafts))
}

fn told(verdicts: &[Verdict]) -> Vec<String> {
    verdicts
        .iter()
        .flat_map(|it| it.violations.iter().map(|violation| format!("{}: {}", it.checker, violation.what)))
        .collect()
}
