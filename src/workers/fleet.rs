//! The workers as a scrape sees them, read from the registry at that moment: no request pays for it, and a worker that was
//! removed leaves no series behind.
//!
//! The label is the worker's URL, which an operator knows, and for one that only one node reaches also that node's storage id. *Invariant:* at most
//! [`WORKER_SERIES_MAX`] workers are shown one by one; the pool's size counts all.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::EncodeMetric as _;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::health::Breaker;
use super::health::State;
use super::registry::Entry;
use super::registry::Registry;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::limits::WORKER_SERIES_MAX;
use crate::observability::labels::Label as _;
use crate::observability::metrics;

type Description = (&'static str, &'static str, MetricType);
type Read = fn(&Entry, Instant) -> i64;

const POOL: Description = ("smg_worker_pool_size", "Workers, by state. Alert when none is `ready`", MetricType::Gauge);

/// What is shown of each worker.
const EACH: [(Description, Read); 4] = [
    (
        ("smg_worker_health", "1 when the worker takes requests, else 0; `GET /workers` says why", MetricType::Gauge),
        |entry, now| i64::from(entry.is_available(now)),
    ),
    (
        (
            "smg_worker_cb_state",
            "The worker's circuit breaker: 0 closed, 1 open, 2 half open (one request at a time tries it)",
            MetricType::Gauge,
        ),
        |entry, now| entry.breaker(now) as i64,
    ),
    (
        (
            "smg_worker_requests_active",
            "Requests in flight at the worker, from this node. Uneven between equal workers: look at the policy",
            MetricType::Gauge,
        ),
        |entry, _| count(entry.load.requests()),
    ),
    (
        (
            "smg_worker_queued_prefill_tokens",
            "Prompt tokens sent to the worker whose first answer token has not come. Growing: prefill does not keep up",
            MetricType::Gauge,
        ),
        |entry, now| count(entry.load.queued_prefill_tokens(now)),
    ),
];

/// Shows the workers of `registry`.
pub fn register(metrics: &mut metrics::Registry, registry: Arc<Registry>) {
    let yields: Vec<Description> = std::iter::once(POOL).chain(EACH.iter().map(|it| it.0)).collect();
    metrics.register_collector(&yields, Fleet(registry));
}

struct Fleet(Arc<Registry>);

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fleet")
    }
}

impl Collector for Fleet {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (fleet, now) = (Arc::clone(&*self.0.fleet()), Clock.now());
        let mut pool = [0; State::ALL.len()];
        for entry in &fleet.all {
            pool[entry.shown_state(now).index()] += 1;
        }
        let (name, help, kind) = POOL;
        let mut sizes = encoder.encode_descriptor(name, help, None, kind)?;
        for (state, size) in State::ALL.iter().zip(pool) {
            ConstGauge::<i64>::new(size).encode(sizes.encode_family(&[("state", state.text())])?)?;
        }
        for ((name, help, kind), read) in EACH {
            let mut series = encoder.encode_descriptor(name, help, None, kind)?;
            for entry in fleet.all.iter().take(WORKER_SERIES_MAX) {
                let place = entry.spec.label();
                let labels = [("worker", &*place)];
                ConstGauge::<i64>::new(read(entry, now)).encode(series.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

const _: () = assert!(Breaker::Closed as i64 == 0 && Breaker::Open as i64 == 1 && Breaker::HalfOpen as i64 == 2);
