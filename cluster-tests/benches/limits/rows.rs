//! What is measured: one limit a row.

use std::fmt;

use smg::limits::Definition;
use smg::limits::Kind;
use smg::limits::LimitId;

pub(crate) const NODES: usize = 8;
/// What is wanted, over the limit.
const TIMES: f64 = 1.5;

/// Where it is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skew {
    Uniform,
    Zipf,
    One,
}

impl Skew {
    /// Of all that is wanted, the part up to and with each node.
    pub(crate) fn parts(self) -> Vec<f64> {
        let weight = |n: usize| match self {
            Self::Uniform => 1.0,
            Self::Zipf => 1.0 / (n + 1) as f64,
            Self::One => f64::from(u8::from(n == 3)),
        };
        let all: f64 = (0..NODES).map(weight).sum();
        let mut sum = 0.0;
        let mut add = |n| {
            sum += weight(n) / all;
            sum
        };
        (0..NODES).map(&mut add).collect()
    }
}

/// What counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// What this repository does.
    Escrow,
    /// A counter that is gossiped.
    Gossip,
    /// The same with nodes that are cut in two halves.
    GossipSplit,
}

/// One limit and its load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) way: Way,
    pub(crate) limit: LimitId,
    pub(crate) kind: Kind,
    pub(crate) window_ms: u32,
    pub(crate) units: u64,
    pub(crate) skew: Skew,
}

impl Row {
    pub(crate) fn definition(&self) -> Definition {
        let Self { limit, kind, window_ms, units, .. } = *self;
        Definition { limit, revision: 1, kind, window_ms, units }
    }

    /// Largest request. A request's own part of a limit of tokens is what an exact limit may leave over.
    pub(crate) fn size_max(&self) -> u64 {
        if self.kind == Kind::Tokens { (self.units / 100).max(1) } else { 1 }
    }

    /// Requests a second that want, on the average, one and a half times the limit.
    pub(crate) fn rate(&self) -> f64 {
        let size = (1 + self.size_max()) as f64 / 2.0;
        self.units as f64 * TIMES / size / (f64::from(self.window_ms) / 1000.0)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { way, kind, window_ms, units, skew, .. } = *self;
        write!(f, "{way:?}\t{kind:?}\t{}\t{units}\t{skew:?}", window_ms / 1000)
    }
}

/// All of them: requests with three limits, three skews and two windows, our way and the other; tokens with one limit.
pub(crate) fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |way, window_ms, kind, units, skew| {
        let limit = LimitId(1_000 + rows.len() as u64);
        rows.push(Row { way, limit, kind, window_ms, units, skew });
    };
    for window_ms in [1_000, 60_000] {
        for skew in [Skew::Uniform, Skew::Zipf, Skew::One] {
            for units in [20, 100, 10_000] {
                add(Way::Escrow, window_ms, Kind::Requests, units, skew);
                add(Way::Gossip, window_ms, Kind::Requests, units, skew);
            }
            add(Way::Escrow, window_ms, Kind::Tokens, 10_000, skew);
        }
        for units in [20, 100, 10_000] {
            add(Way::GossipSplit, window_ms, Kind::Requests, units, Skew::Uniform);
        }
    }
    rows
}
