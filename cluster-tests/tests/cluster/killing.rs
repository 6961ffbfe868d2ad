//! A node that dies is seen by all others within three seconds, and is back as soon as it runs again.

use std::time::Duration;

use cluster_tests::within;
use smg::base::clock::Clock;

use super::case::Case;
use super::case::spread;
use super::fleet::Fleet;
use super::fleet::STARTING;
use super::fleet::Start;

/// The promise is the 99th hundredth of the release build on a machine of its own; this allows for a debug build beside others.
const DETECTION_MAX: Duration = Duration::from_secs(4);

pub(crate) async fn is_seen(case: &Case) {
    let mut fleet = Fleet::started(case, 5, &[]).await;
    let (mut seen, mut back) = (Vec::new(), Vec::new());
    for victim in case.shuffled(5) {
        let killed = Clock.now();
        fleet.kill(victim);
        for at in fleet.running() {
            let what = format!("node {at} sees that node {victim} is down");
            within(&what, DETECTION_MAX, async || fleet.members(at).await.get(&victim).is_some_and(|it| it == "down"))
                .await;
            seen.push(Clock.now() - killed);
        }
        case.did(format_args!("start of node {victim}"));
        fleet.start(victim, &Start::default());
        back.push(fleet.whole(STARTING).await);
    }
    case.figure(format_args!("down at each survivor: {}", spread(&seen)));
    case.figure(format_args!("all see all after a start: {}", spread(&back)));
    fleet.check_alive();
}
