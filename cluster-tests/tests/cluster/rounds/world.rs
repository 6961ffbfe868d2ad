//! A cluster that lives through several rounds: nodes on their ground, two simulated workers, clients at a rate, and whoever watches.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use cluster_tests::disk::Disk;
use cluster_tests::lasting;
use cluster_tests::net::Process;
use futures_util::future::join_all;
use serde_json::Value;
use serde_json::json;
use smg::base::clock::Clock;
use tokio::time::Instant;

use super::load::Load;
use super::plan::Fault;
use super::plan::Ground;
use super::watch::Watch;
use crate::ask::ask;
use crate::case::Case;
use crate::fleet::Fleet;
use crate::fleet::STARTING;
use crate::fleet::Start;
use crate::fleet::panicked;
use crate::load::taken;

/// Room for the write buffers, the logs and the files of three groups, and for what must stay free.
const DISK_BYTES: u64 = 192 << 20;
const SMALL_BYTES: u64 = 128 << 20;
const WORKERS: [u16; 2] = [9001, 9002];
/// Long enough that a stream of a few tokens is there when something happens.
const WORKER: &[&str] = &["--models", "m", "--token-delay", "15ms", "--output-tokens", "300"];
/// Lines of the log of a node that ended by itself.
const LAST: usize = 12;
const CLOCK_LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// A simulated worker at the observer's place.
pub(super) struct Worker {
    pub(super) address: SocketAddr,
    pub(super) process: Option<Process>,
}

impl Worker {
    /// How many requests a fault has struck.
    async fn struck(&self) -> u64 {
        self.counted("faults").await
    }

    /// How many requests were given up by who had sent them.
    async fn given_up(&self) -> u64 {
        self.counted("aborted").await
    }

    async fn counted(&self, what: &str) -> u64 {
        let told = ask(self.address, "GET", "/sim/state", &Value::Null).await;
        told.map_or(0, |it| it.1[what].as_u64().unwrap_or(0))
    }
}

/// The cluster and all around it.
pub(super) struct World<'a> {
    pub(super) fleet: Fleet<'a>,
    pub(super) workers: Vec<Worker>,
    pub(super) load: Load,
    pub(super) watch: Watch,
    /// Requests that faults of workers had struck when the last one began.
    pub(super) struck: u64,
    /// Whose turn it was last.
    hurt_worker: usize,
    ground: Ground,
    start: Start,
}

/// Whether this machine has what a ground needs beyond what every scenario does.
pub(super) fn is_possible(ground: Ground) -> Result<(), String> {
    match ground {
        Ground::Plain | Ground::Small => Ok(()),
        Ground::Disks => cluster_tests::disk::is_possible(),
        Ground::Clocks => match std::path::Path::new(CLOCK_LIBRARY).exists() {
            true => Ok(()),
            false => Err(format!("it needs {CLOCK_LIBRARY} (Debian: faketime)")),
        },
    }
}

impl<'a> World<'a> {
    /// All of it, running and whole. In a `LocalSet`.
    pub(super) async fn begin(case: &'a Case, ground: Ground, nodes: usize, planted: Option<&str>) -> Self {
        let fleet = Fleet::new(case, nodes);
        let addresses: Vec<_> = fleet.nodes.iter().map(|it| it.http).collect();
        let workers = WORKERS.map(|port| Worker { address: (fleet.lab.observer(), port).into(), process: None });
        let urls = WORKERS.map(|port| format!("http://{}:{port}", fleet.lab.observer()));
        let mut start = Start::flags(&["--drain-timeout", "5s", "--voter-replace-after", "3s", "--worker-urls"]);
        start.flags.extend(urls);
        start.disk_bytes = (ground == Ground::Small).then_some(SMALL_BYTES);
        start.env.extend(planted.map(|it| ("PLANTED".to_owned(), it.to_owned())));
        let (load, watch) = (Load::begin(&[]), Watch::begin(&addresses));
        let mut world = Self {
            fleet,
            workers: workers.into(),
            load,
            watch,
            struck: 0,
            hurt_worker: case.entropy.below(WORKERS.len()),
            ground,
            start,
        };
        world.start_workers();
        for at in 0..nodes {
            if ground == Ground::Disks {
                let seed = case.entropy.next_u64();
                world.fleet.nodes[at].disk = Some(Disk::new(DISK_BYTES, seed).expect("a disk can be made"));
            }
            world.set_clock(at, 0);
            world.start(at);
        }
        world.fleet.whole(STARTING).await;
        world.fleet.all_serve("m", STARTING).await;
        world.fleet.conversation().await;
        world.fleet.one_history(nodes.min(5)).await;
        world
    }

