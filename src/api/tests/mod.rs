//! The edge without a socket: requests go into the router, scripted workers stand behind the registry, time is held still.

mod bodies;
mod chaos;
mod errors;
mod fuzz;
mod history;
mod relay;
mod routes;
mod tenants;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Request;
use http::StatusCode;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::sync::watch;
use tower::ServiceExt as _;

use super::Response;
use super::config::Config;
use super::gateway::Gateway;
use super::gateway::Phase;
use super::gateway::ThisNode;
use super::intake::Intake;
use super::intake::Patience;
use super::metrics::Metrics;
use super::routes::router as routes_of;
use crate::base::clock::Clock;
use crate::base::entropy::Entropy;
use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;
use crate::base::setting::Setting as _;
use crate::base::tasks::Tasks;
use crate::chaos as faults;
use crate::history::Backend;
use crate::limits;
use crate::observability::labels::ModelLabels;
use crate::observability::metrics::Registry as MetricsRegistry;
use crate::observability::traces::span::Tracer;
use crate::routing::edits::PolicyEdits;
use crate::storage;
use crate::tenancy;
use crate::tenancy::admission::Admission;
use crate::tenancy::budget::Budgets;
use crate::tenancy::config::KeySpec;
use crate::tenancy::keys::Keys;
use crate::workers;
use crate::workers::edits::Edits;
use crate::workers::edits::Grounds;
use crate::workers::fake::Fake;
use crate::workers::fake::Seen;
use crate::workers::fake::Step;
use crate::workers::health::Rules;
use crate::workers::http::Dialer;
use crate::workers::observers::Observers;
use crate::workers::prober::Prober;
use crate::workers::registry::Registry;

/// What a test says of its node.
#[derive(Default)]
struct Settings {
    server: Config,
    routing: crate::routing::Config,
    keys: &'static [&'static str],
    concurrent_max: usize,
    queue_len_max: usize,
    /// Where history is kept, and by which node.
    history: Option<(Arc<dyn Backend>, StorageId)>,
    /// What may go wrong on purpose.
    chaos: faults::Handle,
}

/// A node's edge.
struct Edge {
    gateway: Arc<Gateway>,
    routes: Router,
}

fn rules(workers: &workers::config::Config) -> Rules {
    Rules {
        failure_threshold: workers.failure_threshold,
        success_threshold: workers.success_threshold,
        breaker_failures: workers.breaker_failures,
        breaker_window: workers.breaker_window,
        breaker_open: workers.breaker_open,
        pause_max: Duration::from_secs(60),
        memory: Duration::from_secs(15),
    }
}

/// A data directory that keeps nothing.
fn nowhere() -> storage::Handle {
    storage::Handle::open(storage::Place::Nowhere, storage::Metrics::default(), faults::Handle::default())
}

