//! What this node tells the owners: all it has in flight, every so often, and each request that it begins.
//!
//! A node looks at its own counts every [`LOOK`] while it has work. It reports every [`PERIOD`], and at once to the owners of a worker that has changed
//! much since they were told: mostly a prompt that was read or requests that ended, as beginnings are told one by one, to the first owner only: the second is asked when the first is
//! silent, and then a quarter of a second does no harm. Beginnings ride on the next question to the owner, and go by themselves after [`COLLECT`].
//! Nothing is acknowledged: what is lost is in the next report.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::Effect;
use super::Ignored;
use super::order::Owners;
use super::order::View;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;
use crate::ledger::InFlight;
use crate::ledger::messages::COMMITS_LEN_MAX;
use crate::ledger::messages::Commit;
use crate::ledger::messages::Message;
use crate::ledger::messages::REPORT_LEN_MAX;
use crate::ledger::messages::RIDING_LEN_MAX;
use crate::ledger::messages::Report;
use crate::transport::Peer;

/// Time between two reports. Half of it would double their number; twice it, and one late report makes a ledger unknown.
pub(super) const PERIOD: Duration = Duration::from_millis(250);
/// The same while nothing is in flight: owners need to hear that this node is still idle.
pub(super) const PERIOD_QUIET: Duration = Duration::from_millis(500);
/// Time between two looks at the own counts while anything is in flight.
pub(super) const LOOK: Duration = Duration::from_millis(50);
/// How long beginnings wait for a question to ride on. Longer, and other nodes send their own requests to the same worker meanwhile; shorter only costs messages. A node
/// that asks more often waits less, so what others do not know of is about a request of each node, however many there are in a second.
const COLLECT: Duration = Duration::from_millis(10);
/// A queue that is so many tokens longer or shorter than was told is reported at once: a tenth of a second of prefill at ten thousand a second.
const LARGE_TOKENS: u64 = 1024;
/// The same for requests.
const LARGE_REQUESTS: u32 = 4;

/// What goes to one life of an owner.
#[derive(Debug, Default)]
struct Line {
    boot: u64,
    begun: Vec<Commit>,
}

#[derive(Debug)]
pub(super) struct Teller {
    /// The other members.
    lines: BTreeMap<StorageId, Line>,
    /// What owners believe of this node.
    told: HashMap<WorkerId, InFlight>,
    /// BOUND: the workers of the last look. Forgotten whenever the members change.
    owners: HashMap<WorkerId, Owners>,
    report_at: Instant,
    look_at: Instant,
    flush_at: Option<Instant>,
    /// Whether anything was begun since the last flush.
    is_busy: bool,
}

impl Teller {
    pub(super) fn new(now: Instant) -> Self {
        let (lines, told, owners) = Default::default();
        Self { lines, told, owners, report_at: now, look_at: now, flush_at: None, is_busy: false }
    }

    pub(super) fn look_at(&self) -> Instant {
        self.look_at
    }

    pub(super) fn next_wake(&self) -> Instant {
        self.flush_at.map_or(self.look_at, |it| it.min(self.look_at))
    }

    /// These are here now. All are told at once: some are owners that they were not before.
    pub(super) fn members(&mut self, now: Instant, view: &View, me: StorageId) {
        let mut before = std::mem::take(&mut self.lines);
        for Peer { storage, boot, .. } in view.members.iter().map(|it| &**it).filter(|it| it.storage != me) {
            let kept = before.remove(storage).filter(|it| it.boot == *boot);
            self.lines.insert(*storage, kept.unwrap_or_else(|| Line { boot: *boot, ..Line::default() }));
        }
        self.owners.clear();
        (self.report_at, self.look_at) = (now, now);
    }

    /// A request was begun here.
    pub(super) fn started(
        &mut self,
        now: Instant,
        me: StorageId,
        view: &View,
        commit: Commit,
        effects: &mut Vec<Effect>,
    ) {
        let worker = WorkerId(commit.worker);
        self.told.entry(worker).or_default().add(InFlight::one(commit.tokens));
        self.look_at = self.look_at.min(now + LOOK);
        let first = self.owners_of(view, worker).first.filter(|it| *it != me);
        let Some(line) = first.and_then(|it| self.lines.get_mut(&it)) else { return };
        if line.begun.len() == COMMITS_LEN_MAX {
            return effects.push(Effect::Ignored(Ignored::TooMany));
        }
        line.begun.push(commit);
        self.is_busy = true;
        self.flush_at.get_or_insert(now + COLLECT);
    }

