//! P9: no secret reaches a log line, a metric, a trace, an error body, `config print` or `/workers`.
//!
//! Everything that is secret contains [`CANARY`]. It is sent in every way a client, an operator or a worker can send it,
//! down every path that model requests take, while everything is logged; then every sink is searched for it.

use bytes::Bytes;
use cluster_tests::Capture;
use cluster_tests::Client;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::config;
use cluster_tests::eventually;
use cluster_tests::node;
use cluster_tests::scrape::measured;
use http_body_util::Full;
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use serde_json::json;
use smg::api::routes::ROUTES;
use smg::api::routes::Serve;
use smg::base::secret::Secret;
use smg::config::Sources;
use smg::config::render_print;
use smg::node::Node;
use tokio::net::TcpStream;

/// Part of every secret here.
const CANARY: &str = "canary";

const ADMIN: &str = "authorization: Bearer canary-admin-key\r\n";

/// Headers with secrets: good keys, wrong ones, and what else a browser or a proxy adds.
const HEADERS: &[&str] = &[
    "authorization: Bearer canary-user-key\r\ncookie: session=canary-cookie\r\n",
    "x-api-key: canary-user-key\r\nproxy-authorization: Basic canary-proxy\r\n",
    "authorization: Bearer canary-unknown-key\r\n",
    "authorization: Basic canary-basic\r\n",
    "x-api-key: canary-unknown-key\r\n",
];

/// Bodies with prompts: whole, of the wrong types, broken in the middle.
fn bodies() -> Vec<String> {
    let text = "canary-prompt";
    let mut bodies = Vec::new();
    for is_stream in [false, true] {
        let whole = json!({"model": "m", "stream": is_stream, "prompt": text, "input": text, "query": text, "text": text,
            "documents": [text], "max_tokens": 5, "system": text, "metadata": {"user": text},
            "messages": [{"role": "user", "content": text}, {"role": "user", "content": [{"type": "text", "text": text}]}],
            "tools": [{"type": "function", "function": {"name": text, "parameters": {"canary-key": text}}}]});
        bodies.push(whole.to_string());
    }
    for field in ["model", "messages", "prompt", "input", "stream", "stream_options"] {
        for value in [json!(text), json!([text, 7]), json!({"canary-key": text}), json!([{"role": [text]}])] {
            bodies.push(
                json!({"model": "m", field: value})
                    .to_string()
                    .replace("\"model\":\"canary-prompt\"", "\"model\":{\"canary-a\":1}"),
            );
        }
    }
    for broken in [
        "{\"messages\": canary-prompt",
        "{\"canary-prompt",
        "[\"canary-prompt\"]",
        "{\"model\":\"m\",\"a\":\"canary-prompt\n\"}",
        "{\"model\":\"m\",\"model\":\"m\",\"canary-prompt\":1}",
    ] {
        bodies.push(broken.to_owned());
    }
    bodies
}

/// What a worker does with a request: answers, fails, breaks off; its answers are secret as well.
fn fates() -> Vec<Vec<Step>> {
    vec![
        Step::completion("canary-completion"),
        vec![Step::stream_head(), Step::content("canary-completion"), Step::end()],
        vec![Step::stream_head(), Step::content("canary-completion"), Step::Close],
        vec![Step::stream_head(), Step::content("canary-completion"), Step::chunk(b"data: {\"canary-broken\n\n")],
        vec![Step::stream_head(), Step::preamble(), Step::chunk(b"data: {\"canary-broken\n\n")],
        Step::answer("500 Internal Server Error", "", "{}"),
        Step::answer("429 Too Many Requests", "x-worker: canary-header\r\n", "{}"),
        vec![Step::Send(b"HTTP/1.1 200 OK\r\nx-bad header: canary-header\r\n\r\n".to_vec()), Step::Close],
        vec![Step::Send(b"canary-garbage\r\n\r\n".to_vec()), Step::Close],
        vec![Step::Close],
    ]
}

