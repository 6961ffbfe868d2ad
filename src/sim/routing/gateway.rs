//! One gateway of the routing simulation: the router, the prefix log and the ledger that ship, and what their drivers would do between them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::api::candidates::gossiped;
use crate::api::candidates::probed;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;
use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;
use crate::ledger;
use crate::ledger::InFlight;
use crate::ledger::Reading;
use crate::ledger::core::gossip::Gossip;
use crate::ledger::core::gossip::Gossiped;
use crate::replication::NewRow;
use crate::replication::core::Core as Tables;
use crate::replication::tables::LOADS;
use crate::replication::tables::PREFIXES;
use crate::routing::Config;
use crate::routing::Router;
use crate::routing::candidate::Candidate;
use crate::routing::candidate::Candidates;
use crate::routing::candidate::LoadSource;
use crate::routing::candidate::Told;
use crate::routing::prefix_log;
use crate::routing::prefix_log::Outbox;
use crate::routing::prefix_log::core::Effect;
use crate::routing::prefix_log::core::Event;
use crate::routing::prefix_log::core::Heard;
use crate::routing::prefix_log::core::Setting;
use crate::routing::prefix_map::chain::Key;
use crate::transport::Peer;
use crate::workers::load::Load;

/// See the file's header.
pub(super) struct Gateway {
    pub(super) router: Router,
    pub(super) outbox: Arc<Outbox>,
    pub(super) log: prefix_log::core::Core,
    pub(super) ledger: ledger::core::Core,
    pub(super) peer: Arc<Peer>,
    pub(super) numbers: u64,
    /// What it has in flight, by worker.
    pub(super) loads: Vec<Arc<Load>>,
    pub(super) gossip: Gossip,
    pub(super) told: Gossiped,
    pub(super) ledger_wakes_at: Option<Instant>,
    seen: [BTreeMap<StorageId, (u64, u64)>; 2],
}

