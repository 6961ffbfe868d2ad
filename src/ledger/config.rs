//! Options of the ledgers.

use std::time::Duration;

crate::config! {
    /// What is asked of other nodes before a worker is chosen.
    pub struct Config in "ledger" {
        /// How long a decision waits for other nodes to say how busy the candidates are. Those that say nothing in time are judged by this node's own
        /// requests and what was gossiped. Longer than the slowest round trip in the cluster, shorter than a client feels.
        "ledger-timeout" => timeout: Duration = Duration::from_millis(5),
    }
}
