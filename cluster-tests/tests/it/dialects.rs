//! The same promises in every dialect that streams: failures seen or unseen, and bytes that are not ours.

use std::time::Duration;

use cluster_tests::Client;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::config as kept;
use cluster_tests::in_turn as kept_in_turn;
use cluster_tests::node;
use serde_json::Value;
use serde_json::json;
use smg::config::Config;
use smg::history::config::Kind;

/// Nothing is kept: what `/v1/responses` is asked for passes through like the rest.
fn passing(mut config: Config) -> Config {
    config.history.history_backend = Kind::None;
    config
}

fn config(workers: &[&Upstream]) -> Config {
    passing(kept(workers))
}

fn in_turn(workers: &[&Upstream]) -> Config {
    passing(kept_in_turn(workers))
}

/// One endpoint that streams.
struct Dialect {
    path: &'static str,
    body: &'static str,
    /// What opens a stream without content.
    preamble: &'static str,
    content: &'static str,
    /// What ends it well.
    end: &'static str,
}

const DIALECTS: &[Dialect] = &[
    Dialect {
        path: "/v1/chat/completions",
        body: r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#,
        preamble: "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
        content: "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"seen\"}}]}\n\n",
        end: "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":1}}\n\ndata: [DONE]\n\n",
    },
    Dialect {
        path: "/v1/completions",
        body: r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"prompt":"hi"}"#,
        preamble: "data: {\"choices\":[{\"index\":0,\"text\":\"\"}]}\n\n",
        content: "data: {\"choices\":[{\"index\":0,\"text\":\"seen\"}]}\n\n",
        end: "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":1}}\n\ndata: [DONE]\n\n",
    },
    Dialect {
        path: "/v1/messages",
        body: r#"{"model":"m","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#,
        preamble: "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":5,\"output_tokens\":1}}}\n\n\
                   event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}}\n\n\
                   event: ping\ndata: {\"type\": \"ping\"}\n\n",
        content: "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"seen\"}}\n\n",
        end: "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"signature_delta\",\"signature\":\"EqQBCgIYAhIM1gbcDa9GJwZA2b3h+/=\"}}\n\n\
              event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":9}}\n\n\
              event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    },
    Dialect {
        path: "/v1/responses",
        body: r#"{"model":"m","stream":true,"input":"hi","x_unknown":[1.50]}"#,
        preamble: "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"r\"}}\n\n\
                   event: response.in_progress\ndata: {\"type\":\"response.in_progress\",\"sequence_number\":1,\"response\":{\"id\":\"r\"}}\n\n",
        content: "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":2,\"delta\":\"seen\"}\n\n",
        end: "event: response.completed\ndata: {\"type\":\"response.completed\",\"sequence_number\":3,\"response\":{\"id\":\"r\",\"usage\":{\"input_tokens\":5,\"output_tokens\":1}}}\n\n",
    },
    Dialect {
        path: "/generate",
        body: r#"{"model":"m","stream":true,"text":"hi"}"#,
        preamble: "",
        content: "data: {\"text\":\"seen\",\"meta_info\":{\"prompt_tokens\":5,\"completion_tokens\":1}}\n\n",
        end: "data: [DONE]\n\n",
    },
];

impl Dialect {
    /// A stream up to its first content, the head included.
    fn begun(&self) -> Vec<Step> {
        vec![Step::stream_head(), Step::chunk(format!("{}{}", self.preamble, self.content).as_bytes())]
    }

    fn whole(&self) -> String {
        format!("{}{}{}", self.preamble, self.content, self.end)
    }

    fn served(&self) -> Vec<Step> {
        vec![Step::stream_head(), Step::chunk(self.whole().as_bytes()), Step::Send(b"0\r\n\r\n".to_vec())]
    }
}

