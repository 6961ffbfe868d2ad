//! Generating endpoints: from the body of a request to a turn, whole or streamed, in any dialect.

use std::sync::Arc;

use http::StatusCode;

use super::ask::Ask;
use super::ask::Prompt;
use super::ask::string;
use super::body::SimBody;
use super::body::Teller;
use super::refusal::Refusal;
use super::render;
use super::render::Render;
use super::render::Turn;
use super::reply::Reply;
use super::shared::CREATED;
use super::shared::Shared;
use super::shared::Ticket;
use crate::lab::engine::core::Work;
use crate::lab::engine::tokens::Token;

/// Choices of one answer; vLLM has no bound, a simulation needs one.
const CHOICES_MAX: usize = 128;

/// The wire API asked in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Chat,
    Completions,
    Generate,
    Responses,
    Messages,
    OllamaChat,
    OllamaGenerate,
}

/// An answer without its HTTP version: what [`super::server`] and the faults both need.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) body: SimBody,
}

impl Answer {
    /// JSON in one piece.
    pub(super) fn json(body: Vec<u8>) -> Self {
        Self { status: StatusCode::OK, content_type: "application/json", body: body.into() }
    }

    /// Text in one piece.
    pub(super) fn text(body: impl Into<String>) -> Self {
        let body: String = body.into();
        Self { status: StatusCode::OK, content_type: "text/plain; charset=utf-8", body: body.into_bytes().into() }
    }
}

/// Reads a body.
pub(super) fn read<'a>(body: &'a [u8]) -> Result<Ask<'a>, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        let place = if error.is_data() { "body" } else { "body, json_invalid" };
        Refusal::Malformed(format!("1 validation error: {place}: {error}"))
    })
}

/// Answers a generating request. Dropping the future, or a streamed answer's body, aborts it in the engine.
pub(super) async fn generate(shared: &Arc<Shared>, dialect: Dialect, body: &[u8]) -> Result<Answer, Refusal> {
    let mut ask = read(body)?;
    let model = check_model(shared, &ask)?;
    let is_stream = ask.stream.unwrap_or(matches!(dialect, Dialect::OllamaChat | Dialect::OllamaGenerate));
    let prompt = prompt(shared, dialect, &ask)?;
    let stops = ask.stops();
    check_length(shared, &ask, &prompt)?;
    let choices = ask.n.unwrap_or(1).clamp(1, CHOICES_MAX);
    let natural = shared.options.output_tokens;
    let replies: Vec<_> = (0..choices).map(|it| Reply::plan(&ask, &prompt, &stops, natural, it)).collect();
    let mut render = renderer(dialect);
    if dialect == Dialect::Completions && ask.echo == Some(true) {
        render = Box::new(render::Completions { echo: prompt_text(&ask) });
    }
    let work = work(shared, prompt.tokens, &replies);
    let turn = Turn {
        id: shared.next_id(),
        model,
        created: CREATED,
        replies,
        prompt_tokens: prompt.len,
        cached: shared.options.report_cached.then_some(0),
        stream_options: ask.stream_options.unwrap_or_default(),
        has_logprobs: ask.logprobs.is_some_and(|it| !matches!(it.get(), "null" | "false")),
    };
    run(shared, turn, render, work, is_stream).await
}

async fn run(
    shared: &Arc<Shared>,
    turn: Turn,
    render: Box<dyn Render>,
    work: Option<Work>,
    is_stream: bool,
) -> Result<Answer, Refusal> {
    let stream_type = render.stream_type();
    let len = turn.len();
    let mut teller = Teller::new(turn, render, Ticket::new(shared));
    let mut running = None;
    match work {
        Some(work) if shared.is_instant => teller.learn(0, Some(shared.engine.run_at_once(work))),
        Some(work) => running = shared.engine.submit(work, shared.options.waiting_max),
        None => {}
    }
    if !shared.is_instant && running.is_none() {
        teller.refused();
        return Err(Refusal::Busy(503));
    }
    if is_stream {
        let body = SimBody::stream(teller.opened(), running);
        return Ok(Answer { status: StatusCode::OK, content_type: stream_type, body });
    }
    if let Some(mut running) = running {
        let mut progress = running.beyond(0).await;
        teller.first_token();
        if progress.emitted < len {
            progress = running.beyond(len - 1).await;
        }
        teller.learn(progress.emitted, progress.cached);
    }
    Ok(Answer::json(teller.whole()))
}

