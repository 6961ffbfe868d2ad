//! What a changed configuration means for a running node: taken over at once, or needing a restart.
//!
//! Pure: two configurations in, a list of changes out. Who reloads applies the live ones and logs the others.

use super::Config;
use super::Loaded;
use super::load::Given;

/// Options that a running node takes over (`node::run`). Everything else needs a restart: sockets, threads, directories and buffers
/// are made once.
const LIVE: &[&str] = &["api-key", "limit", "log-level", "policy", "model-policies", "worker-urls", "worker-api-key"];

/// One option that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The flag.
    pub flag: &'static str,
    /// Before; stars for secrets.
    pub from: String,
    /// After; stars for secrets.
    pub to: String,
    /// Whether a running node takes it over.
    pub is_live: bool,
}

/// All options that differ, in the order of the reference.
#[must_use]
pub fn diff(old: &Loaded, new: &Loaded) -> Vec<Change> {
    let mut changes = Vec::new();
    for option in Config::options() {
        let (from, to) = (old.config.render(option), new.config.render(option));
        let flag = option.spec.flag;
        // Rotated keys render alike, so secrets are compared as they were given.
        let is_rotated = option.spec.is_secret && !to.is_empty() && value(old, flag) != value(new, flag);
        if from != to || is_rotated {
            changes.push(Change { flag, from, to, is_live: LIVE.contains(&flag) });
        }
    }
    changes
}

fn value<'a>(loaded: &'a Loaded, flag: &str) -> Option<&'a super::load::Value> {
    loaded.given.get(flag).map(|Given { value, .. }| value)
}
