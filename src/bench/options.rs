//! What `smg bench` is asked to do.

use std::time::Duration;

use crate::base::secret::Secret;
use crate::base::setting::ByteSize;

crate::config! {
    /// The load and its target.
    pub struct Options in "bench" {
        /// Base address of an OpenAI-compatible server. Of several, each has its share of the connections, and a request goes to whichever is free.
        "url" => url: Vec<String> = vec!["http://127.0.0.1:30000".to_owned()],
        /// Key sent as `Authorization: Bearer`.
        "key" => key: Option<Secret> = None,
        /// Model asked for.
        "model" => model: String = "sim-model".to_owned(),
        /// What is asked: chat or completions.
        "endpoint" => endpoint: Endpoint = Endpoint::Chat,
        /// Whether answers are streamed.
        "stream" => stream: bool = false,
        /// `max_tokens` of each request; 0 leaves it out. A trace has its own.
        "max-tokens" => max_tokens: u64 = 16,
        /// Connections, each with one request at a time. With a rate, a request that finds none free waits, and its wait counts.
        "connections" => connections: usize = 64,
        /// Requests per second; 0 sends the next when the last was answered (closed loop).
        "rate" => rate: f64 = 0.0,
        /// How requests of a rate are spaced: poisson or fixed.
        "arrivals" => arrivals: Arrivals = Arrivals::Poisson,
        /// Requests in all; 0 for no limit. Without this, a duration and a trace: 10s.
        "requests" => requests: u64 = 0,
        /// How long requests are sent; 0 for no limit.
        "duration" => duration: Duration = Duration::ZERO,
        /// Size of a prompt.
        "prompt-size" => prompt_size: ByteSize = ByteSize(1024),
        /// Bytes at the start of each prompt that all have in common; as many as the prompt has make all prompts equal.
        "shared-prefix" => shared_prefix: ByteSize = ByteSize(0),
        /// Replays a trace: Mooncake or agent sessions (JSON lines), Azure (CSV).
        "trace" => trace: Option<String> = None,
        /// How many times faster than recorded a trace is replayed.
        "speed" => speed: f64 = 1.0,
        /// Bytes sent for a token of a trace.
        "token-size" => token_size: ByteSize = ByteSize(4),
        /// Longest wait for one answer.
        "timeout" => timeout: Duration = Duration::from_secs(60),
        /// Threads that send.
        "threads" => threads: usize = 1,
        /// Seed of prompts and arrivals: the same seed sends the same requests.
        "seed" => seed: u64 = 1,
    }
}

impl Options {
    /// Most connections and threads: one process has no more descriptors and cores to give.
    pub const CONNECTIONS_MAX: usize = 65_536;
    /// See [`Options::CONNECTIONS_MAX`].
    pub const THREADS_MAX: usize = 256;
    /// Longest prompt.
    pub const PROMPT_BYTES_MAX: usize = 64 << 20;
    /// How long is sent when nothing limits it.
    pub const DURATION_UNASKED: Duration = Duration::from_secs(10);

    /// Says what cannot be used, by flag.
    pub fn check(&self) -> Result<(), Unusable> {
        let refuse = |flag, expected| Err(Unusable { flag, expected });
        if !(1..=Self::CONNECTIONS_MAX).contains(&self.connections) {
            return refuse("connections", "a number from 1 to 65536");
        }
        if !(1..=Self::THREADS_MAX).contains(&self.threads) {
            return refuse("threads", "a number from 1 to 256");
        }
        if !(0.0..=1e7).contains(&self.rate) {
            return refuse("rate", "a number from 0 to 10,000,000");
        }
        if !(1e-3..=1e6).contains(&self.speed) {
            return refuse("speed", "a number from 0.001 to 1,000,000");
        }
        if self.prompt_size.0 > Self::PROMPT_BYTES_MAX {
            return refuse("prompt-size", "at most 64MiB");
        }
        if !(1..=1024).contains(&self.token_size.0) {
            return refuse("token-size", "a size from 1 to 1024");
        }
        Ok(())
    }

    /// When sending ends, if time ends it.
    #[must_use]
    pub fn sending_time(&self) -> Option<Duration> {
        match (self.duration, self.requests, &self.trace) {
            (Duration::ZERO, 0, None) => Some(Self::DURATION_UNASKED),
            (Duration::ZERO, _, _) => None,
            (duration, _, _) => Some(duration),
        }
    }
}

/// An option outside its range.
#[derive(Debug, thiserror::Error)]
#[error("`--{flag}`: expected {expected}")]
pub struct Unusable {
    flag: &'static str,
    expected: &'static str,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completions,
}

impl Endpoint {
    /// Where it is.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
        }
    }
}

crate::named_values!(Endpoint, "chat or completions", Endpoint::Chat = "chat", Endpoint::Completions = "completions");

/// How requests of a rate are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// Each comes whenever it comes: exponential gaps, as of many independent clients.
    Poisson,
    /// Equal gaps.
    Fixed,
}

crate::named_values!(Arrivals, "poisson or fixed", Arrivals::Poisson = "poisson", Arrivals::Fixed = "fixed");
