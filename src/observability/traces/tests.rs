//! A collector that is not one: it takes OTLP over HTTP and shows what it got.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span as Received;
use prost::Message as _;
use tokio::sync::mpsc;

use super::Metrics;
use super::Outcome;
use super::context::TraceContext;
use super::export;
use super::span::Tracer;
use super::span::keys;
use crate::base::clock::Clock;
use crate::base::entropy::Entropy;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;

const COLLECTOR: Task = Task { name: "collector", stage: Stage::Carry, on_end: OnEnd::Fine };

/// Takes batches with these statuses in turn, the last one for ever, and passes their path and spans on.
async fn collector(
    tasks: &Tasks,
    statuses: &'static [StatusCode],
) -> (String, mpsc::Receiver<(String, ExportTraceServiceRequest)>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let (sender, receiver) = mpsc::channel(16);
    let turn = Arc::new(AtomicUsize::new(0));
    tasks.spawn(COLLECTOR, |_stop| async move {
        while let Ok((stream, _)) = listener.accept().await {
            let take = service_fn(|request: Request<Incoming>| async {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await.expect("a whole body").to_bytes();
                let _ = sender.send((path, ExportTraceServiceRequest::decode(body).expect("OTLP"))).await;
                let status = statuses[turn.fetch_add(1, Ordering::SeqCst).min(statuses.len() - 1)];
                let response = Response::builder().status(status).body(Full::new(Bytes::new()));
                Ok::<_, Infallible>(response.expect("is a response"))
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), take).await;
        }
    });
    (url, receiver)
}

fn text(span: &Received, key: &str) -> String {
    let value = span.attributes.iter().find(|it| it.key == key).and_then(|it| it.value.clone()?.value);
    match value {
        Some(Any::StringValue(text)) => text,
        Some(Any::IntValue(number)) => number.to_string(),
        other => panic!("{key}: {other:?}"),
    }
}

#[tokio::test]
async fn a_collector_gets_the_spans_of_a_request_with_their_names_and_parents() {
    let (tasks, exporter, metrics) = (Tasks::new(), Tasks::new(), Metrics::default());
    let (url, mut received) = collector(&tasks, &[StatusCode::OK]).await;
    let (tracer, finished) = Tracer::new(1.0, Entropy::seeded(1), Clock, metrics.clone());
    export::start(&url, "node-1", finished, metrics.clone(), &exporter).expect("starts");

    let client = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut request = tracer.request("chat", "llama", TraceContext::parse(client, None));
    let mut attempt = request.attempt();
    attempt.set(keys::SERVER_ADDRESS, "gpu1");
    drop(attempt);
    request.set(keys::INPUT_TOKENS, 12_u64);
    request.set(keys::OUTPUT_TOKENS, 7_u64);
    drop(request);

    let waited = tokio::time::timeout(Duration::from_secs(10), received.recv()).await.expect("in time");
    let (path, batch) = waited.expect("a batch");
    let resource = &batch.resource_spans[0];
    let service = resource.resource.as_ref().expect("is set").attributes.iter().find(|it| it.key == "service.name");
    assert!(path == "/v1/traces" && service.is_some());
    let [attempt, request] = &resource.scope_spans[0].spans[..] else { panic!("two spans: {batch:?}") };
    assert_eq!((attempt.name.as_str(), request.name.as_str()), ("chat llama", "chat llama"));
    assert_eq!(request.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes());
    assert_eq!(request.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    assert_eq!((&attempt.parent_span_id, &attempt.trace_id), (&request.span_id, &request.trace_id));
    assert_eq!(text(request, "gen_ai.operation.name"), "chat");
    assert_eq!(text(request, "gen_ai.request.model"), "llama");
    assert_eq!(text(request, "gen_ai.usage.input_tokens"), "12");
    assert_eq!(text(request, "gen_ai.usage.output_tokens"), "7");
    assert_eq!(text(attempt, "server.address"), "gpu1");

    assert_eq!(exporter.stop_stage(Stage::Carry, Duration::from_secs(10)).await, 0);
    assert_eq!(metrics.count(Outcome::Exported), 2);
}

#[tokio::test]
async fn what_the_collector_refuses_is_counted_and_what_is_finished_before_the_stop_still_goes() {
    let (tasks, exporter, metrics) = (Tasks::new(), Tasks::new(), Metrics::default());
    let (url, mut received) = collector(&tasks, &[StatusCode::BAD_REQUEST]).await;
    let (tracer, finished) = Tracer::new(1.0, Entropy::seeded(1), Clock, metrics.clone());
    export::start(&url, "node-1", finished, metrics.clone(), &exporter).expect("starts");
    drop(tracer.request("embeddings", "e5", None));
    assert_eq!(exporter.stop_stage(Stage::Carry, Duration::from_secs(10)).await, 0);
    assert!(received.try_recv().is_ok());
    assert_eq!(metrics.count(Outcome::ExportFailed), 1);
}

/// How a batch of one span fares, and how often it was sent.
async fn exported(statuses: &'static [StatusCode]) -> (u64, u64, usize) {
    let (tasks, exporter, metrics) = (Tasks::new(), Tasks::new(), Metrics::default());
    let (url, mut received) = collector(&tasks, statuses).await;
    let (tracer, finished) = Tracer::new(1.0, Entropy::seeded(1), Clock, metrics.clone());
    export::start(&url, "node-1", finished, metrics.clone(), &exporter).expect("starts");
    drop(tracer.request("chat", "llama", None));
    assert_eq!(exporter.stop_stage(Stage::Carry, Duration::from_secs(20)).await, 0);
    let sent = std::iter::from_fn(|| received.try_recv().ok()).count();
    (metrics.count(Outcome::Exported), metrics.count(Outcome::ExportFailed), sent)
}

#[tokio::test]
async fn a_busy_collector_is_asked_again_a_few_times_and_then_the_spans_are_dropped_and_counted() {
    assert_eq!(exported(&[StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK]).await, (1, 0, 2));
    assert_eq!(exported(&[StatusCode::SERVICE_UNAVAILABLE]).await, (0, 1, 4));
}
