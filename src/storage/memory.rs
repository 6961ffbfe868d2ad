//! A disk in memory that tells written from fsynced, so that a simulation can cut its power. Tests only.
//!
//! What was written since the last fsync is kept apart in the order of writing. A cut leaves what was fsynced and any first part of the rest, as one write-ahead
//! log would. A disk that was cut refuses everything: its process is gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::engine::Change;
use super::engine::Pair;
use super::store::StoreError;
use crate::base::entropy::Entropy;

type Bytes = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a disk can stop doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Reads,
    Writes,
    Fsyncs,
}

/// The disk. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Disk(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    /// What a reader sees.
    now: Bytes,
    /// What a cut leaves for certain.
    synced: Bytes,
    /// What it may leave the beginning of.
    waiting: Vec<Vec<Change>>,
    /// Whether it was cut, or its process killed.
    is_gone: bool,
    /// How long an fsync takes at most.
    latency_max: Duration,
    /// Bytes that may still be written; None: as many as anybody likes.
    free: Option<u64>,
    /// What does not work any more.
    broken: Option<Broken>,
    entropy: Entropy,
}

impl Disk {
    /// An empty disk.
    pub(crate) fn new(entropy: Entropy, latency_max: Duration) -> Self {
        Self::with(Bytes::new(), entropy, latency_max)
    }

    fn with(bytes: Bytes, entropy: Entropy, latency_max: Duration) -> Self {
        let (now, synced) = (bytes.clone(), bytes);
        let (waiting, is_gone, free, broken) = Default::default();
        Self(Arc::new(Mutex::new(Inner { now, synced, waiting, is_gone, latency_max, free, broken, entropy })))
    }

    /// The power goes: this disk is gone, what it leaves is the other. Some of what was not fsynced may have reached it, in order.
    pub(crate) fn cut(&self) -> Self {
        let mut inner = self.0.lock();
        inner.is_gone = true;
        let mut left = inner.synced.clone();
        let kept = inner.entropy.below(inner.waiting.len() + 1);
        inner.waiting.iter().take(kept).for_each(|it| apply(&mut left, it));
        Self::with(left, inner.entropy.clone(), inner.latency_max)
    }

    /// The process is killed, the machine goes on: everything that was written stays.
    pub(crate) fn kill(&self) -> Self {
        let mut inner = self.0.lock();
        inner.is_gone = true;
        Self::with(inner.now.clone(), inner.entropy.clone(), inner.latency_max)
    }

    /// Another disk with what a copy of the directory would have.
    pub(crate) fn copy(&self) -> Self {
        let inner = self.0.lock();
        Self::with(inner.now.clone(), inner.entropy.clone(), inner.latency_max)
    }

    /// From now on there is room for this many bytes; None: for all.
    pub(crate) fn leave(&self, free: Option<u64>) {
        self.0.lock().free = free;
    }

    /// From now on this fails.
    pub(crate) fn breaks(&self, what: Broken) {
        self.0.lock().broken = Some(what);
    }

    pub(super) fn free(&self) -> Option<u64> {
        self.0.lock().free
    }

    /// How long the next fsync takes.
    pub(super) fn latency(&self) -> Duration {
        let inner = self.0.lock();
        inner.latency_max.mul_f64(inner.entropy.unit())
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let inner = self.0.lock();
        inner.works(Broken::Reads)?;
        Ok(inner.now.get(key).cloned())
    }

    pub(super) fn scan(&self, from: &[u8], to: &[u8]) -> Box<dyn Iterator<Item = Result<Pair, StoreError>>> {
        let inner = self.0.lock();
        if let Err(error) = inner.works(Broken::Reads) {
            return Box::new(std::iter::once(Err(error)));
        }
        let found: Vec<Pair> = inner
            .now
            .range(from.to_vec()..)
            .take_while(|it| it.0.as_slice() < to)
            .map(|it| (it.0.clone(), it.1.clone()))
            .collect();
        Box::new(found.into_iter().map(Ok))
    }

    pub(super) fn write(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut inner = self.0.lock();
        if inner.is_gone {
            return Err(StoreError::Failed);
        }
        inner.works(Broken::Writes)?;
        let bytes = changes.iter().map(Change::bytes).sum();
        if let Some(free) = &mut inner.free {
            *free = free.checked_sub(bytes).ok_or(StoreError::Full(*free))?;
        }
        apply(&mut inner.now, &changes);
        inner.waiting.push(changes);
        Ok(())
    }

    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let mut inner = self.0.lock();
        if inner.is_gone {
            return Err(StoreError::Failed);
        }
        inner.works(Broken::Fsyncs)?;
        let Inner { synced, waiting, .. } = &mut *inner;
        waiting.drain(..).for_each(|it| apply(synced, &it));
        Ok(())
    }
}

impl Inner {
    fn works(&self, what: Broken) -> Result<(), StoreError> {
        if self.broken == Some(what) { Err(StoreError::Broken) } else { Ok(()) }
    }
}

impl Change {
    /// What it takes in a log.
    fn bytes(&self) -> u64 {
        let bytes = match self {
            Self::Put(key, value) => key.len() + value.len(),
            Self::Delete(key) => key.len(),
            Self::DeleteRange(from, to) => from.len() + to.len(),
        };
        bytes as u64
    }
}

fn apply(bytes: &mut Bytes, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put(key, value) => drop(bytes.insert(key.clone(), value.clone())),
            Change::Delete(key) => drop(bytes.remove(key)),
            Change::DeleteRange(from, to) => bytes.retain(|key, _| key < from || key >= to),
        }
    }
}
