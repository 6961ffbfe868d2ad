//! Who holds which prompt, and which key is bound to whom, is known everywhere: a node that comes late sends a conversation where it is remembered (FIELD.md bug 8).

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use cluster_tests::lasting;
use cluster_tests::net::Process;
use cluster_tests::within;
use serde_json::Value;
use serde_json::json;

use super::ask::open;
use super::case::Case;
use super::fleet::Fleet;
use super::fleet::STARTING;
use super::fleet::Start;
use super::workers::IN_FORCE_MAX;

const CONVERSATIONS: usize = 16;
const WORKERS: usize = 4;
/// Hints leave every half second at most, and a joiner takes a snapshot.
const LEARNING: Duration = Duration::from_secs(5);

/// A turn of a conversation: the first 16 KB are its own, and the same in each turn.
fn turn(conversation: usize, number: usize) -> String {
    let text = format!("conversation {conversation}, ").repeat(1000) + &format!("turn {number}");
    json!({"model": "sim-model", "max_tokens": 2, "messages": [{"role": "user", "content": text}]}).to_string()
}

/// Sends one turn; which worker answered.
async fn send(fleet: &Fleet<'_>, at: usize, conversation: usize, number: usize) -> String {
    answered_by(fleet, at, None, &turn(conversation, number)).await
}

async fn answered_by(fleet: &Fleet<'_>, at: usize, key: Option<String>, body: &str) -> String {
    let mut link = open(fleet.nodes[at].http).await.expect("it listens");
    link.routing_key = key;
    let answer = link.send("POST", "/v1/chat/completions", body).await.expect("it answers");
    assert_eq!(answer.status(), 200, "{:?}", answer.body());
    answer.headers()["x-smg-worker"].to_str().expect("an id").to_owned()
}

/// Simulated workers at the observer's place, and a start of a node that knows them.
fn with_workers(fleet: &Fleet<'_>, more: &[&str]) -> (Process, Start) {
    let mut command = Command::new(std::env::var("SMG_BIN").expect("SMG_BIN names the binary"));
    let host = fleet.lab.observer().to_string();
    command.args(["sim-worker", "--port", "8000", "--host", &host, "--workers", &WORKERS.to_string()]);
    let workers = fleet.lab.start(command, &fleet.directory.path().join("workers.log")).expect("it starts");
    let mut start = Start::flags(more);
    start.flags.push("--worker-urls".to_owned());
    start.flags.extend((0..WORKERS).map(|it| format!("http://{host}:{}", 8000 + it)));
    (workers, start)
}

/// A key that one node bound to a worker is bound to it everywhere, also when that node is gone.
pub(crate) async fn bindings(case: &Case) {
    let mut fleet = Fleet::new(case, 3);
    let (_workers, start) = with_workers(&fleet, &["--policy", "manual"]);
    (0..3).for_each(|at| fleet.start(at, &start));
    fleet.whole(STARTING).await;
    fleet.all_serve("sim-model", STARTING).await;
    let key = |number: usize| Some(format!("user-{number}"));
    let body = turn(0, 0);
    let mut bound = BTreeMap::new();
    for number in 0..CONVERSATIONS {
        bound.insert(number, answered_by(&fleet, number % 2, key(number), &body).await);
    }
    let used: BTreeSet<_> = bound.values().collect();
    case.bites("keys are bound to several workers", used.len() >= 3);
    // Who asks another node earlier than an edit takes may be bound there, too; the older binding wins then.
    lasting(IN_FORCE_MAX).await;
    for (number, worker) in &bound {
        for at in 0..3 {
            assert_eq!(&answered_by(&fleet, at, key(*number), &body).await, worker, "key {number} at node {at}");
        }
    }
    fleet.kill(0);
    for (number, worker) in &bound {
        assert_eq!(&answered_by(&fleet, 2, key(*number), &body).await, worker, "key {number} after the kill");
    }
    case.figure(format_args!("{CONVERSATIONS} keys bound alike at all three a second later, and after the kill"));
}

pub(crate) async fn field_08_late(case: &Case) {
    let mut fleet = Fleet::new(case, 3);
    let (_workers, start) = with_workers(&fleet, &[]);
    fleet.start(0, &start);
    fleet.start(1, &start);
    fleet.whole(STARTING).await;
    fleet.all_serve("sim-model", STARTING).await;
    let mut placed = BTreeMap::new();
    for conversation in 0..CONVERSATIONS {
        placed.insert(conversation, send(&fleet, 0, conversation, 1).await);
    }
    let used: BTreeSet<_> = placed.values().collect();
    assert!(used.len() >= 3, "misses are spread over the workers: {placed:?}");
    // Placements travel in batches of half a second; who comes within that finds what was placed before.
    lasting(IN_FORCE_MAX).await;
    case.did("start of node 2, which has seen no request");
    fleet.start(2, &start);
    fleet.whole(STARTING).await;
    fleet.all_serve("sim-model", STARTING).await;
    within("the late node is ready", STARTING, async || {
        fleet.ask(2, "GET", "/readiness", &Value::Null).await.is_ok_and(|it| it.0 == 200)
    })
    .await;
    let (mut number, mut right) = (1, 0);
    // The first turns through the late node also tell how long hints take; what they place themselves is where it was.
    let took = within("the late node sends conversations where they are remembered", LEARNING, async || {
        number += 1;
        right = 0;
        let sample = case.entropy.below(CONVERSATIONS);
        right += usize::from(send(&fleet, 2, sample, number).await == placed[&sample]);
        right == 1
    })
    .await;
    let mut kept = 0;
    for conversation in 0..CONVERSATIONS {
        kept += usize::from(send(&fleet, 2, conversation, 9).await == placed[&conversation]);
    }
    case.figure(format_args!(
        "{kept} of {CONVERSATIONS} conversations went where they are remembered, first {:.2} s after it was ready",
        took.as_secs_f64()
    ));
    assert!(kept >= CONVERSATIONS - 1, "the late node scattered conversations");
    fleet.kill(0);
    let mut kept = 0;
    for conversation in 0..CONVERSATIONS {
        kept += usize::from(send(&fleet, 1, conversation, 10).await == placed[&conversation]);
    }
    case.figure(format_args!("{kept} at node 1 after node 0, which had placed them, was killed"));
    assert!(kept >= CONVERSATIONS - 1, "what a node placed was forgotten with it");
}
