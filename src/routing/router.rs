//! The handle of routing: owned by the node, shared by all of its edge threads.
//!
//! Brings together what a decision needs (the model's policy, the prefix map, random numbers), and what is learned from
//! its outcome. Threads meet only at the atomics of the prefix map, at the lock of a policy that remembers, and for some
//! nanoseconds at the retry budget. Absent: IO, tasks, timers; the caller says what time it is.

use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::Mutex;
use parking_lot::RwLock;
use smallvec::SmallVec;

use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;
use crate::base::ids::ModelId;
use crate::base::ids::WorkerId;
use crate::routing::affinity::Bindings;
use crate::routing::candidate::Candidates;
use crate::routing::config::Config;
use crate::routing::draw::Draw;
use crate::routing::explain::Considered;
use crate::routing::explain::Explanation;
use crate::routing::explain::Watched;
use crate::routing::metrics::Metrics;
use crate::routing::models::Model;
use crate::routing::models::Models;
use crate::routing::policies::Ask;
use crate::routing::policies::Choice;
use crate::routing::policies::Holding;
use crate::routing::prefix_log::Outbox;
use crate::routing::prefix_log::core::Said;
use crate::routing::prefix_map;
use crate::routing::prefix_map::Holders;
use crate::routing::prefix_map::chain::BLOCK_BYTES;
use crate::routing::prefix_map::chain::Boundary;
use crate::routing::prefix_map::chain::Key;
use crate::routing::prefix_map::slots::Slots;
use crate::routing::prefix_map::slots::TTL_TICKS;
use crate::routing::prefix_map::table::Table;
use crate::routing::request::RouteRequest;
use crate::routing::retry;
use crate::routing::retry::Budget;
use crate::routing::retry::Failure;
use crate::routing::retry::Verdict;
use crate::routing::route::Feedback;
use crate::routing::route::Hints;
use crate::routing::route::Placed;
use crate::routing::route::Reason;
use crate::routing::route::Route;
use crate::routing::route::RouteError;
use crate::routing::rules::Policies;
use crate::routing::scratch;
use crate::routing::scratch::RENDER_BYTES_MAX;
use crate::routing::scratch::Reading;
use crate::routing::scratch::Scratch;

/// Workers compared when all of a model's are out. More would make an outage of a large fleet expensive for us as well.
const LAST_RESORT_MAX: usize = 64;

/// See the file's header.
#[derive(Debug)]
pub struct Router {
    pub(super) config: Config,
    pub(super) entropy: Entropy,
    pub(super) key: Key,
    pub(super) table: Table,
    pub(super) slots: RwLock<Slots>,
    pub(super) models: Models,
    budget: Mutex<Budget>,
    /// What ticks are counted from: the first time we were told.
    pub(super) epoch: OnceLock<Instant>,
    pub(super) tick: Duration,
    pub(super) metrics: Metrics,
    /// What other nodes should know is left here, where there are any.
    pub(super) outbox: Option<Arc<Outbox>>,
    /// What routing keys are bound to at all nodes, where there are several.
    pub(super) bindings: Option<Arc<Bindings>>,
}

/// What is known before a policy is asked.
pub(super) struct Known {
    pub(super) model: Arc<Model>,
    reading: Option<Reading>,
    holders: Holders,
    holdings: SmallVec<[Holding; prefix_map::HOLDERS_MAX]>,
    /// Bytes the estimate of tokens was made from.
    size: u64,
    prompt_tokens: u64,
    digest: u64,
    /// The routing key as other nodes know it, where the policy binds keys, and to whom it is bound there.
    pub(super) key: Option<u64>,
    bound: Option<WorkerId>,
}

impl Router {
    /// With metrics that nobody reads.
    #[must_use]
    pub fn new(config: Config, entropy: Entropy) -> Self {
        let key = Key::new(&mut Draw::new(entropy.next_u64()));
        Self {
            key,
            table: Table::new(config.cache_map_bytes.0),
            slots: RwLock::default(),
            models: Models::new(&config),
            budget: Mutex::new(Budget::new(config.retry_budget_percent)),
            epoch: OnceLock::new(),
            // Whole milliseconds, because ages come in those.
            tick: Duration::from_millis((config.cache_ttl.as_millis() as u64 / u64::from(TTL_TICKS)).max(1)),
            metrics: Metrics::default(),
            outbox: None,
            bindings: None,
            entropy,
            config,
        }
    }

