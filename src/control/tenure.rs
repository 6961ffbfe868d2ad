//! What a node does while it leads a group of the control group's members, whichever group that is: since when it leads, who could lead after it, and changes of members.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;

use super::core::voters::Change;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::raft::Group;
use crate::raft::Machine;
use crate::raft::Status;

/// A leader that stops waits so long for another one: a vote takes two fsyncs and two ways.
pub const HAND_OVER_LIMIT: Duration = Duration::from_secs(1);

/// Who leads, and this node's own time in office.
#[derive(Debug, Default)]
pub struct Tenure {
    /// Who leads, as was said last.
    leader: Option<StorageId>,
    /// The term this node leads in, and since when.
    own: Option<(u64, Instant)>,
}

impl Tenure {
    /// Looks at how the group is, and tells when another leads. Since when this node does, if it does.
    pub fn look(&mut self, now: Instant, me: StorageId, status: &Status, group: &'static str) -> Option<Instant> {
        if self.leader != status.leader {
            self.leader = status.leader;
            let leader = status.leader.map_or_else(|| "nobody".to_owned(), |it| it.to_string());
            tracing::info!(group, leader, term = status.term, "who leads");
        }
        self.own = match self.own {
            _ if status.leader != Some(me) => None,
            Some((term, since)) if term == status.term => Some((term, since)),
            _ => Some((status.term, now)),
        };
        self.own.map(|it| it.1)
    }
}

/// Voters that could lead after this node, the furthest first. None of them: it does not lead, or nobody follows.
#[must_use]
pub fn successors(status: &Status, me: StorageId, active: &BTreeSet<StorageId>) -> Vec<StorageId> {
    if status.leader != Some(me) {
        return Vec::new();
    }
    let can_lead = |it: &StorageId| *it != me && status.voters.contains(it) && active.contains(it);
    let mut others: Vec<_> = status.matched.iter().filter(|it| can_lead(it.0)).map(|it| (*it.1, *it.0)).collect();
    others.sort_unstable_by(|a, b| b.cmp(a));
    others.into_iter().map(|it| it.1).collect()
}

/// Goes on until another leads.
pub async fn until_another_leads<M: Machine, E>(
    group: &Group<M>,
    goes_on: impl Future<Output = Result<(), E>>,
) -> Result<(), E> {
    // ORDER: it goes on until then, because its own vote is needed for that.
    tokio::select! {
        ended = goes_on => ended,
        _ = timeout(HAND_OVER_LIMIT, group.is_led_by_another()) => Ok(()), // later, another is elected without it
    }
}

/// Changes who is in a group. One that is not made is looked at again.
pub async fn make<M: Machine>(group: &Group<M>, change: Change) {
    let changed = match change {
        Change::AddLearner(whom) => group.add_learner(whom).await,
        Change::RemoveLearner(whom) => group.remove_learner(whom).await,
        Change::SetVoters(voters) => group.set_voters(voters).await,
    };
    if let Err(error) = changed {
        tracing::debug!(%error, "the change was not made; it is looked at again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;

    fn status(leader: u128, term: u64) -> Status {
        let voters = [1, 2, 3].map(StorageId).into();
        let matched = [(1, 9), (2, 7), (3, 8), (4, 9)].map(|it| (StorageId(it.0), it.1)).into();
        Status { leader: Some(StorageId(leader)), term, voters, matched, ..Status::default() }
    }

    #[test]
    fn an_office_begins_with_its_term_and_ends_with_another_leader() {
        let (mut tenure, me, now) = (Tenure::default(), StorageId(1), Clock.now());
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(tenure.look(at(0), me, &status(2, 1), "test"), None);
        assert_eq!(tenure.look(at(1), me, &status(1, 2), "test"), Some(at(1)));
        assert_eq!(tenure.look(at(2), me, &status(1, 2), "test"), Some(at(1)));
        assert_eq!(tenure.look(at(3), me, &status(1, 4), "test"), Some(at(3)), "it was lost and won meanwhile");
        assert_eq!(tenure.look(at(4), me, &status(3, 5), "test"), None);
    }

    #[test]
    fn only_voters_that_are_there_succeed_the_furthest_first_and_only_a_leader() {
        let active = [2, 3, 4].map(StorageId).into();
        assert_eq!(successors(&status(1, 1), StorageId(1), &active), [StorageId(3), StorageId(2)]);
        assert_eq!(successors(&status(1, 1), StorageId(1), &[StorageId(2)].into()), [StorageId(2)]);
        assert_eq!(successors(&status(2, 1), StorageId(1), &active), []);
    }
}
