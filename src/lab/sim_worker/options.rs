//! What a simulated worker pretends to be. Without any option: vLLM, no delays, a prefix cache of 8192 blocks.

use std::time::Duration;

use crate::base::secret::Secret;
use crate::lab::engine::core::Settings;

crate::config! {
    /// How the simulated worker behaves. Building one by hand: `Options { seed: 7, ..Options::default() }`.
    pub struct Options in "sim-worker" {
        /// Address to listen on.
        "host" => host: String = "127.0.0.1".to_owned(),
        /// Port to listen on; 0 takes a free one.
        "port" => port: u16 = 8000,
        /// Names of the models served.
        "models" => models: Vec<String> = vec!["sim-model".to_owned()],
        /// The server imitated: vllm, sglang, llamacpp, ollama or trtllm.
        "engine" => engine: Personality = Personality::Vllm,
        /// What the engine was started for: all, generate or pooling. The rest is answered as that engine answers it.
        "task" => task: ServedTask = ServedTask::All,
        /// Seed of texts, ids and fault draws: the same seed and requests give the same bytes.
        "seed" => seed: u64 = 0,
        /// Longest prompt plus answer, in tokens.
        "max-model-len" => max_model_len: usize = 32_768,
        /// Tokens of an answer that is not cut by `max_tokens`.
        "output-tokens" => output_tokens: usize = 16,
        /// Prompt tokens computed per second; 0 computes at once.
        "prefill-rate" => prefill_rate: u64 = 0,
        /// Time added to every prefill.
        "prefill-base" => prefill_base: Duration = Duration::ZERO,
        /// Time between two tokens when nobody else decodes.
        "token-delay" => token_delay: Duration = Duration::ZERO,
        /// Microseconds added to that by every decoding sequence.
        "token-delay-step-us" => token_delay_step_us: u64 = 0,
        /// Sequences that run at one time.
        "max-num-seqs" => max_num_seqs: usize = 256,
        /// Sequences that may wait; beyond it the answer is 503.
        "waiting-max" => waiting_max: usize = 4096,
        /// Tokens in a block of the KV cache.
        "block-size" => block_size: usize = 16,
        /// Blocks in the KV cache; 0 switches prefix caching off (the fastest).
        "kv-blocks" => kv_blocks: usize = 8192,
        /// Whether usage tells `cached_tokens`.
        "report-cached" => report_cached: bool = true,
        /// Length of embeddings that are not asked for with `dimensions`.
        "dimensions" => dimensions: usize = 64,
        /// Key that requests must carry as `Authorization: Bearer`; health probes need none.
        "api-key" => api_key: Option<Secret> = None,
        /// Faults from the start, e.g. `status:status=503:next=3` (see the faults module).
        "faults" => faults: Vec<String> = Vec::new(),
        /// Whether every event of a stream without delays is a write of its own, as a real engine's is.
        "write-each-event" => write_each_event: bool = true,
        /// Threads that serve, when run as a process.
        "threads" => threads: usize = 1,
    }
}

impl Options {
    /// No delays, no cache: for measuring what stands in front.
    #[must_use]
    pub fn fastest() -> Self {
        Self { kv_blocks: 0, port: 0, ..Self::default() }
    }

    /// The routing simulator's GPU: 14,000 prompt tokens per second, 15 ms a token and 0.4 ms for each neighbour.
    #[must_use]
    pub fn like_a_gpu() -> Self {
        Self {
            prefill_rate: 14_000,
            prefill_base: Duration::from_millis(10),
            token_delay: Duration::from_millis(15),
            token_delay_step_us: 400,
            ..Self::default()
        }
    }

    /// Whether no model of time is asked for.
    #[must_use]
    pub fn is_instant(&self) -> bool {
        let has_delay = !self.prefill_base.is_zero() || !self.token_delay.is_zero();
        self.prefill_rate == 0 && self.token_delay_step_us == 0 && !has_delay
    }

    pub(super) fn settings(&self) -> Settings {
        let micros = |it: Duration| u64::try_from(it.as_micros()).unwrap_or(u64::MAX / 4);
        Settings {
            prefill_tokens_per_s: self.prefill_rate,
            prefill_base: micros(self.prefill_base),
            token_base: micros(self.token_delay),
            token_step: self.token_delay_step_us,
            sequences_max: self.max_num_seqs,
            block_tokens: self.block_size.max(1),
            blocks: self.kv_blocks,
        }
    }
}

/// The server imitated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Personality {
    /// vLLM 0.32.
    Vllm,
    /// SGLang 0.5.
    Sglang,
    /// llama.cpp's own server.
    LlamaCpp,
    /// Ollama: no `/health`, `/api/*`.
    Ollama,
    /// TensorRT-LLM's `trtllm-serve`.
    TrtLlm,
}

/// What the imitated server was started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedTask {
    /// Everything on one port, which no real engine does; handy in a lab.
    All,
    /// Text only: embeddings and the like are refused.
    Generate,
    /// Embeddings, rerank, score, classify only.
    Pooling,
}

crate::named_values!(
    Personality,
    "vllm, sglang, llamacpp, ollama or trtllm",
    Personality::Vllm = "vllm",
    Personality::Sglang = "sglang",
    Personality::LlamaCpp = "llamacpp" | "llama.cpp" | "llama-cpp",
    Personality::Ollama = "ollama",
    Personality::TrtLlm = "trtllm" | "trt-llm" | "tensorrt_llm"
);
crate::named_values!(
    ServedTask,
    "all, generate or pooling",
    ServedTask::All = "all",
    ServedTask::Generate = "generate",
    ServedTask::Pooling = "pooling" | "embed"
);