    /// Tokens that so many bytes of a request to a model are, about.
    #[must_use]
    pub fn tokens(&self, model: &ModelId, bytes: usize) -> u64 {
        (bytes as f64 / f64::from(self.models.get(model).bytes_per_token())).ceil() as u64
    }

    /// With these metrics.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// Chooses a worker, and remembers that it will hold the prompt.
    pub fn choose(
        &self,
        now: Instant,
        request: &RouteRequest<'_, '_>,
        candidates: &dyn Candidates,
    ) -> Result<Route, RouteError> {
        self.choose_and(now, request, candidates, |_| ()).map(|it| it.0)
    }

    /// The same, and who was looked at for it, for traces.
    pub fn choose_watched(
        &self,
        now: Instant,
        request: &RouteRequest<'_, '_>,
        candidates: &dyn Candidates,
    ) -> Result<(Route, Vec<Considered>), RouteError> {
        let watched = Watched::new(candidates);
        self.choose_and(now, request, &watched, |ask| watched.considered(ask))
    }

    fn choose_and<T>(
        &self,
        now: Instant,
        request: &RouteRequest<'_, '_>,
        candidates: &dyn Candidates,
        tell: impl FnOnce(&Ask<'_, '_>) -> T,
    ) -> Result<(Route, T), RouteError> {
        let started = Clock.now();
        self.count(request);
        let result = scratch::with(|scratch| {
            let draw = &mut Draw::new(self.entropy.next_u64());
            let known = self.know(now, request, candidates, scratch, draw)?;
            let ask = known.ask(now, request, candidates);
            let choice = decide(&ask, draw, |ask, draw| {
                let (choice, keys) = known.model.choose(ask, draw);
                if keys != 0 {
                    self.metrics.keys_grew(keys);
                }
                choice
            })?;
            self.binds(&known, ask.candidates.id(choice.index), choice.reason);
            Ok((self.route(now, &ask, choice, &known, &scratch.hashes), tell(&ask)))
        });
        self.tell(result.as_ref().map(|it| &it.0), Clock.now().saturating_duration_since(started));
        result
    }

    /// A request wants a worker, perhaps not for the first time.
    pub(super) fn count(&self, request: &RouteRequest<'_, '_>) {
        if request.tried.is_empty() {
            let mut budget = self.budget.lock();
            budget.request();
            self.metrics.retry_budget(budget.left());
        }
    }

    /// What was decided, and how long it took.
    pub(super) fn tell(&self, result: Result<&Route, &RouteError>, took: Duration) {
        match result {
            Ok(route) => self.metrics.decided(route.policy, route.reason),
            Err(error) => self.metrics.refused(*error),
        }
        self.metrics.decision_took(took.as_secs_f64());
    }

    /// The decision [`Router::choose`] would make, without any effect. Random policies draw other numbers.
    pub fn explain(
        &self,
        now: Instant,
        request: &RouteRequest<'_, '_>,
        candidates: &dyn Candidates,
    ) -> Result<Explanation, RouteError> {
        let watched = Watched::new(candidates);
        scratch::with(|scratch| {
            // Not from our stream: an explanation must not change the next decision.
            let draw = &mut Draw::new(0);
            let known = self.know(now, request, &watched, scratch, draw)?;
            let ask = known.ask(now, request, &watched);
            let choice = decide(&ask, draw, |ask, draw| known.model.rehearse(ask, draw))?;
            Ok(known.explanation(&ask, choice, watched.considered(&ask)))
        })
    }

