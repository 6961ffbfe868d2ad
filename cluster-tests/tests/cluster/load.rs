//! Requests while nodes end (P1): what is sent to those that stay does not fail.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use cluster_tests::Upstream;
use cluster_tests::chat;
use cluster_tests::lasting;
use cluster_tests::net::Fault;
use cluster_tests::within;
use smg::base::clock::Clock;
use tokio::task::JoinSet;
use tokio::task::LocalSet;

use super::ask::Link;
use super::ask::UNSENT;
use super::ask::open;
use super::case::Case;
use super::fleet::Fleet;
use super::fleet::STARTING;
use super::fleet::Start;

/// Clients of each node, each with one request at a time.
const CLIENTS: usize = 4;

/// What clients of one node saw.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) served: Cell<u64>,
    pub(crate) failed: Cell<u64>,
    /// Of those, answers that were begun and broke off.
    pub(crate) cut_short: Cell<u64>,
    /// Of those, requests that were sent and got no answer: the connection was closed at the same moment.
    pub(crate) unanswered: Cell<u64>,
    pub(crate) slowest: Cell<Duration>,
    pub(crate) first_failure: std::cell::RefCell<String>,
}

/// Clients of one node that ask until they are told to stop.
pub(crate) struct Clients {
    pub(crate) tally: Rc<Tally>,
    stop: Rc<Cell<bool>>,
    tasks: JoinSet<()>,
}

impl Clients {
    /// Must be called in a [`LocalSet`].
    pub(crate) fn of(node: SocketAddr) -> Self {
        let (tally, stop) = (Rc::new(Tally::default()), Rc::new(Cell::new(false)));
        let mut tasks = JoinSet::new();
        for client in 0..CLIENTS {
            tasks.spawn_local(ask_on(node, client, Rc::clone(&tally), Rc::clone(&stop)));
        }
        Self { tally, stop, tasks }
    }

    /// Lets what was sent be answered.
    pub(crate) async fn end(mut self) -> Rc<Tally> {
        self.stop.set(true);
        while self.tasks.join_next().await.is_some() {}
        self.tally
    }
}

async fn ask_on(node: SocketAddr, client: usize, tally: Rc<Tally>, stop: Rc<Cell<bool>>) {
    let mut link = None;
    let mut number = 0;
    while !stop.get() {
        number += 1;
        let begun = Clock.now();
        let outcome = async {
            let body = chat(&format!("client {client}, question {number}"), number % 4 == 0);
            let mut opened = match link.take().filter(Link::is_open) {
                Some(link) => link,
                None => open(node).await?,
            };
            let mut answered = opened.call("POST", "/v1/chat/completions", &body).await;
            // It was closed between two requests: nothing was sent, and every client asks again on a new one.
            if answered.as_ref().is_err_and(|it| it == UNSENT) {
                opened = open(node).await?;
                answered = opened.call("POST", "/v1/chat/completions", &body).await;
            }
            let (status, answer) = answered?;
            if status != 200 {
                return Err(format!("{status}: {}", String::from_utf8_lossy(&answer)));
            }
            Ok(opened)
        };
        match outcome.await {
            Ok(opened) => {
                tally.served.set(tally.served.get() + 1);
                tally.slowest.set(tally.slowest.get().max(Clock.now() - begun));
                link = Some(opened);
            }
            Err(reason) => {
                tally.failed.set(tally.failed.get() + 1);
                let is_unanswered = reason.contains("before message completed");
                tally.unanswered.set(tally.unanswered.get() + u64::from(is_unanswered));
                tally.cut_short.set(tally.cut_short.get() + u64::from(reason.contains("body")));
                if tally.first_failure.borrow().is_empty() {
                    *tally.first_failure.borrow_mut() = reason;
                }
                lasting(Duration::from_millis(20)).await; // as a client would, and so that a dead node is not all that runs here
            }
        }
        lasting(Duration::from_millis(5)).await;
    }
}

