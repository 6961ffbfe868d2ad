//! A response that its client does not wait for. It is made under this node's lease; what is made is noted in history in batches, and only what is noted can be followed.
//!
//! ```text
//!  queued ── first events committed ──▶ in progress ── events, batch by batch ──▶ ended
//!     └── nobody makes it any more: made by another    └── ... : failed with what was committed
//! ```
//! *Invariants:* no worker is asked before the first events are kept, so that what has none can be made again; a node that does not hold its lease stops; whoever is told that the response ended or is another's stops. A
//! cancelled one is seen at the next batch, or within [`TICK`]. BOUND: [`ACTIVE_MAX`] at a node.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::Value;
use serde_json::json;
use tokio::sync::Mutex;

use crate::base::clock::Instant;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::dialects::openai::responses::KEPT;
use crate::dialects::responses::Body;
use crate::dialects::responses::Finished;
use crate::dialects::responses::Object;
use crate::dialects::responses::Translator;
use crate::dialects::responses::shown;
use crate::history::Rows;
use crate::history::Status;
use crate::history::faults::Fault;
use crate::history::faults::planted;
use crate::history::machine::Finish;
use crate::history::machine::read;
use crate::history::machine::read::Missing;
use crate::observability::metrics::GaugeGuard;
use crate::tenancy::keys::Principal;

use super::super::Response;
use super::super::error::ApiError;
use super::super::gateway::Gateway;
use super::super::relay::TICK;
use super::super::relay::Taken;
use super::CHAT;
use super::answer;
use super::answer::Answer;
use super::answer::Step;
use super::record::NODE_LOST;
use super::record::Noted;
use super::record::Record;
use super::record::status_of;

const TASK: Task = Task { name: "background_response", stage: Stage::Serve, on_end: OnEnd::Fine };
/// Responses in the background that a node makes at a time. More would only wait in its memory.
const ACTIVE_MAX: u64 = 1024;
/// How long an event may wait for those that follow it. Longer, and followers are later; shorter, and each costs a commit of its own.
const BATCH_AFTER: Duration = Duration::from_millis(100);
/// As many bytes of events do not wait.
const BATCH_BYTES: usize = 32 << 10;
/// How long a response waits for a place, a worker or a budget before it fails.
const QUEUED_MAX: Duration = Duration::from_secs(600);
/// Between two tries to find one.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// See the file's header.
pub(super) struct Job {
    pub record: Record,
    pub body: Body,
    /// What a worker is asked.
    pub chat: Bytes,
    pub principal: Arc<Principal>,
    pub routing_key: Option<HeaderValue>,
    pub place: Place,
}