    pub(super) fn start(&mut self, at: usize) {
        let mut start = self.start.clone();
        if self.ground == Ground::Clocks {
            let file = self.clock_file(at).display().to_string();
            let env = [
                ("LD_PRELOAD", CLOCK_LIBRARY),
                ("FAKETIME_TIMESTAMP_FILE", file.as_str()),
                ("FAKETIME_CACHE_DURATION", "1"),
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ];
            start.env.extend(env.map(|it| (it.0.to_owned(), it.1.to_owned())));
        }
        self.fleet.start(at, &start);
    }

    /// Starts them in an order that is drawn.
    pub(super) fn start_all(&mut self, these: &[usize]) {
        for at in self.fleet.case.shuffled(these.len()) {
            self.start(these[at]);
        }
    }

    /// The worker whose turn it is to be hurt: nodes may leave the last one alone for a while, and a fault of it would strike nothing.
    pub(super) fn next_worker(&mut self) -> usize {
        self.hurt_worker = (self.hurt_worker + 1) % self.workers.len();
        self.hurt_worker
    }

    /// Starts those workers that do not run.
    pub(super) fn start_workers(&mut self) {
        let binary = std::env::var("SMG_BIN").expect("SMG_BIN names the binary");
        for worker in self.workers.iter_mut().filter(|it| it.process.is_none()) {
            let mut command = Command::new(&binary);
            command.args(["sim-worker", "--host", &worker.address.ip().to_string()]);
            command.args(["--port", &worker.address.port().to_string()]).args(WORKER);
            let log = self.fleet.directory.path().join(format!("worker-{}.log", worker.address.port()));
            worker.process = Some(self.fleet.lab.start(command, &log).expect("the binary of SMG_BIN starts"));
        }
    }

    fn clock_file(&self, at: usize) -> PathBuf {
        self.fleet.directory.path().join(format!("clock-{at}"))
    }

    /// How many seconds a node's wall clock is ahead, where it can be set.
    pub(super) fn set_clock(&self, at: usize, seconds: i64) {
        if self.ground == Ground::Clocks {
            self.write_clock(at, &format!("{seconds:+}\n"));
        }
    }

    /// How fast a node's wall clock runs, where it can be set; [`World::set_clock`] makes it right again.
    pub(super) fn set_pace(&self, at: usize, pace: f64) {
        self.write_clock(at, &format!("+0 x{pace:.3}\n"));
    }

    /// As a whole: an empty file would be read as the right time.
    fn write_clock(&self, at: usize, text: &str) {
        let (file, whole) = (self.clock_file(at), self.clock_file(at).with_extension("new"));
        std::fs::write(&whole, text).and_then(|()| std::fs::rename(&whole, &file)).expect("the clock is set");
    }

    /// The storage ids of those that answer.
    pub(super) async fn names(&self) -> BTreeMap<String, usize> {
        let told = join_all(self.fleet.running().into_iter().map(async |at| {
            let node = self.fleet.ask(at, "GET", "/cluster/node", &Value::Null).await.ok()?.1;
            Some((node["storage_id"].as_str()?.to_owned(), at))
        }));
        told.await.into_iter().flatten().collect()
    }

    /// Who leads history, as far as anybody knows.
    pub(super) async fn leader(&self) -> Option<usize> {
        let names = self.names().await;
        let seen = self.watch.since(Clock.now() - Duration::from_secs(2));
        names.get(seen.last()?.leader.as_deref()?).copied()
    }

