//! P2 and P9 for keys: made at one node, one is in force at the other in time; removed at the other, it is gone at both and stays so over a restart; and
//! the key itself is nowhere but in the answer that told it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use cluster_tests::Answer;
use cluster_tests::Capture;
use cluster_tests::Client;
use cluster_tests::eventually;
use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;

use super::mesh::Member;
use super::mesh::free_ports;

/// P2: in force everywhere within this.
const IN_FORCE: Duration = Duration::from_secs(1);

pub(crate) async fn call(node: SocketAddr, method: &str, path: &str, key: &str, body: &Value) -> Answer {
    let body = body.to_string();
    let len = body.len();
    let key = if key.is_empty() { String::new() } else { format!("x-api-key: {key}\r\n") };
    let mut client = Client::connect(node).await;
    let head = format!("{method} {path} HTTP/1.1\r\nhost: t\r\n{key}content-length: {len}\r\n\r\n{body}");
    client.send(head.as_bytes()).await;
    client.answer().await
}

/// Waits until a key gets this status, and says how long that took.
async fn until(node: SocketAddr, key: &str, status: u16) -> Duration {
    let started = Instant::now();
    eventually(&format!("the key gets {status}"), async || {
        call(node, "GET", "/v1/models", key, &Value::Null).await.status == status
    })
    .await;
    started.elapsed()
}

/// Whether any file below a directory has these bytes.
fn is_on_disk(folder: &Path, needle: &str) -> bool {
    let entries = std::fs::read_dir(folder).expect("a directory").map(|it| it.expect("an entry").path());
    entries.into_iter().any(|path| {
        if path.is_dir() {
            return is_on_disk(&path, needle);
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        bytes.windows(needle.len()).any(|it| it == needle.as_bytes())
    })
}

#[tokio::test]
async fn p2_a_key_made_at_one_node_is_in_force_at_all_and_one_removed_never_comes_back() {
    let capture = Capture::start();
    let addresses: [SocketAddr; 2] = free_ports();
    let one = Member::fresh(addresses[0].port(), &addresses).await;
    let two = Member::fresh(addresses[1].port(), &addresses).await;
    one.sees(addresses[1], "alive").await;
    two.sees(addresses[0], "alive").await;
    for node in [&one, &two] {
        node.has_joined().await;
    }
    let (first, second) = (one.address(), two.address());

    let none = Value::Null;
    assert_eq!(call(first, "POST", "/tenants", "", &json!({"name": "ops"})).await.status, 201);
    let made =
        call(first, "POST", "/keys", "", &json!({"name": "root", "tenant": "ops", "role": "admin"})).await.json();
    let root = made["key"].as_str().expect("the key").to_owned();
    // A node without any key lets everybody in, so that one is refused is what shows it.
    let took = until(second, "", 401).await;
    assert!(took <= IN_FORCE, "in force at the other node after {took:?}");
    until(second, &root, 200).await;
    let open = call(second, "GET", "/keys", "", &none).await;
    assert_eq!(open.status, 401, "loopback alone is not enough, at the other node too: {}", open.text());

    let made = call(second, "POST", "/keys", &root, &json!({"name": "app", "tenant": "ops"})).await.json();
    let (app, id) = (made["key"].as_str().expect("the key").to_owned(), made["id"].as_str().expect("an id").to_owned());
    let took = until(first, &app, 200).await;
    assert!(took <= IN_FORCE, "in force at the first node after {took:?}");
    let removed = call(first, "DELETE", &format!("/keys/{id}"), &root, &none).await;
    assert_eq!((removed.status, removed.json()["durable"].as_bool()), (200, Some(true)), "{}", removed.text());
    assert_eq!(call(first, "GET", "/v1/models", &app, &none).await.status, 401, "at once where it was removed");
    let took = until(second, &app, 401).await;
    assert!(took <= IN_FORCE, "refused at the other node after {took:?}");

    let told = [
        call(first, "GET", "/keys", &root, &none).await.text(),
        call(second, "GET", "/cluster/members", &root, &none).await.text(),
        call(second, "GET", &format!("/keys/{id}"), &root, &none).await.text(),
    ];
    // The node that was away while a key changed comes back with what it knew.
    let data = two.stop().await;
    let made = call(first, "POST", "/keys", &root, &json!({"name": "late", "tenant": "ops"})).await.json();
    let late = made["key"].as_str().expect("the key").to_owned();
    assert!(!is_on_disk(data.path(), &root) && !is_on_disk(data.path(), &app), "no key lies in a data directory");
    let two = Member::start(data, addresses[1].port(), &addresses, &[]).await;
    let second = two.address();
    assert_eq!(call(second, "GET", "/v1/models", &root, &none).await.status, 200, "known from disk");
    assert_eq!(call(second, "GET", "/v1/models", &app, &none).await.status, 401, "removed for good");
    until(second, &late, 200).await;
    assert_eq!(call(second, "GET", "/v1/models", &app, &none).await.status, 401);
    for node in [one, two] {
        drop(node.stop().await);
    }
    tracing::info!("everything was said");
    eventually("the log is written", async || capture.lines().iter().any(|it| it.contains("everything was said")))
        .await;
    let lines = capture.lines();
    assert!(lines.iter().any(|it| it.contains("key_removed")), "there are audit lines");
    for key in [&root, &app, &late] {
        let leak = lines.iter().chain(&told).find(|it| it.contains(key.as_str()));
        assert_eq!(leak, None, "a key was told");
    }
}

#[tokio::test]
async fn limits_that_are_none_are_refused() {
    let node = smg::node::Node::start(cluster_tests::config(&[])).await.expect("it starts");
    let none = json!({"limits": [{"what": "requests", "per": "minute", "limit": null}]});
    let some = json!({"limits": [{"what": "requests", "per": "minute", "limit": 5}]});
    assert_eq!(call(node.address, "POST", "/tenants", "", &json!({"name": "team"})).await.status, 201);
    assert_eq!(call(node.address, "PATCH", "/tenants/team", "", &none).await.status, 200);
    let set = call(node.address, "PATCH", "/tenants/team", "", &some).await;
    assert_eq!(
        (set.status, &set.json()["durable"]),
        (200, &json!(false)),
        "until the restart, and says so: {}",
        set.text()
    );
    for bad in [json!(-1), json!(1.5), json!("many"), json!(1u64 << 40)] {
        let body = json!({"limits": [{"what": "requests", "per": "minute", "limit": bad}]});
        assert_eq!(call(node.address, "PATCH", "/tenants/team", "", &body).await.status, 400, "{body}");
    }
    assert_eq!(call(node.address, "PATCH", "/tenants/team", "", &json!({})).await.status, 400, "nothing to change");
}
