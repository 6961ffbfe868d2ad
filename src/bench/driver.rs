//! The driver: threads, each with a runtime and its share of the connections. It holds no decision.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::core::plan::Arrival;
use super::core::plan::Plan;
use super::core::report::Report;
use super::core::request::Template;
use super::core::tally::Answered;
use super::core::tally::Failure;
use super::core::tally::Tally;
use super::core::trace;
use super::core::trace::Unreadable;
use super::exchange::Connection;
use super::options::Options;
use super::options::Unusable;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;

const CONNECTION: Task = Task { name: "bench-connection", stage: Stage::Serve, on_end: OnEnd::Fine };

/// A server that refuses connections is asked again after this.
const RECONNECT_PAUSE: Duration = Duration::from_millis(10);

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The caller's.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// The caller's.
    #[error("`--url`: expected http://host[:port][/path], got `{0}`")]
    Url(String),
    /// The trace is not there, or is no text.
    #[error("cannot read the trace `{path}`: {cause}")]
    Trace {
        /// As given.
        path: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The trace's.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The machine's: threads or descriptors are missing.
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
}

/// How far a run is, for whoever shows it.
#[derive(Clone, Default)]
pub struct Progress(Arc<Counters>);

#[derive(Default)]
struct Counters {
    ended: AtomicU64,
    failed: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Requests that have ended, and those of them that failed.
    #[must_use]
    pub fn ended(&self) -> (u64, u64) {
        (self.0.ended.load(Relaxed), self.0.failed.load(Relaxed))
    }

    /// Requests in all; 0 when that is not known.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.total.load(Relaxed)
    }
}

/// What all connections share.
struct Shared {
    options: Options,
    targets: Vec<(Target, Template)>,
    work: Work,
    start: Instant,
    progress: Progress,
    clock: Clock,
}

/// Sends the load that `options` describe and returns what came of it. Blocks until the last answer.
pub fn run(options: &Options, progress: &Progress) -> Result<Report, RunError> {
    options.check()?;
    let target = |url: &String| {
        let target = Target::parse(url).ok_or_else(|| RunError::Url(url.clone()))?;
        let template = Template::new(options, &target.authority, &target.base);
        Ok((target, template))
    };
    let targets: Vec<(Target, Template)> = options.url.iter().map(target).collect::<Result<_, RunError>>()?;
    let plan = plan(options)?;
    progress.0.total.store(plan.total().unwrap_or(0), Relaxed);
    let clock = Clock;
    let start = clock.now();
    let tally = std::thread::scope(|scope| -> io::Result<Tally> {
        let thread = |name: String| std::thread::Builder::new().name(name);
        let work = if options.rate > 0.0 || options.trace.is_some() {
            let (due, inbox) = mpsc::channel(options.connections);
            thread("bench-pacer".to_owned()).spawn_scoped(scope, move || pace(plan, &due, start, clock))?;
            Work::Due(tokio::sync::Mutex::new(inbox))
        } else {
            Work::Next(Mutex::new(plan))
        };
        let shared = Shared { options: options.clone(), targets, work, start, progress: progress.clone(), clock };
        let shared = Arc::new(shared);
        let threads = options.threads.min(options.connections);
        let mut running = Vec::with_capacity(threads);
        for n in 0..threads {
            // Thread n of t has every t-th connection.
            let connections = (options.connections - n).div_ceil(threads);
            let shared = Arc::clone(&shared);
            running.push(thread(format!("bench-{n}")).spawn_scoped(scope, move || send(&shared, n, connections))?);
        }
        drop(shared); // the pacer ends when the last thread is gone
        let mut all = Tally::default();
        for thread in running {
            all.add(&thread.join().map_err(|_panic| io::Error::other("a sending thread panicked"))??);
        }
        Ok(all)
    })?;
    Ok(Report { tally, elapsed: clock.now() - start })
}

fn plan(options: &Options) -> Result<Plan, RunError> {
    let Some(path) = &options.trace else { return Ok(Plan::synthetic(options)) };
    let text = std::fs::read_to_string(path).map_err(|cause| RunError::Trace { path: path.clone(), cause })?;
    Ok(Plan::trace(trace::read(&text, options)?, options))
}

