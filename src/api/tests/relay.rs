//! Model requests from end to end: what the worker and the client see, what is tried again, and what is left behind.

use futures_util::StreamExt as _;
use proptest::prelude::*;

use super::*;
use crate::api::faults;
use crate::api::faults::Fault;

const GONE: (u64, u64) = (0, 0);

#[tokio::test(start_paused = true)]
async fn a_whole_answer_and_a_whole_request_pass_unchanged() {
    let edge = Edge::new();
    let worker = edge.worker(&["m"], [whole(200, ANSWER)]);
    let body = "{ \"model\" : \"m\",\n \"messages\":[], \"unknown\": [1e400, \"\\ud800\"] }";
    let mut request = with_header(post("/v1/chat/completions?a=%20b", body), "x-request-id", "mine");
    for private in ["x-api-key", "x-smg-routing-key", "forwarded", "x-forwarded-for", "x-real-ip"] {
        request = with_header(request, private, "secret");
    }
    let reply = edge.send(with_header(request, "x-theirs", "kept")).await;
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, ANSWER));
    assert_eq!(
        (reply.header("x-request-id"), reply.header("x-smg-worker")),
        (Some("mine"), Some(worker.id.to_string().as_str()))
    );
    assert_eq!(worker.body(0), body);
    let seen = worker.seen.borrow();
    assert_eq!(
        (seen.calls[0].path.as_str(), &seen.calls[0].headers["x-theirs"]),
        ("/v1/chat/completions?a=%20b", &HeaderValue::from_static("kept"))
    );
    assert!(!seen.calls[0].headers.values().any(|it| it == "secret"));
    assert_eq!(edge.load(), GONE);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_asked_before_its_workers_have_told_what_they_serve_waits_for_them() {
    use crate::base::ids::ModelId;
    use crate::workers::detect::Engine;
    use crate::workers::detect::ServedModel;
    use crate::workers::health::Probe;
    use crate::workers::registry::Facts;
    let edge = Edge::new();
    let registry = &edge.gateway.registry;
    let mute = edge.worker(&[], [whole(200, ANSWER)]);
    let begun = Clock.now();
    let reply = edge.post(CHAT, ASK).await;
    assert_eq!((reply.status.as_u16(), begun.elapsed()), (503, Duration::from_secs(2)), "not for ever");
    let told = async {
        Clock.sleep(Duration::from_millis(300)).await;
        let models = vec![ServedModel { id: ModelId::parse("m").expect("a model"), context_len: None }];
        registry.found(mute.id, Facts { engine: Engine::default(), models });
    };
    let (reply, ()) = tokio::join!(edge.post(CHAT, ASK), told);
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, ANSWER));
    // One that does not answer holds nobody up, and what nobody serves is said at once.
    let dead = edge.worker(&[], []);
    registry.get(dead.id).expect("it is there").probed(Clock.now(), Probe::Failed);
    let begun = Clock.now();
    let reply = edge.post(CHAT, &ASK.replace("\"m\"", "\"other\"")).await;
    assert_eq!((reply.status.as_u16(), begun.elapsed()), (404, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn usage_is_asked_for_and_taken_out_again_unless_the_client_wants_it() {
    let edge = Edge::new();
    let worker = edge.worker(&["m"], [good_stream()]);
    let quiet = edge.post(CHAT, ASK_STREAM).await;
    assert_eq!(quiet.body, [ROLE, HEL, LO, STOP, DONE].concat());
    assert!(worker.body(0).contains(r#""include_usage":true"#));
    let asking = ASK_STREAM.replace(r#""stream":true"#, r#""stream":true,"stream_options":{"include_usage":true}"#);
    assert_eq!(edge.post(CHAT, &asking).await.body, [ROLE, HEL, LO, STOP, USAGE, DONE].concat());
    assert_eq!(worker.body(1), asking, "nothing to add");
}

/// Ways in which an attempt fails before the client has seen anything.
fn failures() -> Vec<(&'static str, Vec<Step>)> {
    let error = "data: {\"error\":{\"message\":\"x\"}}\n\n";
    let mut rows = vec![
        ("refused", vec![Step::Refuse]),
        ("lost before the head", vec![Step::Lose]),
        ("lost after the head", vec![head(200, "application/json"), Step::text("{"), Step::Lose]),
        ("no head in time", vec![Step::Stall]),
        ("lost before content", stream([Step::text(ROLE), Step::Lose])),
        ("ended before content", stream([Step::text(ROLE)])),
        ("an error first", stream([Step::text(error)])),
        ("an error after a role", stream([Step::text(ROLE), Step::text(error), Step::text(DONE)])),
        ("no JSON", stream([Step::text("data: {\n\n")])),
        ("a bare carriage return", stream([Step::text("data: a\rdata: b\n\n")])),
        ("no token in time", stream([Step::text(ROLE), Step::Stall])),
    ];
    rows.extend([429, 500, 502, 503, 504].map(|status| ("a status", whole(status, r#"{"error":{"message":"no"}}"#))));
    rows
}

#[tokio::test(start_paused = true)]
async fn a_failure_before_content_is_tried_elsewhere_and_not_seen() {
    for (name, script) in failures() {
        let edge = Edge::new();
        let bad = edge.worker(&["m"], [script]);
        // Until the bad one is asked first, which the choice is free not to do.
        let good = edge.worker(&["m"], [good_stream()]);
        let target = bad.id.to_string();
        let request = with_header(post(CHAT, ASK_STREAM), "x-smg-target-worker", &target);
        let _told = edge.send(request).await;
        let reply = edge.post(CHAT, ASK_STREAM).await;
        let body = reply.body.replace(": keep-alive\n\n", "");
        assert_eq!((reply.status.as_u16(), body), (200, [ROLE, HEL, LO, STOP, DONE].concat()), "{name}");
        assert!(good.calls() >= 1, "{name}");
        assert_eq!(edge.load(), GONE, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_after_content_is_told_once_and_ends_the_stream_without_an_end_marker() {
    for (name, tail) in [
        ("lost", vec![Step::Lose]),
        ("ended early", vec![]),
        ("stalled", vec![Step::Stall]),
        ("malformed", vec![Step::text("data: {\n\n"), Step::text(DONE)]),
        ("a bare carriage return", vec![Step::text("data: \rx\n\n")]),
    ] {
        let edge = Edge::new();
        let workers = [0, 1].map(|_| {
            edge.worker(&["m"], [stream([Step::text(ROLE), Step::text(HEL)].into_iter().chain(tail.clone()))])
        });
        let reply = edge.post(CHAT, ASK_STREAM).await;
        let body = reply.body.replace(": keep-alive\n\n", "");
        let error = body.strip_prefix(&[ROLE, HEL].concat()).unwrap_or_else(|| panic!("{name}: {body}"));
        let data: Value = serde_json::from_str(error.trim_start_matches("data: ").trim_end())
            .unwrap_or_else(|it| panic!("{it} {name}: {body}"));
        assert!(data["error"]["message"].is_string() && error.ends_with("\n\n"), "{name}: {error}");
        assert_eq!(workers[0].calls() + workers[1].calls(), 1, "{name}: nothing is tried again");
        assert_eq!(edge.load(), GONE, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_client_did_wrong_is_told_in_the_workers_words_and_tried_once() {
    for status in [400, 401, 403, 404, 413, 422] {
        let edge = Edge::new();
        let workers = [0, 1].map(|_| edge.worker(&["m"], [whole(status, r#"{"error":"theirs"}"#)]));
        let reply = edge.post(CHAT, ASK).await;
        assert_eq!((reply.status.as_u16(), reply.body.as_str()), (status, r#"{"error":"theirs"}"#));
        assert_eq!(workers[0].calls() + workers[1].calls(), 1, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_model_decides_who_may_answer() {
    let edge = Edge::new();
    assert_eq!(edge.post(CHAT, ASK).await.error(), (503, "no_workers".to_owned()));
    let silent = edge.worker(&[], [whole(200, ANSWER)]);
    assert_eq!(edge.post(CHAT, ASK).await.error(), (503, "workers_busy".to_owned()), "it has not told what it serves");
    let first = edge.worker(&["m"], [whole(200, ANSWER)]);
    let nameless = r#"{"messages":[]}"#;
    assert_eq!(edge.post(CHAT, nameless).await.status, 200, "the only model there is");
    edge.worker(&["other"], [whole(200, ANSWER)]);
    assert_eq!(edge.post(CHAT, nameless).await.error(), (400, "model_required".to_owned()));
    let unknown = edge.post(CHAT, r#"{"model":"x","messages":[]}"#).await;
    assert_eq!(unknown.error(), (404, "model_not_found".to_owned()));
    assert!(unknown.body.contains("m`, `other"), "{}", unknown.body);
    assert_eq!((first.calls(), silent.calls()), (1, 0));
    for (value, expected) in [("nonsense", 400), ("w-0000000000000000", 400)] {
        let request = with_header(post(CHAT, ASK), "x-smg-target-worker", value);
        assert_eq!(edge.send(request).await.status, expected, "{value}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_takes_everything_with_it() {
    let settings = Settings { concurrent_max: 1, ..Settings::default() };
    let edge = Edge::with(settings);
    let worker = edge.worker(&["m"], [stream([Step::text(HEL), Step::Stall]), good_stream()]);
    let response = edge.begin(post(CHAT, ASK_STREAM)).await;
    let mut body = response.into_body();
    body.frame().await.expect("content").expect("well");
    assert_eq!(edge.load().0, 1);
    assert_eq!(edge.post(CHAT, ASK).await.error(), (429, "concurrency_limit".to_owned()));
    drop(body);
    assert_eq!((edge.load(), worker.seen.borrow().cancelled), (GONE, 1));
    assert_eq!(edge.post(CHAT, ASK_STREAM).await.status, 200, "the slot is free again");
}

/// Each breaks what one of the tests above claims.
#[tokio::test(start_paused = true)]
async fn planted_bugs_of_the_relay_are_seen_by_clients_or_by_workers() {
    let lost = || [stream([Step::text(HEL), Step::Lose])];
    faults::plant(Some(Fault::CutStreamsEndWell));
    let edge = Edge::new();
    edge.worker(&["m"], lost());
    assert_eq!(edge.post(CHAT, ASK_STREAM).await.body, HEL, "no word of it");

    faults::plant(Some(Fault::TheTriedAreAskedAgain));
    let edge = Edge::new();
    let workers = [0, 1].map(|_| edge.worker(&["m"], [vec![Step::Lose], vec![Step::Lose], vec![Step::Lose]]));
    edge.post(CHAT, ASK).await;
    assert!(workers.iter().any(|it| it.calls() > 1), "asked again though it had failed");

    faults::plant(Some(Fault::LeftRequestsGoOn));
    let edge = Edge::new();
    let worker = edge.worker(&["m"], [stream([Step::Wait(Duration::from_secs(1)), Step::text(HEL), Step::text(DONE)])]);
    let left = tokio::time::timeout(Duration::from_millis(100), edge.post(CHAT, ASK_STREAM)).await;
    assert!(left.is_err() && edge.load().0 == 1 && worker.seen.borrow().cancelled == 0, "it goes on for nobody");
    let worker = edge.worker(&["n"], [stream([Step::text(HEL), Step::Stall])]);
    let mut body = edge.begin(post(CHAT, &ASK_STREAM.replace("\"m\"", "\"n\""))).await.into_body();
    body.frame().await.expect("content").expect("well");
    drop(body);
    assert_eq!(worker.seen.borrow().cancelled, 0, "the rest does, too");
    faults::plant(None);
}

/// Its head came first and its body late, so that its time is over while another still has the only slot.
#[tokio::test(start_paused = true)]
async fn time_in_the_queue_counts_too_and_gives_the_place_back() {
    let server = Config { request_timeout: Duration::from_secs(3), ..Config::default() };
    let edge = Edge::with(Settings { server, concurrent_max: 1, queue_len_max: 1, ..Settings::default() });
    let worker = edge.worker(&["m"], [stream([Step::text(HEL), Step::Stall]), whole(200, ANSWER)]);
    let begun = Clock.now();
    let queued = async {
        let late = async { Clock.sleep(Duration::from_secs(1)).await };
        let body = futures_util::stream::once(late).map(|()| Ok::<_, std::convert::Infallible>(ASK));
        let reply = edge.send(request("POST", CHAT, Body::from_stream(body))).await;
        (reply.error(), (Clock.now() - begun).as_secs())
    };
    let after = async |pause: u64, body: &str| {
        Clock.sleep(Duration::from_millis(pause)).await;
        edge.post(CHAT, body).await
    };
    let (queued, holder, next) = tokio::join!(queued, after(500, ASK_STREAM), after(3_100, ASK));
    assert_eq!(queued, ((504, "total_timeout".to_owned()), 3));
    assert!(holder.body.starts_with(HEL) && holder.body.contains("total_timeout"), "{}", holder.body);
    assert_eq!((next.status.as_u16(), worker.calls()), (200, 2), "the only place in the queue is free again");
    assert_eq!(edge.load(), GONE);
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_kept_open_by_comments_alone_one_for_each_time_of_silence() {
    let pause = Step::Wait(Duration::from_secs(40));
    // While it opens, the first comment comes with the head.
    for script in [
        stream([pause.clone(), Step::text(HEL), Step::text(DONE)]),
        stream([Step::text(ROLE), pause.clone(), Step::text(HEL), Step::text(DONE)]),
        stream([Step::text(HEL), pause, Step::text(DONE)]),
    ] {
        let edge = Edge::new();
        edge.worker(&["m"], [script]);
        let begun = Clock.now();
        let mut body = edge.begin(post(CHAT, ASK_STREAM)).await.into_body();
        let (mut text, mut comments) = (String::new(), Vec::new());
        while let Some(frame) = body.frame().await {
            match frame.expect("well").into_data().expect("data") {
                it if it == ": keep-alive\n\n" => comments.push((Clock.now() - begun).as_secs()),
                it => text.push_str(std::str::from_utf8(&it).expect("UTF-8")),
            }
        }
        // The timer of a flowing stream looks once a second.
        assert!(matches!(comments[..], [15..=16, 30..=32]), "{comments:?}");
        assert_eq!(text.replace(ROLE, ""), [HEL, DONE].concat());
    }
}

/// Engines send the end marker and the end of the body apart, and may do so in the read that opened the stream.
#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_end_marker_or_its_error_however_long_the_worker_goes_on() {
    let error = "data: {\"error\":{\"message\":\"x\"}}\n\n";
    for end in [DONE, error] {
        for pieces in [vec![[HEL, end].concat()], vec![HEL.to_owned(), end.to_owned()]] {
            let edge = Edge::new();
            let steps = pieces.iter().map(|it| Step::Send(it.clone().into())).chain([Step::Stall]);
            edge.worker(&["m"], [stream(steps)]);
            let begun = Clock.now();
            assert_eq!(edge.post(CHAT, ASK_STREAM).await.body, [HEL, end].concat());
            assert!(Clock.now() - begun < Duration::from_secs(1), "{pieces:?}");
            assert_eq!(edge.load(), GONE);
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::text(HEL)),
        3 => Just(Step::text(ROLE)),
        2 => Just(Step::text(STOP)),
        3 => Just(Step::text(DONE)),
        1 => Just(Step::text(USAGE)),
        1 => Just(Step::text("data: {\"error\":{\"message\":\"x\"}}\n\n")),
        1 => Just(Step::text("data: {\n\n")),
        1 => Just(Step::text("da")),
        1 => (1_u64..700).prop_map(|it| Step::Wait(Duration::from_secs(it))),
        1 => Just(Step::Stall),
        1 => Just(Step::Lose),
    ]
}

fn script() -> impl Strategy<Value = Vec<Step>> {
    let steps = || prop::collection::vec(step(), 0..8);
    prop_oneof![
        6 => steps().prop_map(stream),
        1 => Just(vec![Step::Refuse]),
        1 => Just(whole(503, r#"{"error":{"message":"busy"}}"#)),
        1 => Just(whole(400, r#"{"error":{"message":"no"}}"#)),
        1 => Just(whole(200, ANSWER)),
        1 => steps(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever workers do, a client gets a stream that ends once and nothing is left behind.
    #[test]
    fn every_stream_ends_once_and_leaves_nothing_behind(scripts in prop::collection::vec(script(), 1..4)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
        let result: Result<(), TestCaseError> = runtime.block_on(async {
            let edge = Edge::with(Settings { concurrent_max: 1, ..Settings::default() });
            let workers: Vec<_> = scripts.iter().map(|it| edge.worker(&["m"], [it.clone()])).collect();
            let reply = edge.post(CHAT, ASK_STREAM).await;
            for worker in &workers {
                prop_assert!(worker.calls() <= 1, "no worker is asked twice");
            }
            prop_assert_eq!(edge.load(), GONE);
            if reply.header("content-type").is_some_and(|it| it.starts_with("text/event-stream")) {
                let ends = |it: &&str| it.starts_with("data: [DONE]") || it.starts_with("data: {\"error\"");
                let ends = reply.body.lines().filter(ends).count();
                prop_assert_eq!((reply.status.as_u16(), ends), (200, 1), "{}", reply.body);
                prop_assert!(reply.body.ends_with("\n\n"), "{}", reply.body);
            } else {
                prop_assert!(serde_json::from_str::<Value>(&reply.body).is_ok(), "{}", reply.body);
            }
            edge.worker(&["n"], [whole(200, ANSWER)]);
            prop_assert_eq!(edge.post(CHAT, r#"{"model":"n","messages":[]}"#).await.status.as_u16(), 200, "the slot is free");
            Ok(())
        });
        result?;
    }
}
