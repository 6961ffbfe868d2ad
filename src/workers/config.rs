//! Options of the fleet.

use std::time::Duration;

use super::address::Cidr;
use crate::base::secret::Secret;

crate::config! {
    /// Which workers there are and how they are watched.
    pub struct Config in "workers" {
        /// Workers to route to, e.g. `http://gpu1:8000 http://gpu2:8000`.
        "worker-urls" => urls: Vec<String> = Vec::new(),
        /// Key sent to the workers named by `--worker-urls` as bearer token. Clients' keys are never sent on.
        "worker-api-key" => api_key: Option<Secret> = None,
        /// Longest wait for a connection to a worker.
        "connect-timeout" => connect_timeout: Duration = Duration::from_secs(5),
        /// Idle connections to workers are closed after this.
        "pool-idle-timeout" => pool_idle_timeout: Duration = Duration::from_secs(30),
        /// Certificates (PEM) of private authorities that sign the certificates of `https://` workers.
        "worker-ca-path" => ca_path: Option<String> = None,
        /// Certificate chain (PEM) shown to `https://` workers that ask for one; needs `--worker-client-key-path`.
        "worker-client-cert-path" => client_cert_path: Option<String> = None,
        /// Private key (PEM) of `--worker-client-cert-path`.
        "worker-client-key-path" => client_key_path: Option<String> = None,
        /// Networks workers must be in, e.g. `10.0.0.0/8`; none: anywhere but link-local and metadata addresses.
        "worker-allow-cidrs" => allow_cidrs: Vec<Cidr> = Vec::new(),
        /// Time between two probes of a worker; one that is away is probed four times as often.
        "health-check-interval-secs" => probe_interval: Duration = Duration::from_secs(5),
        /// Longest wait for a probe's answer.
        "health-check-timeout-secs" => probe_timeout: Duration = Duration::from_secs(3),
        /// Probes in a row that must fail before a worker is out.
        "health-failure-threshold" => failure_threshold: u32 = 3,
        /// Probes in a row that must succeed before it is back.
        "health-success-threshold" => success_threshold: u32 = 1,
        /// A worker that a flag names lives on without the node that was given the flag, until no node has reached it for this long.
        "worker-away-max" => away_max: Duration = Duration::from_secs(600),
        /// Failed requests within the window that open a worker's breaker, if half of its requests of late failed.
        "cb-failure-threshold" => breaker_failures: u32 = 10,
        /// The breaker's window.
        "cb-window-duration-secs" => breaker_window: Duration = Duration::from_secs(60),
        /// How long the breaker stays open.
        "cb-timeout-duration-secs" => breaker_open: Duration = Duration::from_secs(10),
    }
}
