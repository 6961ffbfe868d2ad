//! The one task that decides: takes what waits as one batch, and one batch as one transaction.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use super::CONNECT_LIMIT;
use super::known::After;
use super::known::Known;
use super::metrics::Metrics;
use super::server::Lost;
use super::server::Purpose;
use super::server::Server;
use super::server::Session;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Stop;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::history::backend::Unavailable;
use crate::history::machine::Entry;
use crate::history::machine::Outcome;
use crate::history::machine::Refusal;
use crate::history::machine::read;
use crate::history::machine::steps;
use crate::raft::Coded as _;
use crate::raft::RowChange;

const TASK: Task = Task { name: "history_writer", stage: Stage::Agree, on_end: OnEnd::StopNode };

/// Commands that wait. More are refused at once: they would wait for longer than anybody does.
const QUEUE_LEN_MAX: usize = 4096;
/// Bytes of all that waits.
const QUEUE_BYTES_MAX: usize = 256 << 20;
/// Commands of one transaction. More share its commit; fewer wait for each other for less.
const BATCH_LEN_MAX: usize = 256;
/// From so many bytes on a batch takes no more.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// A machine that misses something for so long would never end.
const ROUNDS_MAX: usize = 4096;
/// Before the first try after a failure, and the longest before any. Each takes up to as long again, so that gateways do not come all at once.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Hands commands in.
pub(super) struct Writer {
    queue: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
}

/// A command, and who waits for it.
struct Waiting {
    entry: Vec<u8>,
    until: Instant,
    answer: oneshot::Sender<Result<Outcome, Unavailable>>,
    /// Whether the server may have committed it.
    was_sent: bool,
    _room: OwnedSemaphorePermit,
}

impl Writer {
    pub(super) fn start(driver: Driver, tasks: &Tasks) -> Self {
        // BOUND: those that find it full are refused.
        let (queue, waiting) = mpsc::channel(QUEUE_LEN_MAX);
        tasks.spawn(TASK, |stop| driver.run(waiting, stop));
        Self { queue, room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)) }
    }

    pub(super) async fn propose(&self, entry: Vec<u8>, limit: Duration) -> Result<Outcome, Unavailable> {
        let until = Clock.now() + limit;
        let bytes = u32::try_from(entry.len()).map_err(|_too_long| Unavailable::Busy)?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(bytes).map_err(|_full| Unavailable::Busy)?;
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { entry, until, answer, was_sent: false, _room: room };
        self.queue.try_send(waiting).map_err(|full| match full {
            mpsc::error::TrySendError::Full(_) => Unavailable::Busy,
            mpsc::error::TrySendError::Closed(_) => Unavailable::Unreached,
        })?;
        match tokio::time::timeout_at(until, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(Unavailable::Unreached),
        }
    }
}

/// What decides.
pub(super) struct Driver {
    server: Arc<dyn Server>,
    commands: Arc<AtomicU64>,
    metrics: Metrics,
    entropy: Entropy,
    session: Option<Box<dyn Session>>,
}

/// How a try ended that ended.
enum Tried {
    Done(Vec<Outcome>),
    /// Another gateway decided meanwhile.
    Overtaken,
    /// A row or a command that cannot be read.
    Damaged,
}

impl Driver {
    /// `commands`: where the number of all that were carried out is told.
    pub(super) fn new(server: Arc<dyn Server>, commands: Arc<AtomicU64>, metrics: Metrics, entropy: Entropy) -> Self {
        Self { server, commands, metrics, entropy, session: None }
    }