/// Three nodes with the same two workers, which answer from the observer's place.
async fn served<'a>(case: &'a Case) -> (Fleet<'a>, [Upstream; 2]) {
    let mut fleet = Fleet::new(case, 3);
    let observer = fleet.lab.observer();
    let workers = [
        Upstream::serving("one", "m", (observer, 0).into()).await,
        Upstream::serving("two", "m", (observer, 0).into()).await,
    ];
    let urls = [workers[0].url(), workers[1].url()];
    for at in 0..3 {
        fleet.start(at, &Start::flags(&["--worker-urls", &urls[0], &urls[1], "--drain-timeout", "5s"]));
    }
    fleet.whole(STARTING).await;
    for node in &fleet.nodes {
        within("it serves", STARTING, async || answers(node.http).await).await;
    }
    (fleet, workers)
}

/// Whether a node answers a model request.
pub(crate) async fn answers(node: SocketAddr) -> bool {
    match open(node).await {
        Ok(mut link) => link.call("POST", "/v1/chat/completions", &chat("hi", false)).await.is_ok_and(|it| it.0 == 200),
        Err(_) => false,
    }
}

pub(crate) async fn killed(case: &Case) {
    let (mut fleet, _workers) = served(case).await;
    let local = LocalSet::new();
    local
        .run_until(async {
            let clients: Vec<_> = fleet.nodes.iter().map(|it| Clients::of(it.http)).collect();
            lasting(Duration::from_secs(2)).await;
            fleet.kill(2);
            lasting(Duration::from_secs(4)).await;
            case.did("start of node 2");
            fleet.start(2, &Start::default());
            lasting(Duration::from_secs(2)).await;
            let mut failed = Vec::new();
            for (at, clients) in clients.into_iter().enumerate() {
                let tally = clients.end().await;
                case.figure(format_args!("node {at}: {} served, {} failed", tally.served.get(), tally.failed.get()));
                if at == 2 {
                    case.bites("the killed node's own clients noticed", tally.failed.get() > 0);
                } else {
                    case.bites("there was load", tally.served.get() > 30);
                    failed.push((tally.failed.get(), tally.first_failure.borrow().clone()));
                }
            }
            assert!(failed.iter().all(|it| it.0 == 0), "requests failed at nodes that ran: {failed:?}");
        })
        .await;
    fleet.check_alive();
}

/// A node is cut off, then the network between nodes is slow and loses: requests that some worker can serve are served, everywhere, and none waits for the mesh.
pub(crate) async fn split(case: &Case) {
    let (mut fleet, _workers) = served(case).await;
    let local = LocalSet::new();
    local
        .run_until(async {
            let clients: Vec<_> = fleet.nodes.iter().map(|it| Clients::of(it.http)).collect();
            lasting(Duration::from_secs(1)).await;
            fleet.lab.switch.between(&[0, 1], &[2], Fault::cutting());
            case.did("cut [0, 1] | [2] for 8 s");
            lasting(Duration::from_secs(8)).await;
            case.bites("each side was on its own", fleet.sees(2, &[2]).await && fleet.sees(0, &[0, 1]).await);
            let slow = Fault { delay: Duration::from_millis(150), loss: 0.1, ..Fault::default() };
            fleet.lab.switch.between(&[0, 1, 2], &[0, 1, 2], slow);
            case.did("healed to 150 ms each way and 10 % loss for 6 s");
            lasting(Duration::from_secs(6)).await;
            let (mut served, mut slowest) = (0, Duration::ZERO);
            for clients in clients {
                let tally = clients.end().await;
                case.bites("there was load", tally.served.get() > 60);
                assert_eq!(tally.failed.get(), 0, "{}", tally.first_failure.borrow());
                served += tally.served.get();
                slowest = slowest.max(tally.slowest.get());
            }
            case.figure(format_args!("{served} served, 0 failed, the slowest in {:.2} s", slowest.as_secs_f64()));
            assert!(slowest < Duration::from_secs(2), "a request waited for the mesh");
        })
        .await;
    fleet.check_alive();
}

