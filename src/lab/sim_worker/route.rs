//! Which path means what, for each engine imitated: one table, so that what an engine does not have is a 404 here too.

use http::Method;

use super::answers::Dialect;
use super::options::Personality;
use super::options::ServedTask;
use super::refusal::Refusal;

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Generate(Dialect),
    Embeddings,
    Rerank,
    Score,
    Classify,
    Tokenize,
    Detokenize,
    CountTokens,
    OllamaEmbed,
    Models,
    /// One model by its name, the rest of the path.
    Model,
    Health,
    Ping,
    Version,
    Metrics,
    Load,
    ModelInfo,
    ServerInfo,
    Loads,
    FlushCache,
    Props,
    Slots,
    Tags,
    Show,
    OllamaRoot,
    Abort,
    State,
    Requests,
    Faults,
}

type Row = (&'static str, Endpoint);

const OPENAI: &[Row] = &[
    ("/v1/chat/completions", Endpoint::Generate(Dialect::Chat)),
    ("/v1/completions", Endpoint::Generate(Dialect::Completions)),
    ("/v1/models", Endpoint::Models),
];
const TALK: &[Row] = &[
    ("/v1/responses", Endpoint::Generate(Dialect::Responses)),
    ("/v1/messages", Endpoint::Generate(Dialect::Messages)),
    ("/v1/messages/count_tokens", Endpoint::CountTokens),
    ("/tokenize", Endpoint::Tokenize),
    ("/detokenize", Endpoint::Detokenize),
    ("/v1/tokenize", Endpoint::Tokenize),
    ("/v1/detokenize", Endpoint::Detokenize),
    ("/health", Endpoint::Health),
    ("/metrics", Endpoint::Metrics),
];
const POOLING: &[Row] = &[
    ("/v1/embeddings", Endpoint::Embeddings),
    ("/rerank", Endpoint::Rerank),
    ("/v1/rerank", Endpoint::Rerank),
    ("/v2/rerank", Endpoint::Rerank),
    ("/score", Endpoint::Score),
    ("/v1/score", Endpoint::Score),
    ("/classify", Endpoint::Classify),
    ("/v1/classify", Endpoint::Classify),
];
const VLLM: &[Row] = &[
    ("/ping", Endpoint::Ping),
    ("/version", Endpoint::Version),
    ("/load", Endpoint::Load),
    ("/reset_prefix_cache", Endpoint::FlushCache),
    ("/abort_requests", Endpoint::Abort),
];
const SGLANG: &[Row] = &[
    ("/generate", Endpoint::Generate(Dialect::Generate)),
    ("/health_generate", Endpoint::Health),
    ("/get_model_info", Endpoint::ModelInfo),
    ("/model_info", Endpoint::ModelInfo),
    ("/server_info", Endpoint::ServerInfo),
    ("/get_server_info", Endpoint::ServerInfo),
    ("/v1/loads", Endpoint::Loads),
    ("/flush_cache", Endpoint::FlushCache),
];
const LLAMA_CPP: &[Row] = &[("/props", Endpoint::Props), ("/slots", Endpoint::Slots), ("/models", Endpoint::Models)];
const OLLAMA: &[Row] = &[
    ("/", Endpoint::OllamaRoot),
    ("/api/version", Endpoint::Version),
    ("/api/tags", Endpoint::Tags),
    ("/api/ps", Endpoint::Tags),
    ("/api/show", Endpoint::Show),
    ("/api/chat", Endpoint::Generate(Dialect::OllamaChat)),
    ("/api/generate", Endpoint::Generate(Dialect::OllamaGenerate)),
    ("/api/embed", Endpoint::OllamaEmbed),
    ("/v1/embeddings", Endpoint::Embeddings),
];
const TRTLLM: &[Row] =
    &[("/health", Endpoint::Health), ("/version", Endpoint::Version), ("/metrics", Endpoint::Metrics)];
/// What no engine has: for those who test with this one.
const SIM: &[Row] =
    &[("/sim/state", Endpoint::State), ("/sim/requests", Endpoint::Requests), ("/sim/faults", Endpoint::Faults)];

fn tables(engine: Personality) -> [&'static [Row]; 4] {
    match engine {
        Personality::Vllm => [OPENAI, TALK, VLLM, POOLING],
        Personality::Sglang => [OPENAI, TALK, SGLANG, POOLING],
        Personality::LlamaCpp => [OPENAI, TALK, LLAMA_CPP, POOLING],
        Personality::Ollama => [OPENAI, OLLAMA, &[], &[]],
        Personality::TrtLlm => [OPENAI, TRTLLM, &[], &[]],
    }
}

/// The endpoint of a request, or how the engine refuses it.
pub(super) fn route(engine: Personality, task: ServedTask, method: &Method, path: &str) -> Result<Endpoint, Refusal> {
    if let Some(endpoint) = find(SIM, path) {
        return Ok(endpoint);
    }
    let known = tables(engine).into_iter().find_map(|rows| find(rows, path));
    // One simulated vLLM stands for a whole lab: started for everything, it speaks SGLang's dialect as well.
    let borrowed = (task == ServedTask::All && path == "/generate" && engine == Personality::Vllm)
        .then_some(Endpoint::Generate(Dialect::Generate));
    let named = path.strip_prefix("/v1/models/").filter(|it| !it.is_empty()).map(|_| Endpoint::Model);
    let endpoint = known.or(borrowed).or(named).ok_or(Refusal::UnknownPath)?;
    if !is_served(endpoint, task) {
        let says_why = engine == Personality::LlamaCpp && endpoint == Endpoint::Embeddings;
        return Err(if says_why { Refusal::Unsupported } else { Refusal::UnknownPath });
    }
    if allows(endpoint, method) { Ok(endpoint) } else { Err(Refusal::WrongMethod) }
}

fn find(rows: &[Row], path: &str) -> Option<Endpoint> {
    rows.iter().find(|(it, _)| *it == path).map(|(_, endpoint)| *endpoint)
}

fn is_served(endpoint: Endpoint, task: ServedTask) -> bool {
    use Endpoint::{Classify, CountTokens, Embeddings, Generate, OllamaEmbed, Rerank, Score};
    match task {
        ServedTask::All => true,
        ServedTask::Generate => !matches!(endpoint, Embeddings | Rerank | Score | Classify | OllamaEmbed),
        ServedTask::Pooling => !matches!(endpoint, Generate(_) | CountTokens),
    }
}

fn allows(endpoint: Endpoint, method: &Method) -> bool {
    use Endpoint::{
        Abort, Classify, CountTokens, Detokenize, Embeddings, Faults, FlushCache, Generate, OllamaEmbed, Ping, Rerank,
        Score, Show, Tokenize,
    };
    match endpoint {
        Generate(_) | Embeddings | Rerank | Score | Classify | Tokenize | Detokenize | CountTokens | OllamaEmbed
        | Show | Abort => method == Method::POST,
        Faults | Ping | FlushCache => true,
        _ => method == Method::GET || method == Method::HEAD,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(engine: Personality, task: ServedTask, method: Method, path: &str, expected: Result<Endpoint, Refusal>) {
        assert_eq!(route(engine, task, &method, path), expected, "{engine:?} {task:?} {method} {path}");
    }

    #[test]
    fn each_engine_has_its_own_paths_and_no_other() {
        use Personality::{LlamaCpp, Ollama, Sglang, TrtLlm, Vllm};
        let all = ServedTask::All;
        for (engine, path, has) in [
            (Vllm, "/health", true),
            (Vllm, "/server_info", false),
            (Sglang, "/get_model_info", true),
            (Sglang, "/version", false),
            (LlamaCpp, "/props", true),
            (LlamaCpp, "/version", false),
            (Ollama, "/health", false),
            (Ollama, "/metrics", false),
            (Ollama, "/api/version", true),
            (TrtLlm, "/version", true),
            (TrtLlm, "/tokenize", false),
            (Vllm, "/v1/models/a", true),
        ] {
            assert_eq!(route(engine, all, &Method::GET, path).is_ok(), has, "{engine:?} {path}");
        }
    }

    #[test]
    fn an_engine_refuses_what_it_was_not_started_for() {
        use Personality::{LlamaCpp, Vllm};
        let generate = ServedTask::Generate;
        check(Vllm, generate, Method::POST, "/v1/embeddings", Err(Refusal::UnknownPath));
        check(LlamaCpp, generate, Method::POST, "/v1/embeddings", Err(Refusal::Unsupported));
        check(Vllm, generate, Method::POST, "/generate", Err(Refusal::UnknownPath));
        check(Vllm, ServedTask::Pooling, Method::POST, "/v1/completions", Err(Refusal::UnknownPath));
        check(Vllm, ServedTask::All, Method::GET, "/v1/completions", Err(Refusal::WrongMethod));
    }
}
