//! Where decisions leave what other nodes should know: a bounded list and a bell. Its lock is held for a push or a swap.

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;

use super::core::Said;

/// Things said and not yet taken: 1.5 MB. Some thousands of requests within half a second fill it; beyond it they are not told.
const SAID_MAX: usize = 65_536;

/// See the file's header.
#[derive(Debug, Default)]
pub struct Outbox {
    said: Mutex<Vec<Said>>,
    bell: Notify,
    dropped: Counter,
}

impl Outbox {
    /// Counts what did not fit there.
    #[must_use]
    pub fn new(dropped: Counter) -> Self {
        Self { dropped, ..Self::default() }
    }

    /// Leaves something.
    pub fn say(&self, some: impl Iterator<Item = Said>) {
        let mut said = self.said.lock();
        let was_empty = said.is_empty();
        for it in some {
            if said.len() < SAID_MAX {
                said.push(it);
            } else {
                self.dropped.inc();
            }
        }
        let rings = was_empty && !said.is_empty();
        drop(said);
        if rings {
            self.bell.notify_one();
        }
    }

    /// Takes all.
    #[must_use]
    pub fn take(&self) -> Vec<Said> {
        std::mem::take(&mut *self.said.lock())
    }

    /// Waits until there is something. A bell that rang meanwhile counts.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }
}