/// SIGTERM under load: what had reached the node is served, and the others notice nothing.
pub(crate) async fn drained(case: &Case) {
    let (mut fleet, _workers) = served(case).await;
    let local = LocalSet::new();
    local
        .run_until(async {
            let clients: Vec<_> = fleet.nodes.iter().map(|it| Clients::of(it.http)).collect();
            lasting(Duration::from_secs(2)).await;
            case.did("SIGTERM of node 2");
            fleet.process(2).terminate();
            let mut clients = clients.into_iter();
            let (first, second, third) = (clients.next(), clients.next(), clients.next().expect("three"));
            let status = fleet.process(2).end(Duration::from_secs(10)).await;
            fleet.nodes[2].process = None;
            assert!(status.success(), "it ended well: {status}");
            let tally = third.end().await;
            let (served, cut_short, unanswered) = (tally.served.get(), tally.cut_short.get(), tally.unanswered.get());
            case.figure(format_args!("node 2: {served} served, {cut_short} cut short, {unanswered} unanswered"));
            assert!(tally.served.get() > 0, "node 2 served nobody");
            assert_eq!((cut_short, unanswered), (0, 0), "a request was lost: {}", tally.first_failure.borrow());
            let seen = async || fleet.members(0).await.get(&2).is_some_and(|it| it == "left");
            within("the others saw it leave", Duration::from_secs(3), seen).await;
            lasting(Duration::from_secs(1)).await;
            for clients in [first, second].into_iter().flatten() {
                let tally = clients.end().await;
                case.bites("there was load", tally.served.get() > 30);
                case.figure(format_args!("another: {} served, {} failed", tally.served.get(), tally.failed.get()));
                assert_eq!(tally.failed.get(), 0, "{}", tally.first_failure.borrow());
            }
        })
        .await;
    fleet.check_alive();
}

/// FIELD.md bug 2: requests that end with their client, their worker or another node give their slot back. Afterwards every slot of every node can be taken, and no
/// worker has load.
pub(crate) async fn field_02_slots(case: &Case) {
    const SLOTS: usize = 4;
    let mut fleet = Fleet::new(case, 3);
    let worker = fleet.worker("m").await;
    let slots = SLOTS.to_string();
    for at in 0..3 {
        let flags = ["--worker-urls", &worker.url(), "--max-concurrent-requests", &slots, "--queue-size", "0"];
        fleet.start(at, &Start::flags(&flags));
    }
    fleet.whole(STARTING).await;
    fleet.all_serve("m", STARTING).await;
    for round in 0..3 {
        // All slots of all nodes are taken; then half of the clients leave, and a node dies.
        worker.always(vec![cluster_tests::Step::WaitForClose]);
        let (before, seen) = (worker.aborts(), worker.requests().len());
        let mut clients = JoinSet::new();
        for at in fleet.running() {
            for _ in 0..SLOTS {
                let node = fleet.nodes[at].http;
                clients.spawn(async move {
                    let mut link = open(node).await.expect("it listens");
                    link.call("POST", "/v1/chat/completions", &chat("slow", true)).await
                });
            }
        }
        let expected = SLOTS * fleet.running().len();
        within("every slot is taken", STARTING, async || taken(&fleet).await == expected).await;
        within("the worker has them", STARTING, async || worker.requests().len() >= seen + expected).await;
        case.did(format_args!(
            "round {round}: {expected} requests under way, all dropped; node 2 {}",
            if round == 1 { "killed" } else { "alive" }
        ));
        if round == 1 {
            fleet.kill(2);
        }
        clients.shutdown().await;
        within("every abort reached the worker", STARTING, async || worker.aborts() >= before + expected).await;
        within("no worker has load", STARTING, async || taken(&fleet).await == 0).await;
        worker.always(cluster_tests::Step::completion("m"));
        if round == 1 {
            let flags = ["--worker-urls", &worker.url(), "--max-concurrent-requests", &slots, "--queue-size", "0"];
            fleet.start(2, &Start::flags(&flags));
            fleet.whole(STARTING).await;
        }
        fleet.all_serve("m", STARTING).await;
    }
    case.figure(format_args!("{} aborted, every slot came back each time", worker.aborts()));
}

/// Requests in flight as the nodes that run count them.
pub(crate) async fn taken(fleet: &Fleet<'_>) -> usize {
    let mut taken = 0;
    for at in fleet.running() {
        let listed =
            fleet.ask(at, "GET", "/workers", &serde_json::Value::Null).await.map(|it| it.1).unwrap_or_default();
        let workers = listed["workers"].as_array().cloned().unwrap_or_default();
        taken += workers.iter().filter_map(|it| it["load"].as_u64()).sum::<u64>() as usize;
    }
    taken
}
