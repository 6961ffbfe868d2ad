//! Hurts a cluster as a [`Fault`] says, makes it well again, and knows whether it was hurt.

use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use cluster_tests::lasting;
use cluster_tests::net::Count;
use cluster_tests::net::Fault as Link;
use serde_json::Value;
use serde_json::json;
use smg::base::clock::Clock;

use super::plan::Fault;
use super::plan::NARROW;
use super::plan::Whom;
use super::world::World;
use crate::ask::ask;
use crate::case::Case;
use crate::control::fill;
use crate::fleet::STARTING;
use crate::history::database;

/// What it takes to say that a wall clock is off.
const CLOCK_IS_OFF: i64 = 30;
/// Whoever does not see its clock off by then never does.
const CLOCK_READ: Duration = Duration::from_secs(4);
/// Wide enough for what members tell each other, and narrow for a snapshot.
const SLOW: Link = Link { bytes_per_second: Some(200_000), ..NARROW };
/// How long a flush takes before the power fails.
const REAL_FLUSH: Duration = Duration::from_millis(25);
/// How long a flush takes while votes are given: time enough to see who was elected.
const SLOW_FLUSH: Duration = Duration::from_millis(120);
/// For a follower to miss a few entries, and not yet the leader.
const BEHIND: Duration = Duration::from_millis(400);
/// Entries of a log of which a snapshot lets most go.
const KEPT_MIN: u64 = 600;
/// For a snapshot to be made, and the log to go.
const LET_GO: Duration = Duration::from_secs(1);
/// A node that is asked to end does so within this: the drain timeout of every node here, and a little.
const DRAINED: Duration = Duration::from_secs(20);

/// What was done.
pub(super) struct Hurt {
    pub(super) what: String,
    /// Nodes whose own clients may notice.
    pub(super) victims: Vec<usize>,
    fault: Fault,
    counted: Count,
    files: Vec<PathBuf>,
    /// What each claim of evidence measured, and whether that is enough.
    pub(super) proofs: Vec<(&'static str, f64, bool)>,
}

/// Whoever it is, as drawn or as they are now.
async fn chosen(world: &World<'_>, whom: Whom) -> Vec<usize> {
    let len = world.fleet.nodes.len();
    let leader = world.leader().await;
    match whom {
        Whom::All => world.fleet.case.shuffled(len),
        Whom::Any => vec![world.fleet.case.entropy.below(len)],
        Whom::Leader => vec![leader.unwrap_or(0)], // not drawn, see `behind`
        Whom::Follower => {
            let others: Vec<usize> = (0..len).filter(|it| Some(*it) != leader).collect();
            vec![others[world.fleet.case.entropy.below(others.len())]]
        }
    }
}

/// Each pair of different nodes.
fn pairs(len: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..len).flat_map(move |from| (0..len).filter(move |to| *to != from).map(move |to| (from, to)))
}

