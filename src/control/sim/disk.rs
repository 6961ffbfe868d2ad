//! Disks that are full, and disks that fail. A full one refuses and goes on when there is room; one that fails stops its node, and nothing that was
//! acknowledged is lost.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use super::busy;
use super::cluster;
use super::commands;
use super::millis;
use super::run;
use super::secs;
use super::seeds;
use super::world::World;
use crate::base::clock::Clock;
use crate::control::ControlError;
use crate::control::machine;
use crate::limits::LimitId;
use crate::storage::ROOM_MIN;
use crate::storage::memory::Broken;

/// Less than anything is begun with, and enough for what must not be refused.
const FULL: Option<u64> = Some(ROOM_MIN - 1);
const ABORTED: i32 = 6;

fn fill(world: &mut World, places: impl IntoIterator<Item = u16>, free: Option<u64>) {
    places.into_iter().for_each(|at| world.at(at).disk.leave(free));
}

async fn is_taken(world: &World, number: u8) -> Result<machine::Outcome, ControlError> {
    let at = world.statuses().keys().next_back().copied().expect("one runs");
    // No other is that high.
    let command = commands::mint(LimitId(u64::MAX - u64::from(number)), 1);
    world.handle(at).expect("it runs").propose(&command, secs(10)).await
}

#[test]
fn a_leader_whose_disk_is_full_lets_another_lead_and_no_term_is_lost_after_that() {
    for seed in seeds(4) {
        let ran = run(seed, async |mut world| {
            cluster(&mut world, 3, 3).await?;
            // A leader asks for the place to go on from otherwise where its log is long.
            busy(&mut world, secs(10 * (seed % 2))).await?;
            let full = world.leader().ok_or("no leader")?;
            fill(&mut world, [full], FULL);
            let another = |it: &World| it.leader().is_some_and(|it| it != full);
            world.until(secs(15), "another leads", another).await?;
            assert_eq!(is_taken(&world, 1).await, Ok(machine::Outcome::Changed));
            let term = |it: &World| it.statuses().values().map(|it| it.group.term).max();
            let before = term(&world);
            busy(&mut world, secs(30)).await?;
            assert_eq!(term(&world), before, "the one without room follows, and stands for nothing");
            fill(&mut world, [full], None);
            world.until_whole(secs(30), 3).await?;
            assert_eq!(term(&world), before);
            assert!((1..=3).all(|at| !world.has_stopped(at)));
            world.nothing_is_lost().await
        });
        ran.unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

/// No disk has room, and one node is started anew meanwhile.
pub(super) fn all_full(seed: u64) -> Result<(), String> {
    run(seed, async |mut world| {
        cluster(&mut world, 3, 3).await?;
        busy(&mut world, secs(1)).await?;
        fill(&mut world, 1..=3, FULL);
        let refused = is_taken(&world, 1).await;
        if !matches!(refused, Err(ControlError::NoRoom | ControlError::Unanswered)) {
            return Err(format!("taken without room: {refused:?}"));
        }
        let at = 1 + (seed % 3) as u16;
        world.kill(at, true);
        fill(&mut world, [at], FULL);
        world.start(at);
        busy(&mut world, secs(20)).await?;
        fill(&mut world, 1..=3, None);
        world.until_whole(secs(30), 3).await?;
        assert!((1..=3).all(|at| !world.has_stopped(at)));
        assert_eq!(is_taken(&world, 2).await, Ok(machine::Outcome::Changed));
        world.nothing_is_lost().await.map(drop)
    })
}

#[test]
fn when_all_disks_are_full_nothing_is_taken_and_with_room_it_goes_on() {
    for seed in seeds(4) {
        all_full(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

#[test]
fn fresh_nodes_with_full_disks_found_nothing_until_there_is_room() {
    let ran = run(5, async |mut world| {
        (1..=3).for_each(|at| world.place(at, 3));
        fill(&mut world, 1..=3, FULL);
        (1..=3).for_each(|at| world.start(at));
        world.run(secs(20)).await?;
        assert_eq!(world.clusters.len(), 0);
        fill(&mut world, 1..=3, None);
        world.until_whole(secs(30), 3).await
    });
    ran.unwrap();
}

/// The disk of the leader, or of a follower, fails in this way.
fn failing(seed: u64, what: Broken, is_leader: bool) -> Result<usize, String> {
    run(seed, async |mut world| {
        cluster(&mut world, 3, 3).await?;
        busy(&mut world, secs(1)).await?;
        let leader = world.leader().ok_or("no leader")?;
        let at = if is_leader { leader } else { 1 + leader % 3 };
        world.at(at).disk.breaks(what);
        busy(&mut world, secs(8)).await?;
        if !world.has_stopped(at) {
            return Err("it goes on".to_owned());
        }
        // Whoever looked after it gave it a disk that works, with what the old one has for certain.
        world.kill(at, true);
        world.start(at);
        world.until_whole(secs(30), 3).await?;
        world.nothing_is_lost().await
    })
}

#[test]
fn a_disk_that_fails_stops_its_node_and_nothing_is_lost() {
    for what in [Broken::Writes, Broken::Fsyncs] {
        for is_leader in [true, false] {
            let acked = failing(6, what, is_leader);
            assert!(acked.as_ref().is_ok_and(|it| *it > 20), "{what:?}, leader {is_leader}: {acked:?}");
        }
    }
}

/// The process is aborted, so it is another one.
#[test]
fn a_disk_that_cannot_be_read_stops_its_process() {
    const CHILD: &str = "SMG_TEST_DISK_CANNOT_BE_READ";
    if std::env::var_os(CHILD).is_some() {
        let ended = failing(7, Broken::Reads, true);
        println!("it goes on: {ended:?}");
        return;
    }
    let name = "control::sim::disk::a_disk_that_cannot_be_read_stops_its_process";
    let mut child = Command::new(std::env::current_exe().expect("this process has a file"));
    let ended = child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().expect("it starts");
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(said.contains("running 1 test") && !said.contains("it goes on"), "{said}");
    assert_eq!(ended.status.signal(), Some(ABORTED), "{said}");
}

/// A cluster in which a follower is behind what the leader's log still has, and is reached again. Answers the leader and that follower.
async fn far_behind(world: &mut World, is_old: bool) -> Result<(u16, u16), String> {
    cluster(world, 3, 3).await?;
    let leader = world.leader().ok_or("no leader")?;
    let away = 1 + leader % 3;
    world.kill(away, false);
    world.at(away).is_old = is_old;
    world.start(away);
    world.until_whole(secs(60), 3).await?;
    world.split(&[away]);
    for _ in 0..110 {
        let at = 1 + (away + 1) % 3;
        (0..11).for_each(|_| world.write(at));
        world.write_wide(at);
        world.run(millis(200)).await?;
    }
    assert_eq!(world.traffic().firsts, 0);
    world.heal();
    Ok((leader, away))
}

/// A follower that is behind what the leader's log still has gets a snapshot, also if it loses its power in the middle of one.
#[test]
fn a_member_that_was_away_for_long_is_brought_up_by_a_snapshot() {
    let scenario = |seed, is_old| {
        run(seed, async |mut world| {
            let (leader, away) = far_behind(&mut world, is_old).await?;
            let pieces = |it: &World| if is_old { it.traffic().pieces_between } else { it.traffic().pieces };
            let storage = world.at(away).storage;
            let told = |it: &World| it.statuses()[&leader].group.sending.get(&storage).copied().unwrap_or_default();
            let until = Clock.now() + secs(30);
            while pieces(&world) < 2 || told(&world) == 0 {
                assert!(Clock.now() < until, "it gets pieces, and the leader tells so: {:?}", world.traffic());
                world.pass(millis(1)).await;
            }
            world.kill(away, true);
            world.start(away);
            world.until_whole(secs(60), 3).await?;
            let acked = world.nothing_is_lost().await?;
            let traffic = world.traffic();
            println!("seed {seed}, old {is_old}: {acked} acknowledged, {traffic:?}");
            assert!(acked > 1_280, "more than a log keeps: {acked}");
            assert_eq!(traffic.entries_max, 64, "as many as one message has at most: {traffic:?}");
            let elsewhere = if is_old { traffic.pieces } else { traffic.pieces_between };
            assert_eq!(elsewhere, 0, "{traffic:?}");
            assert!(world.statuses().values().all(|it| it.group.sending.is_empty()), "told when it is over");
            Ok(())
        })
    };
    for seed in seeds(1) {
        for is_old in [false, true] {
            scenario(seed, is_old).unwrap_or_else(|what| panic!("seed {seed}, old {is_old}: {what}"));
        }
    }
}

/// A snapshot that is put in place for longer than a message is waited for is not sent again.
#[test]
fn a_snapshot_that_takes_long_to_be_put_in_place_is_sent_once() {
    for seed in seeds(3) {
        let ran = run(seed, async |mut world| {
            let (_, away) = far_behind(&mut world, false).await?;
            let until = Clock.now() + secs(30);
            while world.traffic().lasts == 0 {
                assert!(Clock.now() < until, "it gets all pieces: {:?}", world.traffic());
                world.pass(millis(1)).await;
            }
            let life = world.at(away).running.as_ref().map(|it| it.life.clone()).expect("it runs");
            let before = world.traffic();
            life.pause();
            world.run(secs(20)).await?;
            life.resume();
            world.until_whole(secs(60), 3).await?;
            world.run(secs(10)).await?;
            let traffic = world.traffic();
            assert_eq!(traffic.firsts, before.firsts, "{traffic:?}");
            assert!(traffic.lasts > 1, "it was asked again: {traffic:?}");
            world.nothing_is_lost().await
        });
        ran.unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

/// A follower missed what the leader's log still has: large entries, mostly.
pub(super) fn a_little_behind(seed: u64) -> Result<(), String> {
    run(seed, async |mut world| {
        cluster(&mut world, 3, 3).await?;
        let away = world.leader().map(|it| 1 + it % 3).ok_or("no leader")?;
        world.split(&[away]);
        for _ in 0..12 {
            let at = 1 + (away + 1) % 3;
            world.write(at);
            (0..2).for_each(|_| world.write_large(at));
            world.run(millis(200)).await?;
        }
        world.heal();
        world.nothing_is_lost().await?;
        let traffic = world.traffic();
        println!("seed {seed}: {traffic:?}");
        assert_eq!(traffic.pieces, 0, "the log has it all");
        assert!(traffic.bytes_max > 500_000, "nothing is shown: {traffic:?}");
        if traffic.bytes_max <= (1 << 20) + (16 << 10) {
            Ok(())
        } else {
            Err(format!("a message takes longer than a heartbeat: {traffic:?}"))
        }
    })
}

#[test]
fn what_a_member_missed_travels_in_small_messages() {
    for seed in seeds(1) {
        a_little_behind(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}
