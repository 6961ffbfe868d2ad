//! The ledgers that this node keeps: what each live member last said of what it has in flight, and what it has begun since.
//!
//! One account a member, ordered by its own numbers: a report replaces all that was said before it, commits with a larger number are added, and what
//! comes late, twice or from an earlier life changes nothing. So however messages are lost and reordered, the next report makes the account right.
//!
//! *Invariants.* 1. A worker's load is known only if every live member was heard within [`REPORT_AGE_MAX`] and meant this worker, too. A member
//! that has never spoken is waited for as long as [`GRACE`]: it may be one that cannot. 2. A member that is down counts no more, at once. 3. What an asker has in
//! flight itself is not told to it: it knows better, and would count it twice. 4. A node that did not run believes nothing that it heard before or while it slept.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::time::Duration;

use super::Ignored;
use super::order::Views;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;
use crate::ledger::InFlight;
use crate::ledger::faults::Fault;
use crate::ledger::faults::planted;
use crate::ledger::messages::Commit;
use crate::ledger::messages::Report;
use crate::ledger::messages::Said;

/// Reports older than this do not count. Four are sent in that time; older load costs more than not knowing it (ROUTING.md 4.2).
pub(super) const REPORT_AGE_MAX: Duration = Duration::from_secs(1);
/// How long a member that was never heard keeps a ledger unknown. Shorter, and a new owner takes silence for idleness; longer, and a member that cannot
/// speak blinds everybody for longer.
pub(super) const GRACE: Duration = Duration::from_millis(500);
/// What comes in this time after a sleep waited in the socket meanwhile, and says how things were before it.
const DROWSY: Duration = Duration::from_millis(100);
/// Commits of one member between two of its reports: sixteen thousand requests a second. Beyond it the oldest are dropped; the next report has them.
const COMMITS_MAX: usize = 4096;

/// One life of a member: its data directory and start.
pub type Life = (StorageId, u64);

/// What one member has said.
#[derive(Debug)]
struct Account {
    boot: u64,
    /// Since when it is a member.
    since: Instant,
    heard: Option<Heard>,
    commits: BTreeMap<u64, Commit>,
    /// The commits, summed up by worker.
    begun: HashMap<WorkerId, InFlight>,
}

#[derive(Debug)]
struct Heard {
    at: Instant,
    number: u64,
    view: u64,
    is_complete: bool,
    loads: HashMap<WorkerId, InFlight>,
}

impl Account {
    fn new(boot: u64, since: Instant) -> Self {
        Self { boot, since, heard: None, commits: BTreeMap::new(), begun: HashMap::new() }
    }

    fn number(&self) -> Option<u64> {
        self.heard.as_ref().map(|it| it.number)
    }

    fn sum_up(&mut self) {
        self.begun.clear();
        for it in self.commits.values() {
            self.begun.entry(WorkerId(it.worker)).or_default().add(InFlight::one(it.tokens));
        }
    }

    /// What it has at a worker; none: not known.
    fn at(
        &self,
        now: Instant,
        awake_since: Option<Instant>,
        worker: WorkerId,
        is_told: impl FnOnce(u64) -> bool,
    ) -> (InFlight, Option<Duration>) {
        let mut load = self.begun.get(&worker).copied().unwrap_or_default();
        let Some(heard) = &self.heard else {
            // Who tells of requests will tell of all of them.
            let is_waited_for = now.saturating_duration_since(self.since) < GRACE || !self.commits.is_empty();
            return (load, if is_waited_for { None } else { Some(Duration::ZERO) });
        };
        let age = now.saturating_duration_since(heard.at);
        let is_old = age > REPORT_AGE_MAX || Some(heard.at) < awake_since;
        if is_old && !planted(Fault::OldReportsCount) {
            return (InFlight::default(), None);
        }
        let listed = heard.loads.get(&worker);
        load.add(listed.copied().unwrap_or_default());
        let is_known = listed.is_some() || (heard.is_complete && is_told(heard.view)) || planted(Fault::UnlistedIsZero);
        (load, is_known.then_some(age))
    }
}

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct Books {
    accounts: BTreeMap<StorageId, Account>,
    /// What was heard before is from before a sleep.
    awake_since: Option<Instant>,
}