    /// Takes what was begun and not told to an owner, as much as goes with a question.
    pub(super) fn riding(&mut self, owner: StorageId) -> Vec<Commit> {
        let Some(line) = self.lines.get_mut(&owner) else { return Vec::new() };
        line.begun.drain(..line.begun.len().min(RIDING_LEN_MAX)).collect()
    }

    /// Sends what was collected, when it is time.
    pub(super) fn flush(&mut self, now: Instant, view: &View, effects: &mut Vec<Effect>) {
        if self.flush_at.is_some_and(|it| it <= now) {
            // A node that is busy looks again without being woken for it.
            self.flush_at = std::mem::take(&mut self.is_busy).then(|| now + COLLECT);
            self.lines.iter_mut().for_each(|(owner, line)| line.flush(view.get(*owner), effects));
        }
    }

    /// This is what is in flight.
    pub(super) fn looked(
        &mut self,
        now: Instant,
        me: StorageId,
        view: &View,
        number: u64,
        loads: &[(WorkerId, InFlight)],
        effects: &mut Vec<Effect>,
    ) {
        let is_idle = self.told.values().chain(loads.iter().map(|it| &it.1)).all(|it| it.is_none());
        if self.owners.len() > loads.len() {
            self.owners.clear();
        }
        let is_due = now >= self.report_at;
        let mut reports = self.concerned(me, view, is_due, loads);
        if !reports.is_empty() {
            for (worker, load) in loads.iter().filter(|it| !it.1.is_none()) {
                let owners = self.owners_of(view, *worker);
                reports.iter_mut().filter(|it| owners.include(*it.0)).for_each(|it| it.1.push((worker.0, *load)));
            }
        }
        for (owner, loads) in reports {
            self.report(view.get(owner), Report { number, view: view.hash, is_complete: true, loads }, effects);
        }
        if is_due {
            self.told = loads.iter().copied().collect(); // whatever is no worker any more is forgotten
            self.report_at = now + if is_idle { PERIOD_QUIET } else { PERIOD };
        }
        self.look_at = if is_idle { self.report_at } else { (now + LOOK).min(self.report_at) };
    }

    /// The owners that are told something now: all of them when it is time, else those of workers that have changed much.
    fn concerned(
        &mut self,
        me: StorageId,
        view: &View,
        is_due: bool,
        loads: &[(WorkerId, InFlight)],
    ) -> BTreeMap<StorageId, Vec<(u64, InFlight)>> {
        let mut concerned = BTreeMap::new();
        for (worker, load) in loads {
            let told = self.told.get(worker).copied().unwrap_or_default();
            if is_due || differ(told, *load) {
                let owners = self.owners_of(view, *worker).each().filter(|it| *it != me);
                concerned.extend(owners.map(|it| (it, Vec::new())));
                self.told.insert(*worker, *load);
            }
        }
        concerned
    }

    fn report(&mut self, to: Option<&Arc<Peer>>, mut report: Report, effects: &mut Vec<Effect>) {
        let Some((to, line)) = to.and_then(|it| Some((it, self.lines.get_mut(&it.storage)?))) else { return };
        if report.loads.len() > REPORT_LEN_MAX {
            report.loads.sort_unstable_by_key(|it| std::cmp::Reverse(it.1.requests));
            report.loads.truncate(REPORT_LEN_MAX);
            report.is_complete = false;
        }
        line.begun.retain(|it| it.number > report.number);
        effects.push(Effect::Send(Arc::clone(to), Message::Report(report)));
    }

    /// Who keeps a worker's ledger, remembered: a large cluster takes some microseconds to find out.
    pub(super) fn owners_of(&mut self, view: &View, worker: WorkerId) -> Owners {
        *self.owners.entry(worker).or_insert_with(|| view.owners(worker))
    }
}

impl Line {
    fn flush(&mut self, to: Option<&Arc<Peer>>, effects: &mut Vec<Effect>) {
        let Some(to) = to.filter(|_| !self.begun.is_empty()) else { return };
        effects.push(Effect::Send(Arc::clone(to), Message::Commits(std::mem::take(&mut self.begun))));
    }
}

fn differ(told: InFlight, is: InFlight) -> bool {
    told.queued_tokens.abs_diff(is.queued_tokens) >= LARGE_TOKENS
        || told.requests.abs_diff(is.requests) >= LARGE_REQUESTS
}
