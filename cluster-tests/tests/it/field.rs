//! The bugs that users of such gateways hit most, each under its number in the field study. Those of the wire are in
//! `dialects`, those of bodies in `slow` and `bad_input`.

use std::sync::Arc;
use std::time::Duration;

use cluster_tests::Client;
use cluster_tests::DEADLINE;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::chat;
use cluster_tests::config;
use cluster_tests::eventually;
use cluster_tests::idle;
use cluster_tests::in_turn;
use cluster_tests::node;
use smg::base::setting::AtMost;
use smg::node::Node;
use tokio::sync::Semaphore;

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";

/// A streaming request of each dialect, and what its worker sends up to the first content.
fn streams() -> [(&'static str, String, Vec<Step>); 3] {
    let content = |data: &str| vec![Step::stream_head(), Step::events(&[data])];
    [
        (CHAT, chat("hi", true), content(r#"{"choices":[{"index":0,"delta":{"content":"seen"}}]}"#)),
        (
            MESSAGES,
            r#"{"model":"m","stream":true,"max_tokens":9,"messages":[]}"#.to_owned(),
            content(r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"seen"}}"#),
        ),
        (
            RESPONSES,
            r#"{"model":"m","stream":true,"input":"hi"}"#.to_owned(),
            // It is kept, so its worker is asked for a chat completion.
            content(r#"{"choices":[{"index":0,"delta":{"content":"seen"}}]}"#),
        ),
    ]
}

/// What ends a stream well, in every dialect at once: each passes over what it does not know or has ended before.
fn good_end(path: &str) -> Vec<Step> {
    let last = match path {
        MESSAGES => r#"{"type":"message_stop"}"#,
        _ => "[DONE]",
    };
    vec![Step::events(&[last]), Step::Send(b"0\r\n\r\n".to_vec())]
}

async fn post(node: &Node, path: &str, body: &str) -> cluster_tests::Answer {
    Client::connect(node.address).await.post(path, body).await
}

#[tokio::test]
async fn field_02_no_end_of_a_request_keeps_its_slot() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.tenancy.max_concurrent_requests = AtMost(1);
    config.tenancy.queue_size = 1;
    config.tenancy.queue_timeout = DEADLINE;
    config.server.idle_timeout = Duration::from_millis(200);
    config.workers.breaker_failures = 10_000;
    let node = node(config).await;
    let good = async || {
        let answer = post(&node, CHAT, &chat("hi", false)).await;
        assert_eq!(answer.status, 200, "the slot is free: {}", answer.text());
    };
    for (path, body, begin) in streams() {
        let ends = [good_end(path), vec![Step::Close], vec![Step::WaitForClose], vec![Step::chunk(b"data: {\"br\n\n")]];
        for end in ends {
            worker.script(begin.iter().cloned().chain(end).collect());
            assert_eq!(post(&node, path, &body).await.status, 200);
            good().await;
        }
        worker.script(begin.into_iter().chain([Step::WaitForClose]).collect());
        let mut leaving = Client::connect(node.address).await;
        leaving.start_post(path, "", &body).await;
        assert!(leaving.read_until("seen").await);
        drop(leaving);
        good().await;
        for status in ["500 Internal Server Error", "429 Too Many Requests", "400 Bad Request"] {
            worker.script(Step::answer(status, "", "{}"));
            assert!(post(&node, path, &body).await.status >= 400);
            good().await;
        }
        for bad in ["{", r#"{"model":"nope","messages":[],"input":""}"#] {
            assert!(post(&node, path, bad).await.status >= 400);
            good().await;
        }
    }
    node.shutdown().await;
}

#[tokio::test]
async fn field_02_who_leaves_the_queue_leaves_its_place() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.tenancy.max_concurrent_requests = AtMost(1);
    config.tenancy.queue_size = 1;
    let node = node(config).await;
    let gate = Arc::new(Semaphore::new(0));
    let steps = [Step::Await(Arc::clone(&gate))].into_iter().chain(Step::completion("fine"));
    worker.script(steps.collect());
    let mut holder = Client::connect(node.address).await;
    holder.start_post(CHAT, "", &chat("hi", false)).await;
    eventually("the slot is taken", async || worker.requests().len() == 1).await;
    let mut queued = Client::connect(node.address).await;
    queued.start_post(CHAT, "", &chat("hi", false)).await;
    let refused = async || post(&node, CHAT, &chat("hi", false)).await;
    // A probe of the queue that gets in would wait there itself; it is left again by its deadline.
    let soon = Duration::from_millis(200);
    eventually("the queue is full", async || {
        tokio::time::timeout(soon, refused()).await.is_ok_and(|it| {
            assert!(it.head.contains("retry-after: "), "{}", it.head);
            it.status == 429 && it.json()["error"]["code"] == "concurrency_limit"
        })
    })
    .await;
    drop(queued);
    eventually("its place is free", async || tokio::time::timeout(soon, refused()).await.is_err()).await;
    gate.add_permits(1);
    assert_eq!(holder.answer().await.status, 200);
    assert_eq!(refused().await.status, 200);
    node.shutdown().await;
}

/// When a client leaves.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Connecting,
    BeforeHead,
    BeforeToken,
    AfterComment,
    MidStream,
    MidBody,
    WholeHeld,
    AfterRetry,
}

const PHASES: [Phase; 8] = [
    Phase::Connecting,
    Phase::BeforeHead,
    Phase::BeforeToken,
    Phase::AfterComment,
    Phase::MidStream,
    Phase::MidBody,
    Phase::WholeHeld,
    Phase::AfterRetry,
];

