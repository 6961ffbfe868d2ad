//! Eight nodes, every row at the same time, until each has had its windows.
//!
//! Windows are as the nodes number them: what was admitted is summed up by the window that its units are of, what was offered by the same calendar, aligned to the same
//! clock. Clients arrive at random (a Poisson process), wait for nobody and do not try again. A row's first window and its last are not whole and are left out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use cluster_tests::within;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use smg::base::clock::Clock;
use smg::base::entropy::Entropy;
use smg::limits::Definition;
use smg::limits::Handle;
use smg::limits::Kind;
use smg::limits::Taken;
use smg::limits::calendar::Calendar;
use smg::limits::core::Answer;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::sleep_until;

use crate::asked;
use crate::counter::Counter;
use crate::nodes;
use crate::rows;
use crate::rows::NODES;
use crate::rows::Row;
use crate::rows::Way;

/// A group of five voters takes some changes of members on a busy machine, and a limit is divided a second after that.
const DIVIDED: Duration = Duration::from_secs(180);
/// Not sooner than this is looked for the next arrival: what came meanwhile comes at once.
const TICK: Duration = Duration::from_millis(1);
/// Answers of requests are estimated up to so much wrong, prompts up to a quarter of it.
const ERROR: f64 = 0.4;

/// What happened in one window.
#[derive(Default)]
struct Sum {
    offered: u64,
    /// Units that were admitted, as settled: what was reserved and not used is not among them.
    admitted: i64,
    refused: u64,
    /// The longest that an arrival was later than it should have been: then the load was another one.
    late: Duration,
}

/// Who settles when.
type Ending = (Instant, u64, Taken, bool);

/// What is asked.
#[derive(Clone)]
enum Asked {
    Nodes(Vec<Handle>),
    Counter(Arc<Counter>),
}

struct Load {
    row: Row,
    asked: Asked,
    entropy: Entropy,
    calendar: Calendar,
    parts: Vec<f64>,
    sums: BTreeMap<u64, Sum>,
    /// Tokens that are held by requests that go on.
    endings: BTreeMap<u64, Ending>,
    number: u64,
    file: Arc<Mutex<File>>,
}

pub(crate) async fn run() {
    let path = crate::file();
    let file = File::options().create(true).append(true).open(&path).expect("a file for windows");
    let file = Arc::new(Mutex::new(file));
    let rows = rows::all();
    println!("{} limits at {NODES} nodes; every window is written to {}", rows.len(), path.display());
    let nodes = nodes::start::<NODES>().await;
    let handles: Vec<Handle> = nodes.iter().map(|it| it.node.limits.clone()).collect();
    let ours: Vec<Row> = rows.iter().copied().filter(|it| it.way == Way::Escrow).collect();
    let definitions: Arc<[Definition]> = ours.iter().map(Row::definition).collect();
    nodes.iter().for_each(|it| drop(it.node.definitions.send_replace(Arc::clone(&definitions))));
    let share = |it: &Handle, row: &Row| it.standing(row.limit).map_or(0, |it| it.share);
    let is_divided = |row: &Row| {
        let shares: Vec<u64> = handles.iter().map(|it| share(it, row)).collect();
        shares.iter().sum::<u64>() == row.units && shares.iter().all(|it| *it >= row.units / NODES as u64)
    };
    let took = within("all limits are divided over all", DIVIDED, async || ours.iter().all(is_divided)).await;
    println!("divided over all {took:?} after the nodes started");
    let calendar = Calendar::new(Clock.now(), Clock.wall());
    let (mut loads, mut gossip) = (JoinSet::new(), JoinSet::new());
    for (number, row) in rows.into_iter().enumerate() {
        let usual = if row.window_ms < 10_000 { asked("SHORT_WINDOWS", 600) } else { asked("WINDOWS", 105) };
        let asked = match row.way {
            Way::Escrow => Asked::Nodes(handles.clone()),
            Way::Gossip | Way::GossipSplit => {
                let counter = Counter::new(row, calendar, row.way == Way::GossipSplit);
                gossip.spawn(Arc::clone(&counter).gossip());
                Asked::Counter(counter)
            }
        };
        let load = Load {
            row,
            asked,
            entropy: Entropy::seeded(number as u64),
            calendar,
            parts: row.skew.parts(),
            sums: BTreeMap::new(),
            endings: BTreeMap::new(),
            number: 0,
            file: Arc::clone(&file),
        };
        loads.spawn(load.go(usual));
    }
    while loads.join_next().await.is_some_and(|it| it.is_ok()) {}
    crate::table::print(&path);
}

