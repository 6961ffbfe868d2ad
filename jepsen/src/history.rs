//! What clients asked and what they were told, in order, as Jepsen writes it down.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::BufWriter;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

/// The workload of what was done to the cluster.
pub const NEMESIS: &str = "nemesis";

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

/// An operation from its beginning to its end.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Who.
    pub process: u32,
    /// Which workload it belongs to.
    pub workload: String,
    /// What was done.
    pub f: String,
    /// On what.
    pub key: String,
    /// The node that was asked.
    pub node: Option<usize>,
    /// When it began, in nanoseconds.
    pub began: u64,
    /// When its end was told. `None`: never.
    pub ended: Option<u64>,
    /// How it ended. One that never did is [`Kind::Info`].
    pub kind: Kind,
    /// With what it was asked.
    pub asked: Value,
    /// What was answered, if it is [`Kind::Ok`], or if something was told nevertheless.
    pub told: Value,
    /// Why it failed.
    pub error: String,
}

impl Operation {
    /// Whether it took effect before the other began.
    #[must_use]
    pub fn is_before(&self, other: &Self) -> bool {
        self.is_ok() && self.ended.is_some_and(|it| it < other.began)
    }

    /// Whether it is known to have taken effect.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.kind == Kind::Ok
    }

    /// Whether it may have taken effect.
    #[must_use]
    pub fn may_be(&self) -> bool {
        self.kind != Kind::Fail
    }

    /// When it is over for certain: what nobody knows is never.
    #[must_use]
    pub fn over(&self) -> u64 {
        if self.kind == Kind::Info { u64::MAX } else { self.ended.unwrap_or(u64::MAX) }
    }

    /// Whether what it did can be in what is seen by then.
    #[must_use]
    pub fn may_be_by(&self, time: u64) -> bool {
        self.may_be() && self.began < time
    }
}

/// The operations of clients, in the order in which they began.
#[must_use]
pub fn operations(events: &[Event]) -> Vec<Operation> {
    let (mut all, mut open): (Vec<Operation>, BTreeMap<u32, usize>) = Default::default();
    for event in events {
        let Process::Client(process) = event.process else { continue };
        if event.kind == Kind::Invoke {
            open.insert(process, all.len());
            all.push(Operation {
                process,
                workload: event.workload.clone(),
                f: event.f.clone(),
                key: event.key.clone(),
                node: event.node,
                began: event.time,
                ended: None,
                kind: Kind::Info,
                asked: event.value.clone(),
                told: Value::Null,
                error: String::new(),
            });
        } else if let Some(at) = open.remove(&process) {
            let it = &mut all[at];
            it.ended = Some(event.time);
            it.kind = event.kind;
            it.error = event.error.clone().unwrap_or_default();
            if event.kind == Kind::Ok || event.value != it.asked {
                it.told = event.value.clone();
            }
        }
    }
    all
}

/// Writes a history, an event a line.
///
/// # Errors
/// Those of the file.
pub fn write(path: &Path, events: &[Event]) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for event in events {
        serde_json::to_writer(&mut file, event)?;
        file.write_all(b"\n")?;
    }
    file.flush()
}

/// Reads what [`write`] wrote.
///
/// # Errors
/// Those of the file, or a line that is no event.
pub fn read(path: &Path) -> io::Result<Vec<Event>> {
    let mut events = Vec::new();
    for (number, line) in (1..).zip(BufReader::new(File::open(path)?).lines()) {
        let event =
            serde_json::from_str(&line?).map_err(|error| io::Error::other(format!("line {number}: {error}")))?;
        events.push(event);
    }
    Ok(events)
}
