//! The node that leads history is killed again and again, while clients write and read at all.

use std::time::Duration;

use cluster_tests::lasting;
use smg::base::clock::Clock;
use tokio::task::LocalSet;

use super::Clients;
use super::Fleet;
use super::STARTING;
use crate::case::Case;
use crate::case::spread;
use crate::fleet::Start;

const KILLS: usize = 4;
const WRITERS: usize = 6;
/// What the group is made for, and half as much again for a debug build beside others.
const GAP_MAX: Duration = Duration::from_secs(12);
/// Writes before a kill.
const BETWEEN: Duration = Duration::from_millis(1500);

/// Kills it so often; how long after each kill nobody was told of a write.
async fn kills(case: &Case, kills: usize) -> Vec<Duration> {
    let mut fleet = Fleet::started(case, 3, &[]).await;
    let conversation = fleet.conversation().await;
    fleet.one_history(3).await;
    let mut gaps = Vec::new();
    LocalSet::new()
        .run_until(async {
            let mut clients = Clients::new(&fleet, &conversation);
            clients.begin(WRITERS, false);
            for _ in 0..kills {
                lasting(BETWEEN).await;
                let leader = fleet.history_leader().await;
                let (killed, before) = (Clock.now(), clients.acknowledged());
                fleet.kill(leader);
                cluster_tests::within("items are added again", GAP_MAX, async || {
                    lasting(Duration::from_millis(50)).await;
                    clients.acknowledged() > before + 3 * WRITERS
                })
                .await;
                gaps.push(clients.seen.borrow().gap(killed));
                fleet.start(leader, &Start::default());
                fleet.whole(STARTING).await;
                fleet.one_history(3).await;
            }
            let seen = clients.end().await;
            let last = fleet.items_everywhere(&conversation).await;
            case.did("what was seen is checked");
            seen.check(&last);
            case.bites("clients noticed", seen.unavailable > 0);
            case.figure(format_args!(
                "0 of {} items lost or twice over {kills} kills of the leader; {} reads fit one order; {} requests were sent again",
                seen.added.len(), seen.reads.len(), seen.unavailable
            ));
        })
        .await;
    fleet.check_alive();
    gaps
}

pub(crate) async fn killed(case: &Case) {
    let gaps = kills(case, KILLS).await;
    case.figure(format_args!("without a write: {}", spread(&gaps)));
}

/// The same as a row.
pub(crate) async fn figure(case: &Case) {
    let mut gaps = kills(case, crate::report::asked("KILLS", 20)).await;
    gaps.sort_unstable();
    let at = |share: f64| crate::report::percentile(&gaps, share);
    println!(
        "| kill -9 of history's leader of 3, {WRITERS} writers | N={} | without an acknowledged write p50 {:.2} s, p90 {:.2} s, max {:.2} s |",
        gaps.len(),
        at(0.5),
        at(0.9),
        at(1.0)
    );
}
