//! The decisions of shared bindings: which of a key's instances counts, what to write, what to delete.
//!
//! A binding is an instance of the admin table `affinity`: a keyed hash of the routing key, and a worker. Two nodes that bind a key at
//! the same time make two instances; the one with the lower (stamp, birth) counts everywhere, and the other's writer deletes it. A
//! worker that is gone is replaced in the instance, where the later edit wins. Time is this node's own: an instance that did not
//! change for as long as bindings may idle is deleted by its writer, a quarter later by whoever notices. *Absent:* the routing key.

use std::collections::HashMap;
use std::time::Duration;

use crate::base::entropy::Entropy;
use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;
use crate::replication::admin::Entry;
use crate::replication::admin::InstanceId;
use crate::replication::admin::Key;
use crate::replication::core::Edit;
use crate::replication::dots::Dot;
use crate::replication::hlc::Stamp;
use crate::replication::tables::AFFINITY;

/// The kind of instances, and the version of their fields' encodings: 8 bytes, big-endian.
const KIND: u16 = 1;
const VERSION: u8 = 1;
/// Fields.
const ROUTING_KEY: u16 = 0;
const WORKER: u16 = 1;
/// Empty; written when a binding was used, so that it does not count as idle anywhere.
const USED: u16 = 2;
/// Deletions in one go, so that an outage's worth of idle bindings is not one burst of edits.
const DELETES_MAX: usize = 64;
/// An instance that lost and whose writer has not deleted it by then is deleted by whoever notices.
const LOSER_MAX: Duration = Duration::from_secs(60);
/// An addition that the table does not show by then was refused: it may be made again.
const ADDING_MAX: Duration = Duration::from_secs(5);

/// One instance as the table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub id: InstanceId,
    /// What decides between two of one key: the lower counts.
    pub order: (Stamp, Dot),
    /// Its last edit.
    pub latest: Stamp,
    /// Of the routing key.
    pub key: u64,
    /// To whom it is bound.
    pub worker: WorkerId,
}

impl Row {
    /// From an entry; `None` where it is of a later release.
    #[must_use]
    pub fn read(key: &Key, entry: &Entry) -> Option<Self> {
        let number = |field: u16| {
            let field = entry.fields.get(&field).filter(|it| it.version == VERSION)?;
            Some(u64::from_be_bytes(field.bytes.as_slice().try_into().ok()?))
        };
        let (routing_key, worker) = (number(ROUTING_KEY)?, number(WORKER)?);
        let order = (entry.born, key.birth);
        (entry.kind == KIND).then(|| Self {
            id: key.id,
            order,
            latest: entry.latest(),
            key: routing_key,
            worker: WorkerId(worker),
        })
    }

    fn writer(&self) -> StorageId {
        self.order.1.actor.storage
    }
}

/// What happens to the core.
#[derive(Clone, Debug)]
pub enum Event {
    /// All instances there are.
    Table(Vec<Row>),
    /// This node bound these keys.
    Bound(Vec<(u64, WorkerId)>),
    /// These keys were used here since they were last told.
    Used(Vec<u64>),
    /// Some seconds passed.
    Tick,
}

/// What the core wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Edit the table.
    Edit(Vec<Edit>),
    /// The key is bound to this worker at every node.
    Bind(u64, WorkerId),
    /// It is bound no longer.
    Unbind(u64),
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    row: Row,
    /// Since when it has been as it is.
    since: Duration,
}

/// See the file's header.
#[derive(Debug)]
pub struct Core {
    me: StorageId,
    idle: Duration,
    entropy: Entropy,
    seen: HashMap<InstanceId, Seen>,
    /// The instance that counts, by key. BOUND: the table's, as everything here.
    bound: HashMap<u64, InstanceId>,
    /// Keys on their way into the table.
    adding: HashMap<u64, Duration>,
}

impl Core {
    /// Nothing is bound yet. `idle`: how long a binding outlives its last use.
    #[must_use]
    pub fn new(me: StorageId, idle: Duration, entropy: Entropy) -> Self {
        Self { me, idle, entropy, seen: HashMap::new(), bound: HashMap::new(), adding: HashMap::new() }
    }

    /// Takes one event.
    pub fn step(&mut self, now: Duration, event: Event, effects: &mut Vec<Effect>) {
        let edits = match event {
            Event::Table(rows) => {
                self.see(now, rows, effects);
                self.lost(now)
            }
            Event::Bound(bound) => bound.into_iter().filter_map(|(key, worker)| self.bind(now, key, worker)).collect(),
            Event::Used(keys) => keys.iter().filter_map(|key| self.touch(*key)).collect(),
            Event::Tick => {
                self.adding.retain(|_, since| *since + ADDING_MAX > now);
                self.idle(now).chain(self.lost(now)).take(DELETES_MAX).collect()
            }
        };
        if !edits.is_empty() {
            effects.push(Effect::Edit(edits));
        }
    }

