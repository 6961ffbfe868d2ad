//! What a worker is and what it serves, read from its own endpoints' answers. Pure: bytes in, facts out.

use serde::Deserialize;

use crate::base::ids::ModelId;

/// The kind of server behind a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Engine {
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
    /// llama.cpp's server.
    LlamaCpp,
    /// Ollama.
    Ollama,
    /// TensorRT-LLM's `trtllm-serve`.
    TrtLlm,
    /// Anything else that answers `/v1/models`.
    #[default]
    Generic,
}

impl Engine {
    const ALL: [Self; 6] = [Self::Vllm, Self::Sglang, Self::LlamaCpp, Self::Ollama, Self::TrtLlm, Self::Generic];

    /// By the name that another node gives it. One that this release does not know is like any other server.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|it| it.name() == name).unwrap_or_default()
    }

    /// As shown in the API and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::LlamaCpp => "llama.cpp",
            Self::Ollama => "ollama",
            Self::TrtLlm => "trtllm",
            Self::Generic => "openai",
        }
    }
}

/// One model a worker serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedModel {
    /// As clients name it.
    pub id: ModelId,
    /// Longest context in tokens, where it tells.
    pub context_len: Option<u64>,
}

#[derive(Deserialize)]
struct Models {
    #[serde(default)]
    data: Vec<Card>,
}

#[derive(Deserialize)]
struct Card {
    id: String,
    #[serde(default)]
    owned_by: String,
    max_model_len: Option<u64>,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    n_ctx_train: Option<u64>,
}

/// Reads `GET /v1/models`: the models, and the engine where the list gives it away.
#[must_use]
pub fn read_models(body: &[u8]) -> Option<(Vec<ServedModel>, Engine)> {
    let models: Models = serde_json::from_slice(body).ok()?;
    let owner = models.data.first().map(|it| it.owned_by.to_ascii_lowercase()).unwrap_or_default();
    let engine = match owner.as_str() {
        "vllm" => Engine::Vllm,
        "sglang" => Engine::Sglang,
        "llamacpp" => Engine::LlamaCpp,
        "library" | "ollama" => Engine::Ollama,
        "tensorrt_llm" => Engine::TrtLlm,
        _ => Engine::Generic,
    };
    let served = models.data.into_iter().filter_map(|card| {
        let context_len = card.max_model_len.or(card.meta.and_then(|it| it.n_ctx_train));
        Some(ServedModel { id: ModelId::parse(&card.id).ok()?, context_len })
    });
    Some((served.collect(), engine))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fuzz;
    use proptest::prelude::*;

    #[test]
    fn engines_are_known_by_their_model_lists() {
        for (body, engine, context) in [
            (
                r#"{"object":"list","data":[{"id":"tiny","owned_by":"vllm","max_model_len":8192}]}"#,
                Engine::Vllm,
                Some(8192),
            ),
            (r#"{"data":[{"id":"tiny","owned_by":"sglang","max_model_len":8192}]}"#, Engine::Sglang, Some(8192)),
            (
                r#"{"models":[],"data":[{"id":"tiny","owned_by":"llamacpp","meta":{"n_ctx_train":2048}}]}"#,
                Engine::LlamaCpp,
                Some(2048),
            ),
            (r#"{"data":[{"id":"llama3:latest","owned_by":"library"}]}"#, Engine::Ollama, None),
            (r#"{"data":[{"id":"tiny"}]}"#, Engine::Generic, None),
        ] {
            let (models, found) = read_models(body.as_bytes()).expect("readable");
            assert_eq!((found, models[0].context_len), (engine, context), "{body}");
        }
        assert_eq!(read_models(b"<html>"), None);
    }

    #[test]
    fn a_list_with_anything_anywhere_is_read_or_refused() {
        let valid = serde_json::json!({"data": [{"id": "tiny", "owned_by": "vllm", "max_model_len": 8192}, {"id": "b", "meta": {"n_ctx_train": 9}}]});
        for odd in fuzz::each_odd_json(&valid) {
            let read = read_models(odd.to_string().as_bytes());
            assert!(read.is_none_or(|it| it.0.len() <= 2), "{odd}");
        }
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn fuzz_a_damaged_list_of_models_is_read_or_refused(bytes in prop_oneof![fuzz::odd_json(vec![serde_json::json!({"data": [{"id": "tiny", "owned_by": "vllm", "max_model_len": 8192}, {"id": "b", "meta": {"n_ctx_train": 9}}]})]), fuzz::damaged(vec![
            br#"{"object":"list","data":[{"id":"tiny","owned_by":"vllm","max_model_len":8192},{"id":"b","meta":{"n_ctx_train":9}}]}"#.to_vec(),
            br#"{"data":[]}"#.to_vec(),
        ])]) {
            let read = fuzz::within(1 << 20, || read_models(&bytes));
            // Names are names that the list has, or has an escape for.
            let has = |id: &ModelId| bytes.contains(&b'\\') || String::from_utf8_lossy(&bytes).contains(id.as_str());
            prop_assert!(read.is_none_or(|it| it.0.iter().all(|it| has(&it.id))));
        }
    }
}
