//! The control group of the simulated world: one log that only the leader writes, and a leader is one only while it reaches a majority. What it mints, and when a mint is
//! in force, is decided by the office that ships.

use std::collections::BTreeMap;
use std::time::Duration;

use super::world::Due;
use super::world::LEAD_EVERY;
use super::world::Packet;
use super::world::World;
use super::world::limit;
use crate::base::clock::Instant;
use crate::limits::Definition;
use crate::limits::LimitId;
use crate::limits::Mint;
use crate::limits::calendar::Calendar;
use crate::limits::core::Life;
use crate::limits::core::Office;
use crate::limits::group::Change;
use crate::limits::group::Changes;
use crate::limits::group::Proposal;
use crate::limits::messages::Renewal;

/// How long the nodes of a majority are without a leader.
const ELECTION: Duration = Duration::from_millis(700);

pub(super) struct Group {
    pub(super) leader: Option<usize>,
    elect_at: Option<Instant>,
    office: Option<Office>,
    pub(super) mints: BTreeMap<LimitId, Mint>,
    log: Vec<Mint>,
    /// Revision and units of each limit, as an operator has them.
    pub(super) units: BTreeMap<LimitId, (u64, u64)>,
}

impl Group {
    pub(super) fn new(mints: BTreeMap<LimitId, Mint>, units: BTreeMap<LimitId, (u64, u64)>) -> Self {
        let log = mints.values().cloned().collect();
        Self { leader: Some(0), elect_at: None, office: None, mints, log, units }
    }

    /// It leads no more, and what it knew is lost.
    pub(super) fn depose(&mut self) {
        (self.leader, self.office) = (None, None);
    }

    /// The last mint of each limit after an entry.
    fn changes(&self, after: u64) -> Changes {
        let last = |(n, it): &(u64, &Mint)| self.mints.get(&it.limit).is_some_and(|last| *n > after && last == *it);
        let changes = (1..).zip(&self.log).filter(last).map(|(n, it)| (n, Change::Minted(it.clone()))).collect();
        Changes { changes, epoch_dropped: 0 }
    }

    /// The operator's limits.
    fn definitions(&self) -> Vec<Definition> {
        let definition = |(limit, mint): (&LimitId, &Mint)| {
            let (revision, units) = self.units[limit];
            Definition { limit: *limit, revision, kind: mint.kind, window_ms: mint.window_ms, units }
        };
        self.mints.iter().map(definition).collect()
    }
}

impl World {
    fn leads(&self, n: usize) -> bool {
        let side = self.nodes[n].side;
        let near = (0..self.nodes.len()).filter(|it| self.runs(*it) && self.nodes[*it].side == side).count();
        self.runs(n) && near * 2 > self.nodes.len()
    }

    pub(super) fn lead(&mut self) {
        self.put(LEAD_EVERY, Due::Lead);
        for n in 0..self.plans.len() {
            let (window, bound) = (self.window(n), self.group.mints[&limit(n)].bound());
            let sum = self.sums.entry((n, window)).or_default();
            sum.bound = sum.bound.max(bound);
        }
        if self.group.leader.is_some_and(|it| !self.leads(it)) {
            self.group.depose();
        }
        let Some(leader) = self.group.leader else {
            let able: Vec<usize> = (0..self.nodes.len()).filter(|it| self.leads(*it)).collect();
            let at = *self.group.elect_at.get_or_insert(self.now + ELECTION);
            if self.now >= at && !able.is_empty() {
                self.group.leader = Some(able[self.entropy.below(able.len())]);
                self.group.elect_at = None;
            }
            return;
        };
        let calendar = Calendar::new(self.now, self.wall(self.nodes[leader].started_off));
        let (now, settings) = (self.now, self.settings);
        let mut office = self.group.office.take().unwrap_or_else(|| Office::new(now, 1, settings, calendar));
        office.learn(self.group.changes(office.seen()));
        office.confirmed();
        let wanted = office.look(now, &self.group.definitions());
        assert_ne!(wanted.unusable, Some(1), "plans are sound");
        for proposal in wanted.proposals {
            let Proposal::Mint { mint: next, .. } = proposal else { panic!("no limit goes: {proposal:?}") };
            let n = (0..self.plans.len()).find(|it| limit(*it) == next.limit).expect("a plan's");
            let mint = &self.group.mints[&next.limit];
            next.check(Some(mint)).expect("each mint follows the one before");
            let (window, before) = (self.window(n), mint.bound());
            for window in window..=next.from.min(window + 8) {
                let bound = &mut self.sums.entry((n, window)).or_default().bound;
                *bound = before.max(*bound);
            }
            self.group.log.push(next.clone());
            self.group.mints.insert(next.limit, next);
        }
        office.learn(self.group.changes(office.seen()));
        self.group.office = Some(office);
    }

    pub(super) fn renew(&mut self, n: usize, from: Life, renewal: &Renewal) {
        if self.group.leader != Some(n) || !self.leads(n) {
            return;
        }
        let Some(office) = &mut self.group.office else { return };
        if office.renewed(self.now, from, renewal.clone()).is_ok() {
            let renewed = office.answer(renewal.number, renewal.seen);
            self.send(n, from, Packet::Renewed(from.1, renewed));
        }
    }
}
