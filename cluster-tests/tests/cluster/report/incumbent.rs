//! The same questions to the mesh of SMG 1.13 (PyPI `smg`), on the same machines and switch. `INCUMBENT_BIN` names its program.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use cluster_tests::Upstream;
use cluster_tests::lasting;
use cluster_tests::net::Lab;
use cluster_tests::net::Process;
use serde_json::Value;
use serde_json::json;
use smg::base::clock::Clock;

use crate::ask::ask;
use crate::case::Case;
use crate::case::spread;

const PATIENCE: Duration = Duration::from_secs(60);

struct Peers {
    lab: Lab,
    processes: Vec<Option<Process>>,
    directory: tempfile::TempDir,
}

impl Peers {
    fn address(&self, at: usize) -> SocketAddr {
        (self.lab.machine(at).ip, 30_000).into()
    }

    fn start(&mut self, at: usize, workers: &[String]) {
        let ip = |at: usize| self.lab.machine(at).ip.to_string();
        let others: Vec<_> = (0..3).filter(|it| *it != at).map(|it| format!("{}:39527", ip(it))).collect();
        let mut command = Command::new(std::env::var("INCUMBENT_BIN").expect("INCUMBENT_BIN names the program"));
        command.args(["launch", "--host", "0.0.0.0", "--port", "30000", "--policy", "round_robin", "--enable-mesh"]);
        command.args(["--mesh-host", &ip(at), "--mesh-server-name", &format!("node-{at}"), "--mesh-peer-urls"]);
        command.args(others);
        if !workers.is_empty() {
            command.arg("--worker-urls").args(workers);
        }
        let log = self.directory.path().join(format!("node-{at}.log"));
        self.processes[at] = Some(self.lab.machine(at).start(command, &log).expect("it starts"));
    }

    async fn knows(&self, at: usize, url: &str) -> bool {
        let answer = ask(self.address(at), "GET", "/workers", &Value::Null).await;
        answer.is_ok_and(|it| it.1.to_string().contains(url))
    }

    /// How long until it is so; `None`: not within a minute.
    async fn until(&self, mut is_so: impl AsyncFnMut(&Self) -> bool) -> Option<Duration> {
        let begun = Clock.now();
        while Clock.now() - begun < PATIENCE {
            if is_so(self).await {
                return Some(Clock.now() - begun);
            }
            lasting(Duration::from_millis(20)).await;
        }
        None
    }
}

pub(super) async fn same_questions(case: &Case) {
    let lab = Lab::new(3, case.seed).expect("the machines can be made");
    let directory = tempfile::tempdir().expect("a directory");
    let observer = lab.observer();
    let mut peers = Peers { lab, processes: vec![None, None, None], directory };
    let worker = Upstream::serving("m", "m", (observer, 0).into()).await;
    for at in 0..3 {
        let workers = if at == 0 { vec![worker.url()] } else { Vec::new() };
        peers.start(at, &workers);
    }
    let all = async |it: &Peers| it.knows(1, &worker.url()).await && it.knows(2, &worker.url()).await;
    println!("| SMG 1.13: worker of node 0's flag at the others after start | {:?} |", peers.until(all).await);
    lasting(Duration::from_secs(10)).await;
    let cpu = |it: &Peers| -> Vec<Duration> { it.processes.iter().flatten().map(Process::cpu).collect() };
    let before = cpu(&peers);
    lasting(Duration::from_secs(30)).await;
    let used: Vec<_> = cpu(&peers)
        .iter()
        .zip(&before)
        .map(|(now, then)| format!("{:.1} %", (*now - *then).as_secs_f64() / 0.3))
        .collect();
    println!("| SMG 1.13: idle, of a core a node | {} |", used.join(", "));
    let mut took = Vec::new();
    for _ in 0..5 {
        let added = Upstream::serving("n", "n", (observer, 0).into()).await;
        let answer = ask(peers.address(0), "POST", "/workers", &json!({"url": added.url()})).await;
        let seen = peers.until(async |it| it.knows(1, &added.url()).await && it.knows(2, &added.url()).await).await;
        println!("<!-- added: {answer:?}, seen {seen:?} -->");
        took.extend(seen);
    }
    println!("| SMG 1.13: worker added at node 0 is listed at both others | {} of 5: {} |", took.len(), spread(&took));
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    let serves =
        async |it: &Peers, at: usize| ask(it.address(at), "POST", "/v1/chat/completions", &body).await.map(|it| it.0);
    println!("| SMG 1.13: node 1 serves before | {:?} |", serves(&peers, 1).await);
    peers.processes[0] = None;
    let lost = peers.until(async |it| !serves(it, 1).await.is_ok_and(|it| it == 200)).await;
    lasting(Duration::from_secs(20)).await;
    println!(
        "| SMG 1.13: after kill -9 of node 0, node 1 no longer serves its healthy worker | after {lost:?}; 20 s later {:?} |",
        serves(&peers, 1).await
    );
    peers.start(0, &[]);
    lasting(Duration::from_secs(15)).await;
    let known =
        [peers.knows(0, &worker.url()).await, peers.knows(1, &worker.url()).await, peers.knows(2, &worker.url()).await];
    println!("| SMG 1.13: 15 s after its restart without the flag, the worker is known at | {known:?} |");
    let again = Upstream::serving("d", "d", (observer, 0).into()).await;
    let _ = ask(peers.address(0), "POST", "/workers", &json!({"url": again.url()})).await;
    peers.until(async |it| it.knows(1, &again.url()).await).await;
    let (_, listed) = ask(peers.address(1), "GET", "/workers", &Value::Null).await.unwrap_or_default();
    let workers = listed["workers"].as_array().cloned().unwrap_or_default();
    let id = workers
        .iter()
        .find(|it| it["url"] == again.url())
        .and_then(|it| it["id"].as_str().or(it["worker_id"].as_str()).map(str::to_owned));
    println!("<!-- listed at node 1: {listed} -->");
    let deleted = ask(peers.address(1), "DELETE", &format!("/workers/{}", id.unwrap_or_default()), &Value::Null).await;
    lasting(Duration::from_secs(10)).await;
    let known =
        [peers.knows(0, &again.url()).await, peers.knows(1, &again.url()).await, peers.knows(2, &again.url()).await];
    println!(
        "| SMG 1.13: DELETE at node 1 of what node 0 was told | answered {:?}; 10 s later known at {known:?} |",
        deleted.map(|it| it.0)
    );
}
