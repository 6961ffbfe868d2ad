//! Endpoints that do not generate: embeddings, rerank, score, classify, tokenize.
//!
//! Vectors follow from the text's words, so that texts that share words are near each other and ranks mean something.

use base64::Engine as _;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::answers;
use super::ask::Prompt;
use super::ask::content;
use super::options::Personality;
use super::refusal::Refusal;
use super::shared::CREATED;
use super::shared::Shared;
use crate::lab::engine::tokens;
use crate::lab::engine::tokens::Token;

/// Longest embedding that may be asked for.
const DIMENSIONS_MAX: usize = 8192;

#[derive(Deserialize)]
struct Pooling {
    model: Option<String>,
    #[serde(alias = "prompt")]
    input: Option<Value>,
    encoding_format: Option<String>,
    dimensions: Option<usize>,
    query: Option<Value>,
    documents: Option<Vec<Value>>,
    top_n: Option<usize>,
    return_documents: Option<bool>,
    #[serde(alias = "queries")]
    text_1: Option<Value>,
    #[serde(alias = "items")]
    text_2: Option<Value>,
}

fn read(shared: &Shared, body: &[u8]) -> Result<Pooling, Refusal> {
    let pooling: Pooling = serde_json::from_slice(body)
        .map_err(|error| Refusal::Malformed(format!("1 validation error: body: {error}")))?;
    let ask = super::ask::Ask { model: pooling.model.clone(), ..Default::default() };
    answers::check_model(shared, &ask)?;
    Ok(pooling)
}

fn model(shared: &Shared, asked: Option<String>) -> String {
    asked.or_else(|| shared.options.models.first().cloned()).unwrap_or_default()
}

/// Texts of an `input`: a text, texts, token ids, or lists of them.
fn texts(input: &Value) -> Vec<String> {
    let ids = |list: &[Value]| -> Option<String> {
        let ids: Option<Vec<Token>> = list.iter().map(|it| it.as_u64().and_then(|it| it.try_into().ok())).collect();
        ids.filter(|it| !it.is_empty()).map(|it| tokens::decode(&it))
    };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match input {
        Value::Array(list) => match ids(list) {
            Some(decoded) => vec![decoded],
            None => list.iter().map(|it| it.as_array().and_then(|it| ids(it)).unwrap_or_else(|| text(it))).collect(),
        },
        one => vec![text(one)],
    }
}

fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let mut sum = vec![0f32; dimensions.max(1)];
    for word in text.split_whitespace().map(str::to_lowercase).chain([String::new()]) {
        for (index, value) in sum.iter_mut().enumerate() {
            let bits = xxh3_64_with_seed(word.as_bytes(), index as u64);
            *value += (bits >> 40) as f32 / (1 << 23) as f32 - 1.0;
        }
    }
    let length = sum.iter().map(|it| it * it).sum::<f32>().sqrt().max(f32::EPSILON);
    sum.iter().map(|it| it / length).collect()
}

fn similarity(a: &str, b: &str) -> f32 {
    let (a, b) = (vector(a, 64), vector(b, 64));
    let dot: f32 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
    1.0 / (1.0 + (-4.0 * dot).exp())
}

fn usage<'a>(all: impl IntoIterator<Item = &'a String>) -> Value {
    let count: usize = all.into_iter().map(|it| tokens::count(it.len())).sum();
    json!({"prompt_tokens": count, "total_tokens": count, "completion_tokens": 0, "prompt_tokens_details": null})
}

/// `/v1/embeddings`.
pub(super) fn embeddings(shared: &Shared, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let pooling = read(shared, body)?;
    let inputs = texts(pooling.input.as_ref().ok_or(Refusal::Missing("input"))?);
    let dimensions = pooling.dimensions.unwrap_or(shared.options.dimensions);
    if dimensions == 0 || dimensions > DIMENSIONS_MAX {
        let message = format!("dimensions must be from 1 to {DIMENSIONS_MAX}, got {dimensions}.");
        return Err(Refusal::Impossible { message, param: Some("dimensions") });
    }
    let is_base64 = pooling.encoding_format.as_deref() == Some("base64");
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let vector = vector(text, dimensions);
            let embedding = if is_base64 {
                let bytes: Vec<u8> = vector.iter().flat_map(|it| it.to_le_bytes()).collect();
                json!(base64::engine::general_purpose::STANDARD.encode(bytes))
            } else {
                json!(vector)
            };
            json!({"index": index, "object": "embedding", "embedding": embedding})
        })
        .collect();
    let id = format!("embd-{:032x}", shared.next_id());
    let body = json!({"id": id, "object": "list", "created": CREATED, "model": model(shared, pooling.model),
        "data": data, "usage": usage(&inputs)});
    Ok(body.to_string().into_bytes())
}

