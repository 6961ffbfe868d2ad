//! Any group as a leader may see it: what is changed obeys the rules, whatever is away.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use super::sees;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;
use crate::base::ids::ClusterId;
use crate::base::ids::StorageId;
use crate::control::core::voters::Change;
use crate::control::core::voters::Patience;
use crate::control::core::voters::Seen;
use crate::control::faults::Fault;
use crate::control::machine::Command;
use crate::control::machine::Register;
use crate::control::machine::State;
use crate::raft::Status;

/// A group as its leader, node 1, sees it.
struct View {
    now: Instant,
    since: Instant,
    status: Status,
    state: State,
    heard: BTreeMap<StorageId, Instant>,
    active: BTreeSet<StorageId>,
    left: BTreeSet<StorageId>,
}

fn ids(numbers: &[u128]) -> BTreeSet<StorageId> {
    numbers.iter().map(|it| StorageId(*it)).collect()
}

fn state(storages: impl IntoIterator<Item = (u128, &'static str)>) -> State {
    let mut state = State::default();
    state.decide(1, Command::Found { cluster: ClusterId(1), level: 1 }, &mut Vec::new());
    for (index, (storage, zone)) in (2..).zip(storages) {
        let (storage, zone) = (StorageId(storage), zone.to_owned());
        let register = Register { storage, boot: 1, nonce: 1, node: String::new(), zone, level_max: 1 };
        state.decide(index, Command::Register(register), &mut Vec::new());
    }
    state
}

impl View {
    /// All there and caught up.
    fn new(voters: &[u128], learners: &[u128]) -> Self {
        let now = Clock.now() + Duration::from_secs(10_000);
        let all: Vec<u128> = voters.iter().chain(learners).copied().collect();
        let (voters, learners) = (ids(voters), ids(learners));
        let matched = all.iter().map(|it| (StorageId(*it), 100)).collect();
        let status = Status { leader: Some(StorageId(1)), voters, learners, last: 100, matched, ..Status::default() };
        let heard = all.iter().map(|it| (StorageId(*it), now)).collect();
        let state = state(all.iter().map(|it| (*it, "")));
        Self { now, since: now - Duration::from_secs(5_000), status, state, heard, active: ids(&all), left: ids(&[]) }
    }

    fn away(mut self, whom: u128, lasts: u64) -> Self {
        self.heard.insert(StorageId(whom), self.now - Duration::from_secs(lasts));
        self
    }

    fn next(&self) -> Option<Change> {
        let Self { now, since, status, state, heard, active, left } = self;
        let me = StorageId(1);
        Patience::default().next(*now, &Seen { me, since: *since, status, state, heard, active, left })
    }

    fn expect(&self, voters: &[u128]) {
        assert_eq!(self.next(), Some(Change::SetVoters(ids(voters))), "{:?}", self.status);
    }
}

#[test]
fn voters_grow_by_the_sizes_that_bear_more_failures() {
    View::new(&[1], &[2]).expect(&[1, 2]);
    View::new(&[1], &[2, 3]).expect(&[1, 2]);
    View::new(&[1, 2], &[3]).expect(&[1, 2, 3]);
    assert_eq!(View::new(&[1, 2, 3], &[4]).next(), None, "four bear no more than three");
    View::new(&[1, 2, 3], &[4, 5]).expect(&[1, 2, 3, 4, 5]);
    assert_eq!(View::new(&[1, 2, 3, 4, 5], &[6, 7]).next(), None);
}

#[test]
fn a_voter_is_replaced_when_the_leader_missed_it_long_enough_and_somebody_is_there_for_it() {
    assert_eq!(View::new(&[1, 2, 3], &[4]).away(3, 299).next(), None);
    View::new(&[1, 2, 3], &[4]).away(3, 300).expect(&[1, 2, 4]);
    assert_eq!(View::new(&[1, 2, 3], &[]).away(3, 900).next(), None, "fewer is no answer");
    assert_eq!(View::new(&[1, 2, 3], &[4]).away(3, 900).away(4, 10).next(), None, "nobody is there");
    assert_eq!(View::new(&[1, 2, 3], &[4]).away(3, 900).away(2, 10).next(), None, "no majority would be");
    let mut view = View::new(&[1, 2, 3], &[4]).away(3, 31);
    view.left = ids(&[3]);
    view.expect(&[1, 2, 4]);
    let mut office = View::new(&[1, 2, 3], &[4]).away(3, 900);
    office.since = office.now - Duration::from_secs(200);
    assert_eq!(office.next(), None, "a new leader counts from taking office");
}

#[test]
fn who_lacks_entries_follows_until_it_has_them() {
    let mut view = View::new(&[1, 2], &[3]);
    view.status.matched.insert(StorageId(3), 20);
    assert_eq!(view.next(), None);
    view.status.matched.insert(StorageId(3), 40);
    view.expect(&[1, 2, 3]);
}

#[test]
fn voters_are_spread_over_zones() {
    let mut view = View::new(&[1, 2, 3], &[4, 5]).away(3, 400);
    view.state = state([(1, "a"), (2, "b"), (3, "c"), (4, "a"), (5, "c")]);
    view.expect(&[1, 2, 5]);
}

#[test]
fn the_forgotten_go_and_newcomers_follow_first() {
    let mut view = View::new(&[1, 2, 3], &[]);
    view.state.decide(9, Command::Forget { storage: StorageId(3) }, &mut Vec::new());
    view.active.remove(&StorageId(3));
    view.expect(&[1, 2]);
    let mut view = View::new(&[1], &[2]);
    view.state = state([(1, ""), (2, ""), (3, "")]);
    view.active.insert(StorageId(3));
    view.active.insert(StorageId(4));
    assert_eq!(view.next(), Some(Change::AddLearner(StorageId(3))), "4 is not registered");
    view.state.decide(9, Command::Forget { storage: StorageId(2) }, &mut Vec::new());
    assert_eq!(view.next(), Some(Change::RemoveLearner(StorageId(2))));
}

#[test]
fn a_change_that_a_lost_leader_left_half_made_is_finished_first() {
    let mut view = View::new(&[1, 2, 3], &[4, 5]);
    view.status.is_joint = true;
    view.expect(&[1, 2, 3]);
}

#[test]
fn whatever_is_away_voters_never_become_fewer_and_a_majority_is_there_afterwards() {
    let entropy = Entropy::seeded(1);
    for _ in 0..20_000 {
        let (voters, learners) = (1 + entropy.below(5) as u128, entropy.below(4) as u128);
        let voting: Vec<u128> = (1..=voters).collect();
        let mut view = View::new(&voting, &(voters + 1..=voters + learners).collect::<Vec<_>>());
        for other in 2..=voters + learners {
            view = view.away(other, [0, 1, 10, 100, 400, 900][entropy.below(6)]);
            view.status.matched.insert(StorageId(other), [100, 50, 0][entropy.below(3)]);
            if entropy.below(4) == 0 {
                view.left.insert(StorageId(other));
            }
        }
        let Some(Change::SetVoters(next)) = view.next() else { continue };
        let before = &view.status.voters;
        let is_there = |it: &&StorageId| it.0 == 1 || view.now - view.heard[it] <= Duration::from_secs(3);
        assert!(next.len() >= before.len() && next.contains(&StorageId(1)), "{before:?} to {next:?}");
        assert!(before.difference(&next).count() <= 1, "one at a time");
        assert!(next.iter().filter(is_there).count() * 2 > next.len(), "no majority in {next:?}");
        for new in next.difference(before) {
            let is_ready = is_there(&new) && view.status.matched[new] + 64 >= 100;
            assert!(is_ready && view.status.learners.contains(new), "{new} votes too soon");
        }
    }
}

#[test]
fn planted_bugs_are_seen() {
    sees(Fault::VotersShrink, whatever_is_away_voters_never_become_fewer_and_a_majority_is_there_afterwards);
    sees(Fault::LaggardsVote, whatever_is_away_voters_never_become_fewer_and_a_majority_is_there_afterwards);
}
