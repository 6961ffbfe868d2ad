//! Options of limits.

use std::time::Duration;

use super::OnIsolation;
use super::Settings;

crate::config! {
    /// Limits that hold for the whole cluster.
    pub struct Config in "limits" {
        /// How long a node uses its shares of limits after it last reached the control group. Longer than a loss of the group's majority that must not refuse
        /// requests; the share of a node that is lost is nobody's for as long. The same on every node.
        "limit-share-hold" => limit_share_hold: Duration = Settings::default().hold,
        /// What a node does with a request whose limit it holds no share of, because none was given out yet or `--limit-share-hold` has passed: refuse it, or
        /// let it through uncounted.
        "limit-on-isolation" => limit_on_isolation: OnIsolation = OnIsolation::default(),
    }
}

crate::named_values!(OnIsolation, "deny or open", OnIsolation::Deny = "deny", OnIsolation::Open = "open");

impl Config {
    /// As the limiter takes them.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings { hold: self.limit_share_hold, on_isolation: self.limit_on_isolation, ..Settings::default() }
    }
}
