//! A response whose client waits for it, from its begin in history to its terminal event.
//!
//! ```text
//!  client ◀── head, events ── task: ask a worker ── Begin committed ──▶ chat request ──▶ events … ── Finish committed ──▶ terminal event
//! ```
//! The task is its own, so that it can say how the response ended when its client has left. *Invariants:* no worker is asked before the begin is kept; no terminal event before the end is, but one that says
//! `storage_unconfirmed`; exactly one terminal event. A client that leaves ends the response as `cancelled`, with what was made: its items do not join a conversation, as the client will ask again. One that sent an
//! `Idempotency-Key` may come back for it, so that is made to the end. With `store=false` all is the same without history.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::Body as HttpBody;
use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::header;
use http_body::Frame;
use http_body_util::BodyExt as _;
use http_body_util::StreamBody;
use serde_json::Value;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::base::clock::Instant;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::dialects::responses::Body;
use crate::dialects::responses::Finished;
use crate::dialects::responses::Translator;
use crate::dialects::responses::event;
use crate::dialects::responses::shown;
use crate::history::Handle;
use crate::history::HistoryError;
use crate::history::Id;
use crate::history::Lease;
use crate::history::Owner;
use crate::history::Status;
use crate::history::machine::Act;
use crate::history::machine::Begin;
use crate::history::machine::Outcome;

use super::super::Response;
use super::super::error::ApiError;
use super::super::gateway::Gateway;
use super::super::relay::TICK;
use super::super::relay::Taken;
use super::answer;
use super::answer::Answer;
use super::answer::Step;
use super::context::Names;
use super::follow;
use super::record::CONFIRM_WITHIN;
use super::record::End;
use super::record::NODE_LOST;
use super::record::Record;
use super::record::status_of;

const TASK: Task = Task { name: "response", stage: Stage::Serve, on_end: OnEnd::Fine };
/// Pieces on their way to a client. BOUND: a slow reader slows the worker down, as it does without history.
const PIECES_MAX: usize = 16;

/// What is to be made.
pub(super) struct Making {
    pub gateway: Arc<Gateway>,
    pub history: Handle,
    pub owner: Owner,
    pub names: Names,
    pub body: Body,
    /// How it is kept; `None`: it is not.
    pub begin: Option<Begin>,
    pub id: Id,
    pub is_stream: bool,
}

/// Makes it. Answers as soon as it is known how.
pub(super) async fn serve(making: Making, taken: Taken) -> Response {
    let (told, answer) = oneshot::channel();
    making.gateway.node.tasks.clone().spawn(TASK, |_| making.run(taken, told));
    answer.await.unwrap_or_else(|_lost| {
        let error = ApiError::WorkerFailed { cause: super::super::error::WorkerFailure::CutOff, attempts: 1 };
        error.response(crate::dialects::Family::OpenAi) // the task panicked or was aborted
    })
}

/// How far the begin is.
#[derive(Default)]
struct Begun {
    lease: Option<Lease>,
    /// It was sent, and nobody knows whether it was kept.
    is_doubtful: bool,
}

impl Making {
    async fn run(self, taken: Taken, mut told: oneshot::Sender<Response>) {
        let keeps_on = self.begin.as_ref().is_some_and(|it| it.key.is_some());
        let begun = Mutex::new(Begun::default());
        let asked = {
            let asking = taken.ask(self.begin(&begun));
            let gone = async {
                told.closed().await;
                if keeps_on {
                    std::future::pending::<()>().await;
                }
                // ORDER: a begin that is on its way is waited for; what it did must be ended.
                drop(begun.lock().await);
            };
            tokio::select! {
                biased;
                response = asking => Some(response),
                () = gone => None,
            }
        };
        let Begun { lease, is_doubtful } = begun.into_inner();
        let record = lease.map(|lease| self.record(lease));
        let Some(response) = asked else { return self.cancel(record.as_ref(), &Translator::default()).await };
        if is_doubtful {
            let _gone = told.send(response);
            record.into_iter().for_each(|it| doubt(it, self.body.clone()));
            return;
        }
        if self.begin.is_some() && record.is_none() {
            let _gone = told.send(response); // refused before it began, or known
            return;
        }
        if !response.status().is_success() {
            return self.refused(record.as_ref(), response, told).await;
        }
        self.answer(record, response, told, keeps_on).await;
    }

    fn record(&self, lease: Lease) -> Record {
        Record {
            gateway: Arc::clone(&self.gateway),
            history: self.history.clone(),
            owner: self.owner.clone(),
            id: self.id.clone(),
            lease,
            attempt: 1,
        }
    }

