//! One request while it is being answered: what it asked, whom it tried, what to do after a failure.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;
use http::request::Parts;
use smallvec::SmallVec;

use crate::base::clock::Instant;
use crate::base::ids::ModelId;
use crate::base::ids::WorkerId;
use crate::dialects::ErrorText;
use crate::dialects::Family;
use crate::dialects::Tokens;
use crate::dialects::Wire;
use crate::dialects::form;
use crate::dialects::form::Prompt;
use crate::dialects::json;
use crate::ledger;
use crate::observability::traces::context::TraceContext;
use crate::observability::traces::span::Span;
use crate::routing::Route;
use crate::routing::RouteError;
use crate::routing::Router;
use crate::routing::candidate::Candidates;
use crate::routing::explain::Explanation;
use crate::routing::request::RouteRequest;
use crate::routing::retry::Failure;
use crate::routing::retry::Verdict;
use crate::routing::shortlist::Shortlist;
use crate::tenancy::admission::Permit;
use crate::tenancy::budget::Expected;
use crate::tenancy::keys::Principal;
use crate::workers::registry::Entry;
use crate::workers::worker::Segments;

use super::super::candidates::Loads;
use super::super::candidates::Pool;
use super::super::error::ApiError;
use super::super::error::WorkerFailure;
use super::super::faults::Fault;
use super::super::faults::planted;
use super::super::gateway::Gateway;
use super::super::intake::Held;
use super::account::Account;
use super::spans;
use crate::observability::metrics::GaugeGuard;

/// One request.
pub(super) struct Job {
    pub gateway: Arc<Gateway>,
    pub wire: &'static Wire,
    pub is_stream: bool,
    pub headers: HeaderMap,
    pub path: String,
    /// Settled when the request ends; the stream's once one flows.
    pub account: Option<Account>,
    /// Whether the client asked for usage itself; if not, the event that only tells usage is taken out again.
    pub asked_for_usage: bool,
    pub guards: Option<Guards>,
    /// Ends with the answer.
    pub span: Span,
    body: Held,
    splice: Option<form::Splice>,
    pub model: ModelId,
    pub principal: Arc<Principal>,
    tried: SmallVec<[WorkerId; 4]>,
}

/// What is given back when a request ends, however it ends.
#[derive(Debug)]
#[expect(dead_code, reason = "held for their drops")]
pub(super) struct Guards(Permit, GaugeGuard);

/// A decision to be tried.
pub(super) struct Planned {
    pub entry: Arc<Entry>,
    pub route: Route,
}

/// An answer that is there as a whole.
pub(super) struct Whole {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A failed attempt. Nothing reached the client.
pub(super) struct Failed {
    pub cause: WorkerFailure,
    /// The pause the worker asked for.
    pub retry_after: Option<Duration>,
    /// The worker's own words, passed on when no other can be tried.
    pub whole: Option<Whole>,
}

/// No further attempt.
pub(super) enum End {
    Error(ApiError),
    Pass(Whole),
}

/// Headers of ours and of the connection that workers must not see.
const PRIVATE: &[&str] =
    &["x-api-key", "x-smg-routing-key", "x-smg-target-worker", "forwarded", "x-forwarded-for", "x-real-ip"];

impl Job {
    pub(super) async fn new(
        gateway: Arc<Gateway>,
        wire: &'static Wire,
        head: Parts,
        parsed: &form::Request<'_>,
        body: Held,
        principal: Arc<Principal>,
    ) -> Result<Self, ApiError> {
        let model = model(&gateway, parsed.model.as_deref()).await?;
        Ok(Self {
            gateway,
            wire,
            is_stream: parsed.is_stream,
            path: head.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
            headers: head.headers,
            account: None,
            asked_for_usage: parsed.usage_splice.is_none(),
            guards: None,
            span: Span::default(),
            body,
            splice: parsed.usage_splice.clone(),
            model,
            principal,
            tried: SmallVec::new(),
        })
    }

