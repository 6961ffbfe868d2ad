//! One request: note it, let a fault strike, find its endpoint, answer.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use http_body_util::BodyExt as _;
use http_body_util::Limited;
use serde_json::Value;
use serde_json::json;

use super::answers;
use super::answers::Answer;
use super::body::SimBody;
use super::catalog;
use super::faults::Kind;
use super::faults::Rule;
use super::options::Personality;
use super::pooling;
use super::refusal::Refusal;
use super::route::Endpoint;
use super::route::route;
use super::shared::Recorded;
use super::shared::Shared;
use super::shared::Ticket;
use crate::base::limits;

pub(super) type Incoming = Request<hyper::body::Incoming>;
pub(super) type Outgoing = Response<SimBody>;

/// Where a redirect fault points: what an SSRF would want to read.
const METADATA: &str = "http://169.254.169.254/latest/meta-data/";

/// Answers a request. With a rule, that fault is to be played below HTTP.
pub(super) async fn handle(shared: &Arc<Shared>, request: Incoming, connection: u64) -> (Outgoing, Option<Rule>) {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let body = match Limited::new(body, limits::BODY_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return (empty(StatusCode::PAYLOAD_TOO_LARGE), None), // too long, or the client is gone
    };
    if path.starts_with("/sim/") {
        return (respond(shared, dispatch(shared, &head, &body).await), None);
    }
    shared.meters.requests.fetch_add(1, Relaxed);
    let by_header = head.headers.get("x-sim-fault").map(|it| Rule::parse(it.to_str().unwrap_or_default()));
    let fault = match by_header {
        Some(Err(error)) => return (respond(shared, Err(Refusal::Malformed(error.to_string()))), None),
        Some(Ok(rule)) => Some(rule),
        None => shared.faults.strike(path),
    };
    shared.record(Recorded {
        method: head.method.clone(),
        path: head.uri.path_and_query().map_or_else(|| path.to_owned(), ToString::to_string),
        headers: head.headers.clone(),
        body: body.clone(),
        connection,
    });
    let Some(fault) = fault else { return (respond(shared, dispatch(shared, &head, &body).await), None) };
    shared.meters.faults.fetch_add(1, Relaxed);
    if let Some(instead) = before_answer(shared, &fault).await {
        return (instead, None);
    }
    let outgoing = respond(shared, dispatch(shared, &head, &body).await);
    if fault.is_below_http() { (outgoing, Some(fault)) } else { (outgoing, None) }
}

/// Faults that HTTP itself can carry: an answer instead, or a delay before it.
async fn before_answer(shared: &Arc<Shared>, fault: &Rule) -> Option<Outgoing> {
    match fault.kind {
        Kind::StallBeforeHead | Kind::SlowStart => {
            let ticket = Ticket::new(shared);
            if fault.ms == 0 && fault.kind == Kind::StallBeforeHead {
                std::future::pending::<()>().await; // dropped with its ticket when the client leaves
            }
            shared.clock.sleep(Duration::from_millis(fault.ms)).await;
            ticket.done();
            None
        }
        Kind::Status => {
            let refusal = Refusal::Busy(fault.status.unwrap_or(503));
            let mut outgoing = respond(shared, Err(refusal));
            if let Some(seconds) = fault.retry_after {
                outgoing.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            Some(outgoing)
        }
        Kind::Redirect => {
            let mut outgoing = empty(StatusCode::TEMPORARY_REDIRECT);
            let target = HeaderValue::from_str(fault.text.as_deref().unwrap_or(METADATA));
            outgoing.headers_mut().insert(header::LOCATION, target.unwrap_or(HeaderValue::from_static(METADATA)));
            Some(outgoing)
        }
        Kind::Refuse => {
            close_port(shared, fault.ms);
            None
        }
        _ => None,
    }
}

/// Closes the port for a while.
pub(super) fn close_port(shared: &Shared, ms: u64) {
    shared.closed_until.send_replace(Some(shared.clock.now() + Duration::from_millis(ms)));
}

fn empty(status: StatusCode) -> Outgoing {
    let mut outgoing = Response::new(SimBody::from(Vec::new()));
    *outgoing.status_mut() = status;
    outgoing
}

fn respond(shared: &Shared, answer: Result<Answer, Refusal>) -> Outgoing {
    let engine = shared.options.engine;
    let answer = answer.unwrap_or_else(|refusal| Answer {
        status: refusal.status(),
        content_type: "application/json",
        body: refusal.render(engine).into(),
    });
    let mut outgoing = Response::new(answer.body);
    *outgoing.status_mut() = answer.status;
    let headers = outgoing.headers_mut();
    if !answer.content_type.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    }
    let server = match engine {
        Personality::Vllm | Personality::Sglang | Personality::TrtLlm => "uvicorn",
        Personality::LlamaCpp => "llama.cpp",
        Personality::Ollama => return outgoing,
    };
    headers.insert(header::SERVER, HeaderValue::from_static(server));
    outgoing
}