    /// The begin, before any worker is asked.
    async fn begin(&self, begun: &Mutex<Begun>) -> Result<ControlFlow<Response>, ApiError> {
        let Some(begin) = &self.begin else { return Ok(ControlFlow::Continue(())) };
        let mut begun = begun.lock().await;
        let lease = self.history.lease().await?;
        let begin = Begin { lease: Some(lease), ..begin.clone() };
        begun.is_doubtful = true;
        begun.lease = Some(lease);
        let done = self.history.act(&self.owner, Act::Begin(Box::new(begin))).await;
        begun.is_doubtful = matches!(done, Err(HistoryError::Unavailable(_)));
        match done {
            Ok(Outcome::Known(id)) => {
                begun.lease = None;
                drop(begun);
                let known = follow::known(&self.gateway, &self.history, &self.owner, id, self.is_stream).await?;
                Ok(ControlFlow::Break(known))
            }
            Ok(_) => {
                self.gateway.metrics.history().begun(false);
                Ok(ControlFlow::Continue(()))
            }
            Err(error) => {
                if !begun.is_doubtful {
                    begun.lease = None;
                }
                Err(self.names.blame(error))
            }
        }
    }

    // === ends before there is anything ===

    /// Its client has left.
    async fn cancel(&self, record: Option<&Record>, translator: &Translator) {
        let Some(record) = record else { return };
        let finish = record.finish(&self.body, Status::Cancelled, translator.items());
        record.settle(&finish).await;
    }

    /// A worker's refusal, or ours: told as it came, and kept.
    async fn refused(&self, record: Option<&Record>, response: Response, told: oneshot::Sender<Response>) {
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.map(|it| it.to_bytes()).unwrap_or_default(); // BOUND: refusals are held whole by the relay
        if let Some(record) = record {
            let mut body = self.body.clone();
            let error = Some(answer::told(&bytes, head.status));
            body.finish(&Finished { error, ..Finished::default() });
            let finish = record.finish(&body, Status::Failed, &[]);
            let kept = record.end(&finish).await;
            let _gone = told.send(Response::from_parts(head, super::super::full(bytes)));
            if kept == End::Unconfirmed {
                record.settle(&finish).await;
            }
        } else {
            let _gone = told.send(Response::from_parts(head, super::super::full(bytes)));
        }
    }

    // === the answer ===

    async fn answer(
        mut self,
        record: Option<Record>,
        response: Response,
        told: oneshot::Sender<Response>,
        keeps_on: bool,
    ) {
        let headers = own_headers(response.headers());
        let mut translator = Translator::default();
        let first = shown(&self.body, Status::InProgress.as_str(), &[]);
        let opening = ["response.created", "response.in_progress"]
            .map(|kind| translator.number(kind, json!({"response": first})));
        let mut client = if self.is_stream {
            let (pieces, flow) = mpsc::channel(PIECES_MAX);
            let _gone = told.send(events(headers, flow)); // seen at the first event
            Client::Follows(pieces)
        } else {
            Client::Waits(told, headers)
        };
        client.events(&opening).await;
        let mut answer = Answer::new(response, self.history.clone(), translator);
        if self.read(record.as_ref(), &mut answer, &mut client, keeps_on).await.is_break() {
            return self.cancel_ended(record.as_ref(), answer.into_translator()).await;
        }
        let (finished, closing) = answer.translator.end();
        client.events(&closing).await;
        self.body.finish(&finished);
        let status = status_of(&finished);
        let finish = record.as_ref().map(|it| it.finish(&self.body, status, answer.translator.items()));
        let kept = match (&record, &finish) {
            (Some(record), Some(finish)) => record.end(finish).await,
            _ => End::Kept,
        };
        let status = self.as_kept(kept, status);
        client.end(&self.body, status, &mut answer.translator).await;
        drop(client);
        answer.rest().await;
        if let (Some(record), Some(finish), End::Unconfirmed) = (&record, &finish, kept) {
            record.settle(finish).await;
        }
    }

