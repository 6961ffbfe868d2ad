//! Generating endpoints: from the body of a request to a turn, whole or streamed, in any dialect.

use std::sync::Arc;

use http::StatusCode;
use xxhash_rust::xxh3::xxh3_64;

use super::ask::Ask;
use super::ask::Prompt;
use super::body::SimBody;
use super::body::Teller;
use super::checks;
use super::prompts::prompt_text;
use super::prompts::prompts;
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
    checks::check(shared, &ask)?;
    let is_stream = ask.stream.unwrap_or(matches!(dialect, Dialect::OllamaChat | Dialect::OllamaGenerate));
    let mut prompts = prompts(shared, dialect, &ask)?;
    checks::fit(shared, &mut prompts)?;
    let stops = ask.stops();
    let choices = ask.n.unwrap_or(1).clamp(1, CHOICES_MAX);
    let natural = shared.options.output_tokens;
    let mut replies = Vec::with_capacity(prompts.len() * choices);
    for prompt in &prompts {
        replies.extend((0..choices).map(|choice| Reply::plan(&ask, prompt, &stops, natural, choice)));
    }
    let mut render = renderer(dialect);
    if dialect == Dialect::Completions && ask.echo == Some(true) {
        render = Box::new(render::Completions { echo: prompt_text(&ask) });
    }
    let works = works(shared, ask.cache_salt.as_deref(), &prompts, &replies);
    let prompt_tokens = prompts.iter().map(|it| it.len).sum();
    let turn = Turn {
        id: shared.next_id(),
        model,
        created: CREATED,
        replies,
        prompt_tokens,
        computed_tokens: prompt_tokens * choices,
        block_size: shared.options.block_size.max(1),
        cached: shared.options.report_cached.then_some(0),
        stream_options: ask.stream_options.unwrap_or_default(),
        has_logprobs: ask.logprobs.is_some_and(|it| !matches!(it.get(), "null" | "false")),
    };
    run(shared, turn, render, works, is_stream).await
}

async fn run(
    shared: &Arc<Shared>,
    turn: Turn,
    render: Box<dyn Render>,
    works: Vec<Work>,
    is_stream: bool,
) -> Result<Answer, Refusal> {
    let stream_type = render.stream_type();
    let len = turn.len();
    // The one that is told: of several alike, a stream tells what the first found in the cache, a whole answer the last.
    let mut longest = works.iter().enumerate().filter(|(_, it)| it.output.len() == len).map(|(index, _)| index);
    let told = if is_stream { longest.next() } else { longest.next_back() }.unwrap_or(0);
    let mut teller = Teller::new(turn, render, Ticket::new(shared));
    let mut running = Vec::new();
    if shared.is_instant {
        let cached: Vec<_> = works.into_iter().map(|it| shared.engine.run_at_once(it)).collect();
        teller.learn(0, cached.get(told).copied());
    } else {
        for work in works {
            let Some(taken) = shared.engine.submit(work, shared.options.waiting_max) else {
                teller.refused();
                return Err(Refusal::Busy(503));
            };
            running.push(taken);
        }
        running.swap(0, told);
    }
    if is_stream {
        let body = SimBody::stream(teller.opened(), running);
        return Ok(Answer { status: StatusCode::OK, content_type: stream_type, body });
    }
    if let Some(told) = running.first_mut() {
        while teller.wants_token() {
            let progress = told.beyond(teller.emitted()).await;
            if progress.emitted == teller.emitted() {
                break; // the engine has stopped
            }
            teller.learn(progress.emitted, progress.cached);
        }
    }
    Ok(Answer::json(teller.whole()))
}

/// What the engine computes, for every choice: nothing when it neither has a cache nor keeps time. Salted tokens are
/// others to the cache, so it finds them only for who has the salt.
fn works(shared: &Shared, salt: Option<&str>, prompts: &[Prompt], replies: &[Reply]) -> Vec<Work> {
    if !keeps_tokens(shared) {
        return Vec::new();
    }
    let choices = replies.len() / prompts.len().max(1);
    let salt = salt.map_or(0, |it| xxh3_64(it.as_bytes()) as Token);
    let salted = |mut tokens: Vec<Token>| {
        tokens.iter_mut().for_each(|it| *it ^= salt);
        tokens
    };
    let work = |(index, reply): (usize, &Reply)| Work {
        prompt: salted(prompts[index / choices.max(1)].tokens.clone()),
        output: salted(reply.tokens()),
    };
    replies.iter().enumerate().map(work).collect()
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