    /// How long until it is whole: every node sees every other, history has all its voters and one leader, every node serves and keeps. `None`: not within `deadline`. Beside it, what was
    /// waited for last, and when that was still missing.
    pub(super) async fn whole_within(&self, deadline: Duration) -> (Option<Duration>, Vec<(&'static str, Instant)>) {
        let (begun, mut waited) = (Clock.now(), Vec::<(&'static str, Instant)>::new());
        while let Err(missing) = self.is_whole().await {
            match waited.last_mut().filter(|it| it.0 == missing) {
                Some(last) => last.1 = Clock.now(),
                None => waited.push((missing, Clock.now())),
            }
            if Clock.now() - begun > deadline {
                return (None, waited);
            }
            lasting(Duration::from_millis(40)).await;
        }
        (Some(Clock.now() - begun), waited)
    }

    /// Whether those that vote are within this the nodes that run. Data directories that were taken away vote until they are replaced: who is lost before that may be one too many.
    pub(super) async fn replaced_within(&self, deadline: Duration) -> bool {
        let begun = Clock.now();
        loop {
            let group = self.fleet.kept(0).await;
            let voters: Vec<&str> =
                group["voters"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let names = self.names().await;
            let is_so = voters.len() == self.fleet.nodes.len()
                && voters.iter().all(|it| names.contains_key(*it))
                && group["changing_voters"] == false;
            if is_so || Clock.now() - begun > deadline {
                return is_so;
            }
            lasting(Duration::from_millis(40)).await;
        }
    }

    async fn is_whole(&self) -> Result<(), &'static str> {
        let all: Vec<usize> = (0..self.fleet.nodes.len()).collect();
        let mut leaders = std::collections::BTreeSet::new();
        for at in &all {
            if !self.fleet.sees(*at, &all).await {
                return Err("members");
            }
        }
        for at in &all {
            let group = self.fleet.kept(*at).await;
            let voters = group["voters"].as_array().map_or(0, Vec::len);
            if voters != all.len() || group["changing_voters"] != false {
                return Err("voters");
            }
            leaders.insert(group["leader"].to_string());
        }
        if leaders.len() != 1 || leaders.contains("null") {
            return Err("one leader");
        }
        let does = join_all(all.iter().map(async |at| {
            if !self.serves(*at).await {
                return Err("serving");
            }
            let kept = self.fleet.ask(*at, "POST", "/v1/conversations", &json!({})).await;
            if kept.is_ok_and(|it| it.0 == 200) { Ok(()) } else { Err("keeping") }
        }));
        does.await.into_iter().collect()
    }

    /// Whether it answers a request, one of a token: an answer of the usual length would be what healing takes.
    async fn serves(&self, at: usize) -> bool {
        let body = json!({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]});
        self.fleet.ask(at, "POST", "/v1/chat/completions", &body).await.is_ok_and(|it| it.0 == 200)
    }

    /// What is missing for it to be whole, in words.
    pub(super) async fn missing(&self) -> String {
        let mut missing = String::new();
        for at in 0..self.fleet.nodes.len() {
            let group = self.fleet.kept(at).await;
            let members = self.fleet.members(at).await;
            let kept = self.fleet.ask(at, "POST", "/v1/conversations", &json!({})).await;
            missing += &format!(
                "node {at}: sees {members:?}; voters {}, changing {}, leader {}, term {}; a conversation: {kept:?}; serves: {}. ",
                group["voters"],
                group["changing_voters"],
                group["leader"],
                group["term"],
                self.serves(at).await
            );
        }
        missing
    }

    /// Requests that workers still have, as the nodes count them, once nobody asks any more; waited for.
    pub(super) async fn in_flight(&self) -> f64 {
        let begun = Clock.now();
        loop {
            let taken = taken(&self.fleet).await;
            if taken == 0 || Clock.now() - begun > STARTING {
                return taken as f64;
            }
            lasting(Duration::from_millis(100)).await;
        }
    }

    /// Requests that faults of workers have struck.
    pub(super) async fn struck_by_now(&self) -> u64 {
        join_all(self.workers.iter().map(Worker::struck)).await.into_iter().sum()
    }

    /// Requests that no worker works on any more, though they were not answered: given up, and those that `fault` ended.
    pub(super) async fn given_up(&self, fault: Fault) -> u64 {
        let each: u64 = join_all(self.workers.iter().map(Worker::given_up)).await.into_iter().sum();
        each + if fault.ends_requests() { self.struck_by_now().await } else { 0 }
    }

    /// Waits until so many were given up; how many it were in the end.
    pub(super) async fn given_up_to(&self, many: u64, fault: Fault) -> u64 {
        let begun = Clock.now();
        loop {
            let now = self.given_up(fault).await;
            if now >= many || Clock.now() - begun > STARTING / 4 {
                return now;
            }
            lasting(Duration::from_millis(100)).await;
        }
    }

    /// What the nodes take of memory, in bytes.
    pub(super) fn memory(&self) -> Vec<u64> {
        self.fleet.nodes.iter().filter_map(|it| Some(it.process.as_ref()?.memory())).collect()
    }

    /// Nodes that ended by themselves, with what they wrote last.
    pub(super) fn ended(&mut self) -> Vec<String> {
        let mut ended = Vec::new();
        for (at, node) in self.fleet.nodes.iter_mut().enumerate() {
            let Some(status) = node.process.as_mut().and_then(Process::ended) else { continue };
            let log = std::fs::read_to_string(&node.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            ended.push(format!(
                "node {at} ended by itself, {status}: {}",
                lines[lines.len().saturating_sub(LAST)..].join(" | ")
            ));
        }
        ended
    }

    /// Nodes whose log tells of a panic.
    pub(super) fn panics(&self) -> usize {
        let has = |log: &PathBuf| panicked(&std::fs::read_to_string(log).unwrap_or_default());
        self.fleet.nodes.iter().filter(|it| has(&it.log)).count()
    }

    /// Whether the place of a planted bug was reached in any node.
    pub(super) fn is_reached(&self) -> bool {
        let has = |log: &PathBuf| std::fs::read_to_string(log).unwrap_or_default().contains("a planted bug is reached");
        self.fleet.nodes.iter().any(|it| has(&it.log))
    }
}
