//! Writes a history down while it happens. One for all clients and for whoever hurts the cluster, so that there is one order.

use std::cell::Cell;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use std::time::UNIX_EPOCH;

use serde_json::Value;
use tokio::time::Instant;

use super::history::Event;
use super::history::Kind;
use super::history::Process;

/// Clones are the same one. Its clock starts with it. BOUND: as long as its clients run; about 150 bytes an event.
#[derive(Clone)]
pub struct Recorder(Rc<Inner>);

struct Inner {
    begun: Instant,
    /// Milliseconds since 1970 then.
    wall_ms: u64,
    events: RefCell<Vec<Event>>,
    processes: Cell<u32>,
}

/// An operation that began. One that is dropped without an end is as one of which nobody knows.
#[derive(Clone, Debug)]
pub struct Pending(Event);

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// An empty history, which begins now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "windows of limits are aligned to wall time, and this crate has no clock of smg"
    )]
    pub fn new() -> Self {
        let wall = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (events, processes) = Default::default();
        Self(Rc::new(Inner { begun: Instant::now(), wall_ms: wall.as_millis() as u64, events, processes }))
    }

    /// Since the history began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.begun.elapsed()
    }

    /// Milliseconds since 1970 when the history began.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        self.0.wall_ms
    }

    /// A number that no client had yet.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.0.processes.replace(self.0.processes.get() + 1)
    }

    /// An operation begins, before anything of it is sent.
    #[must_use]
    pub fn invoke(
        &self,
        process: u32,
        workload: &str,
        f: &str,
        key: &str,
        value: Value,
        node: Option<usize>,
    ) -> Pending {
        let event = Event {
            time: self.now(),
            process: Process::Client(process),
            kind: Kind::Invoke,
            workload: workload.to_owned(),
            f: f.to_owned(),
            key: key.to_owned(),
            value,
            node,
            error: None,
        };
        self.0.events.borrow_mut().push(event.clone());
        Pending(event)
    }

    /// It took effect, and this was answered.
    pub fn ok(&self, pending: Pending, value: Value) {
        self.end(Event { value, ..pending.0 }, Kind::Ok, None);
    }

    /// It did not take effect and never will.
    pub fn fail(&self, pending: Pending, why: &str) {
        self.end(pending.0, Kind::Fail, Some(why));
    }

    /// Nobody knows. The process must not be used again.
    pub fn info(&self, pending: Pending, why: &str) {
        self.end(pending.0, Kind::Info, Some(why));
    }

    /// Nobody knows, but this was answered.
    pub fn info_told(&self, pending: Pending, value: Value, why: &str) {
        self.end(Event { value, ..pending.0 }, Kind::Info, Some(why));
    }

    /// What was done to the cluster.
    pub fn note(&self, f: &str, key: &str, value: Value) {
        let event = Event {
            time: self.now(),
            process: Process::Nemesis,
            kind: Kind::Info,
            workload: super::history::NEMESIS.to_owned(),
            f: f.to_owned(),
            key: key.to_owned(),
            value,
            node: None,
            error: None,
        };
        self.0.events.borrow_mut().push(event);
    }

    /// The history so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.0.events.borrow().clone()
    }

    fn end(&self, event: Event, kind: Kind, error: Option<&str>) {
        let event = Event { time: self.now(), kind, error: error.map(ToOwned::to_owned), ..event };
        self.0.events.borrow_mut().push(event);
    }

    fn now(&self) -> u64 {
        self.elapsed().as_nanos() as u64
    }
}
