//! Whether the rounds would notice: processes that break one rule on purpose must come out as violations.
//!
//! The binary is a build with the feature `planted`. A bug whose place was not reached shows nothing; it is told as that, and not as one that was missed.

use std::process::ExitCode;

use jepsen::page::Outcome;
use smg::base::entropy::Entropy;

use super::Book;
use super::plan::PLANS;
use super::plan::Plan;
use crate::report::asked;

/// A rule that is broken, and the scenarios in which somebody should notice.
struct Bug {
    name: &'static str,
    plans: &'static [&'static str],
}

const fn bug(name: &'static str, plans: &'static [&'static str]) -> Bug {
    Bug { name, plans }
}

#[rustfmt::skip]
const BUGS: &[Bug] = &[
    bug("api::TheTriedAreAskedAgain", &["worker_resets"]),
    bug("api::CutStreamsEndWell", &["worker_cuts", "worker_dies"]),
    bug("api::LeftRequestsGoOn", &["worker_stalls", "overload"]),
    bug("routing::BusyIsPassedOn", &["worker_503"]),
    bug("routing::GarbageIsPassedOn", &["worker_garbage"]),
    bug("workers::UnansweredStayCounted", &["worker_resets", "worker_garbage", "worker_503", "worker_dies"]),
    bug("node::NobodyIsWaitedFor", &["roll", "drain"]),
    bug("storage::FailuresAreForgotten", &["flushes_fail"]),
    bug("storage::SlowDisksAreBroken", &["stalled_disk"]),
    bug("raft::EntriesAreNotSynced", &["power_all", "power_one"]),
    bug("raft::VotesAreNotSynced", &["power_all", "power_one"]),
    bug("raft::LeadersConfirmThemselves", &["pause_leader", "cut_leader", "mute_leader", "deaf_leader"]),
    bug("raft::OfficesOutliveTheProcess", &["power_all", "kill_all", "kill_leader"]),
    bug("raft::FullDisksTakeCommands", &["full_disks", "full_disk"]),
    bug("history::UnheardLeadersAreNotNeeded", &["mute_follower", "deaf_leader", "mute_leader", "bridge", "ring"]),
    bug("history::ReadsAskNobody", &["far", "narrow", "slow_disk", "cut_follower", "pause"]),
    bug("history::RetriesCountTwice", &["kill_leader", "flaky", "cut_leader"]),
    bug("history::OldAttemptsWrite", &["pause", "kill", "cut_follower"]),
    bug("history::JobsAreStolen", &["kill", "pause"]),
    bug("history::EndsChange", &["kill", "pause", "kill_leader"]),
    bug("history::ItemsOutliveTheirResponse", &["kill"]),
    bug("history::LeasesComeBack", &["pause", "cut_follower"]),
    bug("limits::TransferCountsAgain", &["flaky", "cut_follower", "far"]),
    bug("limits::GivenIsNotSubtracted", &["flaky", "kill", "far"]),
    bug("limits::RestartKeepsRights", &["kill_all", "kill"]),
    bug("limits::RejectedBurns", &["flaky", "kill"]),
    bug("limits::HoldIsForEver", &["cut_follower"]),
    bug("replication::AckBeforeDurable", &["power_all", "power_one"]),
    bug("replication::EditRevives", &["apart", "cut_follower", "flaky"]),
    bug("replication::DeleteForgetsTheBirth", &["apart", "cut_follower", "kill"]),
    bug("replication::ActorWithoutBoot", &["kill_all", "kill", "power_all"]),
    bug("replication::ContextIsNotWritten", &["kill_all", "kill", "power_all"]),
    bug("replication::RefusedCountsAsKnown", &["apart", "cut_follower"]),
    bug("replication::MergeTakesTheLast", &["apart", "cut_follower"]),
    bug("replication::StampsFollowTheWallClock", &["clock_of_leader", "clock_behind", "clock_ahead"]),
    bug("membership::SleepCounts", &["pause_observer", "pause"]),
    bug("membership::GoodbyesAreNotHeard", &["drain", "roll"]),
    bug("transport::CopiesStart", &["old_backup"]),
    bug("transport::PathsAreIdentities", &["wipe"]),
    bug("control::OldLivesAreHeard", &["kill", "flaky"]),
];

/// Each bug that the command line names, in up to `N` lives.
pub(crate) fn run() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let chosen: Vec<&Bug> =
        BUGS.iter().filter(|it| words.is_empty() || words.iter().any(|word| it.name.contains(word))).collect();
    let seed = std::env::var("SEED").ok().and_then(|it| it.parse().ok());
    let entropy = seed.map_or_else(Entropy::from_os, Entropy::seeded);
    let (lives, revision) = (asked("N", 4), super::revision());
    let mut caught = 0;
    for bug in &chosen {
        let is_caught = is_caught(bug, lives, &revision, &entropy);
        caught += usize::from(is_caught);
    }
    Book::open(&revision, None).publish();
    println!("{caught} caught of {} planted", chosen.len());
    if caught == chosen.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn is_caught(bug: &Bug, lives: usize, revision: &str, entropy: &Entropy) -> bool {
    let book = Book::open(revision, Some(bug.name.to_owned()));
    let plans: Vec<&'static Plan> =
        bug.plans.iter().filter_map(|name| PLANS.iter().find(|it| it.name == *name)).collect();
    assert_eq!(plans.len(), bug.plans.len(), "{}: a scenario that there is not", bug.name);
    let (mut rounds, mut is_reached) = (0, false);
    for turn in 0..lives {
        // Those of one ground at a time; the first of a bug's list more often.
        let first = plans[turn % plans.len()];
        let these: Vec<&'static Plan> =
            plans.iter().filter(|it| (it.ground, it.nodes) == (first.ground, first.nodes)).copied().collect();
        let these: Vec<&'static Plan> = these.iter().cycle().take(these.len().max(4)).copied().collect();
        let Some(lived) = super::life(&these, &book.identity, entropy.next_u64() >> 32, rounds) else { continue };
        book.keep(&lived);
        is_reached |= lived.rounds.iter().flat_map(|it| &it.bit).any(|it| it.what.contains("was reached") && it.is_so);
        let violated = lived.rounds.iter().position(|it| it.verdict() == Outcome::Violated);
        if let Some(at) = violated.filter(|_| is_reached) {
            println!("CAUGHT   {} in round {}", bug.name, rounds + at as u64 + 1);
            return true;
        }
        rounds += lived.rounds.len() as u64;
    }
    let how = if is_reached { "not noticed" } else { "never reached" };
    println!("MISSED   {}: {how} in {rounds} rounds", bug.name);
    false
}
