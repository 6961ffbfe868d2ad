//! Each planted bug is found by a scenario within these seeds, or the scenario proves nothing.

use super::cut_off_leader;
use super::disk::a_little_behind;
use super::disk::all_full;
use super::failover::cut_off_follower;
use super::overlapping;
use super::troubles;
use super::voted_and_gone;
use crate::control::faults;
use crate::control::faults::Fault;
use crate::raft::faults as raft_faults;
use crate::raft::faults::Fault as RaftFault;

const SEEDS: std::ops::Range<u64> = 0..24;

fn find(what: &str, scenario: impl Fn(u64) -> Result<(), String>) {
    let found = SEEDS.into_iter().find_map(|seed| scenario(seed).err().map(|error| (seed, error)));
    let (seed, error) = found.unwrap_or_else(|| panic!("{what} was not found in {SEEDS:?}"));
    println!("{what}: seed {seed}: {}", error.lines().next().unwrap_or_default());
}

fn more_than_one(fault: Fault) {
    faults::plant(Some(fault));
    find(&format!("{fault:?}"), |seed| match overlapping(seed) {
        Err(error) if error.starts_with("more than one cluster") => Err(error),
        Err(_) | Ok(_) => Ok(()),
    });
    faults::plant(None);
}

#[test]
fn a_grant_that_is_given_twice_makes_two_clusters() {
    more_than_one(Fault::GrantsAreGivenTwice);
}

#[test]
fn a_majority_of_grants_makes_two_clusters() {
    more_than_one(Fault::AMajorityFounds);
}

#[test]
fn a_vote_that_is_not_on_disk_is_taken_back() {
    raft_faults::plant(Some(RaftFault::VotesAreNotSynced));
    find("VotesAreNotSynced", voted_and_gone);
    raft_faults::plant(None);
}

#[test]
fn a_leader_that_confirms_itself_goes_on_alone() {
    raft_faults::plant(Some(RaftFault::LeadersConfirmThemselves));
    find("LeadersConfirmThemselves", cut_off_leader);
    raft_faults::plant(None);
}

#[test]
fn a_follower_that_asks_nobody_first_ends_the_office_of_a_leader() {
    raft_faults::plant(Some(RaftFault::NobodyIsCanvassed));
    find("NobodyIsCanvassed", cut_off_follower);
    raft_faults::plant(None);
}

#[test]
fn a_message_without_a_bound_takes_longer_than_a_heartbeat() {
    raft_faults::plant(Some(RaftFault::MessagesHaveNoBound));
    find("MessagesHaveNoBound", a_little_behind);
    raft_faults::plant(None);
}

#[test]
fn a_full_disk_that_takes_commands_is_found() {
    raft_faults::plant(Some(RaftFault::FullDisksTakeCommands));
    find("FullDisksTakeCommands", all_full);
    raft_faults::plant(None);
}

#[test]
fn an_entry_that_is_not_on_disk_is_lost() {
    raft_faults::plant(Some(RaftFault::EntriesAreNotSynced));
    find("EntriesAreNotSynced", |seed| troubles::seed(seed).map(drop));
    raft_faults::plant(None);
}