async fn dispatch(shared: &Arc<Shared>, head: &http::request::Parts, body: &Bytes) -> Result<Answer, Refusal> {
    let options = &shared.options;
    let path = head.uri.path();
    let endpoint = route(options.engine, options.task, &head.method, path)?;
    check_key(shared, head, endpoint)?;
    let engine = options.engine;
    let json = match endpoint {
        Endpoint::Generate(dialect) => return answers::generate(shared, dialect, body).await,
        Endpoint::Health if engine == Personality::LlamaCpp => br#"{"status":"ok"}"#.to_vec(),
        Endpoint::Health | Endpoint::Ping => return Ok(Answer { content_type: "", ..Answer::text("") }),
        Endpoint::OllamaRoot => return Ok(Answer::text("Ollama is running")),
        Endpoint::Metrics => return Ok(metrics(shared)),
        Endpoint::Embeddings => pooling::embeddings(shared, body)?,
        Endpoint::Rerank => pooling::rerank(shared, body)?,
        Endpoint::Score => pooling::score(shared, body)?,
        Endpoint::Classify => pooling::classify(shared, body)?,
        Endpoint::Tokenize => pooling::tokenize(shared, body)?,
        Endpoint::Detokenize => pooling::detokenize(shared, body)?,
        Endpoint::CountTokens => pooling::count_tokens(body)?,
        Endpoint::OllamaEmbed => pooling::ollama_embed(shared, body)?,
        Endpoint::Models => catalog::models(shared),
        Endpoint::Model => one_model(shared, path)?,
        Endpoint::Version => catalog::version(engine),
        Endpoint::Load => catalog::load(shared),
        Endpoint::ModelInfo => catalog::model_info(shared),
        Endpoint::ServerInfo => catalog::server_info(shared),
        Endpoint::Loads => catalog::loads(shared),
        Endpoint::Props => catalog::props(shared),
        Endpoint::Slots => catalog::slots(shared),
        Endpoint::Tags => catalog::tags(shared),
        Endpoint::Show => catalog::show(shared),
        Endpoint::FlushCache | Endpoint::Abort => {
            shared.engine.clear_cache();
            Vec::new()
        }
        Endpoint::State => json!(shared.snapshot()).to_string().into_bytes(),
        Endpoint::Requests => requests(shared),
        Endpoint::Faults => faults(shared, &head.method, body)?,
    };
    Ok(Answer::json(json))
}

fn check_key(shared: &Shared, head: &http::request::Parts, endpoint: Endpoint) -> Result<(), Refusal> {
    let Some(key) = &shared.options.api_key else { return Ok(()) };
    use Endpoint::{Faults, Health, Metrics, Ping, Requests, State, Version};
    if matches!(endpoint, Health | Ping | Version | Metrics | State | Requests | Faults) {
        return Ok(());
    }
    let given = head.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let given = given.and_then(|it| it.strip_prefix(b"Bearer "));
    if given.is_some_and(|it| key.matches(it)) { Ok(()) } else { Err(Refusal::Unauthorized) }
}

fn metrics(shared: &Shared) -> Answer {
    let engine = shared.options.engine;
    let model = shared.options.models.first().map_or("", String::as_str);
    let text = shared.meters.render(engine, model, &shared.gauges());
    if engine == Personality::TrtLlm { Answer::json(text.into_bytes()) } else { Answer::text(text) }
}

fn one_model(shared: &Shared, path: &str) -> Result<Vec<u8>, Refusal> {
    let name = path.strip_prefix("/v1/models/").unwrap_or_default();
    let list: Value = serde_json::from_slice(&catalog::models(shared)).unwrap_or_default();
    let cards = list.get("data").and_then(Value::as_array);
    let card = cards.into_iter().flatten().find(|it| it.get("id").and_then(Value::as_str) == Some(name));
    card.map(|it| it.to_string().into_bytes()).ok_or_else(|| Refusal::UnknownModel(name.to_owned()))
}

/// What the worker saw lately, the newest last; for tests that drive it from outside the process.
fn requests(shared: &Shared) -> Vec<u8> {
    let show = |it: &Recorded| {
        let headers: Vec<Value> = it
            .headers
            .iter()
            .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
            .collect();
        json!({"method": it.method.as_str(), "path": it.path, "headers": headers, "connection": it.connection,
            "body": String::from_utf8_lossy(&it.body)})
    };
    shared.recorded().iter().map(show).collect::<Value>().to_string().into_bytes()
}

/// GET lists, POST adds, PUT replaces, DELETE clears.
fn faults(shared: &Shared, method: &Method, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let refused = |error: super::faults::InvalidRule| Refusal::Malformed(error.to_string());
    if method == Method::DELETE || method == Method::PUT {
        shared.faults.clear();
    }
    if method == Method::POST || method == Method::PUT {
        let rules = Rule::parse_list(body).map_err(refused)?;
        add_faults(shared, rules).map_err(refused)?;
    }
    Ok(json!(shared.faults.list()).to_string().into_bytes())
}

/// Adds rules; one that closes the port without naming requests does so now.
pub(super) fn add_faults(shared: &Shared, rules: Vec<Rule>) -> Result<(), super::faults::InvalidRule> {
    let is_now = |it: &Rule| it.kind == Kind::Refuse && it.next.is_none() && it.path.is_none();
    let (now, later): (Vec<Rule>, Vec<Rule>) = rules.into_iter().partition(is_now);
    shared.faults.add(later)?;
    for rule in now {
        close_port(shared, rule.ms);
    }
    Ok(())
}