/// A place that secrets must not reach, and what was found there.
struct Sink(&'static str, String);

#[tokio::test]
async fn p9_no_secret_reaches_a_log_a_metric_a_trace_an_error_or_a_listing() {
    let capture = Capture::start();
    let (worker, collector) = (Upstream::start("one").await, Upstream::start("collector").await);
    let mut config = measured(config(&[&worker]));
    config.node.otlp_traces_endpoint = Some(collector.url());
    config.workers.api_key = Some(Secret::new("canary-worker-key"));
    let node = node(config.clone()).await;
    let mut sinks = Vec::new();
    // Keys come by reload, so that the helper above can wait without one.
    let flags = ["ops:team:admin:canary-admin-key", "app:team:user:canary-user-key"].map(ToOwned::to_owned).to_vec();
    let file = "[workers]\napi_key = \"canary-worker-key\"\n";
    let urls = ("worker-urls".to_owned(), vec![worker.url()]);
    let sources = Sources { flags: vec![("api-key".to_owned(), flags), urls], ..Sources::default() };
    let loaded = sources.load_text(file).unwrap_or_else(|errors| panic!("{errors}"));
    sinks.push(Sink("config print", render_print(&loaded)));
    for wrong in [
        "[workers]\napi_key = [\"canary-worker-key\"]\napi_kez = \"canary-worker-key\"\n",
        "[workers]\napi_key = canary-worker-key\n",
        "[tenancy]\nkeys = [\"a:b:boss:canary-key\", {name = \"a\", kez = \"canary-key\"}]\n",
    ] {
        let errors = Sources::default().load_text(wrong).map(drop).expect_err("has errors");
        sinks.push(Sink("config check", errors.to_string()));
    }
    drop(node.reload(loaded, None));

    model_requests(&node, &worker, &mut sinks).await;
    other_requests(&node, &mut sinks).await;
    raw_requests(&node, &mut sinks).await;
    over_h2(&node, &mut sinks).await;
    admin_requests(&node, &mut sinks).await;
    eventually("spans are exported", async || collector.requests().iter().any(|it| it.contains("admission"))).await;
    let metrics = node.metrics_address.expect("is measured");
    sinks.push(Sink("metrics", Client::connect(metrics).await.get("/metrics").await.text()));
    node.shutdown().await;
    sinks.extend(collector.requests().into_iter().map(|it| Sink("trace", it)));
    tracing::info!("everything was said");
    eventually("the log is written", async || capture.lines().iter().any(|it| it.contains("everything was said")))
        .await;
    let lines = capture.lines();
    for needle in [r#""target":"audit""#, r#""target":"access""#, r#""level":"TRACE""#, "\"target\":\"h2::"] {
        assert!(lines.iter().any(|it| it.contains(needle)), "{needle} is among them");
    }
    sinks.extend(lines.into_iter().map(|it| Sink("log", it)));
    let leaks: Vec<_> =
        sinks.iter().filter(|it| it.1.contains(CANARY)).map(|it| format!("{}: {}", it.0, it.1)).collect();
    assert!(leaks.is_empty(), "{} leaks, such as\n{}", leaks.len(), leaks[..leaks.len().min(20)].join("\n"));
}

/// Every route for model requests with every header and body, and every fate for those that reach the worker.
async fn model_requests(node: &Node, worker: &Upstream, sinks: &mut Vec<Sink>) {
    let paths = ROUTES.iter().filter(|it| matches!(it.serve, Serve::Model(_) | Serve::Kept(_))).map(|it| it.path);
    for path in paths {
        for body in bodies() {
            refused(node, path, HEADERS[0], &body, sinks).await;
        }
        for headers in HEADERS {
            refused(node, &format!("{path}?key=canary-query"), headers, &bodies()[0], sinks).await;
        }
    }
    for fate in fates() {
        for body in &bodies()[..2] {
            worker.script(fate.clone());
            refused(node, "/v1/chat/completions", HEADERS[0], body, sinks).await;
        }
    }
    // A client that leaves in the middle.
    worker.script(vec![Step::stream_head(), Step::content("canary-completion"), Step::WaitForClose]);
    let mut client = Client::connect(node.address).await;
    client.start_post("/v1/chat/completions", HEADERS[0], &bodies()[1]).await;
    client.read_until("canary-completion").await;
}

/// Every other route, by whoever may not, with a secret in the query.
async fn other_requests(node: &Node, sinks: &mut Vec<Sink>) {
    let routes = ROUTES.iter().filter(|it| !matches!(it.serve, Serve::Model(_) | Serve::Kept(_)));
    for route in routes {
        let (method, path) = (route.method, route.path.replace("{id}", "x").replace("{item_id}", "x"));
        let head = format!(
            "{method} {path}?key=canary-query HTTP/1.1\r\nhost: t\r\nx-api-key: canary-user-key\r\ncontent-length: 0\r\n\r\n"
        );
        let mut client = Client::connect(node.address).await;
        client.send(head.as_bytes()).await;
        let answer = client.answer().await;
        sinks.push(Sink("another route", format!("{}{}", answer.head, answer.text())));
    }
}

/// Keeps what the gateway itself says: error bodies and error events, and all headers.
async fn refused(node: &Node, path: &str, headers: &str, body: &str, sinks: &mut Vec<Sink>) {
    let mut client = Client::connect(node.address).await;
    client.start_post(path, headers, body).await;
    let answer = client.answer().await;
    sinks.push(Sink("headers of an answer", answer.head.replace("x-worker: canary-header", "")));
    let text = answer.text();
    match answer.status {
        200 => sinks.extend(
            text.split("data: ").filter(|it| it.contains("\"error\":{")).map(|it| Sink("error event", it.to_owned())),
        ),
        _ => sinks.push(Sink("error body", text)),
    }
}

/// What breaks HTTP itself, with secrets in it.
async fn raw_requests(node: &Node, sinks: &mut Vec<Sink>) {
    for raw in [
        "GET /v1/models HTTP/1.1\r\nhost: t\r\nauthorization : Bearer canary-user-key\r\n\r\n",
        "POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nauthorization: Bearer canary\u{1}key\r\n\r\n",
        "canary-garbage\r\n\r\n",
        "POST /v1/chat/completions HTTP/9.9\r\nx-api-key: canary-user-key\r\n\r\n",
        "POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\ncontent-length: 6\r\nx-api-key: canary-user-key\r\n\r\ncanary",
        "POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\nx-api-key: canary-user-key\r\n\r\ncanary\r\n",
        "GET /v1/nothing?key=canary-query HTTP/1.1\r\nhost: t\r\nx-api-key: canary-user-key\r\n\r\n",
        "PUT /v1/models?key=canary-query HTTP/1.1\r\nhost: t\r\nx-api-key: canary-user-key\r\n\r\n",
    ] {
        let mut client = Client::connect(node.address).await;
        client.send(raw.as_bytes()).await;
        if client.read_until("\r\n\r\n").await {
            let answer = client.answer().await;
            sinks.push(Sink("answer to broken HTTP", format!("{}{}", answer.head, answer.text())));
        }
    }
}

/// A request over h2, whose frames a library may log.
async fn over_h2(node: &Node, sinks: &mut Vec<Sink>) {
    let stream = TokioIo::new(TcpStream::connect(node.address).await.expect("connects"));
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.expect("speaks h2");
    let mut connections = tokio::task::JoinSet::new();
    connections.spawn(connection);
    for key in ["Bearer canary-user-key", "Bearer canary-unknown-key"] {
        let request = Request::post("http://t/v1/chat/completions?key=canary-query").header("authorization", key);
        let request = request.header("cookie", "canary-cookie").body(Full::new(Bytes::from(bodies().remove(0))));
        let answer = sender.send_request(request.expect("a request")).await.expect("is answered");
        sinks.push(Sink("headers over h2", format!("{:?}", answer.headers())));
    }
}

/// The admin API with an admin's key: what it lists, and what it says to mistakes.
async fn admin_requests(node: &Node, sinks: &mut Vec<Sink>) {
    let added = Upstream::start("two").await;
    let mut call = async |method: &str, path: &str, body: &str| {
        let mut client = Client::connect(node.address).await;
        let len = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: t\r\n{ADMIN}content-length: {len}\r\n\r\n{body}");
        client.send(head.as_bytes()).await;
        let answer = client.answer().await;
        sinks.push(Sink("admin API", format!("{}{}", answer.head, answer.text())));
        answer
    };
    let new = json!({"url": added.url(), "api_key": "canary-added-worker-key"}).to_string();
    let answer = call("POST", "/workers", &new).await;
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    let one = format!("/workers/{id}");
    call("GET", "/workers", "").await;
    call("GET", &one, "").await;
    call("PATCH", &one, "{\"draining\": true}").await;
    call("PATCH", &one, "{\"draining\": \"canary-value\"}").await;
    call("PATCH", &one, "{\"draining\": true, \"drain\": \"canary-value\"}").await;
    call("POST", "/workers", "{\"url\": \"http://user:canary-password@10.0.0.1\"}").await;
    call("POST", "/workers", "{\"url\": \"http://10.0.0.1\", \"api_key\": {\"canary-key\": 1}}").await;
    call("POST", "/workers", "{\"api_key\": \"canary-added-worker-key\", canary").await;
    call("POST", "/v1/route/explain", &bodies()[0]).await;
    call("DELETE", &one, "").await;
    call("POST", "/tenants", r#"{"name": "team"}"#).await;
    let new = r#"{"name": "app", "tenant": "team", "key": "canary-key-given-here"}"#;
    let answer = call("POST", "/keys", new).await;
    let one = format!("/keys/{}", answer.json()["id"].as_str().expect("an id"));
    call("POST", "/keys", new).await;
    call("POST", "/keys", r#"{"name": "app", "tenant": "team", "key": "canary"}"#).await;
    call("POST", "/keys", r#"{"name": "app", "tenant": "team", "key": ["canary-key-given-here"]}"#).await;
    call("POST", "/keys", r#"{"name": "app", "tenant": "team", "role": "user", "kez": "canary-key-given-here"}"#).await;
    call("GET", "/keys", "").await;
    call("PATCH", &one, r#"{"disabled": "canary-value"}"#).await;
    call("PATCH", &one, r#"{"disabled": true}"#).await;
    call("DELETE", &one, "").await;
}