    fn see(&mut self, now: Duration, rows: Vec<Row>, effects: &mut Vec<Effect>) {
        let before: HashMap<u64, WorkerId> =
            self.bound.iter().map(|(key, id)| (*key, self.seen[id].row.worker)).collect();
        let mut seen = HashMap::with_capacity(rows.len());
        self.bound.clear();
        for row in rows {
            let known = self.seen.get(&row.id).filter(|it| it.row.latest == row.latest);
            seen.insert(row.id, Seen { row, since: known.map_or(now, |it| it.since) });
            let first = self.bound.entry(row.key).or_insert(row.id);
            if row.order < seen[first].row.order {
                *first = row.id;
            }
            self.adding.remove(&row.key);
        }
        self.seen = seen;
        for (key, id) in &self.bound {
            let worker = self.seen[id].row.worker;
            if before.get(key) != Some(&worker) {
                effects.push(Effect::Bind(*key, worker));
            }
        }
        effects.extend(before.into_keys().filter(|key| !self.bound.contains_key(key)).map(Effect::Unbind));
    }

    fn bind(&mut self, now: Duration, key: u64, worker: WorkerId) -> Option<Edit> {
        let value = |number: u64| number.to_be_bytes().to_vec();
        if let Some(id) = self.bound.get(&key) {
            let is_other = self.seen[id].row.worker != worker;
            return is_other.then(|| Edit::Set(AFFINITY, *id, vec![(WORKER, VERSION, value(worker.0))]));
        }
        // Until the table shows it, another binding of the key would be another instance; the next turn tells again.
        if self.adding.insert(key, now).is_some_and(|since| since + ADDING_MAX > now) {
            return None;
        }
        let id = InstanceId(self.entropy.next_u128());
        let fields = vec![(ROUTING_KEY, VERSION, value(key)), (WORKER, VERSION, value(worker.0))];
        Some(Edit::Add(AFFINITY, id, KIND, fields))
    }

    fn touch(&self, key: u64) -> Option<Edit> {
        self.bound.get(&key).map(|id| Edit::Set(AFFINITY, *id, vec![(USED, VERSION, Vec::new())]))
    }

    /// Instances that do not count although another of their key does.
    fn lost(&self, now: Duration) -> Vec<Edit> {
        let is_due = |it: &&Seen| it.row.writer() == self.me || it.since + LOSER_MAX <= now;
        let lost = self.seen.values().filter(|it| self.bound.get(&it.row.key) != Some(&it.row.id)).filter(is_due);
        lost.take(DELETES_MAX).map(|it| Edit::Delete(AFFINITY, it.row.id)).collect()
    }

