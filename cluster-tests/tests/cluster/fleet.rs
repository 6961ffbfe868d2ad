//! A cluster of real `smg` processes, one on each machine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use cluster_tests::Scrape;
use cluster_tests::disk::Disk;
use cluster_tests::lasting;
use cluster_tests::net::Lab;
use cluster_tests::net::Process;
use cluster_tests::within;
use serde_json::Value;
use smg::transport::trust::MeshSecret;
use tempfile::TempDir;

use super::ask::ADMIN_KEY;
use super::ask::ask;
use super::case::Case;

/// Starting a debug build on a busy machine takes a second or two.
pub(crate) const STARTING: Duration = Duration::from_secs(20);
/// How exactly it is known when a cluster was whole.
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(30);
/// Lines of the nodes' logs that a failed run shows, all together.
const TAIL: usize = 120;

/// Whether a log tells of a panic, in the words of nodes or of the standard library.
pub(crate) fn panicked(log: &str) -> bool {
    log.contains("a panic: this is a bug") || log.contains("panicked at")
}

/// The cluster.
pub(crate) struct Fleet<'a> {
    pub(crate) case: &'a Case,
    pub(crate) lab: Lab,
    pub(crate) nodes: Vec<Node>,
    pub(crate) secret: String,
    pub(crate) directory: TempDir,
}

/// One machine's node: where it is, and the process while there is one.
pub(crate) struct Node {
    pub(crate) http: SocketAddr,
    pub(crate) mesh: SocketAddr,
    pub(crate) data: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) process: Option<Process>,
    /// What its data directory is on, when that is a disk of its own. ORDER: after the process, which has it mounted.
    pub(crate) disk: Option<Disk>,
}

/// How a node is started, beyond what all have in common.
#[derive(Clone, Default)]
pub(crate) struct Start {
    /// More of the command line.
    pub(crate) flags: Vec<String>,
    /// Seeds, when not everybody's addresses.
    pub(crate) seeds: Option<Vec<String>>,
    /// A secret other than the cluster's; an empty one is none.
    pub(crate) secret: Option<String>,
    /// A file to find host names in.
    pub(crate) hosts: Option<PathBuf>,
    /// The data directory is a disk of its own, of this size, which goes with the process.
    pub(crate) disk_bytes: Option<u64>,
    /// More of its environment.
    pub(crate) env: Vec<(String, String)>,
    /// The program, when it is not that of `SMG_BIN`.
    pub(crate) binary: Option<PathBuf>,
}

impl Start {
    pub(crate) fn flags(flags: &[&str]) -> Self {
        Self { flags: flags.iter().map(ToString::to_string).collect(), ..Self::default() }
    }
}

impl<'a> Fleet<'a> {
    /// Machines, and no process yet.
    pub(crate) fn new(case: &'a Case, machines: usize) -> Self {
        let lab = Lab::new(machines, case.seed).expect("the machines can be made");
        let directory = tempfile::tempdir().expect("a directory");
        let node = |at: usize| {
            let ip = lab.machine(at).ip;
            Node {
                http: (ip, 30_000).into(),
                mesh: (ip, 30_001).into(),
                data: directory.path().join(format!("node-{at}")),
                log: directory.path().join(format!("node-{at}.log")),
                process: None,
                disk: None,
            }
        };
        let nodes = (0..machines).map(node).collect();
        Self { case, lab, nodes, secret: MeshSecret::generate().expose(), directory }
    }

    /// The same with all nodes running and seeing each other.
    pub(crate) async fn started(case: &'a Case, machines: usize, flags: &[&str]) -> Self {
        let mut fleet = Self::new(case, machines);
        for at in 0..machines {
            fleet.start(at, &Start::flags(flags));
        }
        fleet.whole(STARTING).await;
        fleet
    }

    /// Starts a node; it may still be down, or seen by nobody, when this returns.
    pub(crate) fn start(&mut self, at: usize, start: &Start) {
        let command = self.command(at, start);
        let node = &mut self.nodes[at];
        node.process = Some(self.lab.machine(at).start(command, &node.log).expect("the binary of SMG_BIN starts"));
    }

