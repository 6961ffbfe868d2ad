//! No registered series stands still: each scenario makes a family of metrics move, and together they cover all of
//! `docs/reference/metrics.md`, which a golden test keeps equal to what is registered. A metric that nothing sets is named.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_tests::Capture;
use cluster_tests::Client;
use cluster_tests::Scrape;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::chat;
use cluster_tests::eventually;
use cluster_tests::node;
use cluster_tests::scrape::measured;
use smg::base::setting::ByteSize;
use smg::base::setting::Setting;
use smg::config::Config;
use smg::config::Sources;
use smg::node::Node;
use smg::observability::panics;
use smg::routing::policies::PolicyName;

/// Set by requests that all go well.
const HAPPY: &[&str] = &[
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_threads",
    "smg_build_info",
    "smg_http_body_budget_bytes",
    "smg_http_connections_active",
    "smg_http_request_bytes_total",
    "smg_http_requests_total",
    "smg_http_response_bytes_total",
    "smg_http_responses_total",
    "smg_router_inter_token_seconds",
    "smg_router_request_duration_seconds",
    "smg_router_requests_total",
    "smg_router_stage_duration_seconds",
    "smg_router_streams_total",
    "smg_router_tokens_total",
    "smg_router_ttft_seconds",
    "smg_router_upstream_responses_total",
    "smg_routing_decision_seconds",
    "smg_routing_expected_cached_tokens_total",
    "smg_routing_prefix_map_bytes",
    "smg_routing_prefix_map_entries",
    "smg_routing_reported_cached_tokens_total",
    "smg_routing_retry_budget",
    "smg_scheduler_admit_total",
    "smg_worker_connect_seconds",
    "smg_worker_connections_active",
    "smg_worker_connections_idle",
    "smg_worker_connections_opened_total",
    "smg_worker_health",
    "smg_worker_health_checks_total",
    "smg_worker_pool_size",
    "smg_worker_recoveries_total",
    "smg_worker_selection_total",
];

/// Set while requests wait and flow, and by clients that leave.
const IN_FLIGHT: &[&str] = &[
    "smg_http_body_budget_used_bytes",
    "smg_router_aborts_total",
    "smg_router_keep_alive_comments_total",
    "smg_router_requests_active",
    "smg_router_streams_active",
    "smg_scheduler_queue_depth",
    "smg_scheduler_queue_size_limit",
    "smg_scheduler_queue_wait_seconds",
    "smg_worker_queued_prefill_tokens",
    "smg_worker_requests_active",
];

/// Set by workers that fail.
const FAILURES: &[&str] = &[
    "smg_router_request_errors_total",
    "smg_routing_retries_withheld_total",
    "smg_worker_cb_state",
    "smg_worker_cb_transitions_total",
    "smg_worker_connect_failures_total",
    "smg_worker_errors_total",
    "smg_worker_retries_total",
    "smg_worker_retry_backoff_seconds",
    "smg_worker_stale_connections_total",
];

/// Set by requests that go nowhere, by keys that fit nothing, by sessions and by many prompts.
const ROUTING: &[&str] = &[
    "smg_manual_policy_cache_entries",
    "smg_routing_prefix_map_evictions_total",
    "smg_routing_refusals_total",
    "smg_tenancy_auth_failures_total",
];

/// Set by operators and by workers that are started anew.
const EDITS: &[&str] = &["smg_storage_durable", "smg_replication_edits_total", "smg_worker_restarts_total"];

/// Set by the process around all that.
const PROCESS: &[&str] = &[
    "smg_config_reloads_total",
    "smg_log_lines_dropped_total",
    "smg_log_lines_total",
    "smg_panics_total",
    "smg_traces_spans_total",
];

