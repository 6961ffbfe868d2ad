//! What a worker counts, and `/metrics` under the names of the server it imitates.
//!
//! Plain atomics rather than the typed families of our own areas: these series are another program's, down to their
//! order of labels, and each answer touches them on the path that a bench hammers.

use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::json;

use super::options::Personality;
use crate::lab::engine::core::Gauges;

/// Upper bounds of the time histograms, in microseconds (vLLM's own, shortened).
const BOUNDS: [u64; 16] = [
    1_000, 5_000, 10_000, 20_000, 40_000, 60_000, 80_000, 100_000, 250_000, 500_000, 750_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 40_000_000,
];

/// A histogram of durations.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BOUNDS.len()],
    count: AtomicU64,
    sum_micros: AtomicU64,
}

impl Histogram {
    pub(super) fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        if let Some(index) = BOUNDS.iter().position(|bound| micros <= *bound) {
            self.buckets[index].fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.sum_micros.fetch_add(micros, Relaxed);
    }

    fn render(&self, name: &str, labels: &str, out: &mut String) {
        let mut below = 0;
        let _ = writeln!(out, "# TYPE {name} histogram"); // a String takes everything
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            below += bucket.load(Relaxed);
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{}\"}} {below}", *bound as f64 / 1e6);
        }
        let count = self.count.load(Relaxed);
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "{name}_count{{{labels}}} {count}");
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}", self.sum_micros.load(Relaxed) as f64 / 1e6);
    }
}

/// Counters of one worker.
#[derive(Debug, Default)]
pub(super) struct Meters {
    /// Seconds since the epoch.
    pub(super) started: f64,
    pub(super) requests: AtomicU64,
    pub(super) connections: AtomicU64,
    pub(super) connections_open: AtomicU64,
    pub(super) in_flight: AtomicU64,
    pub(super) aborts: AtomicU64,
    pub(super) faults: AtomicU64,
    pub(super) prompt_tokens: AtomicU64,
    pub(super) generation_tokens: AtomicU64,
    pub(super) finished_stop: AtomicU64,
    pub(super) finished_length: AtomicU64,
    pub(super) first_token: Histogram,
    pub(super) between_tokens: Histogram,
    pub(super) whole: Histogram,
}

impl Meters {
    /// The text of `/metrics`. `gauges` are the engine's.
    pub(super) fn render(&self, engine: Personality, model: &str, gauges: &Gauges) -> String {
        match engine {
            Personality::Sglang => self.sglang(model, gauges),
            Personality::LlamaCpp => self.llama_cpp(gauges),
            Personality::TrtLlm => self.trtllm(gauges),
            Personality::Vllm | Personality::Ollama => self.vllm(model, gauges),
        }
    }

    fn vllm(&self, model: &str, gauges: &Gauges) -> String {
        let mut out = String::with_capacity(8192);
        let labels = format!("engine=\"0\",model_name=\"{model}\"");
        let usage = gauges.blocks_used as f64 / gauges.blocks.max(1) as f64;
        let load = |it: &AtomicU64| it.load(Relaxed);
        for (kind, name, value) in [
            ("gauge", "vllm:num_requests_running", gauges.running as f64),
            ("gauge", "vllm:num_requests_waiting", gauges.waiting as f64),
            ("gauge", "vllm:kv_cache_usage_perc", usage),
            ("counter", "vllm:prefix_cache_queries_total", gauges.cache_queries as f64),
            ("counter", "vllm:prefix_cache_hits_total", gauges.cache_hits as f64),
            ("counter", "vllm:prompt_tokens_total", load(&self.prompt_tokens) as f64),
            ("counter", "vllm:prompt_tokens_cached_total", gauges.cache_hits as f64),
            ("counter", "vllm:generation_tokens_total", load(&self.generation_tokens) as f64),
            ("counter", "vllm:num_preemptions_total", 0.0),
            ("counter", "sim_aborts_total", load(&self.aborts) as f64),
            ("counter", "sim_requests_total", load(&self.requests) as f64),
            ("counter", "sim_faults_total", load(&self.faults) as f64),
        ] {
            let _ = writeln!(out, "# TYPE {name} {kind}\n{name}{{{labels}}} {value}"); // a String takes everything
        }
        self.vllm_families(&labels, gauges, &mut out);
        self.first_token.render("vllm:time_to_first_token_seconds", &labels, &mut out);
        self.between_tokens.render("vllm:inter_token_latency_seconds", &labels, &mut out);
        self.whole.render("vllm:e2e_request_latency_seconds", &labels, &mut out);
        self.process(&mut out);
        out
    }

