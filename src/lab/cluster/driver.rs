//! Starts the processes of a [`Plan`], says what ended, starts it again when asked, and ends them all.

use std::fmt::Write as _;
use std::fs::File;
use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::process::ChildStdin;
use tokio::process::Command;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::plan::Part;
use super::plan::Plan;
use crate::base::clock::Clock;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;

const NODE: Task = Task { name: "lab node", stage: Stage::Serve, on_end: OnEnd::Fine };
const WORKER: Task = Task { name: "lab worker", stage: Stage::Decide, on_end: OnEnd::Fine };

/// A lab is up in a second or two; after this it is shown as it is.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// Between two looks whether a node is ready.
const LOOK: Duration = Duration::from_millis(50);
/// Workers have nothing to finish once the nodes are gone.
const WORKERS_GRACE: Duration = Duration::from_secs(2);
/// What is repeated of a log when its process failed.
const TAIL_LINES: usize = 4;
/// Longest log that is read for that.
const TAIL_BYTES_MAX: u64 = 1 << 20;

/// Why a lab did not come up. What was started has been ended.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A file or process.
    #[error("cannot {what} {}: {cause}", path.display())]
    System {
        /// Doing what.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// A process that ended before all were ready.
    #[error("{name} {how}\n{tail}")]
    Ended {
        /// Which.
        name: String,
        /// How.
        how: String,
        /// Its last words.
        tail: String,
    },
}

/// What the terminal is told.
pub type Say<'a> = &'a dyn Fn(&str);

/// Runs until a signal: the first ends everything in order, the second at once. Nodes get `grace` to finish what they serve.
pub async fn run(plan: &Plan, binary: &Path, grace: Duration, say: Say<'_>) -> Result<(), LabError> {
    let mut signals = Signals::new().map_err(|cause| system("listen to", Path::new("signals"), cause))?;
    let (events, mut ended) = mpsc::channel(plan.parts.len().max(1));
    let running = plan.parts.iter().map(|_| None).collect();
    let mut lab = Lab { plan, binary, say, tasks: Tasks::new(), running, events };
    let up = lab.come_up(&mut ended, &mut signals).await;
    if matches!(up, Ok(true)) {
        say(&welcome(&lab));
        lab.watch(&mut ended, &mut signals).await;
    }
    lab.end(grace, &mut signals).await;
    up.map(drop)
}

/// A child that runs.
struct Running {
    pid: u32,
    /// Held: when it is dropped, the child ends.
    _lifeline: Option<ChildStdin>,
}

struct Lab<'a> {
    plan: &'a Plan,
    binary: &'a Path,
    say: Say<'a>,
    tasks: Tasks,
    running: Vec<Option<Running>>,
    events: mpsc::Sender<(usize, ExitStatus)>,
}

impl Lab<'_> {
    /// Starts all and waits until the nodes are ready. False: a signal came first.
    async fn come_up(&mut self, ended: &mut Ended, signals: &mut Signals) -> Result<bool, LabError> {
        for at in 0..self.plan.parts.len() {
            self.start(at)?;
        }
        let waiting = async {
            for node in self.plan.nodes() {
                while !is_ready(node.port).await {
                    Clock.sleep(LOOK).await;
                }
            }
        };
        tokio::select! {
            () = waiting => Ok(true),
            () = signals.stop() => Ok(false),
            Some((at, status)) = ended.recv() => {
                let part = &self.plan.parts[at];
                self.running[at] = None;
                Err(LabError::Ended { name: part.name.clone(), how: how(status), tail: tail(&part.log) })
            }
            () = Clock.sleep(READY_WITHIN) => {
                (self.say)("not every node is ready yet; its log says why\n");
                Ok(true)
            }
        }
    }

    fn start(&mut self, at: usize) -> Result<(), LabError> {
        let part = &self.plan.parts[at];
        let log = OpenOptions::new().create(true).append(true).open(&part.log);
        let log = log.map_err(|cause| system("write", &part.log, cause))?;
        let copy = log.try_clone().map_err(|cause| system("write", &part.log, cause))?;
        // A process group of its own: ctrl-C in the terminal is the lab's to pass on.
        let child = Command::new(self.binary)
            .args(&part.arguments)
            .arg("--end-with-stdin")
            .stdin(Stdio::piped())
            .stdout(copy)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let mut child = child.map_err(|cause| system("start", self.binary, cause))?;
        self.running[at] = child.id().map(|pid| Running { pid, _lifeline: child.stdin.take() });
        let events = self.events.clone();
        self.tasks.spawn(if part.is_node { NODE } else { WORKER }, |_ends_with_its_lifeline| async move {
            if let Ok(status) = child.wait().await {
                let _ = events.send((at, status)).await; // nobody listens any more once the lab ends
            }
        });
        Ok(())
    }

    async fn watch(&mut self, ended: &mut Ended, signals: &mut Signals) {
        loop {
            tokio::select! {
                told = signals.next() => match told {
                    Told::Stop => return,
                    Told::Again => self.start_again(),
                },
                Some((at, status)) = ended.recv() => self.lost(at, status),
            }
        }
    }

    fn lost(&mut self, at: usize, status: ExitStatus) {
        let (part, pid) = (&self.plan.parts[at], self.running[at].take().map_or(0, |it| it.pid));
        let mut text =
            format!("{} (pid {pid}) {}; start it again: kill -USR1 {}\n", part.name, how(status), std::process::id());
        if status.code().is_some_and(|it| it != 0) {
            text += &tail(&part.log);
        }
        (self.say)(&text);
    }

    fn start_again(&mut self) {
        for at in 0..self.plan.parts.len() {
            if self.running[at].is_some() {
                continue;
            }
            let name = &self.plan.parts[at].name;
            match self.start(at) {
                Ok(()) => (self.say)(&format!(
                    "{name} runs again (pid {})\n",
                    self.running[at].as_ref().map_or(0, |it| it.pid)
                )),
                Err(error) => (self.say)(&format!("{name} was not started: {error}\n")),
            }
        }
    }

    /// Nodes first: what they serve is finished by the workers.
    async fn end(mut self, grace: Duration, signals: &mut Signals) {
        for (stage, are_nodes, grace) in [(Stage::Serve, true, grace), (Stage::Decide, false, WORKERS_GRACE)] {
            for (part, running) in self.plan.parts.iter().zip(&mut self.running) {
                if part.is_node == are_nodes {
                    *running = None;
                }
            }
            tokio::select! {
                killed = self.tasks.stop_stage(stage, grace) => if killed > 0 {
                    (self.say)(&format!("{killed} did not end in time and were killed\n"));
                },
                () = signals.stop() => (self.say)("killed\n"),
            }
        }
    }
}

