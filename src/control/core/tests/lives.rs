//! Who is heard, and who may vote.

use std::collections::BTreeSet;

use super::sees;
use crate::base::ids::ClusterId;
use crate::base::ids::StorageId;
use crate::base::limits::STORAGES_MAX;
use crate::control::core::gate::Gate;
use crate::control::core::lives::Life;
use crate::control::core::lives::Lives;
use crate::control::core::lives::Registering;
use crate::control::faults::Fault;
use crate::control::machine::Command;
use crate::control::machine::Refusal;
use crate::control::machine::Register;
use crate::control::machine::State;
use crate::raft::frame;
use crate::raft::frame::Badge;

const fn id(number: u128) -> StorageId {
    StorageId(number)
}

const fn life(boot: u64, nonce: u64) -> Life {
    Life { boot, nonce }
}

#[test]
fn the_latest_start_counts_and_earlier_ones_are_told_that_they_are_copies() {
    let mut lives = Lives::default();
    assert_eq!(lives.register(id(1), life(3, 1)), Ok(true));
    assert_eq!(lives.register(id(1), life(3, 1)), Ok(false), "asked again");
    assert_eq!(lives.register(id(1), life(3, 2)), Err(Refusal::Copy { known: 3, boot: 3 }));
    assert_eq!(lives.register(id(1), life(2, 9)), Err(Refusal::Copy { known: 3, boot: 2 }));
    assert_eq!(lives.register(id(1), life(4, 2)), Ok(true));
    for other in 2..=STORAGES_MAX as u128 {
        assert_eq!(lives.register(id(other), life(1, 1)), Ok(true));
    }
    assert_eq!(lives.register(id(0), life(1, 1)), Err(Refusal::TooMany(STORAGES_MAX as u64)));
    lives.keep(|it| it == id(1));
    assert_eq!((lives.get(id(1)), lives.register(id(0), life(1, 1))), (Some(life(4, 2)), Ok(true)));
}

#[test]
fn a_voter_takes_part_once_a_majority_knows_and_a_follower_at_once() {
    let voters: BTreeSet<StorageId> = (1..=5).map(id).collect();
    let mut registering = Registering::new(id(1), voters.clone());
    registering.accepted(id(9));
    registering.accepted(id(2));
    registering.accepted(id(2));
    assert!(!registering.is_enough(), "two of five");
    registering.accepted(id(3));
    assert_eq!((registering.is_enough(), registering.counts()), (true, (3, 5)));
    assert_eq!(registering.open().collect::<Vec<_>>(), [id(4), id(5)], "the rest hears of it, too");
    assert!(Registering::new(id(9), voters).is_enough());
    assert!(Registering::new(id(1), [id(1)].into()).is_enough());
}

#[test]
fn only_members_in_their_latest_life_are_heard() {
    let (cluster, mut state) = (ClusterId(7), State::default());
    let mut act = |index, command| state.decide(index, command, &mut Vec::new());
    act(1, Command::Found { cluster, level: 1 });
    for storage in [2, 3] {
        let (node, zone) = Default::default();
        let register = Register { storage: id(storage), boot: 5, nonce: 5, node, zone, level_max: 1 };
        act(2, Command::Register(register));
    }
    act(4, Command::Forget { storage: id(3) });
    let mut lives = Lives::default();
    lives.register(id(2), life(6, 6)).unwrap();
    let members: BTreeSet<StorageId> = [id(1), id(2), id(4)].into();
    let gate = Gate { me: id(1), cluster, lives: &lives, state: &state, applied: 4, members: &members };
    let good = Badge { cluster: 7, boot: 6, nonce: 6, since: 2 };
    for (to, from, badge, expect) in [
        (1, 2, good, Ok(())),
        (1, 2, Badge { boot: 7, nonce: 1, ..good }, Ok(())), // it has told others
        (1, 2, Badge { boot: 5, nonce: 5, ..good }, Err(frame::Refusal::Over)),
        (1, 2, Badge { nonce: 7, ..good }, Err(frame::Refusal::Copy)),
        (1, 2, Badge { cluster: 8, ..good }, Err(frame::Refusal::OtherCluster)),
        (9, 2, good, Err(frame::Refusal::OtherStorage)),
        (1, 3, good, Err(frame::Refusal::Forgotten)),
        (1, 4, good, Ok(())), // in the group before it is registered: the founder
        (1, 9, good, Err(frame::Refusal::Outsider)),
        (1, 9, Badge { since: 5, ..good }, Ok(())), // registered after what is applied here
    ] {
        assert_eq!(gate.admit(id(to), id(from), &badge), expect, "{from} to {to} with {badge:?}");
    }
    let nobody = BTreeSet::new();
    let (lives, state) = Default::default();
    let fresh = Gate { lives: &lives, state: &state, applied: 0, members: &nobody, ..gate };
    assert_eq!(fresh.admit(id(1), id(9), &good), Ok(()), "who has nothing yet hears its first leader");
}

#[test]
fn planted_bugs_are_seen() {
    sees(Fault::LivesAreForgotten, the_latest_start_counts_and_earlier_ones_are_told_that_they_are_copies);
    sees(Fault::VotersNeedNotRegister, a_voter_takes_part_once_a_majority_knows_and_a_follower_at_once);
    sees(Fault::OldLivesAreHeard, only_members_in_their_latest_life_are_heard);
    sees(Fault::ClustersAreOne, only_members_in_their_latest_life_are_heard);
}
