//! What a cluster must survive, as runs on virtual time: real drivers, real openraft, disks whose power can be cut. `world` is the machinery.

mod alone;
mod commands;
mod disk;
mod failover;
mod forged;
mod planted;
mod troubles;
pub(crate) mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use self::world::World;
use self::world::run;
use crate::base::ids::ClusterId;
use crate::control::Standing;
use crate::control::core::bootstrap;
use crate::control::core::bootstrap::expect;
use crate::control::machine::Command;
use crate::control::machine::Outcome;
use crate::control::machine::Refusal;
use crate::control::recover;
use crate::raft::frame;
use crate::storage::Store;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Nodes `1..=nodes` at their places, and a group of them.
async fn cluster(world: &mut World, nodes: u16, voters: usize) -> Result<(), String> {
    (1..=nodes).for_each(|at| world.place(at, usize::from(nodes)));
    (1..=nodes).for_each(|at| world.start(at));
    world.until_whole(secs(60), voters).await.map(drop)
}

/// Writes at random nodes while time passes.
async fn busy(world: &mut World, lasts: Duration) -> Result<(), String> {
    let rounds = lasts.as_millis() / 200;
    for _ in 0..rounds {
        let running: Vec<u16> = world.statuses().keys().copied().collect();
        if let Some(at) = running.get(world.entropy.below(running.len())) {
            world.write(*at);
        }
        world.run(millis(200)).await?;
    }
    Ok(())
}

fn is_copy(standing: &Standing) -> bool {
    matches!(standing, Standing::Expelled(Refusal::Copy { .. })) && standing.to_string().contains("--new-storage")
}

/// Every seed of the long run, or a few.
pub(crate) fn seeds(default: u64) -> std::ops::Range<u64> {
    0..std::env::var("SMG_SIM_SEEDS").ok().and_then(|it| it.parse().ok()).unwrap_or(default)
}

#[test]
fn three_nodes_form_one_cluster_in_whatever_order_they_start() {
    let orders: [[u16; 3]; 6] = [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]];
    for (seed, order) in (0..).zip(orders) {
        let took = run(seed, async |mut world| {
            (1..=3).for_each(|at| world.place(at, 3));
            for at in order {
                world.start(at);
                let pause = millis(world.entropy.next_u64() % 3_000);
                world.run(pause).await?;
            }
            let took = world.until_whole(secs(30), 3).await?;
            busy(&mut world, secs(5)).await?;
            let acked = world.nothing_is_lost().await?;
            if acked < 20 { Err(format!("only {acked} writes")) } else { Ok(took) }
        });
        println!("{order:?}: {took:?} after the last start");
        took.unwrap_or_else(|what| panic!("seed {seed}, {order:?}: {what}"));
    }
}

