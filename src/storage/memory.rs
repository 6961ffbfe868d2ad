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
    entropy: Entropy,
}

impl Disk {
    /// An empty disk.
    pub(crate) fn new(entropy: Entropy, latency_max: Duration) -> Self {
        Self::with(Bytes::new(), entropy, latency_max)
    }

    fn with(bytes: Bytes, entropy: Entropy, latency_max: Duration) -> Self {
        let (now, synced) = (bytes.clone(), bytes);
        Self(Arc::new(Mutex::new(Inner { now, synced, waiting: Vec::new(), is_gone: false, latency_max, entropy })))
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

    /// How long the next fsync takes.
    pub(super) fn latency(&self) -> Duration {
        let inner = self.0.lock();
        inner.latency_max.mul_f64(inner.entropy.unit())
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.lock().now.get(key).cloned())
    }

    pub(super) fn scan(&self, from: &[u8], to: &[u8]) -> Box<dyn Iterator<Item = Result<Pair, StoreError>>> {
        let inner = self.0.lock();
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
        apply(&mut inner.now, &changes);
        inner.waiting.push(changes);
        Ok(())
    }

    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let mut inner = self.0.lock();
        if inner.is_gone {
            return Err(StoreError::Failed);
        }
        inner.synced = inner.now.clone();
        inner.waiting.clear();
        Ok(())
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