/// `/v1/rerank`, `/rerank`, `/v2/rerank`.
pub(super) fn rerank(shared: &Shared, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let pooling = read(shared, body)?;
    let query = texts(pooling.query.as_ref().ok_or(Refusal::Missing("query"))?).concat();
    let documents = pooling.documents.ok_or(Refusal::Missing("documents"))?;
    let named: Vec<String> = documents.iter().map(|it| texts(it.get("text").unwrap_or(it)).concat()).collect();
    let mut ranked: Vec<_> =
        named.iter().enumerate().map(|(index, text)| (index, text, similarity(&query, text))).collect();
    ranked.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.0.cmp(&b.0)));
    ranked.truncate(pooling.top_n.filter(|it| *it > 0).unwrap_or(usize::MAX));
    let shows_documents = pooling.return_documents != Some(false);
    let result = |(index, text, score): &(usize, &String, f32)| {
        let document = if shows_documents { json!({"text": text, "multi_modal": null}) } else { Value::Null };
        json!({"index": index, "document": document, "relevance_score": score})
    };
    let results: Vec<Value> = ranked.iter().map(result).collect();
    let id = format!("rerank-{:032x}", shared.next_id());
    let body = json!({"id": id, "model": model(shared, pooling.model), "results": results,
        "usage": usage(named.iter().chain([&query]))});
    Ok(body.to_string().into_bytes())
}

/// `/score`, `/v1/score`: one text against many, or pairs.
pub(super) fn score(shared: &Shared, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let pooling = read(shared, body)?;
    let left = texts(pooling.text_1.as_ref().ok_or(Refusal::Missing("text_1"))?);
    let right = texts(pooling.text_2.as_ref().ok_or(Refusal::Missing("text_2"))?);
    if left.is_empty() || right.is_empty() || (left.len() != 1 && left.len() != right.len()) {
        let message = "text_1 must be one text or as many as text_2.".to_owned();
        return Err(Refusal::Impossible { message, param: Some("text_1") });
    }
    let pairs = left.iter().cycle().zip(&right).enumerate();
    let data: Vec<Value> =
        pairs.map(|(index, (a, b))| json!({"index": index, "object": "score", "score": similarity(a, b)})).collect();
    let id = format!("score-{:032x}", shared.next_id());
    let body = json!({"id": id, "object": "list", "created": CREATED, "model": model(shared, pooling.model),
        "data": data, "usage": usage(left.iter().chain(&right))});
    Ok(body.to_string().into_bytes())
}

/// `/classify`, `/v1/classify`: two classes.
pub(super) fn classify(shared: &Shared, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let pooling = read(shared, body)?;
    let inputs = texts(pooling.input.as_ref().ok_or(Refusal::Missing("input"))?);
    let class = |(index, text): (usize, &String)| {
        let yes = (xxh3_64_with_seed(text.as_bytes(), shared.options.seed) >> 40) as f32 / (1 << 24) as f32;
        let label = if yes >= 0.5 { "LABEL_1" } else { "LABEL_0" };
        json!({"index": index, "label": label, "probs": [1.0 - yes, yes], "num_classes": 2})
    };
    let data: Vec<Value> = inputs.iter().enumerate().map(class).collect();
    let id = format!("classify-{:032x}", shared.next_id());
    let body = json!({"id": id, "object": "list", "created": CREATED, "model": model(shared, pooling.model),
        "data": data, "usage": usage(&inputs)});
    Ok(body.to_string().into_bytes())
}

/// `/tokenize`: of a text or of a conversation; llama.cpp names its field `content`.
pub(super) fn tokenize(shared: &Shared, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let ask = answers::read(body)?;
    answers::check_model(shared, &ask)?;
    let mut prompt = Prompt::new(true, 0);
    if ask.messages.is_some() {
        prompt = ask.conversation(prompt);
    } else {
        let raw = ask.prompt.or(ask.content).or(ask.text).ok_or(Refusal::Missing("prompt"))?;
        prompt.push(&content(raw));
    }
    let body = match shared.options.engine {
        Personality::LlamaCpp => json!({"tokens": prompt.tokens}),
        _ => json!({"count": prompt.len, "max_model_len": shared.options.max_model_len, "tokens": prompt.tokens,
            "token_strs": null}),
    };
    Ok(body.to_string().into_bytes())
}

/// `/detokenize`.
pub(super) fn detokenize(shared: &Shared, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let ask = answers::read(body)?;
    answers::check_model(shared, &ask)?;
    let text = tokens::decode(ask.tokens.as_ref().ok_or(Refusal::Missing("tokens"))?);
    let body = match shared.options.engine {
        Personality::LlamaCpp => json!({"content": text}),
        Personality::Sglang => json!({"text": text}),
        _ => json!({"prompt": text}),
    };
    Ok(body.to_string().into_bytes())
}

/// `/v1/messages/count_tokens`.
pub(super) fn count_tokens(body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let ask = answers::read(body)?;
    let prompt = ask.conversation(Prompt::new(false, 0));
    Ok(json!({"input_tokens": prompt.len}).to_string().into_bytes())
}

/// Ollama's `/api/embed`.
pub(super) fn ollama_embed(shared: &Shared, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let pooling = read(shared, body)?;
    let inputs = texts(pooling.input.as_ref().ok_or(Refusal::Missing("input"))?);
    let vectors: Vec<_> = inputs.iter().map(|it| vector(it, shared.options.dimensions)).collect();
    let count: usize = inputs.iter().map(|it| tokens::count(it.len())).sum();
    let body = json!({"model": model(shared, pooling.model), "embeddings": vectors, "prompt_eval_count": count});
    Ok(body.to_string().into_bytes())
}
