//! Asks every worker in turn how it is and, at first and whenever it comes back, what it is.
//!
//! Probing adapts: a server without `/health` (Ollama) is asked for its models instead.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::Method;
use http::StatusCode;
use http_body_util::BodyExt as _;
use http_body_util::Limited;
use tokio::sync::watch;

use super::config::Config;
use super::detect;
use super::health::Probe;
use super::lifetime::Signs;
use super::metrics::Metrics;
use super::metrics::ProbeResult;
use super::observers::Observers;
use super::registry::Entry;
use super::registry::Facts;
use super::registry::Registry;
use super::worker::Call;
use super::worker::CallError;
use super::worker::Segments;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::ids::WorkerId;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Stop;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;

/// Of a ready worker's probes, one in so many asks for its models again: an address may have been taken over between two
/// probes by a server of another model (FIELD 4). More rarely finds it out later, more often costs a request.
const MODELS_EVERY: usize = 6;

const PROBE: Task = Task { name: "worker-probe", stage: Stage::Decide, on_end: OnEnd::Fine };

/// A timeout that comes so much too late means that this node was stopped. Below it a busy machine would never learn that a worker is away.
const SLEPT_MIN: Duration = Duration::from_millis(500);

/// Longest answer to a probe that is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Probes the workers of one registry.
#[derive(Clone)]
pub struct Prober {
    /// Whom.
    pub registry: Arc<Registry>,
    /// How long to wait.
    pub timeout: Duration,
    /// How often.
    pub interval: Duration,
    /// Idle connections older than this are closed.
    pub idle_timeout: Duration,
    /// Counts.
    pub metrics: Metrics,
    /// Time.
    pub clock: Clock,
    /// Owner of single probes.
    pub tasks: Tasks,
    /// Told of workers whose process is another one than before.
    pub on_restart: OnRestart,
    /// Who else probes them.
    pub observers: Observers,
}

/// What to do when a worker has restarted; whether its metrics told this node so, or it was only away, or others told.
pub type OnRestart = Arc<dyn Fn(WorkerId, bool) + Send + Sync>;

impl Prober {
    /// From the area's options.
    #[must_use]
    pub fn new(
        registry: Arc<Registry>,
        config: &Config,
        metrics: Metrics,
        tasks: Tasks,
        on_restart: OnRestart,
        observers: Observers,
    ) -> Self {
        Self {
            registry,
            timeout: config.probe_timeout,
            interval: config.probe_interval,
            idle_timeout: config.pool_idle_timeout,
            metrics,
            clock: Clock,
            tasks,
            on_restart,
            observers,
        }
    }

    /// The driver: four ticks an interval; ready workers are asked on every fourth, others on each, new ones at once.
    pub async fn run(self, stop: Stop) {
        let tick = (self.interval / 4).max(Duration::from_millis(10));
        let mut changes = self.registry.changes();
        let mut round = 0usize;
        while !stop.is_cancelled() {
            let fleet = Arc::clone(&*self.registry.fleet());
            let now = self.clock.now();
            let unused_since = now.checked_sub(self.idle_timeout).unwrap_or(now);
            self.metrics.idle_connections(fleet.all.iter().map(|it| it.worker.close_idle(unused_since)).sum());
            for (index, entry) in fleet.all.iter().enumerate() {
                let is_turn = (index + round).is_multiple_of(4);
                if self.wants_look(now, entry, is_turn) {
                    self.look(entry, ((index + round) / 4).is_multiple_of(MODELS_EVERY));
                }
            }
            let mut met = fleet.all.iter().map(|it| it.id).collect();
            self.registry.relate_rates();
            round += 1;
            self.greet_until(now + tick, &stop, &mut changes, &mut met).await;
        }
        // Requests have ended by now: nobody needs the idle connections, and their tasks should not be waited for.
        let all = self.clock.now() + Duration::from_secs(1);
        for entry in &self.registry.fleet().all {
            let _ = entry.worker.close_idle(all); // how many stay: none
        }
    }

    /// Whether a worker is to be asked now: nobody knows what it serves, or how it is wants to be known.
    fn wants_look(&self, now: Instant, entry: &Entry, is_turn: bool) -> bool {
        let (is_known, is_mine) = (!entry.facts.models.is_empty(), self.observers.is_mine(entry));
        !is_known || entry.health().lock().wants_look(now, is_mine, is_turn)
    }

