//! Every node is replaced under load, one at a time (P10): by itself, and by another release and back.
//!
//! Clients ask nodes whose `/readiness` is 200, as a balancer does, and send again nothing but what was never sent. In history they send again with the same key, as SDKs do.

use std::cell::Cell;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::chat;
use cluster_tests::lasting;
use cluster_tests::within;
use serde_json::Value;
use serde_json::json;
use smg::base::clock::Clock;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::task::LocalSet;

use super::ask::Link;
use super::ask::UNSENT;
use super::ask::open;
use super::case::Case;
use super::case::spread;
use super::fleet::Fleet;
use super::fleet::STARTING;
use super::fleet::Start;
use super::history::Clients;

const NODES: usize = 3;
/// Clients that ask for what any node can answer, each with one request at a time.
const ASKERS: usize = 6;
/// Clients that write to history.
const WRITERS: usize = 3;
/// What a node has to finish in.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a stream goes on after its node takes no connections any more.
const STREAM_GOES_ON: Duration = Duration::from_millis(700);
/// A lease lapses, a leader may have to be found first, and who is looking looks each second; a debug build beside others.
const ELSEWHERE_MAX: Duration = Duration::from_secs(15);

/// What clients of [`ASKERS`] saw.
#[derive(Default)]
struct Load {
    served: Cell<u64>,
    /// Answers other than 200, and requests that were sent and not answered, each with its reason.
    failed: RefCell<Vec<String>>,
    /// How often a client went to another node, or opened another connection, before anything was sent.
    moved: Cell<u64>,
    is_over: Cell<bool>,
}

/// What is replaced, and what it serves.
struct Rolling<'a> {
    fleet: Fleet<'a>,
    steady: Upstream,
    slow: Upstream,
    start: Start,
    /// From SIGTERM to the end of the process.
    drained: Vec<Duration>,
    /// Responses in the background, which must be completed when all is over, and what was asked for in them.
    background: Vec<Background>,
}

/// Each node ends by SIGTERM and starts again.
pub(crate) async fn restarted(case: &Case) {
    let mut rolling = Rolling::new(case, None).await;
    rolling.under_load(&[None]).await;
}

/// The same from the release of `OLD_BIN` to this one, back, and to this one again, with nodes of both in between.
pub(crate) async fn upgraded(case: &Case) {
    let old = PathBuf::from(std::env::var_os("OLD_BIN").expect("the scenario is listed where it is set"));
    let mut rolling = Rolling::new(case, Some(old.clone())).await;
    rolling.under_load(&[None, Some(old), None]).await;
    let finalize = rolling.fleet.ask(0, "POST", "/cluster/upgrade/finalize", &Value::Null);
    let (status, answer) = finalize.await.expect("it answers");
    assert_eq!((status, &answer["agreed"]), (200, &true.into()), "{answer}");
    case.figure(format_args!("feature level {} before, {} after", answer["before"], answer["feature_level"]));
}

impl<'a> Rolling<'a> {
    async fn new(case: &'a Case, binary: Option<PathBuf>) -> Self {
        let fleet = Fleet::new(case, NODES);
        let (steady, slow) = (fleet.worker("m").await, fleet.worker("slow").await);
        let drain = format!("{}s", DRAIN.as_secs());
        let flags = ["--worker-urls", &steady.url(), &slow.url(), "--drain-timeout", &drain];
        let start = Start { binary, ..Start::flags(&flags) };
        Self { fleet, steady, slow, start, drained: Vec::new(), background: Vec::new() }
    }

    /// Replaces all nodes once by each of these, and checks what clients saw of it.
    async fn under_load(&mut self, binaries: &[Option<PathBuf>]) {
        let conversation = self.fleet.keeping(&self.start).await;
        self.fleet.all_serve("slow", STARTING).await;
        LocalSet::new()
            .run_until(async {
                let (load, mut askers) = (Rc::new(Load::default()), JoinSet::new());
                let nodes: Vec<_> = self.fleet.nodes.iter().map(|it| it.http).collect();
                for number in 0..ASKERS {
                    askers.spawn_local(asks(nodes.clone(), number, Rc::clone(&load)));
                }
                let mut writers = Clients::new(&self.fleet, &conversation);
                writers.begin(WRITERS, false);
                for binary in binaries {
                    self.start.binary.clone_from(binary);
                    for at in self.fleet.case.shuffled(NODES) {
                        self.replace(at).await;
                    }
                }
                load.is_over.set(true);
                while let Some(ended) = askers.join_next().await {
                    ended.expect("a client does not panic");
                }
                let seen = writers.end().await;
                self.check_load(&load);
                seen.check(&self.fleet.items_everywhere(&conversation).await);
                self.fleet.case.figure(format_args!("0 of {} items of history lost", seen.added.len()));
                self.check_background().await;
            })
            .await;
        self.fleet.case.figure(format_args!("from SIGTERM to the end: {}", spread(&self.drained)));
        self.fleet.check_alive();
    }

