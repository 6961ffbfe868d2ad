//! Traces: which request went where, with the W3C context taken from the client and handed to the worker.
//!
//! ```text
//! client ──traceparent──▶ Tracer::request ──Span──▶ Span::attempt ──traceparent──▶ worker
//!                                │ finished spans, bounded queue (full: dropped and counted)
//!                                ▼
//!                          export::start ──OTLP/HTTP──▶ collector
//! ```
//! *Invariants:* nothing here ever waits on the request's path; a tracer that is off costs one branch and allocates
//! nothing; no prompt, completion, header or key becomes an attribute.

pub mod context;
#[cfg(feature = "otel")]
pub mod export;
pub mod span;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::EncodeLabelValue;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::metrics::Registry;

/// What became of a finished span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// The collector has it.
    Exported,
    /// The queue to the exporter was full.
    QueueFull,
    /// The collector did not take it.
    ExportFailed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    outcome: Outcome,
}

/// What became of spans.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    spans: Family<Labels, Counter>,
}

impl Metrics {
    /// Registers them.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let it = Self::default();
        registry.register("smg_traces_spans", "Finished spans, by what became of them", it.spans.clone());
        it
    }

    /// So many spans ended like this.
    pub fn ended(&self, outcome: Outcome, spans: usize) {
        self.spans.get_or_create(&Labels { outcome }).inc_by(spans as u64);
    }

    /// How many did so far.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.spans.get_or_create(&Labels { outcome }).get()
    }
}

#[cfg(all(test, feature = "otel"))]
mod tests;
