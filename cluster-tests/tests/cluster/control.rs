//! The control group of real nodes: its leader is killed, its disks fill up, and it is one group with one memory throughout.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use cluster_tests::lasting;
use cluster_tests::within;
use serde_json::Value;
use smg::base::clock::Clock;

use super::case::Case;
use super::case::spread;
use super::fleet::Fleet;
use super::fleet::STARTING;
use super::fleet::Start;

/// Grants, an election of one, three changes of members.
pub(crate) const FORMING: Duration = Duration::from_secs(60);
/// Nobody votes for 2 s after the last heartbeat, and then within a draw of 1 to 2 s, twice if two stand at once. Debug builds beside others.
const FAILOVER_MAX: Duration = Duration::from_secs(12);
/// How exactly a failover is known.
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(20);
const KILLS: usize = 4;
/// Room for two write buffers and their files, and for what must stay free.
const DISK_BYTES: u64 = 64 << 20;

impl Fleet<'_> {
    /// The control group as one node sees it; null when it does not answer.
    pub(crate) async fn group(&self, at: usize) -> Value {
        let answer = self.ask(at, "GET", "/cluster/node", &Value::Null).await;
        answer.map(|it| it.1["control"].clone()).unwrap_or_default()
    }

    /// Waits until all that run are in one group of that many voters and agree on who leads.
    pub(crate) async fn one_group(&self, voters: usize) -> Duration {
        within(&format!("one group of {voters} voters"), FORMING, async || {
            let mut seen = BTreeSet::new();
            for at in self.running() {
                let group = self.group(at).await;
                let is_in = group["voters"].as_array().is_some_and(|it| it.len() == voters)
                    && group["changing_voters"] == false
                    && group["leader"].is_string();
                if !is_in {
                    return false;
                }
                seen.insert((
                    group["cluster_id"].to_string(),
                    group["leader"].to_string(),
                    group["voters"].to_string(),
                ));
            }
            seen.len() == 1
        })
        .await
    }

    pub(crate) async fn storage(&self, at: usize) -> String {
        let node = self.ask(at, "GET", "/cluster/node", &Value::Null).await.expect("it answers").1;
        node["storage_id"].as_str().expect("an id").to_owned()
    }

    /// The node that leads.
    pub(crate) async fn leader(&self) -> usize {
        let first = self.running()[0];
        let leader = self.group(first).await["leader"].clone();
        for at in self.running() {
            if leader == self.storage(at).await.as_str() {
                return at;
            }
        }
        panic!("{leader} leads, and is nobody's");
    }

    /// Kills the leader; how long until each of the others knows another one.
    pub(crate) async fn lose_leader(&mut self) -> (usize, Duration) {
        let lost = self.leader().await;
        let old = self.storage(lost).await;
        let killed = Clock.now();
        self.kill(lost);
        for at in self.running() {
            within("another leads", FAILOVER_MAX, async || {
                let is_so = self.group(at).await["leader"].as_str().is_some_and(|it| it != old);
                if !is_so {
                    lasting(BETWEEN_QUESTIONS).await;
                }
                is_so
            })
            .await;
        }
        (lost, Clock.now() - killed)
    }

    async fn highest(&self, what: &str) -> u64 {
        let mut highest = 0;
        for at in self.running() {
            highest = highest.max(self.group(at).await[what].as_u64().unwrap_or(0));
        }
        highest
    }
}

