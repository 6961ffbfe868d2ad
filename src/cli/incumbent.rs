//! Flags of the gateway people come from: taken where they mean something here, named where they do not.
//!
//! One table. A flag whose neglect would change who may call or which workers serve is refused, not ignored: a script
//! that asked for token checks must not start an open gateway.

use super::args;
use super::args::Flags;

/// One flag of the incumbent.
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) becomes: Becomes,
}

/// What it means here.
pub(super) enum Becomes {
    /// This flag; a bare number gets the unit.
    Renamed(&'static str, &'static str),
    /// Nothing; the text says what is done instead.
    Nothing(&'static str),
    /// Cannot be done, and going on without would be wrong.
    Refused(&'static str),
}

use Becomes::Nothing;
use Becomes::Refused;
use Becomes::Renamed;

const fn flag(name: &'static str, becomes: Becomes) -> Flag {
    Flag { name, becomes }
}

const COST: &str = "cache_aware weighs queue and cache by cost and has no thresholds";
const DETECTED: &str = "what a worker is and serves is found from its own endpoints";
const NO_TOKENIZER: &str = "prompts are matched by bytes, no tokenizer is loaded";
const PARSED: &str = "the engine parses tool calls and reasoning";
const PD: &str = "prefill/decode disaggregation is not supported; start a gateway in front of the engines' own";
const KUBERNETES: &str = "Kubernetes discovery is not supported; name a headless service's pods with `--worker-urls`";
const TOKENS: &str = "JWT is not supported; give named keys with `--api-key NAME:TENANT:ROLE:KEY`";
const LIMITS: &str = "limits per tenant are not supported; `--max-concurrent-requests` limits all";

/// All of them, in the order of the incumbent's documentation.
pub(super) const FLAGS: &[Flag] = &[
    flag("request-timeout-secs", Renamed("request-timeout", "s")),
    flag("queue-timeout-secs", Renamed("queue-timeout", "s")),
    flag("shutdown-grace-period-secs", Renamed("drain-timeout", "s")),
    flag("runtime-worker-threads", Renamed("threads", "")),
    flag("tenant-api-key", Renamed("api-key", "")),
    flag("control-plane-api-keys", Renamed("api-key", "")),
    flag("health-check-port", Nothing("`/liveness` and `/readiness` answer on `--port`")),
    flag("cache-threshold", Nothing(COST)),
    flag("balance-abs-threshold", Nothing(COST)),
    flag("balance-rel-threshold", Nothing(COST)),
    flag("balance-token-usage-threshold", Nothing(COST)),
    flag("overload-token-usage-threshold", Nothing(COST)),
    flag("eviction-interval", Nothing("the prefix map evicts as it fills; see `--cache-map-bytes` and `--cache-ttl`")),
    flag("max-tree-size", Nothing("the prefix map is bounded in bytes by `--cache-map-bytes`")),
    flag("block-size", Nothing("prefixes are matched at fixed byte positions")),
    flag("least-load-kv-pressure-weight", Nothing(COST)),
    flag("least-load-default-throughput", Nothing("a worker's prefill rate is learned from its answers")),
    flag("least-load-mean-prefill-tokens", Nothing("prompt lengths are learned from `usage`")),
    flag("dp-aware", Nothing("name each data-parallel rank as a worker of its own")),
    flag("dp-minimum-tokens-scheduler", Nothing("name each data-parallel rank as a worker of its own")),
    flag("routing-key-override", Nothing("`x-smg-routing-key` is read by the policies that use a key")),
    flag("enable-igw", Nothing("several models behind one gateway need no switch")),
    flag("pd-disaggregation", Refused(PD)),
    flag("epd-disaggregation", Refused(PD)),
    flag("prefill", Refused(PD)),
    flag("decode", Refused(PD)),
    flag("encode", Refused(PD)),
    flag("prefill-policy", Refused(PD)),
    flag("decode-policy", Refused(PD)),
    flag("encode-policy", Refused(PD)),
    flag("worker-startup-timeout-secs", Nothing("the gateway starts at once and probes workers until they answer")),
    flag("worker-startup-delay", Nothing("the gateway starts at once and probes workers until they answer")),
    flag(
        "worker-startup-check-interval",
        Nothing("workers that are away are probed by `--health-check-interval-secs`"),
    ),
    flag("load-monitor-interval", Nothing("load is counted here, request by request")),
    flag("engine-metrics", Nothing("scrape the engines' own `/metrics`")),
    flag("multimodal-tensor-transport", Nothing("images travel inside the request")),
    flag("multimodal-shm-min-bytes", Nothing("images travel inside the request")),
    flag("service-discovery", Refused(KUBERNETES)),
    flag("selector", Refused(KUBERNETES)),
    flag("service-discovery-port", Refused(KUBERNETES)),
    flag("service-discovery-namespace", Refused(KUBERNETES)),
    flag("encode-selector", Refused(KUBERNETES)),
    flag("prefill-selector", Refused(KUBERNETES)),
    flag("decode-selector", Refused(KUBERNETES)),
    flag("router-selector", Refused(KUBERNETES)),
    flag("model-id-from", Refused(KUBERNETES)),
    flag("model-alias", Refused("model aliases are not supported; use the name that the worker serves")),
    flag("log-dir", Nothing("logs go to standard error; redirect them")),
    flag("prometheus-duration-buckets", Nothing("histogram buckets are fixed, so that nodes can be added up")),
    flag("enable-trace", Nothing("traces are made when `--otlp-traces-endpoint` is given")),
    flag("storage-context-headers", Nothing("nothing is stored")),
    flag("trust-tenant-header", Refused("the tenant is the key's; give keys with `--api-key NAME:TENANT:KEY`")),
    flag("tenant-header-name", Refused("the tenant is the key's; give keys with `--api-key NAME:TENANT:KEY`")),
    flag("rate-limit-tokens-per-second", Nothing("`--max-concurrent-requests` is a real limit and needs no refill")),
    flag("priority-scheduler-enabled", Nothing("requests wait in order of arrival; see `--queue-size`")),
    flag("priority-scheduler-default-max-class", Nothing("requests wait in order of arrival; see `--queue-size`")),
    flag("priority-scheduler-config", Nothing("requests wait in order of arrival; see `--queue-size`")),
    flag("priority-scheduler-tenant-metric-top-n", Nothing("requests wait in order of arrival; see `--queue-size`")),
    flag("tenant-rate-limit-enabled", Refused(LIMITS)),
    flag("tenant-rate-limit-config", Refused(LIMITS)),
    flag("retry-max-retries", Nothing("use `--retry-max-attempts`, which counts the first attempt too")),
    flag("retry-initial-backoff-ms", Renamed("retry-initial-backoff", "ms")),
    flag("retry-max-backoff-ms", Renamed("retry-max-backoff", "ms")),
    flag("retry-backoff-multiplier", Nothing("the pause doubles; see `--retry-initial-backoff`")),
    flag("retry-jitter-factor", Nothing("half of each pause is random")),
    flag("cb-success-threshold", Nothing("a half-open breaker admits a trickle and closes on success")),
    flag("disable-circuit-breaker", Nothing("raise `--cb-failure-threshold` instead")),
    flag("health-check-endpoint", Nothing("probing adapts to the engine")),
    flag("disable-health-check", Nothing("raise `--health-check-interval-secs` instead")),
    flag(
        "remove-unhealthy-workers",
        Nothing("workers that are away get no requests and are taken back when they answer"),
    ),
    flag("drain-settle-secs", Nothing("readiness falls first; see `--drain-timeout`")),
    flag("model-path", Nothing(NO_TOKENIZER)),
    flag("model", Nothing(NO_TOKENIZER)),
    flag("tokenizer-path", Nothing(NO_TOKENIZER)),
    flag("chat-template", Nothing(NO_TOKENIZER)),
    flag("disable-tokenizer-autoload", Nothing(NO_TOKENIZER)),
    flag("tokenizer-cache-enable-l0", Nothing(NO_TOKENIZER)),
    flag("tokenizer-cache-l0-max-entries", Nothing(NO_TOKENIZER)),
    flag("tokenizer-cache-enable-l1", Nothing(NO_TOKENIZER)),
    flag("tokenizer-cache-l1-max-memory", Nothing(NO_TOKENIZER)),
    flag("reasoning-parser", Nothing(PARSED)),
    flag("tool-call-parser", Nothing(PARSED)),
    flag("mcp-config-path", Refused("MCP tools are not supported")),
    flag("backend", Nothing(DETECTED)),
    flag("runtime", Nothing(DETECTED)),
    flag("enable-wasm", Refused("plugins are not supported")),
    flag("jwt-issuer", Refused(TOKENS)),
    flag("jwt-audience", Refused(TOKENS)),
    flag("jwt-jwks-uri", Refused(TOKENS)),
    flag("jwt-role-claim", Refused(TOKENS)),
    flag("jwt-role-mapping", Refused(TOKENS)),
    flag("disable-audit-logging", Nothing("admin edits always leave a line in the log")),
    flag("enable-mesh", Renamed("ha-mesh", "")),
    flag("mesh-server-name", Renamed("node-name", "")),
    flag("mesh-peer-urls", Renamed("seeds", "")),
    flag("webrtc-bind-addr", Nothing("realtime audio is not supported")),
    flag("webrtc-stun-server", Nothing("realtime audio is not supported")),
];

/// What the incumbent's flags came to.
#[derive(Debug, Default)]
pub(super) struct Translated {
    pub(super) flags: Flags,
    pub(super) warnings: Vec<String>,
}

/// A flag whose meaning we do not offer. The operator's to mend.
#[derive(Debug, thiserror::Error)]
#[error("`--{name}`: {why}")]
pub(super) struct Refusal {
    name: String,
    why: &'static str,
}

/// Takes each flag for what it means here. The error names the first that is refused.
pub(super) fn translate(given: Flags) -> Result<Translated, Refusal> {
    let mut translated = Translated::default();
    for (name, values) in given {
        let Some(flag) = FLAGS.iter().find(|it| it.name == name) else { continue };
        match flag.becomes {
            Renamed(to, unit) => {
                translated.warnings.push(format!("`--{name}` is taken as `--{to}`"));
                let values = values.into_iter().map(|it| with_unit(it, unit)).collect();
                let values = args::switched(to, values);
                args::merge(&mut translated.flags, to.to_owned(), values);
            }
            Nothing(instead) => translated.warnings.push(format!("`--{name}` has no effect: {instead}")),
            Refused(why) => return Err(Refusal { name, why }),
        }
    }
    Ok(translated)
}

fn with_unit(value: String, unit: &str) -> String {
    let is_bare =
        value.bytes().all(|it| it.is_ascii_digit() || it == b'.') && value.bytes().any(|it| it.is_ascii_digit());
    if is_bare { value + unit } else { value }
}