/// Ways to fail in the middle of a stream.
fn faults() -> Vec<Vec<Step>> {
    vec![
        vec![Step::Close],
        vec![Step::Send(b"0\r\n\r\n".to_vec())],
        vec![Step::Send(b"xyz\r\n".to_vec())],
        vec![Step::chunk(b"data: {\"broken\n\n")],
        vec![Step::chunk(b"data: {\"a\":\"\xff\"}\n\n")],
        vec![Step::chunk(b"data: {}\rdata: [DONE]\n\n")],
        vec![Step::WaitForClose],
    ]
}

#[tokio::test]
async fn p6_after_content_every_failure_ends_in_the_dialects_own_error_event() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.server.idle_timeout = Duration::from_millis(200);
    config.workers.breaker_failures = 10_000;
    let node = node(config).await;
    for dialect in DIALECTS {
        for fault in faults() {
            let mut steps = dialect.begun();
            steps.extend(fault.clone());
            worker.script(steps);
            let answer = Client::connect(node.address).await.post(dialect.path, dialect.body).await;
            let text = answer.text();
            let told = text.strip_prefix(&format!("{}{}", dialect.preamble, dialect.content));
            let told = told.unwrap_or_else(|| panic!("{} {fault:?}: {text}", dialect.path));
            assert!(answer.status == 200 && answer.is_complete && !text.contains("[DONE]"), "{text}");
            check_error_event(dialect, told);
        }
    }
    node.shutdown().await;
}

/// Exactly one event, in the dialect's schema.
fn check_error_event(dialect: &Dialect, told: &str) {
    let (name, data) = told.strip_suffix("\n\n").and_then(|it| it.split_once("data: ")).expect("one event");
    let data: Value = serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {told}"));
    match dialect.path {
        "/v1/messages" => {
            assert_eq!((name, &data["type"]), ("event: error\n", &json!("error")), "{told}");
            assert!(data["error"]["type"].is_string() && data["error"]["message"].is_string(), "{told}");
        }
        "/v1/responses" => {
            assert_eq!((name, &data["type"], &data["sequence_number"]), ("event: error\n", &json!("error"), &json!(3)));
            assert!(data["code"].is_string() && data["message"].is_string() && data["param"].is_null(), "{told}");
        }
        _ => {
            assert_eq!(name, "", "{told}");
            assert!(data["error"]["message"].is_string() && data["error"]["code"].is_string(), "{told}");
        }
    }
}

#[tokio::test]
async fn p6_before_content_every_failure_is_made_good_unseen_with_one_preamble() {
    let (faulty, good) = (Upstream::start("faulty").await, Upstream::start("good").await);
    let mut config = in_turn(&[&faulty, &good]);
    config.server.first_token_timeout = Duration::from_millis(200);
    config.workers.breaker_failures = 10_000;
    config.routing.retry_budget_percent = 100;
    config.routing.retry_initial_backoff = Duration::from_millis(1);
    let node = node(config).await;
    for dialect in DIALECTS {
        [&faulty, &good].iter().for_each(|it| it.always(dialect.served()));
        for fault in faults() {
            let mut steps = vec![Step::stream_head()];
            if !dialect.preamble.is_empty() {
                steps.push(Step::chunk(dialect.preamble.as_bytes()));
            }
            steps.extend(fault.clone());
            faulty.script(steps);
            let before = faulty.requests().len();
            while faulty.requests().len() == before {
                let answer = Client::connect(node.address).await.post(dialect.path, dialect.body).await;
                assert_eq!(answer.text(), dialect.whole(), "{} {fault:?}", dialect.path);
            }
        }
    }
    node.shutdown().await;
}

#[tokio::test]
async fn field_14_a_stream_is_passed_on_byte_for_byte_however_it_is_cut() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    for dialect in DIALECTS {
        let whole = dialect.whole();
        let mut steps = vec![Step::stream_head()];
        steps.extend(whole.as_bytes().chunks(7).map(Step::chunk));
        steps.push(Step::Send(b"0\r\n\r\n".to_vec()));
        for steps in [steps, dialect.served()] {
            worker.script(steps);
            let answer = Client::connect(node.address).await.post(dialect.path, dialect.body).await;
            assert!(answer.is_complete && answer.text() == whole, "{}", answer.text());
            assert_eq!(worker.body(worker.requests().len() - 1), dialect.body, "and so is the request");
        }
    }
    node.shutdown().await;
}

