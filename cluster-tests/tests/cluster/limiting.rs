//! Limits that hold once for all nodes (P4), with real processes: whoever asks where, whoever is cut off or killed.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use cluster_tests::Upstream;
use cluster_tests::chat;
use cluster_tests::lasting;
use cluster_tests::net::Fault;
use cluster_tests::within;
use serde_json::Value;
use serde_json::json;
use smg::base::clock::Clock;
use tokio::task::JoinSet;
use tokio::task::LocalSet;

use super::ask::Link;
use super::case::Case;
use super::fleet::Fleet;
use super::fleet::STARTING;
use super::fleet::Start;

/// Requests of the tenant a second.
const LIMIT: u64 = 30;
/// How long demand is kept up in each part.
const PART: Duration = Duration::from_secs(8);
/// Windows that a part may touch besides those it fills, one at each end, and one more where nodes count differently.
const EDGES: u64 = 2;
const JOINING: Duration = Duration::from_secs(60);

/// What clients of one tenant got.
#[derive(Default)]
struct Tally {
    admitted: Cell<u64>,
    refused: Cell<u64>,
    other: Cell<u64>,
}

/// A tenant with a limit at three nodes.
async fn limited<'a>(case: &'a Case) -> (Fleet<'a>, Upstream, String) {
    let mut fleet = Fleet::new(case, 3);
    let worker = Upstream::serving("one", "m", (fleet.lab.observer(), 0).into()).await;
    for at in 0..3 {
        fleet.start(at, &Start::flags(&["--worker-urls", &worker.url()]));
    }
    fleet.whole(STARTING).await;
    for node in &fleet.nodes {
        within("it serves", STARTING, async || super::load::answers(node.http).await).await;
    }
    let call = async |method: &str, path: &str, body: Value| {
        let (status, answer) = fleet.ask(0, method, path, &body).await.expect("it answers");
        assert!(status < 300, "{method} {path}: {status} {answer}");
        answer
    };
    call("POST", "/tenants", json!({"name": "team"})).await;
    let made = call("POST", "/keys", json!({"name": "app", "tenant": "team"})).await;
    call("PATCH", "/tenants/team", json!({"limits": [{"what": "requests", "per": "second", "limit": LIMIT}]})).await;
    for at in 0..3 {
        within("it holds a share", JOINING, async || share(&fleet, at).await.is_some_and(|it| it > 0)).await;
    }
    (fleet, worker, made["key"].as_str().expect("the key").to_owned())
}

/// A node's part of the limit, if it has heard of one.
async fn share(fleet: &Fleet<'_>, at: usize) -> Option<u64> {
    let (_, answer) = fleet.ask(at, "GET", "/tenants/team", &Value::Null).await.ok()?;
    answer["limits"][0]["here"]["share"].as_u64()
}

async fn ask_on(node: SocketAddr, key: String, tally: Rc<Tally>, stop: Rc<Cell<bool>>) {
    let mut link: Option<Link> = None;
    while !stop.get() {
        let mut open = match link.take().filter(Link::is_open) {
            Some(link) => link,
            None => match Link::open(node).await {
                Ok(link) => link,
                Err(_) => return lasting(Duration::from_millis(100)).await,
            },
        };
        open.key.clone_from(&key);
        match open.call("POST", "/v1/chat/completions", &chat("hi", false)).await.map(|it| it.0) {
            Ok(200) => tally.admitted.set(tally.admitted.get() + 1),
            Ok(429) => tally.refused.set(tally.refused.get() + 1),
            Ok(_) | Err(_) => tally.other.set(tally.other.get() + 1),
        }
        link = Some(open);
        lasting(Duration::from_millis(40)).await;
    }
}

/// Demand well beyond the limit at these nodes for a part; what was admitted, and the windows that passed.
async fn demand(fleet: &Fleet<'_>, at: &[usize], key: &str) -> (Tally, f64) {
    let (tally, stop) = (Rc::new(Tally::default()), Rc::new(Cell::new(false)));
    let mut tasks = JoinSet::new();
    let begun = Clock.now();
    // Twenty answers a second for each client, so twice the limit.
    for client in 0..6 {
        let node = fleet.nodes[at[client % at.len()]].http;
        tasks.spawn_local(ask_on(node, key.to_owned(), Rc::clone(&tally), Rc::clone(&stop)));
    }
    lasting(PART).await;
    stop.set(true);
    while tasks.join_next().await.is_some() {}
    let seconds = (Clock.now() - begun).as_secs_f64();
    let Tally { admitted, refused, other } = &*tally;
    (Tally { admitted: admitted.clone(), refused: refused.clone(), other: other.clone() }, seconds)
}

fn check(case: &Case, what: &str, (tally, seconds): (Tally, f64), least: f64) {
    let (admitted, refused, other) = (tally.admitted.get(), tally.refused.get(), tally.other.get());
    let of_limit = admitted as f64 / (LIMIT as f64 * seconds);
    case.figure(format_args!(
        "{what}: {admitted} admitted in {seconds:.1} s, {of_limit:.3} of the limit; {refused} refused"
    ));
    case.bites("more was asked for than may be", refused > 20);
    let most = ((seconds.ceil() as u64 + EDGES) * LIMIT) as f64 * 1.02;
    assert!(admitted as f64 <= most, "{what}: {admitted} admitted in {seconds:.1} s");
    assert!(of_limit >= least, "{what}: {admitted} admitted in {seconds:.1} s");
    assert_eq!(other, 0, "{what}: neither admitted nor refused for the limit");
}

pub(crate) async fn p4_holds_once(case: &Case) {
    let (mut fleet, _worker, key) = limited(case).await;
    let local = LocalSet::new();
    local
        .run_until(async {
            check(case, "at all three", demand(&fleet, &[0, 1, 2], &key).await, 0.7);
            check(case, "at one", demand(&fleet, &[1], &key).await, 0.7);
            fleet.lab.switch.between(&[0, 1], &[2], Fault::cutting());
            case.did("cut [0, 1] | [2]");
            check(case, "on both sides of a split", demand(&fleet, &[0, 2], &key).await, 0.3);
            fleet.lab.switch.heal();
            case.did("healed");
            fleet.whole(STARTING).await;
            fleet.kill(2);
            check(case, "a node killed", demand(&fleet, &[0, 1], &key).await, 0.3);
        })
        .await;
    fleet.check_alive();
}
