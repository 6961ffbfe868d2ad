//! Asks every worker in turn how it is and, at first and whenever it comes back, what it is.
//!
//! Probing adapts: a server without `/health` (Ollama) is asked for its models instead.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::Method;
use http::StatusCode;
use http_body_util::BodyExt as _;
use http_body_util::Limited;

use super::config::Config;
use super::detect;
use super::health::Probe;
use super::health::State;
use super::lifetime::Signs;
use super::metrics::Metrics;
use super::metrics::ProbeResult;
use super::registry::Entry;
use super::registry::Facts;
use super::registry::Registry;
use super::worker::Call;
use super::worker::CallError;
use super::worker::Segments;
use crate::base::clock::Clock;
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
}

/// What to do when a worker has restarted; whether it said so itself, or was only away from this node.
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
        }
    }

    /// The driver: four ticks an interval; ready workers are asked on every fourth, others on each.
    pub async fn run(self, stop: Stop) {
        let tick = (self.interval / 4).max(Duration::from_millis(10));
        let mut round = 0usize;
        while !stop.is_cancelled() {
            let fleet = Arc::clone(&*self.registry.fleet());
            let now = self.clock.now();
            let unused_since = now.checked_sub(self.idle_timeout).unwrap_or(now);
            self.metrics.idle_connections(fleet.all.iter().map(|it| it.worker.close_idle(unused_since)).sum());
            for (index, entry) in fleet.all.iter().enumerate() {
                let state = entry.state(now);
                let is_well = state != State::NotReady && !entry.facts.models.is_empty();
                if !is_well || (index + round).is_multiple_of(4) {
                    let asks_models = ((index + round) / 4).is_multiple_of(MODELS_EVERY);
                    let (prober, entry) = (self.clone(), Arc::clone(entry));
                    self.tasks.spawn(PROBE, |_| async move { prober.probe(&entry, asks_models).await });
                }
            }
            self.registry.relate_rates();
            round += 1;
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.clock.sleep(tick) => {}
            }
        }
        // Requests have ended by now: nobody needs the idle connections, and their tasks should not be waited for.
        let all = self.clock.now() + Duration::from_secs(1);
        for entry in &self.registry.fleet().all {
            let _ = entry.worker.close_idle(all); // how many stay: none
        }
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
            Ok((status, _)) if status.is_success() => (Probe::Ok, None),
            Ok((StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::UNAUTHORIZED, _)) => {
                match self.get(entry, "/v1/models").await {
                    Ok((status, body)) if status.is_success() => (Probe::Ok, Some(body)),
                    other => (judge(other.map(|it| it.0)), None),
                }
            }
            other => (judge(other.map(|it| it.0)), None),
        };
        self.metrics.probed(match result {
            Probe::Ok => ProbeResult::Ok,
            Probe::Failed => ProbeResult::Failed,
            Probe::TimedOut => ProbeResult::TimedOut,
        });
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
        if entry.lifetime().lock().look(signs, came_back) {
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

    async fn get(&self, entry: &Arc<Entry>, path: &str) -> Result<(StatusCode, Vec<u8>), CallError> {
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
        tokio::time::timeout(self.timeout, asking).await.unwrap_or(late)
    }
}

fn judge(result: Result<StatusCode, CallError>) -> Probe {
    match result {
        Err(CallError::FirstByteTimeout(_) | CallError::ConnectTimeout(_)) => Probe::TimedOut,
        // Asked to wait is alive.
        Ok(StatusCode::TOO_MANY_REQUESTS) => Probe::Ok,
        Ok(_) | Err(_) => Probe::Failed,
    }
}
