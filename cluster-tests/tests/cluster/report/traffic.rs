//! What a cluster costs: idle, and under load.

use std::process::Command;
use std::time::Duration;

use cluster_tests::lasting;
use cluster_tests::net::Process;
use smg::base::clock::Clock;

use super::asked;
use super::control::settings;
use super::percentile;
use crate::case::Case;
use crate::fleet::Fleet;
use crate::fleet::STARTING;
use crate::fleet::Start;

const WORKERS: usize = 40;
/// Requests a second, all nodes together.
const RATE: usize = 1000;

/// Three nodes that nobody asks anything, with and without workers: processor, bytes, lines of log.
pub(super) async fn idle(case: &Case) {
    for workers in [0, 4] {
        let mut fleet = Fleet::new(case, 3);
        let _simulated = simulated(&fleet, workers);
        start_all(&mut fleet, workers);
        fleet.whole(STARTING).await;
        // Detection, first probes, first connections.
        lasting(Duration::from_secs(15)).await;
        let lines = |fleet: &Fleet<'_>| -> usize {
            let read = |it: &crate::fleet::Node| std::fs::read_to_string(&it.log).unwrap_or_default();
            fleet.nodes.iter().map(|it| read(it).lines().count()).sum()
        };
        let (before, lines_before, wire_before) = (cpu(&fleet), lines(&fleet), fleet.lab.switch.total());
        let lasts = Duration::from_secs(asked("SECONDS", 60) as u64);
        lasting(lasts).await;
        let used: Vec<String> = cpu(&fleet)
            .iter()
            .zip(&before)
            .map(|(now, before)| format!("{:.2} %", (*now - *before).as_secs_f64() * 100.0 / lasts.as_secs_f64()))
            .collect();
        let bytes = (fleet.lab.switch.total().bytes - wire_before.bytes) as f64 / 3.0 / lasts.as_secs_f64();
        let memory: Vec<String> = (0..3).map(|at| format!("{} MB", fleet.process(at).memory() >> 20)).collect();
        println!(
            "| idle, 3 nodes, {workers} workers | {} s | of a core: {}; {:.1} KB/s sent a node; {} lines of log; RSS {} |",
            lasts.as_secs(),
            used.join(", "),
            bytes / 1000.0,
            lines(&fleet) - lines_before,
            memory.join(", ")
        );
    }
}

fn start_all(fleet: &mut Fleet<'_>, workers: usize) {
    let observer = fleet.lab.observer();
    for at in 0..3 {
        let urls = (0..workers).filter(|it| it % 3 == at).map(|it| format!("http://{observer}:{}", 8000 + it));
        let mut flags: Vec<String> = urls.collect();
        if !flags.is_empty() {
            flags.insert(0, "--worker-urls".to_owned());
        }
        fleet.start(at, &Start { flags, ..Start::default() });
    }
}

/// Simulated workers at the observer's place.
fn simulated(fleet: &Fleet<'_>, workers: usize) -> Option<Process> {
    let mut command = Command::new(std::env::var("SMG_BIN").expect("SMG_BIN names the binary"));
    command.args(["sim-worker", "--port", "8000", "--host", &fleet.lab.observer().to_string()]);
    command.args(["--workers", &workers.to_string()]);
    let log = fleet.directory.path().join("workers.log");
    (workers > 0).then(|| fleet.lab.start(command, &log).expect("it starts"))
}

fn cpu(fleet: &Fleet<'_>) -> Vec<Duration> {
    fleet.nodes.iter().map(|it| it.process.as_ref().map_or(Duration::ZERO, Process::cpu)).collect()
}