/// One thread: a runtime and a task for each of its connections.
fn send(shared: &Arc<Shared>, thread: usize, connections: usize) -> io::Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tally = Arc::new(Mutex::new(Tally::default()));
    runtime.block_on(async {
        let tasks = Tasks::new();
        for n in 0..connections {
            let (shared, tally) = (Arc::clone(shared), Arc::clone(&tally));
            let target = (thread + n) % shared.targets.len();
            tasks.spawn(CONNECTION, |_stop| async move { connection_loop(&shared, target, &tally).await });
        }
        // They end by themselves: the plan ends, and each answer has a deadline.
        tasks.finished(Stage::Serve).await;
    });
    let tally = tally.lock().clone();
    Ok(tally)
}

/// Where a connection gets its next request from.
enum Work {
    /// A closed loop: the plan itself.
    Next(Mutex<Plan>),
    /// Arrivals that are due.
    Due(tokio::sync::Mutex<mpsc::Receiver<Arrival>>),
}

impl Work {
    async fn next(&self, shared: &Shared) -> Option<Arrival> {
        match self {
            Self::Next(plan) => plan.lock().next(shared.clock.now() - shared.start),
            Self::Due(inbox) => inbox.lock().await.recv().await,
        }
    }
}

/// Hands out arrivals when they are due, on a thread of its own: tokio's timers round up to a millisecond, which would
/// count as the server's. When all connections are busy and as many arrivals wait, it waits too; their due times stay.
fn pace(mut plan: Plan, due: &mpsc::Sender<Arrival>, start: Instant, clock: Clock) {
    while let Some(arrival) = plan.next(clock.now() - start) {
        let at = start + arrival.due.unwrap_or_default();
        std::thread::sleep(at.saturating_duration_since(clock.now()));
        if due.blocking_send(arrival).is_err() {
            return; // all connections have ended
        }
    }
}

async fn connection_loop(shared: &Shared, target: usize, tally: &Mutex<Tally>) {
    let (target, template) = &shared.targets[target];
    let (mut connection, mut request) = (Connection::new(target.address.clone()), Vec::new());
    while let Some(arrival) = shared.work.next(shared).await {
        template.write(&arrival, &mut request);
        let sent = shared.clock.now();
        let due = arrival.due.map_or(sent, |due| shared.start + due);
        let exchange = connection.exchange(&request, due, shared.options.stream, tally);
        let outcome = tokio::time::timeout(shared.options.timeout, exchange).await;
        let outcome = outcome.unwrap_or(Err(Failure::Timeout));
        count(shared, tally, arrival.due.map(|_| sent - due), outcome);
        if outcome == Err(Failure::Connect) {
            shared.clock.sleep(RECONNECT_PAUSE).await;
        }
    }
}

fn count(shared: &Shared, tally: &Mutex<Tally>, late: Option<Duration>, outcome: Result<Answered, Failure>) {
    let mut tally = tally.lock();
    if let Some(late) = late {
        tally.late.record(late);
    }
    match outcome {
        Ok(answered) => tally.answered(&answered),
        Err(failure) => tally.failed(failure),
    }
    shared.progress.0.failed.fetch_add(u64::from(outcome.is_err()), Relaxed);
    shared.progress.0.ended.fetch_add(1, Relaxed);
}

/// Where requests go.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    /// What is connected to.
    address: String,
    /// The `Host` header.
    authority: String,
    /// What stands before the API's own paths; without `/v1`, which these have.
    base: String,
}

impl Target {
    fn parse(url: &str) -> Option<Self> {
        let uri: http::Uri = url.parse().ok()?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"))?;
        let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
        let base = uri.path().trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base).to_owned();
        Some(Self { address, authority: authority.to_string(), base })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_with_and_without_the_version_of_the_api() {
        let target = |address: &str, authority: &str, base: &str| {
            Some(Target { address: address.into(), authority: authority.into(), base: base.into() })
        };
        assert_eq!(Target::parse("http://gpu1:8000/v1/"), target("gpu1:8000", "gpu1:8000", ""));
        assert_eq!(Target::parse("http://gpu1/proxy"), target("gpu1:80", "gpu1", "/proxy"));
        assert_eq!(Target::parse("http://[::1]:8000"), target("[::1]:8000", "[::1]:8000", ""));
        assert_eq!((Target::parse("https://gpu1"), Target::parse("gpu1:8000")), (None, None));
    }
}
