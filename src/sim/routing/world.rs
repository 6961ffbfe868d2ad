//! Requests, gateways and workers on virtual time, over a cluster that is simulated as well.
//!
//! ```text
//! arrival ─▶ gateway, drawn ─shortlist─▶ questions to ledgers ─answers, or 5 ms─▶ settle ─▶ worker: queue, read, answer
//!                 ▲ prefix rows and loads, by replication in `cluster.rs`                     └─▶ load guard, feedback
//! ```
//! Questions, reports and commits travel 0.2 to 2 ms each way; one in a thousand is lost and comes 25 ms later. *Absent on purpose:* HTTP, and trouble.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::gateway::Gateway;
use super::gateway::Pool;
use super::load::Load;
use super::load::Request;
use super::report::Report;
use super::report::Tally;
use super::worker::Pace;
use super::worker::Worker;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;
use crate::base::ids::ModelId;
use crate::base::ids::StorageId;
use crate::base::ids::TenantId;
use crate::bench::core::prompt;
use crate::dialects::form::Mark;
use crate::dialects::form::Piece;
use crate::dialects::form::Prompt;
use crate::dialects::form::Usage;
use crate::ledger;
use crate::ledger::Reading;
use crate::ledger::Readings;
use crate::ledger::Source;
use crate::ledger::core::Life;
use crate::ledger::core::Plan;
use crate::ledger::messages::Commit;
use crate::ledger::messages::Message;
use crate::ledger::messages::Probe;
use crate::ledger::messages::Said;
use crate::replication::core::Event as TablesEvent;
use crate::replication::tables::LOADS;
use crate::replication::tables::PREFIXES;
use crate::routing::Config;
use crate::routing::Feedback;
use crate::routing::Route;
use crate::routing::policies::PolicyName;
use crate::routing::request::RouteRequest;
use crate::routing::shortlist::Shortlist;
use crate::sim::cluster::Cluster;
use crate::sim::cluster::Packet;
use crate::transport::twin::Weather;
use crate::workers::load::FirstToken;
use crate::workers::load::LoadGuard;

/// How gateways know of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// As they ship.
    Shared,
    /// Each for itself.
    Own,
    /// Everybody knows what every cache holds and will hold, and every queue, at every moment.
    Oracle,
}

/// A run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) gateways: usize,
    pub(super) workers: usize,
    pub(super) pace: Pace,
    pub(super) view: View,
    pub(super) policy: &'static str,
    pub(super) seed: u64,
    /// How long a placement counts.
    pub(super) ttl: Duration,
    /// Whether all that leaves a node is kept, to be looked through.
    pub(super) is_tapped: bool,
}

/// As shipped, see `prefix_log/driver.rs` and `ledger/gossip.rs`.
const LISTEN: Duration = Duration::from_millis(250);
const FLUSH_EVERY: u64 = 2;
const LOADS_EVERY: u64 = 4;
const TICK_EVERY: u64 = 8;
/// What a token to compute and a request in flight weigh, as `policies/ask.rs` has it, for the oracle.
const MISS_WEIGHT: f64 = 4.0;
const INFLIGHT_WEIGHT: f64 = 50.0;
/// From this on the latencies of a run count: caches are warm.
const WARM: usize = 10;

enum What {
    Arrive,
    Asked { request: usize, owner: usize, places: Vec<usize>, begun: Vec<Commit> },
    Answered { request: usize, owner: usize, places: Vec<usize>, said: Vec<Said> },
    Impatient { request: usize },
    Read { worker: usize },
    Ended { worker: usize, request: usize },
    Ledger { gateway: usize, at: Instant },
    Tell { to: usize, from: Life, message: Message },
    Turn { number: u64 },
}

struct Waiting {
    shortlist: Shortlist,
    readings: Readings,
    owners: Vec<usize>,
    since: Instant,
}

/// A request under way.
#[derive(Default)]
struct Job {
    gateway: usize,
    route: Option<Route>,
    guard: Option<LoadGuard>,
    waiting: Option<Waiting>,
    cached: u64,
}

/// See the file's header.
pub(super) struct World<'a> {
    setup: Setup,
    load: &'a Load,
    now: Instant,
    begun: Instant,
    entropy: Entropy,
    cluster: Option<Cluster>,
    gateways: Vec<Gateway>,
    workers: Vec<Worker>,
    jobs: BTreeMap<usize, Job>,
    next: usize,
    queue: BTreeMap<(Instant, u64), What>,
    queued: u64,
    tally: Tally,
    pub(super) leaked: Vec<Vec<u8>>,
    pool: prompt::Pool,
    text: Vec<u8>,
    blocks: Vec<u64>,
    tenant: TenantId,
    model: ModelId,
}

