//! History that lasts until the restart: the machine over a map.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::backend::Backend;
use super::backend::Doing;
use super::backend::Reading;
use super::backend::Unavailable;
use super::machine::Outcome;
use super::machine::read;
use super::machine::step;

/// See the file's header. BOUND: `--history-tenant-bytes` for each owner.
#[derive(Default)]
pub struct Memory(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

impl Backend for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn commands(&self) -> u64 {
        read::commands(&*self.0.lock()).unwrap_or_default()
    }

    fn propose(&self, entry: Vec<u8>, _: Duration) -> Doing<'_, Result<Outcome, Unavailable>> {
        let mut rows = self.0.lock();
        let done = step(&*rows, &entry).map_err(|_damage| Unavailable::Damaged).map(|(outcome, changes)| {
            for (key, value) in changes {
                match value {
                    Some(value) => drop(rows.insert(key, value)),
                    None => drop(rows.remove(&key)),
                }
            }
            outcome
        });
        Box::pin(std::future::ready(done))
    }

    fn read(&self, reading: Reading, _: Duration) -> Doing<'_, Result<(), Unavailable>> {
        reading(&*self.0.lock());
        Box::pin(std::future::ready(Ok(())))
    }

    fn is_watcher(&self) -> bool {
        true
    }
}

#[cfg(test)]
impl Memory {
    /// Reads the rows.
    pub(super) fn rows<R>(&self, read: impl FnOnce(&dyn crate::raft::Rows) -> R) -> R {
        read(&*self.0.lock())
    }
}
