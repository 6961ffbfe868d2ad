//! The route table: who may call what, what other methods and paths get, browsers, models, and where a request would go.

use super::*;
use crate::api::routes::ROUTES;
use crate::api::routes::Route;
use crate::api::routes::Serve;

/// A path of the route that names nothing there is.
fn path(route: &Route) -> String {
    route.path.replace("{id}", "nothing")
}

#[test]
fn no_two_routes_share_method_and_path_and_each_is_described() {
    let mut seen = std::collections::BTreeSet::new();
    for route in ROUTES {
        assert!(seen.insert((route.method, route.path)), "{} {}", route.method, route.path);
        assert!(
            matches!(route.method, "GET" | "POST" | "PUT" | "PATCH" | "DELETE") && !route.doc.is_empty(),
            "{}",
            route.path
        );
    }
}

#[tokio::test(start_paused = true)]
async fn every_route_asks_for_the_key_its_line_says() {
    let edge =
        Edge::with(Settings { keys: &["ann:team:user:sk-user", "ops:team:admin:sk-admin"], ..Settings::default() });
    for route in ROUTES {
        let ask = |key: &str| {
            let request = request(route.method, &path(route), "{}");
            if key.is_empty() { request } else { with_header(request, "authorization", &format!("Bearer {key}")) }
        };
        let mut statuses = Vec::new();
        for key in ["", "sk-wrong", "sk-user", "sk-admin"] {
            statuses.push(edge.send(ask(key)).await.status.as_u16());
        }
        let [none, wrong, user, admin] = statuses[..] else { panic!("four keys") };
        let is_let_in = |status: u16| !matches!(status, 401 | 403);
        let expected = match route.serve {
            Serve::Public(_) => (true, true, true),
            Serve::User(_) | Serve::Kept(_) | Serve::Model(_) => (false, false, true),
            Serve::Admin(_) => (false, false, false),
        };
        assert_eq!((is_let_in(none), is_let_in(wrong), is_let_in(user)), expected, "{} {}", route.method, route.path);
        assert!(is_let_in(admin), "{} {}: {admin}", route.method, route.path);
        if matches!(route.serve, Serve::Admin(_)) {
            assert_eq!((none, wrong, user), (401, 401, 403), "{} {}", route.method, route.path);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_admin_key_the_admin_api_is_for_this_machine_alone() {
    let edge = Edge::new();
    for (peer, expected) in [
        ("127.0.0.1:1", 200),
        ("[::1]:1", 200),
        ("[::ffff:127.0.0.1]:1", 200),
        ("10.0.0.7:1", 403),
        ("[::ffff:10.0.0.7]:1", 403),
    ] {
        let mut request = request("GET", "/workers", "");
        request.extensions_mut().insert(ConnectInfo::<SocketAddr>(peer.parse().expect("an address")));
        assert_eq!(edge.send(request).await.status, expected, "{peer}");
    }
    let mut unknown = request("GET", "/workers", "");
    unknown.extensions_mut().clear();
    assert_eq!(edge.send(unknown).await.status, 403, "who is not known is not this machine");
}

#[tokio::test(start_paused = true)]
async fn another_method_is_405_and_another_path_404_in_our_schema() {
    let edge = Edge::new();
    for route in ROUTES {
        let is_taken = |method: &&str| ROUTES.iter().any(|it| it.path == route.path && it.method == *method);
        let other = ["PUT", "PATCH"].into_iter().find(|it| !is_taken(it)).expect("no path takes both");
        let reply = edge.send(request(other, &path(route), "{}")).await;
        assert_eq!(reply.error(), (405, "method_not_allowed".to_owned()), "{}", route.path);
        let allowed = reply.header("allow").unwrap_or_default();
        assert!(allowed.split(',').any(|it| it.trim() == route.method), "{}: `{allowed}`", route.path);
    }
    for path in ["/", "/v1", "/v1/chat/completions/", "/v1//models", "/nothing", "/v1/models/a/b"] {
        assert_eq!(edge.send(request("GET", path, "")).await.error(), (404, "unknown_url".to_owned()), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_browser_is_answered_only_where_its_origin_is_configured() {
    let configured = |origins: &[&str]| {
        let origins = origins.iter().map(|it| (*it).to_owned()).collect();
        Edge::with(Settings {
            server: Config { cors_allowed_origins: origins, ..Config::default() },
            ..Settings::default()
        })
    };
    for (origins, origin, expected) in [
        (&[][..], "https://a.example", None),
        (&["https://a.example"], "https://a.example", Some("https://a.example")),
        (&["https://a.example"], "https://a.example.evil", None),
        (&["https://a.example"], "null", None),
        (&["*"], "https://b.example", Some("https://b.example")),
    ] {
        let edge = configured(origins);
        let asked = edge.send(with_header(request("GET", "/liveness", ""), "origin", origin)).await;
        assert_eq!((asked.status.as_u16(), asked.header("access-control-allow-origin")), (200, expected), "{origin}");
        let preflight = edge.send(with_header(request("OPTIONS", CHAT, ""), "origin", origin)).await;
        let status = if expected.is_some() { 204 } else { 405 };
        assert_eq!((preflight.status.as_u16(), preflight.header("access-control-allow-origin")), (status, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn models_are_the_union_of_what_workers_serve_by_name_and_each_once() {
    let edge = Edge::new();
    assert_eq!(edge.send(request("GET", "/v1/models", "")).await.json()["data"], serde_json::json!([]));
    for models in [&["b", "org/a"][..], &["b", "b"], &["c"]] {
        edge.worker(models, [whole(200, ANSWER)]);
    }
    assert_eq!(edge.gateway.registry.fleet().by_model["b"].len(), 2, "who lists a model twice is one worker");
    let listed = edge.send(request("GET", "/v1/models", "")).await.json();
    let ids: Vec<_> =
        listed["data"].as_array().expect("a list").iter().map(|it| it["id"].as_str().expect("text")).collect();
    assert_eq!(ids, ["b", "c", "org/a"]);
    for (name, expected) in
        [("b", 200), ("org%2Fa", 200), ("org%2fa", 200), ("a", 404), ("%", 404), ("%+2", 404), ("%zz", 404)]
    {
        assert_eq!(edge.send(request("GET", &format!("/v1/models/{name}"), "")).await.status, expected, "{name}");
    }
}

#[test]
fn a_segment_is_unescaped_once_and_by_hex_digits_alone() {
    for (path, expected) in [
        ("/a/b", "b"),
        ("/a/", ""),
        ("/", ""),
        ("/x%2Fy", "x/y"),
        ("/%252F", "%2F"),
        ("/%", "%"),
        ("/%4", "%4"),
        ("/%+5", "%+5"),
        ("/%-1", "%-1"),
        ("/%C3%BC", "\u{fc}"),
        ("/%ff", "\u{FFFD}"),
        ("/a?b=/c", "a"),
    ] {
        let request = request("GET", path, "");
        assert_eq!(crate::api::last_segment(&request), expected, "{path}");
    }
    let long = format!("/{}", "a".repeat(1000));
    assert_eq!(crate::api::last_segment(&request("GET", &long, "")).len(), 300);
}

#[tokio::test(start_paused = true)]
async fn an_explanation_names_a_worker_and_sends_nothing() {
    let edge = Edge::new();
    let workers = [edge.worker(&["m"], [whole(200, ANSWER)]), edge.worker(&["m"], [whole(200, ANSWER)])];
    for body in [ASK, r#"{"model":"m","prompt":"hi"}"#] {
        let reply = edge.post("/v1/route/explain", body).await;
        let named = reply.json()["worker"].as_str().expect("a worker").to_owned();
        assert!(workers.iter().any(|it| it.id.to_string() == named), "{named}");
        assert_eq!((reply.status.as_u16(), edge.load(), workers[0].calls() + workers[1].calls()), (200, (0, 0), 0));
    }
    assert_eq!(edge.post("/v1/route/explain", r#"{"model":"x","messages":[]}"#).await.error().0, 404);
    assert_eq!(edge.post("/v1/route/explain", "{").await.error(), (400, "invalid_json".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_worker_lives_through_the_admin_api() {
    let edge = Edge::new();
    edge.gateway
        .registry
        .stub("http://added", Arc::new(Fake::new([whole(200, "{}"), whole(200, "{}"), whole(200, "{}")])));
    let added = edge.send(request("POST", "/workers", r#"{"url":"http://added","models":["m"]}"#)).await;
    assert_eq!(
        (added.status, &added.json()["durable"]),
        (http::StatusCode::CREATED, &false.into()),
        "it has no directory"
    );
    let path = format!("/workers/{}", added.json()["id"].as_str().expect("an id"));
    assert_eq!(edge.send(request("GET", &path, "")).await.json()["id"], added.json()["id"]);
    let drained = edge.send(request("PATCH", &path, r#"{"draining":true}"#)).await.json();
    assert_eq!((&drained["state"], &drained["is_healthy"]), (&"draining".into(), &false.into()));
    assert_eq!(edge.send(request("GET", "/readiness", "")).await.status, 503, "nobody takes requests");
    assert_eq!(edge.send(request("PATCH", &path, r#"{"draining":false}"#)).await.json()["is_healthy"], true);
    assert_eq!(edge.send(request("GET", "/readiness", "")).await.status, 200);
    assert_eq!(edge.send(request("DELETE", &path, "")).await.status, 200);
    for (method, body) in [("GET", ""), ("PATCH", r#"{"draining":true}"#), ("DELETE", "")] {
        assert_eq!(
            edge.send(request(method, &path, body)).await.error(),
            (404, "worker_not_found".to_owned()),
            "{method}"
        );
    }
    for body in [
        "",
        "[]",
        r#"{"url":7}"#,
        r#"{"url":"ftp://x"}"#,
        r#"{"url":"http://u:p@x"}"#,
        r#"{"uri":"http://x"}"#,
        r#"{"url":"http://x","models":[""]}"#,
    ] {
        let reply = edge.post("/workers", body).await;
        assert_eq!(reply.error(), (400, "refused".to_owned()), "{body}");
        assert!(!reply.body.contains("u:p"), "{}", reply.body);
    }
}
