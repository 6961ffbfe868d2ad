//! What operators and flags do to the workers of a simulated cluster: the decisions that ship (`replication::sources`), with addresses as the only field.

use std::collections::BTreeSet;

use super::cluster::Cluster;
use super::node::Node;
use crate::base::ids::StorageId;
use crate::replication::admin::Entry;
use crate::replication::admin::InstanceId;
use crate::replication::admin::Key;
use crate::replication::core::Core;
use crate::replication::core::Edit;
use crate::replication::sources;
use crate::replication::sources::Assertion;
use crate::replication::sources::Instance;
use crate::replication::sources::Place;
use crate::replication::sources::Source;
use crate::replication::sources::Standing;
use crate::replication::tables::SOURCES;
use crate::replication::tables::SUPPRESSIONS;
use crate::replication::tables::TableId;
use crate::replication::tables::WORKERS;

/// The field with the address, in both admin tables.
const URL: u16 = 1;
/// Another one, for edits.
pub(super) const PRIORITY: u16 = 5;

impl Cluster {
    /// A node's flags name these workers.
    pub(super) fn flag(&mut self, node: usize, urls: &[&str]) {
        let rows = urls.iter().map(|it| (it.as_bytes().to_vec(), Some(it.as_bytes().to_vec()))).collect();
        self.publish(node, SOURCES, rows);
    }

    /// `POST /workers` at a node. The last request's number.
    pub(super) fn post(&mut self, node: usize, url: &str) -> u64 {
        let core = self.nodes[node].core();
        let plan = sources::post(&at(url), &instances(core, WORKERS), &instances(core, SUPPRESSIONS));
        let fields = vec![(PRIORITY, 1, b"posted".to_vec())];
        let mut edits: Vec<Edit> = plan.delete.into_iter().map(|it| Edit::Delete(SUPPRESSIONS, it)).collect();
        edits.push(match plan.set {
            Some(instance) => Edit::Set(WORKERS, instance, fields),
            None => Edit::Add(WORKERS, self.new_id(), 1, [fields, vec![(URL, 1, url.as_bytes().to_vec())]].concat()),
        });
        self.edit(node, edits)
    }

    /// `DELETE /workers/{id}` at a node. The last request's number.
    pub(super) fn delete(&mut self, node: usize, url: &str) -> u64 {
        let core = self.nodes[node].core();
        let suppressed = instances(core, SUPPRESSIONS).into_iter().map(|it| it.place).collect();
        let plan = sources::delete(&at(url), &instances(core, WORKERS), &assertions(&self.nodes[node]), &suppressed);
        let mut edits: Vec<Edit> = plan.delete.into_iter().map(|it| Edit::Delete(WORKERS, it)).collect();
        if plan.suppress {
            edits.push(Edit::Add(SUPPRESSIONS, self.new_id(), 1, vec![(URL, 1, url.as_bytes().to_vec())]));
        }
        self.edit(node, edits)
    }

    /// Sets a field of the worker that counts at a node.
    pub(super) fn change(&mut self, node: usize, url: &str, value: &[u8]) -> Option<u64> {
        let it = instances(self.nodes[node].core(), WORKERS).into_iter().find(|it| it.place == at(url))?;
        Some(self.edit(node, vec![Edit::Set(WORKERS, it.key.id, vec![(PRIORITY, 1, value.to_vec())])]))
    }

    pub(super) fn new_id(&self) -> InstanceId {
        InstanceId(self.entropy.next_u128())
    }

    /// The workers in force at a node.
    pub(super) fn workers(&self, node: usize) -> Vec<String> {
        let it = &self.nodes[node];
        let core = it.core();
        let suppressed = instances(core, SUPPRESSIONS).into_iter().map(|it| it.place).collect::<BTreeSet<_>>();
        let in_force = sources::in_force(&instances(core, WORKERS), &assertions(it), &suppressed, &Members(it));
        in_force.into_iter().map(|it| it.place.url).collect()
    }

    /// Whether a worker is in force at all nodes that are ready, or at none: one that has just started answers nobody before it has the cluster's tables.
    pub(super) fn is_at_all(&self, url: &str) -> bool {
        self.ready().all(|it| self.workers(it).iter().any(|it| it == url))
    }

    pub(super) fn is_at_none(&self, url: &str) -> bool {
        self.ready().all(|it| self.workers(it).iter().all(|it| it != url))
    }

    fn ready(&self) -> impl Iterator<Item = usize> {
        self.up().filter(|it| self.nodes[*it].is_ready())
    }

    /// The nodes that run.
    pub(super) fn up(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|it| self.nodes[*it].is_up())
    }
}

fn at(url: &str) -> Place {
    Place { url: url.to_owned(), via: None }
}

fn instance((key, entry): (&Key, &Entry)) -> Option<Instance> {
    let url = String::from_utf8(entry.fields.get(&URL)?.bytes.clone()).ok()?;
    Some(Instance { key: *key, born: entry.born, place: at(&url) })
}

fn instances(core: &Core, table: TableId) -> Vec<Instance> {
    core.admin(table).into_iter().flat_map(|it| it.entries()).filter_map(instance).collect()
}

fn assertions(node: &Node) -> Vec<Assertion> {
    let Some(owned) = node.core().owned(SOURCES) else { return Vec::new() };
    let read = |(owner, _, bytes): (StorageId, &[u8], &[u8])| {
        let url = String::from_utf8(bytes.to_vec()).ok()?;
        Some(Assertion { url, owner, source: Source::Flag, is_local: false })
    };
    owned.rows(std::time::Duration::ZERO).filter_map(read).collect()
}

struct Members<'a>(&'a Node);

impl Standing for Members<'_> {
    fn is_here(&self, owner: StorageId) -> bool {
        let core = self.0.core();
        core.me().actor.storage == owner || core.members().any(|it| it.1.storage == owner)
    }

    fn is_forgotten(&self, owner: StorageId) -> bool {
        self.0.core().is_forgotten(owner)
    }

    fn is_dead(&self, _: &Place) -> bool {
        false
    }
}
