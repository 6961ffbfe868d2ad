//! What one tenant has is not there for another, by whichever way it asks.

use super::*;

#[tokio::test(start_paused = true)]
async fn another_tenants_records_are_as_if_they_never_were() {
    let kept = Kept::new();
    let edge = kept.node_with(1, Settings { keys: &["a:one:secret-one", "b:two:secret-two"], ..Settings::default() });
    edge.worker(&["m"], [whole(200, ANSWER)]);
    let of = |key: &str, request: Request<Body>| with_header(request, "authorization", &format!("Bearer {key}"));
    let mine = |request| edge.send(of("secret-one", request));
    let theirs = |request| edge.send(of("secret-two", request));
    let made = mine(post(RESPONSES, HELLO)).await;
    assert_eq!(made.status.as_u16(), 200, "{}", made.body);
    let made = made.json();
    let conversation =
        mine(post("/v1/conversations", r#"{"items":[{"role":"user","content":"x","id":"msg_mine"}]}"#)).await.json();
    let (response, conversation) = (made["id"].as_str().unwrap(), conversation["id"].as_str().unwrap());
    let item = made["output"][0]["id"].as_str().unwrap();
    let same = |real: &Reply, none: &Reply, id: &str, no_id: &str| {
        assert!(matches!(real.status.as_u16(), 400 | 404), "{}", real.body);
        assert_eq!((real.status, real.body.replace(id, no_id)), (none.status, none.body.clone()));
    };
    for (method, path) in [
        ("GET", "/v1/responses/ID"),
        ("GET", "/v1/responses/ID?stream=true"),
        ("DELETE", "/v1/responses/ID"),
        ("POST", "/v1/responses/ID/cancel"),
        ("GET", "/v1/responses/ID/input_items"),
    ] {
        let real = theirs(request(method, &path.replace("ID", response), "")).await;
        same(&real, &theirs(request(method, &path.replace("ID", "resp_0"), "")).await, response, "resp_0");
    }
    for (method, path, body) in [
        ("GET", "/v1/conversations/ID", ""),
        ("POST", "/v1/conversations/ID", r#"{"metadata":{}}"#),
        ("DELETE", "/v1/conversations/ID", ""),
        ("GET", "/v1/conversations/ID/items", ""),
        ("POST", "/v1/conversations/ID/items", r#"{"items":[]}"#),
        ("GET", "/v1/conversations/ID/items/msg_mine", ""),
        ("DELETE", "/v1/conversations/ID/items/msg_mine", ""),
    ] {
        let real = theirs(request(method, &path.replace("ID", conversation), body)).await;
        let none = theirs(request(method, &path.replace("ID", "conv_0"), body)).await;
        same(&real, &none, conversation, "conv_0");
    }
    for (id, no_id, body) in [
        (response, "resp_0", r#"{"model":"m","input":"x","previous_response_id":"ID"}"#),
        (conversation, "conv_0", r#"{"model":"m","input":"x","conversation":"ID"}"#),
        (item, "msg_0", r#"{"model":"m","input":[{"type":"item_reference","id":"ID"}]}"#),
        ("msg_mine", "msg_0", r#"{"model":"m","input":[{"type":"item_reference","id":"ID"}]}"#),
    ] {
        let real = theirs(post(RESPONSES, &body.replace("ID", id))).await;
        same(&real, &theirs(post(RESPONSES, &body.replace("ID", no_id))).await, id, no_id);
    }
    let keyed = |key| with_header(of(key, post(RESPONSES, HELLO)), "idempotency-key", "k");
    let (one, two) = (edge.send(keyed("secret-one")).await.json(), edge.send(keyed("secret-two")).await.json());
    assert_ne!(one["id"], two["id"], "a key is its tenant's");
    assert_eq!(mine(request("GET", &path_of(&made), "")).await.json(), made, "nothing was changed");
    assert_eq!(edge.send(request("GET", &path_of(&made), "")).await.error().0, 401);
}
