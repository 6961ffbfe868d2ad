//! What is measured by model and endpoint.
//!
//! A model's series are made when it is first asked for, and found by one look-up a request from then on. *Invariant:* the
//! models shown are bounded ([`ModelLabels`]), so what is kept here is too.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use crate::dialects::Wire;
use crate::dialects::form::Usage;
use crate::observability::labels::ModelLabel;
use crate::observability::labels::ModelLabels;
use crate::observability::labels::label;
use crate::observability::metrics::Registry;
use crate::observability::metrics::model_seconds;
use crate::observability::metrics::token_seconds;

label! {
    enum TokenType {
        Input = "input",
        Output = "output",
        Cached = "cached",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Endpoint {
    model: ModelLabel,
    endpoint: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    model: ModelLabel,
    endpoint: &'static str,
    streaming: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    model: ModelLabel,
    endpoint: &'static str,
    error_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tokens {
    model: ModelLabel,
    token_type: TokenType,
}

type Histograms = Family<Endpoint, Histogram, fn() -> Histogram>;
type Known = HashMap<(&'static str, ModelLabel), Arc<Series>>;

/// Families by model, and the series made of them so far.
#[derive(Clone, Debug)]
pub struct Models {
    asked: Family<Asked, Counter>,
    seconds: Histograms,
    first_tokens: Histograms,
    between_tokens: Histograms,
    tokens: Family<Tokens, Counter>,
    failed: Family<Failed, Counter>,
    labels: ModelLabels,
    known: Arc<ArcSwap<Known>>,
}

/// The series of one model at one endpoint.
#[derive(Debug)]
pub struct Series {
    labels: Endpoint,
    whole: Counter,
    streamed: Counter,
    seconds: Histogram,
    tokens: [Counter; 3],
    /// First token and between tokens, where the endpoint streams.
    streaming: Option<[Histogram; 2]>,
}

impl Models {
    /// Registers them. `labels` bounds the models shown.
    #[rustfmt::skip]
    #[must_use]
    pub fn register(registry: &mut Registry, labels: ModelLabels) -> Self {
        Self {
            asked: registry.family("smg_router_requests", "Model requests that were given to a worker, by model, endpoint and whether they asked for a stream"),
            seconds: registry.histogram_family("smg_router_request_duration_seconds", "Seconds from a model request's head to its answer's end, by model and endpoint", model_seconds),
            first_tokens: registry.histogram_family("smg_router_ttft_seconds", "Seconds from a request's head to the first content of its stream. Up with the queue wait: add capacity; up without it: the workers' prefill, look at cache hits", model_seconds),
            between_tokens: registry.histogram_family("smg_router_inter_token_seconds", "Seconds between two pieces of a stream. Up: the workers' batches are too large, or a client reads slowly", token_seconds),
            tokens: registry.family("smg_router_tokens", "Tokens as workers report them, by model: `input` (cached ones included), `output`, `cached`. Cached over input is the cache hit rate"),
            failed: registry.family("smg_router_request_errors", "Model requests that reached a worker or wanted to and failed, by stable code; also those that failed in mid-stream, whose status was 200"),
            labels,
            known: Arc::default(),
        }
    }

    /// The series of `model` at an endpoint. Only for models that a worker serves.
    #[must_use]
    pub fn series(&self, wire: &'static Wire, model: &str) -> Arc<Series> {
        let key = (wire.name, self.labels.label(model));
        if let Some(series) = self.known.load().get(&key) {
            return Arc::clone(series);
        }
        let series = Arc::new(self.make(wire, key.1.clone()));
        // Two first requests at one time: both make the same series, one of the two is kept.
        self.known.rcu(|known| {
            let mut known = Known::clone(known);
            known.insert(key.clone(), Arc::clone(&series));
            known
        });
        series
    }

    fn make(&self, wire: &'static Wire, model: ModelLabel) -> Series {
        let labels = Endpoint { model: model.clone(), endpoint: wire.name };
        let asked = |streaming| Asked { model: model.clone(), endpoint: wire.name, streaming };
        let tokens = |token_type| Tokens { model: model.clone(), token_type };
        let streaming = wire.observe.map(|_| {
            [self.first_tokens.get_or_create_owned(&labels), self.between_tokens.get_or_create_owned(&labels)]
        });
        Series {
            whole: self.asked.get_or_create_owned(&asked("false")),
            streamed: self.asked.get_or_create_owned(&asked("true")),
            seconds: self.seconds.get_or_create_owned(&labels),
            tokens: [TokenType::Input, TokenType::Output, TokenType::Cached]
                .map(|it| self.tokens.get_or_create_owned(&tokens(it))),
            streaming,
            labels,
        }
    }

    /// What all came to since the start.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let known = self.known.load();
        // Tokens are counted by model: its endpoints share the counters.
        let by_model: HashMap<_, _> = known.iter().map(|((_, model), series)| (model, series)).collect();
        let tokens = |at: usize| by_model.values().map(|it| it.tokens[at].get()).sum();
        Totals {
            requests: known.values().map(|it| it.whole.get() + it.streamed.get()).sum(),
            input_tokens: tokens(0),
            output_tokens: tokens(1),
            cached_tokens: tokens(2),
        }
    }

    /// A model request failed.
    pub fn failed(&self, series: &Series, error_type: &'static str) {
        let Endpoint { model, endpoint } = series.labels.clone();
        self.failed.get_or_create(&Failed { model, endpoint, error_type }).inc();
    }
}

/// What all models came to since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests given to a worker.
    pub requests: u64,
    /// Prompt tokens, cached ones included, as workers report them.
    pub input_tokens: u64,
    /// Generated tokens.
    pub output_tokens: u64,
    /// Prompt tokens that workers had in their cache.
    pub cached_tokens: u64,
}

impl Series {
    /// A request goes to a worker.
    pub fn asked(&self, is_stream: bool) {
        if is_stream {
            self.streamed.inc()
        } else {
            self.whole.inc()
        };
    }

    /// Its answer ended.
    pub fn ended(&self, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
    }

    /// The first content of a stream came.
    pub fn first_token(&self, took: Duration) {
        if let Some([first, _]) = &self.streaming {
            first.observe(took.as_secs_f64());
        }
    }

    /// Another piece of a stream came.
    pub fn next_token(&self, took: Duration) {
        if let Some([_, between]) = &self.streaming {
            between.observe(took.as_secs_f64());
        }
    }

    /// A worker told what an answer cost.
    pub fn usage(&self, usage: Usage) {
        for (counter, count) in self.tokens.iter().zip([usage.prompt, usage.completion, usage.cached]) {
            counter.inc_by(count.unwrap_or(0));
        }
    }
}
