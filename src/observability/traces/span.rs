//! Spans of model requests, with the names of OpenTelemetry's GenAI conventions, and the sampler that decides for them.
//!
//! A request's span is `chat MODEL`; each attempt at a worker is a child of it. The caller's decision to record is kept;
//! without one a share of the traces is recorded. A finished span is handed over without waiting when it is dropped.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::Metrics;
use super::Outcome;
use super::context::TraceContext;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;

/// Finished spans waiting for the exporter. Fewer are dropped at bursts, more hold memory (about 1 KB each).
pub const QUEUE_LEN: usize = 2048;

/// Names of attributes, as the semantic conventions spell them.
pub mod keys {
    /// What is asked of the model: `chat`, `text_completion`, `embeddings`, ...
    pub const OPERATION: &str = "gen_ai.operation.name";
    /// The model asked for.
    pub const REQUEST_MODEL: &str = "gen_ai.request.model";
    /// The model that answered.
    pub const RESPONSE_MODEL: &str = "gen_ai.response.model";
    /// Who runs the model: the kind of engine.
    pub const PROVIDER: &str = "gen_ai.provider.name";
    /// Prompt tokens.
    pub const INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
    /// Completion tokens.
    pub const OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
    /// Prompt tokens that came from the worker's cache.
    pub const CACHED_TOKENS: &str = "gen_ai.usage.cache_read.input_tokens";
    /// Host of the worker.
    pub const SERVER_ADDRESS: &str = "server.address";
    /// Port of the worker.
    pub const SERVER_PORT: &str = "server.port";
    /// Status of the answer.
    pub const STATUS: &str = "http.response.status_code";
    /// A stable code of what failed.
    pub const ERROR: &str = "error.type";
    /// Our request id.
    pub const REQUEST_ID: &str = "smg.request.id";
    /// The worker that was chosen.
    pub const WORKER: &str = "smg.worker.id";
    /// Why it was chosen.
    pub const ROUTE: &str = "smg.route.reason";
    /// Who was looked at for it, with what each would have cost.
    pub const CANDIDATES: &str = "smg.route.candidates";
}

/// An attribute's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Text(Cow<'static, str>),
    /// A number.
    Int(i64),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// Which side of an exchange a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client asks us.
    Server,
    /// We ask a worker.
    Client,
    /// Our own work or wait.
    Internal,
}

/// A span that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its own place.
    pub context: TraceContext,
    /// The span above it, 0 for none, and whether that is another process's.
    pub parent: (u64, bool),
    /// Which side it is.
    pub kind: Kind,
    /// `chat MODEL`.
    pub name: String,
    /// When it began and ended, since the Unix epoch.
    pub times: (Duration, Duration),
    /// What is known of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// Whether it failed.
    pub is_error: bool,
}

/// Makes spans, or none. Clones share one queue.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    queue: mpsc::Sender<Finished>,
    threshold: u64,
    entropy: Entropy,
    clock: Clock,
    metrics: Metrics,
}

impl Tracer {
    /// Makes no spans.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// Records `ratio` of the traces that come without a decision. The receiver gets what is finished.
    #[must_use]
    pub fn new(ratio: f64, entropy: Entropy, clock: Clock, metrics: Metrics) -> (Self, mpsc::Receiver<Finished>) {
        let (queue, finished) = mpsc::channel(QUEUE_LEN);
        // A float saturates when cast: 1.0 becomes all ones, a negative one 0.
        let threshold = (ratio * u64::MAX as f64) as u64;
        (Self(Some(Arc::new(Inner { queue, threshold, entropy, clock, metrics }))), finished)
    }

    /// Whether anything is recorded at all; lets a caller spare itself reading headers.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins the span of a client's request: `operation` as the conventions name it, `model` as asked for.
    pub fn request(&self, operation: &'static str, model: &str, parent: Option<TraceContext>) -> Span {
        let Some(tracer) = &self.0 else { return Span { recording: None, passed: parent } };
        let trace_id = parent.as_ref().map_or_else(|| tracer.trace_id(), |it| it.trace_id);
        let is_sampled = parent.as_ref().map_or_else(|| tracer.samples(trace_id), |it| it.is_sampled);
        if !is_sampled {
            return Span { recording: None, passed: parent };
        }
        let above = parent.as_ref().map_or((0, false), |it| (it.span_id, true));
        let state = parent.and_then(|it| it.state);
        let context = TraceContext { trace_id, span_id: tracer.span_id(), is_sampled: true, state };
        Span::begin(tracer, context, above, Kind::Server, operation, model)
    }
}