    /// A node ends, with a stream and a response in the background under way, and another process takes its place.
    async fn replace(&mut self, at: usize) {
        let gate = Arc::new(Semaphore::new(0));
        self.slow.script(slowly(&gate));
        self.slow.script(slowly(&gate));
        let (node, asked) = (self.fleet.nodes[at].http, self.slow.requests().len());
        let streaming = tokio::task::spawn_local(stream(node));
        let made = begun(&self.fleet, at, "slow", &format!("number {} of all", self.background.len())).await;
        self.background.push(made);
        within("the worker has both", STARTING, async || self.slow.requests().len() == asked + 2).await;
        self.fleet.case.did(format_args!("SIGTERM of node {at}"));
        let told = Clock.now();
        self.fleet.process(at).terminate();
        within("it takes no connections", DRAIN, async || TcpStream::connect(node).await.is_err()).await;
        lasting(STREAM_GOES_ON).await;
        assert!(self.fleet.process(at).ended().is_none(), "node {at} ended with a stream open");
        gate.add_permits(2);
        let text = streaming.await.expect("a client does not panic").expect("a stream ends well");
        assert!(text.contains("hel") && text.contains("lo") && text.contains("[DONE]"), "{text}");
        let status = self.fleet.process(at).end(2 * DRAIN).await;
        self.fleet.nodes[at].process = None;
        assert!(status.success(), "node {at} ended well: {status}");
        self.drained.push(Clock.now() - told);
        for other in self.fleet.running() {
            let seen = async || self.fleet.members(other).await.get(&at).is_some_and(|it| it == "left");
            within("the others see it leave", Duration::from_secs(3), seen).await;
        }
        self.fleet.start(at, &self.start);
        self.fleet.whole(STARTING).await;
        self.fleet.all_serve("m", STARTING).await;
        self.fleet.one_history(NODES).await;
    }

    fn check_load(&self, load: &Load) {
        let (case, failed) = (self.fleet.case, load.failed.borrow());
        let (served, moved) = (load.served.get(), load.moved.get());
        case.bites("there was load", served > 300 && self.steady.requests().len() as u64 >= served);
        case.bites("clients had to go elsewhere", moved > 0);
        case.figure(format_args!("{} of {served} requests failed, clients moved {moved} times", failed.len()));
        assert!(failed.is_empty(), "{} requests failed: {:?}", failed.len(), &failed[..failed.len().min(5)]);
    }

    async fn check_background(&self) {
        for made in &self.background {
            made_once(&self.fleet, &self.slow, made).await;
        }
        self.fleet.case.figure(format_args!("{} responses in the background, each made once", self.background.len()));
    }
}

/// A response in the background, by its path and by what was asked for.
type Background = (String, String);

async fn begun(fleet: &Fleet<'_>, at: usize, model: &str, input: &str) -> Background {
    let body = json!({"model": model, "input": input, "background": true});
    let (status, made) = fleet.ask(at, "POST", "/v1/responses", &body).await.expect("it answers");
    assert_eq!((status, &made["status"]), (200, &"queued".into()), "{made}");
    (format!("/v1/responses/{}", made["id"].as_str().expect("an id")), input.to_owned())
}

/// It is completed, whoever made it, and a worker was asked for it once.
async fn made_once(fleet: &Fleet<'_>, worker: &Upstream, (path, input): &Background) {
    let first = fleet.running()[0];
    within(&format!("{path} is completed"), ELSEWHERE_MAX, async || {
        let found = fleet.ask(first, "GET", path, &Value::Null).await;
        found.is_ok_and(|it| it.0 == 200 && it.1["status"] == "completed")
    })
    .await;
    let asked = worker.requests().iter().filter(|it| it.contains(input.as_str())).count();
    assert_eq!(asked, 1, "a worker was asked {asked} times for {input}");
}

