//! Load as it is told now and then, through a replicated table: old, cheap, and everywhere. It picks candidates and is what is left when a ledger
//! cannot be read.
//!
//! Each node writes what it has in flight, a row a worker, when it changed, and again before the table forgets it. Readers add up the others' rows.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::time::Duration;

use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;
use crate::ledger::InFlight;
use crate::transport::wire;

/// A row that did not change is written again after this: the table hides rows of five seconds, and two writings may be late.
const REFRESH: Duration = Duration::from_secs(2);
/// Rows older than this are not believed, as the table has it.
pub(crate) const AGE_MAX: Duration = Duration::from_secs(5);
/// Bytes of a row's value.
const ROW_BYTES_MAX: usize = 64;

/// A row's name, and its value; none removes it.
pub type Row = (Vec<u8>, Option<Vec<u8>>);
/// What others have in flight by worker, and since when the oldest part of it is so.
pub type Gossiped = HashMap<WorkerId, (InFlight, Instant)>;

/// This node's rows, and those of the others.
#[derive(Debug, Default)]
pub struct Gossip {
    written: BTreeMap<WorkerId, (InFlight, Instant)>,
    heard: BTreeMap<StorageId, BTreeMap<WorkerId, (InFlight, Instant)>>,
}

impl Gossip {
    /// The rows to write, if this is what is in flight.
    pub fn rows(&mut self, now: Instant, loads: &[(WorkerId, InFlight)]) -> Vec<Row> {
        let mut rows = Vec::new();
        let some: BTreeMap<WorkerId, InFlight> = loads.iter().filter(|it| !it.1.is_none()).copied().collect();
        for (worker, load) in &some {
            let is_there = |it: &(InFlight, Instant)| it.0 == *load && now.saturating_duration_since(it.1) < REFRESH;
            if !self.written.get(worker).is_some_and(is_there) {
                rows.push((name(*worker), wire::encode(load).ok()));
            }
        }
        rows.extend(self.written.keys().filter(|it| !some.contains_key(it)).map(|it| (name(*it), None)));
        rows
    }

    /// They were written.
    pub fn wrote(&mut self, now: Instant, rows: &[Row]) {
        for (name, value) in rows {
            let Some(worker) = worker(name) else { continue };
            match value.as_deref().and_then(load) {
                Some(load) => drop(self.written.insert(worker, (load, now))),
                None => drop(self.written.remove(&worker)),
            }
        }
    }

    /// Another node wrote a row so long ago. What cannot be read is nobody's load.
    pub fn heard(&mut self, now: Instant, owner: StorageId, name: &[u8], value: Option<&[u8]>, age: Duration) {
        let Some(worker) = worker(name) else { return };
        let rows = self.heard.entry(owner).or_default();
        match (value.and_then(load), now.checked_sub(age)) {
            (Some(load), Some(at)) => drop(rows.insert(worker, (load, at))),
            (None, _) | (_, None) => drop(rows.remove(&worker)),
        }
    }

    /// What was heard of this node before counts no longer.
    pub fn forget(&mut self, owner: StorageId) {
        self.heard.remove(&owner);
    }

    /// Only these are there.
    pub fn keep(&mut self, is_there: impl Fn(StorageId) -> bool) {
        self.heard.retain(|owner, _| is_there(*owner));
    }

    /// What the others have in flight, old rows left out.
    #[must_use]
    pub fn view(&mut self, now: Instant) -> Gossiped {
        let mut view = Gossiped::new();
        for rows in self.heard.values_mut() {
            rows.retain(|_, it| now.saturating_duration_since(it.1) < AGE_MAX);
            for (worker, (load, at)) in rows {
                let sum = view.entry(*worker).or_insert((InFlight::default(), *at));
                sum.0.add(*load);
                sum.1 = sum.1.min(*at);
            }
        }
        view
    }
}

fn name(worker: WorkerId) -> Vec<u8> {
    worker.0.to_be_bytes().to_vec()
}

fn worker(name: &[u8]) -> Option<WorkerId> {
    name.try_into().ok().map(|it| WorkerId(u64::from_be_bytes(it)))
}

fn load(value: &[u8]) -> Option<InFlight> {
    wire::decode::<InFlight, ROW_BYTES_MAX>(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;

    const A: StorageId = StorageId(1);
    const B: StorageId = StorageId(2);

    fn load(requests: u32) -> InFlight {
        InFlight { requests, queued_tokens: 7 }
    }

    #[test]
    fn rows_are_written_when_they_change_and_before_they_are_forgotten_and_removed_when_idle() {
        let (mut gossip, mut now) = (Gossip::default(), Clock.now());
        let [busy, idle] = [(WorkerId(1), load(3)), (WorkerId(2), InFlight::default())];
        let rows = gossip.rows(now, &[busy, idle]);
        assert_eq!(rows.len(), 1, "nothing is no row");
        assert_eq!(gossip.rows(now, &[busy]), rows, "not taken, it is said again");
        gossip.wrote(now, &rows);
        assert!(gossip.rows(now, &[busy, idle]).is_empty());
        now += REFRESH;
        let rows = gossip.rows(now, &[busy]);
        assert_eq!(rows.len(), 1);
        gossip.wrote(now, &rows);
        let rows = gossip.rows(now, &[(WorkerId(1), InFlight::default())]);
        assert_eq!(rows, [(name(WorkerId(1)), None)]);
        gossip.wrote(now, &rows);
        assert!(gossip.rows(now, &[]).is_empty());
    }

    #[test]
    fn others_rows_are_added_up_and_the_old_and_the_unreadable_left_out() {
        let (mut gossip, now) = (Gossip::default(), Clock.now() + Duration::from_secs(60));
        let (second, row) = (Duration::from_secs(1), wire::encode(&load(3)).unwrap());
        gossip.heard(now, A, &name(WorkerId(1)), Some(&row), second);
        gossip.heard(now, B, &name(WorkerId(1)), Some(&row), 2 * second);
        gossip.heard(now, B, &name(WorkerId(2)), Some(b"rubbish"), second);
        gossip.heard(now, B, b"rubbish", Some(&row), second);
        gossip.heard(now, B, &name(WorkerId(3)), Some(&row), 6 * second);
        let sum = InFlight { requests: 6, queued_tokens: 14 };
        assert_eq!(gossip.view(now), HashMap::from([(WorkerId(1), (sum, now - 2 * second))]));
        gossip.forget(B);
        assert_eq!(gossip.view(now), HashMap::from([(WorkerId(1), (load(3), now - second))]));
        gossip.heard(now, A, &name(WorkerId(1)), None, second);
        assert!(gossip.view(now).is_empty());
    }
}
