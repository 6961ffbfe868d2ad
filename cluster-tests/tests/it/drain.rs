//! A node that stops: what is in flight finishes or is told, what stays idle is closed, nobody is left in silence (P10).

use std::sync::Arc;
use std::time::Duration;

use cluster_tests::Client;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::chat;
use cluster_tests::config;
use cluster_tests::eventually;
use cluster_tests::lasting;
use cluster_tests::node;
use tokio::sync::Semaphore;

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn p10_http_1_is_told_to_close_and_idle_connections_are_closed_soon() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let mut idle = Client::connect(node.address).await;
    assert_eq!(idle.post(CHAT, &chat("hi", false)).await.status, 200);
    let gate = Arc::new(Semaphore::new(0));
    worker.script([Step::Await(Arc::clone(&gate))].into_iter().chain(Step::completion("late")).collect());
    let mut busy = Client::connect(node.address).await;
    busy.start_post(CHAT, "", &chat("hi", false)).await;
    eventually("the worker has it", async || worker.requests().len() == 2).await;
    let served = async {
        assert!(idle.is_closed().await && idle.unread().is_empty());
        gate.add_permits(1);
        let answer = busy.answer().await;
        assert!(answer.status == 200 && answer.head.contains("connection: close"), "{}", answer.head);
        assert!(busy.is_closed().await);
    };
    let begun = tokio::time::Instant::now();
    tokio::join!(node.shutdown(), served);
    assert!(begun.elapsed() < Duration::from_secs(10), "nothing waited for the drain timeout");
}

#[tokio::test]
async fn p10_a_request_on_a_kept_connection_is_served_though_the_node_has_begun_to_stop() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let mut kept = Client::connect(node.address).await;
    assert_eq!(kept.post(CHAT, &chat("hi", false)).await.status, 200);
    let gate = Arc::new(Semaphore::new(0));
    worker.script([Step::Await(Arc::clone(&gate))].into_iter().chain(Step::completion("late")).collect());
    let address = node.address;
    let asked = async {
        let refused = async || tokio::net::TcpStream::connect(address).await.is_err();
        eventually("the node takes no connections", refused).await;
        lasting(Duration::from_millis(100)).await; // it closes what is of no use next
        kept.start_post(CHAT, "", &chat("hi", false)).await;
        eventually("the worker has it", async || worker.requests().len() == 2).await;
        lasting(Duration::from_millis(100)).await;
        gate.add_permits(1);
        let answer = kept.answer().await;
        assert!(answer.status == 200 && answer.head.contains("connection: close"), "{}", answer.head);
    };
    tokio::join!(node.shutdown(), asked);
}

#[tokio::test]
async fn p10_what_the_drain_timeout_cuts_is_told_in_every_phase() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.server.drain_timeout = Duration::from_millis(300);
    config.server.stream_keep_alive = Duration::from_millis(50);
    let node = node(config).await;
    worker.always(vec![Step::WaitForClose]);
    let mut whole = Client::connect(node.address).await;
    whole.start_post(CHAT, "", &chat("hi", false)).await;
    let mut early = Client::connect(node.address).await;
    early.start_post(CHAT, "", &chat("hi", true)).await;
    assert!(early.read_until(": keep-alive").await);
    let mut half = Client::connect(node.address).await;
    half.send(format!("POST {CHAT} HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\n{{").as_bytes()).await;
    eventually("the worker has two", async || worker.requests().len() == 2).await;
    let told = async {
        for client in [&mut whole, &mut half] {
            let answer = client.answer().await;
            assert_eq!((answer.status, answer.json()["error"]["code"].clone()), (503, "draining".into()));
            assert!(answer.head.contains("retry-after: "), "{}", answer.head);
        }
        let answer = early.answer().await;
        assert!(answer.is_complete && answer.text().contains("\"draining\""), "{}", answer.text());
    };
    tokio::join!(node.shutdown(), told);
    eventually("the worker is told", async || worker.aborts() == 2).await;
}

#[tokio::test]
async fn p10_a_request_sent_just_before_the_end_is_served() {
    let worker = Upstream::start("one").await;
    for _ in 0..10 {
        let node = node(config(&[&worker])).await;
        let mut client = Client::connect(node.address).await;
        client.start_post(CHAT, "", &chat("hi", false)).await;
        let (answer, ()) = tokio::join!(client.answer(), node.shutdown());
        assert_eq!(answer.status, 200);
    }
}
