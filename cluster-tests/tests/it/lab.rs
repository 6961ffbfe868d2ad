//! `smg lab` and the commands, as people run them: real processes, looked at from outside.

use std::net::SocketAddr;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use cluster_tests::Client;
use cluster_tests::chat;
use cluster_tests::eventually;
use serde_json::Value;
use tokio::io::AsyncBufReadExt as _;
use tokio::io::BufReader;
use tokio::io::Lines;
use tokio::process::Child;
use tokio::process::ChildStdout;
use tokio::process::Command;
use tokio::time::timeout;

fn binary() -> String {
    std::env::var("SMG_BIN").expect("SMG_BIN names the binary, as `make test` does")
}

/// A port with room for a lab of two nodes and two workers. Below the ports that the system gives to clients.
fn room() -> u16 {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let first = 20_000 + u16::try_from(std::process::id() % 80).expect("small") * 100;
    let needed = [0, 1, 10, 11, 500, 501, 600, 610];
    (0..100)
        .map(|n| 20_000 + (first - 20_000 + n * 20) % 9000)
        .find(|it| needed.iter().all(|n| is_free(it + n)))
        .expect("room")
}

pub(crate) struct Lab {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
    port: u16,
    /// Name and process.
    parts: Vec<(String, u32)>,
}

impl Lab {
    async fn start() -> Self {
        Self::with(&[]).await
    }

    /// One with these flags.
    pub(crate) async fn with(flags: &[&str]) -> Self {
        let port = room();
        let ports = [port, port + 600].map(|it| it.to_string());
        let child = Command::new(binary())
            .args(["lab", "--nodes", "2", "--workers", "2", "--port", &ports[0], "--prometheus-port", &ports[1]])
            .args(flags)
            .env_remove("SMG_API_KEY")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = child.expect("the binary starts");
        let said = BufReader::new(child.stdout.take().expect("is piped")).lines();
        let mut lab = Self { child, said, port, parts: Vec::new() };
        let welcome = lab.hear("kill -USR1").await;
        for line in welcome.lines() {
            if let [name, pid, ..] = line.split_whitespace().collect::<Vec<_>>()[..]
                && let (true, Ok(pid)) = (name.contains('-'), pid.parse())
            {
                lab.parts.push((name.to_owned(), pid));
            }
        }
        assert_eq!(lab.parts.len(), 4, "{welcome}");
        lab
    }

    /// What it says up to a line with these words.
    async fn hear(&mut self, words: &str) -> String {
        let mut heard = String::new();
        while !heard.lines().last().is_some_and(|it| it.contains(words)) {
            let line = timeout(Duration::from_secs(40), self.said.next_line()).await;
            let line = line.unwrap_or_else(|_late| panic!("`{words}` was not said: {heard}")).expect("can be read");
            heard += &line.unwrap_or_else(|| panic!("it ended without `{words}`: {heard}"));
            heard.push('\n');
        }
        heard
    }

    fn pid(&self, name: &str) -> u32 {
        self.parts.iter().find(|it| it.0 == name).expect("is part of it").1
    }

    async fn signal(&self, signal: &str, pid: u32) {
        let done = Command::new("kill").args([signal, &pid.to_string()]).status().await.expect("kill runs");
        assert!(done.success(), "kill {signal} {pid}");
    }

