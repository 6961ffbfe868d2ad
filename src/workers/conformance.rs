//! What every implementation of [`Worker`] does, as one suite: `fake.rs` and `http/tests.rs` run it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http_body_util::BodyExt as _;
use tokio::sync::watch;

use super::fake::Seen;
use super::fake::Step;
use super::worker::Answer;
use super::worker::Call;
use super::worker::CallError;
use super::worker::ConnectFailure;
use super::worker::Segments;
use super::worker::Worker;
use crate::base::clock::Clock;

/// Longest time until a worker learns that nobody waits (P7).
const CANCEL_TIME: Duration = Duration::from_millis(100);

/// A worker that will play these scripts, one a call, and what it sees.
pub(super) type Made = (Arc<dyn Worker>, watch::Receiver<Seen>);

/// Runs the whole suite against what `make` makes.
pub(super) async fn suite<F: Future<Output = Made>>(make: impl Fn(Vec<Vec<Step>>) -> F) {
    an_answer_is_passed_on_as_it_is(make(vec![good()]).await).await;
    a_status_is_an_answer_and_not_an_error(&make).await;
    a_piece_arrives_before_the_next_is_sent(make(vec![stalled_after_first()]).await).await;
    failures_say_what_the_worker_can_have_seen(&make).await;
    a_head_that_does_not_come_is_cancelled(make(vec![vec![Step::Stall]]).await).await;
    a_dropped_call_is_cancelled(make(vec![vec![Step::Stall]]).await).await;
    a_dropped_body_is_cancelled(make(vec![stalled_after_first()]).await).await;
    calls_do_not_wait_for_each_other(make(vec![vec![Step::Stall], good()]).await).await;
    a_call_can_be_sent_again(make(vec![good()]).await).await;
}

/// A request with everything in it.
pub(super) fn call() -> Call {
    let mut body = Segments::from(Bytes::from_static(b"{\"model\":"));
    body.push(Bytes::from_static(b"\"m\"}"));
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("x-mine", HeaderValue::from_static("kept"));
    let path = "/v1/chat/completions?a=1".to_owned();
    Call { method: Method::POST, path, headers, body, first_byte_timeout: Duration::from_secs(5) }
}

/// An answer in two pieces.
pub(super) fn good() -> Vec<Step> {
    let mut headers = HeaderMap::new();
    headers.insert("x-theirs", HeaderValue::from_static("kept"));
    vec![Step::Head(StatusCode::OK, headers), Step::text("hello "), Step::text("world")]
}

fn stalled_after_first() -> Vec<Step> {
    vec![Step::status(StatusCode::OK), Step::text("first"), Step::Stall]
}

/// Waits until the worker has seen a cancelled request, not longer than P7 allows.
pub(super) async fn cancelled(seen: &mut watch::Receiver<Seen>) {
    let waiting = seen.wait_for(|seen| seen.cancelled == 1);
    let waited = tokio::time::timeout(CANCEL_TIME, waiting).await;
    assert!(waited.expect("the worker learns in time that nobody waits").is_ok());
}

/// Waits until the worker has seen so many requests.
pub(super) async fn arrived(seen: &mut watch::Receiver<Seen>, count: usize) {
    let waiting = seen.wait_for(|seen| seen.calls.len() >= count);
    let waited = tokio::time::timeout(Duration::from_secs(5), waiting).await;
    assert!(waited.expect("the request arrives").is_ok());
}

async fn text(answer: Answer) -> Result<Vec<u8>, CallError> {
    Ok(answer.body.collect().await?.to_bytes().to_vec())
}

async fn an_answer_is_passed_on_as_it_is((worker, seen): Made) {
    let answer = worker.call(call()).await.expect("answered");
    assert_eq!((answer.status, &answer.headers["x-theirs"]), (StatusCode::OK, &HeaderValue::from_static("kept")));
    assert_eq!(text(answer).await.expect("whole"), b"hello world");
    let seen = seen.borrow();
    let arrived = &seen.calls[0];
    assert_eq!((arrived.method.as_str(), arrived.path.as_str()), ("POST", "/v1/chat/completions?a=1"));
    assert_eq!(arrived.headers["x-mine"], "kept");
    assert_eq!(arrived.body.to_vec(), b"{\"model\":\"m\"}");
    assert_eq!(seen.cancelled, 0);
}

