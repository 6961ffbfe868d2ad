//! What clients asked and what they were told, in order, as Jepsen writes it down.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It began.
    Invoke,
    /// It took effect, between its beginning and now.
    Ok,
    /// It did not take effect and never will.
    Fail,
    /// Nobody knows: it may have taken effect since it began, may yet, or never. The process is not used again.
    Info,
}

/// Who did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Process {
    /// A client, one operation at a time. After an [`Kind::Info`] its number is never used again.
    Client(u32),
    /// Whoever hurts the cluster; its operations are notes.
    Nemesis,
}

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Since the history began, in nanoseconds of a monotonic clock.
    pub time: u64,
    /// Who.
    pub process: Process,
    /// Beginning or end.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Which workload it belongs to; a checker reads its own.
    pub workload: String,
    /// What was done: `append`, `read`, `add`, ...
    pub f: String,
    /// On what: a conversation, a worker, a limit.
    pub key: String,
    /// With what, or what was answered.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub value: Value,
    /// The node that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<usize>,
    /// Why it failed, or why nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Event {
    /// When it was.
    #[must_use]
    pub fn at(&self) -> Duration {
        Duration::from_nanos(self.time)
    }
}
