//! The one task that steps the core: questions, beginnings, members and the clock become events, effects become messages. The edge reads the core beside
//! it, under a lock that neither holds over an `.await`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::sync::watch;

use super::Config;
use super::core::Core;
use super::core::Effect;
use super::core::Event;
use super::core::Ignored;
use super::handle::Handle;
use super::handle::Shared;
use super::messages::Answer;
use super::messages::Message;
use super::messages::Probe;
use super::metrics::Metrics;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::ids::WorkerId;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Stop;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::membership;
use crate::transport;
use crate::transport::Request;
use crate::transport::lanes::Lane;
use crate::workers::registry::Registry;

const TASK: Task = Task { name: "ledger", stage: Stage::Share, on_end: OnEnd::StopNode };
/// A node that is alone looks this often whether it still is; membership wakes it anyway.
const ALONE: Duration = Duration::from_secs(60);

/// The cluster that this node shares ledgers with.
pub struct Peers {
    /// Who is here.
    pub membership: membership::Handle,
    /// How to reach them.
    pub transport: transport::Handle,
    /// What they ask and tell.
    pub questions: mpsc::Receiver<Request>,
}

/// Starts it.
pub fn start(config: &Config, peers: Peers, registry: Arc<Registry>, metrics: Metrics, tasks: &Tasks) -> Handle {
    let Peers { membership: members, transport, questions } = peers;
    let me = transport.me();
    let shared = Arc::new(Shared {
        core: Mutex::new(Core::new(Clock.now(), (me.storage, me.boot))),
        is_alone: AtomicBool::new(true),
        me: me.storage,
        registry,
        transport,
        sooner: Notify::new(),
        numbers: AtomicU64::new(0),
        gate: RwLock::new(()),
        limit: config.timeout,
        gossip: ArcSwap::default(),
        metrics,
    });
    let changes = members.changes();
    let driver = Driver { shared: Arc::clone(&shared), members, changes, questions };
    tasks.spawn(TASK, |stop| driver.run(stop));
    Handle(shared)
}

struct Driver {
    shared: Arc<Shared>,
    members: membership::Handle,
    changes: watch::Receiver<u64>,
    questions: mpsc::Receiver<Request>,
}

enum Branch {
    Asked(Request),
    Members,
    Time,
}

impl Driver {
    async fn run(mut self, stop: Stop) {
        self.see();
        loop {
            let wake = self.shared.core.lock().next_wake().unwrap_or_else(|| Clock.now() + ALONE);
            // ORDER: whoever asks waits for milliseconds only, so questions come first.
            let branch = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(request) = self.questions.recv() => Branch::Asked(request),
                changed = self.changes.changed() => match changed {
                    Ok(()) => Branch::Members,
                    Err(_) => return, // membership is gone: the node stops
                },
                () = self.shared.sooner.notified() => Branch::Time,
                () = tokio::time::sleep_until(wake) => Branch::Time,
            };
            match branch {
                Branch::Asked(request) => self.answer(request),
                Branch::Members => self.see(),
                Branch::Time => {}
            }
            self.keep_time(wake);
        }
    }

    /// BOUND: however much comes, time is not forgotten for longer than a step.
    fn keep_time(&mut self, wake: Instant) {
        let now = Clock.now();
        if now < wake {
            return;
        }
        self.step(Event::Wake);
        let wants_look = self.shared.core.lock().wants_look(now);
        if wants_look {
            let (number, loads) = self.shared.look();
            self.step(Event::Looked { number, loads });
        }
    }

    /// Takes over who is here.
    fn see(&mut self) {
        let view = self.members.view();
        let me = self.shared.me;
        let here = view.members.iter().filter(|it| it.status.is_active() || it.peer.storage == me);
        self.step(Event::Members(here.map(|it| Arc::clone(&it.peer)).collect()));
        let is_alone = self.shared.core.lock().is_alone();
        self.shared.is_alone.store(is_alone, Ordering::Relaxed);
    }

    fn answer(&mut self, request: Request) {
        let from = &request.from;
        match Message::decode(&request.bytes) {
            Some(Message::Probe(Probe { workers, begun })) => {
                if !begun.is_empty() {
                    self.step(Event::Committed((from.storage, from.boot), begun));
                }
                let (core, now) = (self.shared.core.lock(), Clock.now());
                let said = workers.iter().map(|it| core.said(now, from.storage, WorkerId(*it))).collect();
                if let Ok(bytes) = Answer::Loads(said).encode() {
                    request.answer.send(bytes.into());
                }
            }
            Some(Message::Report(report)) => {
                self.step(Event::Reported((from.storage, from.boot), report));
            }
            Some(Message::Commits(commits)) => {
                self.step(Event::Committed((from.storage, from.boot), commits));
            }
            None => self.shared.metrics.ignored(Ignored::Unreadable),
        }
    }

    fn step(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.shared.core.lock().step(Clock.now(), event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Ignored(why) => self.shared.metrics.ignored(why),
                Effect::Send(to, message) => {
                    self.shared.metrics.told(&message);
                    if let Ok(bytes) = message.encode() {
                        let _ = self.shared.transport.send(&to, Lane::Ledger, bytes.into()); // the next report says it again
                    }
                }
            }
        }
    }
}