impl Edge {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        // Nodes of one history draw differently, or one's commands would be taken for another's.
        let node = settings.history.as_ref().map_or(0, |it| it.1.0 as u64);
        let (tasks, entropy) = (Tasks::new(), Entropy::seeded(11 + 1000 * node));
        let (workers, mut metrics) = (workers::config::Config::default(), MetricsRegistry::default());
        let dialer = Dialer::new(&workers, tasks.clone(), workers::metrics::Metrics::default()).expect("the defaults");
        let registry = Arc::new(Registry::new(rules(&workers), dialer));
        let keys = settings.keys.iter().map(|it| KeySpec::parse(it).expect("a key").into()).collect();
        let server = settings.server;
        let counts = tenancy::metrics::Metrics::default();
        let patience =
            Patience { idle: server.body_idle_timeout, whole: server.body_timeout, budget: server.body_budget_wait };
        let storage = nowhere();
        let tables = crate::replication::alone(&crate::replication::store::memory::Disk::default(), &tasks);
        let grounds = Grounds {
            registry: Arc::clone(&registry),
            tables: tables.clone(),
            seals: Arc::new(storage.clone()),
            entropy: entropy.clone(),
            tasks: tasks.clone(),
            owns_loopback: false,
            is_dead: Arc::new(|_| false),
            on_gone: Arc::new(|_| ()),
        };
        let policies = settings.routing.policies();
        let router = Arc::new(crate::routing::Router::new(settings.routing, entropy.clone()));
        let policies =
            PolicyEdits::start(Arc::clone(&router), tables.clone(), policies, entropy.clone(), tasks.clone());
        let keys = Arc::new(Keys::new(keys, counts.clone()));
        let observers = Observers::alone(StorageId(1), workers.away_max);
        let watched = workers::metrics::Metrics::default();
        let prober =
            Prober::new(Arc::clone(&registry), &workers, watched, tasks.clone(), Arc::new(|_, _| ()), observers);
        let history = settings.history.map(|(backend, storage)| {
            let config = crate::history::config::Config::default();
            crate::history::Handle::new(backend, &config, None, (storage, 1), entropy.clone())
        });
        let gateway = Gateway {
            history: history.clone(),
            tenants: tenancy::edits::Edits::start(
                Arc::clone(&keys),
                tables.clone(),
                entropy.clone(),
                tokio::sync::watch::Sender::default(),
                &tasks,
            ),
            budgets: Budgets::new(Arc::clone(&keys), limits::Handle::nowhere(limits::OnIsolation::Deny)),
            keys,
            admission: Admission::new(settings.concurrent_max, settings.queue_len_max, Duration::from_secs(5), counts),
            intake: Intake::new(server.max_payload_size.0, server.body_budget.0, patience),
            prober,
            edits: Edits::start(grounds, Vec::new()),
            policies,
            storage,
            node: ThisNode { name: "test".to_owned(), started: Clock.now(), tasks: tasks.clone() },
            tables,
            members: None,
            control: None,
            ledger: None,
            chaos: settings.chaos,
            registry,
            router,
            metrics: Metrics::register(&mut metrics, ModelLabels::default()),
            tracer: Tracer::off(),
            config: server,
            clock: Clock,
            entropy,
            phase: Phase::default(),
        };
        let gateway = Arc::new(gateway);
        Self { routes: routes_of(&gateway), gateway }
    }

    /// A worker that serves `models` and plays `scripts`.
    fn worker(&self, models: &[&str], scripts: impl IntoIterator<Item = Vec<Step>>) -> Played {
        let fake = Fake::new(scripts);
        let seen = fake.seen();
        let name = self.gateway.registry.fleet().all.len().to_string();
        Played { id: self.gateway.registry.play(&name, models, Arc::new(fake)), seen }
    }

    /// The answer's head at once, its body as it comes.
    async fn begin(&self, request: Request<Body>) -> Response {
        self.routes.clone().oneshot(request).await.expect("the router answers everything")
    }

    async fn send(&self, request: Request<Body>) -> Reply {
        Reply::of(self.begin(request).await).await
    }

    async fn post(&self, path: &str, body: &str) -> Reply {
        self.send(post(path, body)).await
    }

    /// Requests in flight at all workers, and prompt tokens thought to wait there.
    fn load(&self) -> (u64, u64) {
        let fleet = self.gateway.registry.fleet();
        let loads = fleet.all.iter().map(|it| (it.load.requests(), it.load.queued_prefill_tokens(Clock.now())));
        loads.fold((0, 0), |all, it| (all.0 + it.0, all.1 + it.1))
    }
}

/// A worker that a test plays.
struct Played {
    id: WorkerId,
    seen: watch::Receiver<Seen>,
}

impl Played {
    fn calls(&self) -> usize {
        self.seen.borrow().calls.len()
    }

    fn body(&self, call: usize) -> String {
        String::from_utf8(self.seen.borrow().calls[call].body.to_vec()).expect("UTF-8")
    }
}

/// An answer with its whole body.
#[derive(Debug)]
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Reply {
    async fn of(response: Response) -> Self {
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.expect("our bodies do not fail").to_bytes();
        let body = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        Self { status: head.status, headers: head.headers, body }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Status and code of an error in OpenAI's schema.
    fn error(&self) -> (u16, String) {
        (self.status.as_u16(), self.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|it| it.to_str().expect("text"))
    }
}

fn request(method: &str, path: &str, body: impl Into<Body>) -> Request<Body> {
    let builder = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let mut request = builder.body(body.into()).expect("a request");
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 40_000))));
    request
}

fn post(path: &str, body: &str) -> Request<Body> {
    request("POST", path, Bytes::copy_from_slice(body.as_bytes()))
}

fn with_header(mut request: Request<Body>, name: &'static str, value: &str) -> Request<Body> {
    request.headers_mut().insert(name, value.parse().expect("a header value"));
    request
}

const CHAT: &str = "/v1/chat/completions";
const ASK: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
const ASK_STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}"#;
const ANSWER: &str =
    r#"{"id":"1","choices":[{"message":{"content":"hello"}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;

fn head(status: u16, kind: &'static str) -> Step {
    let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
    Step::Head(StatusCode::from_u16(status).expect("a status"), headers)
}

/// A whole answer.
fn whole(status: u16, body: &'static str) -> Vec<Step> {
    vec![head(status, "application/json"), Step::text(body)]
}

/// The head of a stream, then these steps.
fn stream(steps: impl IntoIterator<Item = Step>) -> Vec<Step> {
    std::iter::once(head(200, "text/event-stream")).chain(steps).collect()
}

const ROLE: &str = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n";
const HEL: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hel\"}}]}\n\n";
const LO: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"lo\"}}]}\n\n";
const STOP: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// A stream that ends well.
fn good_stream() -> Vec<Step> {
    stream([ROLE, HEL, LO, STOP, USAGE, DONE].map(Step::text))
}