#[test]
fn a_cluster_that_was_off_comes_back_in_whatever_order_and_votes_go_on() {
    for seed in seeds(3) {
        let ran = run(seed, async |mut world| {
            cluster(&mut world, 3, 3).await?;
            busy(&mut world, secs(3)).await?;
            (1..=3).for_each(|at| world.kill(at, true));
            let first = 1 + (seed % 3) as u16;
            for at in (0..3).map(|it| 1 + (first + it) % 3) {
                world.start(at);
                world.run(millis(700)).await?;
            }
            world.until_whole(secs(30), 3).await?;
            world.nothing_is_lost().await
        });
        ran.unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

#[test]
fn a_wiped_voter_comes_back_as_another_and_is_swapped_for_the_one_it_was() {
    for seed in seeds(2) {
        let ran = run(seed, async |mut world| {
            cluster(&mut world, 3, 3).await?;
            busy(&mut world, secs(2)).await?;
            let (victim, old) = (2, world.at(2).storage);
            world.wipe(victim);
            world.start(victim);
            let is_learner = |it: &World| {
                it.leader().is_some_and(|at| it.statuses()[&at].group.learners.contains(&it.places[&2].storage))
            };
            world.until(secs(60), "the new directory follows", is_learner).await?;
            world.run(secs(240)).await?;
            assert_eq!(
                world.voters().len(),
                2,
                "it does not vote before the old one was missed for long: two of three are seen"
            );
            let is_swapped = |it: &World| {
                let voters = it.leader().map(|at| it.statuses()[&at].group.voters.clone()).unwrap_or_default();
                it.voters() == BTreeSet::from([1, 2, 3]) && voters.len() == 3 && !voters.contains(&old)
            };
            world.until(secs(120), "the swap", is_swapped).await?;
            world.nothing_is_lost().await
        });
        ran.unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

#[test]
fn of_a_data_directory_and_its_copy_one_goes_on_and_the_other_is_told() {
    for seed in seeds(4) {
        let ran = run(seed, async |mut world| {
            cluster(&mut world, 3, 3).await?;
            busy(&mut world, secs(1)).await?;
            world.copy(2, 9);
            world.start(9);
            let is_told = |it: &World| [2, 9].into_iter().any(|at| is_copy(&it.standing(at)));
            world.until(secs(30), "one is told", is_told).await?;
            busy(&mut world, secs(10)).await?;
            let told: Vec<u16> = [2, 9].into_iter().filter(|at| is_copy(&world.standing(*at))).collect();
            assert_eq!(told, [2], "the earlier start is over");
            world.kill(2, false);
            world.nothing_is_lost().await
        });
        ran.unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

#[test]
fn an_old_backup_does_not_vote_again() {
    for seed in seeds(3) {
        let ran = run(seed, async |mut world| {
            cluster(&mut world, 3, 3).await?;
            world.copy(2, 9);
            busy(&mut world, secs(1)).await?;
            for _ in 0..3 {
                world.kill(2, false);
                world.start(2);
                world.until_whole(secs(30), 3).await?;
            }
            busy(&mut world, secs(1)).await?;
            world.kill(2, false);
            // The backup of long ago is put back.
            world.start(9);
            world.until(secs(30), "it is told", |it| is_copy(&it.standing(9))).await?;
            busy(&mut world, secs(5)).await?;
            world.kill(9, false);
            world.nothing_is_lost().await
        });
        ran.unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

#[test]
fn six_fresh_nodes_that_are_split_in_halves_found_nothing_until_they_meet() {
    let refused = expect(6, Some(3)).expect_err("two groups of three could form");
    assert!(refused.to_string().contains("at least 4"), "{refused}");
    for (seed, asked) in [(1, None), (2, Some(4))] {
        let ran = run(seed, async |mut world| {
            let expected = expect(6, asked).expect("enough");
            (1..=6).for_each(|at| world.place(at, expected));
            world.split(&[1, 2, 3]);
            (1..=6).for_each(|at| world.start(at));
            world.run(secs(60)).await?;
            assert_eq!(world.clusters.len(), 0, "half of them is not enough");
            let waiting = matches!(world.standing(1), Standing::Outside(bootstrap::Standing::Waiting { seen: 3, .. }));
            assert!(waiting && world.standing(1).to_string().contains("--bootstrap-expect"), "{}", world.standing(1));
            world.heal();
            world.until_whole(secs(60), 5).await
        });
        ran.unwrap_or_else(|what| panic!("{asked:?}: {what}"));
    }
}

/// Five fresh nodes that each need three grants; only one of them sees all others.
fn overlapping(seed: u64) -> Result<Duration, String> {
    run(seed, async |mut world| {
        (1..=5).for_each(|at| world.place(at, 3));
        [(1, 4), (1, 5), (2, 4), (2, 5)].into_iter().for_each(|(a, b)| world.cut(a, b));
        let mut order = [1, 2, 3, 4, 5];
        order.rotate_left((seed % 5) as usize);
        for at in order {
            world.start(at);
            let pause = millis(world.entropy.next_u64() % 1_000);
            world.run(pause).await?;
        }
        world.until(secs(60), "a cluster", |it| it.clusters.len() == 1).await?;
        world.run(secs(20)).await?;
        world.heal();
        world.until_whole(secs(60), 5).await
    })
}

#[test]
fn five_fresh_nodes_that_see_each_other_in_part_form_one_cluster() {
    for seed in seeds(6) {
        overlapping(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

#[test]
fn a_first_node_without_seeds_that_lost_its_disk_joins_what_it_founded() {
    let ran = run(3, async |mut world| {
        world.place(1, 1);
        world.start(1);
        world.until_whole(secs(30), 1).await?;
        (2..=3).for_each(|at| world.place(at, 2));
        (2..=3).for_each(|at| world.start(at));
        world.until_whole(secs(30), 3).await?;
        busy(&mut world, secs(2)).await?;
        world.wipe(1);
        // Nobody is in sight at first: membership takes its time.
        world.split(&[1]);
        world.start(1);
        world.run(secs(6)).await?;
        world.heal();
        world.until(secs(30), "it joins", |it| matches!(it.standing(1), Standing::Member(_))).await?;
        world.run(secs(20)).await?;
        world.nothing_is_lost().await
    });
    ran.unwrap();
}

#[test]
fn a_voter_that_comes_and_goes_is_kept() {
    let ran = run(5, async |mut world| {
        cluster(&mut world, 4, 3).await?;
        let voters = world.voters();
        let flapping = *voters.iter().find(|at| world.leader() != Some(**at)).expect("one that does not lead");
        for round in 0..40_u64 {
            world.split(&[flapping]);
            world.run(secs(5 + round % 11)).await?;
            world.heal();
            world.run(secs(2)).await?;
        }
        assert_eq!(world.voters(), voters, "it was never away for five minutes");
        world.until_whole(secs(30), 3).await
    });
    ran.unwrap();
}

#[test]
fn a_leader_that_stood_still_takes_back_nothing_and_loses_nothing() {
    for seed in seeds(6) {
        let ran = run(seed, async |mut world| {
            cluster(&mut world, 3, 3).await?;
            for pause in [500, 1_500, 4_000, 10_000] {
                busy(&mut world, secs(1)).await?;
                let leader = world.leader().ok_or("no leader")?;
                let life = world.at(leader).running.as_ref().expect("it runs").life.clone();
                life.pause();
                busy(&mut world, millis(pause)).await?;
                life.resume();
                world.until_whole(secs(30), 3).await?;
            }
            let acked = world.nothing_is_lost().await?;
            if acked < 40 { Err(format!("only {acked} writes")) } else { Ok(acked) }
        });
        ran.unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

#[test]
fn when_most_voters_are_lost_one_goes_on_as_a_new_cluster_with_what_it_has() {
    for seed in seeds(3) {
        let ran = run(seed, async |mut world| {
            cluster(&mut world, 3, 3).await?;
            busy(&mut world, secs(3)).await?;
            let before = world.handle(1).and_then(|it| it.status().cluster).ok_or("no cluster")?;
            world.nothing_is_lost().await?;
            (1..=3).for_each(|at| world.kill(at, true));
            let draw = ClusterId(u128::from(seed) + 1);
            let store = Store::in_memory(world.at(1).disk.clone());
            assert_eq!(recover(&store, draw).map_err(|it| it.to_string())?, Some(draw));
            world.clusters.clear();
            world.start(1);
            world.until(secs(10), "it leads alone", |it| it.leader() == Some(1)).await?;
            assert_eq!(world.handle(1).and_then(|it| it.status().cluster), Some(draw));
            // One comes back as it was, one as it was told to.
            world.start(2);
            world.wipe(3);
            world.start(3);
            let is_told =
                |it: &World| it.standing(2).to_string().contains("rejoin with `smg mesh bootstrap --new-storage`");
            world.until(secs(30), "the one of the old cluster is told", is_told).await?;
            world.kill(2, true);
            world.until(secs(30), "two vote", |it| it.voters().len() == 2).await?;
            assert_ne!(before, draw);
            world.clusters.remove(&before);
            busy(&mut world, secs(2)).await?;
            world.nothing_is_lost().await
        });
        ran.unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

/// Again and again the leader is lost, and then, the moment it has voted, one of those who are left.
fn voted_and_gone(seed: u64) -> Result<(), String> {
    run(seed, async |mut world| {
        cluster(&mut world, 3, 3).await?;
        for _ in 0..6 {
            let leader = world.leader().ok_or("no leader")?;
            world.kill(leader, true);
            let before = world.votes();
            let voted =
                |it: &World| it.votes().into_iter().find(|vote| before.get(&vote.0) != Some(&vote.1)).map(|it| it.0);
            for _ in 0..20_000 {
                world.pass(millis(1)).await;
                if let Some(voter) = voted(&world) {
                    world.kill(voter, true);
                    break;
                }
            }
            (1..=3)
                .filter(|it| world.handle(*it).is_none())
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|it| world.start(it));
            world.until_whole(secs(30), 3).await?;
        }
        Ok(())
    })
}

#[test]
fn a_vote_that_was_told_is_on_disk() {
    for seed in seeds(2) {
        voted_and_gone(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

/// A leader that is cut off is one in its own eyes only.
fn cut_off_leader(seed: u64) -> Result<(), String> {
    run(seed, async |mut world| {
        cluster(&mut world, 3, 3).await?;
        let old = world.leader().ok_or("nobody leads")?;
        let handle = world.handle(old).expect("it runs");
        let term = handle.leads().ok_or("it does not know that it leads")?;
        let command = Command::RaiseLevel { to: 1 };
        if !handle.confirm(term, secs(1)).await || handle.lead(term, &command, secs(1)).await.is_err() {
            return Err("a leader that all hear leads nothing".to_owned());
        }
        world.split(&[old]);
        if handle.confirm(term, secs(1)).await {
            return Err("one that nobody hears is confirmed".to_owned());
        }
        let is_led = |it: &World| {
            it.places.keys().filter(|it| **it != old).any(|at| it.handle(*at).is_some_and(|it| it.leads().is_some()))
        };
        world.until(secs(30), "another leads", is_led).await?;
        if handle.lead(term, &command, secs(1)).await.is_ok() {
            return Err("one that nobody hears has decided something".to_owned());
        }
        world.heal();
        let follows = |it: &World| it.handle(old).is_some_and(|it| it.leads().is_none());
        world.until(secs(30), "it follows", follows).await?;
        // Others would take what it proposes now, but its office is over.
        if handle.lead(term, &command, secs(1)).await.is_ok() {
            return Err("it leads after its term".to_owned());
        }
        Ok(())
    })
}

#[test]
fn a_leader_that_is_cut_off_is_neither_confirmed_nor_heard() {
    for seed in seeds(3) {
        cut_off_leader(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

#[test]
fn the_feature_level_waits_for_the_last_node_and_then_holds_older_ones_off() {
    let ran = run(7, async |mut world| {
        (1..=3).for_each(|at| world.place(at, 3));
        (1..=3).for_each(|at| world.start(at));
        world.until_whole(secs(30), 3).await?;
        let raise = async |world: &World| {
            world.handle(1).expect("it runs").propose(&Command::RaiseLevel { to: 2 }, secs(5)).await
        };
        for at in [2, 1] {
            assert!(matches!(raise(&world).await, Ok(Outcome::Refused(Refusal::HeldBack(_)))));
            world.kill(at, false);
            world.at(at).level_max = 2;
            world.start(at);
            world.until_whole(secs(30), 3).await?;
            assert_eq!(world.handle(1).and_then(|it| it.read(|it| it.level_in_reach())), Some(1));
        }
        world.kill(3, false);
        world.at(3).level_max = 2;
        world.start(3);
        world.until_whole(secs(30), 3).await?;
        let in_reach = |it: &World| it.handle(1).and_then(|it| it.read(|it| it.level_in_reach())) == Some(2);
        world.until(secs(10), "the last one's start is known", in_reach).await?;
        assert_eq!(raise(&world).await, Ok(Outcome::Changed));
        world.until(secs(10), "all at level 2", |it| it.statuses().values().all(|it| it.level == 2)).await?;
        world.place(4, 3);
        world.start(4);
        let is_old = |it: &World| it.standing(4) == Standing::Expelled(Refusal::TooOld(2));
        world.until(secs(30), "an older release is told", is_old).await?;
        world.kill(4, false);
        world.nothing_is_lost().await
    });
    ran.unwrap();
}

#[test]
fn a_lost_voter_is_replaced_by_one_in_a_zone_without() {
    let ran = run(11, async |mut world| {
        (1..=5).for_each(|at| world.place(at, 3));
        for (at, zone) in [(1, "a"), (2, "b"), (3, "c"), (4, "a"), (5, "c")] {
            world.at(at).zone = zone;
        }
        (1..=3).for_each(|at| world.start(at));
        world.until_whole(secs(30), 3).await?;
        world.start(4);
        world.run(secs(10)).await?;
        let lost = if world.leader() == Some(3) { 1 } else { 3 };
        world.kill(lost, false);
        world.run(secs(5)).await?;
        world.start(5);
        let replacement = if lost == 3 { 5 } else { 4 };
        world.run(secs(250)).await?;
        assert!(!world.voters().contains(&replacement), "not before five minutes");
        world.until(secs(120), "the swap", |it| it.voters().contains(&replacement)).await?;
        assert_eq!(world.voters().len(), 3);
        Ok(())
    });
    ran.unwrap();
}

#[test]
fn strangers_and_lives_that_are_over_are_not_heard() {
    let ran = run(13, async |mut world| {
        cluster(&mut world, 4, 3).await?;
        let (leader, voters) = (world.leader().ok_or("no leader")?, world.voters());
        let fourth = (1..=4).find(|it| !voters.contains(it)).expect("three vote");
        let forgotten = world.at(fourth).storage;
        world.kill(fourth, true);
        let command = Command::Forget { storage: forgotten };
        let outcome = world.handle(leader).expect("it runs").propose(&command, secs(5)).await;
        assert_eq!(outcome, Ok(Outcome::Changed));
        let (term, refused) = {
            let running = world.places[&leader].running.as_ref().expect("it runs");
            let before = running.handle.status().group.term;
            for refusal in world.forge(leader, forgotten).await {
                let (made, expected) = refusal;
                assert_eq!(made, Some(expected), "a forged message");
            }
            (before, running.metrics.refusals(frame::Refusal::Outsider))
        };
        world.run(secs(5)).await?;
        let after = world.statuses().values().map(|it| it.group.term).max();
        assert_eq!((after, refused), (Some(term), 3), "no term was raised");
        Ok(())
    });
    ran.unwrap();
}

#[test]
fn a_command_that_nobody_can_read_is_not_taken() {
    use crate::control::messages::Answer;
    use crate::control::messages::Message;
    use crate::transport::lanes::Lane;
    let ran = run(14, async |mut world| {
        cluster(&mut world, 3, 3).await?;
        let leader = world.leader().ok_or("no leader")?;
        let member = (1..=3).find(|it| *it != leader).map(|it| world.at(it).storage).ok_or("no other")?;
        let cluster = world.statuses()[&leader].cluster.ok_or("no cluster")?;
        for command in [b"".to_vec(), b"\x01garbage".to_vec(), b"\x02".to_vec(), vec![0xFF; 100]] {
            let bytes = Message::Propose { cluster, command }.encode().expect("it has an encoding");
            let answer = world.tell(leader, member, Lane::Raft, bytes).await.and_then(|it| Answer::decode(&it).ok());
            assert_eq!(answer, Some(Answer::NotLeader(None)));
        }
        // It would stop at the first of them, and so would whoever starts again.
        busy(&mut world, secs(3)).await?;
        (1..=3).for_each(|at| world.kill(at, true));
        (1..=3).for_each(|at| world.start(at));
        world.until_whole(secs(30), 3).await?;
        busy(&mut world, secs(2)).await?;
        let acked = world.nothing_is_lost().await?;
        if acked < 10 { Err(format!("only {acked} writes")) } else { Ok(()) }
    });
    ran.unwrap();
}