/// Does it.
pub(super) async fn hurt(world: &mut World<'_>, fault: Fault) -> Hurt {
    let counted = world.fleet.lab.switch.total();
    let mut hurt =
        Hurt { what: String::new(), victims: Vec::new(), fault, counted, files: Vec::new(), proofs: Vec::new() };
    hurt.what = match fault {
        Fault::Kill(whom) | Fault::Wipe(whom) | Fault::Backup(whom) | Fault::Torn(whom) => {
            hurt.victims = chosen(world, whom).await;
            killed(world, &mut hurt)
        }
        Fault::SnapshotCut(whom) => {
            hurt.victims = chosen(world, whom).await;
            snapshot_cut(world, &mut hurt).await
        }
        Fault::Pause(whom) => {
            hurt.victims = chosen(world, whom).await;
            hurt.victims.iter().for_each(|it| world.fleet.process(*it).pause());
            format!("SIGSTOP of {:?}", hurt.victims)
        }
        Fault::Drain(whom) => {
            hurt.victims = chosen(world, whom).await;
            let victims = hurt.victims.clone();
            for at in victims {
                drain(world, at, &mut hurt).await;
            }
            format!("SIGTERM of {:?}", hurt.victims)
        }
        Fault::Roll => rolled(world, &mut hurt).await,
        Fault::Alone(whom) | Fault::Mute(whom) | Fault::Deaf(whom) => {
            let whom = chosen(world, whom).await[0];
            cut_off(world, fault, whom)
        }
        Fault::Bridge | Fault::Ring | Fault::Apart | Fault::Links(_) => linked(world, fault),
        Fault::PowerAfterVote => power_after_vote(world, &mut hurt).await,
        Fault::Power(whom) | Fault::FlushesFail(whom) | Fault::SlowDisk(whom, _) | Fault::FullDisk(whom) => {
            let whose = chosen(world, whom).await;
            disks(world, &mut hurt, whose).await
        }
        Fault::Clock(whom, seconds) => {
            let whom = chosen(world, whom).await[0];
            clock_off(world, &mut hurt, whom, seconds).await
        }
        Fault::Drift => drifting(world),
        Fault::Worker(rule) => {
            let at = world.next_worker();
            // Now: a worker that was started again has counted from 0 since.
            world.struck = world.struck_by_now().await;
            let rules = json!([serde_json::from_str::<Value>(rule).expect("a plan's rule is JSON")]);
            let status = ask(world.workers[at].address, "POST", "/sim/faults", &rules).await.map_or(0, |it| it.0);
            hurt.proofs.push(("status of the worker that takes it", status.into(), status == 200));
            format!("worker {at}: {rule}")
        }
        Fault::WorkerDies => {
            let at = world.next_worker();
            world.workers[at].process = None;
            format!("kill -9 of worker {at}")
        }
        Fault::Overload(factor) => {
            world.load.times(factor);
            hurt.victims = (0..world.fleet.nodes.len()).collect();
            format!("{factor} times the requests")
        }
    };
    world.fleet.case.did(&hurt.what);
    hurt
}

async fn clock_off(world: &World<'_>, hurt: &mut Hurt, whom: usize, seconds: i64) -> String {
    world.set_clock(whom, seconds);
    // The library reads the file once a second.
    let (begun, mut off) = (Clock.now(), 0_i64);
    while off.abs() <= CLOCK_IS_OFF && Clock.now() - begun < CLOCK_READ {
        lasting(Duration::from_millis(100)).await;
        off = clock_of(world, whom).await.unwrap_or(0);
    }
    hurt.proofs.push(("seconds that its clock is off", off as f64, off.abs() > CLOCK_IS_OFF));
    format!("the wall clock of [{whom}] is off by {seconds} s")
}

/// From half to twice the real pace each.
fn drifting(world: &World<'_>) -> String {
    let len = world.fleet.nodes.len();
    let paces: Vec<f64> = (0..len).map(|_| 0.5 * 4_f64.powf(world.fleet.case.entropy.unit())).collect();
    paces.iter().enumerate().for_each(|it| world.set_pace(it.0, *it.1));
    format!("wall clocks run at {paces:.2?} of the real pace")
}

/// Makes clocks right again; how far they were apart.
async fn drifted(world: &World<'_>) -> (&'static str, f64, bool) {
    let mut told = Vec::new();
    for at in 0..world.fleet.nodes.len() {
        told.extend(clock_of(world, at).await);
        world.set_clock(at, 0);
    }
    let apart = told.iter().max().zip(told.iter().min()).map_or(0, |it| it.0 - it.1);
    ("seconds between their clocks", apart as f64, apart > 0)
}

