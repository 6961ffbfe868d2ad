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
use super::ask::open;
use super::case::Case;
use super::fleet::Fleet;
use super::fleet::STARTING;
use super::fleet::Start;
use super::history::database;

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

/// A tenant with a limit on requests at so many nodes.
async fn limited<'a>(case: &'a Case, nodes: usize) -> (Fleet<'a>, Upstream, String) {
    let limit = json!({"what": "requests", "per": "second", "limit": LIMIT});
    let (fleet, worker, key) = limited_to(case, nodes, limit).await;
    for at in 0..nodes {
        within("it holds a share", JOINING, async || share(&fleet, at).await.is_some_and(|it| it > 0)).await;
    }
    (fleet, worker, key)
}

/// A tenant with a limit at so many nodes.
async fn limited_to<'a>(case: &'a Case, nodes: usize, limit: Value) -> (Fleet<'a>, Upstream, String) {
    let mut fleet = Fleet::new(case, nodes);
    let worker = Upstream::serving("one", "m", (fleet.lab.observer(), 0).into()).await;
    for at in 0..nodes {
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
    call("PATCH", "/tenants/team", json!({"limits": [limit]})).await;
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
            None => match open(node).await {
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
    let (mut fleet, _worker, key) = limited(case, 3).await;
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

/// Bug 1 of the field: a limit that eight nodes hold is eight limits. Most ask at one node; then the cluster is split, and whole again, and nothing is given twice for that.
pub(crate) async fn field_01_times_nodes(case: &Case) {
    let (mut fleet, _worker, key) = limited(case, 8).await;
    let local = LocalSet::new();
    local
        .run_until(async {
            check(case, "most at one of eight", demand(&fleet, &[0, 0, 0, 0, 3, 6], &key).await, 0.7);
            fleet.lab.switch.between(&[0, 1, 2, 3, 4], &[5, 6, 7], Fault::cutting());
            case.did("cut [0..5] | [5..8]");
            check(case, "on both sides of a split", demand(&fleet, &[0, 0, 5, 5, 6, 7], &key).await, 0.3);
            fleet.lab.switch.heal();
            case.did("healed");
            check(case, "while it heals", demand(&fleet, &[0, 0, 5, 5, 6, 7], &key).await, 0.3);
            fleet.whole(STARTING).await;
            check(case, "whole again", demand(&fleet, &[0, 1, 2, 5, 6, 7], &key).await, 0.7);
        })
        .await;
    fleet.check_alive();
}

/// Streams of the tenant at a time.
const STREAMS: usize = 6;
/// How long too many may be open: a worker sees the end of a stream a moment after the node that ended it.
const MOMENT: Duration = Duration::from_secs(1);
/// Permits go where they are wanted within a renewal and a decision or two.
const MOVED: Duration = Duration::from_secs(30);

/// Clients that each want one stream and keep it for as long as they are.
struct Clients<'a> {
    worker: &'a Upstream,
    key: &'a str,
    /// Requests that were answered before.
    before: usize,
    tasks: JoinSet<()>,
}

impl<'a> Clients<'a> {
    fn new(worker: &'a Upstream, key: &'a str) -> Self {
        Self { worker, key, before: worker.requests().len(), tasks: JoinSet::new() }
    }

    /// So many more at each of these nodes.
    fn come(&mut self, fleet: &Fleet<'_>, at: &[usize], many: usize) {
        for node in at.iter().map(|it| fleet.nodes[*it].http) {
            (0..many).for_each(|_| drop(self.tasks.spawn_local(want(node, self.key.to_owned()))));
        }
    }

    fn open(&self) -> usize {
        self.worker.requests().len().saturating_sub(self.before + self.worker.aborts())
    }

    /// No more than the limit are open, for a while.
    async fn hold(&self, case: &Case, what: &str) {
        let (begun, mut most) = (Clock.now(), 0);
        while Clock.now() - begun < PART {
            most = most.max(self.open());
            within(&format!("{what}: no more than the limit are open"), MOMENT, async || self.open() <= STREAMS).await;
            lasting(Duration::from_millis(20)).await;
        }
        case.figure(format_args!("{what}: {} open of {STREAMS} in the end, {most} at the most", self.open()));
    }

    async fn go(&mut self) {
        self.tasks.shutdown().await;
        within("no stream is left", STARTING, async || self.open() == 0).await;
    }
}

/// Asks until it is let in, then holds the stream until it is dropped or the node ends it.
async fn want(node: SocketAddr, key: String) {
    loop {
        if let Ok(mut link) = open(node).await {
            link.key.clone_from(&key);
            drop(link.call("POST", "/v1/chat/completions", &chat("hi", true)).await);
        }
        lasting(Duration::from_millis(100)).await;
    }
}

pub(crate) async fn streams_at_a_time(case: &Case) {
    let (mut fleet, worker, key) = limited_to(case, 3, json!({"what": "streams", "limit": STREAMS})).await;
    // Until a node has heard of a limit it does not hold to it.
    for at in 0..3 {
        within("it knows the limit", JOINING, async || share(&fleet, at).await.is_some()).await;
    }
    worker.always(vec![cluster_tests::Step::WaitForClose]);
    let local = LocalSet::new();
    local
        .run_until(async {
            let mut clients = Clients::new(&worker, &key);
            clients.come(&fleet, &[0, 1, 2], 4);
            within("as many as may are open", MOVED, async || clients.open() == STREAMS).await;
            clients.hold(case, "at all three").await;
            clients.go().await;
            clients.come(&fleet, &[1], 2 * STREAMS);
            let took = within("all of it at one node", MOVED, async || clients.open() == STREAMS).await;
            case.figure(format_args!("all at one node after {took:?}"));
            clients.hold(case, "at one").await;
            clients.go().await;
            fleet.lab.switch.between(&[0, 1], &[2], Fault::cutting());
            case.did("cut [0, 1] | [2]");
            clients.come(&fleet, &[0, 2], 6);
            clients.hold(case, "on both sides of a split").await;
            case.bites("some were open in the split", clients.open() > 0);
            fleet.lab.switch.heal();
            case.did("healed");
            fleet.whole(STARTING).await;
            fleet.kill(2);
            clients.come(&fleet, &[1], 6);
            clients.hold(case, "a node killed").await;
            clients.go().await;
        })
        .await;
    fleet.check_alive();
}

/// Requests at a node that has no share.
const REFUSED: usize = 40;

/// A node whose store cannot be opened serves, and learns keys and limits from the others. It has no part in dividing them, so it serves nobody whom they limit.
pub(crate) async fn no_store(case: &Case) {
    let (mut fleet, worker, key) = limited(case, 3).await;
    fleet.kill(2);
    let log = database(&fleet.nodes[2].data, "log").pop().expect("it has a store");
    std::fs::write(log.with_file_name("CURRENT"), "nothing\n").expect("it is damaged");
    case.did("its store was damaged");
    fleet.start(2, &Start::flags(&["--worker-urls", &worker.url()]));
    fleet.whole(STARTING).await;
    let node = fleet.nodes[2].http;
    within("it serves whom nothing limits", STARTING, async || super::load::answers(node).await).await;
    let ask = async || {
        let mut link = open(node).await.ok()?;
        link.key.clone_from(&key);
        Some(link.call("POST", "/v1/chat/completions", &chat("hi", false)).await.ok()?.0)
    };
    let health = fleet.ask(2, "GET", "/cluster/health", &Value::Null).await.expect("it answers").1.to_string();
    case.bites("it cannot use its store", health.contains("data directory"));
    let mut told = Vec::new();
    within("it knows the key", JOINING, async || {
        told.extend(ask().await.filter(|it| *it != 401));
        told.len() >= REFUSED
    })
    .await;
    assert!(told.iter().all(|it| *it == 429), "it has no share: {told:?}");
    case.figure(format_args!("{REFUSED} of {REFUSED} refused"));
    fleet.check_alive();
}

/// Edits while requests settle.
const EDITS: u64 = 20;

/// Bug 12 of the field: what a request settles when it ends must not write over what an admin has set meanwhile, nor bring back a key that is gone.
pub(crate) async fn field_12_settling(case: &Case) {
    let (mut fleet, _worker, key) = limited(case, 5).await;
    let (_, keys) = fleet.ask(0, "GET", "/keys", &Value::Null).await.expect("it answers");
    let id = keys["keys"][0]["id"].as_str().expect("an id").to_owned();
    let shown = async |fleet: &Fleet<'_>, at: usize| {
        let (_, answer) = fleet.ask(at, "GET", "/tenants/team", &Value::Null).await.ok()?;
        let limits = answer["limits"].as_array().cloned().unwrap_or_default();
        limits.into_iter().find(|it| it["what"] == "tokens").and_then(|it| it["limit"].as_u64())
    };
    let local = LocalSet::new();
    local
        .run_until(async {
            let (tally, stop) = (Rc::new(Tally::default()), Rc::new(Cell::new(false)));
            let mut tasks = JoinSet::new();
            for node in &fleet.nodes {
                tasks.spawn_local(ask_on(node.http, key.clone(), Rc::clone(&tally), Rc::clone(&stop)));
            }
            let last = 1_000_000 + EDITS;
            for edit in 1..=EDITS {
                let body = json!({"limits": [{"what": "tokens", "per": "minute", "limit": 1_000_000 + edit}]});
                let at = edit as usize % 5;
                assert_eq!(fleet.ask(at, "PATCH", "/tenants/team", &body).await.expect("it answers").0, 200);
                // The next node must know of the edit before, or which of the two is the later one is theirs to say.
                within("the edit is everywhere", JOINING, async || {
                    shown(&fleet, (at + 1) % 5).await == Some(1_000_000 + edit)
                })
                .await;
            }
            case.bites("requests were settled meanwhile", tally.admitted.get() > EDITS);
            let gone = fleet.ask(1, "DELETE", &format!("/keys/{id}"), &Value::Null).await.expect("it answers").0;
            assert_eq!(gone, 200);
            lasting(Duration::from_secs(2)).await;
            stop.set(true);
            while tasks.join_next().await.is_some() {}
            for at in 0..5 {
                within("the last edit stands", JOINING, async || shown(&fleet, at).await == Some(last)).await;
                let (status, _) = fleet.ask(at, "GET", &format!("/keys/{id}"), &Value::Null).await.expect("it answers");
                assert_eq!(status, 404, "the key is gone at node {at}");
            }
            case.figure(format_args!("{} requests beside {EDITS} edits", tally.admitted.get()));
        })
        .await;
    fleet.check_alive();
}