impl Inner {
    /// By the trace id, so that every node and process decides alike.
    fn samples(&self, trace_id: u128) -> bool {
        self.threshold > 0 && trace_id as u64 <= self.threshold
    }

    fn trace_id(&self) -> u128 {
        self.entropy.next_u128().max(1)
    }

    /// A moment of the monotonic clock on the wall's.
    fn wall_at(&self, at: Instant) -> Duration {
        self.clock.wall().saturating_sub(self.clock.now().saturating_duration_since(at))
    }

    fn span_id(&self) -> u64 {
        self.entropy.next_u64().max(1)
    }
}

/// A span under way; ends when dropped. One that is not recorded costs nothing and takes everything.
#[derive(Debug, Default)]
#[must_use = "a span ends when it is dropped"]
pub struct Span {
    recording: Option<Box<Recording>>,
    /// The client's context, handed on as it came when nothing is recorded here.
    passed: Option<TraceContext>,
}

#[derive(Debug)]
struct Recording {
    tracer: Arc<Inner>,
    operation: &'static str,
    model: String,
    span: Finished,
    /// Whether its end is in the past already.
    is_over: bool,
    /// What it means when nobody says how it ended.
    unsettled: Option<&'static str>,
}

impl Span {
    fn begin(
        tracer: &Arc<Inner>,
        context: TraceContext,
        parent: (u64, bool),
        kind: Kind,
        operation: &'static str,
        model: &str,
    ) -> Self {
        let now = tracer.clock.wall();
        let attributes = vec![(keys::OPERATION, operation.into()), (keys::REQUEST_MODEL, model.to_owned().into())];
        let name = format!("{operation} {model}").trim_end().to_owned();
        let span = Finished { context, parent, kind, name, times: (now, now), attributes, is_error: false };
        let recording = Recording {
            tracer: Arc::clone(tracer),
            operation,
            model: model.to_owned(),
            span,
            is_over: false,
            unsettled: None,
        };
        Self { recording: Some(Box::new(recording)), passed: None }
    }

    /// Begins the span of one attempt at a worker, as a child.
    pub fn attempt(&self) -> Self {
        let Some(it) = &self.recording else { return Self { recording: None, passed: self.passed.clone() } };
        let context = TraceContext { span_id: it.tracer.span_id(), ..it.span.context.clone() };
        let parent = (it.span.context.span_id, false);
        Self::begin(&it.tracer, context, parent, Kind::Client, it.operation, &it.model)
    }

    /// It began earlier than this object.
    pub fn began(&mut self, at: Instant) {
        if let Some(it) = &mut self.recording {
            it.span.times.0 = it.tracer.wall_at(at);
        }
    }

    /// A part of this span that is over: our own work or wait, as a child.
    pub fn part(&self, name: &'static str, from: Instant, until: Instant) -> Self {
        let mut part = self.attempt();
        if let Some(it) = &mut part.recording {
            it.span.kind = Kind::Internal;
            name.clone_into(&mut it.span.name);
            it.span.times = (it.tracer.wall_at(from), it.tracer.wall_at(until));
            it.span.attributes.clear();
            it.is_over = true;
        }
        part
    }