/// The leader is killed again and again. There is one cluster throughout, nobody votes who did not, nothing that was applied anywhere is missing afterwards,
/// and what was acknowledged at the start is known at the end: a node that was forgotten stays out.
pub(crate) async fn leaders_killed(case: &Case) {
    let mut fleet = Fleet::new(case, 4);
    // The seeds are those that form it; the fourth comes later.
    let seeds = fleet.nodes[..3].iter().map(|it| it.mesh.to_string()).collect();
    let start = Start { seeds: Some(seeds), ..Start::default() };
    for at in 0..3 {
        fleet.start(at, &start);
    }
    let took = fleet.one_group(3).await;
    case.figure(format_args!("formed in {:.2} s", took.as_secs_f64()));
    fleet.start(3, &start);
    within("the fourth follows", FORMING, async || fleet.group(3).await["leader"].is_string()).await;
    let forgotten = fleet.storage(3).await;
    fleet.kill(3);
    within("it is down", FORMING, async || fleet.members(0).await.get(&3).is_some_and(|it| it == "down")).await;
    let answer = fleet.ask(0, "DELETE", &format!("/cluster/members/{forgotten}"), &Value::Null).await;
    let (status, body) = answer.expect("it answers");
    assert_eq!((status, &body["agreed"]), (200, &true.into()), "{body}");
    case.did("the fourth node was forgotten");
    let before = fleet.group(0).await;
    let (mut times, mut applied) = (Vec::new(), 0);
    for _ in 0..KILLS {
        let (lost, took) = fleet.lose_leader().await;
        times.push(took);
        applied = applied.max(fleet.highest("applied").await);
        fleet.start(lost, &start);
        fleet.one_group(3).await;
    }
    for at in fleet.running() {
        within("all has come", FORMING, async || fleet.group(at).await["applied"].as_u64() >= Some(applied)).await;
        let after = fleet.group(at).await;
        assert_eq!((&after["cluster_id"], &after["voters"]), (&before["cluster_id"], &before["voters"]), "{after}");
    }
    fleet.start(3, &start);
    within("who was forgotten is told", FORMING, async || {
        fleet.group(3).await["standing"].as_str().is_some_and(|it| it.contains("was forgotten"))
    })
    .await;
    case.figure(format_args!("another led after {}", spread(&times)));
    fleet.check_alive();
}

/// A file that takes all the room of a node's own disk.
pub(crate) fn fill(fleet: &mut Fleet<'_>, at: usize) -> PathBuf {
    let inside = format!("/proc/{}/root{}", fleet.process(at).id(), fleet.nodes[at].data.display());
    let path = PathBuf::from(inside).join("fill");
    let mut file = std::fs::File::create(&path).expect("is made");
    while std::io::Write::write_all(&mut file, &[7; 65_536]).is_ok() {}
    while std::io::Write::write_all(&mut file, &[7; 512]).is_ok() {}
    fleet.case.did(format_args!("the disk of node {at} was filled"));
    path
}

/// Every node has a small disk of its own. The leader's is filled to the last byte, then all are; nobody ends, and with room the same processes go on.
pub(crate) async fn disks_full(case: &Case) {
    let mut fleet = Fleet::new(case, 3);
    let small = Start { disk_bytes: Some(DISK_BYTES), ..Start::default() };
    for at in 0..3 {
        fleet.start(at, &small);
    }
    fleet.whole(STARTING).await;
    fleet.one_group(3).await;
    let full = fleet.leader().await;
    let old = fleet.storage(full).await;
    let filled = fill(&mut fleet, full);
    let begun = Clock.now();
    within("another leads", FORMING, async || {
        fleet.group((full + 1) % 3).await["leader"].as_str().is_some_and(|it| it != old)
    })
    .await;
    case.figure(format_args!(
        "another led {:.2} s after the leader's disk was full",
        (Clock.now() - begun).as_secs_f64()
    ));
    fleet.one_group(3).await;
    let health = fleet.ask(full, "GET", "/cluster/health", &Value::Null).await.expect("it answers").1;
    assert!(health["reasons"].to_string().contains("the disk is full"), "{health}");
    let term = fleet.highest("term").await;
    lasting(Duration::from_secs(10)).await;
    assert_eq!(fleet.highest("term").await, term, "a node without room stands for nothing");
    let mut all = vec![filled];
    for at in [(full + 1) % 3, (full + 2) % 3] {
        all.push(fill(&mut fleet, at));
    }
    lasting(Duration::from_secs(10)).await;
    fleet.check_alive();
    for path in all {
        std::fs::remove_file(path).expect("is removed");
    }
    case.did("room was made at all");
    let took = fleet.one_group(3).await;
    // A start is a command: it is taken again.
    let applied = fleet.highest("applied").await;
    fleet.kill(full);
    fleet.start(full, &Start::default());
    within("a command is taken", FORMING, async || fleet.highest("applied").await > applied).await;
    case.figure(format_args!("whole {:.2} s after there was room", took.as_secs_f64()));
    fleet.check_alive();
}