    /// Waits for the next tick; workers that come meanwhile are asked at once what they serve.
    async fn greet_until(
        &self,
        next: Instant,
        stop: &Stop,
        changes: &mut watch::Receiver<u64>,
        met: &mut HashSet<WorkerId>,
    ) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(next) => return,
                _ = changes.changed() => {} // the registry is ours: it does not go
            }
            for entry in &self.registry.fleet().all {
                if met.insert(entry.id) {
                    self.look(entry, true);
                }
            }
        }
    }

    fn look(&self, entry: &Arc<Entry>, asks_models: bool) {
        let (prober, entry) = (self.clone(), Arc::clone(entry));
        self.tasks.spawn(PROBE, |_| async move { prober.probe(&entry, asks_models).await });
    }

    /// Probes one worker by id at once, as after adding it.
    pub async fn probe_now(&self, id: WorkerId) {
        let entry = self.registry.fleet().all.iter().find(|it| it.id == id).cloned();
        if let Some(entry) = entry {
            self.probe(&entry, true).await;
        }
    }

    async fn probe(&self, entry: &Arc<Entry>, asks_models: bool) {
        let health = self.get(entry, "/health").await;
        // No `/health` here (404 or 405): the list of models must do.
        let (result, models) = match health {
            Ok((status, _)) if status.is_success() => (Some(Probe::Ok), None),
            Ok((StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::UNAUTHORIZED, _)) => {
                match self.get(entry, "/v1/models").await {
                    Ok((status, body)) if status.is_success() => (Some(Probe::Ok), Some(body)),
                    other => (judge(other.map(|it| it.0)), None),
                }
            }
            other => (judge(other.map(|it| it.0)), None),
        };
        self.metrics.probed(match result {
            Some(Probe::Ok) => ProbeResult::Ok,
            Some(Probe::Failed) => ProbeResult::Failed,
            Some(Probe::TimedOut) => ProbeResult::TimedOut,
            None => ProbeResult::Slept,
        });
        let Some(result) = result else { return };
        let came_back = entry.probed(self.clock.now(), result);
        if came_back {
            self.metrics.recovered();
            tracing::info!(worker = %entry.id, url = entry.spec.url, "worker is ready");
        }
        if result == Probe::Ok {
            self.look_for_a_restart(entry, came_back).await;
            if came_back || asks_models || entry.facts.models.is_empty() {
                self.detect(entry, models).await;
            }
        }
        self.observers.saw(entry.id);
    }

    async fn look_for_a_restart(&self, entry: &Arc<Entry>, came_back: bool) {
        if !came_back && !entry.lifetime().lock().wants_signs() {
            return;
        }
        let signs = match self.get(entry, "/metrics").await {
            Ok((status, body)) if status.is_success() => Signs::read(&String::from_utf8_lossy(&body)),
            Ok(_) => Signs::default(),
            Err(_) => return, // not well after all; asked again
        };
        if entry.lifetime().lock().look(self.clock.now(), signs, came_back) {
            self.metrics.restarted();
            entry.load.forget_rate();
            (self.on_restart)(entry.id, signs.is_any());
            tracing::info!(worker = %entry.id, url = entry.spec.url, "worker has restarted: its cache counts as empty");
        }
    }

    async fn detect(&self, entry: &Arc<Entry>, models: Option<Vec<u8>>) {
        let body = match models {
            Some(body) => body,
            None => match self.get(entry, "/v1/models").await {
                Ok((status, body)) if status.is_success() => body,
                _ => return, // asked again at the next tick: its models are still unknown
            },
        };
        let Some((models, engine)) = detect::read_models(&body) else { return };
        self.registry.found(entry.id, Facts { engine, models });
    }

    async fn get(&self, entry: &Arc<Entry>, path: &str) -> Result<(StatusCode, Vec<u8>), Missed> {
        let call = Call {
            method: Method::GET,
            path: path.to_owned(),
            headers: HeaderMap::new(),
            body: Segments::default(),
            first_byte_timeout: self.timeout,
        };
        let asking = async {
            let answer = entry.worker.call(call).await?;
            let body =
                Limited::new(answer.body, ANSWER_BYTES_MAX).collect().await.map_err(|_cut_off| CallError::Lost)?;
            Ok((answer.status, body.to_bytes().to_vec()))
        };
        let late = Err(CallError::FirstByteTimeout(self.timeout));
        let started = self.clock.now();
        let answer = tokio::time::timeout(self.timeout, asking).await.unwrap_or(late);
        answer.map_err(|error| match self.clock.now().saturating_duration_since(started) {
            took if took > self.timeout + SLEPT_MIN => Missed::Slept,
            _ => Missed::Error(error),
        })
    }
}

