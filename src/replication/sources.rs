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

/// Where a worker is. A local one of each owner is a worker of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Its address, as parsed.
    pub url: String,
    /// Its owner, where only that node reaches it; others go through it.
    pub via: Option<StorageId>,
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
    /// Where the worker is.
    pub place: Place,
}

impl Assertion {
    /// Where the worker is.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { url: self.url.clone(), via: self.is_local.then_some(self.owner) }
    }
}

/// What is known about those who assert.
pub trait Standing {
    /// Whether the node is a member and not down.
    fn is_here(&self, owner: StorageId) -> bool;
    /// Whether the member was forgotten.
    fn is_forgotten(&self, owner: StorageId) -> bool;
    /// Whether nobody has reached the worker for longer than a worker may be away.
    fn is_dead(&self, place: &Place) -> bool;
}

/// A worker in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// Where it is.
    pub place: Place,
    /// The instance that counts, if a person added it: the lowest (stamp, birth).
    pub instance: Option<InstanceId>,
    /// Who asserts it.
    pub asserted_by: Vec<StorageId>,
}

/// The workers in force, by place.
#[must_use]
pub fn in_force(
    instances: &[Instance],
    assertions: &[Assertion],
    suppressed: &BTreeSet<Place>,
    standing: &impl Standing,
) -> Vec<InForce> {
    let mut workers: BTreeMap<Place, InForce> = BTreeMap::new();
    let new = |place: &Place| InForce { place: place.clone(), instance: None, asserted_by: Vec::new() };
    let mut by_age: Vec<&Instance> = instances.iter().collect();
    by_age.sort_by_key(|it| (it.born, it.key.birth));
    for it in by_age {
        let worker = workers.entry(it.place.clone()).or_insert_with(|| new(&it.place));
        worker.instance.get_or_insert(it.key.id);
    }
    let mut holding: Vec<&Assertion> = assertions.iter().filter(|it| holds(it, standing)).collect();
    holding.sort();
    for it in holding {
        let place = it.place();
        if suppressed.contains(&place) && !workers.contains_key(&place) {
            continue;
        }
        workers.entry(place.clone()).or_insert_with(|| new(&place)).asserted_by.push(it.owner);
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
        Source::Flag => is_here || !standing.is_dead(&assertion.place()),
        Source::Discovery => is_here,
    }
}

/// What an edit of the worker list has to write. The caller makes ids and fields of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Instances to delete, of workers or of suppressions.
    pub delete: Vec<InstanceId>,
    /// Write a suppression of this place.
    pub suppress: bool,
    /// The instance to edit.
    pub set: Option<InstanceId>,
    /// There is none: add one.
    pub add: bool,
}

/// DELETE: every instance goes; what a source names is suppressed too.
#[must_use]
pub fn delete(place: &Place, instances: &[Instance], assertions: &[Assertion], suppressed: &BTreeSet<Place>) -> Plan {
    let of_it = instances.iter().filter(|it| it.place == *place).map(|it| it.key.id).collect();
    let is_named = assertions.iter().any(|it| it.place() == *place);
    Plan { delete: of_it, suppress: is_named && !suppressed.contains(place), ..Plan::default() }
}

/// POST: suppressions of the place go; the instance that counts is edited, or one is added.
#[must_use]
pub fn post(place: &Place, instances: &[Instance], suppressions: &[Instance]) -> Plan {
    let of_it = |them: &[Instance]| {
        let mut of_it: Vec<_> = them.iter().filter(|it| it.place == *place).map(|it| (it.born, it.key)).collect();
        of_it.sort_unstable_by_key(|(born, key)| (*born, key.birth));
        of_it.into_iter().map(|(_, key)| key.id).collect::<Vec<_>>()
    };
    let set = of_it(instances).first().copied();
    Plan { delete: of_it(suppressions), suppress: false, set, add: set.is_none() }
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
