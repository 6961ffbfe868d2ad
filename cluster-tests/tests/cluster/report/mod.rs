//! What takes figures instead of passing or failing: rows for `docs/reports/cluster.md`, by the same machines and switch.
//!
//! `make report-cluster` runs them with the release binary, one after the other. Each prints rows of a table; the page is written by hand from them.

mod control;
mod detection;
mod edits;
mod incumbent;
mod incumbent_limits;
mod limits;
mod recovery;
mod traffic;

use std::time::Duration;

use super::runner::Scenario;

/// Everything that takes figures.
pub(crate) fn all() -> Vec<Scenario> {
    vec![
        Scenario::figure("idle", traffic::idle),
        Scenario::figure("added", recovery::added),
        Scenario::figure("restarts", recovery::restarts),
        Scenario::figure("splits", recovery::splits),
        Scenario::figure("edits", edits::in_force),
        Scenario::figure("gossip", traffic::under_load),
        Scenario::figure("detection", detection::curve),
        Scenario::figure("bootstrap", control::bootstrap),
        Scenario::figure("failover", control::failover),
        Scenario::figure("history_failover", crate::history::leader_figure),
        Scenario::figure("history_size", crate::history::size_figure),
        Scenario::figure("limits", limits::in_trouble),
        Scenario::figure("incumbent_per_process", incumbent_limits::per_process),
        Scenario::figure("incumbent", incumbent::same_questions),
    ]
}

/// A percentile, in seconds.
pub(crate) fn percentile(times: &[Duration], share: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = ((sorted.len().max(1) - 1) as f64 * share).ceil() as usize;
    sorted.get(at).map_or(f64::NAN, Duration::as_secs_f64)
}

/// A number from the environment, to measure less or more than usual.
pub(crate) fn asked(name: &str, usual: usize) -> usize {
    std::env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(usual)
}