/// What happens to disks.
async fn disks(world: &mut World<'_>, hurt: &mut Hurt, whose: Vec<usize>) -> String {
    match hurt.fault {
        Fault::Power(_) => {
            behind(world, &whose).await;
            // A disk of this machine's memory is so fast that its cache is empty most of the time; now flushes take as long as those of a disk.
            whose.iter().for_each(|it| world.fleet.disk(*it).slow_down(REAL_FLUSH));
            lasting(REAL_FLUSH * 6 + REAL_FLUSH.mul_f64(world.fleet.case.entropy.unit())).await;
            let cuts: Vec<_> = whose.iter().map(|it| world.fleet.disk(*it).cut()).collect();
            whose.iter().for_each(|it| world.fleet.kill(*it));
            hurt.victims = whose;
            let (kept, lost) = cuts.iter().fold((0, 0), |sum, it| (sum.0 + it.kept, sum.1 + it.lost));
            hurt.proofs.push(("sectors in the caches of the disks", (kept + lost) as f64, kept + lost > 0));
            format!("power cut of {:?}: {kept} sectors kept of the cache, {lost} lost", hurt.victims)
        }
        Fault::FlushesFail(_) => {
            whose.iter().for_each(|it| world.fleet.disk(*it).fail());
            hurt.victims = whose;
            format!("flushes of the disk of {:?} fail", hurt.victims)
        }
        Fault::SlowDisk(_, ms) => {
            whose.iter().for_each(|it| world.fleet.disk(*it).slow_down(Duration::from_millis(ms)));
            format!("flushes of the disk of {whose:?} take {ms} ms")
        }
        _ => {
            hurt.files = whose.iter().map(|it| fill(&mut world.fleet, *it)).collect();
            format!("the disk of {whose:?} is full")
        }
    }
}

/// If it is the leader alone whose power fails: one of the others has not got what the two have agreed last, so that this must be on their disks.
async fn behind(world: &World<'_>, whose: &[usize]) {
    let [victim] = whose else { return };
    if world.leader().await != Some(*victim) {
        return;
    }
    // Not drawn: what is drawn after it would depend on who leads, and a life could not be lived again.
    let behind = (victim + 1) % world.fleet.nodes.len();
    world.fleet.lab.switch.set(*victim, behind, Link::cutting());
    lasting(BEHIND).await;
}

/// Who was voted for leads at most once in a term: so the vote has to be on a disk before it counts.
async fn power_after_vote(world: &mut World<'_>, hurt: &mut Hurt) -> String {
    let old = chosen(world, Whom::Leader).await[0];
    let voters: Vec<usize> = (0..world.fleet.nodes.len()).filter(|it| *it != old).collect();
    voters.iter().for_each(|it| world.fleet.disk(*it).slow_down(SLOW_FLUSH));
    cut_off(world, Fault::Alone(Whom::Leader), old);
    let (begun, mut elected) = (Clock.now(), None);
    while elected.is_none() && Clock.now() - begun < STARTING {
        lasting(Duration::from_millis(10)).await;
        let storage = world.names().await;
        for at in &voters {
            let group = world.fleet.kept(*at).await;
            let leads = group["leader"].as_str().filter(|it| storage.get(*it).is_some_and(|it| voters.contains(it)));
            elected = elected.or_else(|| Some((group["term"].as_u64()?, leads?.to_owned())));
        }
    }
    hurt.victims = (0..world.fleet.nodes.len()).collect();
    let cuts: Vec<_> = hurt.victims.iter().map(|it| world.fleet.disk(*it).cut()).collect();
    hurt.victims.iter().for_each(|it| world.fleet.kill(*it));
    let lost: usize = cuts.iter().map(|it| it.lost).sum();
    hurt.proofs.push(("sectors that they lost", lost as f64, lost > 0));
    hurt.proofs.push(("another leader was elected", f64::from(u8::from(elected.is_some())), elected.is_some()));
    let Some((term, leader)) = elected else { return "nobody was elected".to_owned() };
    world.watch.saw(term, &leader);
    format!("[{old}] is cut off; power cut of all when one of {voters:?} led term {term}: {lost} sectors lost")
}

