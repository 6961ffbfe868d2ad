//! `/keys` and `/tenants`: what is told, what is not, and who may ask afterwards.

use serde_json::json;

use super::*;

async fn call(edge: &Edge, method: &str, path: &str, key: &str, body: Value) -> Reply {
    let request = request(method, path, body.to_string());
    edge.send(if key.is_empty() { request } else { with_header(request, "x-api-key", key) }).await
}

#[tokio::test]
async fn a_key_is_told_once_and_closes_what_was_open() {
    let edge = Edge::new();
    let reply = call(&edge, "POST", "/keys", "", json!({"name": "root", "tenant": "ops", "role": "admin"})).await;
    assert_eq!(reply.error(), (400, "refused".to_owned()));
    assert!(reply.body.contains("smg tenants add ops"), "it says what to do: {}", reply.body);
    let reply = call(&edge, "POST", "/tenants", "", json!({"name": "ops"})).await;
    assert_eq!((reply.status.as_u16(), reply.json()["enabled"].as_bool()), (201, Some(true)));
    let made = call(&edge, "POST", "/keys", "", json!({"name": "root", "tenant": "ops", "role": "admin"})).await;
    let made = made.json();
    assert!(made["note"].as_str().is_some_and(|it| it.contains("on loopback too")), "{made}");
    let (id, root) = (made["id"].as_str().expect("an id"), made["key"].as_str().expect("the key"));

    assert_eq!(call(&edge, "GET", "/keys", "", json!({})).await.error().0, 401, "loopback alone is not enough now");
    let given = json!({"name": "app", "tenant": "ops", "key": "sk-canary-given-by-hand"});
    let app = call(&edge, "POST", "/keys", root, given.clone()).await;
    assert!(app.status == 201 && !app.body.contains("canary"), "{}", app.body);
    assert_eq!(call(&edge, "GET", "/keys", "sk-canary-given-by-hand", json!({})).await.error().0, 403);
    let again = call(&edge, "POST", "/keys", root, given).await;
    assert!(again.status == 400 && !again.body.contains("canary"), "{}", again.body);
    let listed = call(&edge, "GET", "/keys", root, json!({})).await;
    assert!(!listed.body.contains(root) && !listed.body.contains("canary"), "{}", listed.body);
    assert_eq!(listed.json()["total"], 2);
    let one = call(&edge, "GET", &format!("/keys/{id}"), root, json!({})).await.json();
    assert_eq!((&one["state"], &one["role"], &one["source"]), (&json!("active"), &json!("admin"), &json!("api")));

    let wrong = call(&edge, "DELETE", "/keys/sk-canary-given-by-hand", root, json!({})).await;
    assert!(wrong.error() == (404, "key_not_found".to_owned()) && !wrong.body.contains("canary"), "{}", wrong.body);
    let own = call(&edge, "DELETE", "/tenants/ops", root, json!({})).await;
    assert_eq!(own.error(), (400, "refused".to_owned()), "nobody locks himself out");
    let removed = call(&edge, "DELETE", &format!("/keys/{id}"), root, json!({})).await.json();
    assert!(removed["removed"] == true && removed["note"].as_str().is_some_and(|it| it.contains("loopback only")));
    assert_eq!(call(&edge, "GET", "/keys", "", json!({})).await.status, 200, "as it was before");
}

#[tokio::test]
async fn a_refused_key_is_told_why_and_what_to_do() {
    let edge = Edge::new();
    edge.worker(&["m"], []);
    call(&edge, "POST", "/tenants", "", json!({"name": "team"})).await;
    let made = call(&edge, "POST", "/keys", "", json!({"name": "app", "tenant": "team"})).await.json();
    let (path, key) = (format!("/keys/{}", made["id"].as_str().unwrap()), made["key"].as_str().unwrap());
    let models = async || call(&edge, "GET", "/v1/models", key, json!({})).await;
    assert_eq!(models().await.status, 200);
    for (path, off, on, code) in [
        (path.as_str(), json!({"disabled": true}), json!({"disabled": false}), "key_disabled"),
        ("/tenants/team", json!({"enabled": false}), json!({"enabled": true}), "tenant_disabled"),
    ] {
        assert_eq!(call(&edge, "PATCH", path, "", off).await.status, 200);
        let reply = models().await;
        assert_eq!(reply.error(), (403, code.to_owned()));
        assert!(reply.body.contains("`smg ") && !reply.body.contains(key), "{}", reply.body);
        assert_eq!(call(&edge, "PATCH", path, "", on).await.status, 200);
        assert_eq!(models().await.status, 200);
    }
    assert_eq!(call(&edge, "DELETE", "/tenants/team", "", json!({})).await.status, 200);
    assert_eq!(models().await.error(), (403, "tenant_removed".to_owned()));
    assert_eq!(call(&edge, "GET", "/tenants/team", "", json!({})).await.error(), (404, "tenant_not_found".to_owned()));
}
