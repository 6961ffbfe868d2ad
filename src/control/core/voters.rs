//! Who votes. Asked again and again at the leader, answers with the next change of members, or none.
//!
//! Voters grow to 1, 2, 3 and 5 as nodes come that are there and caught up, and never become fewer by themselves: a cluster that shrank with every node
//! that is away would end as one node that decides alone. A voter is replaced, in one change, when *this leader's own replication* has missed it for long: what
//! membership believes may be wrong on one side only. One change at a time, and only if a majority of what it leads to is there.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::control::faults::Fault;
use crate::control::faults::planted;
use crate::control::machine::State;
use crate::raft::Status;

/// Sizes of a group that tolerate more than the ones between: an even number of voters tolerates no more than one less, but two keep what one would lose.
const SIZES: [usize; 4] = [1, 2, 3, 5];
/// Followers beside the voters. BOUND: the leader speaks to each with every heartbeat; more nodes than this know the group by asking.
pub const LEARNERS_MAX: usize = 64;
/// A member that answered within this is there.
const HEALTHY_WITHIN: Duration = Duration::from_secs(3);
/// A follower that lacks no more entries than this is caught up: the rest comes with the next message.
const LAG_MAX: u64 = 64;

/// The patience.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// A voter that was missed this long is replaced. Shorter replaces what only restarts, longer leaves the group with one failure less to bear.
    pub replace_after: Duration,
    /// The same of one that said goodbye. Not at once: a node that is restarted in good order says goodbye, too.
    pub left_after: Duration,
}

impl Patience {
    /// Of voters that are away; with those that said goodbye it is no more patient.
    pub fn new(replace_after: Duration) -> Self {
        Self { replace_after, left_after: replace_after.min(Duration::from_secs(30)) }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::new(Duration::from_secs(300))
    }
}

/// What the leader sees.
#[derive(Debug)]
pub struct Seen<'a> {
    /// Its own data directory.
    pub me: StorageId,
    /// Since when it leads.
    pub since: Instant,
    /// The group.
    pub status: &'a Status,
    /// What it has decided.
    pub state: &'a State,
    /// When each member last answered this leader.
    pub heard: &'a BTreeMap<StorageId, Instant>,
    /// Members of the mesh that may be spoken to.
    pub active: &'a BTreeSet<StorageId>,
    /// Members of the mesh that said goodbye.
    pub left: &'a BTreeSet<StorageId>,
}

/// A change of who is in the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This one follows from now on. Whoever comes does, first.
    AddLearner(StorageId),
    /// This one does no longer.
    RemoveLearner(StorageId),
    /// These vote.
    SetVoters(BTreeSet<StorageId>),
}

impl Patience {
    /// The next change.
    #[must_use]
    pub fn next(&self, now: Instant, seen: &Seen<'_>) -> Option<Change> {
        let voters = &seen.status.voters;
        if seen.status.is_joint {
            // A leader was lost in the middle of a change: it is finished first.
            return Some(Change::SetVoters(voters.clone()));
        }
        let is_known = |it: &StorageId| seen.state.storages().contains_key(it);
        let gone = seen.status.learners.iter().find(|it| !is_known(it));
        let new = || {
            let room = seen.status.learners.len() < LEARNERS_MAX;
            let is_in = |it: &StorageId| voters.contains(it) || seen.status.learners.contains(it);
            seen.active.iter().filter(|_| room).find(|it| is_known(it) && !is_in(it))
        };
        gone.map(|it| Change::RemoveLearner(*it))
            .or_else(|| new().map(|it| Change::AddLearner(*it)))
            .or_else(|| self.replace(now, seen).map(Change::SetVoters))
            .or_else(|| grow(now, seen).map(Change::SetVoters))
    }

    /// One lost voter out; in for it, in the same change, one that is caught up. A forgotten one goes without that: somebody said so.
    fn replace(&self, now: Instant, seen: &Seen<'_>) -> Option<BTreeSet<StorageId>> {
        let voters = &seen.status.voters;
        let missed = |it: StorageId| now.saturating_duration_since(seen.answered(it));
        let is_forgotten = |it: StorageId| !seen.state.storages().contains_key(&it);
        let is_lost = |it: &&StorageId| {
            let patience = if seen.left.contains(it) { self.left_after } else { self.replace_after };
            **it != seen.me && (is_forgotten(**it) || missed(**it) >= patience)
        };
        let lost = voters.iter().filter(is_lost).max_by_key(|it| (is_forgotten(**it), missed(**it)))?;
        let mut next = voters.clone();
        next.remove(lost);
        match best(now, seen, &next) {
            Some(replacement) => drop(next.insert(replacement)),
            None if is_forgotten(*lost) || planted(Fault::VotersShrink) => {}
            None => return None,
        }
        (is_majority_there(now, seen, voters) && is_majority_there(now, seen, &next)).then_some(next)
    }
}

/// As many more voters as make the next size, if they are there.
fn grow(now: Instant, seen: &Seen<'_>) -> Option<BTreeSet<StorageId>> {
    let mut next = seen.status.voters.clone();
    let ready = seen.status.learners.iter().filter(|it| seen.is_caught_up(now, **it)).count();
    // One that is away does not count: whoever comes meanwhile is there to replace it.
    let there = next.iter().filter(|it| seen.is_there(now, **it)).count() + ready;
    let size = SIZES.into_iter().find(|it| *it > next.len()).filter(|it| *it <= there)?;
    while next.len() < size {
        next.insert(best(now, seen, &next)?);
    }
    (is_majority_there(now, seen, &seen.status.voters) && is_majority_there(now, seen, &next)).then_some(next)
}

/// The follower to vote beside these: caught up, in the zone with the fewest of them.
fn best(now: Instant, seen: &Seen<'_>, voters: &BTreeSet<StorageId>) -> Option<StorageId> {
    let zone = |it: &StorageId| seen.state.storages().get(it).map_or("", |it| it.zone.as_str());
    let crowd = |it: &StorageId| voters.iter().filter(|voter| zone(voter) == zone(it)).count();
    let learners = seen.status.learners.iter().filter(|it| !voters.contains(it) && seen.is_caught_up(now, **it));
    learners.min_by_key(|it| (crowd(it), **it)).copied()
}

fn is_majority_there(now: Instant, seen: &Seen<'_>, voters: &BTreeSet<StorageId>) -> bool {
    voters.iter().filter(|it| seen.is_there(now, **it)).count() * 2 > voters.len()
}

impl Seen<'_> {
    /// When a member last answered. A new leader has asked nobody before it took office.
    fn answered(&self, whom: StorageId) -> Instant {
        self.heard.get(&whom).map_or(self.since, |it| (*it).max(self.since))
    }

    fn is_there(&self, now: Instant, whom: StorageId) -> bool {
        let answered = self.heard.get(&whom);
        whom == self.me || answered.is_some_and(|it| now.saturating_duration_since(*it) <= HEALTHY_WITHIN)
    }

    fn is_caught_up(&self, now: Instant, whom: StorageId) -> bool {
        let matched = self.status.matched.get(&whom).is_some_and(|it| it + LAG_MAX >= self.status.last);
        (matched || planted(Fault::LaggardsVote))
            && self.is_there(now, whom)
            && self.state.storages().contains_key(&whom)
    }
}