fn killed(world: &mut World<'_>, hurt: &mut Hurt) -> String {
    for at in hurt.victims.clone() {
        let data = world.fleet.nodes[at].data.clone();
        world.fleet.kill(at);
        match hurt.fault {
            Fault::Wipe(_) => std::fs::remove_dir_all(&data).expect("it is there"),
            Fault::Torn(_) => {
                let garbage = half_written(world.fleet.case, &data);
                hurt.proofs.push(("bytes after the end of its log", garbage as f64, garbage > 0));
            }
            Fault::Backup(_) => {
                // The original starts once more, so that the copy is older than its last start.
                copy(&data, &backup(&data));
                world.start(at);
            }
            _ => {}
        }
    }
    match hurt.fault {
        Fault::Wipe(_) => format!("kill -9 of {:?}, data directory emptied", hurt.victims),
        Fault::Torn(_) => format!("kill -9 of {:?}, its log ends in a write that was torn", hurt.victims),
        Fault::Backup(_) => format!("a copy of the data directory of {:?} is kept, and it starts again", hurt.victims),
        _ => format!("kill -9 of {:?}", hurt.victims),
    }
}

/// A node that has nothing is sent a snapshot, and is killed in the middle of it.
async fn snapshot_cut(world: &mut World<'_>, hurt: &mut Hurt) -> String {
    let victim = hurt.victims[0];
    let begun = Clock.now();
    let mut leader = None;
    while leader.is_none() && Clock.now() - begun < STARTING {
        lasting(Duration::from_millis(100)).await;
        leader = world.leader().await;
        if let Some(at) = leader {
            let is_long = world.fleet.kept(at).await["last"].as_u64().is_some_and(|it| it > KEPT_MIN);
            leader = leader.filter(|at| is_long && *at != victim);
        }
    }
    if let Some(leader) = leader {
        // What it will lack is not in the log any more: entries that somebody is being sent stay, so it has to be well meanwhile.
        let _ = world.fleet.ask(leader, "POST", "/cluster/history/snapshot", &Value::Null).await; // without it nothing is sent, and the round is void
        lasting(LET_GO).await;
    }
    world.fleet.kill(victim);
    std::fs::remove_dir_all(&world.fleet.nodes[victim].data).expect("it is there");
    for other in (0..world.fleet.nodes.len()).filter(|it| *it != victim) {
        world.fleet.lab.switch.set(other, victim, SLOW);
    }
    world.start(victim);
    let (begun, mut is_sent) = (Clock.now(), false);
    while !is_sent && Clock.now() - begun < STARTING {
        lasting(Duration::from_millis(20)).await;
        for at in (0..world.fleet.nodes.len()).filter(|it| *it != victim) {
            is_sent |= world.fleet.kept(at).await["sending"].as_object().is_some_and(|it| !it.is_empty());
        }
    }
    hurt.proofs.push(("a snapshot was under way", f64::from(u8::from(is_sent)), is_sent));
    lasting(Duration::from_millis(world.fleet.case.entropy.below(600) as u64)).await;
    world.fleet.kill(victim);
    format!("kill -9 of [{victim}], data directory emptied; killed again while it was sent a snapshot")
}

async fn drain(world: &mut World<'_>, at: usize, hurt: &mut Hurt) {
    world.fleet.process(at).terminate();
    let begun = Clock.now();
    while world.fleet.process(at).ended().is_none() && Clock.now() - begun < DRAINED {
        lasting(Duration::from_millis(10)).await;
    }
    let ended = world.fleet.process(at).ended();
    hurt.proofs.push(("it ended well", f64::from(u8::from(ended.is_some())), ended.is_some_and(|it| it.success())));
    world.fleet.nodes[at].process = None;
}

