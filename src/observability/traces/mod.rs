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
#[cfg_attr(not(feature = "otel"), path = "absent.rs")]
pub mod export;
pub mod span;

use prometheus_client::metrics::counter::Counter;

use super::labels::label;
use super::metrics::Each;
use super::metrics::Registry;

label! {
    /// What became of a finished span.
    pub enum Outcome {
        /// The collector has it.
        Exported = "exported",
        /// The queue to the exporter was full.
        QueueFull = "queue_full",
        /// The collector did not take it, after all repeats.
        ExportFailed = "export_failed",
    }
}

/// What became of spans.
#[derive(Clone, Debug)]
pub struct Metrics {
    spans: Each<Outcome, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::register(&mut Registry::default())
    }
}

impl Metrics {
    /// Registers them.
    #[rustfmt::skip]
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            spans: registry.counters("smg_traces_spans", "Finished spans, by what became of them. All but `exported` are lost: look at the collector, or lower `--trace-sample-ratio`", "outcome"),
        }
    }

    /// So many spans ended like this.
    pub fn ended(&self, outcome: Outcome, spans: usize) {
        self.spans.of(outcome).inc_by(spans as u64);
    }

    /// How many did so far.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.spans.of(outcome).get()
    }
}

#[cfg(all(test, feature = "otel"))]
mod tests;
