//! What clients do. Each workload asks for something whose answers can be judged afterwards without knowing how the cluster works inside.
//!
//! *Bounds:* a handful of clients a workload, each with one operation at a time, a deadline for each, and a pause after it: load, not overload.

mod background;
mod client;
mod idempotency;
mod limits;
mod lists;
mod responses;
mod sse;
mod tenant;
mod workers;

use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::recorder::Recorder;
pub(crate) use client::Client;

/// What is asked, of whom, as whom.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where the nodes take requests.
    pub nodes: Vec<SocketAddr>,
    /// A key with the role of an admin.
    pub admin_key: String,
    /// A model that is served and speaks chat completions.
    pub model: String,
    /// Workers that may be added and removed: nothing else uses them.
    pub workers: Vec<String>,
}

/// One of the workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Workload {
    /// Items are added to conversations and read: lists that only grow.
    Lists,
    /// Responses are made, continued, read and deleted.
    Responses,
    /// The same request is sent again and again with the same key.
    Idempotency,
    /// Responses in the background, whose events are followed at other nodes.
    Background,
    /// Workers are added, changed and removed at any node.
    Workers,
    /// More is asked for than a limit admits.
    Limits,
}

/// The name by which callers choose.
pub type Name = Workload;

impl Workload {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Lists, Self::Responses, Self::Idempotency, Self::Background, Self::Workers, Self::Limits];

    /// As it is written in histories.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lists => "lists",
            Self::Responses => "responses",
            Self::Idempotency => "idempotency",
            Self::Background => "background",
            Self::Workers => "workers",
            Self::Limits => "limits",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    fn work(self, ground: &Rc<Ground>) -> Rc<dyn Work> {
        let ground = Rc::clone(ground);
        match self {
            Self::Lists => lists::Lists::new(ground),
            Self::Responses => responses::Responses::new(ground),
            Self::Idempotency => idempotency::Idempotency::new(ground),
            Self::Background => background::Background::new(ground),
            Self::Workers => workers::Workers::new(ground),
            Self::Limits => limits::Limits::new(ground),
        }
    }
}

/// Something that goes on in the same thread.
pub(crate) type Doing = Pin<Box<dyn Future<Output = ()>>>;

/// A workload at work.
pub(crate) trait Work {
    /// Its clients, which go on until [`Ground::is_over`].
    fn clients(self: Rc<Self>) -> Vec<Doing>;
    /// The last reads at one node, each tried until it is answered or [`Ground::until`].
    fn finals(self: Rc<Self>, node: usize) -> Doing;
}

/// What all clients of a run share.
pub(crate) struct Ground {
    pub(crate) target: Rc<Target>,
    pub(crate) recorder: Recorder,
    pub(crate) seed: u64,
    /// Part of every name, so that runs on one cluster share none.
    pub(crate) tag: String,
    stop: Cell<bool>,
    until: Cell<Instant>,
}

impl Ground {
    /// Whether clients are to end.
    pub(crate) fn is_over(&self) -> bool {
        self.stop.get()
    }

    /// Whether the last reads have to be over.
    pub(crate) fn is_late(&self) -> bool {
        Instant::now() >= self.until.get()
    }
}

/// Clients at work. They end with it.
pub struct Run {
    ground: Rc<Ground>,
    works: Vec<Rc<dyn Work>>,
    tasks: JoinSet<()>,
}

impl Run {
    /// Starts the clients of these workloads. Must be called inside a `LocalSet`.
    #[must_use]
    pub fn begin(target: Rc<Target>, recorder: &Recorder, workloads: &[Name], seed: u64) -> Self {
        let when = u128::from(recorder.wall_ms()) * 1_000_000 + recorder.elapsed().as_nanos();
        let mut random = super::random::Random::new(seed, when as u64);
        let names: Vec<_> = workloads.iter().map(|it| it.name()).collect();
        let about =
            json!({"nodes": target.nodes.len(), "workloads": names, "seed": seed, "wall_ms": recorder.wall_ms()});
        let ground = Rc::new(Ground {
            target,
            recorder: recorder.clone(),
            seed,
            tag: format!("{:08x}", random.draw() as u32),
            stop: Cell::new(false),
            until: Cell::new(Instant::now()),
        });
        recorder.note("run", &ground.tag, about);
        let works: Vec<_> = workloads.iter().map(|it| it.work(&ground)).collect();
        let mut tasks = JoinSet::new();
        for client in works.iter().flat_map(|it| Rc::clone(it).clients()) {
            tasks.spawn_local(client);
        }
        Self { ground, works, tasks }
    }

    /// No operation begins any more; waits until those under way have ended.
    pub async fn stop(&mut self) {
        self.ground.stop.set(true);
        ended(&mut self.tasks).await;
        self.ground.recorder.note("stop", &self.ground.tag, Value::Null);
    }

    /// The last reads, at every node; to be called when all nodes are whole again and [`Run::stop`] is over. What could not be read by `deadline` has no last read.
    pub async fn settle(&mut self, deadline: Duration) {
        self.ground.recorder.note("settle", &self.ground.tag, json!({"deadline_ms": deadline.as_millis() as u64}));
        self.ground.until.set(Instant::now() + deadline);
        for work in &self.works {
            for node in 0..self.ground.target.nodes.len() {
                self.tasks.spawn_local(Rc::clone(work).finals(node));
            }
        }
        ended(&mut self.tasks).await;
        self.ground.recorder.note("settled", &self.ground.tag, Value::Null);
    }
}

/// Waits for all. A client that panicked is a defect of this crate, and is not hidden.
async fn ended(tasks: &mut JoinSet<()>) {
    while let Some(it) = tasks.join_next().await {
        if let Err(error) = it {
            assert!(!error.is_panic(), "a client panicked: {error}");
        }
    }
}