async fn rolled(world: &mut World<'_>, hurt: &mut Hurt) -> String {
    hurt.victims = world.fleet.case.shuffled(world.fleet.nodes.len());
    for at in hurt.victims.clone() {
        drain(world, at, hurt).await;
        world.start(at);
        let _ = world.whole_within(STARTING).await; // what is not whole at the end is told there
    }
    format!("SIGTERM and start of {:?}, one after the other", hurt.victims)
}

fn cut_off(world: &World<'_>, fault: Fault, whom: usize) -> String {
    for other in (0..world.fleet.nodes.len()).filter(|it| *it != whom) {
        if !matches!(fault, Fault::Deaf(_)) {
            world.fleet.lab.switch.set(whom, other, Link::cutting());
        }
        if !matches!(fault, Fault::Mute(_)) {
            world.fleet.lab.switch.set(other, whom, Link::cutting());
        }
    }
    match fault {
        Fault::Mute(_) => format!("nothing that [{whom}] sends arrives"),
        Fault::Deaf(_) => format!("nothing arrives at [{whom}]"),
        _ => format!("[{whom}] is cut off"),
    }
}

fn linked(world: &World<'_>, fault: Fault) -> String {
    let len = world.fleet.nodes.len();
    let order = world.fleet.case.shuffled(len);
    for (from, to) in pairs(len) {
        let apart = from.abs_diff(to);
        let link = match fault {
            Fault::Links(link) => Some(link),
            Fault::Apart => Some(Link::cutting()),
            Fault::Ring => (apart != 1 && apart != len - 1).then(Link::cutting),
            // The one in the middle hears both sides.
            _ => (from != len / 2 && to != len / 2 && (from < len / 2) != (to < len / 2)).then(Link::cutting),
        };
        if let Some(link) = link {
            world.fleet.lab.switch.set(order[from], order[to], link);
        }
    }
    match fault {
        Fault::Links(link) => format!("links between nodes: {link:?}"),
        Fault::Apart => "each node is alone".to_owned(),
        Fault::Ring => format!("each of {order:?} hears its neighbours"),
        _ => format!("[{}] hears both {:?} and {:?}", order[len / 2], &order[..len / 2], &order[len / 2 + 1..]),
    }
}

/// Makes it well again; what it takes is begun, not waited for.
pub(super) async fn heal(world: &mut World<'_>, hurt: &mut Hurt) {
    match hurt.fault {
        Fault::Kill(_) | Fault::Drain(_) | Fault::Wipe(_) | Fault::Torn(_) => world.start_all(&hurt.victims),
        Fault::SnapshotCut(_) => {
            world.fleet.lab.switch.heal();
            world.start_all(&hurt.victims);
        }
        Fault::Backup(_) => from_backup(world, hurt).await,
        Fault::Pause(_) => hurt.victims.iter().for_each(|it| world.fleet.process(*it).resume()),
        Fault::Roll => {}
        Fault::Power(_) | Fault::PowerAfterVote => {
            world.fleet.lab.switch.heal();
            back_on(world, &hurt.victims);
        }
        Fault::FlushesFail(_) => {
            let failed: u64 = hurt.victims.iter().map(|it| world.fleet.disk(*it).hurt()).sum();
            hurt.proofs.push(("flushes that failed", failed as f64, failed > 0));
            for at in hurt.victims.clone() {
                world.fleet.disk(at).cut();
                world.fleet.kill(at);
            }
            back_on(world, &hurt.victims);
        }
        Fault::SlowDisk(..) => {
            let slow: u64 = (0..world.fleet.nodes.len())
                .map(|it| {
                    world.fleet.disk(it).slow_down(Duration::ZERO);
                    world.fleet.disk(it).hurt()
                })
                .sum();
            hurt.proofs.push(("flushes that were slow or failed until now", slow as f64, slow > 0));
        }
        Fault::FullDisk(_) => {
            let bytes: u64 = hurt.files.iter().map(|it| std::fs::metadata(it).map_or(0, |it| it.len())).sum();
            hurt.proofs.push(("bytes that filled them", bytes as f64, bytes > 0));
            hurt.files.iter().for_each(|it| std::fs::remove_file(it).expect("it is there"));
        }
        Fault::Clock(..) => (0..world.fleet.nodes.len()).for_each(|it| world.set_clock(it, 0)),
        Fault::Drift => hurt.proofs.push(drifted(world).await),
        Fault::Worker(_) => {
            let struck = world.struck_by_now().await - world.struck;
            for worker in &world.workers {
                let _ = ask(worker.address, "DELETE", "/sim/faults", &Value::Null).await; // one that is left over fails the next rounds
            }
            hurt.proofs.push(("requests that it struck", struck as f64, struck > 0));
        }
        Fault::WorkerDies => world.start_workers(),
        Fault::Overload(_) => world.load.times(1),
        Fault::Alone(_)
        | Fault::Mute(_)
        | Fault::Deaf(_)
        | Fault::Bridge
        | Fault::Ring
        | Fault::Apart
        | Fault::Links(_) => {
            let total = world.fleet.lab.switch.total();
            world.fleet.lab.switch.heal();
            let before = hurt.counted;
            let stopped = total.cut - before.cut + total.lost - before.lost + total.overrun - before.overrun;
            let late = total.delayed - before.delayed;
            hurt.proofs.push(("frames that were stopped or late", (stopped + late) as f64, stopped + late > 0));
        }
    }
    world.fleet.case.did("healed");
}