/// What the engine computes: needed when it has a cache or keeps time.
fn work(shared: &Shared, prompt: Vec<Token>, replies: &[Reply]) -> Option<Work> {
    if !keeps_tokens(shared) {
        return None;
    }
    let longest = replies.iter().max_by_key(|it| it.len)?;
    Some(Work { prompt, output: longest.tokens() })
}

pub(super) fn keeps_tokens(shared: &Shared) -> bool {
    shared.options.kv_blocks > 0 || !shared.is_instant
}

/// The model answered with: the asked one if it is served. llama.cpp and SGLang do not look.
pub(super) fn check_model(shared: &Shared, ask: &Ask<'_>) -> Result<String, Refusal> {
    use super::options::Personality;
    let served = &shared.options.models;
    let first = || served.first().cloned().unwrap_or_default();
    let Some(asked) = &ask.model else { return Ok(first()) };
    let accepts_any = matches!(shared.options.engine, Personality::LlamaCpp | Personality::Sglang);
    if accepts_any || served.iter().any(|it| it == asked) {
        return Ok(asked.clone());
    }
    Err(Refusal::UnknownModel(asked.clone()))
}

fn check_length(shared: &Shared, ask: &Ask<'_>, prompt: &Prompt) -> Result<(), Refusal> {
    let max = shared.options.max_model_len;
    if ask.output_max() == Some(0) {
        let message = "max_tokens must be at least 1, got 0.".to_owned();
        return Err(Refusal::Impossible { message, param: "max_tokens" });
    }
    if ask.temperature.is_some_and(|it| it < 0.0) {
        let message = format!("temperature must be non-negative, got {}.", ask.temperature.unwrap_or_default());
        return Err(Refusal::Impossible { message, param: "temperature" });
    }
    let output = ask.output_max().unwrap_or(1);
    if prompt.len.saturating_add(output) <= max {
        return Ok(());
    }
    let message = format!(
        "This model's maximum context length is {max} tokens. However, you requested {output} output tokens and your \
         prompt contains {} input tokens. Please reduce the length of the input prompt or the number of requested \
         output tokens.",
        prompt.len
    );
    Err(Refusal::Impossible { message, param: "input_tokens" })
}

/// The prompt of a request, or which field is missing.
pub(super) fn prompt(shared: &Shared, dialect: Dialect, ask: &Ask<'_>) -> Result<Prompt, Refusal> {
    let mut prompt = Prompt::new(keeps_tokens(shared), shared.options.seed);
    match dialect {
        Dialect::Chat | Dialect::Messages | Dialect::OllamaChat => {
            if ask.messages.as_ref().is_none_or(Vec::is_empty) {
                return Err(missing("messages"));
            }
            return Ok(ask.conversation(prompt));
        }
        Dialect::Responses => {
            let input = ask.input.ok_or_else(|| missing("input"))?;
            return Ok(super::ask::responses(ask, input, prompt));
        }
        Dialect::Completions | Dialect::Generate | Dialect::OllamaGenerate => {}
    }
    if let Some(ids) = &ask.input_ids {
        prompt.push_tokens(ids);
    } else {
        let raw = ask.prompt.or(ask.text).ok_or_else(|| missing("prompt"))?;
        match serde_json::from_str::<Vec<Token>>(raw.get()) {
            Ok(ids) => prompt.push_tokens(&ids),
            Err(_) => prompt.push(&super::ask::content(raw)), // a text, or texts that are then one
        }
    }
    prompt.last_user = prompt_text(ask);
    Ok(prompt)
}

fn prompt_text(ask: &Ask<'_>) -> String {
    ask.prompt.or(ask.text).and_then(string).map(std::borrow::Cow::into_owned).unwrap_or_default()
}

pub(super) fn missing(field: &str) -> Refusal {
    Refusal::Malformed(format!("1 validation error: body, {field}: Field required"))
}

fn renderer(dialect: Dialect) -> Box<dyn Render> {
    match dialect {
        Dialect::Chat => Box::new(render::Chat::default()),
        Dialect::Completions => Box::new(render::Completions::default()),
        Dialect::Generate => Box::new(render::Generate::default()),
        Dialect::Responses => Box::new(render::Responses::default()),
        Dialect::Messages => Box::new(render::Messages),
        Dialect::OllamaChat => Box::new(render::Ollama { is_chat: true }),
        Dialect::OllamaGenerate => Box::new(render::Ollama { is_chat: false }),
    }
}
