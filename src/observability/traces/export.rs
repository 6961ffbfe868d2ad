//! Finished spans to a collector: OTLP over HTTP with protobuf, in batches, by one task.
//!
//! A batch leaves when it is full or a second old. What the collector is too busy for (429, 502 to 504) is repeated
//! `REPEATS_MAX` times within the batch's deadline; what it then has not taken is dropped and counted. TLS is absent: a collector stands beside its gateway.

use std::time::Duration;
use std::time::UNIX_EPOCH;

use opentelemetry::InstrumentationScope;
use opentelemetry::KeyValue;
use opentelemetry::SpanId;
use opentelemetry::TraceFlags;
use opentelemetry::TraceId;
use opentelemetry::trace::SpanContext;
use opentelemetry::trace::SpanKind;
use opentelemetry::trace::Status;
use opentelemetry::trace::TraceState;
use opentelemetry_otlp::RetryPolicy;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_otlp::WithHttpConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::sync::mpsc;

use super::Metrics;
use super::Outcome;
use super::span::Finished;
use super::span::Kind;
use super::span::Value;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Stop;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;

const TASK: Task = Task { name: "traces", stage: Stage::Carry, on_end: OnEnd::Log };

/// Spans sent at a time. More make requests that collectors refuse, fewer cost a request each.
const BATCH_LEN: usize = 512;

/// How old a batch may become. Shorter sends small ones, longer loses more when the process dies.
const BATCH_AGE: Duration = Duration::from_secs(1);

/// One batch, repeats included, must be sent within this time; meanwhile the queue fills.
const DEADLINE: Duration = Duration::from_secs(10);

/// Repeats of one batch. Fewer lose more to a collector that restarts, more keep it from coming up.
const REPEATS_MAX: usize = 3;

/// Why spans cannot be exported. The operator's to mend; nothing was started.
#[derive(Debug, thiserror::Error)]
#[error("cannot export traces to `{endpoint}`: {cause}")]
pub struct ExportError {
    /// Where to.
    pub endpoint: String,
    /// Why not.
    pub cause: opentelemetry_otlp::ExporterBuildError,
}

/// Starts the task that exports what is finished. `endpoint` is the collector's base URL; `/v1/traces` is added.
pub fn start(
    endpoint: &str,
    node_name: &str,
    finished: mpsc::Receiver<Finished>,
    metrics: Metrics,
    tasks: &Tasks,
) -> Result<(), ExportError> {
    let base = endpoint.trim_end_matches('/');
    let url = if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") };
    let repeats = RetryPolicy::recommended().with_max_retries(REPEATS_MAX);
    let exporter = SpanExporter::builder().with_http().with_endpoint(url).with_timeout(DEADLINE);
    let exporter = exporter.with_retry_policy(repeats).build();
    let mut exporter = exporter.map_err(|cause| ExportError { endpoint: endpoint.to_owned(), cause })?;
    let instance = KeyValue::new("service.instance.id", node_name.to_owned());
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder_empty().with_service_name("smg").with_attributes([instance, version]);
    exporter.set_resource(&resource.build());
    tasks.spawn(TASK, |stop| Driver { exporter, metrics, is_failing: false }.run(finished, stop));
    Ok(())
}

struct Driver {
    exporter: SpanExporter,
    metrics: Metrics,
    is_failing: bool,
}

impl Driver {
    async fn run(mut self, mut finished: mpsc::Receiver<Finished>, stop: Stop) {
        let mut batch = Vec::with_capacity(BATCH_LEN);
        loop {
            let received = tokio::select! {
                received = finished.recv_many(&mut batch, BATCH_LEN) => received,
                () = stop.cancelled() => break,
            };
            if received == 0 {
                break;
            }
            let fill = async {
                while let room @ 1.. = BATCH_LEN - batch.len()
                    && finished.recv_many(&mut batch, room).await > 0
                {}
            };
            tokio::select! {
                _ = tokio::time::timeout(BATCH_AGE, fill) => {} // full, or old enough
                () = stop.cancelled() => {}
            }
            self.export(&mut batch).await;
        }
        // What was finished before the stop still goes; the stage's own deadline bounds it.
        finished.close();
        while finished.recv_many(&mut batch, BATCH_LEN).await > 0 {
            self.export(&mut batch).await;
        }
    }

    async fn export(&mut self, batch: &mut Vec<Finished>) {
        let spans = batch.len();
        let data: Vec<SpanData> = batch.drain(..).map(span_data).collect();
        let failure = match tokio::time::timeout(DEADLINE, self.exporter.export(data)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(elapsed) => Some(elapsed.to_string()),
        };
        let outcome = if failure.is_some() { Outcome::ExportFailed } else { Outcome::Exported };
        self.metrics.ended(outcome, spans);
        // Once per change: a collector that is away for a night is one line.
        match failure {
            Some(error) if !self.is_failing => tracing::warn!(error, "traces cannot be exported"),
            None if self.is_failing => tracing::info!("traces are exported again"),
            _ => {}
        }
        self.is_failing = outcome == Outcome::ExportFailed;
    }
}

fn span_data(span: Finished) -> SpanData {
    let state = span.context.state.as_deref().and_then(|it| it.parse::<TraceState>().ok()).unwrap_or_default();
    let attributes = span.attributes.into_iter().map(|(key, value)| match value {
        Value::Text(text) => KeyValue::new(key, text),
        Value::Int(number) => KeyValue::new(key, number),
    });
    SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(span.context.trace_id.to_be_bytes()),
            SpanId::from_bytes(span.context.span_id.to_be_bytes()),
            TraceFlags::SAMPLED,
            false,
            state,
        ),
        parent_span_id: SpanId::from_bytes(span.parent.0.to_be_bytes()),
        parent_span_is_remote: span.parent.1,
        span_kind: match span.kind {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
            Kind::Internal => SpanKind::Internal,
        },
        name: span.name.into(),
        start_time: UNIX_EPOCH + span.times.0,
        end_time: UNIX_EPOCH + span.times.1,
        attributes: attributes.collect(),
        dropped_attributes_count: 0,
        events: Default::default(),
        links: Default::default(),
        status: if span.is_error { Status::error("") } else { Status::Unset },
        instrumentation_scope: InstrumentationScope::builder("smg").with_version(env!("CARGO_PKG_VERSION")).build(),
    }
}
