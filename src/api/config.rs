//! What the HTTP edge can be told: where it listens, what it takes, and how long it waits in every phase of a request.
//!
//! Timeouts that end a request are here, those of one attempt at a worker (connect, retries) are the workers' own.
//! What the options must hold between each other is checked in `config/check.rs`.

use std::time::Duration;

use crate::base::limits;
use crate::base::setting::ByteSize;

crate::config! {
    /// The HTTP edge.
    pub struct Config in "server" {
        /// Address to listen on.
        "host" => host: String = "0.0.0.0".to_owned(),
        /// TCP port for clients.
        "port" => port: u16 = 30_000,
        /// Threads that serve requests; 0 takes one for each core.
        "threads" => threads: usize = 0,
        /// PEM file with the server's certificate chain. With `--tls-key-path` the port speaks TLS only.
        "tls-cert-path" => tls_cert_path: Option<String> = None,
        /// PEM file with the private key of `--tls-cert-path`.
        "tls-key-path" => tls_key_path: Option<String> = None,
        /// Largest request body. Beyond it: 413.
        "max-payload-size" => max_payload_size: ByteSize = ByteSize(limits::BODY_BYTES_MAX),
        /// All request bodies held at one time. Beyond it a request waits for `--body-budget-wait`, then gets 503.
        "body-budget" => body_budget: ByteSize = ByteSize(limits::BODY_BUDGET_BYTES),
        /// How long a request waits for its share of `--body-budget`.
        "body-budget-wait" => body_budget_wait: Duration = Duration::from_secs(10),
        /// Client connections open at one time. Beyond it new ones wait in the kernel's backlog.
        "max-connections" => max_connections: usize = 16_384,
        /// A client must have sent a complete request head after this time; a new connection without a request is closed then too.
        "head-timeout" => head_timeout: Duration = limits::HEAD_TIMEOUT,
        /// A connection without a request for this time is closed. Longer than what stands in front of us keeps its own.
        "keep-alive-timeout" => keep_alive_timeout: Duration = Duration::from_secs(75),
        /// A client that takes no byte of its answer for this time is cut off, and its worker freed.
        "client-write-timeout" => client_write_timeout: Duration = Duration::from_secs(60),
        /// Longest pause between two pieces of a request body. Beyond it: 408.
        "body-idle-timeout" => body_idle_timeout: Duration = limits::BODY_IDLE_TIMEOUT,
        /// A request body must be complete after this time, however steadily it comes. Beyond it: 408.
        "body-timeout" => body_timeout: Duration = Duration::from_secs(300),
        /// A request, stream included, must end within this time.
        "request-timeout" => request_timeout: Duration = Duration::from_secs(1800),
        /// The worker must have sent the first byte of its answer after this time.
        "first-token-timeout" => first_token_timeout: Duration = Duration::from_secs(600),
        /// Longest pause between two pieces of a worker's answer.
        "idle-timeout" => idle_timeout: Duration = Duration::from_secs(300),
        /// A stream that is silent for this time gets an SSE comment, so that proxies keep it open. 0 sends none.
        "stream-keep-alive" => stream_keep_alive: Duration = Duration::from_secs(15),
        /// Origins that browsers may call from (`https://app.example`, or `*`). None: CORS is off.
        "cors-allowed-origins" => cors_allowed_origins: Vec<String> = Vec::new(),
        /// Headers in which a client may bring its own request id; the first one present is used.
        "request-id-headers" => request_id_headers: Vec<String> =
            ["x-request-id", "x-correlation-id", "x-trace-id", "request-id"].map(str::to_owned).to_vec(),
        /// On SIGTERM, how long streams in flight may go on before they are ended.
        "drain-timeout" => drain_timeout: Duration = Duration::from_secs(30),
    }
}
