//! A server in memory that fails on demand, so that what the driver does about it is tried without one.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use super::server::Found;
use super::server::Lost;
use super::server::Purpose;
use super::server::Server;
use super::server::Session;
use super::server::Want;
use crate::history::backend::Doing;
use crate::raft::RowChange;
use crate::raft::Rows as _;

/// One way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fail {
    /// It cannot be connected to.
    Connect,
    /// The connection is lost while rows are fetched.
    Fetch,
    /// It is lost before the commit counts.
    BeforeCommit,
    /// It is lost when the commit has counted.
    AfterCommit,
    /// Another was first.
    Overtaken,
    /// What was read is not of one moment.
    Moments,
    /// Its disk is full.
    NoRoom,
    /// It never answers.
    Hang,
}

/// See the file's header. Clones are the same one.
#[derive(Clone, Default)]
pub(super) struct Fake(Arc<Inner>);

#[derive(Default)]
struct Inner {
    rows: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    /// Whoever decides has it.
    lock: Arc<tokio::sync::Mutex<()>>,
    fails: Mutex<Vec<Fail>>,
    counts: Mutex<Counts>,
}

/// What was asked of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) connects: usize,
    pub(super) fetches: usize,
    pub(super) commits: usize,
}

impl Fake {
    /// The next times that it can.
    pub(super) fn fail(&self, fails: &[Fail]) {
        self.0.fails.lock().extend(fails);
    }

    pub(super) fn counts(&self) -> Counts {
        *self.0.counts.lock()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut BTreeMap<Vec<u8>, Vec<u8>>)) {
        change(&mut self.0.rows.lock());
    }

    fn fails(&self, fail: Fail) -> bool {
        let mut fails = self.0.fails.lock();
        let at = fails.iter().position(|it| *it == fail);
        at.map(|it| fails.remove(it)).is_some()
    }
}

impl Server for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn connect(&self) -> Doing<'_, Result<Box<dyn Session>, Lost>> {
        self.0.counts.lock().connects += 1;
        let is_lost = self.fails(Fail::Connect);
        let session = Connection { fake: self.clone(), purpose: None, lock: None };
        Box::pin(async move { if is_lost { Err(Lost::Late) } else { Ok(Box::new(session) as Box<dyn Session>) } })
    }
}

struct Connection {
    fake: Fake,
    purpose: Option<Purpose>,
    lock: Option<OwnedMutexGuard<()>>,
}

impl Session for Connection {
    fn begin(&mut self, purpose: Purpose) {
        self.purpose = Some(purpose);
    }

    fn fetch<'a>(&'a mut self, wants: &'a [Want]) -> Doing<'a, Result<Vec<Found>, Lost>> {
        Box::pin(async move {
            self.fake.0.counts.lock().fetches += 1;
            if self.fake.fails(Fail::Hang) {
                std::future::pending::<()>().await;
            }
            if self.purpose == Some(Purpose::Decide) && self.lock.is_none() {
                self.lock = Some(Arc::clone(&self.fake.0.lock).lock_owned().await);
            }
            if self.fake.fails(Fail::Fetch) {
                return Err(Lost::Late);
            }
            let rows = self.fake.0.rows.lock();
            let find = |want: &Want| match want {
                Want::Row(key) => rows.get(key).map(|it| (key.clone(), it.clone())).into_iter().collect(),
                Want::Rows { from, to, most, is_back } => rows.scan(from, to, *most, *is_back),
            };
            Ok(wants.iter().map(find).collect())
        })
    }

    fn commit<'a>(&'a mut self, changes: &'a [RowChange]) -> Doing<'a, Result<bool, Lost>> {
        Box::pin(async move {
            self.fake.0.counts.lock().commits += 1;
            let lock = self.lock.take();
            assert!(lock.is_some(), "what is decided was decided by one");
            if self.fake.fails(Fail::Overtaken) {
                return Ok(false);
            }
            if self.fake.fails(Fail::NoRoom) {
                return Err(Lost::NoRoom);
            }
            if self.fake.fails(Fail::BeforeCommit) {
                return Err(Lost::Late);
            }
            let mut rows = self.fake.0.rows.lock();
            for (key, value) in changes {
                match value {
                    Some(value) => drop(rows.insert(key.clone(), value.clone())),
                    None => drop(rows.remove(key)),
                }
            }
            if self.fake.fails(Fail::AfterCommit) { Err(Lost::Late) } else { Ok(true) }
        })
    }

    fn has_moments(&self) -> bool {
        false
    }

    fn end(&mut self) -> Doing<'_, Result<bool, Lost>> {
        let is_one = !self.fake.fails(Fail::Moments);
        Box::pin(async move { Ok(is_one) })
    }
}
