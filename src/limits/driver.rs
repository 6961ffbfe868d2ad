//! The one task that steps the core by time, messages and members, renews this node's shares where the control group's leader is, and does the leader's part while that is here.
//!
//! A node that knows no definition and no limit does nothing: it neither renews nor wakes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio::time::timeout_at;

use super::Definition;
use super::Settings;
use super::calendar::Calendar;
use super::core::Core;
use super::core::Event;
use super::core::Ignored;
use super::core::Life;
use super::group::Group;
use super::handle::Freed;
use super::handle::Handle;
use super::handle::Shared;
use super::leader::Done;
use super::leader::Leader;
use super::leader::Way;
use super::messages::Message;
use super::messages::Renewal;
use super::messages::Renewed;
use super::metrics::Metrics;
use super::metrics::Renewing;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Stop;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::membership;
use crate::transport;
use crate::transport::Peer;
use crate::transport::Received;
use crate::transport::Request;
use crate::transport::lanes::Lane;

/// It stops before the control group does, so that a leader hears that this node leaves.
const TASK: Task = Task { name: "limits", stage: Stage::Decide, on_end: OnEnd::StopNode };
/// An answer of the leader that comes later than this is not waited for: other renewals were sent since.
const RENEW_LIMIT: Duration = Duration::from_secs(2);
/// Renewals under way. Beyond it none is sent until one ends: the leader is slow or gone.
const RENEWING_LEN_MAX: usize = 4;
/// How long a node that stops waits for the leader to hear of it.
const LEAVE_LIMIT: Duration = Duration::from_millis(500);
/// A node that has nothing to do looks this often whether that is still so; what changes wakes it anyway.
const IDLE: Duration = Duration::from_secs(60);

/// What it stands on.
pub struct Parts {
    /// What is the same for all limits.
    pub settings: Settings,
    /// The limits that there are to be, by id, each once. Revisions grow.
    pub definitions: watch::Receiver<Arc<[Definition]>>,
    /// Who agrees on shares.
    pub group: Arc<dyn Group>,
    /// This node.
    pub me: Life,
    /// Those that units move to and from. None: a node without a mesh.
    pub others: Option<Others>,
    /// What is counted.
    pub metrics: Metrics,
}

/// The other nodes.
pub struct Others {
    /// Who is here.
    pub membership: membership::Handle,
    /// How they are reached.
    pub transport: transport::Handle,
    /// What they say to each other.
    pub messages: mpsc::Receiver<Received>,
    /// Nodes that renew their shares here.
    pub renewals: mpsc::Receiver<Request>,
}

/// Starts it.
pub fn start(parts: Parts, tasks: &Tasks) -> Handle {
    let Parts { settings, definitions, group, me, others, metrics } = parts;
    let (now, wall) = (Clock.now(), Clock.wall());
    let (mut core, freed) = (Core::new(now, wall, me, settings), Arc::new(Freed::default()));
    core.set_bell(Arc::clone(&freed).into());
    let shared = Arc::new(Shared {
        core: Mutex::new(core),
        purses: ArcSwap::default(),
        permits: ArcSwap::default(),
        peers: ArcSwap::default(),
        replies: Mutex::default(),
        openings: Mutex::default(),
        tickets: AtomicU64::new(0),
        transport: others.as_ref().map(|it| it.transport.clone()),
        sooner: Notify::new(),
        freed,
        metrics: metrics.clone(),
    });
    let leader = Leader::new(Arc::clone(&group), settings, Calendar::new(now, wall), metrics);
    let driver = Driver {
        shared: Arc::clone(&shared),
        me,
        definitions,
        group,
        nearby: others.map_or_else(Nearby::nobody, Nearby::new),
        renewing: JoinSet::new(),
        leader,
    };
    tasks.spawn(TASK, |stop| driver.run(stop));
    Handle(Ok(shared))
}

struct Driver {
    shared: Arc<Shared>,
    me: Life,
    definitions: watch::Receiver<Arc<[Definition]>>,
    group: Arc<dyn Group>,
    nearby: Nearby,
    /// BOUND: [`RENEWING_LEN_MAX`].
    renewing: JoinSet<Option<Renewed>>,
    leader: Leader,
}

