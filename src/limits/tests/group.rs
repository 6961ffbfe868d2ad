//! The control group of the simulated world: one log that only the leader writes, and a leader is one only while it reaches a majority. What it mints, and when a mint is
//! in force, is decided by the code that ships.

use std::collections::BTreeMap;
use std::time::Duration;

use super::world::Due;
use super::world::LEAD_EVERY;
use super::world::Packet;
use super::world::World;
use super::world::limit;
use crate::base::clock::Instant;
use crate::limits::LimitId;
use crate::limits::Mint;
use crate::limits::Settings;
use crate::limits::core::Holders;
use crate::limits::core::Life;
use crate::limits::messages::Renewal;
use crate::limits::messages::Renewed;

/// How long the nodes of a majority are without a leader.
const ELECTION: Duration = Duration::from_millis(700);

pub(super) struct Group {
    pub(super) leader: Option<usize>,
    elect_at: Option<Instant>,
    holders: Holders,
    pub(super) mints: BTreeMap<LimitId, Mint>,
    log: Vec<Mint>,
    /// Revision and units of each limit, as an operator has them.
    pub(super) units: BTreeMap<LimitId, (u64, u64)>,
}

impl Group {
    pub(super) fn new(
        now: Instant,
        settings: Settings,
        mints: BTreeMap<LimitId, Mint>,
        units: BTreeMap<LimitId, (u64, u64)>,
    ) -> Self {
        let (log, holders) = (mints.values().cloned().collect(), Holders::new(now, settings));
        Self { leader: Some(0), elect_at: None, holders, mints, log, units }
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
            self.group.leader = None;
        }
        let Some(leader) = self.group.leader else {
            let able: Vec<usize> = (0..self.nodes.len()).filter(|it| self.leads(*it)).collect();
            let at = *self.group.elect_at.get_or_insert(self.now + ELECTION);
            if self.now >= at && !able.is_empty() {
                self.group.leader = Some(able[self.entropy.below(able.len())]);
                self.group.elect_at = None;
                self.group.holders = Holders::new(self.now, self.settings);
            }
            return;
        };
        let ms = self.wall(self.nodes[leader].started_off).as_millis() as u64;
        for n in 0..self.plans.len() {
            let window = self.window(n);
            let mint = self.group.mints[&limit(n)].clone();
            let (revision, units) = self.group.units[&limit(n)];
            let over = self.group.holders.over(self.now, Some(&mint));
            let leaders = ms.checked_div(u64::from(mint.window_ms)).unwrap_or_default();
            let next = mint.next(revision, units, &over, leaders).expect("plans are sound");
            let settled = || {
                let pending = Some(&mint).filter(|it| !it.is_settled)?;
                Some(pending.settled(self.group.holders.settles(self.now, ms, pending)?))
            };
            let Some(next) = next.or_else(settled) else { continue };
            next.check(Some(&mint)).expect("each mint follows the one before");
            for window in window..=next.from.min(window + 8) {
                let bound = &mut self.sums.entry((n, window)).or_default().bound;
                *bound = mint.bound().max(*bound);
            }
            self.group.log.push(next.clone());
            self.group.mints.insert(limit(n), next);
        }
    }

    pub(super) fn renew(&mut self, n: usize, from: Life, renewal: &Renewal) {
        if self.group.leader != Some(n) || !self.leads(n) {
            return;
        }
        if self.group.holders.renewed(self.now, from, renewal.clone()).is_err() {
            return;
        }
        let mints = self.group.log.iter().skip(renewal.seen as usize).take(64).cloned().collect::<Vec<_>>();
        let seen = renewal.seen + mints.len() as u64;
        let renewed = Renewed { number: renewal.number, seen, mints, gone: Vec::new() };
        self.send(n, from, Packet::Renewed(from.1, renewed));
    }
}