    async fn run(mut self, mut waiting: mpsc::Receiver<Waiting>, stop: Stop) {
        loop {
            let first = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                first = waiting.recv() => match first {
                    Some(first) => first,
                    // Nobody can ask any more; a task that ends before its stage would stop the node.
                    None => return stop.cancelled().await,
                },
            };
            let mut bytes = first.entry.len();
            let mut batch = vec![first];
            while batch.len() < BATCH_LEN_MAX && bytes < BATCH_BYTES_MAX {
                let Ok(next) = waiting.try_recv() else { break };
                bytes += next.entry.len();
                batch.push(next);
            }
            tokio::select! {
                biased;
                () = self.carry_out(batch) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Tries until it is done or nobody waits.
    async fn carry_out(&mut self, mut batch: Vec<Waiting>) {
        let (mut pause, begun) = (PAUSE_FIRST, Clock.now());
        loop {
            batch.retain(|it| !it.answer.is_closed() && Clock.now() < it.until);
            let Some(until) = batch.iter().map(|it| it.until).max() else { return };
            let tried = match tokio::time::timeout_at(until, self.attempt(&mut batch)).await {
                Ok(tried) => tried,
                Err(_) => Err(Lost::Late),
            };
            match tried {
                Ok(Tried::Done(outcomes)) => {
                    self.metrics.committed(batch.len(), Clock.now() - begun);
                    // Who asked may have gone.
                    batch.into_iter().zip(outcomes).for_each(|(it, outcome)| drop(it.answer.send(Ok(outcome))));
                    return;
                }
                Ok(Tried::Overtaken) => {}
                Ok(Tried::Damaged) if batch.len() > 1 => {
                    self.session = None;
                    // The others are not to suffer for the one.
                    for waiting in batch {
                        Box::pin(self.carry_out(vec![waiting])).await;
                    }
                    return;
                }
                Ok(Tried::Damaged) => {
                    self.session = None;
                    tracing::error!("a row or a command of history cannot be read; see docs/operating/backends.md");
                    batch.into_iter().for_each(|it| drop(it.answer.send(Err(Unavailable::Damaged))));
                    return;
                }
                Err(lost) => {
                    self.session = None;
                    tracing::warn!(error = %Whole(&lost), server = self.server.name(), "history's server did not carry out what was asked; it is asked again");
                    if let Some(why) = refuses(&lost) {
                        batch.into_iter().for_each(|it| drop(it.answer.send(Err(why))));
                        return;
                    }
                }
            }
            self.metrics.retried();
            Clock.sleep(pause.mul_f64(0.5 + self.entropy.unit())).await;
            pause = if self.session.is_some() { PAUSE_FIRST } else { PAUSE_MAX.min(pause * 2) };
        }
    }

    async fn attempt(&mut self, batch: &mut [Waiting]) -> Result<Tried, Lost> {
        let session = match &mut self.session {
            Some(session) => session,
            None => self.session.insert(connect(&*self.server).await?),
        };
        session.begin(Purpose::Decide);
        let mut known = Known::default();
        let Some((mut outcomes, mut changes)) = decide(&mut **session, &mut known, batch).await? else {
            return Ok(Tried::Damaged);
        };
        if restamp(&known, batch, &outcomes) {
            let Some(again) = decide(&mut **session, &mut known, batch).await? else { return Ok(Tried::Damaged) };
            (outcomes, changes) = again;
        }
        batch.iter_mut().for_each(|it| it.was_sent = true);
        if !session.commit(&changes).await? {
            return Ok(Tried::Overtaken);
        }
        if let Ok(commands) = read::commands(&After(&known, &changes)) {
            self.commands.fetch_max(commands, Ordering::Relaxed);
        }
        Ok(Tried::Done(outcomes))
    }
}

/// Runs the machine until it misses nothing. None: it cannot read something.
async fn decide(
    session: &mut dyn Session,
    known: &mut Known,
    batch: &[Waiting],
) -> Result<Option<(Vec<Outcome>, Vec<RowChange>)>, Lost> {
    let entries: Vec<Vec<u8>> = batch.iter().map(|it| it.entry.clone()).collect();
    for _ in 0..ROUNDS_MAX {
        let decided = steps(&*known, &entries);
        let wants = known.take_missed();
        if wants.is_empty() {
            return Ok(decided.ok());
        }
        let found = session.fetch(&wants).await?;
        if found.len() != wants.len() {
            return Err(Lost::Strange);
        }
        known.learn(wants, found);
    }
    Ok(None)
}

/// A command that this gateway made when it knew less than there was, and that was never sent, cannot have been carried out: it is made now, and not too old. Whether there was any.
fn restamp(known: &Known, batch: &mut [Waiting], outcomes: &[Outcome]) -> bool {
    let Ok(seen) = read::commands(known) else { return false };
    let mut is_any = false;
    for (waiting, outcome) in batch.iter_mut().zip(outcomes) {
        if *outcome != Outcome::Refused(Refusal::TooOld) || waiting.was_sent {
            continue;
        }
        if let Ok(Ok(entry)) = Entry::decode(&waiting.entry).map(|it| Entry { seen, ..it }.encode()) {
            (waiting.entry, is_any) = (entry, true);
        }
    }
    is_any
}

/// What is answered at once: to try again would not help before somebody has seen to it.
fn refuses(lost: &Lost) -> Option<Unavailable> {
    match lost {
        Lost::NoRoom => Some(Unavailable::NoRoom),
        Lost::Newer { .. } => Some(Unavailable::Damaged),
        Lost::Late | Lost::Strange | Lost::TooMuch(_) | Lost::Io(_) | Lost::Postgres(_) | Lost::Redis(_) => None,
        #[cfg(feature = "oracle")]
        Lost::Oracle(_) => None,
    }
}

/// Connects, within its limit.
pub(super) async fn connect(server: &dyn Server) -> Result<Box<dyn Session>, Lost> {
    match tokio::time::timeout(CONNECT_LIMIT, server.connect()).await {
        Ok(connected) => connected,
        Err(_) => Err(Lost::Late),
    }
}

/// An error with all its causes: a driver's own sentence often names none.
pub(super) struct Whole<'a>(pub(super) &'a dyn std::error::Error);

impl std::fmt::Display for Whole<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(it) = cause {
            write!(f, ": {it}")?;
            cause = it.source();
        }
        Ok(())
    }
}
