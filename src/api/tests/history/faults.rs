//! What is kept and told when a worker fails, a client leaves, or history cannot be reached.

use futures_util::StreamExt as _;

use super::*;

const STREAM: &str = r#"{"model":"m","input":"hi","stream":true}"#;

/// The first response that there is, as history has it.
async fn first_id(kept: &Kept) -> String {
    let rows = String::from_utf8_lossy(&kept.rows().await).into_owned();
    let at = rows.find("\"id\":\"resp_").expect("a body") + 6;
    rows[at..].split('"').next().expect("an id").to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_as_it_came_and_the_response_is_failed() {
    const NO: &str = r#"{"error":{"message":"too many tokens","code":"context_length_exceeded"}}"#;
    for body in [HELLO, STREAM] {
        let (kept, edge, _) = one([whole(400, NO)]);
        let reply = edge.post(RESPONSES, body).await;
        assert_eq!((reply.status.as_u16(), reply.body.as_str()), (400, NO));
        let found = get(&edge, &format!("{RESPONSES}/{}", first_id(&kept).await)).await.json();
        assert_eq!(
            (&found["status"], &found["error"]),
            (&json!("failed"), &json!({"code": "context_length_exceeded", "message": "too many tokens"}))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_midway_leaves_what_the_client_saw() {
    let (_, edge, _) = one([stream([Step::text(ROLE), Step::text(HEL), Step::Lose])]);
    let last = checked(&edge.post(RESPONSES, STREAM).await.body);
    assert_eq!((&last["status"], text_of(&last)), (&json!("failed"), "hel"));
    assert_eq!(last["output"][0]["status"], "incomplete");
    assert_eq!(get(&edge, &path_of(&last)).await.json(), last);
    assert_eq!(edge.load(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_sends_nonsense_is_a_failure_and_one_that_fails_before_content_is_not_seen() {
    let (_, edge, _) = one([whole(200, "[]")]);
    assert_eq!(created(&edge, json!({"model": "m", "input": "hi"})).await["status"], "failed");
    let edge = Kept::new().node(1);
    edge.worker(&["m"], [stream([Step::text(ROLE), Step::Lose])]);
    edge.worker(&["m"], [good_stream()]);
    for _ in 0..4 {
        assert_eq!(checked(&edge.post(RESPONSES, STREAM).await.body)["status"], "completed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_ends_the_worker_and_the_response() {
    let (kept, edge, worker) = one([stream([Step::text(ROLE), Step::text(HEL), Step::Stall])]);
    let mut body = edge.begin(post(RESPONSES, STREAM)).await.into_body().into_data_stream();
    let mut seen = String::new();
    while !seen.contains("output_text.delta") {
        seen.push_str(&String::from_utf8_lossy(&body.next().await.expect("more").expect("no fault")));
    }
    let path = path_of(&events(seen.split_inclusive("\n\n").next().expect("an event"))[0]["response"]);
    drop(body);
    until("cancelled", || async { get(&edge, &path).await.json()["status"] == "cancelled" }).await;
    assert_eq!(text_of(&get(&edge, &path).await.json()), "hel");
    assert_eq!((worker.seen.borrow().cancelled, edge.load()), (1, (0, 0)));
    // And one that leaves before there is anything.
    let (late, waiting, worker) = one([vec![Step::Stall]]);
    let asking = waiting.begin(post(RESPONSES, HELLO));
    assert!(tokio::time::timeout(Duration::from_secs(1), asking).await.is_err());
    let path = format!("{RESPONSES}/{}", first_id(&late).await);
    until("cancelled", || async { get(&waiting, &path).await.json()["status"] == "cancelled" }).await;
    assert_eq!((worker.seen.borrow().cancelled, waiting.load()), (1, (0, 0)));
    drop(kept);
}

#[tokio::test(start_paused = true)]
async fn one_with_a_key_is_made_to_the_end_for_when_its_client_comes_back() {
    let slow = stream(
        [ROLE, HEL]
            .map(Step::text)
            .into_iter()
            .chain([Step::Wait(Duration::from_secs(5))])
            .chain([LO, STOP, DONE].map(Step::text)),
    );
    let (kept, edge, worker) = one([slow]);
    let other = kept.node(2);
    other.worker(&["m"], [whole(200, ANSWER)]);
    let with_key = || with_header(post(RESPONSES, STREAM), "idempotency-key", "k");
    let mut body = edge.begin(with_key()).await.into_body().into_data_stream();
    body.next().await.expect("an event").expect("no fault");
    drop(body);
    let again = checked(&other.send(with_key()).await.body);
    assert_eq!((&again["status"], text_of(&again)), (&json!("completed"), "hello"));
    assert_eq!((worker.calls(), worker.seen.borrow().cancelled), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn without_a_majority_no_worker_is_asked_and_nothing_is_not_found() {
    let (kept, edge, worker) = one([whole(200, ANSWER)]);
    let made = created(&edge, json!({"model": "m", "input": "hi"})).await;
    kept.backend.is_down.store(true, Ordering::Relaxed);
    for request in [
        post(RESPONSES, HELLO),
        post(RESPONSES, r#"{"model":"m","input":"hi","background":true}"#),
        request("GET", &path_of(&made), ""),
        request("DELETE", &path_of(&made), ""),
        post("/v1/conversations", "{}"),
    ] {
        let reply = edge.send(request).await;
        assert_eq!(reply.error(), (503, "history_unavailable".to_owned()));
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
    assert_eq!(worker.calls(), 1);
    kept.backend.is_down.store(false, Ordering::Relaxed);
    assert_eq!(get(&edge, &path_of(&made)).await.json(), made);
}

#[tokio::test(start_paused = true)]
async fn a_begin_that_took_effect_unheard_is_ended() {
    let (kept, edge, worker) = one([whole(200, ANSWER)]);
    created(&edge, json!({"model": "m", "input": "warm", "store": true})).await;
    kept.backend.is_mute.store(true, Ordering::Relaxed);
    let reply = edge.post(RESPONSES, r#"{"model":"m","input":"unheard"}"#).await;
    assert_eq!((reply.error(), worker.calls()), ((503, "history_unavailable".to_owned()), 1));
    kept.backend.is_mute.store(false, Ordering::Relaxed);
    assert!(kept.has("unheard").await);
    until("ended", || async { kept.has("it was not begun in time").await }).await;
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_not_confirmed_is_said_to_be_so_and_tried_on() {
    for body in [HELLO, STREAM] {
        let slow = stream(
            [ROLE, HEL]
                .map(Step::text)
                .into_iter()
                .chain([Step::Wait(Duration::from_secs(1))])
                .chain([LO, STOP, DONE].map(Step::text)),
        );
        let later = vec![Step::Wait(Duration::from_secs(1)), head(200, "application/json"), Step::text(ANSWER)];
        let (kept, edge, _) = one([if body == HELLO { later } else { slow }]);
        let asking = edge.post(RESPONSES, body);
        let failing = async {
            Clock.sleep(Duration::from_millis(500)).await;
            kept.backend.is_mute.store(true, Ordering::Relaxed);
        };
        let (reply, ()) = tokio::join!(asking, failing);
        let told = if body == HELLO { reply.json() } else { checked(&reply.body) };
        assert_eq!(
            (&told["status"], &told["incomplete_details"], text_of(&told)),
            (&json!("incomplete"), &json!({"reason": "storage_unconfirmed"}), "hello")
        );
        kept.backend.is_mute.store(false, Ordering::Relaxed);
        until("settled", || async { get(&edge, &path_of(&told)).await.json()["status"] == "completed" }).await;
    }
}
