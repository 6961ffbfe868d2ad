//! The same limits and the same load on eight processes of SMG 1.13 (PyPI `smg`), each with the limit that it can be given: `--max-concurrent-requests` and
//! `--rate-limit-tokens-per-second`. `INCUMBENT_BIN` names its program.
//!
//! Its mesh is off: it carries no counters, and eight nodes of it would need four cores.

use std::net::SocketAddr;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use cluster_tests::lasting;
use cluster_tests::net::Lab;
use cluster_tests::net::Process;
use cluster_tests::within;
use smg::base::clock::Clock;
use smg::base::entropy::Entropy;
use tokio::task::JoinSet;
use tokio::task::LocalSet;

use super::asked;
use super::limits::Asked;
use super::limits::Book;
use super::limits::LIMITS;
use super::limits::NODES;
use super::limits::TIMES;
use super::limits::client;
use super::limits::row;
use super::limits::serves;
use crate::case::Case;

const STARTING: Duration = Duration::from_secs(120);
/// A load that the smaller limit of each process refuses, too.
const MANY: f64 = 12.0;

pub(super) async fn per_process(case: &Case) {
    println!("| SMG 1.13, 8 processes | L | wanted | windows | max over L | mean | min |");
    println!("|---|---|---|---|---|---|---|");
    let lab = Lab::new(NODES, case.seed).expect("the machines can be made");
    let directory = tempfile::tempdir().expect("a directory");
    let host = lab.observer().to_string();
    let mut command = Command::new(std::env::var("SMG_BIN").expect("SMG_BIN names the binary"));
    command.args(["sim-worker", "--port", "8000", "--kv-blocks", "0", "--host", &host]);
    let _worker = lab.start(command, &directory.path().join("worker.log")).expect("it starts");
    for (limit, times) in [(0, TIMES), (0, MANY), (1, TIMES)] {
        let units = LIMITS[limit].to_string();
        let start = |at: usize| -> Process {
            let mut command = Command::new(std::env::var("INCUMBENT_BIN").expect("INCUMBENT_BIN names the program"));
            command.args(["launch", "--host", "0.0.0.0", "--port", "30000", "--policy", "round_robin"]);
            command.args(["--max-concurrent-requests", &units, "--rate-limit-tokens-per-second", &units]);
            command.args(["--queue-size", "0", "--worker-urls", &format!("http://{host}:8000")]);
            lab.machine(at).start(command, &directory.path().join(format!("node-{at}.log"))).expect("it starts")
        };
        let processes: Vec<Process> = (0..NODES).map(start).collect();
        let nodes: Vec<SocketAddr> = (0..NODES).map(|at| (lab.machine(at).ip, 30_000).into()).collect();
        for node in &nodes {
            within("it serves", STARTING, async || serves(*node).await).await;
        }
        let book = Rc::new(Book::default());
        LocalSet::new().run_until(load(case, &nodes, limit, times, Rc::clone(&book))).await;
        let windows = book.seen.borrow()[limit].keys().copied().skip(1).collect();
        let figures = row(&book.seen.borrow()[limit], &windows, LIMITS[limit]);
        println!("| the flags as above | {units} | {times} L | {figures} |");
        println!("<!-- answers that were neither 200 nor 429: {:?} -->", book.other.borrow());
        drop(processes);
    }
}

async fn load(case: &Case, nodes: &[SocketAddr], limit: usize, times: f64, book: Rc<Book>) {
    let mut clients = JoinSet::new();
    for (at, http) in nodes.iter().copied().enumerate() {
        let rate = LIMITS[limit] as f64 * times / NODES as f64;
        let node = Asked { at, http, key: "none".to_owned(), rate };
        clients.spawn_local(client(node, limit, Entropy::seeded(case.entropy.next_u64()), Rc::clone(&book)));
    }
    // The last window is not whole: what comes in it is not looked at.
    lasting(Duration::from_secs(asked("WINDOWS", 100) as u64 + 1)).await;
    let last = Clock.wall().as_secs();
    book.stop.set(true);
    while clients.join_next().await.is_some() {}
    book.seen.borrow_mut()[limit].retain(|it, _| *it < last);
}