#[tokio::test]
async fn field_14_errors_follow_the_clients_dialect_and_refusals_say_when_to_come_back() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    for dialect in DIALECTS {
        let unknown = dialect.body.replace("\"m\"", "\"nope\"");
        let answer = Client::connect(node.address).await.post(dialect.path, &unknown).await;
        let error = answer.json();
        assert_eq!(answer.status, 404, "{error}");
        assert!(error["error"]["message"].as_str().is_some_and(|it| it.contains("`nope`") && it.contains("`m`")));
        let is_anthropic = dialect.path == "/v1/messages";
        assert_eq!(
            (error["type"] == "error", error["error"]["code"] == "model_not_found"),
            (is_anthropic, !is_anthropic)
        );
        worker.script(Step::answer("429 Too Many Requests", "retry-after: 7\r\n", r#"{"theirs":1}"#));
        let answer = Client::connect(node.address).await.post(dialect.path, dialect.body).await;
        assert!(answer.status == 429 && answer.head.contains("retry-after: 7"), "{}", answer.head);
        assert_eq!(answer.json()["theirs"], 1, "a worker's own words");
    }
    node.shutdown().await;
}

#[tokio::test]
async fn what_comes_after_the_end_marker_is_not_passed_on() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    for dialect in DIALECTS {
        let more = format!("{}{}", dialect.whole(), dialect.content);
        worker.script(vec![Step::stream_head(), Step::chunk(more.as_bytes()), Step::Send(b"0\r\n\r\n".to_vec())]);
        let answer = Client::connect(node.address).await.post(dialect.path, dialect.body).await;
        assert_eq!(answer.text(), dialect.whole());
    }
    node.shutdown().await;
}

#[tokio::test]
async fn a_long_answer_that_is_cut_never_looks_whole() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let body = r#"{"model":"m","input":["a"]}"#;
    let half = Step::chunk(&vec![b' '; 2 << 20]);
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let chunked = [head, &b"transfer-encoding: chunked\r\n\r\n"[..]].concat();
    let told = [head, &b"content-length: 9000000\r\n\r\n"[..]].concat();
    for steps in [
        vec![Step::Send(chunked.clone()), half.clone(), Step::Close],
        vec![Step::Send(chunked.clone()), half.clone(), Step::Send(b"xyz\r\n".to_vec()), Step::WaitForClose],
        vec![Step::Send(told), Step::Send(vec![b' '; 2 << 20]), Step::Close],
    ] {
        worker.script(steps);
        let answer = Client::connect(node.address).await.post("/v1/embeddings", body).await;
        assert!(answer.status == 200 && !answer.is_complete && answer.body.len() >= 1 << 20, "{}", answer.body.len());
    }
    worker.script(vec![Step::Send(chunked), half.clone(), half, Step::Send(b"0\r\n\r\n".to_vec())]);
    let answer = Client::connect(node.address).await.post("/v1/embeddings", body).await;
    assert!(answer.is_complete && answer.body.len() == 4 << 20);
    node.shutdown().await;
}

#[tokio::test]
async fn a_connection_is_used_again_although_its_last_stream_ended_in_two_steps() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let mut client = Client::connect(node.address).await;
    let dialect = &DIALECTS[0];
    for _ in 0..5 {
        let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
        let rest = [Step::Await(std::sync::Arc::clone(&gate)), Step::Send(b"0\r\n\r\n".to_vec())];
        let begin = [Step::stream_head(), Step::chunk(dialect.whole().as_bytes())];
        worker.script(begin.into_iter().chain(rest).collect());
        client.start_post(dialect.path, "", dialect.body).await;
        assert!(client.read_until("[DONE]").await);
        gate.add_permits(1);
        assert!(client.answer().await.is_complete);
    }
    assert_eq!(worker.connections(), 1);
    node.shutdown().await;
}
