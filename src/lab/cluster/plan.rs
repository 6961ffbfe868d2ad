//! Which processes a lab has, what each is told, and where it listens. Pure.

use std::path::Path;
use std::path::PathBuf;

use crate::base::setting::Section as _;
use crate::lab::sim_worker::Options;

/// Between the ports of one node and those of the next: 30000 and 30001 are followed by 30010 and 30011.
const STEP: u16 = 10;
/// From the first node's port to the first worker's: beyond the last node's.
const TO_WORKERS: u16 = 500;
/// More would run into the workers' ports.
pub const NODES_MAX: u16 = 32;
/// A playground need not wait half a minute for a stream that somebody left running.
const DRAIN: &str = "--drain-timeout=5s";
/// Kept small: a lab is one machine.
const THREADS: &str = "--threads=1";

/// What the lab decides for each node itself.
const DECIDED: &[&str] = &["ha-mesh", "seeds", "mesh-host", "mesh-port", "mesh-advertise-host", "node-name"];
/// What is given once and derived for each node, or dealt out.
const DERIVED: &[&str] = &["port", "prometheus-port", "data-dir", "worker-urls"];

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Nodes; one is a node without the mesh.
    pub nodes: u16,
    /// Simulated workers.
    pub workers: u16,
    /// Where clients of the first node go.
    pub port: u16,
    /// Where its metrics are; 0: no node has any.
    pub metrics_port: u16,
    /// Where everybody's files go.
    pub directory: PathBuf,
    /// Configuration file that every node reads.
    pub config: Option<PathBuf>,
    /// Flags that every node gets.
    pub flags: Vec<(String, Vec<String>)>,
}

/// A lab that cannot be. The user's to mend; nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// The flag is derived.
    #[error("`--{0}` is what the lab says to each node itself; a cluster by hand is `smg --ha-mesh --seeds ...`")]
    Decided(String),
    /// There is no room for the ports.
    #[error(
        "`--port` and `--prometheus-port` leave no room: a lab of {nodes} nodes and {workers} workers takes ports up to {last}"
    )]
    Ports {
        /// Wanted.
        nodes: u16,
        /// Wanted.
        workers: u16,
        /// The last that would be needed.
        last: u32,
    },
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// How people know it.
    pub name: String,
    /// What the binary is told.
    pub arguments: Vec<String>,
    /// Where it serves.
    pub port: u16,
    /// Where other nodes reach it; `None` for workers and for a node alone.
    pub mesh_port: Option<u16>,
    /// Where its metrics are.
    pub metrics_port: Option<u16>,
    /// What it knows by flag: workers of a node, by name or address.
    pub knows: Vec<String>,
    /// Where its output goes.
    pub log: PathBuf,
    /// Whether it is a gateway.
    pub is_node: bool,
}

/// All processes: workers first, so that nodes find them at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Who.
    pub parts: Vec<Part>,
}

impl Plan {
    /// Lays it out.
    pub fn of(wish: &Wish) -> Result<Self, WishError> {
        if let Some((flag, _)) = wish.flags.iter().find(|(flag, _)| DECIDED.contains(&flag.as_str())) {
            return Err(WishError::Decided(flag.clone()));
        }
        let span = |first: u16, count: u16, step: u16| u32::from(first) + u32::from(count) * u32::from(step);
        let last = span(wish.port, wish.nodes, STEP).max(span(wish.port, TO_WORKERS + wish.workers, 1)).max(span(
            wish.metrics_port,
            wish.nodes,
            STEP,
        ));
        if last > u32::from(u16::MAX) || wish.port == 0 {
            return Err(WishError::Ports { nodes: wish.nodes, workers: wish.workers, last });
        }
        let workers: Vec<Part> = (0..wish.workers).map(|n| worker(wish, n)).collect();
        let mut nodes: Vec<Part> = (0..wish.nodes).map(|n| node(wish, n)).collect();
        deal_out(wish, &workers, &mut nodes);
        Ok(Self { parts: workers.into_iter().chain(nodes).collect() })
    }

    /// The gateways.
    pub fn nodes(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|it| it.is_node)
    }
}

fn worker(wish: &Wish, n: u16) -> Part {
    let port = wish.port + TO_WORKERS + n;
    let options = Options { port, seed: u64::from(n), ..Options::like_a_gpu() };
    let plain = Options::default();
    let changed = Options::options().iter().filter(|it| options.render(it.key) != plain.render(it.key));
    let flags = changed.map(|it| format!("--{}={}", it.flag, options.render(it.key)));
    let name = format!("worker-{}", n + 1);
    Part {
        arguments: ["sim-worker".to_owned()].into_iter().chain(flags).collect(),
        port,
        mesh_port: None,
        metrics_port: None,
        knows: Vec::new(),
        log: wish.directory.join(format!("{name}.log")),
        is_node: false,
        name,
    }
}