type Ended = mpsc::Receiver<(usize, ExitStatus)>;

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Stop,
    Again,
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    again: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            again: signal(SignalKind::user_defined1())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.terminate.recv() => Told::Stop,
            _ = self.hangup.recv() => Told::Stop,
            _ = self.again.recv() => Told::Again,
        }
    }

    async fn stop(&mut self) {
        while self.next().await == Told::Again {}
    }
}

/// Asked as a load balancer asks.
async fn is_ready(port: u16) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"GET /readiness HTTP/1.1\r\nhost: lab\r\nconnection: close\r\n\r\n").await?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        std::io::Result::Ok(head.ends_with(b" 200"))
    };
    matches!(timeout(Duration::from_secs(1), ask).await, Ok(Ok(true)))
}

fn system(what: &'static str, path: &Path, cause: std::io::Error) -> LabError {
    LabError::System { what, path: path.to_owned(), cause }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "ended".to_owned(),
        (Some(code), _) => format!("failed with code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// The end of a log, indented.
fn tail(log: &Path) -> String {
    let is_short = File::open(log).and_then(|it| it.metadata()).is_ok_and(|it| it.len() <= TAIL_BYTES_MAX);
    let text = if is_short { std::fs::read_to_string(log).unwrap_or_default() } else { String::new() };
    let lines: Vec<_> = text.lines().rev().take(TAIL_LINES).collect();
    lines.iter().rev().fold(String::new(), |text, line| text + "  | " + line + "\n")
}

fn welcome(lab: &Lab<'_>) -> String {
    let (nodes, workers) = (lab.plan.nodes().count(), lab.plan.parts.len() - lab.plan.nodes().count());
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let mut text = format!(
        "{} and {}, each a process of its own; ctrl-C ends them all\n\n",
        count(nodes, "node"),
        count(workers, "simulated worker")
    );
    let mut row = |cells: [&str; 6]| {
        let [name, pid, clients, mesh, metrics, knows] = cells;
        let line = format!("  {name:<10} {pid:<8} {clients:<23} {mesh:<16} {metrics:<31} {knows}");
        let _ = writeln!(text, "{}", line.trim_end()); // a String takes everything
    };
    row(["NAME", "PID", "SERVES AT", "MESH (UDP)", "METRICS", "WORKERS IT WAS TOLD OF"]);
    let mut shown: Vec<_> = lab.plan.parts.iter().zip(&lab.running).collect();
    shown.sort_by_key(|(part, _)| !part.is_node);
    for (part, running) in shown {
        let pid = running.as_ref().map_or_else(|| "-".to_owned(), |it| it.pid.to_string());
        let mesh = part.mesh_port.map(|it| format!("127.0.0.1:{it}")).unwrap_or_default();
        let metrics = part.metrics_port.map(|it| format!("http://127.0.0.1:{it}/metrics")).unwrap_or_default();
        row([&part.name, &pid, &format!("http://127.0.0.1:{}", part.port), &mesh, &metrics, &part.knows.join(" ")]);
    }
    text + &hints(lab.plan)
}

/// Commands to paste.
fn hints(plan: &Plan) -> String {
    let smg = std::env::args().next().unwrap_or_else(|| "smg".to_owned());
    let ports: Vec<u16> = plan.nodes().map(|it| it.port).collect();
    let (first, last) = (ports.first().copied().unwrap_or_default(), ports.last().copied().unwrap_or_default());
    let node = |port: u16| if port == 30_000 { String::new() } else { format!(" --node http://127.0.0.1:{port}") };
    let logs =
        plan.parts.first().and_then(|it: &Part| it.log.parent()).map(|it| it.display().to_string()).unwrap_or_default();
    format!(
        "\nlogs in {logs}\n\ntry\n  \
         curl -sN http://127.0.0.1:{last}/v1/chat/completions -H 'content-type: application/json' -d \\\n    \
         '{{\"model\":\"sim-model\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'\n  \
         {smg} status{first}\n  {smg} workers{last_node}\n  {smg} top{first}\n  \
         kill -9 PID        # any of them: the others go on\n  \
         kill -USR1 {lab}   # starts again what ended\n",
        first = node(first),
        last_node = node(last),
        lab = std::process::id(),
    )
}
