//! Where a worker's URL, or a worker, may lead this node: to no metadata service and to no other scheme, by whatever spelling.

use cluster_tests::Client;
use cluster_tests::Scrape;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::chat;
use cluster_tests::config;
use cluster_tests::eventually;
use cluster_tests::node;
use cluster_tests::scrape::measured;
use serde_json::json;

/// No URLs of workers.
const REFUSED: &[&str] = &[
    "file:///etc/passwd",
    "gopher://169.254.169.254/_x",
    "unix:/run/docker.sock",
    "unix:///run/docker.sock",
    "ftp://169.254.169.254/",
    "dict://169.254.169.254:80/x",
    "javascript:alert(1)",
    "http://user@169.254.169.254/",
    "http://good.example@169.254.169.254/",
    "http://169.254.169.254@good.example/",
    "http://good.example\\@169.254.169.254/",
    "http://good.example#@169.254.169.254/",
    "http://169.254.169.254/latest?x=1",
    "http://[::ffff:169.254.169.254",
    "http://[fe80::1%25eth0]/",
    "http://169.254.169.254:0/",
    "http://169.254.169.254:99999/",
    "http://\r\nhost: x",
    "http://",
    "",
];

/// Hosts that nobody dials. An address is judged when it is dialled, so they are taken.
const FORBIDDEN: &[&str] = &[
    "169.254.169.254",
    "169.254.170.2",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[64:ff9b::169.254.169.254]",
    "[fd00:ec2::254]",
    "[fd20:ce::254]",
    "[fe80::1]",
    "0xA9FEA9FE",
    "2852039166",
    "0251.0376.0251.0376",
    "0xa9.0376.43518",
    "100.100.100.200",
    "168.63.129.16",
    "0.0.0.0",
    "0",
    "[::]",
];

#[tokio::test]
async fn ssrf_no_form_of_a_url_leads_to_a_metadata_service() {
    let node = node(measured(config(&[]))).await;
    let metrics = node.metrics_address.expect("is measured");
    let add = async |url: &str| {
        Client::connect(node.address).await.post("/workers", &json!({"url": url, "models": ["m"]}).to_string()).await
    };
    for url in REFUSED {
        let answer = add(url).await;
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_str()),
            (400, Some("refused")),
            "{url}: {}",
            answer.text()
        );
    }
    let forbidden = async || Scrape::of(metrics).await.value("smg_worker_connect_failures_total{reason=\"forbidden\"}");
    for host in FORBIDDEN {
        let before = forbidden().await;
        let answer = add(&format!("http://{host}:8000/base")).await;
        assert_eq!(answer.status, 201, "{host}: an address is judged when it is dialled: {}", answer.text());
        // Told apart from the one before, which is gone, by what it adds.
        eventually("it was judged", async || forbidden().await > before).await;
        let one = format!("/workers/{}", answer.json()["id"].as_str().expect("an id"));
        let chat = Client::connect(node.address).await.post("/v1/chat/completions", &chat("hi", false)).await;
        assert_eq!(chat.status / 100, 5, "{host}: {}", chat.text());
        assert_eq!(Client::connect(node.address).await.call("DELETE", &one, "").await.status, 200);
        let scrape = Scrape::of(metrics).await;
        for other in ["refused", "no_address", "timeout", "tls"] {
            assert_eq!(
                scrape.value(&format!("smg_worker_connect_failures_total{{reason=\"{other}\"}}")),
                0.0,
                "{host}"
            );
        }
    }
    node.shutdown().await;
}

#[tokio::test]
async fn ssrf_a_redirect_is_followed_by_nobody_here() {
    let (worker, target) = (Upstream::start("one").await, Upstream::start("target").await);
    let node = node(config(&[&worker])).await;
    for status in [
        "301 Moved Permanently",
        "302 Found",
        "303 See Other",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
        "300 Multiple Choices",
    ] {
        for location in
            [target.url(), "http://169.254.169.254/latest/meta-data/".to_owned(), "//169.254.169.254/".to_owned()]
        {
            for is_stream in [false, true] {
                worker.script(Step::answer(
                    status,
                    &format!("location: {location}\r\nrefresh: 0; url={location}\r\n"),
                    "{}",
                ));
                let answer =
                    Client::connect(node.address).await.post("/v1/chat/completions", &chat("hi", is_stream)).await;
                assert!(!answer.text().contains("target"), "{status} {location}: {}", answer.text());
            }
        }
    }
    assert_eq!((target.requests().len(), target.connections()), (0, 0));
    node.shutdown().await;
}