    /// Learns from what followed a decision.
    pub fn observe(&self, now: Instant, feedback: Feedback<'_>) {
        match feedback {
            Feedback::Served { placed, usage } => {
                if let Some(tokens) = usage.prompt {
                    placed.model.learn(placed.size, tokens);
                }
                let Some(cached) = usage.cached else { return };
                self.metrics.cache_reported(placed.expected_cached_tokens, cached);
                let Some(hints) = &placed.hints else { return };
                // In the proportions of this very prompt where its tokens are known.
                let ratio = usage.prompt.filter(|it| *it > 0).map_or_else(
                    || f64::from(placed.model.bytes_per_token()),
                    |tokens| placed.size as f64 / tokens as f64,
                );
                let held = (cached as f64 * ratio) as u64;
                let lesson = self.slots.read().learn(hints.slot, hints.age, u64::from(hints.held_bytes), held);
                self.say(lesson.map(|it| Said::Taught(hints.worker, it, self.tick * u32::from(hints.age))));
            }
            Feedback::NotServed { placed } => {
                let Some(hints) = &placed.hints else { return };
                hints.announced.iter().for_each(|hash| self.table.remove(*hash, hints.slot));
                self.metrics.map_written(&self.table, 0);
                self.say(hints.announced.iter().map(|it| Said::Withdrawn(hints.worker, Boundary::of(*it))));
            }
            Feedback::Forgotten(worker) => {
                self.slots.write().forget(worker, self.tick_at(now));
                self.say([Said::NewLife(worker)]);
            }
            Feedback::Doubted(worker) => {
                self.slots.write().forget(worker, self.tick_at(now));
                self.say([Said::Doubted(worker)]);
            }
        }
    }

    /// What follows a failed attempt.
    pub fn after_failure(&self, now: Instant, failure: Failure) -> Verdict {
        let unit = self.entropy.unit();
        let mut budget = self.budget.lock();
        let verdict = retry::decide(&self.config, &mut budget, now, failure, unit);
        self.metrics.retry_budget(budget.left());
        drop(budget);
        match verdict {
            Verdict::Retry { after } => self.metrics.retried(failure.outcome.class(), after),
            Verdict::GiveUp(why) => self.metrics.retry_withheld(why),
        }
        verdict
    }

    /// Puts other policies in force at once. What was learned of the models stays; what a replaced policy remembered does
    /// not.
    pub fn set_policies(&self, policies: Policies) {
        self.metrics.keys_grew(-self.models.set(policies));
    }

    /// Which model has which policy.
    #[must_use]
    pub fn policies(&self) -> Arc<Policies> {
        self.models.policies()
    }

    /// Entries of the prefix map and the bytes it has allocated.
    #[must_use]
    pub fn prefix_map_size(&self) -> (u64, u64) {
        (self.table.len(), self.table.bytes())
    }

    /// Reads the prompt as far as the model's policy wants to know it.
    pub(super) fn know(
        &self,
        now: Instant,
        request: &RouteRequest<'_, '_>,
        candidates: &dyn Candidates,
        scratch: &mut Scratch,
        draw: &mut Draw,
    ) -> Result<Known, RouteError> {
        if candidates.is_empty() {
            return Err(RouteError::NoWorkers);
        }
        let model = self.models.get(request.model);
        let prompt = request.prompt.filter(|_| model.policy.entry().reads_prefixes);
        let reading = prompt.map(|it| scratch.read(&self.key, request.tenant, request.model, it));
        let holders = if scratch.hashes.is_empty() {
            Holders::new()
        } else {
            prefix_map::holders(&self.table, &self.slots.read(), self.tick_at(now), &scratch.hashes)
        };
        let size = match &reading {
            Some(it) if it.bytes < RENDER_BYTES_MAX => it.bytes,
            Some(_) | None => request.body_len,
        } as u64;
        let bytes_per_token = f64::from(model.bytes_per_token());
        let tokens = |bytes: u64| (bytes as f64 / bytes_per_token) as u64;
        let holdings =
            holders.iter().map(|it| Holding { worker: it.worker, tokens: tokens(u64::from(it.bytes)) }).collect();
        let digest = reading.as_ref().map_or_else(|| draw.next_u64(), |it| it.digest);
        let (key, bound) = self.bound(&model, request);
        Ok(Known { model, reading, holders, holdings, size, prompt_tokens: tokens(size).max(1), digest, key, bound })
    }

    /// The decision as it is handed out, noted in the prefix map.
    pub(super) fn route(
        &self,
        now: Instant,
        ask: &Ask<'_, '_>,
        choice: Choice,
        known: &Known,
        hashes: &[u64],
    ) -> Route {
        let worker = ask.candidates.id(choice.index);
        let expected_cached_tokens = ask.held_by(worker);
        let hints = match &known.reading {
            Some(reading) if !hashes.is_empty() => self.announce(now, worker, reading, &known.holders, hashes),
            Some(_) | None => None,
        };
        let model = Arc::clone(&known.model);
        Route {
            worker,
            policy: known.model.policy.as_str(),
            reason: choice.reason,
            expected_cached_tokens,
            new_tokens: (known.prompt_tokens - expected_cached_tokens).max(1),
            placed: Placed { model, size: known.size, expected_cached_tokens, hints },
        }
    }