impl Load {
    async fn go(mut self, windows: u64) {
        let first = self.calendar.place(Clock.now(), self.row.window_ms).window;
        let mut written = first;
        let mut next = Clock.now();
        let mut takes = FuturesUnordered::new();
        while written < first + windows {
            let until = next.max(Clock.now() + TICK).min(self.endings.values().map(|it| it.0).min().unwrap_or(next));
            tokio::select! {
                biased;
                Some((at, answer)) = takes.next() => self.answered(at, answer),
                () = sleep_until(until) => {
                    let now = Clock.now();
                    while next <= now {
                        let (node, units) = self.arrival(next, now);
                        match &self.asked {
                            Asked::Nodes(handles) => {
                                let (handle, limit) = (handles[node].clone(), self.row.limit);
                                takes.push(async move { (now, handle.take(limit, units).await) });
                            }
                            Asked::Counter(counter) => {
                                let window = counter.take(node, now, units);
                                self.counted(now, window, units);
                            }
                        }
                        next += Duration::from_secs_f64(-(1.0 - self.entropy.unit()).ln() / self.row.rate());
                    }
                    self.settle(now);
                }
            }
            written = self.write(written, first);
        }
    }

    fn sum(&mut self, at: Instant) -> &mut Sum {
        let window = self.calendar.place(at, self.row.window_ms).window;
        self.sums.entry(window).or_default()
    }

    /// Which node, and how many units.
    fn arrival(&mut self, due: Instant, now: Instant) -> (usize, u64) {
        let draw = self.entropy.unit();
        let node = self.parts.iter().position(|it| draw < *it).unwrap_or(NODES - 1);
        let units = 1 + self.entropy.below(self.row.size_max() as usize) as u64;
        let sum = self.sum(now);
        sum.offered += units;
        sum.late = sum.late.max(now - due);
        (node, units)
    }

    fn counted(&mut self, now: Instant, window: Option<u64>, units: u64) {
        match window {
            Some(window) => self.sums.entry(window).or_default().admitted += units as i64,
            None => self.sum(now).refused += 1,
        }
    }

    fn answered(&mut self, asked: Instant, answer: Answer) {
        let mut taken = match answer {
            Answer::Admitted(taken) => taken,
            Answer::Open => return self.sum(asked).admitted += 1_000_000_000, // nothing here lets anybody through uncounted
            Answer::Refused(_) => return self.sum(asked).refused += 1,
        };
        self.sums.entry(taken.window()).or_default().admitted += taken.units() as i64;
        if self.row.kind == Kind::Tokens {
            let half = Duration::from_millis(1 + self.entropy.next_u64() % (u64::from(self.row.window_ms) / 2));
            let output = taken.split(taken.units() / 2);
            for (after, taken, is_output) in [(half, taken, false), (half * 2, output, true)] {
                let error = if is_output { ERROR } else { ERROR / 4.0 };
                let used = taken.units() as f64 * (1.0 + (self.entropy.unit() * 2.0 - 1.0) * error);
                self.number += 1;
                self.endings.insert(self.number, (asked + after, used.round() as u64, taken, is_output));
            }
        }
    }

    /// Ends requests whose time has come, as `tenancy::budget` does.
    fn settle(&mut self, now: Instant) {
        let due: Vec<u64> = self.endings.iter().filter(|it| it.1.0 <= now).map(|it| *it.0).collect();
        for number in due {
            let Some((_, used, taken, is_output)) = self.endings.remove(&number) else { continue };
            let off = used as i64 - taken.units() as i64;
            if off > 0 || is_output {
                self.sum(now).admitted += off;
            } else {
                self.sums.entry(taken.window()).or_default().admitted += off;
            }
            if is_output { taken.settle_output(now, used) } else { taken.settle(now, used) }
        }
    }

    /// Writes windows that nothing changes any more, but for the first, which is not whole; returns the first that is not written.
    fn write(&mut self, mut next: u64, first: u64) -> u64 {
        let at_hand = self.calendar.place(Clock.now(), self.row.window_ms).window;
        // Of tokens a prompt may be settled, downwards, until half a window after its own.
        while next + 2 < at_hand {
            let sum = self.sums.remove(&next).unwrap_or_default();
            if next > first {
                let Sum { offered, admitted, refused, late } = sum;
                let (row, ms) = (self.row, late.as_millis());
                let line = format!("{row}\t{next}\t{offered}\t{admitted}\t{refused}\t{ms}\n");
                self.file.lock().write_all(line.as_bytes()).expect("the file can be written");
            }
            next += 1;
        }
        next
    }
}
