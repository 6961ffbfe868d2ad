//! Reads: a few connections, each with one reading at a time on a thread that waits for it.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::known::Known;
use super::server::Found;
use super::server::Lost;
use super::server::Purpose;
use super::server::Server;
use super::server::Session;
use super::server::Want;
use super::writer::Whole;
use super::writer::connect;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::history::backend::Reading;
use crate::history::backend::Unavailable;
use crate::raft::Rows;

/// Connections for reads. More of them are more that the server has to keep; fewer, and long reads hold up short ones.
const CONNECTIONS_MAX: usize = 8;
/// Reads that wait for one. More are refused at once.
const WAITING_MAX: usize = 4096;

/// What is remembered of one read, at most: a few of the largest responses.
const REMEMBERED_BYTES_MAX: usize = 512 << 20;

/// See the file's header.
pub(super) struct Readers {
    inner: Arc<Inner>,
}

struct Inner {
    server: Arc<dyn Server>,
    /// BOUND: one for each permit.
    idle: Mutex<Vec<Box<dyn Session>>>,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Counts one that waits, for as long as it lives.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Readers {
    pub(super) fn new(server: Arc<dyn Server>) -> Self {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { inner: Arc::new(Inner { server, idle: Mutex::default(), permits, waiting: AtomicUsize::new(0) }) }
    }

    pub(super) async fn read(&self, reading: Reading, limit: Duration) -> Result<(), Unavailable> {
        let until = Clock.now() + limit;
        match tokio::time::timeout_at(until, self.read_until(reading, until)).await {
            Ok(done) => done,
            Err(_) => Err(Unavailable::Unreached),
        }
    }

    async fn read_until(&self, reading: Reading, until: Instant) -> Result<(), Unavailable> {
        let inner = Arc::clone(&self.inner);
        let is_too_many = inner.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX;
        let waits = Waits(&self.inner.waiting);
        if is_too_many {
            return Err(Unavailable::Busy);
        }
        let permit = Arc::clone(&inner.permits).acquire_owned().await.map_err(|_closed| Unavailable::Unreached)?;
        drop(waits);
        let runtime = Handle::current();
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            inner.read(&*reading, &runtime, until)
        });
        match done.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Lost::Newer { .. })) => Err(Unavailable::Damaged),
            Ok(Err(_)) | Err(_) => Err(Unavailable::Unreached),
        }
    }
}

impl Inner {
    /// On a connection that was idle, which the server may have closed meanwhile; then on a new one.
    fn read(&self, reading: &dyn Fn(&dyn Rows), runtime: &Handle, until: Instant) -> Result<(), Lost> {
        while let Some(session) = self.idle() {
            match self.read_on(session, reading, runtime, until) {
                Ok(()) => return Ok(()),
                Err(lost @ Lost::TooMuch(_)) => return Err(lost),
                Err(lost) => tracing::debug!(error = %Whole(&lost), "a connection to history's server was lost"),
            }
        }
        let connected = runtime.block_on(tokio::time::timeout_at(until, connect(&*self.server)));
        let session = connected.map_err(|_late| Lost::Late).flatten();
        let done = session.and_then(|it| self.read_on(it, reading, runtime, until));
        if let Err(lost) = &done {
            tracing::warn!(error = %Whole(lost), server = self.server.name(), "history's server was not read");
        }
        done
    }

    fn idle(&self) -> Option<Box<dyn Session>> {
        self.idle.lock().pop()
    }

    fn read_on(
        &self,
        mut session: Box<dyn Session>,
        reading: &dyn Fn(&dyn Rows),
        runtime: &Handle,
        until: Instant,
    ) -> Result<(), Lost> {
        let mut known = Known::default();
        let mut is_read = false;
        loop {
            session.begin(Purpose::Read);
            // What was not of one moment is fetched again, in one go; if it is the same, it was.
            let asked = known.asked();
            if !asked.is_empty() {
                let found = within(runtime, until, session.fetch(&asked))?;
                is_read &= known.is_same(&asked, &found);
                known.learn(asked, found);
            }
            if !is_read {
                let live = Live {
                    state: RefCell::new(State { session: &mut *session, known, lost: None, bytes: 0 }),
                    runtime,
                    until,
                };
                reading(&live);
                let state = live.state.into_inner();
                if let Some(lost) = state.lost {
                    return Err(lost);
                }
                (known, is_read) = (state.known, true);
            }
            if within(runtime, until, session.end())? {
                self.idle.lock().push(session);
                return Ok(());
            }
        }
    }
}

fn within<T>(runtime: &Handle, until: Instant, doing: impl Future<Output = Result<T, Lost>>) -> Result<T, Lost> {
    runtime.block_on(tokio::time::timeout_at(until, doing)).map_err(|_late| Lost::Late).flatten()
}

/// Rows that are fetched when they are asked for. Once the connection is lost there are none, and what is made of that is thrown away.
struct Live<'a> {
    state: RefCell<State<'a>>,
    runtime: &'a Handle,
    until: Instant,
}

struct State<'a> {
    session: &'a mut dyn Session,
    known: Known,
    lost: Option<Lost>,
    /// Of what is known.
    bytes: usize,
}

impl Live<'_> {
    fn ask(&self, want: Want) -> Found {
        let State { session, known, lost, bytes } = &mut *self.state.borrow_mut();
        if let Some(found) = known.find(&want) {
            return found.clone();
        }
        if lost.is_some() {
            return Vec::new();
        }
        let wants = vec![want];
        match within(self.runtime, self.until, session.fetch(&wants)) {
            Ok(mut found) if session.has_moments() => found.pop().unwrap_or_default(),
            Ok(found) => {
                let first = found.first().cloned().unwrap_or_default();
                *bytes += first.iter().map(|it| it.0.len() + it.1.len()).sum::<usize>();
                if *bytes > REMEMBERED_BYTES_MAX {
                    *lost = Some(Lost::TooMuch(REMEMBERED_BYTES_MAX));
                }
                known.learn(wants, found);
                first
            }
            Err(error) => {
                *lost = Some(error);
                Vec::new()
            }
        }
    }
}

impl Rows for Live<'_> {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.ask(Want::Row(key.to_vec())).pop().map(|it| it.1)
    }

    fn scan(&self, from: &[u8], to: &[u8], most: usize, is_back: bool) -> Found {
        if from >= to {
            return Vec::new();
        }
        self.ask(Want::Rows { from: from.to_vec(), to: to.to_vec(), most, is_back })
    }
}