impl<'a> World<'a> {
    pub(super) fn new(setup: Setup, load: &'a Load) -> Self {
        let is_mesh = setup.view == View::Shared && setup.gateways > 1;
        let mut cluster = is_mesh.then(|| Cluster::new(setup.seed, setup.gateways, Weather::default()));
        let mut now = Clock.now();
        if let Some(cluster) = &mut cluster {
            cluster.run(Duration::from_secs(3)); // it forms
            cluster.tap = setup.is_tapped.then(Vec::new);
            now = cluster.now;
        }
        let policy = PolicyName::parse(setup.policy).expect("a policy");
        let gateway = |n: usize| {
            let config = Config { policy, cache_ttl: setup.ttl, ..Config::default() };
            let peer = cluster
                .as_ref()
                .map_or_else(|| crate::transport::tests::peer(n as u16 + 1), |it| it.nodes[n].swim().me().clone());
            Gateway::new(config, Arc::new(peer), setup.workers, is_mesh, setup.seed << 8 | n as u64, now)
        };
        let gateways: Vec<Gateway> = (0..setup.gateways).map(gateway).collect();
        let mut world = Self {
            setup,
            load,
            now,
            begun: now,
            entropy: Entropy::seeded(setup.seed),
            cluster,
            gateways,
            workers: (0..setup.workers).map(|_| Worker::new(setup.pace)).collect(),
            jobs: BTreeMap::new(),
            next: 0,
            queue: BTreeMap::new(),
            queued: 0,
            tally: Tally::default(),
            leaked: Vec::new(),
            pool: prompt::Pool::new(7),
            text: Vec::new(),
            blocks: Vec::new(),
            tenant: TenantId::parse("team").expect("valid"),
            model: ModelId::parse("llama").expect("valid"),
        };
        if is_mesh {
            let members: Vec<_> = world.gateways.iter().map(|it| Arc::clone(&it.peer)).collect();
            (0..setup.gateways).for_each(|n| world.ledger(n, ledger::core::Event::Members(members.clone())));
            world.after(LISTEN, What::Turn { number: 1 });
        }
        world.after(Duration::ZERO, What::Arrive);
        world
    }

    /// Everything happens.
    pub(super) fn run(mut self) -> (Report, Self) {
        while self.next < self.load.requests.len() || !self.jobs.is_empty() {
            let Some(((at, _), what)) = self.queue.pop_first() else { break };
            if let Some(cluster) = &mut self.cluster {
                cluster.run(at.saturating_duration_since(cluster.now));
            }
            self.now = at;
            self.happen(what);
        }
        self.tally.elapsed = self.now - self.begun;
        self.tally.busy = self.workers.iter().map(|it| it.busy).collect();
        let gossip = self.cluster.as_ref().map(|it| it.tally).unwrap_or_default();
        (Report::of(&self.tally, self.setup, gossip), self)
    }

