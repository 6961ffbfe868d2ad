//! Limits while nodes are cut off, killed, stopped and started again: what is admitted in each window, all sides together.
//!
//! A client knows when it sent a request and when it was answered. Most times both lie in one window. One of which they do not may have been admitted in either: a window
//! has had at least those that must have been in it, and at most those that may have been.

use std::cell::Cell;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use cluster_tests::lasting;
use cluster_tests::net::Fault;
use cluster_tests::net::Process;
use cluster_tests::within;
use serde_json::Value;
use serde_json::json;
use smg::base::clock::Clock;
use smg::base::entropy::Entropy;
use tokio::task::JoinSet;
use tokio::task::LocalSet;

use super::asked;
use crate::ask::Link;
use crate::ask::open;
use crate::case::Case;
use crate::fleet::Fleet;
use crate::fleet::STARTING;
use crate::fleet::Start;

pub(super) const NODES: usize = 8;
pub(super) const LIMITS: [u64; 2] = [20, 100];
/// What is wanted, over the limit.
pub(super) const TIMES: f64 = 1.5;
/// Requests of one client that wait for an answer. One that comes then is not sent.
const OPEN_MAX: usize = 48;
const DIVIDED: Duration = Duration::from_secs(90);
/// How long each trouble lasts, and how long it is watched afterwards.
const LASTS: Duration = Duration::from_secs(5);
const AFTER: Duration = Duration::from_secs(6);

/// One window of one limit.
#[derive(Clone, Copy, Default)]
pub(super) struct Window {
    /// Answered by a node, admitted or not: it was wanted where somebody could say so.
    wanted: u64,
    admitted: u64,
    /// May have been admitted in this window or in one beside it.
    unsure: u64,
    /// Of each of those that was admitted, the part that falls on this window: for means.
    part: f64,
}

/// Windows by number, for each of [`LIMITS`].
pub(super) type Seen = [BTreeMap<u64, Window>; LIMITS.len()];

/// What all clients share.
#[derive(Default)]
pub(super) struct Book {
    pub(super) seen: RefCell<Seen>,
    pub(super) other: RefCell<BTreeMap<u16, u64>>,
    /// Who was last stopped, from when, until when: it admitted nobody meanwhile.
    stopped: Cell<Option<(usize, Duration, Duration)>>,
    pub(super) stop: Cell<bool>,
}

/// A node, and with which key and how often a second it is asked.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) at: usize,
    pub(super) http: std::net::SocketAddr,
    pub(super) key: String,
    pub(super) rate: f64,
}

/// Sends requests of one tenant to one node as they come, and waits for none of them before it sends the next.
pub(super) async fn client(node: Asked, limit: usize, entropy: Entropy, book: Rc<Book>) {
    let links: Rc<RefCell<Vec<Link>>> = Rc::default();
    let (mut open, mut next) = (JoinSet::new(), Clock.now());
    while !book.stop.get() {
        tokio::time::sleep_until(next).await;
        next += Duration::from_secs_f64(-(1.0 - entropy.unit()).ln() / node.rate);
        while open.try_join_next().is_some() {}
        if open.len() < OPEN_MAX {
            open.spawn_local(request(node.clone(), limit, Rc::clone(&links), Rc::clone(&book)));
        }
    }
    while open.join_next().await.is_some() {}
}

async fn request(node: Asked, limit: usize, links: Rc<RefCell<Vec<Link>>>, book: Rc<Book>) {
    let kept = links.borrow_mut().pop().filter(Link::is_open);
    let mut link = match kept {
        Some(link) => link,
        None => match open(node.http).await {
            Ok(link) => link,
            Err(_) => return, // it is down: nobody was asked
        },
    };
    link.key.clone_from(&node.key);
    let before = Clock.wall();
    let answered = link.call("POST", "/v1/chat/completions", &question()).await;
    let stopped = book.stopped.get().filter(|it| it.0 == node.at && (it.1..it.2).contains(&before));
    let (sent, done) = (stopped.map_or(before, |it| it.2).as_secs(), Clock.wall().as_secs());
    let mut seen = book.seen.borrow_mut();
    let mut window = |it: u64, change: &dyn Fn(&mut Window)| change(seen[limit].entry(it).or_default());
    match answered {
        Ok((200, _)) if sent == done => window(sent, &|it| (it.admitted, it.wanted) = (it.admitted + 1, it.wanted + 1)),
        Ok((429, _)) => window(done, &|it| it.wanted += 1),
        Ok((200, _)) => {
            let part = 1.0 / (done - sent + 1) as f64;
            (sent..=done).for_each(|at| window(at, &|it| (it.unsure, it.part) = (it.unsure + 1, it.part + part)));
        }
        // It may have been admitted before its node died.
        Err(_) => (sent..=done).for_each(|at| window(at, &|it| it.unsure += 1)),
        Ok((status, _)) => *book.other.borrow_mut().entry(status).or_default() += 1,
    }
    links.borrow_mut().push(link);
}