/// A node that may make one response at a time is told to end: the one that is being made ends there, and those that wait are made too, each once.
pub(crate) async fn background(case: &Case) {
    let mut fleet = Fleet::new(case, NODES);
    let worker = fleet.worker("m").await;
    let (url, drain) = (worker.url(), format!("{}s", DRAIN.as_secs()));
    let flags = ["--worker-urls", &url, "--drain-timeout", &drain, "--max-concurrent-requests", "1"];
    let start = Start::flags(&[&flags[..], &["--queue-size", "10", "--queue-timeout", "300s"]].concat());
    fleet.keeping(&start).await;
    let (at, gate) = (case.shuffled(NODES)[0], Arc::new(Semaphore::new(0)));
    worker.script(slowly(&gate));
    let asked = worker.requests().len();
    let mut all = vec![begun(&fleet, at, "m", "the first").await];
    within("the worker has it", STARTING, async || worker.requests().len() > asked).await;
    all.push(begun(&fleet, at, "m", "the second").await);
    all.push(begun(&fleet, at, "m", "the third").await);
    case.did(format_args!("SIGTERM of node {at}"));
    fleet.process(at).terminate();
    lasting(STREAM_GOES_ON).await;
    case.bites("two were waiting", worker.requests().len() == asked + 1);
    gate.add_permits(1);
    let status = fleet.process(at).end(2 * DRAIN).await;
    fleet.nodes[at].process = None;
    assert!(status.success(), "it ended well: {status}");
    let here = worker.requests().len() - asked;
    for made in &all {
        made_once(&fleet, &worker, made).await;
    }
    case.figure(format_args!("{here} of 3 made where they were begun, all of them once"));
    fleet.check_alive();
}

/// A stream that waits in its middle.
fn slowly(gate: &Arc<Semaphore>) -> Vec<Step> {
    let (head, wait) = (Step::stream_head(), Step::Await(Arc::clone(gate)));
    vec![head, Step::preamble(), Step::content("hel"), wait, Step::content("lo"), Step::end()]
}

/// A stream from its beginning to its end.
async fn stream(node: SocketAddr) -> Result<String, String> {
    let mut link = open(node).await?;
    link.deadline = 3 * DRAIN;
    let body = json!({"model": "slow", "stream": true, "messages": [{"role": "user", "content": "hi"}]}).to_string();
    let (status, answer) = link.call("POST", "/v1/chat/completions", &body).await?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    if status == 200 { Ok(text) } else { Err(format!("{status}: {text}")) }
}

/// Asks until it is told to stop, of one node for as long as that takes requests.
async fn asks(nodes: Vec<SocketAddr>, number: usize, load: Rc<Load>) {
    let (mut at, mut link) = (number, None);
    for turn in 0.. {
        let body = chat(&format!("client {number}, question {turn}"), turn % 4 == 0);
        let outcome = loop {
            if load.is_over.get() {
                return;
            }
            let mut opened = match link.take().filter(Link::is_open) {
                Some(link) => link,
                None => match ready(nodes[at % nodes.len()]).await {
                    Some(link) => link,
                    None => {
                        at += 1;
                        load.moved.set(load.moved.get() + 1);
                        lasting(Duration::from_millis(10)).await;
                        continue;
                    }
                },
            };
            match opened.call("POST", "/v1/chat/completions", &body).await {
                Ok((200, _)) => {
                    link = Some(opened);
                    break Ok(());
                }
                Ok((status, answer)) => break Err(format!("{status}: {}", String::from_utf8_lossy(&answer))),
                Err(reason) if reason == UNSENT => load.moved.set(load.moved.get() + 1),
                Err(reason) => break Err(reason),
            }
        };
        match outcome {
            Ok(()) => load.served.set(load.served.get() + 1),
            Err(reason) => load.failed.borrow_mut().push(format!("node {}: {reason}", at % nodes.len())),
        }
        lasting(Duration::from_millis(5)).await;
    }
}

/// A connection to a node that says that it is to be asked.
async fn ready(node: SocketAddr) -> Option<Link> {
    let mut link = open(node).await.ok()?;
    link.call("GET", "/readiness", "").await.is_ok_and(|it| it.0 == 200).then_some(link)
}