#[test]
fn every_registered_metric_has_a_scenario_that_moves_it() {
    let page = include_str!("../../../docs/reference/metrics.md");
    let rows = page.lines().filter_map(|it| it.strip_prefix("| `")?.split('`').next());
    let registered: BTreeSet<&str> = rows.collect();
    let moved: BTreeSet<&str> = [
        HAPPY,
        IN_FLIGHT,
        FAILURES,
        ROUTING,
        EDITS,
        PROCESS,
        super::chaos::CHAOS,
        super::control::CONTROL,
        super::history::HISTORY,
        super::history::PURGES,
        super::history::SNAPSHOT,
        super::limits::LIMITS,
        super::meters_mesh::MESH,
        super::meters_mesh::LEDGER,
        super::meters_mesh::FORWARDED,
        super::meters_mesh::WATCHED,
        super::sharing::SHARING,
    ]
    .concat()
    .into_iter()
    .collect();
    let still: Vec<_> = registered.difference(&moved).collect();
    assert!(still.is_empty(), "registered, and no scenario moves them: {still:?}");
    let gone: Vec<_> = moved.difference(&registered).collect();
    assert!(gone.is_empty(), "moved here, and not registered: {gone:?}");
    let own = registered.iter().filter(|it| it.starts_with("smg_")).count();
    assert!(own >= 40, "a gateway is watched by more than {own} metrics");
}

/// Notes what moves at a node, scrape by scrape.
pub(crate) struct Watch {
    pub(crate) node: Node,
    moved: BTreeSet<String>,
}

impl Watch {
    pub(crate) async fn start(config: Config) -> Self {
        Self { node: node(measured(config)).await, moved: BTreeSet::new() }
    }

    pub(crate) async fn scrape(&mut self) -> Scrape {
        let scrape = Scrape::of(self.node.metrics_address.expect("is measured")).await;
        self.moved.extend(scrape.moved());
        scrape
    }

    /// Waits until one series, or all of a name, says this.
    pub(crate) async fn until(&mut self, what: &str, condition: impl Fn(&Scrape) -> bool) {
        let address = self.node.metrics_address.expect("is measured");
        eventually(what, async || {
            let scrape = Scrape::of(address).await;
            self.moved.extend(scrape.moved());
            condition(&scrape)
        })
        .await;
    }

    pub(crate) async fn post(&self, headers: &str, body: &str) -> u16 {
        let mut client = Client::connect(self.node.address).await;
        client.start_post("/v1/chat/completions", headers, body).await;
        client.answer().await.status
    }

    /// Ends the scenario; names every metric that stood still in it.
    pub(crate) async fn end(mut self, expected: &[&str]) {
        let scrape = self.scrape().await;
        let still: Vec<_> = expected.iter().filter(|it| !self.moved.contains(**it)).collect();
        assert!(still.is_empty(), "stood still: {still:?}");
        for (key, value) in scrape.labels() {
            let is_free = ["le", "worker", "model", "path", "method", "version"].contains(&key.as_str());
            let is_word = value.bytes().all(|it| matches!(it, b'a'..=b'z' | b'0'..=b'9' | b'_'));
            assert!(is_free || (is_word && !value.is_empty()), "not a word of snake_case: {key}={value}");
        }
        self.node.shutdown().await;
    }
}

fn policy(name: &str) -> PolicyName {
    <PolicyName as Setting>::parse(name).expect("a policy")
}

fn stream() -> Vec<Step> {
    vec![Step::stream_head(), Step::preamble(), Step::content("a"), Step::content("b"), Step::end()]
}

