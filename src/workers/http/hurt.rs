//! A worker that fails on purpose, as this node sees it: the worker itself knows nothing of it.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Buf as _;
use bytes::Bytes;
use http::HeaderMap;
use http::StatusCode;
use http_body::Body;
use http_body::Frame;

use super::super::worker::Answer;
use super::super::worker::AnswerBody;
use super::super::worker::Call;
use super::super::worker::CallError;
use super::super::worker::ConnectFailure;
use super::super::worker::Segments;
use crate::base::clock::Clock;
use crate::chaos::core;

/// Makes a call, in so far as what is wrong lets it pass.
pub(super) async fn exchange<F>(
    hurt: core::Call,
    clock: Clock,
    connect_timeout: Duration,
    call: Call,
    exchange: impl FnOnce(Call) -> F,
) -> Result<Answer, CallError>
where
    F: Future<Output = Result<Answer, CallError>>,
{
    if hurt.is_refused {
        return Err(CallError::Connect(ConnectFailure::Refused));
    }
    if let Some(delay) = hurt.delay {
        // As on a slow way to it: who is longer in coming than anybody waits does not come.
        clock.sleep(delay.min(connect_timeout)).await;
        if delay > connect_timeout {
            return Err(CallError::ConnectTimeout(connect_timeout));
        }
    }
    if let Some(status) = hurt.status {
        let status = StatusCode::from_u16(status).map_err(|_never| CallError::Protocol)?;
        return Ok(Answer { status, headers: HeaderMap::new(), body: empty() });
    }
    let mut answer = exchange(call).await?;
    if let Some(left) = hurt.reset_after {
        answer.body = Box::pin(Breaking { body: Some(answer.body), left });
    }
    Ok(answer)
}

fn empty() -> AnswerBody {
    Box::pin(Empty(Segments::default()))
}

/// A body of no bytes.
struct Empty(Segments);

impl Body for Empty {
    type Data = Bytes;
    type Error = CallError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        Pin::new(&mut self.0).poll_frame(cx).map_err(|never| match never {})
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}

/// A body that breaks off. What it had is dropped then, so that the worker learns of it.
struct Breaking {
    body: Option<AnswerBody>,
    left: u64,
}

impl Body for Breaking {
    type Data = Bytes;
    type Error = CallError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        let left = self.left;
        let Some(body) = self.body.as_mut().filter(|_| left > 0) else {
            self.body = None;
            return Poll::Ready(Some(Err(CallError::Lost)));
        };
        let polled = std::task::ready!(body.as_mut().poll_frame(cx));
        let Some(Ok(frame)) = polled else { return Poll::Ready(polled) };
        let Ok(mut data) = frame.into_data() else {
            self.left = 0;
            return Poll::Ready(Some(Err(CallError::Lost)));
        };
        data.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        self.left -= data.remaining() as u64;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use http_body_util::BodyExt as _;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    /// A call through what is wrong to a worker that answers `hello`; and how long that took.
    async fn call(hurt: core::Call) -> (Result<(u16, Result<Bytes, CallError>), CallError>, Duration) {
        let begun = Clock.now();
        let call = Call {
            method: Method::POST,
            path: "/".to_owned(),
            headers: HeaderMap::new(),
            body: Segments::default(),
            first_byte_timeout: PATIENCE,
        };
        let worker = |_| async {
            let body = http_body_util::Full::new(Bytes::from_static(b"hello")).map_err(|never| match never {});
            Ok(Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: Box::pin(body) })
        };
        let answer = exchange(hurt, Clock, PATIENCE, call, worker).await;
        let read = match answer {
            Ok(it) => {
                let (status, mut body, mut bytes) = (it.status.as_u16(), it.body, Vec::new());
                let end = loop {
                    match body.frame().await {
                        None => break Ok(bytes.into()),
                        Some(Err(error)) => break Err(error),
                        Some(Ok(frame)) => bytes.extend(frame.into_data().unwrap()),
                    }
                };
                Ok((status, end))
            }
            Err(error) => Err(error),
        };
        (read, Clock.now() - begun)
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_fails_as_it_is_told_to() {
        let hello = || Ok((200, Ok(Bytes::from_static(b"hello"))));
        let none = core::Call::default;
        assert_eq!(call(none()).await, (hello(), Duration::ZERO));
        let refused = Err(CallError::Connect(ConnectFailure::Refused));
        assert_eq!(call(core::Call { is_refused: true, ..none() }).await.0, refused);
        let answered = Ok((503, Ok(Bytes::new())));
        assert_eq!(call(core::Call { status: Some(503), ..none() }).await.0, answered);
        let late = |ms| core::Call { delay: Some(Duration::from_millis(ms)), ..none() };
        assert_eq!(call(late(300)).await, (hello(), Duration::from_millis(300)));
        assert_eq!(call(late(3000)).await, (Err(CallError::ConnectTimeout(PATIENCE)), PATIENCE));
        for after in [0, 1, 5] {
            let cut = core::Call { reset_after: Some(after), ..none() };
            assert_eq!(call(cut).await.0, Ok((200, Err(CallError::Lost))), "after {after}");
        }
    }
}