fn back_on(world: &mut World<'_>, victims: &[usize]) {
    for at in victims {
        world.fleet.disk(*at).slow_down(Duration::ZERO);
        world.fleet.disk(*at).restore().expect("the disk is there again");
    }
    world.start_all(victims);
}

/// Starts it on the copy, which must not take part, and then on its own again.
async fn from_backup(world: &mut World<'_>, hurt: &mut Hurt) {
    for at in hurt.victims.clone() {
        let own = world.fleet.nodes[at].data.clone();
        world.fleet.kill(at);
        world.fleet.nodes[at].data = backup(&own);
        let before = world.fleet.nodes[at].log.metadata().map_or(0, |it| it.len());
        world.start(at);
        let (begun, mut is_refused) = (Clock.now(), false);
        while !is_refused && Clock.now() - begun < STARTING {
            let log = std::fs::read_to_string(&world.fleet.nodes[at].log).unwrap_or_default();
            is_refused = log.get(before as usize..).is_some_and(|it| it.contains("copy or an old backup"));
            lasting(Duration::from_millis(50)).await;
        }
        hurt.proofs.push(("the copy was told that it is one", f64::from(u8::from(is_refused)), is_refused));
        world.fleet.kill(at);
        std::fs::remove_dir_all(backup(&own)).expect("it is there");
        world.fleet.nodes[at].data = own;
        world.start(at);
    }
}

/// What a write leaves that was not finished when the power went: garbage after what was confirmed. How many bytes.
fn half_written(case: &Case, data: &Path) -> usize {
    let logs = database(data, "log");
    let newest = logs.iter().max().expect("a log");
    let bytes: Vec<u8> = (0..=case.entropy.below(4000)).map(|_| case.entropy.next_u64() as u8).collect();
    let mut file = std::fs::File::options().append(true).open(newest).expect("is opened");
    file.write_all(&bytes).expect("is written");
    bytes.len()
}

fn backup(data: &Path) -> PathBuf {
    data.with_extension("backup")
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp is there");
    assert!(status.success(), "copied");
}

/// How many seconds a node's wall clock is ahead of ours, by a time that it writes down.
async fn clock_of(world: &World<'_>, at: usize) -> Option<i64> {
    let made = world.fleet.ask(at, "POST", "/v1/conversations", &json!({})).await.ok()?.1;
    let here = i64::try_from(Clock.wall().as_secs()).ok()?;
    Some(made["created_at"].as_i64()? - here)
}
