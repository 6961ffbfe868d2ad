//! Logs on standard error: text for people, JSON for machines, one event a line.
//!
//! ```text
//! any thread ──try_send──▶ bounded queue (full: dropped and counted) ──▶ thread `logs` ──▶ standard error
//! ```
//! *Invariants:* at `info` nothing is logged per request; whoever logs never waits for who reads; standard output stays
//! free for what commands print. The level can be changed while the process runs ([`LogHandle`]). Like standard error
//! itself, the counts belong to the process.

use std::io::IsTerminal as _;
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::EncodeMetric as _;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use tracing::Event;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::Context;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::metrics;

/// Lines waiting to be written. Fewer are lost in bursts of `debug`, more hold memory (about 300 bytes each).
pub const QUEUE_LEN: usize = 8192;

/// How long the end of the process waits for the last lines. Longer would hang on a reader that is gone.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Text that is no level and no list of directives. The user's fault.
#[derive(Debug, thiserror::Error)]
#[error("not a log level: `{text}`")]
pub struct InvalidLevel {
    /// As given.
    pub text: String,
}

/// Reads a level or directives. openraft calls each message that was not answered an error, several times a second for a node that is away; what matters of it
/// our own lines say. It is heard where it is named.
pub fn parse_level(text: &str) -> Result<EnvFilter, InvalidLevel> {
    let invalid = || InvalidLevel { text: text.to_owned() };
    let filter = EnvFilter::builder().parse(text).map_err(|_cause| invalid())?;
    let quiet = "openraft=off".parse().map_err(|_cause| invalid())?;
    Ok(if text.contains("openraft") { filter } else { filter.add_directive(quiet) })
}

/// Logging of this process. Dropped, it waits for the lines that are on their way.
#[derive(Debug)]
pub struct LogHandle {
    level: reload::Handle<EnvFilter, tracing_subscriber::Registry>,
}

impl LogHandle {
    /// From now on, this level.
    pub fn set(&self, level: &str) -> Result<(), InvalidLevel> {
        // The subscriber lives as long as the process; were it gone there would be nothing to change.
        let _ = self.level.reload(parse_level(level)?);
        Ok(())
    }
}

impl Drop for LogHandle {
    fn drop(&mut self) {
        drain();
    }
}

fn drain() {
    let (done, wait) = mpsc::sync_channel(1);
    if QUEUE.get().is_some_and(|it| it.try_send(Item::Flush(done)).is_ok()) {
        let _ = wait.recv_timeout(FLUSH_MAX); // late: what is left is lost with the process
    }
}

/// Where lines of this process go, once logging has started.
static QUEUE: OnceLock<mpsc::SyncSender<Item>> = OnceLock::new();

/// Ends the process at once, but for the lines that say why.
pub fn abort() -> ! {
    drain();
    std::process::abort()
}

/// Starts logging for this process. A second call changes nothing and says so with `None`.
pub fn start(level: &str, is_json: bool) -> Result<Option<LogHandle>, InvalidLevel> {
    start_to(std::io::stderr(), level, is_json, std::io::stderr().is_terminal())
}

/// The same to anywhere, for tests.
pub fn start_to(
    out: impl Write + Send + 'static,
    level: &str,
    is_json: bool,
    is_coloured: bool,
) -> Result<Option<LogHandle>, InvalidLevel> {
    let (filter, handle) = reload::Layer::new(parse_level(level)?);
    let (queue, lines) = mpsc::sync_channel(QUEUE_LEN);
    let layers = tracing_subscriber::registry().with(filter).with(Counting);
    let writer = {
        let queue = queue.clone();
        move || Line(queue.clone())
    };
    let started = if is_json {
        layers.with(fmt::layer().json().flatten_event(true).with_writer(writer)).try_init()
    } else {
        layers.with(fmt::layer().with_ansi(is_coloured).with_writer(writer)).try_init()
    };
    let thread = std::thread::Builder::new().name("logs".to_owned());
    if started.is_err() || thread.spawn(move || write(out, &lines)).is_err() {
        return Ok(None); // without its thread every line is counted as dropped
    }
    let _ = QUEUE.set(queue); // logging starts once
    Ok(Some(LogHandle { level: handle }))
}

enum Item {
    Line(Vec<u8>),
    Flush(mpsc::SyncSender<()>),
}

fn write(mut out: impl Write, lines: &mpsc::Receiver<Item>) {
    while let Ok(item) = lines.recv() {
        match item {
            Item::Line(line) => {
                if out.write_all(&line).is_err() {
                    DROPPED.fetch_add(1, Relaxed);
                }
            }
            Item::Flush(done) => {
                let _ = out.flush(); // nobody is left to be told
                let _ = done.try_send(());
            }
        }
    }
}

/// Takes one line; the formatter hands it over whole.
struct Line(mpsc::SyncSender<Item>);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        if self.0.try_send(Item::Line(line.to_vec())).is_err() {
            DROPPED.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

// === Metrics ===

const LEVELS: [(tracing::Level, &str); 5] = [
    (tracing::Level::ERROR, "error"),
    (tracing::Level::WARN, "warn"),
    (tracing::Level::INFO, "info"),
    (tracing::Level::DEBUG, "debug"),
    (tracing::Level::TRACE, "trace"),
];

static LINES: [AtomicU64; LEVELS.len()] = [const { AtomicU64::new(0) }; LEVELS.len()];
static DROPPED: AtomicU64 = AtomicU64::new(0);

const LINES_NAME: (&str, &str, MetricType) =
    ("smg_log_lines", "Lines logged, by level. Any `error`: read it; it says what to do", MetricType::Counter);
const DROPPED_NAME: (&str, &str, MetricType) = (
    "smg_log_lines_dropped",
    "Lines lost because standard error was not read fast enough. Raise the log level, or look at who reads",
    MetricType::Counter,
);

/// Registers the counts.
pub fn register(registry: &mut metrics::Registry) {
    registry.register_collector(&[LINES_NAME, DROPPED_NAME], Counts);
}

struct Counting;

impl<S: Subscriber> Layer<S> for Counting {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if let Some(at) = LEVELS.iter().position(|it| it.0 == *event.metadata().level()) {
            LINES[at].fetch_add(1, Relaxed);
        }
    }
}

#[derive(Debug)]
struct Counts;

impl Collector for Counts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (name, help, kind) = LINES_NAME;
        let mut lines = encoder.encode_descriptor(name, help, None, kind)?;
        for ((_, level), count) in LEVELS.iter().zip(&LINES) {
            ConstCounter::new(count.load(Relaxed)).encode(lines.encode_family(&[("level", *level)])?)?;
        }
        let (name, help, kind) = DROPPED_NAME;
        ConstCounter::new(DROPPED.load(Relaxed)).encode(encoder.encode_descriptor(name, help, None, kind)?)
    }
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

    #[test]
    fn openraft_is_heard_where_it_is_named_and_nowhere_else() {
        let of = |text| parse_level(text).expect("a level").to_string();
        assert!(["info", "debug,smg::api=trace"].iter().all(|it| of(it).contains("openraft=off")));
        assert!(!of("info,openraft=debug").contains("off"));
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_the_writer_gets_whole_lines() {
        let (queue, lines) = mpsc::sync_channel(2);
        let before = DROPPED.load(Relaxed);
        for text in ["one\n", "two\n", "three\n"] {
            Line(queue.clone()).write_all(text.as_bytes()).expect("never fails");
        }
        drop(queue);
        assert_eq!(DROPPED.load(Relaxed) - before, 1);
        let mut out = Vec::new();
        write(&mut out, &lines);
        assert_eq!(out, b"one\ntwo\n");
    }
}