    /// Runs a command against the node with this number. Gives what it printed.
    pub(crate) async fn smg(&self, node: u16, line: &str) -> String {
        let output = self.output(node, line).await;
        assert!(output.status.success(), "smg {line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("is text")
    }

    /// The same with one that fails. Gives why.
    pub(crate) async fn fails(&self, node: u16, line: &str) -> String {
        let output = self.output(node, line).await;
        assert_eq!(output.status.code(), Some(1), "smg {line}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).expect("is text")
    }

    async fn output(&self, node: u16, line: &str) -> std::process::Output {
        let url = format!("http://127.0.0.1:{}", self.port + 10 * node);
        let words = line.split(' ').chain(["--node", &url]);
        Command::new(binary()).args(words).env_remove("SMG_API_KEY").output().await.expect("runs")
    }

    pub(crate) async fn json(&self, node: u16, line: &str) -> Value {
        serde_json::from_str(&self.smg(node, &format!("{line} --json")).await).expect("is JSON")
    }

    /// Where clients of the node with this number go.
    pub(crate) fn address(&self, node: u16) -> SocketAddr {
        ([127, 0, 0, 1], self.port + 10 * node).into()
    }

    async fn is_ready(&self, node: u16) -> bool {
        let url = format!("http://127.0.0.1:{}", self.port + 10 * node);
        let asked = Command::new(binary()).args(["status", "--ready", "--node", &url]).output().await;
        asked.expect("runs").status.success()
    }

    pub(crate) async fn uses_both_workers(&self, node: u16) {
        eventually(&format!("node {node} uses both workers"), async || {
            let listed = self.json(node, "workers").await;
            listed["workers"].as_array().is_some_and(|it| it.iter().filter(|it| it["is_healthy"] == true).count() == 2)
        })
        .await;
        let mut client = Client::connect(self.address(node)).await;
        let request = chat("hi", false).replace(r#""m""#, r#""sim-model""#);
        assert_eq!(client.post("/v1/chat/completions", &request).await.status, 200);
    }
}

fn runs(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit(')').next().is_some_and(|it| !it.trim_start().is_empty() && !it.trim_start().starts_with('Z'))
}

#[tokio::test]
async fn any_process_of_a_lab_may_be_killed_and_none_outlives_it() {
    let mut lab = Lab::start().await;
    for node in [0, 1] {
        lab.uses_both_workers(node).await;
    }
    lab.signal("-KILL", lab.pid("node-1")).await;
    lab.hear("was killed by signal 9; start it again: kill -USR1").await;
    lab.uses_both_workers(1).await;
    lab.signal("-USR1", lab.child.id().expect("it runs")).await;
    let again = lab.hear("node-1 runs again").await;
    let pid = again.rsplit("pid ").next().and_then(|it| it.trim_end().trim_end_matches(')').parse().ok());
    lab.parts.push(("node-1 again".to_owned(), pid.expect("it says which")));
    eventually("it is back", async || lab.is_ready(0).await).await;
    lab.uses_both_workers(0).await;
    // Nobody is told: the lab is killed.
    lab.child.start_kill().expect("it runs");
    lab.child.wait().await.expect("it ends");
    for (name, pid) in &lab.parts {
        eventually(&format!("{name} is gone"), async || !runs(*pid)).await;
    }
}

#[tokio::test]
async fn the_commands_show_a_cluster_and_take_a_node_out_of_it() {
    let mut lab = Lab::start().await;
    lab.uses_both_workers(0).await;
    eventually("both names are known at both", async || {
        let mut all = true;
        for node in [0, 1] {
            let members = lab.smg(node, "members").await;
            all &= ["node-1", "node-2"].iter().all(|it| members.contains(it));
        }
        all
    })
    .await;
    let status = lab.smg(0, "status").await;
    let parts = [
        "node-1 (http://",
        "is ready",
        "\nmembers\n",
        "\nworkers\n",
        "\ntables\n",
        "\nlinks\n",
        "\ntasks\n",
        "2 alive",
    ];
    assert!(parts.iter().all(|it| status.contains(it)), "{status}");
    assert_eq!(lab.smg(0, "status --ready").await, "ready\n");
    let picture = lab.smg(1, "top --once").await;
    let parts = ["node-2*", "node-1 ", "replicated tables", "workers: 2"];
    assert!(parts.iter().all(|it| picture.contains(it)), "{picture}");
    let explained = lab.json(0, "route explain hello").await;
    assert!(explained.is_object(), "{explained}");

    assert_eq!(lab.json(1, "drain").await["draining"], true);
    lab.hear(&format!("node-2 (pid {}) ended; ", lab.pid("node-2"))).await;
    eventually("it said goodbye", async || lab.smg(0, "members").await.contains("left")).await;
    lab.uses_both_workers(0).await;
    let forgotten = lab.json(0, "members forget node-2").await;
    assert_eq!((forgotten["forgotten"].clone(), forgotten["durable"].clone()), (true.into(), true.into()));
    eventually("it is forgotten", async || !lab.smg(0, "members").await.contains("node-2")).await;

    lab.signal("-INT", lab.child.id().expect("it runs")).await;
    let ended = timeout(Duration::from_secs(20), lab.child.wait()).await.expect("it ends").expect("has a status");
    assert!(ended.success(), "{ended}");
    assert!(lab.parts.iter().all(|it| !runs(it.1)), "{:?}", lab.parts);
}
