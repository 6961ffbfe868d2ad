//! Bindings of the `manual` policy that all nodes know: a routing key bound at one node is honoured at every other ([protocol](../../../docs/protocol/routing.md)).
//!
//! ```text
//! Router ──bound, used──▶ Bindings ──▶ core ──edits──▶ replication (`affinity`)
//!   reads ◀────────────── Bindings ◀── core ◀──table───────┘
//! ```
//! `core.rs` decides, `driver.rs` is the only task, [`Bindings`] is what a decision reads and where it leaves what it bound. *Invariants.* 1.
//! A decision waits for nobody: a key is bound here at once and told in the background; what does not fit is counted. 2. A routing key
//! leaves the node as a keyed hash only. 3. What the table says goes before what this node remembers.

mod core;
mod driver;

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;
use parking_lot::RwLock;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;

pub use self::driver::Sharing;
pub use self::driver::start;
use crate::base::ids::WorkerId;

/// Bindings made here and not yet taken. Beyond it a key stays bound at this node only, until its next turn.
const MADE_MAX: usize = 4096;

#[derive(Debug)]
struct Binding {
    worker: WorkerId,
    /// Since the table was last told that it is in use.
    is_used: AtomicBool,
}

/// See the file's header.
#[derive(Debug, Default)]
pub struct Bindings {
    /// What the table says. BOUND: the table's.
    shared: RwLock<HashMap<u64, Binding>>,
    made: Mutex<Vec<(u64, WorkerId)>>,
    bell: Notify,
    dropped: Counter,
}

impl Bindings {
    /// Counts what did not fit there.
    #[must_use]
    pub fn new(dropped: Counter) -> Self {
        Self { dropped, ..Self::default() }
    }

    /// To whom any node bound the key.
    #[must_use]
    pub fn get(&self, key: u64) -> Option<WorkerId> {
        self.shared.read().get(&key).map(|it| it.worker)
    }

    /// The key goes to this worker.
    pub fn used(&self, key: u64, worker: WorkerId) {
        if let Some(known) = self.shared.read().get(&key).filter(|it| it.worker == worker) {
            if !known.is_used.load(Relaxed) {
                known.is_used.store(true, Relaxed);
            }
            return;
        }
        let mut made = self.made.lock();
        if made.len() >= MADE_MAX {
            self.dropped.inc();
            return;
        }
        made.push((key, worker));
        drop(made);
        self.bell.notify_one();
    }

    fn take_made(&self) -> Vec<(u64, WorkerId)> {
        std::mem::take(&mut *self.made.lock())
    }

    /// Keys that were used since they were last taken.
    fn take_used(&self, max: usize) -> Vec<u64> {
        let shared = self.shared.read();
        let used = shared.iter().filter(|(_, it)| it.is_used.load(Relaxed)).take(max);
        used.map(|(key, it)| (*key, it.is_used.store(false, Relaxed)).0).collect()
    }

    fn bind(&self, key: u64, worker: WorkerId) {
        self.shared.write().insert(key, Binding { worker, is_used: AtomicBool::new(false) });
    }

    fn unbind(&self, key: u64) {
        self.shared.write().remove(&key);
    }

    fn len(&self) -> usize {
        self.shared.read().len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::entropy::Entropy;
    use crate::routing::Config;
    use crate::routing::Reason;
    use crate::routing::Router;
    use crate::routing::fixture::Bench;
    use crate::routing::fixture::Fleet;
    use crate::routing::fixture::Want;
    use crate::routing::policies::PolicyName;
    use crate::routing::prefix_map::chain::Key;

    fn node() -> (Bench, Arc<Bindings>) {
        let config = Config { policy: PolicyName::parse("manual").expect("known"), ..Config::default() };
        let (mut bench, bindings) = (Bench::with(config.clone()), Arc::new(Bindings::default()));
        let router = Router::new(config, Entropy::from_os());
        bench.router = router.with_peers(Key::shared(&[1; 32]), Arc::default(), Arc::clone(&bindings));
        (bench, bindings)
    }

    #[test]
    fn field_a7_a_client_that_changes_nodes_stays_with_its_worker() {
        let ((one, its), (other, others)) = (node(), node());
        let mut fleet = Fleet::new(40);
        let want = Want::key("session");
        let home = one.choose(&want, &fleet).expect("a worker");
        assert_eq!(home.reason, Reason::Assigned);
        let [(key, worker)] = its.take_made()[..] else { panic!("one binding was made") };
        assert_eq!(worker, home.worker);
        others.bind(key, worker);
        its.bind(key, worker);
        for at in [&other, &one, &other] {
            let route = at.choose(&want, &fleet).expect("a worker");
            assert_eq!((route.worker, route.reason), (home.worker, Reason::Bound));
        }
        assert_eq!((its.take_made(), others.take_used(9), others.take_used(9)), (vec![], vec![key], vec![]));

        fleet.worker(worker.0).available = false;
        let heir = other.choose(&want, &fleet).expect("a worker");
        assert_eq!((heir.reason, others.take_made()), (Reason::Assigned, vec![(key, heir.worker)]), "it is replaced");
    }

    #[test]
    fn what_nodes_agreed_on_goes_before_what_one_remembers() {
        let (bench, bindings) = node();
        let fleet = Fleet::new(8);
        let first = bench.send(&Want::key("session"), &fleet);
        let (key, _) = bindings.take_made()[0];
        let winner = WorkerId(first % 8 + 1);
        bindings.bind(key, winner);
        assert_eq!(bench.send(&Want::key("session"), &fleet), winner.0, "rebound on the next turn");
        bindings.unbind(key);
        assert_eq!(bench.send(&Want::key("session"), &fleet), winner.0, "it is remembered here too");
        assert_eq!(bindings.take_made(), [(key, winner)], "and told again");
    }

    #[test]
    fn a_target_or_another_policy_binds_nothing_and_a_full_queue_is_counted() {
        let (bench, bindings) = node();
        bench.send(&Want { target: Some(1), ..Want::key("a") }, &Fleet::new(2));
        bench.send(&Want::text("no key"), &Fleet::new(2));
        assert_eq!(bindings.take_made(), []);
        (0..5000).for_each(|key| bindings.used(key, WorkerId(1)));
        assert_eq!((bindings.take_made().len(), bindings.dropped.get()), (4096, 904));
    }
}