/// What comes from other nodes: nothing ever, where there are none.
struct Nearby {
    members: Option<(membership::Handle, watch::Receiver<u64>)>,
    messages: mpsc::Receiver<Received>,
    renewals: mpsc::Receiver<Request>,
}

impl Nearby {
    fn new(others: Others) -> Self {
        let Others { membership, messages, renewals, .. } = others;
        let changes = membership.changes();
        Self { members: Some((membership, changes)), messages, renewals }
    }

    fn nobody() -> Self {
        Self { members: None, messages: mpsc::channel(1).1, renewals: mpsc::channel(1).1 }
    }

    fn peers(&self) -> Vec<Arc<Peer>> {
        let view = self.members.iter().map(|it| it.0.view());
        let here = |it: Arc<membership::View>| {
            it.members.iter().filter(|it| it.status.is_active()).map(|it| Arc::clone(&it.peer)).collect()
        };
        view.map(here).next().unwrap_or_default()
    }
}

/// Who is here has changed. False: nobody will say so any more.
async fn changed(members: &mut Option<(membership::Handle, watch::Receiver<u64>)>) -> bool {
    match members {
        Some((_, changes)) => changes.changed().await.is_ok(),
        None => std::future::pending().await,
    }
}

enum Branch {
    Said(Received),
    Freed,
    Asked(Request),
    Renewed(Option<Renewed>),
    Done(Done),
    Members,
    Defined,
    Time,
}

