//! The task that moves loads between this node and the replicated table: its own rows out once a second, the others' in a few times a second while they
//! change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::core::gossip::Gossip;
use super::handle::Handle;
use super::handle::Shared;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Stop;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::replication;
use crate::replication::tables::LOADS;

const TASK: Task = Task { name: "ledger-gossip", stage: Stage::Share, on_end: OnEnd::StopNode };
/// How often rows are written. More often would cost gossip and make it no better than it is: it picks candidates, never the winner.
const WRITE_PERIOD: Duration = Duration::from_secs(1);
/// How often others' rows are read at most. In a large cluster some row changes at every moment, and adding all of them up each time would be most of this node's work.
const READ_PERIOD: Duration = Duration::from_millis(250);

/// Starts it for a running ledger.
pub fn start(ledger: &Handle, tables: replication::Handle, tasks: &Tasks) {
    let teller = Teller { shared: Arc::clone(&ledger.0), tables, gossip: Gossip::default(), seen: BTreeMap::new() };
    tasks.spawn(TASK, |stop| teller.run(stop));
}

struct Teller {
    shared: Arc<Shared>,
    tables: replication::Handle,
    gossip: Gossip,
    seen: BTreeMap<StorageId, (u64, u64)>,
}

impl Teller {
    async fn run(mut self, stop: Stop) {
        let mut changes = self.tables.changes(LOADS);
        let mut tick = tokio::time::interval(READ_PERIOD);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut write_at = Clock.now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let now = Clock.now();
            let is_due = now >= write_at;
            if is_due {
                write_at = now + WRITE_PERIOD;
                self.write(now);
            }
            // Once a second anyway: rows grow old without a change.
            if changes.has_changed().unwrap_or(false) || is_due {
                changes.mark_unchanged();
                self.read(now);
            }
        }
    }

    fn write(&mut self, now: Instant) {
        let (_, loads) = self.shared.look();
        let rows = self.gossip.rows(now, &loads);
        if !rows.is_empty() && self.tables.publish(LOADS, rows.clone()) {
            self.gossip.wrote(now, &rows);
        }
    }

    fn read(&mut self, now: Instant) {
        let Self { shared, tables, gossip, seen } = self;
        tables.owned(LOADS, |at, table| {
            let news = table.news(at, seen);
            news.iter().filter(|it| it.is_new).for_each(|it| gossip.forget(it.owner));
            for it in news.iter().filter(|it| it.owner != shared.me) {
                gossip.heard(now, it.owner, it.name, it.bytes, it.age);
            }
        });
        gossip.keep(|owner| seen.contains_key(&owner));
        shared.gossip.store(Arc::new(gossip.view(now)));
    }
}
