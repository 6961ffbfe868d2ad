//! Faults on purpose through the admin API: who may, at which node, and what is refused.

use super::*;

const PATH: &str = "/admin/chaos";

fn lab(keys: &'static [&'static str]) -> Edge {
    let chaos = faults::start(Entropy::seeded(1), &mut MetricsRegistry::default(), &Tasks::new());
    Edge::with(Settings { chaos, keys, ..Settings::default() })
}

async fn ask(edge: &Edge, method: &str, path: &str, body: &str) -> (u16, Value) {
    let reply = edge.send(request(method, path, Bytes::copy_from_slice(body.as_bytes()))).await;
    (reply.status.as_u16(), reply.json())
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_not_started_for_it_cannot_be_made_to_fail() {
    let edge = Edge::new();
    for (method, path) in [("GET", PATH), ("POST", PATH), ("DELETE", PATH), ("DELETE", "/admin/chaos/f-1")] {
        let reply = edge.send(request(method, path, r#"{"kind":"disk_fail","for":"1s"}"#)).await;
        assert_eq!(reply.error(), (404, "chaos_off".to_owned()), "{method} {path}");
        assert!(reply.body.contains("`--chaos`"), "{}", reply.body);
    }
    assert!(!edge.gateway.chaos.disk().fails);
    assert_eq!(ask(&edge, "GET", "/cluster/node", "").await.1["chaos"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn only_an_admin_may() {
    let edge = lab(&["ann:team:user:sk-user", "ops:team:admin:sk-admin"]);
    for (key, status) in [("sk-user", 403), ("sk-wrong", 401), ("sk-admin", 200)] {
        let asked = request("POST", PATH, r#"{"kind":"disk_full","for":"1s"}"#);
        let reply = edge.send(with_header(asked, "authorization", &format!("Bearer {key}"))).await;
        assert_eq!(reply.status.as_u16(), status, "{key}: {}", reply.body);
    }
    assert_eq!(edge.gateway.chaos.active().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn faults_begin_are_shown_and_end_by_themselves_or_by_a_word() {
    let edge = lab(&[]);
    let worker = r#"{"kind":"worker_delay","worker":"HTTP://Gpu1:8000/","ms":50,"for":"30s"}"#;
    let (status, fault) = ask(&edge, "POST", PATH, worker).await;
    assert_eq!((status, &fault["id"], &fault["worker"]), (200, &"f-1".into(), &"http://gpu1:8000".into()), "{fault}");
    assert_eq!((&fault["since_seconds"], &fault["left_seconds"]), (&0.0.into(), &30.0.into()));
    assert_eq!(ask(&edge, "POST", PATH, r#"{"kind":"raft","for":"10s"}"#).await.0, 200);
    assert_eq!(ask(&edge, "POST", PATH, r#"{"kind":"gossip","for":"10m"}"#).await.0, 200);
    Clock.sleep(Duration::from_secs(11)).await;
    let (_, listed) = ask(&edge, "GET", PATH, "").await;
    assert_eq!((&listed["total"], &listed["faults"][0]["since_seconds"]), (&2.into(), &11.0.into()), "{listed}");
    let health = ask(&edge, "GET", "/cluster/health", "").await.1;
    assert!(health["reasons"].to_string().contains("fails on purpose: worker_delay, gossip"), "{health}");
    assert_eq!(ask(&edge, "GET", "/cluster/node", "").await.1["chaos"], listed["faults"]);
    assert_eq!(ask(&edge, "DELETE", "/admin/chaos/f-3", "").await.1["kind"], "gossip");
    for gone in ["f-3", "f-9", "3", "x"] {
        let reply = edge.send(request("DELETE", &format!("{PATH}/{gone}"), "")).await;
        assert_eq!(reply.error(), (404, "fault_not_found".to_owned()), "{gone}");
    }
    assert_eq!(ask(&edge, "DELETE", PATH, "").await.1["total"], 1);
    assert_eq!(ask(&edge, "GET", PATH, "").await.1["total"], 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_fault_is_refused_with_what_is_wrong() {
    let edge = lab(&[]);
    for (body, status, says) in [
        (r#"{"kind":"gossip"}"#, 400, "`for`"),
        (r#"{"kind":"gossip","for":"soon"}"#, 400, "`for`"),
        (r#"{"kind":"gossip","for":"11m"}"#, 400, "from 1 ms to 600 s"),
        (r#"{"kind":"earthquake","for":"1s"}"#, 400, "unknown variant"),
        (r#"{"kind":"gossip","for":"1s","ms":1}"#, 400, "unknown field"),
        (r#"{"kind":"loss","for":"1s","nodes":["*"],"ratio":2}"#, 400, "`ratio`"),
        (r#"{"kind":"partition","for":"1s","nodes":["gw-9"]}"#, 404, "gw-9"),
        (r#"{"kind":"worker_refuse","for":"1s","worker":"not a url"}"#, 400, "`worker`"),
        (r#"{"kind":"worker_refuse","for":"1s","worker":"w-0123456789abcdef"}"#, 404, "w-0123456789abcdef"),
    ] {
        let (given, answer) = ask(&edge, "POST", PATH, body).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(given == status && message.contains(says), "{body}: {given} {message}");
    }
    for n in 0..faults::core::ACTIVE_MAX + 1 {
        let (status, answer) = ask(&edge, "POST", PATH, r#"{"kind":"gossip","for":"1m"}"#).await;
        assert_eq!(status == 200, n < faults::core::ACTIVE_MAX, "{n}: {answer}");
    }
}
