//! What a run found: hits, times to first token, who answered questions about load, and what all of it cost.

use std::time::Duration;

use super::world::Setup;
use crate::ledger::Reading;
use crate::ledger::Source;
use crate::sim::cluster;

/// Counted during a run.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) first_token: Vec<Duration>,
    pub(super) ledger_bytes: u64,
    pub(super) elapsed: Duration,
    pub(super) busy: Vec<Duration>,
    cached: u64,
    tokens: u64,
    expected: u64,
    local: u64,
    remote: u64,
    fallback: u64,
}

impl Tally {
    pub(super) fn hit(&mut self, cached: u64, tokens: u64) {
        (self.cached, self.tokens) = (self.cached + cached, self.tokens + tokens);
    }

    pub(super) fn expected(&mut self, tokens: u64) {
        self.expected += tokens;
    }

    pub(super) fn probed(&mut self, readings: &[Reading]) {
        for it in readings {
            match it.source {
                Source::Local => self.local += 1,
                Source::Remote => self.remote += 1,
                Source::Unknown | Source::Missed => self.fallback += 1,
            }
        }
    }
}

/// See the file's header.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) setup: Setup,
    /// Share of prompt tokens that were in the cache.
    pub(super) hits: f64,
    pub(super) mean: f64,
    pub(super) p99: f64,
    /// Share of questions about load that nobody answered well, and that another node answered.
    pub(super) fallback: f64,
    pub(super) remote: f64,
    /// Cached tokens that were expected, for one that was there.
    pub(super) belief: f64,
    /// How busy workers were, and the busiest of them against the mean.
    pub(super) busy: f64,
    pub(super) imbalance: f64,
    /// Bytes a second and gateway: membership and tables, ledgers.
    pub(super) gossip: f64,
    pub(super) ledger: f64,
}

impl Report {
    pub(super) fn of(tally: &Tally, setup: Setup, gossip: cluster::Tally) -> Self {
        let mut times: Vec<f64> = tally.first_token.iter().map(Duration::as_secs_f64).collect();
        times.sort_by(f64::total_cmp);
        let asked = (tally.local + tally.remote + tally.fallback).max(1) as f64;
        let busy: Vec<f64> = tally.busy.iter().map(Duration::as_secs_f64).collect();
        let busy_mean = busy.iter().sum::<f64>() / busy.len() as f64;
        let a_second = tally.elapsed.as_secs_f64() * setup.gateways as f64;
        Self {
            setup,
            hits: tally.cached as f64 / tally.tokens.max(1) as f64,
            mean: times.iter().sum::<f64>() / times.len().max(1) as f64,
            p99: times.get(times.len() * 99 / 100).copied().unwrap_or_default(),
            fallback: tally.fallback as f64 / asked,
            remote: tally.remote as f64 / asked,
            belief: tally.expected as f64 / tally.cached.max(1) as f64,
            busy: busy_mean / tally.elapsed.as_secs_f64(),
            imbalance: busy.iter().copied().fold(0.0, f64::max) / busy_mean,
            gossip: (gossip.swim_bytes + gossip.table_bytes) as f64 / a_second,
            ledger: tally.ledger_bytes as f64 / a_second,
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Setup { gateways, workers, pace, view, policy, .. } = self.setup;
        write!(
            f,
            "| {gateways} | {workers} x {}k | {policy} {view:?} | {:.1} % | {:.2} | {:.1} | {:.2} | {:.2} | {:.2} | {:.2} % | {:.0} % | {:.1} | {:.1} |",
            pace.cache / 1000,
            self.hits * 100.0,
            self.mean,
            self.p99,
            self.belief,
            self.busy,
            self.imbalance,
            self.fallback * 100.0,
            self.remote * 100.0,
            self.gossip / 1000.0,
            self.ledger / 1000.0,
        )
    }
}