    fn after(&mut self, time: Duration, what: What) {
        self.queued += 1;
        self.queue.insert((self.now + time, self.queued), what);
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Arrive => self.arrive(),
            What::Asked { request, owner, places, begun } => self.asked(request, owner, places, begun),
            What::Answered { request, owner, places, said } => self.answered(request, owner, &places, said),
            What::Impatient { request } => self.settle(request),
            What::Read { worker } => self.read(worker),
            What::Ended { worker, request } => self.ended(worker, request),
            What::Ledger { gateway, at } => self.ledger_wakes(gateway, at),
            What::Tell { to, from, message } => match message {
                Message::Report(report) => self.ledger(to, ledger::core::Event::Reported(from, report)),
                Message::Commits(commits) => self.ledger(to, ledger::core::Event::Committed(from, commits)),
                Message::Probe(_) => {}
            },
            What::Turn { number } => self.turn(number),
        }
    }

    // === requests ===

    fn arrive(&mut self) {
        let request = self.next;
        let Some(next) = self.load.requests.get(request) else { return };
        let at = self.begun + next.at;
        if at > self.now {
            let wait = at - self.now;
            return self.after(wait, What::Arrive);
        }
        self.next += 1;
        self.after(Duration::ZERO, What::Arrive);
        let gateway = self.entropy.below(self.setup.gateways);
        self.jobs.insert(request, Job { gateway, ..Job::default() });
        match self.setup.view {
            View::Oracle => self.ask_oracle(request),
            View::Own => self.choose(request),
            View::Shared if self.setup.gateways == 1 || self.setup.policy != "cache_aware" => self.choose(request),
            View::Shared => self.shortlist(request),
        }
    }

    fn with_request<T>(
        &mut self,
        request: usize,
        has_prompt: bool,
        then: impl FnOnce(&Self, &RouteRequest<'_, '_>) -> T,
    ) -> T {
        let it: &Request = &self.load.requests[request];
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        if has_prompt {
            it.prompt.iter().for_each(|run| self.pool.write(*run, &mut text));
        }
        let pieces = vec![Piece::Mark(Mark::Message), Piece::Text(&text)];
        let prompt = Prompt { pieces };
        let route = RouteRequest {
            model: &self.model,
            tenant: &self.tenant,
            prompt: has_prompt.then_some(&prompt),
            body_len: prompt::length(&it.prompt),
            routing_key: None,
            target: None,
            tried: &[],
        };
        let done = then(self, &route);
        drop(prompt);
        self.text = text;
        done
    }

    fn choose(&mut self, request: usize) {
        let gateway = self.jobs[&request].gateway;
        let route = self.with_request(request, true, |it, route| {
            let pool = Pool { gateway: &it.gateways[gateway], now: it.now, readings: None, is_shared: false };
            pool.gateway.router.choose(it.now, route, &pool).expect("there are workers")
        });
        self.send(request, route);
    }

    fn shortlist(&mut self, request: usize) {
        let gateway = self.jobs[&request].gateway;
        let shortlist = self.with_request(request, true, |it, route| {
            let pool = Pool { gateway: &it.gateways[gateway], now: it.now, readings: None, is_shared: true };
            pool.gateway.router.shortlist(it.now, route, &pool).expect("there are workers")
        });
        let mut readings: Readings = std::iter::repeat_n(ledger::MISSED, shortlist.workers.len()).collect();
        let mut groups: BTreeMap<StorageId, Vec<usize>> = BTreeMap::new();
        for (place, worker) in shortlist.workers.iter().enumerate() {
            match self.gateways[gateway].ledger.plan(self.now, *worker) {
                Plan::Here(said) => readings[place] = Reading::of(said, Source::Local),
                Plan::Ask(owner) => groups.entry(owner.storage).or_default().push(place),
                Plan::Nobody => {}
            }
        }
        let owners: Vec<usize> = groups.keys().map(|it| self.place(*it)).collect();
        for (owner, places) in owners.iter().zip(groups.into_values()) {
            let workers = places.iter().map(|it| shortlist.workers[*it].0).collect();
            let storage = self.gateways[*owner].peer.storage;
            let question = self.gateways[gateway].ledger.question(storage, workers);
            self.tap(&question.encode().expect("encodes"));
            let Message::Probe(Probe { begun, .. }) = question else { unreachable!("a question is a probe") };
            let way = self.way();
            self.after(way, What::Asked { request, owner: *owner, places, begun });
        }
        let is_here = owners.is_empty();
        let since = self.now;
        self.jobs.get_mut(&request).expect("it arrived").waiting = Some(Waiting { shortlist, readings, owners, since });
        if is_here {
            return self.settle(request);
        }
        self.after(ledger::Config::default().timeout, What::Impatient { request });
    }

    fn asked(&mut self, request: usize, owner: usize, places: Vec<usize>, begun: Vec<Commit>) {
        let gateway = self.jobs.get(&request).map(|it| self.gateways[it.gateway].peer.clone());
        if let Some(peer) = gateway {
            self.ledger(owner, ledger::core::Event::Committed((peer.storage, peer.boot), begun));
        }
        let Some(waiting) = self.jobs.get(&request).and_then(|it| it.waiting.as_ref()) else { return };
        let asker = self.gateways[self.jobs[&request].gateway].peer.storage;
        let core = &self.gateways[owner].ledger;
        let said: Vec<Said> =
            places.iter().map(|it| core.said(self.now, asker, waiting.shortlist.workers[*it])).collect();
        self.tap(&ledger::messages::Answer::Loads(said.clone()).encode().expect("encodes"));
        let way = self.way();
        self.after(way, What::Answered { request, owner, places, said });
    }

    fn answered(&mut self, request: usize, owner: usize, places: &[usize], said: Vec<Said>) {
        let storage = self.gateways[owner].peer.storage;
        let Some(job) = self.jobs.get_mut(&request) else { return };
        let Some(waiting) = job.waiting.as_mut() else { return };
        self.gateways[job.gateway].ledger.answered(storage);
        for (place, said) in places.iter().zip(said) {
            waiting.readings[*place] = Reading::of(said, Source::Remote);
        }
        waiting.owners.retain(|it| *it != owner);
        if waiting.owners.is_empty() {
            self.settle(request);
        }
    }

    fn settle(&mut self, request: usize) {
        let Some(job) = self.jobs.get_mut(&request) else { return };
        let Some(Waiting { shortlist, readings, owners, since }) = job.waiting.take() else { return };
        let gateway = job.gateway;
        for owner in owners {
            let (storage, limit) = (self.gateways[owner].peer.storage, ledger::Config::default().timeout);
            self.gateways[gateway].ledger.missed(self.now, storage, since, limit);
        }
        self.tally.probed(&readings);
        let workers = shortlist.workers.clone();
        let route = self.with_request(request, false, |it, route| {
            let readings = Some((workers.as_slice(), readings.as_slice()));
            let pool = Pool { gateway: &it.gateways[gateway], now: it.now, readings, is_shared: true };
            pool.gateway.router.settle(it.now, route, shortlist, &pool).expect("there are workers")
        });
        self.send(request, route);
    }

    fn ask_oracle(&mut self, request: usize) {
        let it = &self.load.requests[request];
        it.blocks(self.setup.pace.block, &mut self.blocks);
        let cost = |worker: usize| {
            let (queued, inflight) = self.gateways.iter().fold((0, 0), |(queued, inflight), gateway| {
                let load = &gateway.loads[worker];
                (queued + load.queued_prefill_tokens(self.now), inflight + load.requests())
            });
            let cached = self.workers[worker].will_have(&self.blocks, it.tokens);
            queued as f64 + MISS_WEIGHT * (it.tokens - cached) as f64 + INFLIGHT_WEIGHT * inflight as f64
        };
        let first = self.entropy.below(self.setup.workers); // equal costs are spread
        let worker = (0..self.setup.workers).map(|n| (first + n) % self.setup.workers);
        let worker = worker.min_by(|a, b| cost(*a).total_cmp(&cost(*b))).expect("there are workers");
        let new = it.tokens - self.workers[worker].will_have(&self.blocks, it.tokens);
        self.workers[worker].promise(&self.blocks);
        self.enqueue(request, worker, new);
    }

    fn send(&mut self, request: usize, route: Route) {
        let (worker, new) = (route.worker.0 as usize - 1, route.new_tokens);
        self.tally.expected(route.expected_cached_tokens);
        self.jobs.get_mut(&request).expect("it arrived").route = Some(route);
        self.enqueue(request, worker, new);
    }

    fn enqueue(&mut self, request: usize, worker: usize, new: u64) {
        let now = self.now;
        let job = self.jobs.get_mut(&request).expect("it arrived");
        let gateway = &mut self.gateways[job.gateway];
        job.guard = Some(gateway.loads[worker].acquire(now, new, FirstToken::Seen));
        if self.cluster.is_some() {
            let commit = Commit { number: gateway.next_number(), worker: worker as u64 + 1, tokens: new };
            let n = job.gateway;
            self.ledger(n, ledger::core::Event::Started(commit));
        }
        self.workers[worker].queue.push_back(request);
        self.begin(worker);
    }

    // === workers ===

    fn begin(&mut self, worker: usize) {
        let it = &mut self.workers[worker];
        if it.reading.is_some() {
            return;
        }
        let Some(request) = it.queue.pop_front() else { return };
        it.reading = Some(request);
        let asked = &self.load.requests[request];
        asked.blocks(self.setup.pace.block, &mut self.blocks);
        let cached = it.has(self.blocks.iter().copied(), asked.tokens);
        let time = it.read(cached, asked.tokens, &self.blocks);
        self.tally.hit(cached, asked.tokens);
        self.jobs.get_mut(&request).expect("it was sent").cached = cached;
        self.after(time, What::Read { worker });
    }

    fn read(&mut self, worker: usize) {
        let Some(request) = self.workers[worker].reading else { return };
        let asked = &self.load.requests[request];
        asked.blocks(self.setup.pace.block, &mut self.blocks);
        let time = self.workers[worker].done(&self.blocks, asked.answer);
        if request >= self.load.requests.len() / WARM {
            self.tally.first_token.push(self.now - (self.begun + asked.at));
        }
        if let Some(guard) = self.jobs.get_mut(&request).and_then(|it| it.guard.as_mut()) {
            guard.prefill_done(self.now);
        }
        self.after(time, What::Ended { worker, request });
        self.begin(worker);
    }

    fn ended(&mut self, worker: usize, request: usize) {
        self.workers[worker].decoding -= 1;
        let Some(job) = self.jobs.remove(&request) else { return };
        if let Some(route) = &job.route {
            let usage =
                Usage { prompt: Some(self.load.requests[request].tokens), completion: None, cached: Some(job.cached) };
            self.gateways[job.gateway].router.observe(self.now, Feedback::Served { placed: &route.placed, usage });
        }
    }

    // === between gateways ===

    fn ledger(&mut self, gateway: usize, event: ledger::core::Event) {
        let mut effects = Vec::new();
        self.gateways[gateway].ledger.step(self.now, event, &mut effects);
        let me = (self.gateways[gateway].peer.storage, self.gateways[gateway].peer.boot);
        for effect in effects {
            let ledger::core::Effect::Send(to, message) = effect else { continue };
            let bytes = message.encode().expect("encodes");
            self.tally.ledger_bytes += bytes.len() as u64;
            self.tap(&bytes);
            let (way, to) = (self.way(), self.place(to.storage));
            self.after(way, What::Tell { to, from: me, message });
        }
        let it = &mut self.gateways[gateway];
        if let Some(next) = it.ledger.next_wake()
            && it.ledger_wakes_at.is_none_or(|at| next < at)
        {
            it.ledger_wakes_at = Some(next);
            let wait = next.saturating_duration_since(self.now);
            self.after(wait, What::Ledger { gateway, at: next });
        }
    }

    fn ledger_wakes(&mut self, gateway: usize, at: Instant) {
        if self.gateways[gateway].ledger_wakes_at != Some(at) {
            return;
        }
        self.gateways[gateway].ledger_wakes_at = None;
        let wants_look = self.gateways[gateway].ledger.wants_look(self.now);
        self.ledger(gateway, ledger::core::Event::Wake);
        if wants_look {
            let it = &mut self.gateways[gateway];
            let (number, loads) = (it.next_number(), it.look(self.now));
            self.ledger(gateway, ledger::core::Event::Looked { number, loads });
        }
    }

    /// What the drivers of the prefix log and of gossiped loads do a few times a second.
    fn turn(&mut self, number: u64) {
        let Some(mut cluster) = self.cluster.take() else { return };
        for (n, gateway) in self.gateways.iter_mut().enumerate() {
            if number.is_multiple_of(FLUSH_EVERY) {
                let rows = gateway.flush(self.now);
                publish(&mut cluster, n, PREFIXES, rows);
            }
            if number.is_multiple_of(TICK_EVERY) {
                let rows = gateway.tick(self.now);
                publish(&mut cluster, n, PREFIXES, rows);
            }
            if number.is_multiple_of(LOADS_EVERY) {
                let loads = gateway.look(self.now);
                let rows = gateway.gossip.rows(self.now, &loads);
                gateway.gossip.wrote(self.now, &rows);
                publish(&mut cluster, n, LOADS, rows);
            }
            let at = self.now.saturating_duration_since(cluster.nodes[n].started);
            gateway.hear(self.now, at, cluster.nodes[n].core());
            gateway.hear_loads(self.now, at, cluster.nodes[n].core());
        }
        for (_, packet) in cluster.tap.as_mut().into_iter().flat_map(std::mem::take) {
            match packet {
                Packet::Swim(_, bytes) | Packet::Table(_, bytes) => self.leaked.push(bytes),
                Packet::Greet | Packet::Greeting(_) => {}
            }
        }
        self.cluster = Some(cluster);
        self.after(LISTEN, What::Turn { number: number + 1 });
    }

    fn tap(&mut self, bytes: &[u8]) {
        if self.setup.is_tapped {
            self.leaked.push(bytes.to_vec());
        }
    }

    fn place(&self, storage: StorageId) -> usize {
        self.gateways.iter().position(|it| it.peer.storage == storage).expect("a gateway of ours")
    }

    /// How long a small message takes.
    fn way(&self) -> Duration {
        let weather = Weather::default();
        let spread = (weather.delay_max - weather.delay_min).mul_f64(self.entropy.unit());
        let lost = if self.entropy.below(1000) == 0 { Duration::from_millis(25) } else { Duration::ZERO };
        weather.delay_min + spread + lost
    }
}

fn publish(
    cluster: &mut Cluster,
    node: usize,
    table: crate::replication::tables::TableId,
    rows: Vec<crate::replication::NewRow>,
) {
    if !rows.is_empty() {
        cluster.tables(node, TablesEvent::Publish(table, rows));
    }
}