fn question() -> String {
    json!({"model": "sim-model", "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}).to_string()
}

/// Eight nodes, a worker that answers at once, two tenants with a limit each and their keys.
async fn limited<'a>(case: &'a Case) -> (Fleet<'a>, Process, Vec<String>) {
    let mut fleet = Fleet::new(case, NODES);
    let mut command = Command::new(std::env::var("SMG_BIN").expect("SMG_BIN names the binary"));
    let host = fleet.lab.observer().to_string();
    command.args(["sim-worker", "--port", "8000", "--kv-blocks", "0", "--host", &host]);
    let worker = fleet.lab.start(command, &fleet.directory.path().join("worker.log")).expect("it starts");
    let url = format!("http://{host}:8000");
    for at in 0..NODES {
        fleet.start(at, &Start::flags(&["--worker-urls", &url]));
    }
    fleet.whole(STARTING * 3).await;
    let mut keys = Vec::new();
    for units in LIMITS {
        let tenant = format!("team-{units}");
        ask(&fleet, "POST", "/tenants", json!({"name": tenant})).await;
        let made = ask(&fleet, "POST", "/keys", json!({"name": tenant, "tenant": tenant})).await;
        keys.push(made["key"].as_str().expect("the key").to_owned());
        let limits = json!({"limits": [{"what": "requests", "per": "second", "limit": units}]});
        ask(&fleet, "PATCH", &format!("/tenants/{tenant}"), limits).await;
        for at in 0..NODES {
            within("it holds a share", DIVIDED, async || holds(&fleet, at, &tenant).await >= units / NODES as u64)
                .await;
        }
    }
    for node in &fleet.nodes {
        within("it serves", STARTING, async || serves(node.http).await).await;
    }
    (fleet, worker, keys)
}

async fn ask(fleet: &Fleet<'_>, method: &str, path: &str, body: Value) -> Value {
    let (status, answer) = fleet.ask(0, method, path, &body).await.expect("it answers");
    assert!(status < 300, "{method} {path}: {status} {answer}");
    answer
}

async fn holds(fleet: &Fleet<'_>, at: usize, tenant: &str) -> u64 {
    let answer = fleet.ask(at, "GET", &format!("/tenants/{tenant}"), &Value::Null).await;
    answer.map_or(0, |it| it.1["limits"][0]["here"]["share"].as_u64().unwrap_or(0))
}

pub(super) async fn serves(node: std::net::SocketAddr) -> bool {
    let Ok(mut link) = open(node).await else { return false };
    link.call("POST", "/v1/chat/completions", &question()).await.is_ok_and(|it| it.0 == 200)
}

/// What is done to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Nothing,
    Half,
    One,
    Kill,
    Restart,
    Stop,
}

impl Trouble {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Nothing, "calm"),
        (Self::Half, "split 4 and 4"),
        (Self::One, "split 7 and 1"),
        (Self::Kill, "kill -9, started again 5 s later"),
        (Self::Restart, "kill -9, started again at once"),
        (Self::Stop, "SIGSTOP of 5 s"),
    ];

    /// Begins, lasts, and ends.
    async fn befall(self, fleet: &mut Fleet<'_>, victim: usize, start: &Start, book: &Book) {
        let all: Vec<usize> = (0..NODES).collect();
        let others: Vec<usize> = all.iter().copied().filter(|it| *it != victim).collect();
        match self {
            Self::Nothing => lasting(LASTS).await,
            Self::Half | Self::One => {
                let (these, those) = if self == Self::Half { all.split_at(4) } else { (&others[..], &[victim][..]) };
                fleet.lab.switch.between(these, those, Fault::cutting());
                lasting(LASTS).await;
                fleet.lab.switch.heal();
            }
            Self::Kill | Self::Restart => {
                fleet.process(victim).kill();
                fleet.nodes[victim].process = None;
                if self == Self::Kill {
                    lasting(LASTS).await;
                }
                fleet.start(victim, start);
                let node = fleet.nodes[victim].http;
                within("it answers again", STARTING, async || open(node).await.is_ok()).await;
            }
            Self::Stop => {
                fleet.process(victim).pause();
                let since = Clock.wall();
                lasting(LASTS).await;
                book.stopped.set(Some((victim, since, Clock.wall())));
                fleet.process(victim).resume();
            }
        }
    }
}