    fn idle(&self, now: Duration) -> impl Iterator<Item = Edit> {
        let limit = |it: &Seen| if it.row.writer() == self.me { self.idle } else { self.idle + self.idle / 4 };
        let idle = self.seen.values().filter(move |it| it.since + limit(it) <= now);
        idle.map(|it| Edit::Delete(AFFINITY, it.row.id))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::replication::admin::Admin;
    use crate::replication::admin::Bounds;
    use crate::replication::admin::Change;
    use crate::replication::dots::Actor;

    const IDLE: Duration = Duration::from_secs(100);
    struct Node {
        core: Core,
        table: Admin,
        view: HashMap<u64, WorkerId>,
    }

    /// Nodes whose edits arrive when a test says so.
    struct World {
        nodes: Vec<Node>,
        changes: Vec<Change>,
        clock: u64,
    }

    impl World {
        fn new(count: u128) -> Self {
            let node = |me| Node {
                core: Core::new(StorageId(me), IDLE, Entropy::seeded(me as u64)),
                table: Admin::new(Bounds { entries_max: 1000, bytes_max: 1 << 20, runs_max: 1000 }),
                view: HashMap::new(),
            };
            Self { nodes: (0..count).map(node).collect(), changes: Vec::new(), clock: 0 }
        }

        fn step(&mut self, at: usize, seconds: u64, event: Event) -> usize {
            let mut effects = Vec::new();
            self.nodes[at].core.step(Duration::from_secs(seconds), event, &mut effects);
            let mut edits = 0;
            for effect in effects {
                match effect {
                    Effect::Bind(key, worker) => drop(self.nodes[at].view.insert(key, worker)),
                    Effect::Unbind(key) => drop(self.nodes[at].view.remove(&key)),
                    Effect::Edit(made) => {
                        edits += made.len();
                        made.into_iter().for_each(|edit| self.edit(at, edit));
                    }
                }
            }
            edits
        }

        fn edit(&mut self, at: usize, edit: Edit) {
            self.clock += 1;
            let (actor, stamp) =
                (Actor { storage: StorageId(at as u128), boot: 1 }, Stamp::at(Duration::from_millis(self.clock)));
            let table = &mut self.nodes[at].table;
            let change = match edit {
                Edit::Add(_, id, kind, fields) => table.add(id, kind, fields, actor, stamp),
                Edit::Set(_, id, fields) => table.set(id, fields, actor, stamp),
                Edit::Delete(_, id) => table.delete(id, actor),
            };
            self.changes.extend(change); // what is gone already is refused
        }

        fn see(&mut self, at: usize, seconds: u64) -> usize {
            let rows = self.nodes[at].table.entries().filter_map(|(key, entry)| Row::read(key, entry)).collect();
            self.step(at, seconds, Event::Table(rows))
        }

        /// All edits reach all, and all see them, until nobody has anything to edit.
        fn settle(&mut self, seconds: u64) {
            loop {
                for change in std::mem::take(&mut self.changes) {
                    for node in &mut self.nodes {
                        node.table.apply(change.clone(), Stamp::at(Duration::MAX)).expect("it fits");
                    }
                }
                if (0..self.nodes.len()).map(|at| self.see(at, seconds)).sum::<usize>() == 0 {
                    return;
                }
            }
        }

        fn views(&self, key: u64) -> Vec<Option<u64>> {
            self.nodes.iter().map(|it| it.view.get(&key).map(|it| it.0)).collect()
        }
    }

    fn bound(key: u64, worker: u64) -> Event {
        Event::Bound(vec![(key, WorkerId(worker))])
    }

    #[test]
    fn field_a7_a_key_bound_at_one_node_is_bound_at_all_and_of_two_bindings_the_first_counts() {
        let mut world = World::new(3);
        world.step(0, 1, bound(7, 1));
        world.settle(1);
        assert_eq!(world.views(7), [Some(1); 3]);
        world.step(1, 2, bound(8, 2));
        world.step(2, 2, bound(8, 3));
        world.settle(2);
        assert_eq!(world.views(8), [Some(2); 3]);
        assert_eq!(world.nodes[0].table.entries().count(), 2, "the one that lost was deleted by its writer");
    }

    #[test]
    fn a_worker_that_is_gone_is_replaced_and_the_last_to_do_so_wins() {
        let mut world = World::new(2);
        world.step(0, 1, bound(7, 1));
        world.settle(1);
        assert_eq!(world.step(1, 2, bound(7, 1)), 0, "nothing new");
        world.step(0, 3, bound(7, 5));
        world.step(1, 3, bound(7, 6));
        world.settle(3);
        assert_eq!(world.views(7), [Some(6); 2]);
        assert_eq!(world.nodes[0].table.entries().count(), 1);
    }

    #[test]
    fn a_key_that_is_bound_twice_before_the_table_shows_it_makes_one_instance() {
        let mut world = World::new(1);
        assert_eq!(world.step(0, 1, bound(7, 1)), 1);
        assert_eq!(world.step(0, 2, bound(7, 2)), 0);
        assert_eq!(world.step(0, 9, bound(7, 2)), 1, "the first was refused, it seems");
    }

    #[test]
    fn idle_bindings_go_by_their_writer_or_whoever_notices_and_used_ones_stay() {
        let mut world = World::new(3);
        for (at, key) in [(0, 7), (0, 8), (1, 9)] {
            world.step(at, 0, bound(key, 1));
        }
        world.settle(0);
        world.step(2, 90, Event::Used(vec![7, 1000]));
        world.settle(90);
        world.step(0, 100, Event::Tick);
        world.settle(100);
        assert_eq!(
            (world.views(7), world.views(8), world.views(9)),
            (vec![Some(1); 3], vec![None; 3], vec![Some(1); 3])
        );
        world.step(2, 124, Event::Tick);
        world.settle(124);
        assert_eq!(world.views(9), [Some(1); 3], "its writer may be about to");
        world.step(2, 125, Event::Tick);
        world.settle(125);
        assert_eq!(world.views(9), [None; 3]);
    }

    #[test]
    fn entries_of_a_later_release_are_left_alone() {
        let mut world = World::new(1);
        world.edit(0, Edit::Add(AFFINITY, InstanceId(1), KIND + 1, vec![(0, 1, vec![0; 8]), (1, 1, vec![0; 8])]));
        world.edit(0, Edit::Add(AFFINITY, InstanceId(2), KIND, vec![(0, 2, vec![0; 16]), (1, 1, vec![0; 8])]));
        world.settle(0);
        world.step(0, 1000, Event::Tick);
        assert_eq!((world.nodes[0].view.len(), world.nodes[0].table.entries().count()), (0, 2));
    }

    proptest! {
        #[test]
        fn all_nodes_agree_whatever_they_bound_at_the_same_time(
            turns in proptest::collection::vec((0..3_usize, 0..4_u64, 0..5_u64, any::<bool>()), 1..40),
        ) {
            let mut world = World::new(3);
            for (at, key, worker, settles) in turns {
                world.step(at, 1, bound(key, worker));
                if settles {
                    world.settle(1);
                }
            }
            world.settle(1);
            for key in 0..4 {
                let views = world.views(key);
                prop_assert!(views.iter().all(|it| *it == views[0]), "{views:?}");
            }
            let keys: std::collections::HashSet<u64> = world.nodes[0].view.keys().copied().collect();
            prop_assert_eq!(world.nodes[0].table.entries().count(), keys.len());
        }
    }
}
