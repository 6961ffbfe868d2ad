//! Workers in force = instances + assertions - suppressions. A pure reading of three tables.
//!
//! A source (flag, file, discovery) *asserts* workers for as long as it names them; an explicit POST makes an *instance*. DELETE of a worker
//! that a source names cannot make the source stop, so it also writes a *suppression*, which stays until somebody POSTs the
//! worker: not until a restart, not until the flag is given again. An instance is in force whatever is suppressed: it is the
//! later word of a person.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::admin::InstanceId;
use super::admin::Key;
use super::hlc::Stamp;
use crate::base::ids::StorageId;

/// Where an assertion comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The command line or the file of a node: they outlive it.
    Flag,
    /// DNS, Kubernetes: whoever watches says so for as long as it watches.
    Discovery,
}

/// What a node's source says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Assertion {
    /// The worker's address, as parsed.
    pub url: String,
    /// Whose source.
    pub owner: StorageId,
    /// Which kind.
    pub source: Source,
    /// A loopback address of a node that others reach: only its owner reaches the worker.
    pub is_local: bool,
}

/// A worker that was added by a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its instance.
    pub key: Key,
    /// When it was added.
    pub born: Stamp,
    /// The worker's address, as parsed.
    pub url: String,
}

/// What is known about those who assert.
pub trait Standing {
    /// Whether the node is a member and not down.
    fn is_here(&self, owner: StorageId) -> bool;
    /// Whether the member was forgotten.
    fn is_forgotten(&self, owner: StorageId) -> bool;
    /// Whether nobody has reached the worker for longer than a worker may be away.
    fn is_dead(&self, url: &str) -> bool;
}

/// Who reaches a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Everyone.
    Everyone,
    /// Its owner only; others go through it.
    Via(StorageId),
}

/// A worker in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// Its address.
    pub url: String,
    /// The instance that counts, if a person added it: the lowest (stamp, birth).
    pub instance: Option<InstanceId>,
    /// Who asserts it.
    pub asserted_by: Vec<StorageId>,
    /// Who reaches it.
    pub reach: Reach,
}

/// The workers in force, by address; a local one of each owner is a worker of its own.
#[must_use]
pub fn in_force(
    instances: &[Instance],
    assertions: &[Assertion],
    suppressed: &BTreeSet<String>,
    standing: &impl Standing,
) -> Vec<InForce> {
    let mut workers: BTreeMap<(&str, Option<StorageId>), InForce> = BTreeMap::new();
    let mut by_age: Vec<&Instance> = instances.iter().collect();
    by_age.sort_by_key(|it| (it.born, it.key.birth));
    for it in by_age {
        workers.entry((&it.url, None)).or_insert_with(|| InForce {
            url: it.url.clone(),
            instance: Some(it.key.id),
            asserted_by: Vec::new(),
            reach: Reach::Everyone,
        });
    }
    let mut holding: Vec<&Assertion> = assertions.iter().filter(|it| holds(it, standing)).collect();
    holding.sort();
    for it in holding {
        let via = it.is_local.then_some(it.owner);
        let place = (it.url.as_str(), via);
        if suppressed.contains(&it.url) && !workers.contains_key(&place) {
            continue;
        }
        let reach = via.map_or(Reach::Everyone, Reach::Via);
        let new = InForce { url: it.url.clone(), instance: None, asserted_by: Vec::new(), reach };
        workers.entry(place).or_insert(new).asserted_by.push(it.owner);
    }
    workers.into_values().collect()
}

/// Whether an assertion counts although its node may be gone.
fn holds(assertion: &Assertion, standing: &impl Standing) -> bool {
    let is_here = standing.is_here(assertion.owner);
    match assertion.source {
        _ if standing.is_forgotten(assertion.owner) => false,
        // Nobody reaches a local worker but its owner.
        _ if assertion.is_local => is_here,
        // A healthy worker does not die with the node that named it.
        Source::Flag => is_here || !standing.is_dead(&assertion.url),
        Source::Discovery => is_here,
    }
}

/// What an edit of the worker list has to write. The caller makes ids and fields of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Instances to delete, of workers or of suppressions.
    pub delete: Vec<InstanceId>,
    /// Write a suppression of this address.
    pub suppress: Option<String>,
    /// Add a worker of this address.
    pub add: Option<String>,
}

/// DELETE: every instance goes; what a source names is suppressed too.
#[must_use]
pub fn delete(url: &str, instances: &[Instance], assertions: &[Assertion], suppressed: &BTreeSet<String>) -> Plan {
    let of_it = instances.iter().filter(|it| it.url == url).map(|it| it.key.id).collect();
    let is_named = assertions.iter().any(|it| it.url == url) && !suppressed.contains(url);
    Plan { delete: of_it, suppress: is_named.then(|| url.to_owned()), add: None }
}

/// POST: suppressions of the address go, and the worker is added if no instance is there.
#[must_use]
pub fn post(url: &str, instances: &[Instance], suppressions: &[Instance]) -> Plan {
    let lifted = suppressions.iter().filter(|it| it.url == url).map(|it| it.key.id).collect();
    let is_there = instances.iter().any(|it| it.url == url);
    Plan { delete: lifted, suppress: None, add: (!is_there).then(|| url.to_owned()) }
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
