//! Whether the rounds would notice: processes that break one rule on purpose must come out as violations.
//!
//! The binary is a build with the feature `planted`. A bug whose place was not reached shows nothing; it is told as that, and not as one that was missed.

use std::process::ExitCode;

use jepsen::page::Round;
use smg::base::entropy::Entropy;

use super::Book;
use super::Director;
use super::Next;
use super::life::Identity;
use super::life::Lived;
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

// Left to the simulations, since nobody outside can see them: `limits::HoldIsForEver` (a share is held for ten minutes), `limits::RejectedBurns` (less is admitted than could be, which
// no history of answers refutes), `replication::ActorWithoutBoot` (the numbers go on after those that are on disk), `replication::RefusedCountsAsKnown` (an honest member's stamps are
// never refused) and `control::OldLivesAreHeard` (what a process sent is not heard again once it is gone).
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
    bug("storage::FullDisksAreBroken", &["full_disk", "full_disks"]),
    bug("storage::TornLogsAreRefused", &["torn_log", "power_one", "power_all"]),
    bug("raft::EntriesAreNotSynced", &["power_all", "power_one"]),
    bug("raft::VotesAreNotSynced", &["power_vote"]),
    bug("raft::LeadersConfirmThemselves", &["pause_leader", "cut_leader", "mute_leader", "deaf_leader"]),
    bug("raft::OfficesOutliveTheProcess", &["power_all", "kill_all", "kill_leader"]),
    bug("raft::FullDisksTakeCommands", &["full_disks"]),
    bug("history::UnheardLeadersAreNotNeeded", &["mute_follower", "deaf_leader", "mute_leader", "bridge", "ring"]),
    bug("history::ReadsAskNobody", &["far", "narrow", "slow_disk", "snapshot_cut", "cut_follower", "pause"]),
    bug("history::RetriesCountTwice", &["kill_leader", "flaky", "cut_leader"]),
    bug("history::OldAttemptsWrite", &["cut_follower", "pause"]),
    bug("history::JobsAreStolen", &["kill", "pause"]),
    bug("history::EndsChange", &["kill", "pause", "kill_leader"]),
    bug("history::ItemsOutliveTheirResponse", &["kill"]),
    bug("history::LeasesComeBack", &["pause", "cut_follower", "mute_follower"]),
    bug("limits::TransferCountsAgain", &["flaky", "cut_follower", "far"]),
    bug("limits::GivenIsNotSubtracted", &["flaky", "kill", "far"]),
    bug("limits::RestartKeepsRights", &["kill_all", "kill"]),
    bug("replication::AckBeforeDurable", &["power_all", "power_one"]),
    bug("replication::EditRevives", &["apart", "cut_follower", "flaky"]),
    bug("replication::DeleteForgetsTheBirth", &["apart", "cut_follower", "kill"]),
    bug("replication::ContextIsNotWritten", &["kill_all", "kill", "power_all"]),
    bug("replication::MergeTakesTheLast", &["apart", "cut_follower"]),
    bug("replication::StampsFollowTheWallClock", &["clock_of_leader", "clock_behind", "clock_ahead", "clocks_drift"]),
    bug("membership::SleepCounts", &["pause_observer", "pause"]),
    bug("membership::GoodbyesAreNotHeard", &["drain", "roll"]),
    bug("transport::CopiesStart", &["old_backup"]),
    bug("transport::PathsAreIdentities", &["wipe"]),
];

/// Rounds of one life: the last ones see what earlier ones left behind.
const ROUNDS: usize = 4;

