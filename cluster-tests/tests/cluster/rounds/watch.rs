//! Who led history, as the nodes told it several times a second.

use std::cell::Cell;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use cluster_tests::lasting;
use serde_json::Value;
use smg::base::clock::Clock;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio::time::timeout;

use crate::ask::ask;

const PERIOD: Duration = Duration::from_millis(250);
/// Who does not answer within this is left out this time.
const PATIENCE: Duration = Duration::from_millis(200);

/// What was told at one time by whoever knew the latest term.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) at: Instant,
    /// The storage id of who leads; `None`: nobody that anybody knew of.
    pub(super) leader: Option<String>,
    pub(super) term: u64,
}

/// Asks until it is told to stop. In a `LocalSet`.
pub(super) struct Watch {
    seen: Rc<RefCell<Vec<Seen>>>,
    /// Whom anybody ever held for the leader of a term. BOUND: elections of one life.
    leaders: Rc<RefCell<BTreeMap<u64, Vec<String>>>>,
    is_stopped: Rc<Cell<bool>>,
    task: JoinHandle<()>,
}

impl Watch {
    pub(super) fn begin(nodes: &[SocketAddr]) -> Self {
        let (seen, is_stopped) = (Rc::<RefCell<Vec<Seen>>>::default(), Rc::new(Cell::new(false)));
        let leaders = Rc::<RefCell<BTreeMap<u64, Vec<String>>>>::default();
        let (nodes, into, stop, all) =
            (nodes.to_owned(), Rc::clone(&seen), Rc::clone(&is_stopped), Rc::clone(&leaders));
        let task = tokio::task::spawn_local(async move {
            while !stop.get() {
                let told = futures_util::future::join_all(nodes.iter().map(|it| told(*it))).await;
                for (leader, term) in told.iter().flatten() {
                    let mut all = all.borrow_mut();
                    let of_term = all.entry(*term).or_default();
                    of_term.extend(leader.iter().filter(|it| !of_term.contains(it)).cloned().collect::<Vec<_>>());
                }
                let latest = told.into_iter().flatten().max_by_key(|it| (it.1, it.0.is_some()));
                let (leader, term) = latest.unwrap_or_default();
                into.borrow_mut().push(Seen { at: Clock.now(), leader, term });
                lasting(PERIOD).await;
            }
        });
        Self { seen, leaders, is_stopped, task }
    }

    pub(super) fn since(&self, from: Instant) -> Vec<Seen> {
        self.seen.borrow().iter().filter(|it| it.at >= from).cloned().collect()
    }

    pub(super) fn forget(&self, before: Instant) {
        self.seen.borrow_mut().retain(|it| it.at >= before);
    }

    /// Somebody else was told it.
    pub(super) fn saw(&self, term: u64, leader: &str) {
        let mut all = self.leaders.borrow_mut();
        let of_term = all.entry(term).or_default();
        if !of_term.iter().any(|it| it == leader) {
            of_term.push(leader.to_owned());
        }
    }

    /// Whom anybody held for the leader, term by term.
    pub(super) fn leaders(&self) -> BTreeMap<u64, Vec<String>> {
        self.leaders.borrow().clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.is_stopped.set(true);
        self.task.abort();
    }
}

async fn told(node: SocketAddr) -> Option<(Option<String>, u64)> {
    let answer = timeout(PATIENCE, ask(node, "GET", "/cluster/history", &Value::Null)).await.ok()?.ok()?;
    let group = &answer.1["group"];
    Some((group["leader"].as_str().map(ToOwned::to_owned), group["term"].as_u64().unwrap_or(0)))
}