/// The right to make one.
pub(super) struct Place(#[expect(dead_code, reason = "held for its drop")] GaugeGuard);

impl Place {
    /// One, if there is.
    pub(super) fn take(gateway: &Gateway) -> Result<Self, ApiError> {
        let metrics = gateway.metrics.history();
        if metrics.background_active() >= ACTIVE_MAX {
            return Err(crate::tenancy::admission::Refused::QueueFull.into());
        }
        Ok(Self(metrics.background()))
    }
}

/// Why a response is made no further.
enum Stopped {
    /// It has ended, or is another's.
    Over,
    /// This node may not make it any more.
    Lapsed,
}

/// How its making ended.
enum Made {
    /// So.
    Ended(Finish),
    /// Somebody else said how.
    Over,
}

impl Job {
    /// Makes it in a task of its own.
    pub(super) fn start(self) {
        self.record.gateway.node.tasks.clone().spawn(TASK, |_| self.run());
    }

    async fn run(self) {
        let record = self.record.clone();
        let ended = tokio::select! {
            biased;
            made = self.make() => Ok(made),
            why = watch(&record) => Err(why),
        };
        match ended {
            Ok(Made::Ended(finish)) => drop(record.settle(&finish).await),
            Ok(Made::Over) | Err(Stopped::Over) => {}
            Err(Stopped::Lapsed) if planted(Fault::LeasesComeBack) => {} // left to who takes over
            Err(Stopped::Lapsed) => {
                // If its lease did not lapse for the others, nobody else ends it.
                record.fail_as_committed(NODE_LOST, "the node that made it lost touch with history").await;
            }
        }
    }

    async fn make(self) -> Made {
        let Self { record, body, chat, principal, routing_key, place: _place } = self;
        let noting = Mutex::new(Noting::new(record.clone(), &body));
        let response = match asked(&record, &noting, chat, &principal, routing_key).await {
            Ok(response) => response,
            Err(made) => return made,
        };
        let noting = noting.into_inner();
        if noting.is_over {
            return Made::Over;
        }
        if !response.status().is_success() {
            let (head, bytes) = response.into_parts();
            let bytes = bytes.collect().await.map(|it| it.to_bytes()).unwrap_or_default(); // BOUND: refusals are held whole by the relay
            return ended(&record, body, &failed(answer::told(&bytes, head.status)), &[]);
        }
        read(noting, response, body).await
    }
}

/// Asks a worker, and for as long as there is none again.
async fn asked(
    record: &Record,
    noting: &Mutex<Noting>,
    chat: Bytes,
    principal: &Arc<Principal>,
    routing_key: Option<HeaderValue>,
) -> Result<Response, Made> {
    let gateway = &record.gateway;
    let until = gateway.clock.now() + QUEUED_MAX;
    loop {
        let mut head = Request::new(()).into_parts().0;
        (head.method, head.uri) = (http::Method::POST, http::Uri::from_static(CHAT));
        head.headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = &routing_key {
            head.headers.insert("x-smg-routing-key", key.clone());
        }
        let response = match gateway.intake.hold(chat.clone()).await {
            Err(error) => ApiError::from(error).response(KEPT.family),
            Ok(held) => {
                let taken = Taken::made(Arc::clone(gateway), &KEPT, head, held, Arc::clone(principal));
                taken.ask(async { noting.lock().await.begin().await }).await
            }
        };
        let (has_begun, is_over) = noting.lock().await.state();
        let may_pass = [http::StatusCode::TOO_MANY_REQUESTS, http::StatusCode::SERVICE_UNAVAILABLE];
        if is_over || !may_pass.contains(&response.status()) || gateway.clock.now() >= until {
            return Ok(response);
        }
        if gateway.phase.is_draining() {
            // What was not begun another node makes, once this one's lease is over.
            return if has_begun { Ok(response) } else { Err(Made::Over) };
        }
        gateway.clock.sleep(AGAIN_AFTER).await;
    }
}

/// Reads the answer, and notes its events.
async fn read(mut noting: Noting, response: Response, body: Body) -> Made {
    let record = noting.record.clone();
    let mut answer = Answer::new(response, record.history.clone(), std::mem::take(&mut noting.translator));
    loop {
        let due = noting.due;
        let step = tokio::select! {
            biased;
            step = answer.next() => step,
            () = tokio::time::sleep_until(due.unwrap_or_else(|| record.gateway.clock.now())), if due.is_some() => {
                if let Some(made) = noted(noting.flush().await, &record, &body) {
                    return made;
                }
                continue;
            }
        };
        match step {
            None => break,
            Some(Step::Comment(_)) => {}
            Some(Step::Events(events)) => noting.push(&events),
        }
        if noting.is_full()
            && let Some(made) = noted(noting.flush().await, &record, &body)
        {
            return made;
        }
    }
    let (finished, closing) = answer.translator.end();
    noting.push(&closing);
    if let Some(made) = noted(noting.flush().await, &record, &body) {
        return made;
    }
    let made = ended(&record, body, &finished, answer.translator.items());
    answer.rest().await;
    made
}

/// What follows from a batch that was not kept.
fn noted(noted: Noted, record: &Record, body: &Body) -> Option<Made> {
    match noted {
        Noted::Kept => None,
        Noted::Over => Some(Made::Over),
        Noted::TooMany => {
            let error = ("too_many_events".to_owned(), "it has more events than can be kept".to_owned());
            Some(ended(record, body.clone(), &failed(error), &[]))
        }
    }
}

fn failed(error: (String, String)) -> Finished {
    Finished { error: Some(error), ..Finished::default() }
}

fn ended(record: &Record, mut body: Body, finished: &Finished, output: &[Object]) -> Made {
    body.finish(finished);
    Made::Ended(record.finish(&body, status_of(finished), output))
}

/// Events on their way into history.
struct Noting {
    record: Record,
    translator: Translator,
    /// Events that are there.
    kept: u64,
    /// BOUND: [`BATCH_BYTES`] and one chunk's events; nothing is read while they are written.
    batch: Vec<Vec<u8>>,
    bytes: usize,
    /// When they do not wait any longer.
    due: Option<Instant>,
    first: Value,
    queued: Value,
    is_over: bool,
}

impl Noting {
    fn new(record: Record, body: &Body) -> Self {
        let [first, queued] = [Status::InProgress, Status::Queued].map(|it| shown(body, it.as_str(), &[]));
        let (translator, batch) = (Translator::default(), Vec::new());
        Self { record, translator, kept: 0, batch, bytes: 0, due: None, first, queued, is_over: false }
    }

    /// Whether it has begun, and whether it is over.
    fn state(&self) -> (bool, bool) {
        (self.kept > 0, self.is_over)
    }

    /// The first events, before a worker is asked for the first time.
    async fn begin(&mut self) -> Result<ControlFlow<Response>, ApiError> {
        if self.kept > 0 {
            return Ok(ControlFlow::Continue(()));
        }
        let mut number = |kind: &str, response: &Value| self.translator.number(kind, json!({"response": response}));
        let events = [
            number("response.created", &self.queued),
            number("response.queued", &self.queued),
            number("response.in_progress", &self.first),
        ];
        self.push(&events);
        self.is_over = self.flush().await != Noted::Kept;
        if self.is_over {
            let gone = Response::new(super::super::full(Bytes::new()));
            return Ok(ControlFlow::Break(gone));
        }
        Ok(ControlFlow::Continue(()))
    }

    fn push(&mut self, events: &[Value]) {
        if events.is_empty() {
            return;
        }
        self.due = self.due.or_else(|| Some(self.record.gateway.clock.now() + BATCH_AFTER));
        for event in events {
            let bytes = event.to_string().into_bytes();
            self.bytes += bytes.len();
            self.batch.push(bytes);
        }
    }

    fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES
    }

    async fn flush(&mut self) -> Noted {
        if self.batch.is_empty() {
            return Noted::Kept;
        }
        let batch = std::mem::take(&mut self.batch);
        (self.bytes, self.due) = (0, None);
        let len = batch.len() as u64;
        let noted = self.record.note(self.kept, batch).await;
        self.kept += len;
        noted
    }
}

/// Waits until the response must not be made here any more.
async fn watch(record: &Record) -> Stopped {
    loop {
        record.gateway.clock.sleep(TICK).await;
        if !record.history.is_held(record.lease) && !planted(Fault::OldAttemptsWrite) {
            return Stopped::Lapsed;
        }
        let _held = record.history.lease().await; // it is in use, or it would not be renewed any more
        let (owner, id) = (record.owner.clone(), record.id.clone());
        let read = move |rows: &dyn Rows| read::response(rows, &owner, &id).map(|it| it.0);
        match record.history.read(read).await {
            Ok(Ok(row)) if row.status.is_end() => return Stopped::Over,
            Ok(Ok(row)) if row.job.is_none_or(|it| it.attempt != record.attempt) => {
                if !planted(Fault::OldAttemptsWrite) {
                    return Stopped::Over;
                }
            }
            Ok(Err(Missing::NotFound(_))) => return Stopped::Over,
            Ok(_) | Err(_) => {} // the lease says for how long that may go on
        }
    }
}