    /// vLLM's families with a label of their own. A client that leaves is counted under none of the reasons: it shows
    /// only in tokens that were not generated.
    fn vllm_families(&self, labels: &str, gauges: &Gauges, out: &mut String) {
        let load = |it: &AtomicU64| it.load(Relaxed);
        let computed = load(&self.prompt_tokens).saturating_sub(gauges.cache_hits);
        let (stop, length) = (load(&self.finished_stop), load(&self.finished_length));
        for (kind, name, label, values) in [
            (
                "counter",
                "request_success_total",
                "finished_reason",
                &[("stop", stop), ("length", length), ("abort", 0), ("error", 0), ("repetition", 0)][..],
            ),
            (
                "counter",
                "prompt_tokens_by_source_total",
                "source",
                &[("local_compute", computed), ("local_cache_hit", gauges.cache_hits), ("external_kv_transfer", 0)],
            ),
            (
                "gauge",
                "num_requests_waiting_by_reason",
                "reason",
                &[("capacity", gauges.waiting as u64), ("deferred", 0)],
            ),
            (
                "gauge",
                "engine_sleep_state",
                "sleep_state",
                &[("awake", 1), ("weights_offloaded", 0), ("discard_all", 0)],
            ),
        ] {
            let _ = writeln!(out, "# TYPE vllm:{name} {kind}"); // a String takes everything
            for (it, value) in values {
                let _ = writeln!(out, "vllm:{name}{{{labels},{label}=\"{it}\"}} {value}");
            }
        }
        let _ = writeln!(
            out,
            "# TYPE vllm:cache_config_info gauge\n\
             vllm:cache_config_info{{block_size=\"{}\",engine=\"0\",num_gpu_blocks=\"{}\"}} 1",
            gauges.block_tokens, gauges.blocks
        );
    }

    fn sglang(&self, model: &str, gauges: &Gauges) -> String {
        let mut out = String::with_capacity(4096);
        let labels = format!("model_name=\"{model}\",engine_type=\"unified\",tp_rank=\"0\",pp_rank=\"0\"");
        let rate = gauges.cache_hits as f64 / gauges.cache_queries.max(1) as f64;
        let usage = gauges.blocks_used as f64 / gauges.blocks.max(1) as f64;
        for (kind, name, value) in [
            ("gauge", "sglang:num_running_reqs", gauges.running as f64),
            ("gauge", "sglang:num_queue_reqs", gauges.waiting as f64),
            ("gauge", "sglang:token_usage", usage),
            ("gauge", "sglang:cache_hit_rate", rate),
            ("gauge", "sglang:gen_throughput", 0.0),
            ("counter", "sglang:prompt_tokens_total", self.prompt_tokens.load(Relaxed) as f64),
            ("counter", "sglang:cached_tokens_total", gauges.cache_hits as f64),
            ("counter", "sglang:generation_tokens_total", self.generation_tokens.load(Relaxed) as f64),
            ("counter", "sglang:num_requests_total", self.requests.load(Relaxed) as f64),
        ] {
            let _ = writeln!(out, "# TYPE {name} {kind}\n{name}{{{labels}}} {value}"); // a String takes everything
        }
        self.first_token.render("sglang:time_to_first_token_seconds", &labels, &mut out);
        out
    }

    /// What Python's client library adds about the process.
    fn process(&self, out: &mut String) {
        let name = "process_start_time_seconds";
        let _ = writeln!(out, "# TYPE {name} gauge\n{name} {}", self.started); // a String takes everything
    }

    fn llama_cpp(&self, gauges: &Gauges) -> String {
        let mut out = String::with_capacity(1024);
        for (kind, name, value) in [
            ("counter", "llamacpp:prompt_tokens_total", self.prompt_tokens.load(Relaxed)),
            ("counter", "llamacpp:prompt_tokens_cached_total", gauges.cache_hits),
            ("counter", "llamacpp:tokens_predicted_total", self.generation_tokens.load(Relaxed)),
            ("gauge", "llamacpp:requests_processing", gauges.running as u64),
            ("gauge", "llamacpp:requests_deferred", gauges.waiting as u64),
        ] {
            let _ = writeln!(out, "# TYPE {name} {kind}\n{name} {value}"); // a String takes everything
        }
        out
    }

    /// TensorRT-LLM answers `/metrics` with JSON: one object for each iteration since the last call.
    fn trtllm(&self, gauges: &Gauges) -> String {
        let (free, used) = (gauges.blocks - gauges.blocks_used, gauges.blocks_used);
        json!([{
            "iter": self.requests.load(Relaxed), "iterLatencyMS": 0.1, "gpuMemUsage": 0,
            "numActiveRequests": gauges.running, "numQueuedRequests": gauges.waiting,
            "kvCacheStats": {"maxNumBlocks": gauges.blocks, "freeNumBlocks": free, "usedNumBlocks": used,
                "cacheHitRate": gauges.cache_hits as f64 / gauges.cache_queries.max(1) as f64},
        }])
        .to_string()
    }
}
