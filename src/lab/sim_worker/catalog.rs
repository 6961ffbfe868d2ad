//! What a worker says about itself, each engine in its own words: this is what detection reads.

use serde_json::Value;
use serde_json::json;

use super::options::Personality;
use super::shared::CREATED;
use super::shared::Shared;

/// `/v1/models`.
pub(super) fn models(shared: &Shared) -> Vec<u8> {
    let options = &shared.options;
    let card = |name: &String| match options.engine {
        Personality::Vllm => json!({"id": name, "object": "model", "created": CREATED, "owned_by": "vllm",
            "root": name, "parent": null, "max_model_len": options.max_model_len, "permission": [permission(name)]}),
        Personality::Sglang => json!({"id": name, "object": "model", "created": CREATED, "owned_by": "sglang",
            "root": name, "parent": null, "max_model_len": options.max_model_len}),
        Personality::LlamaCpp => json!({"id": name, "object": "model", "created": CREATED, "owned_by": "llamacpp",
            "meta": {"vocab_type": 2, "n_vocab": 2048, "n_ctx": options.max_model_len,
                "n_ctx_train": options.max_model_len, "n_embd": 128, "n_params": 558_208, "size": 1_200_000}}),
        Personality::Ollama => json!({"id": name, "object": "model", "created": CREATED, "owned_by": "library"}),
        Personality::TrtLlm => json!({"id": name, "object": "model", "created": CREATED, "owned_by": "tensorrt_llm"}),
    };
    let data: Vec<Value> = options.models.iter().map(card).collect();
    let mut list = json!({"object": "list", "data": data});
    if options.engine == Personality::LlamaCpp {
        let old = |name: &String| json!({"name": name, "model": name, "type": "model", "capabilities": ["completion"]});
        list["models"] = options.models.iter().map(old).collect();
    }
    list.to_string().into_bytes()
}

fn permission(name: &str) -> Value {
    json!({"id": format!("modelperm-{name}"), "object": "model_permission", "created": CREATED,
        "allow_create_engine": false, "allow_sampling": true, "allow_logprobs": true, "allow_search_indices": false,
        "allow_view": true, "allow_fine_tuning": false, "organization": "*", "group": null, "is_blocking": false})
}

/// `/version`; Ollama's is `/api/version`.
pub(super) fn version(engine: Personality) -> Vec<u8> {
    let version = match engine {
        Personality::TrtLlm => "1.2.0",
        Personality::Ollama => "0.12.6",
        Personality::Vllm | Personality::Sglang | Personality::LlamaCpp => "0.32.0",
    };
    json!({ "version": version }).to_string().into_bytes()
}

/// SGLang's `/get_model_info`.
pub(super) fn model_info(shared: &Shared) -> Vec<u8> {
    let model = shared.options.models.first();
    json!({"model_path": model, "tokenizer_path": model, "is_generation": true, "preferred_sampling_params": null,
        "weight_version": "default", "has_image_understanding": false, "has_audio_understanding": false})
    .to_string()
    .into_bytes()
}

/// SGLang's `/server_info`.
pub(super) fn server_info(shared: &Shared) -> Vec<u8> {
    let options = &shared.options;
    json!({"model_path": options.models.first(), "served_model_name": options.models.first(), "version": "0.5.23",
        "context_length": options.max_model_len, "page_size": options.block_size, "tp_size": 1, "dp_size": 1,
        "max_total_num_tokens": options.kv_blocks * options.block_size, "max_running_requests": options.max_num_seqs,
        "disaggregation_mode": "null"})
    .to_string()
    .into_bytes()
}

/// SGLang's `/v1/loads`.
pub(super) fn loads(shared: &Shared) -> Vec<u8> {
    let gauges = shared.gauges();
    json!({"dp_rank_count": 1, "loads": [{"dp_rank": 0, "num_running_reqs": gauges.running,
        "num_waiting_reqs": gauges.waiting, "num_total_reqs": gauges.running + gauges.waiting,
        "num_used_tokens": gauges.blocks_used * shared.options.block_size,
        "max_total_num_tokens": gauges.blocks * shared.options.block_size,
        "max_running_requests": shared.options.max_num_seqs}]})
    .to_string()
    .into_bytes()
}

/// llama.cpp's `/props`.
pub(super) fn props(shared: &Shared) -> Vec<u8> {
    let options = &shared.options;
    json!({"default_generation_settings": {"n_ctx": options.max_model_len}, "total_slots": options.max_num_seqs,
        "model_alias": options.models.first(), "model_path": "sim.gguf", "modalities": {"vision": false, "audio": false},
        "chat_template": "", "bos_token": "", "eos_token": "<|im_end|>", "build_info": "b9000-sim", "is_sleeping": false})
    .to_string()
    .into_bytes()
}

/// llama.cpp's `/slots`.
pub(super) fn slots(shared: &Shared) -> Vec<u8> {
    let running = shared.gauges().running;
    let slot = |id: usize| json!({"id": id, "n_ctx": shared.options.max_model_len, "is_processing": id < running});
    (0..shared.options.max_num_seqs.min(64)).map(slot).collect::<Value>().to_string().into_bytes()
}

/// Ollama's `/api/tags` and, with what is loaded, `/api/ps`.
pub(super) fn tags(shared: &Shared) -> Vec<u8> {
    let card = |name: &String| {
        json!({"name": name, "model": name, "modified_at": "2023-11-14T22:13:20Z", "size": 1_200_000,
            "digest": format!("{:064x}", 7), "details": details()})
    };
    json!({"models": shared.options.models.iter().map(card).collect::<Vec<_>>()}).to_string().into_bytes()
}

/// Ollama's `/api/show`.
pub(super) fn show(shared: &Shared) -> Vec<u8> {
    json!({"modelfile": "", "parameters": "", "template": "", "details": details(),
        "model_info": {"general.architecture": "qwen2", "qwen2.context_length": shared.options.max_model_len,
            "qwen2.embedding_length": 128, "general.parameter_count": 558_208},
        "capabilities": ["completion", "tools"], "modified_at": "2023-11-14T22:13:20Z"})
    .to_string()
    .into_bytes()
}

fn details() -> Value {
    json!({"parent_model": "", "format": "gguf", "family": "qwen2", "families": ["qwen2"], "parameter_size": "0.6M",
        "quantization_level": "F16"})
}

/// vLLM's `/load`.
pub(super) fn load(shared: &Shared) -> Vec<u8> {
    let gauges = shared.gauges();
    json!({"server_load": gauges.running + gauges.waiting}).to_string().into_bytes()
}
