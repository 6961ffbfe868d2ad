//! What clients saw, and whether it fits one order.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

/// A read that was answered.
pub(super) struct Read {
    pub(super) node: usize,
    pub(super) begun: Instant,
    pub(super) ended: Instant,
    pub(super) items: Vec<String>,
}

/// Everything that clients were told.
#[derive(Default)]
pub(crate) struct Seen {
    /// Items whose adding was acknowledged, and when.
    pub(crate) added: BTreeMap<String, Instant>,
    /// Responses that were answered as completed.
    pub(super) made: BTreeMap<String, Value>,
    pub(super) reads: Vec<Read>,
    /// Answers that nobody should have had.
    pub(super) wrong: Vec<String>,
    /// Requests that were not answered, or with "not now".
    pub(super) unavailable: usize,
}

impl Seen {
    pub(super) fn add(&mut self, id: String) {
        self.added.insert(id, smg::base::clock::Clock.now());
    }

    /// One that was cut off is answered as failed when it is asked for again, and that is no lie.
    pub(super) fn make(&mut self, response: Value) {
        let id = response["id"].as_str().unwrap_or_default().to_owned();
        if response["status"] == "completed" {
            self.made.insert(id, response);
        }
    }

    /// Acknowledged and not there at the end.
    pub(super) fn lost(&self, last: &[String]) -> Vec<&String> {
        let there: BTreeSet<&String> = last.iter().collect();
        self.added.keys().filter(|it| !there.contains(it)).collect()
    }

    /// The longest time without an acknowledged item that was over after `from`.
    pub(super) fn gap(&self, from: Instant) -> Duration {
        let mut times: Vec<Instant> = self.added.values().copied().collect();
        times.sort_unstable();
        let gaps = times.windows(2).filter(|it| it[1] > from).map(|it| it[1] - it[0]);
        gaps.max().unwrap_or(Duration::MAX)
    }

    /// Whether it fits what there is at the end.
    pub(crate) fn check(&self, last: &[String]) {
        assert_eq!(self.wrong, Vec::<String>::new(), "answers that nobody should have");
        let once: BTreeSet<&String> = last.iter().collect();
        assert_eq!(once.len(), last.len(), "an item is there twice: {last:?}");
        assert_eq!(self.lost(last), Vec::<&String>::new(), "acknowledged, and lost");
        let places: BTreeMap<&String, usize> = last.iter().zip(0..).collect();
        for read in &self.reads {
            assert!(last.starts_with(&read.items), "a read is no beginning of the end: {:?}", read.items);
            let told = self.added.iter().filter(|it| *it.1 < read.begun && places[it.0] >= read.items.len());
            let told: Vec<_> = told.map(|it| (it.0, ago(*it.1))).collect();
            let when = (ago(read.begun), ago(read.ended));
            let it = format!(
                "a read at node {}, which began and ended {when:?} seconds ago, of {} items",
                read.node,
                read.items.len()
            );
            assert!(
                told.is_empty(),
                "{it} has not what was told before it began: {told:?} seconds ago, of {}",
                last.len()
            );
            let before = self.reads.iter().filter(|it| it.ended < read.begun).map(|it| it.items.len());
            let longest = before.max().unwrap_or(0);
            assert!(longest <= read.items.len(), "{it} is shorter than one before it, of {longest}");
        }
    }
}

/// How many seconds ago it was, to be laid beside what was done to the cluster.
fn ago(at: Instant) -> f64 {
    ((smg::base::clock::Clock.now() - at).as_secs_f64() * 1000.0).round() / 1000.0
}
