//! A gigabyte of history: how long its nodes take to be back, how long a new one takes to have all of it, and what memory they hold meanwhile.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use cluster_tests::lasting;
use cluster_tests::within;
use serde_json::Value;
use serde_json::json;
use smg::base::clock::Clock;
use smg::base::entropy::Entropy;
use tokio::task::JoinSet;
use tokio::task::LocalSet;

use super::CONVERSATIONS;
use super::Call;
use super::Fleet;
use super::call;
use crate::case::Case;
use crate::fleet::Start;
use crate::report::asked;

/// Who writes at a time.
const WRITERS: usize = 8;
/// Text of an item.
const ITEM_BYTES: usize = 256 << 10;
/// Much longer than any of it takes.
const LIMIT: Duration = Duration::from_secs(900);
/// Between two looks.
const BETWEEN: Duration = Duration::from_millis(100);

/// See the file's header.
pub(crate) async fn figure(case: &Case) {
    let megabytes = asked("MEGABYTES", 1024);
    let mut fleet = Fleet::started(case, 3, &[]).await;
    let conversation = fleet.conversation().await;
    fleet.one_history(3).await;
    let row = |what: &str, is: String| println!("| {megabytes} MB of history, three nodes | {what} | {is} |");
    let empty = fleet.memory();
    let begun = Clock.now();
    LocalSet::new().run_until(fill(&fleet, &conversation, megabytes)).await;
    row("filling it", format!("{:.1} MB/s", megabytes as f64 / (Clock.now() - begun).as_secs_f64()));
    row("memory of the nodes, before and with it", format!("{empty:.0?}, {:.0?} MB", fleet.memory()));
    let leader = fleet.history_leader().await;
    let (follower, other) = ((leader + 1) % 3, (leader + 2) % 3);
    fleet.kill(follower);
    fleet.start(follower, &Start::default());
    row("follower killed, until it answers a read", format!("{:.2?}", fleet.reads(follower, &conversation).await));
    let asked = Clock.now();
    let (status, told) =
        fleet.ask(leader, "POST", "/cluster/history/snapshot", &Value::Null).await.expect("it answers");
    assert_eq!(status, 200, "{told}");
    row("`smg history snapshot` at the leader", format!("{:.2?}", Clock.now() - asked));
    (0..3).for_each(|at| fleet.kill(at));
    (0..3).for_each(|at| fleet.start(at, &Start::default()));
    row("all killed, until one answers a read", format!("{:.2?}", fleet.reads(other, &conversation).await));
    row("memory of the nodes after that", format!("{:.0?} MB", fleet.memory()));
    let leader = fleet.history_leader().await;
    let newcomer = (leader + 1) % 3;
    fleet.kill(newcomer);
    std::fs::remove_dir_all(&fleet.nodes[newcomer].data).expect("it was there");
    fleet.start(newcomer, &Start::default());
    let mut peaks = [0.0_f64; 3];
    let took = within("the new one has all of it", LIMIT, async || {
        lasting(BETWEEN).await;
        peaks.iter_mut().zip(fleet.memory()).for_each(|(peak, now)| *peak = peak.max(now));
        let (ours, theirs) = (fleet.kept(newcomer).await, fleet.kept(leader).await);
        let is_told = ours["takes_part"] == true && theirs["applied"].is_u64();
        is_told && ours["applied"].as_u64() >= theirs["applied"].as_u64()
    })
    .await;
    row("data directory lost, until the node has all of it", format!("{took:.1?}"));
    row("most memory meanwhile: the leader, the new one", format!("{:.0}, {:.0} MB", peaks[leader], peaks[newcomer]));
    fleet.check_alive();
}

/// Adds items through all nodes.
async fn fill(fleet: &Fleet<'_>, conversation: &str, megabytes: usize) {
    let left = Rc::new(Cell::new(megabytes * (1 << 20) / ITEM_BYTES));
    let mut writing = JoinSet::new();
    for writer in 0..WRITERS {
        let (left, node) = (Rc::clone(&left), fleet.nodes[writer % fleet.nodes.len()].http);
        let path = format!("{CONVERSATIONS}/{conversation}/items");
        writing.spawn_local(async move {
            while let Some(now) = left.get().checked_sub(1) {
                left.set(now);
                let item = json!({"type": "message", "role": "user", "content": text(now as u64)});
                let body = json!({"items": [item]}).to_string();
                let (status, _, told) = call(node, &Call::post(&path, &body)).await.expect("it answers");
                assert_eq!(status, 200, "{}", String::from_utf8_lossy(&told));
            }
        });
    }
    writing.join_all().await;
}

/// What does not get shorter by being packed, but for its alphabet.
fn text(seed: u64) -> String {
    let entropy = Entropy::seeded(seed);
    (0..ITEM_BYTES / 16).map(|_| format!("{:016x}", entropy.next_u64())).collect()
}

impl Fleet<'_> {
    /// Of each node, in megabytes.
    fn memory(&self) -> Vec<f64> {
        let of = |node: &crate::fleet::Node| node.process.as_ref().map_or(0, |it| it.memory());
        self.nodes.iter().map(|it| of(it) as f64 / f64::from(1 << 20)).collect()
    }

    /// Waits until a node answers a read of it.
    async fn reads(&self, at: usize, conversation: &str) -> Duration {
        let path = format!("{CONVERSATIONS}/{conversation}/items?limit=1");
        within("it answers a read", LIMIT, async || {
            call(self.nodes[at].http, &Call::get(&path)).await.is_ok_and(|it| it.0 == 200)
        })
        .await
    }
}