/// Each bug that the command line names, in its scenarios, until the bug and every scenario of it has been seen, or each pair had `N` lives. What was there already counts.
pub(crate) fn run() -> ExitCode {
    if let Some(seed) = super::number("LIFE") {
        return super::again::run(seed);
    }
    let words = super::words();
    let chosen: Vec<&'static Bug> =
        BUGS.iter().filter(|it| words.is_empty() || words.iter().any(|word| it.name.contains(word))).collect();
    for name in chosen.iter().flat_map(|it| it.plans) {
        assert!(plan(name).is_some(), "{name}: a scenario that there is not");
    }
    if let Some(plan) = PLANS.iter().find(|it| !BUGS.iter().any(|bug| bug.plans.contains(&it.name))) {
        println!("no bug is planted for {}", plan.name);
        return ExitCode::FAILURE;
    }
    let book = Book::open(&super::revision());
    let mut score = Score { bugs: chosen, wanted: asked("N", 3), book, entropy: super::entropy() };
    super::live_all(&mut score);
    score.book.publish();
    let rounds = score.rounds();
    let (bugs, scenarios) = (score.unseen_bugs(&rounds), score.unseen_scenarios(&rounds));
    for bug in &bugs {
        let of_bug: Vec<&Round> = rounds.iter().filter(|it| it.planted.as_deref() == Some(bug)).collect();
        let is_reached = of_bug.iter().flat_map(|it| &it.bit).any(|it| it.what == Round::REACHED && it.is_so);
        let how = if is_reached { "not noticed" } else { "never reached" };
        println!("MISSED   {bug}: {how} in {} rounds", of_bug.len());
    }
    for scenario in &scenarios {
        println!("UNPROVEN {scenario}: no round of it saw a planted bug");
    }
    println!("{} caught of {} planted", score.bugs.len() - bugs.len(), score.bugs.len());
    if bugs.is_empty() && scenarios.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn plan(name: &str) -> Option<&'static Plan> {
    PLANS.iter().find(|it| it.name == name)
}

/// What is still to be seen.
struct Score {
    bugs: Vec<&'static Bug>,
    wanted: usize,
    book: Book,
    entropy: Entropy,
}

impl Score {
    /// Those of this revision in which a bug was planted, whichever. The file has all that ever was, with what happened when: it is read once for each life.
    fn rounds(&self) -> Vec<Round> {
        let mut rounds = self.book.rounds();
        rounds.retain(|it| it.revision == self.book.identity.revision && it.planted.is_some());
        rounds
    }

    fn unseen_bugs(&self, rounds: &[Round]) -> Vec<&'static str> {
        let seen = |name: &str| rounds.iter().any(|it| it.planted.as_deref() == Some(name) && it.shows_its_bug());
        self.bugs.iter().map(|it| it.name).filter(|it| !seen(it)).collect()
    }

    /// Scenarios in which no bug was seen, whichever; of those that the chosen bugs name.
    fn unseen_scenarios(&self, rounds: &[Round]) -> Vec<&'static str> {
        let mut all: Vec<&str> = self.bugs.iter().flat_map(|it| it.plans).copied().collect();
        all.sort_unstable();
        all.dedup();
        all.retain(|name| !rounds.iter().any(|it| it.scenario == *name && it.shows_its_bug()));
        all
    }
}

impl Director for Score {
    fn next(&mut self, under_way: &[Next]) -> Option<Next> {
        let rounds = self.rounds();
        let (bugs, scenarios) = (self.unseen_bugs(&rounds), self.unseen_scenarios(&rounds));
        let is_under_way = |bug: &str, plan: &str| {
            under_way
                .iter()
                .any(|it| it.identity.planted.as_deref() == Some(bug) || it.plans.iter().any(|it| it.name == plan))
        };
        let mut best: Option<((bool, usize), &'static str, &'static Plan, u64)> = None;
        for bug in &self.bugs {
            let of_bug: Vec<&Round> = rounds.iter().filter(|it| it.planted.as_deref() == Some(bug.name)).collect();
            for plan in bug.plans.iter().filter_map(|it| plan(it)) {
                let needs = usize::from(bugs.contains(&bug.name)) + usize::from(scenarios.contains(&plan.name));
                let tried = of_bug.iter().filter(|it| it.scenario == plan.name).count().div_ceil(ROUNDS);
                if needs == 0 || tried >= self.wanted || is_under_way(bug.name, plan.name) {
                    continue;
                }
                // Those that may prove two things first, then those that were tried less.
                let rank = (needs < 2, tried);
                if best.as_ref().is_none_or(|it| rank < it.0) {
                    best = Some((rank, bug.name, plan, of_bug.len() as u64));
                }
            }
        }
        let (_, bug, plan, first) = best?;
        let identity = Identity { planted: Some(bug.to_owned()), ..self.book.identity.clone() };
        Some(Next { plans: vec![plan; ROUNDS], identity, seed: self.entropy.next_u64() >> 32, first })
    }

    fn keep(&mut self, next: &Next, lived: &Lived) {
        self.book.keep(lived);
        if let Some(round) = lived.rounds.iter().find(|it| it.shows_its_bug()) {
            let bug = next.identity.planted.as_deref().unwrap_or_default();
            println!("CAUGHT   {bug} by {} in round {}", round.scenario, round.number + 1);
        }
    }
}