    /// Whether it is worth computing an attribute.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.recording.is_some()
    }

    /// What the next process is told: this span, or what the client sent.
    #[must_use]
    pub fn context(&self) -> Option<&TraceContext> {
        self.recording.as_ref().map(|it| &it.span.context).or(self.passed.as_ref())
    }

    /// Notes an attribute. Never a prompt, a completion, a header or a key.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(it) = &mut self.recording {
            it.span.attributes.push((key, value.into()));
        }
    }

    /// Failed with this code, unless somebody says how it ended before it is dropped.
    pub fn until_settled(&mut self, code: &'static str) {
        if let Some(it) = &mut self.recording {
            it.unsettled = Some(code);
        }
    }

    /// It ended, or somebody else will say how it does.
    pub fn settled(&mut self) {
        if let Some(it) = &mut self.recording {
            it.unsettled = None;
        }
    }

    /// Notes what failed, by its stable code.
    pub fn fail(&mut self, code: &'static str) {
        if let Some(it) = &mut self.recording {
            it.unsettled = None;
            it.span.is_error = true;
            it.span.attributes.push((keys::ERROR, code.into()));
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(code) = self.recording.as_ref().and_then(|it| it.unsettled) {
            self.fail(code);
        }
        let Some(recording) = self.recording.take() else { return };
        let Recording { tracer, mut span, is_over, .. } = *recording;
        if !is_over {
            span.times.1 = tracer.clock.wall();
        }
        if tracer.queue.try_send(span).is_err() {
            tracer.metrics.ended(Outcome::QueueFull, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(ratio: f64) -> (Tracer, mpsc::Receiver<Finished>, Metrics) {
        let metrics = Metrics::default();
        let (tracer, finished) = Tracer::new(ratio, Entropy::seeded(7), Clock, metrics.clone());
        (tracer, finished, metrics)
    }

    fn parent(is_sampled: bool) -> Option<TraceContext> {
        Some(TraceContext { trace_id: 5, span_id: 6, is_sampled, state: Some("a=b".into()) })
    }

    #[test]
    fn attempts_are_children_of_the_request_which_is_a_child_of_the_client() {
        let (tracer, mut finished, _) = tracer(0.0);
        let request = tracer.request("chat", "m", parent(true));
        let mut attempt = request.attempt();
        attempt.set(keys::SERVER_ADDRESS, "gpu1");
        attempt.fail("timeout");
        drop(attempt);
        drop(request);
        let (attempt, request) = (finished.try_recv().expect("ended"), finished.try_recv().expect("ended"));
        assert_eq!((request.name.as_str(), request.parent, request.context.trace_id), ("chat m", (6, true), 5));
        assert_eq!((attempt.parent, attempt.kind), ((request.context.span_id, false), Kind::Client));
        assert_eq!(attempt.context.state.as_deref(), Some("a=b"));
        assert!(attempt.is_error && attempt.attributes.contains(&(keys::ERROR, "timeout".into())));
    }

    #[test]
    fn a_span_that_nobody_settled_has_failed() {
        let (tracer, mut finished, _) = tracer(1.0);
        for is_settled in [false, true] {
            let mut request = tracer.request("chat", "m", None);
            request.until_settled("client_gone");
            if is_settled {
                request.settled();
            }
            drop(request);
            assert_eq!(finished.try_recv().expect("ended").is_error, !is_settled);
        }
    }

    #[test]
    fn a_part_lies_inside_its_request_and_is_our_own() {
        let (tracer, mut finished, _) = tracer(1.0);
        let began = Clock.now() - Duration::from_secs(3);
        let mut request = tracer.request("chat", "m", None);
        request.began(began);
        drop(request.part("admission", began + Duration::from_secs(1), began + Duration::from_secs(2)));
        drop(request);
        let (part, request) = (finished.try_recv().expect("ended"), finished.try_recv().expect("ended"));
        assert_eq!(
            (part.name.as_str(), part.kind, part.parent.0),
            ("admission", Kind::Internal, request.context.span_id)
        );
        assert!(request.times.0 < part.times.0 && part.times.0 < part.times.1 && part.times.1 < request.times.1);
    }

    #[test]
    fn the_clients_decision_is_kept_and_its_context_handed_on() {
        for tracer in [tracer(1.0).0, Tracer::off()] {
            let request = tracer.request("chat", "m", parent(false));
            assert!(!request.is_recorded());
            assert_eq!(request.attempt().context().cloned(), parent(false));
        }
    }

    #[test]
    fn the_ratio_decides_where_nobody_did() {
        for (ratio, low, high) in [(0.0, 0, 0), (0.25, 200, 300), (1.0, 1000, 1000)] {
            let (tracer, _finished, _) = tracer(ratio);
            let recorded = (0..1000).filter(|_| tracer.request("chat", "m", None).is_recorded()).count();
            assert!((low..=high).contains(&recorded), "{ratio}: {recorded}");
        }
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_never_waits() {
        let (tracer, _finished, metrics) = tracer(1.0);
        for _ in 0..QUEUE_LEN + 3 {
            drop(tracer.request("chat", "m", None));
        }
        assert_eq!(metrics.count(Outcome::QueueFull), 3);
    }
}
