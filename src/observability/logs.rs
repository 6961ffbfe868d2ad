//! Logs on standard error: text for people, JSON for machines, one event a line.
//!
//! *Invariants:* at `info` nothing is logged per request; standard output stays free for what commands print. The level
//! can be changed while the process runs ([`LevelHandle`]).

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::Registry;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Text that is no level and no list of directives. The user's fault.
#[derive(Debug, thiserror::Error)]
#[error("not a log level: `{text}`")]
pub struct InvalidLevel {
    /// As given.
    pub text: String,
}

/// Reads a level or directives.
pub fn parse_level(text: &str) -> Result<EnvFilter, InvalidLevel> {
    EnvFilter::builder().parse(text).map_err(|_cause| InvalidLevel { text: text.to_owned() })
}

/// Changes what is logged while the process runs.
#[derive(Clone, Debug)]
pub struct LevelHandle(reload::Handle<EnvFilter, Registry>);

impl LevelHandle {
    /// From now on, this level.
    pub fn set(&self, level: &str) -> Result<(), InvalidLevel> {
        // The subscriber lives as long as the process; were it gone there would be nothing to change.
        let _ = self.0.reload(parse_level(level)?);
        Ok(())
    }
}

/// Starts logging for this process. A second call changes nothing and says so with `None`.
pub fn start(level: &str, is_json: bool) -> Result<Option<LevelHandle>, InvalidLevel> {
    let (filter, handle) = reload::Layer::new(parse_level(level)?);
    let layers = tracing_subscriber::registry().with(filter);
    let stderr = std::io::stderr;
    let started = if is_json {
        layers.with(fmt::layer().json().flatten_event(true).with_writer(stderr)).try_init()
    } else {
        layers.with(fmt::layer().with_ansi(stderr().is_terminal()).with_writer(stderr)).try_init()
    };
    Ok(started.is_ok().then(|| LevelHandle(handle)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_read_and_nonsense_is_refused() {
        for text in ["info", "debug", "info,smg::workers=debug", "off"] {
            assert!(parse_level(text).is_ok(), "{text}");
        }
        assert!(parse_level("loud==").is_err());
    }
}
