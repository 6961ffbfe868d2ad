//! The router's side of what nodes share: how it says what it did, and how it takes what others did. Apart from `router.rs` because no
//! decision comes through here.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Instant;
use crate::base::ids::WorkerId;
use crate::routing::Reason;
use crate::routing::Router;
use crate::routing::affinity::Bindings;
use crate::routing::models::Model;
use crate::routing::prefix_log::Outbox;
use crate::routing::prefix_log::core::AtMs;
use crate::routing::prefix_log::core::Effect;
use crate::routing::prefix_log::core::Said;
use crate::routing::prefix_map::chain::Key;
use crate::routing::request::RouteRequest;
use crate::routing::router::Known;

impl Router {
    /// As one node of several: hashes under the key that all share, what is placed left in `outbox`, routing keys looked up in `bindings`.
    #[must_use]
    pub fn with_peers(mut self, key: Key, outbox: Arc<Outbox>, bindings: Arc<Bindings>) -> Self {
        self.key = key;
        self.outbox = Some(outbox);
        self.bindings = Some(bindings);
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

    /// The request's routing key as other nodes know it, and to whom any of them bound it; nothing where the policy binds no keys.
    pub(super) fn bound(&self, model: &Model, request: &RouteRequest<'_, '_>) -> (Option<u64>, Option<WorkerId>) {
        let bindings = self.bindings.as_ref().filter(|_| model.policy.entry().binds_keys);
        let Some((bindings, key)) = bindings.zip(request.routing_key) else { return (None, None) };
        let key = self.key.routing_key(request.tenant, request.model, key);
        (Some(key), bindings.get(key))
    }

    /// Tells other nodes whom the policy gave the key to. A target that the caller named, or a last resort, binds nothing.
    pub(super) fn binds(&self, known: &Known, worker: WorkerId, reason: Reason) {
        let is_binding = matches!(reason, Reason::Bound | Reason::Assigned);
        if let (Some(bindings), Some(key), true) = (&self.bindings, known.key, is_binding) {
            bindings.used(key, worker);
        }
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
