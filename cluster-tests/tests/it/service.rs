//! What a user sees when all is well.

use cluster_tests::Client;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::chat;
use cluster_tests::config;
use cluster_tests::node;

#[tokio::test]
async fn a_completion_comes_back_unchanged_and_says_who_answered() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let answer = Client::connect(node.address).await.post("/v1/chat/completions", &chat("hi", false)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "one");
    assert!(
        answer.head.contains("x-smg-worker: w-") && answer.head.contains("x-smg-route: cache_aware; "),
        "{}",
        answer.head
    );
    node.shutdown().await;
}

#[tokio::test]
async fn a_stream_is_passed_on_and_usage_nobody_asked_for_is_taken_out() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let stream = || vec![Step::stream_head(), Step::preamble(), Step::content("a"), Step::content("b"), Step::end()];
    worker.script(stream());
    let mut client = Client::connect(node.address).await;
    let answer = client.post("/v1/chat/completions", &chat("hi", true)).await;
    let text = answer.text();
    assert!(answer.is_complete && text.ends_with("data: [DONE]\n\n") && !text.contains("usage"), "{text}");
    assert!(worker.requests()[0].contains(r#""stream_options":{"include_usage":true}"#));
    worker.script(stream());
    let asked = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
    let text = client.post("/v1/chat/completions", asked).await.text();
    assert_eq!(text.matches("\"usage\"").count(), 1, "{text}");
    node.shutdown().await;
}

#[tokio::test]
async fn field_e7_unknown_fields_and_spaces_arrive_as_they_were_sent() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let body = "{ \"messages\" : [] ,\"model\":\"m\", \"x_future\": {\"a\": [1, 2.50, \"\\u00e9\"]} }";
    Client::connect(node.address).await.post("/v1/chat/completions", body).await;
    assert!(worker.requests()[0].ends_with(body));
    node.shutdown().await;
}

#[tokio::test]
async fn credentials_of_clients_stop_here_and_the_workers_own_are_sent() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.workers.api_key = Some(smg::base::secret::Secret::new("worker-key"));
    let node = node(config).await;
    let mut client = Client::connect(node.address).await;
    let headers = "authorization: Bearer client-canary\r\nx-api-key: client-canary\r\ncookie: client-canary\r\n";
    client.start_post("/v1/chat/completions", headers, &chat("hi", false)).await;
    assert_eq!(client.answer().await.status, 200);
    let seen = &worker.requests()[0];
    assert!(!seen.contains("client-canary") && seen.contains("Bearer worker-key"), "{seen}");
    let listed = Client::connect(node.address).await.get("/workers").await.text();
    assert!(!listed.contains("worker-key") && listed.contains("has_api_key\":true"), "{listed}");
    node.shutdown().await;
}

#[tokio::test]
async fn workers_are_added_listed_drained_and_removed_while_running() {
    let (first, second) = (Upstream::start("one").await, Upstream::start("two").await);
    let node = node(config(&[&first])).await;
    let body = format!("{{\"url\":\"{}\"}}", second.url());
    let added = Client::connect(node.address).await.post("/workers", &body).await;
    assert_eq!((added.status, added.json()["runtime_type"].clone()), (201, "vllm".into()), "{}", added.text());
    let id = added.json()["id"].as_str().expect("an id").to_owned();
    for _ in 0..8 {
        Client::connect(node.address).await.post("/v1/chat/completions", &chat("hi", false)).await;
    }
    let mut client = Client::connect(node.address).await;
    client.send(format!("DELETE /workers/{id} HTTP/1.1\r\nhost: t\r\n\r\n").as_bytes()).await;
    assert_eq!(client.answer().await.status, 200);
    let before = second.requests().len();
    for _ in 0..8 {
        assert_eq!(client.post("/v1/chat/completions", &chat("hi", false)).await.status, 200);
    }
    assert_eq!(second.requests().len(), before, "a removed worker gets nothing");
    node.shutdown().await;
}

#[tokio::test]
async fn models_are_the_union_and_an_unknown_one_is_named_with_what_there_is() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let models = Client::connect(node.address).await.get("/v1/models").await.json();
    assert_eq!(
        (models["data"][0]["id"].clone(), models["data"][0]["max_model_len"].clone()),
        ("m".into(), 8192.into())
    );
    let body = r#"{"model":"nope","messages":[]}"#;
    let answer = Client::connect(node.address).await.post("/v1/chat/completions", body).await;
    assert_eq!((answer.status, answer.json()["error"]["code"].clone()), (404, "model_not_found".into()));
    assert!(answer.json()["error"]["message"].as_str().expect("a message").contains("`m`"));
    node.shutdown().await;
}

#[tokio::test]
async fn keys_are_asked_for_and_users_are_no_admins() {
    let worker = Upstream::start("one").await;
    let node_open = node(config(&[&worker])).await;
    node_open.shutdown().await;
    let mut config = config(&[&worker]);
    let key = |text| <smg::tenancy::config::KeySpec as smg::base::setting::Setting>::parse(text).expect("a key");
    config.tenancy.keys = vec![key("ops:team:admin:sk-admin"), key("app:team:user:sk-user")];
    let node = smg::node::Node::start(config).await.expect("starts");
    let mut client = Client::connect(node.address).await;
    assert_eq!(client.post("/v1/chat/completions", &chat("hi", false)).await.status, 401);
    client.start_post("/workers", "authorization: Bearer sk-user\r\n", "{}").await;
    assert_eq!(client.answer().await.status, 403);
    cluster_tests::eventually("the user's key serves", async || {
        let mut client = Client::connect(node.address).await;
        client.start_post("/v1/chat/completions", "x-api-key: sk-user\r\n", &chat("hi", false)).await;
        client.answer().await.status == 200
    })
    .await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_route_is_explained_without_being_taken() {
    let (first, second) = (Upstream::start("one").await, Upstream::start("two").await);
    let node = node(config(&[&first, &second])).await;
    let answer = Client::connect(node.address).await.post("/v1/route/explain", &chat("hi", false)).await;
    assert_eq!((answer.status, answer.json()["workers"].clone()), (200, 2.into()), "{}", answer.text());
    assert!(first.requests().is_empty() && second.requests().is_empty());
    node.shutdown().await;
}