/// Each trouble so many times, with the same load all the while. `ROUNDS` is how many times, `TROUBLE` a word of the one that is wanted.
pub(super) async fn in_trouble(case: &Case) {
    let (mut fleet, worker, keys) = limited(case).await;
    let again = Start::flags(&["--worker-urls", &format!("http://{}:8000", fleet.lab.observer())]);
    let rounds = asked("ROUNDS", 20);
    let chosen = std::env::var("TROUBLE").unwrap_or_default();
    println!(
        "| trouble | L | rounds | windows of it | max over L | mean | min | windows after it | max | mean | min |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let local = LocalSet::new();
    let book = Rc::new(Book::default());
    local
        .run_until(async {
            let mut clients = JoinSet::new();
            for (limit, key) in keys.iter().enumerate() {
                for (at, node) in fleet.nodes.iter().enumerate() {
                    let entropy = Entropy::seeded(case.entropy.next_u64());
                    let rate = LIMITS[limit] as f64 * TIMES / NODES as f64;
                    let node = Asked { at, http: node.http, key: key.clone(), rate };
                    clients.spawn_local(client(node, limit, entropy, Rc::clone(&book)));
                }
            }
            for (trouble, name) in Trouble::ALL.into_iter().filter(|it| it.1.contains(&chosen)) {
                lasting(AFTER).await;
                let (mut during, mut after) = (BTreeSet::new(), BTreeSet::new());
                for _ in 0..rounds {
                    lasting(Duration::from_millis(case.entropy.below(1000) as u64)).await;
                    let begun = Clock.wall().as_secs();
                    let victim = case.entropy.below(NODES);
                    trouble.befall(&mut fleet, victim, &again, &book).await;
                    let ended = Clock.wall().as_secs();
                    during.extend(begun..=ended);
                    lasting(AFTER).await;
                    after.extend(ended + 1..Clock.wall().as_secs());
                }
                lasting(Duration::from_secs(1)).await;
                for (limit, units) in LIMITS.into_iter().enumerate() {
                    let seen = &book.seen.borrow()[limit];
                    let (during, after) = (row(seen, &during, units), row(seen, &after, units));
                    println!("| {name} | {units} | {rounds} | {during} | {after} |");
                }
            }
            book.stop.set(true);
            while clients.join_next().await.is_some() {}
        })
        .await;
    println!("<!-- answers that were neither 200 nor 429: {:?} -->", book.other.borrow());
    drop(worker);
    fleet.check_alive();
}

/// Number, max, mean and min of some windows, the last two of those in which the limit was wanted; each as what it must have been and what it may have been.
pub(super) fn row(seen: &BTreeMap<u64, Window>, windows: &BTreeSet<u64>, units: u64) -> String {
    let those: Vec<Window> = windows.iter().filter_map(|it| seen.get(it).copied()).collect();
    let wanted = || those.iter().filter(|it| it.wanted >= units);
    let (sure, perhaps) = (|it: &Window| it.admitted as f64, |it: &Window| (it.admitted + it.unsure) as f64);
    let units_of = |it: f64| it / units as f64;
    let most = [those.iter().map(sure).fold(0.0, f64::max), those.iter().map(perhaps).fold(0.0, f64::max)];
    let least = [wanted().map(sure).fold(f64::MAX, f64::min), wanted().map(perhaps).fold(f64::MAX, f64::min)];
    let mean = units_of(wanted().map(|it| it.admitted as f64 + it.part).sum::<f64>()) / wanted().count() as f64;
    let [(most, most_perhaps), (least, least_perhaps)] =
        [most, least].map(|it| it.map(units_of)).map(|it| (it[0], it[1]));
    format!(
        "{}, wanted in {} | {most:.3} to {most_perhaps:.3} | {mean:.3} | {least:.3} to {least_perhaps:.3}",
        those.len(),
        wanted().count()
    )
}