    /// Reads the answer to its end. Breaks off when the client has left.
    async fn read(
        &self,
        record: Option<&Record>,
        answer: &mut Answer,
        client: &mut Client,
        keeps_on: bool,
    ) -> ControlFlow<()> {
        let mut held: Instant = self.gateway.clock.now();
        loop {
            let tick = self.gateway.clock.sleep(TICK);
            let step = tokio::select! {
                biased;
                () = client.gone(), if !keeps_on => return ControlFlow::Break(()),
                step = answer.next() => step,
                () = tick => {
                    let now = self.gateway.clock.now();
                    if record.is_none_or(|it| self.history.is_held(it.lease)) {
                        held = now;
                    } else if now - held > CONFIRM_WITHIN {
                        answer.translator.fail(NODE_LOST, "this node has lost touch with history");
                        return ControlFlow::Continue(());
                    }
                    continue;
                }
            };
            match step {
                None => return ControlFlow::Continue(()),
                Some(Step::Comment(bytes)) => client.send(bytes).await,
                Some(Step::Events(events)) => client.events(&events).await,
            }
        }
    }

    async fn cancel_ended(&self, record: Option<&Record>, mut translator: Translator) {
        translator.fail("client_gone", "its client has left");
        let _closing = translator.end(); // nobody sees these events
        self.cancel(record, &translator).await;
    }

    /// What the client is told of the end.
    fn as_kept(&mut self, kept: End, status: Status) -> Status {
        let usage = self.body.0.get("usage").cloned().filter(|it| !it.is_null());
        match kept {
            End::Kept => status,
            End::Unconfirmed => {
                self.gateway.metrics.history().unconfirmed();
                self.body.finish(&Finished { incomplete: Some("storage_unconfirmed"), usage, ..Finished::default() });
                Status::Incomplete
            }
            End::Elsewhere => {
                let message = "another node has taken this response over: retrieve it to see how it ended";
                let error = Some((NODE_LOST.to_owned(), message.to_owned()));
                self.body.finish(&Finished { error, usage, ..Finished::default() });
                Status::Failed
            }
        }
    }
}

/// Ends what may yet begin, though its client was told that it did not.
pub(super) fn doubt(record: Record, mut body: Body) {
    let error = ("history_unavailable".to_owned(), "it was not begun in time".to_owned());
    body.finish(&Finished { error: Some(error), ..Finished::default() });
    let finish = record.finish(&body, Status::Failed, &[]);
    let tasks = record.gateway.node.tasks.clone();
    tasks.spawn(TASK, |_| async move { record.settle_doubtful(&finish).await });
}

/// Who waits for it.
enum Client {
    /// For events.
    Follows(mpsc::Sender<Bytes>),
    /// For the whole.
    Waits(oneshot::Sender<Response>, HeaderMap),
}

impl Client {
    /// Waits until it has left.
    async fn gone(&mut self) {
        match self {
            Self::Follows(pieces) => pieces.closed().await,
            Self::Waits(told, _) => told.closed().await,
        }
    }

    async fn send(&self, bytes: Bytes) {
        if let Self::Follows(pieces) = self {
            let _gone = pieces.send(bytes).await; // seen before the next step
        }
    }

    async fn events(&self, events: &[Value]) {
        if matches!(self, Self::Follows(_)) && !events.is_empty() {
            self.send(events.iter().flat_map(event).collect::<Vec<u8>>().into()).await;
        }
    }

    /// The terminal event, or the whole.
    async fn end(&mut self, body: &Body, status: Status, translator: &mut Translator) {
        let last = shown(body, status.as_str(), translator.items());
        match self {
            Self::Follows(_) => {
                let kind = crate::dialects::responses::terminal(&last);
                let last = translator.number(kind, json!({"response": last}));
                self.events(&[last]).await;
            }
            Self::Waits(told, headers) => {
                let (told, headers) = (std::mem::replace(told, oneshot::channel().0), std::mem::take(headers));
                let mut response = super::super::json(&last);
                response.headers_mut().extend(headers);
                let _gone = told.send(response);
            }
        }
    }
}

/// What of the relay's answer is for our client: who answered and why, and what is left of limits.
fn own_headers(headers: &HeaderMap) -> HeaderMap {
    let is_own = |name: &str| name.starts_with("x-smg-") || name.starts_with("x-ratelimit-") || name == "x-request-id";
    let own = headers.iter().filter(|(name, _)| is_own(name.as_str()));
    own.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// An answer in events that come through a channel.
fn events(headers: HeaderMap, flow: mpsc::Receiver<Bytes>) -> Response {
    let frames = futures_util::stream::unfold(flow, |mut flow| async move {
        let bytes = flow.recv().await?;
        Some((Ok(Frame::data(bytes)), flow))
    });
    as_events(super::super::flowing(StreamBody::new(frames)), headers)
}

/// The head of a stream of events.
pub(super) fn as_events(body: HttpBody, headers: HeaderMap) -> Response {
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