/// Why a probe brought no answer.
enum Missed {
    /// The worker's doing, as far as is known.
    Error(CallError),
    /// This node did not run while it waited, and may have had an answer.
    Slept,
}

/// What an answer says of the worker, if anything.
fn judge(result: Result<StatusCode, Missed>) -> Option<Probe> {
    match result {
        Err(Missed::Slept) => None,
        Err(Missed::Error(CallError::FirstByteTimeout(_) | CallError::ConnectTimeout(_))) => Some(Probe::TimedOut),
        // Asked to wait is alive.
        Ok(StatusCode::TOO_MANY_REQUESTS) => Some(Probe::Ok),
        Ok(_) | Err(Missed::Error(_)) => Some(Probe::Failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::StorageId;
    use crate::observability::metrics::Registry as MetricsRegistry;
    use crate::transport::tests::eventually;
    use crate::workers::address::Origin;
    use crate::workers::fake::Fake;
    use crate::workers::fake::Step;
    use crate::workers::health::State;
    use crate::workers::spec::Spec;
    use crate::workers::worker::Answer;
    use crate::workers::worker::BoxFuture;
    use crate::workers::worker::Worker;

    /// Does not answer; time passes meanwhile.
    struct Silent(Duration);

    impl Worker for Silent {
        fn call(&self, _: Call) -> BoxFuture<'_, Result<Answer, CallError>> {
            Box::pin(async {
                tokio::time::advance(self.0).await;
                std::future::pending().await
            })
        }

        fn close_idle(&self, _: Instant) -> usize {
            0
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_ends_much_too_late_says_that_this_node_slept_and_nothing_of_the_worker() {
        let (tasks, mut scrape, config) = (Tasks::new(), MetricsRegistry::default(), Config::default());
        let metrics = Metrics::register(&mut scrape);
        let registry = Arc::new(Registry::for_tests(config.probe_interval, &metrics, &tasks));
        let observers = Observers::alone(StorageId(1), config.away_max);
        let on_restart: OnRestart = Arc::new(|_, _| ());
        let prober = Prober::new(Arc::clone(&registry), &config, metrics, tasks, on_restart, observers);
        for (id, passes, state) in
            [(1, Duration::from_secs(60), State::Pending), (2, config.probe_timeout, State::NotReady)]
        {
            let spec = Spec::named(&Origin::parse("http://gpu1:8000").expect("a URL"), None);
            registry.play_as(WorkerId(id), spec, Arc::new(Silent(passes)));
            prober.probe_now(WorkerId(id)).await;
            assert_eq!(registry.get(WorkerId(id)).expect("added").state(Clock.now()), state);
        }
        let text = scrape.render();
        assert!(text.contains(r#"smg_worker_health_checks_total{result="slept"} 1"#), "{text}");
    }

    #[tokio::test]
    async fn a_worker_that_comes_is_asked_at_once_what_it_serves_however_long_the_interval_is() {
        const RUN: Task = Task { name: "prober", stage: Stage::Decide, on_end: OnEnd::Fine };
        let (tasks, interval) = (Tasks::new(), Duration::from_secs(3600));
        let config = Config { probe_interval: interval, ..Config::default() };
        let registry = Arc::new(Registry::for_tests(interval, &Metrics::default(), &tasks));
        let observers = Observers::alone(StorageId(1), config.away_max);
        let on_restart: OnRestart = Arc::new(|_, _| ());
        let (watched, owner) = (Arc::clone(&registry), tasks.clone());
        let prober = Prober::new(watched, &config, Metrics::default(), owner, on_restart, observers);
        tasks.spawn(RUN, |stop| prober.run(stop));
        tokio::task::yield_now().await;
        let models = vec![Step::status(StatusCode::OK), Step::text(r#"{"data":[{"id":"tiny"}]}"#)];
        let spec = Spec::named(&Origin::parse("http://gpu1:8000").expect("a URL"), None);
        registry.play_as(WorkerId(1), spec, Arc::new(Fake::new([models])));
        let served = || registry.fleet().by_model.keys().any(|it| it.as_str() == "tiny");
        eventually("it serves", served).await;
    }
}
