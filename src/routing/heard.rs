//! The router's side of the prefix log: how it says what it did, and how it takes what others did. Apart from `router.rs` because no
//! decision comes through here.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Instant;
use crate::routing::Router;
use crate::routing::prefix_log::Outbox;
use crate::routing::prefix_log::core::AtMs;
use crate::routing::prefix_log::core::Effect;
use crate::routing::prefix_log::core::Said;
use crate::routing::prefix_map::chain::Key;

impl Router {
    /// As one node of several: hashes under the key that all share, and what is placed left in `outbox`.
    #[must_use]
    pub fn with_peers(mut self, key: Key, outbox: Arc<Outbox>) -> Self {
        self.key = key;
        self.outbox = Some(outbox);
        self
    }

    /// The time as the prefix log counts it: since the first decision.
    #[must_use]
    pub fn since_start(&self, now: Instant) -> Duration {
        now.saturating_duration_since(*self.epoch.get_or_init(|| now))
    }

    /// To what the map tells ages.
    #[must_use]
    pub fn tick(&self) -> Duration {
        self.tick
    }

    /// Writes to the prefix map what the log says.
    pub fn hear(&self, now: Instant, effects: &[Effect]) {
        let tick = self.tick_at(now);
        let mut evicted = 0;
        for effect in effects {
            match effect {
                Effect::Put(worker, boundary, at) => {
                    let known = self.slots.read().of(*worker);
                    let slot = known.or_else(|| self.slots.write().assign(*worker, tick));
                    let noted = slot.and_then(|slot| self.table.note(boundary.hash(), slot, self.stamp(*at), tick));
                    evicted += u64::from(noted == Some(true));
                }
                Effect::Withdraw(worker, boundary, at) => {
                    if let Some(slot) = self.slots.read().of(*worker) {
                        self.table.withdraw(boundary.hash(), slot, self.stamp(*at), tick);
                    }
                }
                Effect::Forget(worker) => self.slots.write().forget(*worker, tick),
                Effect::Learn(worker, lesson, age) => {
                    let slots = self.slots.read();
                    if let Some(slot) = slots.of(*worker) {
                        let ticks = age.as_nanos() / self.tick.as_nanos();
                        slots.take(slot, u16::try_from(ticks).unwrap_or(u16::MAX), *lesson);
                    }
                }
                Effect::Publish(_) | Effect::ReadAgain => {} // the driver's
            }
        }
        self.metrics.map_written(&self.table, evicted);
    }

    /// Leaves something for other nodes.
    pub(super) fn say(&self, said: impl IntoIterator<Item = Said>) {
        if let Some(outbox) = &self.outbox {
            outbox.say(said.into_iter());
        }
    }

    /// A moment as the map stamps it. It may lie before the first decision: stamps wrap.
    fn stamp(&self, at: AtMs) -> u16 {
        let tick_ms = i64::try_from(self.tick.as_millis()).unwrap_or(i64::MAX);
        at.div_euclid(tick_ms) as u16
    }
}