fn node(wish: &Wish, n: u16) -> Part {
    let (name, port) = (format!("node-{}", n + 1), wish.port + n * STEP);
    let metrics_port = (wish.metrics_port > 0).then(|| wish.metrics_port + n * STEP);
    let mesh = |n: u16| wish.port + n * STEP + 1;
    let data = wish.directory.join(&name);
    let mut arguments = vec!["serve".to_owned()];
    arguments.extend(wish.config.iter().map(|it| format!("--config={}", it.display())));
    let has = |flag: &str| wish.flags.iter().any(|it| it.0 == flag);
    if !has("host") {
        arguments.push("--host=127.0.0.1".to_owned());
    }
    arguments.extend(
        [("drain-timeout", DRAIN), ("threads", THREADS)].into_iter().filter(|it| !has(it.0)).map(|it| it.1.to_owned()),
    );
    arguments.extend([
        format!("--port={port}"),
        format!("--prometheus-port={}", metrics_port.unwrap_or(0)),
        format!("--node-name={name}"),
        format!("--data-dir={}", data.display()),
    ]);
    let mesh_port = (wish.nodes > 1).then(|| mesh(n));
    if let Some(port) = mesh_port {
        let seeds: Vec<_> = (0..wish.nodes).map(|it| format!("127.0.0.1:{}", mesh(it))).collect();
        arguments.extend([
            "--ha-mesh=true".to_owned(),
            "--mesh-host=127.0.0.1".to_owned(),
            format!("--mesh-port={port}"),
            format!("--seeds={}", seeds.join(",")),
        ]);
    }
    for (flag, values) in wish.flags.iter().filter(|it| !DERIVED.contains(&it.0.as_str())) {
        arguments.extend(given(flag, values));
    }
    let log = wish.directory.join(format!("{name}.log"));
    Part { name, arguments, port, mesh_port, metrics_port, knows: Vec::new(), log, is_node: true }
}

/// A flag as it was given. An argument without a value is still an argument.
fn given(flag: &str, values: &[String]) -> Vec<String> {
    match values {
        [] => vec![format!("--{flag}")],
        values => values.iter().map(|it| format!("--{flag}={it}")).collect(),
    }
}

/// Each worker to one node, in turn: simulated ones, then those that the command line named.
fn deal_out(wish: &Wish, workers: &[Part], nodes: &mut [Part]) {
    let simulated = workers.iter().map(|it| (it.name.clone(), format!("http://127.0.0.1:{}", it.port)));
    let named = wish.flags.iter().filter(|it| it.0 == "worker-urls").flat_map(|it| it.1.iter());
    let named = named.flat_map(|it| it.split(',')).map(|it| (it.to_owned(), it.to_owned()));
    for (n, (name, url)) in simulated.chain(named).enumerate() {
        if let Some(node) = nodes.get_mut(n % usize::from(wish.nodes.max(1))) {
            node.knows.push(name);
            node.arguments.push(format!("--worker-urls={url}"));
        }
    }
}

/// Where a lab keeps its files unless told otherwise: gone with it.
#[must_use]
pub fn temporary_directory() -> PathBuf {
    Path::new(&std::env::temp_dir()).join(format!("smg-lab-{}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(nodes: u16, workers: u16, flags: &[(&str, &[&str])]) -> Wish {
        let flags =
            flags.iter().map(|(flag, values)| ((*flag).to_owned(), values.iter().map(ToString::to_string).collect()));
        Wish {
            nodes,
            workers,
            port: 30_000,
            metrics_port: 29_000,
            directory: "/lab".into(),
            config: None,
            flags: flags.collect(),
        }
    }

    fn arguments(plan: &Plan, name: &str) -> String {
        plan.parts.iter().find(|it| it.name == name).expect("is planned").arguments.join(" ")
    }

    #[test]
    fn each_worker_is_named_at_one_node_and_every_node_at_every_other() {
        let plan = Plan::of(&wish(3, 4, &[("worker-urls", &["http://a,http://b"])])).expect("is possible");
        let knows: Vec<_> = plan.nodes().map(|it| it.knows.join(" ")).collect();
        assert_eq!(knows, ["worker-1 worker-4", "worker-2 http://a", "worker-3 http://b"]);
        assert_eq!(
            arguments(&plan, "node-2"),
            "serve --host=127.0.0.1 --drain-timeout=5s --threads=1 --port=30010 --prometheus-port=29010 --node-name=node-2 \
             --data-dir=/lab/node-2 --ha-mesh=true --mesh-host=127.0.0.1 --mesh-port=30011 \
             --seeds=127.0.0.1:30001,127.0.0.1:30011,127.0.0.1:30021 \
             --worker-urls=http://127.0.0.1:30501 --worker-urls=http://a"
        );
        assert_eq!(
            arguments(&plan, "worker-2"),
            "sim-worker --port=30501 --seed=1 --prefill-rate=14000 --prefill-base=10ms --token-delay=15ms --token-delay-step-us=400"
        );
    }

    #[test]
    fn flags_reach_every_node_but_those_that_the_lab_decides() {
        let plan =
            Plan::of(&wish(2, 0, &[("policy", &["random"]), ("port", &["1"]), ("host", &["::"]), ("log-json", &[])]));
        let plan = plan.expect("is possible");
        for name in ["node-1", "node-2"] {
            let line = arguments(&plan, name);
            assert!(line.ends_with("--policy=random --host=:: --log-json") && !line.contains("--port=1 "), "{line}");
        }
        for flag in DECIDED {
            assert_eq!(Plan::of(&wish(2, 0, &[(flag, &["x"])])), Err(WishError::Decided((*flag).to_owned())));
        }
    }

    #[test]
    fn one_node_has_no_mesh_and_ports_do_not_run_out_silently() {
        let plan = Plan::of(&wish(1, 1, &[])).expect("is possible");
        assert!(!arguments(&plan, "node-1").contains("mesh"), "{plan:?}");
        let late = Wish { port: 65_300, ..wish(3, 4, &[]) };
        assert_eq!(Plan::of(&late), Err(WishError::Ports { nodes: 3, workers: 4, last: 65_804 }));
    }
}
