//! Responses in the background: polled, followed, cancelled and taken over, from any node.

use super::*;

const BACKGROUND: &str = r#"{"model":"m","input":"hi","background":true}"#;

/// A stream with pauses.
fn slow(pause: u64) -> Vec<Step> {
    let wait = || Step::Wait(Duration::from_secs(pause));
    stream([Step::text(ROLE), Step::text(HEL), wait(), Step::text(LO), wait(), Step::text(STOP), Step::text(DONE)])
}

async fn begun(edge: &Edge) -> String {
    let reply = edge.post(RESPONSES, BACKGROUND).await;
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.body);
    assert_eq!((&reply.json()["status"], &reply.json()["background"]), (&json!("queued"), &json!(true)));
    path_of(&reply.json())
}

async fn status(edge: &Edge, path: &str) -> String {
    get(edge, path).await.json()["status"].as_str().expect("a status").to_owned()
}

#[tokio::test(start_paused = true)]
async fn one_is_polled_and_followed_from_any_node_and_from_any_event() {
    let (kept, edge, worker) = one([slow(3)]);
    let other = kept.node(2);
    let path = begun(&edge).await;
    until("begun", || async { status(&other, &path).await == "in_progress" }).await;
    let live = get(&other, &format!("{path}?stream=true")).await;
    let last = checked(&live.body);
    assert_eq!((&last["status"], text_of(&last)), (&json!("completed"), "hello"));
    assert_eq!(get(&edge, &path).await.json(), last);
    let all = events(&live.body);
    assert_eq!(events(&get(&edge, &format!("{path}?stream=true")).await.body), all);
    for from in 0..all.len() {
        let rest = get(&edge, &format!("{path}?stream=true&starting_after={from}")).await;
        assert_eq!(events(&rest.body), all[from + 1..]);
    }
    assert_eq!((worker.calls(), edge.load()), (1, (0, 0)));
    assert_eq!(
        edge.send(request("POST", &format!("{path}/cancel"), "")).await.error(),
        (400, "already_ended".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_is_streamed_at_once_shows_only_what_is_kept() {
    let (_, edge, _) = one([slow(1)]);
    let reply = edge.post(RESPONSES, &BACKGROUND.replace('}', r#","stream":true}"#)).await;
    let last = checked(&reply.body);
    assert_eq!((&last["status"], &last["background"]), (&json!("completed"), &json!(true)));
    let kinds: Vec<String> =
        events(&reply.body).iter().take(3).map(|it| it["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["response.created", "response.queued", "response.in_progress"]);
}

/// A worker may take no notice of `stream`, and answer with more than the relay holds back.
#[tokio::test(start_paused = true)]
async fn one_whose_worker_answers_whole_and_at_length_is_kept() {
    let text = "x".repeat(crate::base::limits::RESPONSE_HELD_BYTES_MAX);
    let answer = json!({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}).to_string();
    let (_, edge, _) = one([vec![head(200, "application/json"), Step::Send(answer.into())]]);
    let path = begun(&edge).await;
    until("ended", || async { status(&edge, &path).await == "completed" }).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_one_stops_its_worker_and_keeps_what_was_made() {
    let (kept, edge, worker) = one([slow(100)]);
    let other = kept.node(2);
    let path = begun(&edge).await;
    let live = format!("{path}?stream=true");
    let following = get(&edge, &live);
    let cancelling = async {
        until("content", || async { kept.has("response.output_text.delta").await }).await;
        other.send(request("POST", &format!("{path}/cancel"), "")).await.json()
    };
    let (followed, cancelled) = tokio::join!(following, cancelling);
    assert_eq!((&cancelled["status"], text_of(&cancelled)), (&json!("cancelled"), "hel"));
    assert_eq!(checked(&followed.body), cancelled);
    let again = edge.send(request("POST", &format!("{path}/cancel"), "")).await.json();
    assert_eq!(again, cancelled, "twice is once");
    until("stopped", || async { worker.seen.borrow().cancelled == 1 }).await;
    assert_eq!(edge.load(), (0, 0));
    let (_, waited, _) = one([whole(200, ANSWER)]);
    let made = created(&waited, json!({"model": "m", "input": "hi"})).await;
    let reply = waited.send(request("POST", &format!("{}/cancel", path_of(&made)), "")).await;
    assert_eq!(reply.error(), (400, "not_background".to_owned()));
    assert_eq!(get(&waited, &format!("{}?stream=true", path_of(&made))).await.error().1, "not_background");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_fails_it_and_a_busy_fleet_is_waited_for() {
    let (_, edge, _) = one([whole(400, r#"{"error":{"message":"no","code":"bad"}}"#)]);
    let path = begun(&edge).await;
    until("failed", || async { status(&edge, &path).await == "failed" }).await;
    assert_eq!(get(&edge, &path).await.json()["error"], json!({"code": "bad", "message": "no"}));
    let last = checked(&get(&edge, &format!("{path}?stream=true")).await.body);
    assert_eq!(last["status"], "failed");
    let kept = Kept::new();
    let edge = kept.node_with(1, Settings { concurrent_max: 1, ..Settings::default() });
    edge.worker(&["m"], [slow(3), good_stream()]);
    let (first, second) = (begun(&edge).await, begun(&edge).await);
    for path in [first, second] {
        until("completed", || async { status(&edge, &path).await == "completed" }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_may_take_minutes_and_its_lease_is_held_all_the_while() {
    let (_, edge, _) = one([slow(200)]);
    let path = begun(&edge).await;
    let end = Clock.now() + Duration::from_secs(500);
    while status(&edge, &path).await != "completed" {
        assert!(Clock.now() < end, "{}", status(&edge, &path).await);
        Clock.sleep(Duration::from_secs(1)).await;
    }
    let late = std::iter::once(Step::Wait(Duration::from_secs(200))).chain(whole(200, ANSWER)).collect();
    let (_, edge, _) = one([late, slow(200)]);
    assert_eq!(created(&edge, json!({"model": "m", "input": "hi"})).await["status"], "completed");
    let streamed = edge.post(RESPONSES, r#"{"model":"m","input":"hi","stream":true}"#).await;
    let last = checked(&streamed.body);
    assert_eq!(last["status"], "completed");
    assert_eq!(get(&edge, &path_of(&last)).await.json(), last);
}

/// A node is gone: what it did is done no more, and its lease is not renewed.
async fn kill(edge: Edge) {
    for stage in Stage::ALL {
        edge.gateway.node.tasks.stop_stage(stage, Duration::ZERO).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_was_begun_is_failed_with_what_was_kept_when_its_node_is_gone() {
    let (kept, edge, _) = one([slow(100)]);
    let other = kept.node(2);
    let path = begun(&edge).await;
    until("content", || async { kept.has("response.output_text.delta").await }).await;
    kill(edge).await;
    let gone = Clock.now();
    let last = checked(&get(&other, &format!("{path}?stream=true")).await.body);
    assert!(Clock.now() - gone < Duration::from_secs(10), "{:?}", Clock.now() - gone);
    assert_eq!(
        (&last["status"], &last["error"]["code"], text_of(&last)),
        (&json!("failed"), &json!("node_lost"), "hel")
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_was_not_begun_is_made_by_another_node_once() {
    let kept = Kept::new();
    let edge = kept.node_with(1, Settings { concurrent_max: 1, queue_len_max: 10, ..Settings::default() });
    let first = edge.worker(&["m"], [vec![Step::Stall]]);
    let busy = begun(&edge).await;
    until("begun", || async { first.calls() == 1 }).await;
    let path = begun(&edge).await;
    let other = kept.node(2);
    let second = other.worker(&["m"], [good_stream()]);
    kill(edge).await;
    until("completed", || async { status(&other, &path).await == "completed" }).await;
    assert_eq!(text_of(&get(&other, &path).await.json()), "hello");
    assert_eq!(asked(&second, 0)["messages"], json!([{"role": "user", "content": "hi"}]));
    until("failed", || async { status(&other, &busy).await == "failed" }).await;
    assert_eq!((first.calls(), second.calls()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_response_whose_client_waited_is_failed_when_its_node_is_gone() {
    let (kept, edge, worker) = one([stream([Step::text(ROLE), Step::text(HEL), Step::Stall])]);
    let other = kept.node(2);
    let body = edge.begin(post(RESPONSES, r#"{"model":"m","input":"hi","stream":true}"#)).await;
    until("asked", || async { worker.calls() == 1 }).await;
    let rows = String::from_utf8_lossy(&kept.rows().await).into_owned();
    let at = rows.find("\"id\":\"resp_").expect("a body") + 6;
    let path = format!("{RESPONSES}/{}", rows[at..].split('"').next().expect("an id"));
    kill(edge).await;
    until("failed", || async { status(&other, &path).await == "failed" }).await;
    drop(body);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_lost_touch_stops_and_its_response_is_not_stuck() {
    let (kept, edge, worker) = one([slow(100)]);
    let path = begun(&edge).await;
    until("content", || async { kept.has("response.output_text.delta").await }).await;
    kept.backend.is_down.store(true, Ordering::Relaxed);
    until("stopped", || async { worker.seen.borrow().cancelled == 1 }).await;
    kept.backend.is_down.store(false, Ordering::Relaxed);
    until("failed", || async { status(&edge, &path).await == "failed" }).await;
    assert_eq!(get(&edge, &path).await.json()["error"]["code"], "node_lost");
}