    /// It was admitted; what it holds until its end.
    pub(super) fn keep(&mut self, permit: Permit, account: &Account) {
        self.guards = Some(Guards(permit, self.gateway.metrics.in_flight()));
        // Off, the client's own trace headers go to the worker as they are.
        let tracer = &self.gateway.tracer;
        let parent = if tracer.is_on() { TraceContext::of(&self.headers) } else { None };
        self.span = tracer.request(spans::operation(self.wire), self.model.as_str(), parent);
        self.span.until_settled("client_gone");
        spans::admitted(&mut self.span, account);
    }

    /// What it is believed to cost.
    pub(super) fn expected(&self) -> Expected {
        let prompt = match self.wire.tokens {
            Tokens::None => 0,
            Tokens::Prompt | Tokens::PromptAndAnswer => self.gateway.router.tokens(&self.model, self.body.bytes.len()),
        };
        Expected { prompt, has_answer: self.wire.tokens == Tokens::PromptAndAnswer }
    }

    /// Notes something in the account, while it is here.
    pub(super) fn note(&mut self, note: impl FnOnce(&mut Account)) {
        if let Some(account) = &mut self.account {
            note(account);
        }
    }

    /// An answer is there as a whole.
    pub(super) fn served(&mut self, whole: &Whole) {
        self.span.settled();
        self.note(|it| {
            it.served(whole.status);
            it.sent(whole.body.len());
        });
    }

    /// No answer but our own words.
    pub(super) fn refused(&mut self, error: &ApiError) {
        self.span.fail(error.classify().2);
        self.note(|it| it.refused(error));
    }

    /// Chooses a worker not yet tried. Where other nodes send to the workers, too, those are asked first how much.
    pub(super) async fn plan(&mut self, prompt: Option<&Prompt<'_>>) -> Result<Planned, ApiError> {
        let (entry, route) = match self.shortlist(prompt, Router::shortlist)? {
            None => self.ask_router(prompt, Loads::Own, |request, pool| pool.pick(self.choose(request, pool)?))?,
            Some((ledger, shortlist)) => {
                let (since, workers) = (self.gateway.clock.now(), shortlist.workers.clone());
                let readings = ledger.probe(&workers).await;
                self.ask_router(None, Loads::Probed(ledger, &workers, &readings), |request, pool| {
                    pool.pick(self.settle(since, request, shortlist, pool)?)
                })?
            }
        };
        self.tried.push(entry.id);
        entry.sent(self.gateway.clock.now());
        Ok(Planned { entry, route })
    }

    /// Chooses; where somebody traces the request, tells its span what was weighed.
    fn choose(&self, request: &RouteRequest<'_, '_>, pool: &Pool<'_>) -> Result<Route, RouteError> {
        if !self.span.is_recorded() {
            return self.gateway.router.choose(pool.now, request, pool);
        }
        let (route, considered) = self.gateway.router.choose_watched(pool.now, request, pool)?;
        spans::decided(&self.span, pool.now, self.gateway.clock.now(), &route, &considered);
        Ok(route)
    }

    /// The same with a shortlist whose load was asked for since then.
    fn settle(
        &self,
        since: Instant,
        request: &RouteRequest<'_, '_>,
        shortlist: Shortlist,
        pool: &Pool<'_>,
    ) -> Result<Route, RouteError> {
        if !self.span.is_recorded() {
            return self.gateway.router.settle(pool.now, request, shortlist, pool);
        }
        let (route, considered) = self.gateway.router.settle_watched(pool.now, request, shortlist, pool)?;
        spans::decided(&self.span, since, self.gateway.clock.now(), &route, &considered);
        Ok(route)
    }

    /// Where it would go.
    pub(super) async fn explain(&self, prompt: Option<&Prompt<'_>>) -> Result<Explanation, ApiError> {
        let router = &self.gateway.router;
        let Some((ledger, shortlist)) = self.shortlist(prompt, Router::rehearse_shortlist)? else {
            return self.ask_router(prompt, Loads::Own, |request, pool| router.explain(pool.now, request, pool));
        };
        let workers = shortlist.workers.clone();
        let readings = ledger.probe(&workers).await;
        self.ask_router(None, Loads::Probed(ledger, &workers, &readings), |request, pool| {
            router.explain_settled(pool.now, request, shortlist, pool)
        })
    }