#[tokio::test]
async fn what_goes_well_is_measured() {
    let worker = Upstream::start("one").await;
    let mut watch = Watch::start(cluster_tests::config(&[&worker])).await;
    let told = r#"{"choices":[],"usage":{"prompt_tokens":500,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":400}}}"#;
    worker.always(Step::answer("200 OK", "", told));
    let long = chat(&"the same long beginning of every prompt ".repeat(100), false);
    for _ in 0..3 {
        assert_eq!(watch.post("", &long).await, 200);
    }
    worker.script(stream());
    let mut client = Client::connect(watch.node.address).await;
    let streamed = client.post("/v1/chat/completions", &chat("hi", true)).await;
    assert_eq!(streamed.status, 200);
    watch.until("idle connections are counted", |it| it.sum("smg_worker_connections_idle") > 0.0).await;
    let scrape = watch.scrape().await;
    for (series, expected) in [
        (r#"smg_router_tokens_total{model="m",token_type="input"}"#, 1505.0),
        (r#"smg_router_tokens_total{model="m",token_type="output"}"#, 23.0),
        (r#"smg_router_tokens_total{model="m",token_type="cached"}"#, 1200.0),
        (r#"smg_router_requests_total{model="m",endpoint="chat",streaming="true"}"#, 1.0),
        (r#"smg_router_requests_total{model="m",endpoint="chat",streaming="false"}"#, 3.0),
        (r#"smg_router_ttft_seconds_count{model="m",endpoint="chat"}"#, 1.0),
        (r#"smg_http_responses_total{path="/v1/chat/completions",status_code="200",error_code="none"}"#, 4.0),
        (r#"smg_router_streams_total{end="complete"}"#, 1.0),
        ("smg_http_response_bytes_total", (3 * told.len() + streamed.body.len()) as f64),
        ("smg_http_request_bytes_total", (3 * long.len() + chat("hi", true).len()) as f64),
        (r#"smg_router_stage_duration_seconds_count{stage="first_byte"}"#, 1.0),
        (r#"smg_worker_pool_size{state="ready"}"#, 1.0),
        ("smg_router_requests_active", 0.0),
        ("smg_router_streams_active", 0.0),
    ] {
        assert!((scrape.value(series) - expected).abs() < 0.5, "{series} {} {scrape:#?}", scrape.value(series));
    }
    let stages = ["accept", "body", "queue", "parse", "route", "upstream", "first_token", "first_byte"];
    for stage in stages {
        let series = format!("smg_router_stage_duration_seconds_count{{stage=\"{stage}\"}}");
        assert!(scrape.value(&series) > 0.0, "{series}");
    }
    watch.end(HAPPY).await;
}

#[tokio::test]
async fn what_waits_and_flows_and_leaves_is_measured() {
    let worker = Upstream::start("one").await;
    let mut config = cluster_tests::config(&[&worker]);
    config.tenancy.max_concurrent_requests = Setting::parse("1").expect("a number");
    config.server.stream_keep_alive = Duration::from_millis(50);
    let mut watch = Watch::start(config).await;
    let aborted = |phase: &str| {
        let series = format!("smg_router_aborts_total{{phase=\"{phase}\"}}");
        move |scrape: &Scrape| scrape.value(&series) >= 1.0
    };
    let address = watch.node.address;
    let open = async |is_stream| {
        let mut client = Client::connect(address).await;
        client.start_post("/v1/chat/completions", "", &chat("hi", is_stream)).await;
        client
    };

    // The head of a body, and no more.
    let mut half = Client::connect(address).await;
    half.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ncontent-length: 9\r\n\r\n{").await;
    // One holds the only slot, silently; two wait for it, and one of those leaves.
    worker.script(vec![Step::stream_head(), Step::preamble(), Step::WaitForClose]);
    let first = open(true).await;
    eventually("it is with the worker", async || worker.requests().len() == 1).await;
    worker.script(vec![Step::WaitForClose]);
    let (second, third) = (open(false).await, open(false).await);
    watch.until("two wait", |it| it.value("smg_scheduler_queue_depth") == 2.0).await;
    let comments = |it: &Scrape| it.value("smg_router_keep_alive_comments_total") > 0.0;
    watch.until("the silence is bridged", comments).await;
    let scrape = watch.scrape().await;
    assert!(scrape.value("smg_router_requests_active") == 1.0 && scrape.sum("smg_worker_requests_active") == 1.0);
    drop(half);
    watch.until("one left with half a body", aborted("body")).await;
    drop(third);
    watch.until("one left the queue", aborted("queue")).await;
    drop(first);
    watch.until("one left before a token", aborted("first_token")).await;
    eventually("the next is with the worker", async || worker.requests().len() == 2).await;
    drop(second);
    watch.until("one left before an answer", aborted("upstream")).await;
    worker.script(vec![Step::stream_head(), Step::content("seen"), Step::WaitForClose]);
    let mut client = open(true).await;
    assert!(client.read_until("seen").await);
    watch.until("a stream flows", |it| it.value("smg_router_streams_active") == 1.0).await;
    drop(client);
    watch.until("one left in mid-stream", aborted("answer")).await;
    let scrape = watch.scrape().await;
    assert_eq!(scrape.value(r#"smg_router_streams_total{end="client_gone"}"#), 1.0);
    assert_eq!(scrape.value(r#"smg_scheduler_admit_total{outcome="client_gone"}"#), 1.0);
    for gauge in ["smg_router_requests_active", "smg_router_streams_active", "smg_scheduler_queue_depth"] {
        watch.until("every gauge is back", |it| it.value(gauge) == 0.0).await;
    }
    watch.end(IN_FLIGHT).await;
}

#[tokio::test]
async fn what_fails_is_measured() {
    let (one, two) = (Upstream::start("one").await, Upstream::start("two").await);
    let mut config = cluster_tests::config(&[&one, &two]);
    config.routing.policy = policy("round_robin");
    config.workers.breaker_failures = 4;
    let mut watch = Watch::start(config).await;
    for worker in [&one, &two] {
        worker.script(Step::completion("fine"));
        worker.script(Step::answer("500 Internal Server Error", "", "{}"));
    }
    // Each worker serves, then fails once: a failure goes to the other one, then to the client.
    for _ in 0..4 {
        watch.post("", &chat("hi", false)).await;
    }
    let scrape = watch.scrape().await;
    assert!(scrape.value(r#"smg_worker_retries_total{reason="failed"}"#) >= 1.0, "{scrape:#?}");
    // A connection that died while it was idle is replaced, unseen.
    one.script(vec![Step::Close]);
    two.script(vec![Step::Close]);
    for _ in 0..2 {
        assert_eq!(watch.post("", &chat("hi", false)).await, 200);
    }
    // Failures upon failures open the breakers, and the clients see them.
    for worker in [&one, &two] {
        worker.always(Step::answer("500 Internal Server Error", "", "{}"));
    }
    for _ in 0..6 {
        assert_eq!(watch.post("", &chat("hi", false)).await, 500);
    }
    watch.until("a breaker is open", |it| it.sum("smg_worker_cb_state") >= 1.0).await;
    let broken = r#"smg_router_request_errors_total{model="m",endpoint="chat",error_type="worker_status"}"#;
    let scrape = watch.scrape().await;
    assert!(scrape.value(broken) >= 6.0, "{scrape:#?}");
    assert!(scrape.value(r#"smg_worker_cb_transitions_total{from="closed",to="open"}"#) >= 1.0);
    // After content, a failure has a status of 200 and is counted all the same.
    one.always(vec![Step::stream_head(), Step::content("seen"), Step::Close]);
    two.always(vec![Step::stream_head(), Step::content("seen"), Step::Close]);
    watch.post("", &chat("hi", true)).await;
    let lost = r#"smg_router_request_errors_total{model="m",endpoint="chat",error_type="worker_failed"}"#;
    watch.until("a broken stream is counted", |it| it.value(lost) == 1.0).await;
    one.kill().await;
    let refused = r#"smg_worker_connect_failures_total{reason="refused"}"#;
    watch.until("a dead worker is found out", |it| it.value(refused) > 0.0).await;
    watch.end(FAILURES).await;
    two.kill().await;
}

#[tokio::test]
async fn what_goes_nowhere_is_measured() {
    let worker = Upstream::start("one").await;
    let mut config = cluster_tests::config(&[&worker]);
    config.routing.cache_map_bytes = ByteSize(1);
    config.tenancy.keys = vec![Setting::parse("app:team:user:sk-user").expect("a key")];
    let mut watch = Watch::start(config).await;
    assert_eq!(watch.post("", &chat("hi", false)).await, 401);
    assert_eq!(watch.post("x-api-key: sk-nobody\r\n", &chat("hi", false)).await, 401);
    let key = "x-api-key: sk-user\r\n";
    let target = format!("{key}x-smg-target-worker: w-00000000000000ff\r\n");
    assert_eq!(watch.post(&target, &chat("hi", false)).await, 400);
    let scrape = watch.scrape().await;
    for series in [
        r#"smg_tenancy_auth_failures_total{reason="missing"}"#,
        r#"smg_tenancy_auth_failures_total{reason="unknown"}"#,
        r#"smg_routing_refusals_total{reason="target_unknown"}"#,
        r#"smg_http_responses_total{path="/v1/chat/completions",status_code="401",error_code="invalid_api_key"}"#,
    ] {
        assert!(scrape.value(series) >= 1.0, "{series} {scrape:#?}");
    }
    // More prompts than the smallest map holds.
    let mut client = Client::connect(watch.node.address).await;
    for turn in 0..400 {
        client.start_post("/v1/chat/completions", key, &chat(&format!("{turn} ").repeat(3000), false)).await;
        client.answer().await;
    }
    watch.scrape().await;
    let moved = watch.moved;
    watch.node.shutdown().await;

    let mut sessions = cluster_tests::config(&[&worker]);
    sessions.routing.policy = policy("manual");
    let mut watch = Watch { moved, node: node(measured(sessions)).await };
    assert_eq!(watch.post("x-smg-routing-key: session-1\r\n", &chat("hi", false)).await, 200);
    watch.until("a key is bound", |it| it.value("smg_manual_policy_cache_entries") == 1.0).await;
    watch.end(ROUTING).await;
}

#[tokio::test]
async fn what_operators_change_is_measured() {
    let directory = tempfile::tempdir().expect("a directory");
    let worker = Upstream::start("one").await;
    worker.metrics("process_start_time_seconds 1000\n");
    let mut config = cluster_tests::config(&[&worker]);
    config.node.data_dir = Some(directory.path().display().to_string());
    let mut watch = Watch::start(config).await;
    let rules = r#"{"models": [{"model": "m*", "policy": "round_robin"}]}"#;
    assert_eq!(Client::connect(watch.node.address).await.call("PUT", "/policies", rules).await.status, 200);
    worker.metrics("process_start_time_seconds 2000\n");
    watch.until("the restart is found out", |it| it.value("smg_worker_restarts_total") == 1.0).await;
    assert_eq!(watch.scrape().await.value(r#"smg_replication_edits_total{result="safe"}"#), 1.0);
    watch.end(EDITS).await;
}

#[tokio::test]
async fn what_the_process_does_is_measured() {
    let capture = Capture::start();
    let (worker, collector) = (Upstream::start("one").await, Upstream::start("collector").await);
    let mut config = cluster_tests::config(&[&worker]);
    config.node.otlp_traces_endpoint = Some(collector.url());
    let mut watch = Watch::start(config).await;
    watch.post("", &chat("hi", false)).await;
    watch.until("spans are exported", |it| it.value(r#"smg_traces_spans_total{outcome="exported"}"#) >= 3.0).await;

    let loaded = Sources::default().load().unwrap_or_else(|errors| panic!("{errors}"));
    watch.node.reload(loaded, None);
    assert_eq!(watch.scrape().await.value(r#"smg_config_reloads_total{result="applied"}"#), 1.0);

    let shown = std::panic::take_hook();
    panics::watch();
    assert!(std::panic::catch_unwind(|| panic!("planned by this test")).is_err());
    std::panic::set_hook(shown);

    let stopped = capture.hold();
    for line in 0..2 * smg::observability::logs::QUEUE_LEN {
        tracing::info!(line, "one of many");
    }
    watch.until("lines are lost, and counted", |it| it.value("smg_log_lines_dropped_total") > 0.0).await;
    drop(stopped);
    eventually("the panic is in the log", async || {
        capture.lines().iter().any(|it| it.contains("planned by this test") && it.contains(r#""level":"ERROR""#))
    })
    .await;
    watch.end(PROCESS).await;
}

#[tokio::test]
async fn clients_cannot_grow_series() {
    let worker = Upstream::start("one").await;
    let mut watch = Watch::start(cluster_tests::config(&[&worker])).await;
    let mut sizes = Vec::new();
    for round in 0..3 {
        for turn in 0..100 {
            let name = format!("{round}-{turn}");
            let body = chat("hi", false).replace("\"m\"", &format!("\"model-{name}\""));
            assert_eq!(watch.post("", &body).await, 404);
            Client::connect(watch.node.address).await.get(&format!("/v1/{name}")).await;
            let mut client = Client::connect(watch.node.address).await;
            client.send(format!("M{round}{turn} /v1/models HTTP/1.1\r\nhost: t\r\n\r\n").as_bytes()).await;
            assert_eq!(client.answer().await.status, 405);
            let header = format!("x-smg-routing-key: {name}\r\nx-request-id: {name}\r\nuser-agent: {name}\r\n");
            assert_eq!(watch.post(&header, &chat("hi", false)).await, 200);
        }
        sizes.push(watch.scrape().await.len());
    }
    assert!(sizes[1] == sizes[0] && sizes[2] == sizes[0], "{sizes:?}");
    watch.end(&[]).await;
}
