//! What limits are compared with: a counter of each node that is gossiped. Each counts what it admitted in the window, tells the others every half second, and admits
//! while the sum that it knows leaves room.
//!
//! It is kinder to the counter than a network: what is told arrives at once, and nothing is lost.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use smg::base::clock::Clock;
use smg::limits::calendar::Calendar;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;
use tokio::time::interval;

use crate::rows::NODES;
use crate::rows::Row;

/// How often each node tells what it counted.
const EVERY: Duration = Duration::from_millis(500);

/// What a node counted, and heard of the others.
#[derive(Clone, Copy, Default)]
struct Known {
    window: u64,
    totals: [u64; NODES],
}

/// One limit at all nodes.
pub(crate) struct Counter {
    row: Row,
    calendar: Calendar,
    nodes: Mutex<[Known; NODES]>,
    /// Nodes are cut into two halves that do not hear each other.
    is_split: bool,
}

impl Counter {
    pub(crate) fn new(row: Row, calendar: Calendar, is_split: bool) -> Arc<Self> {
        Arc::new(Self { row, calendar, nodes: Mutex::default(), is_split })
    }

    /// The window in which it is admitted; none if it is not.
    pub(crate) fn take(&self, node: usize, now: Instant, units: u64) -> Option<u64> {
        let window = self.calendar.place(now, self.row.window_ms).window;
        let known = &mut self.nodes.lock()[node];
        if known.window != window {
            *known = Known { window, ..Known::default() };
        }
        let is_admitted = known.totals.iter().sum::<u64>() + units <= self.row.units;
        if is_admitted {
            known.totals[node] += units;
        }
        is_admitted.then_some(window)
    }

    /// Tells, each node in its turn, until it is dropped.
    pub(crate) async fn gossip(self: Arc<Self>) {
        let mut turns = interval(EVERY / NODES as u32);
        turns.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for turn in 0.. {
            turns.tick().await;
            self.tell(turn % NODES, self.calendar.place(Clock.now(), self.row.window_ms).window);
        }
    }

    fn tell(&self, from: usize, window: u64) {
        let mut nodes = self.nodes.lock();
        let told = nodes[from];
        if told.window != window {
            return;
        }
        for (to, known) in nodes.iter_mut().enumerate() {
            let is_heard = !self.is_split || (to < NODES / 2) == (from < NODES / 2);
            if to != from && is_heard {
                if known.window != window {
                    *known = Known { window, ..Known::default() };
                }
                known.totals[from] = told.totals[from];
            }
        }
    }
}