    /// Whom to ask other nodes about; none: there are no others, or the policy goes by this node's own counts.
    fn shortlist(
        &self,
        prompt: Option<&Prompt<'_>>,
        ask: impl FnOnce(&Router, Instant, &RouteRequest<'_, '_>, &dyn Candidates) -> Option<Shortlist>,
    ) -> Result<Option<(&ledger::Handle, Shortlist)>, ApiError> {
        let Some(ledger) = self.gateway.ledger.as_ref().filter(|it| !it.is_alone()) else { return Ok(None) };
        let shortlist = self.ask_router(prompt, Loads::Gossiped(ledger), |request, pool| {
            Ok(ask(&self.gateway.router, pool.now, request, pool))
        })?;
        Ok(shortlist.map(|it| (ledger, it)))
    }

    fn ask_router<T>(
        &self,
        prompt: Option<&Prompt<'_>>,
        loads: Loads<'_>,
        ask: impl FnOnce(&RouteRequest<'_, '_>, &Pool<'_>) -> Result<T, RouteError>,
    ) -> Result<T, ApiError> {
        let fleet = self.gateway.registry.fleet();
        let now = self.gateway.clock.now();
        let entries = fleet.by_model.get(&self.model).map_or(&[][..], |it| it);
        let pool = Pool { entries, now, generation: fleet.generation, loads };
        let header = |name| self.headers.get(name).and_then(|it: &HeaderValue| it.to_str().ok());
        let target = header("x-smg-target-worker").map(|it| {
            WorkerId::parse(it).ok_or(ApiError::BadParameter { name: "x-smg-target-worker", expected: "a worker id" })
        });
        let request = RouteRequest {
            model: &self.model,
            tenant: &self.principal.tenant,
            prompt,
            body_len: self.body.bytes.len(),
            routing_key: header("x-smg-routing-key"),
            target: target.transpose()?,
            tried: if planted(Fault::TheTriedAreAskedAgain) { &[] } else { &self.tried },
        };
        ask(&request, &pool).map_err(|error| refused(error, entries, now))
    }

    /// What follows a failed attempt: another worker, or the end.
    pub(super) async fn next(&mut self, failed: Failed) -> Result<Planned, End> {
        let attempts = self.tried.len();
        self.gateway.metrics.worker_failed(failed.cause.fault());
        let outcome = failed.cause.outcome(failed.retry_after);
        let error = ApiError::WorkerFailed { cause: failed.cause, attempts };
        let ended = |whole: Option<Whole>| whole.map_or(End::Error(error), End::Pass);
        let fleet = Arc::clone(&*self.gateway.registry.fleet());
        let entries = fleet.by_model.get(&self.model).map_or(&[][..], |it| it);
        let untried = entries.iter().filter(|it| !self.tried.contains(&it.id)).count();
        let failure =
            Failure { outcome, attempts: u32::try_from(attempts).unwrap_or(u32::MAX), untried, is_content_sent: false };
        let Verdict::Retry { after } = self.gateway.router.after_failure(self.gateway.clock.now(), failure) else {
            return Err(ended(failed.whole));
        };
        self.gateway.clock.sleep(after).await;
        let body = self.body.bytes.clone();
        let planned = async {
            let object = json::parse(&body)?;
            let parsed = (self.wire.read)(&object)?;
            self.plan(parsed.prompt.as_ref()).await
        };
        planned.await.map_err(|_nothing_left| ended(failed.whole))
    }

    /// The body as the worker gets it: the client's bytes, with our few between where usage must be asked for.
    pub(super) fn segments(&self) -> Segments {
        let body = &self.body.bytes;
        let Some(splice) = &self.splice else { return Segments::from(body.clone()) };
        let mut segments = Segments::from(body.slice(..splice.range.start));
        segments.push(Bytes::from_static(splice.text.as_bytes()));
        segments.push(body.slice(splice.range.end..));
        segments
    }

    /// The client's end-to-end headers without what is private to it or to us.
    pub(super) fn worker_headers(&self, attempt: &Span) -> HeaderMap {
        let mut headers = self.headers.clone();
        if let Some(context) = attempt.context() {
            context.inject(&mut headers);
        }
        PRIVATE.iter().for_each(|name| drop(headers.remove(*name)));
        headers
    }
}

impl Planned {
    /// Says which worker answered, and why it.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut put = |name: &'static str, text: &str| {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        };
        put("x-smg-worker", &self.entry.id.to_string());
        put("x-smg-route", &format!("{}; {}", self.route.policy, self.route.reason.as_str()));
        headers
    }
}

/// A node that starts may be asked before its workers were; they answer within milliseconds. Longer holds requests for models that there are not, shorter refuses what could be served.
const TOLD_MAX: Duration = Duration::from_secs(2);

/// The model asked for, or the only one there is. While a worker that answers, or was not asked yet, has still to tell what it serves, one that nobody serves is waited for.
pub async fn model(gateway: &Gateway, asked: Option<&str>) -> Result<ModelId, ApiError> {
    let is_untold = || gateway.registry.fleet().all.iter().any(|it| it.is_untold());
    match resolve_model(gateway, asked) {
        Err(ApiError::AllBusy { .. } | ApiError::UnknownModel { .. }) if is_untold() => {}
        resolved => return resolved,
    }
    let mut changes = gateway.registry.changes();
    let told =
        async { while is_untold() && resolve_model(gateway, asked).is_err() && changes.changed().await.is_ok() {} };
    let _ = tokio::time::timeout(TOLD_MAX, told).await; // what is there by then decides
    resolve_model(gateway, asked)
}

fn resolve_model(gateway: &Gateway, asked: Option<&str>) -> Result<ModelId, ApiError> {
    let fleet = gateway.registry.fleet();
    if fleet.all.is_empty() {
        return Err(ApiError::NoWorkers);
    }
    let Some(asked) = asked else {
        let mut served = fleet.by_model.keys();
        return match (served.next(), served.next()) {
            (Some(only), None) => Ok(only.clone()),
            (Some(_), Some(_)) => Err(ApiError::ModelRequired),
            (None, _) => Err(ApiError::AllBusy { retry_after: Duration::from_secs(1) }),
        };
    };
    if let Some((model, _)) = fleet.by_model.get_key_value(asked) {
        return Ok(model.clone());
    }
    if fleet.by_model.is_empty() {
        return Err(ApiError::AllBusy { retry_after: Duration::from_secs(1) }); // no worker has told yet what it serves
    }
    let mut known: Vec<&str> = fleet.by_model.keys().map(ModelId::as_str).collect();
    known.sort_unstable();
    known.truncate(5);
    let hint = format!(": served are `{}` (GET /v1/models lists all)", known.join("`, `"));
    Err(ApiError::UnknownModel { model: asked.chars().take(ModelId::LEN_MAX).collect(), hint })
}

fn refused(error: RouteError, entries: &[Arc<Entry>], now: Instant) -> ApiError {
    match error {
        RouteError::NoWorkers => ApiError::NoWorkers,
        RouteError::AllTried => {
            let pause = entries.iter().filter_map(|it| it.health().lock().pause_left(now)).min();
            ApiError::AllBusy { retry_after: pause.unwrap_or(Duration::from_secs(1)) }
        }
        RouteError::TargetUnknown(_) | RouteError::TargetUnavailable(_) => ApiError::Refused(error.to_string()),
    }
}

impl Whole {
    /// A worker's words for an error that came inside a stream.
    pub(super) fn bad_gateway(body: Bytes) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self { status: StatusCode::BAD_GATEWAY, headers, body }
    }

    /// The worker's refusal as an event, for a stream whose head is out already.
    pub(super) fn into_error_event(self, family: Family) -> Bytes {
        let told = json::parse(&self.body).ok().and_then(|body| {
            let message = body.get("error")?.value.get("message")?.as_str()?.into_owned();
            Some(message)
        });
        let message = told.unwrap_or_else(|| format!("the worker answered with status {}", self.status.as_u16()));
        family.error_event(&ErrorText { message, kind: "api_error", code: "worker_failed", param: None }, 0)
    }
}