async fn a_status_is_an_answer_and_not_an_error<F: Future<Output = Made>>(make: &impl Fn(Vec<Vec<Step>>) -> F) {
    for status in [302, 400, 429, 500, 503] {
        let status = StatusCode::from_u16(status).expect("a status");
        let (worker, _seen) = make(vec![vec![Step::status(status), Step::text("why")]]).await;
        let answer = worker.call(call()).await.expect("answered");
        assert_eq!(answer.status, status);
        assert_eq!(text(answer).await.expect("whole"), b"why");
    }
}

async fn a_piece_arrives_before_the_next_is_sent((worker, _seen): Made) {
    let mut answer = worker.call(call()).await.expect("answered");
    let frame = tokio::time::timeout(Duration::from_secs(5), answer.body.frame()).await.expect("not held back");
    assert_eq!(frame.expect("a frame").expect("good").into_data().expect("data"), "first");
}

async fn failures_say_what_the_worker_can_have_seen<F: Future<Output = Made>>(make: &impl Fn(Vec<Vec<Step>>) -> F) {
    let (worker, _seen) = make(vec![vec![Step::Refuse]]).await;
    let error = worker.call(call()).await.err().expect("refused");
    assert_eq!((error.clone(), error.may_have_run()), (CallError::Connect(ConnectFailure::Refused), false));

    let (worker, _seen) = make(vec![vec![Step::Lose]]).await;
    let error = worker.call(call()).await.err().expect("lost");
    assert_eq!((error.clone(), error.may_have_run()), (CallError::Lost, true));

    let (worker, _seen) = make(vec![vec![Step::status(StatusCode::OK), Step::text("half"), Step::Lose]]).await;
    let answer = worker.call(call()).await.expect("a head came");
    assert_eq!(text(answer).await, Err(CallError::Lost), "a cut body is never a whole one");
}

async fn a_head_that_does_not_come_is_cancelled((worker, mut seen): Made) {
    let limit = Duration::from_millis(30);
    let error = worker.call(Call { first_byte_timeout: limit, ..call() }).await.err().expect("too late");
    assert_eq!(error, CallError::FirstByteTimeout(limit));
    cancelled(&mut seen).await;
}

async fn a_dropped_call_is_cancelled((worker, mut seen): Made) {
    {
        let mut waiting = worker.call(call());
        tokio::select! {
            _ = &mut waiting => panic!("nothing answers"),
            () = arrived(&mut seen, 1) => {}
        }
    }
    cancelled(&mut seen).await;
}

async fn a_dropped_body_is_cancelled((worker, mut seen): Made) {
    let mut answer = worker.call(call()).await.expect("answered");
    assert!(answer.body.frame().await.is_some());
    // Waiting for more while the worker is silent is the hard case: nothing arrives that would tell of the drop.
    tokio::select! {
        biased;
        _ = answer.body.frame() => panic!("nothing more comes"),
        () = Clock.sleep(Duration::from_millis(5)) => {}
    }
    drop(answer);
    cancelled(&mut seen).await;
}

async fn calls_do_not_wait_for_each_other((worker, mut seen): Made) {
    let mut first = worker.call(call());
    tokio::select! {
        _ = &mut first => panic!("nothing answers"),
        () = arrived(&mut seen, 1) => {}
    }
    let second = worker.call(call()).await.expect("answered");
    assert_eq!(text(second).await.expect("whole"), b"hello world");
}

async fn a_call_can_be_sent_again((worker, seen): Made) {
    let again = call();
    for _ in 0..3 {
        let answer = worker.call(again.clone()).await.expect("answered");
        assert_eq!(text(answer).await.expect("whole"), b"hello world");
    }
    assert_eq!(seen.borrow().calls.iter().filter(|it| it.body.len() == again.body.len()).count(), 3);
}