impl Driver {
    async fn run(mut self, stop: Stop) {
        self.see();
        loop {
            let wake = self.next_wake();
            // ORDER: whoever waits for units waits for milliseconds only, so what other nodes say comes first.
            let branch = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(received) = self.nearby.messages.recv() => Branch::Said(received),
                () = self.shared.freed.0.notified() => Branch::Freed,
                () = self.shared.sooner.notified() => Branch::Time,
                Some(request) = self.nearby.renewals.recv() => Branch::Asked(request),
                Some(Ok(renewed)) = self.renewing.join_next(), if !self.renewing.is_empty() => Branch::Renewed(renewed),
                done = self.leader.done() => Branch::Done(done),
                changed = changed(&mut self.nearby.members) => match changed {
                    true => Branch::Members,
                    false => return, // membership is gone: the node stops
                },
                Ok(()) = self.definitions.changed() => Branch::Defined,
                () = tokio::time::sleep_until(wake) => Branch::Time,
            };
            let now = Clock.now();
            match branch {
                Branch::Said(received) => self.said(&received),
                Branch::Freed => self.step(Event::Freed),
                Branch::Asked(request) => self.asked(now, request),
                Branch::Renewed(renewed) => self.renewed(renewed),
                Branch::Done(done) => self.leader.take(now, done),
                Branch::Members => self.see(),
                Branch::Defined => self.leader.defined(now),
                Branch::Time => {}
            }
            self.keep_time();
        }
        self.leave().await;
    }

    /// Whether there is anything to hold shares of.
    fn is_on(&self) -> bool {
        !self.definitions.borrow().is_empty() || self.shared.core.lock().limits_len() > 0
    }

    fn next_wake(&self) -> Instant {
        let own = if self.is_on() { self.shared.core.lock().next_wake() } else { Clock.now() + IDLE };
        self.leader.next_tick().map_or(own, |it| it.min(own))
    }

    /// BOUND: however much comes, time is not forgotten for longer than a step.
    fn keep_time(&mut self) {
        let now = Clock.now();
        if self.is_on() && self.shared.core.lock().next_wake() <= now {
            // A node that has just come to lead learns it here, too.
            self.leader.see(now);
            let renewal = self.shared.step(Event::Wake);
            if renewal.is_some() {
                let (open, waiting) = self.shared.core.lock().streams_len();
                self.shared.metrics.streams(open, waiting);
            }
            renewal.into_iter().for_each(|it| self.renew(now, it));
        }
        if self.leader.next_tick().is_some_and(|it| it <= now) {
            let definitions = Arc::clone(&self.definitions.borrow());
            self.leader.tick(now, &definitions);
        }
        if let Some(entry) = self.leader.news(now) {
            self.shared.tell(&Message::News(entry));
            self.step(Event::News(entry));
        }
    }

    /// Takes over who is here.
    fn see(&mut self) {
        let mut peers = self.nearby.peers();
        peers.retain(|it| it.storage != self.me.0);
        let lives = peers.iter().map(|it| (it.storage, it.boot)).collect();
        self.shared.peers.store(Arc::new(peers.into_iter().map(|it| (it.storage, it)).collect()));
        self.step(Event::Members(lives));
    }

    fn said(&mut self, received: &Received) {
        let from = (received.from.storage, received.from.boot);
        match Message::decode(&received.bytes) {
            Some(message) => self.step(Event::Received(from, message)),
            None => self.shared.metrics.ignored(Ignored::Unreadable),
        }
    }

    fn step(&mut self, event: Event) {
        let renewal = self.shared.step(event);
        debug_assert!(renewal.is_none(), "only time brings renewals");
    }

    // === renewals ===

    /// Another node renews, believing that this one leads.
    fn asked(&mut self, now: Instant, request: Request) {
        let Request { from, bytes, answer } = request;
        match Renewal::decode(&bytes) {
            Some(renewal) => self.leader.hear(now, (from.storage, from.boot), renewal, Way::Peer(answer)),
            None => self.shared.metrics.ignored(Ignored::Unreadable),
        }
    }

    /// Brings a renewal to whoever leads.
    fn renew(&mut self, now: Instant, renewal: Renewal) {
        if self.renewing.len() >= RENEWING_LEN_MAX {
            self.shared.metrics.renewed(Renewing::Unanswered);
            return;
        }
        let leader = self.group.leader();
        if leader == Some(self.me.0) {
            let (reply, replied) = oneshot::channel();
            self.leader.hear(now, self.me, renewal, Way::Own(reply));
            self.renewing.spawn(async move { timeout(RENEW_LIMIT, replied).await.ok()?.ok() });
            return;
        }
        let peer = leader.and_then(|it| self.shared.peers.load().get(&it).cloned());
        let transport = self.shared.transport.clone();
        let (Some(peer), Some(transport), Ok(bytes)) = (peer, transport, renewal.encode()) else {
            self.shared.metrics.renewed(Renewing::NoLeader);
            return;
        };
        self.renewing.spawn(async move {
            let answer = transport.request(&peer, Lane::Renewals, &bytes, RENEW_LIMIT).await.ok()?;
            Renewed::decode(&answer)
        });
    }

    fn renewed(&mut self, renewed: Option<Renewed>) {
        let Some(renewed) = renewed else {
            self.shared.metrics.renewed(Renewing::Unanswered);
            return;
        };
        self.shared.metrics.renewed(Renewing::Answered);
        let is_news = !renewed.mints.is_empty() || !renewed.gone.is_empty();
        self.step(Event::Renewed(renewed));
        if is_news {
            let (purses, permits): (HashMap<_, _>, HashMap<_, _>) = {
                let core = self.shared.core.lock();
                (core.purses().collect(), core.permits().collect())
            };
            self.shared.metrics.knows(purses.len() + permits.len());
            self.shared.purses.store(Arc::new(purses));
            self.shared.permits.store(Arc::new(permits));
        }
    }

    /// Says that this node goes, if somebody else leads: it begins no window any more, and the leader need not wait for it.
    async fn leave(&mut self) {
        if !self.is_on() || self.group.leads().is_some() {
            return;
        }
        self.step(Event::Leave);
        let renewal = self.shared.step(Event::Wake);
        self.renewing.abort_all();
        while self.renewing.join_next().await.is_some() {} // aborted, so at once
        let now = Clock.now();
        renewal.into_iter().for_each(|it| self.renew(now, it));
        let _ = timeout_at(now + LEAVE_LIMIT, self.renewing.join_next()).await; // unheard, it is waited for
    }
}