/// A thousand requests a second over three nodes and forty workers, each told to one node: bytes between nodes, processor, memory over time.
pub(super) async fn under_load(case: &Case) {
    let mut fleet = Fleet::new(case, 3);
    let _simulated = simulated(&fleet, WORKERS);
    start_all(&mut fleet, WORKERS);
    fleet.whole(STARTING).await;
    fleet.all_serve("sim-model", STARTING).await;
    let minutes = asked("MINUTES", 10);
    let mut benches = Vec::new();
    for node in &fleet.nodes {
        let mut command = Command::new(std::env::var("SMG_BIN").expect("SMG_BIN names the binary"));
        let (url, rate) = (format!("http://{}", node.http), (RATE / 3 + 1).to_string());
        command.args(["bench", "--json", "--key", crate::ask::ADMIN_KEY, "--url", &url, "--rate", &rate]);
        command.args(["--shared-prefix", "256B", "--duration", &format!("{}s", minutes * 60 + 40)]);
        let log = fleet.directory.path().join(format!("bench-{}.log", node.mesh.ip()));
        benches.push(fleet.lab.start(command, &log).expect("it starts"));
    }
    lasting(Duration::from_secs(30)).await; // warm-up
    let term_before = term(&fleet).await;
    let (begun, before, wire_before) = (Clock.now(), cpu(&fleet), fleet.lab.switch.total());
    let sent = async |series: &str| fleet.sum(series).await;
    let lanes = ["swim", "deltas", "sync", "ledger", "forward", "bulk"];
    let series = lanes.map(|it| format!("smg_mesh_sent_bytes_total{{lane=\"{it}\"}}"));
    let mut lanes_before = Vec::new();
    for it in &series {
        lanes_before.push(sent(it).await);
    }
    let (mut memory, mut waits): (Vec<Vec<(f64, f64)>>, Vec<Duration>) = (vec![Vec::new(); 3], Vec::new());
    while Clock.now() - begun < Duration::from_secs(minutes as u64 * 60) {
        lasting(Duration::from_secs(1)).await;
        let asked = Clock.now();
        assert!(fleet.serves(waits.len() % 3, "sim-model").await, "a request of our own failed");
        waits.push(Clock.now() - asked);
        for (at, samples) in memory.iter_mut().enumerate() {
            let resident = fleet.nodes[at].process.as_ref().map_or(0, Process::memory);
            samples.push(((Clock.now() - begun).as_secs_f64() / 3600.0, resident as f64 / 1e6));
        }
    }
    let seconds = (Clock.now() - begun).as_secs_f64();
    let bytes = (fleet.lab.switch.total().bytes - wire_before.bytes) as f64 / 3.0 / seconds / 1000.0;
    let mut by_lane = String::new();
    for ((lane, series), before) in lanes.iter().zip(&series).zip(&lanes_before) {
        by_lane += &format!(" {lane} {:.1}", (sent(series).await - before) / 3.0 / seconds / 1000.0);
    }
    let used: Vec<String> = cpu(&fleet)
        .iter()
        .zip(&before)
        .map(|(now, before)| format!("{:.0} %", (*now - *before).as_secs_f64() * 100.0 / seconds))
        .collect();
    let frames = (fleet.lab.switch.total().frames - wire_before.frames) as f64 / 3.0 / seconds;
    println!(
        "| {RATE} req/s, 3 nodes, {WORKERS} workers | {seconds:.0} s | {bytes:.1} KB/s and {frames:.0} packets/s on the wire a node; payload KB/s by lane:{by_lane}; of a core: {} |",
        used.join(", ")
    );
    tell_elections(&fleet, term_before, seconds).await;
    println!(
        "| our own requests meanwhile | N={} | p50 {:.3} s, max {:.3} s |",
        waits.len(),
        percentile(&waits, 0.5),
        percentile(&waits, 1.0)
    );
    tell_memory(&memory, seconds);
    for mut bench in benches {
        bench.end(Duration::from_secs(60)).await;
        println!("<!-- {} -->", bench.log().lines().collect::<Vec<_>>().join(" "));
    }
    fleet.check_alive();
}

async fn term(fleet: &Fleet<'_>) -> u64 {
    fleet.group(0).await["term"].as_u64().unwrap_or_default()
}

/// Nothing was done to the nodes but requests: each new term is an election for no reason.
async fn tell_elections(fleet: &Fleet<'_>, before: u64, seconds: f64) {
    let held = term(fleet).await - before;
    println!("| elections of the control group meanwhile ({}) | {seconds:.0} s | {held} |", settings());
}

/// What nodes held at first and at last, and how fast that grew once they were warm.
fn tell_memory(memory: &[Vec<(f64, f64)>], seconds: f64) {
    for (at, samples) in memory.iter().enumerate() {
        let later = &samples[samples.len() / 3..];
        println!(
            "| RSS of node {at} | {seconds:.0} s | {:.1} MB to {:.1} MB; slope of the last two thirds {:.1} MB/h |",
            samples.first().map_or(0.0, |it| it.1),
            samples.last().map_or(0.0, |it| it.1),
            slope(later)
        );
    }
}

/// Least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|it| it.0), mean(|it| it.1));
    let over: f64 = points.iter().map(|it| (it.0 - x) * (it.1 - y)).sum();
    over / points.iter().map(|it| (it.0 - x).powi(2)).sum::<f64>()
}