impl Gateway {
    pub(super) fn new(config: Config, peer: Arc<Peer>, workers: usize, shares: bool, seed: u64, now: Instant) -> Self {
        let (outbox, key) = (Arc::new(Outbox::default()), Key::shared(&[7; 32]));
        let (me, fingerprint, ttl) = (peer.storage, key.fingerprint(), config.cache_ttl);
        let mut router = Router::new(config, Entropy::seeded(seed));
        if shares {
            router = router.with_peers(key, Arc::clone(&outbox), Arc::default());
        }
        let mut log = prefix_log::core::Core::new(Setting { me, key: fingerprint, ttl, tick: router.tick() });
        let known = (1..=workers as u64).map(WorkerId).collect();
        log.step(router.since_start(now), Event::Workers(known), &mut Vec::new());
        Self {
            router,
            outbox,
            log,
            ledger: ledger::core::Core::new(now, (peer.storage, peer.boot)),
            peer,
            numbers: 0,
            loads: (0..workers).map(|_| Arc::default()).collect(),
            gossip: Gossip::default(),
            told: Gossiped::default(),
            ledger_wakes_at: None,
            seen: Default::default(),
        }
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// What it has in flight, by worker.
    pub(super) fn look(&self, now: Instant) -> Vec<(WorkerId, InFlight)> {
        (1..).map(WorkerId).zip(self.loads.iter().map(|it| own(it, now))).collect()
    }

    /// Tells the others what was placed since. Rows to publish.
    pub(super) fn flush(&mut self, now: Instant) -> Vec<NewRow> {
        let said = self.outbox.take();
        if said.is_empty() { Vec::new() } else { self.step(now, Event::Said(said)).0 }
    }

    pub(super) fn tick(&mut self, now: Instant) -> Vec<NewRow> {
        self.step(now, Event::Tick).0
    }

    /// Takes what others placed.
    pub(super) fn hear(&mut self, now: Instant, at: Duration, tables: &Tables) {
        let mut seen = std::mem::take(&mut self.seen[0]);
        let rows = read(tables, at, &mut seen);
        self.seen[0] = seen;
        if !rows.is_empty() && self.step(now, Event::Heard { rows, is_again: false }).1 {
            let rows = read(tables, at, &mut BTreeMap::new());
            self.step(now, Event::Heard { rows, is_again: true });
        }
    }

    /// Takes these rows of others.
    pub(super) fn take(&mut self, now: Instant, rows: Vec<Heard>) {
        self.step(now, Event::Heard { rows, is_again: false });
    }

    /// Takes what others have in flight, as they tell it now and then.
    pub(super) fn hear_loads(&mut self, now: Instant, at: Duration, tables: &Tables) {
        let Some(table) = tables.owned(LOADS) else { return };
        let news = table.news(at, &mut self.seen[1]);
        news.iter().filter(|it| it.is_new).for_each(|it| self.gossip.forget(it.owner));
        for it in news.iter().filter(|it| it.owner != self.peer.storage) {
            self.gossip.heard(now, it.owner, it.name, it.bytes, it.age);
        }
        self.told = self.gossip.view(now);
    }

    fn step(&mut self, now: Instant, event: Event) -> (Vec<NewRow>, bool) {
        let (mut effects, mut rows) = (Vec::new(), Vec::new());
        self.log.step(self.router.since_start(now), event, &mut effects);
        self.router.hear(now, &effects);
        let reads_again = effects.contains(&Effect::ReadAgain);
        effects.into_iter().for_each(|it| {
            if let Effect::Publish(some) = it {
                rows.extend(some)
            }
        });
        (rows, reads_again)
    }
}

fn read(tables: &Tables, at: Duration, seen: &mut BTreeMap<StorageId, (u64, u64)>) -> Vec<Heard> {
    let Some(table) = tables.owned(PREFIXES) else { return Vec::new() };
    let news = table.news(at, seen).into_iter();
    news.map(|it| Heard { owner: it.owner, age: it.age, value: it.bytes.map(<[u8]>::to_vec) }).collect()
}

fn own(load: &Load, now: Instant) -> InFlight {
    InFlight { requests: load.requests() as u32, queued_tokens: load.queued_prefill_tokens(now) }
}

/// The workers as a gateway sees them at a moment, as `api::candidates` has it.
pub(super) struct Pool<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) now: Instant,
    /// What was asked for, if anything was.
    pub(super) readings: Option<(&'a [WorkerId], &'a [Reading])>,
    pub(super) is_shared: bool,
}

impl Candidates for Pool<'_> {
    fn len(&self) -> usize {
        self.gateway.loads.len()
    }

    fn id(&self, index: usize) -> WorkerId {
        WorkerId(index as u64 + 1)
    }

    fn at(&self, index: usize) -> Candidate {
        let (worker, own) = (self.id(index), own(&self.gateway.loads[index], self.now));
        let told = || {
            let age = |it: Instant| self.now.saturating_duration_since(it);
            self.gateway.told.get(&worker).map_or_else(Default::default, |it| (it.0, age(it.1)))
        };
        let reading = self
            .readings
            .and_then(|(workers, readings)| workers.iter().position(|it| *it == worker).map(|at| &readings[at]));
        let (load, by) = match reading {
            Some(reading) => probed(own, reading, told),
            None if self.is_shared => gossiped(own, told(), LoadSource::Gossiped),
            None => (own, Told::OWN),
        };
        Candidate {
            worker,
            available: true,
            suspect: false,
            inflight: load.requests,
            queued_prefill_tokens: load.queued_tokens,
            told: by,
            relative_prefill_rate: 1.0,
        }
    }

    fn position(&self, worker: WorkerId) -> Option<usize> {
        (worker.0 as usize).checked_sub(1).filter(|it| *it < self.len())
    }

    fn generation(&self) -> u64 {
        1
    }
}