impl Phase {
    /// What the worker does before it waits, and what the client has seen by then.
    fn script(self, begin: &[Step]) -> (Vec<Step>, Option<&'static str>) {
        let head = |len: usize| {
            Step::Send(
                format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len}\r\n\r\n").into(),
            )
        };
        match self {
            Self::Connecting | Self::BeforeHead | Self::AfterRetry => (Vec::new(), None),
            Self::BeforeToken => (vec![Step::stream_head(), Step::chunk(b": ping\n\n")], None),
            Self::AfterComment => (Vec::new(), Some(": keep-alive")),
            Self::MidStream => (begin.to_vec(), Some("seen")),
            Self::MidBody => (vec![head(100), Step::Send(b"{".to_vec())], None),
            Self::WholeHeld => (vec![head(9_000_000), Step::Send(vec![b' '; 2 << 20])], Some("\r\n\r\n  ")),
        }
    }
}

#[tokio::test]
async fn field_03_a_client_that_leaves_aborts_its_worker_in_every_phase_and_dialect() {
    for (path, body, begin) in streams() {
        for phase in PHASES {
            let (worker, failing) = (Upstream::start("one").await, Upstream::start("two").await);
            let mut config = match phase {
                Phase::AfterRetry => in_turn(&[&worker, &failing]),
                _ => config(&[&worker]),
            };
            if let Phase::AfterComment = phase {
                config.server.stream_keep_alive = Duration::from_millis(50);
            }
            let node = node(config).await;
            failing.always(Step::answer("500 Internal Server Error", "", "{}"));
            let (mut steps, mut seen) = phase.script(&begin);
            if path == "/v1/responses" && matches!(phase, Phase::WholeHeld) {
                seen = None; // what is no event is passed on by nobody
            }
            steps.push(Step::WaitForClose);
            worker.always(steps);
            let mut client = Client::connect(node.address).await;
            client.start_post(path, "", &body).await;
            if !matches!(phase, Phase::Connecting) {
                eventually("the worker has it", async || worker.requests().len() == 1).await;
            }
            if let Some(seen) = seen {
                assert!(client.read_until(seen).await, "{phase:?} {path}");
            }
            let begun = tokio::time::Instant::now();
            drop(client);
            let told = worker.requests().len();
            eventually("the worker is told", async || worker.aborts() == worker.requests().len()).await;
            assert!(told == 0 || begun.elapsed() < Duration::from_secs(1), "ten times the promise: {phase:?} {path}");
            idle(&node).await;
            node.shutdown().await;
        }
    }
}

#[tokio::test]
async fn field_next_1_nothing_cuts_a_stream_that_lives_and_all_short_timeouts_are_others() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    assert!(config.server.request_timeout >= Duration::from_secs(1800), "no hidden 60 s");
    assert!(config.server.idle_timeout >= Duration::from_secs(60), "a pause of 30 s is none");
    let short = Duration::from_millis(100);
    config.server.head_timeout = short;
    config.server.keep_alive_timeout = short;
    config.server.client_write_timeout = short;
    config.server.body_idle_timeout = short;
    config.server.body_timeout = short;
    config.server.body_budget_wait = short;
    config.tenancy.queue_timeout = short;
    config.workers.connect_timeout = Duration::from_secs(1);
    config.workers.pool_idle_timeout = short;
    config.workers.probe_timeout = Duration::from_secs(1);
    let node = node(config).await;
    let gate = Arc::new(Semaphore::new(0));
    let mut steps = vec![Step::stream_head()];
    for _ in 0..4 {
        steps.extend([Step::content("more"), Step::Await(Arc::clone(&gate))]);
    }
    steps.push(Step::end());
    worker.script(steps);
    let mut client = Client::connect(node.address).await;
    client.start_post(CHAT, "", &chat("hi", true)).await;
    assert!(client.read_until("more").await);
    for _ in 0..4 {
        cluster_tests::lasting(short * 3).await;
        gate.add_permits(1);
    }
    let answer = client.answer().await;
    assert!(answer.is_complete && answer.text().ends_with("data: [DONE]\n\n"), "{}", answer.text());
    node.shutdown().await;
}

#[tokio::test]
async fn field_next_3_three_hundred_streams_to_one_worker_wait_for_nobody() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    worker.always(vec![Step::stream_head(), Step::content("seen"), Step::WaitForClose]);
    let mut clients = Vec::new();
    for _ in 0..300 {
        let mut client = Client::connect(node.address).await;
        client.start_post(CHAT, "", &chat("hi", true)).await;
        clients.push(client);
    }
    for client in &mut clients {
        assert!(client.read_until("seen").await);
    }
    assert_eq!(worker.connections(), 300);
    drop(clients);
    eventually("all are told", async || worker.aborts() == 300).await;
    idle(&node).await;
    node.shutdown().await;
}

#[tokio::test]
async fn p7_two_thousand_aborts_at_any_moment_leave_nothing_behind() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.tenancy.max_concurrent_requests = AtMost(64);
    config.workers.breaker_failures = 1_000_000;
    let node = node(config).await;
    let mut steps = vec![Step::stream_head(), Step::preamble()];
    steps.extend((0..50).map(|it| Step::content(&format!("token {it} "))));
    steps.push(Step::end());
    worker.always(steps);
    for turn in 0..2_000 {
        let mut client = Client::connect(node.address).await;
        client.start_post(CHAT, "", &chat("hi", turn % 3 > 0)).await;
        // Somewhere between the request's first byte and the answer's last.
        let wanted = turn % 7;
        if wanted > 0 {
            client.read_until(&format!("token {}", wanted * 8)).await;
        }
        drop(client);
    }
    idle(&node).await;
    eventually("all slots are free", async || {
        let answer = Client::connect(node.address).await.post(CHAT, &chat("hi", false)).await;
        answer.status == 200
    })
    .await;
    node.shutdown().await;
}