    fn command(&self, at: usize, start: &Start) -> Command {
        let usual =
            || std::env::var_os("SMG_BIN").expect("SMG_BIN names the binary; `make test-cluster` sets it").into();
        let binary: PathBuf = start.binary.clone().unwrap_or_else(usual);
        let node = &self.nodes[at];
        let mut mounts = String::new();
        if let Some(hosts) = &start.hosts {
            mounts += &format!("mount --bind {} /etc/hosts && ", hosts.display());
        }
        if let Some(size) = start.disk_bytes {
            let data = node.data.display();
            mounts += &format!("mkdir -p {data} && mount -t tmpfs -o size={size} disk {data} && ");
        }
        if let Some(disk) = &node.disk {
            mounts += &format!("mkdir -p {} && {} && ", node.data.display(), disk.mounting(&node.data));
        }
        let mut command = match mounts.as_str() {
            "" => Command::new(binary),
            mounts => {
                let (mut command, script) = (Command::new("unshare"), format!(r#"{mounts} exec "$0" "$@""#));
                command.args(["--mount", "--propagation", "private", "sh", "-c", &script]).arg(binary);
                command
            }
        };
        let secret = start.secret.as_ref().unwrap_or(&self.secret);
        if !secret.is_empty() {
            command.env("SMG_MESH_SECRET", secret);
        }
        let everybody = || self.nodes.iter().map(|it| it.mesh.to_string()).collect();
        command.envs(start.env.iter().map(|it| (&it.0, &it.1)));
        command.args(["--ha-mesh", "--threads", "1", "--mesh-host", &node.mesh.ip().to_string()]);
        command.args(["--api-key", &format!("ops:ops:admin:{ADMIN_KEY}"), "--seeds"]);
        command.arg(start.seeds.clone().unwrap_or_else(everybody).join(","));
        command.arg("--data-dir").arg(&node.data).args(&start.flags);
        command
    }

    pub(crate) fn process(&mut self, at: usize) -> &mut Process {
        self.nodes[at].process.as_mut().expect("it was started")
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, at: usize) {
        self.case.did(format_args!("kill -9 of node {at}"));
        self.process(at).kill();
        self.nodes[at].process = None;
    }

    /// Those with a process.
    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|at| self.nodes[*at].process.is_some()).collect()
    }

    pub(crate) async fn ask(&self, at: usize, method: &str, path: &str, body: &Value) -> Result<(u16, Value), String> {
        ask(self.nodes[at].http, method, path, body).await
    }

    /// The states of members as one node sees them, by machine; empty when it does not answer.
    pub(crate) async fn members(&self, at: usize) -> BTreeMap<usize, String> {
        let answer = self.ask(at, "GET", "/cluster/members", &Value::Null).await;
        let listed = answer.map(|it| it.1).unwrap_or_default();
        let members = listed["members"].as_array().cloned().unwrap_or_default();
        let known = members.iter().filter_map(|it| {
            let addr = it["addr"].as_str()?;
            let machine = self.nodes.iter().position(|it| it.mesh.to_string() == addr).unwrap_or(usize::MAX);
            Some((machine, it["state"].as_str()?.to_owned()))
        });
        let mut states = BTreeMap::new();
        for (machine, state) in known {
            // A node whose data directory is new has another id, at the address of the one that it was: who lives there counts.
            let lives = states.get(&machine).is_some_and(|it| it == "alive");
            if !lives {
                states.insert(machine, state);
            }
        }
        states
    }

    /// Whether a node sees exactly these alive.
    pub(crate) async fn sees(&self, at: usize, alive: &[usize]) -> bool {
        let members = self.members(at).await;
        let seen: Vec<usize> = members.iter().filter(|it| it.1 == "alive").map(|it| *it.0).collect();
        seen == alive
    }

    /// Waits until each that runs sees all that run and nobody else alive.
    pub(crate) async fn whole(&self, deadline: Duration) -> Duration {
        self.agree(&self.running(), deadline).await
    }

    /// Waits until each of these sees all of these and nobody else alive. One question at a time: many would be load that slows what is measured.
    pub(crate) async fn agree(&self, these: &[usize], deadline: Duration) -> Duration {
        let mut agreed = 0;
        within(&format!("{these:?} see each other"), deadline, async || {
            while agreed < these.len() && self.sees(these[agreed], these).await {
                agreed += 1;
            }
            if agreed < these.len() {
                lasting(BETWEEN_QUESTIONS).await;
            }
            agreed == these.len()
        })
        .await
    }

    pub(crate) async fn scrape(&self, at: usize) -> Scrape {
        Scrape::of((self.nodes[at].mesh.ip(), 29_000).into()).await
    }

    /// The sum of a series over all nodes that run.
    pub(crate) async fn sum(&self, series: &str) -> f64 {
        let mut sum = 0.0;
        for at in self.running() {
            sum += self.scrape(at).await.value(series);
        }
        sum
    }

    /// Nobody panicked, and whoever should run does.
    pub(crate) fn check_alive(&mut self) {
        for at in self.running() {
            assert!(self.process(at).ended().is_none(), "node {at} ended");
        }
        for node in &self.nodes {
            let log = std::fs::read_to_string(&node.log).unwrap_or_default();
            assert!(!panicked(&log), "a node panicked: {}", node.log.display());
        }
    }
}

impl Drop for Fleet<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let tail = TAIL / self.nodes.len();
        for node in &self.nodes {
            let log = std::fs::read_to_string(&node.log).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(tail)..] {
                eprintln!("{} {} | {line}", self.case.name, node.mesh.ip());
            }
        }
    }
}