impl Books {
    /// This node did not run for a while, until now.
    pub(super) fn slept(&mut self, now: Instant) {
        if !planted(Fault::SleepIsNotNoticed) {
            self.awake_since = Some(now + DROWSY);
        }
    }

    /// These are here now, in these lives; everybody else is not.
    pub(super) fn members(&mut self, now: Instant, lives: impl Iterator<Item = Life>) {
        let mut before = std::mem::take(&mut self.accounts);
        for (member, boot) in lives {
            let kept = before.remove(&member).filter(|it| it.boot == boot || planted(Fault::LivesAreOne));
            self.accounts.insert(member, kept.unwrap_or_else(|| Account::new(boot, now)));
        }
        if planted(Fault::TheDeadCount) {
            self.accounts.extend(before);
        }
    }

    fn account(&mut self, life: Life) -> Result<&mut Account, Ignored> {
        let account = self.accounts.get_mut(&life.0).ok_or(Ignored::Stranger)?;
        if account.boot == life.1 || planted(Fault::LivesAreOne) { Ok(account) } else { Err(Ignored::Stranger) }
    }

    /// A member says all it has in flight here.
    pub(super) fn report(&mut self, now: Instant, life: Life, report: &Report) -> Result<(), Ignored> {
        let account = self.account(life)?;
        if account.number() >= Some(report.number) && !planted(Fault::LateReportsCount) {
            return Err(Ignored::Late);
        }
        let loads = report.loads.iter().map(|(worker, load)| (WorkerId(*worker), *load)).collect();
        let Report { number, view, is_complete, .. } = *report;
        account.heard = Some(Heard { at: now, number, view, is_complete, loads });
        if !planted(Fault::ReportsDoNotAbsorb) {
            account.commits = account.commits.split_off(&(number + 1));
        }
        account.sum_up();
        Ok(())
    }

    /// A member has begun a request.
    pub(super) fn commit(&mut self, life: Life, commit: Commit) -> Result<(), Ignored> {
        let account = self.account(life)?;
        if account.number() >= Some(commit.number) && !planted(Fault::LateCommitsCount) {
            return Err(Ignored::Late);
        }
        if account.commits.insert(commit.number, commit).is_some() {
            return Err(Ignored::Late);
        }
        account.begun.entry(WorkerId(commit.worker)).or_default().add(InFlight::one(commit.tokens));
        if account.commits.len() > COMMITS_MAX {
            account.commits.pop_first();
            account.sum_up();
            return Err(Ignored::TooMany);
        }
        Ok(())
    }

    /// What all but the asker have in flight at a worker, as `me` was told.
    pub(super) fn said(&self, now: Instant, me: StorageId, views: &Views, asker: StorageId, worker: WorkerId) -> Said {
        let (mut others, mut is_known, mut oldest) = (InFlight::default(), true, Duration::ZERO);
        // Nearly all members see the same: it is found out once, and not again for each of a hundred.
        let mut told: Option<(u64, bool)> = None;
        for account in self.accounts.iter().filter(|it| *it.0 != asker).map(|it| it.1) {
            let (load, age) = account.at(now, self.awake_since, worker, |view| match told {
                Some((known, is_owner)) if known == view => is_owner,
                Some(_) | None => told.insert((view, views.is_owner(view, me, worker))).1,
            });
            others.add(load);
            is_known &= age.is_some() || planted(Fault::UnknownIsKnown);
            oldest = oldest.max(age.unwrap_or_default());
        }
        Said { is_known, others, age_ms: u16::try_from(oldest.as_millis()).unwrap_or(u16::MAX) }
    }
}