    fn announce(
        &self,
        now: Instant,
        worker: WorkerId,
        reading: &Reading,
        holders: &Holders,
        hashes: &[u64],
    ) -> Option<Box<Hints>> {
        let tick = self.tick_at(now);
        let known = self.slots.read().of(worker);
        let slot = known.or_else(|| self.slots.write().assign(worker, tick))?;
        let (held_bytes, age) = holders.iter().find(|it| it.worker == worker).map_or((0, 0), |it| (it.bytes, it.age));
        let mut announced = Vec::with_capacity(32);
        let mut evicted = 0;
        for blocks in prefix_map::boundaries(hashes.len(), reading.marked) {
            let hash = hashes[blocks - 1];
            evicted += u64::from(self.table.put(hash, slot, tick));
            if blocks * BLOCK_BYTES > held_bytes as usize {
                announced.push(hash);
            }
        }
        self.metrics.map_written(&self.table, evicted);
        let told = prefix_map::told(hashes.len(), reading.marked);
        self.say(told.map(|blocks| Said::Placed(worker, Boundary::of(hashes[blocks - 1]))));
        Some(Box::new(Hints { worker, slot, held_bytes, age, announced }))
    }

    pub(super) fn tick_at(&self, now: Instant) -> u16 {
        let since = now.saturating_duration_since(*self.epoch.get_or_init(|| now));
        // Wraps after a thousand times to live; ages are differences.
        (since.as_nanos() / self.tick.as_nanos()) as u16
    }
}

impl Known {
    pub(super) fn ask<'a, 'p>(
        &'a self,
        now: Instant,
        request: &'a RouteRequest<'a, 'p>,
        candidates: &'a dyn Candidates,
    ) -> Ask<'a, 'p> {
        Ask {
            now,
            request,
            candidates,
            holdings: &self.holdings,
            prompt_tokens: self.prompt_tokens,
            digest: self.digest,
            takes_suspects: false,
            bound: self.bound,
        }
    }

    pub(super) fn explanation(&self, ask: &Ask<'_, '_>, choice: Choice, considered: Vec<Considered>) -> Explanation {
        Explanation {
            worker: ask.candidates.id(choice.index).to_string(),
            policy: self.model.policy.as_str(),
            reason: choice.reason.as_str(),
            prompt_tokens: self.prompt_tokens,
            bytes_per_token: self.model.bytes_per_token(),
            workers: ask.candidates.len(),
            considered,
        }
    }
}

/// The caller's target if it names one, else the policy's choice, else its choice among suspects too, else the best that is left.
pub(super) fn decide(
    ask: &Ask<'_, '_>,
    draw: &mut Draw,
    mut policy: impl FnMut(&Ask<'_, '_>, &mut Draw) -> Option<Choice>,
) -> Result<Choice, RouteError> {
    if let Some(target) = ask.request.target {
        let index = ask.candidates.position(target).ok_or(RouteError::TargetUnknown(target))?;
        if ask.request.tried.contains(&target) {
            return Err(RouteError::AllTried);
        }
        ask.with_suspects().usable(index).ok_or(RouteError::TargetUnavailable(target))?;
        return Ok(Choice { index, reason: Reason::Target });
    }
    let choice = policy(ask, draw).or_else(|| policy(&ask.with_suspects(), draw));
    let choice = choice.or_else(|| last_resort(ask, draw)).ok_or(RouteError::AllTried)?;
    debug_assert!(!ask.request.tried.contains(&ask.candidates.id(choice.index)), "a tried worker was chosen");
    Ok(choice)
}

/// Every worker is out, as far as we know; the cheapest one not yet tried may still answer (DESIGN 7).
fn last_resort(ask: &Ask<'_, '_>, draw: &mut Draw) -> Option<Choice> {
    let len = ask.candidates.len();
    let start = draw.below(len);
    let indices = (0..len.min(LAST_RESORT_MAX)).map(|step| (start + step) % len);
    let untried = indices.filter(|index| !ask.request.tried.contains(&ask.candidates.id(*index)));
    let best = untried.map(|index| (index, ask.candidates.at(index))).min_by(|a, b| ask.by_cost(&a.1, &b.1))?;
    Some(Choice { index: best.0, reason: Reason::LastResort })
}
