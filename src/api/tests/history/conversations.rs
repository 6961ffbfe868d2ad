//! Conversations: their items, their pages, and what responses add to them.

use super::*;

const CONVERSATIONS: &str = "/v1/conversations";

async fn conversation(edge: &Edge, body: Value) -> Value {
    let reply = edge.post(CONVERSATIONS, &body.to_string()).await;
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.body);
    reply.json()
}

fn at(conversation: &Value, rest: &str) -> String {
    format!("{CONVERSATIONS}/{}{rest}", conversation["id"].as_str().expect("an id"))
}

fn texts(list: &Value) -> Vec<String> {
    let text = |it: &Value| it["content"][0]["text"].as_str().unwrap_or_default().to_owned();
    list["data"].as_array().expect("a list").iter().map(text).collect()
}

#[tokio::test(start_paused = true)]
async fn a_conversation_is_made_noted_on_and_deleted() {
    let edge = Kept::new().node(1);
    let made =
        conversation(&edge, json!({"metadata": {"topic": "x"}, "items": [{"role": "user", "content": "one"}]})).await;
    assert_eq!((&made["object"], &made["metadata"]), (&json!("conversation"), &json!({"topic": "x"})));
    let path = at(&made, "");
    assert_eq!(get(&edge, &path).await.json(), made);
    let noted = edge.post(&path, r#"{"metadata":{"topic":"y"}}"#).await.json();
    assert_eq!(noted["metadata"], json!({"topic": "y"}));
    assert_eq!(texts(&get(&edge, &at(&made, "/items")).await.json()), ["one"]);
    let gone = delete(&edge, &path).await.json();
    assert_eq!(gone, json!({"id": made["id"], "object": "conversation.deleted", "deleted": true}));
    for path in [path, at(&made, "/items")] {
        assert_eq!(get(&edge, &path).await.error(), (404, "not_found".to_owned()));
    }
    let empty = edge.send(request("POST", CONVERSATIONS, Body::empty())).await.json();
    assert_eq!(empty["metadata"], json!({}));
}

#[tokio::test(start_paused = true)]
async fn items_are_listed_in_pages_shown_and_deleted() {
    let edge = Kept::new().node(1);
    let made = conversation(&edge, json!({})).await;
    let items: Vec<Value> = (0..5).map(|n| json!({"role": "user", "content": format!("{n}")})).collect();
    let added = edge.post(&at(&made, "/items"), &json!({"items": items}).to_string()).await.json();
    assert_eq!(
        (texts(&added), &added["has_more"]),
        (["0", "1", "2", "3", "4"].map(String::from).to_vec(), &json!(false))
    );
    let page = get(&edge, &at(&made, "/items?limit=2")).await.json();
    assert_eq!((texts(&page), &page["has_more"]), (vec!["4".to_owned(), "3".to_owned()], &json!(true)));
    let after = page["last_id"].as_str().expect("an id");
    assert_eq!(texts(&get(&edge, &at(&made, &format!("/items?limit=2&after={after}"))).await.json()), ["2", "1"]);
    let up = get(&edge, &at(&made, &format!("/items?order=asc&after={after}"))).await.json();
    assert_eq!((texts(&up), &up["has_more"]), (vec!["4".to_owned()], &json!(false)));
    let item = at(&made, &format!("/items/{after}"));
    assert_eq!(get(&edge, &item).await.json()["content"][0]["text"], "3");
    assert_eq!(delete(&edge, &item).await.json(), made);
    assert_eq!(delete(&edge, &item).await.error(), (404, "not_found".to_owned()));
    let wrong = get(&edge, &at(&made, &format!("/items?after={after}"))).await;
    assert_eq!((wrong.status.as_u16(), &wrong.json()["error"]["param"]), (400, &json!("after")));
    for (body, param) in [
        (json!({"items": "x"}), "items"),
        (json!({}), "items"),
        (json!({"items": [{"type": "item_reference", "id": "msg_1"}]}), "items[0].type"),
        (json!({"items": [{"type": "computer_call"}]}), "items[0].type"),
        (json!({"items": [], "more": 1}), "more"),
    ] {
        let reply = edge.post(&at(&made, "/items"), &body.to_string()).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["error"]["param"]), (400, &json!(param)), "{body}");
    }
    let named = json!({"items": [{"role": "user", "content": "x", "id": "mine"}]}).to_string();
    assert_eq!(edge.post(&at(&made, "/items"), &named).await.json()["first_id"], "mine");
    assert_eq!(edge.post(&at(&made, "/items"), &named).await.error(), (409, "already_exists".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_response_reads_its_conversation_and_adds_to_it() {
    let (_, edge, worker) = one([whole(200, ANSWER)]);
    let made = conversation(&edge, json!({"items": [{"role": "user", "content": "one"}]})).await;
    let body = json!({"model": "m", "input": "two", "conversation": {"id": made["id"]}});
    let response = created(&edge, body.clone()).await;
    assert_eq!(response["conversation"], json!({"id": made["id"]}));
    assert_eq!(asked(&worker, 0)["messages"].as_array().map(Vec::len), Some(2));
    let items = get(&edge, &at(&made, "/items?order=asc")).await.json();
    assert_eq!(texts(&items), ["one", "two", "hello"]);
    created(&edge, body).await;
    assert_eq!(asked(&worker, 1)["messages"].as_array().map(Vec::len), Some(4));
    delete(&edge, &at(&made, "")).await;
    assert_eq!(get(&edge, &path_of(&response)).await.json(), response, "responses stay");
}

#[tokio::test(start_paused = true)]
async fn the_same_key_makes_one_conversation_and_adds_items_once() {
    let kept = Kept::new();
    let (edge, other) = (kept.node(1), kept.node(2));
    let send = |path: &str, body: &str, key: &str| with_header(post(path, body), "idempotency-key", key);
    let body = r#"{"items":[{"role":"user","content":"one"}]}"#;
    let made = edge.send(send(CONVERSATIONS, body, "k")).await.json();
    assert_eq!(other.send(send(CONVERSATIONS, body, "k")).await.json(), made);
    assert_eq!(other.send(send(CONVERSATIONS, "{}", "k")).await.error(), (409, "idempotency_key_reused".to_owned()));
    let items = at(&made, "/items");
    let added = edge.send(send(&items, body, "k2")).await.json();
    assert_eq!(other.send(send(&items, body, "k2")).await.json(), added);
    assert_eq!(texts(&get(&edge, &items).await.json()), ["one", "one"]);
}
